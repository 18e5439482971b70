//! What a device tells of releases: each outcome once, whatever stops it, and sent until it was acknowledged.

#[path = "device_key.rs"]
mod device_key;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use chrono::TimeDelta;
use tidegate_client::Error;
use tidegate_client::agent::{Agent, AgentOptions, Next, StubHost};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::install::{FileSlot, StubInstaller};
use tidegate_client::receipts::{Destination, FolderSink, Naming, Receipts, Sending, Sink, StubSink};
use tidegate_client::state::State;
use tidegate_client::watch::unwatched;
use tidegate_model::decision::OutcomeKind;
use tidegate_model::position::Salt;
use tidegate_model::receipt::{InstallResult, SignedReceipt};

use crate::board::{Board, OLD, UNWELL, WELL, repository};
use crate::fleet::{self, channel, release_image};
use crate::mirror::{Mirror, Trick, scratch};
use crate::simulator::epoch;
use device_key::key;

fn keeps_receipts(builder: DeviceBuilder) -> DeviceBuilder {
    builder.receipts(Receipts { key: key(), naming: Naming::default() })
}

/// A board that keeps receipts.
fn board(folder: &Path, mirror: &Mirror) -> Board {
    let mut board = Board::new(folder, mirror).with_health();
    board.adjust = keeps_receipts;
    board
}

fn waiting(board: &Board) -> Vec<SignedReceipt> {
    board.device().waiting_receipts().to_vec()
}

fn outcomes(receipts: &[SignedReceipt]) -> Vec<&'static str> {
    receipts.iter().map(|signed| signed.receipt.outcome.name()).collect()
}

fn told(board: &Board) -> Vec<&'static str> {
    outcomes(&waiting(board))
}

#[test]
fn a_healthy_release_is_confirmed() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(WELL)));
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    assert_eq!(told(&board), ["offered", "installed"]);
    board.restart();
    board.check(Disk::new()).unwrap();
    let receipts = waiting(&board);
    assert_eq!(outcomes(&receipts), ["offered", "installed", "confirmed"]);
    // The first one says what became of each offer.
    let offers: Vec<_> = receipts.iter().map(|signed| signed.receipt.offers.len()).collect();
    assert_eq!(offers, [1, 0, 0]);
    let offer = &receipts[0].receipt.offers[0];
    assert_eq!((offer.sequence, offer.outcome), (receipts[0].receipt.sequence, OutcomeKind::Install));
    assert!(offer.failed.is_empty());
    let salt: Salt = "00112233445566778899aabbccddeeff".parse().unwrap();
    for signed in &receipts {
        assert!(signed.verify(key().public()));
        let receipt = &signed.receipt;
        assert_eq!(receipt.device.as_str(), salt.device_hash(&"device-1".parse().unwrap()).to_string());
        assert_eq!(
            (receipt.channel.as_str(), receipt.cohort.as_str(), receipt.product.as_str()),
            ("stable", "all", "os")
        );
        assert_eq!((receipt.release.to_string(), receipt.sequence), ("1.2.0".into(), 12));
        assert_eq!((receipt.from.to_string(), receipt.hardware.as_str()), ("1.0.0".into(), "board"));
        assert_eq!((receipt.at, receipt.reason.as_ref()), (epoch(), None));
    }
    // Nothing more is told, and nothing is written, once nothing changes.
    let counted = Faults::none();
    board.check(Disk::new()).unwrap();
    board.check(Disk::with_faults(counted.clone())).unwrap();
    assert_eq!((told(&board).len(), counted.steps()), (3, 1), "the boot loader is asked what runs");
}

#[test]
fn a_device_may_be_named_by_its_id() {
    let folder = scratch();
    let mut board = board(folder.path(), &Mirror::of(repository(WELL)));
    board.adjust = |builder| builder.receipts(Receipts { key: key(), naming: Naming::Id });
    board.check(Disk::new()).unwrap();
    assert!(waiting(&board).iter().all(|signed| signed.receipt.device.as_str() == "device-1"));
}

