//! Checks a change of a channel's cohorts against its running rollouts.
//!
//! The channel's role lists the cohort map, so changing it is a ceremony. A new map moves devices between cohorts at one instant,
//! bypassing soak times and ramps. So it may expose no more of the fleet to a limited release than policy allows for one step.
//! This is checked when the change is proposed, and again when the ceremony is finished.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::name::Name;
use tidegate_model::position::PPM;
use tidegate_model::rollout::{Offer, Offers, Stage};

use crate::config::write_share;
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::metadata::{Document, Repository};
use crate::workspace::in_force::{self, lists};
use crate::workspace::{CohortInForce, Workspace, artifacts, cohorts_in_force, map_in_force};

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
    let products: BTreeSet<Name> = lists(repository, channel)?.into_iter().map(|list| list.product).collect();
    for product in products {
        let in_force = cohorts_in_force(repository, &current, channel, &product)?;
        let limited = in_force.iter().flat_map(|own| &own.offers).filter(|offer| offer.stage == Stage::Limited);
        for release in limited {
            let exposed = newly_exposed(&current, next, &in_force, release.sequence, now);
            if exposed > largest {
                let id = format!("{channel}/{product}/{}", release.release);
                return Err(Error::refused(Rule::CeremonyCohorts, format!(
                    "other cohorts would expose {} more of the fleet to {id} at one instant, and policy.toml allows {}",
                    write_share(exposed),
                    write_share(largest)
                ))
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
    in_force: &[CohortInForce],
    sequence: u64,
    now: DateTime<Utc>,
) -> u32 {
    let exposure: BTreeMap<&Name, u128> = in_force
        .iter()
        .map(|own| {
            // Whoever is on a higher sequence has it, too.
            let at_least = own.offers.iter().filter(|offer| offer.sequence >= sequence && !offer.paused);
            (&own.cohort, u128::from(at_least.map(|offer| own.exposed(offer.sequence, now)).max().unwrap_or_default()))
        })
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
pub fn beginning(
    repository: &Repository,
    channel: &Name,
    cohort: &Name,
    now: DateTime<Utc>,
    written: &mut Changes,
) -> Result<Document> {
    let mut settled: BTreeMap<Name, Vec<Offer>> = BTreeMap::new();
    for list in lists(repository, channel)? {
        let offers = settled.entry(list.product).or_default();
        for offer in list.offers.offers {
            let is_settled =
                matches!(offer.stage, Stage::Stable | Stage::Security) && !offer.paused && offer.ramp.is_none();
            if is_settled && offers.iter().all(|known| known.sequence != offer.sequence) {
                offers.push(Offer { since: now, ..offer });
            }
        }
    }
    let mut document = Document::targets();
    for (product, mut offers) in settled {
        // Stable releases are ordered by version; a retraction stands above what it supersedes in each list already.
        offers.sort_by(|a, b| b.release.cmp(&a.release));
        if offers.is_empty() {
            continue;
        }
        let path = layout::assignment_path(channel, cohort, &product);
        let (bytes, custom) = in_force::target(&Offers::new(now, offers))?;
        let sha256 = Digest::of(&bytes);
        document.set_target(&path, bytes.len() as u64, sha256.as_bytes(), Some(custom));
        written.put(artifacts::signed_path(&sha256), bytes);
    }
    Ok(document)
}
