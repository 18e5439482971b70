//! A workspace's metadata, verified.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::{Common, Envelope, Role, Targets};
use tidegate_tuf::path::metadata_file;
use tidegate_tuf::{Chain, Limits, TrustedSet, json, valid_signers};

use super::document::Document;
use crate::error::{Error, Result};
use crate::fs;

/// Where a workspace keeps its metadata.
pub const METADATA_DIR: &str = "metadata";

/// The file of a workspace, in the folder of its metadata, that holds the version of the root from which everything is verified, where that is
/// not the first: a repository that was taken over with older roots that cannot be verified. They are kept, and published, byte for byte.
pub const FROM_ROOT: &str = "from-root.txt";

/// The version of the root from which the workspace `dir` is verified.
///
/// # Errors
///
/// Fails if the file that holds it cannot be read or holds something else.
pub fn from_root(dir: &Path) -> Result<u64> {
    let Some(bytes) = fs::read_if_exists(&dir.join(METADATA_DIR).join(FROM_ROOT), 32)? else { return Ok(1) };
    let version = std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok());
    version.filter(|version| *version > 0).ok_or_else(|| {
        Error::input(format!("{METADATA_DIR}/{FROM_ROOT} does not hold the version of a root"))
            .remedy("restore it from version control")
    })
}

/// The path of the root from which the workspace `dir` is verified, if that is a workspace.
///
/// # Errors
///
/// The same as [`from_root`].
pub fn anchor_file(dir: &Path) -> Result<PathBuf> {
    Ok(dir.join(METADATA_DIR).join(metadata_file("root", Some(from_root(dir)?))))
}

/// One role's file, verified, as it stands.
#[derive(Debug, Clone)]
pub struct RoleFile {
    /// The role's name.
    pub name: String,
    /// Its version.
    pub version: u64,
    /// When it expires.
    pub expires: DateTime<Utc>,
    /// When it was made.
    pub issued: Option<DateTime<Utc>>,
    /// The file, byte for byte.
    pub bytes: Vec<u8>,
    /// Its `signed` part, to be edited.
    pub document: Document,
}

impl RoleFile {
    /// The file's name in the metadata folder: `N.ROLE.json`, but `timestamp.json`.
    pub fn file_name(&self) -> String {
        file_name(&self.name, self.version)
    }
}

/// The file name of a role's metadata: versioned, but for the timestamp.
pub(super) fn file_name(role: &str, version: u64) -> String {
    metadata_file(role, (role != "timestamp").then_some(version))
}

/// All metadata of a workspace, verified from its first root on. Nothing counts as expired here: what has expired must still be
/// opened to be renewed. [`RoleFile::expires`] tells.
#[derive(Debug, Clone)]
pub struct Repository {
    trusted: TrustedSet,
    roles: BTreeMap<String, RoleFile>,
    chains: BTreeMap<String, Chain>,
    /// All roots, from version 1 on.
    roots: Vec<Vec<u8>>,
    /// The version of the one from which everything is verified.
    first: u64,
    /// Delegated roles in the order in which delegations name them.
    order: Vec<String>,
}

/// Reads the file of a role and version that must be there, up to a length.
type MustRead<'a> = dyn Fn(&str, u64, u64) -> Result<Vec<u8>> + 'a;

impl Repository {
    /// Opens the metadata of the workspace `dir`.
    ///
    /// # Errors
    ///
    /// Fails if a file cannot be read or the metadata does not verify.
    pub fn open(dir: &Path) -> Result<Self> {
        let folder = dir.join(METADATA_DIR);
        Self::load(from_root(dir)?, |name, limit| fs::read_if_exists(&folder.join(name), limit))
    }

    /// The root from which everything else is verified: the first, if no other is named.
    ///
    /// # Errors
    ///
    /// Fails if the repository has no root.
    pub fn anchor(&self) -> Result<&[u8]> {
        let root = usize::try_from(self.first - 1).ok().and_then(|index| self.roots.get(index));
        root.map(Vec::as_slice).ok_or_else(|| Error::bug("a repository without roots"))
    }

    /// The version of the root from which everything else is verified.
    pub fn first_root(&self) -> u64 {
        self.first
    }

    /// Verifies the files that `read` gives for a name and a limit of length, from the root of version `first` on.
    pub(crate) fn load(first: u64, read: impl Fn(&str, u64) -> Result<Option<Vec<u8>>>) -> Result<Self> {
        Self::load_at(first, read, None)
    }

