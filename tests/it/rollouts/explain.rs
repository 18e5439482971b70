//! Publisher and device explain alike, to the letter; and a fleet is explained as its devices are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::chance::Chance;
use crate::support::fleet::lay_out_folder;
use crate::support::{Fleet, Forge, skip};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde_json::{Value, json};
use tidegate::fleet::{Fleet as Devices, Scope};
use tidegate::forecast::Explainer;
use tidegate::metadata::Repository;
use tidegate::rollout::RampRequest;
use tidegate_client::clock::StubClock;
use tidegate_client::device::Device;
use tidegate_client::fetch::file::url_of;
use tidegate_client::updater::Repository as Published;
use tidegate_model::decision::{Outcome, Profile};
use tidegate_model::facts::{FactValue, TypedFact};
use tidegate_model::time;

/// In four parts, 10,000 devices under 100 policies.
#[test]
fn devices_and_the_publisher_give_the_same_answers_1() {
    same_answers(12);
}

#[test]
fn devices_and_the_publisher_give_the_same_answers_2() {
    same_answers(8);
}

#[test]
fn devices_and_the_publisher_give_the_same_answers_3() {
    same_answers(11);
}

#[test]
fn devices_and_the_publisher_give_the_same_answers_4() {
    same_answers(10);
}

/// 2,500 devices under 25 policies, each asked by its own code and by the publisher's.
fn same_answers(seed: u64) {
    let mut chance = Chance::new(seed);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut asked = 0;
    for _ in 0..25 {
        let policy = chance.policy(now);
        let lifetimes: Vec<TimeDelta> = policy
            .map
            .cohorts()
            .iter()
            .map(|_| TimeDelta::hours(1 + i64::try_from(chance.below(200)).unwrap()))
            .collect();
        let forge = Forge::of_policy(&policy, &lifetimes);
        let repository = Repository::open(forge.dir()).unwrap();
        let place = tempfile::tempdir().unwrap();
        lay_out_folder(forge.dir(), &repository, &place.path().join("site"));
        let url = url_of(&place.path().join("site")).unwrap();
        let mut explainer = Explainer::new(forge.dir(), &repository, now + TimeDelta::minutes(30));
        for number in 0..100 {
            let profile = chance.device(number);
            // One folder for all: what devices keep there is public.
            let mut device = Device::builder()
                .root(forge.root())
                .repository(Published::at(&url).unwrap())
                .state_dir(place.path().join("state"))
                .id(profile.id.clone())
                .channel(profile.channel.clone())
                .product(profile.product.clone())
                .hardware(profile.hardware.clone())
                .factory(profile.installed.version.clone(), profile.installed.sequence)
                .facts(profile.own_facts.clone())
                .clock(StubClock::at(now + TimeDelta::minutes(30)))
                .open()
                .unwrap();
            let at = chance.instant(now);
            let theirs = device.explain(None, Some(at)).unwrap();
            let ours = explainer.explain(&profile, &[], at).unwrap();
            assert_eq!(ours.to_string(), theirs.explanation.to_string());
            assert_eq!(
                serde_json::to_string(&ours.explanation).unwrap(),
                serde_json::to_string(&theirs.explanation).unwrap()
            );
            let over_bridge = ours
                .explanation
                .offers
                .iter()
                .any(|offer| *offer.outcome() == ours.explanation.outcome && !offer.through.is_empty());
            asked += 1;
            let kind = match ours.explanation.outcome {
                Outcome::Install { .. } if !over_bridge => "install",
                Outcome::Install { .. } => "install a bridge",
                Outcome::Bridge { .. } => "never: bridges are followed",
                Outcome::UpToDate { .. } => "up to date",
                Outcome::Wait { .. } => "wait",
                Outcome::NotEligible { .. } => "not eligible",
                Outcome::Refuse { .. } => "refuse",
                Outcome::NoOffer { .. } => "no offer",
            };
            *kinds.entry(kind).or_default() += 1;
        }
    }
    assert_eq!(asked, 2_500);
    let all = ["install", "install a bridge", "no offer", "not eligible", "up to date", "wait"];
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), all, "{kinds:?}");
}

