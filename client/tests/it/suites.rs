//! The parts of this crate, and some that are wrong, in the suites for own parts; and what is specific to each installer.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use tidegate_client::command::Command;
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::fetch::file::{FileFetch, url_of};
use tidegate_client::fetch::{AnyFetch, Fetch, FetchError, MemoryFetch, Reply, Request};
use tidegate_client::install::{
    Artifact, BootHook, CommandInstaller, DirectoryInstaller, FileSlot, InstallError, Installer, Slot, SlotImage,
    SlotInstaller, StubBoot,
};
use tidegate_client::store::{DirStore, MemoryStore, Store, StoreError};
use tidegate_client::testing::{Board, TestFiles, check_fetch, check_installer, check_store};
use tidegate_client::watch::Watch;
use tidegate_model::version::Version;
use tidegate_tuf::hash::Hashes;

use crate::tools::Quietly as _;

const OLD: &[u8] = b"the old image";

fn new_content(index: usize) -> Vec<u8> {
    vec![b'0' + u8::try_from(index).unwrap(); 150_000 + index]
}

fn artifact(folder: &Path, name: &str, bytes: &[u8]) -> Artifact {
    fs::create_dir_all(folder.join("downloads")).unwrap();
    let path = folder.join("downloads").join(name);
    fs::write(&path, bytes).unwrap();
    let hashes = Hashes::sha256(Sha256::digest(bytes).into());
    Artifact { name: name.into(), path, length: bytes.len() as u64, hashes }
}

fn artifacts(folder: &Path, board: &dyn Board) -> Vec<Artifact> {
    board.artifacts().iter().enumerate().map(|(index, name)| artifact(folder, name, &new_content(index))).collect()
}

fn version() -> Version {
    Version::new(1, 2, 3)
}

fn keeps(board: &dyn Fn(&Path) -> Box<dyn Board>) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    check_installer(folder.path(), board).unwrap();
}

#[test]
fn every_store_keeps_the_suite() {
    check_store(&MemoryStore::new()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = DirStore::open(folder.path().join("state")).unwrap();
    check_store(&store).unwrap();
    check_store(&store.subfolder("below").unwrap()).unwrap();
    assert!(folder.path().join("state/below/a.json").is_file());
}

#[test]
fn a_view_keeps_the_suite_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("old.json"), "old").unwrap();
    let store = DirStore::observe(folder.path());
    check_store(&store).unwrap();
    check_store(&store.subfolder("below").unwrap()).unwrap();
    assert_eq!(store.load("old.json", 3).unwrap().unwrap(), b"old");
    store.save("old.json", b"new").unwrap();
    assert_eq!(store.load("old.json", 3).unwrap().unwrap(), b"new");
    store.remove("old.json").unwrap();
    assert_eq!(store.load("old.json", 3).unwrap(), None);
    assert_eq!(fs::read(folder.path().join("old.json")).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn every_fetcher_keeps_the_suite() {
    let folder = tempfile::tempdir().unwrap();
    check_fetch(&FileFetch::new(), &Folder(folder.path().into(), None)).unwrap();
    check_fetch(&AnyFetch::new(), &Folder(folder.path().into(), None)).unwrap();
    let memory = MemoryFetch::new();
    check_fetch(&memory, &Memory(&memory)).unwrap();
}

/// A folder whose files have `file:` URLs, or those of a server.
pub struct Folder(pub PathBuf, pub Option<String>);

impl TestFiles for Folder {
    fn put(&self, name: &str, content: Option<&[u8]>) -> String {
        let path = self.0.join(name);
        if let Some(bytes) = content {
            fs::write(&path, bytes).unwrap();
        }
        self.1.as_ref().map_or_else(|| url_of(&path).unwrap(), |url| format!("{url}/{name}"))
    }
}

struct Memory<'a>(&'a MemoryFetch);

impl TestFiles for Memory<'_> {
    fn put(&self, name: &str, content: Option<&[u8]>) -> String {
        let url = format!("memory:{name}");
        if let Some(bytes) = content {
            self.0.put(&url, bytes);
        }
        url
    }
}

