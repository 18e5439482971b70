//! Roles, keys and expiries.

use maud::{Markup, html};

use super::chart;
use super::html::{Mark, Table, code, instant, mark, region, relative};
use crate::markup::text;
use crate::report::view::State;
use crate::report::view::state::{Due, Key, Role, RoleKind, Urgency};

/// From so many roles on, cohorts are shown together.
const MANY_ROLES: usize = 24;

/// So many expiries are shown at once.
const FIRST: usize = 3;

/// Every expiry on a time line, the first first.
pub(super) fn due(state: &State) -> Markup {
    let folded = state.due.len() > MANY_ROLES;
    let is_cohort = |due: &Due| due.role.contains('.');
    let cohorts: Vec<&Due> = state.due.iter().filter(|due| folded && is_cohort(due)).collect();
    let others = state.due.iter().filter(|due| !folded || !is_cohort(due)).map(|due| line(state, due, &due.subject()));
    let first = cohorts
        .first()
        .map(|first| line(state, first, &format!("{} of cohorts, {} first", cohorts.len(), first.subject())));
    let lines: Vec<Markup> = first.into_iter().chain(others).collect();
    let (first, more) = lines.split_at(lines.len().min(FIRST));
    html! {
        ol class="due" {
            li class="axis" aria-hidden="true" { span {} (chart::time_axis()) span {} }
            @for line in first { (line) }
        }
        @if !more.is_empty() {
            details {
                summary { (more.len()) " more" }
                ol class="due" { @for line in more { (line) } }
            }
        }
    }
}

fn line(state: &State, due: &Due, name: &str) -> Markup {
    let when = relative(due.expires, state.at);
    let word = match due.urgency {
        Urgency::Expired => mark(Mark::Bad, &format!("expired {when}")),
        Urgency::Soon => mark(Mark::Look, &format!("soon: {when}")),
        Urgency::Later => mark(Mark::Good, &when),
    };
    html! {
        li {
            b { (text(name)) }
            (chart::time_line(due.expires, state.at))
            span class="when" { (word) " " (instant(due.expires)) br; (code(&due.remedy)) }
        }
    }
}

/// Roles with their keys, and keys with their holders.
pub(super) fn trust(state: &State) -> Markup {
    let folded = state.trust.roles.len() > MANY_ROLES;
    let (cohorts, others): (Vec<&Role>, Vec<&Role>) =
        state.trust.roles.iter().partition(|role| folded && role.kind == RoleKind::Cohort);
    let roles = |caption: &str, roles: &[&Role]| {
        let mut table = Table::new(caption, &["Role", "Signs", "Version", "Takes", "Signed by", "Expires"]);
        for role in roles {
            table.row(role_row(state, role));
        }
        region(caption, &table)
    };
    let examples = state.trust.keys.iter().filter(|key| key.example).count();
    html! {
        details {
            summary { (others.len()) " roles" }
            (roles("Roles: what each signs, and whose signatures it requires", &others))
        }
        @if folded {
            details {
                summary { (cohorts.len()) " roles of cohorts" }
                (roles("Cohorts", &cohorts))
            }
        }
        details {
            summary {
                (state.trust.keys.len()) " keys "
                @if examples > 0 { (mark(Mark::Bad, &format!("{examples} of them example keys"))) }
            }
            (keys(state))
        }
    }
}

/// The keys in the order of the roles, root's first.
fn keys(state: &State) -> Markup {
    let roles = &state.trust.roles;
    let place = |key: &&Key| {
        let first = key.roles.first();
        (roles.iter().position(|role| Some(&role.name) == first), key.name.clone())
    };
    let mut keys: Vec<&Key> = state.trust.keys.iter().collect();
    keys.sort_by_key(place);
    let caption = "Keys: who holds each, and what it signs";
    let mut table = Table::new(caption, &["Key", "Holder", "Roles", "Scheme", "Fingerprint"]);
    for key in keys {
        table.row(key_row(key));
    }
    region(caption, &table)
}

fn role_row(state: &State, role: &Role) -> Vec<Markup> {
    let signs = match role.kind {
        RoleKind::Root => "the keys of all top-level roles",
        RoleKind::Timestamp => "which snapshot is the newest",
        RoleKind::Snapshot => "which versions belong together",
        RoleKind::Targets => "which channels there are",
        RoleKind::Channel => "what may be installed",
        RoleKind::Cohort => "where the rollout stands",
        RoleKind::Other => "files of its own",
    };
    let labels = |ids: &[String]| ids.iter().map(|id| label(state, id)).collect::<Vec<_>>().join(", ");
    let when = relative(role.expires, state.at);
    vec![
        html! { (text(&role.name)) },
        html! { (signs) },
        html! { (role.version) },
        html! { (role.threshold) " of " (role.keys.len()) ": " (text(&labels(&role.keys))) },
        html! { (text(&labels(&role.signed_by))) },
        if role.expired {
            mark(Mark::Bad, &format!("expired {when}"))
        } else {
            html! { (when) }
        },
    ]
}

/// What people call a key: its name, else the start of its id.
fn label(state: &State, id: &str) -> String {
    let key = state.trust.keys.iter().find(|key| key.keyid == id);
    let name = key.and_then(|key| key.name.clone());
    name.unwrap_or_else(|| id.get(..8).unwrap_or(id).to_owned())
}

/// So many roles of a key are shown by name.
const SHOWN: usize = 5;

fn key_row(key: &Key) -> Vec<Markup> {
    let name = key.name.as_deref().unwrap_or_else(|| key.keyid.get(..8).unwrap_or(&key.keyid));
    let holder = match &key.holder {
        _ if key.example => mark(Mark::Bad, "everyone: it is an example key"),
        Some(holder) => html! { (text(holder)) },
        None => mark(Mark::Neutral, "not named"),
    };
    let roles = key.roles.get(..SHOWN).unwrap_or(&key.roles).join(", ");
    let more = key.roles.len().saturating_sub(SHOWN);
    vec![
        html! { (text(name)) },
        holder,
        html! { (text(&roles)) @if more > 0 { " and " (more) " more" } },
        html! { (text(&key.scheme)) },
        code(&key.fingerprint),
    ]
}