#[test]
fn an_unhealthy_release_is_recorded_as_rolled_back() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(UNWELL)));
    board.check(Disk::new()).unwrap();
    board.restart();
    for _ in 0..7 {
        board.check(Disk::new()).unwrap();
        board.pass(10);
    }
    assert!(matches!(board.state(), State::RolledBack { .. }), "{}", board.state());
    assert_eq!(told(&board), ["offered", "installed"], "it is not back yet");
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.runs(), OLD);
    let receipts = waiting(&board);
    assert_eq!(outcomes(&receipts), ["offered", "installed", "rolled-back"]);
    let reason = receipts[2].receipt.reason.clone().unwrap();
    assert!(reason.as_str().starts_with("not healthy within 60 s"), "{reason}");
    for _ in 0..3 {
        board.restart();
        board.run(&Disk::new()).unwrap();
    }
    assert_eq!(told(&board).len(), 3);
}

#[test]
fn each_boot_loader_rollback_is_recorded() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(UNWELL)));
    for _ in 0..3 {
        assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
        board.restart();
        // It hangs, and the watchdog restarts the board.
        board.restart();
        board.check(Disk::new()).unwrap();
    }
    assert!(matches!(board.state(), State::Quarantined { .. }), "{}", board.state());
    let attempt = ["installed", "rolled-back"];
    assert_eq!(told(&board), [&["offered"][..], &attempt, &attempt, &attempt].concat());
}

/// The boot loader falls back from a confirmed release, and later starts it again.
#[test]
fn a_fallback_after_confirmation_is_told_once() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(WELL)));
    board.run(&Disk::new()).unwrap();
    board.fall_back();
    for _ in 0..2 {
        board.device().check().unwrap();
    }
    assert_eq!(told(&board), ["offered", "installed", "confirmed", "rolled-back"]);
    let reason = waiting(&board)[3].receipt.reason.clone().unwrap();
    assert_eq!(reason.as_str(), "1.2.0 (sequence 12) was confirmed in b, but a runs");
    board.fall_back();
    board.device().check().unwrap();
    assert_eq!(told(&board)[4..], ["confirmed"]);
}

#[test]
fn what_is_rejected_by_hand_is_rolled_back() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(WELL)));
    board.check(Disk::new()).unwrap();
    board.restart();
    let mut device = board.device();
    Agent::new(&mut device, &board.options, &mut board.host()).reject().unwrap();
    drop(device);
    board.run(&Disk::new()).unwrap();
    let receipts = waiting(&board);
    assert_eq!(outcomes(&receipts), ["offered", "installed", "rolled-back"]);
    assert_eq!(receipts[2].receipt.reason.as_ref().unwrap().as_str(), "it was rejected by hand");
}

#[test]
fn what_an_installer_rejects_has_failed() {
    let folder = scratch();
    let mirror = Mirror::of(repository(WELL));
    let stub = StubInstaller::new();
    stub.fail_next("not for this board");
    let mut device =
        keeps_receipts(fleet::device(&mirror, folder.path(), epoch())).installer(stub.clone()).open().unwrap();
    Agent::new(&mut device, &AgentOptions::default(), &mut StubHost::new()).check().unwrap();
    assert_eq!(outcomes(device.waiting_receipts()), ["offered", "failed"]);
    let reason = device.waiting_receipts()[1].receipt.reason.clone().unwrap();
    assert_eq!(reason.as_str(), "the installer rejects this release: not for this board");
}

/// It is tried again all the same; and should it go right in the end, that is told too.
#[test]
fn too_many_failures_are_recorded_as_failed() {
    let folder = scratch();
    let mirror = Mirror::of(repository(WELL));
    let blocked = folder.path().join("blocked");
    fs::write(&blocked, "a file, where a folder is to be").unwrap();
    let slot = FileSlot::new(blocked.join("next.img"));
    let mut device = keeps_receipts(fleet::device(&mirror, folder.path(), epoch())).installer(slot).open().unwrap();
    let mut check = || {
        Agent::new(&mut device, &AgentOptions::default(), &mut StubHost::new()).check().map(drop).ok();
        outcomes(device.waiting_receipts())
    };
    for expected in [&["offered"][..], &["offered"], &["offered", "failed"], &["offered", "failed"]] {
        assert_eq!(check(), expected);
    }
    fs::remove_file(&blocked).unwrap();
    fs::create_dir(&blocked).unwrap();
    assert_eq!(check(), ["offered", "failed", "installed", "confirmed"]);
}

