//! Artifact integrity: the bytes are there and are the ones that were signed.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tidegate_model::delivery::{Delivery, FileRef, PatchList, PatchRef};
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::manifest::{Artifact, Manifest};

use super::formats::{self, Beginning, End};
use super::{Published, Rule, RuleResult, Subject, none_of, not_applicable};
use crate::error::{Error, Kind, Result};
use crate::policy::CheckKind;
use crate::release::draft;
use crate::workspace::artifacts::{self, Stored};
use crate::workspace::listed_bytes;
use crate::{audit, delivery};

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
    Rule { id: "V-ART-05", kind: KIND, title: "packed files can be unpacked to their end", check: unpacked },
    Rule { id: "V-ART-06", kind: KIND, title: "what is published is what was signed", check: published },
    Rule { id: "V-ART-07", kind: KIND, title: "it was built as policy.toml requires", check: built_as_required },
    Rule { id: "V-ART-08", kind: KIND, title: "chunks and patches make the artifacts", check: delivered },
];

fn stored(artifact: &Artifact) -> Stored {
    Stored { sha256: artifact.sha256, length: artifact.length }
}

fn present(subject: &Subject<'_>) -> Result<RuleResult> {
    let mut wrong = Vec::new();
    for artifact in &subject.manifest.artifacts {
        match artifacts::verify(subject.dir, stored(artifact), |_| ()) {
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

fn canonical(subject: &Subject<'_>) -> Result<RuleResult> {
    let again = Manifest::parse(subject.bytes).and_then(|manifest| manifest.to_bytes());
    let wrong = match again {
        Ok(bytes) if bytes == subject.bytes => Vec::new(),
        Ok(_) => vec!["a second encoding has other bytes".to_owned()],
        Err(error) => vec![error.to_string()],
    };
    none_of(&wrong, "a second encoding has the same bytes")
}

fn types(subject: &Subject<'_>) -> Result<RuleResult> {
    let mut wrong = Vec::new();
    let mut looked = 0;
    for artifact in &subject.manifest.artifacts {
        // A file that is missing or has another length is the other rule's to report.
        let Ok((path, file)) = artifacts::open(subject.dir, stored(artifact)) else { continue };
        let kind = artifact.media_type.as_str();
        match formats::beginning(kind, file).map_err(|e| Error::io("read", &path, e))? {
            Beginning::Unknown => {}
            Beginning::Right => looked += 1,
            Beginning::Wrong(other) => {
                let other = other.map(|other| format!(" but as {other}")).unwrap_or_default();
                wrong.push(format!("{} does not begin like {kind}{other}", artifact.name));
            }
        }
    }
    if looked == 0 && wrong.is_empty() {
        return not_applicable("no artifact has a type with known first bytes");
    }
    none_of(&wrong, format!("{looked} files begin as their types require"))
}

fn unpacked(subject: &Subject<'_>) -> Result<RuleResult> {
    let mut wrong = Vec::new();
    let mut looked = Vec::new();
    let mut unchecked = Vec::new();
    for artifact in &subject.manifest.artifacts {
        let Ok((_, file)) = artifacts::open(subject.dir, stored(artifact)) else { continue };
        match formats::unpacked(artifact.media_type.as_str(), file) {
            Ok(End::NotPacked) => {}
            Ok(End::Unchecked) => unchecked.push(format!("{} ({})", artifact.name, artifact.media_type)),
            Ok(End::Reached(length)) => looked.push(format!("{} to {length} bytes", artifact.name)),
            Err(error) => {
                wrong.push(format!("{} cannot be read as {}: {error}", artifact.name, artifact.media_type));
            }
        }
    }
    let unchecked = unchecked.join(", ");
    match (looked.is_empty() && wrong.is_empty(), unchecked.is_empty()) {
        (true, true) => not_applicable("no artifact is of a type that is unpacked"),
        (true, false) => not_applicable(format!("content not checked, the type is not unpacked: {unchecked}")),
        (false, true) => none_of(&wrong, looked.join(", ")),
        (false, false) => none_of(&wrong, format!("{}; content not checked: {unchecked}", looked.join(", "))),
    }
}

fn provenance(subject: &Subject<'_>) -> Result<RuleResult> {
    let statement = match draft::provenance(subject.dir, subject.record) {
        Ok(Some(statement)) => statement,
        Ok(None) => return not_applicable("the release came without a provenance statement"),
        Err(error) if error.kind() == Kind::Trust => return super::fail(error.to_string()),
        Err(error) => return Err(error),
    };
    let artifacts = subject.manifest.artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact.sha256));
    let mut wrong = statement.lacks(artifacts);
    let signed = subject.manifest.build.provenance.as_ref().map(|provenance| provenance.sha256);
    if signed != subject.record.provenance.as_ref().map(|provenance| provenance.sha256) {
        wrong.push("the manifest names another provenance statement than the record".into());
    }
    none_of(&wrong, format!("{} names every artifact by its hash", statement.predicate_type))
}

fn built_as_required(subject: &Subject<'_>) -> Result<RuleResult> {
    let policy = &subject.policy.provenance;
    if !policy.required && policy.builders.is_none() && policy.keys.is_none() {
        return not_applicable("policy.toml requires no provenance");
    }
    let statement = match draft::provenance(subject.dir, subject.record) {
        Ok(statement) => statement,
        Err(error) if error.kind() == Kind::Trust => return super::fail(error.to_string()),
        Err(error) => return Err(error),
    };
    let builder = statement.as_ref().and_then(|statement| statement.builder.as_ref()).map(ToString::to_string);
    let shown = builder.unwrap_or_else(|| "no builder is named".into());
    let wrong = crate::release::provenance::against_policy(statement.as_ref(), policy);
    none_of(&wrong, shown)
}

/// Makes every artifact of its chunks, and of each patch whose beginning is here.
fn delivered(subject: &Subject<'_>) -> Result<RuleResult> {
    let (mut wrong, mut away) = (Vec::new(), Vec::new());
    let (mut chunked, mut patched) = (0, 0);
    for artifact in &subject.manifest.artifacts {
        let Some(Delivery { index, pack, patches, .. }) = &artifact.delivery else { continue };
        match chunks_make(subject.dir, artifact, index, pack) {
            Ok(()) => chunked += 1,
            Err(error) if is_finding(&error) => wrong.push(format!("the chunks of {}: {error}", artifact.name)),
            Err(error) => return Err(error),
        }
        for patch in patches.iter().chain(&later_patches(subject, artifact)?) {
            let old = Stored { sha256: patch.from.sha256, length: patch.from.length };
            let named = format!("the patch of {} from {}", artifact.name, patch.from.version);
            let old = match artifacts::open(subject.dir, old) {
                Ok((path, _)) => path,
                Err(error) if error.is_not_found() => {
                    away.push(named);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match patch_makes(subject.dir, artifact, patch, &old) {
                Ok(()) => patched += 1,
                Err(error) if is_finding(&error) => wrong.push(format!("{named}: {error}")),
                Err(error) => return Err(error),
            }
        }
    }
    if !wrong.is_empty() {
        return none_of(&wrong, "");
    }
    if chunked == 0 {
        return not_applicable("the manifest lists neither chunks nor patches");
    }
    let made = format!("made from chunks: {chunked}, by patches: {patched}");
    if away.is_empty() {
        return super::pass(made);
    }
    let away = away.join(", ");
    super::warn(format!(
        "{made}; not checked, what it starts from is not here (tidegate pull PLACE --artifacts): {away}"
    ))
}

/// The patches that the channel lists beside the manifest.
fn later_patches(subject: &Subject<'_>, artifact: &Artifact) -> Result<Vec<PatchRef>> {
    let Manifest { channel, product, version, .. } = subject.manifest;
    let (role, path) = (layout::channel_role(channel), layout::patches_path(channel, product, version, &artifact.name));
    if !subject.repository.targets(&role).is_some_and(|targets| targets.targets.contains_key(&path)) {
        return Ok(Vec::new());
    }
    let bytes = listed_bytes(subject.dir, subject.repository, &role, &path)?;
    let list = PatchList::parse(&bytes).map_err(|e| Error::input(format!("{path} is malformed")).with_source(e))?;
    Ok(list.patches)
}

/// Whether an error is about the files that are checked.
fn is_finding(error: &Error) -> bool {
    matches!(error.kind(), Kind::Trust | Kind::Input) || error.is_not_found()
}

fn chunks_make(dir: &Path, artifact: &Artifact, index: &FileRef, pack: &FileRef) -> Result<()> {
    let (index, pack) = (checked(dir, index)?, checked(dir, pack)?);
    same(artifact, delivery::expand_chunks(&index, &pack, artifact.length, &|_| ())?)
}

fn patch_makes(dir: &Path, artifact: &Artifact, patch: &PatchRef, old: &Path) -> Result<()> {
    let file = checked(dir, &FileRef { length: patch.length, sha256: patch.sha256 })?;
    same(artifact, delivery::expand_patch(&file, patch.directory.length, old, artifact.length, &|_| ())?)
}

/// The path of a file of delivery in the store, whose bytes are those that were signed.
fn checked(dir: &Path, file: &FileRef) -> Result<PathBuf> {
    let stored = Stored { sha256: file.sha256, length: file.length };
    artifacts::verify(dir, stored, |_| ())?;
    artifacts::open(dir, stored).map(|(path, _)| path)
}

fn same(artifact: &Artifact, made: Digest) -> Result<()> {
    if made == artifact.sha256 {
        return Ok(());
    }
    Err(Error::trust("they make other bytes"))
}

/// What devices will fetch, as devices fetch it.
fn published(subject: &Subject<'_>) -> Result<RuleResult> {
    let Some(Published { place, origin }) = &subject.published else {
        return not_applicable("no place given: --published URL");
    };
    let manifest = subject.manifest;
    let own = layout::manifest_path(&manifest.channel, &manifest.product, &manifest.version);
    let targets = std::iter::once((own, subject.bytes.len() as u64, Digest::of(subject.bytes)))
        .chain(manifest.artifacts.iter().map(|a| (a.path.clone(), a.length, a.sha256)));
    let targets = targets.filter_map(|(path, length, sha256)| {
        let (folder, file) = path.rsplit_once('/')?;
        Some((format!("{folder}/{sha256}.{file}"), path, length, sha256))
    });
    let deliveries = manifest.artifacts.iter().filter_map(|artifact| artifact.delivery.as_ref());
    let deliveries = deliveries.flat_map(|delivery| audit::delivery::files(&manifest.channel, delivery));
    let deliveries = deliveries.map(|file| (file.path.clone(), file.path, file.length, file.sha256));
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, path, length, sha256) in targets.chain(deliveries) {
        count += 1;
        let mut hash = Sha256::new();
        let mut seen = 0;
        let read = origin.target(&name, length, &mut |bytes| {
            seen += bytes.len() as u64;
            hash.update(bytes);
            Ok(())
        });
        match read {
            Ok(false) => wrong.push(format!("{path} is not there")),
            Ok(true) if seen != length || hash.finalize().as_slice() != sha256.as_bytes() => {
                wrong.push(format!("{path} has other bytes there"));
            }
            Ok(true) => {}
            Err(error) if error.kind() == Kind::Trust => wrong.push(format!("{path}: {error}")),
            Err(error) => return Err(error),
        }
    }
    none_of(&wrong, format!("{count} files at {place}, byte for byte"))
}
