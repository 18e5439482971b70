//! Files that are either the old one or the new one, whatever happens in between.
//!
//! [`write_atomic`] replaces one file. [`Changes`] replaces many at once: everything is first written to a journal, then a
//! single rename decides, then the files move into place. A process that dies before the decision has changed nothing; one that
//! dies after it is caught up by the next, in [`recover`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Rule};

/// Where the journal is, within the root.
const JOURNAL: &str = ".tidegate/journal";
/// The file whose existence decides.
const DECISION: &str = "decision.json";

/// Reads a whole file of at most `limit` bytes.
///
/// # Errors
///
/// Fails if the file cannot be read or is longer than `limit`.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|e| Error::io("read", path, e))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Error::input(format!("{} is longer than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// Reads a whole file of at most `limit` bytes; `None` if it does not exist.
///
/// # Errors
///
/// Fails if the file cannot be read or is longer than `limit`.
pub fn read_if_exists(path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match read(path, limit) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file by temporary file, fsync, rename, and fsync of the folder.
///
/// # Errors
///
/// Fails if the folder or the file cannot be written.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let mut temp = tempfile::NamedTempFile::new_in(dir).map_err(|e| Error::io("write to", dir, e))?;
    temp.write_all(bytes).map_err(|e| Error::io("write", path, e))?;
    set_mode(temp.as_file(), 0o644).map_err(|e| Error::io("write", path, e))?;
    temp.as_file().sync_all().map_err(|e| Error::io("write", path, e))?;
    temp.persist(path).map_err(|e| Error::io("write", path, e.error))?;
    sync_dir(dir)
}

/// Makes a rename or a new file in `dir` durable.
///
/// # Errors
///
/// Fails if the folder cannot be synced.
pub fn sync_dir(dir: &Path) -> Result<()> {
    // Folders cannot be opened as files on Windows, where a rename is durable by itself.
    if cfg!(unix) {
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("write to", dir, e))?;
    }
    Ok(())
}

/// Sets a file's mode; temporary files start out as 0600.
///
/// # Errors
///
/// Fails if the system refuses to set the mode.
#[cfg(unix)]
pub fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Does nothing: this system has no file modes.
///
/// # Errors
///
/// Never fails on this system.
#[cfg(not(unix))]
pub fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Files to write and to remove, all or none. Paths are relative to the root and `/`-separated.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    puts: BTreeMap<String, Vec<u8>>,
    /// Those of `puts` that only the owner may read.
    private: BTreeSet<String>,
    removes: BTreeSet<String>,
}

impl Changes {
    /// Writes `bytes` to `path`, replacing what is there.
    pub fn put(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let path = path.into();
        self.removes.remove(&path);
        self.puts.insert(path, bytes.into());
    }

    /// Writes `bytes` to `path` so that only the owner may read it (mode 0600).
    pub fn put_private(&mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let path = path.into();
        self.private.insert(path.clone());
        self.put(path, bytes);
    }

    /// Removes `path`, if it is there.
    pub fn remove(&mut self, path: impl Into<String>) {
        let path = path.into();
        self.puts.remove(&path);
        self.removes.insert(path);
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.removes.is_empty()
    }

    /// What would be written to `path`.
    pub fn pending(&self, path: &str) -> Option<&[u8]> {
        self.puts.get(path).map(Vec::as_slice)
    }

    /// The files to be written, in order of their paths.
    pub fn written(&self) -> impl Iterator<Item = &str> {
        self.puts.keys().map(String::as_str)
    }

    /// Adds another set of changes, which wins where both change a path.
    pub fn extend(&mut self, other: Self) {
        self.private.extend(other.private);
        for (path, bytes) in other.puts {
            self.put(path, bytes);
        }
        for path in other.removes {
            self.remove(path);
        }
    }

    /// Makes the changes below `root`: all of them or, on an error, none.
    ///
    /// The caller holds the lock of `root`.
    ///
    /// # Errors
    ///
    /// Fails if a path leaves `root` or a file cannot be written. An error before the decision leaves `root` unchanged; after one
    /// that occurs later, the next [`recover`] completes the changes.
    pub fn commit(self, root: &Path) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        for path in self.puts.keys().chain(&self.removes) {
            confined(root, path)?;
        }
        let journal = root.join(JOURNAL);
        clear(&journal)?;
        match self.stage(&journal) {
            Ok(decision) => apply(root, &decision),
            Err(error) => {
                // What was staged has no meaning without the decision; the next commit clears it, should this fail.
                let _ = clear(&journal);
                Err(error)
            }
        }
    }

    fn stage(&self, journal: &Path) -> Result<Decision> {
        fs::create_dir_all(journal).map_err(|e| Error::io("create", journal, e))?;
        let mut decision = Decision { puts: Vec::new(), removes: self.removes.iter().cloned().collect() };
        for (index, (path, bytes)) in self.puts.iter().enumerate() {
            let staged = journal.join(index.to_string());
            let write = || -> io::Result<()> {
                let mut file = create(&staged, self.private.contains(path))?;
                file.write_all(bytes)?;
                file.sync_all()
            };
            write().map_err(|e| Error::io("write", &staged, e))?;
            decision.puts.push(path.clone());
        }
        let bytes = serde_json::to_vec(&decision).map_err(|e| Error::bug("journal").with_source(e))?;
        write_atomic(&journal.join(DECISION), &bytes)?;
        Ok(decision)
    }
}

/// Creates a file that only the owner may read if it is private.
fn create(path: &Path, private: bool) -> io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(if private { 0o600 } else { 0o644 });
    }
    options.open(path)
}

