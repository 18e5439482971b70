//! An agent on a board: trials, confirmation, the way back, policy, and what a stop leaves.

use std::fs;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tidegate_client::agent::{Agent, Next, StubHost};
use tidegate_client::command::Command;
use tidegate_client::device::DeviceBuilder;
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::install::{BootHook, StubInstaller};
use tidegate_client::state::{State, Tolerance};
use tidegate_client::{Error, Fault};
use tidegate_model::decision::Outcome;
use tidegate_tuf::time;

use crate::board::{ALL, Board, OLD, UNWELL, WELL, mirror};
use crate::fleet::{self, approve_image, assign, channel, release_image};
use crate::mirror::{Mirror, Trick, scratch};
use crate::simulator::epoch;

#[test]
fn an_update_goes_from_check_to_confirmed() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(WELL)).with_health();
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    assert!(matches!(board.state(), State::Rebooting { .. }), "{}", board.state());
    assert_eq!(board.runs(), OLD);
    // Still not restarted: the agent asks again, and does nothing else.
    board.mirror.take_requests();
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    assert!(board.mirror.take_requests().is_empty());
    board.restart();
    assert!(matches!(board.check(Disk::new()).unwrap(), Next::Check { until: Some(_) }));
    assert!(matches!(board.state(), State::Confirmed { .. }), "{}", board.state());
    assert_eq!(board.runs(), WELL);
    // It stays, however often it restarts.
    board.restart();
    assert_eq!(board.runs(), WELL);
    assert!(matches!(board.check(Disk::new()).unwrap(), Next::Check { until: None }));
    let status = board.status();
    assert_eq!((status.update.state, status.device.installed.sequence), (State::Idle, 12));
    assert_eq!(fs::read_dir(folder.path().join("state/downloads")).unwrap().count(), 0);
}

#[test]
fn an_unchanged_check_writes_nothing() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(WELL)).with_health();
    board.run(&Disk::new()).unwrap();
    let counted = Faults::none();
    board.check(Disk::with_faults(counted.clone())).unwrap();
    assert_eq!(counted.steps(), 1, "the boot loader is asked what runs");
}

/// Without a health command a trial passes as soon as the new system runs this program.
#[test]
fn without_a_health_command_running_is_enough() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(UNWELL));
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.runs(), UNWELL);
}

#[test]
fn an_unhealthy_release_is_rolled_back() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(UNWELL)).with_health();
    board.check(Disk::new()).unwrap();
    board.restart();
    assert_eq!(board.runs(), UNWELL);
    for _ in 0..6 {
        assert_eq!(board.check(Disk::new()).unwrap(), Next::Look { after: Duration::from_secs(10) });
        board.pass(10);
    }
    // Its time is over.
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    assert!(matches!(board.state(), State::RolledBack { .. }), "{}", board.state());
    board.restart();
    assert_eq!(board.runs(), OLD);
    board.check(Disk::new()).unwrap();
    let status = board.status();
    assert_eq!(status.device.installed.sequence, 0);
    assert_eq!(status.quarantined.len(), 1);
    assert_eq!(status.quarantined[0].sequence, 12);
    // It is refused from now on, with the reason.
    let check = board.device().check().unwrap();
    assert!(matches!(check.outcome(), Outcome::Refuse { .. }), "{}", check.outcome());
    for _ in 0..3 {
        board.restart();
        board.run(&Disk::new()).unwrap();
        assert_eq!(board.runs(), OLD);
    }
    // The next release is installed.
    board.mirror.edit(|sim| {
        release_image(sim, "all", "1.3.0", 13, WELL);
    });
    board.run(&Disk::new()).unwrap();
    assert_eq!((board.runs().as_slice(), board.status().device.installed.sequence), (WELL, 13));
}

