//! `tidegate ceremony`: changes that need a threshold of people.

mod plan;
mod show;
mod sign;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::json;
use tidegate_client::tuf::key::KeyId;

use super::passphrase::PassphraseArgs;
use super::{Context, actor};
use crate::ceremony::{self, Bundle, FILE, MAX_LENGTH, MAX_TRANSCRIPT, Standing, Tool, Transcript, Verified, Wish};
use crate::error::{Error, Result};
use crate::files;
use crate::workspace::Workspace;

/// Rotate keys, change thresholds and delegations: propose, review, sign, combine, finish
///
/// Edit tidegate.toml to say what is wanted, then start. The proposal is one file, proposals/ceremony.json; its signers need nothing
/// but that file, this program and a root that they trust. The runbook is docs/ceremony.md.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Plan(plan::Args),
    Start(StartArgs),
    Show(ShowArgs),
    Rehearse(RehearseArgs),
    Sign(sign::Args),
    Status(StatusArgs),
    Combine(CombineArgs),
    Finish(FinishArgs),
    Abort(AbortArgs),
    VerifyTranscript(VerifyTranscriptArgs),
}

/// Propose that the signed metadata becomes what tidegate.toml says
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate ceremony start --reason 'add the third holder'
  tidegate ceremony start --renew root --renew targets")]
