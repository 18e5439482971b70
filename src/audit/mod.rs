//! Audits a whole repository with two implementations.
//!
//! Devices are lazy: each reads only what it needs. An audit reads everything with the same trust core, and then again with
//! tough, which shares no code with ours. A repository that passes both is accepted by every device.

mod content;
pub mod delivery;
mod origin;
pub mod protect;
mod report;
mod tough;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::cohort::CohortMap;
use tidegate_model::layout::Location;
use tidegate_tuf::hash::{Checker, Hashes, to_hex};
use tidegate_tuf::metadata::TargetFile;
use tidegate_tuf::path::TargetPath;

use crate::error::{Error, Result};
use delivery::DeliveryFile;
use protect::{Maps, Needs, Protection};

pub use self::origin::{ByHash, Origin, Pair, PublishedRepository};
pub(crate) use self::origin::{Flat, has_slashes};
pub use self::report::{AuditReport, Check, Expiry, Found, Row, TOUGH};
pub use self::walk::{AuditFinding, Cause, Listed, RoleFile, Tree, walk, walk_regardless_of_expiry};

/// Manifests and cohort maps up to this length are examined.
const MAX_READ: u64 = 8 << 20;

/// Audits the repository at `origin`, displayed as `place`, from the trusted root file `root`, at the time `now`. Defects of the
/// repository are in the report.
///
/// # Errors
///
/// Fails if `root` is not a valid root, or if reading fails for other reasons.
pub async fn verify(origin: Arc<dyn Origin>, place: &str, root: Vec<u8>, now: DateTime<Utc>) -> Result<AuditReport> {
    verify_where(View::whole(origin), place, root, now, Arc::new(|_| true)).await
}

/// How a repository is read.
#[derive(Clone)]
pub struct View {
    /// Where it is read from.
    pub origin: Arc<dyn Origin>,
    /// The public place, if it is to be checked: nothing protected may be there.
    pub open: Option<Arc<dyn Origin>>,
    /// The private place, if it is to be checked that it is not publicly readable.
    pub private: Option<Arc<dyn Origin>>,
    /// Whether `origin` also has the protected objects; otherwise they may be missing.
    pub is_whole: bool,
    /// An earlier snapshot, to be audited instead of what is live.
    pub snapshot: Option<u64>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View")
            .field("is_whole", &self.is_whole)
            .field("snapshot", &self.snapshot)
            .finish_non_exhaustive()
    }
}

impl View {
    /// A repository in one place that is not public, such as a workspace.
    pub fn whole(origin: Arc<dyn Origin>) -> Self {
        Self { origin, open: None, private: None, is_whole: true, snapshot: None }
    }

    /// A public place, as everyone sees it.
    pub fn public(origin: Arc<dyn Origin>) -> Self {
        Self { open: Some(Arc::clone(&origin)), origin, private: None, is_whole: false, snapshot: None }
    }

    /// A public place and a private one.
    pub fn both(public: Arc<dyn Origin>, private: Arc<dyn Origin>) -> Self {
        let open = Some(Arc::clone(&public));
        let apart = Some(Arc::clone(&private));
        Self { open, private: apart, origin: Arc::new(Pair { public, private }), is_whole: true, snapshot: None }
    }
}

