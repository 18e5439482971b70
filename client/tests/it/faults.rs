//! Faults through whole updates, all of them enumerated, and what came of each, as a table.
//!
//! After each fault the board runs the old image or the new one, whole; and without further faults it gets to where it would have
//! got: the well image confirmed, the unwell one taken back and quarantined. Every fault of the disk is tried twice: with the process
//! starting again in the same boot, and with the power gone. `cargo test -p tidegate-client --test it faults -- --nocapture`
//! prints the table.

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Arc;

use chrono::TimeDelta;
use tidegate_client::agent::Health;
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::install::{Artifact, InstallError, Installer};
use tidegate_client::state::State;

use crate::board::{Board, OLD, UNWELL, WELL, repository};
use crate::fleet::{assign, channel, release_image};
use crate::mirror::{Mirror, Trick, scratch};

/// What kind of update it is, by the image's fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Update {
    Well,
    Unwell,
}

impl Update {
    /// Several blocks long, so that faults fall between them.
    fn image(self) -> Vec<u8> {
        let kind = if self == Self::Well { WELL } else { UNWELL };
        kind.iter().copied().chain((0..140_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)).collect()
    }

    fn mirror(self) -> Mirror {
        Mirror::of(repository(&self.image()))
    }

    /// Whether the board is where it must end.
    fn is_done(self, board: &Board) -> bool {
        let status = board.status();
        match self {
            Self::Well => board.runs() == self.image() && status.device.installed.sequence == 12,
            Self::Unwell => {
                let quarantined = status.quarantined.iter().any(|release| release.sequence == 12);
                board.runs() == OLD && status.device.installed.sequence == 0 && quarantined
            }
        }
    }
}

/// Checks what must hold after a fault; says what does not.
fn aftermath(update: Update, board: &Board, power_lost: bool) -> Result<(), String> {
    let whole = |board: &Board| board.runs() == OLD || board.runs() == update.image();
    if power_lost {
        board.restart();
    }
    if !whole(board) {
        return Err("neither the old image nor the new one runs".into());
    }
    // Failures on the way may ask for patience: time passes.
    let mut board = Board::existing(&board.folder, &board.mirror).with_health();
    for _ in 0..4 {
        board.run(&Disk::new()).map_err(|e| format!("the next run failed: {e}"))?;
        if !whole(&board) {
            return Err("after the next run neither the old image nor the new one runs".into());
        }
        if update.is_done(&board) {
            // And it stays so, whatever restarts.
            board.restart();
            board.run(&Disk::new()).map_err(|e| format!("a later run failed: {e}"))?;
            return if update.is_done(&board) { Ok(()) } else { Err("it did not stay".into()) };
        }
        board.now += TimeDelta::hours(5);
    }
    Err(format!("the update did not complete: {}, {:?}", board.state(), board.status().quarantined))
}

#[derive(Default)]
struct Table {
    rows: Vec<(String, usize, Vec<String>)>,
}

impl Table {
    /// Tries each of these faults on a board of its own.
    fn add(&mut self, name: &str, count: usize, fault: impl Fn(usize) -> Result<(), String>) {
        let lost = (0..count)
            .filter_map(|n| match catch_unwind(AssertUnwindSafe(|| fault(n))) {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(format!("{name}, {n}: {why}")),
                Err(_) => Some(format!("{name}, {n}: a panic")),
            })
            .collect();
        self.rows.push((name.to_owned(), count, lost));
    }

    fn total(&self) -> usize {
        self.rows.iter().map(|(_, count, _)| count).sum()
    }

    /// Prints the table, and fails if a fault was lost.
    fn finish(self) {
        println!("{:<58} {:>6} {:>5}", "fault", "tried", "lost");
        for (name, count, lost) in &self.rows {
            println!("{name:<58} {count:>6} {:>5}", lost.len());
        }
        let lost: Vec<_> = self.rows.iter().flat_map(|(_, _, lost)| lost).collect();
        println!("{:<58} {:>6} {:>5}", "all", self.total(), lost.len());
        assert!(lost.is_empty(), "{} faults were lost:\n{lost:#?}", lost.len());
    }
}

/// How many steps a whole update takes on the disk and with the boot loader.
fn steps(update: Update, mirror: &Mirror) -> usize {
    let folder = scratch();
    let counted = Faults::none();
    let board = Board::new(folder.path(), mirror).with_health();
    board.run(&Disk::with_faults(counted.clone())).unwrap();
    assert!(update.is_done(&board));
    counted.steps()
}

type Plan = fn(usize) -> Arc<Faults>;

#[test]
fn disk_and_boot_loader_when_all_is_well() {
    disk_and_boot_loader(Update::Well);
}

#[test]
fn disk_and_boot_loader_when_it_is_not() {
    disk_and_boot_loader(Update::Unwell);
}

