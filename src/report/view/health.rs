//! What devices report, beside what is planned: receipts counted for what a repository offers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tidegate_model::layout::DelegatedRole;
use tidegate_model::name::Name;

use super::reading::Reading;
use super::state::{CurvePoint, GroupHealth, Health, HealthPoint, Product, ReleaseHealth, State};
use crate::error::{Result, chain};
use crate::publish::Remote;
use crate::receipts::{self, Counter, Enrolments, Known, Point, ReleaseHistory, Releases, Scope};
use crate::release::ReleaseId;

/// So many groups of a release are told apart.
const GROUPS: usize = 200;

/// Counts the receipts at `places` and adds what they say to `state`, which was made from `reading`. A device's name is no part of it.
/// If they cannot be read, the state says why, and is otherwise as it was. `progress` is told each time some more were read.
pub async fn add_health(
    state: &mut State,
    reading: &Reading,
    from: Result<(Vec<Remote>, Remote)>,
    progress: impl FnMut(u64),
) {
    let counted = match from {
        Ok((places, enrolments)) => count(state, reading, &places, &enrolments, progress).await,
        Err(error) => Err(error),
    };
    state.health = Some(counted.unwrap_or_else(|error| Health {
        fault: Some(chain(&error)),
        counted: 0,
        refused: 0,
        newest: None,
        releases: Vec::new(),
    }));
}

async fn count(
    state: &State,
    reading: &Reading,
    places: &[Remote],
    enrolments: &Remote,
    mut progress: impl FnMut(u64),
) -> Result<Health> {
    let releases = releases(reading);
    let mut counter = Counter::new(&releases, state.at);
    let enrolments = Arc::new(Enrolments::read(enrolments, &mut progress).await?);
    for place in places {
        place.must_be_there()?;
        for below in releases.prefixes(&Scope::default()) {
            receipts::read(place, &below, &enrolments, |name, found| {
                progress(1);
                counter.take(name, found);
            })
            .await?;
        }
    }
    let histories = counter.histories(&enrolments.enrolled(), |known| since(state, known));
    Ok(Health {
        fault: None,
        counted: counter.counted(),
        refused: counter.refused(),
        newest: counter.newest(),
        releases: histories.iter().map(|history| release(state, history)).collect(),
    })
}

/// The releases that a repository lists, and the cohorts that it has or had.
fn releases(reading: &Reading) -> Releases {
    let mut offered: BTreeMap<(&Name, &Name, u64), BTreeSet<Name>> = BTreeMap::new();
    for ((channel, product, cohort), list) in &reading.offers {
        for offer in list.offers.iter().filter(|offered| offered.approved).map(|offered| &offered.offer) {
            offered.entry((channel, product, offer.sequence)).or_default().insert(cohort.clone());
        }
    }
    let mut releases = Releases::default();
    for ((channel, product, version), approved) in &reading.releases {
        let manifest = &approved.manifest;
        releases.add(Known {
            id: ReleaseId { channel: channel.clone(), product: product.clone(), version: version.clone() },
            sequence: manifest.sequence,
            manifest: approved.sha256,
            hardware: receipts::hardware_of(manifest),
            offered: offered.remove(&(channel, product, manifest.sequence)).unwrap_or_default(),
        });
    }
    let snapshot = reading.tree.trusted.snapshot();
    for file in snapshot.into_iter().flat_map(|snapshot| snapshot.meta.keys()) {
        let role = file.strip_suffix(".json").and_then(DelegatedRole::parse);
        if let Some(DelegatedRole::Cohort { channel, cohort }) = role {
            releases.add_cohort(channel, &cohort);
        }
    }
    releases
}

fn product<'a>(state: &'a State, id: &ReleaseId) -> Option<&'a Product> {
    let channel = state.channels.iter().find(|channel| channel.name == id.channel.as_str())?;
    channel.products.iter().find(|product| product.name == id.product.as_str())
}

/// When a release was first offered to anybody; if it is not any more, when it was made.
fn since(state: &State, known: &Known) -> Option<DateTime<Utc>> {
    let product = product(state, &known.id)?;
    let offers = product.cohorts.iter().flat_map(|cohort| &cohort.offers);
    let offered = offers.filter(|offer| offer.sequence == known.sequence).map(|offer| offer.since).min();
    let made =
        || product.releases.iter().find(|release| release.sequence == known.sequence).map(|release| release.created);
    offered.or_else(made)
}

fn release(state: &State, history: &ReleaseHistory<'_>) -> ReleaseHealth {
    let Known { id, sequence, .. } = history.known;
    let curves = product(state, id).map(|product| product.curves.as_slice()).unwrap_or_default();
    let plan = curves.iter().find(|curve| curve.sequence == *sequence).map(|curve| curve.points.as_slice());
    let group = |group: &receipts::GroupHistory| GroupHealth {
        cohort: group.cohort.to_string(),
        hardware: group.hardware.to_string(),
        over_time: group.points.iter().map(|point| health_point(point, None)).collect(),
    };
    ReleaseHealth {
        channel: id.channel.to_string(),
        product: id.product.to_string(),
        release: id.version.to_string(),
        sequence: *sequence,
        fleet: history.fleet,
        over_time: history.all.iter().map(|point| health_point(point, plan)).collect(),
        groups: history.groups.iter().take(GROUPS).map(group).collect(),
        other_groups: history.groups.len().saturating_sub(GROUPS) as u64,
        delivery: history.delivery,
    }
}

fn health_point(point: &Point, plan: Option<&[CurvePoint]>) -> HealthPoint {
    let counts = point.counts;
    HealthPoint {
        at: point.at,
        planned_ppm: plan.map(|plan| planned(plan, point.at)),
        installed: counts.installed,
        confirmed: counts.confirmed,
        failed: counts.failed,
        rolled_back: counts.rolled_back,
    }
}

/// How far a curve is at an instant, in parts per million.
fn planned(points: &[CurvePoint], at: DateTime<Utc>) -> u32 {
    let (before, after) = points.split_at(points.partition_point(|point| point.at <= at));
    match (before.last(), after.first()) {
        (None, _) => 0,
        (Some(last), None) => last.ppm,
        (Some(from), Some(to)) => {
            let (passed, whole) = ((at - from.at).num_seconds(), (to.at - from.at).num_seconds().max(1));
            let grown = (i64::from(to.ppm) - i64::from(from.ppm)) * passed / whole;
            u32::try_from(i64::from(from.ppm) + grown).unwrap_or(from.ppm)
        }
    }
}
