//! After a takeover: the old place is published to, and clients of the old tool follow to what is new there.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;

use super::import::{private_copy, recorded};
use super::story::{text, tidegate};
use crate::support::forge::copy;
use crate::support::{Serving, python_tuf, script};

/// The kinds that `foreign.py takeover` makes, and what go-tuf and tuftool made themselves (`tests/tools`), at their second root.
const KINDS: [&str; 8] = ["plain", "mixed", "nested", "hashed", "bins", "flat", "go-tuf", "tuftool"];
/// How many of them python-tuf can read: tuftool writes times with fractions of a second.
const READABLE: usize = 7;
/// What a client downloads from then on.
const FILE: &str = "stable/releases/os/1.0.0/rootfs.img";

/// Whether a kind has its metadata in the top folder.
fn is_flat(kind: &str) -> bool {
    ["flat", "go-tuf"].contains(&kind)
}

/// The repositories of another tool in a folder, with the clients that read them.
struct Takeover {
    folder: tempfile::TempDir,
    python: PathBuf,
}

impl Takeover {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The place of a kind, old and new.
    fn place(&self, kind: &str) -> PathBuf {
        self.path("places").join(kind)
    }

    /// Puts what a tool made once in the place of its kind, as `foreign.py` would.
    fn recorded(&self, kind: &str) {
        let made = recorded(kind);
        copy(&made.join("repository"), &self.path(kind));
        std::fs::copy(made.join("1.root.json"), self.path(&format!("{kind}.root.json"))).unwrap();
        for (number, name) in ["", ".1", ".2"].iter().enumerate() {
            let key = made.join(format!("old-root-{number}.pem"));
            if key.is_file() {
                private_copy(&key, &self.path(&format!("{kind}{name}.pem")));
            }
        }
    }

    fn done(args: &[&str]) {
        let out = tidegate(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Has python-tuf's clients update from these kinds: each kind, and what its client says.
    fn update<'k>(
        &self,
        url: &str,
        of: &[&'k str],
        clients: &[&str],
        is_after: bool,
        path: &str,
    ) -> Vec<(&'k str, Value)> {
        let (mut kinds, mut all) = (Vec::new(), Vec::new());
        for kind in of.iter().copied() {
            let top = format!("{url}/{kind}/");
            let below = |folder: &str| format!("{top}{folder}/");
            // From a flat place, a server answers for the old URLs with what is in the two folders.
            let (metadata, targets) = if is_flat(kind) && !is_after {
                (top.clone(), if kind == "flat" { top.clone() } else { below("targets") })
            } else {
                (below("metadata"), below("targets"))
            };
            for client in clients {
                let (root, state) = (self.path(&format!("{kind}.root.json")), self.path(&format!("{client}-{kind}")));
                kinds.push(kind);
                all.push(json!([metadata, targets, root, state, path]));
            }
        }
        let file = self.path("clients.json");
        std::fs::write(&file, Value::from(all).to_string()).unwrap();
        let said = script(&self.python, "update.py", &["--all", text(&file)]);
        kinds.into_iter().zip(said.as_array().unwrap().iter().cloned()).collect()
    }

    /// Takes a kind over, makes a release of `image` there, and lets the old tool go on meanwhile if it does.
    fn take_over(&self, kind: &str, image: &Path) -> String {
        let (place, fleet) = (self.place(kind), self.path(&format!("fleet-{kind}")));
        let (root, fleet) = (self.path(&format!("{kind}.root.json")), text(&fleet).to_owned());
        Self::done(&["import", text(&place), &fleet, "--root", text(&root), "--example-keys"]);
        let status: Value =
            serde_json::from_slice(&tidegate(&["-C", &fleet, "--json", "ceremony", "status"]).stdout).unwrap();
        let mut keys: Vec<String> =
            ["root-1", "root-2", "targets-1", "targets-2", "release-1", "release-2"].map(ToOwned::to_owned).into();
        let old = ["", ".1", ".2"].map(|number| self.path(&format!("{kind}{number}.pem")));
        keys.extend(old.iter().filter(|key| key.is_file()).map(|key| format!("file:{}", text(key))));
        let mut sign = vec!["-C", &fleet, "ceremony", "sign", "--confirm", &status["digest"].as_str().unwrap()[..16]];
        sign.extend(keys.iter().flat_map(|key| ["--key", key]));
        Self::done(&sign);
        for args in [
            &["ceremony", "finish"][..],
            &["release", "create", "1.0.0", text(image), "--name", "rootfs.img", "--hardware", "board-a"],
            &["release", "sign", "1.0.0"],
            &["release", "register", "1.0.0"],
        ] {
            Self::done(&[&["-C", &fleet], args].concat());
        }
        if let Ok(later) = std::fs::read_dir(self.path(&format!("{kind}.later"))) {
            for file in later.map(|entry| entry.unwrap()) {
                std::fs::copy(file.path(), place.join("metadata").join(file.file_name())).unwrap();
            }
            let out = tidegate(&["-C", &fleet, "publish", text(&place)]);
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(said.contains("[P-BEHIND]") && said.contains("tidegate publish --rebase"), "{kind}: {said}");
        }
        fleet
    }
}

/// Keys of three types in one root, delegations of each kind, with and without consistent snapshots, listings without hashes or lengths, one
/// flat folder, two of other tools' own, and two whose tool renewed timestamp and snapshot while the ceremony went on.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_old_tool_follow_at_the_old_place() {
    let Some(python) = python_tuf() else { return };
    let takeover = Takeover { folder: tempfile::tempdir().unwrap(), python };
    script(&takeover.python, "foreign.py", &[text(takeover.folder.path()), "takeover"]);
    takeover.recorded("go-tuf");
    takeover.recorded("tuftool");
    std::fs::create_dir(takeover.path("places")).unwrap();
    for kind in KINDS {
        std::fs::rename(takeover.path(kind), takeover.place(kind)).unwrap();
    }
    let server = Serving::start(&takeover.path("places")).await;
    let url = server.url();
    for (kind, said) in takeover.update(&url, &KINDS[..READABLE], &["old"], false, "app/1") {
        assert_eq!(said["targets"]["app/1"], to_hex(&Sha256::digest("app/1")), "{kind}: {said}");
    }
    let image = takeover.path("image");
    std::fs::write(&image, "new").unwrap();
    for kind in KINDS {
        let (fleet, place) = (takeover.take_over(kind, &image), takeover.place(kind));
        let out = tidegate(&["-C", &fleet, "publish", "--rebase", text(&place)]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{kind}: {said}");
        assert_eq!(said.contains("timestamp.json in the top folder stays"), is_flat(kind), "{kind}: {said}");
        Takeover::done(&["-C", &fleet, "doctor", text(&place)]);
    }
    // The clients with their state, and some that were shipped with the first root and never asked.
    for (kind, said) in takeover.update(&url, &KINDS, &["old", "new"], true, FILE) {
        let next = if ["go-tuf", "tuftool"].contains(&kind) { 3 } else { 2 };
        assert_eq!(said["versions"]["root"], next, "{kind}: {said}");
        assert_eq!(said["targets"][FILE], to_hex(&Sha256::digest("new")), "{kind}: {said}");
    }
}
