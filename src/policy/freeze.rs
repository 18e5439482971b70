//! Freeze periods: times at which no step exposes a device.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use tidegate_model::time;
use tidegate_model::week::{Occurrence, UtcOffset, WEEK, WeekError, WeeklyPeriod};

/// A freeze period: either once, `from` one instant `until` another, or `weekly`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FreezeText")]
pub struct Freeze {
    /// When it applies.
    pub period: Period,
    /// The reason, shown in refusals.
    pub reason: Option<String>,
}

/// When a freeze applies: from a start to, but not including, an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Period {
    /// Once.
    Once {
        /// Its start.
        from: DateTime<Utc>,
        /// Its end.
        until: DateTime<Utc>,
    },
    /// Every week.
    Weekly {
        /// The time of the week, local.
        period: WeeklyPeriod,
        /// How far local time is ahead of UTC.
        offset: UtcOffset,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FreezeText {
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    until: Option<String>,
    #[serde(default)]
    weekly: Option<String>,
    #[serde(default)]
    utc_offset: Option<String>,
    #[serde(default)]
    reason: Option<String>,
}

impl Freeze {
    /// The occurrence around `now`, or else the next one that begins before `horizon`.
    pub fn within(&self, now: DateTime<Utc>, horizon: DateTime<Utc>) -> Option<Occurrence> {
        let stretch = match &self.period {
            Period::Once { from, until } => (now < *until).then_some(Occurrence { from: *from, until: *until }),
            Period::Weekly { period, offset } => period.at_or_after(now, *offset),
        }?;
        (stretch.from <= now || stretch.from < horizon).then_some(stretch)
    }
}

/// Whether weekly freezes leave no minute of a week.
pub(super) fn covers_every_week<'a>(freezes: impl IntoIterator<Item = &'a Freeze>) -> bool {
    let mut stretches: Vec<(u32, u32)> = Vec::new();
    for freeze in freezes {
        if let Period::Weekly { period, offset } = &freeze.period {
            stretches.extend(period.minutes(*offset));
        }
    }
    stretches.sort_unstable();
    let reached = stretches.into_iter().try_fold(
        0,
        |reached, (from, until)| {
            if from > reached { None } else { Some(reached.max(until)) }
        },
    );
    reached == Some(WEEK)
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.period {
            Period::Once { from, until } => write!(f, "from {} until {}", time::format(*from), time::format(*until))?,
            Period::Weekly { period, offset } => write!(f, "weekly, {period} {offset}")?,
        }
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl TryFrom<FreezeText> for Freeze {
    type Error = String;

    fn try_from(text: FreezeText) -> Result<Self, String> {
        let FreezeText { from, until, weekly, utc_offset, reason } = text;
        let period = match (from, until, weekly) {
            (Some(from), Some(until), None) => {
                if utc_offset.is_some() {
                    return Err("utc_offset is for weekly freezes: write from and until with their own offset".into());
                }
                let (from, until) = (instant(&from)?, instant(&until)?);
                if from >= until {
                    return Err(format!("the freeze ends at {}, before it begins", time::format(until)));
                }
                Period::Once { from, until }
            }
            (None, None, Some(weekly)) => Period::Weekly {
                period: weekly.parse().map_err(|e: WeekError| e.to_string())?,
                offset: match utc_offset {
                    None => UtcOffset::default(),
                    Some(offset) => offset.parse().map_err(|e: WeekError| e.to_string())?,
                },
            },
            _ => return Err("a freeze has either from and until, or weekly".into()),
        };
        Ok(Self { period, reason })
    }
}

/// Reads a date, which begins at 00:00 UTC, or an instant.
fn instant(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(date) = NaiveDate::from_str(text) {
        return Ok(date.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    DateTime::parse_from_rfc3339(text).map(|instant| instant.with_timezone(&Utc)).map_err(|_| {
        format!("{text:?} is neither a date, such as 2026-12-20, nor an instant, such as 2026-12-20T16:00:00Z")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn freeze(toml: &str) -> Result<Freeze, String> {
        toml::from_str(toml).map_err(|e: toml::de::Error| e.message().to_owned())
    }

    fn at(text: &str) -> DateTime<Utc> {
        instant(text).unwrap()
    }

    #[test]
    fn a_freeze_holds_from_its_start_to_before_its_end() {
        let once = freeze("from = \"2026-12-20\"\nuntil = \"2027-01-04T08:00:00+01:00\"").unwrap();
        let stretch = Occurrence { from: at("2026-12-20"), until: at("2027-01-04T07:00:00Z") };
        let within = |now: &str, horizon: &str| once.within(at(now), at(horizon));
        assert_eq!(within("2026-12-20", "2026-12-20"), Some(stretch));
        assert_eq!(within("2026-12-19T23:59:59Z", "2026-12-20"), None, "a ramp may end when a freeze begins");
        assert_eq!(within("2026-12-19T23:59:59Z", "2026-12-20T00:00:01Z"), Some(stretch));
        assert_eq!(within("2027-01-04T06:59:59Z", "2027-01-05"), Some(stretch));
        assert_eq!(within("2027-01-04T07:00:00Z", "2028-01-05"), None);
    }

    #[test]
    fn weekly_freezes_go_over_the_end_of_the_week_and_follow_their_offset() {
        // 2026-11-25 is a Wednesday.
        let weekend = freeze("weekly = \"fri 16:00 - mon 08:00\"\nutc_offset = \"+01:00\"").unwrap();
        for (now, held) in [
            ("2026-11-27T14:59:59Z", false),
            ("2026-11-27T15:00:00Z", true),
            ("2026-11-29T12:00:00Z", true),
            ("2026-11-30T06:59:59Z", true),
            ("2026-11-30T07:00:00Z", false),
        ] {
            assert_eq!(weekend.within(at(now), at(now)).is_some(), held, "{now}");
        }
        let next = weekend.within(at("2026-11-25"), at("2026-11-28")).unwrap();
        assert_eq!((next.from, next.until), (at("2026-11-27T15:00:00Z"), at("2026-11-30T07:00:00Z")));
    }

    #[test]
    fn a_week_without_a_free_minute_is_noticed() {
        let weekly = |text: &str| freeze(&format!("weekly = \"{text}\"")).unwrap();
        let all = [weekly("mon 00:00 - fri 12:00"), weekly("fri 12:00 - mon 00:00")];
        assert!(covers_every_week(&all));
        assert!(covers_every_week(&[weekly("wed 06:00 - tue 00:00"), weekly("mon 23:00 - wed 07:00")]));
        assert!(!covers_every_week(&all[..1]));
        assert!(!covers_every_week(&[weekly("mon 00:00 - fri 12:00"), weekly("fri 12:01 - mon 00:00")]));
    }

    #[test]
    fn what_is_no_period_is_refused_with_the_way_to_write_it() {
        for (text, part) in [
            ("from = \"2026-12-20\"", "either from and until, or weekly"),
            ("from = \"2026-12-20\"\nuntil = \"2026-12-20\"", "before it begins"),
            ("from = \"20.12.2026\"\nuntil = \"2027-01-01\"", "is neither a date"),
            ("weekly = \"fri - mon\"", "is not a time of the week"),
            ("weekly = \"fri 16:00 - fri 16:00\"", "ends when it begins"),
            ("weekly = \"fri 16:00 - mon 08:00\"\nutc_offset = \"CET\"", "is not an offset"),
            ("weekly = \"fri 16:00 - mon 08:00\"\nfrom = \"2026-12-20\"", "either from and until, or weekly"),
        ] {
            let error = freeze(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
