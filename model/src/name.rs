//! Names: short ASCII words that are safe in a path, a role name, a URL and a terminal.

use core::fmt;
use core::str::FromStr;

use super::decode::quoted;
use crate::prelude::*;

/// A text that does not follow the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not {kind}: {rule}", quoted(found))]
pub struct NameError {
    kind: &'static str,
    found: String,
    rule: &'static str,
}

/// Declares a text type that is valid by construction, with its conversions.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:expr, $valid:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                match $valid(&text) {
                    true => Ok($name(text)),
                    false => Err(NameError { kind: $kind, found: text, rule: $rule }),
                }
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl core::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text_type!(
    /// The name of a channel, a cohort or a product: `[a-z0-9][a-z0-9-]{0,63}`.
    ///
    /// The names of TUF's top-level roles (`root`, `targets`, `snapshot`, `timestamp`) are refused: a channel gives its
    /// name to a role, and a file named after both would be ambiguous.
    Name,
    "a name",
    "use 1 to 64 of a-z, 0-9 and -, first a letter or digit, and not root, targets, snapshot or timestamp",
    valid_name
);

text_type!(
    /// The file name of an artifact: `[A-Za-z0-9][A-Za-z0-9._+-]{0,127}` without `..`.
    ///
    /// `manifest.json` and `cohorts.json` are refused: they are file names of a repository.
    ArtifactName,
    "an artifact name",
    "use 1 to 128 of A-Z, a-z, 0-9, ., _, + and -, first a letter or digit, without .., \
             and not manifest.json or cohorts.json",
    valid_artifact_name
);

text_type!(
    /// A hardware id, as artifacts list them: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    HardwareId,
    "a hardware id",
    "use 1 to 64 of A-Z, a-z, 0-9, ., _ and -, first a letter or digit",
    valid_hardware_id
);

text_type!(
    /// The name of a fact about a device: `[a-z][a-z0-9._-]{0,63}`.
    FactName,
    "the name of a fact",
    "use 1 to 64 of a-z, 0-9, ., _ and -, first a letter",
    valid_fact_name
);

text_type!(
    /// The unique id of a device: 1 to 128 printable ASCII characters other than the space.
    ///
    /// A space is refused because the id is hashed into the device's position: an id that one tool trims and another
    /// does not would be two devices.
    DeviceId,
    "a device id",
    "use 1 to 128 printable ASCII characters without spaces",
    valid_device_id
);

text_type!(
    /// A line of text in something signed: up to 1024 printable ASCII characters.
    ///
    /// Canonical JSON writes control characters raw, which a JSON reader then refuses; so they are refused at once.
    Text,
    "a line of text",
    "use 1 to 1024 printable ASCII characters",
    valid_text
);

fn valid_name(text: &str) -> bool {
    let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let reserved = matches!(text, "root" | "targets" | "snapshot" | "timestamp");
    starts_with(text, |c| rest(c) && c != b'-') && within(text, 64, rest) && !reserved
}

fn valid_artifact_name(text: &str) -> bool {
    let rest = |c: u8| c.is_ascii_alphanumeric() || b"._+-".contains(&c);
    let reserved = matches!(text, "manifest.json" | "cohorts.json");
    starts_with(text, |c| c.is_ascii_alphanumeric()) && within(text, 128, rest) && !text.contains("..") && !reserved
}

fn valid_hardware_id(text: &str) -> bool {
    let rest = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    starts_with(text, |c| c.is_ascii_alphanumeric()) && within(text, 64, rest)
}

fn valid_fact_name(text: &str) -> bool {
    let rest = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c);
    starts_with(text, |c| c.is_ascii_lowercase()) && within(text, 64, rest)
}

fn valid_device_id(text: &str) -> bool {
    within(text, 128, |c| c.is_ascii_graphic())
}

fn valid_text(text: &str) -> bool {
    within(text, 1024, |c| c.is_ascii_graphic() || c == b' ')
}

fn starts_with(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().next().is_some_and(allowed)
}

fn within(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}
