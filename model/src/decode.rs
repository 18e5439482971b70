//! Conversion of JSON values to typed ones, with errors that name the field and the problem.

use alloc::collections::BTreeMap;
use core::fmt;

use serde_json::Value;

pub use tidegate_tuf::fields::FieldError;
pub(crate) use tidegate_tuf::fields::{Fields, describe, expected, list, parsed, quoted, text};
use tidegate_tuf::json::{self, JsonError, Raw};
pub(crate) use tidegate_tuf::json::{each, tree, tree_without};
use tidegate_tuf::limits::Bounds;

use crate::prelude::*;

/// Fields that this version does not know: preserved, and otherwise ignored. Values that could not be signed again
/// (fractions, text beyond printable ASCII) is refused in them too.
pub type Extra = BTreeMap<String, Value>;

/// Why a manifest, cohort map, assignment or condition was not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes are not strict JSON.
    #[error("{document}: {source}")]
    Json {
        /// What was being read, e.g. `manifest`.
        document: &'static str,
        /// The JSON reader's error.
        source: JsonError,
    },
    /// The document declares a schema that this version does not implement.
    #[error("{document}: unsupported schema {found}: this version supports schema {known}; update the program")]
    UnknownSchema {
        /// What was being read.
        document: &'static str,
        /// The schema it declares.
        found: u64,
        /// The schema this version reads.
        known: u64,
    },
    /// The document is not valid. All errors are listed.
    #[error("{document}: {}", Listed(errors))]
    Invalid {
        /// What was being read.
        document: &'static str,
        /// At least one error.
        errors: Vec<FieldError>,
    },
}

struct Listed<'a>(&'a [FieldError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// The field `schema` of a document of schema 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SchemaVersion;

impl serde::Serialize for SchemaVersion {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(SCHEMA)
    }
}

const SCHEMA: u64 = 1;

/// Parses strict JSON on behalf of `document`.
pub(crate) fn parse(document: &'static str, bytes: &[u8]) -> Result<Value, FormatError> {
    json::parse(bytes).map_err(|source| FormatError::Json { document, source })
}

/// Checks strict JSON on behalf of `document`, which is too large for a tree: at most `length` bytes and `values` values.
pub(crate) fn scan<'a>(
    document: &'static str,
    bytes: &'a [u8],
    length: u64,
    values: usize,
) -> Result<Raw<'a>, FormatError> {
    if bytes.len() as u64 > length {
        return Err(invalid(document, vec![FieldError::new("", format!("longer than {length} bytes"))]));
    }
    Raw::scan(bytes, &Bounds { values, ..Bounds::DOCUMENT }).map_err(|source| FormatError::Json { document, source })
}

/// Canonical JSON of `value` on behalf of `document`, if it reads back unchanged.
///
/// This refuses values that public fields allow but reading refuses, above all a field in [`Extra`] with the
/// name of a known one.
pub(crate) fn canonical<T: serde::Serialize + PartialEq>(
    document: &'static str,
    value: &T,
    read: impl FnOnce(&Value) -> Result<T, FormatError>,
) -> Result<Vec<u8>, FormatError> {
    let json = to_value(document, value, read)?;
    json::canonical(&json).map_err(|source| FormatError::Json { document, source })
}

/// The JSON form of `value`, if it reads back unchanged.
pub(crate) fn to_value<T: serde::Serialize + PartialEq>(
    document: &'static str,
    value: &T,
    read: impl FnOnce(&Value) -> Result<T, FormatError>,
) -> Result<Value, FormatError> {
    let whole = |why: String| invalid(document, vec![FieldError::new("", why)]);
    let json = serde_json::to_value(value).map_err(|error| whole(error.to_string()))?;
    if read(&json)? == *value {
        Ok(json)
    } else {
        Err(whole("an extra field has the name of a field of this schema: set that field instead".into()))
    }
}

pub(crate) fn invalid(document: &'static str, errors: Vec<FieldError>) -> FormatError {
    FormatError::Invalid { document, errors }
}

/// Checks `schema` before all other fields: a later schema may have changed everything except this field.
pub(crate) fn schema(document: &'static str, fields: &mut Fields<'_>) -> Result<SchemaVersion, FormatError> {
    let found = fields.u64("schema").map_err(|error| invalid(document, vec![error]))?;
    if found == SCHEMA { Ok(SchemaVersion) } else { Err(FormatError::UnknownSchema { document, found, known: SCHEMA }) }
}

/// The unknown fields, if they could be written again.
pub(crate) fn extra(fields: &Fields<'_>) -> Result<Extra, FieldError> {
    let mut extra = Extra::new();
    for (key, value) in fields.unknown() {
        let at = fields.at(key);
        signable_text(key, &at)?;
        signable(value, &at)?;
        extra.insert(key.to_owned(), value.clone());
    }
    Ok(extra)
}

/// Checks that a value has a canonical form that reads back: whole numbers, and printable ASCII like everything signed.
/// Canonical JSON writes control characters raw, which JSON readers refuse.
fn signable(value: &Value, at: &str) -> Result<(), FieldError> {
    match value {
        Value::Number(number) if number.is_f64() => Err(FieldError::new(at, "it is not a whole number")),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => signable_text(text, at),
        Value::Array(items) => items.iter().try_for_each(|item| signable(item, at)),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| {
            signable_text(key, at)?;
            signable(value, at)
        }),
    }
}

fn signable_text(text: &str, at: &str) -> Result<(), FieldError> {
    if text.bytes().all(|c| c.is_ascii_graphic() || c == b' ') {
        Ok(())
    } else {
        // `at` may end with this key.
        let at: String = at.chars().filter(char::is_ascii_graphic).collect();
        Err(FieldError::new(at, format!("{} contains characters other than printable ASCII", quoted(text))))
    }
}
