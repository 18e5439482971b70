//! What rollouts cost at scale: `cargo bench --bench scale`.
//!
//! First a plan: a million made-up devices over a rollout of four steps. Then a channel of 10,000 releases and 1,000 cohorts: to read it,
//! and what a step of a rollout takes on top of that. Exits with 1 if a limit is missed, so that a script can ask:
//!
//! ```sh
//! cargo bench --bench scale                    # all of it
//! cargo bench --bench scale -- plan            # only the plan; or `advance`
//! cargo bench --bench scale -- advance 1000 100    # with so many releases and cohorts
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::too_many_lines)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate::ceremony::init;
use tidegate::fleet::Fleet;
use tidegate::forecast::{FleetForecast, Forecast, MadeUp, Outlook};
use tidegate::fs::Changes;
use tidegate::keys::{KeyRing, NoPassphrases};
use tidegate::metadata::{Delegation, Document, Edit, RoleKeys};
use tidegate::policy::ReleaseState;
use tidegate::release::draft::{self, NewArtifact, NewRelease};
use tidegate::release::record::{Record, ReleaseSpec};
use tidegate::release::signing;
use tidegate::rollout::{RampRequest, RolloutTransaction};
use tidegate::validate;
use tidegate::workspace::init::{KeySource, Options};
use tidegate::workspace::{Operation, Workspace, artifacts};
use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::name::Name;

/// A plan of a million devices takes at most this long, and this many bytes.
const PLAN: (Duration, u64) = (Duration::from_secs(2), 500_000_000);
/// A step takes at most this much longer than reading.
const STEP: Duration = Duration::from_secs(1);

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let wanted = |name: &str| words.first().is_none_or(|word| word == name);
    let number = |index: usize, otherwise| words.get(index).map_or(otherwise, |word| word.parse().unwrap());
    let mut missed = Vec::new();
    if wanted("plan") {
        plan(number(1, 1_000_000), &mut missed);
    }
    if wanted("advance") {
        advance(number(1, 10_000), number(2, 1_000), &mut missed);
    }
    for what in &missed {
        println!("MISSED  {what}");
    }
    std::process::exit(i32::from(!missed.is_empty()));
}

fn begin() -> DateTime<Utc> {
    DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().with_timezone(&Utc)
}

fn laid_down(dir: &Path) {
    let options = Options {
        keys: KeySource::Example,
        salt: Some("00112233445566778899aabbccddeeff".into()),
        actor: "bench".into(),
    };
    init(&dir.join("fleet"), &options, begin(), &mut NoPassphrases).unwrap();
    fs::write(dir.join("image.bin"), "the bytes of an image").unwrap();
}

fn opened(dir: &Path) -> (Workspace, KeyRing) {
    let workspace = Workspace::open(&dir.join("fleet")).unwrap();
    let ring = workspace.ring(&workspace.settings().unwrap(), Box::new(NoPassphrases)).unwrap();
    (workspace, ring)
}

/// A draft with a frozen manifest.
fn drafted(dir: &Path, version: &str, now: DateTime<Utc>) -> ReleaseSpec {
    let spec: ReleaseSpec = version.parse().unwrap();
    let new = NewRelease::of(spec.clone(), "bench".parse().unwrap());
    let (workspace, _) = opened(dir);
    draft::new(&mut Operation::new(&workspace, "bench", now, &mut tidegate::keys::KeyRing::empty()), new).unwrap();
    let artifact = NewArtifact {
        file: &dir.join("image.bin"),
        name: None,
        hardware: BTreeSet::from(["board-a".parse().unwrap()]),
        media_type: None,
        replace: false,
    };
    draft::add(
        &mut Operation::new(&workspace, "bench", now, &mut tidegate::keys::KeyRing::empty()),
        &spec,
        &artifact,
        |_| (),
    )
    .unwrap();
    draft::manifest(&mut Operation::new(&workspace, "bench", now, &mut tidegate::keys::KeyRing::empty()), &spec)
        .unwrap();
    spec
}

/// A release that was signed, registered and validated.
fn validated(dir: &Path, version: &str, now: DateTime<Utc>) -> ReleaseSpec {
    let spec = drafted(dir, version, now);
    let (workspace, mut ring) = opened(dir);
    signing::sign(
        &mut Operation::new(&workspace, "tester", now, &mut ring),
        &spec,
        &["release-1".into(), "release-2".into()],
        &[],
    )
    .unwrap();
    validate::validate(&mut Operation::new(&workspace, "bench", now, &mut ring), &spec, &validate::Options::default())
        .unwrap();
    signing::register(&mut Operation::new(&workspace, "bench", now, &mut ring), &spec).unwrap();
    spec
}