/// Changes what a part does, to show that the suite finds it.
struct Wrong<T>(T, &'static str);

impl Store for Wrong<MemoryStore> {
    fn load(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.load(name, if self.1 == "without a limit" { u64::MAX } else { limit })
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        if self.1 == "keeps the first" && self.0.load(name, 100)?.is_some() {
            return Ok(());
        }
        match self.0.save(name, bytes) {
            Err(StoreError::BadName { .. }) if self.1 == "any name" => Ok(()),
            result => result,
        }
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        if self.1 == "removes nothing" { Ok(()) } else { self.0.remove(name) }
    }
}

impl Fetch for Wrong<MemoryFetch> {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let whole = Request { offset: 0, end: None, ..*request };
        let asked = match self.1 {
            "without a limit" => Request { limit: u64::MAX, ..*request },
            "another offset" if request.offset > 0 => Request { offset: request.offset + 1, ..*request },
            "a range is the rest" => Request { end: None, ..*request },
            "no tags" => Request { etag: None, ..*request },
            _ => *request,
        };
        match (self.1, self.0.fetch(&asked)?) {
            ("a missing file is an error", Reply::NotFound(_)) => {
                Err(FetchError::BadUrl { url: request.url.into(), reason: "404" })
            }
            ("always unchanged", _) if request.etag.is_some() => Ok(Reply::Unchanged),
            ("no ranges, unsaid", Reply::Found(_)) if request.end.is_some() => self.0.fetch(&whole),
            (_, reply) => Ok(reply),
        }
    }
}

/// What is wrong, and a word of the rule that finds it. Without a fault, the suite finds nothing.
#[test]
fn the_suites_find_what_is_wrong() {
    for (fault, rule) in [
        ("without a limit", "longer than the limit"),
        ("keeps the first", "saved last"),
        ("any name", "not safe"),
        ("removes nothing", "saved last"),
    ] {
        let violation = check_store(&Wrong(MemoryStore::new(), fault)).unwrap_err();
        assert!(violation.rule.contains(rule), "{fault}: {violation}");
    }
    check_store(&Wrong(MemoryStore::new(), "")).unwrap();
    for (fault, rule) in [
        ("without a limit", "longer than the limit"),
        ("a missing file is an error", "missing file"),
        ("another offset", "at the offset"),
        ("a range is the rest", "range"),
        ("no ranges, unsaid", "range"),
        ("always unchanged", "its tag is another"),
    ] {
        let memory = MemoryFetch::new();
        let violation = check_fetch(&Wrong(memory.clone(), fault), &Memory(&memory)).unwrap_err();
        assert!(violation.rule.contains(rule), "{fault}: {violation}");
    }
    for right in ["", "no tags"] {
        let memory = MemoryFetch::new();
        check_fetch(&Wrong(memory.clone(), right), &Memory(&memory)).unwrap();
    }
    for (fault, rule) in [
        ("in place", "after a stop"),
        ("unchecked", "changed"),
        ("final on a full disk", "full disk"),
        ("does nothing", "runs after a restart"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let violation = check_installer(folder.path(), &|folder| {
            fs::write(folder.join("slot"), OLD).unwrap();
            Box::new(WrongBoard(folder.join("slot"), fault))
        })
        .unwrap_err();
        assert!(violation.rule.contains(rule), "{fault}: {violation}");
    }
}

struct WrongBoard(PathBuf, &'static str);

impl Board for WrongBoard {
    fn installer(&self, disk: Disk) -> Box<dyn Installer> {
        Box::new(WrongInstaller {
            slot: self.0.clone(),
            fault: self.1,
            inner: FileSlot::on(disk.clone(), &self.0),
            disk,
        })
    }

    fn restart(&self) -> Option<Vec<Vec<u8>>> {
        Some(vec![fs::read(&self.0).ok()?])
    }

    fn artifacts(&self) -> &'static [&'static str] {
        &["image.bin"]
    }

    fn reverts(&self) -> bool {
        false
    }
}

struct WrongInstaller {
    slot: PathBuf,
    fault: &'static str,
    inner: FileSlot,
    disk: Disk,
}

impl Installer for WrongInstaller {
    fn install(
        &mut self,
        version: &Version,
        artifacts: &[Artifact],
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        let bytes = || fs::read(&artifacts[0].path).unwrap_or_default();
        match self.fault {
            "does nothing" => Ok(()),
            "unchecked" => self.disk.replace(&self.slot, &bytes()).map_err(|e| InstallError::Unsuitable(e.to_string())),
            "in place" => {
                let rejected = |e: std::io::Error| InstallError::Unsuitable(e.to_string());
                let mut file = self.disk.open(&self.slot).map_err(rejected)?;
                file.set_length(0).map_err(rejected)?;
                file.write_at(0, &bytes()).map_err(rejected)
            }
            _ => self.inner.install(version, artifacts, watch).map_err(|e| match e {
                InstallError::Io { .. } => InstallError::Rejected("no space".into()),
                e => e,
            }),
        }
    }
}

// One file.

struct FileBoard(std::path::PathBuf);

impl Board for FileBoard {
    fn installer(&self, disk: Disk) -> Box<dyn Installer> {
        Box::new(FileSlot::on(disk, &self.0))
    }

    fn restart(&self) -> Option<Vec<Vec<u8>>> {
        Some(vec![fs::read(&self.0).ok()?])
    }

    fn artifacts(&self) -> &'static [&'static str] {
        &["image.bin"]
    }

    fn reverts(&self) -> bool {
        false
    }
}

