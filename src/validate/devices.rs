//! Device compatibility: the hardware is known and the artifacts fit it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use tidegate_model::layout;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::HardwareId;
use tidegate_model::rollout::Offer;
use tidegate_model::version::is_newer;

use super::{Rule, RuleResult, Subject, none_of, not_applicable, pass, warn};
use crate::error::Result;
use crate::policy::CheckKind;
use crate::workspace::{cohorts_in_force, manifest_in_force, map_in_force};

const KIND: CheckKind = CheckKind::DeviceCompatibility;

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-DEV-01", kind: KIND, title: "all hardware is known to tidegate.toml", check: known },
    Rule { id: "V-DEV-02", kind: KIND, title: "artifacts fit the slots of their hardware", check: fits },
    Rule { id: "V-DEV-03", kind: KIND, title: "hardware of the previous release is still served", check: kept },
    Rule {
        id: "V-DEV-04",
        kind: KIND,
        title: "the version is not below what its hardware runs at least",
        check: minimum,
    },
    Rule {
        id: "V-DEV-05",
        kind: KIND,
        title: "a security release is for all hardware of the fleet",
        check: all_served,
    },
];

fn hardware(manifest: &Manifest) -> BTreeSet<&HardwareId> {
    manifest.artifacts.iter().flat_map(|artifact| &artifact.hardware).collect()
}

fn known(subject: &Subject<'_>) -> Result<RuleResult> {
    let ids = hardware(subject.manifest);
    let wrong: Vec<_> = ids
        .iter()
        .filter(|id| !subject.settings.hardware.contains_key(**id))
        .map(|id| format!("{id} is unknown"))
        .collect();
    let shown: Vec<_> = ids.iter().map(|id| id.as_str()).collect();
    none_of(&wrong, shown.join(", "))
}

fn fits(subject: &Subject<'_>) -> Result<RuleResult> {
    let mut wrong = Vec::new();
    let mut looked = 0;
    for artifact in &subject.manifest.artifacts {
        for id in &artifact.hardware {
            let Some(slot) = subject.settings.hardware.get(id).and_then(|hardware| hardware.slot_bytes) else {
                continue;
            };
            looked += 1;
            if artifact.length > slot {
                wrong.push(format!("{} has {} bytes, and the slot of {id} {slot}", artifact.name, artifact.length));
            }
        }
    }
    if looked == 0 {
        return not_applicable("no hardware of the release has slot_bytes in tidegate.toml");
    }
    none_of(&wrong, "those that tidegate.toml gives")
}

fn minimum(subject: &Subject<'_>) -> Result<RuleResult> {
    let version = &subject.manifest.version;
    let known = |id: &&HardwareId| subject.settings.hardware.get(*id)?.minimum_version.as_ref();
    let ids = hardware(subject.manifest);
    let with: Vec<_> = ids.iter().filter_map(|id| Some((*id, known(id)?))).collect();
    if with.is_empty() {
        return not_applicable("no hardware of the release has minimum_version in tidegate.toml");
    }
    let wrong: Vec<_> = with
        .iter()
        .filter(|(_, least)| is_newer(least, version))
        .map(|(id, least)| format!("{id} runs {least} and above, and this is {version}"))
        .collect();
    none_of(&wrong, format!("{version} runs on all of it"))
}

fn kept(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(previous) = subject.previous_of_line() else { return not_applicable("there is no previous release") };
    let now = hardware(subject.manifest);
    let gone: Vec<_> = hardware(previous).into_iter().filter(|id| !now.contains(id)).map(HardwareId::as_str).collect();
    if gone.is_empty() {
        return pass(format!("as in {}", previous.version));
    }
    warn(format!("{} served {}, and this release does not", previous.version, gone.join(", ")))
}

/// The fleet's hardware is what the releases are for that are offered now, and the previous one of the line.
fn all_served(subject: &Subject<'_>) -> Result<RuleResult> {
    let own = subject.manifest;
    if own.urgency != Urgency::Security {
        return not_applicable("it is not a security release");
    }
    if subject.record.retraction.is_some() {
        return not_applicable("a retraction is only for devices that run what it replaces");
    }
    let map = map_in_force(subject.dir, subject.repository, &own.channel)?;
    let in_force = cohorts_in_force(subject.repository, &map, &own.channel, &own.product)?;
    let mut manifests = BTreeMap::new();
    for offer in in_force.iter().flat_map(|current| &current.offers) {
        if let Entry::Vacant(vacant) = manifests.entry(offer.sequence) {
            let path = layout::manifest_path(&own.channel, &own.product, &offer.release);
            vacant.insert(manifest_in_force(subject.dir, subject.repository, &own.channel, &path)?.0);
        }
    }
    let fleet: BTreeSet<_> = manifests.values().chain(subject.previous_of_line()).flat_map(hardware).collect();
    // The hardware that a newer line serves in every cohort needs no fix of this one.
    let serves = |offer: &Offer, id: &HardwareId| {
        is_newer(&offer.release, &own.version)
            && manifests.get(&offer.sequence).is_some_and(|manifest| hardware(manifest).contains(id))
    };
    let is_above = |id: &HardwareId| {
        in_force.iter().all(|current| {
            let whole = |offer: &&Offer| current.whole_since(offer.sequence, subject.now).is_some();
            current.offers.iter().filter(whole).any(|offer| serves(offer, id))
        })
    };
    let own_hardware = hardware(own);
    let wrong: Vec<_> = fleet
        .iter()
        .filter(|id| !own_hardware.contains(**id) && !is_above(id))
        .map(|id| format!("devices of hardware {id} get no fix: add an artifact for it"))
        .collect();
    let shown: Vec<_> = fleet.iter().map(|id| id.as_str()).collect();
    none_of(&wrong, if shown.is_empty() { "nothing is offered yet".to_owned() } else { shown.join(", ") })
}
