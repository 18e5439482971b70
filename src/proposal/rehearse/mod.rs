//! Rehearses a proposal before anybody signs it: every generation of devices, every instant of publishing, lost keys.
//!
//! The repository and the proposal are rebuilt with throwaway keys (see [`throwaway_keys`]); the devices are the real client.

mod compromised_keys;
mod simulated_repository;
mod throwaway_keys;

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tidegate_tuf::key::KeyId;

use super::file::Proposal;
use super::verify::Verified;
use crate::error::Result;
use crate::metadata::Repository;
use simulated_repository::RehearsalRepository;

/// The result of a rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Rehearsal {
    /// Devices after everything is published.
    pub devices: Vec<Fate>,
    /// Devices that check in the middle of publishing and fail once; empty if every instant is good.
    pub moments: Vec<Fate>,
    /// Which keys were assumed lost, and whether the proposal can still be signed.
    pub losses: Vec<Loss>,
}

/// The result of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// Which device, and when it checked.
    pub device: String,
    /// The root version that it reached.
    pub root: u64,
    /// Why it did not follow; `None` if it did.
    pub error: Option<String>,
    /// Whether that is that something has expired, and nothing else.
    #[serde(skip)]
    pub expired: bool,
}

/// The consequences of losing keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The names of the keys.
    pub lost: Vec<String>,
    /// The roles that could no longer be signed, and why; empty if all could.
    pub stuck: Vec<String>,
}

impl Rehearsal {
    /// The devices that would be stranded.
    pub fn stranded(&self) -> impl Iterator<Item = &Fate> {
        self.devices.iter().filter(|fate| fate.error.is_some())
    }
}

/// Plays the proposal. `lost` are keys that sign nothing; more are tried one by one.
///
/// # Errors
///
/// Fails if the simulated repository cannot be built or signed. Rejections by simulated devices are part of the result.
pub fn rehearse(
    proposal: &Proposal,
    verified: &Verified,
    repository: &Repository,
    lost: &BTreeSet<KeyId>,
    now: DateTime<Utc>,
) -> Result<Rehearsal> {
    let stage = RehearsalRepository::new(proposal, verified, repository, lost, now)?;
    let mut devices = Vec::new();
    let mut moments = Vec::new();
    for version in stage.versions() {
        let slept = stage.device(version)?;
        devices.push(stage.check(&slept, &stage.after, format!("at root {version}, asleep until now")));
        let awake = stage.device(version)?;
        let before = stage.check(&awake, &stage.before, format!("shipped with root {version}, up to date before"));
        if before.error.is_none() {
            devices.push(stage.check(
                &awake,
                &stage.after,
                format!("shipped with root {version}, up to date until now"),
            ));
        }
        for (upload, files) in &stage.instants {
            for (kind, updated) in [("asleep", false), ("up to date", true)] {
                let device = stage.device(version)?;
                if updated && stage.check(&device, &stage.before, String::new()).error.is_some() {
                    continue;
                }
                let fate = stage.check(
                    &device,
                    files,
                    format!("shipped with root {version}, {kind}, checking just after {upload} is published"),
                );
                if fate.error.is_some() {
                    moments.push(fate);
                }
            }
        }
    }
    devices.extend(stage.run_up()?);
    let losses = losses(proposal, verified, lost);
    Ok(Rehearsal { devices, moments, losses })
}

/// What the loss of the given keys, and of each single other one, would mean for this proposal and for what follows it.
fn losses(proposal: &Proposal, verified: &Verified, lost: &BTreeSet<KeyId>) -> Vec<Loss> {
    let all: BTreeSet<&KeyId> = verified.requirements.iter().flat_map(|r| &r.threshold.keyids).collect();
    let singles = all.into_iter().filter(|id| !lost.contains(id)).map(|id| {
        let mut one = lost.clone();
        one.insert(id.clone());
        one
    });
    let mut losses: Vec<Loss> = std::iter::once(lost.clone())
        .filter(|lost| !lost.is_empty())
        .chain(singles)
        .map(|lost| {
            let stuck = verified
                .requirements
                .iter()
                .filter_map(|r| {
                    let left = r.threshold.keyids.iter().filter(|id| !lost.contains(*id)).count() as u64;
                    (left < r.threshold.threshold).then(|| {
                        format!(
                            "{} could not be signed: {left} keys of {} would be left, and it takes {}",
                            r.role, r.by, r.threshold.threshold
                        )
                    })
                })
                .collect();
            let mut names: Vec<String> = lost.iter().map(|id| proposal.label(id)).collect();
            names.sort();
            Loss { lost: names, stuck }
        })
        .collect();
    // In the order of names, not of key ids; what was asked for stays first.
    let asked = usize::from(!lost.is_empty()).min(losses.len());
    if let Some(singles) = losses.get_mut(asked..) {
        singles.sort_by(|a, b| a.lost.cmp(&b.lost));
    }
    losses
}
