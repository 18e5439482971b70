//! `tidegate key`: make, take in, list and check keys.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use tidegate_client::tuf::key::Key;
use zeroize::Zeroizing;

use super::passphrase::PassphraseArgs;
use super::{Context, show};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::files::Changes;
use crate::keys::generate::{Kind, generate};
use crate::keys::{KeyName, KeyUri, open, write_public};
use crate::metadata::Repository;
use crate::workspace::Workspace;

/// Make, take in, list and check keys
///
/// Making a key is apart from using it: a new key has no say in anything until a ceremony gives it one.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(NewArgs),
    Import(ImportArgs),
    /// List the keys of tidegate.toml and the roles that count on them
    List,
    Show(ShowArgs),
    Check(CheckArgs),
}

/// Make a key, encrypted with a passphrase, and add it to tidegate.toml
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate key new root-4                          keys/root-4.pem in the workspace, and [keys.root-4] in tidegate.toml
  tidegate key new root-4 --out /media/usb/root-4.pem     without a workspace: prints the lines for tidegate.toml
  tidegate key new root-4 --on 'pkcs11:token=Root;object=root-4?module-path=/usr/lib/softhsm/libsofthsm2.so'")]
struct NewArgs {
    /// Its name
    name: KeyName,
    /// ed25519 or p256
    #[arg(long, value_name = "KIND", default_value = "ed25519")]
    kind: Kind,
    /// Write the private key here instead of into a workspace
    #[arg(long, value_name = "FILE", conflicts_with = "on")]
    out: Option<PathBuf>,
    /// Make it on this PKCS#11 token, which it never leaves
    #[arg(long, value_name = "URI")]
    on: Option<KeyUri>,
    /// Do not encrypt it: for keys that sign unattended
    #[arg(long)]
    no_passphrase: bool,
    /// Who holds it
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Take in a key that exists: read its public part and add it to tidegate.toml
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate key import root-2 'pkcs11:token=Root;object=root-2?module-path=/usr/lib/opensc-pkcs11.so'
  tidegate key import root-3 --public ed25519:0f3c...   (the holder has the private part, and sent this line)
  tidegate key import snapshot kms:alias/snapshot?region=eu-central-1")]
struct ImportArgs {
    /// Its name
    name: KeyName,
    /// Where the private part is
    uri: Option<KeyUri>,
    /// The public part, if the private one is not here
    #[arg(long, value_name = "KIND:HEX", required_unless_present = "uri")]
    public: Option<String>,
    /// Who holds it
    #[arg(long, value_name = "NAME")]
    holder: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Show a key: where it is, its fingerprint, the roles that count on it
#[derive(Debug, ClapArgs)]
struct ShowArgs {
    /// Its name
    name: KeyName,
}

/// Sign a test message with keys and verify it
///
/// Without names: every key that can be opened; keys that are not on this machine are listed, and are no failure.
#[derive(Debug, ClapArgs)]
struct CheckArgs {
    /// Their names
    names: Vec<KeyName>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    match &args.command {
        Command::New(args) => new(args, cx),
        Command::Import(args) => import(args, cx),
        Command::List => list(cx),
        Command::Show(args) => show_key(args, cx),
        Command::Check(args) => check(args, cx),
    }
}

fn new(args: &NewArgs, cx: &mut Context) -> Result<()> {
    let name = args.name.as_str();
    if let Some(uri) = &args.on {
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
        return Err(
            Error::refused(format!("{path} exists already")).remedy("choose another name; a key is never overwritten")
        );
    }
    let mut changes = Changes::default();
    changes.put_private(path.as_str(), made.pem.as_bytes());
    add(cx, Some(&workspace), changes, name, Some(&format!("file:{path}")), &made.public, args.holder.as_deref())
}

#[cfg(feature = "pkcs11")]
fn make_on_token(args: &NewArgs, uri: &KeyUri) -> Result<Key> {
    let KeyUri::Pkcs11(token) = uri else { return Err(only_tokens(uri)) };
    crate::keys::TokenKey::generate(args.name.as_str(), token, args.kind, args.passphrase.source().as_mut())
}

#[cfg(not(feature = "pkcs11"))]
fn make_on_token(_args: &NewArgs, uri: &KeyUri) -> Result<Key> {
    match uri {
        KeyUri::Pkcs11(_) => Err(Error::input("this build cannot use pkcs11: keys")
            .remedy("use a tidegate that was built with the feature pkcs11")),
        _ => Err(only_tokens(uri)),
    }
}

fn only_tokens(uri: &KeyUri) -> Error {
    Error::usage(format!("a key cannot be made at {}:", uri.source()))
        .remedy("make it with that service's own tool, then: tidegate key import NAME URI")
}

fn import(args: &ImportArgs, cx: &mut Context) -> Result<()> {
    let name = args.name.as_str();
    let declared = args.public.as_deref().map(crate::keys::parse_public).transpose()?;
    let workspace = workspace_if_any(cx)?;
    let public = match &args.uri {
        Some(uri) => {
            let signer = open(name, uri, &cx.dir, declared.as_ref(), args.passphrase.source().as_mut())?;
            try_out(name, signer.as_ref())?;
            if declared.is_some_and(|declared| declared != *signer.public()) {
                return Err(Error::input(format!("{uri} holds another key than --public says"))
                    .remedy("leave --public out, or correct it"));
            }
            signer.public().clone()
        }
        None => declared.ok_or_else(|| Error::usage("give a URI or --public"))?,
    };
    let uri = args.uri.as_ref().map(ToString::to_string);
    add(cx, workspace.as_ref(), Changes::default(), name, uri.as_deref(), &public, args.holder.as_deref())
}

fn workspace_if_any(cx: &Context) -> Result<Option<Workspace>> {
    if cx.dir.join("tidegate.toml").is_file() { Workspace::open(&cx.dir).map(Some) } else { Ok(None) }
}

/// Adds the key to tidegate.toml, or prints what is to be added.
fn add(
    cx: &Context,
    workspace: Option<&Workspace>,
    mut changes: Changes,
    name: &str,
    uri: Option<&str>,
    public: &Key,
    holder: Option<&str>,
) -> Result<()> {
    let Some(workspace) = workspace else { return print(cx, name, uri, public, holder) };
    let path = workspace.dir().join("tidegate.toml");
    let settings = workspace.settings()?;
    if settings.keys.keys().any(|key| key.as_str() == name) {
        return Err(Error::refused(format!("tidegate.toml names a key {name} already")).remedy("choose another name"));
    }
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let text = format!("{}\n\n{}\n", text.trim_end(), table(name, uri, public, holder)?);
    // It must still be what it was, with one key more.
    Settings::parse(text.as_bytes())?;
    changes.put("tidegate.toml", text.into_bytes());
    workspace.commit(changes)?;
    print(cx, name, uri, public, holder)?;
    cx.ui.status("added to tidegate.toml");
    cx.ui.hint(format_args!("name {name} in a role of tidegate.toml, then: tidegate ceremony start"));
    Ok(())
}

fn print(cx: &Context, name: &str, uri: Option<&str>, public: &Key, holder: Option<&str>) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"name": name, "uri": uri, "public": write_public(public)?, "keyid": public.id().as_str(), "holder": holder}));
    }
    cx.ui.result(table(name, uri, public, holder)?)
}

