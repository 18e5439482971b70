//! `tidegate ceremony sign`: read what a proposal changes, then sign it.

use std::io::{self, BufRead as _, IsTerminal as _};
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::super::passphrase::PassphraseArgs;
use super::proposal::{Allowed, Opened, Which};
use super::{READ_OUT, show};
use crate::ceremony;
use crate::cli::context::{Context, actor};
use crate::cli::next;
use crate::cli::ui::log;
use crate::error::{Error, Result, Rule};
use crate::fs;
use crate::keys::KeyRing;
use crate::keys::{KeyUri, open};
use crate::proposal::{self, Tool};
use crate::workspace::{Operation, Workspace};

/// Review a proposal and sign it
///
/// Needs only the file, a root that you trust, and your key, on any machine. The whole chain is verified from that root; a first root
/// has none, and is given without. Type the first 16 digits of the proposal's digest after comparing them with the other signers.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate ceremony sign ceremony.json --root root.json --key file:root-1.pem
  tidegate ceremony sign ceremony.json --root root.json --key \\
    'pkcs11:token=Root;object=root-2?module-path=/usr/lib/opensc-pkcs11.so'
  tidegate ceremony sign --key root-1                      (in the workspace)
  tidegate ceremony sign --key root-1 --confirm 1f0c9a2b77e103d4  (in a script)")]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// The key: a URI, or its name in tidegate.toml (repeatable)
    #[arg(long, value_name = "KEY", required = true)]
    key: Vec<String>,
    /// The first digits of the digest, at least 16, in place of the prompt
    #[arg(long, value_name = "DIGITS")]
    confirm: Option<String>,
    #[command(flatten)]
    allowed: Allowed,
    /// Where to write the signed copy [default: in place]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    // In the workspace, two that sign at once must not lose each other's signature.
    let workspace = match args.which.file {
        None => Some(Workspace::open(&cx.dir)?),
        Some(_) => None,
    };
    let Opened { path, mut proposal, verified, anchor } = args.which.open(cx)?;
    let review = proposal::review(&proposal, &verified, cx.now)?;
    for line in review.lines() {
        // Whoever is asked must have seen it; a script that confirms by digits may do without.
        match args.confirm {
            None => log(line),
            Some(_) => cx.ui.painted(line),
        }
    }
    let allowed = args.allowed.names();
    // Refused before anybody is asked for digits or a passphrase.
    proposal::objections(&proposal, &verified).refuse(&allowed)?;
    confirm(args, &review.digest)?;

    let tool = Tool::this()?.to_string();
    let mut passphrases = args.passphrase.source();
    let mut signed = Vec::new();
    for text in &args.key {
        let (name, uri) = key(cx, text)?;
        let opened = open(&name, &uri, &cx.dir, None, passphrases.as_mut())?;
        let by = (uri.source(), tool.as_str());
        for role in proposal::sign(&mut proposal, &verified, opened.as_ref(), by, &allowed, cx.now)? {
            signed.push((role, proposal.label(&opened.public().id())));
        }
    }
    // Also that no holder has signed twice.
    let verified = proposal::verify(&proposal, anchor.as_deref())?;
    let out = args.out.clone().unwrap_or(path);
    match &workspace {
        Some(workspace) if args.out.is_none() => {
            ceremony::keep(&mut Operation::new(workspace, &actor(), cx.now, &mut KeyRing::empty()), &proposal)?;
        }
        _ => fs::write_atomic(&out, &proposal.to_bytes()?)?,
    }
    if cx.ui.is_json() {
        return cx
            .ui
            .json(&json!({"signed": signed, "file": out, "thresholds": verified.requirement_status(&proposal)?}));
    }
    for (role, key) in signed {
        cx.ui.result(format_args!("signed {role} with {key}"))?;
    }
    show::requirements(cx, &proposal, &verified)?;
    match &workspace {
        Some(workspace) if args.out.is_none() => next::hint_at_all(cx, workspace),
        _ => cx.ui.hint(format_args!("send {} back; there: tidegate ceremony combine FILE", out.display())),
    }
    Ok(())
}

fn confirm(args: &Args, digest: &str) -> Result<()> {
    let typed = match &args.confirm {
        Some(typed) => typed.clone(),
        None if io::stdin().is_terminal() => {
            log("");
            log(format_args!(
                "To sign this, type the first {READ_OUT} digits of the digest, as the other signers read them to you:"
            ));
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line).map_err(|e| Error::io("read", std::path::Path::new("stdin"), e))?;
            line
        }
        None => {
            return Err(Error::refused(Rule::CeremonyConfirm, "nobody has confirmed what to sign, and there is no terminal to ask")
                .remedy(format!("read it (tidegate ceremony show), compare the digest, and give its first {READ_OUT} digits: --confirm DIGITS")));
        }
    };
    // As people write them down: in groups, in capitals.
    let typed: String = typed.to_ascii_lowercase().chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if digest.starts_with(&typed) {
        if typed.len() >= READ_OUT {
            return Ok(());
        }
        return Err(Error::refused(
            Rule::CeremonyConfirm,
            format!("{} digits of the digest do not tell this proposal from one made to resemble it", typed.len()),
        )
        .remedy(format!("compare {READ_OUT} digits with the other signers, and give them: --confirm DIGITS")));
    }
    Err(Error::refused(
        Rule::CeremonyConfirm,
        "the digits are not those of this proposal's digest, so it was not signed",
    )
    .remedy("you may have a different proposal than the other signers; compare the whole digest with them"))
}

/// A key by URI, or by name in the workspace.
fn key(cx: &Context, text: &str) -> Result<(String, KeyUri)> {
    if text.contains(':') {
        let uri = KeyUri::parse(text)?;
        let name = match &uri {
            KeyUri::File(path) => {
                path.file_stem().map_or_else(|| "key".into(), |stem| stem.to_string_lossy().into_owned())
            }
            _ => "key".into(),
        };
        // A path on the command line counts from where one is, not from the workspace.
        let uri = match uri {
            KeyUri::File(path) => KeyUri::File(std::path::absolute(&path).unwrap_or(path)),
            other => other,
        };
        return Ok((name, uri));
    }
    let settings = crate::config::Settings::load(&cx.dir)?;
    let entries = settings.key_entries()?;
    let found = entries.iter().find(|entry| entry.name == text).map(|entry| (entry.name.clone(), entry.uri.clone()));
    found.ok_or_else(|| {
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        Error::input(format!("tidegate.toml names no key {text:?}"))
            .remedy(format!("give a URI such as file:KEY.pem, or one of: {}", names.join(", ")))
    })
}