#[test]
fn a_fleet_is_explained_as_each_of_its_devices_is() {
    let mut chance = Chance::new(8);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    for _ in 0..10 {
        let policy = chance.policy(now);
        let lifetimes = vec![TimeDelta::hours(60); policy.map.cohorts().len()];
        let forge = Forge::of_policy(&policy, &lifetimes);
        let repository = Repository::open(forge.dir()).unwrap();
        let profiles: Vec<Profile> = (0..200).map(|number| chance.device(number)).collect();
        let csv = forge.dir().join("fleet.csv");
        fs::write(&csv, written(&profiles)).unwrap();
        let at = chance.instant(now);
        let mut explainer = Explainer::new(forge.dir(), &repository, now);
        let scope = Scope { product: "os".parse().ok(), channel: "stable".parse().ok(), facts: None };
        let answer = explainer.explain_fleet(&mut Devices::csv(&csv, scope).unwrap(), at, |_| ()).unwrap();
        assert_eq!(answer.devices, 200);

        let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
        for profile in &profiles {
            let explanation = explainer.explain(profile, &[], at).unwrap().explanation;
            let kind = serde_json::to_value(&explanation.outcome).unwrap()["kind"].as_str().unwrap().to_owned();
            *expected.entry((kind, explanation.cohort.cohort.to_string())).or_default() += 1;
        }
        let mut counted: BTreeMap<(String, String), u64> = BTreeMap::new();
        for group in &answer.groups {
            assert_eq!(group.devices, group.cohorts.values().sum::<u64>());
            for (cohort, count) in &group.cohorts {
                *counted.entry((group.reason.outcome.clone(), cohort.to_string())).or_default() += count;
            }
            // The device that is named as an example is one.
            let example = profiles.iter().find(|profile| profile.id == group.example).unwrap();
            let outcome = explainer.explain(example, &[], at).unwrap().explanation.outcome;
            assert_eq!(serde_json::to_value(outcome).unwrap()["kind"], group.reason.outcome);
        }
        assert_eq!(counted, expected);
    }
}

/// Devices by chance as CSV.
fn written(profiles: &[Profile]) -> String {
    let mut csv = "id,hardware,version,sequence,group,ram-mb,battery\n".to_owned();
    for Profile { id, hardware, installed, own_facts, .. } in profiles {
        let fact = |name: &str| match own_facts.value(&name.parse().unwrap()) {
            Some(FactValue::Text(text)) => text.clone(),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let (group, ram, battery) = (fact("group"), fact("ram-mb"), fact("battery"));
        writeln!(csv, "{id},{hardware},{},{},\"{group}\",{ram},{battery}", installed.version, installed.sequence)
            .unwrap();
    }
    csv
}

/// Whether a program was built after its sources were written: this package's tests do not build the other's program.
fn is_current(program: &Path) -> bool {
    let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let mut folders: Vec<_> = ["tuf/src", "model/src", "client/src", "device/src"]
        .iter()
        .map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
        .collect();
    let mut newest = None;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                newest = newest.max(written(&path));
            }
        }
    }
    written(program).is_some_and(|built| Some(built) >= newest)
}

