//! What a microcontroller does with the files of a repository once it has them in memory: verify, and decide. No file, socket or clock.

#![no_std]
#![warn(missing_docs)]

extern crate alloc;

use alloc::format;
use alloc::string::{String, ToString};

use chrono::{DateTime, Utc};
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{self, Approval, Decision, Inputs, Installed, Profile};
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::Offers;
use tidegate_model::{time, version};
use tidegate_tuf::hash::Checker;
use tidegate_tuf::path::TargetPath;
use tidegate_tuf::{Found, Search, Step, TrustedSet};

/// The files that a device fetched, as they came.
pub struct Files<'a> {
    /// The root that the device was made with.
    pub root: &'a [u8],
    /// `timestamp.json`.
    pub timestamp: &'a [u8],
    /// The snapshot that the timestamp names.
    pub snapshot: &'a [u8],
    /// The metadata of the roles that lead to the channel and to the cohort: name and content.
    pub roles: &'a [(&'a str, &'a [u8])],
    /// The cohorts of the channel.
    pub cohorts: &'a [u8],
    /// The manifest of the first release that is offered.
    pub manifest: &'a [u8],
}

/// What a demonstration (`tidegate demo --now 2026-01-05T12:00:00Z`) published.
pub const DEMO: Files<'static> = Files {
    root: include_bytes!("../repository/1.root.json"),
    timestamp: include_bytes!("../repository/timestamp.json"),
    snapshot: include_bytes!("../repository/7.snapshot.json"),
    roles: &[
        ("targets", include_bytes!("../repository/1.targets.json")),
        ("stable", include_bytes!("../repository/2.stable.json")),
        ("stable.canary", include_bytes!("../repository/4.stable.canary.json")),
    ],
    cohorts: include_bytes!("../repository/cohorts.json"),
    manifest: include_bytes!("../repository/manifest.json"),
};

/// A device that the demonstration meant.
///
/// # Errors
///
/// If a name or version in it is not valid.
pub fn device() -> Result<Profile, String> {
    Ok(Profile {
        id: "gateway-0042".parse().map_err(text)?,
        product: "os".parse().map_err(text)?,
        channel: "stable".parse().map_err(text)?,
        hardware: "board-a".parse().map_err(text)?,
        installed: Installed { version: version::parse("1.0.0").map_err(text)?, sequence: 0 },
        own_facts: Facts::parse(br#"{"ram-mb": 2048}"#).map_err(text)?,
        attestation: None,
    })
}

/// The time that the device's clock shows.
///
/// # Errors
///
/// If it is not valid.
pub fn now() -> Result<DateTime<Utc>, String> {
    time::parse("2026-01-05T12:00:00Z").map_err(text)
}

/// Verifies every file up to the manifest, and decides about the first offer.
///
/// # Errors
///
/// If a file is missing, is not signed as it must be, has expired, or is not the one that is listed.
pub fn decide(files: &Files<'_>, device: &Profile, now: DateTime<Utc>) -> Result<Decision, String> {
    let mut trusted = TrustedSet::from_root(files.root, now).map_err(text)?;
    trusted.update_timestamp(files.timestamp).map_err(text)?;
    trusted.update_snapshot(files.snapshot).map_err(text)?;

    let (channel, product) = (&device.channel, &device.product);
    listed(&mut trusted, files, &layout::cohorts_path(channel), files.cohorts)?;
    let choice = CohortMap::parse(files.cohorts).map_err(text)?.choose(&device.id, &device.facts());

    // The offers are in the role of the cohort itself.
    let path = layout::assignment_path(channel, &choice.cohort, product);
    let custom = search(&mut trusted, files, &path)?.target.custom.unwrap_or_default();
    let offers = Offers::from_custom(&custom).map_err(text)?;
    let offer = offers.offers.first().ok_or("nothing is offered")?;

    let path = layout::manifest_path(channel, product, &offer.release);
    let found = listed(&mut trusted, files, &path, files.manifest)?;
    if found.chain.role() != layout::channel_role(channel) || Digest::of(files.manifest) != offer.sha256 {
        return Err(format!("{path}: not the manifest that is offered, or not listed by the channel"));
    }
    let manifest = Manifest::parse(files.manifest).map_err(text)?;

    Ok(decision::decide(&Inputs {
        device,
        choice: &choice,
        offer,
        approval: Approval::Manifest(&manifest),
        now,
        latest: now.max(trusted.signed_time()),
        quarantined: &[],
    }))
}

/// Checks that `bytes` are what a trusted role lists at `path`.
fn listed(trusted: &mut TrustedSet, files: &Files<'_>, path: &str, bytes: &[u8]) -> Result<Found, String> {
    let found = search(trusted, files, path)?;
    let mut checker = Checker::new(Some(found.target.length), Some(&found.target.hashes));
    checker.update(bytes).and_then(|()| checker.finish()).map_err(|e| format!("{path}: {e}"))?;
    Ok(found)
}

/// The entry of `path` in the role that is trusted with it. The roles on the way are verified when they are first needed.
fn search(trusted: &mut TrustedSet, files: &Files<'_>, path: &str) -> Result<Found, String> {
    let mut search = Search::new(TargetPath::new(path).map_err(text)?, 8);
    loop {
        match search.step(trusted) {
            Step::Load(chain) => {
                let role = files.roles.iter().find(|(name, _)| *name == chain.role());
                let (_, bytes) = role.ok_or_else(|| format!("{}: not fetched", chain.role()))?;
                match chain.parent() {
                    None => trusted.update_targets(bytes),
                    Some(_) => trusted.update_delegated(&chain, bytes),
                }
                .map_err(text)?;
            }
            Step::Found(found) => return Ok(found),
            Step::NotFound | Step::TooManyRoles => return Err(format!("{path}: no trusted role lists it")),
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