    /// The same as of the earlier snapshot `past`, for inspecting only: then there is no timestamp.
    pub(crate) fn load_at(
        first: u64,
        read: impl Fn(&str, u64) -> Result<Option<Vec<u8>>>,
        past: Option<u64>,
    ) -> Result<Self> {
        let limits = Limits::default();
        let must_read = |role: &str, version: u64, limit: u64| {
            let name = file_name(role, version);
            read(&name, limit)?.ok_or_else(|| {
                Error::trust(format!("{METADATA_DIR}/{name} is missing"))
                    .remedy("restore it from version control or from the published repository")
            })
        };
        let older = (1..first).map(|version| must_read("root", version, limits.root_length));
        let mut roots = older.collect::<Result<Vec<_>>>()?;
        let mut bytes = must_read("root", first, limits.root_length)?;
        let mut trusted = TrustedSet::danger_from_root_ignoring_expiry(&bytes).map_err(untrusted)?;
        if trusted.root().common.version != first {
            return Err(Error::trust(format!(
                "{METADATA_DIR}/{} is root {}",
                file_name("root", first),
                trusted.root().common.version
            )));
        }
        loop {
            let next = trusted.root().common.version.saturating_add(1);
            let Some(newer) = read(&file_name("root", next), limits.root_length)? else { break };
            trusted.update_root(&newer).map_err(untrusted)?;
            roots.push(std::mem::replace(&mut bytes, newer));
        }
        roots.push(bytes.clone());
        let root = role_file("root", &trusted.root().common, bytes)?;
        let mut repository = Self {
            trusted,
            roles: BTreeMap::from([("root".into(), root)]),
            chains: BTreeMap::new(),
            roots,
            first,
            order: Vec::new(),
        };

        let version = if let Some(version) = past {
            version
        } else {
            let bytes = must_read("timestamp", 0, limits.timestamp_length)?;
            repository.trusted.update_timestamp(&bytes).map_err(untrusted)?;
            let common = repository.trusted.timestamp().map(|t| t.common.clone()).ok_or_else(lost)?;
            repository.keep("timestamp", &common, bytes)?;
            repository.trusted.listed("snapshot").ok_or_else(lost)?.version
        };
        let bytes = must_read("snapshot", version, limits.snapshot_length)?;
        match past {
            None => repository.trusted.update_snapshot(&bytes),
            Some(_) => repository.trusted.danger_take_past_snapshot(&bytes),
        }
        .map_err(untrusted)?;
        let common = repository.trusted.snapshot().map(|s| s.common.clone()).ok_or_else(lost)?;
        repository.keep("snapshot", &common, bytes)?;

        repository.load_targets(&must_read)?;
        Ok(repository)
    }

    /// Loads the targets role and all that it delegates to.
    fn load_targets(&mut self, must_read: &MustRead<'_>) -> Result<()> {
        let limits = Limits::default();
        let mut queue = std::collections::VecDeque::from([Chain::top()]);
        while let Some(chain) = queue.pop_front() {
            let role = chain.role();
            if self.chains.contains_key(role) {
                return Err(Error::trust(format!("{role}: two roles delegate to it"))
                    .remedy("a workspace has one delegation to each role; remove one of the two"));
            }
            let listed = self
                .trusted
                .listed(role)
                .ok_or_else(|| Error::trust(format!("{role}: it is delegated, but the snapshot does not list it")))?;
            let bytes = must_read(role, listed.version, limits.listed(listed.length, limits.targets_length))?;
            match chain.parent() {
                None => self.trusted.update_targets(&bytes),
                Some(_) => self.trusted.update_delegated(&chain, &bytes),
            }
            .map_err(untrusted)?;
            let targets = self.trusted.targets(&chain).ok_or_else(lost)?;
            let common = targets.common.clone();
            queue.extend(self.trusted.delegated(&chain).iter().map(|role| chain.then(role)));
            self.keep(role, &common, bytes)?;
            self.order.push(role.to_owned());
            self.chains.insert(role.to_owned(), chain);
        }
        Ok(())
    }

    fn keep(&mut self, role: &str, common: &Common, bytes: Vec<u8>) -> Result<()> {
        self.roles.insert(role.to_owned(), role_file(role, common, bytes)?);
        Ok(())
    }

    /// The role's file; `None` if the repository has no such role.
    pub fn role(&self, name: &str) -> Option<&RoleFile> {
        self.roles.get(name)
    }

    /// Like [`role`](Self::role), for a role that must exist.
    ///
    /// # Errors
    ///
    /// Fails if there is no such role.
    pub fn must_have(&self, name: &str) -> Result<&RoleFile> {
        self.role(name).ok_or_else(|| {
            Error::input(format!("the repository has no role {name}"))
                .remedy("`tidegate status` lists the roles; channels and cohorts come from the signed metadata, not from the .toml files alone")
        })
    }

