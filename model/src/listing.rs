//! The objects that a gate may serve to the devices of a protected cohort: `gate/CHANNEL.COHORT.json`, in the private storage.
//!
//! ```json
//! {"cohort": "stable.canary", "objects": ["metadata/9.stable.canary.json"], "schema": 1}
//! ```
//!
//! The publisher writes it and the gate reads it; devices never see it. It is not signed: it only gives a cohort's devices access to objects in
//! the private storage. Unknown fields are refused.

use alloc::collections::BTreeSet;

use serde_json::json;

use super::decode::{FormatError, each, invalid, scan, schema, text, tree, tree_without};
use super::layout::DelegatedRole;
use crate::prelude::*;
use tidegate_tuf::fields::{FieldError, Fields};
use tidegate_tuf::json;

/// The longest listing, in bytes.
pub const MAX_LISTING: u64 = 5_000_000;
/// No listing of that length names more.
const MAX_OBJECTS: usize = 50_000;
const DOCUMENT: &str = "listing";

/// The objects that a gate may serve to the devices of a cohort.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The cohort's role, `CHANNEL.COHORT`.
    pub cohort: String,
    /// The keys of the objects, relative to the root of the repository.
    pub objects: BTreeSet<String>,
}

impl Listing {
    /// The key of a cohort's listing.
    pub fn key(cohort: &str) -> String {
        format!("gate/{cohort}.json")
    }

    /// The cohort's role for this key; `None` if it is not the key of a listing.
    pub fn cohort_of(key: &str) -> Option<&str> {
        let role = key.strip_prefix("gate/")?.strip_suffix(".json")?;
        matches!(DelegatedRole::parse(role), Some(DelegatedRole::Cohort { .. })).then_some(role)
    }

    /// Reads the listing of `cohort` strictly: it refuses another cohort's listing and unknown fields.
    ///
    /// # Errors
    ///
    /// If it is not strict JSON, not a valid listing, or another cohort's.
    pub fn parse(bytes: &[u8], cohort: &str) -> Result<Self, FormatError> {
        let raw = scan(DOCUMENT, bytes, MAX_LISTING, MAX_OBJECTS + 10)?;
        let one = |error| invalid(DOCUMENT, vec![error]);
        let head = tree_without(raw, &["objects"], "").map_err(one)?;
        let mut fields = Fields::of(&head, "").map_err(one)?;
        schema(DOCUMENT, &mut fields)?;
        let found = fields.text("cohort").map_err(one)?.to_owned();
        if found != cohort {
            return Err(one(FieldError::new("cohort", format!("it is of {found:?}, not of {cohort}"))));
        }
        let mut objects = BTreeSet::new();
        each(raw.get("objects"), true, "objects", MAX_OBJECTS, &mut |_, raw, at| {
            let value = tree(raw, at)?;
            let key = text(&value, at)?;
            if key.chars().any(char::is_control) {
                return Err(FieldError::new(at, "it contains a control character"));
            }
            objects.insert(key.to_owned());
            Ok(())
        })
        .map_err(one)?;
        fields.finish().map_err(one)?;
        Ok(Self { cohort: found, objects })
    }

    /// The published bytes: canonical JSON.
    ///
    /// # Errors
    ///
    /// If reading the bytes would not give the same listing.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let value = json!({"schema": 1, "cohort": self.cohort, "objects": self.objects});
        json::canonical(&value).map_err(|source| FormatError::Json { document: DOCUMENT, source })
    }
}
