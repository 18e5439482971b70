//! One transaction over the metadata.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;

use chrono::{DateTime, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::metadata::{Envelope, Role, Root, TOP_LEVEL, Targets};
use tidegate_tuf::valid_signers;

use super::document::{Document, assemble};
use super::repository::{METADATA_DIR, Repository, RoleFile, file_name};
use super::{danger_parse_unverified, is_dated_ahead, listed_by_version_alone, redate_remedy};
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::keys::{KeyRing, Signer};

/// How long online roles live, for the snapshot and timestamp that end every transaction.
#[derive(Debug, Clone, Copy)]
pub struct OnlineLifetimes {
    /// Of the snapshot.
    pub snapshot: TimeDelta,
    /// Of the timestamp.
    pub timestamp: TimeDelta,
}

/// Changes to roles, not yet signed.
#[derive(Debug)]
pub struct Edit<'a> {
    base: Option<&'a Repository>,
    now: DateTime<Utc>,
    online: OnlineLifetimes,
    changed: BTreeMap<String, Change>,
    renew_snapshot: bool,
    renew_timestamp: bool,
    /// Versions that are used already, though the base does not know of them.
    used: BTreeMap<String, u64>,
}

#[derive(Debug)]
enum Change {
    /// To be signed with the keys at hand.
    Sign { document: Document, lifetime: TimeDelta },
    /// Signed already, by whoever it takes.
    Signed { bytes: Vec<u8> },
}

/// A transaction that is signed and verified: what to write, and what the repository then is.
#[derive(Debug)]
pub struct Finished {
    /// The files to write and to remove, relative to the workspace.
    pub changes: Changes,
    /// The repository once they are.
    pub repository: Repository,
    /// The roles that got a new version, in order of their names.
    pub roles: Vec<String>,
}

impl<'a> Edit<'a> {
    /// Starts from a repository.
    ///
    /// # Errors
    ///
    /// Fails if `now` is before the last signature: a host whose clock is that wrong must not sign anything.
    pub fn new(base: &'a Repository, now: DateTime<Utc>, online: OnlineLifetimes) -> Result<Self> {
        // Whatever this program signs, it signs the timestamp last.
        if let Some(role) = base.role("timestamp") {
            not_ahead(role, now)?;
        }
        Ok(Self::with_base(Some(base), now, online))
    }

    /// Starts from a repository that may be dated later than `now`, where that clock was wrong and this one is right.
    pub fn redating(base: &'a Repository, now: DateTime<Utc>, online: OnlineLifetimes) -> Self {
        Self::with_base(Some(base), now, online)
    }

    /// Starts a repository that has no role yet.
    pub fn initial(now: DateTime<Utc>, online: OnlineLifetimes) -> Self {
        Self::with_base(None, now, online)
    }

    fn with_base(base: Option<&'a Repository>, now: DateTime<Utc>, online: OnlineLifetimes) -> Self {
        Self {
            base,
            now,
            online,
            changed: BTreeMap::new(),
            renew_snapshot: false,
            renew_timestamp: false,
            used: BTreeMap::new(),
        }
    }

    /// Creates a role, or gives it wholly new content.
    pub fn put(&mut self, role: &str, document: Document, lifetime: TimeDelta) {
        self.changed.insert(role.to_owned(), Change::Sign { document, lifetime });
    }

    /// Changes a role's content; if `change` leaves it as it is, the role is not signed again.
    ///
    /// # Errors
    ///
    /// Fails if the repository has no such role.
    pub fn change(&mut self, role: &str, lifetime: TimeDelta, change: impl FnOnce(&mut Document)) -> Result<()> {
        let base = self.base.and_then(|base| base.role(role)).map(|file| &file.document);
        let mut document = match self.changed.get(role) {
            Some(Change::Sign { document, .. }) => document.clone(),
            _ => base.cloned().ok_or_else(|| Error::input(format!("the repository has no role {role}")))?,
        };
        change(&mut document);
        if base.is_some_and(|base| base.says_the_same(&document)) {
            return Ok(());
        }
        self.put(role, document, lifetime);
        Ok(())
    }

