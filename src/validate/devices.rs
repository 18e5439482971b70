//! Device compatibility: the hardware is known and the artifacts fit it.

use std::collections::BTreeSet;

use tidegate_model::manifest::Manifest;
use tidegate_model::name::HardwareId;
use tidegate_model::version::is_newer;

use super::{Rule, RuleResult, Subject, none_of, not_applicable, pass, warn};
use crate::error::Result;
use crate::policy::CheckKind;

const KIND: CheckKind = CheckKind::DeviceCompatibility;

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-DEV-01", kind: KIND, title: "all hardware is known to tidegate.toml", check: known },
    Rule { id: "V-DEV-02", kind: KIND, title: "artifacts fit the slots of their hardware", check: fits },
    Rule {
        id: "V-DEV-03",
        kind: KIND,
        title: "hardware that the previous release served is served still",
        check: kept,
    },
    Rule {
        id: "V-DEV-04",
        kind: KIND,
        title: "the version is not below what its hardware runs at least",
        check: minimum,
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
    let Some(previous) = subject.previous else { return not_applicable("there is no previous release") };
    let now = hardware(subject.manifest);
    let gone: Vec<_> = hardware(previous).into_iter().filter(|id| !now.contains(id)).map(HardwareId::as_str).collect();
    if gone.is_empty() {
        return pass(format!("as in {}", previous.version));
    }
    warn(format!("{} served {}, and this release does not", previous.version, gone.join(", ")))
}
