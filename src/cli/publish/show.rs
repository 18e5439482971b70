//! Publications in words.

use std::fmt::Write as _;

use crate::publish::{Concurrency, ObjectState, Plan, PublishReport, Remote};

/// A plan in words.
pub(super) fn plan(plan: &Plan, remote: &Remote) -> String {
    let totals = plan.totals();
    let from = plan.live.map_or_else(|| "empty".to_owned(), |live| format!("timestamp {live} is live"));
    let mut text = format!("{}: {from}; will publish timestamp {}\n", plan.place, plan.timestamp);
    let _ = writeln!(text, "  new        {:>6}", totals.new);
    let _ = writeln!(text, "  changed    {:>6}", totals.changed);
    let _ = writeln!(text, "  unchanged  {:>6}", totals.unchanged);
    let _ = write!(
        text,
        "  to send    {:>6} bytes in {} requests; planning took {}",
        totals.bytes, totals.requests, plan.requests
    );
    match remote.concurrency() {
        Concurrency::Lock | Concurrency::Conditional => {}
        Concurrency::Unknown => text.push_str("\n  first tests, once, whether the place supports conditional writes"),
        Concurrency::SingleWriter => {
            text.push_str("\n  it has no conditional writes: publish only with --single-writer");
        }
    }
    for object in plan.objects.iter().filter(|object| object.state != ObjectState::Unchanged) {
        let _ = write!(text, "\n  {:>12}  {}", object.length, short(&object.key));
        if let Some(private) = plan.private.as_ref().filter(|_| object.private) {
            let _ = write!(text, "  (to {private})");
        }
    }
    match plan.notices.as_slice() {
        [] if plan.is_done() => text.push_str("\nnothing to publish"),
        [] => text.push_str("\nonly metadata is renewed"),
        notices => {
            text.push_str("\ndevices will notice");
            for notice in notices {
                let _ = write!(text, "\n  {notice}");
            }
        }
    }
    text
}

/// A key with the hash in its name cut short: the whole one is in the JSON.
fn short(key: &str) -> String {
    let (folder, name) = key.rsplit_once('/').map_or(("", key), |(folder, name)| (folder, name));
    match name.split_once('.') {
        Some((hash, rest)) if hash.len() >= 64 => format!("{folder}/{}...{rest}", hash.get(..8).unwrap_or(hash)),
        _ => key.to_owned(),
    }
}

/// What a publication did, in a line.
pub(super) fn report(report: &PublishReport, place: &str) -> String {
    if report.written == 0 {
        return format!("{place} is up to date: timestamp {}", report.timestamp);
    }
    let found = if report.found == 0 { String::new() } else { format!(", {} were there already", report.found) };
    format!(
        "published timestamp {} to {place}: {} objects, {} bytes{found}",
        report.timestamp, report.written, report.bytes
    )
}
