//! Protected cohorts: what is meant for them is where the public cannot read it, at every instant, and nowhere else.

mod buckets;
mod clean;
mod deliveries;
mod elsewhere;
mod layout;
mod leftovers;
mod moves;
mod rollouts;
mod vectors;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::Forge;
use crate::support::faulty::{Fault, Faulty};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use serde_json::Value;
use tidegate::Error;
use tidegate::audit::protect::{Maps, Protection};
use tidegate::audit::{self, Origin as _, PublishedRepository, View};
use tidegate::publish::{self, Plan, PublishReport, Remote, Source, StoreOrigin};
use tidegate_model::cohort::CohortMap;
use tidegate_model::listing::Listing;
use tidegate_tuf::path::TargetPath;

const GATE: &str = "https://gate.example.com";

/// Two places beside each other.
struct Places(tempfile::TempDir);

impl Places {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn public(&self) -> std::path::PathBuf {
        self.0.path().join("public")
    }

    fn private(&self) -> std::path::PathBuf {
        self.0.path().join("private")
    }

    fn open(&self) -> Remote {
        folder(&self.public()).with_private(folder(&self.private())).unwrap()
    }

    async fn plan(&self, forge: &Forge) -> Result<Plan, Error> {
        publish::plan(&Source::new(forge.dir()), &self.open(), forge.now()).await
    }

    async fn publish(&self, forge: &Forge) -> Result<PublishReport, Error> {
        let (remote, source) = (self.open(), Source::new(forge.dir()));
        let plan = publish::plan(&source, &remote, forge.now()).await?;
        let report = publish::execute(&plan, &source, &remote, &|_| {}).await?;
        let audit = publish::read_back(&plan, &source, &remote, forge.now()).await?;
        assert!(audit.ok, "{audit}");
        Ok(report)
    }

    /// What is in the two places, by two implementations, and then as the public sees it.
    async fn verify(&self, forge: &Forge) -> (audit::AuditReport, audit::AuditReport) {
        let open = |path: &Path| Arc::new(PublishedRepository::open(path.to_str().unwrap()).unwrap());
        let all = View::both(open(&self.public()), open(&self.private()));
        let now = forge.now();
        let all = audit::verify_where(all, "both", forge.root(), now, Arc::new(|_| true)).await.unwrap();
        let public = View::public(open(&self.public()));
        let public = audit::verify_where(public, "public", forge.root(), now, Arc::new(|_| true)).await.unwrap();
        (all, public)
    }

    fn listing(&self, role: &str) -> BTreeSet<String> {
        let bytes = std::fs::read(self.private().join(format!("gate/{role}.json"))).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["cohort"], role);
        value["objects"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }
}

fn folder(path: &Path) -> Remote {
    Remote::open(path.to_str().unwrap()).unwrap()
}

/// All objects below a folder.
fn objects(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                pending.push(entry.path());
            } else if entry.file_name() != ".publish.lock" {
                found.insert(entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found
}

/// The objects of a release below a folder, without their hashes.
fn release(dir: &Path, version: &str) -> Vec<String> {
    let folder = format!("targets/stable/releases/os/{version}/");
    let names =
        objects(dir).into_iter().filter_map(|key| Some(key.strip_prefix(&folder)?.split_once('.')?.1.to_owned()));
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
}

fn forge() -> Forge {
    let mut forge = Forge::with_gate(&["early", "secret"], GATE);
    forge.release("1.0.0", 1, &[("os.img", b"public one")]);
    forge.assign("early", "1.0.0");
    forge.release("2.0.0", 2, &[("os.img", b"secret two")]);
    forge.assign_privately("secret", "2.0.0");
    forge
}

/// Two stores in memory.
struct Stores {
    public: Arc<dyn ObjectStore>,
    private: Arc<dyn ObjectStore>,
}

impl Stores {
    fn new() -> Self {
        Self { public: Arc::new(InMemory::new()), private: Arc::new(InMemory::new()) }
    }

    fn open(&self) -> Remote {
        Self::over(&self.public, &self.private)
    }

    fn over(public: &Arc<dyn ObjectStore>, private: &Arc<dyn ObjectStore>) -> Remote {
        let public = Remote::conditional(Arc::clone(public), "", "memory://public");
        public.with_private(Remote::conditional(Arc::clone(private), "", "memory://private")).unwrap()
    }

    /// The same, each request of which, to whichever of the two, is put to a script first.
    fn scripted(&self, script: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Remote {
        let count = AtomicU64::new(0);
        let script: crate::support::faulty::Script =
            Arc::new(move |_: u64, _: &str| script(count.fetch_add(1, Ordering::SeqCst)));
        let wrap = |store: &Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            Arc::new(Faulty::new(Arc::clone(store), Arc::clone(&script)))
        };
        Self::over(&wrap(&self.public), &wrap(&self.private))
    }
}

impl Stores {
    /// One who comes to these and dies before the timestamp is written.
    fn without_the_last(&self) -> Remote {
        let script = |_: u64, what: &str| match what {
            "put metadata/timestamp.json" => Fault::Before,
            _ => Fault::None,
        };
        let public: Arc<dyn ObjectStore> = Arc::new(Faulty::new(Arc::clone(&self.public), Arc::new(script)));
        Self::over(&public, &self.private)
    }
}

/// Both places are sound: all is there, nothing that is protected lies open, and gates may give out whatever is taken through them. Gives
/// the version of the live timestamp.
async fn sound(forge: &Forge, remote: &Remote, what: &str) -> u64 {
    let origin = Arc::new(StoreOrigin::new(remote.clone()));
    let view =
        View { origin: origin.clone(), open: Some(origin.clone()), private: None, is_whole: true, snapshot: None };
    let (now, wanted) = (forge.now(), Arc::new(|_: &str| true));
    let report = audit::verify_where(view, "both", forge.root(), now, wanted).await.unwrap();
    assert!(report.ok, "{what}: {report}");
    let (root, what) = (forge.root(), what.to_owned());
    let origin = StoreOrigin::new(remote.clone());
    tokio::task::spawn_blocking(move || given_out(&origin, &root, now, &what)).await.unwrap()
}

/// What devices of protected cohorts take through a gate is named by the listings; gives the version of the timestamp.
fn given_out(origin: &StoreOrigin, root: &[u8], now: chrono::DateTime<chrono::Utc>, what: &str) -> u64 {
    let tree = audit::walk(origin, root, now).unwrap();
    assert_eq!(tree.faults, [], "{what}");
    let mut maps = Maps::new();
    for (path, file) in Protection::maps(tree.by_name()) {
        let name = TargetPath::new(&path).unwrap().file_path(&file.hashes, true);
        let mut bytes = Vec::new();
        let mut sink = |chunk: &[u8]| {
            bytes.extend_from_slice(chunk);
            Ok(())
        };
        assert!(origin.target(&name, file.length, &mut sink).unwrap());
        maps.insert(*file.hashes.sha256_digest().unwrap(), CohortMap::parse(&bytes).unwrap());
    }
    for (role, objects) in Protection::of(tree.by_name(), &maps).listings() {
        let listing = origin.listing(role).unwrap().unwrap_or_else(|| panic!("{what}: {role} has no listing"));
        let missing: Vec<_> = objects.difference(&Listing::parse(&listing, role).unwrap().objects).cloned().collect();
        assert_eq!(missing, [""; 0], "{what}: its gate would not give to {role} what it needs");
    }
    tree.timestamp.unwrap().version
}
