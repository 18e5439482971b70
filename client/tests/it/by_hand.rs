//! A device that a program drives step by step, without an agent: the installer and the record say the same, whatever happens.

use tidegate_client::Error;
use tidegate_client::agent::Next;
use tidegate_client::device::InstallState;
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::state::State;
use tidegate_client::watch::unwatched;
use tidegate_model::decision::Outcome;

use crate::board::{Board, OLD, mirror};
use crate::mirror::scratch;

const NEW: &[u8] = b"the new image is well";

/// What a program of an integrator does each time it starts. Whether the device must restart now.
fn start(board: &Board, disk: &Disk, is_well: bool) -> Result<bool, Error> {
    let mut device = board.open(disk)?;
    let check = device.check()?;
    let next = match (&device.machine().state, check.update) {
        (State::Trial { .. }, _) if is_well => {
            device.confirm()?;
            return Ok(false);
        }
        (State::Trial { .. }, _) => device.reject()?,
        (State::Rebooting { .. } | State::RolledBack { .. }, _) => Next::Restart,
        (_, Some(update)) => {
            let downloaded = device.download(&update, &mut unwatched)?;
            device.install(&downloaded, &mut unwatched)?
        }
        (_, None) => return Ok(false),
    };
    Ok(next == Next::Restart)
}

/// Starts the program until it has nothing more to do.
fn live(board: &Board, disk: &Disk, is_well: bool) -> Result<(), Error> {
    for _ in 0..10 {
        if !start(board, disk, is_well)? {
            return Ok(());
        }
        board.restart();
    }
    panic!("it never ends: {}", board.state());
}

/// What was decided is what the boot loader keeps and what the device says.
fn is_settled(board: &Board, is_well: bool, when: &str) {
    let status = board.status();
    board.restart();
    if is_well {
        assert_eq!(board.runs(), NEW, "{when}: {}", status.update.state);
        assert_eq!(status.installed.unwrap().state, InstallState::Confirmed, "{when}");
        assert_eq!(status.device.installed.sequence, 12, "{when}");
    } else {
        assert_eq!(board.runs(), OLD, "{when}: {}", status.update.state);
        assert_eq!((status.quarantined.len(), status.device.installed.sequence), (1, 0), "{when}");
    }
    let check = board.device().check().unwrap();
    assert!(check.update.is_none() && check.remarks.is_empty(), "{when}: {:?}", check.remarks);
}

#[test]
fn the_installer_hears_what_is_confirmed_and_rejected() {
    for is_well in [true, false] {
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror(NEW));
        live(&board, &Disk::new(), is_well).unwrap();
        is_settled(&board, is_well, "without a fault");
    }
}

/// Stopped at every step of the disk and of the boot loader, with a restart or without.
#[test]
fn a_stop_at_any_step_is_made_up_for() {
    for is_well in [true, false] {
        let counted = Faults::none();
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror(NEW));
        live(&board, &Disk::with_faults(counted.clone()), is_well).unwrap();
        assert!(counted.steps() > 100, "{}", counted.steps());
        for n in 0..counted.steps() {
            let restarts = (n % 2 == 0) == is_well;
            let when = format!("well {is_well}, stopped at {n}, restarts {restarts}");
            let folder = scratch();
            let board = Board::new(folder.path(), &mirror(NEW));
            live(&board, &Disk::with_faults(Faults::stop_at(n)), is_well).unwrap_err();
            if restarts {
                board.restart();
            }
            let status = board.status();
            let runs_new = board.runs() == NEW;
            assert!(runs_new || status.device.installed.sequence == 0, "{when}: it says that 1.2.0 runs");
            live(&board, &Disk::new(), is_well).unwrap_or_else(|e| panic!("{when}: {e}"));
            is_settled(&board, is_well, &when);
        }
    }
}

/// The boot loader does not start the new system: the release is offered again, and quarantined in the end.
#[test]
fn a_release_that_does_not_start_is_offered_three_times() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(NEW));
    let mut times = 0;
    while start(&board, &Disk::new(), true).unwrap() {
        times += 1;
        let mut device = board.device();
        let check = device.check().unwrap();
        assert!(check.update.is_none(), "before the restart there is nothing to do again");
        assert!(check.remarks.iter().any(|remark| remark.contains("after a restart")), "{:?}", check.remarks);
        let error = device.confirm().unwrap_err();
        assert!(error.to_string().contains("does not run yet: restart first"), "{error}");
        drop(device);
        // It comes back with the old system.
        board.forget_attempt();
        board.restart();
        let error = board.device().confirm().unwrap_err();
        assert!(error.to_string().contains("did not start"), "{error}");
        assert_eq!(board.status().device.installed.sequence, 0);
    }
    assert_eq!(times, 3);
    let check = board.device().check().unwrap();
    assert!(matches!(check.outcome(), Outcome::Refuse { .. }), "{}", check.outcome());
}

