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
