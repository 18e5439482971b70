//! What happens in the demonstration, in order.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::json;
use tidegate_model::decision::Outcome;
use tidegate_model::name::Name;
use tidegate_model::text::one_line;
use tidegate_model::time;

use super::devices::{Actor, RAM_MB, cast, failed};
use super::folder::Folder;
use crate::cli::context::{Context, Execute};
use crate::cli::ui::Ui;
use crate::error::{Error, Result};
use crate::workspace::{Workspace, artifacts, map_in_force};

/// The salt of the demonstration, so that the same devices play the same parts every time.
const SALT: &str = "746964656761746520646564696d6f21";
/// The version that is released, and its file's name.
const VERSION: &str = "1.1.0";
const ARTIFACT: &str = "firmware.bin";

/// The demonstration while it is told.
pub(super) struct Story<'a> {
    folder: &'a Folder,
    image: &'a Path,
    ui: Ui,
    execute: Execute,
    /// The instant at which it ends: now.
    end: DateTime<Utc>,
}

/// What became of a device.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    device: &'static str,
    id: String,
    cohort: String,
    outcome: Outcome,
}

impl<'a> Story<'a> {
    pub(super) fn new(folder: &'a Folder, image: &'a Path, cx: &Context, execute: Execute) -> Result<Self> {
        let readable = File::open(image).and_then(|file| file.metadata());
        readable.map_err(|e| Error::io("read", image, e))?;
        Ok(Self { folder, image, ui: cx.ui.for_steps(), execute, end: cx.now })
    }

    /// Tells it, and gives what became of the devices.
    pub(super) fn tell(&self) -> Result<Vec<Told>> {
        // Six days, so that the times in policy.toml are kept and not bent.
        let begin = self.end - TimeDelta::days(6);
        let start = self.end - TimeDelta::hours(120);
        let second = start + TimeDelta::hours(49);
        let third = second + TimeDelta::hours(36);

        self.heading("A workspace: configuration, keys, first metadata");
        self.run(begin, &["init", &self.fleet(), "--example-keys", "--salt", SALT], false)?;
        self.whole()?;

        self.prepare(begin)?;
        let [mut early, mut late, mut small] = self.actors()?;

        self.heading("Stage 7: controlled rollout. First the canaries, 5% of the fleet");
        self.run(start, &["rollout", "start", VERSION], true)?;
        self.publish(start)?;
        self.install(&mut early, start + TimeDelta::hours(1))?;
        self.check(&mut late, start + TimeDelta::hours(1))?;

        self.heading("Stage 7, two days later: the early cohort, 20%, within 12 hours");
        self.run(second, &["rollout", "advance", VERSION, "--ramp", "12h"], true)?;
        self.publish(second)?;
        self.heading("Stage 7, a day after that: everybody else, within 24 hours");
        self.run(third, &["rollout", "advance", VERSION, "--ramp", "24h"], true)?;
        self.publish(third)?;
        self.check(&mut late, third + TimeDelta::hours(6))?;

        self.heading("Stage 8: stable in every cohort");
        self.run(self.end, &["rollout", "complete", VERSION], true)?;
        self.publish(self.end)?;
        self.run(self.end, &["verify", &self.site(), "--root", &self.root()], false)?;

        self.heading("Stage 9: installation. But first, somebody changes one byte on the way");
        self.tamper(&mut late)?;
        self.install(&mut late, self.end)?;

        self.heading("And the device that is not eligible");
        self.explain(&mut small)?;
        self.outcomes([early, late, small])
    }

    /// Stages 1 to 6: from a file to a validated release.
    fn prepare(&self, begin: DateTime<Utc>) -> Result<()> {
        let at = |minutes| begin + TimeDelta::minutes(minutes);
        let provenance = self.provenance()?;
        let condition = format!("{{\"fact\": \"ram-mb\", \"ge\": {RAM_MB}}}");
        self.heading("Stage 1: build creation. Where the file comes from, and which devices may have it");
        self.run(
            at(10),
            &[
                "release",
                "new",
                VERSION,
                "--build-id",
                "demo-1",
                "--provenance",
                &provenance,
                "--eligibility",
                &condition,
            ],
            true,
        )?;
        self.heading("Stage 2: artifact preparation. The file is hashed and kept by its hash");
        let image = self.image.display().to_string();
        self.run(at(20), &["release", "add", VERSION, &image, "--name", ARTIFACT, "--hardware", "board-a"], true)?;
        self.heading("Stage 3: manifest creation. The exact bytes that will be signed");
        self.run(at(30), &["release", "manifest", VERSION], true)?;
        self.heading("Stage 4: release signing. Two holders, one key each");
        self.run(at(40), &["release", "sign", VERSION, "--key", "release-1"], true)?;
        self.run(at(50), &["release", "sign", VERSION, "--key", "release-2"], true)?;
        self.heading(
            "Stage 5: registration, which takes a fresh report. The channel approves it; nobody is offered it yet",
        );
        self.run(at(55), &["release", "validate", VERSION], true)?;
        self.run(at(60), &["release", "register", VERSION], true)?;
        self.heading("Stage 6: validation. Five kinds of checks, a signed report");
        self.run(at(70), &["release", "validate", VERSION, "--expose"], true)?;
        self.publish(at(70))
    }

