//! What is different between two states of a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::name::Name;
use tidegate_model::text::one_line;
use tidegate_model::time;
use tidegate_model::version::Version;

use super::affected::{Affected, Shift, affected};
use super::reading::{Approved, Reading};
use super::signed::signed;
use super::state::{Cohort, Key, Members, Offer, Role, State};
use crate::config::write_share;
use crate::release::diff::{Difference, diff as diff_manifests};

/// What is different between two states.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Tidegate diff")]
pub struct Changes {
    /// The form of this document: 1.
    pub schema: u64,
    /// The old state.
    pub old: String,
    /// The new one.
    pub new: String,
    /// As of when devices decide.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    /// Whether there is no difference at all.
    pub same: bool,
    /// Keys, and the roles they sign.
    pub keys: Vec<Difference>,
    /// Thresholds.
    pub thresholds: Vec<Difference>,
    /// Roles that come and go, and the paths that they may list.
    pub delegations: Vec<Difference>,
    /// Cohorts and their shares.
    pub cohorts: Vec<Difference>,
    /// Releases, field by field against the one before.
    pub releases: Vec<Difference>,
    /// What cohorts are offered, by release.
    pub offers: Vec<Difference>,
    /// Versions of roles.
    pub versions: Vec<Difference>,
    /// Expiries.
    pub expiries: Vec<Difference>,
    /// What does not verify or fit.
    pub faults: Vec<Difference>,
    /// Which devices will do something else, and how many.
    pub affected: Vec<Affected>,
}

/// Compares two states for devices that decide at `now`.
pub fn diff(old: &Reading, new: &Reading, now: DateTime<Utc>) -> Changes {
    let (mut before, mut after) = (signed(old, now), signed(new, now));
    // An earlier snapshot has no timestamp: it is the one object that was replaced. That is no difference.
    if old.tree.timestamp.is_none() || new.tree.timestamp.is_none() {
        for state in [&mut before, &mut after] {
            without_timestamp(state);
        }
    }
    let roles = |state: &State, text: fn(&Role) -> String| -> BTreeMap<String, String> {
        state.trust.roles.iter().map(|role| (role.name.clone(), text(role))).collect()
    };
    let both = |text: fn(&Role) -> String| (roles(&before, text), roles(&after, text));
    // What a role's coming or going means is told once, as a delegation.
    let in_both = |text: fn(&Role) -> String| {
        let (mut old, mut new) = both(text);
        old.retain(|name, _| after.trust.roles.iter().any(|role| role.name == *name));
        new.retain(|name, _| before.trust.roles.iter().any(|role| role.name == *name));
        differences(&old, &new)
    };
    let delegations = both(|role| match role.paths.as_slice() {
        [] => format!("by {}", role.delegated_by),
        paths => format!("by {}, for {}", role.delegated_by, paths.join(" ")),
    });
    let mut changes = Changes {
        schema: 1,
        old: before.place.clone(),
        new: after.place.clone(),
        at: now,
        same: false,
        keys: differences(&keys(&before), &keys(&after)),
        thresholds: in_both(|role| format!("{} of {}", role.threshold, role.keys.len())),
        delegations: differences(&delegations.0, &delegations.1),
        cohorts: differences(&cohorts(&before), &cohorts(&after)),
        releases: releases(old, new),
        offers: differences(&offers(&before), &offers(&after)),
        versions: in_both(|role| role.version.to_string()),
        expiries: in_both(|role| time::format(role.expires)),
        faults: differences(&faults(&before), &faults(&after)),
        affected: affected(old, new, now),
    };
    changes.same = changes.sections().iter().all(|(_, rows)| rows.is_empty()) && changes.affected.is_empty();
    changes
}

fn without_timestamp(state: &mut State) {
    const ROLE: &str = "timestamp";
    state.trust.roles.retain(|role| role.name != ROLE);
    for key in &mut state.trust.keys {
        key.roles.retain(|role| role != ROLE);
    }
    state.trust.keys.retain(|key| !key.roles.is_empty());
}

/// Entries of one that the other lacks or has otherwise.
fn differences(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let one = |name: &String| Difference {
        field: name.clone(),
        before: old.get(name).cloned(),
        after: new.get(name).cloned(),
    };
    names.into_iter().map(one).filter(|difference| difference.before != difference.after).collect()
}

fn keys(state: &State) -> BTreeMap<String, String> {
    let text = |key: &Key| {
        let holder = key.holder.as_ref().map(|holder| format!(", held by {holder}")).unwrap_or_default();
        // A key of a thousand cohorts need not name them all.
        let (shown, rest) = key.roles.split_at(key.roles.len().min(6));
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        format!("{}{holder}, for {}{more}", key.scheme, shown.join(" "))
    };
    state.trust.keys.iter().map(|key| (key.keyid.get(..12).unwrap_or(&key.keyid).to_owned(), text(key))).collect()
}

fn cohorts(state: &State) -> BTreeMap<String, String> {
    let text = |cohort: &Cohort, index: usize| {
        let gate = cohort.gate.as_ref().map(|gate| format!(", protected by {gate}")).unwrap_or_default();
        match &cohort.members {
            Members::Share { ppm } => format!("{}{gate}", write_share(*ppm)),
            Members::Devices { count } => format!("{count} named devices, place {}{gate}", index + 1),
            Members::Condition { condition } => format!("{condition}, place {}{gate}", index + 1),
        }
    };
    let mut cohorts = BTreeMap::new();
    for channel in &state.channels {
        if let Some(salt) = &channel.salt {
            cohorts.insert(format!("{} salt", channel.name), salt.clone());
        }
        for (index, cohort) in channel.cohorts.iter().enumerate() {
            cohorts.insert(format!("{}.{}", channel.name, cohort.name), text(cohort, index));
        }
    }
    cohorts
}

