//! Files that are either the old one or the new one, whatever happens in between.
//!
//! [`write_atomic`] replaces one file. [`Changes`] replaces many at once: everything is first written to a journal, then a
//! single rename decides, then the files move into place. A process that dies before the decision has changed nothing; one that
//! dies after it is caught up by the next that writes, in [`recover`].
//!
//! A workspace may come from others, as a clone or an archive. So its own folders hold no links and nothing but files and folders
//! ([`check_own`]); a change touches what a workspace consists of and nothing else; and a journal is replayed only in the checkout in which it was
//! written, after all of it was checked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result, Rule};

/// The folder for the lock and the journal, within the root.
const PRIVATE: &str = ".tidegate";
/// The lock, which also tells a checkout from its copies.
const LOCK: &str = ".tidegate/lock";
/// Where the journal is, within the root.
const JOURNAL: &str = ".tidegate/journal";
/// Where new private keys go: they are never replaced and never removed, and no journal names one.
const KEYS: &str = "keys";
/// The files that a change may touch.
const FILES: [&str; 7] =
    [".gitattributes", ".gitignore", "cohorts.toml", "ledger.jsonl", "policy.toml", "published.json", "tidegate.toml"];
/// The folders that a change may touch files in.
const FOLDERS: [&str; 5] = ["artifacts", "metadata", "proposals", "releases", "transcripts"];
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

