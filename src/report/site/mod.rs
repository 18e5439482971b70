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
use sha2::{Digest as _, Sha256};

use super::view::State;
use super::view::state::{Product, Urgency};
use crate::error::{Error, Result};
use crate::markup::escape;
use html::{instant, relative, share};

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
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    let _ = write!(
        html,
        "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta name=\"referrer\" content=\"no-referrer\">\n\
         <meta name=\"generator\" content=\"{}\">\n\
         <title>{} at {}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the content</a>\n<div class=\"wrap\">\n<header class=\"top\">\n<h1>{}</h1>\n\
         <p class=\"quiet\">As of {} UTC, from {}</p>\n<nav aria-label=\"Sections\"><ul>",
        escape(&state.generator),
        escape(title),
        state.at.format("%Y-%m-%d %H:%M"),
        escape(title),
        instant(state.at),
        escape(&state.place),
    );
    for Section { id, title, .. } in &sections {
        let _ = write!(html, "<li><a href=\"#{id}\">{}</a></li>", escape(title));
    }
    html.push_str("</ul></nav>\n</header>\n<main id=\"main\">\n");
    html.push_str(&facts(state));
    for Section { id, title, html: content } in &sections {
        let _ = write!(
            html,
            "<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{}</h2>\n{content}\n</section>\n",
            escape(title)
        );
    }
    let _ = write!(
        html,
        "</main>\n<footer><p>Computed from the signed metadata, verified from root {} ({}) by the code that devices run. \
         The same for programs: <a href=\"{STATUS}\">{STATUS}</a>.</p></footer>\n</div>\n</body>\n</html>\n",
        state.trust.anchor,
        html::code(&state.trust.anchor_sha256),
    );
    html
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
    html: String,
}

impl Section {
    fn new(id: &'static str, title: &str, html: String) -> Self {
        Self { id, title: title.to_owned(), html }
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
                    let _ = write!(last.html, "<h3>{}</h3>", escape(&title));
                    last.html.push_str(&releases::rollouts(state, channel, index));
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

/// What one wants to know first.
fn facts(state: &State) -> String {
    let mut html = String::from("<ul class=\"facts\">");
    let mut fact = |head: &str, text: &str| {
        let _ = write!(html, "<li><b>{}</b> <span>{}</span></li>", escape(head), escape(text));
    };
    for channel in &state.channels {
        for product in &channel.products {
            let (head, text) = live(product);
            fact(&head, &format!("{} on {}{text}", product.name, channel.name));
        }
    }
    if let Some(first) = state.due.first() {
        let when = relative(first.expires, state.at);
        let head = match first.urgency {
            Urgency::Expired => format!("{} has expired", first.role),
            _ => format!("{} expires {when}", first.role),
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
        None => fact("Verified", "all signatures, delegations and assignments are valid"),
        Some(first) => fact(&format!("{faults} faults"), &format!("{}: {}", first.subject, first.problem)),
    }
    html.push_str("</ul>\n");
    html
}

/// What is live of a product, in a headline and the rest of a sentence.
fn live(product: &Product) -> (String, String) {
    let Some(newest) = product.curves.first() else {
        let newest = product.releases.first().map(|release| release.version.clone()).unwrap_or_default();
        return if product.offers.iter().any(|offer| offer.release.is_some()) {
            (newest, ", for named devices only".into())
        } else {
            ("Nothing is offered".into(), format!("; newest approved: {newest}"))
        };
    };
    let mut text = String::new();
    for other in product.curves.iter().skip(1).take(2) {
        let _ = write!(text, ", after {} at {}", other.release, share(other.now_ppm));
    }
    if newest.now_ppm < newest.final_ppm && !newest.paused {
        let _ = write!(text, ", going to {}", share(newest.final_ppm));
    }
    if newest.paused {
        text.push_str(", paused");
    }
    (format!("{} at {}", newest.release, share(newest.now_ppm)), text)
}