fn plan(devices: u64, missed: &mut Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    laid_down(place.path());
    let spec = drafted(place.path(), "1.0.0", begin());
    let (workspace, _) = opened(place.path());
    let transaction = || RolloutTransaction::open(&workspace, &spec, begin()).unwrap();
    let forecast = |transaction: &RolloutTransaction<'_>| {
        Forecast::new(transaction, &Outlook { from: begin(), ..Outlook::default() }).unwrap()
    };

    let started = Instant::now();
    let mut made_up = forecast(&transaction());
    let request = MadeUp { devices, hardware: BTreeSet::new(), installed: None, facts: Facts::new() };
    let (fleet, said) = made_up.made_up(request).unwrap();
    let outcome = made_up.over(fleet, said, |_| ()).unwrap();
    planned("made-up devices", devices, &outcome, started.elapsed(), missed);

    // The same of a file, in which every device has a fact of its own.
    let csv = place.path().join("fleet.csv");
    let mut lines = std::io::BufWriter::new(fs::File::create(&csv).unwrap());
    writeln!(lines, "id,hardware,version,sequence,serial,group").unwrap();
    for number in 1..=devices {
        let group = if number % 100 == 0 { "lab" } else { "field" };
        writeln!(lines, "device-{number:07},board-a,0.9.0,,{number},{group}").unwrap();
    }
    lines.into_inner().unwrap().sync_all().unwrap();
    let started = Instant::now();
    let of_file = forecast(&transaction());
    let fleet = Fleet::csv(&csv, of_file.scope()).unwrap();
    let outcome = of_file.over(fleet, "fleet.csv".into(), |_| ()).unwrap();
    planned("devices of a file", devices, &outcome, started.elapsed(), missed);
}

fn planned(what: &str, devices: u64, outcome: &FleetForecast, took: Duration, missed: &mut Vec<String>) {
    let memory = peak_memory();
    let offered = outcome.curve.last().copied().unwrap_or_default();
    println!(
        "plan of {devices} {what}, {} steps, {} hours",
        outcome.course.steps.len(),
        outcome.simulation.window.hours
    );
    println!("  offered          {offered}");
    println!("  time             {took:.2?}");
    println!("  memory at most   {} MB", memory / 1_000_000);
    assert_eq!(offered, devices);
    if took > PLAN.0 {
        missed.push(format!("the plan took {took:.2?}, the limit is {:?}", PLAN.0));
    }
    if memory > PLAN.1 {
        missed.push(format!("the plan took {memory} bytes, the limit is {}", PLAN.1));
    }
}

/// The most memory that this process had, in bytes; 0 where that cannot be told.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1000
}

fn advance(releases: u64, cohorts: u64, missed: &mut Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path();
    laid_down(dir);
    let started = Instant::now();
    grown(dir, releases, cohorts);
    println!("channel of {releases} releases and {cohorts} cohorts, made in {:.1?}", started.elapsed());

    let mut now = begin() + TimeDelta::hours(1);
    let spec = validated(dir, "2000000.0.0", now);
    now += TimeDelta::hours(1);
    let (workspace, mut ring) = opened(dir);
    RolloutTransaction::open(&workspace, &spec, now)
        .unwrap()
        .start(RampRequest::default(), &mut Operation::new(&workspace, "bench", now, &mut ring))
        .unwrap();
    drop(workspace);

    now += TimeDelta::hours(25);
    let (workspace, mut ring) = opened(dir);
    let started = Instant::now();
    let repository = workspace.repository().unwrap();
    let metadata = started.elapsed();
    drop(repository);
    let started = Instant::now();
    let transaction = RolloutTransaction::open(&workspace, &spec, now).unwrap();
    let reading = started.elapsed();
    let started = Instant::now();
    let outcome = transaction
        .advance(RampRequest::default(), None, &mut Operation::new(&workspace, "bench", now, &mut ring))
        .unwrap();
    let step = started.elapsed();
    println!("  read metadata    {metadata:.2?}");
    println!("  read all         {reading:.2?}");
    println!("  rollout advance  {step:.2?} more, new versions of {}", outcome.roles.join(", "));
    println!("  memory at most   {} MB", peak_memory() / 1_000_000);
    if step > STEP {
        missed.push(format!("the step took {step:.2?} more than reading, the limit is {STEP:?}"));
    }
    if outcome.roles.len() != 3 {
        missed.push(format!("the step rewrote {}", outcome.roles.join(", ")));
    }
}