/// Opens a regular file of a folder that others filled. Opening a pipe would block until its other end is open.
///
/// # Errors
///
/// Fails if there is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
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

    /// Writes `bytes` to `path`, a new file below `keys/` that only the owner may read (mode 0600).
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
    /// Fails if a path is not one that a change may touch, if a private key exists already, or if a file cannot be written. An error before
    /// the decision leaves `root` unchanged; after one that occurs later, the next [`recover`] completes the changes.
    pub fn commit(self, root: &Path) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        for path in self.puts.keys().filter(|path| !self.private.contains(*path)).chain(&self.removes) {
            permitted(root, path)?;
        }
        distinct(root, self.puts.keys())?;
        let journal = root.join(JOURNAL);
        clear(&journal)?;
        let mut keys = Vec::new();
        match self.write_keys(root, &mut keys).and_then(|()| self.stage(root)) {
            Ok(decision) => apply(root, &decision),
            Err(error) => {
                // What was staged has no meaning without the decision; the next commit clears it, should this fail.
                let _ = clear(&journal);
                for key in keys {
                    let _ = fs::remove_file(key);
                }
                let _ = fs::remove_dir(root.join(KEYS));
                Err(error)
            }
        }
    }

    /// Writes the private keys, before the decision and beside the journal, and adds what it made to `made`.
    fn write_keys(&self, root: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
        for (path, bytes) in self.puts.iter().filter(|(path, _)| self.private.contains(*path)) {
            let target = confined(root, path)?;
            let folder = target.parent().unwrap_or(root);
            if folder != root.join(KEYS) {
                return Err(Error::bug(format!("{path} is not a valid place for a private key")));
            }
            fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
            let mut file = create(&target, true).map_err(|e| Error::io("create", &target, e))?;
            made.push(target.clone());
            file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io("write", &target, e))?;
            sync_dir(folder)?;
        }
        Ok(())
    }

    fn stage(&self, root: &Path) -> Result<Decision> {
        let journal = root.join(JOURNAL);
        lock_file(root)?.sync_all().map_err(|e| Error::io("lock", root, e))?;
        let checkout = checkout(root)?;
        fs::create_dir_all(&journal).map_err(|e| Error::io("create", &journal, e))?;
        let mut decision = Decision { checkout, puts: Vec::new(), removes: self.removes.iter().cloned().collect() };
        let staged = self.puts.iter().filter(|(path, _)| !self.private.contains(*path));
        for (index, (path, bytes)) in staged.enumerate() {
            let staged = journal.join(index.to_string());
            let write = || -> io::Result<()> {
                let mut file = create(&staged, false)?;
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
#[serde(deny_unknown_fields)]
struct Decision {
    /// The checkout that it was written in.
    checkout: String,
    puts: Vec<String>,
    removes: Vec<String>,
}

/// Opens the lock of `root`, without taking it.
///
/// # Errors
///
/// Fails if one of the workspace's own files or folders is a link or no file or folder, or if the lock cannot be opened.
pub fn open_lock(root: &Path) -> Result<File> {
    check_own(root)?;
    lock_file(root)
}

/// The lock of `root` for a reader, without taking it; `None` if it is not there or cannot be opened. Creates nothing.
///
/// # Errors
///
/// Fails if one of the workspace's own files or folders is a link or no file or folder.
pub fn find_lock(root: &Path) -> Result<Option<File>> {
    check_own(root)?;
    Ok(open_regular(&root.join(LOCK)).ok())
}

fn lock_file(root: &Path) -> Result<File> {
    let folder = root.join(PRIVATE);
    fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    let path = root.join(LOCK);
    // Never truncated: what tells this checkout from a copy is when the file last changed.
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    // Whoever may read it may hold it, and keep writers waiting: only who may write here may do either.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o660);
    options.open(&path).map_err(|e| Error::io("lock", &path, e))
}

/// What tells a checkout from its copies, and from what others prepared: when its lock was made, by the system's own record, which no clone,
/// archive or copy can set.
fn checkout(root: &Path) -> Result<String> {
    let path = root.join(LOCK);
    let failed = |e| Error::io("read", &path, e);
    let metadata = fs::symlink_metadata(&path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        Ok(format!("{}.{:09}", metadata.ctime(), metadata.ctime_nsec()))
    }
    #[cfg(not(unix))]
    {
        Ok(format!("{:?}", metadata.created().map_err(failed)?))
    }
}

/// Completes what an interrupted process had decided, and clears what it had not. The caller holds the lock of `root`.
///
/// # Errors
///
/// Fails if the journal is damaged, was not written in this checkout or names what no change may touch: then nothing was changed. Fails
/// also if a file cannot be written.
pub fn recover(root: &Path) -> Result<()> {
    match interrupted(root)? {
        Some(decision) => apply(root, &decision),
        None => clear(&root.join(JOURNAL)),
    }
}

/// Refuses to go on while an interrupted change waits, for commands that only read. The caller holds the lock of `root`.
///
/// # Errors
///
/// Fails if a change waits, or if the journal is one that [`recover`] refuses.
pub fn check_complete(root: &Path) -> Result<()> {
    let journal = root.join(JOURNAL).join(DECISION);
    if fs::symlink_metadata(journal).is_err_and(|e| e.kind() == io::ErrorKind::PermissionDenied) {
        return Ok(());
    }
    match interrupted(root)? {
        None => Ok(()),
        Some(_) => Err(Error::new(Kind::Conflict, format!("an interrupted change waits in {JOURNAL}"))
            .rule(Rule::WorkspaceJournal)
            .remedy("complete it: tidegate refresh, or any other command that writes")),
    }
}

/// What an interrupted process had decided. All of it was checked.
fn interrupted(root: &Path) -> Result<Option<Decision>> {
    let journal = root.join(JOURNAL);
    let Some(bytes) = read_if_exists(&confined(root, &format!("{JOURNAL}/{DECISION}"))?, 64 << 20)? else {
        return Ok(None);
    };
    let refuse = |why: &str| {
        Error::refused(Rule::WorkspaceJournal, format!("{JOURNAL} is not replayed: {why}")).remedy(
            "nothing was changed; if you do not know where it comes from, do not work in this folder; \
             else restore the workspace from version control, and remove the folder .tidegate/journal",
        )
    };
    let decision: Decision =
        serde_json::from_slice(&bytes).map_err(|e| refuse("it is damaged or of another version").with_source(e))?;
    // Without a lock it was not written here.
    if checkout(root).ok().as_ref() != Some(&decision.checkout) {
        return Err(refuse("it was not written in this checkout, but came with it or from another one"));
    }
    let mut seen = BTreeSet::new();
    for path in decision.puts.iter().chain(&decision.removes) {
        permitted(root, path)?;
        if !seen.insert(path) {
            return Err(refuse("it names a file twice"));
        }
    }
    let is_file = |path: &Path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    for (index, path) in decision.puts.iter().enumerate() {
        if !is_file(&journal.join(index.to_string())) && !is_file(&root.join(path)) {
            return Err(refuse(&format!("the content of {path} is missing")));
        }
    }
    Ok(Some(decision))
}

/// Moves staged files into place. Safe to repeat: what has moved already is no longer staged.
fn apply(root: &Path, decision: &Decision) -> Result<()> {
    let journal = root.join(JOURNAL);
    let mut dirs = BTreeSet::new();
    for (index, path) in decision.puts.iter().enumerate() {
        let staged = journal.join(index.to_string());
        let target = permitted(root, path)?;
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
        let target = permitted(root, path)?;
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

fn refused(path: &str, why: &str) -> Error {
    Error::refused(Rule::PublishConfined, format!("the path {path:?} is refused: {why}"))
        .remedy("all files of a workspace are inside its folder")
}

/// The path of `relative` below `root`.
///
/// # Errors
///
/// Fails if the path would leave `root`, through `..`, an absolute path, or a symbolic link; or if it contains control characters.
pub fn confined(root: &Path, relative: &str) -> Result<PathBuf> {
    let mut path = root.to_owned();
    for component in Path::new(relative).components() {
        let Component::Normal(name) = component else {
            return Err(refused(relative, "it leads out of the folder"));
        };
        path.push(name);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(refused(relative, &format!("{} is a symbolic link", path.display())));
        }
    }
    if path == root {
        return Err(refused(relative, "it is empty"));
    }
    if relative.contains(char::is_control) {
        return Err(refused(relative, "it contains a control character"));
    }
    Ok(path)
}

/// The path of a file that a change may touch.
fn permitted(root: &Path, relative: &str) -> Result<PathBuf> {
    let is_own = match relative.split_once('/') {
        None => FILES.contains(&relative),
        Some((folder, rest)) => FOLDERS.contains(&folder) && !rest.is_empty(),
    };
    let path = confined(root, relative)?;
    if is_own && !path.is_dir() { Ok(path) } else { Err(refused(relative, "no change may touch it")) }
}

/// Refuses new files and folders whose names differ from others by case alone: where that does not count, one would replace the other.
fn distinct<'a>(root: &Path, paths: impl Iterator<Item = &'a String>) -> Result<()> {
    let lower = |path: &Path| path.to_string_lossy().to_lowercase();
    let (mut there, mut seen) = (BTreeSet::new(), BTreeMap::new());
    let mut listed = BTreeSet::new();
    for relative in paths {
        for path in Path::new(relative).ancestors().filter(|path| path.parent().is_some()) {
            let folder = path.parent().unwrap_or(path);
            if listed.insert(folder) {
                for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
                    let entry = folder.join(entry.file_name());
                    seen.insert(lower(&entry), entry.clone());
                    there.insert(entry);
                }
            }
            let other = seen.entry(lower(path)).or_insert_with(|| path.to_owned());
            if other != path && !there.contains(path) {
                return Err(refused(relative, &format!("its name differs from {} only by case", other.display())));
            }
        }
    }
    Ok(())
}

/// Checks that what a workspace consists of are files and folders: no links, no devices, no pipes.
///
/// # Errors
///
/// Fails if something else is among them, or if a folder cannot be read.
pub fn check_own(root: &Path) -> Result<()> {
    let own = [PRIVATE, KEYS].into_iter().chain(FILES).chain(FOLDERS);
    let mut pending: Vec<PathBuf> = own.map(|name| root.join(name)).collect();
    while let Some(path) = pending.pop() {
        // Another process may be at work: what is gone meanwhile is no link.
        let gone = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            Err(e) if gone(&e) => continue,
            Err(e) => return Err(Error::io("read", &path, e)),
        };
        if !kind.is_dir() && !kind.is_file() {
            let what = if kind.is_symlink() { "a symbolic link" } else { "neither a file nor a folder" };
            return Err(Error::refused(Rule::PublishConfined, format!("{} is {what}", path.display()))
                .remedy("put a file or folder there; keys that are elsewhere are named in tidegate.toml"));
        }
        if !kind.is_dir() {
            continue;
        }
        match fs::read_dir(&path) {
            // Files, of which there may be many, need no look of their own.
            Ok(entries) => pending.extend(
                entries.flatten().filter(|e| !e.file_type().is_ok_and(|kind| kind.is_file())).map(|e| e.path()),
            ),
            Err(e) if gone(&e) => {}
            // Keys of another user: this process can follow nothing in there, and needs none of them to read.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && path == root.join(KEYS) => {}
            // Likewise the lock and journal of another user, which this process then does without.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && path.starts_with(root.join(PRIVATE)) => {}
            Err(e) => return Err(Error::io("read", &path, e)),
        }
    }
    Ok(())
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
                if path.ends_with(PRIVATE) {
                    continue;
                }
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

    fn content(files: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    /// A change of two files that removes a third.
    fn change(root: &Path) -> Changes {
        fs::create_dir_all(root.join("metadata")).unwrap();
        fs::write(root.join("metadata/z"), "to go").unwrap();
        let mut changes = Changes::default();
        changes.put("ledger.jsonl", "1");
        changes.put("releases/c/d", "2");
        changes.remove("metadata/z");
        changes
    }

    const CHANGED: &[(&str, &str)] = &[("ledger.jsonl", "1"), ("releases/c/d", "2")];

    #[test]
    fn all_changes_are_made_and_nothing_is_left_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = change(dir.path());
        changes.remove("metadata/never-there");
        changes.put_private("keys/k.pem", "secret");
        changes.commit(dir.path()).unwrap();
        assert_eq!(listing(dir.path()), content(&[CHANGED, &[("keys/k.pem", "secret")]].concat()));
        assert!(!dir.path().join(JOURNAL).exists());
    }

    #[test]
    fn a_process_that_died_before_the_decision_changed_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ledger.jsonl"), "old").unwrap();
        fs::create_dir_all(dir.path().join(JOURNAL)).unwrap();
        fs::write(dir.path().join(JOURNAL).join("0"), "new").unwrap();
        check_complete(dir.path()).unwrap();
        recover(dir.path()).unwrap();
        assert_eq!(listing(dir.path()), content(&[("ledger.jsonl", "old")]));
        assert!(!dir.path().join(JOURNAL).exists());
    }

    #[test]
    fn a_process_that_died_after_the_decision_is_caught_up_from_any_step() {
        for moved in 0..=2 {
            let dir = tempfile::tempdir().unwrap();
            change(dir.path()).stage(dir.path()).unwrap();
            fs::create_dir_all(dir.path().join("releases/c")).unwrap();
            for (index, (path, _)) in CHANGED.iter().enumerate().take(moved) {
                fs::rename(dir.path().join(JOURNAL).join(index.to_string()), dir.path().join(path)).unwrap();
            }
            let before = listing(dir.path());
            let error = check_complete(dir.path()).unwrap_err();
            assert!(error.remedy_text().unwrap().contains("tidegate refresh"), "{error}");
            assert_eq!(listing(dir.path()), before, "reading changes nothing");
            recover(dir.path()).unwrap();
            assert_eq!(listing(dir.path()), content(CHANGED), "{moved} moved");
        }
    }

    #[test]
    fn a_journal_that_is_not_of_this_checkout_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        change(dir.path()).stage(dir.path()).unwrap();
        let decision = dir.path().join(JOURNAL).join(DECISION);
        let good: serde_json::Value = serde_json::from_slice(&fs::read(&decision).unwrap()).unwrap();
        let before = listing(dir.path());
        let edits: [(&str, serde_json::Value); 8] = [
            ("checkout", "1.000000000".into()),
            ("puts", serde_json::json!(["ledger.jsonl", "keys/k.pem"])),
            ("puts", serde_json::json!(["ledger.jsonl", "../outside"])),
            ("puts", serde_json::json!(["ledger.jsonl", "releases/c/d", "releases/missing"])),
            ("removes", serde_json::json!(["keys/k.pem"])),
            ("removes", serde_json::json!([".tidegate/lock"])),
            ("removes", serde_json::json!(["ledger.jsonl"])),
            ("more", 1.into()),
        ];
        for (field, value) in edits {
            let mut edited = good.clone();
            edited[field] = value;
            fs::write(&decision, edited.to_string()).unwrap();
            let refused = recover(dir.path()).unwrap_err();
            assert!(refused.broken_rule().is_some() && check_complete(dir.path()).is_err(), "{edited}: {refused}");
            assert_eq!(listing(dir.path()), before, "{edited}");
        }
        // A copy of the folder is another checkout.
        fs::write(&decision, good.to_string()).unwrap();
        let copy = tempfile::tempdir().unwrap();
        let copied = std::process::Command::new("cp").arg("-a").arg(dir.path().join(".")).arg(copy.path()).status();
        assert!(copied.unwrap().success());
        assert_eq!(recover(copy.path()).unwrap_err().broken_rule(), Some(Rule::WorkspaceJournal));
        recover(dir.path()).unwrap();
        assert_eq!(listing(dir.path()), content(CHANGED));
    }

    #[test]
    fn a_failure_while_staging_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ledger.jsonl"), "old").unwrap();
        // The journal's place is taken by a file, so that staging fails.
        fs::write(dir.path().join(".tidegate"), "").unwrap();
        let mut changes = Changes::default();
        changes.put("ledger.jsonl", "new");
        changes.put_private("keys/k.pem", "secret");
        assert!(changes.commit(dir.path()).is_err());
        assert_eq!(listing(dir.path()), content(&[("ledger.jsonl", "old")]));
        assert!(!dir.path().join(KEYS).exists());
    }

    #[test]
    fn keys_are_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let mut changes = Changes::default();
        changes.put_private("keys/k.pem", "secret");
        changes.clone().commit(dir.path()).unwrap();
        changes.put_private("keys/k.pem", "another");
        changes.put("ledger.jsonl", "new");
        assert!(changes.commit(dir.path()).is_err());
        assert_eq!(listing(dir.path()), content(&[("keys/k.pem", "secret")]));
    }

    #[test]
    fn changes_touch_nothing_but_the_workspace() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "keys/k.pem",
            "other",
            "other/file",
            ".git/hooks/post-merge",
            ".tidegate/lock",
            "metadata",
            "metadata/../keys/k.pem",
            "Metadata/1.root.json",
            "releases/a\nb",
            "releases/\u{85}",
        ] {
            let (mut put, mut remove) = (Changes::default(), Changes::default());
            put.put(path, "x");
            remove.remove(path);
            for changes in [put, remove] {
                assert_eq!(
                    changes.commit(dir.path()).unwrap_err().broken_rule(),
                    Some(Rule::PublishConfined),
                    "{path:?}"
                );
            }
        }
        assert_eq!(listing(dir.path()), BTreeMap::new());
    }

    #[test]
    fn names_that_differ_by_case_alone_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let put = |paths: &[&str]| {
            let mut changes = Changes::default();
            for path in paths {
                changes.put(*path, "x");
            }
            changes.commit(dir.path())
        };
        put(&["releases/os/1.0.0-rc/a"]).unwrap();
        put(&["releases/os/1.0.0-rc/a", "releases/os/1.0.0-rc/b"]).unwrap();
        for paths in
            [&["releases/os/1.0.0-RC/a"][..], &["releases/OS/2.0.0/a"], &["metadata/1.A.json", "metadata/1.a.json"]]
        {
            assert_eq!(put(paths).unwrap_err().broken_rule(), Some(Rule::PublishConfined), "{paths:?}");
        }
    }

    #[test]
    fn paths_that_leave_the_folder_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["../a", "/a", "a/../../b", "", "."] {
            assert!(confined(dir.path(), path).is_err(), "{path}");
        }
        assert!(confined(dir.path(), "a/b").is_ok());
        assert!(confined(dir.path(), "a/b\u{1b}[0m").is_err());
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
