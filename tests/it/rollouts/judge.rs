//! A fleet is judged a class at a time, and by the ramp; that must be what each device decides.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::support::chance::{Chance, Policy};
use chrono::{DateTime, TimeDelta, Utc};
use tidegate::fleet::{Class, Member};
use tidegate::forecast::timeline::{Given, Judge, OfferTimeline, Offering};
use tidegate_model::decision::{Approval, Outcome};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::{Circumstances, ExplainedOffer};
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::{Offer, Offers};

fn hash(manifest: &Manifest) -> Digest {
    Digest::of(&manifest.to_bytes().unwrap())
}

fn timeline(policy: &Policy) -> OfferTimeline {
    let of = |offers: &Option<Offers>| match offers {
        None => Given::Nothing("nothing is offered".into()),
        Some(offers) => Given::Offers(offers.offers.clone()),
    };
    // As `explain` has it: what is signed has been so for as long as anybody asks.
    let since = DateTime::UNIX_EPOCH;
    let offers = policy.offers.iter().map(|offers| vec![Offering { since, given: of(offers) }]).collect();
    let manifests: BTreeMap<_, _> =
        policy.manifests.iter().map(|manifest| (hash(manifest), Ok(manifest.clone()))).collect();
    OfferTimeline::new(policy.map.clone(), offers, manifests)
}

/// What a device does at an instant, as the device finds out: offer by offer, over bridges, rule by rule.
fn decides(policy: &Policy, member: &Member, at: DateTime<Utc>) -> (Outcome, bool) {
    let device = &member.class.profile;
    let choice = policy.map.choose(&member.id, &device.facts());
    let cohort = policy.map.cohorts().iter().position(|cohort| cohort.name == choice.cohort).unwrap();
    let circumstances = Circumstances { device, choice: &choice, now: at, latest: at, quarantined: &[] };
    let Some(offers) = &policy.offers[cohort] else {
        return (circumstances.nothing("nothing is offered").outcome, false);
    };
    let explained =
        circumstances.explain(offers.offers.iter().map(|offer| of(policy, &circumstances, offer)).collect());
    let chosen = explained.offers.iter().find(|offer| *offer.outcome() == explained.outcome);
    (explained.outcome.clone(), chosen.is_some_and(|offer| !offer.through.is_empty()))
}

fn of(policy: &Policy, circumstances: &Circumstances<'_>, offer: &Offer) -> ExplainedOffer {
    let manifest = policy.manifests.iter().find(|manifest| manifest.sequence == offer.sequence).unwrap();
    let mut explained = ExplainedOffer::new(&circumstances.inputs(offer, Approval::Manifest(manifest)));
    if let Outcome::Bridge { bridge, .. } = &explained.decision.outcome {
        let through = of(policy, circumstances, &offer.through(bridge));
        let further = through.through.clone();
        explained.through = std::iter::once(through).chain(further).collect();
    }
    explained
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
            let (cohort, order) = timeline.place(&member);
            let judgement = judge.judge(&member.class, None, cohort)[0].clone();
            let reached: Vec<_> = judgement.offers.iter().filter_map(|offer| offer.reached_at(&order)).collect();
            let mut instants = vec![chance.instant(now), chance.instant(now)];
            // The very second, and the one before.
            instants.extend(reached.into_iter().flat_map(|at| [at, at - TimeDelta::seconds(1)]));
            instants.retain(|at| *at >= DateTime::UNIX_EPOCH);
            for at in instants {
                let (outcome, over_bridge) = decides(&policy, &member, at);
                let (offer, judged) = judgement.at(&order, at);
                let kind = serde_json::to_value(&outcome).unwrap()["kind"].to_string();
                match (&outcome, judged.as_ref()) {
                    // In other words, as many devices share them.
                    (Outcome::Wait { until, rule, .. }, Outcome::Wait { until: theirs, rule: by, .. }) => {
                        assert_eq!((until, rule), (theirs, by), "{member:?} at {at}");
                    }
                    (outcome, judged) => assert_eq!(outcome, judged, "{member:?} at {at}"),
                }
                if matches!(outcome, Outcome::Install { .. }) {
                    assert_eq!(offer.unwrap().by_way_of.is_some(), over_bridge);
                }
                *kinds.entry(format!("{kind} {over_bridge}")).or_default() += 1;
            }
        }
    }
    // Chance has been everywhere.
    assert_eq!(kinds.len(), 7, "{kinds:?}");
}
