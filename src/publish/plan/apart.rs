//! The protected part of a plan: objects of protected cohorts go to the private place and must not be publicly readable.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tidegate_model::cohort::CohortMap;
use tidegate_model::listing::{Listing, MAX_LISTING};
use tidegate_tuf::Chain;
use tidegate_tuf::metadata::Targets;

use super::{Content, MAX_MAP, Object, ObjectState, READERS, UploadStage, target_key};
use crate::audit::protect::{Maps, Needs, Protection};
use crate::error::{Error, Result, Rule};
use crate::publish::store::Remote;

/// The private place, if anything is protected; `None` otherwise. `copies` if what is published elsewhere is copied to it.
pub(super) fn private_place<'a>(
    protection: &Protection,
    remote: &'a Remote,
    copies: bool,
) -> Result<Option<&'a Remote>> {
    let Some(role) = protection.roles().next() else { return Ok(None) };
    remote.private().map(Some).ok_or_else(|| {
        Error::refused(Rule::PublishPrivate, format!("{role} is protected, and there is no private place for it"))
            .remedy(if copies {
                "say where such files are now and where they go, which only the gate can read: --private PLACE --private-to PLACE"
            } else {
                "give one that only the gate can read: --private PLACE, or private under [publish] in tidegate.toml"
            })
    })
}

/// The places that a target belongs to, and whether it is already there according to what is live.
pub(super) fn sides(now: Needs, before: Needs, is_live: bool) -> Vec<(bool, bool)> {
    match now {
        // Unassigned: it stays where it is; a new one goes where it reveals nothing.
        Needs { public: false, private: false, .. } => vec![(!is_live || !before.public, is_live)],
        Needs { public, private, .. } => {
            let sides = [(public, false, before.public), (private, true, before.private)];
            sides.into_iter().filter(|side| side.0).map(|(_, side, was)| (side, is_live && was)).collect()
        }
    }
}

/// The listings that gates serve for each protected cohort: what is about to be live, what is live now, and what was live before
/// that or will be if another concurrent publication finishes first. Devices may be following any of these. So a publication only
/// adds entries; [`crate::publish::prune()`] removes them after the grace period.
pub(super) async fn listings(
    protection: &Protection,
    before: &Protection,
    private: &Remote,
    requests: &mut u64,
) -> Result<Vec<Object>> {
    let mut found = Vec::new();
    for (role, objects) in protection.listings() {
        let key = Listing::key(role);
        *requests += 1;
        let seen = private.read(&key, MAX_LISTING).await?;
        let there = seen.as_ref().and_then(|seen| Listing::parse(&seen.bytes, role).ok());
        let mut wanted: BTreeSet<String> =
            objects.iter().chain(before.listings().get(role).into_iter().flatten()).cloned().collect();
        let is_enough = there.as_ref().is_some_and(|there| there.objects.is_superset(&wanted));
        wanted.extend(there.into_iter().flat_map(|there| there.objects));
        let listing = Listing { cohort: role.clone(), objects: wanted };
        let bytes = Bytes::from(listing.to_bytes().map_err(|error| Error::bug("a listing").with_source(error))?);
        let state = match &seen {
            Some(_) if is_enough => ObjectState::Unchanged,
            Some(_) => ObjectState::Changed,
            None => ObjectState::New,
        };
        let length = bytes.len() as u64;
        if length > MAX_LISTING {
            return Err(Error::refused(
                Rule::PublishPrivate,
                format!("{key} would be longer than {MAX_LISTING} bytes, and no gate reads it"),
            )
            .remedy("have what is not needed any more removed: `tidegate prune PLACE --private PRIVATE --apply`"));
        }
        let content = Content::Listing { bytes, seen };
        found.push(Object { key, stage: UploadStage::Listing, state, length, private: true, ahead: false, content });
    }
    Ok(found)
}

/// Checks that nothing that becomes protected is publicly readable.
///
/// # Errors
///
/// `P-READABLE`, or another refusal, if a protected object lies in a public place.
pub(super) async fn closed(
    objects: &[Object],
    protection: &Protection,
    before: &Protection,
    remote: &Remote,
    requests: &mut u64,
) -> Result<()> {
    let secret = |object: &&Object| {
        let is_new = object.state == ObjectState::New || !before.needs(&object.key).is_secret();
        object.private && is_new && protection.needs(&object.key).is_secret()
    };
    let keys: Vec<&str> = objects.iter().filter(secret).map(|object| object.key.as_str()).collect();
    *requests += keys.len() as u64;
    let found: Vec<Option<&str>> = stream::iter(keys)
        .map(|key| async move { Ok::<_, Error>(remote.has(key).await?.then_some(key)) })
        .buffered(READERS)
        .try_collect()
        .await?;
    let Some(key) = found.into_iter().flatten().next() else { return Ok(()) };
    Err(Error::refused(Rule::PublishReadable, format!("{key} is protected, and anyone can read it at {}", remote.name()))
        .remedy(
            "remove it there, or let `tidegate prune` do so if nothing live leads to it; what was read meanwhile stays known: a new release \
             keeps what was not",
        ))
}

/// What is protected according to the live state.
pub(super) async fn live_protection(
    live: &[(Chain, Option<Targets>)],
    mut maps: Maps,
    remote: &Remote,
    requests: &mut u64,
) -> Result<Protection> {
    let roles = || live.iter().filter_map(|(chain, targets)| Some((chain.role(), targets.as_ref()?)));
    for (path, file) in Protection::maps(roles()) {
        let Some(sha256) = file.hashes.sha256_digest().filter(|sha256| !maps.contains_key(*sha256)) else { continue };
        *requests += 1;
        let bytes = remote.read(&target_key(&path, file)?, MAX_MAP).await?;
        // An unreadable map protects nothing: then everything is written, or found to be there.
        if let Some(map) = bytes.and_then(|seen| CohortMap::parse(&seen.bytes).ok()) {
            maps.insert(*sha256, map);
        }
    }
    Ok(Protection::of(roles(), &maps))
}
