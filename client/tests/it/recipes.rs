//! The recipes in `contrib/`, with the real tools that they speak with.
//!
//! Where a tool is missing a test says so and passes, unless `TIDEGATE_REQUIRE_TOOLS` is set.

use std::fs;
use std::path::Path;

use crate::tools::Quietly as _;
use crate::tools::{LIMIT, contrib, have, shell};
use sha2::{Digest as _, Sha256};
use tidegate_client::command::Command;
use tidegate_client::install::{Artifact, Boot as _, BootHook, CommandInstaller, Installer as _, Slot};
use tidegate_tuf::hash::{Hashes, to_hex};

/// A boot hook from `contrib/boot`, with these variables.
fn hook(name: &str, variables: &[(&str, &Path)]) -> BootHook {
    let variables = variables.iter().map(|(name, path)| format!("{name}={}", path.display()));
    let words = ["env".to_owned()].into_iter().chain(variables).chain([contrib(name).display().to_string()]);
    BootHook::new(Command::new(words, LIMIT))
}

/// What every boot hook does: `variable` reads the boot loader's own variables, of which `tried` is one.
fn speaks(mut hook: BootHook, command_line: &Path, tried: &str, variable: &dyn Fn(&str) -> String) {
    let (kept, tried, invalid) = (|| variable("kept"), || variable(tried), || variable("invalid"));
    for (line, slot) in [("quiet tidegate.slot=a panic=10\n", Slot::A), ("tidegate.slot=b\n", Slot::B)] {
        fs::write(command_line, line).unwrap();
        assert_eq!(hook.running().unwrap(), slot);
    }
    fs::write(command_line, "quiet\n").unwrap();
    assert!(hook.running().is_err());
    hook.keep(Slot::A).unwrap();
    assert_eq!((kept().as_str(), tried().as_str()), ("a", ""));
    hook.attempt(Slot::B).unwrap();
    assert_eq!((kept().as_str(), tried().as_str()), ("a", "b"));
    hook.keep(Slot::B).unwrap();
    hook.keep(Slot::B).unwrap();
    assert_eq!((kept().as_str(), tried().as_str()), ("b", ""));
    // A slot that is being written starts again once it is tried or kept, and not because the other one is kept.
    for (slot, other) in [(Slot::A, Slot::B), (Slot::B, Slot::A)] {
        hook.attempt(slot).unwrap();
        assert!(hook.invalidate(slot).unwrap());
        hook.keep(other).unwrap();
        assert_eq!((invalid(), tried()), (slot.to_string(), String::new()));
        hook.attempt(slot).unwrap();
        assert_eq!((invalid(), tried()), (String::new(), slot.to_string()));
        hook.invalidate(slot).unwrap();
        hook.keep(slot).unwrap();
        assert_eq!((kept(), invalid()), (slot.to_string(), String::new()));
    }
}