    /// Signs a role again as it is, for a new lifetime.
    ///
    /// # Errors
    ///
    /// Fails if the repository has no such role.
    pub fn renew(&mut self, role: &str, lifetime: TimeDelta) -> Result<()> {
        match role {
            "timestamp" => self.renew_timestamp = true,
            "snapshot" => self.renew_snapshot = true,
            _ => {
                let document = match self.changed.get(role) {
                    Some(_) => return Ok(()),
                    None => self
                        .base
                        .and_then(|base| base.role(role))
                        .map(|file| file.document.clone())
                        .ok_or_else(|| Error::input(format!("the repository has no role {role}")))?,
                };
                self.put(role, document, lifetime);
            }
        }
        Ok(())
    }

    /// Has the role's new version come after `version`, should it get one: that one has been used elsewhere.
    pub fn after(&mut self, role: &str, version: u64) {
        let used = self.used.entry(role.to_owned()).or_default();
        *used = version.max(*used);
    }

    /// Takes a file of a role that others have signed. Whether enough of them did is checked when the transaction is finished.
    pub fn put_signed(&mut self, role: &str, bytes: Vec<u8>) {
        self.changed.insert(role.to_owned(), Change::Signed { bytes });
    }

    /// The roles that [`finish`](Self::finish) would sign and fewer of whose keys than their threshold can be tried here, each with those
    /// keys that cannot.
    ///
    /// # Errors
    ///
    /// Fails if what others have signed cannot be read.
    pub(crate) fn out_of_reach(&self, ring: &KeyRing) -> Result<BTreeMap<String, Vec<KeyId>>> {
        let delegated = self.delegated()?;
        let own = self.changed.iter().filter_map(|(role, change)| match change {
            Change::Sign { document, .. } => Some((role.as_str(), document.clone())),
            Change::Signed { .. } => None,
        });
        let snapshot = self.signs_snapshot().then(|| ("snapshot", Document::snapshot()));
        let timestamp = self.signs_timestamp().then(|| ("timestamp", Document::timestamp()));
        let mut found = BTreeMap::new();
        for (role, document) in own.chain(snapshot).chain(timestamp) {
            for (ids, threshold) in self.required(role, &document, &delegated)? {
                let (here, away): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| ring.is_within_reach(id));
                if (here.len() as u64) < threshold {
                    found.insert(role.to_owned(), away);
                }
            }
        }
        Ok(found)
    }

    fn signs_snapshot(&self) -> bool {
        self.renew_snapshot || self.base.is_none() || self.changed.keys().any(|role| is_targets(role))
    }

    fn signs_timestamp(&self) -> bool {
        self.renew_timestamp || self.signs_snapshot()
    }

    /// Signs what changed, renews snapshot and timestamp if that takes it, and verifies the whole.
    ///
    /// `None` if there is nothing to do.
    ///
    /// # Errors
    ///
    /// Fails if the keys for a changed role cannot be opened or cannot sign.
    pub fn finish(self, ring: &mut KeyRing) -> Result<Option<Finished>> {
        if self.changed.is_empty() && !self.renew_snapshot && !self.renew_timestamp {
            return Ok(None);
        }
        let delegated = self.delegated()?;
        let mut files: BTreeMap<String, (u64, Vec<u8>)> = BTreeMap::new();
        for (role, change) in &self.changed {
            let file = match change {
                Change::Sign { document, lifetime } => {
                    let version = self.next_version(role);
                    let mut document = document.clone();
                    document.issue(version, self.now, self.now + *lifetime);
                    (version, self.sign(role, &document, &delegated, ring)?)
                }
                Change::Signed { bytes } => (signed_version(role, bytes)?, bytes.clone()),
            };
            files.insert(role.clone(), file);
        }
        if self.signs_snapshot() {
            let mut snapshot = self.document("snapshot").unwrap_or_else(Document::snapshot);
            for (role, (version, bytes)) in files.iter().filter(|(role, _)| is_targets(role)) {
                let file = (!listed_by_version_alone(role)).then(|| listing(bytes));
                snapshot.set_meta(&format!("{role}.json"), *version, file);
            }
            let version = self.next_version("snapshot");
            snapshot.issue(version, self.now, self.now + self.online.snapshot);
            files.insert("snapshot".into(), (version, self.sign("snapshot", &snapshot, &delegated, ring)?));
        }
        if self.signs_timestamp() {
            let mut timestamp = self.document("timestamp").unwrap_or_else(Document::timestamp);
            if let Some((version, bytes)) = files.get("snapshot") {
                timestamp.set_meta("snapshot.json", *version, Some(listing(bytes)));
            }
            let version = self.next_version("timestamp");
            timestamp.issue(version, self.now, self.now + self.online.timestamp);
            files.insert("timestamp".into(), (version, self.sign("timestamp", &timestamp, &delegated, ring)?));
        }
        self.commit(&files).map(Some)
    }

    /// Verifies the result and lists the files to write.
    fn commit(&self, files: &BTreeMap<String, (u64, Vec<u8>)>) -> Result<Finished> {
        let mut named = self.base.map(Repository::files).unwrap_or_default();
        named.extend(files.iter().map(|(role, (version, bytes))| (file_name(role, *version), bytes.as_slice())));
        let repository =
            Repository::load(self.base.map_or(1, Repository::first_root), |name, limit| match named.get(name) {
                Some(bytes) if bytes.len() as u64 > limit => Err(Error::refused(
                    Rule::MetadataSize,
                    format!("{name} would be longer than {limit} bytes, and no device reads it"),
                )
                .remedy("retire releases, or use fewer cohorts, products or keys")),
                bytes => Ok(bytes.map(|bytes| bytes.to_vec())),
            })?;
        for role in files.keys().filter_map(|role| repository.role(role)) {
            not_ahead(role, self.now)?;
        }
        let mut changes = Changes::default();
        for (role, (version, bytes)) in files {
            changes.put(format!("{METADATA_DIR}/{}", file_name(role, *version)), bytes.as_slice());
            // Roots stay, for devices that have to follow them, and snapshots, by which publishing recognises what is live as
            // one of the workspace's own. Of other roles only the newest version can be asked for.
            if let Some(old) = self.base.and_then(|base| base.role(role))
                && !matches!(role.as_str(), "root" | "timestamp" | "snapshot")
            {
                changes.remove(format!("{METADATA_DIR}/{}", old.file_name()));
            }
        }
        for gone in self.base.into_iter().flat_map(Repository::roles) {
            if repository.role(&gone.name).is_none() {
                changes.remove(format!("{METADATA_DIR}/{}", gone.file_name()));
            }
        }
        let roles = files.keys().cloned().collect();
        Ok(Finished { changes, repository, roles })
    }

    fn sign(&self, role: &str, document: &Document, delegated: &Delegated, ring: &mut KeyRing) -> Result<Vec<u8>> {
        let message = document.to_signed_bytes()?;
        let mut signatures = BTreeMap::new();
        for (ids, threshold) in self.required(role, document, delegated)? {
            // While an online key is replaced both sign, so that devices verify on either side of the new root.
            let signers = match role {
                "snapshot" | "timestamp" => ring.all_signers_for(role, &ids, threshold)?,
                _ => ring.signers_for(role, &ids, threshold)?,
            };
            for signer in signers {
                let id = signer.public().id();
                if let Entry::Vacant(slot) = signatures.entry(id) {
                    slot.insert(to_hex(&sign(&signer, &message)?));
                }
            }
        }
        assemble(&document.to_value(), &signatures)
    }

    /// The keys and thresholds that a role's new version must satisfy: what delegates to it, as this transaction leaves it. A new root must
    /// satisfy the old one as well (TUF 6.1).
    fn required(&self, role: &str, document: &Document, delegated: &Delegated) -> Result<Vec<(Vec<KeyId>, u64)>> {
        let base = self.base.and_then(|base| base.keys_of(role)).map(|(_, role)| keys_of(role));
        if role == "root" {
            let new: Root = read("root", document)?;
            return Ok(base.into_iter().chain(new.role("root").map(keys_of)).collect());
        }
        let found = delegated.get(role).cloned().or(base);
        Ok(vec![found.ok_or_else(|| Error::bug(format!("no role delegates to {role}")))?])
    }

    /// What the changed roles delegate.
    fn delegated(&self) -> Result<Delegated> {
        let mut delegated = Delegated::new();
        for (name, change) in &self.changed {
            let bytes;
            let envelope = match change {
                Change::Sign { document, .. } => {
                    bytes = as_file(document)?;
                    &bytes
                }
                Change::Signed { bytes } => bytes,
            };
            if name == "root" {
                let root: Root = read_file(name, envelope)?;
                let top = TOP_LEVEL.iter().filter_map(|role| Some(((*role).to_owned(), keys_of(root.role(role)?))));
                delegated.extend(top);
            } else {
                let targets: Targets = read_file(name, envelope)?;
                let roles = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
                delegated.extend(roles.map(|role| (role.name.clone(), keys_of(&role.role))));
            }
        }
        Ok(delegated)
    }

    fn document(&self, role: &str) -> Option<Document> {
        self.base.and_then(|base| base.role(role)).map(|file| file.document.clone())
    }

    /// Versions only ever rise, also those of a role that was given up and comes back.
    fn next_version(&self, role: &str) -> u64 {
        let current = self.base.and_then(|base| base.role(role)).map(|file| file.version);
        let listed = self.base.and_then(|base| base.listed_version(role));
        current.max(listed).max(self.used.get(role).copied()).unwrap_or_default() + 1
    }
}

