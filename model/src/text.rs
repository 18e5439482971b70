//! Text that others wrote, as programs show it: on a terminal, in a log, in a file that people read.
//!
//! Names, notes, reasons, answers of servers and the content of files may hold characters that move the cursor, end a line, turn text
//! around, or cannot be seen. Those are escaped as JSON escapes them, so that JSON that is escaped here still means the same. URLs may
//! hold secrets, which messages do not repeat.

use core::fmt::Write as _;

use crate::prelude::*;

/// The text in one line.
pub fn one_line(text: &str) -> String {
    escaped(text, false)
}

/// The text in the lines that it has: for what a program laid out itself, and for JSON.
pub fn lines(text: &str) -> String {
    escaped(text, true)
}

fn escaped(text: &str, has_lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !is_hidden(c) || (has_lines && c == '\n') {
            out.push(c);
        } else if c == '\n' {
            out.push_str("\\n");
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Whether a character does something to the text around it or cannot be seen: control characters, those that set a direction, separate
/// lines or join, fillers, variation selectors, tags, and what is no character.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// The beginning of a text from outside, in printable ASCII: what else there was became `?`.
pub fn printable(text: &str, most: usize) -> String {
    text.chars().take(most).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// A URL without user, password, query and fragment, which may be secret. Where the host is not told apart from a password, as in
/// `https://user:pass/word@host`, nothing but the scheme is left.
pub fn public_url(url: &str) -> String {
    let address = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = address.split_once("://") else {
        let host = address.rsplit_once('@').filter(|(user, _)| user.contains(':')).map_or(address, |(_, host)| host);
        return host.to_owned();
    };
    // A snapshot of a place: `http://host:8000@12`.
    if let Some((_, version)) = rest.rsplit_once('@')
        && !rest.contains('/')
        && matches!(version.len(), 1..=9)
        && version.bytes().all(|c| c.is_ascii_digit())
    {
        let place = address.get(..address.len() - version.len() - 1).unwrap_or_default();
        return format!("{}@{version}", public_url(place));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let port = host.rsplit(']').next().and_then(|end| end.rsplit_once(':')).map_or("", |(_, port)| port);
    let cut = url.get(address.len()..).unwrap_or_default();
    if !port.bytes().all(|c| c.is_ascii_digit()) || path.is_empty() && cut.contains('@') {
        return format!("{scheme}://...");
    }
    let path = if path.contains("://") { public_url(path) } else { path.to_owned() };
    format!("{scheme}://{host}{path}")
}

/// A message in which each URL, and each path with a query, is a [`public_url`].
pub fn public_urls(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "\"'`<>()".contains(c)) {
        let url = word.trim_end_matches(|c: char| c.is_whitespace() || "\"'`<>():;,.".contains(c));
        if url.contains("://") || url.starts_with('/') && url.contains('?') {
            out.push_str(&public_url(url));
            out.push_str(word.get(url.len()..).unwrap_or_default());
        } else {
            out.push_str(word);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_escaped_as_in_json() {
        let hostile = "a\n\u{1b}[2K\t\u{7f}\u{9b}\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}\u{e0041}\u{e9}\u{4e2d}\\\"";
        let shown =
            "a\\n\\u001b[2K\\u0009\\u007f\\u009b\\u202e\\u2066\\u200b\\u2028\\ufeff\\udb40\\udc41\u{e9}\u{4e2d}\\\"";
        assert_eq!(one_line(hostile), shown);
        assert_eq!(lines(hostile), shown.replacen("\\n", "\n", 1));
        let json = serde_json::to_string_pretty(&[hostile]).unwrap();
        assert_eq!(serde_json::from_str::<[String; 1]>(&lines(&json)).unwrap(), [hostile]);
        assert_eq!(
            serde_json::from_str::<[String; 1]>(&one_line(&serde_json::to_string(&[hostile]).unwrap())).unwrap(),
            [hostile]
        );
    }

    #[test]
    fn every_control_and_direction_is_hidden() {
        let directions =
            "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        for c in ('\0'..=' ').chain('\u{7f}'..='\u{a0}').chain(directions.chars()) {
            assert_eq!(is_hidden(c), c != ' ' && c != '\u{a0}', "{c:?}");
        }
    }

    #[test]
    fn urls_lose_what_may_be_secret() {
        for (url, shown) in [
            ("https://host/path", "https://host/path"),
            ("https://user:word@host:8443/a/b?token=abc#d", "https://host:8443/a/b"),
            ("https://user:w@rd@host?token=abc", "https://host"),
            ("https://token@[::1]:80/a", "https://[::1]:80/a"),
            ("https://[::1]/a", "https://[::1]/a"),
            ("https://user:pass/word@host/a", "https://..."),
            ("https://user:pass?word@host/a", "https://..."),
            ("s3://us?r:p/ss@bucket", "s3://..."),
            ("https://host/a@b", "https://host/a@b"),
            ("https://a/x,https://u:p@b/y", "https://a/x,https://b/y"),
            ("file:///srv/repository", "file:///srv/repository"),
            ("s3://key:secret@bucket/a", "s3://bucket/a"),
            ("relative?token=abc", "relative"),
            ("user:pass@host/path", "host/path"),
            ("/srv/a@b", "/srv/a@b"),
            ("http://host:8000@3", "http://host:8000@3"),
            ("s3://key:secret@123", "s3://...@123"),
            ("https://user:w@rd@host@12", "https://host@12"),
        ] {
            assert_eq!(public_url(url), shown);
        }
        assert_eq!(
            public_urls("GET https://u:p@h/a?X-Signature=1: failed (\"http://t@h?x=1\"): is it there? /b?sig=2\n"),
            "GET https://h/a: failed (\"http://h\"): is it there? /b\n"
        );
    }
}
