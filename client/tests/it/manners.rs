//! How an agent behaves towards servers and programs in trouble.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use tidegate_client::Error;
use tidegate_client::agent::{Health, HealthCommand, Next};
use tidegate_client::command::Command;
use tidegate_client::disk::Disk;
use tidegate_client::state::State;

use crate::board::{Board, WELL, mirror};
use crate::mirror::{Trick, scratch};

fn command(words: &[&str]) -> Command {
    Command::new(words.iter().map(|&word| word.to_owned()), Duration::from_secs(600))
}

#[test]
fn retry_after_is_obeyed_within_a_day() {
    for (asked, least, most) in [(1, 30, 60), (3600, 3600, 3600), (u64::MAX, 86_400, 86_400)] {
        let (folder, mirror) = (scratch(), mirror(WELL));
        let board = Board::new(folder.path(), &mirror);
        let image = mirror.sim().files.keys().find(|file| file.ends_with(".image.bin")).unwrap().clone();
        for file in ["metadata/timestamp.json", &image] {
            mirror.behave();
            mirror.trick(file, Trick::Busy(Duration::from_secs(asked)));
            board.check(Disk::new()).unwrap_err();
            let State::Waiting { until: Some(until), .. } = board.state() else { panic!("{}", board.state()) };
            let pause = until - board.now;
            // The second failure in a row doubles what the device chooses itself.
            assert!(pause >= TimeDelta::seconds(least) && pause <= TimeDelta::seconds(most * 2), "{asked}: {pause}");
        }
    }
}

#[test]
fn a_failing_restart_is_counted_until_it_succeeds() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.options.restart = Some(command(&["false"]));
    for failures in 1..=12 {
        assert!(matches!(board.check(Disk::new()), Err(Error::Restart(_))));
        let status = board.status().update;
        assert!(matches!(status.state, State::Rebooting { .. }), "{}", status.state);
        assert_eq!(status.failures, failures);
        // Twice as long each time, up to four hours, less up to a half by chance.
        let pause = (status.restart.unwrap() - board.now).num_seconds();
        let longest = (60 << (failures - 1)).min(4 * 3600);
        assert!((longest / 2..=longest).contains(&pause), "failure {failures}: {pause} s");
        assert_eq!(status.again_at(), status.restart);
    }
    // The command succeeds; until the device has restarted, that is all.
    board.options.restart = Some(command(&["true"]));
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    board.restart();
    board.check(Disk::new()).unwrap();
    let status = board.status().update;
    assert!(matches!(status.state, State::Confirmed { .. }), "{}", status.state);
    assert_eq!((status.failures, status.restart), (0, None));
}

#[test]
fn a_health_command_is_stopped_when_the_trial_ends() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.options.health = Health::Command(HealthCommand {
        command: command(&["sleep", "600"]),
        within: Duration::from_secs(1),
        every: Duration::from_secs(10),
    });
    board.check(Disk::new()).unwrap();
    board.restart();
    let started = Instant::now();
    assert!(matches!(board.check(Disk::new()).unwrap(), Next::Look { .. }));
    assert!(started.elapsed() < Duration::from_secs(60));
    board.pass(1);
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    assert!(matches!(board.state(), State::RolledBack { .. }), "{}", board.state());
}
