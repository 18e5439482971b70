//! Faults, proposals and the ledger.

use std::fmt::Write as _;

use super::html::{Mark, Table, code, instant, mark, region, relative};
use crate::markup::escape;
use crate::report::view::State;
use crate::report::view::state::{LedgerState, Need};

/// What does not verify or does not fit.
pub(super) fn faults(state: &State) -> String {
    let mut html = String::from("<ul class=\"plain\">");
    for fault in &state.faults {
        let _ = write!(
            html,
            "<li>{} <b>{}</b>: {}</li>",
            mark(Mark::Bad, "fault"),
            escape(&fault.subject),
            escape(&fault.problem)
        );
    }
    html.push_str("</ul>");
    html
}

/// What waits for signatures, and for whose.
pub(super) fn proposals(state: &State) -> String {
    let mut html = String::new();
    for proposal in state.workspace.iter().flat_map(|workspace| &workspace.proposals) {
        let _ = write!(html, "<h3>{}</h3>", escape(&proposal.subject));
        if let Some(fault) = &proposal.fault {
            let _ = write!(html, "<p>{} {}</p>", mark(Mark::Bad, "do not sign it"), escape(fault));
        }
        let mut told = code(&proposal.file);
        if let Some(at) = proposal.proposed {
            let _ = write!(told, ", proposed {}", relative(at, state.at));
        }
        if let Some(reason) = &proposal.reason {
            let _ = write!(told, ": {}", escape(reason));
        }
        if let Some(digest) = &proposal.digest {
            let _ = write!(told, "; compare its digest, {}", code(digest));
        }
        let _ = write!(html, "<p class=\"quiet\">{told}</p>");
        if proposal.needs.is_empty() {
            continue;
        }
        let caption = format!("Signatures on {}", proposal.subject);
        let mut table = Table::new(&caption, &["Role", "Has", "Signed", "May still sign"]);
        for need in &proposal.needs {
            table.row(&need_row(need));
        }
        html.push_str(&table.finish());
    }
    html
}

fn need_row(need: &Need) -> Vec<String> {
    let has = need.signed.len() as u64;
    let met = has >= need.threshold;
    let word = format!("{has} of {}", need.threshold);
    let people = |people: &[String]| {
        if people.is_empty() { "nobody".to_owned() } else { escape(&people.join(", ")) }
    };
    vec![
        format!("{} <span class=\"quiet\">by {}</span>", escape(&need.role), escape(&need.by)),
        if met { mark(Mark::Good, &format!("{word}, enough")) } else { mark(Mark::Look, &word) },
        people(&need.signed),
        people(&need.missing),
    ]
}

/// What happened, the newest first.
pub(super) fn ledger(ledger: &LedgerState) -> String {
    let mut html = match (&ledger.broken, &ledger.head) {
        (Some(broken), _) => format!("<p>{} {}</p>", mark(Mark::Bad, "the chain is broken"), escape(broken)),
        (None, Some(head)) => {
            format!("<p class=\"quiet\">{} entries, an unbroken chain up to {}</p>", ledger.count, code(head))
        }
        (None, None) => return "<p>Nothing has happened yet.</p>".into(),
    };
    let mut table = Table::new("The newest first", &["When", "What", "To what", "State", "By", "Why"]);
    for entry in &ledger.entries {
        let change = match (&entry.from, &entry.to) {
            (Some(from), Some(to)) if from != to => format!("{} to {}", escape(from), escape(to)),
            (_, Some(to)) => escape(to),
            _ => "-".into(),
        };
        let reason = entry.reason.as_deref().map_or_else(|| "-".into(), escape);
        table.row(&[
            instant(entry.time),
            escape(&entry.event),
            escape(&entry.subject),
            change,
            escape(&entry.actor),
            reason,
        ]);
    }
    html.push_str(&region("Entries of the ledger", &table.finish()));
    html
}
