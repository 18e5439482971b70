//! What a release changes compared with the one before it.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tidegate_model::delivery::Delivery;
use tidegate_model::manifest::{Artifact, Manifest};
use tidegate_model::name::ArtifactName;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Difference {
    /// The field, e.g. `version` or `artifact rootfs.img`.
    pub field: String,
    /// What it was; `None` if it is new.
    pub before: Option<String>,
    /// What it is; `None` if it is gone.
    pub after: Option<String>,
}

impl Difference {
    /// The difference in one line, its field padded to `width`.
    pub fn line(&self, width: usize) -> String {
        let field = &self.field;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => format!("~ {field:<width$} {before} -> {after}"),
            (None, Some(after)) => format!("+ {field:<width$} {after}"),
            (Some(before), None) => format!("- {field:<width$} {before}"),
            (None, None) => format!("  {field}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(14))
    }
}

/// All differences, in the order of a manifest's fields. Against nothing, everything is new.
pub fn diff(before: Option<&Manifest>, after: &Manifest) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut compare = |field: &str, before: Option<String>, after: Option<String>| {
        if before != after {
            found.push(Difference { field: field.to_owned(), before, after });
        }
    };
    compare("version", before.map(|m| m.version.to_string()), Some(after.version.to_string()));
    compare("sequence", before.map(|m| m.sequence.to_string()), Some(after.sequence.to_string()));
    compare("urgency", before.map(|m| m.urgency.to_string()), Some(after.urgency.to_string()));
    compare("build", before.map(|m| m.build.id.to_string()), Some(after.build.id.to_string()));
    let source = |m: &Manifest| m.build.source.as_ref().map(ToString::to_string);
    compare("source", before.and_then(source), source(after));
    let provenance = |m: &Manifest| {
        let provenance = m.build.provenance.as_ref()?;
        Some(provenance.builder.as_ref().unwrap_or(&provenance.predicate_type).to_string())
    };
    compare("provenance", before.and_then(provenance), provenance(after));
    let artifacts = |m: &Manifest| -> BTreeMap<ArtifactName, String> {
        m.artifacts.iter().map(|artifact| (artifact.name.clone(), describe(artifact))).collect()
    };
    let (old, new) = (before.map(artifacts).unwrap_or_default(), artifacts(after));
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        compare(&format!("artifact {name}"), old.get(name).cloned(), new.get(name).cloned());
    }
    let deliveries = |m: &Manifest| -> BTreeMap<ArtifactName, String> {
        let described =
            |artifact: &Artifact| Some((artifact.name.clone(), describe_delivery(artifact.delivery.as_ref()?)));
        m.artifacts.iter().filter_map(described).collect()
    };
    let (old, new) = (before.map(deliveries).unwrap_or_default(), deliveries(after));
    for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
        compare(&format!("delivery {name}"), old.get(name).cloned(), new.get(name).cloned());
    }
    let eligibility = |m: &Manifest| m.eligibility.as_ref().map(ToString::to_string);
    compare("eligibility", before.and_then(eligibility), eligibility(after));
    let upgrade = |m: &Manifest| m.upgrade_from.as_ref().map(ToString::to_string);
    compare("upgrade from", before.and_then(upgrade), upgrade(after));
    let supersedes = |m: &Manifest| {
        let sequences: Vec<_> = m.supersedes.iter().map(u64::to_string).collect();
        (!sequences.is_empty()).then(|| sequences.join(", "))
    };
    compare("supersedes", before.and_then(supersedes), supersedes(after));
    for note in &after.notes {
        compare("note", None, Some(note.to_string()));
    }
    let extra = |m: &Manifest| (!m.extra.is_empty()).then(|| Value::from_iter(m.extra.clone()).to_string());
    compare("other fields", before.and_then(extra), extra(after));
    found
}

/// How an artifact travels in fewer bytes, in a line.
pub fn describe_delivery(delivery: &Delivery) -> String {
    let patches =
        delivery.patches.iter().map(|patch| format!("patch from {}: {} bytes", patch.from.version, patch.length));
    let chunks = format!("chunks: {} bytes at most", delivery.index.length + delivery.pack.length);
    std::iter::once(chunks).chain(patches).collect::<Vec<_>>().join(", ")
}

fn describe(artifact: &Artifact) -> String {
    let hardware: Vec<_> = artifact.hardware.iter().map(AsRef::as_ref).collect();
    let digest = artifact.sha256.to_string();
    format!(
        "{} bytes, sha256 {}, for {}, {}",
        artifact.length,
        digest.get(..12).unwrap_or(&digest),
        hardware.join(" "),
        artifact.media_type
    )
}
