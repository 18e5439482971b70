//! Times of the week: maintenance windows of devices, freeze periods of publishers.
//!
//! Both have the same notation: `fri 16:00 - mon 08:00` (from one day to another), `sat sun 01:00 - 05:30` (on some days), `01:00 - 05:30`
//! (every day). An end that is not after the start is on the next day. Times are local; [`UtcOffset`] is how far they are ahead of UTC.

use core::fmt;
use core::str::FromStr;

use chrono::{Datelike as _, NaiveTime, TimeDelta};
use tidegate_tuf::fields::quoted;

use super::time::UtcTime;
use crate::prelude::*;

const DAY: u32 = 24 * 60;
/// The minutes of a week.
pub const WEEK: u32 = 7 * DAY;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A period that recurs every week, on one or several days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeeklyPeriod {
    /// Its starts, in local minutes from Monday, 00:00.
    starts: Vec<u32>,
    /// Its length in minutes: at least one, less than a week.
    length: u32,
    text: String,
}

/// One occurrence of a period: from its start to, but not including, its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occurrence {
    /// Its start.
    pub from: UtcTime,
    /// Its end.
    pub until: UtcTime,
}

impl WeeklyPeriod {
    /// The occurrence that contains `now`, or else the next one.
    pub fn at_or_after(&self, now: UtcTime, offset: UtcOffset) -> Option<Occurrence> {
        self.occurrences(now, offset)
            .filter(|occurrence| now < occurrence.until)
            .min_by_key(|occurrence| occurrence.from)
    }

    /// Whether an occurrence contains `now`.
    pub fn contains(&self, now: UtcTime, offset: UtcOffset) -> bool {
        self.at_or_after(now, offset).is_some_and(|occurrence| occurrence.from <= now)
    }

    /// The first start after `now`.
    pub fn next_start(&self, now: UtcTime, offset: UtcOffset) -> Option<UtcTime> {
        self.occurrences(now, offset).map(|occurrence| occurrence.from).filter(|from| *from > now).min()
    }

    /// The ranges of a week in UTC that it covers: minutes from Monday 00:00, start and end, the end at most [`WEEK`].
    pub fn minutes(&self, offset: UtcOffset) -> Vec<(u32, u32)> {
        let mut minutes = Vec::new();
        for start in &self.starts {
            let shifted = i64::from(*start) - offset.minutes();
            let Ok(from) = u32::try_from(shifted.rem_euclid(i64::from(WEEK))) else { continue };
            let end = from + self.length;
            minutes.push((from, end.min(WEEK)));
            if end > WEEK {
                minutes.push((0, end - WEEK));
            }
        }
        minutes
    }

    /// The occurrences of the last, this and the next week.
    fn occurrences(&self, now: UtcTime, offset: UtcOffset) -> impl Iterator<Item = Occurrence> + '_ {
        let monday = now.checked_add_signed(offset.0).and_then(|local| {
            let day = local.date_naive();
            let monday = day.checked_sub_signed(TimeDelta::days(i64::from(day.weekday().num_days_from_monday())))?;
            monday.and_time(NaiveTime::MIN).and_utc().checked_sub_signed(offset.0)
        });
        let length = TimeDelta::minutes(i64::from(self.length));
        monday.into_iter().flat_map(move |monday| {
            [-1, 0, 1].into_iter().flat_map(move |week| {
                self.starts.iter().filter_map(move |start| {
                    let ahead = TimeDelta::weeks(week) + TimeDelta::minutes(i64::from(*start));
                    let from = monday.checked_add_signed(ahead)?;
                    Some(Occurrence { from, until: from.checked_add_signed(length)? })
                })
            })
        })
    }
}

/// A text that is not a time of the week.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeekError {
    /// Not of a known form.
    #[error(
        "{} is not a time of the week: write it as \"fri 16:00 - mon 08:00\", \"sat sun 01:00 - 05:30\" or \"01:00 - 05:30\"",
        quoted(.0)
    )]
    Form(String),
    /// It lasts a whole week or has no length.
    #[error("{} ends when it begins: it would cover the whole week, or nothing", quoted(.0))]
    Empty(String),
    /// Not an offset.
    #[error("{} is not an offset from UTC: write for example +01:00", quoted(.0))]
    Offset(String),
}

impl FromStr for WeeklyPeriod {
    type Err = WeekError;

    fn from_str(text: &str) -> Result<Self, WeekError> {
        let bad = || WeekError::Form(text.to_owned());
        let (from, until) = text.split_once('-').ok_or_else(bad)?;
        let (days, from) = days_and_minute(from).ok_or_else(bad)?;
        let (end_days, until) = days_and_minute(until).ok_or_else(bad)?;
        let on = |day: &u32| days.is_empty() || days.contains(day);
        let starts: Vec<u32> = (0..7).filter(on).map(|day| day * DAY + from).collect();
        let length = match (days.as_slice(), end_days.as_slice()) {
            ([start], [end]) => match (end * DAY + until + WEEK - (start * DAY + from)) % WEEK {
                0 => return Err(WeekError::Empty(text.to_owned())),
                length => length,
            },
            (_, []) => match (until + DAY - from) % DAY {
                0 => DAY,
                length => length,
            },
            _ => return Err(bad()),
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Self { starts, length, text })
    }
}

