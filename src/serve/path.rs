//! From the path of a request to a path below the folder, or nothing.

use std::path::PathBuf;

/// A relative path of plain segments: it cannot leave the folder it is joined to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SafePath(Vec<String>);

/// Longer paths are refused before they are looked at: a role or target of ours has less than a quarter of this.
const MAX_PATH: usize = 4096;

impl SafePath {
    /// Parses the path of a request as it was sent: percent-encoded, starting with `/`.
    ///
    /// Each segment is decoded once and taken literally, so `%2e%2e` is `..` (refused) and `%252e` is the file name
    /// `%2e`. Refused: empty segments, `.`, `..`, names that start with a dot (lock and temporary files live there), any kind
    /// of slash or control character within a segment, broken escapes, and what is not UTF-8.
    pub(super) fn parse(path: &str) -> Option<Self> {
        if path.len() > MAX_PATH {
            return None;
        }
        let segments = path.strip_prefix('/')?.split('/').map(segment).collect::<Option<Vec<_>>>()?;
        Some(Self(segments))
    }

    /// The relative path on this system.
    pub(super) fn to_path(&self) -> PathBuf {
        self.0.iter().collect()
    }

    /// The same with `/` between segments, as an object store names it.
    pub(super) fn key(&self) -> String {
        self.0.join("/")
    }
}

/// One segment, decoded and found harmless.
fn segment(encoded: &str) -> Option<String> {
    let decoded = String::from_utf8(decode(encoded.as_bytes())?).ok()?;
    let harmless = !decoded.is_empty()
        && !decoded.starts_with('.')
        && !decoded.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control());
    harmless.then_some(decoded)
}

/// Undoes percent-encoding; nothing if an escape is broken.
fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter().copied();
    while let Some(byte) = rest.next() {
        decoded.push(if byte == b'%' { hex(rest.next()?)? << 4 | hex(rest.next()?)? } else { byte });
    }
    Some(decoded)
}

/// The value of a hexadecimal digit.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_taken_segment_by_segment() {
        for (sent, means) in [
            ("/timestamp.json", "timestamp.json"),
            ("/metadata/1.stable.canary.json", "metadata/1.stable.canary.json"),
            ("/a%20b/c%2Bd", "a b/c+d"),
            ("/%252e%252e/x", "%2e%2e/x"),
            ("/a..b", "a..b"),
            ("/caf%C3%A9", "café"),
        ] {
            assert_eq!(SafePath::parse(sent).map(|path| path.key()).as_deref(), Some(means), "{sent}");
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for sent in [
            "",
            "*",
            "timestamp.json",
            "/",
            "//",
            "/a/",
            "/a//b",
            "/.",
            "/..",
            "/../x",
            "/a/../b",
            "/a/..",
            "/%2e%2e/x",
            "/%2E%2e/x",
            "/.%2e/x",
            "/..%2fx",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/..\\x",
            "/%00",
            "/a%00.json",
            "/a%0ab",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%ff",
            "/%c0%ae%c0%ae/x",
            "/.git/config",
            "/.publish.lock",
            "/c:/x",
            "/a%7f",
        ] {
            assert_eq!(SafePath::parse(sent), None, "{sent}");
        }
        assert_eq!(SafePath::parse(&format!("/{}", "a".repeat(MAX_PATH))), None);
    }
}