#[test]
fn a_file_slot_keeps_the_suite() {
    keeps(&|folder| {
        fs::write(folder.join("slot"), OLD).unwrap();
        Box::new(FileBoard(folder.join("slot")))
    });
}

#[test]
fn a_file_slot_takes_one_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let image = artifact(folder.path(), "image", b"image");
    let mut slot = FileSlot::new(folder.path().join("slot"));
    assert!(slot.install_quietly(&version(), &[]).is_err());
    assert!(slot.install_quietly(&version(), &[image.clone(), image]).is_err());
    assert!(slot.accepts(&["image", "more"]).is_err() && slot.accepts(&["image"]).is_ok());
    assert!(slot.revert(&"before".to_owned()).is_err());
}

#[test]
fn a_file_slot_leaves_nothing_beside_it() {
    for plan in [Faults::stop_at as fn(usize) -> std::sync::Arc<Faults>, Faults::full_from] {
        for n in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let image = artifact(folder.path(), "image", &new_content(0));
            let path = folder.path().join("slot");
            let _ = FileSlot::on(Disk::with_faults(plan(n)), &path)
                .install_quietly(&version(), std::slice::from_ref(&image));
            FileSlot::new(&path).install_quietly(&version(), &[image]).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "at {n}");
        }
    }
}

// Two slots.

struct SlotBoard {
    images: Vec<SlotImage>,
    boot: StubBoot,
    takes: &'static [&'static str],
}

impl SlotBoard {
    fn on(folder: &Path, takes: &'static [&'static str]) -> Self {
        let place = |name: &str, slot: &str| folder.join(format!("{name}.{slot}"));
        let images = takes
            .iter()
            .map(|name| {
                fs::write(place(name, "a"), OLD).unwrap();
                let artifact = (takes.len() > 1).then(|| (*name).to_owned());
                SlotImage { artifact, ..SlotImage::only(place(name, "a"), place(name, "b")) }
            })
            .collect();
        Self { images, boot: StubBoot::new(), takes }
    }
}

impl Board for SlotBoard {
    fn installer(&self, disk: Disk) -> Box<dyn Installer> {
        Box::new(SlotInstaller::new(self.images.clone(), self.boot.on(disk.clone())).unwrap().on(disk))
    }

    fn restart(&self) -> Option<Vec<Vec<u8>>> {
        let slot = self.boot.restart();
        self.images.iter().map(|image| fs::read(if slot == Slot::A { &image.a } else { &image.b }).ok()).collect()
    }

    fn artifacts(&self) -> &'static [&'static str] {
        self.takes
    }
}

#[test]
fn two_slots_keep_the_suite() {
    keeps(&|folder| Box::new(SlotBoard::on(folder, &["image.bin"])));
}

#[test]
fn two_slots_of_several_images_keep_the_suite() {
    keeps(&|folder| Box::new(SlotBoard::on(folder, &["kernel", "rootfs"])));
}

