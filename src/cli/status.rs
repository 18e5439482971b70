//! `tidegate status`: what is live, who gets what, and what comes next.

use chrono::{DateTime, Utc};
use clap::Args as ClapArgs;
use serde_json::{Value, json};
use tidegate_model::name::Name;
use tidegate_model::time;

use super::context::Context;
use super::next;
use super::publish::live;
use super::show;
use crate::config::Settings;
use crate::error::{Error, Result, Rule};
use crate::keys::{KeyRing, NoPassphrases};
use crate::metadata::Repository;
use crate::publish::publication_status;
use crate::release::record::{self, Record};
use crate::report::next::{NextStep, next_to_first_root};
use crate::report::stops::{Stop, renewal, stops};
use crate::workspace::{ProductInForce, Workspace, products_in_force};
use tidegate_model::span::Span;

/// Show roles, releases, and what each cohort is offered
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Fail if a role expires within this time (for monitoring), e.g. 3d
    #[arg(long, value_name = "SPAN")]
    expiring: Option<Span>,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let seen = live::read(cx);
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let settings = workspace.settings()?;
    if let Some(next) = next_to_first_root(&workspace, &settings, cx.now)? {
        return before_first_root(&settings, &next, cx);
    }
    let repository = workspace.repository()?;
    let ring = workspace.ring(&settings, Box::new(NoPassphrases))?;
    let records = record::all(workspace.dir())?;
    let in_force = products_in_force(workspace.dir(), &repository, &settings)?;
    let stops = stops(workspace.dir(), &repository, &in_force, &records, cx.now)?;
    let publication = publication_status(&cx.dir, &repository, &seen)?;
    if cx.ui.is_json() {
        let mut value = to_json(cx.now, &settings, &repository, &ring, &records, &in_force);
        value["stops"] = json!(stops);
        value["publication"] = json!(publication);
        let next = next::step(cx, &workspace, &publication)?;
        value["next"] = json!(next.command.map(|command| cx.ui.on_workspace(&command)));
        value["next_reason"] = json!(next.reason);
        value["next_at"] = json!(next.at.map(time::format));
        cx.ui.json(&value)?;
    } else {
        cx.ui.result(format_args!("{} at {}", settings.name, time::format(cx.now)))?;
        cx.ui.result("")?;
        roles(cx, &repository, &ring)?;
        for product in &in_force {
            cx.ui.result("")?;
            rollouts(cx, product, &records)?;
        }
        for Stop { place, what, remedy } in stops.iter().take(MANY_ROLES) {
            cx.ui.warn(format_args!("{place}: {what}: {remedy}"));
        }
        if let Some(more) = stops.len().checked_sub(MANY_ROLES).filter(|more| *more > 0) {
            cx.ui.warn(format_args!("and {more} more of this kind: tidegate doctor"));
        }
        live::warn(cx, &publication);
        cx.ui.hint(next::step(cx, &workspace, &publication)?);
    }
    match args.expiring {
        Some(within) => check_expiring(&repository, within, cx.now),
        None => Ok(()),
    }
}

/// Nothing is in force yet.
fn before_first_root(settings: &Settings, next: &NextStep, cx: &Context) -> Result<()> {
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "schema": 1, "name": settings.name, "at": time::format(cx.now), "roles": [], "rollouts": [], "releases": [],
            "stops": [], "publication": [], "next": next.command.as_ref().map(|command| cx.ui.on_workspace(command)), "next_reason": next.reason, "next_at": null,
        }));
    }
    cx.ui.result(format_args!("{} at {}", settings.name, time::format(cx.now)))?;
    cx.ui.result(format_args!("nothing is in force yet: {}", next.reason))?;
    cx.ui.hint(next);
    Ok(())
}

/// Cohort roles by the hundred are the rule; only those that need attention are worth a line.
const MANY_ROLES: usize = 24;

