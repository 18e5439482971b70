//! One behavioural suite for every installer, and specific tests for each.

use std::fs;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::command::Command;
use crate::disk::{Disk, Faults};

/// An installer on a board that a test can restart.
trait Bench {
    /// The installer, on a disk that can inject faults.
    fn installer(&self, disk: Disk) -> Box<dyn Installer>;

    /// Restarts the board. Returns the contents of the running artifacts, by name; `None` if it does not start.
    fn restart(&self) -> Option<Vec<Vec<u8>>>;

    /// The names of the artifacts that it accepts.
    fn takes(&self) -> &'static [&'static str];

    /// Whether it can undo an installation.
    fn goes_back(&self) -> bool {
        true
    }
}

const OLD: &[u8] = b"the old image";

fn board(of: &dyn Fn(&Path) -> Box<dyn Bench>) -> (tempfile::TempDir, Box<dyn Bench>) {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let bench = of(folder.path());
    (folder, bench)
}

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

fn artifacts(folder: &Path, bench: &dyn Bench) -> Vec<Artifact> {
    bench.takes().iter().enumerate().map(|(index, name)| artifact(folder, name, &new_content(index))).collect()
}

fn version() -> Version {
    Version::new(1, 2, 3)
}

/// The guarantees of every installer.
fn suite(of: &dyn Fn(&Path) -> Box<dyn Bench>) {
    installs_confirms_and_goes_back(of);
    survives_a_stop_at_every_step(of);
    survives_a_full_disk(of);
    refuses_what_changed(of);
}

fn installs_confirms_and_goes_back(of: &dyn Fn(&Path) -> Box<dyn Bench>) {
    let (folder, bench) = board(of);
    let artifacts = artifacts(folder.path(), &*bench);
    let new: Vec<_> = (0..artifacts.len()).map(new_content).collect();
    let old = bench.restart().unwrap();
    let mut installer = bench.installer(Disk::new());
    let before = installer.running().unwrap();
    installer.install(&version(), &artifacts).unwrap();
    assert_eq!(bench.restart().unwrap(), new);
    if bench.goes_back() {
        let before = before.unwrap();
        assert_ne!(installer.running().unwrap().as_ref(), Some(&before));
        for _ in 0..2 {
            installer.revert(&before).unwrap();
            assert_eq!(bench.restart().unwrap(), old);
        }
        assert_eq!(installer.running().unwrap(), Some(before));
        installer.install(&version(), &artifacts).unwrap();
        assert_eq!(bench.restart().unwrap(), new);
    }
    for _ in 0..2 {
        installer.confirm().unwrap();
        assert_eq!(bench.restart().unwrap(), new);
    }
}

fn survives_a_stop_at_every_step(of: &dyn Fn(&Path) -> Box<dyn Bench>) {
    let counted = Faults::none();
    let (folder, bench) = board(of);
    let all = artifacts(folder.path(), &*bench);
    bench.installer(Disk::with_faults(counted.clone())).install(&version(), &all).unwrap();
    assert!(counted.steps() > 0);
    for n in 0..counted.steps() {
        let (folder, bench) = board(of);
        let artifacts = artifacts(folder.path(), &*bench);
        let new: Vec<_> = (0..artifacts.len()).map(new_content).collect();
        let old = bench.restart().unwrap();
        let stopped = bench.installer(Disk::with_faults(Faults::stop_at(n))).install(&version(), &artifacts);
        let runs = bench.restart().unwrap_or_else(|| panic!("stopped at {n}: nothing runs"));
        assert!(runs == old || runs == new, "stopped at {n} ({stopped:?}): neither the old nor the new runs");
        bench.installer(Disk::new()).install(&version(), &artifacts).unwrap();
        assert_eq!(bench.restart().unwrap(), new, "stopped at {n}: the next installation did not complete");
    }
}

fn survives_a_full_disk(of: &dyn Fn(&Path) -> Box<dyn Bench>) {
    for n in 0..6 {
        let (folder, bench) = board(of);
        let artifacts = artifacts(folder.path(), &*bench);
        let old = bench.restart().unwrap();
        let full = bench.installer(Disk::with_faults(Faults::full_from(n))).install(&version(), &artifacts);
        if let Err(error) = full {
            assert!(!error.is_final(), "a full disk is no fault of the release: {error}");
            assert_eq!(bench.restart().unwrap(), old, "full from {n}");
        }
    }
}