fn offers(state: &State) -> BTreeMap<String, String> {
    let text = |offer: &Offer| {
        let mut text = offer.stage.clone();
        if offer.paused {
            text.push_str(", paused");
        }
        if let Some(ramp) = &offer.ramp {
            let (from, to) = (write_share(ramp.from_ppm), write_share(ramp.to_ppm));
            let _ = write!(text, ", {from} at {} to {to} at {}", time::format(ramp.start), time::format(ramp.end));
        }
        if let Some(until) = offer.until {
            let _ = write!(text, ", until {}", time::format(until));
        }
        text
    };
    let mut found = BTreeMap::new();
    for channel in &state.channels {
        for product in &channel.products {
            for cohort in &product.cohorts {
                for offer in &cohort.offers {
                    let name = format!("{}.{} {} {}", channel.name, cohort.cohort, product.name, offer.release);
                    found.insert(name, text(offer));
                }
            }
        }
    }
    found
}

fn faults(state: &State) -> BTreeMap<String, String> {
    state.faults.iter().map(|fault| (fault.subject.clone(), fault.problem.clone())).collect()
}

type Releases = BTreeMap<(Name, Name, Version), Approved>;

fn releases(old: &Reading, new: &Reading) -> Vec<Difference> {
    let name = |(channel, product, version): &(Name, Name, Version)| format!("{channel}/{product}/{version}");
    let mut found = Vec::new();
    for id in old.releases.keys().filter(|id| !new.releases.contains_key(*id)) {
        found.push(Difference { field: name(id), before: Some("approved".into()), after: None });
    }
    for (id, approved) in &new.releases {
        match old.releases.get(id) {
            Some(before) if before == approved => {}
            Some(before) => {
                // Never by this program: an approved release does not change.
                found.extend(of(&name(id), diff_manifests(Some(&before.manifest), &approved.manifest)));
            }
            None => {
                found.push(Difference { field: name(id), before: None, after: Some("approved".into()) });
                let previous = previous(&old.releases, id, approved.manifest.sequence);
                found.extend(of(&name(id), diff_manifests(previous.map(|p| &p.manifest), &approved.manifest)));
            }
        }
    }
    found
}

fn of(release: &str, differences: Vec<Difference>) -> impl Iterator<Item = Difference> {
    let release = release.to_owned();
    differences.into_iter().map(move |d| Difference { field: format!("{release} {}", d.field), ..d })
}

/// The release with the highest sequence below `sequence`.
fn previous<'a>(releases: &'a Releases, id: &(Name, Name, Version), sequence: u64) -> Option<&'a Approved> {
    releases
        .iter()
        .filter(|((channel, product, _), approved)| {
            (channel, product) == (&id.0, &id.1) && approved.manifest.sequence < sequence
        })
        .map(|(_, approved)| approved)
        .max_by_key(|approved| approved.manifest.sequence)
}

/// Fields are put in one column up to this width.
const WIDEST: usize = 40;

/// The shifts, those that are the same now and in the end told once.
fn told(shifts: &[Shift]) -> Vec<(&'static str, &Shift)> {
    let same = |a: &Shift, b: &Shift| {
        (&a.cohort, &a.before, &a.after, a.ppm) == (&b.cohort, &b.before, &b.after, b.ppm) && a.when != b.when
    };
    shifts
        .iter()
        .filter_map(|shift| match (shifts.iter().any(|other| same(shift, other)), shift.when.as_str()) {
            (true, "now") => Some(("from now on", shift)),
            (true, _) => None,
            (false, "now") => Some(("now", shift)),
            (false, _) => Some(("in the end", shift)),
        })
        .collect()
}

impl Changes {
    /// The differences by what they are about.
    pub fn sections(&self) -> [(&'static str, &[Difference]); 9] {
        [
            ("keys", &self.keys),
            ("thresholds", &self.thresholds),
            ("delegations", &self.delegations),
            ("cohorts", &self.cohorts),
            ("releases", &self.releases),
            ("offers", &self.offers),
            ("versions", &self.versions),
            ("expiries", &self.expiries),
            ("faults", &self.faults),
        ]
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.same {
            return write!(f, "{} and {} are the same", self.old, self.new);
        }
        write!(f, "from {} to {}", self.old, self.new)?;
        for (title, rows) in self.sections().into_iter().filter(|(_, rows)| !rows.is_empty()) {
            write!(f, "\n\n{title}")?;
            let width = rows.iter().map(|row| row.field.len()).max().unwrap_or_default().min(WIDEST);
            for row in rows {
                write!(f, "\n  {}", one_line(&row.line(width)))?;
            }
        }
        write!(f, "\n\ndevices affected")?;
        if self.affected.is_empty() {
            return write!(f, "\n  none");
        }
        for kind in &self.affected {
            let installed = kind.installed.as_deref().unwrap_or("the factory image");
            write!(f, "\n  {} on {}, {}, with {installed}", kind.product, kind.channel, kind.hardware)?;
            for (when, shift) in told(&kind.shifts) {
                let of = shift.cohort.as_deref().unwrap_or("the fleet");
                let share = format!("{} of {of}", write_share(shift.ppm));
                write!(f, "\n    {when}, {share}: {} (before: {})", shift.after, shift.before)?;
            }
        }
        Ok(())
    }
}
