//! `tidegate key new`: make a key.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use tidegate_tuf::key::Key;
use zeroize::Zeroizing;

use super::super::passphrase::PassphraseArgs;
use super::entry::{add, print, workspace_if_any};
use crate::cli::context::Context;
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::keys::generate::{Kind, generate};
use crate::keys::{KeyName, KeyUri};
use crate::workspace::Workspace;

/// Create a key, encrypted with a passphrase, and add it to tidegate.toml
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate key new root-4      (in the workspace: keys/root-4.pem)
  tidegate key new root-4 --out /media/usb/root-4.pem      (without a workspace)
  tidegate key new root-4 --on \\
    'pkcs11:token=Root;object=root-4?module-path=/usr/lib/opensc-pkcs11.so'")]
pub(super) struct Args {
    /// Its name
    name: KeyName,
    /// ed25519 or p256
    #[arg(long, value_name = "KIND", default_value = "ed25519")]
    kind: Kind,
    /// Write the private key here instead of into a workspace
    #[arg(long, value_name = "FILE", conflicts_with = "on")]
    out: Option<PathBuf>,
    /// Create it on this PKCS#11 token, which it never leaves
    #[arg(long, value_name = "URI")]
    on: Option<String>,
    /// Do not encrypt it, for keys that sign unattended
    #[arg(long)]
    no_passphrase: bool,
    /// Who holds it
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let name = args.name.as_str();
    if let Some(uri) = &args.on {
        // Not for clap to parse: it would print a URI that is refused for the PIN in it.
        let uri = &KeyUri::parse(uri)?;
        let public = make_on_token(args, uri)?;
        let workspace = workspace_if_any(cx)?;
        return add(
            cx,
            workspace.as_ref(),
            Changes::default(),
            name,
            Some(&uri.to_string()),
            &public,
            args.holder.as_deref(),
        );
    }
    let passphrase = if args.no_passphrase { None } else { Some(args.passphrase.new_passphrase(name)?) };
    let made = generate(args.kind, passphrase.as_ref().map(|p: &Zeroizing<String>| p.as_str()))?;
    if let Some(out) = &args.out {
        write_private(out, made.pem.as_bytes())?;
        cx.ui.status(format_args!(
            "the private key is in {}; keep it, and a copy, where only its holder can reach it",
            out.display()
        ));
        let uri = format!("file:{}", out.display());
        return print(cx, name, Some(&uri), &made.public, args.holder.as_deref());
    }
    let workspace = Workspace::open(&cx.dir)?;
    let path = format!("keys/{name}.pem");
    if workspace.dir().join(&path).exists() {
        return Err(Error::refused(Rule::KeyExists, format!("{path} already exists"))
            .remedy("choose another name; a key is never overwritten"));
    }
    let mut changes = Changes::default();
    changes.put_private(path.as_str(), made.pem.as_bytes());
    add(cx, Some(&workspace), changes, name, Some(&format!("file:{path}")), &made.public, args.holder.as_deref())
}

#[cfg(feature = "pkcs11")]
fn make_on_token(args: &Args, uri: &KeyUri) -> Result<Key> {
    let KeyUri::Pkcs11(token) = uri else { return Err(only_tokens(uri)) };
    crate::keys::TokenKey::generate(args.name.as_str(), token, args.kind, args.passphrase.source().as_mut())
}

#[cfg(not(feature = "pkcs11"))]
fn make_on_token(_args: &Args, uri: &KeyUri) -> Result<Key> {
    match uri {
        KeyUri::Pkcs11(_) => Err(Error::input("this build cannot use pkcs11: keys")
            .remedy("use a tidegate that was built with the feature pkcs11")),
        _ => Err(only_tokens(uri)),
    }
}

fn only_tokens(uri: &KeyUri) -> Error {
    Error::usage(format!("a key cannot be created at {}:", uri.source()))
        .remedy("create it with the tool of that service, then: tidegate key import NAME URI")
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(|e| {
        let exists = e.kind() == std::io::ErrorKind::AlreadyExists;
        let error = Error::io("create", path, e);
        if exists { error.remedy("choose another file; a key is never overwritten") } else { error }
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io("write", path, e))
}