/// A power cut during a trial is enough for a boot loader to go back, so one is no proof; several are.
#[test]
fn repeated_boot_failures_quarantine() {
    for boots_that_ran in [0, 1] {
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror(UNWELL)).with_health();
        let attempts = board.options.tolerance.attempts;
        for attempt in 1..=attempts {
            assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
            board.restart();
            for _ in 0..boots_that_ran {
                assert!(matches!(board.check(Disk::new()).unwrap(), Next::Look { .. }));
            }
            // It hangs, before anything ran or after, and the watchdog restarts the board.
            board.restart();
            assert_eq!(board.runs(), OLD);
            let next = board.check(Disk::new()).unwrap();
            assert!(matches!(next, Next::Check { .. }), "no restart is needed: {next:?}");
            let status = board.status();
            assert_eq!(status.device.installed.sequence, 0);
            assert_eq!(status.quarantined.len(), usize::from(attempt == attempts), "{attempt}");
        }
        board.run(&Disk::new()).unwrap();
        assert_eq!(board.runs(), OLD);
    }
}

/// The boot loader may start the other slot long after an update was confirmed: that is what runs, and so what counts.
#[test]
fn what_runs_is_what_the_boot_loader_says() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(WELL)).with_health();
    let attempts = board.options.tolerance.attempts;
    for attempt in 1..=attempts {
        board.run(&Disk::new()).unwrap();
        let status = board.status();
        assert_eq!((board.runs().as_slice(), status.device.installed.sequence, status.remarks.len()), (WELL, 12, 0));
        board.fall_back();
        let status = board.status();
        assert_eq!(status.device.installed.sequence, 0);
        assert_eq!(status.remarks, ["1.2.0 (sequence 12) was confirmed in b, but a runs"]);
        let check = board.device().check().unwrap();
        assert_eq!(check.remarks, status.remarks);
        assert!(matches!(check.outcome(), Outcome::Install { sequence: 12, .. }), "{attempt}: {}", check.outcome());
        assert!(board.state().to_string().ends_with("but a runs"), "{}", board.state());
    }
    // It was tried often enough.
    board.run(&Disk::new()).unwrap();
    assert_eq!((board.runs().as_slice(), board.status().quarantined.len()), (OLD, 1));
    assert_eq!(board.status().quarantined[0].why, "it was attempted 3 times and did not stay");
    // The boot loader starts it again by itself.
    board.fall_back();
    board.check(Disk::new()).unwrap();
    let status = board.status();
    assert_eq!((status.device.installed.sequence, status.remarks.len()), (12, 0));
    // Another release, from what runs; and back to what ran before it.
    board.mirror.edit(|sim| drop(release_image(sim, "all", "1.3.0", 13, WELL)));
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.status().device.installed.sequence, 13);
    board.fall_back();
    assert_eq!(board.status().device.installed.sequence, 12);
}

/// A boot loader that cannot be asked stops no check; what is recorded counts.
#[test]
fn a_boot_loader_that_does_not_answer_stops_no_check() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.run(&Disk::new()).unwrap();
    let words = ["sh", "-c", "echo no environment >&2; exit 1"].map(str::to_owned);
    board.hook = Some(BootHook::new(Command::new(words, Duration::from_secs(10))));
    let check = board.device().check().unwrap();
    assert!(matches!(check.outcome(), Outcome::UpToDate { .. }), "{}", check.outcome());
    assert_eq!(check.remarks, ["what runs is unknown: the boot hook failed: sh: exit code 1: no environment"]);
}

/// Without a record, such as on a new device or after the state folder was deleted, the boot loader is asked as well.
#[test]
fn a_device_without_state_asks_what_runs() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.run(&Disk::new()).unwrap();
    fs::remove_dir_all(folder.path().join("state")).unwrap();
    let counted = Faults::none();
    let check = board.open(&Disk::with_faults(counted.clone())).unwrap().check().unwrap();
    assert!(counted.steps() > 0 && check.remarks.is_empty(), "{:?}", check.remarks);
    let words = ["sh", "-c", "echo no environment >&2; exit 1"].map(str::to_owned);
    board.hook = Some(BootHook::new(Command::new(words, Duration::from_secs(10))));
    let told = ["what runs is unknown: the boot hook failed: sh: exit code 1: no environment"];
    for _ in 0..2 {
        assert_eq!(board.device().check().unwrap().remarks, told);
        assert_eq!(board.status().remarks, told);
        fs::remove_dir_all(folder.path().join("state")).unwrap();
    }
}

