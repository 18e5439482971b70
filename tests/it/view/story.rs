//! A fleet in the middle of things, made with the commands that people type.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// When everything in the story has happened.
pub const NOW: &str = "2026-03-05T18:00:00Z";

/// A workspace with a stable release, one that is going out, one that waits for a signature, and what was published of it.
pub struct Story {
    folder: tempfile::TempDir,
}

impl Story {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let story = Self { folder };
        let image = story.folder.path().join("rootfs.img");
        std::fs::write(&image, "the bytes of an image").unwrap();
        let image = image.to_str().unwrap();
        story.done("2026-03-01T00:00:00Z", &["init", story.workspace().to_str().unwrap(), "--example-keys"], false);
        story.release("2026-03-01T01:00:00Z", "1.0.0", "The first <b>release</b> & all.", image);
        story.done("2026-03-01T02:00:00Z", &["rollout", "start", "1.0.0"], true);
        story.done("2026-03-01T03:00:00Z", &["rollout", "withdraw", "1.0.0", "--reason", "only to try"], true);
        story.release("2026-03-02T01:00:00Z", "1.1.0", "Fixes the clock.", image);
        story.done("2026-03-02T02:00:00Z", &["rollout", "start", "1.1.0"], true);
        story.done("2026-03-05T01:00:00Z", &["rollout", "renew", "1.1.0"], true);
        story.done("2026-03-05T06:00:00Z", &["rollout", "advance", "1.1.0", "--ramp", "24h"], true);
        story.done("2026-03-05T07:00:00Z", &["release", "new", "1.2.0", "--build-id", "ci-3"], true);
        story.done("2026-03-05T07:00:00Z", &["release", "add", "1.2.0", image, "--hardware", "board-a"], true);
        story.done("2026-03-05T07:00:00Z", &["release", "manifest", "1.2.0"], true);
        story.done("2026-03-05T07:00:00Z", &["release", "sign", "1.2.0", "--key", "release-2"], true);
        story.done("2026-03-05T17:00:00Z", &["refresh"], true);
        let settings = story.workspace().join("tidegate.toml");
        let text = std::fs::read_to_string(&settings).unwrap();
        std::fs::write(settings, text.replace("[publish]\n", "[publish]\nplace = \"../public\"\n")).unwrap();
        story.done(NOW, &["publish", story.public().to_str().unwrap()], true);
        story
    }

    /// Registers and validates a release.
    fn release(&self, now: &str, version: &str, note: &str, image: &str) {
        for args in [
            &[
                "release",
                "new",
                version,
                "--build-id",
                "ci-1",
                "--source",
                "git+https://example.com/os@3f2c",
                "--note",
                note,
            ][..],
            &["release", "add", version, image, "--hardware", "board-a"],
            &["release", "manifest", version],
            &["release", "sign", version, "--key", "release-1"],
            &["release", "sign", version, "--key", "release-2"],
            &["release", "validate", version],
            &["release", "register", version],
            &["release", "validate", version],
        ] {
            self.done(now, args, true);
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn workspace(&self) -> PathBuf {
        self.path("fleet")
    }

    /// What was published.
    pub fn public(&self) -> PathBuf {
        self.path("public")
    }

    pub fn root(&self) -> PathBuf {
        self.workspace().join("metadata/1.root.json")
    }

    /// Runs a command at the story's end, in the workspace.
    pub fn run(&self, args: &[&str]) -> Output {
        tidegate(&[&["-C", self.workspace().to_str().unwrap(), "--now", NOW], args].concat())
    }

    fn done(&self, now: &str, args: &[&str], inside: bool) {
        let workspace = self.workspace();
        let mut line = vec!["--now", now, "--quiet"];
        if inside {
            line.extend(["-C", workspace.to_str().unwrap()]);
        }
        line.extend(args);
        let out = tidegate(&line);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

pub fn tidegate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(args)
        .stdin(Stdio::null())
        .env("NO_COLOR", "1")
        .env("TIDEGATE_ACTOR", "somebody")
        .output()
        .unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
