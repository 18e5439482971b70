//! Creates records of releases that others have made, from the signed metadata.

use std::path::Path;

use tidegate_model::layout::Location;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::rollout::{Offer, Stage};

use super::record::{self, ArtifactRecord, ManifestRecord, ProvenanceRecord, Record, RecordedUrgency, ReleaseId};
use crate::error::Result;
use crate::fs::Changes;
use crate::metadata::Repository;
use crate::policy::{ReleaseState, Status};
use crate::workspace::{manifest_in_force, offers_of};

/// Creates a record for every listed release that the workspace does not know. The manifests' bytes must be in its store.
///
/// # Errors
///
/// Fails if a record, a manifest or the cohorts' roles cannot be read.
pub fn adopt(dir: &Path, repository: &Repository, changes: &mut Changes) -> Result<Vec<Record>> {
    let known: Vec<ReleaseId> = record::all(dir)?.iter().map(Record::id).collect();
    let mut found = Vec::new();
    let listed =
        repository.roles().filter_map(|file| repository.targets(&file.name)).flat_map(|role| role.targets.keys());
    for path in listed {
        let Some(Location::Manifest { channel, product, version }) = Location::parse(path) else { continue };
        let id = ReleaseId { channel: channel.clone(), product, version };
        if known.contains(&id) {
            continue;
        }
        let (manifest, bytes) = manifest_in_force(dir, repository, &channel, path)?;
        found.push((id, manifest, bytes));
    }
    let mut adopted = Vec::new();
    for (id, manifest, bytes) in &found {
        // A retraction is started only when what it supersedes has been withdrawn.
        let is_retracted = found.iter().any(|(other, by, _)| {
            (&other.channel, &other.product) == (&id.channel, &id.product) && by.supersedes.contains(&manifest.sequence)
        });
        let record = of(manifest, bytes, status(repository, id, is_retracted)?);
        record.put(changes)?;
        changes.put(id.file("manifest.json"), bytes.as_slice());
        adopted.push(record);
    }
    Ok(adopted)
}

fn of(manifest: &Manifest, bytes: &[u8], status: Status) -> Record {
    let artifacts = manifest.artifacts.iter().map(|artifact| ArtifactRecord {
        name: artifact.name.clone(),
        length: artifact.length,
        sha256: artifact.sha256,
        hardware: artifact.hardware.clone(),
        media_type: artifact.media_type.clone(),
        delivery: artifact.delivery.clone(),
    });
    let provenance = manifest.build.provenance.as_ref().map(|provenance| ProvenanceRecord {
        predicate_type: provenance.predicate_type.clone(),
        sha256: provenance.sha256,
        builder: provenance.builder.clone(),
    });
    Record {
        schema: 1,
        channel: manifest.channel.clone(),
        product: manifest.product.clone(),
        version: manifest.version.clone(),
        state: status.state,
        paused: status.paused,
        created: manifest.created,
        urgency: match manifest.urgency {
            Urgency::Security => RecordedUrgency::Security,
            Urgency::Normal => RecordedUrgency::Normal,
        },
        build_id: manifest.build.id.clone(),
        source: manifest.build.source.clone(),
        provenance,
        artifacts: artifacts.collect(),
        eligibility: manifest.eligibility.clone(),
        upgrade_from: manifest.upgrade_from.clone(),
        supersedes: manifest.supersedes.clone(),
        retraction: None,
        notes: manifest.notes.clone(),
        manifest: Some(ManifestRecord {
            sequence: manifest.sequence,
            sha256: tidegate_model::digest::Digest::of(bytes),
            length: bytes.len() as u64,
        }),
    }
}

/// The status of a release according to its cohorts' roles. That it was withdrawn is not published; if a retraction supersedes it, it was.
fn status(repository: &Repository, id: &ReleaseId, is_retracted: bool) -> Result<Status> {
    Ok(offered(repository, id)?
        .unwrap_or_else(|| Status::of(if is_retracted { ReleaseState::Withdrawn } else { ReleaseState::Registered })))
}

/// The status of a release according to its cohorts' roles; `None` if it is offered to nobody.
fn offered(repository: &Repository, id: &ReleaseId) -> Result<Option<Status>> {
    let all = offers_of(repository, &id.channel, &id.product)?;
    Ok(status_of(all.iter().map(|(_, offer)| offer).filter(|offer| offer.release == id.version)))
}

/// The status of a release with these offers; `None` if there are none.
pub(crate) fn status_of<'a>(offers: impl Iterator<Item = &'a Offer>) -> Option<Status> {
    let offers: Vec<_> = offers.collect();
    let state = match offers.iter().map(|offer| offer.stage).max_by_key(|stage| rank(*stage))? {
        Stage::Validation => ReleaseState::Validation,
        Stage::Limited => ReleaseState::Limited,
        Stage::Stable => ReleaseState::Stable,
        Stage::Security => ReleaseState::Security,
    };
    Some(Status { state, paused: offers.iter().any(|offer| offer.paused) })
}

/// Changes the records of known releases whose rollout somebody started, continued, paused, resumed or withdrew elsewhere: whose offers
/// say something else in `after` than in `before`. Returns these records.
///
/// # Errors
///
/// Fails if a record or the cohorts' roles cannot be read.
pub fn follow(dir: &Path, before: &Repository, after: &Repository, changes: &mut Changes) -> Result<Vec<Record>> {
    use ReleaseState::{Limited, Registered, Security, Stable, Validation, Withdrawn};
    let mut followed = Vec::new();
    for mut record in record::all(dir)? {
        let id = record.id();
        let (was, is) = (offered(before, &id)?, offered(after, &id)?);
        if was == is || !matches!(record.state, Registered | Validation | Limited | Stable | Security | Withdrawn) {
            continue;
        }
        let status = match is {
            Some(status) => status,
            None if matches!(record.state, Validation | Limited | Security) => Status::of(Withdrawn),
            // A newer stable release has taken its place.
            None => continue,
        };
        if record.status() != status {
            (record.state, record.paused) = (status.state, status.paused);
            record.put(changes)?;
            followed.push(record);
        }
    }
    Ok(followed)
}

/// A release whose rollout goes on offers it to the lab as well.
fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Validation => 0,
        Stage::Limited => 1,
        Stage::Security => 2,
        Stage::Stable => 3,
    }
}
