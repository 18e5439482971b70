//! What every installer does.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Violation, expect, works};
use crate::disk::{Disk, Faults};
use crate::install::{Artifact, InstallError, Installer};
use crate::watch::{Cancel, Watch, unwatched};
use tidegate_model::version::Version;
use tidegate_tuf::hash::Hashes;

/// A board with an installer, which a test can restart.
pub trait Board {
    /// The installer. What it writes through this disk can be made to fail; an installer that writes in other ways ignores it.
    fn installer(&self, disk: Disk) -> Box<dyn Installer>;

    /// Restarts the board. The contents of what runs then, in the order of [`artifacts`](Self::artifacts); `None` if it does not start.
    fn restart(&self) -> Option<Vec<Vec<u8>>>;

    /// The names of the artifacts that the installer accepts.
    fn artifacts(&self) -> &'static [&'static str];

    /// Whether the installer can make the previous release run again.
    fn reverts(&self) -> bool {
        true
    }
}

/// A new board in the empty folder, on which an old release runs.
type NewBoard<'a> = &'a dyn Fn(&Path) -> Box<dyn Board>;

/// Checks an installer on new boards, each in an own folder below `folder`, which is empty.
///
/// # Errors
///
/// The first [`Violation`].
pub fn check_installer(folder: &Path, board: NewBoard<'_>) -> Result<(), Violation> {
    let mut boards = Boards { folder, board, made: 0 };
    installs_confirms_and_reverts(&mut boards)?;
    survives_a_stop_at_every_step(&mut boards)?;
    survives_a_full_disk(&mut boards)?;
    refuses_what_changed(&mut boards)
}

/// Makes boards.
struct Boards<'a> {
    folder: &'a Path,
    board: NewBoard<'a>,
    made: usize,
}

/// A board, and a release for it.
struct Stage {
    folder: PathBuf,
    board: Box<dyn Board>,
    artifacts: Vec<Artifact>,
    old: Vec<Vec<u8>>,
    new: Vec<Vec<u8>>,
}

impl Boards<'_> {
    fn next(&mut self) -> Result<Stage, Violation> {
        self.made += 1;
        let folder = self.folder.join(self.made.to_string());
        let made = "the folder of the suite can be written";
        works(made, fs::create_dir_all(folder.join("downloads")))?;
        let board = (self.board)(&folder);
        let mut new = Vec::new();
        let mut artifacts = Vec::new();
        for (index, name) in board.artifacts().iter().enumerate() {
            let bytes = vec![b'0' + u8::try_from(index % 10).unwrap_or_default(); 150_000 + index];
            let path = folder.join("downloads").join(name);
            works(made, fs::write(&path, &bytes))?;
            let hashes = Hashes::sha256(Sha256::digest(&bytes).into());
            artifacts.push(Artifact { name: (*name).to_owned(), path, length: bytes.len() as u64, hashes });
            new.push(bytes);
        }
        let old =
            board.restart().ok_or_else(|| Violation { rule: "a new board starts", found: "it does not".into() })?;
        Ok(Stage { folder, board, artifacts, old, new })
    }
}

impl Stage {
    fn installer(&self) -> Box<dyn Installer> {
        self.board.installer(Disk::new())
    }

    fn runs(&self, rule: &'static str, wanted: &[Vec<u8>], when: &str) -> Result<(), Violation> {
        let runs = self.board.restart();
        expect(rule, runs.as_deref() == Some(wanted), || match runs {
            None => format!("{when}: nothing starts"),
            Some(runs) if runs == self.old => format!("{when}: the old release runs"),
            Some(runs) if runs == self.new => format!("{when}: the new release runs"),
            Some(_) => format!("{when}: something else runs"),
        })
    }

