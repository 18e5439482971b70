//! The status page: one HTML file that needs nothing but itself.
//!
//! No script, no font, no picture from elsewhere; its Content-Security-Policy allows its own style sheet, by hash, and nothing else.
//! All of it is computed from a [`State`], and everything in that is escaped.

mod chart;
mod health;
mod html;
mod releases;
mod trust;
mod waiting;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use sha2::{Digest as _, Sha256};
use tidegate_model::text::{public_url, public_urls};

use super::view::State;
use super::view::state::{Product, Shown, Source, Urgency};
use crate::error::{Error, Result};
use crate::markup::text;
use html::{Mark, code, instant, mark, relative, share};

/// The page's file.
pub const PAGE: &str = "index.html";
/// The file with the same for programs.
pub const STATUS: &str = "status.json";

/// So many products are among the most important facts.
const PRODUCTS: usize = 6;

const STYLE: &str = include_str!("style.css");

/// The page.
pub fn page(state: &State) -> String {
    let title = state.workspace.as_ref().map_or("Repository", |workspace| &workspace.name);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
        STANDARD.encode(Sha256::digest(STYLE))
    );
    let sections = sections(state);
    let page = html! {
        (DOCTYPE) "\n"
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(policy);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="referrer" content="no-referrer";
                meta name="generator" content=(text(&state.generator));
                title { (text(title)) " at " (state.at.format("%Y-%m-%d %H:%M")) }
                style { (PreEscaped(STYLE)) }
            }
            "\n"
            body {
                a class="skip" href="#main" { "Skip to the content" }
                div class="wrap" {
                    (header(state, title, &sections))
                    "\n"
                    main id="main" {
                        (facts(state))
                        @for section in &sections { "\n" (section) }
                    }
                    "\n"
                    (footer(state))
                }
            }
        }
        "\n"
    };
    page.into_string()
}

fn header(state: &State, title: &str, sections: &[Section]) -> Markup {
    html! {
        header class="top" {
            h1 { (text(title)) }
            p class="quiet" { "As of " (instant(state.at)) " UTC" @if state.place != "." { ", from " (text(&state.place)) } }
            (shown(&state.shows))
            nav aria-label="Sections" {
                ul {
                    @for Section { id, title, .. } in sections {
                        li { a href={ "#" (id) } { (title) } }
                    }
                }
            }
        }
    }
}

/// Whether what the page shows is what devices see. It is the first thing to know of all that follows.
fn shown(shows: &Shown) -> Markup {
    let (kind, word) = match (shows.source, shows.live) {
        (Source::Snapshot, _) => (Mark::Neutral, "One snapshot"),
        (_, Some(true)) => (Mark::Good, "Live"),
        (_, Some(false)) => (Mark::Look, "Not live"),
        (_, None) => (Mark::Look, "Not known to be live"),
    };
    let meaning = match (shows.source, shows.live) {
        (Source::Snapshot, _) => "This is a state that may not be what devices see now",
        (_, Some(true)) => "This is what devices see",
        (_, Some(false)) => "This is the state of the workspace; devices do not see all of it yet",
        (_, None) => "This is the state of the workspace",
    };
    let place = shows.places.first().and_then(|first| first.place.as_deref()).filter(|_| shows.live == Some(true));
    html! {
        div class="shown" {
            p {
                (mark(kind, word)) " " (meaning)
                @if let Some(place) = place { " at " (text(&public_url(place))) }
                "."
                @if let Some(version) = shows.timestamp {
                    " Timestamp " (version) @if let Some(at) = shows.signed { ", signed " (instant(at)) } "."
                }
            }
            @for place in shows.places.iter().filter(|place| place.is_behind() || place.unreachable.is_some()) {
                p class="quiet" { (text(&public_urls(&place.to_string()))) }
            }
        }
    }
}

fn footer(state: &State) -> Markup {
    html! {
        footer {
            p {
                "Computed from the signed metadata, verified from root " (state.trust.anchor) " ("
                (code(&state.trust.anchor_sha256))
                ") by the code that devices run. The same for programs: " a href=(STATUS) { (STATUS) } "."
            }
        }
    }
}

/// The content of `status.json`.
pub fn status(state: &State) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(state).map_err(|e| Error::bug("the state cannot be written").with_source(e))?;
    bytes.push(b'\n');
    Ok(bytes)
}

