//! Checks a change of a channel's cohorts against its running rollouts.
//!
//! The channel's role lists the cohort map, so changing it is a ceremony. A new map moves devices between cohorts at one instant,
//! bypassing soak times and ramps. So it may expose no more of the fleet to a limited release than policy allows for one step.
//! This is checked when the change is proposed, and again when the ceremony is finished.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use tidegate_model::cohort::CohortMap;
use tidegate_model::layout;
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::Stage;

use crate::config::write_share;
use crate::error::{Error, Result, Rule};
use crate::metadata::{Document, Repository};
use crate::workspace::in_force::{self, Offer, digest, offers};
use crate::workspace::{CohortInForce, Workspace, map_in_force, standing};

/// Checks how much of the fleet the new map `next` exposes to limited releases at one instant.
///
/// # Errors
///
/// `C-COHORTS` if it exposes more than policy allows. Fails if the policy or the map in force cannot be read.
pub fn check_change(
    workspace: &Workspace,
    repository: &Repository,
    channel: &Name,
    next: &CohortMap,
    now: DateTime<Utc>,
) -> Result<()> {
    let largest = workspace.policy()?.rollout.largest_step;
    let current = map_in_force(workspace.dir(), repository, channel)?;
    let products: BTreeSet<Name> = offers(repository, channel)?.into_iter().map(|offer| offer.product).collect();
    for product in products {
        let standings = standing(repository, &current, channel, &product)?;
        let limited = |own: &CohortInForce| {
            own.assignment.as_ref().filter(|assignment| assignment.stage == Stage::Limited).cloned()
        };
        for release in standings.iter().filter_map(limited) {
            let exposed = newly_exposed(&current, next, &standings, release.sequence, now);
            if exposed > largest {
                let id = format!("{channel}/{product}/{}", release.release);
                return Err(Error::refused(format!(
                    "other cohorts would expose {} more of the fleet to {id} at one instant, and policy.toml allows {}",
                    write_share(exposed),
                    write_share(largest)
                ))
                .rule(Rule::CeremonyCohorts)
                .remedy(format!(
                    "first complete the rollout (tidegate rollout complete {id}) or withdraw it; or move fewer devices into cohorts that have it"
                )));
            }
        }
    }
    Ok(())
}

/// The share of the fleet, in parts per million, that would newly be exposed to the release with this sequence. The size of
/// cohorts that name their devices is not counted, as for every step.
fn newly_exposed(
    current: &CohortMap,
    next: &CohortMap,
    standings: &[CohortInForce],
    sequence: u64,
    now: DateTime<Utc>,
) -> u32 {
    let exposure: BTreeMap<&Name, u128> = standings
        .iter()
        .filter(|own| own.assignment.as_ref().is_some_and(|offer| offer.sequence >= sequence && !offer.paused))
        .map(|own| (&own.cohort, u128::from(own.exposed(now))))
        .collect();
    let exposed = |cohort: &Name| exposure.get(cohort).copied().unwrap_or_default();
    let ppm = u128::from(PPM);
    let intervals = |map: &CohortMap| -> Vec<_> {
        map.cohorts().iter().filter_map(|cohort| Some((cohort.name.clone(), map.interval(&cohort.name)?))).collect()
    };
    let from = intervals(current);
    // Of the positions that change cohort, those that are exposed in the new cohort and were not in the old one.
    let mut moved = 0;
    for (to, after) in intervals(next) {
        if current.salt() != next.salt() {
            // Every device is in another cohort.
            moved += (after.high() - u128::from(after.low())) * exposed(&to);
            continue;
        }
        for (cohort, before) in &from {
            let low = u128::from(after.low().max(before.low()));
            let both = after.high().min(before.high()).saturating_sub(low);
            moved += both * exposed(&to).saturating_sub(exposed(cohort));
        }
    }
    u32::try_from((moved >> 64).min(ppm)).unwrap_or(PPM)
}

/// The initial assignments of a new cohort: what the other cohorts have, where that is stable. Its devices were in one of those.
///
/// # Errors
///
/// Fails if an assignment cannot be read or serialized.
pub fn beginning(repository: &Repository, channel: &Name, cohort: &Name, now: DateTime<Utc>) -> Result<Document> {
    let mut settled: BTreeMap<Name, Offer<'_>> = BTreeMap::new();
    for offer in offers(repository, channel)? {
        let newest = settled.get(&offer.product).is_none_or(|old| old.assignment.sequence < offer.assignment.sequence);
        if newest && matches!(offer.assignment.stage, Stage::Stable | Stage::Security) && !offer.assignment.paused {
            settled.insert(offer.product.clone(), offer);
        }
    }
    let mut document = Document::targets();
    for (product, Offer { mut assignment, file, .. }) in settled {
        assignment.assigned = now;
        let path = layout::assignment_path(channel, cohort, &product);
        document.set_target(&path, file.length, digest(file)?.as_bytes(), Some(in_force::custom(&assignment)?));
    }
    Ok(document)
}
