//! What log lines share: texts without secrets, and durations.

use std::time::Instant;

/// The milliseconds since `started`.
pub fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A URL without user information, query and fragment. Also shortens text that is not a valid URL.
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit('@').next().unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// A text whose URLs are redacted.
pub fn redact_urls(text: &str) -> String {
    let redact = |word: &str| {
        if word.contains("://") || word.contains('?') && word.contains('=') {
            let end = word.find(char::is_whitespace).unwrap_or(word.len());
            let (url, space) = word.split_at_checked(end).unwrap_or((word, ""));
            redact_url(url) + space
        } else {
            word.to_owned()
        }
    };
    text.split_inclusive(char::is_whitespace).map(redact).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_users_and_queries() {
        for (text, expected) in [
            ("https://host/path", "https://host/path"),
            ("https://user:pass@host/path?key=value#x", "https://host/path"),
            ("s3://us?r:p/ss@bucket", "s3://bucket"),
            ("user:pass@host", "host"),
        ] {
            assert_eq!(redact_url(text), expected);
        }
        assert_eq!(
            redact_urls("GET https://u:p@h/a?X-Amz-Signature=1 failed: is it there? /b?sig=2\n"),
            "GET https://h/a failed: is it there? /b\n"
        );
    }
}
