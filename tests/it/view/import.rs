//! Taking over a repository that python-tuf made.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::story::{text, tidegate};
use crate::support::forge::copy;
use crate::support::{Serving, python_tuf, script, tools};

/// Runs a command that must work, and gives what it prints.
fn done(args: &[&str]) -> String {
    let out = tidegate(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// An old repository: `repository`, its first root `1.root.json`, and two of the root's keys, `old-root-0.pem` and `old-root-1.pem`.
pub struct Old {
    folder: tempfile::TempDir,
    /// The Python with python-tuf, if that made it.
    python: PathBuf,
    /// The ids of the root's keys, if they are RSA.
    ids: Vec<String>,
}

impl Old {
    /// A repository of python-tuf at its second root: `consistent` snapshots or not, with delegations or not.
    fn new(consistent: bool, delegations: bool) -> Option<Self> {
        let python = python_tuf()?;
        let folder = tempfile::tempdir().unwrap();
        let flag = |flag: bool| if flag { "1" } else { "0" };
        script(&python, "takeover.py", &[text(folder.path()), flag(consistent), flag(delegations)]);
        Some(Self { folder, python, ids: Vec::new() })
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What python-tuf's client makes of the repository at `url`, from root 1 and with the state it has in `client`.
    fn update(&self, url: &str, client: &str, path: &str) -> Value {
        let (root, client) = (self.path("1.root.json"), self.path(client));
        script(&self.python, "update.py", &[url, text(&root), text(&client), path])
    }

    /// Signs a role of the proposal with an RSA key of the old root by openssl alone, and has the signature taken in.
    fn sign_by_openssl(&self, fleet: &str, key: &str, id: &str) {
        let (message, signature, key) = (self.path("message"), self.path("signature"), self.path(key));
        done(&["-C", fleet, "ceremony", "show", "--signed-bytes", "root", "--out", text(&message)]);
        let pss = ["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"];
        let files = ["-sign", text(&key), "-out", text(&signature), text(&message)];
        let openssl = Command::new("openssl").args(["dgst", "-sha256"]).args(pss).args(files).status();
        assert!(openssl.unwrap().success());
        let other = self.ids.iter().find(|other| *other != id).unwrap();
        let combine = |id: &str| {
            let signature = format!("root:{id}={}", text(&signature));
            tidegate(&["-C", fleet, "ceremony", "combine", "--signature", &signature])
        };
        let refused = combine(other);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(&format!("is by the key {}, not by {}", &id[..8], &other[..8])), "{said}");
        assert!(combine(id).status.success());
    }

    /// Takes it over into `fleet`, with `next` as the new root, and has the ceremony signed.
    fn take_over(&self, next: u64) -> PathBuf {
        let (fleet, repository, root) = (self.path("fleet"), self.path("repository"), self.path("1.root.json"));
        let said = done(&["import", text(&repository), text(&fleet), "--root", text(&root), "--example-keys"]);
        assert!(said.starts_with(&format!("root {next} waits for signatures")), "{said}");
        let fleet_text = text(&fleet).to_owned();
        let proposal = fleet.join("proposals/ceremony.json");
        let digest: Value = serde_json::from_str(&done(&["-C", &fleet_text, "--json", "ceremony", "status"])).unwrap();
        let digest =
            digest["digest"].as_str().or_else(|| digest["review"]["digest"].as_str()).unwrap()[..16].to_owned();
        let sign = |key: &str| done(&["-C", &fleet_text, "ceremony", "sign", "--key", key, "--confirm", &digest]);
        for key in ["root-1", "root-2", "targets-1", "targets-2", "release-1", "release-2"] {
            sign(key);
        }
        let out = tidegate(&["-C", &fleet_text, "ceremony", "finish"]);
        assert_eq!(out.status.code(), Some(1), "not without the old keys");
        let mut by_file = vec!["old-root-0.pem", "old-root-1.pem"];
        if let [_, id] = &self.ids[..] {
            self.sign_by_openssl(&fleet_text, by_file.pop().unwrap(), id);
        }
        for key in by_file {
            let key = format!("file:{}", text(&self.path(key)));
            done(&["ceremony", "sign", text(&proposal), "--root", text(&root), "--key", &key, "--confirm", &digest]);
        }
        done(&["-C", &fleet_text, "ceremony", "finish"]);
        fleet
    }
}

async fn follows(consistent: bool, delegations: bool) {
    let Some(old) = Old::new(consistent, delegations) else { return };
    // A client of the old repository, that knows it as it was.
    let server = Serving::start(&old.path("repository")).await;
    let said = old.update(&server.url(), "client", "firmware.bin");
    assert_eq!(said["versions"]["root"], 2, "{said}");
    drop(server);

    let fleet = old.take_over(3);
    let public = old.path("public");
    let fleet = text(&fleet);
    std::fs::write(old.path("image"), "new").unwrap();
    let image = old.path("image");
    for args in [
        &["release", "new", "1.0.0"][..],
        &["release", "add", "1.0.0", text(&image), "--name", "rootfs.img", "--hardware", "board-a"],
        &["release", "manifest", "1.0.0"],
        &["release", "sign", "1.0.0", "--key", "release-1"],
        &["release", "sign", "1.0.0", "--key", "release-2"],
        &["release", "validate", "1.0.0"],
        &["release", "register", "1.0.0"],
        &["publish", text(&public)],
        &["log", "--verify"],
    ] {
        done(&[&["-C", fleet], args].concat());
    }
    let root = old.path("1.root.json");
    let said = done(&["verify", text(&public), "--root", text(&root)]);
    assert!(said.contains("from root 3 on"), "tough cannot read the old roots: {said}");

    // The same client, and one that was shipped with the first root and never asked, follow over.
    let server = Serving::start(&public).await;
    for client in ["client", "new-client"] {
        let said = old.update(&server.url(), client, "stable/releases/os/1.0.0/rootfs.img");
        assert_eq!(said["versions"]["root"], 3, "{said}");
        assert!(said["targets"]["stable/releases/os/1.0.0/rootfs.img"].is_string(), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_tuf_client_follows_over_the_takeover() {
    follows(true, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_does_from_one_without_consistent_snapshots_and_with_delegations() {
    follows(false, true).await;
}

/// What a real tool made once, with the keys of its root: `tests/tools/README.md`.
pub fn recorded(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/recorded").join(tool)
}

/// Copies a file that only its owner may read.
pub fn private_copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The repository that tuftool made, at its second root. One of its keys is in the form of older tools.
pub fn by_tuftool() -> Old {
    let mut old = Old { folder: tempfile::tempdir().unwrap(), python: PathBuf::new(), ids: Vec::new() };
    let made = recorded("tuftool");
    copy(&made.join("repository"), &old.path("repository"));
    std::fs::copy(made.join("1.root.json"), old.path("1.root.json")).unwrap();
    for name in ["old-root-0", "old-root-1"] {
        let (key, path) = (made.join(format!("{name}.pem")), old.path(&format!("{name}.pem")));
        private_copy(&key, &path);
        if name == "old-root-0" {
            let args = ["pkey", "-traditional", "-in", text(&key), "-out", text(&path)];
            assert!(Command::new("openssl").args(args).status().unwrap().success());
        }
    }
    // As the root declares them: tuftool's public keys have no line feed at their end, which makes other ids.
    let root: Value = serde_json::from_slice(&std::fs::read(old.path("1.root.json")).unwrap()).unwrap();
    let ids = root["signed"]["roles"]["root"]["keyids"].as_array().unwrap();
    old.ids = ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    old
}

/// All keys are RSA, times have fractions, and the name of a delegated role is escaped in its file's.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_tuftool_made_is_taken_over() {
    if !tools::have("openssl", "version") {
        return;
    }
    let old = by_tuftool();
    let (place, root) = (old.path("repository"), old.path("1.root.json"));
    assert!(place.join("metadata/1.apps%2Fa%20b.json").is_file());
    let state = old.path("state");
    std::fs::create_dir(&state).unwrap();
    assert_eq!(by_tough_client(&place, &root, Some(&state), "firmware.bin").await, (2, b"old firmware".to_vec()));
    let fleet = old.take_over(3);
    done(&["-C", text(&fleet), "publish", text(&place)]);
    let said = done(&["verify", text(&place), "--root", text(&root)]);
    assert!(said.contains("root 3"), "{said}");
    // A client with its state and one without follow from the first root, at the old place.
    for state in [Some(&*state), None] {
        let (version, map) = by_tough_client(&place, &root, state, "stable/cohorts.json").await;
        assert_eq!((version, serde_json::from_slice::<Value>(&map).is_ok()), (3, true));
    }
}

/// Files, with the name of a target as `docs/migrate.md` has a web server rewrite it: tough asks for `HASH.folder/name`, and TUF 5.7.3 has
/// `folder/HASH.name`.
#[derive(Debug, Clone)]
struct Rewritten;

#[async_trait::async_trait]
impl tough::Transport for Rewritten {
    async fn fetch(&self, mut url: url::Url) -> Result<tough::TransportStream, tough::TransportError> {
        let path = url.path().to_owned();
        if let Some((top, (hash, rest))) = path
            .split_once("/targets/")
            .and_then(|(top, file)| Some((top, file.split_once('.').filter(|(hash, _)| hash.len() == 64)?)))
            && let Some((folder, name)) = rest.rsplit_once('/')
        {
            url.set_path(&format!("{top}/targets/{folder}/{hash}.{name}"));
        }
        tough::FilesystemTransport.fetch(url).await
    }
}

/// What tough's client makes of the repository in `place`: the version of its root, and the target `name`.
async fn by_tough_client(place: &Path, root: &Path, state: Option<&Path>, name: &str) -> (u64, Vec<u8>) {
    use futures::TryStreamExt as _;

    let root = std::fs::read(root).unwrap();
    let below = |folder: &str| url::Url::from_directory_path(place.join(folder)).unwrap();
    let mut loader = tough::RepositoryLoader::new(&root, below("metadata"), below("targets"));
    if let Some(state) = state {
        loader = loader.datastore(state);
    }
    let repository = loader.transport(Rewritten).load().await.unwrap();
    let target = repository.read_target(&tough::TargetName::new(name).unwrap()).await.unwrap().unwrap();
    let bytes = target.try_fold(Vec::new(), |all, chunk| async move { Ok([all, chunk.to_vec()].concat()) }).await;
    (repository.root().signed.version.get(), bytes.unwrap())
}

#[test]
fn what_does_not_verify_is_not_taken_over() {
    let Some(old) = Old::new(true, false) else { return };
    let (fleet, repository, root) = (old.path("fleet"), old.path("repository"), old.path("1.root.json"));
    let import = |root: &Path| {
        let out = tidegate(&["import", text(&repository), text(&fleet), "--root", text(root), "--example-keys"]);
        assert_eq!(out.status.code(), Some(1));
        assert!(!fleet.exists(), "nothing is left behind");
        String::from_utf8(out.stderr).unwrap()
    };
    let other = old.path("other.json");
    let bytes = std::fs::read_to_string(&root).unwrap();
    std::fs::write(&other, bytes.replace("\"sig\": \"", "\"sig\": \"00")).unwrap();
    assert!(import(&other).contains("the given root does not verify"));

    let first = repository.join("metadata/1.root.json");
    let kept = std::fs::read(&first).unwrap();
    std::fs::remove_file(&first).unwrap();
    assert!(import(&old.path("2.root.json")).contains("[I-CHAIN]"));
    std::fs::write(&first, kept).unwrap();
    std::fs::remove_file(repository.join("metadata/timestamp.json")).unwrap();
    assert!(import(&root).contains("[I-SOUND]"));
}