/// What a hook prints, however much it is, leaves the state short, readable and complete.
#[test]
fn a_hook_that_prints_a_lot_loses_no_state() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    // One attempt that the boot loader undid is counted.
    board.check(Disk::new()).unwrap();
    fs::write(folder.path().join("attempted"), "").unwrap();
    board.restart();
    board.check(Disk::new()).unwrap();
    let script = "head -c 1000000 /dev/zero | tr '\\0' '\\033'; [ $1 = running ] || exit 1";
    let words = ["sh", "-c", script, "hook"].map(str::to_owned);
    for failures in 1..=2 {
        board.hook = Some(BootHook::new(Command::new(words.clone(), Duration::from_secs(10))));
        let error = board.check(Disk::new()).unwrap_err().to_string();
        assert!(error.ends_with(&format!("but printed \"{}\"", "?".repeat(40))), "{error}");
        board.hook = None;
        let status = board.status();
        assert!(status.repairs.is_empty(), "{:?}", status.repairs);
        assert_eq!(status.update.begun.map(|begun| begun.times), Some(1));
        assert_eq!(status.update.failures, failures);
        for file in ["machine.json", "backup/machine.json"] {
            assert!(fs::metadata(folder.path().join("state").join(file)).unwrap().len() < 2000);
        }
    }
}

/// Both slots are written anew, and the state folder survives: the image says what it is.
#[test]
fn an_image_that_was_written_by_hand_is_believed() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.run(&Disk::new()).unwrap();
    for (adjust, remark, expected) in [
        (
            (|builder: DeviceBuilder| builder.factory("2.0.0".parse().unwrap(), 0))
                as fn(DeviceBuilder) -> DeviceBuilder,
            "1.2.0 (sequence 12) was confirmed, but the running image says that it is 2.0.0",
            "2.0.0",
        ),
        (|builder| builder.factory("2.0.0".parse().unwrap(), 20), "", "2.0.0"),
        (|builder| builder.factory("1.2.0".parse().unwrap(), 0), "", "1.2.0"),
        // From now on the images of this device are known to carry their version.
        (
            |builder| builder.factory("1.0.0".parse().unwrap(), 0),
            "1.2.0 (sequence 12) was confirmed, but the running image says that it is 1.0.0",
            "1.0.0",
        ),
    ] {
        board.adjust = adjust;
        let check = board.device().check().unwrap();
        assert_eq!(board.status().device.installed.version.to_string(), expected);
        assert!(remark.is_empty() || check.remarks == [remark], "{:?}", check.remarks);
    }
    assert!(matches!(board.device().check().unwrap().outcome(), Outcome::Install { sequence: 12, .. }));
}

/// The state folder of one device on another: what it says of that device does not count, what it trusts does.
#[test]
fn copied_state_is_recognised() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.run(&Disk::new()).unwrap();
    board.device().check().unwrap();
    assert_eq!(board.status().device.installed.sequence, 12);
    board.adjust = |builder| builder.id("device-2".parse().unwrap());
    let remark = "the state folder is that of device device-1: device-2 starts from what its image says";
    let status = board.status();
    assert_eq!((status.device.installed.sequence, status.remarks), (0, vec![remark.to_owned()]));
    board.mirror.take_requests();
    let check = board.device().check().unwrap();
    assert_eq!(check.remarks, [remark]);
    assert!(!board.mirror.take_requests().iter().any(|file| file.ends_with("1.root.json")));
    assert!(matches!(check.outcome(), Outcome::Install { sequence: 12, .. }), "{}", check.outcome());
    assert!(board.status().remarks.is_empty());
}

