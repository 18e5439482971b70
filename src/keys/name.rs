//! Names of keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a key in `tidegate.toml`: `[a-z0-9][a-z0-9-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

impl KeyName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The environment variable that may hold this key's passphrase.
    pub fn passphrase_variable(name: &str) -> String {
        format!("TIDEGATE_PASSPHRASE_{}", name.to_ascii_uppercase().replace('-', "_"))
    }
}

impl TryFrom<String> for KeyName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let valid =
            text.bytes().next().is_some_and(plain) && text.len() <= 64 && text.bytes().all(|c| plain(c) || c == b'-');
        if valid {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is not the name of a key: use 1 to 64 of a-z, 0-9 and -"))
        }
    }
}

impl FromStr for KeyName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned())
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> String {
        name.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