/// Reads `sat sun 01:00`: days from Monday, and the minute of the day.
fn days_and_minute(text: &str) -> Option<(Vec<u32>, u32)> {
    let (last, days) = text.split_whitespace().collect::<Vec<_>>().split_last().map(|(l, d)| (*l, d.to_vec()))?;
    let days = days.iter().map(|day| DAYS.iter().position(|name| name == day).and_then(|day| u32::try_from(day).ok()));
    Some((days.collect::<Option<_>>()?, minute_of_day(last).filter(|minute| *minute < DAY)?))
}

/// Reads `HH:MM`.
fn minute_of_day(text: &str) -> Option<u32> {
    let number =
        |text: &str| (text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?;
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u32, u32) = (number(hours)?, number(minutes)?);
    (minutes < 60).then_some(hours * 60 + minutes)
}

/// The original notation.
impl fmt::Display for WeeklyPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How far local time is ahead of UTC: from -18 to +18 hours, to the minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UtcOffset(TimeDelta);

impl UtcOffset {
    /// An offset in minutes.
    pub fn of_minutes(minutes: i64) -> Option<Self> {
        (minutes.abs() <= 18 * 60).then(|| Self(TimeDelta::minutes(minutes)))
    }

    /// In minutes.
    pub fn minutes(self) -> i64 {
        self.0.num_minutes()
    }
}

impl FromStr for UtcOffset {
    type Err = WeekError;

    /// Reads `+HH:MM`, `-HH:MM`, `+HHMM` or `-HHMM`, as `date +%z` writes it.
    fn from_str(text: &str) -> Result<Self, WeekError> {
        let read = || {
            let sign = match text.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let rest = text.get(1..)?;
            let minutes = if rest.contains(':') {
                minute_of_day(rest)?
            } else {
                minute_of_day(&format!("{}:{}", rest.get(..2)?, rest.get(2..)?))?
            };
            Self::of_minutes(sign * i64::from(minutes))
        };
        read().ok_or_else(|| WeekError::Offset(text.to_owned()))
    }
}

/// E.g. `+01:00`, or `UTC`.
impl fmt::Display for UtcOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.minutes();
        if minutes == 0 {
            return f.write_str("UTC");
        }
        let sign = if minutes < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes.abs() / 60, minutes.abs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time;

    fn at(text: &str) -> UtcTime {
        time::parse(text).unwrap()
    }

    fn period(text: &str) -> WeeklyPeriod {
        text.parse().unwrap()
    }

    #[test]
    fn a_period_from_day_to_day_follows_its_offset() {
        // 2026-11-25 is a Wednesday.
        let weekend = period("fri 16:00 - mon 08:00");
        let offset = "+01:00".parse().unwrap();
        for (now, expected) in [
            ("2026-11-27T14:59:59Z", false),
            ("2026-11-27T15:00:00Z", true),
            ("2026-11-29T12:00:00Z", true),
            ("2026-11-30T06:59:59Z", true),
            ("2026-11-30T07:00:00Z", false),
        ] {
            assert_eq!(weekend.contains(at(now), offset), expected, "{now}");
        }
        let next = weekend.at_or_after(at("2026-11-25T00:00:00Z"), offset).unwrap();
        assert_eq!((next.from, next.until), (at("2026-11-27T15:00:00Z"), at("2026-11-30T07:00:00Z")));
    }

    #[test]
    fn a_period_on_some_days_may_end_after_midnight() {
        let nights = period("sat  sun 23:00 - 05:30");
        assert_eq!(nights.to_string(), "sat sun 23:00 - 05:30");
        let utc = UtcOffset::default();
        for (now, expected) in [
            ("2026-11-28T22:59:59Z", false),
            ("2026-11-28T23:00:00Z", true),
            ("2026-11-29T05:29:59Z", true),
            ("2026-11-29T05:30:00Z", false),
            ("2026-11-30T05:00:00Z", true),
            ("2026-11-30T23:30:00Z", false),
        ] {
            assert_eq!(nights.contains(at(now), utc), expected, "{now}");
        }
        assert_eq!(nights.next_start(at("2026-11-28T23:30:00Z"), utc), Some(at("2026-11-29T23:00:00Z")));
        assert_eq!(nights.next_start(at("2026-11-29T23:00:00Z"), utc), Some(at("2026-12-05T23:00:00Z")));
        let daily = period("01:00 - 01:00");
        assert_eq!(daily.minutes(utc).iter().map(|(from, until)| until - from).sum::<u32>(), WEEK);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "fri - mon",
            "fri 16:00",
            "fri 16:00 - fri 16:00",
            "fri 24:00 - mon 08:00",
            "fri 1:00 - mon 08:00",
            "fri sat 16:00 - mon 08:00",
            "16:00 - mon 08:00",
            "friday 16:00 - 17:00",
            "fri 16:60 - mon 08:00",
        ] {
            assert!(text.parse::<WeeklyPeriod>().is_err(), "{text:?}");
        }
        for text in ["", "CET", "01:00", "+1", "+19:00", "+01:60", "\u{e4}1:00"] {
            assert!(text.parse::<UtcOffset>().is_err(), "{text:?}");
        }
        assert_eq!("-0530".parse::<UtcOffset>().unwrap().to_string(), "-05:30");
    }

    #[test]
    fn instants_at_the_ends_of_time_do_no_harm() {
        let period = period("sun 23:59 - mon 00:01");
        for now in [UtcTime::MIN_UTC, UtcTime::MAX_UTC] {
            period.contains(now, "+18:00".parse().unwrap());
            period.next_start(now, "-18:00".parse().unwrap());
        }
    }
}
