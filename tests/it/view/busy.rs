//! A fleet as people run it: three channels of six cohorts, rollouts in all stages, a proposal, and receipts of some devices.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate::release::record::ReleaseSpec;
use tidegate::rollout::RampRequest;
use tidegate_model::receipt::{InstallResult, Receipt};

use crate::receipts::{Signer, enrolment, object, receipt, write};
use crate::support::Fleet;

const CHANNELS: [&str; 3] = ["stable", "beta", "nightly"];
const COHORTS: [(&str, &str); 5] =
    [("canary", "5%"), ("early", "10%"), ("third", "15%"), ("fourth", "20%"), ("general", "50%")];
/// Enrolled devices.
const DEVICES: usize = 240;

/// The workspace, with its settings for receipts, below `fleet.path()`.
pub fn busy() -> Fleet {
    let mut fleet = Fleet::shaped(|name, text| match name {
        "tidegate.toml" => with_channels(&text),
        "cohorts.toml" => cohorts(),
        _ => text,
    });
    let start = |fleet: &Fleet, spec: &ReleaseSpec| {
        fleet.step(spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap();
    };
    let first: Vec<ReleaseSpec> =
        CHANNELS.iter().map(|channel| fleet.release_for(&format!("{channel}/os/1.0.0"), "board-b", |_| ())).collect();
    for spec in &first {
        start(&fleet, spec);
    }
    for _ in 1..COHORTS.len() {
        fleet.pass(49);
        for spec in &first {
            fleet.validate(spec);
            fleet.advance(spec, 24).unwrap();
        }
    }
    fleet.pass(25);
    for spec in &first {
        fleet.validate(spec);
        fleet.step(spec, |transaction, op| transaction.complete(op)).unwrap();
    }
    let second: Vec<ReleaseSpec> =
        CHANNELS.iter().map(|channel| fleet.release(&format!("{channel}/os/1.1.0"), |_| ())).collect();
    for spec in &second {
        start(&fleet, spec);
    }
    for advanced in [&second[..], &second[..2]] {
        fleet.pass(49);
        for spec in advanced {
            fleet.advance(spec, 24).unwrap();
        }
    }
    let third = fleet.release("beta/os/1.2.0", |_| ());
    start(&fleet, &third);
    fleet.pass(12);
    let draft = fleet.draft("stable/os/1.3.0", |_| ());
    let (workspace, mut ring) = fleet.open();
    let mut operation = tidegate::workspace::Operation::new(&workspace, "tester", fleet.now, &mut ring);
    tidegate::release::signing::sign(&mut operation, &draft, &["release-1".into()], &[]).unwrap();
    drop(workspace);
    reports(&fleet, &second[0]);
    fleet
}

fn with_channels(text: &str) -> String {
    let begin = text.find("[channels.stable.release]").unwrap();
    let end = text.find("# How objects are published.").unwrap();
    let channel = &text[begin..end];
    let channels: String = CHANNELS.iter().map(|name| channel.replace("stable", name)).collect();
    let receipts = "[receipts]\nplaces = [\"file:receipts\"]\nenrolments = \"file:enrolments\"\n\n";
    format!("{}{channels}{receipts}{}", &text[..begin], &text[end..])
}

fn cohorts() -> String {
    let mut text = String::new();
    for (number, channel) in CHANNELS.iter().enumerate() {
        write!(text, "[{channel}]\nsalt = \"{:032x}\"\n", number + 1).unwrap();
        write!(text, "[[{channel}.cohort]]\nname = \"validation\"\ncondition = {{ fact = \"group\", eq = \"lab\" }}\n")
            .unwrap();
        for (name, share) in COHORTS {
            write!(text, "[[{channel}.cohort]]\nname = \"{name}\"\nshare = \"{share}\"\n").unwrap();
        }
    }
    text
}

/// A fifth of the devices has tried the release; of these one in ten went back, one could not install it, one has yet to confirm.
fn reports(fleet: &Fleet, spec: &ReleaseSpec) {
    let manifest = spec.find(&fleet.path()).unwrap().manifest.unwrap().sha256;
    let place = |name: &str| fleet.path().join(name);
    for number in 0..DEVICES {
        let id = format!("device-{number:04}");
        let signer = Signer::of(&id);
        write(&place("enrolments"), &format!("{id}.json"), enrolment(&id, &signer).to_string().as_bytes());
        if number % 5 != 0 {
            continue;
        }
        let (ended, reason) = match number {
            0 => (InstallResult::Failed, Some("<b>no</b> space on device-0000")),
            5 => (InstallResult::Installed, None),
            _ if number % 50 == 10 => (InstallResult::RolledBack, Some("health command failed")),
            _ => (InstallResult::Confirmed, None),
        };
        let hours = 100 - i64::try_from(number).unwrap() / 3;
        let mut said = receipt(&id, manifest, ended, fleet.now - TimeDelta::hours(hours));
        said.release = "1.1.0".parse().unwrap();
        said.sequence = 2;
        said.cohort = if number < 120 { "canary" } else { "early" }.parse().unwrap();
        said.reason = reason.map(|reason| reason.parse().unwrap());
        keep(&place("receipts"), &signer, said);
    }
}

fn keep(place: &Path, signer: &Signer, said: Receipt) {
    let (name, bytes) = object(&signer.sign(said));
    write(place, &name, &bytes);
}

/// The program's status page of that workspace, in a folder beside it.
pub fn site(fleet: &Fleet, now: DateTime<Utc>) -> std::path::PathBuf {
    let out = fleet.dir.path().join("site");
    crate::receipts::told(&fleet.path(), now, &["site", "--out", out.to_str().unwrap()]);
    assert!(fs::exists(out.join("status.json")).unwrap());
    out
}