struct Section {
    id: &'static str,
    title: &'static str,
    content: Markup,
}

impl Section {
    fn new(id: &'static str, title: &'static str, content: Markup) -> Self {
        Self { id, title, content }
    }
}

impl Render for Section {
    fn render(&self) -> Markup {
        let heading = format!("{}-title", self.id);
        html! {
            section id=(self.id) aria-labelledby=(heading) {
                h2 id=(heading) { (self.title) }
                (self.content)
            }
        }
    }
}

fn sections(state: &State) -> Vec<Section> {
    let mut sections = Vec::new();
    if !state.sound {
        sections.push(Section::new("faults", "Faults", waiting::faults(state)));
    }
    if state.workspace.as_ref().is_some_and(|workspace| !workspace.proposals.is_empty()) {
        sections.push(Section::new("waiting", "Waiting for signatures", waiting::proposals(state)));
    }
    sections.push(Section::new("rollouts", "Rollouts", releases::rollouts(state)));
    sections.push(Section::new("releases", "Releases", releases::releases(state)));
    sections.push(Section::new("due", "What is due", trust::due(state)));
    sections.push(Section::new("trust", "Roles and keys", trust::trust(state)));
    if let Some(workspace) = &state.workspace {
        sections.push(Section::new("ledger", "Ledger", waiting::ledger(&workspace.ledger)));
    }
    sections
}

/// The most important facts.
fn facts(state: &State) -> Markup {
    let mut facts = Vec::new();
    let mut fact = |head: &str, rest: &str| facts.push((head.to_owned(), rest.to_owned()));
    let products = || state.channels.iter().flat_map(|channel| channel.products.iter().map(move |one| (channel, one)));
    for (channel, product) in products().take(PRODUCTS) {
        let (head, text) = live(product);
        fact(&head, &format!("{} on {}{text}", product.name, channel.name));
    }
    match products().count().saturating_sub(PRODUCTS) {
        0 => {}
        more => fact(&format!("{more} more products"), "below"),
    }
    if let Some(health) = &state.health {
        let (head, text) = health::fact(state, health);
        fact(&head, &text);
    }
    if let Some(first) = state.due.first() {
        let when = relative(first.expires, state.at);
        let head = match first.urgency {
            Urgency::Expired => format!("{} has expired", first.subject()),
            _ => format!("{} expires {when}", first.subject()),
        };
        fact(
            &head,
            &format!("{}: {}", if first.urgency == Urgency::Expired { "fix it" } else { "renew it" }, first.remedy),
        );
    }
    if let Some(workspace) = &state.workspace {
        let waiting = workspace.proposals.len();
        match workspace.proposals.first() {
            None => fact("No pending signatures", "no proposal needs a signature"),
            Some(first) if waiting == 1 => fact("1 proposal waits", &first.subject),
            Some(first) => fact(&format!("{waiting} proposals wait"), &format!("{} and others", first.subject)),
        }
    }
    let faults = state.faults.len();
    match state.faults.first() {
        None => fact("Verified", "all signatures, delegations and offers are valid"),
        Some(first) => fact(&format!("{faults} faults"), &format!("{}: {}", first.subject, first.problem)),
    }
    html! {
        ul class="facts" {
            @for (head, rest) in &facts {
                li { b { (text(head)) } " " span { (text(rest)) } }
            }
        }
    }
}

/// What is live of a product, in a headline and the rest of a sentence.
fn live(product: &Product) -> (String, String) {
    let Some(newest) = product.curves.first() else {
        let newest = product.releases.first().map(|release| release.version.clone()).unwrap_or_default();
        return if product.cohorts.iter().any(|cohort| !cohort.offers.is_empty()) {
            (newest, ", for named devices only".into())
        } else {
            ("Nothing is offered".into(), format!("; newest approved: {newest}"))
        };
    };
    let mut rest = String::new();
    for other in product.curves.iter().skip(1).take(2) {
        let _ = write!(rest, ", after {} at {}", other.release, share(other.now_ppm));
    }
    if newest.now_ppm < newest.final_ppm && !newest.paused {
        let _ = write!(rest, ", going to {}", share(newest.final_ppm));
    }
    if newest.paused {
        rest.push_str(", paused");
    }
    (format!("{} at {}", newest.release, share(newest.now_ppm)), rest)
}
