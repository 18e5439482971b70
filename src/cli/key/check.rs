//! `tidegate key check`: whether keys sign.

use clap::Args as ClapArgs;
use serde_json::{Value, json};

use super::super::passphrase::PassphraseArgs;
use super::super::show;
use crate::cli::context::Context;
use crate::error::{Error, Result, Rule};
use crate::keys::KeyName;
use crate::workspace::Workspace;

/// Sign a test message with keys and verify it
///
/// Without names: every key that can be opened. Keys that are not on this machine are listed and do not fail the check.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Their names
    names: Vec<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let settings = workspace.settings()?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    let all: Vec<String> = ring.entries().iter().map(|entry| entry.name.clone()).collect();
    let named: Vec<String> = args.names.iter().map(ToString::to_string).collect();
    let mut rows = Vec::new();
    let mut bad = Vec::new();
    for name in if named.is_empty() { &all } else { &named } {
        let result = ring.signer(name).and_then(|signer| try_out(name, signer.as_ref()));
        let text = match result {
            Ok(()) => "signs and verifies".to_owned(),
            Err(error) if error.is_not_found() && named.is_empty() => "not here".to_owned(),
            Err(error) => {
                bad.push(name.clone());
                match error.remedy_text() {
                    Some(remedy) => format!("{error}; {remedy}"),
                    None => error.to_string(),
                }
            }
        };
        rows.push(vec![name.clone(), text]);
    }
    if cx.ui.is_json() {
        let results: Vec<Value> = rows.iter().map(|row| json!({"name": row.first(), "result": row.get(1), "ok": !bad.iter().any(|b| Some(b) == row.first())})).collect();
        cx.ui.json(&results)?;
    } else {
        show::table(&cx.ui, &["KEY", "RESULT"], &rows)?;
    }
    if bad.is_empty() {
        return Ok(());
    }
    Err(Error::refused(Rule::KeyCheck, format!("these keys cannot be used: {}", bad.join(", ")))
        .remedy("see above for each"))
}

/// Signs something of no consequence: no metadata is canonical JSON of a string.
pub(super) fn try_out(name: &str, signer: &dyn crate::keys::Signer) -> Result<()> {
    let message = b"\"tidegate key check\"";
    let signature = signer.sign(message)?;
    match signer.public().decode() {
        Some(public) if public.verify(message, &signature) => Ok(()),
        _ => Err(Error::trust(format!("key {name}: its signature does not verify"))
            .remedy("replace the key's hardware or file")),
    }
}