fn disk_and_boot_loader(update: Update) {
    const PLANS: [(&str, Plan); 4] = [
        ("stopped for good at step n", Faults::stop_at),
        ("EIO at step n", |n| Faults::fail_at(n, io::ErrorKind::Other)),
        ("ENOSPC at step n", |n| Faults::fail_at(n, io::ErrorKind::StorageFull)),
        ("ENOSPC from step n on", Faults::full_from),
    ];
    let mut table = Table::default();
    let mirror = update.mirror();
    let steps = steps(update, &mirror);
    for (name, plan) in PLANS {
        for (power_lost, how) in [(false, "process again"), (true, "power lost")] {
            table.add(&format!("{update:?}: {name}, {how}"), steps, |n| {
                let folder = scratch();
                let board = Board::new(folder.path(), &mirror).with_health();
                // Whether it fails depends on the step; what counts is what comes after.
                let _ = board.run(&Disk::with_faults(plan(n)));
                aftermath(update, &board, power_lost)
            });
        }
    }
    assert!(table.total() >= 1_000, "{}", table.total());
    table.finish();
}

/// The process is killed by a signal that cannot be caught, at every step of a whole update.
#[test]
fn sigkill() {
    let mut table = Table::default();
    let this = std::env::current_exe().unwrap();
    for update in [Update::Well, Update::Unwell] {
        let mirror = update.mirror();
        let steps = steps(update, &mirror);
        table.add(&format!("{update:?}: SIGKILL at step n"), steps, |n| {
            let folder = scratch();
            let board = Board::new(folder.path(), &mirror).with_health();
            let output = Command::new(&this)
                .args(["--exact", "faults::killed", "--ignored", "--nocapture"])
                .env("TIDEGATE_TEST_BOARD", folder.path())
                .env("TIDEGATE_TEST_UPDATE", format!("{update:?}"))
                .env("TIDEGATE_TEST_KILL_AT", n.to_string())
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
            if signal != Some(9) {
                return Err(format!("it was not killed: {output:?}"));
            }
            aftermath(update, &board, n % 2 == 1)
        });
    }
    table.finish();
}

/// Not a test of its own: the process that `sigkill` starts.
#[test]
#[ignore = "it is started by another test, to be killed"]
fn killed() {
    let Some(folder) = std::env::var_os("TIDEGATE_TEST_BOARD") else { return };
    let at = std::env::var("TIDEGATE_TEST_KILL_AT").unwrap().parse().unwrap();
    let update = if std::env::var("TIDEGATE_TEST_UPDATE").unwrap() == "Well" { Update::Well } else { Update::Unwell };
    let board = Board::existing(folder.as_ref(), &update.mirror()).with_health();
    let _ = board.run(&Disk::with_faults(Faults::kill_at(at)));
}

/// The network is cut at every kilobyte of all metadata, and at places all over the artifact.
#[test]
fn network() {
    // Enough cohorts to make the metadata many kilobytes long.
    let names: Vec<String> = (0..100).map(|index| format!("cohort-{index}")).collect();
    let cohorts: Vec<_> = names.iter().map(|name| (name.as_str(), Some(10_000))).collect();
    let mut sim = channel(&cohorts);
    let image = Update::Well.image();
    let bytes = release_image(&mut sim, "cohort-0", "1.2.0", 12, &image);
    for name in &names[1..] {
        assign(&mut sim, name, &bytes, &serde_json::json!({}));
    }
    let roles: Vec<String> = names.iter().map(|name| format!("stable.{name}")).collect();
    sim.publish(&roles.iter().map(String::as_str).collect::<Vec<_>>());
    sim.publish(&["stable", "snapshot", "timestamp"]);
    let mirror = Mirror::of(sim);
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror).with_health();
    board.run(&Disk::new()).unwrap();
    let transfers = mirror.take_transfers();

    let update = Update::Well;
    let cut = |file: &str, at: usize| {
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror).with_health();
        mirror.trick(file, Trick::Cut(at));
        let error = board.run(&Disk::new());
        mirror.behave();
        match error {
            Err(e) if e.fault() == tidegate_client::Fault::Network => aftermath(update, &board, at.is_multiple_of(2)),
            other => Err(format!("cut at {at} of {file}: {other:?}")),
        }
    };
    let mut table = Table::default();
    let mut places = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (file, length) in transfers {
        if !file.ends_with("image.bin") && length > 0 && seen.insert(file.clone()) {
            places.extend((0..length).step_by(1024).map(|at| (file.clone(), at)));
        }
    }
    table.add("network cut at every kilobyte of metadata", places.len(), |n| cut(&places[n].0, places[n].1));

    let file = seen_image(&mirror);
    let spread = |range: Range<usize>, n: usize| {
        // Places that look random and are the same at every run.
        range.start + (n.wrapping_mul(2_654_435_761) >> 7) % (range.end - range.start)
    };
    table.add("network cut at a random place of the artifact", 200, |n| cut(&file, spread(0..image.len(), n)));

    table.add("server that lies about ranges", 60, |n| {
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror).with_health();
        mirror.trick(&file, Trick::Cut(spread(1..image.len(), n)));
        let _ = board.run(&Disk::new());
        mirror.trick(&file, Trick::WrongRange(n % 3));
        let _ = board.run(&Disk::new());
        mirror.behave();
        aftermath(update, &board, n.is_multiple_of(2))
    });

    table.add("file that changes while it is fetched", 40, |n| {
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror).with_health();
        let at = spread(1..image.len(), n);
        let mut other = image.clone();
        other[at - 1] ^= 1;
        mirror.trick(&file, Trick::Cut(at));
        let _ = board.run(&Disk::new());
        mirror.trick(&file, Trick::Bytes(other));
        let _ = board.run(&Disk::new());
        mirror.behave();
        aftermath(update, &board, n.is_multiple_of(2))
    });
    table.finish();
}