/// Without an installer that told what ran before, nothing can be confirmed in its name.
#[test]
fn a_program_without_the_installer_confirms_nothing() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(NEW));
    assert!(start(&board, &Disk::new(), true).unwrap());
    board.restart();
    let host = board.host();
    let without = crate::fleet::device(&board.mirror, &board.folder.join("state"), board.now);
    let mut device = without.boot(move || tidegate_client::agent::Host::boot(&host)).open().unwrap();
    let error = device.confirm().unwrap_err();
    assert!(matches!(error, Error::Setting(_)), "{error}");
    drop(device);
    assert_eq!(board.get("kept"), "a");
    board.device().confirm().unwrap();
    assert_eq!(board.get("kept"), "b");
}

/// The example of an agent that asks, with a user who types.
#[path = "../../examples/ask_user.rs"]
#[allow(unused, clippy::print_stdout)]
mod ask_user;

#[test]
fn a_user_is_asked_and_may_postpone() {
    use crate::fleet::{assign, channel};

    let mut sim = channel(&[("all", Some(1_000_000))]);
    let mut described = crate::fleet::manifest_of("1.2.0", 12, NEW);
    described["notes"] = serde_json::json!(["Fixes the clock.", "Starts sooner."]);
    let bytes = crate::fleet::approve_image(&mut sim, &described, NEW);
    assign(&mut sim, "all", &bytes, &serde_json::json!({}));
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    let folder = scratch();
    let mut board = Board::new(folder.path(), &crate::mirror::Mirror::of(sim));
    board.adjust =
        |builder| builder.policy(tidegate_client::policy::Policy::new().with_deferral_limit("30h".parse().unwrap()));
    let converse = |board: &Board, answers: &str| {
        let mut screen = Vec::new();
        let next = ask_user::converse(&mut board.device(), answers.as_bytes(), &mut screen).unwrap();
        (next, String::from_utf8(screen).unwrap())
    };
    // Not now: nothing is fetched.
    let (next, screen) = converse(&board, "n\n");
    assert_eq!(next, Next::Check { until: None });
    for expected in [
        "Update available: version 1.2.0, 21 bytes\n",
        "21 bytes are still to be fetched; urgency: normal\n  - Fixes the clock.\n  - Starts sooner.\n",
        "now: waiting 1.2.0 (sequence 12): downloading was put off by the user\n",
    ] {
        assert!(screen.contains(expected), "{expected}\n{screen}");
    }
    assert!(!board.folder.join("state/downloads").exists());
    // Later: as long as the policy allows.
    let (_, screen) = converse(&board, "l\n");
    assert!(screen.contains("postponed until 2026-01-02T00:00:00Z"), "{screen}");
    board.now += chrono::TimeDelta::hours(20);
    let (_, screen) = converse(&board, "l\n");
    assert!(screen.contains("postponed until 2026-01-02T06:00:00Z"), "{screen}");
    // The deferral holds back the installation, whatever the user says of the download.
    let (next, screen) = converse(&board, "y\n");
    assert!(matches!(next, Next::Check { until: Some(_) }) && screen.contains("deferred"), "{screen}");
    assert_eq!(board.get("attempted"), "");
    // It ends, and there is no further one.
    board.now += chrono::TimeDelta::hours(11);
    let (_, screen) = converse(&board, "l\n");
    assert!(
        screen.contains("not postponed: the policy let the user defer 1.2.0 until 2026-01-02T06:00:00Z"),
        "{screen}"
    );
    // Now, but the restart waits.
    let (next, screen) = converse(&board, "y\nn\n");
    assert_eq!(next, Next::Check { until: None }, "{screen}");
    assert!(
        screen.contains("Restart into version 1.2.0?") && matches!(board.state(), State::Rebooting { .. }),
        "{screen}"
    );
    let (next, _) = converse(&board, "now\n");
    assert_eq!(next, Next::Restart);
    board.restart();
    converse(&board, "");
    assert_eq!(board.runs(), NEW);
    assert!(matches!(board.state(), State::Confirmed { .. }));
}

/// What a program asks of a deferral: the policy refuses it for security releases.
#[test]
fn a_policy_refuses_deferrals() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(NEW));
    let mut device = board.device();
    let update = device.check().unwrap().update.unwrap();
    let until = device.now();
    let error = device.defer(&update, until).unwrap_err();
    assert!(error.to_string().contains("lets no user defer releases"), "{error}");
}