/// Whoever stands between could otherwise have honest devices stop a rollout.
#[test]
fn fetch_errors_are_no_release_failure() {
    let image =
        |sim: &crate::simulator::Simulator| sim.files.keys().find(|file| file.ends_with(".image.bin")).unwrap().clone();
    for trick in [Trick::Bytes(b"another image".to_vec()), Trick::Gone, Trick::Cut(3)] {
        let folder = scratch();
        let mut board = board(folder.path(), &Mirror::of(repository(WELL)));
        let file = image(&board.mirror.sim());
        board.mirror.trick(&file, trick.clone());
        for _ in 1..=5 {
            board.check(Disk::new()).unwrap_err();
            assert_eq!(told(&board), ["offered"], "{trick:?}");
            board.now += TimeDelta::hours(5);
        }
        board.mirror.behave();
        board.check(Disk::new()).unwrap();
        assert_eq!(told(&board), ["offered", "installed"], "{trick:?}");
    }
}

#[test]
fn manual_calls_record_the_same() {
    let folder = scratch();
    let mut sim = channel(&[("all", Some(1_000_000))]);
    release_image(&mut sim, "all", "1.2.0", 12, WELL);
    let mirror = Mirror::of(sim);
    let stub = StubInstaller::new();
    let open =
        || keeps_receipts(fleet::device(&mirror, folder.path(), epoch())).installer(stub.clone()).open().unwrap();
    let install = |device: &mut Device| {
        let update = device.check()?.update.unwrap();
        let downloaded = device.download(&update, &mut unwatched)?;
        device.install(&downloaded, &mut unwatched).map(drop)
    };
    install(&mut open()).unwrap();
    open().confirm().unwrap();
    open().confirm().unwrap();
    assert_eq!(outcomes(open().waiting_receipts()), ["offered", "installed", "confirmed"]);
    mirror.edit(|sim| drop(release_image(sim, "all", "1.3.0", 13, WELL)));
    install(&mut open()).unwrap();
    open().reject().unwrap();
    mirror.edit(|sim| drop(release_image(sim, "all", "1.4.0", 14, WELL)));
    stub.fail_next("not for this board");
    assert!(matches!(install(&mut open()).unwrap_err(), Error::Install(_)));
    mirror.edit(|sim| drop(release_image(sim, "all", "1.5.0", 15, WELL)));
    let mut device = open();
    let update = device.check().unwrap().update.unwrap();
    device.give_up(&update, "enough");
    let device_told: Vec<_> = device
        .waiting_receipts()
        .iter()
        .map(|signed| (signed.receipt.sequence, signed.receipt.outcome, signed.receipt.from.to_string()))
        .collect();
    let expected = [
        (12, InstallResult::Offered, "1.0.0"),
        (12, InstallResult::Installed, "1.0.0"),
        (12, InstallResult::Confirmed, "1.0.0"),
        (13, InstallResult::Offered, "1.2.0"),
        (13, InstallResult::Installed, "1.2.0"),
        // The device does not know whether what was before runs again.
        (13, InstallResult::Failed, "1.2.0"),
        (14, InstallResult::Offered, "1.2.0"),
        (14, InstallResult::Failed, "1.2.0"),
        (15, InstallResult::Offered, "1.2.0"),
        (15, InstallResult::Failed, "1.2.0"),
    ];
    assert_eq!(device_told, expected.map(|(sequence, outcome, from)| (sequence, outcome, from.to_owned())));
}

/// Whatever step it stops at, what is done again is not told again.
#[test]
fn callers_may_be_stopped_anywhere_as_well() {
    let mirror = Mirror::of(repository(WELL));
    let open = |folder: &Path, disk: Disk| {
        let builder = keeps_receipts(fleet::device(&mirror, folder, epoch())).installer(StubInstaller::new());
        builder.disk(disk).open()
    };
    let life = |folder: &Path, disk: Disk, end: InstallResult| {
        let mut device = open(folder, disk)?;
        if let Some(update) = device.check()?.update {
            let downloaded = device.download(&update, &mut unwatched)?;
            device.install(&downloaded, &mut unwatched)?;
        }
        match end {
            InstallResult::Confirmed => device.confirm().map(drop),
            // What is rejected is not there to be rejected again.
            _ if device.status().installed.is_none() => Ok(()),
            _ => device.reject().map(drop),
        }
    };
    for end in [InstallResult::Confirmed, InstallResult::Failed] {
        let folder = scratch();
        let counted = Faults::none();
        life(folder.path(), Disk::with_faults(counted.clone()), end).unwrap();
        for n in 0..counted.steps() {
            let folder = scratch();
            life(folder.path(), Disk::with_faults(Faults::stop_at(n)), end).unwrap_err();
            life(folder.path(), Disk::new(), end).unwrap();
            let device = open(folder.path(), Disk::new()).unwrap();
            assert_eq!(outcomes(device.waiting_receipts()), ["offered", "installed", end.name()], "stopped at {n}");
        }
    }
}