/// The key's table in tidegate.toml.
fn table(name: &str, uri: Option<&str>, public: &Key, holder: Option<&str>) -> Result<String> {
    let line = |key: &str, value: &str| format!("{key} = {}", toml::Value::from(value));
    let mut lines = vec![format!("[keys.{name}]"), line("uri", uri.unwrap_or(&format!("file:keys/{name}.pem")))];
    lines.push(line("public", &write_public(public)?));
    lines.extend(holder.map(|holder| line("holder", holder)));
    Ok(lines.join("\n"))
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
    let mut file = options.open(path).map_err(|e| Error::io("create", path, e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io("write", path, e))
}

fn list(cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let settings = workspace.settings()?;
    let repository = workspace.repository()?;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for (name, key) in &settings.keys {
        let uri = KeyUri::parse(&key.uri)?;
        let public = key.public.is_some().then(|| settings.public(name)).transpose()?;
        let roles = public.as_ref().map(|public| roles(&repository, public)).unwrap_or_default();
        let at_hand = match uri.file(&cx.dir) {
            Some(path) if path.is_file() => "here",
            Some(_) => "elsewhere",
            None => uri.source(),
        };
        let id = public.as_ref().map(|public| public.id().short().to_owned()).unwrap_or_default();
        let scheme = public.as_ref().map(Key::scheme).unwrap_or_default().to_owned();
        values.push(json!({"name": name, "uri": key.uri, "keyid": public.as_ref().map(|p| p.id().as_str().to_owned()), "scheme": scheme, "holder": key.holder, "roles": roles, "private": at_hand}));
        let folded = if roles.len() > 6 {
            format!("{} and {} more", roles.iter().take(5).cloned().collect::<Vec<_>>().join(" "), roles.len() - 5)
        } else {
            roles.join(" ")
        };
        rows.push(vec![
            name.to_string(),
            scheme,
            id,
            at_hand.to_owned(),
            key.holder.clone().unwrap_or_default(),
            folded,
        ]);
    }
    if cx.ui.is_json() {
        return cx.ui.json(&values);
    }
    show::table(&cx.ui, &["KEY", "SCHEME", "ID", "PRIVATE PART", "HOLDER", "SIGNS"], &rows)
}

/// The roles that count on a key, as the metadata in force says.
fn roles(repository: &Repository, key: &Key) -> Vec<String> {
    let id = key.id();
    let named = |role: &str| repository.keys_of(role).is_some_and(|(_, role)| role.keyids.contains(&id));
    repository.roles().filter(|file| named(&file.name)).map(|file| file.name.clone()).collect()
}

fn show_key(args: &ShowArgs, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
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

fn check(args: &CheckArgs, cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
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
                error.to_string()
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
    Err(Error::refused(format!("these keys cannot be used: {}", bad.join(", ")))
        .rule("K-CHECK")
        .remedy("see above for each"))
}

/// Signs something of no consequence: no metadata is canonical JSON of a string.
fn try_out(name: &str, signer: &dyn crate::keys::Signer) -> Result<()> {
    let message = b"\"tidegate key check\"";
    let signature = signer.sign(message)?;
    match signer.public().decode() {
        Some(public) if public.verify(message, &signature) => Ok(()),
        _ => Err(Error::trust(format!("key {name}: its signature does not verify"))
            .remedy("replace the key's hardware or file")),
    }
}
