//! From what was read to what is shown: the signed part.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::cohort::{CohortMap, Selector};
use tidegate_model::layout::{self, DelegatedRole};
use tidegate_model::name::Name;
use tidegate_model::rollout;
use tidegate_tuf::key::{self, KeyId};
use tidegate_tuf::metadata::{Envelope, Role as Declared, TOP_LEVEL};
use tidegate_tuf::path::PathSet;
use tidegate_tuf::path::Pattern;
use tidegate_tuf::{Chain, json, valid_signers};

use super::curve::{Part, curve, exposure};
use super::reading::{Approved, OfferedList, Reading};
use super::state::{
    Artifact, ArtifactDelivery, Channel, Cohort, CohortOffers, Due, Key, Members, Offer, PatchState, Problem, Product,
    Provenance, RampState, Release, Role, RoleKind, Shown, Source, State, Trust, Urgency,
};
use crate::audit::RoleFile;
use crate::keys::example::is_example;
use crate::metadata::Document;
use crate::publish::PublicationStatus;

/// What a repository says at `now`, from its signed files alone.
pub fn signed(reading: &Reading, now: DateTime<Utc>) -> State {
    let channels = reading.channels().iter().map(|channel| channel_state(reading, channel, now)).collect();
    let problem =
        |fault: &crate::audit::AuditFinding| Problem { subject: fault.subject.clone(), problem: fault.problem.clone() };
    State {
        schema: 1,
        generator: concat!("tidegate ", env!("CARGO_PKG_VERSION")).into(),
        place: reading.place.clone(),
        shows: shown(reading),
        at: now,
        sound: reading.faults.is_empty(),
        faults: reading.faults.iter().map(problem).collect(),
        trust: trust(reading, now),
        due: due(reading, now),
        channels,
        health: None,
        workspace: None,
    }
}

/// What a place has is live. Of a workspace [`add_publication`] tells.
fn shown(reading: &Reading) -> Shown {
    let timestamp = reading.tree.timestamp.as_ref();
    Shown {
        source: reading.source,
        live: match reading.source {
            Source::Place => Some(true),
            Source::Snapshot | Source::Workspace => None,
        },
        timestamp: timestamp.map(|file| file.version),
        signed: timestamp.and_then(|file| file.issued),
        places: Vec::new(),
    }
}

/// Adds how far the workspace's places are behind it. Its state is live if the first of them, which decides, has it.
pub fn add_publication(state: &mut State, places: Vec<PublicationStatus>) {
    if state.shows.source != Source::Workspace {
        return;
    }
    state.shows.live = places.first().filter(|first| first.unreachable.is_none()).and_then(|first| first.published);
    state.shows.places = places;
}

/// Keys, and which of them sign a role.
type Declaration<'a> = (&'a BTreeMap<KeyId, key::Key>, &'a Declared);

fn trust(reading: &Reading, now: DateTime<Utc>) -> Trust {
    let root = reading.tree.trusted.root();
    let mut roles = Vec::new();
    let mut keys = Keys { holders: holders(reading), found: BTreeMap::new() };
    let top = [reading.tree.roots.last(), reading.tree.timestamp.as_ref(), reading.tree.snapshot.as_ref()];
    for file in top.into_iter().flatten() {
        if let Some(declared) = root.role(&file.role) {
            let declaration = (root.keys(), declared);
            keys.add(&file.role, declaration);
            roles.push(role_state(file, "root", declaration, Vec::new(), now));
        }
    }
    for (chain, file) in &reading.tree.targets {
        let Some((delegator, declaration, paths)) = declaration(reading, chain) else { continue };
        keys.add(&file.role, declaration);
        roles.push(role_state(file, &delegator, declaration, paths, now));
    }
    Trust {
        anchor: reading.tree.roots.first().map_or(0, |file| file.version),
        anchor_sha256: reading.anchor.to_string(),
        roles,
        keys: keys.found.into_values().collect(),
    }
}

/// Who declares the keys of the role at the end of a chain, and which paths it may list.
fn declaration<'a>(reading: &'a Reading, chain: &Chain) -> Option<(String, Declaration<'a>, Vec<String>)> {
    let Some(parent) = chain.parent() else {
        let root = reading.tree.trusted.root();
        return Some(("root".into(), (root.keys(), root.role("targets")?), Vec::new()));
    };
    let targets = reading.tree.role(&parent)?;
    let delegations = targets.delegations.as_ref()?;
    let delegation = targets.delegation(chain.role())?;
    let paths = match &delegation.paths {
        PathSet::Patterns(patterns) => patterns.iter().map(Pattern::as_str).map(str::to_owned).collect(),
        PathSet::HashPrefixes(prefixes) => prefixes.iter().map(|prefix| format!("hash {prefix}")).collect(),
    };
    Some((parent.role().to_owned(), (delegations.keys(), delegations.role(chain.role())?), paths))
}

struct Keys {
    holders: BTreeMap<KeyId, String>,
    found: BTreeMap<KeyId, Key>,
}