/// Gives the workspace's channel this many releases, each with a record, and this many cohorts.
fn grown(dir: &Path, releases: u64, cohorts: u64) {
    let channel: Name = "stable".parse().unwrap();
    let (workspace, mut ring) = opened(dir);
    let settings = workspace.settings().unwrap();
    let repository = workspace.repository().unwrap();
    let folder = workspace.dir().to_owned();
    let mut changes = Changes::default();
    let stored = |bytes: &[u8]| {
        let path = folder.join(artifacts::signed_path(&Digest::of(bytes)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        (bytes.len() as u64, *Digest::of(bytes).as_bytes())
    };

    let names: Vec<Name> = (0..cohorts).map(|number| format!("c{number:04}").parse().unwrap()).collect();
    let share = 1_000_000 / cohorts;
    let parts = names.iter().enumerate().map(|(index, name)| {
        let share = if index == 0 { 1_000_000 - share * (cohorts - 1) } else { share };
        serde_json::json!({"name": name, "share": share})
    });
    let salt = "00112233445566778899aabbccddeeff";
    let map = serde_json::json!({"schema": 1, "salt": salt, "cohorts": parts.collect::<Vec<_>>()});
    let map = CohortMap::from_value(&map).unwrap();
    let mut toml = format!("[stable]\nsalt = \"{salt}\"\n");
    for (index, name) in names.iter().enumerate() {
        let ppm = if index == 0 { 1_000_000 - share * (cohorts - 1) } else { share };
        let share = tidegate::config::write_share(u32::try_from(ppm).unwrap());
        write!(toml, "[[stable.cohort]]\nname = \"{name}\"\nshare = \"{share}\"\n").unwrap();
    }
    fs::write(folder.join("cohorts.toml"), toml).unwrap();
    let policy = fs::read_to_string(folder.join("policy.toml")).unwrap();
    let policy = policy.replace("cohort = \"validation\"\n", "").replace("{ canary = \"48h\" }", "{}");
    fs::write(folder.join("policy.toml"), policy).unwrap();

    let (map_length, map_hash) = stored(&map.to_bytes().unwrap());
    let template = drafted_record(dir);
    let mut listed = BTreeMap::new();
    for number in 1..=releases {
        let mut record: Record = template.clone();
        record.version = format!("1.{number}.0").parse().unwrap();
        let manifest = record.to_manifest(number, begin());
        let bytes = manifest.to_bytes().unwrap();
        record.manifest = Some(tidegate::release::record::ManifestRecord {
            sequence: number,
            sha256: Digest::of(&bytes),
            length: bytes.len() as u64,
        });
        record.state = ReleaseState::Stable;
        let (product, version) = (&record.product, &record.version);
        listed.insert(layout::manifest_path(&channel, product, version), stored(&bytes));
        for artifact in &manifest.artifacts {
            listed.insert(artifact.path.clone(), (artifact.length, *artifact.sha256.as_bytes()));
        }
        record.put(&mut changes).unwrap();
        changes.put(record.id().file("manifest.json"), bytes);
    }
    let (_, rollout) = repository.keys_of("stable.canary").unwrap();
    let all = repository.all_keys();
    let keys: Vec<_> = rollout.keyids.iter().map(|id| all[id].clone()).collect();
    let year = TimeDelta::days(365);
    let mut edit = Edit::new(&repository, begin(), settings.online()).unwrap();
    edit.change("stable", year, |stable| {
        for old in ["validation", "canary", "early", "general"] {
            stable.remove_delegation(&format!("stable.{old}"));
        }
        stable.set_target(&layout::cohorts_path(&channel), map_length, &map_hash, None);
        for name in &names {
            stable.set_delegation(&Delegation {
                name: layout::cohort_role(&channel, name),
                keys: RoleKeys { keys: keys.clone(), threshold: 1 },
                paths: layout::cohort_patterns(&channel, name),
            });
        }
        for (path, (length, hash)) in &listed {
            stable.set_target(path, *length, hash, None);
        }
    })
    .unwrap();
    for name in &names {
        edit.put(&layout::cohort_role(&channel, name), Document::targets(), year);
    }
    let finished = edit.finish(&mut ring).unwrap().unwrap();
    changes.extend(finished.changes);
    changes.commit(&folder).unwrap();
}

/// What all releases are made from.
fn drafted_record(dir: &Path) -> Record {
    let folder = dir.join("fleet");
    let image = artifacts::add(&folder, &dir.join("image.bin"), |_| ()).unwrap();
    let artifact = serde_json::json!({
        "name": "image.bin", "length": image.length, "sha256": image.sha256.to_string(), "hardware": ["board-a"],
        "media_type": "application/octet-stream",
    });
    serde_json::from_value(serde_json::json!({
        "schema": 1, "channel": "stable", "product": "os", "version": "1.0.0", "state": "stable", "paused": false,
        "created": "2026-01-01T00:00:00Z", "urgency": "normal", "build_id": "bench", "artifacts": [artifact],
    }))
    .unwrap()
}
