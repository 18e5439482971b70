//! Rollouts and releases.

use chrono::{DateTime, Utc};
use maud::{Markup, Render as _, html};

use super::chart;
use super::health;
use super::html::{Mark, Table, bytes, code, instant, mark, region, relative, share};
use crate::markup::text;
use crate::report::view::State;
use crate::report::view::state::{
    Artifact, Channel, Cohort, CohortOffers, Curve, FindingState, Members, Offer, Product, Provenance, RecordState,
    Release,
};

/// From so many cohorts on, neighbours that are alike are shown once.
const MANY_COHORTS: usize = 24;

/// So many rollouts are open at first, however many there are: the page stays short.
const OPEN: usize = 4;
/// So many of a product have a line of their own.
const SHOWN: usize = 4;

/// All channels: how each release spreads that is offered, and what each cohort is offered.
pub(super) fn rollouts(state: &State) -> Markup {
    let mut open = OPEN;
    html! {
        @if state.channels.is_empty() { p { "There is no channel yet." } }
        @for channel in &state.channels {
            @if channel.products.is_empty() {
                h3 { (text(&channel.name)) }
                p { "No release is approved yet." }
                (folded(channel, &cohorts(state, channel, None)))
            }
            @for product in &channel.products {
                h3 { (text(&product.name)) " on " (text(&channel.name)) }
                (spread(state, channel, product, &mut open))
                (folded(channel, &cohorts(state, channel, Some(product))))
            }
        }
    }
}

fn folded(channel: &Channel, table: &Markup) -> Markup {
    let who = match channel.cohorts.len() {
        1 => "1 cohort".to_owned(),
        many => format!("{many} cohorts"),
    };
    html! { details { summary { "Who is offered what: " (who) } (table) } }
}

/// How the releases of a product spread. Those under way are open, but for `open`, no more.
fn spread(state: &State, channel: &Channel, product: &Product, open: &mut usize) -> Markup {
    let under_way = |curve: &&Curve| is_under_way(product, curve);
    let (going, done): (Vec<&Curve>, Vec<&Curve>) = product.curves.iter().partition(under_way);
    let others = product.releases.iter().filter(|release| {
        let has_curve = product.curves.iter().any(|curve| curve.sequence == release.sequence);
        !has_curve && !release.offered_to.is_empty()
    });
    html! {
        @for curve in going.iter().copied().chain(done.iter().copied().take(1)).take(SHOWN) {
            @let is_open = is_under_way(product, curve) && take_one(open);
            @let health = health::of(state, &channel.name, &product.name, curve.sequence);
            details class="rollout" open[is_open] {
                summary {
                    (text(&chart::describe(curve, state.at)))
                    @if let Some(words) = health.and_then(health::in_brief) { " " span class="quiet" { (text(&words)) } }
                }
                div class="chart" {
                    (chart::exposure(curve, health, state.at, &format!("curve-{}-{}", number(state, product), curve.sequence)))
                    @if let Some(health) = health { (health::legend(health)) }
                }
                @if let Some(health) = health { (health::groups(health)) }
            }
        }
        @for release in others {
            details class="rollout" {
                summary { (text(&release.version)) " is for named devices only." }
                @if let Some(health) = health::of(state, &channel.name, &product.name, release.sequence) {
                    (health::legend(health)) (health::groups(health))
                }
            }
        }
    }
}

/// Takes one of what is left, if anything is.
fn take_one(left: &mut usize) -> bool {
    let is_left = *left > 0;
    *left = left.saturating_sub(1);
    is_left
}

/// The place of a product among all, for ids that are unique.
fn number(state: &State, product: &Product) -> usize {
    let mut products = state.channels.iter().flat_map(|channel| &channel.products);
    products.position(|other| std::ptr::eq(other, product)).unwrap_or_default()
}

/// Whether a release is still being rolled out: it grows, or some cohort is offered it in a limited stage.
fn is_under_way(product: &Product, curve: &Curve) -> bool {
    let mut offers = product.cohorts.iter().flat_map(|cohort| &cohort.offers);
    let is_limited = |stage: &str| matches!(stage, "validation" | "limited");
    curve.now_ppm < curve.final_ppm
        || offers.any(|offer| offer.sequence == curve.sequence && offer.in_force && is_limited(&offer.stage))
}