fn seen_image(mirror: &Mirror) -> String {
    mirror.sim().files.keys().find(|file| file.ends_with("image.bin")).unwrap().clone()
}

/// The power goes at every moment between two calls of the agent, once and twice.
#[test]
fn reboots_hooks_and_clocks() {
    let mut table = Table::default();
    for update in [Update::Well, Update::Unwell] {
        let mirror = update.mirror();
        table.add(&format!("{update:?}: power lost between calls of the agent"), 12, |n| {
            let folder = scratch();
            let board = Board::new(folder.path(), &mirror).with_health();
            for call in 0..6 {
                if let Ok(tidegate_client::agent::Next::Restart) = board.check(Disk::new()) {
                    board.restart();
                }
                if call == n % 6 {
                    board.restart();
                    if n >= 6 {
                        board.restart();
                    }
                }
            }
            aftermath(update, &board, false)
        });

        table.add(&format!("{update:?}: a health command that hangs"), 1, |_| {
            let folder = scratch();
            let mut board = Board::new(folder.path(), &mirror).with_health();
            let hangs = ["sh", "-c", "sleep 600"].map(String::from);
            let limit = std::time::Duration::from_millis(50);
            let Health::Command(health) = &mut board.options.health else { panic!() };
            health.command = tidegate_client::command::Command::new(hangs, limit);
            board.run(&Disk::new()).map_err(|e| e.to_string())?;
            let quarantined = !board.status().quarantined.is_empty();
            if board.runs() == OLD && quarantined { Ok(()) } else { Err(board.state().to_string()) }
        });

        table.add(&format!("{update:?}: a boot hook that hangs at its n-th call"), 8, |n| {
            let folder = scratch();
            let board = Board::new(folder.path(), &mirror).with_health().with_hook_hanging_at(n);
            let _ = board.run(&Disk::new());
            let calls: usize = std::fs::read_to_string(folder.path().join("calls")).unwrap().trim().parse().unwrap();
            if calls <= n {
                return Err(format!("it was called {calls} times only"));
            }
            aftermath(update, &board, n % 2 == 1)
        });

        let jumps = [-60 * 365, -365, -1, 1, 29, 31, 365, 60 * 365];
        for calls in 0..3 {
            table.add(&format!("{update:?}: the clock jumps by years before call {calls}"), jumps.len(), |n| {
                let folder = scratch();
                let mut board = Board::new(folder.path(), &mirror).with_health();
                for call in 0..4 {
                    let right = board.now;
                    if call == calls {
                        board.now += TimeDelta::days(jumps[n]);
                    }
                    if let Ok(tidegate_client::agent::Next::Restart) = board.check(Disk::new()) {
                        board.restart();
                    }
                    board.now = right;
                }
                aftermath(update, &board, false)
            });
        }
    }
    table.finish();
}

/// An installer that takes the power down.
struct Deadly;

impl Installer for Deadly {
    fn install(
        &mut self,
        _: &tidegate_model::version::Version,
        _: &[Artifact],
        _: &mut tidegate_client::watch::Watch<'_>,
    ) -> Result<(), InstallError> {
        panic!("the power is gone");
    }

    fn running(&mut self) -> Result<Option<String>, InstallError> {
        Ok(Some("a".into()))
    }
}

#[test]
fn a_release_that_crashes_the_board_is_given_up() {
    let mirror = Update::Well.mirror();
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror);
    board.adjust = |builder| builder.installer(Deadly);
    let limit = board.options.tolerance.attempts;
    for _ in 0..limit {
        assert!(catch_unwind(AssertUnwindSafe(|| board.check(Disk::new()))).is_err());
        assert!(matches!(board.state(), State::Installing { .. }));
        board.restart();
    }
    board.check(Disk::new()).unwrap();
    assert!(matches!(board.state(), State::Quarantined { .. }), "{}", board.state());
    assert_eq!((board.runs().as_slice(), board.status().quarantined.len()), (OLD, 1));
}