/// To explain is not to check: nothing is told, nor is anything by a device without a key.
#[test]
fn only_checks_tell_and_only_devices_with_a_key() {
    let folder = scratch();
    let mirror = Mirror::of(repository(WELL));
    let mut device = keeps_receipts(fleet::device(&mirror, folder.path(), epoch())).open().unwrap();
    assert!(device.explain(None, None).unwrap().update.is_some());
    assert!(device.waiting_receipts().is_empty());
    drop(device);
    let mut device = fleet::device(&mirror, folder.path(), epoch()).open().unwrap();
    device.check().unwrap();
    assert_eq!((device.waiting_receipts().len(), device.receipts()), (0, None));
    assert!(device.send_receipts(&mut StubSink::new(64), Sending::default()).is_err());
    assert!(!folder.path().join("receipts.json").exists());
}

/// What must hold of what was told, however often it stopped: it begins with one offer, nothing comes twice in a row, and every attempt ends.
fn is_coherent(told: &[&str], end: &str) -> Result<(), String> {
    let attempts = told.strip_prefix(&["offered"]).and_then(|rest| rest.strip_suffix(&[end]));
    let attempts = attempts.ok_or_else(|| format!("{told:?}"))?;
    let good = match attempts {
        [] => false,
        attempts => attempts.chunks(2).enumerate().all(|(n, attempt)| {
            let is_last = n == attempts.len().div_ceil(2) - 1;
            attempt == if is_last { &["installed"][..] } else { &["installed", "rolled-back"] }
        }),
    };
    if good { Ok(()) } else { Err(format!("{told:?}")) }
}

#[test]
fn healthy_outcomes_are_recorded_once() {
    each_outcome_is_told_once(WELL, WELL, "confirmed");
}

#[test]
fn unhealthy_outcomes_are_recorded_once() {
    each_outcome_is_told_once(UNWELL, OLD, "rolled-back");
}

/// Stops at every step of a whole update, with the process starting again and with the power gone; and faults of the disk at every step.
fn each_outcome_is_told_once(image: &[u8], runs: &[u8], end: &str) {
    type Plan = fn(usize) -> std::sync::Arc<Faults>;
    type Lost = fn(usize) -> bool;
    // Writing a file takes more steps than are passed over.
    let plans: [(&str, Plan, Lost, usize); 4] = [
        ("stopped, process again", Faults::stop_at, |_| false, 1),
        ("stopped, power lost", Faults::stop_at, |_| true, 1),
        ("EIO", |n| Faults::fail_at(n, std::io::ErrorKind::Other), |n| n % 2 == 0, 3),
        ("full", Faults::full_from, |n| n % 2 == 1, 3),
    ];
    let mirror = Mirror::of(repository(image));
    let folder = scratch();
    let counted = Faults::none();
    board(folder.path(), &mirror).run(&Disk::with_faults(counted.clone())).unwrap();
    let (steps, mut tried, mut lost) = (counted.steps(), 0, Vec::new());
    for (name, plan, power_lost, apart) in plans {
        for n in (0..steps).step_by(apart) {
            tried += 1;
            let folder = scratch();
            let mut board = board(folder.path(), &mirror);
            let _ = board.run(&Disk::with_faults(plan(n)));
            if power_lost(n) {
                board.restart();
            }
            for _ in 0..2 {
                board.run(&Disk::new()).unwrap();
                board.now += TimeDelta::hours(5);
            }
            assert_eq!(board.runs(), runs, "{name} {n}");
            let told = told(&board);
            let coherent = is_coherent(&told, end).and_then(|()| {
                // Only a boot loader that took it back makes for another attempt.
                if power_lost(n) || told.len() == 3 { Ok(()) } else { Err(format!("{told:?}")) }
            });
            if let Err(why) = coherent {
                lost.push(format!("{end}, {name} at {n} of {steps}: {why}"));
            }
        }
    }
    println!("{tried} faults, {} lost", lost.len());
    assert!(steps > 100 && lost.is_empty(), "{lost:#?}");
}

