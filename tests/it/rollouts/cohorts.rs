//! Cohorts that change after they were signed: what their devices are offered then, and what a rollout under way forbids.

use std::fs;
use tidegate::Rule;

use crate::support::Fleet;
use crate::support::fleet::{lay_out, named, rule};
use tidegate::proposal::ProposalRequest;
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::workspace::Ledger;
use tidegate::workspace::Operation;
use tidegate::{Error, ceremony};
use tidegate_model::decision::{Outcome, Profile};
use tidegate_model::facts::FactValue;
use tidegate_model::rollout::Stage;

const PILOTS: &str = "[[stable.cohort]]\nname = \"pilots\"\ncondition = { fact = \"group\", eq = \"pilot\" }\n\n";
const EARLY: &str = "[[stable.cohort]]\nname = \"early\"\nshare = \"20%\"\n\n";

fn everywhere(fleet: &Fleet, version: &str) -> ReleaseSpec {
    let spec = fleet.release(version, |new| new.urgency = RecordedUrgency::Security);
    fleet.start(&spec);
    fleet.step(&spec, |transaction, op| transaction.complete(op)).unwrap();
    spec
}

fn edit(fleet: &Fleet, changes: &[(&str, &str)]) {
    let path = fleet.path().join("cohorts.toml");
    let mut text = fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}: {text}");
        text = text.replacen(from, to, 1);
    }
    fs::write(path, text).unwrap();
}

/// Without `early`, with `pilots`, and a larger canary.
fn reshape(fleet: &Fleet) {
    let canary = "[[stable.cohort]]\nname = \"canary\"\nshare = \"5%\"";
    edit(fleet, &[(EARLY, ""), (canary, &format!("{PILOTS}{}", canary.replace("5%", "25%")))]);
}