fn cohorts(state: &State, channel: &Channel, product: Option<&Product>) -> Markup {
    let caption = match product {
        Some(product) => format!(
            "Who is offered which {} on {}; the first cohort that matches a device counts, and the first offer that it may take",
            product.name, channel.name
        ),
        None => format!("The cohorts of {}; the first that matches a device wins", channel.name),
    };
    let mut table = Table::new(&caption, &["Cohort", "Who", "Offered", "Open to", "Ends unless renewed"]);
    let mut last: Option<String> = None;
    let mut alike = 0_usize;
    for (index, cohort) in channel.cohorts.iter().enumerate() {
        let rows = cohort_rows(state, cohort, product.and_then(|product| product.cohorts.get(index)));
        let content = rows.iter().flatten().map(|cell| cell.0.as_str()).collect::<Vec<_>>().join("\n");
        if channel.cohorts.len() > MANY_COHORTS && last.as_ref() == Some(&content) {
            alike += 1;
            continue;
        }
        fold(&mut table, &mut alike);
        for (index, cells) in rows.into_iter().enumerate() {
            let name = html! { (text(&cohort.name)) @if index > 0 { span class="quiet" { ", else" } } };
            table.row([name].into_iter().chain(cells).collect());
        }
        last = Some(content);
    }
    fold(&mut table, &mut alike);
    region(&caption, &table)
}

fn fold(table: &mut Table, alike: &mut usize) {
    if *alike > 0 {
        table.row(vec![html! { (alike) " more alike" }]);
        *alike = 0;
    }
}

/// The cells of a cohort's rows, without its name: one row for each offer, in order.
fn cohort_rows(state: &State, cohort: &Cohort, offered: Option<&CohortOffers>) -> Vec<[Markup; 4]> {
    let who = html! {
        @match &cohort.members {
            Members::Share { ppm } => (share(*ppm)),
            Members::Devices { count: 1 } => "1 named device",
            Members::Devices { count } => { (count) " named devices" }
            Members::Condition { condition } => { "devices with " (code(condition)) }
        }
        @if let Some(gate) = &cohort.gate { ", through " (code(gate)) }
    };
    let offers = offered.map(|offered| offered.offers.as_slice()).unwrap_or_default();
    if offers.is_empty() {
        let none = if cohort.gate.is_some() && cohort.expires.is_none() { "not public" } else { "nothing" };
        return vec![[who, mark(Mark::Neutral, none), html! { "-" }, ends(state, cohort, None)]];
    }
    offers.iter().map(|offer| offer_cells(state, cohort, &who, offer)).collect()
}

fn offer_cells(state: &State, cohort: &Cohort, who: &Markup, offer: &Offer) -> [Markup; 4] {
    let Offer { release, stage, paused, ramp, exposed_ppm, in_force, until, .. } = offer;
    let word = match (in_force, paused) {
        (false, _) => mark(Mark::Bad, &format!("{stage}, ended")),
        (true, true) => mark(Mark::Look, &format!("{stage}, paused")),
        (true, false) => mark(Mark::Good, stage),
    };
    let open = html! {
        (chart::bar(*exposed_ppm)) (share(*exposed_ppm))
        @if let Some(ramp) = ramp.as_ref().filter(|ramp| !paused && ramp.end > state.at && ramp.to_ppm > *exposed_ppm) {
            ", " (share(ramp.to_ppm)) " " (relative(ramp.end, state.at))
        }
    };
    [who.clone(), html! { (text(release)) " " (word) }, open, ends(state, cohort, *until)]
}

/// When an offer of a cohort ends: by itself, or with the cohort's role.
fn ends(state: &State, cohort: &Cohort, until: Option<DateTime<Utc>>) -> Markup {
    match (cohort.expires, until) {
        (Some(at), _) if at <= state.at => mark(Mark::Bad, &format!("its role expired {}", relative(at, state.at))),
        (Some(_), Some(until)) if until <= state.at => mark(Mark::Bad, &format!("ended {}", relative(until, state.at))),
        (Some(_), Some(until)) => html! { (relative(until, state.at)) },
        (Some(_), None) => html! { "-" },
        (None, _) if cohort.gate.is_some() => html! { "not public" },
        (None, _) => mark(Mark::Bad, "its role does not verify"),
    }
}

/// All releases, the newest first, each with its state, provenance and findings.
pub(super) fn releases(state: &State) -> Markup {
    let others = unlisted(state);
    let mut products = state.channels.iter().flat_map(|channel| &channel.products);
    if others.is_empty() && products.next().is_none() {
        return html! { p { "There is no release yet." } };
    }
    html! {
        @for channel in &state.channels {
            @for product in &channel.products {
                details {
                    summary {
                        (text(&product.name)) " on " (text(&channel.name)) ": "
                        @match product.releases.as_slice() {
                            [] => "none approved",
                            [only] => (text(&only.version)),
                            [newest, ..] => { (product.releases.len()) " releases, " (text(&newest.version)) " the newest" }
                        }
                    }
                    @for release in &product.releases {
                        (one(state, channel, product, release))
                    }
                }
            }
        }
        @if !others.is_empty() {
            details {
                summary { (others.len()) " not approved" }
                ul class="plain" {
                    @for record in others {
                        li { (text(&record.release)) " " (life(record)) }
                    }
                }
            }
        }
    }
}

/// What the channels do not list: drafts, and what is retired.
fn unlisted(state: &State) -> Vec<&RecordState> {
    let listed = |id: &str| {
        state.channels.iter().any(|channel| {
            let mut products = channel.products.iter();
            products.any(|product| product.releases.iter().any(|release| id == self::id(channel, product, release)))
        })
    };
    let records = state.workspace.iter().flat_map(|workspace| &workspace.releases);
    records.filter(|record| !listed(&record.release)).collect()
}