/// Killed by a signal that cannot be caught, here and there in a whole update.
#[test]
fn outcomes_are_recorded_once_after_a_kill() {
    let mirror = Mirror::of(repository(WELL));
    let folder = scratch();
    let counted = Faults::none();
    board(folder.path(), &mirror).run(&Disk::with_faults(counted.clone())).unwrap();
    for n in (3..counted.steps()).step_by(8) {
        let folder = scratch();
        let board = board(folder.path(), &mirror);
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "receipts::killed", "--ignored", "--nocapture"])
            .env("TIDEGATE_TEST_BOARD", folder.path())
            .env("TIDEGATE_TEST_KILL_AT", n.to_string())
            .output()
            .unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{output:?}");
        board.run(&Disk::new()).unwrap();
        assert_eq!(
            (board.runs().as_slice(), told(&board).as_slice()),
            (WELL, &["offered", "installed", "confirmed"][..]),
            "{n}"
        );
    }
}

/// Not a test of its own: the process that is killed.
#[test]
#[ignore = "it is started by another test, to be killed"]
fn killed() {
    let Some(folder) = std::env::var_os("TIDEGATE_TEST_BOARD") else { return };
    let at = std::env::var("TIDEGATE_TEST_KILL_AT").unwrap().parse().unwrap();
    let mut board = Board::existing(folder.as_ref(), &Mirror::of(repository(WELL))).with_health();
    board.adjust = keeps_receipts;
    let _ = board.run(&Disk::with_faults(Faults::kill_at(at)));
}

/// The files in a folder and below it.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn receipts_are_stored_once_wherever_sending_stops() {
    let mirror = Mirror::of(repository(WELL));
    let fresh = || {
        let folder = scratch();
        let board = board(folder.path(), &mirror);
        board.run(&Disk::new()).unwrap();
        (folder, board)
    };
    let deliver = |board: &Board, device: Disk, sink: Disk| {
        let mut folder = FolderSink::new(board.folder.join("usb")).on(sink);
        let mut device = board.builder(device).open()?;
        device.send_receipts(&mut folder, Sending { at_once: true, ..Sending::default() })
    };
    let (_folder, whole) = fresh();
    let counted = Faults::none();
    let disk = || Disk::with_faults(counted.clone());
    let sent = deliver(&whole, disk(), disk()).unwrap();
    assert_eq!((sent.sent, sent.waiting, sent.problem), (3, 0, None));
    let names: BTreeSet<_> =
        files(&whole.folder.join("usb")).into_iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 3);
    for n in 0..counted.steps() {
        let (_folder, board) = fresh();
        // The device and the medium stop together.
        let stopping = Disk::with_faults(Faults::stop_at(n));
        let _ = deliver(&board, stopping.clone(), stopping);
        let before = waiting(&board);
        assert!(before.is_empty() || before.len() == 3, "stopped at {n}");
        let sent = deliver(&board, Disk::new(), Disk::new()).unwrap();
        assert_eq!((sent.sent, sent.waiting), (before.len(), 0), "stopped at {n}");
        let mut there = BTreeSet::new();
        for path in files(&board.folder.join("usb")) {
            let signed = SignedReceipt::parse(&fs::read(&path).unwrap()).unwrap();
            assert!(path.ends_with(signed.object_name().unwrap()) && signed.verify(key().public()));
            there.insert(signed.receipt.outcome);
        }
        assert_eq!(there.len(), 3, "stopped at {n}");
        assert_eq!(files(&board.folder.join("usb")).len(), 3, "stopped at {n}");
    }
}

#[test]
fn unsent_receipts_do_not_stop_the_update() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(WELL)));
    board.check(Disk::new()).unwrap();
    let mut sink = StubSink::new(64);
    sink.fail("no connection", None);
    let mut device = board.device();
    let sent = device.send_receipts(&mut sink, Sending::default()).unwrap();
    assert_eq!((sent.sent, sent.waiting, sent.problem.as_deref()), (0, 2, Some("no connection")));
    drop(device);
    // Another process sees how it stands.
    let status = board.status().receipts.unwrap();
    assert_eq!((status.waiting, status.failures, status.problem.as_deref()), (2, 1, Some("no connection")));
    assert!(
        status
            .to_string()
            .starts_with("2 pending; sending failed once in a row, the last: no connection; next attempt at"),
        "{status}"
    );
    board.restart();
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.runs(), WELL);
    // Patience, and then all of it.
    sink.well();
    let mut device = board.device();
    assert_eq!(device.send_receipts(&mut sink, Sending::default()).unwrap().waiting, 3);
    let sent = device.send_receipts(&mut sink, Sending { at_once: true, ..Sending::default() }).unwrap();
    assert_eq!((sent.sent, sent.waiting), (3, 0));
    assert_eq!(outcomes(&sink.kept), ["offered", "installed", "confirmed"]);
    drop(device);
    let status = board.status().receipts.unwrap();
    assert_eq!((status.waiting, status.failures, status.problem, status.until), (0, 0, None, None));
}

