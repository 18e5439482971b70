//! Maintenance windows: times of the week.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Datelike as _, Days as Dates, NaiveTime, TimeDelta, Timelike as _, Weekday};
use serde_json::Value;

use crate::model::time::Instant;
use crate::tuf::fields::{Fault, quoted, texts, whole};

/// A stretch of time that comes every week, or every day, in local time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The days on which it starts. Default: all.
    pub days: Days,
    /// When it starts.
    pub from: NaiveTime,
    /// When it ends; on the next day if that is not after its start.
    pub to: NaiveTime,
}

/// Days of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Days([bool; 7]);

/// What a local time is ahead of UTC: from -18 to +18 hours, to the minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UtcOffset(TimeDelta);

impl Window {
    pub(super) fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        whole(value, at, |fields| {
            Ok(Self {
                days: fields.optional_part("days", Days::read)?.unwrap_or_default(),
                from: fields.meant("from", time_of_day)?,
                to: fields.meant("to", time_of_day)?,
            })
        })
    }

    /// Whether it is open at this instant.
    pub fn holds(&self, now: Instant, offset: UtcOffset) -> bool {
        [0, 1].into_iter().filter_map(|back| self.opening(now, offset, -back)).any(|(from, to)| from <= now && now < to)
    }

    /// When it opens next, after this instant.
    pub fn next(&self, now: Instant, offset: UtcOffset) -> Option<Instant> {
        (0..=7).filter_map(|ahead| self.opening(now, offset, ahead)).map(|(from, _)| from).find(|from| *from > now)
    }

    /// Its start and end if it starts so many local days from today.
    fn opening(&self, now: Instant, offset: UtcOffset, days: i64) -> Option<(Instant, Instant)> {
        let today = now.checked_add_signed(offset.0)?.date_naive();
        let day = if days < 0 {
            today.checked_sub_days(Dates::new(days.unsigned_abs()))?
        } else {
            today.checked_add_days(Dates::new(days.unsigned_abs()))?
        };
        if !self.days.contains(day.weekday()) {
            return None;
        }
        let end = if self.to > self.from { day } else { day.succ_opt()? };
        let utc = |date: chrono::NaiveDate, time| {
            DateTime::from_naive_utc_and_offset(date.and_time(time), chrono::Utc).checked_sub_signed(offset.0)
        };
        Some((utc(day, self.from)?, utc(end, self.to)?))
    }
}

/// E.g. `sat sun 01:00-05:30`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != Days::default() {
            for (name, day) in WEEK {
                if self.days.contains(day) {
                    write!(f, "{name} ")?;
                }
            }
        }
        let (from, to) = (self.from, self.to);
        write!(f, "{:02}:{:02}-{:02}:{:02}", from.hour(), from.minute(), to.hour(), to.minute())
    }
}

const WEEK: [(&str, Weekday); 7] = [
    ("mon", Weekday::Mon),
    ("tue", Weekday::Tue),
    ("wed", Weekday::Wed),
    ("thu", Weekday::Thu),
    ("fri", Weekday::Fri),
    ("sat", Weekday::Sat),
    ("sun", Weekday::Sun),
];

impl Days {
    fn contains(self, day: Weekday) -> bool {
        self.0.get(day.num_days_from_monday() as usize).copied().unwrap_or(false)
    }
}

impl Default for Days {
    fn default() -> Self {
        Self([true; 7])
    }
}

impl Days {
    fn read(value: &Value, at: &str) -> Result<Self, Fault> {
        let names = texts(value, at)?;
        if names.is_empty() {
            return Err(Fault::new(at, "a window without days never opens: leave \"days\" out for all of them"));
        }
        let mut days = [false; 7];
        for name in names {
            let place = WEEK.iter().position(|(known, _)| *known == name);
            let day = place.and_then(|place| days.get_mut(place));
            *day.ok_or_else(|| {
                Fault::new(at, format!("{} is no day: write mon tue wed thu fri sat or sun", quoted(&name)))
            })? = true;
        }
        Ok(Self(days))
    }
}

fn time_of_day(text: &str) -> Result<NaiveTime, String> {
    minutes(text)
        .and_then(|minutes| NaiveTime::from_num_seconds_from_midnight_opt(minutes * 60, 0))
        .ok_or_else(|| format!("{} is no time of day: write HH:MM, from 00:00 to 23:59", quoted(text)))
}

/// Reads `HH:MM`.
fn minutes(text: &str) -> Option<u32> {
    let number =
        |text: &str| if text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
    let (hours, minutes) = text.split_once(':')?;
    let (hours, minutes): (u32, u32) = (number(hours)?, number(minutes)?);
    (minutes < 60).then_some(hours * 60 + minutes)
}

impl FromStr for UtcOffset {
    type Err = String;

    /// Reads `+HH:MM`, `-HH:MM`, `+HHMM` or `-HHMM`, as `date +%z` writes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let sign = match text.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let rest = text.get(1..)?;
            let minutes = if rest.contains(':') {
                minutes(rest)?
            } else {
                minutes(&format!("{}:{}", rest.get(..2)?, rest.get(2..)?))?
            };
            (minutes <= 18 * 60).then(|| Self(TimeDelta::minutes(sign * i64::from(minutes))))
        };
        read().ok_or_else(|| format!("{text:?} is no offset from UTC: write for example +02:00"))
    }
}
