//! Roles, keys and expiries.

use std::fmt::Write as _;

use super::chart;
use super::html::{Mark, Table, code, instant, mark, region, relative};
use crate::markup::escape;
use crate::report::view::State;
use crate::report::view::state::{Due, Key, Role, RoleKind, Urgency};

/// From so many roles on, cohorts are told together.
const MANY_ROLES: usize = 24;

/// Every expiry on a time line, the first first.
pub(super) fn due(state: &State) -> String {
    let folded = state.due.len() > MANY_ROLES;
    let is_cohort = |due: &Due| due.role.contains('.');
    let mut html = format!(
        "<ol class=\"due\"><li class=\"axis\" aria-hidden=\"true\"><span></span>{}<span></span></li>",
        chart::time_axis()
    );
    let mut cohorts = state.due.iter().filter(|due| folded && is_cohort(due));
    if let Some(first) = cohorts.next() {
        let count = cohorts.count() + 1;
        html.push_str(&line(state, first, &format!("{count} cohorts, {} first", first.role)));
    }
    for due in state.due.iter().filter(|due| !folded || !is_cohort(due)) {
        html.push_str(&line(state, due, &due.role));
    }
    html.push_str("</ol>");
    html
}

fn line(state: &State, due: &Due, name: &str) -> String {
    let when = relative(due.expires, state.at);
    let word = match due.urgency {
        Urgency::Expired => mark(Mark::Bad, &format!("expired {when}")),
        Urgency::Soon => mark(Mark::Look, &format!("soon: {when}")),
        Urgency::Later => mark(Mark::Good, &when),
    };
    format!(
        "<li><b>{}</b>{}<span class=\"when\">{word} {}<br><code>{}</code></span></li>",
        escape(name),
        chart::time_line(due.expires, state.at),
        instant(due.expires),
        escape(&due.remedy)
    )
}

/// Roles with their keys, and keys with their holders.
pub(super) fn trust(state: &State) -> String {
    let roles = &state.trust.roles;
    let folded = roles.len() > MANY_ROLES;
    let caption = "Roles: what each signs, and whose signatures it requires";
    let mut table = Table::new(caption, &["Role", "Signs", "Version", "Takes", "Signed by", "Expires"]);
    for role in roles.iter().filter(|role| !folded || role.kind != RoleKind::Cohort) {
        table.row(&role_row(state, role));
    }
    let mut html = region(caption, &table.finish());
    if folded {
        let cohorts = roles.iter().filter(|role| role.kind == RoleKind::Cohort);
        let mut table = Table::new("Cohorts", &["Role", "Signs", "Version", "Takes", "Signed by", "Expires"]);
        let mut count = 0;
        for role in cohorts {
            count += 1;
            table.row(&role_row(state, role));
        }
        let _ =
            write!(html, "<details><summary>{count} cohorts</summary>{}</details>", region("Cohorts", &table.finish()));
    }
    html.push_str("<h3>Keys</h3>");
    let caption = "Keys: who holds each, and what it signs";
    let mut table = Table::new(caption, &["Key", "Holder", "Speaks for", "Scheme", "Fingerprint"]);
    // In the order of the roles, root's keys first.
    let place = |key: &&Key| {
        let first = key.roles.first();
        (roles.iter().position(|role| Some(&role.name) == first), key.name.clone())
    };
    let mut keys: Vec<&Key> = state.trust.keys.iter().collect();
    keys.sort_by_key(place);
    for key in keys {
        table.row(&key_row(key));
    }
    html.push_str(&region(caption, &table.finish()));
    html
}

fn role_row(state: &State, role: &Role) -> Vec<String> {
    let signs = match role.kind {
        RoleKind::Root => "the keys of all top-level roles",
        RoleKind::Timestamp => "which snapshot is the newest",
        RoleKind::Snapshot => "which versions belong together",
        RoleKind::Targets => "which channels there are",
        RoleKind::Channel => "what may be installed",
        RoleKind::Cohort => "where the rollout stands",
        RoleKind::Other => "files of its own",
    };
    let labels = |ids: &[String]| {
        let labels: Vec<String> = ids.iter().map(|id| escape(&label(state, id))).collect();
        labels.join(", ")
    };
    let expires = if role.expired {
        mark(Mark::Bad, &format!("expired {}", relative(role.expires, state.at)))
    } else {
        relative(role.expires, state.at)
    };
    vec![
        escape(&role.name),
        signs.to_owned(),
        role.version.to_string(),
        format!("{} of {}: {}", role.threshold, role.keys.len(), labels(&role.keys)),
        labels(&role.signed_by),
        expires,
    ]
}

/// What people call a key: its name, else the start of its id.
fn label(state: &State, id: &str) -> String {
    let key = state.trust.keys.iter().find(|key| key.keyid == id);
    let name = key.and_then(|key| key.name.clone());
    name.unwrap_or_else(|| id.get(..8).unwrap_or(id).to_owned())
}

/// So many roles of a key are told by name.
const SHOWN: usize = 5;

fn key_row(key: &Key) -> Vec<String> {
    let name = key.name.clone().unwrap_or_else(|| key.keyid.get(..8).unwrap_or(&key.keyid).to_owned());
    let mut holder = key.holder.as_deref().map_or_else(|| mark(Mark::Neutral, "not named"), escape);
    if key.example {
        holder = mark(Mark::Bad, "everyone: it is an example key");
    }
    let mut roles = key.roles.iter().take(SHOWN).map(|role| escape(role)).collect::<Vec<_>>().join(", ");
    if key.roles.len() > SHOWN {
        let _ = write!(roles, " and {} more", key.roles.len() - SHOWN);
    }
    vec![escape(&name), holder, roles, escape(&key.scheme), code(&key.fingerprint)]
}