fn refuses_what_changed(of: &dyn Fn(&Path) -> Box<dyn Bench>) {
    let (folder, bench) = board(of);
    let artifacts = artifacts(folder.path(), &*bench);
    let old = bench.restart().unwrap();
    let last = artifacts.last().unwrap();
    let good = fs::read(&last.path).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for changed in [flipped, good[..good.len() - 1].to_vec(), [&good[..], b"!"].concat(), Vec::new()] {
        fs::write(&last.path, changed).unwrap();
        let error = bench.installer(Disk::new()).install(&version(), &artifacts).unwrap_err();
        assert!(error.is_spoiled(), "{error}");
        assert_eq!(bench.restart().unwrap(), old);
    }
    fs::remove_file(&last.path).unwrap();
    bench.installer(Disk::new()).install(&version(), &artifacts).unwrap_err();
    assert_eq!(bench.restart().unwrap(), old);
}

// One file.

struct FileBench(std::path::PathBuf);

impl Bench for FileBench {
    fn installer(&self, disk: Disk) -> Box<dyn Installer> {
        Box::new(FileSlot::on(disk, &self.0))
    }

    fn restart(&self) -> Option<Vec<Vec<u8>>> {
        Some(vec![fs::read(&self.0).ok()?])
    }

    fn takes(&self) -> &'static [&'static str] {
        &["image.bin"]
    }

    fn goes_back(&self) -> bool {
        false
    }
}

#[test]
fn a_file_slot_keeps_the_suite() {
    suite(&|folder| {
        fs::write(folder.join("slot"), OLD).unwrap();
        Box::new(FileBench(folder.join("slot")))
    });
}

#[test]
fn a_file_slot_takes_one_artifact() {
    let folder = tempfile::tempdir().unwrap();
    let image = artifact(folder.path(), "image", b"image");
    let mut slot = FileSlot::new(folder.path().join("slot"));
    assert!(slot.install(&version(), &[]).is_err());
    assert!(slot.install(&version(), &[image.clone(), image]).is_err());
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
            let _ = FileSlot::on(Disk::with_faults(plan(n)), &path).install(&version(), std::slice::from_ref(&image));
            FileSlot::new(&path).install(&version(), &[image]).unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "at {n}");
        }
    }
}

// Two slots.

struct SlotBench {
    images: Vec<SlotImage>,
    boot: StubBoot,
    takes: &'static [&'static str],
}

impl SlotBench {
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

impl Bench for SlotBench {
    fn installer(&self, disk: Disk) -> Box<dyn Installer> {
        Box::new(SlotInstaller::new(self.images.clone(), self.boot.on(disk.clone())).unwrap().on(disk))
    }

    fn restart(&self) -> Option<Vec<Vec<u8>>> {
        let slot = self.boot.restart();
        self.images.iter().map(|image| fs::read(if slot == Slot::A { &image.a } else { &image.b }).ok()).collect()
    }

    fn takes(&self) -> &'static [&'static str] {
        self.takes
    }
}

#[test]
fn two_slots_keep_the_suite() {
    suite(&|folder| Box::new(SlotBench::on(folder, &["image.bin"])));
}

#[test]
fn two_slots_of_several_images_keep_the_suite() {
    suite(&|folder| Box::new(SlotBench::on(folder, &["kernel", "rootfs"])));
}

#[test]
fn the_slot_that_runs_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let bench = SlotBench::on(folder.path(), &["image.bin"]);
    let all = artifacts(folder.path(), &bench);
    // Slot b is a link to slot a: the settings are wrong, and the installer does not overwrite the running slot.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&bench.images[0].a, &bench.images[0].b).unwrap();
        let error = bench.installer(Disk::new()).install(&version(), &all).unwrap_err();
        assert!(error.to_string().contains("the running slot"), "{error}");
        fs::remove_file(&bench.images[0].b).unwrap();
        fs::hard_link(&bench.images[0].a, &bench.images[0].b).unwrap();
        assert!(bench.installer(Disk::new()).install(&version(), &all).is_err());
        fs::remove_file(&bench.images[0].b).unwrap();
    }
    let mut installer = bench.installer(Disk::new());
    installer.install(&version(), &all).unwrap();
    assert_eq!(fs::read(&bench.images[0].a).unwrap(), OLD);
    bench.restart();
    installer.confirm().unwrap();
    // Now slot b runs, and slot a is written.
    let other = [artifact(folder.path(), "image.bin", b"another")];
    installer.install(&Version::new(2, 0, 0), &other).unwrap();
    assert_eq!(fs::read(&bench.images[0].a).unwrap(), b"another");
    assert_eq!(fs::read(&bench.images[0].b).unwrap(), new_content(0));
}

