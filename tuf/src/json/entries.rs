//! Documents that may be large, entry by entry.

use serde_json::Value;

use super::{JsonError, Raw};
use crate::fields::{FieldError, expected};
use crate::limits::ENTRY;
use crate::prelude::*;

/// The entries of a list or object that may be large, one by one, so that there is never a tree of them all: `read` gets the key, which is
/// empty in a list, the value and its path.
///
/// # Errors
///
/// If `raw` is absent, something else or too long, or `read` fails.
pub fn each(
    raw: Option<Raw<'_>>,
    is_list: bool,
    at: &str,
    max: usize,
    read: &mut dyn FnMut(String, Raw<'_>, &str) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    let raw = raw.ok_or_else(|| FieldError::new(at, "this field is missing"))?;
    if !(if is_list { raw.is_list() } else { raw.is_object() }) {
        let what = if is_list { "a list" } else { "an object" };
        return Err(expected(what, &tree(raw, at)?, at));
    }
    let mut parts = raw.parts();
    let mut index = 0;
    while let Some(part) = parts.next() {
        if index == max {
            return Err(FieldError::new(at, format!("too many entries: at most {max}")));
        }
        if is_list {
            read(String::new(), part, &format!("{at}[{index}]"))?;
        } else if let Some(value) = parts.next() {
            let key = part.text().unwrap_or_default();
            let at = format!("{at}.{key}");
            read(key, value, &at)?;
        }
        index += 1;
    }
    Ok(())
}

/// A value as a tree, if it is small.
///
/// # Errors
///
/// If it is not.
pub fn tree(raw: Raw<'_>, at: &str) -> Result<Value, FieldError> {
    tree_without(raw, &[], at)
}

/// The same, without these members.
///
/// # Errors
///
/// As [`tree`].
pub fn tree_without(raw: Raw<'_>, names: &[&str], at: &str) -> Result<Value, FieldError> {
    raw.tree_without(names, &mut ENTRY.clone()).map_err(|e: JsonError| FieldError::new(at, e.to_string()))
}
