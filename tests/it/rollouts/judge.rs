//! A fleet is judged a class at a time, and by the ramp; that must be what each device decides.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::support::chance::{Chance, Policy};
use chrono::{DateTime, TimeDelta, Utc};
use tidegate::fleet::{Class, Member};
use tidegate::forecast::timeline::{Given, Judge, OfferTimeline, Offering};
use tidegate_model::decision::{Inputs, Offer, Outcome, decide};
use tidegate_model::digest::Digest;
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::Assignment;

fn hash(manifest: &Manifest) -> Digest {
    Digest::of(&manifest.to_bytes().unwrap())
}

fn timeline(policy: &Policy) -> OfferTimeline {
    let of = |assignment: &Option<Assignment>| match assignment {
        None => Given::Nothing("nothing is assigned".into()),
        Some(assignment) => {
            let manifest = policy.manifests.iter().find(|manifest| manifest.sequence == assignment.sequence).unwrap();
            Given::Release(Box::new(assignment.clone()), hash(manifest))
        }
    };
    // As `explain` has it: what is signed has been so for as long as anybody asks.
    let since = DateTime::UNIX_EPOCH;
    let offers = policy.assignments.iter().map(|assignment| vec![Offering { since, given: of(assignment) }]).collect();
    let manifests: BTreeMap<_, _> =
        policy.manifests.iter().map(|manifest| (hash(manifest), manifest.clone())).collect();
    OfferTimeline::new(policy.map.clone(), offers, manifests)
}

/// Whether a device installs anything at an instant, as the device finds out: over bridges, rule by rule.
fn installs(policy: &Policy, member: &Member, at: DateTime<Utc>) -> (Outcome, bool) {
    let device = &member.class.profile;
    let choice = policy.map.choose(&member.id, &device.facts());
    let cohort = policy.map.cohorts().iter().position(|cohort| cohort.name == choice.cohort).unwrap();
    let Some(mut assignment) = policy.assignments[cohort].clone() else {
        let offer = Offer::Nothing { why: "nothing is assigned" };
        return (decide(&Inputs { device, choice: &choice, offer, now: at, quarantined: &[] }).outcome, false);
    };
    let mut over_bridge = false;
    loop {
        let manifest = policy.manifests.iter().find(|manifest| manifest.sequence == assignment.sequence).unwrap();
        let offer = Offer::Release { assignment: &assignment, manifest, sha256: hash(manifest) };
        match decide(&Inputs { device, choice: &choice, offer, now: at, quarantined: &[] }).outcome {
            Outcome::Bridge { bridge, .. } => {
                over_bridge = true;
                assignment = assignment.through(&bridge);
            }
            outcome => return (outcome, over_bridge),
        }
    }
}

#[test]
fn a_class_and_a_ramp_give_what_every_device_decides() {
    let mut chance = Chance::new(6);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        let policy = chance.policy(now);
        let timeline = Rc::new(timeline(&policy));
        let mut judge = Judge::new(Rc::clone(&timeline));
        for number in 0..50 {
            let profile = chance.device(number);
            let facts = profile.facts();
            let id = profile.id.clone();
            let member = Member { id, class: Rc::new(Class { number, profile, facts }) };
            let (cohort, within) = timeline.place(&member);
            let judgement = judge.judge(&member.class, cohort)[0].clone();
            let reached = judgement.reached_at(within);
            let mut instants = vec![chance.instant(now), chance.instant(now)];
            // The very second, and the one before.
            instants.extend(reached.into_iter().flat_map(|at| [at, at - TimeDelta::seconds(1)]));
            instants.retain(|at| *at >= DateTime::UNIX_EPOCH);
            for at in instants {
                let (outcome, over_bridge) = installs(&policy, &member, at);
                if judgement.waits(within, at) {
                    let Outcome::Wait { until, .. } = outcome else { panic!("{member:?} at {at}: {outcome}") };
                    assert_eq!(until, reached);
                } else {
                    assert_eq!(outcome, judgement.outcome, "{member:?} at {at}");
                    assert_eq!(judgement.by_way_of.is_some(), over_bridge);
                }
                let kind = serde_json::to_value(&judgement.outcome).unwrap()["kind"].to_string();
                *kinds.entry(format!("{kind} {over_bridge}")).or_default() += 1;
            }
        }
    }
    // Chance has been everywhere.
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}
