//! Target paths, the patterns that delegate them, and the names of files in a repository (TUF 4.5, 6.2).

use core::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest as _, Sha256};

use super::hash::{Hashes, to_hex};
use crate::prelude::*;

/// A target path that is safe to turn into a URL or a file name: relative, `/`-separated, no segment empty, `.` or `..`,
/// no control character and no backslash, at most 1,024 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetPath(String);

impl TargetPath {
    /// Takes a path.
    ///
    /// # Errors
    ///
    /// The rule that the path breaks.
    pub fn new(path: impl Into<String>) -> Result<Self, BadPath> {
        let path = path.into();
        let rule = if path.len() > 1024 {
            "it is longer than 1,024 bytes"
        } else if path.chars().any(|c| c.is_control() || c == '\\') {
            "it has a control character or a backslash"
        } else if path.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            "it has an empty segment, \".\" or \"..\""
        } else {
            return Ok(Self(path));
        };
        Err(BadPath { path, rule })
    }

    /// The path as metadata lists it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path, relative to the targets URL, under which the file is fetched: `dir/HASH.file` under consistent snapshots
    /// (TUF 5.7.3, 6.2.1), percent-encoded segment by segment.
    pub fn url_path(&self, hashes: &Hashes, consistent_snapshot: bool) -> String {
        let path = self.file_path(hashes, consistent_snapshot);
        path.split('/').map(percent_encode).collect::<Vec<_>>().join("/")
    }

    /// The same path as a file path: not percent-encoded.
    pub fn file_path(&self, hashes: &Hashes, consistent_snapshot: bool) -> String {
        if !consistent_snapshot {
            return self.0.clone();
        }
        let prefix = hashes.name_prefix();
        match self.0.rsplit_once('/') {
            Some((dir, file)) => format!("{dir}/{prefix}.{file}"),
            None => format!("{prefix}.{}", self.0),
        }
    }
}

impl core::str::FromStr for TargetPath {
    type Err = BadPath;

    fn from_str(path: &str) -> Result<Self, BadPath> {
        Self::new(path)
    }
}

impl fmt::Display for TargetPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A target path that is not safe to use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("target path {path:?} is refused: {rule}")]
pub struct BadPath {
    /// The path as given.
    pub path: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// The file name of a role's metadata in the repository: `ROLE.json`, or `VERSION.ROLE.json` with a version.
///
/// The role's name is percent-encoded, so that no name can leave the folder or end the URL.
pub fn metadata_file(role: &str, version: Option<u64>) -> String {
    let role = percent_encode(role);
    version.map_or_else(|| format!("{role}.json"), |version| format!("{version}.{role}.json"))
}

/// Percent-encodes all but RFC 3986's unreserved characters (section 2.3).
pub fn percent_encode(text: &str) -> String {
    utf8_percent_encode(text, RESERVED).to_string()
}

/// All but `ALPHA / DIGIT / "-" / "." / "_" / "~"`.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The paths that a delegation covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathSet {
    /// Paths that match one of these patterns.
    Patterns(Vec<Pattern>),
    /// Paths whose SHA-256, in lower-case hex, starts with one of these.
    HashPrefixes(Vec<String>),
}

/// A path pattern: `*` matches any characters, `?` one, and neither matches `/` (TUF 4.5 "PATHPATTERN").
///
/// All other characters match themselves, `[` and `\` among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Takes a pattern; every text is one.
    pub fn new(pattern: impl Into<String>) -> Self {
        Self(pattern.into())
    }

    /// The pattern as metadata lists it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern covers `path`. Takes time in proportion to the product of the two lengths at worst.
    pub fn matches(&self, path: &str) -> bool {
        let mut pattern = self.0.split('/');
        let mut path = path.split('/');
        loop {
            match (pattern.next(), path.next()) {
                (None, None) => return true,
                (Some(pattern), Some(segment)) if segment_matches(pattern, segment) => {}
                _ => return false,
            }
        }
    }
}

