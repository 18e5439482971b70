//! Artifact integrity: the bytes are there and are the ones that were signed.

use std::io::Read as _;

use serde_json::Value;
use tidegate_client::model::manifest::{Artifact, Manifest};

use super::{CheckKind, Rule, Said, Subject, none_of, not_applicable};
use crate::error::{Kind, Result};
use crate::files;
use crate::store::{self, Stored};

const KIND: CheckKind = CheckKind::ArtifactIntegrity;

pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "V-ART-01",
        kind: KIND,
        title: "every artifact is in the store, with its length and hash",
        check: present,
    },
    Rule {
        id: "V-ART-02",
        kind: KIND,
        title: "the manifest is canonical: what is read is what is signed",
        check: canonical,
    },
    Rule { id: "V-ART-03", kind: KIND, title: "files are of the type that the manifest says", check: types },
    Rule { id: "V-ART-04", kind: KIND, title: "the provenance statement is about these artifacts", check: provenance },
];

fn stored(artifact: &Artifact) -> Stored {
    Stored { sha256: artifact.sha256, length: artifact.length }
}

fn present(subject: &Subject<'_>) -> Result<Said> {
    let mut wrong = Vec::new();
    for artifact in &subject.manifest.artifacts {
        match store::verify(subject.dir, stored(artifact), |_| ()) {
            Ok(()) => {}
            Err(error) if error.kind() == Kind::Trust || error.is_not_found() => {
                wrong.push(format!("{}: {error}", artifact.name));
            }
            Err(error) => return Err(error),
        }
    }
    let bytes: u64 = subject.manifest.artifacts.iter().map(|artifact| artifact.length).sum();
    let count = subject.manifest.artifacts.len();
    let files = if count == 1 { "file" } else { "files" };
    none_of(&wrong, format!("{count} {files}, {bytes} bytes"))
}

fn canonical(subject: &Subject<'_>) -> Result<Said> {
    let again = Manifest::parse(subject.bytes).and_then(|manifest| manifest.to_bytes());
    let wrong = match again {
        Ok(bytes) if bytes == subject.bytes => Vec::new(),
        Ok(_) => vec!["written anew, it has other bytes".to_owned()],
        Err(error) => vec![error.to_string()],
    };
    none_of(&wrong, "written anew, it has the same bytes")
}

/// The first bytes of formats that have such.
const SIGNATURES: [(&str, &[u8]); 5] = [
    ("application/gzip", &[0x1f, 0x8b]),
    ("application/zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ("application/x-xz", &[0xfd, b'7', b'z', b'X', b'Z', 0]),
    ("application/x-bzip2", b"BZh"),
    ("application/zip", b"PK"),
];

fn types(subject: &Subject<'_>) -> Result<Said> {
    let mut wrong = Vec::new();
    let mut looked = 0;
    for artifact in &subject.manifest.artifacts {
        let Some((_, signature)) = SIGNATURES.iter().find(|(kind, _)| *kind == artifact.media_type.as_str()) else {
            continue;
        };
        // A file that is missing or has another length is the other rule's to report.
        let Ok((_, file)) = store::open(subject.dir, stored(artifact)) else { continue };
        looked += 1;
        let mut start = Vec::new();
        let read = file.take(signature.len() as u64).read_to_end(&mut start);
        if read.is_err() || start != *signature {
            wrong.push(format!("{} does not begin as {} does", artifact.name, artifact.media_type));
        }
    }
    if looked == 0 {
        return not_applicable("no artifact is of a type that can be told by its first bytes");
    }
    none_of(&wrong, format!("{looked} files begin as their types do"))
}

fn provenance(subject: &Subject<'_>) -> Result<Said> {
    let Some(provenance) = &subject.manifest.build.provenance else {
        return not_applicable("the release came without a provenance statement");
    };
    let path = files::confined(subject.dir, &store::path(&provenance.sha256))?;
    let Some(bytes) = files::read_if_exists(&path, crate::release::record::MAX_LENGTH)? else {
        return super::fail("the statement is not in the store any more");
    };
    let statement: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let subjects = statement.get("subject").and_then(Value::as_array).cloned().unwrap_or_default();
    let digests: Vec<&str> =
        subjects.iter().filter_map(|subject| subject.pointer("/digest/sha256").and_then(Value::as_str)).collect();
    let wrong: Vec<_> = subject
        .manifest
        .artifacts
        .iter()
        .filter(|artifact| !digests.contains(&artifact.sha256.to_string().as_str()))
        .map(|artifact| format!("no subject of the statement has the hash of {}", artifact.name))
        .collect();
    none_of(&wrong, format!("{} names every artifact by its hash", provenance.predicate_type))
}
