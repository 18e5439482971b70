//! Dates and times: `YYYY-MM-DDTHH:MM:SSZ` (TUF 4.2.3) is the one form that is written, and of all documents of Tidegate the one that is read.
//! For the expiry of metadata, [`parse_rfc3339`] also reads what other tools write.
//!
//! Written out rather than left to `chrono`'s format strings, which read more than this form and are the larger half of what that
//! crate would add to a device's program.

use chrono::{DateTime, Datelike as _, NaiveDate, TimeDelta, Timelike as _, Utc};

use crate::prelude::*;

/// Reads a date and time; `None` unless it has exactly the specified form.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let form = text.bytes().zip(b"0000-00-00T00:00:00Z").all(|(byte, wanted)| match wanted {
        b'0' => byte.is_ascii_digit(),
        _ => byte == *wanted,
    });
    if text.len() != 20 || !form {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(i32::try_from(number(0, 4)?).ok()?, number(5, 7)?, number(8, 10)?)?;
    Some(date.and_hms_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?)?.and_utc())
}

/// Reads the form of RFC 3339 that other tools write: a fraction of a second, which is dropped, and an offset in place of `Z` are allowed.
///
/// Dropping the fraction makes metadata expire up to a second early, never late.
pub fn parse_rfc3339(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, rest) = text.split_at_checked(19)?;
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() {
                return None;
            }
            zone
        }
        None => rest,
    };
    let local = parse(&format!("{seconds}Z"))?;
    let form = zone.bytes().zip(b"+00:00").all(|(byte, wanted)| match wanted {
        b'0' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        _ => byte == *wanted,
    });
    if zone == "Z" {
        return Some(local);
    }
    let number = |from: usize, to: usize, below: i64| zone.get(from..to)?.parse::<i64>().ok().filter(|n| *n < below);
    if zone.len() != 6 || !form {
        return None;
    }
    let east = TimeDelta::minutes(number(1, 3, 24)? * 60 + number(4, 6, 60)?);
    if zone.starts_with('-') { local.checked_add_signed(east) } else { local.checked_sub_signed(east) }
}

/// Writes a date and time, dropping what is finer than a second.
pub fn format(instant: DateTime<Utc>) -> String {
    let (date, time) = (instant.date_naive(), instant.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_tools_are_read() {
        for (text, utc) in [
            ("2030-01-01T00:00:00Z", "2030-01-01T00:00:00Z"),
            ("2030-01-01T00:00:00.123456789Z", "2030-01-01T00:00:00Z"),
            ("2030-01-01T00:00:00.9Z", "2030-01-01T00:00:00Z"),
            ("2030-01-01T00:00:00+02:00", "2029-12-31T22:00:00Z"),
            ("2030-01-01T00:00:00.5-05:30", "2030-01-01T05:30:00Z"),
            ("2030-01-01T00:00:00-00:00", "2030-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse_rfc3339(text).map(format).as_deref(), Some(utc), "{text}");
        }
        for text in [
            "2030-01-01T00:00:00",
            "2030-01-01T00:00:00.Z",
            "2030-01-01T00:00:00,5Z",
            "2030-01-01T00:00:00.5",
            "2030-01-01T00:00:00ZZ",
            "2030-01-01T00:00:00+0200",
            "2030-01-01T00:00:00+24:00",
            "2030-01-01T00:00:00+02:60",
            "2030-01-01T00:00:00+02:00Z",
            "2030-01-01T00:00:00++2:00",
            "2030-01-01 00:00:00Z",
            "2030-01-01",
            "",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn only_the_specified_form_is_read() {
        for text in ["1985-10-21T01:21:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2024-02-29T12:34:56Z"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        for text in [
            "1985-10-21T01:21:00",
            "1985-10-21T01:21:00+00:00",
            "1985-10-21 01:21:00Z",
            "1985-10-21T01:21:00.5Z",
            "1985-1-21T01:21:00Z",
            "+1985-10-21T01:21:00Z",
            "1985-10-21T01:21:60Z",
            "1985-13-21T01:21:00Z",
            "2026-02-29T00:00:00Z",
            "1985-10-21t01:21:00Z",
            "1985-10-21T24:00:00Z",
            "1985-10-21T01:21:0\u{663}Z",
            "",
            "Z",
            "85-10-21T01:21:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
