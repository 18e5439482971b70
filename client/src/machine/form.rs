//! How a state is written: one object whose fields depend on its kind.
//!
//! By hand, because what serde derives for such enums is many times as large, and devices are small.

use serde::{Deserialize, Serialize};

use super::{Attempt, Place, State};
use crate::device::Release;
use crate::model::time::{self, Instant};

#[derive(Default, Serialize, Deserialize)]
pub(super) struct Form {
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    release: Option<Release>,
    /// What ran when the attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boots: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::optional_text")]
    until: Option<Instant>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    again: bool,
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

impl TryFrom<Form> for State {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        let Form { kind, release, before, boot, boots, since, until, why, again } = form;
        let read = || {
            Some(match kind.as_str() {
                "idle" => Self::Idle,
                "checking" => Self::Checking,
                "waiting" => Self::Waiting { until, why: why?, release },
                "downloading" => Self::Downloading { attempt: Attempt { release: release?, before } },
                "verifying" => Self::Verifying { attempt: Attempt { release: release?, before } },
                "installing" => Self::Installing { attempt: Attempt { release: release?, before }, boot: boot? },
                "rebooting" => Self::Rebooting { attempt: Attempt { release: release?, before }, boot: boot? },
                "trial" => Self::Trial {
                    attempt: Attempt { release: release?, before },
                    boot: boot?,
                    boots: boots?,
                    since: since?,
                },
                "confirmed" => Self::Confirmed { release: release? },
                "rolled-back" => {
                    Self::RolledBack { attempt: Attempt { release: release?, before }, boot: boot?, why: why?, again }
                }
                "quarantined" => Self::Quarantined { release: release?, why: why? },
                _ => return None,
            })
        };
        let bad = format!("it is no state, or lacks what a state {kind:?} has");
        read().ok_or(bad)
    }
}
