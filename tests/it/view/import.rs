//! Taking over a repository that python-tuf made.

use std::num::NonZeroU64;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};
use tidegate::keys::generate::{Kind, generate};
use tidegate::keys::{KeyUri, NoPassphrases, Signer, open};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::json::canonical;

use super::story::{text, tidegate};
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

    fn root_key(&self, name: &str) -> std::rc::Rc<dyn Signer> {
        let uri = KeyUri::File(self.path(&format!("{name}.pem")));
        open("old", &uri, Path::new("."), None, &mut NoPassphrases).unwrap()
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

/// A repository made by tough's editor, which is what tuftool is made of: its layout, canonical JSON and key ids.
pub async fn by_tough() -> Old {
    use tough::editor::RepositoryEditor;
    use tough::key_source::{KeySource, LocalKeySource};

    let mut old = Old { folder: tempfile::tempdir().unwrap(), python: PathBuf::new(), ids: Vec::new() };
    let mut keys = serde_json::Map::new();
    // tuftool has openssl make its keys. One is in the form of older tools.
    for name in ["old-root-0", "old-root-1"] {
        let path = old.path(&format!("{name}.pem"));
        let mut openssl = Command::new("openssl");
        if name == "old-root-0" {
            openssl.args(["genrsa", "-traditional", "-out", text(&path), "2048"]);
        } else {
            openssl.args([
                "genpkey",
                "-quiet",
                "-algorithm",
                "RSA",
                "-pkeyopt",
                "rsa_keygen_bits:2048",
                "-out",
                text(&path),
            ]);
        }
        assert!(openssl.status().unwrap().success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let key = old.root_key(name);
        keys.insert(key.public().id().to_string(), key.public().to_value());
        old.ids.push(key.public().id().to_string());
    }
    let online = generate(Kind::P256, None).unwrap();
    // tough reads keys of curves as DER alone.
    let pem = online.pem.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    let der = base64::engine::general_purpose::STANDARD.decode(pem).unwrap();
    std::fs::write(old.path("online.der"), der).unwrap();
    keys.insert(online.public.id().to_string(), online.public.to_value());
    let by_online = json!({"keyids": [online.public.id()], "threshold": 1});
    let signed = json!({
        "_type": "root", "spec_version": "1.0.0", "version": 1, "expires": "2100-01-01T00:00:00Z",
        "consistent_snapshot": true, "keys": keys,
        "roles": {
            "root": {"keyids": old.ids, "threshold": 2},
            "targets": by_online, "snapshot": by_online, "timestamp": by_online,
        },
    });
    let bytes = canonical(&signed).unwrap();
    let sign = |at: usize| {
        let signature = old.root_key(&format!("old-root-{at}")).sign(&bytes).unwrap();
        json!({"keyid": old.ids[at], "sig": to_hex(&signature)})
    };
    let signatures = [sign(0), sign(1)];
    let root = old.path("1.root.json");
    std::fs::write(&root, json!({"signatures": signatures, "signed": signed}).to_string()).unwrap();

    let firmware = old.path("firmware.bin");
    std::fs::write(&firmware, "old firmware").unwrap();
    let mut editor = RepositoryEditor::new(&root).await.unwrap();
    let (three, never) = (NonZeroU64::new(3).unwrap(), "2100-01-01T00:00:00Z");
    editor.targets_version(three).unwrap().targets_expires(never.parse().unwrap()).unwrap();
    editor.snapshot_version(three).snapshot_expires(never.parse().unwrap());
    editor.timestamp_version(three).timestamp_expires(never.parse().unwrap());
    editor.add_target_path(&firmware).await.unwrap();
    let online: Box<dyn KeySource> = Box::new(LocalKeySource { path: old.path("online.der") });
    let repository = editor.sign(&[online]).await.unwrap();
    repository.write(old.path("repository/metadata")).await.unwrap();
    let targets = old.path("repository/targets");
    repository.copy_targets(old.folder.path(), &targets, tough::editor::signed::PathExists::Skip).await.unwrap();
    assert!(old.path("repository/metadata/3.snapshot.json").is_file());
    old
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_in_the_layout_of_tuftool_is_taken_over() {
    if !tools::have("openssl", "version") {
        return;
    }
    let old = by_tough().await;
    let (place, root) = (old.path("repository"), old.path("1.root.json"));
    let state = old.path("state");
    std::fs::create_dir(&state).unwrap();
    assert_eq!(by_tough_client(&place, &root, Some(&state), "firmware.bin").await, (1, b"old firmware".to_vec()));
    let fleet = old.take_over(2);
    done(&["-C", text(&fleet), "publish", text(&place)]);
    let said = done(&["verify", text(&place), "--root", text(&root)]);
    assert!(said.contains("root 2"), "{said}");
    // A client with its state and one without follow from the first root, at the old place.
    for state in [Some(&*state), None] {
        let (version, map) = by_tough_client(&place, &root, state, "stable/cohorts.json").await;
        assert_eq!((version, serde_json::from_slice::<Value>(&map).is_ok()), (2, true));
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