fn is_targets(role: &str) -> bool {
    !matches!(role, "root" | "timestamp" | "snapshot")
}

/// Refuses a role that is dated later than `now`.
pub(crate) fn not_ahead(role: &RoleFile, now: DateTime<Utc>) -> Result<()> {
    match role.issued {
        Some(issued) if is_dated_ahead(role.issued, now) => {
            Err(dated_ahead(&role.name, issued, now).remedy(redate_remedy(&role.name)))
        }
        _ => Ok(()),
    }
}

/// The refusal of a role that is dated later than `now`.
pub(crate) fn dated_ahead(role: &str, issued: DateTime<Utc>, now: DateTime<Utc>) -> Error {
    let [issued, now] = [issued, now].map(tidegate_tuf::time::format);
    Error::refused(Rule::MetadataTime, format!("it is {now}, but the role {role} is dated {issued}"))
}

/// Signs a timestamp of that version that lists what the timestamp `live` lists, a file which the repository's own keys must have signed.
///
/// With it a publisher takes its turn: whoever began from `live` can no longer replace it.
///
/// # Errors
///
/// Fails if the live timestamp is malformed or not signed by this repository's keys, or if the timestamp key cannot sign.
pub fn timestamp_over(
    repository: &Repository,
    live: &[u8],
    version: u64,
    now: DateTime<Utc>,
    lifetime: TimeDelta,
    ring: &mut KeyRing,
) -> Result<Vec<u8>> {
    let unreadable = |e: tidegate_tuf::Error| Error::trust("the live timestamp is malformed").with_source(e);
    let envelope = Envelope::parse("timestamp", live).map_err(unreadable)?;
    let (keys, role) = repository.keys_of("timestamp").ok_or_else(|| Error::bug("a root without timestamp"))?;
    if (valid_signers(keys, role, &envelope).len() as u64) < role.threshold {
        return Err(Error::trust("the live timestamp is not signed by this repository's keys"));
    }
    let value = tidegate_tuf::json::parse(live).map_err(|e| Error::bug("a timestamp").with_source(e))?;
    let Some(serde_json::Value::Object(signed)) = value.get("signed").cloned() else {
        return Err(Error::bug("verified bytes without content"));
    };
    let mut document = Document::from_verified(signed);
    document.issue(version, now, now + lifetime);
    let message = document.to_signed_bytes()?;
    let mut signatures = BTreeMap::new();
    for signer in ring.all_signers_for("timestamp", &role.keyids, role.threshold)? {
        signatures.insert(signer.public().id(), to_hex(&sign(&signer, &message)?));
    }
    assemble(&document.to_value(), &signatures)
}

