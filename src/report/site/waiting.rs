//! Faults, proposals and the ledger.

use maud::{Markup, html};

use super::html::{Mark, Table, code, instant, mark, region, relative};
use crate::markup::text;
use crate::report::view::State;
use crate::report::view::state::{LedgerEntry, LedgerState, Need, ProposalState};

/// What does not verify or does not fit.
pub(super) fn faults(state: &State) -> Markup {
    html! {
        ul class="plain" {
            @for fault in &state.faults {
                li { (mark(Mark::Bad, "fault")) " " b { (text(&fault.subject)) } ": " (text(&fault.problem)) }
            }
        }
    }
}

/// What waits for signatures, and for whose.
pub(super) fn proposals(state: &State) -> Markup {
    html! {
        @for proposal in state.workspace.iter().flat_map(|workspace| &workspace.proposals) {
            details {
                summary {
                    (text(&proposal.subject)) " "
                    @if proposal.fault.is_some() { (mark(Mark::Bad, "do not sign it")) } @else { (progress(proposal)) }
                }
                @if let Some(fault) = &proposal.fault { p { (text(fault)) } }
                p class="quiet" {
                    (code(&proposal.file))
                    @if let Some(at) = proposal.proposed { ", proposed " (relative(at, state.at)) }
                    @if let Some(reason) = &proposal.reason { ": " (text(reason)) }
                    @if let Some(digest) = &proposal.digest { "; compare its digest, " (code(digest)) }
                }
                @if !proposal.needs.is_empty() { (needs(proposal)) }
            }
        }
    }
}

/// How many of the required signatures a proposal has.
fn progress(proposal: &ProposalState) -> Markup {
    let required: u64 = proposal.needs.iter().map(|need| need.threshold).sum();
    let has: u64 = proposal.needs.iter().map(|need| need.threshold.min(need.signed.len() as u64)).sum();
    let kind = if has == required { Mark::Good } else { Mark::Look };
    mark(kind, &format!("{has} of {required} signatures"))
}

fn needs(proposal: &ProposalState) -> Table {
    let caption = format!("Signatures on {}", proposal.subject);
    let mut table = Table::new(&caption, &["Role", "Has", "Signed", "May still sign"]);
    for need in &proposal.needs {
        table.row(need_row(need));
    }
    table
}

fn need_row(need: &Need) -> Vec<Markup> {
    let has = need.signed.len() as u64;
    let met = has >= need.threshold;
    let word = format!("{has} of {}", need.threshold);
    let people = |people: &[String]| {
        let people = if people.is_empty() { "nobody".to_owned() } else { people.join(", ") };
        html! { (text(&people)) }
    };
    vec![
        html! { (text(&need.role)) " " span class="quiet" { "by " (text(&need.by)) } },
        if met { mark(Mark::Good, &format!("{word}, enough")) } else { mark(Mark::Look, &word) },
        people(&need.signed),
        people(&need.missing),
    ]
}

/// What happened, the newest first.
pub(super) fn ledger(ledger: &LedgerState) -> Markup {
    if ledger.broken.is_none() && ledger.head.is_none() {
        return html! { p { "Nothing has happened yet." } };
    }
    let mut table = Table::new("The newest first", &["When", "What", "To what", "State", "By", "Why"]);
    for entry in &ledger.entries {
        table.row(entry_row(entry));
    }
    html! {
        @if let Some(broken) = &ledger.broken {
            p { (mark(Mark::Bad, "the chain is broken")) " " (text(broken)) }
        } @else if let Some(head) = &ledger.head {
            p class="quiet" { (ledger.count) " entries, the chain is intact up to " (code(head)) }
        }
        details {
            summary {
                @match ledger.entries.first() {
                    Some(last) => { "The last: " (text(&last.event)) " by " (text(&last.actor)) ", " (instant(last.time)) }
                    None => "No entries",
                }
            }
            (region("Entries of the ledger", &table))
        }
    }
}

fn entry_row(entry: &LedgerEntry) -> Vec<Markup> {
    let change = match (&entry.from, &entry.to) {
        (Some(from), Some(to)) if from != to => format!("{from} to {to}"),
        (_, Some(to)) => to.clone(),
        _ => "-".into(),
    };
    vec![
        instant(entry.time),
        html! { (text(&entry.event)) },
        html! { (text(&entry.subject)) },
        html! { (text(&change)) },
        html! { (text(&entry.actor)) },
        html! { (text(entry.reason.as_deref().unwrap_or("-"))) },
    ]
}
