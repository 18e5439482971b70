//! Freeze periods: times at which no step exposes a device.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Timelike as _, Utc};
use serde::Deserialize;
use tidegate_model::time;

const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A freeze period: either once, `from` one instant `until` another, or `weekly`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "FreezeText")]
pub struct Freeze {
    /// When it holds.
    pub period: Period,
    /// Why, for whoever is refused.
    pub reason: Option<String>,
}

/// When a freeze holds: from a start to, but not including, an end.
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
    Weekly(Weekly),
}

/// A stretch of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weekly {
    /// Minutes from Monday, 00:00 UTC, to its start.
    from: u32,
    /// How many minutes it lasts: less than a week.
    length: u32,
    /// As it was written, with the offset.
    text: String,
}

/// A stretch of time in which a freeze holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its start.
    pub from: DateTime<Utc>,
    /// Its end.
    pub until: DateTime<Utc>,
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
    /// The stretch around `now`, or else the next one that begins before `horizon`.
    pub fn within(&self, now: DateTime<Utc>, horizon: DateTime<Utc>) -> Option<Stretch> {
        let stretch = match &self.period {
            Period::Once { from, until } => (now < *until).then_some(Stretch { from: *from, until: *until }),
            Period::Weekly(weekly) => weekly.at_or_after(now),
        }?;
        (stretch.from <= now || stretch.from < horizon).then_some(stretch)
    }
}

impl Weekly {
    fn at_or_after(&self, now: DateTime<Utc>) -> Option<Stretch> {
        let monday = now.date_naive() - TimeDelta::days(i64::from(now.weekday().num_days_from_monday()));
        let monday = monday.and_time(chrono::NaiveTime::MIN).and_utc();
        // One that began last week may hold still; the next one begins within a week.
        [-1, 0, 1].into_iter().find_map(|week| {
            let from = monday + TimeDelta::weeks(week) + TimeDelta::minutes(i64::from(self.from));
            let until = from + TimeDelta::minutes(i64::from(self.length));
            (now < until).then_some(Stretch { from, until })
        })
    }
}

/// Whether weekly freezes leave no minute of a week.
pub(super) fn covers_every_week<'a>(freezes: impl IntoIterator<Item = &'a Freeze>) -> bool {
    let mut stretches: Vec<(u32, u32)> = Vec::new();
    for freeze in freezes {
        let Period::Weekly(weekly) = &freeze.period else { continue };
        let end = weekly.from + weekly.length;
        stretches.push((weekly.from, end.min(WEEK)));
        if end > WEEK {
            stretches.push((0, end - WEEK));
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
            Period::Weekly(weekly) => write!(f, "weekly, {}", weekly.text)?,
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
            (None, None, Some(weekly)) => Period::Weekly(weekly_of(&weekly, utc_offset.as_deref())?),
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

/// Reads `fri 16:00 - mon 08:00`, in local time if an offset is given.
fn weekly_of(text: &str, offset: Option<&str>) -> Result<Weekly, String> {
    let bad = || format!("{text:?} is no part of the week: write it as \"fri 16:00 - mon 08:00\"");
    let (from, until) = text.split_once('-').ok_or_else(bad)?;
    let minute = |text: &str| -> Option<u32> {
        let (day, clock) = text.trim().split_once(' ')?;
        let day = DAYS.iter().position(|name| *name == day)?;
        let clock = chrono::NaiveTime::parse_from_str(clock.trim(), "%H:%M").ok()?;
        Some(u32::try_from(day).ok()? * DAY + clock.hour() * 60 + clock.minute())
    };
    let (from, until) = (minute(from).ok_or_else(bad)?, minute(until).ok_or_else(bad)?);
    let length = (until + WEEK - from) % WEEK;
    if length == 0 {
        return Err(format!("{text:?} ends when it begins: the whole week would be frozen, or none of it"));
    }
    let ahead = match offset {
        None => 0,
        Some(offset) => offset_minutes(offset)?,
    };
    let from = i64::from(from) - ahead;
    let from = u32::try_from(from.rem_euclid(i64::from(WEEK))).map_err(|_| bad())?;
    let text = format!("{text} {}", offset.unwrap_or("UTC"));
    Ok(Weekly { from, length, text })
}

/// Reads `+01:00`.
fn offset_minutes(text: &str) -> Result<i64, String> {
    let read = || {
        let sign = match text.get(..1)? {
            "+" => 1,
            "-" => -1,
            _ => return None,
        };
        let clock = chrono::NaiveTime::parse_from_str(text.get(1..)?, "%H:%M").ok()?;
        (clock.hour() <= 18).then(|| sign * i64::from(clock.hour() * 60 + clock.minute()))
    };
    read().ok_or_else(|| format!("{text:?} is no offset from UTC: write for example +01:00"))
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
        let stretch = Stretch { from: at("2026-12-20"), until: at("2027-01-04T07:00:00Z") };
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
            ("weekly = \"fri - mon\"", "is no part of the week"),
            ("weekly = \"fri 16:00 - fri 16:00\"", "ends when it begins"),
            ("weekly = \"fri 16:00 - mon 08:00\"\nutc_offset = \"CET\"", "is no offset"),
            ("weekly = \"fri 16:00 - mon 08:00\"\nfrom = \"2026-12-20\"", "either from and until, or weekly"),
        ] {
            let error = freeze(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