/// A newer program updated the device, wrote its state in a newer form, and the boot loader fell back to this program.
#[test]
fn a_newer_programs_state_does_not_stop_an_older_one() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(WELL)).with_health();
    board.run(&Disk::new()).unwrap();
    for known in [true, false] {
        for name in ["installed", "machine", "quarantine"] {
            for folder in ["state", "state/backup"] {
                let path = board.folder.join(format!("{folder}/{name}.json"));
                let Ok(bytes) = fs::read(&path) else { continue };
                let mut form: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                form["schema"] = json!(2);
                form["value"]["more"] = json!(true);
                if !known {
                    form["value"]["state"] = json!({"kind": "a new kind"});
                }
                fs::write(path, form.to_string()).unwrap();
            }
        }
        let remark = "a newer version of this program wrote the device's state (schema 2): what is known of it counts";
        let status = board.status();
        assert!(status.remarks.iter().any(|found| found == remark), "{:?}", status.remarks);
        assert_eq!(status.device.installed.sequence, if known { 12 } else { 0 });
        // What is not known counts as not there; how often the release was attempted is.
        assert_eq!(status.update.begun.unwrap().times, 1);
        board.run(&Disk::new()).unwrap();
        assert!(board.status().device.installed.sequence == 12 && board.status().update.begun.is_some());
    }
    // Each time the newer program fails, and leaves its own form: the older one stops.
    for _ in 0..3 {
        board.mirror.edit(|sim| drop(release_image(sim, "all", "1.3.0", 13, UNWELL)));
        let _ = board.check(Disk::new());
        let path = board.folder.join("state/machine.json");
        let mut form: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        form["schema"] = json!(2);
        form["serial"] = json!(form["serial"].as_u64().unwrap() + 1);
        form["value"]["state"] = json!({"kind": "a new kind"});
        fs::write(path, form.to_string()).unwrap();
        board.restart();
        board.restart();
    }
    board.check(Disk::new()).unwrap();
    assert_eq!(board.status().quarantined.len(), 1);
}

/// A boot loader that allows more than one attempt does not have the last word.
#[test]
fn boots_on_trial_are_counted() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(UNWELL)).with_health();
    board.options.tolerance = Tolerance { boots: 2, ..Tolerance::default() };
    board.check(Disk::new()).unwrap();
    for boot in 1..=2 {
        fs::write(folder.path().join("attempted"), "b").unwrap();
        board.restart();
        assert!(matches!(board.check(Disk::new()).unwrap(), Next::Look { .. }));
        assert!(matches!(board.state(), State::Trial { boots, .. } if boots == boot), "{}", board.state());
    }
    fs::write(folder.path().join("attempted"), "b").unwrap();
    board.restart();
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    let State::RolledBack { why, .. } = board.state() else { panic!("{}", board.state()) };
    assert_eq!(why, "it restarted 2 times without becoming healthy");
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.runs(), OLD);
}

#[test]
fn a_trial_may_be_ended_by_hand() {
    let folder = scratch();
    for well in [true, false] {
        let board = Board::new(&folder.path().join(well.to_string()), &mirror(UNWELL)).with_health();
        board.check(Disk::new()).unwrap();
        let mut host = board.host();
        let mut device = board.device();
        let mut agent = Agent::new(&mut device, &board.options, &mut host);
        let error = agent.confirm().unwrap_err();
        assert!(error.to_string().contains("restart first"), "{error}");
        drop(device);
        board.restart();
        let mut device = board.device();
        let mut agent = Agent::new(&mut device, &board.options, &mut host);
        if well {
            agent.confirm().unwrap();
            agent.confirm().unwrap();
        } else {
            assert_eq!(agent.reject().unwrap(), Next::Restart);
        }
        drop(device);
        board.restart();
        assert_eq!(board.runs(), if well { UNWELL } else { OLD });
    }
}

