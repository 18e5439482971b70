//! What becomes of a channel's cohorts: who comes, who goes, how many devices move.

use std::collections::BTreeMap;

use tidegate_model::cohort::{Cohort, CohortMap, Selector};
use tidegate_model::digest::Digest;
use tidegate_model::layout::{DelegatedRole, Location, cohorts_path};
use tidegate_tuf::metadata::{TargetFile, Targets};

use super::ReviewBuilder;
use crate::config::write_share;

impl ReviewBuilder<'_> {
    pub(super) fn cohorts(&mut self, role: &str, old: Option<&Targets>, new: &Targets) {
        for (path, file) in &new.targets {
            if !matches!(Location::parse(path), Some(Location::CohortMap { .. })) {
                continue;
            }
            let before = old.and_then(|old| old.targets.get(path));
            if before == Some(file) {
                continue;
            }
            match (before.map(|before| self.map(before)), self.map(file)) {
                (None, Some(new)) => self.new_map(&new),
                (Some(Some(old)), Some(new)) => self.changed_map(&old, &new),
                _ => self.warnings.push(format!(
                    "{role}: {path} changes, and its content did not come with the proposal: ask for one that shows what changes"
                )),
            }
        }
    }

    /// Whether a role is that of a cohort which the map that comes with the proposal has no longer: its devices belong to others then.
    pub(super) fn left_the_map(&self, role: &str, new: &Targets) -> bool {
        let Some(DelegatedRole::Cohort { channel, cohort }) = DelegatedRole::parse(role) else { return false };
        let map = new.targets.get(&cohorts_path(&channel)).and_then(|file| self.map(file));
        map.is_some_and(|map| map.cohort(&cohort).is_none())
    }

    /// The map that is listed so, as far as it came with the proposal.
    fn map(&self, file: &TargetFile) -> Option<CohortMap> {
        let sha256: Digest = file.hashes.name_prefix().parse().ok()?;
        CohortMap::from_value(self.proposal.files.get(&sha256)?).ok()
    }

    /// What it means that a cohort's protection changes.
    fn protection(&mut self, old: &Cohort, new: &Cohort) {
        let name = &new.name;
        match (gate(old), gate(new)) {
            (Some(_), None) => self.warnings.push(format!(
                "the cohort {name} is protected no longer: what is offered to it from then on lies open to everyone"
            )),
            (None, Some(gate)) => self.possible.push(format!(
                "devices of the cohort {name} ask {gate}, which learns who they are and can withhold releases from them"
            )),
            (Some(was), Some(gate)) if was != gate => self.warnings.push(format!(
                "devices of the cohort {name} would ask another gate, {gate}, which learns who they are and can withhold releases from them"
            )),
            _ => {}
        }
    }

    fn new_map(&mut self, map: &CohortMap) {
        for cohort in map.cohorts() {
            self.row('+', format!("cohort {}", cohort.name), "", who(cohort));
        }
    }

    fn changed_map(&mut self, old: &CohortMap, new: &CohortMap) {
        let before: BTreeMap<_, _> = old.cohorts().iter().map(|cohort| (&cohort.name, cohort)).collect();
        for cohort in old.cohorts().iter().filter(|cohort| new.cohort(&cohort.name).is_none()) {
            self.row('-', format!("cohort {}", cohort.name), who(cohort), "");
            self.impossible.push(format!("no device belongs to the cohort {} any more", cohort.name));
        }
        for cohort in new.cohorts() {
            let what = format!("cohort {}", cohort.name);
            match before.get(&cohort.name) {
                None => {
                    self.row('+', what, "", who(cohort));
                    self.possible.push(format!("releases may be rolled out to the cohort {}", cohort.name));
                }
                Some(same) if **same == *cohort => {}
                Some(other) => {
                    self.row('~', what, who(other), who(cohort));
                    self.protection(other, cohort);
                }
            }
        }
        let order = |map: &CohortMap, other: &CohortMap| -> Vec<String> {
            let kept = map.cohorts().iter().filter(|cohort| other.cohort(&cohort.name).is_some());
            kept.map(|cohort| cohort.name.to_string()).collect()
        };
        let (was, is) = (order(old, new), order(new, old));
        if was != is {
            self.row('~', "order of the cohorts", was.join(" "), is.join(" "));
        }
        if old.salt() != new.salt() {
            self.row('~', "salt", "", "another");
            self.warnings.push(
                "the salt changes: the whole fleet is shuffled anew, and who was early need not be early again".into(),
            );
            return;
        }
        let moved = moved(old, new);
        if moved > 0 {
            self.possible.push(format!(
                "{} of the devices that no explicit cohort takes belong to another cohort from then on",
                write_share(moved)
            ));
        }
    }
}

/// The gate of a cohort, if it is protected.
fn gate(cohort: &Cohort) -> Option<&str> {
    cohort.protected.as_ref().map(|protected| protected.gate.as_str())
}

fn who(cohort: &Cohort) -> String {
    let mut who = match &cohort.selector {
        Selector::Share(share) => write_share(*share),
        Selector::Condition(condition) => condition.to_string(),
        Selector::Devices(devices) => format!("{} devices by name", devices.len()),
    };
    if let Some(gate) = gate(cohort) {
        who.push_str(", protected by ");
        who.push_str(gate);
    }
    who
}

/// The share of positions, in parts per million, that belong to another cohort than before.
fn moved(old: &CohortMap, new: &CohortMap) -> u32 {
    let stays: u128 = old
        .cohorts()
        .iter()
        .filter_map(|cohort| old.interval(&cohort.name).zip(new.interval(&cohort.name)))
        .map(|(a, b)| a.high().min(b.high()).saturating_sub(u128::from(a.low().max(b.low()))))
        .sum();
    let all = 1_u128 << 64;
    // To the nearest part: the boundaries of shares lie between positions.
    u32::try_from(((all - stays.min(all)) * 1_000_000 + all / 2) / all).unwrap_or(1_000_000)
}