/// What the journal decided: `puts[i]` is where the staged file `i` goes.
#[derive(Debug, Serialize, Deserialize)]
struct Decision {
    puts: Vec<String>,
    removes: Vec<String>,
}

/// Completes what an interrupted process had decided, and clears what it had not. The caller holds the lock of `root`.
///
/// # Errors
///
/// Fails if the journal is damaged, or if a file cannot be written.
pub fn recover(root: &Path) -> Result<()> {
    let journal = root.join(JOURNAL);
    let Some(bytes) = read_if_exists(&journal.join(DECISION), 64 << 20)? else {
        return clear(&journal);
    };
    let decision: Decision = serde_json::from_slice(&bytes).map_err(|e| {
        Error::input(format!("{} is damaged", journal.join(DECISION).display()))
            .with_source(e)
            .remedy("restore the workspace from version control, then remove the folder .tidegate/journal")
    })?;
    apply(root, &decision)
}

/// Moves staged files into place. Safe to repeat: what has moved already is no longer staged.
fn apply(root: &Path, decision: &Decision) -> Result<()> {
    let journal = root.join(JOURNAL);
    let mut dirs = BTreeSet::new();
    for (index, path) in decision.puts.iter().enumerate() {
        let staged = journal.join(index.to_string());
        let target = confined(root, path)?;
        if let Some(dir) = target.parent() {
            fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
            dirs.insert(dir.to_owned());
        }
        match fs::rename(&staged, &target) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound && target.exists() => {}
            Err(e) => return Err(Error::io("write", &target, e)),
        }
    }
    for path in &decision.removes {
        let target = confined(root, path)?;
        match fs::remove_file(&target) {
            Ok(()) => dirs.extend(target.parent().map(Path::to_owned)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("remove", &target, e)),
        }
    }
    for dir in &dirs {
        sync_dir(dir)?;
    }
    clear(&journal)
}

/// Removes the journal, the decision first so that no half of it is ever taken for a whole.
fn clear(journal: &Path) -> Result<()> {
    let decision = journal.join(DECISION);
    for (path, result) in [(&decision, fs::remove_file(&decision)), (&journal.to_owned(), fs::remove_dir_all(journal))]
    {
        match result {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(e) => return Err(Error::io("remove", path, e)),
        }
    }
    Ok(())
}

/// The path of `relative` below `root`.
///
/// # Errors
///
/// Fails if the path would leave `root`: through `..`, an absolute path, or a symbolic link.
pub fn confined(root: &Path, relative: &str) -> Result<PathBuf> {
    let refuse = |why: &str| {
        Error::refused(format!("the path {relative:?} is refused: {why}"))
            .rule(Rule::PublishConfined)
            .remedy("everything a workspace holds lies inside its folder")
    };
    let mut path = root.to_owned();
    for component in Path::new(relative).components() {
        let Component::Normal(name) = component else {
            return Err(refuse("it would lead out of the folder"));
        };
        path.push(name);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(refuse(&format!("{} is a symbolic link", path.display())));
        }
    }
    if path == root {
        return Err(refuse("it is empty"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(root: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut dirs = vec![root.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                    found.insert(name, fs::read(path).unwrap());
                }
            }
        }
        found
    }

    #[test]
    fn all_changes_are_made_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old"), "x").unwrap();
        let mut changes = Changes::default();
        changes.put("a", "1");
        changes.put("b/c/d", "2");
        changes.remove("old");
        changes.remove("never-there");
        changes.commit(dir.path()).unwrap();
        assert_eq!(listing(dir.path()), BTreeMap::from([("a".into(), b"1".to_vec()), ("b/c/d".into(), b"2".to_vec())]));
    }

    #[test]
    fn a_process_that_died_before_the_decision_changed_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        fs::create_dir_all(dir.path().join(JOURNAL)).unwrap();
        fs::write(dir.path().join(JOURNAL).join("0"), "new").unwrap();
        recover(dir.path()).unwrap();
        assert_eq!(listing(dir.path()), BTreeMap::from([("a".into(), b"old".to_vec())]));
    }

    #[test]
    fn a_process_that_died_after_the_decision_is_caught_up_from_any_step() {
        for moved in 0..=2 {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("z"), "to go").unwrap();
            let mut changes = Changes::default();
            changes.put("a", "1");
            changes.put("b/c", "2");
            changes.remove("z");
            let journal = dir.path().join(JOURNAL);
            changes.stage(&journal).unwrap();
            fs::create_dir_all(dir.path().join("b")).unwrap();
            for (index, path) in ["a", "b/c"].iter().enumerate().take(moved) {
                fs::rename(journal.join(index.to_string()), dir.path().join(path)).unwrap();
            }
            recover(dir.path()).unwrap();
            assert_eq!(
                listing(dir.path()),
                BTreeMap::from([("a".into(), b"1".to_vec()), ("b/c".into(), b"2".to_vec())]),
                "{moved} moved"
            );
        }
    }

    #[test]
    fn a_failure_while_staging_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        // The journal's place is taken by a file, so that staging fails.
        fs::write(dir.path().join(".tidegate"), "").unwrap();
        let mut changes = Changes::default();
        changes.put("a", "new");
        assert!(changes.commit(dir.path()).is_err());
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"old");
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../a", "/a", "a/../../b", "", "."] {
            assert!(confined(dir.path(), path).is_err(), "{path}");
        }
        assert!(confined(dir.path(), "a/b").is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn symbolic_links_are_not_followed_out() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(outside.path(), dir.path().join("metadata")).unwrap();
        let mut changes = Changes::default();
        changes.put("metadata/1.root.json", "x");
        let error = changes.commit(dir.path()).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        assert_eq!(listing(outside.path()), BTreeMap::new());
    }
}
