//! Auditing a repository: everything in it, by two implementations.
//!
//! Devices are lazy: each looks only at what it needs. An audit looks at all of it, with the same trust core, and then once more
//! with tough, which shares no code with ours. What neither objects to, no device will.

mod audit;
mod origin;
mod report;
mod second;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_client::tuf::hash::Checker;
use tidegate_client::tuf::metadata::TargetFile;
use tidegate_client::tuf::path::TargetPath;

pub use self::origin::{ByHash, Origin, Repository};
pub use self::report::{Check, Expiry, Found, Report, Row};
pub use self::walk::{Fault, Listed, RoleFile, Tree, walk, walk_regardless_of_expiry};
use crate::error::{Error, Result};

/// Targets up to this length are looked into if they are manifests or cohort maps.
const MAX_READ: u64 = 8 << 20;

/// Audits the repository at `origin`, which people call `place`, from the root file `root`, which is trusted, as of `now`.
///
/// Faults of the repository are in the report. Errs only if `root` is no root, or if reading fails for other reasons.
pub async fn verify(origin: Arc<dyn Origin>, place: &str, root: Vec<u8>, now: DateTime<Utc>) -> Result<Report> {
    verify_where(origin, place, root, now, Arc::new(|_| true)).await
}

/// Which target paths are to be read.
pub type Wanted = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// The same, but of the targets only those are read whose paths are `wanted`, and whatever says how releases fit together.
pub async fn verify_where(
    origin: Arc<dyn Origin>,
    place: &str,
    root: Vec<u8>,
    now: DateTime<Utc>,
    wanted: Wanted,
) -> Result<Report> {
    let mut report = Report::new(place, now);
    let (reader, bytes, all) = (Arc::clone(&origin), root.clone(), Arc::clone(&wanted));
    let ours = tokio::task::spawn_blocking(move || first_opinion(reader.as_ref(), &bytes, now, &*all)).await;
    let First { tree, files, bytes, contents, target_faults } =
        ours.map_err(|error| Error::bug("the audit broke off").with_source(error))??;

    let below = [&tree.timestamp, &tree.snapshot].into_iter().flatten();
    let newest_root = tree.roots.last();
    let in_force = newest_root.into_iter().chain(below).chain(tree.targets.iter().map(|(_, file)| file));
    report.first_to_expire =
        in_force.min_by_key(|file| file.expires).map(|file| Expiry { role: file.role.clone(), expires: file.expires });
    let roles = tree.roles();
    let versions = match (&newest_root, &tree.timestamp, &tree.snapshot) {
        (Some(root), Some(timestamp), Some(snapshot)) => {
            format!("root {}, timestamp {}, snapshot {}", root.version, timestamp.version, snapshot.version)
        }
        _ => String::new(),
    };
    let mut audit = audit::audit(&tree, &contents);
    report.add(Check::Metadata, roles as u64, versions, tree.faults);
    report.add(Check::Targets, files, format!("{bytes} bytes"), target_faults);
    for check in [Check::Delegations, Check::CohortMaps, Check::Manifests, Check::Assignments] {
        let (found, rest) = audit.faults.into_iter().partition(|(of, _)| *of == check);
        audit.faults = rest;
        let faults: Vec<(Check, Fault)> = found;
        let seen = audit.seen.get(&check).copied().unwrap_or(0);
        report.add(check, seen, String::new(), faults.into_iter().map(|(_, fault)| fault).collect());
    }

    // tough reads the system's clock; under another `now` its word on expiry means nothing.
    let expiry = (Utc::now() - now).abs() < TimeDelta::minutes(1);
    let second = second::opinion(origin, &root, expiry, wanted).await?;
    let detail = if expiry { String::new() } else { "expiry not judged, as --now is another time".to_owned() };
    report.add(Check::SecondMetadata, second.roles, detail, second.metadata_faults);
    report.add(Check::SecondTargets, second.targets, format!("{} bytes", second.bytes), second.target_faults);
    Ok(report)
}

/// A repository as [`look`] sees it.
#[derive(Debug)]
pub struct Look {
    /// The metadata.
    pub tree: Tree,
    /// The bytes of manifests and cohort maps, verified, by their SHA-256.
    pub contents: BTreeMap<[u8; 32], Vec<u8>>,
    /// What does not verify or does not fit together, expiry and other targets aside.
    pub faults: Vec<Fault>,
}

