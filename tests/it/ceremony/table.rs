//! A table at which ceremonies are held, and a fleet that lives through them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::support::{python_tuf, script};
use chrono::{DateTime, TimeDelta, Utc};
use tidegate::ceremony::init;
use tidegate::ceremony::{self, Done};
use tidegate::error::Result;
use tidegate::keys::generate::{Kind, generate};
use tidegate::keys::{FileKey, KeyRing, NoPassphrases, Signer as _, write_public};
use tidegate::metadata::Repository;
use tidegate::proposal::{self, Proposal, ProposalRequest, Tool};
use tidegate::publish::{self, PublishEvent, Remote, Source};
use tidegate::workspace::init::{KeySource, Options};
use tidegate::workspace::{Operation, Workspace};
use tidegate_client::clock::StubClock;
use tidegate_client::fetch::MemoryFetch;
use tidegate_client::store::MemoryStore;
use tidegate_client::updater::{Repository as Location, Updater};
use tidegate_tuf::path::TargetPath;

const URL: &str = "memory://fleet";

/// A workspace, everything it ever published, and a device shipped with each root there was.
pub struct Table {
    dir: tempfile::TempDir,
    pub now: DateTime<Utc>,
    published: BTreeMap<String, Vec<u8>>,
    /// Devices that check after every ceremony: the root they were shipped with, and what they remember.
    awake: Vec<(Vec<u8>, MemoryStore)>,
}

