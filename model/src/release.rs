//! The identity of a release: which one it is, whatever else its manifest contains.

use serde::Serialize;
use serde_json::Value;

use super::digest::Digest;
use super::version::{self, Version};
use tidegate_tuf::fields::{FieldError, Fields};

/// Which release it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
}

impl Release {
    /// Reads a release that is written at the path `at` of a larger document.
    ///
    /// # Errors
    ///
    /// If a field is missing or wrong.
    pub fn read(value: &Value, at: &str) -> Result<Self, FieldError> {
        let mut fields = Fields::of(value, at)?;
        Ok(Self {
            version: fields.text_as("version", version::parse)?,
            sequence: fields.u64("sequence")?,
            sha256: fields.parsed("sha256")?,
        })
    }
}
