//! Versions (SemVer 2.0.0) and ranges of them.

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use semver::{Comparator, Op, VersionReq};

pub use semver::Version;

use tidegate_tuf::fields::quoted;

use crate::prelude::*;

/// A text that is no version, or no range of versions.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VersionError {
    /// Not a version.
    #[error(
        "{} is not a version ({why}): write MAJOR.MINOR.PATCH as in semver.org, at most {MAX} characters",
        quoted(found)
    )]
    Version {
        /// The text.
        found: String,
        /// The message of the parser.
        why: String,
    },
    /// Not a range.
    #[error("{} is not a range of versions ({why}): write for example \">=1.2.0, <2.0.0\" or \"*\"", quoted(found))]
    Range {
        /// The text.
        found: String,
        /// The message of the parser.
        why: String,
    },
}

/// The longest version: it is one segment of a path.
pub const MAX: usize = 64;

/// The longest range.
const MAX_RANGE: usize = 256;

/// Reads a version of at most [`MAX`] characters.
///
/// # Errors
///
/// If the text is longer or not a semantic version.
pub fn parse(text: &str) -> Result<Version, VersionError> {
    let error = |why: String| VersionError::Version { found: text.to_owned(), why };
    if text.len() > MAX {
        return Err(error("too long".into()));
    }
    Version::parse(text).map_err(|source| error(source.to_string()))
}

/// A range of versions, such as `>=1.2.0, <2.0.0`, `^1.4`, `~1.4.2`, `1.*` or `*`.
///
/// The notation is Cargo's, and so is the meaning for releases. Pre-releases differ. Cargo leaves them out of every
/// range that does not name one, which is right for choosing a dependency and wrong for a device in the field: one that
/// runs `1.3.0-rc.1` would be outside `>=1.0.0` and never be updated again. Here a pre-release is compared by its
/// precedence (SemVer, clause 11) like any other version: `<2.0.0` holds `2.0.0-rc.1`. Ranges whose end is implied,
/// such as `^1.4`, `~1.4`, `1.4.*` and `<=1.4`, exclude the pre-releases of the version that ends them: `^1.4` does not
/// hold `2.0.0-rc.1`. Build metadata is ignored (clause 10).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VersionRange {
    /// The original notation, so that signed bytes do not change.
    text: String,
    comparators: Vec<Comparator>,
}

impl VersionRange {
    /// The range that contains every version.
    pub fn any() -> Self {
        VersionRange { text: "*".into(), comparators: Vec::new() }
    }

    /// Whether the range contains `version`.
    pub fn holds(&self, version: &Version) -> bool {
        self.comparators.iter().all(|comparator| compares(comparator, version))
    }

    /// Whether the range is written to contain every version.
    pub fn is_any(&self) -> bool {
        self.comparators.is_empty()
    }
}

impl FromStr for VersionRange {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let error = |why: String| VersionError::Range { found: text.to_owned(), why };
        if text.len() > MAX_RANGE {
            return Err(error("too long".into()));
        }
        let VersionReq { comparators } = VersionReq::parse(text).map_err(|source| error(source.to_string()))?;
        Ok(VersionRange { text: text.to_owned(), comparators })
    }
}

impl TryFrom<String> for VersionRange {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, VersionError> {
        text.parse()
    }
}

impl From<VersionRange> for String {
    fn from(range: VersionRange) -> String {
        range.text
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether `version` comes after `other` in precedence (SemVer, clause 11: build metadata does not count).
pub fn is_newer(version: &Version, other: &Version) -> bool {
    version.cmp_precedence(other) == Ordering::Greater
}

type Triple = (u64, u64, u64);

fn compares(comparator: &Comparator, version: &Version) -> bool {
    let &Comparator { op, major, minor, patch, .. } = comparator;
    let named = Version {
        major,
        minor: minor.unwrap_or(0),
        patch: patch.unwrap_or(0),
        pre: comparator.pre.clone(),
        build: semver::BuildMetadata::EMPTY,
    };
    let order = version.cmp_precedence(&named);
    // The first version after all that `1`, `1.2` or `1.2.3` matches.
    let behind = match (minor, patch) {
        (None, _) => (major.saturating_add(1), 0, 0),
        (Some(minor), None) => (major, minor.saturating_add(1), 0),
        (Some(minor), Some(patch)) => (major, minor, patch.saturating_add(1)),
    };
    let partial = patch.is_none();
    match op {
        Op::Exact if !partial => order.is_eq(),
        Op::Exact | Op::Wildcard => order.is_ge() && triple(version) < behind,
        Op::Greater if !partial => order.is_gt(),
        Op::Greater => version.pre.is_empty() && triple(version) >= behind || triple(version) > behind,
        Op::GreaterEq => order.is_ge(),
        Op::Less => order.is_lt(),
        Op::LessEq if !partial => order.is_le(),
        Op::LessEq => triple(version) < behind,
        Op::Tilde => {
            let end = minor.map_or(behind, |minor| (major, minor.saturating_add(1), 0));
            order.is_ge() && triple(version) < end
        }
        Op::Caret => order.is_ge() && triple(version) < caret_end(major, minor, behind),
        // The enum is open: an operator that a later `semver` may add matches nothing.
        _ => false,
    }
}

/// The leftmost part that is not zero may not change.
fn caret_end(major: u64, minor: Option<u64>, behind: Triple) -> Triple {
    match (major, minor) {
        (0, Some(0)) => behind,
        (0, Some(minor)) => (0, minor.saturating_add(1), 0),
        _ => (major.saturating_add(1), 0, 0),
    }
}

fn triple(version: &Version) -> Triple {
    (version.major, version.minor, version.patch)
}