    /// All roles: root, timestamp, snapshot, then targets and what it delegates to, in the order of the delegations.
    pub fn roles(&self) -> impl Iterator<Item = &RoleFile> {
        ["root", "timestamp", "snapshot"]
            .into_iter()
            .chain(self.order.iter().map(String::as_str))
            .filter_map(|name| self.roles.get(name))
    }

    /// All roots, byte for byte, from version 1 on.
    pub fn roots(&self) -> &[Vec<u8>] {
        &self.roots
    }

    /// All metadata files, byte for byte, by their names in the metadata folder.
    pub fn files(&self) -> BTreeMap<String, &[u8]> {
        let roots = (1..).zip(&self.roots).map(|(version, bytes)| (file_name("root", version), bytes.as_slice()));
        self.roles.values().map(|file| (file.file_name(), file.bytes.as_slice())).chain(roots).collect()
    }

    /// A targets role as typed metadata.
    pub fn targets(&self, role: &str) -> Option<&Targets> {
        self.trusted.targets(self.chains.get(role)?)
    }

    /// The role that delegates to `role`: `root` for top-level roles.
    pub fn delegator(&self, role: &str) -> Option<&str> {
        match role {
            "root" | "timestamp" | "snapshot" | "targets" => Some("root"),
            _ => {
                let parent = self.chains.get(role)?.parent()?;
                self.roles.get(parent.role()).map(|file| file.name.as_str())
            }
        }
    }

    /// The keys that the delegating role declares, and which of them sign `role`.
    pub fn keys_of(&self, role: &str) -> Option<(&BTreeMap<KeyId, Key>, &Role)> {
        let root = self.trusted.root();
        if let Some(found) = root.role(role) {
            return Some((root.keys(), found));
        }
        let delegations = self.trusted.targets(&self.chains.get(role)?.parent()?)?.delegations.as_ref()?;
        Some((delegations.keys(), delegations.role(role)?))
    }

    /// The keys whose signatures on the role's current file are valid.
    pub fn signers(&self, role: &str) -> Vec<KeyId> {
        let Some((file, (keys, role))) = self.role(role).zip(self.keys_of(role)) else { return Vec::new() };
        Envelope::parse(&file.name, &file.bytes).map(|e| valid_signers(keys, role, &e)).unwrap_or_default()
    }

    /// The content of an earlier version of a targets role; `None` if these bytes are none that its keys have signed.
    pub(crate) fn earlier(&self, role: &str, version: u64, bytes: &[u8]) -> Option<Document> {
        let envelope = Envelope::parse(role, bytes).ok()?;
        let (keys, known) = self.keys_of(role)?;
        let targets: Targets = envelope.danger_read_unverified(role).ok()?;
        if targets.common.version != version || (valid_signers(keys, known, &envelope).len() as u64) < known.threshold {
            return None;
        }
        role_file(role, &targets.common, bytes.to_vec()).ok().map(|file| file.document)
    }

    /// The version that the snapshot lists for a role, also for one that nobody delegates to any more.
    pub fn listed_version(&self, role: &str) -> Option<u64> {
        self.trusted.snapshot()?.role(role).map(|meta| meta.version)
    }

    /// The keys that root and all delegations declare.
    pub fn all_keys(&self) -> BTreeMap<KeyId, Key> {
        let delegated = self.chains.values().filter_map(|chain| self.trusted.targets(chain)?.delegations.as_ref());
        std::iter::once(self.trusted.root().keys())
            .chain(delegated.map(tidegate_tuf::metadata::Delegations::keys))
            .flatten()
            .map(|(id, key)| (id.clone(), key.clone()))
            .collect()
    }

    /// The trusted metadata underneath.
    pub fn trusted(&self) -> &TrustedSet {
        &self.trusted
    }
}

fn role_file(name: &str, common: &Common, bytes: Vec<u8>) -> Result<RoleFile> {
    let value = json::parse_large(&bytes, usize::MAX)
        .map_err(|e| Error::bug(format!("{name}: verified bytes do not parse")).with_source(e))?;
    let Some(Value::Object(signed)) = value.get("signed").cloned() else {
        return Err(lost());
    };
    Ok(RoleFile {
        name: name.to_owned(),
        version: common.version,
        expires: common.expires,
        issued: common.issued,
        bytes,
        document: Document::from_verified(signed),
    })
}

fn untrusted(error: tidegate_tuf::Error) -> Error {
    Error::trust("the workspace's metadata does not verify").with_source(error).remedy(
        "a file below metadata/ was changed or lost; restore it from version control or from the published repository",
    )
}

fn lost() -> Error {
    Error::bug("metadata that was just verified is missing")
}
