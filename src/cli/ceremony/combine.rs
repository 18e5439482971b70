//! `tidegate ceremony combine`: put signatures together.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::proposal::{key_id, read_proposal};
use super::show;
use crate::cli::context::{Context, actor};
use crate::error::{Error, Result};
use crate::keys::KeyRing;
use crate::proposal::{self, MAX_LENGTH, RequirementStatus};
use crate::workspace::{Operation, Workspace};
use crate::{ceremony, fs};

/// Combine signed copies, in any order
///
/// If one copy is bad, nothing is changed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate ceremony combine /media/usb/ceremony-1.json mail/ceremony-2.json
  tidegate ceremony combine --signature root:root-2=root-2.sig
  tidegate ceremony combine a.json b.json --root root.json --out both.json")]
pub(super) struct Args {
    /// Signed copies of the proposal
    #[arg(value_name = "COPY")]
    copies: Vec<PathBuf>,
    /// A signature made by another program: ROLE:KEY=FILE, where KEY is a name in the proposal or a key id (repeatable)
    #[arg(long, value_name = "ROLE:KEY=FILE", value_parser = parse_outside)]
    signature: Vec<Outside>,
    /// Without a workspace: verify from this root
    #[arg(long, value_name = "FILE", requires = "out")]
    root: Option<PathBuf>,
    /// Write the result here instead of into the workspace
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone)]
struct Outside {
    role: String,
    key: String,
    file: PathBuf,
}

fn parse_outside(text: &str) -> Result<Outside, String> {
    let parts = text.split_once('=').and_then(|(left, file)| Some((left.split_once(':')?, file)));
    let ((role, key), file) = parts.ok_or("write it as ROLE:KEY=FILE, for example root:root-2=root-2.sig")?;
    Ok(Outside { role: role.into(), key: key.into(), file: file.into() })
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    if args.copies.is_empty() && args.signature.is_empty() {
        return Err(Error::usage("there is nothing to combine").remedy("name the signed copies"));
    }
    let mut copies = args
        .copies
        .iter()
        .map(|path| Ok((path.display().to_string(), read_proposal(path)?)))
        .collect::<Result<Vec<_>>>()?;
    let workspace = if args.root.is_some() { None } else { Some(Workspace::open(&cx.dir)?) };
    let (anchor, first) = match (&args.root, &workspace) {
        (Some(root), _) => {
            if copies.is_empty() {
                return Err(Error::usage("name the copies to combine"));
            }
            (Some(fs::read(root, MAX_LENGTH)?), copies.remove(0).1)
        }
        (None, Some(workspace)) => {
            let repository = workspace.repository_if_any()?;
            let (proposal, _) = ceremony::open(workspace, repository.as_ref())?;
            if let Some(repository) = &repository {
                proposal::check_follows(&proposal, repository)?;
            }
            (repository.map(|repository| repository.anchor().map(<[u8]>::to_vec)).transpose()?, proposal)
        }
        (None, None) => return Err(Error::bug("neither root nor workspace")),
    };
    let mut combined = proposal::combine(&first, &copies, anchor.as_deref())?;
    let verified = proposal::verify(&combined, anchor.as_deref())?;
    for outside in &args.signature {
        let id = key_id(&combined, &verified, &outside.key)?;
        let text = fs::read(&outside.file, 64 * 1024)?;
        proposal::add_outside(&mut combined, &verified, &outside.role, &id, &text, cx.now)?;
    }
    let verified = proposal::verify(&combined, anchor.as_deref())?;
    match (&args.out, &workspace) {
        (Some(out), _) => fs::write_atomic(out, &combined.to_bytes()?)?,
        (None, Some(workspace)) => {
            ceremony::keep(&mut Operation::new(workspace, &actor(), cx.now, &mut KeyRing::empty()), &combined)?;
        }
        (None, None) => return Err(Error::bug("nowhere to write to")),
    }
    if cx.ui.is_json() {
        return cx.ui.json(&verified.requirement_status(&combined)?);
    }
    show::requirements(cx, &combined, &verified)?;
    let complete = verified.requirement_status(&combined)?.iter().all(RequirementStatus::is_met);
    cx.ui.hint(if complete {
        "tidegate ceremony finish"
    } else {
        "wait for the other signers, then also combine their copies"
    });
    Ok(())
}