    fn actors(&self) -> Result<[Actor; 3]> {
        let workspace = Workspace::open(&self.folder.join("fleet"))?;
        let channel: Name = "stable".parse().map_err(|e| Error::bug("a name").with_source(e))?;
        let map = map_in_force(workspace.dir(), &workspace.repository()?, &channel)?;
        let actors = cast(self.folder, &map)?;
        self.heading("Three devices, shipped with nothing but the first root and version 1.0.0");
        for actor in &actors {
            self.ui.status(format_args!(
                "  {:<6} {}, which the signed cohort map puts into {}",
                actor.name, actor.id, actor.cohort
            ));
        }
        Ok(actors)
    }

    fn check(&self, actor: &mut Actor, at: DateTime<Utc>) -> Result<()> {
        self.device_command(actor, "check", at);
        let check = actor.at(at).check().map_err(failed)?;
        self.answer(check.outcome())
    }

    fn install(&self, actor: &mut Actor, at: DateTime<Utc>) -> Result<()> {
        self.check(actor, at)?;
        self.device_command(actor, "install", at);
        let device = actor.at(at);
        let check = device.check().map_err(failed)?;
        let update = check.update.ok_or_else(|| Error::bug("the device of the story has nothing to install"))?;
        let downloaded = device.download(&update, &mut tidegate_client::watch::unwatched).map_err(failed)?;
        device.install(&downloaded, &mut tidegate_client::watch::unwatched).map_err(failed)?;
        let bytes: u64 = downloaded.artifacts().iter().map(|artifact| artifact.length).sum();
        self.answer(format_args!(
            "verified {bytes} bytes and installed {} into {}",
            update.release.version,
            actor.slot().display()
        ))?;
        self.device_command(actor, "confirm", at);
        actor.at(at).confirm().map_err(failed)?;
        self.answer("it works: confirmed")
    }

    /// Has devices fetch the file whole: one release needs no chunks, and what is tampered with later is that file.
    fn whole(&self) -> Result<()> {
        self.heading("Its devices fetch the whole file: patches are for the second release (docs/delivery.md)");
        let path = self.folder.join("fleet/tidegate.toml");
        self.command(&format!("printf '\\n[delivery]\\nchunks = false\\n' >> {}", path.display()));
        let mut file = OpenOptions::new().append(true).open(&path).map_err(|e| Error::io("open", &path, e))?;
        file.write_all(b"\n[delivery]\nchunks = false\n").map_err(|e| Error::io("write", &path, e))
    }

    /// One byte of the published artifact is changed, and changed back when the device has refused it.
    fn tamper(&self, actor: &mut Actor) -> Result<()> {
        let path = self.published_artifact()?;
        let at = path.metadata().map_err(|e| Error::io("read", &path, e))?.len() / 2;
        self.command(&format!("printf X | dd of={} bs=1 seek={at} conv=notrunc", path.display()));
        let good = swap_byte(&path, at, None)?;
        self.device_command(actor, "download", self.end);
        let device = actor.at(self.end);
        let refused = device.check().map(|check| check.update).map_err(failed).and_then(|update| {
            let update = update.ok_or_else(|| Error::bug("the device of the story has nothing to install"))?;
            Ok(device.download(&update, &mut tidegate_client::watch::unwatched).err())
        });
        swap_byte(&path, at, Some(good))?;
        match refused? {
            Some(error) => {
                self.answer(format_args!("refused: {error}"))?;
                self.ui.status("  The byte is put back.");
                Ok(())
            }
            None => Err(Error::bug("a device took a file that was tampered with")),
        }
    }

