//! The files a release engineer edits: `tidegate.toml` and `cohorts.toml`; `policy.toml` is read by [`crate::policy`].
//!
//! They say what is wanted. What is in force is the signed metadata: a change here takes effect when a command signs it. Unknown keys
//! and values that cannot hold are errors that name the file, the key, the rule and what to do.

mod cohorts_toml;
mod tidegate_toml;

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::fs;

pub use cohorts_toml::{ChannelCohorts, Cohorts, parse_share, write_share};
pub use tidegate_toml::{
    Channel, DeliverySettings, FactKind, FactSettings, Hardware, KeySettings, ReceiptSettings, RoleSettings, Roles,
    Settings,
};

/// A configuration file is a few kilobytes; what is longer is something else.
const MAX_LENGTH: u64 = 16 << 20;

/// Reads and checks one of the files of the workspace `dir`.
pub(crate) fn load<T: DeserializeOwned>(dir: &Path, file: &'static str) -> Result<T> {
    let bytes = fs::read(&dir.join(file), MAX_LENGTH).map_err(|e| {
        if e.is_not_found() {
            Error::input(format!("{} has no {file}, so it is not a workspace", dir.display()))
                .remedy("name the workspace with -C DIR, or create one: tidegate init DIR --generate-keys")
        } else {
            e
        }
    })?;
    parse(file, &bytes)
}

pub(crate) fn parse<T: DeserializeOwned>(file: &str, bytes: &[u8]) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(|e| Error::input(format!("{file} is not UTF-8")).with_source(e))?;
    toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        Error::input(format!("{file}, line {line}: {}", e.message().trim_end())).remedy(format!(
            "correct {file}; the comments of a fresh workspace (tidegate init) say what each key means"
        ))
    })
}

/// A value that the file's types allow and a rule does not.
pub(crate) fn invalid(file: &str, key: &str, why: impl std::fmt::Display, remedy: impl Into<String>) -> Error {
    Error::input(format!("{file}: {key}: {why}")).remedy(remedy)
}

pub(crate) fn check_schema(file: &str, schema: u64) -> Result<()> {
    if schema == 1 {
        return Ok(());
    }
    Err(invalid(
        file,
        "schema",
        format!("{schema} is not known to this version"),
        "set schema = 1, or use a newer tidegate",
    ))
}
