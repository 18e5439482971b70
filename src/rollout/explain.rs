//! What a device would do, by the code that devices run, from the signed metadata.

use std::path::Path;

use chrono::{DateTime, Utc};
use tidegate_client::model::decision::{Inputs, Offer, Profile};
use tidegate_client::model::digest::Digest;
use tidegate_client::model::explanation::{self, Explanation};
use tidegate_client::model::layout;
use tidegate_client::model::time;

use super::standing::{manifest_in_force, map_in_force, standing};
use crate::error::Result;
use crate::metadata::Repository;

/// Explains what `device` would decide at `at`.
pub fn explain(dir: &Path, repository: &Repository, device: &Profile, at: DateTime<Utc>) -> Result<Explanation> {
    let map = map_in_force(dir, repository, &device.channel)?;
    let choice = map.choose(&device.id, &device.facts());
    let standings = standing(repository, &map, &device.channel, &device.product)?;
    let own = standings.iter().find(|standing| standing.cohort == choice.cohort);
    let explained =
        |offer: Offer<'_>| explanation::explain(&Inputs { device, choice: &choice, offer, now: at, quarantined: &[] });
    let role = layout::cohort_role(&device.channel, &choice.cohort);
    // In the device's own words, so that both give the same answer.
    if let Some(own) = own.filter(|own| own.expires <= at) {
        let expires = time::format(own.expires);
        let why = format!("role {role} expired at {expires}: nobody renews this rollout, so it goes no further");
        return Ok(explained(Offer::Nothing { why: &why }));
    }
    let Some(assignment) = own.and_then(|own| own.assignment.as_ref()) else {
        let why = format!("role {role} assigns no release of {}", device.product);
        return Ok(explained(Offer::Nothing { why: &why }));
    };
    let path = layout::manifest_path(&device.channel, &device.product, &assignment.release);
    let (manifest, bytes) = manifest_in_force(dir, repository, &device.channel, &path)?;
    Ok(explained(Offer::Release { assignment, manifest: &manifest, sha256: Digest::of(&bytes) }))
}