    fn explain(&self, actor: &mut Actor) -> Result<()> {
        self.device_command(actor, "explain", self.end);
        let check = actor.at(self.end).check().map_err(failed)?;
        for line in check.explanation.to_string().lines() {
            self.answer(line)?;
        }
        Ok(())
    }

    fn outcomes(&self, actors: [Actor; 3]) -> Result<Vec<Told>> {
        let mut told = Vec::new();
        for mut actor in actors {
            let outcome = actor.at(self.end).check().map_err(failed)?.outcome().clone();
            told.push(Told { device: actor.name, id: actor.id.to_string(), cohort: actor.cohort, outcome });
        }
        Ok(told)
    }

    fn published_artifact(&self) -> Result<PathBuf> {
        let record = crate::release::record::all(&self.folder.join("fleet"))?;
        let artifact = record.first().and_then(|record| record.artifacts.first());
        let sha256 =
            artifact.map(|artifact| artifact.sha256).ok_or_else(|| Error::bug("a release without artifact"))?;
        Ok(self.folder.join("site").join(format!("targets/stable/releases/os/{VERSION}/{sha256}.{ARTIFACT}")))
    }

    /// A statement of how the file was made, as a build system would give it.
    fn provenance(&self) -> Result<String> {
        let build = self.folder.join("build");
        let stored = artifacts::add(&build, self.image, |_| ())?;
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": ARTIFACT, "digest": {"sha256": stored.sha256.to_string()}}],
            "predicateType": "https://slsa.dev/provenance/v1",
            "predicate": {
                "buildDefinition": {"buildType": "https://example.org/demo/v1", "externalParameters": {}},
                "runDetails": {"builder": {"id": "https://example.org/demo-builder"}},
            },
        });
        // Only the hash was wanted.
        let kept = build.join("artifacts");
        std::fs::remove_dir_all(&kept).map_err(|e| Error::io("remove", &kept, e))?;
        let path = build.join("provenance.json");
        std::fs::write(&path, format!("{statement:#}\n")).map_err(|e| Error::io("write", &path, e))?;
        Ok(path.display().to_string())
    }

    fn publish(&self, at: DateTime<Utc>) -> Result<()> {
        self.run(at, &["publish", &self.site(), "--quiet"], true)
    }

    /// Shows a command, and runs it in this process.
    fn run(&self, at: DateTime<Utc>, arguments: &[&str], in_workspace: bool) -> Result<()> {
        let mut line = vec!["tidegate".to_owned()];
        if in_workspace {
            line.extend(["-C".to_owned(), self.fleet()]);
        }
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        line.extend(["--now".to_owned(), time::format(at)]);
        self.command(&line.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "));
        (self.execute)(line, &self.ui)
    }

    fn device_command(&self, actor: &Actor, command: &str, at: DateTime<Utc>) {
        let config = self.folder.argument(&format!("devices/{}/device.json", actor.name));
        let at = time::format(at);
        let line = format!("tidegate-device --config {} {command}", quoted(&config));
        self.painted_command(&line, &format!("   {}", self.ui.style().dim(&format!("# at {at}"))));
    }

    fn heading(&self, text: &str) {
        self.ui.status("");
        self.ui.painted(self.ui.style().bold(text));
    }

    fn command(&self, line: &str) {
        self.painted_command(line, "");
    }

    fn painted_command(&self, line: &str, remark: &str) {
        self.ui.painted(format_args!("{} {}{remark}", self.ui.style().cyan("$"), one_line(line)));
    }

    fn answer(&self, text: impl std::fmt::Display) -> Result<()> {
        self.ui.result(format_args!("  {text}"))
    }

    fn fleet(&self) -> String {
        self.folder.argument("fleet")
    }

    fn site(&self) -> String {
        self.folder.argument("site")
    }

    fn root(&self) -> String {
        self.folder.argument("fleet/metadata/1.root.json")
    }
}

/// Writes one byte (the given one, or another than is there) and gives the one that was there.
fn swap_byte(path: &Path, at: u64, byte: Option<u8>) -> Result<u8> {
    let swap = || -> std::io::Result<u8> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut old = [0];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut old)?;
        file.seek(SeekFrom::Start(at))?;
        let new = byte.unwrap_or(if old == *b"X" { b'Y' } else { b'X' });
        file.write_all(&[new])?;
        let [old] = old;
        Ok(old)
    };
    swap().map_err(|e| Error::io("write", path, e))
}

/// A word as a shell wants it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
