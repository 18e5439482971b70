//! `tidegate init`: creates a workspace.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::digest::Digest;

use super::ceremony::{read_out, requirements};
use super::context::{Context, actor};
use super::passphrase::{PassphraseArgs, new_passphrase};
use super::show;
use crate::ceremony::{self, First, Initialized, init};
use crate::error::Result;
use crate::keys::generate::Kind;
use crate::metadata::Repository;
use crate::proposal::{self, Proposal, RequirementStatus};
use crate::workspace::init::{KeySource, Options, write_files};
use crate::workspace::{command, init_command};

/// Create a workspace: files to edit, then keys and first metadata
///
/// First writes the files to edit: tidegate.toml, cohorts.toml, policy.toml. Run again, or with an option for keys, it signs what they
/// say. Keys that tidegate.toml declares are used where they can be reached, and never replaced. If some cannot, a ceremony for the
/// first root begins: each holder signs on their own machine (docs/ceremony.md).
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate init fleet                       (writes the files to edit)
  tidegate init fleet --generate-keys       (signs; other keys are created)
  tidegate init fleet --generate-keys --encrypt-keys
  tidegate init fleet --keys /media/usb/keys
  tidegate init fleet                       (signs, if all keys are declared)
  tidegate init trial --example-keys")]
pub(super) struct Args {
    /// The folder of the workspace [default: the one given with -C]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Where the keys of a new workspace come from.
#[derive(Debug, ClapArgs)]
pub(super) struct KeyArgs {
    /// Create the keys that tidegate.toml does not declare, in keys/ (for a real fleet, create offline keys where they will stay)
    #[arg(long, group = "source")]
    generate_keys: bool,
    /// Use the keys NAME.pem in this folder, and others where tidegate.toml says
    #[arg(long, value_name = "FOLDER", group = "source")]
    keys: Option<PathBuf>,
    /// Use publicly known keys, for tests, never for a fleet
    #[arg(long, group = "source")]
    example_keys: bool,
    /// The kind of generated keys: ed25519 or p256
    #[arg(long, value_name = "KIND", default_value = "ed25519", requires = "generate_keys")]
    key_type: Kind,
    /// Encrypt the generated keys with a passphrase (TIDEGATE_PASSPHRASE, or asked for)
    #[arg(long, requires = "generate_keys")]
    encrypt_keys: bool,
    /// The salt of the assignment of devices to cohorts, in hex [default: random]
    #[arg(long, value_name = "HEX")]
    salt: Option<String>,
}

impl KeyArgs {
    /// What to lay a workspace down with. Asks for a passphrase if there is to be one.
    pub(super) fn options(&self) -> Result<Options> {
        let keys = if let Some(folder) = &self.keys {
            KeySource::Folder(folder.clone())
        } else if self.example_keys {
            KeySource::Example
        } else if self.generate_keys {
            let passphrase = if self.encrypt_keys { Some(new_passphrase()?) } else { None };
            KeySource::Generate { kind: self.key_type, passphrase }
        } else {
            KeySource::Declared
        };
        Ok(Options { keys, salt: self.salt.clone(), actor: actor() })
    }
}

/// The folder that a workspace is made in: `folder` as seen from `-C`.
pub(super) fn folder(cx: &Context, folder: Option<&Path>) -> PathBuf {
    match folder {
        // Nobody wants to read ./fleet.
        Some(folder) if cx.dir == Path::new(".") => folder.to_owned(),
        Some(folder) => cx.dir.join(folder),
        None => cx.dir.clone(),
    }
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let dir = folder(cx, args.folder.as_deref());
    let options = args.keys.options()?;
    if matches!(options.keys, KeySource::Declared) {
        let written = write_files(&dir, options.salt.as_deref())?;
        if !written.is_empty() {
            return to_edit(cx, &dir, &written);
        }
    }
    let made = init(&dir, &options, cx.now, args.passphrase.source().as_mut())?;
    if !cx.ui.is_json() {
        cx.ui.status(format_args!("Created workspace {}", dir.display()));
        files(cx);
    }
    match &made.first {
        First::Signed(repository) => signed(cx, &dir, &options, &made, repository),
        First::Proposed(proposal) => proposed(cx, &dir, &made, proposal),
    }
}

/// The files to edit, and what they are for.
fn files(cx: &Context) {
    for (file, what) in [
        ("tidegate.toml", "what is released, who may sign what"),
        ("cohorts.toml", "who gets a release first"),
        ("policy.toml", "what a release must pass"),
    ] {
        cx.ui.status(format_args!("  {file:<15} {what}"));
    }
}

/// The files wait to be edited.
fn to_edit(cx: &Context, dir: &Path, written: &[String]) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"dir": dir, "written": written}));
    }
    cx.ui.status(format_args!("Wrote the files to edit in {}:", dir.display()));
    files(cx);
    cx.ui.status("");
    cx.ui.status("Nothing is signed yet. Edit them, then sign what they say:");
    cx.ui.hint(init_command(dir));
    Ok(())
}