fn id(channel: &Channel, product: &Product, release: &Release) -> String {
    format!("{}/{}/{}", channel.name, product.name, release.version)
}

fn record<'a>(state: &'a State, id: &str) -> Option<&'a RecordState> {
    state.workspace.as_ref()?.releases.iter().find(|record| record.release == id)
}

/// The state of a release in a word.
fn life(record: &RecordState) -> Markup {
    let kind = match record.state.as_str() {
        "stable" | "security" | "limited" | "validation" => Mark::Good,
        "withdrawn" => Mark::Bad,
        _ => Mark::Neutral,
    };
    if record.paused { mark(Mark::Look, &format!("{}, paused", record.state)) } else { mark(kind, &record.state) }
}

fn one(state: &State, channel: &Channel, product: &Product, release: &Release) -> Markup {
    let record = record(state, &id(channel, product, release));
    let health = health::of(state, &channel.name, &product.name, release.sequence);
    let offered = !release.offered_to.is_empty();
    let word = match record {
        Some(record) => life(record),
        None if offered => mark(Mark::Good, "offered"),
        None => mark(Mark::Neutral, "approved"),
    };
    html! {
        details {
            summary {
                b { (text(&release.version)) } " " (word) " "
                @if release.urgency == "security" { (mark(Mark::Look, "security")) }
                " "
                span class="quiet" {
                    "sequence " (release.sequence) ", made " (relative(release.created, state.at))
                    @if offered { ", open to " (share(release.exposed_ppm)) " of the fleet" }
                }
            }
            dl { (facts(release)) }
            @if let Some(health) = health { (health::legend(health)) }
            @if let Some(record) = record { (findings(state, record)) }
        }
    }
}

/// What the manifest of a release states.
fn facts(release: &Release) -> Markup {
    let supersedes: Vec<String> = release.supersedes.iter().map(u64::to_string).collect();
    html! {
        @if !release.offered_to.is_empty() { dt { "Offered to" } dd { (text(&release.offered_to.join(", "))) } }
        dt { "Made" } dd { (instant(release.created)) }
        dt { "Build" } dd { (text(&release.build)) }
        @if let Some(source) = &release.source { dt { "Source" } dd { (code(source)) } }
        dt { "Provenance" } dd { (provenance(release.provenance.as_ref())) }
        @for artifact in &release.artifacts { dt { "Artifact" } dd { (described(artifact)) } }
        @if let Some(eligibility) = &release.eligibility { dt { "Only for devices with" } dd { (code(eligibility)) } }
        @if let Some(range) = &release.upgrade_from { dt { "Upgrades from" } dd { (code(range)) } }
        @if !supersedes.is_empty() { dt { "Takes back" } dd { "sequence " (supersedes.join(", ")) } }
        @for note in &release.notes { dt { "Note" } dd { (text(note)) } }
        dt { "Manifest" } dd { "SHA-256 " (code(&release.manifest_sha256)) }
    }
}

fn provenance(provenance: Option<&Provenance>) -> Markup {
    let Some(Provenance { kind, builder, sha256, .. }) = provenance else { return html! { "none was given" } };
    html! {
        (code(kind)) " by "
        @match builder {
            Some(builder) => (code(builder)),
            None => "an unnamed builder",
        }
        ", SHA-256 " (code(sha256))
    }
}

fn described(artifact: &Artifact) -> Markup {
    html! {
        (text(&artifact.name)) ", " (bytes(artifact.length)) ", for " (text(&artifact.hardware.join(", ")))
        br;
        "SHA-256 " (code(&artifact.sha256))
        @if let Some(delivery) = &artifact.delivery {
            br;
            "Devices fetch at most " (bytes(delivery.chunks)) " in chunks"
            @for patch in &delivery.patches { ", " (bytes(patch.length)) " as a patch from " (text(&patch.from)) }
        }
    }
}

fn findings(state: &State, record: &RecordState) -> Markup {
    if let Some(fault) = &record.report_fault {
        return html! { p { (mark(Mark::Bad, "the validation report does not verify")) " " (text(fault)) } };
    }
    let Some(at) = record.validated else { return html! { p class="quiet" { "It was not validated." } } };
    let mut table = Table::new(&format!("Validated {}", relative(at, state.at)), &["Rule", "Result", "What", "Why"]);
    for FindingState { rule, title, verdict, detail, .. } in &record.findings {
        let verdict = match verdict.as_str() {
            "pass" => mark(Mark::Good, "pass"),
            "warn" => mark(Mark::Look, "look"),
            "fail" => mark(Mark::Bad, "fail"),
            _ => mark(Mark::Neutral, "not applicable"),
        };
        table.row(vec![code(rule), verdict, html! { (text(title)) }, html! { (text(detail)) }]);
    }
    table.render()
}