    /// Removes the folder, so that thousands of boards need little room.
    fn done(self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn install(installer: &mut dyn Installer, artifacts: &[Artifact]) -> Result<(), InstallError> {
    installer.install(&Version::new(1, 2, 3), artifacts, &mut Watch::new(&mut unwatched, &Cancel::new()))
}

fn installs_confirms_and_reverts(boards: &mut Boards<'_>) -> Result<(), Violation> {
    let stage = boards.next()?;
    let mut installer = stage.installer();
    let before = works("an installer says what runs", installer.running())?;
    let names: Vec<&str> = stage.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    works("an installer accepts its own artifacts", installer.accepts(&names))?;
    works("a release is installed", install(&mut *installer, &stage.artifacts))?;
    stage.runs("an installed release runs after a restart", &stage.new, "after the installation")?;
    if stage.board.reverts() {
        let rule = "an installer that reverts names what runs";
        let before = before.ok_or(Violation { rule, found: "running() is None".into() })?;
        let now = works(rule, installer.running())?;
        expect("the new release has another name than the old one", now.as_ref() != Some(&before), || before.clone())?;
        for when in ["after revert()", "after the second revert()"] {
            works("what ran before can be restored, also twice", installer.revert(&before))?;
            stage.runs("what ran before runs after revert()", &stage.old, when)?;
        }
        let now = works(rule, installer.running())?;
        expect("after revert() the old name runs", now.as_ref() == Some(&before), || format!("{now:?}"))?;
        works("a release is installed again", install(&mut *installer, &stage.artifacts))?;
        stage.runs("a release runs that is installed again", &stage.new, "after the second installation")?;
    }
    for when in ["after confirm()", "after the second confirm()"] {
        works("a release is confirmed, also twice", installer.confirm())?;
        stage.runs("a confirmed release runs", &stage.new, when)?;
    }
    stage.done();
    Ok(())
}

fn survives_a_stop_at_every_step(boards: &mut Boards<'_>) -> Result<(), Violation> {
    let counted = Faults::none();
    let stage = boards.next()?;
    let mut installer = stage.board.installer(Disk::with_faults(counted.clone()));
    works("a release is installed", install(&mut *installer, &stage.artifacts))?;
    stage.done();
    for n in 0..counted.steps() {
        let stage = boards.next()?;
        let mut installer = stage.board.installer(Disk::with_faults(Faults::stop_at(n)));
        let _ = install(&mut *installer, &stage.artifacts);
        let runs = stage.board.restart();
        let is_whole = runs.as_ref().is_some_and(|runs| *runs == stage.old || *runs == stage.new);
        expect("after a stop the old release or the new one runs", is_whole, || format!("stopped at step {n}"))?;
        works("after a stop the next installation succeeds", install(&mut *stage.installer(), &stage.artifacts))?;
        stage.runs("after a stop the next installation completes", &stage.new, &format!("stopped at step {n}"))?;
        stage.done();
    }
    Ok(())
}

fn survives_a_full_disk(boards: &mut Boards<'_>) -> Result<(), Violation> {
    for n in 0..6 {
        let stage = boards.next()?;
        let mut installer = stage.board.installer(Disk::with_faults(Faults::full_from(n)));
        if let Err(error) = install(&mut *installer, &stage.artifacts) {
            expect("a full disk is no fault of the release", !error.is_final(), || error.to_string())?;
            stage.runs("on a full disk the old release keeps running", &stage.old, &format!("full from step {n}"))?;
        }
        stage.done();
    }
    Ok(())
}

fn refuses_what_changed(boards: &mut Boards<'_>) -> Result<(), Violation> {
    let stage = boards.next()?;
    let rule = "an artifact that changed since it was verified is refused";
    let Some((last, good)) = stage.artifacts.last().zip(stage.new.last()) else { return Ok(()) };
    let mut flipped = good.clone();
    flipped.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
    let shorter = good.split_last().map_or(&[][..], |(_, rest)| rest).to_vec();
    for (changed, how) in
        [(flipped, "a bit"), (shorter, "shorter"), ([&good[..], b"!"].concat(), "longer"), (Vec::new(), "empty")]
    {
        works("the folder of the suite can be written", fs::write(&last.path, changed))?;
        let result = install(&mut *stage.installer(), &stage.artifacts);
        let is_spoiled = result.as_ref().is_err_and(InstallError::is_spoiled);
        expect(rule, is_spoiled, || format!("{how}: {result:?}"))?;
        stage.runs("a refused artifact changes nothing", &stage.old, how)?;
    }
    works("the folder of the suite can be written", fs::remove_file(&last.path))?;
    let result = install(&mut *stage.installer(), &stage.artifacts);
    expect("an artifact that is not there is an error", result.is_err(), || "it was installed".into())?;
    stage.runs("a missing artifact changes nothing", &stage.old, "missing")?;
    stage.done();
    Ok(())
}