/// Reads all metadata, manifests and cohort maps of a repository from the root file `root`, but no artifacts.
///
/// Nothing counts as expired: that is for the reader to judge. With `snapshot`, the state which that version lists. Errs only if `root` is
/// no root, or if reading fails for other reasons than the repository's.
pub fn look(origin: &dyn Origin, root: &[u8], snapshot: Option<u64>) -> Result<Look> {
    let mut tree = walk_regardless_of_expiry(origin, root, snapshot)?;
    let mut faults = std::mem::take(&mut tree.faults);
    let mut contents = audit::Contents::new();
    let consistent = tree.trusted.root().consistent_snapshot;
    for listed in tree.listed().filter(|listed| audit::is_read(listed.path)) {
        let Some(sha256) = listed.file.hashes.sha256_digest().filter(|sha256| !contents.contains_key(*sha256)) else {
            continue;
        };
        let read = match TargetPath::new(listed.path) {
            Ok(path) => {
                read_target(origin, &path.file_path(&listed.file.hashes, consistent), listed.path, listed.file)?
            }
            Err(error) => Err(Fault::new(listed.path, &error)),
        };
        match read {
            Ok(Some(bytes)) => drop(contents.insert(*sha256, bytes)),
            Ok(None) => faults.push(Fault::new(listed.path, &format_args!("it is longer than {MAX_READ} bytes"))),
            Err(fault) => faults.push(fault),
        }
    }
    faults.extend(audit::audit(&tree, &contents).faults.into_iter().map(|(_, fault)| fault));
    Ok(Look { tree, contents, faults })
}

/// What tough says of a repository's metadata alone, whatever of it has expired.
#[derive(Debug)]
pub struct SecondOpinion {
    /// How many roles it looked at.
    pub roles: u64,
    /// What it objects to.
    pub faults: Vec<Fault>,
}

/// Has tough walk all metadata at `origin` from `root`. Blocking: it has a thread and a runtime of its own, so that it can be called from
/// anywhere.
pub fn second_opinion(origin: Arc<dyn Origin>, root: Vec<u8>) -> Result<SecondOpinion> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(crate::Kind::Io, "the system gives no threads to work with").with_source(e))?;
        runtime.block_on(second::opinion(origin, &root, false, Arc::new(|_: &str| false)))
    };
    let done = std::thread::spawn(work).join().map_err(|_| Error::bug("the second opinion broke off"))?;
    done.map(|opinion| SecondOpinion { roles: opinion.roles, faults: opinion.metadata_faults })
}

/// What our own trust core found.
struct First {
    tree: Tree,
    files: u64,
    bytes: u64,
    contents: audit::Contents,
    target_faults: Vec<Fault>,
}

/// Walks all metadata and reads all targets, each file once.
fn first_opinion(origin: &dyn Origin, root: &[u8], now: DateTime<Utc>, wanted: &dyn Fn(&str) -> bool) -> Result<First> {
    let tree = walk(origin, root, now)?;
    let mut files: BTreeMap<String, (String, TargetFile)> = BTreeMap::new();
    let mut faults = Vec::new();
    for listed in tree.listed().filter(|listed| wanted(listed.path) || audit::is_read(listed.path)) {
        match TargetPath::new(listed.path) {
            Ok(path) => {
                let name = path.file_path(&listed.file.hashes, tree.trusted.root().consistent_snapshot);
                files.insert(name, (listed.path.to_owned(), listed.file.clone()));
            }
            Err(error) => faults.push(Fault::new(listed.path, &error)),
        }
    }
    let (mut contents, mut bytes) = (audit::Contents::new(), 0);
    for (name, (path, file)) in &files {
        match read_target(origin, name, path, file)? {
            Ok(content) => {
                bytes += file.length;
                if let Some((content, sha256)) = content.zip(file.hashes.sha256_digest()) {
                    contents.insert(*sha256, content);
                }
            }
            Err(fault) => faults.push(fault),
        }
    }
    Ok(First { tree, files: files.len() as u64, bytes, contents, target_faults: faults })
}

/// Reads a target through the checks of a device; gives back its content if the audit looks into it.
fn read_target(
    origin: &dyn Origin,
    name: &str,
    path: &str,
    file: &TargetFile,
) -> Result<Result<Option<Vec<u8>>, Fault>> {
    let mut checker = Checker::new(Some(file.length), Some(&file.hashes));
    let mut content = (file.length <= MAX_READ && audit::is_read(path)).then(Vec::new);
    let mut wrong = None;
    let found = origin.target(name, file.length, &mut |bytes| {
        if let Err(mismatch) = checker.update(bytes) {
            wrong = Some(mismatch);
            return Err(Error::trust("longer than listed"));
        }
        if let Some(content) = &mut content {
            content.extend_from_slice(bytes);
        }
        Ok(())
    });
    if let Some(mismatch) = wrong {
        return Ok(Err(Fault::new(path, &mismatch)));
    }
    match found {
        Ok(false) => return Ok(Err(Fault::new(path, &format_args!("targets/{name} is missing")))),
        Ok(true) => {}
        Err(error) if error.kind() == crate::Kind::Trust => return Ok(Err(Fault::new(path, &error))),
        Err(error) => return Err(error),
    }
    Ok(checker.finish().map(|()| content).map_err(|mismatch| Fault::new(path, &mismatch)))
}
