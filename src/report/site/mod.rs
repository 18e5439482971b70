//! The status page: one HTML file that needs nothing but itself.
//!
//! No script, no font, no picture from elsewhere; its Content-Security-Policy allows its own style sheet, by hash, and nothing else.
//! All of it is computed from a [`State`], and everything in that is escaped.

mod chart;
mod html;
mod releases;
mod trust;
mod waiting;

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};
use sha2::{Digest as _, Sha256};

use super::view::State;
use super::view::state::{Product, Urgency};
use crate::error::{Error, Result};
use crate::markup::text;
use html::{code, instant, relative, share};

/// The page's file.
pub const PAGE: &str = "index.html";
/// The file with the same for programs.
pub const STATUS: &str = "status.json";

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
            p class="quiet" { "As of " (instant(state.at)) " UTC, from " (text(&state.place)) }
            nav aria-label="Sections" {
                ul {
                    @for Section { id, title, .. } in sections {
                        li { a href={ "#" (id) } { (text(title)) } }
                    }
                }
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
    title: String,
    content: Markup,
}

impl Section {
    fn new(id: &'static str, title: &str, content: Markup) -> Self {
        Self { id, title: title.to_owned(), content }
    }
}

impl Render for Section {
    fn render(&self) -> Markup {
        let heading = format!("{}-title", self.id);
        html! {
            section id=(self.id) aria-labelledby=(heading) {
                h2 id=(heading) { (text(&self.title)) }
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
    for (index, channel) in state.channels.iter().enumerate() {
        // Ids must be unique, and a channel's name could be that of another section.
        let id = ["rollouts", "rollouts-2", "rollouts-3", "rollouts-4"].get(index).copied();
        let title = format!("Rollouts on {}", channel.name);
        match id {
            Some(id) => sections.push(Section::new(id, &title, releases::rollouts(state, channel, index))),
            None => {
                if let Some(last) = sections.iter_mut().rfind(|section| section.id == "rollouts-4") {
                    let more = releases::rollouts(state, channel, index);
                    last.content = html! { (last.content) h3 { (text(&title)) } (more) };
                }
            }
        }
    }
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
    for channel in &state.channels {
        for product in &channel.products {
            let (head, text) = live(product);
            fact(&head, &format!("{} on {}{text}", product.name, channel.name));
        }
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