/// Selects the target paths to read.
pub type Wanted = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Like [`verify`], but of the targets reads only the `wanted` paths, manifests and cohort maps.
///
/// # Errors
///
/// Fails if `root` is not a valid root, or if reading fails for other reasons than the repository's.
pub async fn verify_where(
    view: View,
    place: &str,
    root: Vec<u8>,
    now: DateTime<Utc>,
    wanted: Wanted,
) -> Result<AuditReport> {
    let mut report = AuditReport::new(place, now);
    let (looking, bytes, all) = (view.clone(), root.clone(), Arc::clone(&wanted));
    let ours = tokio::task::spawn_blocking(move || first_opinion(&looking, &bytes, now, &*all)).await;
    let First { tree, files, bytes, contents, target_faults, protection, open } =
        ours.map_err(|error| Error::bug("the audit broke off").with_source(error))??;

    report.is_empty = tree.absent.contains("timestamp");
    let newest_root = tree.roots.last();
    report.first_to_expire = tree
        .in_force()
        .min_by_key(|file| file.expires)
        .map(|file| Expiry { role: file.role.clone(), expires: file.expires });
    let roles = tree.roles();
    let versions = match (&newest_root, &tree.timestamp, &tree.snapshot) {
        (Some(root), Some(timestamp), Some(snapshot)) => {
            format!("root {}, timestamp {}, snapshot {}", root.version, timestamp.version, snapshot.version)
        }
        (Some(root), None, Some(snapshot)) if view.snapshot.is_some() => {
            format!("root {}, snapshot {}; expiry not judged", root.version, snapshot.version)
        }
        _ => String::new(),
    };
    let mut audit = content::audit(&tree, &contents);
    let is_foreign = tree.is_foreign();
    let consistent = tree.trusted.root().consistent_snapshot || view.origin.is_versioned();
    report.add(Check::Metadata, roles as u64, versions, tree.faults);
    report.add(Check::Targets, files, format!("{bytes} bytes"), target_faults);
    for check in [Check::Delegations, Check::CohortMaps, Check::Manifests, Check::Offers] {
        let (found, rest) = audit.faults.into_iter().partition(|(of, _)| *of == check);
        audit.faults = rest;
        let faults: Vec<(Check, AuditFinding)> = found;
        let seen = audit.seen.get(&check).copied().unwrap_or(0);
        report.add(check, seen, String::new(), faults.into_iter().map(|(_, fault)| fault).collect());
    }
    report.remark(audit.remarks);

    if protection.is_any() {
        let detail = if view.is_whole { String::new() } else { "not checked: the files are not here".to_owned() };
        report.add(Check::Protected, protection.secrets().count() as u64, detail, open);
        if !view.is_whole {
            let detail = "skipped: it reads every role, and protected roles are not here";
            report.add(Check::SecondMetadata, 0, detail.to_owned(), Vec::new());
            return Ok(report);
        }
    }

    if view.snapshot.is_some() {
        let detail = "skipped: it reads only what is live";
        report.add(Check::SecondMetadata, 0, detail.to_owned(), Vec::new());
        return Ok(report);
    }

    // tough reads the system's clock; with another `now` its findings on expiry are meaningless.
    let expiry = (Utc::now() - now).abs() < TimeDelta::minutes(1);
    let mut second = tough::opinion((view.origin, consistent), &root, expiry, wanted).await?;
    if is_foreign && report.ok {
        // It verified, so that this is what tough does not support.
        let cannot = |fault: AuditFinding| {
            AuditFinding::new(fault.subject, &format_args!("tough cannot read it: {}", fault.problem))
        };
        let unread = second.metadata_faults.drain(..).map(|fault| (Check::SecondMetadata, cannot(fault)));
        report.remark(unread.collect());
    }
    let since =
        second.since.map(|version| format!("from root {version} on: it cannot verify older ones, of another tool"));
    let blind = (!expiry).then(|| "expiry not judged, as --now is another time".to_owned());
    let detail = since.into_iter().chain(blind).collect::<Vec<_>>().join("; ");
    report.add(Check::SecondMetadata, second.roles, detail, second.metadata_faults);
    report.add(Check::SecondTargets, second.targets, format!("{} bytes", second.bytes), second.target_faults);
    Ok(report)
}

/// A repository as [`look`] reads it.
#[derive(Debug)]
pub struct Look {
    /// The metadata.
    pub tree: Tree,
    /// The bytes of manifests and cohort maps, verified, by their SHA-256.
    pub contents: BTreeMap<[u8; 32], Vec<u8>>,
    /// What does not verify or is inconsistent, except for expiry and other targets.
    pub faults: Vec<AuditFinding>,
    /// How the layout of a repository of another tool differs from Tidegate's.
    pub remarks: Vec<AuditFinding>,
    /// The protected part of it.
    pub protection: Protection,
}