fn roles(cx: &Context, repository: &Repository, ring: &KeyRing) -> Result<()> {
    let all: Vec<_> = repository.roles().collect();
    let is_cohort = |name: &str| crate::metadata::listed_by_version_alone(name);
    let soonest = all.iter().filter(|role| is_cohort(&role.name)).map(|role| role.expires).min();
    let folded = all.len() > MANY_ROLES;
    let shown = all.iter().filter(|role| !folded || !is_cohort(&role.name));
    let rows: Vec<Vec<String>> = shown
        .map(|role| {
            let keys = repository
                .keys_of(&role.name)
                .map(|(_, keys)| format!("{} of {}", keys.threshold, ring.labels(&keys.keyids)));
            let expires = show::expiry(role.expires, cx.now);
            vec![role.name.clone(), role.version.to_string(), expires, keys.unwrap_or_default()]
        })
        .collect();
    show::table(&cx.ui, &["ROLE", "VERSION", "EXPIRES", "KEYS"], &rows)?;
    if let (true, Some(soonest)) = (folded, soonest) {
        let count = all.iter().filter(|role| is_cohort(&role.name)).count();
        cx.ui.result(format_args!("and {count} cohorts, the first to expire at {}", show::expiry(soonest, cx.now)))?;
    }
    Ok(())
}

/// Where each cohort stands with a product, and where its releases do.
pub(super) fn rollouts(cx: &Context, in_force: &ProductInForce<'_>, records: &[Record]) -> Result<()> {
    let ProductInForce { channel, product, cohorts } = in_force;
    cx.ui.result(format_args!("{product} on {channel}"))?;
    show::cohorts(&cx.ui, cohorts, cx.now)?;
    releases(cx, records, channel, product)
}

fn releases(cx: &Context, records: &[Record], channel: &Name, product: &Name) -> Result<()> {
    for record in records.iter().filter(|record| record.channel == *channel && record.product == *product) {
        let sequence = record.manifest.as_ref().map(|m| format!(", sequence {}", m.sequence)).unwrap_or_default();
        cx.ui.result(format_args!("  {}  {}{sequence}", record.version, record.status()))?;
    }
    Ok(())
}

fn check_expiring(repository: &Repository, within: Span, now: DateTime<Utc>) -> Result<()> {
    let due: Vec<_> = repository.roles().filter(|role| role.expires <= now + within.delta()).collect();
    if due.is_empty() {
        return Ok(());
    }
    let remedy = renewal(due.iter().map(|role| role.name.as_str()));
    let due: Vec<_> = due.iter().map(|role| format!("{} at {}", role.name, time::format(role.expires))).collect();
    Err(Error::refused(Rule::StatusExpiring, format!("these roles expire within {within}: {}", due.join(", ")))
        .remedy(format!("renew them where their keys are: {remedy}")))
}

fn to_json(
    now: DateTime<Utc>,
    settings: &Settings,
    repository: &Repository,
    ring: &KeyRing,
    records: &[Record],
    in_force: &[ProductInForce<'_>],
) -> Value {
    let roles: Vec<Value> = repository
        .roles()
        .map(|role| {
            let keys = repository.keys_of(&role.name);
            let listed = keys.map(|(_, keys)| {
                let key = |id: &tidegate_tuf::key::KeyId| json!({"keyid": id.as_str(), "name": ring.by_id(id).map(|key| key.name.as_str())});
                keys.keyids.iter().map(key).collect::<Vec<_>>()
            });
            json!({
                "name": role.name,
                "version": role.version,
                "expires": time::format(role.expires),
                "expired": role.expires <= now,
                "threshold": keys.map(|(_, keys)| keys.threshold),
                "keys": listed,
                "delegated_by": repository.delegator(&role.name),
            })
        })
        .collect();
    json!({
        "schema": 1,
        "name": settings.name,
        "at": time::format(now),
        "roles": roles,
        "rollouts": in_force,
        "releases": releases_json(records),
    })
}

/// Where releases are in their life.
pub(super) fn releases_json(records: &[Record]) -> Vec<Value> {
    let of = |record: &Record| {
        json!({
            "release": record.id().to_string(),
            "state": record.state,
            "paused": record.paused,
            "sequence": record.manifest.as_ref().map(|manifest| manifest.sequence),
        })
    };
    records.iter().map(of).collect()
}