/// The boot loader's state from an earlier attempt must not start a slot that is being written.
#[test]
fn a_half_written_slot_is_never_started() {
    let counted = Faults::none();
    for n in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let bench = SlotBench::on(folder.path(), &["image.bin"]);
        let all = artifacts(folder.path(), &bench);
        bench.installer(Disk::new()).install(&version(), &all).unwrap();
        // Another release is installed before the restart.
        let next = [artifact(folder.path(), "image.bin", &vec![b'x'; 200_000])];
        if n == 0 {
            bench.installer(Disk::with_faults(counted.clone())).install(&version(), &next).unwrap();
            continue;
        }
        if n > counted.steps() {
            break;
        }
        let _ = bench.installer(Disk::with_faults(Faults::stop_at(n - 1))).install(&version(), &next);
        let runs = bench.restart().unwrap().remove(0);
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
    let bench = SlotBench::on(folder.path(), &["kernel", "rootfs"]);
    let all = artifacts(folder.path(), &bench);
    let stranger = artifact(folder.path(), "other", b"");
    for given in [&all[..1], &[all[0].clone(), stranger.clone()], &[all.clone(), vec![stranger]].concat()] {
        let error = bench.installer(Disk::new()).install(&version(), given).unwrap_err();
        assert!(!error.is_final() && error.to_string().contains("kernel, rootfs"), "{error}");
        assert!(!bench.images[0].b.exists());
    }
    let installer = bench.installer(Disk::new());
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
    for error in [installer.ready().unwrap_err(), installer.install(&version(), &all).unwrap_err()] {
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
    struct ProgramBench {
        folder: std::path::PathBuf,
        words: Vec<String>,
        is_hook: bool,
    }

    impl Bench for ProgramBench {
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

        fn takes(&self) -> &'static [&'static str] {
            &["image.bin"]
        }
    }

    #[test]
    fn a_program_keeps_the_suite() {
        suite(&|folder| Box::new(ProgramBench { folder: folder.into(), words: prepare(folder), is_hook: false }));
    }

    #[test]
    fn two_slots_with_a_boot_hook_keep_the_suite() {
        suite(&|folder| Box::new(ProgramBench { folder: folder.into(), words: prepare(folder), is_hook: true }));
    }

    #[test]
    fn exit_codes_tell_what_is_worth_trying_again() {
        let folder = tempfile::tempdir().unwrap();
        let image = artifact(folder.path(), "image.bin", b"image");
        let run = |text: &str| {
            let words = script(folder.path(), text);
            let mut installer = CommandInstaller::new(Command::new(words, Duration::from_millis(500)));
            (installer.install(&version(), std::slice::from_ref(&image)), installer)
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
    }

    #[test]
    fn a_boot_hook_must_name_a_slot() {
        let folder = tempfile::tempdir().unwrap();
        let boot = BootHook::new(Command::new(script(folder.path(), "echo c"), LIMIT));
        let images = vec![SlotImage::only(folder.path().join("a"), folder.path().join("b"))];
        let image = artifact(folder.path(), "image.bin", b"image");
        let error = SlotInstaller::new(images, boot).unwrap().install(&version(), &[image]).unwrap_err();
        assert!(error.to_string().contains("must print a or b"), "{error}");
        assert!(!folder.path().join("b").exists());
    }

    // A tree of files.

    struct DirectoryBench {
        base: std::path::PathBuf,
        unpacks: bool,
    }

    impl Bench for DirectoryBench {
        fn installer(&self, disk: Disk) -> Box<dyn Installer> {
            let installer = DirectoryInstaller::new(&self.base);
            let copy = ["cp", "{artifact}", "{folder}"].map(String::from);
            let installer = if self.unpacks { installer.unpack(Command::new(copy, LIMIT)) } else { installer };
            Box::new(installer.on(disk))
        }

        fn restart(&self) -> Option<Vec<Vec<u8>>> {
            self.takes().iter().map(|name| fs::read(self.base.join("current").join(name)).ok()).collect()
        }

        fn takes(&self) -> &'static [&'static str] {
            &["data", "program"]
        }
    }

    fn directory(folder: &Path, unpacks: bool) -> Box<dyn Bench> {
        let base = folder.join("app");
        fs::create_dir_all(base.join("releases/1.0.0")).unwrap();
        for name in ["data", "program"] {
            fs::write(base.join("releases/1.0.0").join(name), OLD).unwrap();
        }
        std::os::unix::fs::symlink("releases/1.0.0", base.join("current")).unwrap();
        Box::new(DirectoryBench { base, unpacks })
    }

    #[test]
    fn a_directory_keeps_the_suite() {
        suite(&|folder| directory(folder, false));
    }

    #[test]
    fn a_directory_that_unpacks_keeps_the_suite() {
        suite(&|folder| directory(folder, true));
    }

    #[test]
    fn a_directory_keeps_the_old_release_on_trial() {
        let folder = tempfile::tempdir().unwrap();
        let bench = directory(folder.path(), false);
        let all = artifacts(folder.path(), &*bench);
        let releases = || {
            let mut names: Vec<_> = fs::read_dir(folder.path().join("app/releases"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        let mut installer = bench.installer(Disk::new());
        installer.install(&version(), &all).unwrap();
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
        installer.install(&version(), &all).unwrap();
        assert_eq!(fs::read(folder.path().join("current/program")).unwrap(), b"program");
    }
}
