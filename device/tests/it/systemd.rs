//! The units of `contrib/systemd` under the real systemd, as process 1 of a machine of its own made of namespaces: an update with a
//! real `systemctl reboot` between, and an agent that is killed, hangs, gives way and stops.
//!
//! Making such a machine takes root and a kernel that lets it; elsewhere the test says so and passes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;

use crate::board::WELL;
use crate::cli::Bench;
use crate::fleet::release_image;
use crate::run::HOOK;
use crate::tools::{have, is_permitted};

const NAMESPACES: [&str; 8] = ["--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--propagation", "private"];

struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Runs until it restarts or ends.
    fn boot(&self) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/boot");
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "150", "unshare"]).args(NAMESPACES).arg(script).arg(&self.folder);
        command.output().unwrap()
    }
}

#[test]
fn a_board_with_systemd_updates_itself() {
    if !Path::new("/usr/lib/systemd/systemd").exists() && !have(&["systemd"]) {
        return;
    }
    if !have(&["unshare", "systemctl", "systemd-analyze"])
        || !is_permitted("namespaces", &["unshare", "--mount", "--pid", "--fork", "--cgroup", "true"])
    {
        return;
    }
    let bench = Bench::new(|sim| {
        release_image(sim, "all", "1.2.0", 12, WELL);
    });
    let machine = Machine { folder: bench.path("machine") };
    machine.put("srv/scenario", include_bytes!("../systemd/scenario"));
    fs::rename(bench.path("repository"), machine.path("srv/repository")).unwrap();
    machine.put("etc/tidegate/root.json", fs::read(bench.path("root.json")).unwrap());
    let hook = |word: &'static str| json!(["/bin/sh", "/var/lib/board/hook", word]);
    let settings = json!({
        "root": "root.json", "repository": "/srv/repository", "state_dir": "/var/lib/tidegate",
        "device_id": "device-1", "channel": "stable", "product": "os", "hardware": "board", "factory_version": "1.0.0",
        "installer": {
            "kind": "slots", "boot": ["/bin/sh", "/var/lib/board/hook"],
            "images": [{"a": "/var/lib/board/slot.a", "b": "/var/lib/board/slot.b"}],
        },
        "trial": {"health": hook("health"), "within": "60s", "restart": ["systemctl", "reboot"]},
        "poll": {"interval": "1h", "first_within": "0s"},
    });
    machine.put("etc/tidegate/device.json", settings.to_string());
    for (name, content) in [("hook", HOOK), ("slot.a", "old"), ("running", "a\n"), ("kept", "a\n")] {
        machine.put(&format!("var/lib/board/{name}"), content);
    }
    let program = machine.path("bin/tidegate-device");
    machine.put("bin/tidegate-device", fs::read(env!("CARGO_BIN_EXE_tidegate-device")).unwrap());
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();

    // The units as they are shipped; only the times are those of a test.
    for unit in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../contrib/systemd")).unwrap() {
        let unit = unit.unwrap();
        machine.put(&format!("etc/systemd/system/{}", unit.file_name().display()), fs::read(unit.path()).unwrap());
    }
    let times = "[Service]\nRestartSec=200ms\nWatchdogSec=2s\nTimeoutAbortSec=1s\n";
    machine.put("etc/systemd/system/tidegate-device.service.d/times.conf", times);
    machine.put("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    machine.put("etc/group", "root:x:0:\n");
    machine.put("etc/machine-id", "");
    machine.put("etc/os-release", "ID=board\n");
    // Nothing of the system that we run on but what the agent asks for.
    let wanted = "[Unit]\nDefaultDependencies=no\n";
    machine.put("etc/systemd/system/default.target", wanted);
    let wants = machine.path("etc/systemd/system/default.target.wants");
    fs::create_dir(&wants).unwrap();
    symlink("../tidegate-device.service", wants.join("tidegate-device.service")).unwrap();

    // The first boot installs, and restarts the board.
    let output = machine.boot();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(machine.read("var/lib/board/tried"), "b\n", "{:?} {said}", output.status);
    assert_eq!(fs::read(machine.path("var/lib/board/slot.b")).unwrap(), WELL);
    let hook = machine.path("var/lib/board/hook");
    assert!(Command::new("sh").arg(hook).arg("restart").status().unwrap().success());
    assert_eq!(machine.read("var/lib/board/running"), "b\n");

    // The second has it on trial.
    let scenario = "[Service]\nType=oneshot\nExecStart=/bin/sh /srv/scenario\n\
                    StandardOutput=file:/srv/said\nStandardError=file:/srv/said\n";
    machine.put("etc/systemd/system/scenario.service", scenario);
    symlink("../scenario.service", wants.join("scenario.service")).unwrap();
    let output = machine.boot();
    let said = machine.read("srv/said");
    println!("{said}");
    assert_eq!(output.status.code(), Some(0), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1.2.0 (sequence 12), confirmed") && said.contains("the units are in order"), "{said}");
    assert_eq!(machine.read("var/lib/board/kept"), "b\n");
}
