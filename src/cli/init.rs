//! `tidegate init`: creates a workspace.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::digest::Digest;

use super::context::{Context, actor};
use super::passphrase::{PassphraseArgs, new_passphrase};
use crate::error::{Error, Result};
use crate::keys::generate::Kind;
use crate::workspace::init::{KeySource, Options, init};

/// Create a workspace: settings, keys and the first metadata
///
/// The folder must be new or empty; it may contain your own tidegate.toml, cohorts.toml or policy.toml.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate init fleet --generate-keys
  tidegate init fleet --generate-keys --encrypt-keys
  tidegate init fleet --keys /media/usb/keys
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
    /// Create all keys now, in keys/ (for a real fleet, create offline keys where they will stay)
    #[arg(long, group = "source")]
    generate_keys: bool,
    /// Use the keys NAME.pem in this folder
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
            return Err(Error::usage("a repository needs keys")
                .remedy("give one of --generate-keys, --keys FOLDER, --example-keys (for tests)"));
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
    let made = init(&dir, &options, cx.now, args.passphrase.source().as_mut())?;
    let root = made.repository.must_have("root")?;
    let root_sha256 = Digest::of(&root.bytes).to_string();
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "dir": dir,
            "written": made.written,
            "root": {"file": "metadata/1.root.json", "version": root.version, "sha256": root_sha256},
        }));
    }
    cx.ui.status(format_args!("Created workspace {}", dir.display()));
    for (file, what) in [
        ("tidegate.toml", "what is released, who may sign what"),
        ("cohorts.toml", "who gets a release first"),
        ("policy.toml", "what a release must pass"),
    ] {
        cx.ui.status(format_args!("  {file:<15} {what}"));
    }
    let roles = made.repository.roles().count();
    cx.ui.status(format_args!("  {:<15} {roles} roles, signed", "metadata/"));
    if !matches!(options.keys, KeySource::Folder(_)) {
        let count = made.settings.keys.len();
        cx.ui.status(format_args!("  {:<15} {count} private keys, not for version control", "keys/"));
    }
    cx.ui.status("");
    cx.ui.status("Ship devices with the first root; they verify everything else from it:");
    cx.ui.result(format_args!("{}  sha256 {root_sha256}", dir.join("metadata/1.root.json").display()))?;
    if matches!(options.keys, KeySource::Example) {
        cx.ui.warn("these keys are public: they can only be published to a local folder");
    }
    cx.ui.hint(format_args!("tidegate -C {} release new 1.0.0", dir.display()));
    Ok(())
}
