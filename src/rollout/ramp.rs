//! Plans a ramp from a request.

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::position::PPM;
use tidegate_model::rollout::Ramp;

use crate::config::write_share;
use crate::error::{Error, Result};
use tidegate_model::span::Span;

/// How to expose a cohort: all at once, a part at once, or gradually.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RampRequest {
    /// The duration.
    pub span: Option<Span>,
    /// Parts per million of the cohort exposed at the start.
    pub from: Option<u32>,
    /// Parts per million of the cohort exposed at the end.
    pub to: Option<u32>,
}

/// A planned exposure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The ramp; `None` for everyone at once.
    pub ramp: Option<Ramp>,
    /// Parts per million of the cohort newly exposed at once.
    pub at_once: u32,
    /// How long a ramp of this slope takes from 0 to 100%.
    pub full_span: Option<Span>,
}

/// Plans the exposure of a cohort of which `exposed` parts per million are already exposed.
///
/// # Errors
///
/// A usage error if the request would shrink exposure, contradicts itself, or has an invalid span.
pub fn plan(request: RampRequest, exposed: u32, now: DateTime<Utc>) -> Result<Planned> {
    let to = request.to.unwrap_or(PPM);
    let from = request.from.unwrap_or(if request.span.is_some() { exposed.min(to) } else { to });
    let contradiction = |why: String, remedy: &str| Err(Error::usage(why).remedy(remedy));
    if from > to {
        return contradiction(
            format!("--from {} is more than --to {}", write_share(from), write_share(to)),
            "a ramp cannot fall; to stop offering a release, withdraw it",
        );
    }
    if to < exposed || from < exposed {
        return contradiction(
            format!("{} of the cohort is already eligible, and the share cannot shrink", write_share(exposed)),
            "give a larger share; to stop offering a release, withdraw it",
        );
    }
    let Some(span) = request.span else {
        if from < to {
            return contradiction("a ramp from --from to --to needs a duration".into(), "give one: --ramp 24h");
        }
        // A part at once and no more: a ramp that does not rise.
        let ramp = (to < PPM).then(|| Ramp::new(now, now + TimeDelta::seconds(1), to, to)).transpose();
        let ramp = ramp.map_err(|e| Error::usage("the ramp cannot be").with_source(e))?;
        return Ok(Planned { ramp, at_once: to - exposed, full_span: None });
    };
    if span.is_zero() {
        return contradiction("--ramp 0 is no ramp".into(), "omit it to reach everyone at once");
    }
    let ramp =
        Ramp::new(now, now + span.delta(), from, to).map_err(|e| Error::usage("the ramp cannot be").with_source(e))?;
    let rise = u64::from(to - from);
    let seconds = (rise > 0).then(|| span.seconds().saturating_mul(u64::from(PPM)) / rise);
    let full_span =
        seconds.map(|seconds| Span::from_delta(TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::MAX / 1000))));
    Ok(Planned { ramp: Some(ramp), at_once: from - exposed, full_span })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn request(span: Option<u64>, from: Option<u32>, to: Option<u32>) -> RampRequest {
        RampRequest { span: span.map(Span::hours), from, to }
    }

    #[test]
    fn requests_become_ramps() {
        let all = plan(request(None, None, None), 0, now()).unwrap();
        assert_eq!((all.ramp, all.at_once), (None, PPM));

        let part = plan(request(None, None, Some(100_000)), 0, now()).unwrap();
        assert_eq!((part.at_once, part.ramp.unwrap().from(), part.ramp.unwrap().to()), (100_000, 100_000, 100_000));

        let slow = plan(request(Some(24), None, None), 0, now()).unwrap();
        assert_eq!((slow.at_once, slow.full_span), (0, Some(Span::hours(24))));
        assert_eq!((slow.ramp.unwrap().from(), slow.ramp.unwrap().to()), (0, PPM));

        let further = plan(request(Some(12), None, Some(600_000)), 100_000, now()).unwrap();
        assert_eq!((further.at_once, further.full_span), (0, Some(Span::hours(24))));
        assert_eq!(further.ramp.unwrap().from(), 100_000);
    }

    #[test]
    fn exposure_never_shrinks() {
        for bad in [
            request(Some(24), Some(500_000), Some(100_000)),
            request(None, Some(0), Some(100_000)),
            request(None, None, Some(100_000)),
            request(Some(24), Some(100_000), None),
            request(Some(0), None, None),
        ] {
            assert!(plan(bad, 200_000, now()).is_err(), "{bad:?}");
        }
    }
}
