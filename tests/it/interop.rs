//! With other implementations: python-tuf reads what we publish, we read what python-tuf makes, tough reads both.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::support::{Forge, Serving, publish, python_tuf, script};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tidegate::audit::{Check, PublishedRepository, verify, walk};
use tidegate_client::clock::SystemClock;
use tidegate_client::fetch::Fetch;
use tidegate_client::fetch::file::{FileFetch, url_of};
use tidegate_client::fetch::http::HttpFetch;
use tidegate_client::store::MemoryStore;
use tidegate_client::updater::{self, Updater};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::path::TargetPath;

#[tokio::test(flavor = "multi_thread")]
async fn python_tuf_updates_from_what_we_publish() {
    let Some(python) = python_tuf() else { return };
    let mut forge = Forge::new(&["early", "late"]);
    let image = vec![0x5a; 300_000];
    forge.release("1.0.0", 1, &[("rootfs.img", &image), ("boot+a_1.img", b"boot")]);
    forge.assign("early", "1.0.0");
    let (place, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    publish(&forge, place.path()).await;
    let server = Serving::start(place.path()).await;
    let root = forge.dir().join("metadata/1.root.json");
    let paths = [
        "stable/cohorts.json",
        "stable/releases/os/1.0.0/manifest.json",
        "stable/releases/os/1.0.0/rootfs.img",
        "stable/releases/os/1.0.0/boot+a_1.img",
        "stable/cohorts/early/os.json",
        "stable/cohorts/late/os.json",
        "elsewhere",
    ];
    let update = || {
        let mut args = vec![server.url(), root.display().to_string(), folder.path().display().to_string()];
        args.extend(paths.iter().map(ToString::to_string));
        script(&python, "update.py", &args.iter().map(String::as_str).collect::<Vec<_>>())
    };

    let said = update();
    let sha256 = |bytes: &[u8]| Value::from(to_hex(&Sha256::digest(bytes)));
    let manifest = sha256(&forge.manifest("1.0.0"));
    assert_eq!(said["targets"][paths[1]], manifest);
    assert_eq!(said["targets"][paths[2]], sha256(&image));
    assert_eq!(said["targets"][paths[3]], sha256(b"boot"));
    let version = forge.version("stable.early");
    let role = std::fs::read(place.path().join(format!("metadata/{version}.stable.early.json"))).unwrap();
    let role: Value = serde_json::from_slice(&role).unwrap();
    let offers = &role["signed"]["targets"][paths[4]];
    assert_eq!(said["targets"][paths[4]], offers["hashes"]["sha256"]);
    let list = tidegate_tuf::json::canonical(&offers["custom"]["tidegate"]).unwrap();
    assert_eq!(said["targets"][paths[4]], sha256(&list), "the target is the list of offers");
    assert_eq!(said["targets"][paths[5]], Value::Null, "nothing is offered");
    assert_eq!(said["targets"][paths[6]], Value::Null);

    // Everything that can change does, root and the keys of the timestamp included.
    forge.release("1.1.0", 2, &[("rootfs.img", b"second")]);
    forge.assign("late", "1.1.0");
    forge.renew(&["root", "targets", "stable.early"]);
    publish(&forge, place.path()).await;
    let said = update();
    assert!(said["targets"][paths[5]].is_string(), "the list for late");
    let versions: BTreeMap<String, u64> = serde_json::from_value(said["versions"].clone()).unwrap();
    assert_eq!(versions.len(), 7, "{versions:?}");
    for (role, version) in versions {
        assert_eq!(version, forge.version(&role), "{role}");
    }
}

/// What the commands make, from init to a completed rollout, is what the test above made with the library.
#[tokio::test(flavor = "multi_thread")]
async fn python_tuf_updates_from_what_the_demo_leaves() {
    let Some(python) = python_tuf() else { return };
    let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let demo = folder.path().join("demo");
    let image: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
    std::fs::write(folder.path().join("image"), &image).unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .arg("demo")
        .arg(&demo)
        .arg("--image")
        .arg(folder.path().join("image"))
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let root = std::fs::read(demo.join("fleet/metadata/1.root.json")).unwrap();
    let site = PublishedRepository::open(demo.join("site").to_str().unwrap()).unwrap();
    let tree = walk(&site, &root, chrono::Utc::now()).unwrap();
    assert_eq!(tree.faults, []);
    let listed: BTreeMap<&str, Value> = tree
        .listed()
        .map(|listed| (listed.path, Value::from(to_hex(listed.file.hashes.sha256_digest().unwrap()))))
        .collect();
    assert!(listed.keys().any(|path| path.ends_with("/manifest.json")) && listed.len() > 5, "{listed:?}");
    let server = Serving::start(&demo.join("site")).await;
    let root = demo.join("fleet/metadata/1.root.json").display().to_string();
    let (url, state) = (server.url(), state.path().display().to_string());
    let args: Vec<&str> = [url.as_str(), &root, &state].into_iter().chain(listed.keys().copied()).collect();
    let said = script(&python, "update.py", &args);
    for (path, sha256) in &listed {
        assert_eq!(said["targets"][*path], *sha256, "{path}");
    }
    let image = Value::from(to_hex(&Sha256::digest(&image)));
    assert!(listed.values().any(|sha256| *sha256 == image), "the image is among them");
}

#[tokio::test(flavor = "multi_thread")]
async fn we_update_from_what_python_tuf_makes() {
    let Some(python) = python_tuf() else { return };
    let folder = tempfile::tempdir().unwrap();
    let expected = script(&python, "generate.py", &[folder.path().to_str().unwrap()]);
    let expected: [BTreeMap<String, Option<String>>; 2] = serde_json::from_value(expected).unwrap();
    let root = std::fs::read(folder.path().join("root.json")).unwrap();
    // The repository moves from its first state to its second under the device's feet.
    let live = folder.path().join("live");
    std::os::unix::fs::symlink("1", &live).unwrap();
    let advance = || {
        std::fs::remove_file(&live).unwrap();
        std::os::unix::fs::symlink("2", &live).unwrap();
    };

    let by_file = url_of(&live).unwrap();
    check(&root, &by_file, FileFetch::new(), &expected, advance);
    std::fs::remove_file(&live).unwrap();

    for state in ["1", "2"] {
        let server = Serving::start(&folder.path().join(state)).await;
        let (root, url) = (root.clone(), server.url());
        let expected = expected[usize::from(state == "2")].clone();
        tokio::task::spawn_blocking(move || {
            resolve(&mut device(&root, &url, HttpFetch::new(), MemoryStore::new()), &expected);
        })
        .await
        .unwrap();
    }

    // tough has no hash prefixes in its eager walk to object to, and reads the same tree.
    for state in ["1", "2"] {
        let place = folder.path().join(state);
        let origin = PublishedRepository::open(place.to_str().unwrap()).unwrap();
        assert_eq!(walk(&origin, &root, chrono::Utc::now()).unwrap().faults, []);
        let report = verify(Arc::new(origin), state, root.clone(), chrono::Utc::now()).await.unwrap();
        let second = report.rows.iter().find(|row| row.check == Check::SecondMetadata).unwrap();
        assert!(second.ok, "{report}");
    }
}

fn device(root: &[u8], url: &str, fetch: impl Fetch + Send + 'static, store: MemoryStore) -> Updater {
    Updater::new(root, updater::Repository::at(url).unwrap(), fetch, store, SystemClock::new())
}

fn check<F: Fetch + Copy + Send + 'static>(
    root: &[u8],
    url: &str,
    fetch: F,
    expected: &[BTreeMap<String, Option<String>>; 2],
    advance: impl FnOnce(),
) {
    let store = MemoryStore::new();
    resolve(&mut device(root, url, fetch, store.clone()), &expected[0]);
    advance();
    resolve(&mut device(root, url, fetch, store.clone()), &expected[1]);
    let mut device = device(root, url, fetch, store);
    let trusted = device.refresh().unwrap();
    assert_eq!(trusted.root().common.version, 2);
    assert!(device.repairs().is_empty());
}

/// Every path resolves to what it must, and the bytes come.
fn resolve(device: &mut Updater, expected: &BTreeMap<String, Option<String>>) {
    assert!(expected.len() > 10);
    for (path, sha256) in expected {
        let found = device.find(&TargetPath::new(path.as_str()).unwrap());
        match sha256 {
            None => {
                let error = found.expect_err(path);
                assert!(matches!(error, tidegate_client::Error::TargetNotFound { .. }), "{path}: {error}");
            }
            Some(sha256) => {
                let bytes = device.read(&found.unwrap(), 1 << 20).unwrap();
                assert_eq!(to_hex(&Sha256::digest(&bytes)), *sha256, "{path}");
            }
        }
    }
}

/// What the tests above serve is what the scripts made: nothing is read from anywhere else.
#[test]
fn the_scripts_are_here() {
    for script in ["update.py", "generate.py", "requirements.txt"] {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script).is_file(), "{script}");
    }
}