#[test]
fn the_slot_that_runs_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let board = SlotBoard::on(folder.path(), &["image.bin"]);
    let all = artifacts(folder.path(), &board);
    // Slot b is a link to slot a: the settings are wrong, and the installer does not overwrite the running slot.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&board.images[0].a, &board.images[0].b).unwrap();
        let error = board.installer(Disk::new()).install_quietly(&version(), &all).unwrap_err();
        assert!(error.to_string().contains("the running slot"), "{error}");
        fs::remove_file(&board.images[0].b).unwrap();
        fs::hard_link(&board.images[0].a, &board.images[0].b).unwrap();
        assert!(board.installer(Disk::new()).install_quietly(&version(), &all).is_err());
        fs::remove_file(&board.images[0].b).unwrap();
    }
    let mut installer = board.installer(Disk::new());
    installer.install_quietly(&version(), &all).unwrap();
    assert_eq!(fs::read(&board.images[0].a).unwrap(), OLD);
    board.restart();
    installer.confirm().unwrap();
    // Now slot b runs, and slot a is written.
    let other = [artifact(folder.path(), "image.bin", b"another")];
    installer.install_quietly(&Version::new(2, 0, 0), &other).unwrap();
    assert_eq!(fs::read(&board.images[0].a).unwrap(), b"another");
    assert_eq!(fs::read(&board.images[0].b).unwrap(), new_content(0));
}

/// The boot loader's state from an earlier attempt must not start a slot that is being written.
#[test]
fn a_half_written_slot_is_never_started() {
    let counted = Faults::none();
    for n in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let board = SlotBoard::on(folder.path(), &["image.bin"]);
        let all = artifacts(folder.path(), &board);
        board.installer(Disk::new()).install_quietly(&version(), &all).unwrap();
        // Another release is installed before the restart.
        let next = [artifact(folder.path(), "image.bin", &vec![b'x'; 200_000])];
        if n == 0 {
            board.installer(Disk::with_faults(counted.clone())).install_quietly(&version(), &next).unwrap();
            continue;
        }
        if n > counted.steps() {
            break;
        }
        let _ = board.installer(Disk::with_faults(Faults::stop_at(n - 1))).install_quietly(&version(), &next);
        let runs = board.restart().unwrap().remove(0);
        assert!(runs == OLD || runs == new_content(0) || runs == vec![b'x'; 200_000], "stopped at {}", n - 1);
    }
}

#[test]
fn slots_that_are_set_up_wrongly_are_refused() {
    let image = |artifact: Option<&str>, a: &str, b: &str| SlotImage {
        artifact: artifact.map(str::to_owned),
        a: a.into(),
        b: b.into(),
    };
    for (name, images) in [
        ("none", vec![]),
        ("the same", vec![image(None, "x", "x")]),
        ("no name", vec![image(Some("k"), "a", "b"), image(None, "c", "d")]),
        ("one name twice", vec![image(Some("k"), "a", "b"), image(Some("k"), "c", "d")]),
        ("a place twice", vec![image(Some("k"), "a", "b"), image(Some("r"), "a", "d")]),
    ] {
        assert!(SlotInstaller::new(images, StubBoot::new()).is_err(), "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let board = SlotBoard::on(folder.path(), &["kernel", "rootfs"]);
    let all = artifacts(folder.path(), &board);
    let stranger = artifact(folder.path(), "other", b"");
    for given in [&all[..1], &[all[0].clone(), stranger.clone()], &[all.clone(), vec![stranger]].concat()] {
        let error = board.installer(Disk::new()).install_quietly(&version(), given).unwrap_err();
        assert!(!error.is_final() && error.to_string().contains("kernel, rootfs"), "{error}");
        assert!(!board.images[0].b.exists());
    }
    let installer = board.installer(Disk::new());
    assert!(installer.accepts(&["rootfs", "kernel"]).is_ok() && installer.accepts(&["rootfs"]).is_err());
}

/// A device that is missing must not become a file, and nothing is written while it is.
#[test]
fn a_missing_device_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = Path::new("/dev/tidegate-no-such-partition");
    let images = vec![
        SlotImage {
            artifact: Some("kernel".into()),
            ..SlotImage::only(folder.path().join("a"), folder.path().join("b"))
        },
        SlotImage { artifact: Some("rootfs".into()), ..SlotImage::only(folder.path().join("c"), path) },
    ];
    let mut installer = SlotInstaller::new(images, StubBoot::new()).unwrap();
    let all = ["kernel", "rootfs"].map(|name| artifact(folder.path(), name, b"image"));
    for error in [installer.ready().unwrap_err(), installer.install_quietly(&version(), &all).unwrap_err()] {
        assert!(!error.is_final() && error.to_string().contains("cannot find"), "{error}");
    }
    assert!(!path.exists() && !folder.path().join("b").exists());
}

// A program.

#[cfg(unix)]
mod programs {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const SCRIPT: &str = r#"#!/bin/sh
# Two files and a boot loader that is a file: what runs, what is kept, what is tried.
set -eu
cd "$(dirname "$0")"
case "$1" in
  running) cat running ;;
  keep) echo "$2" > kept; rm -f tried ;;
  try) echo "$2" > tried ;;
  restart) if [ -e tried ]; then mv tried running; else cp kept running; fi ;;
  confirm) cp running kept; rm -f tried ;;
  revert) echo "$2" > kept; rm -f tried ;;
  install)
    [ "$TIDEGATE_ACTION" = install ] && [ "$TIDEGATE_VERSION" = 1.2.3 ] && [ "$TIDEGATE_ARTIFACTS" = 1 ]
    [ "$TIDEGATE_ARTIFACT" = "$TIDEGATE_ARTIFACT_0_PATH" ] && [ "$TIDEGATE_ARTIFACT_0_NAME" = image.bin ]
    [ "$(sha256sum < "$TIDEGATE_ARTIFACT" | cut -d ' ' -f 1)" = "$TIDEGATE_ARTIFACT_0_SHA256" ]
    [ "$(cat running)" = a ] && other=b || other=a
    cp running kept
    cp "$TIDEGATE_ARTIFACT" "image.$other"
    echo "$other" > tried ;;
  *) echo "no such action" >&2; exit 20 ;;
