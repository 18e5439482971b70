//! The one form of date and time in metadata: `YYYY-MM-DDTHH:MM:SSZ` (TUF 4.2.3).
//!
//! Written out rather than left to `chrono`'s format strings, which read more than this form and are the larger half of what that
//! crate would add to a device's program.

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};

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
