//! What counts, what is refused and why, and what the command makes of it.

use std::fs;

use chrono::TimeDelta;
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::{EncodePublicKey as _, LineEnding};
use serde_json::{Value, json};
use tidegate_model::digest::Digest;
use tidegate_model::receipt::{InstallResult, MAX_LENGTH, Receipt};
use tidegate_model::time;
use tidegate_tuf::key::Key;

use super::{Signer, enrolment, object, receipt, tidegate, told, write};
use crate::support::Fleet;

/// A fleet with a release on its way, and the hash of its manifest.
fn rolling() -> (Fleet, Digest) {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let record = spec.find(&fleet.path()).unwrap();
    let manifest = record.manifest.unwrap().sha256;
    (fleet, manifest)
}

/// Invalid receipts are refused with the reason, and all others count.
#[test]
fn invalid_receipts_are_refused_by_reason() {
    let (fleet, manifest) = rolling();
    let (receipts, enrolments) = (fleet.path().join("receipts"), fleet.path().join("enrolments"));
    let [one, two, off, cloned, stranger] = ["one", "two", "off", "cloned", "stranger"].map(Signer::of);
    // The key of a device's certificate.
    let secret = p256::SecretKey::from_slice(Digest::of(b"certified").as_bytes()).unwrap();
    let certified = Key::ecdsa_p256(secret.public_key().to_public_key_pem(LineEnding::LF).unwrap());
    let mut disabled = enrolment("off", &off);
    disabled["disabled"] = true.into();
    // What else the gate knows of a device is nothing to us.
    let mut first = enrolment("one", &one);
    first["ak"] = "an attestation key".into();
    for (name, document) in [
        ("one.json", first),
        ("two.json", enrolment("two", &two)),
        ("off.json", disabled),
        ("a.json", enrolment("clone-a", &cloned)),
        ("b.json", enrolment("clone-b", &cloned)),
        (&*format!("keys/{}.json", one.public().id()), json!({"device": "one"})),
        ("certified.json", json!({"schema": 1, "device": "certified", "keys": [certified.to_value()]})),
        ("notes.json", json!("no enrolment")),
    ] {
        write(&enrolments, name, document.to_string().as_bytes());
    }
    write(&enrolments, "README", b"not looked at");

    let now = fleet.now;
    let keep = |signer: &Signer, receipt: Receipt| {
        let (name, bytes) = object(&signer.sign(receipt));
        write(&receipts, &name, &bytes);
        name
    };
    let at = |device: &str, outcome| receipt(device, manifest, outcome, now);
    let edited = |edit: &dyn Fn(&mut Receipt)| {
        let mut receipt = at("one", InstallResult::Failed);
        edit(&mut receipt);
        receipt
    };
    // What counts: three devices, one of which gives its salted hash instead of its name, one with a key of another kind.
    let confirmed = at("certified", InstallResult::Confirmed);
    let signature: p256::ecdsa::Signature = p256::ecdsa::SigningKey::from(&secret).sign(&confirmed.to_bytes().unwrap());
    let (name, bytes) = object(&confirmed.signed(certified.id(), signature.to_der().as_bytes().to_vec()));
    write(&receipts, &name, &bytes);
    keep(&one, at("one", InstallResult::Installed));
    let mut failed = Receipt { at: now + TimeDelta::minutes(1), ..at("one", InstallResult::RolledBack) };
    failed.reason = Some("no light".parse().unwrap());
    let kept = keep(&one, failed.clone());
    keep(&one, Receipt { at: now + TimeDelta::minutes(2), ..failed });
    keep(&two, at(&"ab".repeat(32), InstallResult::Confirmed));

    // What does not.
    let expected = [
        ("cohort", keep(&one, edited(&|r| r.cohort = "nowhere".parse().unwrap()))),
        ("disabled", keep(&off, at("off", InstallResult::Failed))),
        ("future", keep(&one, edited(&|r| r.at += TimeDelta::hours(1)))),
        ("hardware", keep(&one, edited(&|r| r.hardware = "board-z".parse().unwrap()))),
        ("manifest", keep(&one, edited(&|r| r.manifest = Digest::of(b"another")))),
        ("other-device", keep(&one, at("two", InstallResult::Failed))),
        ("release", keep(&one, edited(&|r| r.release = "9.9.9".parse().unwrap()))),
        ("shared-key", keep(&cloned, at("clone-a", InstallResult::Failed))),
        ("unknown-key", keep(&stranger, at("one", InstallResult::Failed))),
        ("form", {
            let name = format!("receipts/stable/os/1/{}.json", "0".repeat(64));
            write(&receipts, &name, b"{\"signed\": {}}");
            name
        }),
        ("length", {
            let name = format!("receipts/stable/os/1/{}.json", "1".repeat(64));
            write(&receipts, &name, &vec![b' '; MAX_LENGTH + 1]);
            name
        }),
        ("misnamed", {
            // A copy of one that counts.
            let name = format!("receipts/stable/os/1/{}.json", "2".repeat(64));
            write(&receipts, &name, &fs::read(receipts.join(&kept)).unwrap());
            name
        }),
        ("name", {
            write(&receipts, "receipts/stable/os/1/notes.txt", b"not a receipt");
            "receipts/stable/os/1/notes.txt".into()
        }),
        ("signature", {
            // Somebody else's words under a device's key: where they are kept, they do count by their name.
            let forged = at("two", InstallResult::Failed)
                .signed(two.public().id(), one.sign(at("two", InstallResult::Failed)).signature);
            let (name, bytes) = object(&forged);
            write(&receipts, &name, &bytes);
            name
        }),
    ];
    // Not below `receipts/`: it is not looked at.
    write(&receipts, "other.json", b"{}");
    // What no key can be named is no object, and keeps nothing else from being found; links and pipes lead nowhere.
    #[cfg(unix)]
    {
        let folder = receipts.join("receipts/stable/os/1");
        let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff.json");
        fs::write(folder.join::<&std::ffi::OsStr>(odd), b"").unwrap();
        fs::write(folder.join("two\nlines.json"), b"").unwrap();
        fs::write(folder.join("A\u{1b}[31m%2F.json"), b"").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
        link("/dev/zero", &format!("{}.json", "3".repeat(64)));
        link("..", "around");
        link("nowhere", "lost");
        // Deeper than anything that is put there: no more than a name.
        fs::create_dir_all(folder.join("d".to_owned() + &"/d".repeat(40))).unwrap();
    }

    let now = now + TimeDelta::minutes(10);
    let line = ["receipts", "file:receipts", "--enrolments", "file:enrolments"];
    let json = told(&fleet.path(), now, &[&line[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    let refused: Vec<(&str, String, u64)> = report["refused"]
        .as_array()
        .unwrap()
        .iter()
        .map(|refused| {
            (
                refused["why"].as_str().unwrap(),
                refused["example"].as_str().unwrap().to_owned(),
                refused["count"].as_u64().unwrap(),
            )
        })
        .collect();
    let mut found = refused.clone();
    found.sort();
    let mut wanted: Vec<_> = expected.iter().map(|(why, name)| (*why, name.clone(), 1)).collect();
    if cfg!(unix) {
        let named = wanted.iter_mut().find(|(why, ..)| *why == "name").unwrap();
        *named = ("name", "receipts/stable/os/1/A\u{1b}[31m%2F.json".into(), 4);
    }
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!((&report["counted"], &report["repeated"]), (&json!(5), &json!(1)));
    assert_eq!(report["newest"], time::format(fleet.now + TimeDelta::minutes(2)));
    assert_eq!(report["enrolled"], json!({"devices": 6, "keys": 5, "disabled": 1, "shared": 1, "unreadable": 1}));
    let release = &report["releases"][0];
    let tally = |counts: [u64; 4]| {
        let [offered, installed, confirmed, rolled_back] = counts;
        json!({"offered": offered, "installed": installed, "confirmed": confirmed, "failed": 0, "rolled_back": rolled_back, "recovered": 0})
    };
    assert_eq!((&release["all"], &release["cohorts"]["canary"]), (&tally([3, 3, 2, 1]), &tally([3, 3, 2, 1])));
    assert_eq!(release["cohorts"]["validation"], tally([0; 4]), "it is offered it, and has said nothing");
    assert_eq!(release["cohorts"].as_object().unwrap().len(), 2);
    assert_eq!(
        release["reasons"],
        json!([{"outcome": "rolled-back", "reason": "no light", "devices": 1, "cohorts": {"canary": 1}, "hardware": {"board-a": 1}}])
    );
    assert_eq!(release["verdict"]["action"], "renew", "three devices are too few to say anything");

    // For people.
    let out = tidegate(&fleet.path(), now, &[], &line);
    let (said, status) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    for expected in [
        "stable/os/1.0.0, sequence 1: 3 devices reported it; 1 of the 3 that tried it failed\n",
        "COHORT      HARDWARE  OFFERED  INSTALLED  CONFIRMED  FAILED  ROLLED BACK  OPEN  FAILING\n",
        "canary      board-a   3        3          2          0       1            0     33.33%\n",
        "validation  -         0        0          0          0       0            0     0%\n",
        "1        rolled-back  no light  board-a 1  canary 1\n",
        "refused  1  unknown-key: by a key that is not enrolled, such as receipts/stable/os/1/",
    ] {
        assert!(said.contains(expected), "{expected}\n{said}");
    }
    assert!(!said.contains('\u{1b}'), "{said}");
    for expected in [
        " is not a valid enrolment: receipts of these devices do not count",
        "warning: 1 keys are enrolled for several devices",
        "next: tidegate receipts file:receipts --enrolments file:enrolments --health health.json",
    ] {
        assert!(status.contains(expected), "{expected}\n{status}");
    }
}

/// Only receipts within the scope are counted, and `rollout renew` accepts the report.
#[test]
fn receipts_are_counted_within_a_scope() {
    let (mut fleet, manifest) = rolling();
    let spec = "1.0.0";
    let one = Signer::of("one");
    write(&fleet.path(), "enrolments/one.json", enrolment("one", &one).to_string().as_bytes());
    for (sequence, outcome) in [(1, InstallResult::Confirmed), (2, InstallResult::Failed)] {
        let receipt = Receipt { sequence, ..receipt("one", manifest, outcome, fleet.now) };
        let (name, bytes) = object(&one.sign(receipt));
        write(&fleet.path().join("receipts"), &name, &bytes);
    }
    let mut toml = fs::read_to_string(fleet.path().join("tidegate.toml")).unwrap();
    toml.push_str("\n[receipts]\nplaces = [\"file:receipts\"]\nenrolments = \"file:enrolments\"\n");
    fs::write(fleet.path().join("tidegate.toml"), toml).unwrap();
    let count = |line: &[&str]| -> Value {
        let line = [&["receipts", "--json"], line].concat();
        serde_json::from_str(&told(&fleet.path(), fleet.now, &line)).unwrap()
    };
    for (line, refused) in [
        (&[][..], 1),
        (&["--channel", "stable"], 1),
        (&["--product", "os"], 1),
        (&["--channel", "stable", "--product", "os"], 1),
        // What is kept below another sequence is not even read.
        (&["--release", "1.0.0"], 0),
        (&["--release", "stable/os/1.0.0", "--health", "health.json"], 0),
    ] {
        let report = count(line);
        assert_eq!(report["counted"], 1, "{line:?}");
        assert_eq!(report["refused"].as_array().unwrap().len(), refused, "{line:?}");
    }
    // Settings count from the workspace, wherever one is.
    let elsewhere = tempfile::tempdir().unwrap();
    let workspace = fleet.path();
    told(elsewhere.path(), fleet.now, &["-C", workspace.to_str().unwrap(), "receipts", "--health", "there.json"]);
    let here = fs::read(fleet.path().join("health.json")).unwrap();
    assert_eq!(fs::read(elsewhere.path().join("there.json")).unwrap(), here);
    let printed = told(&fleet.path(), fleet.now, &["receipts", "--health", "-"]);
    assert_eq!(printed.as_bytes(), here, "and nothing else");

    fleet.pass(1);
    // Nobody has spoken for an hour.
    for (within, code) in [("59m", 1), ("60m", 0)] {
        let line = ["receipts", "--health", "heard.json", "--heard-within", within];
        let out = tidegate(&fleet.path(), fleet.now, &[], &line);
        let (said, status) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{within}: {status}");
        assert!(said.contains("1 devices reported it"), "the count is told either way: {said}");
        assert_eq!(fleet.path().join("heard.json").exists(), code == 0);
        assert_eq!(status.contains("[H-SILENCE]"), code == 1, "{status}");
    }
    told(&fleet.path(), fleet.now, &["receipts", "--health", "health.json"]);
    told(&fleet.path(), fleet.now, &["rollout", "renew", spec, "--require-health", "health.json"]);
    // By a program, which is what the job can be as well.
    let program =
        format!("command:{} --now {} receipts --health -", env!("CARGO_BIN_EXE_tidegate"), time::format(fleet.now));
    told(&fleet.path(), fleet.now, &["rollout", "renew", spec, "--require-health", &program]);
    let kept: Value =
        serde_json::from_slice(&fs::read(fleet.path().join("releases/stable/os/1.0.0/health.json")).unwrap()).unwrap();
    assert_eq!(kept["releases"][0]["cohorts"]["canary"]["confirmed"], 1);
}

#[test]
fn nothing_is_reported_when_nothing_could_be_counted() {
    let (fleet, _) = rolling();
    fs::create_dir_all(fleet.path().join("receipts")).unwrap();
    fs::create_dir_all(fleet.path().join("enrolments/keys")).unwrap();
    write(&fleet.path(), "enrolments/bad.json", b"{}");
    for (line, code, says) in [
        (&["receipts"][..], 2, "no receipts location configured"),
        (&["receipts", "file:receipts"], 2, "set receipts.enrolments in tidegate.toml"),
        (&["receipts", "file:receipts", "--enrolments", "file:nowhere"], 1, "there is no folder"),
        (&["receipts", "file:receipts", "--enrolments", "file:enrolments"], 1, "holds no enrolled key"),
        (
            &["receipts", "file:receipts", "--enrolments", "file:enrolments", "--release", "9.0.0"],
            1,
            "there is no release 9.0.0",
        ),
        (
            &["receipts", "file:receipts", "--enrolments", "file:enrolments", "--channel", "beta"],
            1,
            "has no channel beta",
        ),
        (&["receipts", "ftp://x", "--enrolments", "file:enrolments"], 2, "there is no store behind ftp://"),
        (
            &["receipts", "file:receipts", "--enrolments", "file:enrolments", "--health", "-", "--json"],
            2,
            "--health - and --json",
        ),
    ] {
        let line = if line.contains(&"--json") { line.to_vec() } else { [line, &["--health", "health.json"]].concat() };
        let out = tidegate(&fleet.path(), fleet.now, &[], &line);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(code) && said.contains(says), "{line:?}\n{said}");
    }
    write(&fleet.path(), "enrolments/one.json", enrolment("one", &Signer::of("one")).to_string().as_bytes());
    let gone = ["receipts", "file:gone", "--enrolments", "file:enrolments", "--health", "health.json"];
    let out = tidegate(&fleet.path(), fleet.now, &[], &gone);
    assert!(String::from_utf8_lossy(&out.stderr).contains("there is no folder"), "{out:?}");
    assert!(!fleet.path().join("health.json").exists(), "silence is not health");

    // A draft is nothing that a device can have.
    fleet.draft("2.0.0", |_| ());
    let line = ["receipts", "file:receipts", "--enrolments", "file:enrolments", "--release", "2.0.0"];
    let out = tidegate(&fleet.path(), fleet.now, &[], &line);
    assert!(String::from_utf8_lossy(&out.stderr).contains("it is not registered"), "{out:?}");
}

/// Receipts of a retired release, or from a cohort that was removed, still count.
#[test]
fn receipts_of_retired_releases_still_count() {
    let fleet = Fleet::new();
    let [old, new] = ["1.0.0", "1.1.0"].map(|version| {
        let spec = fleet.release(version, |_| ());
        spec.find(&fleet.path()).unwrap().manifest.unwrap()
    });
    told(&fleet.path(), fleet.now, &["release", "retire", "1.0.0"]);
    fleet.finish_ceremony().unwrap();
    let cohorts = fs::read_to_string(fleet.path().join("cohorts.toml")).unwrap();
    let fewer = cohorts.replace("[[stable.cohort]]\nname = \"early\"\nshare = \"20%\"\n", "").replace("75%", "95%");
    assert_ne!(fewer, cohorts);
    fs::write(fleet.path().join("cohorts.toml"), fewer).unwrap();
    told(&fleet.path(), fleet.now, &["ceremony", "start"]);
    fleet.finish_ceremony().unwrap();

    let one = Signer::of("one");
    write(&fleet.path(), "enrolments/one.json", enrolment("one", &one).to_string().as_bytes());
    let of_old = receipt("one", old.sha256, InstallResult::Confirmed, fleet.now);
    let mut of_new = receipt("one", new.sha256, InstallResult::Confirmed, fleet.now);
    of_new.release = "1.1.0".parse().unwrap();
    of_new.sequence = new.sequence;
    of_new.cohort = "early".parse().unwrap();
    for said in [of_old, of_new] {
        let (name, bytes) = object(&one.sign(said));
        write(&fleet.path().join("receipts"), &name, &bytes);
    }
    let line = ["receipts", "file:receipts", "--enrolments", "file:enrolments", "--json"];
    let report: Value = serde_json::from_str(&told(&fleet.path(), fleet.now, &line)).unwrap();
    assert_eq!((&report["counted"], &report["refused"]), (&json!(2), &json!([])));
    let told_of: Vec<_> = report["releases"].as_array().unwrap().iter().map(|release| &release["release"]).collect();
    assert_eq!(told_of, ["stable/os/1.0.0", "stable/os/1.1.0"]);
    assert_eq!(report["releases"][1]["cohorts"]["early"]["confirmed"], 1);
}
