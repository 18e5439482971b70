//! The keys of a workspace, opened on first use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;

use tidegate_model::text::public_url;
use tidegate_tuf::key::{Key, KeyId};
use tracing::debug;

use super::{FileKey, KeyUri, Passphrases, Signer, open};
use crate::error::{Error, Result, Rule};

/// A key as declared in `tidegate.toml`.
#[derive(Debug, Clone)]
pub struct KeyEntry {
    /// Its name.
    pub name: String,
    /// Where its private part is.
    pub uri: KeyUri,
    /// Its public part.
    pub public: Key,
    /// Who holds it, for people.
    pub holder: Option<String>,
}

/// All keys of a workspace by name and id, with those opened so far.
#[derive(Debug)]
pub struct KeyRing {
    workspace: PathBuf,
    entries: Vec<KeyEntry>,
    passphrases: Box<dyn Passphrases>,
    opened: BTreeMap<String, Rc<dyn Signer>>,
}

impl KeyRing {
    /// A ring of `entries`, whose relative paths start at `workspace`.
    pub fn new(workspace: &Path, entries: Vec<KeyEntry>, passphrases: Box<dyn Passphrases>) -> Self {
        Self { workspace: workspace.to_owned(), entries, passphrases, opened: BTreeMap::new() }
    }

    /// No keys at all.
    pub fn empty() -> Self {
        Self::new(Path::new("."), Vec::new(), Box::new(super::NoPassphrases))
    }

    /// Adds an opened key, replacing its entry's key.
    pub fn insert(&mut self, name: &str, signer: Rc<dyn Signer>) {
        self.opened.insert(name.to_owned(), signer);
    }

    /// All keys, by name.
    pub fn entries(&self) -> &[KeyEntry] {
        &self.entries
    }

