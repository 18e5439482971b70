//! `tidegate key import`: take in a key that exists.

use clap::Args as ClapArgs;
use tidegate_model::text::public_url;

use super::super::passphrase::PassphraseArgs;
use super::check::try_out;
use super::entry::{add, workspace_if_any};
use crate::cli::context::Context;
use crate::error::{Error, Result};
use crate::fs::Changes;
use crate::keys::{KeyName, KeyUri, open};

/// Add an existing key to tidegate.toml by reading its public part
///
/// A key that is there under another name, as after `tidegate pull`, gets this one; a key that has this name gets the other.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate key import root-4 file:../root-4.pem
  tidegate key import root-2 \\
    'pkcs11:token=Root;object=root-2?module-path=/usr/lib/opensc-pkcs11.so'
  tidegate key import root-3 --public ed25519:0f3c...      (the holder keeps it)
  tidegate key import snapshot kms:alias/snapshot?region=eu-central-1")]
pub(super) struct Args {
    /// Its name
    name: KeyName,
    /// Where the private part is
    uri: Option<String>,
    /// The public part, if the private one is not here
    #[arg(long, value_name = "KIND:HEX", required_unless_present = "uri")]
    public: Option<String>,
    /// Who holds it
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let name = args.name.as_str();
    let declared = args.public.as_deref().map(crate::keys::parse_public).transpose()?;
    let workspace = workspace_if_any(cx)?;
    // Not for clap to parse: it would print a URI that is refused for the PIN in it.
    let uri = args.uri.as_deref().map(KeyUri::parse).transpose()?;
    let public = match &uri {
        Some(uri) => {
            let signer = open(name, uri, &cx.dir, declared.as_ref(), args.passphrase.source().as_mut())?;
            try_out(name, signer.as_ref())?;
            if declared.is_some_and(|declared| declared != *signer.public()) {
                return Err(Error::input(format!("{} is a different key than --public", public_url(&uri.to_string())))
                    .remedy("omit --public, or correct it"));
            }
            signer.public().clone()
        }
        None => declared.ok_or_else(|| Error::usage("give a URI or --public"))?,
    };
    let uri = uri.map(|uri| uri.to_string());
    add(cx, workspace.as_ref(), Changes::default(), name, uri.as_deref(), &public, args.holder.as_deref())
}
