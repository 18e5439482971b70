//! The stored form of a state: one object whose fields depend on its kind.
//!
//! Written by hand, because the code that serde derives for such enums is many times larger.

use serde::Serialize;
use serde_json::Value;

use super::{Attempt, Begun, Machine, State};
use crate::install::Place;
use crate::store::Keep;
use tidegate_model::release::Release;
use tidegate_model::time::{self, UtcTime};
use tidegate_tuf::fields::{FieldError, Fields};

#[derive(Default, Serialize)]
pub(super) struct Form {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    release: Option<Release>,
    /// What ran when the attempt began.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Place>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boots: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", with = "time::optional_text")]
    until: Option<UtcTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    again: bool,
}

impl Keep for Machine {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self { state: fields.part("state", State::read)?, ..Self::counters(&mut fields)? })
    }

    /// Attempts are counted whatever the state is, so that a release that falls back from a newer program is not tried for ever.
    fn read_newer(value: &Value) -> Option<Self> {
        let counters = || Self::counters(&mut Fields::of(value, "").ok()?).ok();
        Self::read(value, "").ok().or_else(counters)
    }
}

impl Machine {
    fn counters(fields: &mut Fields<'_>) -> Result<Self, FieldError> {
        Ok(Self {
            state: State::Idle,
            failures: fields.optional_u32("failures")?.unwrap_or(0),
            restart: fields.optional_text_as("restart", time::parse)?,
            begun: fields.optional_part("begun", |value, at| {
                let mut fields = Fields::of(value, at)?;
                Ok(Begun { sequence: fields.u64("sequence")?, times: fields.u32("times")? })
            })?,
        })
    }
}

impl State {
    fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        let form = Form {
            kind: fields.text("kind")?.to_owned(),
            release: fields.optional_part("release", Release::read)?,
            before: fields.optional_text("before")?.map(str::to_owned),
            boot: fields.optional_text("boot")?.map(str::to_owned),
            boots: fields.optional_u32("boots")?,
            since: fields.optional_u64("since")?,
            until: fields.optional_text_as("until", time::parse)?,
            why: fields.optional_text("why")?.map(str::to_owned),
            again: fields.bool_or("again", false)?,
        };
        form.state().map_err(|why| FieldError::new(at, why))
    }
}

impl From<State> for Form {
    fn from(state: State) -> Self {
        let kind = state.name().to_owned();
        let of = |Attempt { release, before }, boot| Self { release: Some(release), before, boot, ..Self::default() };
        let form = match state {
            State::Idle | State::Checking => Self::default(),
            State::Waiting { until, why, release } => Self { until, why: Some(why), release, ..Self::default() },
            State::Downloading { attempt } | State::Verifying { attempt } => of(attempt, None),
            State::Installing { attempt, boot } | State::Rebooting { attempt, boot } => of(attempt, Some(boot)),
            State::Trial { attempt, boot, boots, since } => {
                Self { boots: Some(boots), since: Some(since), ..of(attempt, Some(boot)) }
            }
            State::Confirmed { release } => Self { release: Some(release), ..Self::default() },
            State::RolledBack { attempt, boot, why, again } => {
                Self { why: Some(why), again, ..of(attempt, Some(boot)) }
            }
            State::Quarantined { release, why } => Self { release: Some(release), why: Some(why), ..Self::default() },
        };
        Self { kind, ..form }
    }
}

impl Form {
    fn state(self) -> Result<State, String> {
        let Self { kind, release, before, boot, boots, since, until, why, again } = self;
        let read = || {
            Some(match kind.as_str() {
                "idle" => State::Idle,
                "checking" => State::Checking,
                "waiting" => State::Waiting { until, why: why?, release },
                "downloading" => State::Downloading { attempt: Attempt { release: release?, before } },
                "verifying" => State::Verifying { attempt: Attempt { release: release?, before } },
                "installing" => State::Installing { attempt: Attempt { release: release?, before }, boot: boot? },
                "rebooting" => State::Rebooting { attempt: Attempt { release: release?, before }, boot: boot? },
                "trial" => State::Trial {
                    attempt: Attempt { release: release?, before },
                    boot: boot?,
                    boots: boots?,
                    since: since?,
                },
                "confirmed" => State::Confirmed { release: release? },
                "rolled-back" => {
                    State::RolledBack { attempt: Attempt { release: release?, before }, boot: boot?, why: why?, again }
                }
                "quarantined" => State::Quarantined { release: release?, why: why? },
                _ => return None,
            })
        };
        let bad = format!("it is not a state, or a field of state {kind:?} is missing");
        read().ok_or(bad)
    }
}
