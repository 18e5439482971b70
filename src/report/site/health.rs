//! What devices report.

use maud::{Markup, html};

use super::chart::{self, SERIES};
use super::html::{Table, bytes, count, region, relative, share};
use crate::markup::text;
use crate::receipts::Fetched;
use crate::report::view::State;
use crate::report::view::state::{GroupHealth, Health, HealthPoint, ReleaseHealth};

/// So many groups of a release have a row.
const ROWS: usize = 40;

/// What devices report of a release.
pub(super) fn of<'a>(state: &'a State, channel: &str, product: &str, sequence: u64) -> Option<&'a ReleaseHealth> {
    let releases = &state.health.as_ref()?.releases;
    releases.iter().find(|health| (&*health.channel, &*health.product, health.sequence) == (channel, product, sequence))
}

/// The counts of a release, in words; `None` if no device reported anything.
pub(super) fn in_words(health: &ReleaseHealth) -> Option<String> {
    let HealthPoint { installed, confirmed, failed, rolled_back, .. } = last(&health.over_time)?;
    let fleet = count(health.fleet);
    let [installed, confirmed, failed, rolled_back] = [installed, confirmed, failed, rolled_back].map(count);
    Some(format!(
        "Of {fleet} devices {installed} installed it, {confirmed} confirmed it, {failed} failed, {rolled_back} rolled back"
    ))
}

/// The same, of what tells most.
pub(super) fn in_brief(health: &ReleaseHealth) -> Option<String> {
    let HealthPoint { installed, failed, rolled_back, .. } = last(&health.over_time)?;
    let [all, installed, failing] = [health.fleet, installed, failed + rolled_back].map(count);
    Some(format!("{installed} of {all} devices installed it, {failing} failed or rolled back."))
}

/// The last counts, if a device reported anything.
pub(super) fn last(points: &[HealthPoint]) -> Option<HealthPoint> {
    points.last().copied().filter(|last| last.installed + last.failed > 0)
}

/// The counts of a release beside samples of their lines.
pub(super) fn legend(health: &ReleaseHealth) -> Markup {
    if last(&health.over_time).is_none() {
        return html! { p class="quiet" { "No device has reported that it tried it." } };
    }
    let now = health.over_time.last();
    html! {
        ul class="legend" {
            @if let Some(ppm) = now.and_then(|now| now.planned_ppm) {
                li { (chart::plan_sample()) " Planned " b { (share(ppm)) } }
            }
            @for series in &SERIES {
                li {
                    (chart::sample(series)) " " (series.name) " "
                    b { (count(now.map_or(0, |now| (series.of)(now)))) }
                }
            }
            li class="quiet" { "of " (count(health.fleet)) " devices" }
        }
        @if let Some(words) = fetched(health) { p class="quiet" { (words) } }
    }
}

/// What fetching a release took, in words.
pub(super) fn fetched(health: &ReleaseHealth) -> Option<String> {
    let delivery = health.delivery?;
    let way = |(way, fetched): (&str, Fetched)| {
        let named = match way {
            "patch" => "as patches",
            "chunks" => "as chunks",
            _ => "whole",
        };
        format!("{} devices {named} ({})", count(fetched.devices), bytes(fetched.bytes))
    };
    let ways: Vec<_> = delivery.ways().map(way).collect();
    Some(format!("Fetched by {}; {} saved against whole artifacts.", ways.join(", "), bytes(delivery.saved())))
}

/// The devices of a release by cohort and hardware, folded.
pub(super) fn groups(health: &ReleaseHealth) -> Markup {
    if health.groups.is_empty() {
        return html! {};
    }
    let ReleaseHealth { channel, product, release, .. } = health;
    let caption = format!(
        "Devices that reported {product} {release} on {channel}, by cohort and hardware; over time: installed (line), and failed or rolled back (dots)"
    );
    let mut table =
        Table::new(&caption, &["Cohort, hardware", "Installed", "Confirmed", "Failed", "Rolled back", "Over time"])
            .of_figures();
    for group in health.groups.iter().take(ROWS) {
        table.row(row(group));
    }
    let more = health.groups.len().saturating_sub(ROWS) as u64 + health.other_groups;
    html! {
        details {
            summary { "By cohort and hardware" }
            (region(&caption, &table))
            @if more > 0 { p class="quiet" { "and " (count(more)) " more groups" } }
        }
    }
}

fn row(group: &GroupHealth) -> Vec<Markup> {
    let points = &group.over_time;
    let now = points.last();
    let cells = SERIES.iter().map(|series| html! { (count(now.map_or(0, |now| (series.of)(now)))) });
    let name = html! { (text(&group.cohort)) ", " (text(&group.hardware)) };
    [name].into_iter().chain(cells).chain([chart::history(points, &over_time(group))]).collect()
}

/// A group's devices over time, in words.
fn over_time(group: &GroupHealth) -> String {
    let points = &group.over_time;
    let all = points.last().map_or(0, |last| last.installed);
    let by = |part: u64| {
        let point = points.iter().find(|point| point.installed >= part && part > 0);
        point.map_or_else(|| "never".to_owned(), |point| point.at.format("%Y-%m-%d %H:%M").to_string())
    };
    format!(
        "{} in {}: first installed by {}, half of {} by {}, the last by {}",
        group.hardware,
        group.cohort,
        by(1),
        count(all),
        by(all.div_ceil(2)),
        by(all)
    )
}

/// The most important fact: how many devices fail with which release, or that nothing could be counted.
pub(super) fn fact(state: &State, health: &Health) -> (String, String) {
    if let Some(fault) = &health.fault {
        return ("No receipts".into(), format!("they could not be read: {fault}"));
    }
    let failing = |health: &&ReleaseHealth| last(&health.over_time).map_or(0, |last| last.failed + last.rolled_back);
    let receipt = match health.newest {
        Some(newest) => format!("last receipt {}", relative(newest, state.at)),
        None => "no device has sent a receipt that counts".into(),
    };
    match health.releases.iter().max_by_key(failing) {
        Some(worst) if failing(&worst) > 0 => {
            let tried = last(&worst.over_time).map_or(0, |last| last.installed + last.failed);
            let head = format!("{} of {} devices failing", count(failing(&worst)), count(tried));
            (head, format!("{} {} on {}; {receipt}", worst.product, worst.release, worst.channel))
        }
        _ => ("No device failing".into(), receipt),
    }
}
