//! A machine that boots: GRUB, two slots on block devices, a kernel, and the real program, under software emulation.
//!
//! `cargo test -p tidegate-device --test it qemu -- --ignored --nocapture`; what it needs beside
//! `qemu-system-x86_64` is in `tests/qemu/build`. It takes some minutes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chrono::TimeDelta;
use serde_json::json;

use crate::fleet::{channel, release_image};
use crate::simulator::{Simulator, epoch};

struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn build(words: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qemu/build");
        let mut command = Command::new(script);
        command.args(words).env("DEVICE", env!("CARGO_BIN_EXE_tidegate-device"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn image(&self, version: &str, fate: &str) -> Vec<u8> {
        Self::build(&["image", &self.path(""), version, fate, &self.path("image")]);
        fs::read(self.path("image")).unwrap()
    }

    /// Puts a repository on its disk.
    fn publish(&self, sim: &Simulator) {
        let folder = self.folder.join("repository");
        let _ = fs::remove_dir_all(&folder);
        for (path, bytes) in &sim.files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::write(folder.join("root.json"), sim.root(1)).unwrap();
        Self::build(&["disk", &self.path("repository"), &self.path("disk.repository"), "160"]);
    }

    /// Switches it on, until it switches itself off. What matters of what it says: what GRUB starts, what runs, and the states.
    fn run(&self) -> Vec<String> {
        let mut command = Command::new("timeout");
        command.args(["600", "qemu-system-x86_64", "-m", "512", "-display", "none", "-serial", "stdio", "-boot", "d"]);
        command.args(["-accel", "tcg", "-cdrom", &self.path("grub.iso")]);
        for disk in ["disk.state", "disk.a", "disk.b", "disk.repository"] {
            command.args(["-drive", &format!("file={},format=raw,if=virtio,cache=writethrough", self.path(disk))]);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{text}");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text.lines().filter_map(milestone).collect()
    }
}

fn milestone(line: &str) -> Option<String> {
    let line = line.trim_end();
    for word in ["GRUB starts", "RUNS", "DONE"] {
        if let Some(at) = line.find(word) {
            return line.get(at..).map(str::to_owned);
        }
    }
    let line = line.get(line.find('{')?..)?;
    let value: serde_json::Value = serde_json::from_str(line).ok()?;
    let kind = value["detail"]["kind"].as_str()?;
    let is_settling = ["rebooting", "trial", "confirmed", "rolled-back", "quarantined"].contains(&kind);
    (value["event"] == "state" && is_settling).then(|| kind.to_owned())
}

#[test]
#[ignore = "boots a machine under software emulation, for some minutes; see the module's documentation"]
fn a_machine_updates_itself_and_comes_back_from_what_fails() {
    let folder = tempfile::tempdir().unwrap();
    let machine = Machine { folder: folder.path().into() };
    Machine::build(&["tools", &machine.path("")]);
    let old = machine.image("1.0.0", "well");
    fs::write(machine.path("disk.a"), &old).unwrap();
    fs::write(machine.path("disk.b"), vec![0; old.len()]).unwrap();
    fs::create_dir(machine.path("state")).unwrap();
    let block = machine.path("state/grubenv");
    assert!(Command::new("grub-editenv").args([&block, "create"]).status().unwrap().success());
    Machine::build(&["disk", &machine.path("state"), &machine.path("disk.state"), "128"]);

    let mut sim = channel(&[("all", Some(1_000_000))]);
    for role in ["root", "timestamp", "snapshot", "targets", "stable", "stable.all"] {
        sim.set_expiry(role, epoch() + TimeDelta::days(36_500));
    }
    sim.publish(&["stable.all", "stable", "targets", "snapshot", "timestamp", "root"]);

    // A release that is well: tried in slot b, confirmed, and there to stay.
    release_image(&mut sim, "all", "1.1.0", 11, &machine.image("1.1.0", "well"));
    machine.publish(&sim);
    let expected = [
        "GRUB starts slot a",
        "RUNS 1.0.0 well in slot a",
        "rebooting",
        "GRUB starts slot b",
        "RUNS 1.1.0 well in slot b",
        "trial",
        "confirmed",
        "DONE 1.1.0 well",
    ];
    assert_eq!(machine.run(), expected);
    assert_eq!(machine.run(), ["GRUB starts slot b", "RUNS 1.1.0 well in slot b", "DONE 1.1.0 well"]);

    // One that runs and is not well: it goes back by itself.
    release_image(&mut sim, "all", "1.2.0", 12, &machine.image("1.2.0", "unwell"));
    machine.publish(&sim);
    let expected = [
        "GRUB starts slot b",
        "RUNS 1.1.0 well in slot b",
        "rebooting",
        "GRUB starts slot a",
        "RUNS 1.2.0 unwell in slot a",
        "trial",
        "rolled-back",
        "GRUB starts slot b",
        "RUNS 1.1.0 well in slot b",
        "quarantined",
        "DONE 1.1.0 well",
    ];
    assert_eq!(machine.run(), expected);

    // One that does not even start: the kernel panics, GRUB goes back, and after as many attempts as are tolerated it is given up.
    release_image(&mut sim, "all", "1.3.0", 13, &machine.image("1.3.0", "panic"));
    machine.publish(&sim);
    let mut expected = vec!["GRUB starts slot b", "RUNS 1.1.0 well in slot b"];
    for attempt in 1..=3 {
        expected.extend([
            "rebooting",
            "GRUB starts slot a",
            "GRUB starts slot b",
            "RUNS 1.1.0 well in slot b",
            "rolled-back",
        ]);
        expected.extend((attempt == 3).then_some("quarantined"));
    }
    expected.push("DONE 1.1.0 well");
    assert_eq!(machine.run(), expected);
    assert!(json!(machine.run()).to_string().contains("DONE 1.1.0 well"));
}
