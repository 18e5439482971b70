//! Finding, reading and verifying a proposal, and the keys in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::path::metadata_file;

use crate::ceremony::FILE;
use crate::cli::context::Context;
use crate::error::{Error, Result, Rule};
use crate::fs;
use crate::metadata::{METADATA_DIR, anchor_file};
use crate::proposal::{self, MAX_LENGTH, Proposal, Verified};
use crate::workspace::{has_begun, init_command};

/// Which proposal, and the root to verify it from.
#[derive(Debug, ClapArgs)]
pub(super) struct Which {
    /// The proposal [default: the workspace's proposals/ceremony.json]
    pub(super) file: Option<PathBuf>,
    /// Verify from this root, which you trust [default: the workspace's first root; a first root is told by its digest alone]
    #[arg(long, value_name = "FILE")]
    pub(super) root: Option<PathBuf>,
}

/// What is signed or brought into force although it is refused by default.
#[derive(Debug, ClapArgs)]
pub(super) struct Allowed {
    /// Allow what is refused by default, by the name that `ceremony show` gives it; the name of a client alone gives that client up
    /// (repeatable)
    #[arg(long, value_name = "NAME")]
    allow: Vec<String>,
}

impl Allowed {
    pub(super) fn names(&self) -> BTreeSet<String> {
        self.allow.iter().cloned().collect()
    }
}

/// A proposal that was read and verified.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) proposal: Proposal,
    pub(super) verified: Verified,
    /// The root that it was verified from; none for a first root.
    pub(super) anchor: Option<Vec<u8>>,
}

impl Which {
    /// Reads and verifies the proposal, from the given root or the workspace's.
    pub(super) fn open(&self, cx: &Context) -> Result<Opened> {
        if cx.dir.join("tidegate.toml").is_file() {
            fs::check_own(&cx.dir)?;
        }
        let path = self.file.clone().unwrap_or_else(|| cx.dir.join(FILE));
        let proposal = read_proposal(&path)?;
        let anchor = if let Some(root) = &self.root {
            Some(fs::read(root, MAX_LENGTH)?)
        } else {
            let root = workspace_root(cx, &path, &proposal)?;
            if root.is_some() {
                check_own_roots(&cx.dir, &proposal)?;
            }
            root
        };
        let verified = proposal::verify(&proposal, anchor.as_deref())?;
        Ok(Opened { path, proposal, verified, anchor })
    }
}

pub(in crate::cli) fn read_proposal(path: &Path) -> Result<Proposal> {
    let name = path.display().to_string();
    let bytes = fs::read_if_exists(path, MAX_LENGTH)?.ok_or_else(|| {
        if path.ends_with(FILE) {
            no_ceremony(path.parent().and_then(Path::parent).unwrap_or(path))
        } else {
            Error::input(format!("there is no file {name}"))
        }
    })?;
    Proposal::parse(&name, &bytes)
}

/// That no ceremony is in progress in the workspace `dir`.
fn no_ceremony(dir: &Path) -> Error {
    let error = Error::input("no ceremony is in progress").rule(Rule::CeremonyNone);
    match has_begun(dir) {
        Ok(false) => error.remedy(format!("start with the first root: {}", init_command(dir))),
        _ => error.remedy(
            "start one: tidegate ceremony start --renew ROLE, or without --renew after a change of tidegate.toml",
        ),
    }
}

/// The root from which the workspace that we are in is verified. A proposal's own roots are never a stand-in for it; one of a first root has none.
fn workspace_root(cx: &Context, path: &Path, proposal: &Proposal) -> Result<Option<Vec<u8>>> {
    let root = anchor_file(&cx.dir)?;
    let is_workspace = cx.dir.join("tidegate.toml").is_file();
    if is_workspace && root.is_file() {
        return fs::read(&root, MAX_LENGTH).map(Some);
    }
    // Who has a root once is asked for no first one again, whatever has become of its file.
    if proposal.follows.roots.is_empty() && !(is_workspace && has_begun(&cx.dir)?) {
        return Ok(None);
    }
    Err(Error::usage(format!("{} can only be checked from a root that you trust", path.display()))
        .remedy("give the root that devices are shipped with, or a later one that you kept: --root FILE"))
}

/// Checks that the proposal follows from the very roots of the workspace: keys of older ones may be stolen, and could have signed others.
fn check_own_roots(dir: &Path, proposal: &Proposal) -> Result<()> {
    let own = |version: u64| {
        fs::read_if_exists(&dir.join(METADATA_DIR).join(metadata_file("root", Some(version))), MAX_LENGTH)
    };
    let mut next = 1;
    for (text, version) in proposal.follows.roots.iter().zip(1_u64..) {
        if own(version)?.is_some_and(|own| own != text.as_bytes()) {
            return Err(Error::trust(format!(
                "the proposal follows from another root {version} than this workspace has"
            ))
            .rule(Rule::CeremonyChain)
            .remedy("do not sign it; ask whoever sent it, over another way, which repository it is for"));
        }
        next = version + 1;
    }
    if own(next)?.is_some() {
        return Err(Error::refused(
            Rule::CeremonyStale,
            format!("root {next} is in force here, and the proposal is older"),
        )
        .remedy("have it proposed anew from the root in force"));
    }
    Ok(())
}

/// A key by its name in the proposal, or by its id or the start of it.
pub(super) fn key_id(proposal: &Proposal, verified: &Verified, text: &str) -> Result<KeyId> {
    let ids: BTreeSet<&KeyId> = verified.requirements.iter().flat_map(|r| &r.threshold.keyids).collect();
    let found: Vec<&KeyId> = ids
        .iter()
        .copied()
        .filter(|id| {
            proposal.names.get(*id).is_some_and(|name| name == text)
                || (text.len() >= 8 && id.as_str().starts_with(text))
        })
        .collect();
    if let [id] = found.as_slice() {
        Ok((*id).clone())
    } else {
        let names: Vec<_> = ids.iter().map(|id| proposal.label(id)).collect();
        Err(Error::refused(Rule::CeremonyKey, format!("{text} is not a key that may sign this proposal"))
            .remedy(format!("those are: {}", names.join(", "))))
    }
}