/// The gate that a sink is told of is that of the device's cohort.
struct Asks(Vec<Destination>);

impl Sink for Asks {
    fn at_once(&self) -> usize {
        64
    }

    fn send(&mut self, receipts: &[SignedReceipt], to: &Destination) -> tidegate_client::receipts::Answer {
        self.0.push(to.clone());
        tidegate_client::receipts::Answer::Kept(receipts.len())
    }
}

#[test]
fn a_public_cohort_has_no_gate() {
    let folder = scratch();
    let board = board(folder.path(), &Mirror::of(repository(WELL)));
    board.check(Disk::new()).unwrap();
    let mut asks = Asks(Vec::new());
    board.device().send_receipts(&mut asks, Sending::default()).unwrap();
    assert_eq!(asks.0, [Destination { gate: None }]);
}

/// Also when the gate itself gave the release, and when nobody was asked since the restart.
#[test]
fn a_protected_cohorts_receipts_go_to_its_gate() {
    let folder = scratch();
    let gated = crate::gate::GatedRepository::with_release(true);
    let open = || keeps_receipts(gated.device(folder.path())).installer(StubInstaller::new()).open().unwrap();
    let told_to = |device: &mut Device| {
        let mut asks = Asks(Vec::new());
        device.send_receipts(&mut asks, Sending::default()).unwrap();
        asks.0
    };
    let destinations = [Destination { gate: Some(crate::gate::GATE.parse().unwrap()) }];
    let mut device = open();
    let update = device.check().unwrap().update.unwrap();
    assert_eq!(device.waiting_receipts()[0].receipt.cohort.as_str(), "all");
    assert_eq!(told_to(&mut device), destinations);
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    // What would be so with other facts, in a cohort without a gate, changes nothing.
    let lab = [("group".parse().unwrap(), "lab".into())].into_iter().collect();
    device.explain(Some(lab), None).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    assert_eq!(told_to(&mut device), destinations);
    drop(device);
    // The gate moves: the next check says where to.
    let moved = "https://other.example.com";
    gated.mirror.edit(|sim| {
        fleet::set_protected_cohorts(sim, &[("lab", None), ("all", Some(1_000_000))], &[("all", moved)]);
        sim.publish(&["stable", "snapshot", "timestamp"]);
    });
    let mut device = open();
    let _ = device.check();
    device.give_up(&update, "enough");
    device.reject().unwrap();
    assert_eq!(told_to(&mut device), [Destination { gate: Some(moved.parse().unwrap()) }]);
}

/// A state file that cannot be written or read, or that a newer version wrote in a form of its own: the update does not care.
#[test]
fn an_update_does_not_need_receipts() {
    let newer = br#"{"schema":2,"serial":1,"value":{}}"#;
    for case in ["a folder", "newer", "unwritable"] {
        let folder = scratch();
        let board = board(folder.path(), &Mirror::of(repository(WELL)));
        let path = board.folder.join("state/receipts.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match case {
            "a folder" => fs::create_dir(&path).unwrap(),
            "newer" => fs::write(&path, newer).unwrap(),
            // The name of the temporary file is taken by a folder that is not empty.
            _ => fs::create_dir_all(board.folder.join("state/receipts.json.tmp/x")).unwrap(),
        }
        board.run(&Disk::new()).unwrap();
        assert_eq!(board.runs(), WELL, "{case}");
        if case == "newer" {
            assert_eq!(told(&board), ["offered", "installed", "confirmed"], "as if it were not there");
        } else if case == "a folder" {
            let problem = board.status().receipts.unwrap().problem.unwrap();
            assert!(problem.contains("receipts.json"), "{problem}");
        }
    }
}