/// Reads all metadata, manifests and cohort maps of a repository from the root file `root`, but no artifacts.
///
/// Ignores expiry, which the caller judges. With `snapshot`, reads the state that this version lists. If `is_whole`, everything
/// must be there; otherwise the protected cohorts' objects may be missing.
///
/// # Errors
///
/// Fails if `root` is not a valid root, or if reading fails for other reasons than the repository's.
pub fn look(origin: &dyn Origin, root: &[u8], snapshot: Option<u64>, is_whole: bool) -> Result<Look> {
    let mut tree = walk_regardless_of_expiry(origin, root, snapshot)?;
    let mut faults = std::mem::take(&mut tree.faults);
    let mut contents = content::Contents::new();
    let consistent = tree.trusted.root().consistent_snapshot || origin.is_versioned();
    let read = |listed: &Listed<'_>,
                protection: Option<&Protection>,
                contents: &mut content::Contents,
                faults: &mut Vec<AuditFinding>|
     -> Result<()> {
        let Some(sha256) = listed.file.hashes.sha256_digest().filter(|sha256| !contents.contains_key(*sha256)) else {
            return Ok(());
        };
        let found = match TargetPath::new(listed.path) {
            Ok(path) => {
                let name = path.file_path(&listed.file.hashes, consistent);
                let needs = protection.map(|protection| protection.needs(&format!("targets/{name}")));
                if needs.is_some_and(|needs| !needs.public) && !is_whole {
                    return Ok(());
                }
                read_target(origin, &name, listed.path, listed.file)?
            }
            Err(error) => Err(AuditFinding::new(listed.path, &error)),
        };
        match found {
            Ok(Some(bytes)) => drop(contents.insert(*sha256, bytes)),
            Ok(None) => {
                faults.push(AuditFinding::new(listed.path, &format_args!("it is longer than {MAX_READ} bytes")));
            }
            Err(fault) => faults.push(fault),
        }
        Ok(())
    };
    for listed in tree.listed().filter(|listed| is_map(listed.path)) {
        read(&listed, None, &mut contents, &mut faults)?;
    }
    let maps = maps_among(&contents);
    let mut protection = Protection::of(tree.by_name(), &maps);
    for listed in tree.listed().filter(|listed| content::is_read(listed.path) && !is_map(listed.path)) {
        read(&listed, Some(&protection), &mut contents, &mut faults)?;
    }
    follow_named(&tree, consistent, &contents, &mut protection);
    let audit = content::audit(&tree, &contents);
    faults.extend(audit.faults.into_iter().map(|(_, fault)| fault));
    let remarks = audit.remarks.into_iter().map(|(_, remark)| remark).collect();
    if !is_whole {
        faults.retain(|fault| !(tree.absent.contains(&fault.subject) && protection.is_kept(&fault.subject)));
    }
    Ok(Look { tree, contents, faults, remarks, protection })
}

/// The cohort maps among contents. Malformed ones are reported elsewhere.
fn maps_among(contents: &content::Contents) -> Maps {
    contents.iter().filter_map(|(sha256, bytes)| Some((*sha256, CohortMap::parse(bytes).ok()?))).collect()
}

/// What tough reports about a repository's metadata, ignoring expiry.
#[derive(Debug)]
pub struct SecondOpinion {
    /// Number of roles it read.
    pub roles: u64,
    /// Its findings.
    pub faults: Vec<AuditFinding>,
}

/// Lets tough walk all metadata at `origin` from `root`. Blocks: it uses its own thread and runtime, so that it can be called
/// from anywhere.
///
/// # Errors
///
/// Fails if the thread or runtime cannot be started, or if reading fails.
pub fn second_opinion(origin: Arc<dyn Origin>, root: Vec<u8>) -> Result<SecondOpinion> {
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(crate::Kind::Io, "the system cannot start a thread").with_source(e))?;
        runtime.block_on(tough::opinion((origin, true), &root, false, Arc::new(|_: &str| false)))
    };
    let done = std::thread::spawn(work).join().map_err(|_| Error::bug("the second verifier stopped"))?;
    done.map(|opinion| SecondOpinion { roles: opinion.roles, faults: opinion.metadata_faults })
}

/// What our own trust core found.
struct First {
    tree: Tree,
    files: u64,
    bytes: u64,
    contents: content::Contents,
    target_faults: Vec<AuditFinding>,
    protection: Protection,
    /// What is protected but publicly readable.
    open: Vec<AuditFinding>,
}

/// The finding on a role that is dated later than now.
fn ahead(file: &RoleFile) -> AuditFinding {
    let issued = file.issued.map(tidegate_tuf::time::format).unwrap_or_default();
    AuditFinding::new(&*file.role, &format_args!("it is dated {issued}, which is later than now (M-TIME)"))
}