struct StartArgs {
    /// Sign this role for a new lifetime even if nothing else of it changes: root, targets, or a channel (repeatable)
    #[arg(long, value_name = "ROLE")]
    renew: Vec<String>,
    /// Why, for those who will review it
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Show what a proposal changes, in words and tables
#[derive(Debug, ClapArgs)]
struct ShowArgs {
    #[command(flatten)]
    which: Which,
    /// Write the exact bytes that signatures of this role are over, for openssl or pkcs11-tool
    #[arg(long, value_name = "ROLE", requires = "out")]
    signed_bytes: Option<String>,
    /// Where to write them
    #[arg(long, value_name = "FILE", requires = "signed_bytes")]
    out: Option<PathBuf>,
}

/// Play the proposal to simulated devices at every root version, before anybody signs
///
/// Fails if any device would be stranded.
#[derive(Debug, ClapArgs)]
struct RehearseArgs {
    /// Take this key for lost (repeatable)
    #[arg(long, value_name = "NAME")]
    lost: Vec<String>,
}

/// Say who has signed and who is missing
#[derive(Debug, ClapArgs)]
struct StatusArgs {
    #[command(flatten)]
    which: Which,
}

/// Put signed copies together, in any order
///
/// All or none: one bad copy, and nothing is changed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate ceremony combine /media/usb/ceremony-1.json mail/ceremony-2.json
  tidegate ceremony combine --signature root:root-2=root-2.sig
  tidegate ceremony combine a.json b.json --root root.json --out both.json    (without a workspace)")]
struct CombineArgs {
    /// Signed copies of the proposal
    #[arg(value_name = "COPY")]
    copies: Vec<PathBuf>,
    /// A signature that another program made: ROLE:KEY=FILE, where KEY is a name in the proposal or a key id (repeatable)
    #[arg(long, value_name = "ROLE:KEY=FILE", value_parser = parse_outside)]
    signature: Vec<Outside>,
    /// Without a workspace: verify from this root
    #[arg(long, value_name = "FILE", requires = "out")]
    root: Option<PathBuf>,
    /// Write the result here instead of into the workspace
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Make the proposal the metadata in force, and write its transcript
#[derive(Debug, ClapArgs)]
struct FinishArgs {
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Give the ceremony up
#[derive(Debug, ClapArgs)]
struct AbortArgs {
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Check a transcript against the repository
#[derive(Debug, ClapArgs)]
struct VerifyTranscriptArgs {
    /// The transcript
    file: PathBuf,
}

/// Which proposal, and the root to verify it from.
#[derive(Debug, ClapArgs)]
struct Which {
    /// The proposal [default: the workspace's proposals/ceremony.json]
    file: Option<PathBuf>,
    /// Verify from this root, which you trust [default: the workspace's first root]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
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
    match &args.command {
        Command::Plan(args) => plan::run(args, cx),
        Command::Start(args) => start(args, cx),
        Command::Show(args) => show_proposal(args, cx),
        Command::Rehearse(args) => rehearse(args, cx),
        Command::Sign(args) => sign::run(args, cx),
        Command::Status(args) => status(args, cx),
        Command::Combine(args) => combine(args, cx),
        Command::Finish(args) => finish(args, cx),
        Command::Abort(args) => abort(args, cx),
        Command::VerifyTranscript(args) => verify_transcript(args, cx),
    }
}

/// A proposal that was read and verified.
struct Opened {
    path: PathBuf,
    bundle: Bundle,
    verified: Verified,
}

impl Which {
    /// Reads and verifies the proposal, from the given root or the workspace's.
    fn open(&self, cx: &Context) -> Result<Opened> {
        let path = self.file.clone().unwrap_or_else(|| cx.dir.join(FILE));
        let bundle = read_bundle(&path)?;
        let anchor = match &self.root {
            Some(root) => files::read(root, MAX_LENGTH)?,
            None => workspace_root(cx, &path)?,
        };
        let verified = ceremony::verify(&bundle, &anchor)?;
        Ok(Opened { path, bundle, verified })
    }
}

pub(in crate::cli) fn read_bundle(path: &Path) -> Result<Bundle> {
    let name = path.display().to_string();
    let bytes = files::read_if_exists(path, MAX_LENGTH)?.ok_or_else(|| {
        if path.ends_with(FILE) {
            Error::input("no ceremony is under way").rule("C-NONE").remedy("begin one: tidegate ceremony start")
        } else {
            Error::input(format!("there is no file {name}"))
        }
    })?;
    Bundle::parse(&name, &bytes)
}

/// The first root of the workspace that we are in. A bundle's own roots are never a stand-in for it.
fn workspace_root(cx: &Context, bundle: &Path) -> Result<Vec<u8>> {
    let root = cx.dir.join("metadata/1.root.json");
    if !cx.dir.join("tidegate.toml").is_file() || !root.is_file() {
        return Err(Error::usage(format!("{} can only be checked from a root that you trust", bundle.display()))
            .remedy("give the root that devices are shipped with, or a later one that you kept: --root FILE"));
    }
    files::read(&root, MAX_LENGTH)
}

fn start(args: &StartArgs, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let wish = Wish { renew: args.renew.iter().cloned().collect(), reason: args.reason.clone() };
    let bundle = ceremony::start(&workspace, &wish, &actor(), cx.now)?;
    let repository = workspace.repository()?;
    let verified = ceremony::verify(&bundle, ceremony::anchor(&repository)?)?;
    show::review(cx, &ceremony::review(&bundle, &verified, cx.now)?)?;
    cx.ui.status(format_args!("\nwritten to {}", cx.dir.join(FILE).display()));
    cx.ui.hint("tidegate ceremony rehearse, then send the file to its signers");
    Ok(())
}

fn show_proposal(args: &ShowArgs, cx: &mut Context) -> Result<()> {
    let opened = args.which.open(cx)?;
    if let (Some(role), Some(out)) = (&args.signed_bytes, &args.out) {
        files::write_atomic(out, &opened.bundle.signed_bytes(role)?)?;
        cx.ui.status(format_args!("written to {}: sign exactly these bytes", out.display()));
        cx.ui.hint(format_args!("tidegate ceremony combine --signature {role}:KEY=FILE"));
        return Ok(());
    }
    show::review(cx, &ceremony::review(&opened.bundle, &opened.verified, cx.now)?)?;
    if !cx.ui.is_json() {
        cx.ui.result("")?;
        show::standing(cx, &opened.bundle, &opened.verified)?;
    }
    Ok(())
}

fn rehearse(args: &RehearseArgs, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let repository = workspace.repository()?;
    let (bundle, verified) = ceremony::open(&workspace, &repository)?;
    ceremony::check_follows(&bundle, &repository)?;
    let lost = args.lost.iter().map(|name| key_id(&bundle, &verified, name)).collect::<Result<BTreeSet<_>>>()?;
    let rehearsal = ceremony::rehearse(&bundle, &verified, &repository, &lost, cx.now)?;
    show::rehearsal(cx, &rehearsal)?;
    let stranded = rehearsal.stranded().count();
    if stranded > 0 {
        return Err(Error::refused(format!("{stranded} kinds of devices would be stranded"))
            .rule("C-STRANDED")
            .remedy("do not sign this proposal; tidegate ceremony abort, and change tidegate.toml"));
    }
    cx.ui.hint(
        "send proposals/ceremony.json to its signers; each runs: tidegate ceremony sign FILE --root ROOT --key KEY",
    );
    Ok(())
}

fn status(args: &StatusArgs, cx: &mut Context) -> Result<()> {
    let opened = args.which.open(cx)?;
    if cx.ui.is_json() {
        let standing = opened.verified.standing(&opened.bundle)?;
        return cx.ui.json(&json!({
            "subject": opened.bundle.subject,
            "digest": opened.bundle.digest()?,
            "thresholds": standing,
            "complete": standing.iter().all(Standing::is_met),
        }));
    }
    cx.ui.result(format_args!("{}, proposal {}", opened.bundle.subject, short(&opened.bundle.digest()?)))?;
    show::standing(cx, &opened.bundle, &opened.verified)?;
    if opened.verified.standing(&opened.bundle)?.iter().all(Standing::is_met) {
        cx.ui.hint("tidegate ceremony finish");
    }
    Ok(())
}

fn combine(args: &CombineArgs, cx: &mut Context) -> Result<()> {
    if args.copies.is_empty() && args.signature.is_empty() {
        return Err(Error::usage("there is nothing to combine").remedy("name the signed copies"));
    }
    let mut copies = args
        .copies
        .iter()
        .map(|path| Ok((path.display().to_string(), read_bundle(path)?)))
        .collect::<Result<Vec<_>>>()?;
    let workspace = if args.root.is_some() { None } else { Some(Workspace::open(&cx.dir)?) };
    let (anchor, first) = match (&args.root, &workspace) {
        (Some(root), _) => {
            if copies.is_empty() {
                return Err(Error::usage("name the copies to combine"));
            }
            (files::read(root, MAX_LENGTH)?, copies.remove(0).1)
        }
        (None, Some(workspace)) => {
            let repository = workspace.repository()?;
            let (bundle, _) = ceremony::open(workspace, &repository)?;
            ceremony::check_follows(&bundle, &repository)?;
            (ceremony::anchor(&repository)?.to_vec(), bundle)
        }
        (None, None) => return Err(Error::bug("neither root nor workspace")),
    };
    let mut combined = ceremony::combine(&first, &copies, &anchor)?;
    let verified = ceremony::verify(&combined, &anchor)?;
    for outside in &args.signature {
        let id = key_id(&combined, &verified, &outside.key)?;
        let text = files::read(&outside.file, 64 * 1024)?;
        ceremony::add_outside(&mut combined, &verified, &outside.role, &id, &text, cx.now)?;
    }
    let verified = ceremony::verify(&combined, &anchor)?;
    match (&args.out, &workspace) {
        (Some(out), _) => files::write_atomic(out, &combined.to_bytes()?)?,
        (None, Some(workspace)) => ceremony::keep(workspace, &combined, &actor(), cx.now)?,
        (None, None) => return Err(Error::bug("nowhere to write to")),
    }
    if cx.ui.is_json() {
        return cx.ui.json(&verified.standing(&combined)?);
    }
    show::standing(cx, &combined, &verified)?;
    let complete = verified.standing(&combined)?.iter().all(Standing::is_met);
    cx.ui.hint(if complete {
        "tidegate ceremony finish"
    } else {
        "wait for the other signers, then combine their copies, too"
    });
    Ok(())
}

fn finish(args: &FinishArgs, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let settings = workspace.settings()?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    let done = ceremony::finish(&workspace, &mut ring, &Tool::this()?, &actor(), cx.now)?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"roles": done.roles, "transcript": done.transcript}));
    }
    cx.ui.result(format_args!("in force: {}", done.roles.join(", ")))?;
    cx.ui.result(format_args!("transcript: {}", done.transcript.display()))?;
    cx.ui.hint(
        "tidegate publish FOLDER, then have the signers check the transcript: tidegate ceremony verify-transcript FILE",
    );
    Ok(())
}

