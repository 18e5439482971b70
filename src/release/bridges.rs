//! Stepping stones: which releases devices take first when a release does not upgrade from what they run.

use std::path::Path;

use tidegate_model::Extra;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::{Bridge, MAX_BRIDGES};
use tidegate_model::version::VersionRange;

use crate::error::Result;
use crate::metadata::Repository;
use crate::policy::ReleaseState;
use crate::release::record::{self, Record};
use crate::workspace::manifest_in_force;

/// The releases that a device may take first, if this one does not upgrade from every version: what the channel lists and nobody
/// gave up, newest first.
///
/// A device takes the newest that upgrades from what it runs. So one is left out if a newer one, or the release itself, upgrades from all
/// that it does, as far as any release there ever was can tell: it would never be taken, and could never be retired.
pub fn bridges(dir: &Path, repository: &Repository, target: &Manifest) -> Result<Vec<Bridge>> {
    let Some(direct) = &target.upgrade_from else { return Ok(Vec::new()) };
    let mut records = record::all(dir)?;
    records.retain(|record| record.channel == target.channel && record.product == target.product);
    let sequence = |record: &Record| record.manifest.as_ref().map(|manifest| manifest.sequence);
    records.sort_by_key(|record| std::cmp::Reverse(sequence(record)));
    let mut ranges = vec![direct.clone()];
    let mut found = Vec::new();
    for record in &records {
        // A retraction is for the devices that have what it takes back: nobody else could go over it.
        let usable = record.retraction.is_none()
            && !matches!(
                record.state,
                ReleaseState::Draft | ReleaseState::Signed | ReleaseState::Withdrawn | ReleaseState::Retired
            );
        let Some(frozen) = record.manifest.as_ref().filter(|m| usable && m.sequence < target.sequence) else {
            continue;
        };
        let path = layout::manifest_path(&record.channel, &record.product, &record.version);
        let (manifest, _) = manifest_in_force(dir, repository, &record.channel, &path)?;
        let upgrade_from = manifest.upgrade_from.unwrap_or_else(VersionRange::any);
        let covered = |range: &VersionRange| range.is_any() || *range == upgrade_from;
        if ranges.iter().any(covered) {
            continue;
        }
        found.push(Bridge {
            release: manifest.version,
            sequence: manifest.sequence,
            sha256: frozen.sha256,
            length: frozen.length,
            upgrade_from: upgrade_from.clone(),
            extra: Extra::new(),
        });
        ranges.push(upgrade_from);
    }
    found.truncate(MAX_BRIDGES);
    Ok(found)
}