impl Keys {
    fn add(&mut self, role: &str, (keys, declared): Declaration<'_>) {
        for id in &declared.keyids {
            let Some(key) = keys.get(id) else { continue };
            let found = self.found.entry(id.clone()).or_insert_with(|| Key {
                keyid: id.to_string(),
                fingerprint: key.id().to_string(),
                scheme: key.scheme().to_owned(),
                name: None,
                holder: self.holders.get(id).cloned(),
                example: is_example(key),
                roles: Vec::new(),
            });
            if !found.roles.iter().any(|other| other == role) {
                found.roles.push(role.to_owned());
            }
        }
    }
}

/// Who holds the keys, as the roles that declare them say.
fn holders(reading: &Reading) -> BTreeMap<KeyId, String> {
    reading
        .roles()
        .filter_map(|file| json::parse_large(&file.bytes, usize::MAX).ok())
        .filter_map(|value| value.get("signed").and_then(|signed| signed.as_object().cloned()))
        .flat_map(|signed| Document::from_verified(signed).holders())
        .collect()
}

fn role_state(
    file: &RoleFile,
    delegator: &str,
    (keys, declared): Declaration<'_>,
    paths: Vec<String>,
    now: DateTime<Utc>,
) -> Role {
    let envelope = Envelope::parse(&file.role, &file.bytes);
    let signers = envelope.map(|envelope| valid_signers(keys, declared, &envelope)).unwrap_or_default();
    let ids = |ids: &[KeyId]| ids.iter().map(ToString::to_string).collect();
    Role {
        name: file.role.clone(),
        kind: kind(&file.role),
        file: file.file.clone(),
        version: file.version,
        issued: file.issued,
        expires: file.expires,
        expired: file.expires <= now,
        threshold: declared.threshold,
        keys: ids(&declared.keyids),
        signed_by: ids(&signers),
        delegated_by: delegator.to_owned(),
        paths,
    }
}

fn kind(role: &str) -> RoleKind {
    match role {
        "root" => RoleKind::Root,
        "timestamp" => RoleKind::Timestamp,
        "snapshot" => RoleKind::Snapshot,
        "targets" => RoleKind::Targets,
        _ => match DelegatedRole::parse(role) {
            Some(DelegatedRole::Channel(_)) => RoleKind::Channel,
            Some(DelegatedRole::Cohort { .. }) => RoleKind::Cohort,
            None => RoleKind::Other,
        },
    }
}

/// Every role with its expiry, and every offer that ends by itself, the first first.
fn due(reading: &Reading, now: DateTime<Utc>) -> Vec<Due> {
    let roles = reading.roles().map(|file| Due {
        role: file.role.clone(),
        offer: None,
        expires: file.expires,
        urgency: urgency(file.expires, file.issued, now),
        remedy: remedy(&file.role),
    });
    let offers = reading.offers.iter().flat_map(|((channel, product, cohort), list)| {
        list.offers.iter().filter(|offered| offered.approved).filter_map(move |offered| {
            let release = &offered.offer.release;
            let until = offered.offer.until?;
            Some(Due {
                role: layout::cohort_role(channel, cohort),
                offer: Some(format!("{product} {release}")),
                expires: until,
                urgency: urgency(until, Some(list.assigned), now),
                remedy: format!("tidegate rollout renew {release}"),
            })
        })
    });
    let mut due: Vec<Due> = roles.chain(offers).collect();
    due.sort_by_key(|due| due.expires);
    due
}