/// Walks all metadata and reads all targets, each file once.
fn first_opinion(view: &View, root: &[u8], now: DateTime<Utc>, wanted: &dyn Fn(&str) -> bool) -> Result<First> {
    let origin = view.origin.as_ref();
    let mut tree = match view.snapshot {
        None => walk(origin, root, now)?,
        past => walk_regardless_of_expiry(origin, root, past)?,
    };
    let ahead: Vec<_> = tree.dated_ahead(now).map(ahead).collect();
    tree.faults.extend(ahead);
    let mut read = Files::new(origin, tree.trusted.root().consistent_snapshot || origin.is_versioned());
    for listed in tree.listed().filter(|listed| is_map(listed.path)) {
        read.file(&listed, true)?;
    }
    let mut protection = Protection::of(tree.by_name(), &maps_among(&read.contents));
    for listed in tree.listed().filter(|listed| wanted(listed.path) || content::is_read(listed.path)) {
        let needs = read.key(&listed).map(|key| protection.needs(&key)).unwrap_or_default();
        match (view.is_whole, needs) {
            (false, needs) if needs.is_apart() => {}
            // Not needed: it may be here or in the private place.
            (false, Needs { public: false, .. }) => read.file(&listed, false)?,
            _ => read.file(&listed, true)?,
        }
    }
    for (path, file) in follow_named(&tree, read.consistent, &read.contents, &mut protection) {
        let needs = protection.needs(&file.key());
        if wanted(&file.path) && (view.is_whole || !needs.is_apart()) {
            read.beside(&path, &file, view.is_whole || needs.public)?;
        }
    }
    let Files { contents, faults, seen, bytes, .. } = read;
    let files = seen.len() as u64;
    let mut open = Vec::new();
    if let Some(public) = &view.open {
        for key in protection.secrets() {
            if public.is_open(key)? {
                open.push(AuditFinding::new(key, &"it is protected, and anyone can read it"));
            }
        }
    }
    if let Some(private) = &view.private {
        // Access is usually granted per folder, so one object of each is enough.
        for kind in ["metadata/", "targets/"] {
            let Some(key) = protection.secrets().find(|key| key.starts_with(kind)) else { continue };
            if private.is_open_to_anyone(key)? == Some(true) {
                open.push(AuditFinding::new(key, &"anyone can read it in the private place, without a grant"));
            }
        }
    }
    if !view.is_whole {
        let Tree { absent, faults, .. } = &mut tree;
        faults.retain(|fault| !(absent.contains(&fault.subject) && protection.is_kept(&fault.subject)));
    }
    Ok(First { tree, files, bytes, contents, target_faults: faults, protection, open })
}

/// The files of delivery that manifests and lists of patches name, each with the path of the target that names it. They are protected
/// as that is.
fn follow_named(
    tree: &Tree,
    consistent: bool,
    contents: &content::Contents,
    protection: &mut Protection,
) -> Vec<(String, DeliveryFile)> {
    let mut found = Vec::new();
    for listed in tree.listed().filter(|listed| delivery::names_some(listed.path)) {
        let bytes = listed.file.hashes.sha256_digest().and_then(|sha256| contents.get(sha256));
        let (Some(bytes), Ok(path)) = (bytes, TargetPath::new(listed.path)) else { continue };
        // A malformed one is reported as such.
        let named = delivery::named(listed.path, bytes).unwrap_or_default();
        protection.follow(&format!("targets/{}", path.file_path(&listed.file.hashes, consistent)), &named);
        found.extend(named.into_iter().map(|file| (listed.path.to_owned(), file)));
    }
    found
}

/// Whether a target is a cohort map.
fn is_map(path: &str) -> bool {
    matches!(Location::parse(path), Some(Location::CohortMap { .. }))
}

/// The targets that are read, each file once.
struct Files<'a> {
    origin: &'a dyn Origin,
    consistent: bool,
    contents: content::Contents,
    faults: Vec<AuditFinding>,
    seen: BTreeSet<String>,
    bytes: u64,
}

