//! The recipe for RAUC with the real one: bundles that it made and signed, its service on a bus of its own, and its support of GRUB.
//!
//! RAUC mounts bundles, which takes root and loop devices; elsewhere the test says so and passes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidegate_client::install::{Artifact, CommandInstaller, Installer as _};
use tidegate_tuf::hash::Hashes;

use crate::tools::Quietly as _;
use crate::tools::{LIMIT, contrib, have, is_permitted, shell};

/// A board whose slots RAUC writes. What runs on it ends with it.
struct Board {
    folder: tempfile::TempDir,
    bus: Child,
    service: Option<Child>,
}

impl Drop for Board {
    fn drop(&mut self) {
        for child in self.service.iter_mut().chain([&mut self.bus]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Board {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let here = path.display();
        let slot = |number: u8, name: &str| {
            format!("[slot.rootfs.{number}]\ndevice={here}/slot.{name}\ntype=raw\nbootname={name}\n")
        };
        let (first, second) = (slot(0, "a"), slot(1, "b"));
        let system = format!(
            "[system]\ncompatible=board\nbootloader=grub\ngrubenv={here}/grubenv\nbundle-formats=plain\n\
             mountprefix={here}/mnt\nstatusfile={here}/status\n[keyring]\npath={here}/cert.pem\n{first}{second}"
        );
        fs::write(path.join("system.conf"), system).unwrap();
        let bus = format!(
            r#"<busconfig><type>system</type><listen>unix:path={here}/bus</listen><auth>EXTERNAL</auth>
            <policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>
            <allow send_destination="*"/><allow receive_sender="*"/></policy></busconfig>"#
        );
        fs::write(path.join("bus.conf"), bus).unwrap();
        shell(
            path,
            "for who in cert stranger; do
               openssl req -x509 -newkey rsa:2048 -nodes -keyout $who.key -out $who.pem -days 36500 -subj /CN=$who 2>/dev/null
             done
             mkdir mnt
             echo old > slot.a
             : > slot.b
             grub-editenv grubenv create
             grub-editenv grubenv set ORDER='a b' a_OK=1 b_OK=1 a_TRY=0 b_TRY=0",
        );
        let bus = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile"])
            .arg(format!("--config-file={here}/bus.conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let board = Self { folder, bus, service: None };
        wait_until("the bus is there", || board.path().join("bus").exists());
        board
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    /// A bundle with this image, signed by one of the two; as an artifact of a release.
    fn bundle(&self, image: &str, signer: &str) -> Artifact {
        let manifest =
            "[update]\ncompatible=board\nversion=1.2.0\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n";
        fs::create_dir_all(self.path().join("content")).unwrap();
        fs::write(self.path().join("content/manifest.raucm"), manifest).unwrap();
        fs::write(self.path().join("content/rootfs.img"), image).unwrap();
        let name = format!("{signer}.raucb");
        let _ = fs::remove_file(self.path().join(&name));
        shell(self.path(), &format!("rauc --cert {signer}.pem --key {signer}.key bundle content {name} 2>&1"));
        let bytes = fs::read(self.path().join(&name)).unwrap();
        Artifact {
            path: self.path().join(&name),
            length: bytes.len() as u64,
            hashes: Hashes::sha256(Sha256::digest(&bytes).into()),
            name,
        }
    }

    /// Restarts the board: GRUB chooses a slot as RAUC's documentation has it do, and RAUC's service starts there.
    fn start(&mut self) -> String {
        if let Some(mut service) = self.service.take() {
            service.kill().unwrap();
            service.wait().unwrap();
        }
        let chosen = shell(
            self.path(),
            "eval \"$(grub-editenv grubenv list | sed 's/=\\(.*\\)/=\"\\1\"/')\"
             for slot in $ORDER; do
               eval ok=\\$${slot}_OK tried=\\$${slot}_TRY
               if [ \"$ok/$tried\" = 1/0 ]; then
                 grub-editenv grubenv set ${slot}_TRY=1
                 echo $slot
                 exit
               fi
             done",
        );
        let chosen = chosen.trim().to_owned();
        // Its mounts are nobody else's.
        let service = Command::new("unshare")
            .args(["--mount", "rauc"])
            .arg(format!("--override-boot-slot={chosen}"))
            .arg(format!("--conf={}/system.conf", self.path().display()))
            .arg("service")
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.service = Some(service);
        wait_until("RAUC's service answers", || {
            self.installer().running().is_ok_and(|running| running.as_ref() == Some(&chosen))
        });
        chosen
    }

    fn address(&self) -> String {
        format!("unix:path={}/bus", self.path().display())
    }

    fn installer(&self) -> CommandInstaller {
        let recipe = contrib("installers/rauc").display().to_string();
        let words = ["env".to_owned(), format!("DBUS_SYSTEM_BUS_ADDRESS={}", self.address()), recipe];
        CommandInstaller::new(tidegate_client::command::Command::new(words, LIMIT))
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..300 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("waited in vain until {what}");
}

#[test]
fn rauc() {
    if !have(&["rauc", "mksquashfs", "dbus-daemon", "unshare", "openssl", "grub-editenv"])
        || !is_permitted("mounting", &["unshare", "--mount", "losetup", "--find"])
    {
        return;
    }
    let mut board = Board::new();
    let version = tidegate_model::version::Version::new(1, 2, 0);
    assert_eq!(board.start(), "a");
    board.installer().confirm().unwrap();

    // Installed, tried, confirmed, and there to stay.
    let good = board.bundle("the new system", "cert");
    board.installer().install_quietly(&version, std::slice::from_ref(&good)).unwrap();
    assert!(board.read("slot.b").starts_with("the new system"));
    assert_eq!(board.read("slot.a"), "old\n");
    assert_eq!(board.installer().running().unwrap().as_deref(), Some("a"));
    assert_eq!(board.start(), "b");
    board.installer().confirm().unwrap();
    board.installer().confirm().unwrap();
    assert_eq!(board.start(), "b");
    board.installer().confirm().unwrap();

    // One that is taken back while it runs.
    let bad = board.bundle("another system", "cert");
    board.installer().install_quietly(&version, std::slice::from_ref(&bad)).unwrap();
    assert_eq!(board.start(), "a");
    board.installer().revert(&"b".to_owned()).unwrap();
    assert_eq!(board.start(), "b");
    board.installer().confirm().unwrap();
    // One that is taken back before it ran.
    board.installer().install_quietly(&version, std::slice::from_ref(&bad)).unwrap();
    board.installer().revert(&"b".to_owned()).unwrap();
    assert_eq!(board.start(), "b");
    board.installer().confirm().unwrap();
    // One that nobody confirms, since it does not come so far.
    board.installer().install_quietly(&version, std::slice::from_ref(&bad)).unwrap();
    assert_eq!(board.start(), "a");
    assert_eq!(board.start(), "b");
    board.installer().confirm().unwrap();

    // A bundle that a stranger signed is RAUC's to refuse, and two artifacts are not for RAUC, ever.
    let strange = board.bundle("a stranger's system", "stranger");
    let error = board.installer().install_quietly(&version, &[strange]).unwrap_err();
    assert!(error.to_string().contains("signature") && !error.is_final(), "{error}");
    let error = board.installer().install_quietly(&version, &[bad.clone(), bad.clone()]).unwrap_err();
    assert!(error.is_final(), "{error}");
    assert!(board.read("slot.a").starts_with("another system"));
    assert_eq!(board.start(), "b");
    // Bytes that changed since they were verified do not get as far as RAUC.
    fs::write(&bad.path, "changed").unwrap();
    assert!(board.installer().install_quietly(&version, &[bad]).is_err());
}
