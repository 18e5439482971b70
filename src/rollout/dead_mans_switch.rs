//! The dead man's switch, separate for each offer.
//!
//! An offer of a limited rollout ends by itself at `until`, unless somebody renews it: every step of its rollout does. Roles live on, so
//! that nothing else of the cohort ends with it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use tidegate_model::rollout::{Offer, Ramp, Stage};
use tidegate_model::time;

use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::workspace::in_force::{PAUSED_SINCE, paused_since};

/// Records that somebody attends to an offer: a limited one lives on. If it had ended, its ramp continues from where it was.
pub(crate) fn attend(offer: &mut Offer, policy: &Policy, now: DateTime<Utc>) -> Result<()> {
    if let Some(stopped) = stopped(offer, now)
        && let Some(ramp) = offer.ramp.filter(|ramp| ramp.end() > stopped)
    {
        offer.ramp = Some(moved(ramp, now - stopped)?);
    }
    offer.until = (offer.stage == Stage::Limited).then(|| now + policy.rollout.max_unattended.delta());
    Ok(())
}

/// Since when an offer is not taken because it has ended by itself; `None` if it has not, or was paused.
pub(crate) fn stopped(offer: &Offer, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    offer.until.filter(|until| *until <= now && !offer.paused)
}

/// Starts a pause.
pub(super) fn pause(offer: &mut Offer, now: DateTime<Utc>) {
    // An offer that had ended has not been taken since then.
    let since = offer.until.map_or(now, |until| until.min(now));
    offer.paused = true;
    offer.extra.insert(PAUSED_SINCE.into(), Value::from(time::format(since)));
}

/// Ends a pause: the ramp continues from where it was, moved by the length of the pause.
pub(crate) fn resume(offer: &mut Offer, now: DateTime<Utc>) -> Result<()> {
    let since = paused_since(offer);
    offer.paused = false;
    offer.extra.remove(PAUSED_SINCE);
    let Some(since) = since else { return Ok(()) };
    if let Some(ramp) = offer.ramp.filter(|ramp| ramp.end() > since) {
        offer.ramp = Some(moved(ramp, now - since)?);
    }
    // The pause is accounted for.
    offer.until = None;
    Ok(())
}

fn moved(ramp: Ramp, by: TimeDelta) -> Result<Ramp> {
    Ramp::new(ramp.start() + by, ramp.end() + by, ramp.from(), ramp.to())
        .map_err(|e| Error::input("the ramp cannot be moved").with_source(e))
}