impl<'a> Files<'a> {
    fn new(origin: &'a dyn Origin, consistent: bool) -> Self {
        let (contents, faults, seen) = (content::Contents::new(), Vec::new(), BTreeSet::new());
        Self { origin, consistent, contents, faults, seen, bytes: 0 }
    }

    fn name(&self, listed: &Listed<'_>) -> Result<String, AuditFinding> {
        let path = TargetPath::new(listed.path).map_err(|error| AuditFinding::new(listed.path, &error))?;
        Ok(path.file_path(&listed.file.hashes, self.consistent))
    }

    fn key(&self, listed: &Listed<'_>) -> Option<String> {
        self.name(listed).ok().map(|name| format!("targets/{name}"))
    }

    /// Reads a file that the target at `path` names. If it `must` exist, a missing file is a fault.
    fn beside(&mut self, path: &str, file: &DeliveryFile, must: bool) -> Result<()> {
        if self.seen.contains(&file.path) || (!must && !self.origin.is_open(&file.key())?) {
            return Ok(());
        }
        let hashes = Hashes::sha256(*file.sha256.as_bytes());
        match read_checked(self.origin, &file.path, path, (file.length, &hashes), false)? {
            Ok(_) => self.bytes += file.length,
            Err(fault) => self.faults.push(fault),
        }
        self.seen.insert(file.path.clone());
        Ok(())
    }

    /// Reads a file. If it `must` exist, a missing file is a fault.
    fn file(&mut self, listed: &Listed<'_>, must: bool) -> Result<()> {
        let name = match self.name(listed) {
            Ok(name) => name,
            Err(fault) => {
                self.faults.push(fault);
                return Ok(());
            }
        };
        if self.seen.contains(&name) || (!must && !self.origin.is_open(&format!("targets/{name}"))?) {
            return Ok(());
        }
        match read_target(self.origin, &name, listed.path, listed.file)? {
            Ok(content) => {
                self.bytes += listed.file.length;
                if let Some((content, sha256)) = content.zip(listed.file.hashes.sha256_digest()) {
                    self.contents.insert(*sha256, content);
                }
            }
            Err(fault) => self.faults.push(fault),
        }
        self.seen.insert(name);
        Ok(())
    }
}

/// Where tough has a target of a folder under consistent snapshots: the hash before the whole path, and not, as TUF 5.7.3 has it, before the name of its
/// file.
pub(crate) fn key_of_tough(path: &str, hashes: &Hashes) -> Option<String> {
    let sha256 = hashes.sha256_digest().filter(|_| path.contains('/'))?;
    Some(format!("targets/{}.{path}", to_hex(sha256)))
}

/// Reads a target with the checks of a device. Returns its content if the audit examines it.
pub(crate) fn read_target(
    origin: &dyn Origin,
    name: &str,
    path: &str,
    file: &TargetFile,
) -> Result<Result<Option<Vec<u8>>, AuditFinding>> {
    read_checked(origin, name, path, (file.length, &file.hashes), file.length <= MAX_READ && content::is_read(path))
}

/// Reads the file `name`, which `path` stands for in a finding. Returns its content if that is to be kept.
fn read_checked(
    origin: &dyn Origin,
    name: &str,
    path: &str,
    (length, hashes): (u64, &Hashes),
    keep: bool,
) -> Result<Result<Option<Vec<u8>>, AuditFinding>> {
    let mut checker = Checker::new(Some(length), Some(hashes));
    let mut content = keep.then(Vec::new);
    let mut wrong = None;
    let found = origin.target(name, length, &mut |bytes| {
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
        return Ok(Err(AuditFinding::new(path, &mismatch)));
    }
    match found {
        Ok(false) => {
            let elsewhere = match key_of_tough(path, hashes) {
                Some(other) if origin.is_open(&other)? => {
                    format!("; it is at {other}, where clients built on tough alone look")
                }
                _ => String::new(),
            };
            let problem = format!("targets/{name} is missing{elsewhere}");
            return Ok(Err(AuditFinding::new(path, &problem)));
        }
        Ok(true) => {}
        Err(error) if error.kind() == crate::Kind::Trust => return Ok(Err(AuditFinding::new(path, &error))),
        Err(error) => return Err(error),
    }
    Ok(checker.finish().map(|()| content).map_err(|mismatch| AuditFinding::new(path, &mismatch)))
}