/// A bridge is confirmed before the release behind it is looked at.
#[test]
fn bridges_are_crossed_one_by_one() {
    let mut sim = channel(ALL);
    let mut bridge = fleet::manifest_of("1.5.0", 15, WELL);
    bridge["upgrade_from"] = json!(">=1.0.0, <1.5.0");
    let bridge = approve_image(&mut sim, &bridge, WELL);
    let second = b"the second new image that is well";
    let mut target = fleet::manifest_of("2.0.0", 20, second);
    target["upgrade_from"] = json!(">=1.5.0");
    let target = approve_image(&mut sim, &target, second);
    let listed = &sim.signed["stable"]["targets"]["stable/releases/os/1.5.0/manifest.json"];
    let bridges = json!({"bridges": [{
        "release": "1.5.0", "sequence": 15, "sha256": listed["hashes"]["sha256"], "length": bridge.len(),
        "upgrade_from": ">=1.0.0, <1.5.0",
    }]});
    assign(&mut sim, "all", &target, &bridges);
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    let folder = scratch();
    let board = Board::new(folder.path(), &Mirror::of(sim)).with_health();
    board.check(Disk::new()).unwrap();
    board.restart();
    assert_eq!(board.runs(), WELL);
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.runs(), second);
    assert_eq!(board.status().device.installed.sequence, 20);
}

#[test]
fn the_policy_holds_back_steps_and_says_why() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL)).with_health();
    board.now = time::parse("2026-01-01T12:00:00Z").unwrap();
    board.adjust = |builder| {
        let windows = json!({"windows": ["01:00 - 02:00"], "deferral": {"limit": "1d"}});
        builder.policy(serde_json::from_value(windows).unwrap())
    };
    let opens = time::parse("2026-01-02T01:00:00Z").unwrap();
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Check { until: Some(opens) });
    let State::Waiting { until, why, .. } = board.state() else { panic!("{}", board.state()) };
    assert_eq!(until, Some(opens));
    assert!(why.contains("L-WINDOW"), "{why}");
    // It is here already.
    assert_eq!(fs::read_dir(folder.path().join("state/downloads")).unwrap().count(), 1);
    // Waiting again fetches nothing.
    let counted = Faults::none();
    board.mirror.take_transfers();
    board.check(Disk::with_faults(counted.clone())).unwrap();
    assert_eq!(board.mirror.take_transfers().iter().map(|(_, bytes)| bytes).sum::<usize>(), 0);
    // Nothing is hashed again, and nothing is written.
    assert_eq!(counted.steps(), 1, "the boot loader is asked what runs");
    // The user puts it off, also while another process has the state folder.
    let held = board.device();
    let deferral = board.builder(Disk::new()).defer(opens + TimeDelta::minutes(30)).unwrap();
    assert_eq!(deferral.sequence, 12);
    drop(held);
    board.now = opens;
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Check { until: Some(opens + TimeDelta::minutes(30)) });
    assert_eq!(board.status().deferral, Some(deferral));
    // The user may also say: now.
    board.options.ignores_policy = true;
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
}

#[test]
fn explanations_show_the_devices_own_rules() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.adjust = |builder| {
        let policy = json!({"require": {"fact": "battery-percent", "ge": 30}, "metered": "refuse"});
        let facts = json!({"battery-percent": 10, "metered": true});
        builder.policy(serde_json::from_value(policy).unwrap()).facts(serde_json::from_value(facts).unwrap())
    };
    let check = board.device().explain(None, None).unwrap();
    assert!(matches!(check.outcome(), Outcome::Install { .. }));
    let [download, install] = check.policy.as_slice() else { panic!() };
    assert!(!download.allows() && download.why().contains("L-METERED"), "{download}");
    assert!(!install.allows() && install.why().contains("battery-percent >= 30"), "{install}");
    let charged = serde_json::from_value(json!({"battery-percent": 80})).unwrap();
    let check = board.device().explain(Some(charged), None).unwrap();
    assert!(check.policy.iter().all(tidegate_client::policy::Judgement::allows));
}