fn urgency(expires: DateTime<Utc>, issued: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Urgency {
    let soon = issued.map_or(TimeDelta::days(3), |issued| (expires - issued) / 4);
    match expires - now {
        left if left <= TimeDelta::zero() => Urgency::Expired,
        left if left < soon => Urgency::Soon,
        _ => Urgency::Later,
    }
}

fn remedy(role: &str) -> String {
    match role {
        "timestamp" | "snapshot" => "tidegate refresh".into(),
        _ if TOP_LEVEL.contains(&role) || !role.contains('.') => format!("tidegate ceremony start --renew {role}"),
        _ => "tidegate refresh".into(),
    }
}

fn channel_state(reading: &Reading, channel: &Name, now: DateTime<Utc>) -> Channel {
    let map = reading.maps.get(channel);
    let cohorts = map.into_iter().flat_map(CohortMap::cohorts).map(|cohort| Cohort {
        name: cohort.name.to_string(),
        members: match &cohort.selector {
            Selector::Share(ppm) => Members::Share { ppm: *ppm },
            Selector::Devices(devices) => Members::Devices { count: devices.len() as u64 },
            Selector::Condition(condition) => Members::Condition { condition: condition.to_string() },
        },
        gate: cohort.protected.as_ref().map(|protected| protected.gate.to_string()),
        expires: reading.role(&layout::cohort_role(channel, &cohort.name)).map(|file| file.expires),
    });
    Channel {
        name: channel.to_string(),
        salt: map.map(|map| map.salt().to_string()),
        cohorts: cohorts.collect(),
        products: reading
            .products(channel)
            .iter()
            .map(|product| product_state(reading, channel, product, now))
            .collect(),
    }
}

fn product_state(reading: &Reading, channel: &Name, product: &Name, now: DateTime<Utc>) -> Product {
    let cohorts = reading.maps.get(channel).map(CohortMap::cohorts).unwrap_or_default();
    let mut given = Vec::new();
    let mut parts: BTreeMap<u64, Vec<Part<'_>>> = BTreeMap::new();
    let mut offered: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for cohort in cohorts {
        let list = reading.offers.get(&(channel.clone(), product.clone(), cohort.name.clone()));
        let expires = reading.role(&layout::cohort_role(channel, &cohort.name)).map(|file| file.expires);
        let mut offers = Vec::new();
        if let Some((list, expires)) = list.zip(expires) {
            for offer in approved(list) {
                offered.entry(offer.sequence).or_default().push(cohort.name.to_string());
                if let Selector::Share(share) = cohort.selector {
                    parts.entry(offer.sequence).or_default().push(Part { share, offer, expires });
                }
                offers.push(offer_state(offer, expires, now));
            }
        }
        let assigned = list.filter(|_| !offers.is_empty()).map(|list| list.assigned);
        given.push(CohortOffers { cohort: cohort.name.to_string(), assigned, offers });
    }
    let curves: Vec<_> = parts.values().rev().filter_map(|parts| curve(parts, now)).collect();
    let releases = reading.releases.iter().filter(|((of, its, _), _)| of == channel && its == product);
    let mut releases: Vec<Release> = releases
        .map(|(_, approved)| {
            let sequence = approved.manifest.sequence;
            let exposed = curves.iter().find(|curve| curve.sequence == sequence).map_or(0, |curve| curve.now_ppm);
            release_state(approved, offered.get(&sequence).cloned().unwrap_or_default(), exposed)
        })
        .collect();
    releases.sort_by_key(|release| std::cmp::Reverse(release.sequence));
    Product { name: product.to_string(), releases, cohorts: given, curves }
}

/// The offers of a list that the channel approves. Devices refuse others.
fn approved(list: &OfferedList) -> impl Iterator<Item = &rollout::Offer> {
    list.offers.iter().filter(|offered| offered.approved).map(|offered| &offered.offer)
}

fn offer_state(offer: &rollout::Offer, expires: DateTime<Utc>, now: DateTime<Utc>) -> Offer {
    Offer {
        release: offer.release.to_string(),
        sequence: offer.sequence,
        stage: offer.stage.to_string(),
        since: offer.since,
        paused: offer.paused,
        ramp: offer.ramp.map(|ramp| RampState {
            start: ramp.start(),
            end: ramp.end(),
            from_ppm: ramp.from(),
            to_ppm: ramp.to(),
        }),
        until: offer.until,
        exposed_ppm: exposure(offer, expires, now).to_ppm(),
        in_force: now < expires && !offer.has_ended(now),
    }
}

fn release_state(approved: &Approved, offered_to: Vec<String>, exposed_ppm: u32) -> Release {
    let Approved { manifest, sha256, .. } = approved;
    let patch = |patch: &tidegate_model::delivery::PatchRef| PatchState {
        from: patch.from.version.to_string(),
        length: patch.length,
    };
    let artifact = |artifact: &tidegate_model::manifest::Artifact| Artifact {
        name: artifact.name.to_string(),
        length: artifact.length,
        sha256: artifact.sha256.to_string(),
        hardware: artifact.hardware.iter().map(ToString::to_string).collect(),
        delivery: artifact.delivery.as_ref().map(|delivery| ArtifactDelivery {
            chunks: delivery.index.length.saturating_add(delivery.pack.length),
            patches: delivery.patches.iter().map(patch).collect(),
        }),
    };
    Release {
        version: manifest.version.to_string(),
        sequence: manifest.sequence,
        urgency: manifest.urgency.to_string(),
        created: manifest.created,
        manifest_sha256: sha256.to_string(),
        build: manifest.build.id.to_string(),
        source: manifest.build.source.as_ref().map(ToString::to_string),
        provenance: manifest.build.provenance.as_ref().map(|provenance| Provenance {
            kind: provenance.predicate_type.to_string(),
            sha256: provenance.sha256.to_string(),
            builder: provenance.builder.as_ref().map(ToString::to_string),
        }),
        artifacts: manifest.artifacts.iter().map(artifact).collect(),
        eligibility: manifest.eligibility.as_ref().map(ToString::to_string),
        upgrade_from: manifest.upgrade_from.as_ref().map(ToString::to_string),
        supersedes: manifest.supersedes.iter().copied().collect(),
        notes: manifest.notes.iter().map(ToString::to_string).collect(),
        offered_to,
        exposed_ppm,
    }
}