/// Matches within one segment. On a mismatch only the last `*` is widened, so there is no exponential backtracking.
fn segment_matches(pattern: &str, segment: &str) -> bool {
    let (mut pattern, mut rest) = (pattern.chars(), segment.chars());
    let mut widen: Option<(core::str::Chars<'_>, core::str::Chars<'_>)> = None;
    loop {
        let mut next = pattern.clone();
        match next.next() {
            Some('*') => {
                widen = Some((next.clone(), rest.clone()));
                pattern = next;
                continue;
            }
            Some(wanted) => {
                let mut ahead = rest.clone();
                if ahead.next().is_some_and(|c| wanted == '?' || wanted == c) {
                    (pattern, rest) = (next, ahead);
                    continue;
                }
            }
            None if rest.as_str().is_empty() => return true,
            None => {}
        }
        match widen.take() {
            Some((after_star, mut from)) => {
                if from.next().is_none() {
                    return false;
                }
                widen = Some((after_star.clone(), from.clone()));
                (pattern, rest) = (after_star, from);
            }
            None => return false,
        }
    }
}

impl PathSet {
    /// Whether the set contains `path`.
    pub fn covers(&self, path: &str) -> bool {
        match self {
            Self::Patterns(patterns) => patterns.iter().any(|pattern| pattern.matches(path)),
            Self::HashPrefixes(prefixes) => {
                let digest = to_hex(&Sha256::digest(path.as_bytes()));
                prefixes.iter().any(|prefix| digest.starts_with(prefix.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_the_specification_shows() {
        for (pattern, path, expected) in [
            ("targets/*.tgz", "targets/foo.tgz", true),
            ("targets/*.tgz", "targets/bar.tgz", true),
            ("targets/*.tgz", "targets/foo.txt", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("foo-version-?.tgz", "foo-version-a.tgz", true),
            ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
            ("*.tgz", "foo.tgz", true),
            ("*.tgz", "targets/foo.tgz", false),
            ("foo.tgz", "foo.tgz", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
            ("?", "\u{e9}", true),
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("A", "a", false),
            ("**", "abc", true),
            ("*?", "", false),
            ("releases/*/*", "releases/x/x_v1", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(path), expected, "{pattern:?} on {path:?}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        assert!(!Pattern::new(format!("{}b", "*a".repeat(500))).matches(&"a".repeat(1000)));
    }

    #[test]
    fn hash_prefixes_cover_by_the_sha256_of_the_path() {
        let digest = to_hex(&Sha256::digest("stable/file"));
        assert!(PathSet::HashPrefixes(vec![digest[..3].into()]).covers("stable/file"));
        assert!(!PathSet::HashPrefixes(vec!["zz".into()]).covers("stable/file"));
        assert!(!PathSet::HashPrefixes(Vec::new()).covers("stable/file"));
    }

    #[test]
    fn unsafe_target_paths_are_refused() {
        for path in ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "a\nb", "a\0", &"a".repeat(1025)] {
            assert!(TargetPath::new(path).is_err(), "{path:?}");
        }
        for path in ["a", "a/b", "a b", "..a", "a..", "...", "%2e%2e/a", "\u{e9}"] {
            assert!(TargetPath::new(path).is_ok(), "{path:?}");
        }
    }

    #[test]
    fn names_of_files_are_encoded() {
        assert_eq!(metadata_file("root", Some(2)), "2.root.json");
        assert_eq!(metadata_file("timestamp", None), "timestamp.json");
        assert_eq!(metadata_file("../delegatedrole", Some(1)), "1...%2Fdelegatedrole.json");
        assert_eq!(metadata_file("?#", None), "%3F%23.json");
        let hashes = Hashes::sha256([0xab; 32]);
        let path = TargetPath::new("dir/a file+1").unwrap();
        assert_eq!(path.url_path(&hashes, true), format!("dir/{}.a%20file%2B1", "ab".repeat(32)));
        assert_eq!(path.file_path(&hashes, false), "dir/a file+1");
    }
}