/// Key ids and threshold by role.
type Delegated = BTreeMap<String, (Vec<KeyId>, u64)>;

fn keys_of(role: &Role) -> (Vec<KeyId>, u64) {
    (role.keyids.clone(), role.threshold)
}

fn sign(signer: &Rc<dyn Signer>, message: &[u8]) -> Result<Vec<u8>> {
    let signature = signer.sign(message)?;
    // A faulty signature may give the key away and would only be noticed by devices.
    match signer.public().decode() {
        Some(public) if public.verify(message, &signature) => Ok(signature),
        _ => {
            Err(Error::trust(format!("the key {} made a signature that does not verify", signer.public().id().short()))
                .remedy("replace the key's hardware or file"))
        }
    }
}

fn listing(bytes: &[u8]) -> (u64, [u8; 32]) {
    (bytes.len() as u64, Sha256::digest(bytes).into())
}

/// The version inside a file that others signed. Only to name the file; the whole is verified before anything is written.
fn signed_version(role: &str, bytes: &[u8]) -> Result<u64> {
    let envelope = Envelope::parse(role, bytes).map_err(|e| Error::input(e.to_string()))?;
    let version = if role == "root" {
        envelope.danger_read_unverified::<Root>(role).map(|root| root.common.version)
    } else {
        envelope.danger_read_unverified::<Targets>(role).map(|targets| targets.common.version)
    };
    version.map_err(|e| Error::input(e.to_string()))
}