esac
"#;

    fn script(folder: &Path, text: &str) -> Vec<String> {
        let path = folder.join("hook");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        vec!["sh".into(), path.display().to_string()]
    }

    fn prepare(folder: &Path) -> Vec<String> {
        for (name, content) in [("image.a", OLD), ("running", b"a\n"), ("kept", b"a\n")] {
            fs::write(folder.join(name), content).unwrap();
        }
        script(folder, SCRIPT)
    }

    const LIMIT: Duration = Duration::from_secs(20);

    /// A program that installs, or a hook for the boot loader.
    struct ProgramBoard {
        folder: std::path::PathBuf,
        words: Vec<String>,
        is_hook: bool,
    }

    impl Board for ProgramBoard {
        fn installer(&self, disk: Disk) -> Box<dyn Installer> {
            if self.is_hook {
                let images = vec![SlotImage::only(self.folder.join("image.a"), self.folder.join("image.b"))];
                let boot = BootHook::new(Command::new(self.words.clone(), LIMIT)).on(disk.clone());
                Box::new(SlotInstaller::new(images, boot).unwrap().on(disk))
            } else {
                Box::new(CommandInstaller::new(Command::new(self.words.clone(), LIMIT)).on(disk))
            }
        }

        fn restart(&self) -> Option<Vec<Vec<u8>>> {
            let restart = Command::new(self.words.clone(), LIMIT).arguments(&["restart"]);
            restart.run().unwrap().success().unwrap();
            let slot = fs::read_to_string(self.folder.join("running")).unwrap();
            Some(vec![fs::read(self.folder.join(format!("image.{}", slot.trim()))).ok()?])
        }

        fn artifacts(&self) -> &'static [&'static str] {
            &["image.bin"]
        }
    }

    #[test]
    fn a_program_keeps_the_suite() {
        keeps(&|folder| Box::new(ProgramBoard { folder: folder.into(), words: prepare(folder), is_hook: false }));
    }

    #[test]
    fn two_slots_with_a_boot_hook_keep_the_suite() {
        keeps(&|folder| Box::new(ProgramBoard { folder: folder.into(), words: prepare(folder), is_hook: true }));
    }

    #[test]
    fn exit_codes_tell_what_is_worth_trying_again() {
        let folder = tempfile::tempdir().unwrap();
        let image = artifact(folder.path(), "image.bin", b"image");
        let run = |text: &str| {
            let words = script(folder.path(), text);
            let mut installer = CommandInstaller::new(Command::new(words, Duration::from_millis(500)));
            (installer.install_quietly(&version(), std::slice::from_ref(&image)), installer)
        };
        let (result, mut installer) = run("echo for another board >&2; exit 10");
        let error = result.unwrap_err();
        assert!(error.is_final(), "{error}");
        assert_eq!(error.to_string(), "the installer rejects this release: for another board");
        assert!(installer.running().is_err());
        let (result, _) = run("echo busy >&2; exit 1");
        let error = result.unwrap_err();
        assert!(!error.is_final() && error.to_string().ends_with("exit code 1: busy"), "{error}");
        let (result, mut installer) = run("sleep 20");
        let error = result.unwrap_err();
        assert!(!error.is_final() && error.to_string().contains("killed"), "{error}");
        assert!(installer.running().is_err());
        let (result, mut installer) = run("[ $1 = install ] || exit 20");
        result.unwrap();
        assert_eq!(installer.running().unwrap(), None);
        installer.confirm().unwrap();
        assert!(installer.revert(&"a".to_owned()).is_err());
        let (_, mut installer) = run("true");
        assert!(installer.running().is_err(), "it printed nothing");
        for name in ["head -c 201 /dev/zero | tr '\\0' x", "echo a; echo b"] {
            let error = run(name).1.running().unwrap_err().to_string();
            assert!(error.contains("must print one name") && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn a_boot_hook_must_name_a_slot() {
        let folder = tempfile::tempdir().unwrap();
        let boot = BootHook::new(Command::new(script(folder.path(), "echo c"), LIMIT));
        let images = vec![SlotImage::only(folder.path().join("a"), folder.path().join("b"))];
        let image = artifact(folder.path(), "image.bin", b"image");
        let error = SlotInstaller::new(images, boot).unwrap().install_quietly(&version(), &[image]).unwrap_err();
        assert!(error.to_string().contains("must print a or b"), "{error}");
        assert!(!folder.path().join("b").exists());
    }

    // A tree of files.

    struct DirectoryBoard {
        base: std::path::PathBuf,
        unpacks: bool,
    }

    impl Board for DirectoryBoard {
        fn installer(&self, disk: Disk) -> Box<dyn Installer> {
            let installer = DirectoryInstaller::new(&self.base);
            let copy = ["cp", "{artifact}", "{folder}"].map(String::from);
            let installer = if self.unpacks { installer.unpack(Command::new(copy, LIMIT)) } else { installer };
            Box::new(installer.on(disk))
        }

        fn restart(&self) -> Option<Vec<Vec<u8>>> {
            self.artifacts().iter().map(|name| fs::read(self.base.join("current").join(name)).ok()).collect()
        }

        fn artifacts(&self) -> &'static [&'static str] {
            &["data", "program"]
        }
    }

    fn directory(folder: &Path, unpacks: bool) -> Box<dyn Board> {
        let base = folder.join("app");
        fs::create_dir_all(base.join("releases/1.0.0")).unwrap();
        for name in ["data", "program"] {
            fs::write(base.join("releases/1.0.0").join(name), OLD).unwrap();
        }
        std::os::unix::fs::symlink("releases/1.0.0", base.join("current")).unwrap();
        Box::new(DirectoryBoard { base, unpacks })
    }

    #[test]
    fn a_directory_keeps_the_suite() {
        keeps(&|folder| directory(folder, false));
    }

    #[test]
    fn a_directory_that_unpacks_keeps_the_suite() {
        keeps(&|folder| directory(folder, true));
    }

    #[test]
    fn a_directory_keeps_the_old_release_on_trial() {
        let folder = tempfile::tempdir().unwrap();
        let board = directory(folder.path(), false);
        let all = artifacts(folder.path(), &*board);
        let releases = || {
            let mut names: Vec<_> = fs::read_dir(folder.path().join("app/releases"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut installer = board.installer(Disk::new());
        installer.install_quietly(&version(), &all).unwrap();
        assert_eq!(releases(), ["1.0.0", "1.2.3"]);
        installer.confirm().unwrap();
        assert_eq!(releases(), ["1.2.3"]);
        assert!(installer.revert(&"1.0.0".to_owned()).is_err(), "it is gone");
        assert_eq!(installer.running().unwrap().as_deref(), Some("1.2.3"));
    }

    #[test]
    fn a_directory_may_start_empty() {
        let folder = tempfile::tempdir().unwrap();
        let all = [artifact(folder.path(), "program", b"program")];
        let mut installer = DirectoryInstaller::new(folder.path());
        assert_eq!(installer.running().unwrap(), None);
        installer.install_quietly(&version(), &all).unwrap();
        assert_eq!(fs::read(folder.path().join("current/program")).unwrap(), b"program");
    }
}
