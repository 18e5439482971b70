//! What keeps devices from installing something, why, and the command that fixes it.

use std::path::Path;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::name::Name;
use tidegate_model::rollout::Offer;
use tidegate_model::time;

use crate::config::{Cohorts, Settings};
use crate::error::{Error, Result, chain};
use crate::metadata::{Repository, RoleFile};
use crate::policy::{Policy, ReleaseState};
use crate::release::record::{self, Record};
use crate::workspace::{CohortInForce, ProductInForce};

/// Something that keeps devices from installing something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stop {
    /// The role, release or file.
    pub place: String,
    /// What is stopped, and why.
    pub what: String,
    /// The command that fixes it, or what to do.
    pub remedy: String,
}

/// What keeps devices from installing something: expired roles, settings that cannot be read, offers that ended or are paused, withdrawn releases that nothing
/// newer followed, and records that cannot be read.
///
/// # Errors
///
/// Fails if a folder of records cannot be read.
pub fn stops(
    dir: &Path,
    repository: &Repository,
    in_force: &[ProductInForce<'_>],
    records: &[Record],
    now: DateTime<Utc>,
) -> Result<Vec<Stop>> {
    let mut found: Vec<Stop> = repository.roles().filter(|role| role.expires <= now).map(expired).collect();
    for (file, error) in unreadable_settings(dir) {
        let remedy = error.remedy_text().unwrap_or("correct it").to_owned();
        let what = format!("no rollout takes a step: {}", chain(&error));
        found.push(Stop { place: file.to_owned(), what, remedy });
    }
    found.extend(rollouts(in_force, records, now));
    for (file, error) in record::unreadable(dir)? {
        let remedy = error.remedy_text().unwrap_or("restore it from version control").to_owned();
        found.push(Stop { place: file, what: error.to_string(), remedy });
    }
    Ok(found)
}

/// What is wrong with cohorts.toml and policy.toml, each once; with tidegate.toml nothing goes at all.
pub(crate) fn unreadable_settings(dir: &Path) -> Vec<(&'static str, Error)> {
    let cohorts = Cohorts::load(dir);
    let policy = Policy::load(dir);
    let agree = |policy: Policy| match (&cohorts, Settings::load(dir)) {
        (Ok(cohorts), Ok(settings)) => policy.check_against(&settings, cohorts),
        _ => Ok(()),
    };
    let policy = policy.and_then(agree);
    let wrong = [("cohorts.toml", cohorts.err()), ("policy.toml", policy.err())];
    wrong.into_iter().filter_map(|(file, error)| Some((file, error?))).collect()
}

/// What stops single releases.
pub(super) fn rollouts(in_force: &[ProductInForce<'_>], records: &[Record], now: DateTime<Utc>) -> Vec<Stop> {
    let mut found = Vec::new();
    for ProductInForce { channel, product, cohorts } in in_force {
        let own = || records.iter().filter(|record| record.channel == **channel && record.product == **product);
        found.extend(own().filter_map(|record| interrupted(record, cohorts, now)));
        let newest = own().filter(|record| record.state != ReleaseState::Draft && record.manifest.is_some());
        let newest = newest.max_by_key(|record| record.manifest.as_ref().map(|manifest| manifest.sequence));
        found.extend(newest.and_then(withdrawn));
    }
    found
}

/// The command that renews roles, or the two that do.
pub(crate) fn renewal<'a>(roles: impl IntoIterator<Item = &'a str>) -> String {
    let is_online = |role: &&str| matches!(*role, "timestamp" | "snapshot") || role.contains('.');
    let (online, offline): (Vec<_>, Vec<_>) = roles.into_iter().partition(is_online);
    let refresh = (!online.is_empty()).then(|| "tidegate refresh".to_owned());
    let ceremony =
        (!offline.is_empty()).then(|| format!("tidegate ceremony start --renew {}", offline.join(" --renew ")));
    refresh.into_iter().chain(ceremony).collect::<Vec<_>>().join(", and ")
}

fn expired(role: &RoleFile) -> Stop {
    let stopped = match role.name.as_str() {
        "root" | "targets" | "snapshot" | "timestamp" => "no device installs anything",
        name if name.contains('.') => "this cohort installs nothing new",
        _ => "this channel installs nothing new",
    };
    Stop {
        place: role.name.clone(),
        what: format!("it expired at {}: {stopped}", time::format(role.expires)),
        remedy: renewal([role.name.as_str()]),
    }
}

/// A release whose offers are paused or have ended by themselves.
fn interrupted(record: &Record, cohorts: &[CohortInForce], now: DateTime<Utc>) -> Option<Stop> {
    let sequence = record.manifest.as_ref()?.sequence;
    let stopped = |is_stopped: &dyn Fn(&Offer) -> bool| -> Vec<&Name> {
        let has = |current: &&CohortInForce| current.offer(sequence).is_some_and(is_stopped);
        cohorts.iter().filter(has).map(|current| &current.cohort).collect()
    };
    let id = record.id();
    let (what, remedy, cohorts) = match stopped(&|offer| offer.paused) {
        paused if !paused.is_empty() => (
            "its rollout is paused",
            format!(
                "once it is known why (tidegate log): tidegate rollout resume {id}, or tidegate rollout withdraw {id}"
            ),
            paused,
        ),
        _ => (
            "its rollout was not renewed and has stopped",
            format!("tidegate rollout renew {id}"),
            stopped(&|offer| offer.has_ended(now)),
        ),
    };
    let cohorts: Vec<_> = cohorts.into_iter().map(Name::as_str).collect();
    (!cohorts.is_empty()).then(|| Stop {
        place: id.to_string(),
        what: format!("{what} in {}", cohorts.join(", ")),
        remedy,
    })
}

/// A withdrawn release, if nothing newer followed it.
fn withdrawn(record: &Record) -> Option<Stop> {
    (record.state == ReleaseState::Withdrawn).then(|| Stop {
        place: record.id().to_string(),
        what: "it is withdrawn, and no newer release followed".to_owned(),
        remedy: "tidegate release create VERSION FILE --hardware ID".to_owned(),
    })
}