fn abort(args: &AbortArgs, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    ceremony::abort(&workspace, args.reason.as_deref().map(crate::release::ledger::clean), &actor(), cx.now)?;
    cx.ui.status("given up; nothing but the ledger was changed");
    Ok(())
}

fn verify_transcript(args: &VerifyTranscriptArgs, cx: &mut Context) -> Result<()> {
    let bytes = files::read(&args.file, MAX_TRANSCRIPT)?;
    let name = args.file.display().to_string();
    let text = String::from_utf8(bytes).map_err(|e| Error::input(format!("{name} is not text")).with_source(e))?;
    let transcript = Transcript::parse(&name, &text)?;
    let workspace = Workspace::open(&cx.dir)?;
    let checked = ceremony::check(&transcript, &workspace.repository()?)?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"subject": transcript.subject, "files": checked}));
    }
    for file in &checked {
        let how = if file.present { "the same, byte for byte" } else { "replaced by a later version since" };
        cx.ui.result(format_args!("{:<24} {how}", file.file))?;
    }
    cx.ui.result(format_args!("{name} is the record of {}", transcript.subject))
}

/// A key by its name in the proposal, or by its id or the start of it.
fn key_id(bundle: &Bundle, verified: &Verified, text: &str) -> Result<KeyId> {
    let ids: BTreeSet<&KeyId> = verified.requirements.iter().flat_map(|r| &r.threshold.keyids).collect();
    let found: Vec<&KeyId> = ids
        .iter()
        .copied()
        .filter(|id| {
            bundle.names.get(*id).is_some_and(|name| name == text) || (text.len() >= 8 && id.as_str().starts_with(text))
        })
        .collect();
    if let [id] = found.as_slice() {
        Ok((*id).clone())
    } else {
        let names: Vec<_> = ids.iter().map(|id| bundle.label(id)).collect();
        Err(Error::refused(format!("{text} is not one key that has a say in this proposal"))
            .rule("C-KEY")
            .remedy(format!("those are: {}", names.join(", "))))
    }
}

/// What people read out to each other.
fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}