#[test]
fn the_two_programs_print_the_same() {
    let publisher = Path::new(env!("CARGO_BIN_EXE_tidegate"));
    let device = publisher.with_file_name("tidegate-device");
    if !is_current(&device) {
        return skip("tidegate-device is not there, or older than its sources: cargo build -p tidegate-device");
    }
    let begun = Utc::now().trunc_subsecs(0) - TimeDelta::hours(72);
    let mut fleet = Fleet::shaped_at(begun, |_, text| text);
    let site = fleet.dir.path().join("site");
    fleet.release("1.0.0", |_| ());
    let spec = fleet.release("1.1.0", |new| {
        new.upgrade_from = Some(">=1.0.0".parse().unwrap());
        new.eligibility = Some(serde_json::from_str(r#"{"fact": "ram-mb", "ge": 512}"#).unwrap());
    });
    fleet.start(&spec);
    fleet.pass(49);
    let ramp = RampRequest { span: Some("48h".parse().unwrap()), ..RampRequest::default() };
    fleet.step(&spec, |transaction, op| transaction.advance(ramp, None, op)).unwrap();
    fleet.pass(22);
    fleet.nightly(&site);

    let mut kinds = std::collections::BTreeSet::new();
    for number in 0..24 {
        let id = format!("device-{number}");
        let hardware = if number % 6 == 5 { "board-b" } else { "board-a" };
        let version = if number % 2 == 0 { "1.0.0" } else { "0.9.0" };
        let at = time::format(fleet.now + TimeDelta::hours(if number % 5 == 4 { 90 } else { i64::from(number) }));
        let facts = if number % 4 == 3 { json!({"group": "lab"}) } else { json!({"ram-mb": 1024, "group": "field"}) };
        let file = fleet.dir.path().join("device.json");
        let described = json!({"id": id, "product": "os", "channel": "stable", "hardware": hardware, "version": version, "facts": facts});
        fs::write(&file, described.to_string()).unwrap();
        let mut ours = Command::new(publisher);
        ours.arg("-C").arg(fleet.path()).arg("explain").arg("--device").arg(&file).args(["--at", &at]);
        let mut theirs = Command::new(&device);
        theirs.arg("--root").arg(fleet.path().join("metadata/1.root.json")).arg("--repository").arg(&site);
        theirs.arg("--state-dir").arg(fleet.dir.path().join("state"));
        theirs.args(["--device-id", &id, "--channel", "stable", "--product", "os", "--hardware", hardware]);
        theirs.args(["--factory-version", version, "explain", "--at", &at]);
        for (name, value) in facts.as_object().unwrap() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            theirs.args(["--fact", &format!("{name}={value}")]);
        }
        let [ours, theirs] = [ours, theirs].map(|mut command| {
            let out = command.stdin(Stdio::null()).output().unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        });
        assert_eq!(ours, theirs);
        let decision = ours.lines().last().unwrap().split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        kinds.insert(decision.split(':').next().unwrap().to_owned());
    }
    assert!(kinds.len() >= 4, "{kinds:?}");
}

#[test]
fn what_a_release_that_asks_for_evidence_lacks_is_named_on_both_sides() {
    let begun = Utc::now().trunc_subsecs(0) - TimeDelta::hours(2);
    let mut fleet = Fleet::shaped_at(begun, |_, text| text);
    let site = fleet.dir.path().join("site");
    fleet.release("1.0.0", |_| ());
    let spec = fleet.release("1.1.0", |new| {
        new.eligibility = Some(serde_json::from_str(r#"{"fact": "attestation", "in": ["tpm2"]}"#).unwrap());
    });
    fleet.start(&spec);
    fleet.pass(1);
    fleet.nightly(&site);
    let explain = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let out = command.arg("-C").arg(fleet.path()).arg("explain").args(words).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let file = fleet.dir.path().join("device.json");
    let path = file.to_str().unwrap();
    let ask = |id: &str, mut facts: Value| {
        facts["group"] = json!("lab");
        let described = json!({"id": id, "product": "os", "channel": "stable", "hardware": "board-a", "version": "1.0.0", "facts": facts});
        fs::write(&file, described.to_string()).unwrap();
        explain(&["--device", path, "--at", &time::format(fleet.now)])
    };
    let id = "device-1".to_owned();
    let missing = "the fact attestation is missing: this device has no attestor and gives no evidence of its state";
    let (_, without) = ask(&id, json!({}));
    assert!(without.contains("not eligible (D-ELIGIBILITY)") && without.contains(missing), "{without}");
    let (_, other) = ask(&id, json!({"attestation": "ear"}));
    assert!(other.contains("this device gives evidence of the kind \"ear\""), "{other}");
    assert!(other.contains("evidence   ear\n"), "{other}");
    let (_, with) = ask(&id, json!({"attestation": "tpm2"}));
    assert!(!with.contains("not eligible") && with.contains("pass  D-ELIGIBILITY"), "{with}");
    let (is_done, wrong) = ask(&id, json!({"attestation": "rumour"}));
    assert!(!is_done && wrong.contains("use one of tpm2, ear, none"), "{wrong}");

    // The device, whose own facts claim what they like, says it to the letter.
    let mut device = Device::builder()
        .root(fs::read(fleet.path().join("metadata/1.root.json")).unwrap())
        .repository(Published::at(&url_of(&site).unwrap()).unwrap())
        .state_dir(fleet.dir.path().join("state"))
        .id(id.parse().unwrap())
        .channel("stable".parse().unwrap())
        .product("os".parse().unwrap())
        .hardware("board-a".parse().unwrap())
        .factory("1.0.0".parse().unwrap(), 0)
        .facts(
            ["attestation=tpm2", "group=lab"]
                .map(|fact| fact.parse::<TypedFact>().unwrap())
                .map(|fact| (fact.name, fact.value))
                .into_iter()
                .collect(),
        )
        .open()
        .unwrap();
    let theirs = device.explain(None, Some(fleet.now)).unwrap();
    assert_eq!(theirs.explanation.to_string().trim_end(), without.trim_end());

    // A fleet, by what it gives.
    let csv = fleet.dir.path().join("fleet.csv");
    fs::write(
        &csv,
        format!("id,hardware,version,group,attestation\n{id},board-a,1.0.0,lab,tpm2\n{id},board-a,1.0.0,lab,\n"),
    )
    .unwrap();
    let (_, groups) = explain(&["--fleet", csv.to_str().unwrap(), "--json"]);
    let groups: Value = serde_json::from_str(&groups).unwrap();
    let lacking: Vec<_> =
        groups["groups"].as_array().unwrap().iter().filter(|group| group["rule"] == "D-ELIGIBILITY").collect();
    assert!(lacking.len() == 1 && lacking[0]["devices"] == 1, "{groups}");
}
