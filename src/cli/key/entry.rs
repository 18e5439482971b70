//! A key in `tidegate.toml`.

use serde_json::json;
use tidegate_tuf::key::Key;
use toml_edit::{Array, DocumentMut, Item, Value};

use crate::cli::context::Context;
use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::fs::Changes;
use crate::keys::{KeyUri, NoPassphrases, public_of, write_public};
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
    if settings.key_names()?.get(&public.id()).is_some_and(|of| of == name) {
        return correct(cx, workspace, changes, name, uri, public, holder);
    }
    let same = settings.key_names()?.remove(&public.id()).filter(|old| old != name);
    // One that is where tidegate.toml says keeps its name: the same key under a second one is a slip.
    let is_elsewhere = |old: &String| {
        settings.keys.iter().find(|(key, _)| key.as_str() == old).is_some_and(|(_, key)| {
            let file = KeyUri::parse(&key.uri).ok().and_then(|uri| uri.file(workspace.dir()));
            Some(key.uri.as_str()) != uri
                && file.and_then(|file| public_of(&file, &mut NoPassphrases)).as_ref() != Some(public)
        })
    };
    let same = same.filter(is_elsewhere);
    if let (Some(old), Some(uri)) = (same, uri) {
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let text = renamed(&text, &old, name, uri)?;
        Settings::parse(text.as_bytes())?;
        changes.put("tidegate.toml", text.into_bytes());
        workspace.commit(changes)?;
        print(cx, name, Some(uri), public, holder)?;
        cx.ui.status(format_args!("{old} in tidegate.toml is called {name} now"));
        return Ok(());
    }
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

/// Has a key that tidegate.toml knows by this name already be where it was found.
fn correct(
    cx: &Context,
    workspace: &Workspace,
    mut changes: Changes,
    name: &str,
    uri: Option<&str>,
    public: &Key,
    holder: Option<&str>,
) -> Result<()> {
    let path = workspace.dir().join("tidegate.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
    let wrong = |what: &str| Error::input(format!("tidegate.toml: {what}"));
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| wrong(e.message()))?;
    let key = document.get_mut("keys").and_then(|keys| keys.get_mut(name)).and_then(Item::as_table_like_mut);
    let key = key.ok_or_else(|| wrong("no such key"))?;
    for (field, value) in [("uri", uri), ("holder", holder)] {
        if let Some(value) = value.filter(|value| key.get(field).and_then(Item::as_str) != Some(value)) {
            key.insert(field, toml_edit::value(value));
        }
    }
    let after = document.to_string();
    let is_new = after != text;
    if is_new {
        Settings::parse(after.as_bytes())?;
        changes.put("tidegate.toml", after.into_bytes());
    }
    workspace.commit(changes)?;
    print(cx, name, uri, public, holder)?;
    cx.ui
        .status(format_args!("{name} is this key already{}", if is_new { "; corrected in tidegate.toml" } else { "" }));
    Ok(())
}

pub(super) fn print(cx: &Context, name: &str, uri: Option<&str>, public: &Key, holder: Option<&str>) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(&json!({"name": name, "uri": uri, "public": write_public(public)?, "keyid": public.id().as_str(), "holder": holder}));
    }
    cx.ui.block(table(name, uri, public, holder)?)
}

/// `tidegate.toml` with the key `old` at `uri` and under the name `new`; a key that has that name gets the old one.
fn renamed(text: &str, old: &str, new: &str, uri: &str) -> Result<String> {
    let wrong = |what: &str| Error::input(format!("tidegate.toml: {what}"));
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| wrong(e.message()))?;
    let keys = document.get_mut("keys").and_then(Item::as_table_like_mut).ok_or_else(|| wrong("no keys"))?;
    let mut key = keys.remove(old).ok_or_else(|| wrong("no such key"))?;
    let other = keys.remove(new);
    let set_uri =
        |key: &mut Item, uri: &str| key.as_table_like_mut().map(|key| key.insert("uri", toml_edit::value(uri)));
    set_uri(&mut key, uri);
    keys.insert(new, key);
    if let Some(mut other) = other {
        // The file of that name is the one that was just taken in.
        if other.get("uri").and_then(Item::as_str) == Some(uri) {
            set_uri(&mut other, &format!("file:keys/{old}.pem"));
        }
        keys.insert(old, other);
    }
    let roles = document.iter_mut().filter(|(name, _)| ["roles", "channels"].contains(&name.get()));
    let mut pending: Vec<&mut Item> = roles.map(|(_, item)| item).collect();
    while let Some(item) = pending.pop() {
        let Some(table) = item.as_table_like_mut() else { continue };
        for (name, item) in table.iter_mut() {
            match item.as_array_mut().filter(|_| name.get() == "keys") {
                Some(names) => exchange(names, old, new),
                None => pending.push(item),
            }
        }
    }
    Ok(document.to_string())
}

/// Exchanges two names in a list.
fn exchange(names: &mut Array, old: &str, new: &str) {
    for value in names.iter_mut() {
        let name = match value.as_str() {
            Some(name) if name == old => new,
            Some(name) if name == new => old,
            _ => continue,
        };
        let mut replaced = Value::from(name);
        *replaced.decor_mut() = value.decor().clone();
        *value = replaced;
    }
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
