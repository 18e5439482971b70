//! A key in `tidegate.toml`.

use serde_json::json;
use tidegate_tuf::key::Key;

use crate::cli::context::Context;
use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::keys::write_public;
use crate::metadata::Repository;
use crate::workspace::init::fill_in_key;
use crate::workspace::{Workspace, has_begun, init_command};

pub(super) fn workspace_if_any(cx: &Context) -> Result<Option<Workspace>> {
    if cx.dir.join("tidegate.toml").is_file() { Workspace::open(&cx.dir).map(Some) } else { Ok(None) }
}

/// Adds the key to tidegate.toml, or prints what is to be added. A key that tidegate.toml names and nobody has made yet is filled in.
pub(super) fn add(
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
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let text = match settings.keys.iter().find(|(key, _)| key.as_str() == name) {
        None => format!("{}\n\n{}\n", text.trim_end(), table(name, uri, public, holder)?),
        Some((_, key)) if key.public.is_none() => fill_in_key(&text, name, uri, public, holder)?,
        Some(_) => {
            return Err(Error::refused(Rule::KeyExists, format!("tidegate.toml already has a key {name}"))
                .remedy("choose another name"));
        }
    };
    // It must still be what it was, with one key more.
    Settings::parse(text.as_bytes())?;
    changes.put("tidegate.toml", text.into_bytes());
    workspace.commit(changes)?;
    print(cx, name, uri, public, holder)?;
    cx.ui.status("added to tidegate.toml");
    if has_begun(workspace.dir())? {
        cx.ui.hint(format_args!("name {name} in a role of tidegate.toml, then: tidegate ceremony start"));
    } else {
        cx.ui.hint(init_command(workspace.dir()));
    }
    Ok(())
}

pub(super) fn print(cx: &Context, name: &str, uri: Option<&str>, public: &Key, holder: Option<&str>) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"name": name, "uri": uri, "public": write_public(public)?, "keyid": public.id().as_str(), "holder": holder}));
    }
    cx.ui.block(table(name, uri, public, holder)?)
}

/// The key's table in tidegate.toml.
fn table(name: &str, uri: Option<&str>, public: &Key, holder: Option<&str>) -> Result<String> {
    let line = |key: &str, value: &str| format!("{key} = {}", toml::Value::from(value));
    let mut lines = vec![format!("[keys.{name}]"), line("uri", uri.unwrap_or(&format!("file:keys/{name}.pem")))];
    lines.push(line("public", &write_public(public)?));
    lines.extend(holder.map(|holder| line("holder", holder)));
    Ok(lines.join("\n"))
}

/// The roles that count on a key, as the metadata in force says.
pub(super) fn roles(repository: &Repository, key: &Key) -> Vec<String> {
    let id = key.id();
    let named = |role: &str| repository.keys_of(role).is_some_and(|(_, role)| role.keyids.contains(&id));
    repository.roles().filter(|file| named(&file.name)).map(|file| file.name.clone()).collect()
}
