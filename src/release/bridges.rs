//! Bridges: the releases that devices install first when a release does not upgrade from the one they run.

use std::path::Path;

use tidegate_model::Extra;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::rollout::{Bridge, MAX_BRIDGES};
use tidegate_model::version::{VersionRange, is_newer};

use crate::error::Result;
use crate::metadata::Repository;
use crate::policy::ReleaseState;
use crate::release::record::{self, Record};
use crate::workspace::manifest_in_force;

/// The releases that a device may install first, if this one does not upgrade from every version: those that the channel lists
/// and that were not withdrawn, newest first.
///
/// A device installs the newest bridge that upgrades from what it runs. So a bridge is left out if a newer one, or the release
/// itself, upgrades from the same versions: it would never be installed, and could never be retired.
///
/// # Errors
///
/// Fails if a record or a listed manifest cannot be read.
pub fn bridges(dir: &Path, repository: &Repository, target: &Manifest) -> Result<Vec<Bridge>> {
    let Some(direct) = &target.upgrade_from else { return Ok(Vec::new()) };
    let mut records = record::all(dir)?;
    records.retain(|record| record.channel == target.channel && record.product == target.product);
    let sequence = |record: &Record| record.manifest.as_ref().map(|manifest| manifest.sequence);
    records.sort_by_key(|record| std::cmp::Reverse(sequence(record)));
    let mut ranges = vec![direct.clone()];
    let mut found = Vec::new();
    for record in &records {
        // A retraction is for the devices that have the retracted release; it is no bridge for others.
        let usable = record.retraction.is_none()
            && !matches!(
                record.state,
                ReleaseState::Draft | ReleaseState::Signed | ReleaseState::Withdrawn | ReleaseState::Retired
            );
        let Some(frozen) = record.manifest.as_ref().filter(|m| usable && m.sequence < target.sequence) else {
            continue;
        };
        // From a higher version, devices do not come back to the target.
        if is_newer(&record.version, &target.version) && !target.supersedes.contains(&frozen.sequence) {
            continue;
        }
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