    /// The key called `name`.
    ///
    /// # Errors
    ///
    /// Fails with the known names if there is no such key.
    pub fn entry(&self, name: &str) -> Result<&KeyEntry> {
        self.entries.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<_> = self.entries.iter().map(|entry| entry.name.as_str()).collect();
            Error::input(format!("tidegate.toml names no key {name:?}"))
                .remedy(format!("the keys are: {}", names.join(", ")))
        })
    }

    /// The key with this id, if the workspace knows it.
    pub fn by_id(&self, id: &KeyId) -> Option<&KeyEntry> {
        self.entries.iter().find(|entry| entry.public.id() == *id)
    }

    /// Whether the key with this id can be tried here: its file is here, or it is in none.
    pub fn is_within_reach(&self, id: &KeyId) -> bool {
        let path = |entry: &KeyEntry| entry.uri.file(&self.workspace);
        self.by_id(id).is_some_and(|entry| path(entry).is_none_or(|path| path.exists()))
    }

    /// The keys with these ids, each with where tidegate.toml says that it is, or who holds it, sorted.
    pub fn whereabouts(&self, ids: &[KeyId]) -> String {
        let whereabouts = |id: &KeyId| match self.by_id(id) {
            Some(KeyEntry { name, holder: Some(holder), .. }) => format!("{name} (held by {holder})"),
            Some(KeyEntry { name, uri, .. }) => format!("{name} ({})", public_url(&uri.to_string())),
            None => format!("{} (not in tidegate.toml)", self.label(id)),
        };
        let mut found: Vec<_> = ids.iter().map(whereabouts).collect();
        found.sort();
        found.dedup();
        found.join(", ")
    }

    /// The display name of the key with this id: its name, else the start of the id.
    pub fn label(&self, id: &KeyId) -> String {
        self.by_id(id).map_or_else(|| format!("unknown key {}", id.short()), |entry| entry.name.clone())
    }

    /// The display names of the keys with these ids, sorted.
    pub fn labels(&self, ids: &[KeyId]) -> String {
        let mut labels: Vec<_> = ids.iter().map(|id| self.label(id)).collect();
        labels.sort();
        labels.join(", ")
    }

    /// Opens the key called `name`.
    ///
    /// # Errors
    ///
    /// Fails if the key cannot be opened, or if it differs from the public part in `tidegate.toml`.
    pub fn signer(&mut self, name: &str) -> Result<Rc<dyn Signer>> {
        if let Some(signer) = self.opened.get(name) {
            return Ok(Rc::clone(signer));
        }
        let KeyEntry { uri, public, .. } = self.entry(name)?.clone();
        debug!(key = name, kind = uri.kind(), "open a key");
        let signer = match open(name, &uri, &self.workspace, Some(&public), self.passphrases.as_mut()) {
            Ok(signer) if *signer.public() == public => signer,
            // In a workspace made from what is published, names may be other ones than those of the key files.
            other => match (self.beside(name, &uri, &public)?, other) {
                (Some(signer), _) => signer,
                (None, Ok(signer)) => return Err(self.mismatch(name, &uri, &public, signer.public())),
                (None, Err(error)) => return Err(error),
            },
        };
        let signer: Rc<dyn Signer> = Rc::new(LoggedSigner { name: name.to_owned(), signer });
        self.opened.insert(name.to_owned(), Rc::clone(&signer));
        Ok(signer)
    }

    /// The key with this public part in another file of the folder that `uri` names.
    fn beside(&self, name: &str, uri: &KeyUri, public: &Key) -> Result<Option<Rc<dyn Signer>>> {
        let path = uri.file(&self.workspace);
        let Some(folder) = path.as_deref().and_then(Path::parent) else { return Ok(None) };
        let found = FileKey::find(name, folder, public)?;
        Ok(found.map(|key| Rc::new(key) as Rc<dyn Signer>))
    }

    fn mismatch(&self, name: &str, uri: &KeyUri, declared: &Key, held: &Key) -> Error {
        let id = held.id();
        let uri = public_url(&uri.to_string());
        let (other, remedy) = match self.by_id(&id) {
            Some(other) => (
                format!(" of {}", other.name),
                format!("if the file has the right name: tidegate key import {name} {uri}"),
            ),
            None => (String::new(), "correct `uri` or `public` of that key in tidegate.toml".to_owned()),
        };
        let error = format!(
            "key {name}: {uri} holds the key {}{other}, but tidegate.toml says {}",
            id.short(),
            declared.id().short()
        );
        Error::input(error).remedy(remedy)
    }

    /// Opens every available key of `ids`. Once there are enough, a key that cannot be opened is no error.
    ///
    /// # Errors
    ///
    /// Fails if fewer than `threshold` keys can be opened.
    pub fn all_signers_for(&mut self, role: &str, ids: &[KeyId], threshold: u64) -> Result<Vec<Rc<dyn Signer>>> {
        let mut signers = self.signers_for(role, ids, threshold)?;
        for id in ids {
            if signers.iter().any(|signer| signer.public().id() == *id) {
                continue;
            }
            if let Some(name) = self.by_id(id).map(|entry| entry.name.clone())
                && let Ok(signer) = self.signer(&name)
            {
                signers.push(signer);
            }
        }
        Ok(signers)
    }

    /// Opens `threshold` of the keys `ids`, in the order given, skipping those whose files do not exist. `role` is the role to
    /// sign.
    ///
    /// # Errors
    ///
    /// Fails if fewer than `threshold` keys can be opened; the error lists the missing ones.
    pub fn signers_for(&mut self, role: &str, ids: &[KeyId], threshold: u64) -> Result<Vec<Rc<dyn Signer>>> {
        let mut signers = Vec::new();
        let mut missing = Vec::new();
        for id in ids {
            if signers.len() as u64 >= threshold {
                break;
            }
            let Some(name) = self.by_id(id).map(|entry| entry.name.clone()) else {
                missing.push(format!("{} (not in tidegate.toml)", id.short()));
                continue;
            };
            match self.signer(&name) {
                Ok(signer) => signers.push(signer),
                Err(error) if error.is_not_found() => missing.push(format!("{name} (no such file)")),
                Err(error) => return Err(error),
            }
        }
        if signers.len() as u64 >= threshold {
            return Ok(signers);
        }
        Err(Error::refused(
            Rule::KeyMissing,
            format!(
                "the role {role} needs {threshold} signatures, and only {} of its keys can be used here; missing: {}",
                signers.len(),
                missing.join(", ")
            ),
        )
        .remedy("bring the missing keys to this machine, or correct their uri in tidegate.toml"))
    }
}

/// Logs each use of a key.
#[derive(Debug)]
struct LoggedSigner {
    name: String,
    signer: Rc<dyn Signer>,
}

impl Signer for LoggedSigner {
    fn public(&self) -> &Key {
        self.signer.public()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let started = Instant::now();
        let result = self.signer.sign(message);
        let milliseconds = started.elapsed().as_millis();
        debug!(key = self.name, bytes = message.len(), ok = result.is_ok(), milliseconds, "sign");
        result
    }
}