/// Reads a document that this process made as typed metadata.
fn read<T: tidegate_tuf::metadata::Metadata>(role: &str, document: &Document) -> Result<T> {
    read_file(role, &as_file(document)?)
}

/// A document as a file without signatures.
fn as_file(document: &Document) -> Result<Vec<u8>> {
    let mut issued = document.clone();
    if issued.version() == 0 {
        issued.issue(1, DateTime::UNIX_EPOCH, DateTime::UNIX_EPOCH + TimeDelta::days(1));
    }
    assemble(&issued.to_value(), &BTreeMap::new())
}

/// Reads a file whose signatures are checked when the transaction is finished.
fn read_file<T: tidegate_tuf::metadata::Metadata>(role: &str, bytes: &[u8]) -> Result<T> {
    danger_parse_unverified(role, bytes)
        .map_err(|e| Error::input(format!("the new metadata of {role} is malformed: {e}")))
}

#[cfg(test)]
mod tests {
    use tidegate_tuf::key::Key;

    use super::super::document::{Delegation, RoleKeys};
    use super::*;
    use crate::keys::example::EXAMPLE_KEYS;
    use crate::keys::{FileKey, KeyEntry, KeyUri, NoPassphrases};

    fn ring(dir: &std::path::Path, without: &[&str]) -> KeyRing {
        let entries = EXAMPLE_KEYS.iter().filter(|key| !without.contains(&key.name)).map(|key| {
            let path = dir.join(format!("{}.pem", key.name));
            std::fs::write(&path, key.pem).unwrap();
            KeyEntry { name: key.name.into(), uri: KeyUri::File(path), public: public(key.name), holder: None }
        });
        KeyRing::new(dir, entries.collect(), Box::new(NoPassphrases))
    }

    fn public(name: &str) -> Key {
        let example = EXAMPLE_KEYS.iter().find(|key| key.name == name).unwrap();
        FileKey::from_pem(name, example.pem, &mut NoPassphrases).unwrap().public().clone()
    }

