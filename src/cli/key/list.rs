//! `tidegate key list`: the keys and the roles that count on them.

use serde_json::json;
use tidegate_tuf::key::Key;

use super::super::show;
use super::entry::roles;
use crate::cli::context::Context;
use crate::error::Result;
use crate::keys::KeyUri;
use crate::workspace::Workspace;

pub(super) fn run(cx: &mut Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
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
