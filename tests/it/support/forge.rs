//! Makes workspaces with the publisher's own metadata library: channels, cohorts and releases without the life of a release.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tidegate::keys::example::EXAMPLE_KEYS;
use tidegate::keys::generate::{Kind, generate};
use tidegate::keys::{FileKey, KeyEntry, KeyRing, KeyUri, NoPassphrases, Signer as _};
use tidegate::metadata::{Delegation, Document, Edit, OnlineLifetimes, Repository, RoleKeys};
use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Name;
use tidegate_model::rollout::{Offer, Offers, Stage};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::Key;

use super::chance::Policy;

const YEAR: TimeDelta = TimeDelta::days(365);
const ONLINE: OnlineLifetimes = OnlineLifetimes { snapshot: TimeDelta::days(7), timestamp: TimeDelta::days(1) };

/// A workspace with one channel, `stable`, and one product, `os`.
pub struct Forge {
    folder: tempfile::TempDir,
    keys: BTreeMap<&'static str, Key>,
    now: DateTime<Utc>,
}

/// The bytes of a file and what metadata lists of it.
struct Listed {
    length: u64,
    sha256: [u8; 32],
}

impl Forge {
    /// A workspace with these cohorts, in equal shares, and no release. Its keys are fresh ones.
    pub fn new(cohorts: &[&str]) -> Self {
        Self::build(&cohorts.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), false)
    }

    /// The same with the example keys.
    pub fn with_example_keys(cohorts: &[&str]) -> Self {
        Self::build(&cohorts.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), true)
    }

    /// A workspace with so many cohorts: `c0000`, `c0001` and so on.
    pub fn with_cohorts(count: usize) -> Self {
        Self::build(&(0..count).map(|number| format!("c{number:04}")).collect::<Vec<_>>(), false)
    }

    /// A workspace with these cohorts, the last of which is protected by this gate.
    pub fn with_gate(cohorts: &[&str], gate: &str) -> Self {
        let last = cohorts.len() - 1;
        let cohorts: Vec<_> =
            cohorts.iter().enumerate().map(|(index, name)| (*name, (index == last).then_some(gate))).collect();
        Self::with_gates(&cohorts)
    }

    /// A workspace with these cohorts, some of which are protected, each by its gate.
    pub fn with_gates(cohorts: &[(&str, Option<&str>)]) -> Self {
        Self::over(&map_of(cohorts), Utc::now().trunc_subsecs(0) - TimeDelta::hours(2), false)
    }

    /// Has the cohorts be protected by these gates from now on, as a ceremony does it: those whose protection changes are signed anew.
    pub fn guard(&mut self, cohorts: &[(&str, Option<&str>)]) {
        let map = map_of(cohorts);
        let before = CohortMap::parse(&self.read_target("stable/cohorts.json")).unwrap();
        let listed = self.store(&map.to_bytes().unwrap());
        let changed = map
            .cohorts()
            .iter()
            .filter(|cohort| before.cohort(&cohort.name).unwrap().protected.is_some() != cohort.protected.is_some());
        let changed: Vec<String> = changed.map(|cohort| layout::cohort_role(&name("stable"), &cohort.name)).collect();
        self.edit(|edit| {
            edit.change("stable", YEAR, |stable| {
                stable.set_target("stable/cohorts.json", listed.length, &listed.sha256, None);
            })
            .unwrap();
            for role in &changed {
                edit.renew(role, YEAR).unwrap();
            }
        });
    }

    fn build(cohorts: &[String], example: bool) -> Self {
        let cohorts: Vec<_> = cohorts.iter().map(|name| (name.as_str(), None)).collect();
        Self::over(&map_of(&cohorts), Utc::now().trunc_subsecs(0) - TimeDelta::hours(2), example)
    }

    /// A workspace with the example keys in which all is as `policy` has it; the cohorts' roles live as long as `lifetimes` say.
    pub fn of_policy(policy: &Policy, lifetimes: &[TimeDelta]) -> Self {
        let forge = Self::over(&policy.map, policy.now, true);
        let manifests: BTreeMap<u64, Listed> =
            policy.manifests.iter().map(|m| (m.sequence, forge.store(&m.to_bytes().unwrap()))).collect();
        let image = forge.store(b"img");
        let base = Repository::open(forge.dir()).unwrap();
        let mut edit = Edit::new(&base, forge.now, ONLINE).unwrap();
        edit.change("stable", YEAR, |stable| {
            for manifest in &policy.manifests {
                let file = &manifests[&manifest.sequence];
                let path = layout::manifest_path(&manifest.channel, &manifest.product, &manifest.version);
                stable.set_target(&path, file.length, &file.sha256, None);
                for artifact in &manifest.artifacts {
                    stable.set_target(&artifact.path, image.length, &image.sha256, None);
                }
            }
        })
        .unwrap();
        for ((cohort, offers), lifetime) in policy.map.cohorts().iter().zip(&policy.offers).zip(lifetimes) {
            let role = layout::cohort_role(&name("stable"), &cohort.name);
            let mut document = base.role(&role).unwrap().document.clone();
            if let Some(offers) = offers {
                let file = forge.store(&offers.to_bytes().unwrap());
                let path = layout::assignment_path(&name("stable"), &cohort.name, &name("os"));
                let custom = Map::from_iter([("tidegate".to_owned(), offers.to_value().unwrap())]);
                document.set_target(&path, file.length, &file.sha256, Some(custom));
            }
            edit.put(&role, document, *lifetime);
        }
        edit.finish(&mut forge.ring()).unwrap().unwrap().changes.commit(forge.dir()).unwrap();
        forge
    }

    fn over(map: &CohortMap, now: DateTime<Utc>, example: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut forge = Self { folder, keys: BTreeMap::new(), now };
        forge.make_keys(example);
        let cohorts: Vec<String> = map.cohorts().iter().map(|cohort| cohort.name.to_string()).collect();
        let map = forge.store(&map.to_bytes().unwrap());

        let mut edit = Edit::initial(forge.now, ONLINE);
        let roles = [
            ("root", forge.role(2, &["root-1", "root-2", "root-3"])),
            ("targets", forge.role(2, &["targets-1", "targets-2", "targets-3"])),
            ("snapshot", forge.role(1, &["snapshot"])),
            ("timestamp", forge.role(1, &["timestamp"])),
        ];
        edit.put("root", Document::root(&roles.into_iter().collect()), YEAR);
        let mut targets = Document::targets();
        let paths = layout::channel_patterns(&name("stable"));
        targets.set_delegation(&Delegation {
            name: "stable".into(),
            keys: forge.role(2, &["release-1", "release-2"]),
            paths,
        });
        edit.put("targets", targets, YEAR);
        let mut stable = Document::targets();
        stable.set_target("stable/cohorts.json", map.length, &map.sha256, None);
        for cohort in &cohorts {
            stable.set_delegation(&Delegation {
                name: format!("stable.{cohort}"),
                keys: forge.role(1, &["rollout"]),
                paths: layout::cohort_patterns(&name("stable"), &name(cohort)),
            });
            edit.put(&format!("stable.{cohort}"), Document::targets(), YEAR);
        }
        edit.put("stable", stable, YEAR);
        edit.finish(&mut forge.ring()).unwrap().unwrap().changes.commit(forge.folder.path()).unwrap();
        forge
    }

    /// The workspace.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// The root that devices are shipped with.
    pub fn root(&self) -> Vec<u8> {
        std::fs::read(self.dir().join("metadata/1.root.json")).unwrap()
    }

    /// When the last change was made.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// Lets a minute pass.
    pub fn later(&mut self) {
        self.now += TimeDelta::minutes(1);
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: TimeDelta) {
        self.now += time;
    }

    /// Lets time pass until it is as late as in another workspace.
    pub fn not_before(&mut self, other: &Self) {
        self.now = self.now.max(other.now);
    }

    /// A second workspace in the state of this one: another checkout.
    pub fn fork(&self) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(self.dir(), folder.path());
        Self { folder, keys: self.keys.clone(), now: self.now }
    }

    /// Registers a release of `os` with these artifacts; its sequence is `sequence`.
    pub fn release(&mut self, version: &str, sequence: u64, artifacts: &[(&str, &[u8])]) {
        self.release_with(version, sequence, artifacts, None);
    }

    /// The same, with these bytes as index, pack and patch from 1.0.0 of every artifact.
    pub fn release_with(
        &mut self,
        version: &str,
        sequence: u64,
        artifacts: &[(&str, &[u8])],
        delivery: Option<[&[u8]; 3]>,
    ) {
        let delivery = delivery.map(|files| {
            let [index, pack, patch] = files.map(|bytes| {
                let file = self.store(bytes);
                json!({"length": file.length, "sha256": to_hex(&file.sha256)})
            });
            let start = json!({"version": "1.0.0", "length": 1, "sha256": "00".repeat(32)});
            let directory = json!({"length": 1, "sha256": "11".repeat(32)});
            let (length, sha256) = (&patch["length"], &patch["sha256"]);
            let patch = json!({"from": start, "length": length, "sha256": sha256, "directory": directory});
            json!({"index": index, "pack": pack, "patches": [patch]})
        });
        let artifacts: Vec<(String, Listed)> = artifacts
            .iter()
            .map(|(file, bytes)| (format!("stable/releases/os/{version}/{file}"), self.store(bytes)))
            .collect();
        let listed: Vec<Value> = artifacts
            .iter()
            .map(|(path, file)| {
                let mut listed = json!({
                    "name": path.rsplit('/').next(), "path": path, "length": file.length, "sha256": to_hex(&file.sha256),
                    "hardware": ["board-a"], "media_type": "application/octet-stream",
                });
                if let Some(delivery) = &delivery {
                    listed["delivery"] = delivery.clone();
                }
                listed
            })
            .collect();
        let manifest = json!({
            "schema": 1, "product": "os", "version": version, "sequence": sequence, "channel": "stable",
            "created": tidegate_tuf::time::format(self.now), "build": {"id": format!("build-{sequence}")},
            "urgency": "normal", "artifacts": listed,
        });
        let manifest = Manifest::from_value(&manifest).unwrap().to_bytes().unwrap();
        let manifest = self.store(&manifest);
        self.edit(|edit| {
            edit.change("stable", YEAR, |stable| {
                for (path, file) in &artifacts {
                    stable.set_target(path, file.length, &file.sha256, None);
                }
                let path = format!("stable/releases/os/{version}/manifest.json");
                stable.set_target(&path, manifest.length, &manifest.sha256, None);
            })
            .unwrap();
        });
    }

    /// Has the channel list a release no longer.
    pub fn unlist(&mut self, version: &str) {
        let folder = format!("stable/releases/os/{version}/");
        let listed = Repository::open(self.dir()).unwrap().targets("stable").unwrap().targets.clone();
        self.edit(|edit| {
            edit.change("stable", YEAR, |stable| {
                for path in listed.keys().filter(|path| path.starts_with(&folder)) {
                    stable.remove_target(path);
                }
            })
            .unwrap();
        });
    }

    /// Offers a cohort a registered release and nothing else, to everyone in it at once.
    pub fn assign(&mut self, cohort: &str, version: &str) {
        let offer = self.offer(version);
        self.assign_all(cohort, vec![offer]);
    }

    /// The same, to be taken through the gate.
    pub fn assign_privately(&mut self, cohort: &str, version: &str) {
        let offer = Offer { private: true, ..self.offer(version) };
        self.assign_all(cohort, vec![offer]);
    }

    /// An offer of a registered release to everyone at once.
    pub fn offer(&self, version: &str) -> Offer {
        let bytes = self.manifest(version);
        let manifest = Manifest::parse(&bytes).unwrap();
        let listed = (Digest::of(&bytes), bytes.len() as u64);
        Offer::new(manifest.version, manifest.sequence, listed, Stage::Limited, self.now)
    }

    /// Offers a cohort this list.
    pub fn assign_all(&mut self, cohort: &str, offers: Vec<Offer>) {
        let list = Offers::new(self.now, offers);
        self.assign_bytes(cohort, &list.to_bytes().unwrap(), list.to_value().unwrap());
    }

    /// Lists any bytes as what a cohort is offered, with any `custom.tidegate`.
    pub fn assign_bytes(&mut self, cohort: &str, bytes: &[u8], custom: Value) {
        let file = self.store(bytes);
        self.list_in_cohort(cohort, &file, custom);
    }

    fn list_in_cohort(&mut self, cohort: &str, file: &Listed, custom: Value) {
        let custom = Map::from_iter([("tidegate".to_owned(), custom)]);
        self.edit(|edit| {
            edit.change(&format!("stable.{cohort}"), YEAR, |role| {
                let path = format!("stable/cohorts/{cohort}/os.json");
                role.set_target(&path, file.length, &file.sha256, Some(custom));
            })
            .unwrap();
        });
    }

    /// The targets that a role lists.
    pub fn content(&self, role: &str) -> String {
        let repository = Repository::open(self.dir()).unwrap();
        format!("{:?}", repository.targets(role).unwrap().targets)
    }

    /// Signs roles anew as they are.
    pub fn renew(&mut self, roles: &[&str]) {
        self.edit(|edit| roles.iter().for_each(|role| edit.renew(role, YEAR).unwrap()));
    }

    /// Any change to the metadata, a minute after the last one.
    pub fn edit(&mut self, change: impl FnOnce(&mut Edit<'_>)) {
        self.now += TimeDelta::minutes(1);
        let base = Repository::open(self.dir()).unwrap();
        let mut edit = Edit::new(&base, self.now, ONLINE).unwrap();
        change(&mut edit);
        edit.finish(&mut self.ring()).unwrap().unwrap().changes.commit(self.dir()).unwrap();
    }

    /// Makes it one that the commands take for a workspace, with the keys that it has.
    pub fn with_settings(self) -> Self {
        let mut settings = tidegate::workspace::init::TEMPLATE[0].1.to_owned();
        for (name, public) in &self.keys {
            let uri = format!("uri = \"file:keys/{name}.pem\"");
            let public = tidegate::keys::write_public(public).unwrap();
            assert!(settings.contains(&uri), "{name}");
            settings = settings.replace(&uri, &format!("{uri}\npublic = \"{public}\""));
        }
        std::fs::write(self.dir().join("tidegate.toml"), settings).unwrap();
        self
    }

    /// The version of a role.
    pub fn version(&self, role: &str) -> u64 {
        Repository::open(self.dir()).unwrap().role(role).unwrap().version
    }

    /// The cohort that a device without facts belongs to.
    pub fn cohort_of(&self, device: &str) -> String {
        let map = self.read_target("stable/cohorts.json");
        let choice = CohortMap::parse(&map).unwrap().choose(&device.parse().unwrap(), &Facts::default());
        choice.cohort.to_string()
    }

    /// The approved manifest of a release.
    pub fn manifest(&self, version: &str) -> Vec<u8> {
        self.read_target(&format!("stable/releases/os/{version}/manifest.json"))
    }

    fn read_target(&self, path: &str) -> Vec<u8> {
        let repository = Repository::open(self.dir()).unwrap();
        let file = &repository.targets("stable").unwrap().targets[path];
        std::fs::read(self.artifact(&file.hashes.name_prefix())).unwrap()
    }

    /// Where the workspace keeps the bytes with this SHA-256.
    pub fn artifact(&self, sha256: &str) -> PathBuf {
        self.dir().join(tidegate::workspace::artifacts::find(self.dir(), &sha256.parse().unwrap()))
    }

    fn store(&self, bytes: &[u8]) -> Listed {
        let sha256: [u8; 32] = Sha256::digest(bytes).into();
        let path = self.artifact(&to_hex(&sha256));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        Listed { length: bytes.len() as u64, sha256 }
    }

    fn make_keys(&mut self, example: bool) {
        for key in EXAMPLE_KEYS {
            let pem = if example { key.pem.to_owned() } else { generate(Kind::Ed25519, None).unwrap().pem.to_string() };
            self.keys.insert(key.name, FileKey::from_pem(key.name, &pem, &mut NoPassphrases).unwrap().public().clone());
            let path = self.key_file(key.name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, pem).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            }
        }
    }

    fn key_file(&self, name: &str) -> PathBuf {
        self.dir().join("keys").join(format!("{name}.pem"))
    }

    fn ring(&self) -> KeyRing {
        let entries = self.keys.iter().map(|(name, public)| KeyEntry {
            name: (*name).to_owned(),
            uri: KeyUri::File(self.key_file(name)),
            public: public.clone(),
            holder: None,
        });
        KeyRing::new(self.dir(), entries.collect(), Box::new(NoPassphrases))
    }

    fn role(&self, threshold: u64, names: &[&str]) -> RoleKeys {
        RoleKeys { keys: names.iter().map(|name| self.keys[name].clone()).collect(), threshold }
    }
}

/// A map of these cohorts in equal shares, some protected.
fn map_of(cohorts: &[(&str, Option<&str>)]) -> CohortMap {
    let share = 1_000_000 / cohorts.len();
    let rest = 1_000_000 - share * cohorts.len();
    let cohort = |(index, (name, gate)): (usize, &(&str, Option<&str>))| {
        let share = if index == 0 { share + rest } else { share };
        match gate {
            Some(gate) => json!({"name": name, "share": share, "protected": {"gate": gate}}),
            None => json!({"name": name, "share": share}),
        }
    };
    let cohorts: Vec<_> = cohorts.iter().enumerate().map(cohort).collect();
    CohortMap::from_value(&json!({"schema": 1, "salt": "00".repeat(32), "cohorts": cohorts})).unwrap()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
