//! What the headers of a request ask for: RFC 9110 sections 12.5.3 (codings), 13 (conditions) and 14 (ranges).

use std::ops::Range;

use hyper::header::{self, HeaderMap, HeaderName};

/// Whether a condition of the request decides it before any body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// Answer as if there were none.
    Proceed,
    /// `304`: the client has these bytes.
    NotModified,
    /// `412`: the client wanted other bytes.
    Failed,
}

/// Evaluates `If-Match` and `If-None-Match` against the tag of the answer, in the order of section 13.2.2.
pub(super) fn condition(headers: &HeaderMap, tag: &str) -> Condition {
    if headers.contains_key(header::IF_MATCH) && !tags(headers, &header::IF_MATCH).any(|t| t == "*" || t == tag) {
        return Condition::Failed;
    }
    // Weak comparison: a proxy may have weakened our tag, and the bytes are verified by the client anyway.
    if tags(headers, &header::IF_NONE_MATCH).any(|t| t == "*" || t.strip_prefix("W/").unwrap_or(t) == tag) {
        return Condition::NotModified;
    }
    Condition::Proceed
}

/// The entity tags listed in all headers of that name. Ours hold no comma, so splitting at each is exact for them.
fn tags<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// What part of the file is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it: no range, one that we do not serve (several at once, other units), or one under an `If-Range` that does
    /// not hold.
    Whole,
    /// `206`: these bytes.
    Bytes(Range<u64>),
    /// `416`: a range that lies outside.
    Unsatisfiable,
}

/// Reads `Range` and `If-Range` against a file of `len` bytes.
pub(super) fn part(headers: &HeaderMap, tag: &str, len: u64) -> Part {
    let Some(range) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Part::Whole };
    // A date, too, means that the range does not apply: no date is ever given out.
    if headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() != tag.as_bytes()) {
        return Part::Whole;
    }
    let Some(range) = range.strip_prefix("bytes=") else { return Part::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::Whole };
    let (first, last) = (number(first), number(last));
    let (start, end) = match (first, last) {
        // The last bytes; fewer than asked for if the file is shorter.
        (Number::None, Number::Value(count)) => (if count == 0 { len } else { len.saturating_sub(count) }, len),
        (Number::Value(first), Number::None) => (first, len),
        (Number::Value(first), Number::Value(last)) if first <= last => (first, last.saturating_add(1).min(len)),
        _ => return Part::Whole,
    };
    if start < end { Part::Bytes(start..end) } else { Part::Unsatisfiable }
}

enum Number {
    None,
    Value(u64),
    Wrong,
}

/// Digits and nothing else; more than fit mean "beyond the end".
fn number(text: &str) -> Number {
    if text.is_empty() {
        Number::None
    } else if text.bytes().all(|byte| byte.is_ascii_digit()) {
        Number::Value(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Wrong
    }
}

/// Whether the client takes gzip: named or under `*`, and not with weight zero.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let mut by_star = false;
    for coding in tags(headers, &header::ACCEPT_ENCODING) {
        let mut parts = coding.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts.any(|parameter| {
            parameter
                .strip_prefix("q=")
                .or_else(|| parameter.strip_prefix("Q="))
                .is_some_and(|weight| weight.trim().parse::<f32>().is_ok_and(|weight| weight <= 0.0))
        });
        if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") {
            return !refused;
        }
        by_star |= name == "*" && !refused;
    }
    by_star
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn ranges() {
        for (range, means) in [
            ("bytes=0-0", Part::Bytes(0..1)),
            ("bytes=0-", Part::Bytes(0..10)),
            ("bytes=3-5", Part::Bytes(3..6)),
            ("bytes=9-9", Part::Bytes(9..10)),
            ("bytes=5-100", Part::Bytes(5..10)),
            ("bytes=-4", Part::Bytes(6..10)),
            ("bytes=-100", Part::Bytes(0..10)),
            ("bytes=5-99999999999999999999999", Part::Bytes(5..10)),
            ("bytes=10-", Part::Unsatisfiable),
            ("bytes=10-20", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
            ("bytes=5-3", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=--1", Part::Whole),
            ("items=0-1", Part::Whole),
        ] {
            assert_eq!(part(&headers(&[(header::RANGE, range)]), "\"t\"", 10), means, "{range}");
        }
        assert_eq!(part(&headers(&[(header::RANGE, "bytes=0-")]), "\"t\"", 0), Part::Unsatisfiable);
        let under = |tag| part(&headers(&[(header::RANGE, "bytes=1-1"), (header::IF_RANGE, tag)]), "\"t\"", 10);
        assert_eq!(under("\"t\""), Part::Bytes(1..2));
        assert_eq!(under("\"u\""), Part::Whole);
        assert_eq!(under("W/\"t\""), Part::Whole);
        assert_eq!(under("Thu, 01 Jan 1970 00:00:00 GMT"), Part::Whole);
    }

    #[test]
    fn conditions() {
        use Condition::{Failed, NotModified, Proceed};
        for (name, value, means) in [
            (header::IF_NONE_MATCH, "\"t\"", NotModified),
            (header::IF_NONE_MATCH, "W/\"t\"", NotModified),
            (header::IF_NONE_MATCH, "\"a\", \"t\"", NotModified),
            (header::IF_NONE_MATCH, "*", NotModified),
            (header::IF_NONE_MATCH, "\"a\"", Proceed),
            (header::IF_NONE_MATCH, "t", Proceed),
            (header::IF_MATCH, "\"t\"", Proceed),
            (header::IF_MATCH, "*", Proceed),
            (header::IF_MATCH, "\"a\"", Failed),
            (header::IF_MATCH, "W/\"t\"", Failed),
        ] {
            assert_eq!(condition(&headers(&[(name.clone(), value)]), "\"t\""), means, "{name}: {value}");
        }
    }

    #[test]
    fn codings() {
        for (accepted, means) in [
            ("gzip", true),
            ("GZIP", true),
            ("deflate, gzip;q=0.5", true),
            ("*", true),
            ("*;q=0.1", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("identity", false),
            ("br", false),
            ("*;q=0", false),
            ("", false),
        ] {
            assert_eq!(takes_gzip(&headers(&[(header::ACCEPT_ENCODING, accepted)])), means, "{accepted}");
        }
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