impl Table {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = DateTime::parse_from_rfc3339("2026-03-01T00:00:00Z").unwrap().with_timezone(&Utc);
        let options = Options {
            keys: KeySource::Example,
            salt: Some("00112233445566778899aabbccddeeff".into()),
            actor: "tester".into(),
        };
        init(&dir.path().join("fleet"), &options, now, &mut NoPassphrases).unwrap();
        let mut table = Self { dir, now, published: BTreeMap::new(), awake: Vec::new() };
        table.publish();
        table.everyone_follows();
        table
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("fleet")
    }

    pub fn workspace(&self) -> Workspace {
        Workspace::open(&self.path()).unwrap()
    }

    pub fn repository(&self) -> Repository {
        Repository::open(&self.path()).unwrap()
    }

    pub fn first_root(&self) -> Vec<u8> {
        fs::read(self.path().join("metadata/1.root.json")).unwrap()
    }

    pub fn ring(workspace: &Workspace) -> KeyRing {
        workspace.ring(&workspace.settings().unwrap(), Box::new(NoPassphrases)).unwrap()
    }

    pub fn pass(&mut self, hours: i64) {
        self.now += TimeDelta::hours(hours);
    }

    /// Changes `tidegate.toml`.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.path().join("tidegate.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    /// Makes a key, and adds it to `tidegate.toml`.
    pub fn key(&self, name: &str) {
        let made = generate(Kind::Ed25519, None).unwrap();
        let path = self.path().join(format!("keys/{name}.pem"));
        fs::write(&path, made.pem.as_bytes()).unwrap();
        owner_only(&path);
        let path = self.path().join("tidegate.toml");
        let mut text = fs::read_to_string(&path).unwrap();
        let public = write_public(&made.public).unwrap();
        text = format!("{text}\n[keys.{name}]\nuri = \"file:keys/{name}.pem\"\npublic = \"{public}\"\n");
        fs::write(path, text).unwrap();
    }

    /// The private part is lost, or at least not here any more.
    pub fn lose(&self, name: &str) {
        fs::remove_file(self.path().join(format!("keys/{name}.pem"))).unwrap();
    }

    pub fn start(&self) -> Result<Proposal> {
        ceremony::start(
            &mut Operation::new(&self.workspace(), "tester", self.now, &mut tidegate::keys::KeyRing::empty()),
            &ProposalRequest::default(),
        )
    }

    /// Signs a copy, as a holder does on their own machine with a root of their own.
    pub fn sign(&self, proposal: &mut Proposal, name: &str) -> Result<Vec<String>> {
        self.sign_allowing(proposal, name, &BTreeSet::new())
    }

    /// The same, with what is refused by default allowed by name.
    pub fn sign_allowing(
        &self,
        proposal: &mut Proposal,
        name: &str,
        allowed: &BTreeSet<String>,
    ) -> Result<Vec<String>> {
        let verified = proposal::verify(proposal, Some(&self.first_root()))?;
        let path = self.path().join(format!("keys/{name}.pem"));
        let key = FileKey::open(name, &path, &mut NoPassphrases).unwrap();
        assert!(!key.public().scheme().is_empty());
        proposal::sign(proposal, &verified, &key, ("file", "tidegate test"), allowed, self.now)
    }

    /// Copies of a proposal, each signed by one key.
    pub fn copies(&self, proposal: &Proposal, names: &[&str]) -> Vec<(String, Proposal)> {
        names
            .iter()
            .map(|name| {
                let mut copy = proposal.clone();
                self.sign(&mut copy, name).unwrap();
                ((*name).to_owned(), copy)
            })
            .collect()
    }

    /// Proposes, rehearses, has it signed in parallel, combines, finishes, publishes; then the fleet checks.
    pub fn ceremony(&mut self, signers: &[&str]) -> Done {
        self.pass(1);
        let proposal = self.start().unwrap();
        let repository = self.repository();
        let verified = proposal::verify(&proposal, Some(&self.first_root())).unwrap();
        let rehearsal = proposal::rehearse(&proposal, &verified, &repository, &[].into(), self.now).unwrap();
        assert_eq!(rehearsal.stranded().collect::<Vec<_>>(), Vec::<&proposal::Fate>::new());
        let combined =
            proposal::combine(&proposal, &self.copies(&proposal, signers), Some(&self.first_root())).unwrap();
        let workspace = self.workspace();
        ceremony::keep(
            &mut Operation::new(&workspace, "tester", self.now, &mut tidegate::keys::KeyRing::empty()),
            &combined,
        )
        .unwrap();
        let done = self.finish(&workspace).unwrap();
        drop(workspace);
        let text = fs::read_to_string(&done.transcript).unwrap();
        let transcript = proposal::Transcript::parse("t", &text).unwrap();
        assert!(proposal::check(&transcript, &self.repository()).unwrap().iter().all(|file| file.present));
        let gaps = self.publish();
        assert_eq!(gaps.is_empty(), rehearsal.moments.is_empty(), "{gaps:?} {:?}", rehearsal.moments);
        self.everyone_follows();
        done
    }

    pub fn finish(&self, workspace: &Workspace) -> Result<Done> {
        self.finish_allowing(workspace, &BTreeSet::new())
    }

    pub fn finish_allowing(&self, workspace: &Workspace, allowed: &BTreeSet<String>) -> Result<Done> {
        let tool = Tool { version: "tidegate test".into(), sha256: "00".repeat(32) };
        ceremony::finish(&mut Operation::new(workspace, "tester", self.now, &mut Self::ring(workspace)), allowed, &tool)
    }

    /// Renews snapshot and timestamp.
    pub fn refresh(&mut self) {
        self.pass(1);
        // What has expired fails until the new timestamp is there.
        let late = self.repository().role("timestamp").unwrap().expires <= self.now;
        let workspace = self.workspace();
        let settings = workspace.settings().unwrap();
        let mut ring = Self::ring(&workspace);
        tidegate::rollout::refresh::refresh(&mut Operation::new(&workspace, "tester", self.now, &mut ring), &settings)
            .unwrap();
        drop(workspace);
        let gaps = self.publish();
        assert!(late || gaps.is_empty(), "{gaps:?}");
        self.everyone_follows();
    }

    /// Publishes for real, then lets devices of each kind check after every file, in the order in which the files arrived. Gives what
    /// went wrong.
    fn publish(&mut self) -> Vec<String> {
        let repository = self.repository();
        let first = self.published.is_empty();
        let mut gaps = Vec::new();
        for name in self.upload() {
            self.published.insert(name.clone(), repository.files().remove(&name).unwrap().to_vec());
            if first {
                continue;
            }
            for (root, store) in &self.awake {
                for (kind, store) in [("asleep", MemoryStore::new()), ("awake", copy(store))] {
                    if let Err(e) = self.check(root, store) {
                        gaps.push(format!("{kind}, after {name}: {e}"));
                    }
                }
            }
        }
        gaps
    }

    /// Publishes to a folder; the metadata files that arrived there, in order.
    fn upload(&self) -> Vec<String> {
        let (source, site) = (Source::new(self.path()), self.dir.path().join("site"));
        let remote = Remote::open(site.to_str().unwrap()).unwrap();
        let arrived = Mutex::new(Vec::new());
        let note = |event: PublishEvent<'_>| {
            if let PublishEvent::Done(object, _) = event {
                arrived.lock().unwrap().push(object.key.clone());
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let plan = publish::plan(&source, &remote, self.now).await.unwrap();
            publish::execute(&plan, &source, &remote, &note).await.unwrap();
        });
        let arrived = arrived.into_inner().unwrap();
        assert_eq!(arrived.last().map(String::as_str), Some("metadata/timestamp.json"));
        arrived.iter().filter_map(|key| key.strip_prefix("metadata/")).map(str::to_owned).collect()
    }

    fn check(&self, root: &[u8], store: MemoryStore) -> Result<u64, String> {
        let fetch = MemoryFetch::new();
        for (name, bytes) in &self.published {
            fetch.put(format!("{URL}/metadata/{name}"), bytes.as_slice());
        }
        let mut updater = Updater::new(root, Location::at(URL).unwrap(), fetch, store, StubClock::at(self.now));
        updater.refresh().map_err(|e| e.to_string())?;
        for cohort in ["validation", "canary", "early", "general"] {
            let path = TargetPath::new(format!("stable/cohorts/{cohort}/none.json")).unwrap();
            match updater.find(&path) {
                Err(tidegate_client::Error::TargetNotFound { .. }) => {}
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(updater.trusted().unwrap().root().common.version)
    }

    /// Devices at every root version, those that always checked and those that slept, are at the newest; python-tuf agrees.
    pub fn everyone_follows(&mut self) {
        let newest = self.repository().roots().len();
        while self.awake.len() < newest {
            let root = self.repository().roots()[self.awake.len()].clone();
            self.awake.push((root, MemoryStore::new()));
        }
        for (root, store) in &self.awake {
            assert_eq!(self.check(root, store.clone()).unwrap(), newest as u64);
            assert_eq!(self.check(root, MemoryStore::new()).unwrap(), newest as u64);
        }
        if let Some(python) = python_tuf() {
            let folder = self.path().join("metadata");
            let time = self.now.format("%Y-%m-%dT%H:%M:%SZ").to_string();
            let versions: Vec<String> = (1..=newest).map(|version| version.to_string()).collect();
            let mut args = vec![folder.to_str().unwrap(), time.as_str()];
            args.extend(versions.iter().map(String::as_str));
            let said = script(&python, "chain.py", &args);
            assert!(said.as_array().unwrap().iter().all(|from| from["root"] == newest), "{said}");
        }
    }

    /// Puts files of a thief's where devices look.
    pub fn deface(&mut self, files: Vec<(String, Vec<u8>)>) {
        self.published.extend(files);
    }

    /// Whether a device with this store follows.
    pub fn awake_device(&self, index: usize) -> Result<u64, String> {
        let (root, store) = &self.awake[index];
        self.check(root, store.clone())
    }
}

/// A store with the same content, so that a check leaves no trace.
fn copy(store: &MemoryStore) -> MemoryStore {
    use tidegate_client::store::Store as _;
    let copied = MemoryStore::new();
    for name in store.names() {
        copied.save(&name, &store.load(&name, 1 << 24).unwrap().unwrap()).unwrap();
    }
    copied
}

pub fn owner_only(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
