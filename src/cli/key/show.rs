//! `tidegate key show`: one key.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::entry::roles;
use crate::cli::context::Context;
use crate::error::Result;
use crate::keys::{KeyName, write_public};
use crate::workspace::Workspace;

/// Show a key: where it is, its fingerprint, and the roles that use it
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Its name
    name: KeyName,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let settings = workspace.settings()?;
    let ring = workspace.ring(&settings, Box::new(crate::keys::NoPassphrases))?;
    let entry = ring.entry(args.name.as_str())?;
    let roles = roles(&workspace.repository()?, &entry.public);
    let value = json!({
        "name": entry.name,
        "uri": entry.uri.to_string(),
        "public": write_public(&entry.public)?,
        "scheme": entry.public.scheme(),
        "keyid": entry.public.id().as_str(),
        "holder": entry.holder,
        "roles": roles,
    });
    if cx.ui.is_json() {
        return cx.ui.json(&value);
    }
    for field in ["name", "scheme", "keyid", "public", "uri", "holder"] {
        if let Some(text) = value.get(field).and_then(Value::as_str) {
            cx.ui.result(format_args!("{field:<8} {text}"))?;
        }
    }
    let roles = if roles.is_empty() { "nothing yet".to_owned() } else { roles.join(" ") };
    cx.ui.result(format_args!("signs    {roles}"))
}
