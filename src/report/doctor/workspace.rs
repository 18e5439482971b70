//! The checks on a workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use tidegate_model::digest::Digest;
use tidegate_tuf::key::Key;

use super::{Diagnosis, Severity, checkouts, git};
use crate::audit::delivery;
use crate::config::Settings;
use crate::error::{Result, Rule};
use crate::keys::example::is_example;
use crate::keys::{KeyEntry, KeyName, KeyUri, NoPassphrases, check_mode, files, public_of};
use crate::metadata::Repository;
use crate::policy::ReleaseState;
use crate::proposal::{self, Proposal, ProposalRequest, propose};
use crate::publish::PUBLISHED;
use crate::release::{audit, listing, record};
use crate::report::stops::{self, Stop};
use crate::rollout::refresh::due;
use crate::workspace::artifacts::{self, Stored};
use crate::workspace::ledger::Entry;
use crate::workspace::{Workspace, has_begun, products_in_force};
use crate::{ceremony, fs};

/// Examines a workspace. With `deep`, hashes artifacts again.
///
/// # Errors
///
/// Fails only if there is no workspace, or if another process holds it.
pub fn workspace(dir: &Path, deep: bool, now: DateTime<Utc>) -> Result<Diagnosis> {
    let mut found = Diagnosis::default();
    found.checks("DOC-FOLDER");
    let workspace = match Workspace::open_to_read(dir) {
        Ok(workspace) => workspace,
        Err(error) if matches!(error.broken_rule(), Some(Rule::WorkspaceJournal | Rule::PublishConfined)) => {
            found.trouble("DOC-FOLDER", ".tidegate", &error);
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    let settings = configuration(&workspace, &mut found);
    ledger(&workspace, &mut found);
    // Before the first root, keys may still have to be made.
    if let Some(settings) = settings.as_ref().filter(|_| has_begun(dir).unwrap_or(true)) {
        keys(&workspace, settings, &mut found);
    }
    secrets(dir, &mut found);
    checkouts::files(&workspace, settings.as_ref(), now, &mut found);
    found.checks("DOC-METADATA");
    match workspace.repository() {
        Err(error) => found.trouble("DOC-METADATA", "metadata/", &error),
        Ok(repository) => {
            expiry(&repository, now, &mut found);
            clock(&repository, now, &mut found);
            spare(&repository, &mut found);
            artifacts(&workspace, &repository, deep, &mut found);
            proposals(&workspace, &repository, &mut found);
            if let Some(settings) = &settings {
                rollouts(&workspace, &repository, settings, now, &mut found);
                intent(&workspace, &repository, settings, now, &mut found);
                checkouts::soak(&workspace, &repository, settings, &mut found);
            }
        }
    }
    Ok(found)
}

/// The three files can be read.
fn configuration(workspace: &Workspace, found: &mut Diagnosis) -> Option<Settings> {
    found.checks("DOC-CONFIG");
    for (file, error) in stops::unreadable_settings(workspace.dir()) {
        found.trouble("DOC-CONFIG", file, &error);
    }
    match workspace.settings() {
        Ok(settings) => Some(settings),
        Err(error) => {
            found.trouble("DOC-CONFIG", "tidegate.toml", &error);
            None
        }
    }
}

/// The ledger is whole and tells what the records tell.
fn ledger(workspace: &Workspace, found: &mut Diagnosis) {
    found.checks("DOC-LEDGER");
    match audit::audit(workspace.dir()) {
        Err(error) => found.trouble("DOC-LEDGER", "releases/", &error),
        Ok((entries, wrong)) => {
            unoffered(workspace, &entries, found);
            for what in wrong {
                let remedy = "restore the ledger and the records from version control, and find out who changed them";
                found.find(Severity::Error, "DOC-LEDGER", "ledger.jsonl", what, remedy);
            }
        }
    }
}

/// Releases of which nothing is known but that they are listed: they may have been withdrawn.
fn unoffered(workspace: &Workspace, entries: &[Entry], found: &mut Diagnosis) {
    for record in record::all(workspace.dir()).unwrap_or_default() {
        let id = record.id().to_string();
        let last = entries.iter().rev().find(|entry| entry.subject == id);
        if record.state == ReleaseState::Registered && last.is_some_and(|last| last.event == "adopt") {
            let what = "it was taken over from what is published, where no cohort was offered it: it was not started yet, was replaced, or \
                        was withdrawn";
            let remedy = format!(
                "if it was withdrawn, or is not to be offered: tidegate rollout withdraw {id}; else tidegate release validate {id}"
            );
            found.find(Severity::Warning, "DOC-LEDGER", &id, what, remedy);
        }
    }
}

/// Private keys that are files are for their owner alone; none is an example; each is in the file that tidegate.toml names.
fn keys(workspace: &Workspace, settings: &Settings, found: &mut Diagnosis) {
    found.checks("DOC-KEYS-MODE");
    found.checks("DOC-KEYS-EXAMPLE");
    let entries = match settings.key_entries() {
        Ok(entries) => entries,
        Err(error) => return found.trouble("DOC-CONFIG", "tidegate.toml", &error),
    };
    let mut examples = Vec::new();
    for entry in &entries {
        let example = is_example(&entry.public);
        if example {
            examples.push(entry.name.clone());
        }
        // A file that is elsewhere is how offline keys should be.
        let Some(path) = entry.uri.file(workspace.dir()) else { continue };
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if let Err(error) = check_mode(&entry.name, &path, &metadata)
            && !example
        {
            found.trouble("DOC-KEYS-MODE", &path.display().to_string(), &error);
        }
    }
    key_files(workspace, &entries, found);
    if !examples.is_empty() {
        let what = format!("everyone knows the private parts of {}", examples.join(", "));
        let remedy =
            "fine for tests; otherwise create a workspace with your own keys: tidegate init DIR --generate-keys";
        found.find(Severity::Warning, "DOC-KEYS-EXAMPLE", "tidegate.toml", what, remedy);
    }
}

/// Key files are named as tidegate.toml says. Encrypted ones cannot be told apart.
fn key_files(workspace: &Workspace, entries: &[KeyEntry], found: &mut Diagnosis) {
    found.checks("DOC-KEYS-NAME");
    let mut folders: BTreeMap<PathBuf, Vec<(String, Key)>> = BTreeMap::new();
    for entry in entries {
        let Some(path) = entry.uri.file(workspace.dir()) else { continue };
        let Some(folder) = path.parent() else { continue };
        let held = folders.entry(folder.to_owned()).or_insert_with(|| {
            let held = |(name, path): (String, PathBuf)| Some((name, public_of(&path, &mut NoPassphrases)?));
            files(folder).into_iter().filter_map(held).collect()
        });
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let named = held.iter().find(|(name, _)| name == stem);
        if named.is_some_and(|(_, key)| *key == entry.public) {
            continue;
        }
        let file = KeyUri::File(path.with_file_name(format!("{stem}.pem")));
        if let Some((other, _)) = held.iter().find(|(_, key)| *key == entry.public) {
            let path = path.with_file_name(format!("{other}.pem"));
            let uri = KeyUri::File(path.strip_prefix(workspace.dir()).unwrap_or(&path).to_owned());
            let what = format!("the private part of {} is at {uri}", entry.name);
            let remedy = if other.parse::<KeyName>().is_ok() {
                format!("give it the name of its file: tidegate key import {other} {uri}")
            } else {
                format!("in tidegate.toml, under [keys.{}]: uri = \"{uri}\"", entry.name)
            };
            found.find(Severity::Warning, "DOC-KEYS-NAME", "tidegate.toml", what, remedy);
        } else if named.is_some() {
            let what = format!("{file} is not the private part of {}", entry.name);
            let remedy = "bring the right file from a backup, or correct `public` of that key in tidegate.toml";
            found.find(Severity::Warning, "DOC-KEYS-NAME", "tidegate.toml", what, remedy);
        }
    }
}

/// The longest file that is looked into for a private key, in bytes.
const MAX_KEY: u64 = 1 << 20;

/// No private key is under version control.
fn secrets(dir: &Path, found: &mut Diagnosis) {
    found.checks("DOC-KEYS-GIT");
    let out = git(dir).args(["ls-files", "-z", "--", "keys", "*.pem"]).output();
    // Without git, or outside a repository, there is nothing to find.
    let Some(out) = out.ok().filter(|out| out.status.success()) else { return };
    for file in String::from_utf8_lossy(&out.stdout).split('\0').filter(|file| !file.is_empty()) {
        let path = dir.join(file);
        let private = path.is_file()
            && fs::read(&path, MAX_KEY).is_ok_and(|bytes| bytes.windows(11).any(|part| part == b"PRIVATE KEY"));
        if private {
            let what = "a private key is under version control";
            let remedy = "remove it with git rm --cached, treat it as stolen, and replace it: tidegate ceremony plan";
            found.find(Severity::Error, "DOC-KEYS-GIT", file, what, remedy);
        }
    }
}

/// Nothing has expired or is about to.
fn expiry(repository: &Repository, now: DateTime<Utc>, found: &mut Diagnosis) {
    found.checks("DOC-EXPIRY");
    for role in due(repository, now) {
        let (severity, what) = if role.expires <= now {
            (Severity::Error, format!("it expired at {}", tidegate_model::time::format(role.expires)))
        } else {
            let at = tidegate_model::time::format(role.expires);
            (Severity::Warning, format!("less than a quarter of its life is left: it expires at {at}"))
        };
        found.find(severity, "DOC-EXPIRY", &role.name, what, stops::renewal([role.name.as_str()]));
    }
}

/// Nothing is dated later than now.
fn clock(repository: &Repository, now: DateTime<Utc>, found: &mut Diagnosis) {
    found.checks("DOC-CLOCK");
    for role in repository.roles() {
        found.dated_ahead("DOC-CLOCK", &role.name, role.issued, now, "");
    }
}

/// A key of root or targets may be lost.
fn spare(repository: &Repository, found: &mut Diagnosis) {
    found.checks("DOC-KEYS-SPARE");
    for role in ["root", "targets"] {
        let Some((_, keys)) = repository.keys_of(role) else { continue };
        if keys.threshold >= keys.keyids.len() as u64 {
            let what = format!(
                "it needs {} of {} keys: if one is lost, it can never be signed again",
                keys.threshold,
                keys.keyids.len()
            );
            let remedy = "add a key to tidegate.toml, held elsewhere, and run a ceremony: tidegate ceremony start";
            found.find(Severity::Warning, "DOC-KEYS-SPARE", role, what, remedy);
        }
    }
}

/// The files that a listed manifest, or list of patches, in the store names.
fn named(workspace: &Workspace, path: &str, sha256: &Digest) -> Vec<(String, Stored)> {
    if !delivery::names_some(path) {
        return Vec::new();
    }
    let stored = workspace.dir().join(artifacts::find(workspace.dir(), sha256));
    // One that cannot be read is told of as such.
    let bytes = fs::read_if_exists(&stored, delivery::MAX_LENGTH).ok().flatten();
    let named = bytes.and_then(|bytes| delivery::named(path, &bytes)).unwrap_or_default();
    named.into_iter().map(|file| (file.path, Stored { sha256: file.sha256, length: file.length })).collect()
}

/// Everything that is listed is in the store. What builds made may be at the place alone, once something was published: a clone lacks it.
fn artifacts(workspace: &Workspace, repository: &Repository, deep: bool, found: &mut Diagnosis) {
    let id = if deep { "DOC-STORE-HASH" } else { "DOC-STORE" };
    found.checks(id);
    let published = workspace.dir().join(PUBLISHED).exists();
    let (mut seen, mut elsewhere) = (BTreeSet::new(), Vec::new());
    // Files of a repository of another tool, whose roles have no signed time, are not taken over.
    let own = repository.roles().filter(|role| role.issued.is_some());
    let listed = own.filter_map(|role| repository.targets(&role.name)).flat_map(|role| &role.targets);
    let listed = listed.filter_map(|(path, file)| {
        Some((path.clone(), Stored { sha256: Digest::from(*file.hashes.sha256_digest()?), length: file.length }))
    });
    let files = listed.flat_map(|(path, stored)| {
        let named = named(workspace, &path, &stored.sha256);
        std::iter::once((path, stored)).chain(named)
    });
    for (path, stored) in files.filter(|(_, stored)| seen.insert(stored.sha256)) {
        let checked = if deep {
            artifacts::verify(workspace.dir(), stored, |_| ())
        } else {
            artifacts::open(workspace.dir(), stored).map(|_| ())
        };
        match checked {
            Err(error) if published && error.is_not_found() && artifacts::is_built(&path) => elsewhere.push(path),
            Err(error) => found.trouble(id, &path, &error),
            Ok(()) => {}
        }
    }
    if let Some(first) = elsewhere.first() {
        let what = match elsewhere.len() {
            1 => "it is not in this checkout".to_owned(),
            count => format!("{count} files that builds made are not in this checkout, this one among them"),
        };
        let place = workspace.settings().ok().and_then(|s| s.publish.places(workspace.dir()).into_iter().next());
        let place = place.unwrap_or_else(|| "PLACE".to_owned());
        let remedy = format!("only validation and an empty place need them: tidegate pull {place} --artifacts");
        found.find(Severity::Warning, id, first, what, remedy);
    }
}

/// No rollout has stopped unnoticed.
fn rollouts(
    workspace: &Workspace,
    repository: &Repository,
    settings: &Settings,
    now: DateTime<Utc>,
    found: &mut Diagnosis,
) {
    found.checks("DOC-ROLLOUT");
    let dir = workspace.dir();
    let read = products_in_force(dir, repository, settings).and_then(|in_force| Ok((in_force, record::all(dir)?)));
    match read {
        Err(error) => found.trouble("DOC-ROLLOUT", "metadata/", &error),
        Ok((in_force, records)) => {
            for Stop { place, what, remedy } in stops::rollouts(&in_force, &records, now) {
                found.find(Severity::Warning, "DOC-ROLLOUT", &place, what, remedy);
            }
        }
    }
}

/// What waits for signatures can still be taken.
fn proposals(workspace: &Workspace, repository: &Repository, found: &mut Diagnosis) {
    found.checks("DOC-PROPOSAL");
    let names = match listing::files(workspace.dir()) {
        Ok(names) => names,
        Err(error) => return found.trouble("DOC-PROPOSAL", listing::DIR, &error),
    };
    for file in names {
        let checked = fs::confined(workspace.dir(), &file)
            .and_then(|path| fs::read(&path, proposal::MAX_LENGTH))
            .and_then(|bytes| Proposal::parse(&file, &bytes))
            .and_then(|proposal| {
                proposal::verify(&proposal, Some(repository.anchor()?))?;
                proposal::check_follows(&proposal, repository)
            });
        if let Err(error) = checked {
            found.trouble("DOC-PROPOSAL", &file, &error);
        }
    }
}

/// What the configuration asks for is signed.
fn intent(
    workspace: &Workspace,
    repository: &Repository,
    settings: &Settings,
    now: DateTime<Utc>,
    found: &mut Diagnosis,
) {
    found.checks("DOC-INTENT");
    if workspace.dir().join(ceremony::FILE).exists() {
        return;
    }
    let Ok(cohorts) = workspace.cohorts() else { return };
    match propose(Some(repository), settings, &cohorts, &ProposalRequest::default(), now) {
        Ok(proposal) => {
            let what = format!("unsigned configuration changes; signing them creates {}", proposal.subject);
            let remedy = "sign it (tidegate ceremony start), or undo the change";
            found.find(Severity::Warning, "DOC-INTENT", "tidegate.toml", what, remedy);
        }
        Err(error) if error.broken_rule() == Some(Rule::CeremonyNothing) => {}
        Err(error) => found.trouble("DOC-INTENT", "tidegate.toml", &error),
    }
}