#[test]
fn failures_are_stored_with_the_retry_time() {
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror(WELL));
    let mut last = TimeDelta::zero();
    for failures in 1..=3 {
        board.mirror.trick("metadata/timestamp.json", Trick::Cut(10));
        let error = board.check(Disk::new()).unwrap_err();
        assert_eq!(error.fault(), Fault::Network);
        assert_eq!(board.status().update.failures, failures);
        let State::Waiting { until: Some(until), why, .. } = board.state() else { panic!() };
        assert!(why.contains("timestamp.json"), "{why}");
        assert!(until - board.now > last, "longer each time");
        last = (until - board.now) - TimeDelta::seconds(1);
    }
    board.mirror.behave();
    board.run(&Disk::new()).unwrap();
    assert_eq!((board.runs().as_slice(), board.status().update.failures), (WELL, 0));
}

#[test]
fn a_full_disk_is_noticed_before_fetching() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    // With slots, there would be another place for it.
    board.adjust = |builder| builder.reserve(100).installer(StubInstaller::new());
    board.device().check().unwrap();
    board.mirror.take_requests();
    let full = Disk::with_faults(Faults::with_room(WELL.len() as u64 + 99));
    let error = board.check(full).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    assert!(!board.mirror.take_requests().iter().any(|file| file.ends_with("image.bin")));
    let enough = Disk::with_faults(Faults::with_room(WELL.len() as u64 + 100));
    board.check(enough).unwrap();
}

/// What an installer rejects is not tried again; what fails otherwise is.
#[test]
fn rejected_releases_are_quarantined_at_once() {
    let folder = scratch();
    let mirror = mirror(WELL);
    let stub = StubInstaller::new();
    let open = || fleet::device(&mirror, folder.path(), epoch()).installer(stub.clone()).open().unwrap();
    let (options, mut host) = (tidegate_client::agent::AgentOptions::default(), StubHost::new());
    stub.fail_next("not for this board");
    let mut device = open();
    Agent::new(&mut device, &options, &mut host).check().unwrap();
    let status = device.status();
    assert!(matches!(&status.update.state, State::Quarantined { why, .. } if why.ends_with("not for this board")));
    assert_eq!(status.quarantined.len(), 1);
    assert!(host.take_notes().iter().any(|note| note.contains("quarantined")));
}

/// An installer that cannot tell what runs takes effect at once, and has no way back.
#[test]
fn installers_without_places_start_the_trial() {
    let folder = scratch();
    let mirror = mirror(WELL);
    let open = || fleet::device(&mirror, folder.path(), epoch()).installer(StubInstaller::new()).open().unwrap();
    let board = Board::existing(folder.path(), &mirror);
    let mut host = StubHost::new();
    let mut device = open();
    assert!(matches!(Agent::new(&mut device, &board.options, &mut host).check().unwrap(), Next::Check { .. }));
    assert_eq!(device.status().device.installed.sequence, 12);
    assert!(matches!(device.status().update.state, State::Confirmed { .. }));
}

/// A download that was verified and then changed on disk is fetched again, not installed.
#[test]
fn a_spoiled_download_is_fetched_again() {
    let folder = scratch();
    let mut board = Board::new(folder.path(), &mirror(WELL));
    board.adjust = |builder| {
        let policy = json!({"require": {"fact": "ready", "eq": true}});
        builder.policy(serde_json::from_value(policy).unwrap())
    };
    board.check(Disk::new()).unwrap();
    let entry = fs::read_dir(folder.path().join("state/downloads")).unwrap().next().unwrap().unwrap();
    let mut bytes = fs::read(entry.path()).unwrap();
    bytes[3] ^= 1;
    fs::write(entry.path(), bytes).unwrap();
    board.options.ignores_policy = true;
    board.mirror.take_requests();
    assert_eq!(board.check(Disk::new()).unwrap(), Next::Restart);
    assert!(board.mirror.take_requests().iter().any(|file| file.ends_with("image.bin")));
    board.run(&Disk::new()).unwrap();
    assert_eq!(board.runs(), WELL);
}
