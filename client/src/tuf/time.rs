//! The one form of date and time in metadata: `YYYY-MM-DDTHH:MM:SSZ` (TUF 4.2.3).

use chrono::{DateTime, NaiveDateTime, Utc};

const FORM: &str = "%Y-%m-%dT%H:%M:%SZ";

/// Reads a date and time; `None` unless it has exactly the specified form.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let instant = NaiveDateTime::parse_from_str(text, FORM).ok()?.and_utc();
    // chrono also reads shorter fields, signs and leap seconds, which would make two spellings of one instant.
    (format(instant) == text && instant.timestamp_subsec_nanos() == 0).then_some(instant)
}

/// Writes a date and time, dropping what is finer than a second.
pub fn format(instant: DateTime<Utc>) -> String {
    instant.format(FORM).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_specified_form_is_read() {
        assert_eq!(format(parse("1985-10-21T01:21:00Z").unwrap()), "1985-10-21T01:21:00Z");
        for text in [
            "1985-10-21T01:21:00",
            "1985-10-21T01:21:00+00:00",
            "1985-10-21 01:21:00Z",
            "1985-10-21T01:21:00.5Z",
            "1985-1-21T01:21:00Z",
            "+1985-10-21T01:21:00Z",
            "1985-10-21T01:21:60Z",
            "1985-13-21T01:21:00Z",
            "",
            "Z",
            "85-10-21T01:21:00Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