    fn role(threshold: u64, names: &[&str]) -> RoleKeys {
        RoleKeys { keys: names.iter().map(|name| public(name)).collect(), threshold }
    }

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::hours(hours)
    }

    const ONLINE: OnlineLifetimes = OnlineLifetimes { snapshot: TimeDelta::days(7), timestamp: TimeDelta::days(1) };
    const YEAR: TimeDelta = TimeDelta::days(365);

    fn initial(dir: &std::path::Path) -> Finished {
        let mut edit = Edit::initial(at(0), ONLINE);
        let roles = [
            ("root", role(2, &["root-1", "root-2", "root-3"])),
            ("targets", role(2, &["targets-1", "targets-2", "targets-3"])),
            ("snapshot", role(1, &["snapshot"])),
            ("timestamp", role(1, &["timestamp"])),
        ];
        edit.put("root", Document::root(&roles.into_iter().collect()), YEAR);
        let mut targets = Document::targets();
        let paths = vec!["stable/*/*".into()];
        targets.set_delegation(&Delegation {
            name: "stable".into(),
            keys: role(2, &["release-1", "release-2"]),
            paths,
        });
        edit.put("targets", targets, YEAR);
        let mut stable = Document::targets();
        for cohort in ["a", "b"] {
            let paths = vec![format!("stable/cohorts/{cohort}/*")];
            stable.set_delegation(&Delegation { name: format!("stable.{cohort}"), keys: role(1, &["rollout"]), paths });
            edit.put(&format!("stable.{cohort}"), Document::targets(), YEAR);
        }
        edit.put("stable", stable, YEAR);
        edit.finish(&mut ring(dir, &[])).unwrap().unwrap()
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes_and_they_open_again() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (initial(dir.path()), initial(dir.path()));
        assert_eq!(a.changes, b.changes);
        a.changes.commit(dir.path()).unwrap();
        let opened = Repository::open(dir.path()).unwrap();
        assert_eq!(opened.files(), b.repository.files());
        let names: Vec<_> = opened.roles().map(super::super::RoleFile::file_name).collect();
        assert_eq!(
            names,
            [
                "1.root.json",
                "timestamp.json",
                "1.snapshot.json",
                "1.targets.json",
                "1.stable.json",
                "1.stable.a.json",
                "1.stable.b.json"
            ]
        );
        assert_eq!(opened.signers("stable").len(), 2);
        assert_eq!(opened.delegator("stable.b"), Some("stable"));
    }

    #[test]
    fn only_what_changed_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let base = initial(dir.path()).repository;
        let mut edit = Edit::new(&base, at(1), ONLINE).unwrap();
        edit.change("stable.a", YEAR, |a| a.set_target("stable/cohorts/a/os.json", 1, &[1; 32], None)).unwrap();
        edit.change("stable.b", YEAR, |_| ()).unwrap();
        let finished =
            edit.finish(&mut ring(dir.path(), &["root-1", "root-2", "root-3", "release-1"])).unwrap().unwrap();
        assert_eq!(finished.roles, ["snapshot", "stable.a", "timestamp"]);
        let written: Vec<_> = finished.changes.written().collect();
        assert_eq!(written, ["metadata/2.snapshot.json", "metadata/2.stable.a.json", "metadata/timestamp.json"]);
        assert_eq!(finished.repository.role("stable.b").unwrap().bytes, base.role("stable.b").unwrap().bytes);
    }

    #[test]
    fn no_change_is_nothing_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let base = initial(dir.path()).repository;
        let mut edit = Edit::new(&base, at(1), ONLINE).unwrap();
        edit.change("stable", YEAR, |_| ()).unwrap();
        assert!(edit.finish(&mut ring(dir.path(), &[])).unwrap().is_none());
    }

    #[test]
    fn what_has_expired_can_still_be_renewed() {
        let dir = tempfile::tempdir().unwrap();
        initial(dir.path()).changes.commit(dir.path()).unwrap();
        let base = Repository::open(dir.path()).unwrap();
        let mut edit = Edit::new(&base, at(24 * 1000), ONLINE).unwrap();
        edit.renew("timestamp", YEAR).unwrap();
        assert_eq!(edit.finish(&mut ring(dir.path(), &[])).unwrap().unwrap().roles, ["timestamp"]);
    }

    #[test]
    fn too_few_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let base = initial(dir.path()).repository;
        let mut edit = Edit::new(&base, at(1), ONLINE).unwrap();
        edit.renew("stable", YEAR).unwrap();
        let mut ring = ring(dir.path(), &[]);
        std::fs::remove_file(dir.path().join("release-2.pem")).unwrap();
        let error = edit.finish(&mut ring).unwrap_err();
        assert!(error.to_string().contains("release-2 (no such file)"), "{error}");
    }

    #[test]
    fn a_clock_behind_the_last_signature_signs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let base = initial(dir.path()).repository;
        let error = Edit::new(&base, at(-1), ONLINE).unwrap_err();
        assert_eq!(error.broken_rule(), Some(Rule::MetadataTime));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        initial(dir.path()).changes.commit(dir.path()).unwrap();
        for name in ["1.root.json", "1.stable.json", "1.stable.a.json", "timestamp.json"] {
            let path = dir.path().join("metadata").join(name);
            let good = std::fs::read(&path).unwrap();
            let mut bad = good.clone();
            let at = bad.len() / 2;
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(Repository::open(dir.path()).unwrap_err().kind(), crate::Kind::Trust, "{name}");
            std::fs::write(&path, &good).unwrap();
        }
        std::fs::remove_file(dir.path().join("metadata/1.targets.json")).unwrap();
        assert!(Repository::open(dir.path()).unwrap_err().to_string().contains("1.targets.json is missing"));
    }
}