/// Proposes what `cohorts.toml` says.
fn apply(fleet: &Fleet) -> Result<(), Error> {
    ceremony::start(
        &mut Operation::new(&fleet.open().0, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        &ProposalRequest::default(),
    )
    .map(|_| ())
}

fn group(mut profile: Profile, group: &str) -> Profile {
    profile.own_facts.insert("group".parse().unwrap(), FactValue::from(group));
    profile
}

#[test]
fn cohorts_change_at_a_ceremony_and_no_device_is_lost() {
    let mut fleet = Fleet::new();
    let site = fleet.dir.path().join("site");
    let first = everywhere(&fleet, "1.0.0");
    lay_out(&fleet, &site);
    let profiles: Vec<_> = (0..40).map(|n| Fleet::profile(&format!("device-{n}"), "stable", "os", "board-a")).collect();
    let cohort_of = |fleet: &Fleet, profile: &Profile| {
        fleet.device(&site, profile).check().unwrap().explanation.cohort.cohort.to_string()
    };
    let before: Vec<_> = profiles.iter().map(|profile| cohort_of(&fleet, profile)).collect();
    assert!(before.iter().any(|cohort| cohort == "early"));
    let version = fleet.open().0.repository().unwrap().role("stable.early").unwrap().version;

    reshape(&fleet);
    apply(&fleet).unwrap();
    // Two people at once: the second is told that the first was there.
    assert_eq!(rule(apply(&fleet)), "C-ONE");
    // Until it is signed nothing has changed.
    assert!(fleet.open().0.repository().unwrap().role("stable.early").is_some());
    fleet.pass(1);
    fleet.finish_ceremony().unwrap();
    lay_out(&fleet, &site);

    // The cohort's role is gone, and the snapshot goes on listing it (TUF 5.5.5).
    let repository = fleet.open().0.repository().unwrap();
    assert!(repository.role("stable.early").is_none());
    assert_eq!(repository.listed_version("stable.early"), Some(version));
    assert!(
        fs::read_dir(fleet.path().join("metadata"))
            .unwrap()
            .all(|file| { !file.unwrap().file_name().to_string_lossy().ends_with("stable.early.json") })
    );

    // Devices that know the old snapshot follow, and those of the cohort that is gone have another, which offers the same.
    for (profile, before) in profiles.iter().zip(&before) {
        let check = fleet.device(&site, profile).check().unwrap();
        let outcome = &check.explanation.outcome;
        assert!(matches!(outcome, Outcome::Install { release, .. } if release.to_string() == "1.0.0"), "{outcome}");
        let after = check.explanation.cohort.cohort.to_string();
        assert!(["canary", "general"].contains(&after.as_str()) && (before != "early" || after != *before));
    }
    // The new cohort begins with what the others have.
    let pilot = group(Fleet::profile("a-pilot", "stable", "os", "board-a"), "pilot");
    let check = fleet.device(&site, &pilot).check().unwrap();
    assert_eq!(check.explanation.cohort.cohort.as_str(), "pilots");
    assert!(matches!(check.explanation.outcome, Outcome::Install { .. }), "{}", check.explanation);
    let in_force = fleet.step(&first, |transaction, _| Ok(transaction.in_force().to_vec())).unwrap();
    assert_eq!(named(&in_force, "pilots").offers[0].stage, Stage::Stable);

    let ledger = Ledger::open(&fleet.path()).unwrap();
    let entry = ledger.entries().iter().find(|entry| entry.event == "cohorts").unwrap();
    assert_eq!(entry.subject, "stable");
    let listed = repository.targets("stable").unwrap().targets["stable/cohorts.json"].hashes.name_prefix();
    assert_eq!(entry.evidence["map"], listed);

    // Both implementations find the whole in order, and the next release goes through the new cohorts.
    let next = fleet.release("1.1.0", |_| ());
    let in_force = fleet.start(&next);
    assert!(named(&in_force, "pilots").has(2), "it is the first now");
    fleet.step(&next, |transaction, op| transaction.withdraw(op, None)).unwrap();

    // A cohort that comes back goes on where its role's versions ended.
    edit(
        &fleet,
        &[
            ("share = \"75%\"", "share = \"55%\""),
            ("[[stable.cohort]]\nname = \"general\"", &format!("{EARLY}[[stable.cohort]]\nname = \"general\"")),
        ],
    );
    apply(&fleet).unwrap();
    fleet.pass(1);
    fleet.finish_ceremony().unwrap();
    lay_out(&fleet, &site);
    assert_eq!(fleet.open().0.repository().unwrap().role("stable.early").unwrap().version, version + 1);
    assert!(profiles.iter().any(|profile| cohort_of(&fleet, profile) == "early"));
}

/// A change of cohorts exposes no more of the fleet to a rollout than a step may.
#[test]
fn cohort_change_is_limited_like_a_step() {
    let mut fleet = Fleet::new();
    everywhere(&fleet, "1.0.0");
    let second = fleet.release("1.1.0", |_| ());
    // Proposed while nothing was on its way: a canary of 25%, and policy allows 10% at once.
    reshape(&fleet);
    apply(&fleet).unwrap();
    fleet.start(&second);
    fleet.pass(1);
    let metadata = fleet.metadata();
    let error = fleet.finish_ceremony().unwrap_err();
    assert_eq!(error.broken_rule(), Some(Rule::CeremonyCohorts));
    assert_eq!(
        error.to_string(),
        "other cohorts would expose 20% more of the fleet to stable/os/1.1.0 at one instant, and policy.toml allows 10% [C-COHORTS]"
    );
    ceremony::abort(
        &mut Operation::new(&fleet.open().0, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    // And it cannot be proposed now.
    assert_eq!(rule(apply(&fleet)), "C-COHORTS");
    assert_eq!(fleet.metadata(), metadata, "nothing half done");

    // A little more may be, as in a step.
    edit(&fleet, &[("share = \"25%\"", "share = \"15%\""), ("share = \"75%\"", "share = \"85%\"")]);
    apply(&fleet).unwrap();
    ceremony::abort(
        &mut Operation::new(&fleet.open().0, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    // A salt shuffles everybody, but exposes no more than the cohorts that have it hold: 15%.
    edit(&fleet, &[("salt = \"0011", "salt = \"1111")]);
    assert_eq!(rule(apply(&fleet)), "C-COHORTS");
    fleet.step(&second, |transaction, op| transaction.withdraw(op, None)).unwrap();
    apply(&fleet).unwrap();
    fleet.finish_ceremony().unwrap();
}