#[test]
fn grub() {
    if !have(&["grub-editenv"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (block, line) = (folder.path().join("grubenv"), folder.path().join("cmdline"));
    shell(folder.path(), "grub-editenv grubenv create");
    let variable = |name: &str| {
        shell(folder.path(), &format!("grub-editenv grubenv list | sed -n 's/^{name}=//p'")).trim().to_owned()
    };
    let hook = hook("boot/grub", &[("GRUBENV", &block), ("CMDLINE", &line)]);
    speaks(hook, &line, "try", &variable);
}

#[test]
fn u_boot() {
    if !have(&["fw_setenv", "fw_printenv"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (config, line) = (folder.path().join("fw_env.config"), folder.path().join("cmdline"));
    // A redundant environment in two files.
    for name in ["env.0", "env.1"] {
        fs::write(folder.path().join(name), vec![0; 0x4000]).unwrap();
    }
    let places = ["env.0", "env.1"].map(|name| format!("{} 0x0 0x4000\n", folder.path().join(name).display()));
    fs::write(&config, places.concat()).unwrap();
    fs::write(folder.path().join("default"), "bootdelay=1\n").unwrap();
    shell(folder.path(), "fw_setenv --config fw_env.config --defenv default kept a");
    let variable = |name: &str| {
        shell(folder.path(), &format!("fw_printenv --config fw_env.config | sed -n 's/^{name}=//p'")).trim().to_owned()
    };
    let hook = hook("boot/uboot", &[("FW_ENV_CONFIG", &config), ("CMDLINE", &line)]);
    speaks(hook, &line, "attempt", &variable);
    assert_eq!(variable("bootdelay"), "1");
}

/// A release that is an `.swu` file, signed for SWUpdate as well.
#[test]
fn swupdate() {
    if !have(&["swupdate", "cpio", "openssl", "grub-editenv"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let image = b"the image inside";
    fs::write(folder.join("image.bin"), image).unwrap();
    fs::write(folder.join("slot.a"), b"old").unwrap();
    fs::write(folder.join("slot.b"), b"").unwrap();
    let part = |slot: &str| {
        let (device, sha256) = (folder.join(format!("slot.{slot}")), to_hex(&Sha256::digest(image)));
        let (device, file) = (device.display(), "image.bin");
        format!(
            r#"{slot}: {{ images: ( {{ filename = "{file}"; device = "{device}"; type = "raw"; sha256 = "{sha256}"; }} ); }};"#
        )
    };
    let description = format!(
        r#"software = {{ version = "1.2.3"; hardware-compatibility = ["1.0"]; stable = {{ {} {} }} }}"#,
        part("a"),
        part("b")
    );
    fs::write(folder.join("sw-description"), description).unwrap();
    shell(
        folder,
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 36500 -subj /CN=example 2>/dev/null
         openssl cms -sign -in sw-description -out sw-description.sig -signer cert.pem -inkey key.pem -outform DER -nosmimecap -binary
         printf '%s\\n' sw-description sw-description.sig image.bin | cpio -o -H crc > release.swu 2>/dev/null
         grub-editenv grubenv create
         echo tidegate.slot=a > cmdline",
    );
    let path = |name: &str| folder.join(name).display().to_string();
    let words = [
        "env".to_owned(),
        // Its sockets are there: two at once would meet in the system's folder.
        format!("TMPDIR={}", folder.display()),
        format!("GRUBENV={}", path("grubenv")),
        format!("CMDLINE={}", path("cmdline")),
        format!("BOOT_HOOK={}", contrib("boot/grub").display()),
        format!("SWUPDATE_ARGUMENTS=--key {} --hwrevision board:1.0", path("cert.pem")),
        contrib("installers/swupdate").display().to_string(),
    ];
    let mut installer = CommandInstaller::new(Command::new(words, LIMIT));
    let bytes = fs::read(folder.join("release.swu")).unwrap();
    let artifact = Artifact {
        name: "release.swu".into(),
        path: folder.join("release.swu"),
        length: bytes.len() as u64,
        hashes: Hashes::sha256(Sha256::digest(&bytes).into()),
    };
    let version = tidegate_model::version::Version::new(1, 2, 3);
    assert_eq!(installer.running().unwrap().as_deref(), Some("a"));
    installer.install_quietly(&version, std::slice::from_ref(&artifact)).unwrap();
    assert_eq!(fs::read(folder.join("slot.b")).unwrap(), image);
    assert_eq!(fs::read(folder.join("slot.a")).unwrap(), b"old");
    let list = || shell(folder, "grub-editenv grubenv list").replace("invalid=\n", "");
    assert_eq!(list(), "kept=a\ntry=b\n");
    fs::write(folder.join("cmdline"), "tidegate.slot=b\n").unwrap();
    installer.confirm().unwrap();
    assert_eq!(list(), "kept=b\ntry=\n");
    installer.revert(&"a".to_owned()).unwrap();
    assert_eq!(list(), "kept=a\ntry=\n");
    // Two artifacts are not for SWUpdate, ever.
    let error = installer.install_quietly(&version, &[artifact.clone(), artifact]).unwrap_err();
    assert!(error.is_final(), "{error}");
    // A file that is signed by nobody is SWUpdate's to refuse.
    fs::write(folder.join("release.swu"), b"no such file").unwrap();
    let artifact = Artifact {
        name: "release.swu".into(),
        path: folder.join("release.swu"),
        length: 12,
        hashes: Hashes::sha256(Sha256::digest(b"no such file").into()),
    };
    assert!(installer.install_quietly(&version, &[artifact]).is_err());
}