/// What says that there are private keys to look after.
fn keys(cx: &Context, made: &Initialized) {
    match made.written.iter().filter(|file| file.starts_with("keys/")).count() {
        0 => {}
        1 => cx.ui.status("  keys/           1 private key, not for version control"),
        count => cx.ui.status(format_args!("  {:<15} {count} private keys, not for version control", "keys/")),
    }
}

fn signed(cx: &Context, dir: &Path, options: &Options, made: &Initialized, repository: &Repository) -> Result<()> {
    if cx.ui.is_json() {
        let root = repository.must_have("root")?;
        let root_sha256 = Digest::of(&root.bytes).to_string();
        return cx.ui.json(&json!({
            "dir": dir,
            "written": made.written,
            "root": {"file": "metadata/1.root.json", "version": root.version, "sha256": root_sha256},
        }));
    }
    let roles = repository.roles().count();
    cx.ui.status(format_args!("  {:<15} {roles} roles, signed", "metadata/"));
    keys(cx, made);
    show::first_root(&cx.ui, dir)?;
    if matches!(options.keys, KeySource::Example) {
        cx.ui.warn("these keys are public: they can only be published to a local folder");
    }
    cx.ui.hint(command(dir, "release create 1.0.0 FILE --hardware ID"));
    Ok(())
}

/// The first root waits for its holders.
fn proposed(cx: &Context, dir: &Path, made: &Initialized, proposal: &Proposal) -> Result<()> {
    let digest = proposal.digest()?;
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "dir": dir,
            "written": made.written,
            "proposal": {"file": ceremony::FILE, "subject": proposal.subject, "digest": digest},
        }));
    }
    cx.ui.status(format_args!("  {:<15} the first root, for its holders to sign", "proposals/"));
    keys(cx, made);
    cx.ui.status("");
    cx.ui.status("These keys cannot sign here:");
    for (name, why) in &made.elsewhere {
        cx.ui.status(format_args!("  {name:<15} {why}"));
    }
    cx.ui.status("");
    let verified = proposal::verify(proposal, None)?;
    let is_complete = verified.requirement_status(proposal)?.iter().all(RequirementStatus::is_met);
    cx.ui.status(if is_complete {
        "So nothing is in force yet: it is finished where the online keys are."
    } else {
        "So nothing is in force yet. Read these digits out to the holders:"
    });
    cx.ui.result(format_args!("{}, proposal {}", proposal.subject, read_out(&digest)))?;
    requirements(cx, proposal, &verified)?;
    cx.ui.hint(if is_complete {
        command(dir, "ceremony finish")
    } else {
        let file = dir.join(ceremony::FILE);
        format!(
            "send {} to them, and combine what they send back: {}",
            file.display(),
            command(dir, "ceremony combine COPY...")
        )
    });
    Ok(())
}
