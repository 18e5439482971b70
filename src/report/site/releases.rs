//! Rollouts and releases.

use std::fmt::Write as _;

use super::chart;
use super::html::{Mark, Table, bytes, code, instant, mark, region, relative, share};
use crate::markup::escape;
use crate::report::view::State;
use crate::report::view::state::{Channel, Cohort, FindingState, Members, Offer, Product, RecordState, Release};

/// From so many cohorts on, neighbours that stand alike are told once.
const MANY_COHORTS: usize = 24;

/// A channel's cohorts, what each is offered, and how each release spreads.
pub(super) fn rollouts(state: &State, channel: &Channel, index: usize) -> String {
    let mut html = String::new();
    if channel.products.is_empty() {
        html.push_str("<p>No release is approved yet.</p>");
        html.push_str(&cohorts(state, channel, None));
    }
    for (number, product) in channel.products.iter().enumerate() {
        let _ = write!(html, "<h3>{}</h3>", escape(&product.name));
        if !product.curves.is_empty() {
            html.push_str("<div class=\"charts\">");
            for (curve, shown) in product.curves.iter().take(4).enumerate() {
                html.push_str(&chart::exposure(shown, state.at, &format!("curve-{index}-{number}-{curve}")));
            }
            html.push_str("</div>");
        }
        html.push_str(&cohorts(state, channel, Some(product)));
    }
    html
}

fn cohorts(state: &State, channel: &Channel, product: Option<&Product>) -> String {
    let caption = match product {
        Some(product) => format!("Who is offered which {}; the first cohort that matches a device wins", product.name),
        None => "The cohorts; the first that matches a device wins".to_owned(),
    };
    let mut table = Table::new(&caption, &["Cohort", "Who", "Offered", "Open to", "Ends unless renewed"]);
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut alike = 0_usize;
    for (index, cohort) in channel.cohorts.iter().enumerate() {
        let row = cohort_row(state, cohort, product.and_then(|product| product.offers.get(index)));
        if channel.cohorts.len() > MANY_COHORTS && rows.last().is_some_and(|last| last.get(1..) == row.get(1..)) {
            alike += 1;
            continue;
        }
        fold(&mut rows, &mut alike);
        rows.push(row);
    }
    fold(&mut rows, &mut alike);
    for row in rows {
        table.row(&row);
    }
    region(&caption, &table.finish())
}

fn fold(rows: &mut Vec<Vec<String>>, alike: &mut usize) {
    if *alike > 0 {
        rows.push(vec![format!("{alike} more alike")]);
        *alike = 0;
    }
}

fn cohort_row(state: &State, cohort: &Cohort, offer: Option<&Offer>) -> Vec<String> {
    let who = match &cohort.members {
        Members::Share { ppm } => share(*ppm),
        Members::Devices { count: 1 } => "1 named device".into(),
        Members::Devices { count } => format!("{count} named devices"),
        Members::Condition { condition } => format!("devices with {}", code(condition)),
    };
    let expires = match cohort.expires {
        Some(at) if at <= state.at => mark(Mark::Bad, &format!("ended {}", relative(at, state.at))),
        Some(at) => relative(at, state.at),
        None if cohort.gate.is_some() => "not public".into(),
        None => mark(Mark::Bad, "its role does not verify"),
    };
    let who = match &cohort.gate {
        Some(gate) => format!("{who}, through {}", code(gate)),
        None => who,
    };
    let (release, open) = match offer {
        Some(Offer { release: Some(release), stage, paused, ramp, exposed_ppm, in_force, .. }) => {
            let life = stage.clone().unwrap_or_default();
            let word = match (in_force, paused) {
                (false, _) => mark(Mark::Bad, &format!("{life}, ended")),
                (true, true) => mark(Mark::Look, &format!("{life}, paused")),
                (true, false) => mark(Mark::Good, &life),
            };
            let mut open = format!("{}{}", chart::bar(*exposed_ppm), share(*exposed_ppm));
            if let Some(ramp) = ramp.as_ref().filter(|ramp| ramp.end > state.at && ramp.to_ppm > *exposed_ppm) {
                let _ = write!(open, ", {} {}", share(ramp.to_ppm), relative(ramp.end, state.at));
            }
            (format!("{} {word}", escape(release)), open)
        }
        _ if cohort.gate.is_some() && cohort.expires.is_none() => (mark(Mark::Neutral, "not public"), "-".into()),
        _ => (mark(Mark::Neutral, "nothing"), "-".into()),
    };
    vec![escape(&cohort.name), who, release, open, expires]
}

/// All releases, the newest first, each with its state, provenance and findings.
pub(super) fn releases(state: &State) -> String {
    let mut html = String::new();
    for channel in &state.channels {
        for product in &channel.products {
            let _ = write!(html, "<h3>{} on {}</h3>", escape(&product.name), escape(&channel.name));
            for release in &product.releases {
                let id = format!("{}/{}/{}", channel.name, product.name, release.version);
                html.push_str(&one(state, release, record(state, &id)));
            }
        }
    }
    // What the channel does not list: drafts, and what is retired.
    let listed = |id: &str| {
        state.channels.iter().any(|channel| {
            let products = channel.products.iter();
            products
                .flat_map(|p| p.releases.iter().map(move |r| (p, r)))
                .any(|(product, release)| id == format!("{}/{}/{}", channel.name, product.name, release.version))
        })
    };
    let records = state.workspace.iter().flat_map(|workspace| &workspace.releases);
    let others: Vec<&RecordState> = records.filter(|record| !listed(&record.release)).collect();
    if !others.is_empty() {
        html.push_str("<h3>Not approved</h3><ul class=\"plain\">");
        for record in others {
            let _ = write!(html, "<li>{} {}</li>", escape(&record.release), life(record));
        }
        html.push_str("</ul>");
    }
    if html.is_empty() { "<p>There is no release yet.</p>".into() } else { html }
}

fn record<'a>(state: &'a State, id: &str) -> Option<&'a RecordState> {
    state.workspace.as_ref()?.releases.iter().find(|record| record.release == id)
}

/// The state of a release in a word.
fn life(record: &RecordState) -> String {
    let kind = match record.state.as_str() {
        "stable" | "security" | "limited" | "validation" => Mark::Good,
        "withdrawn" => Mark::Bad,
        _ => Mark::Neutral,
    };
    if record.paused { mark(Mark::Look, &format!("{}, paused", record.state)) } else { mark(kind, &record.state) }
}

fn one(state: &State, release: &Release, record: Option<&RecordState>) -> String {
    let offered = !release.offered_to.is_empty();
    let word = match record {
        Some(record) => life(record),
        None if offered => mark(Mark::Good, "offered"),
        None => mark(Mark::Neutral, "approved"),
    };
    let security = if release.urgency == "security" { mark(Mark::Look, "security") } else { String::new() };
    let open = if offered { format!(", open to {} of the fleet", share(release.exposed_ppm)) } else { String::new() };
    let mut html = format!(
        "<details><summary><b>{}</b> {word} {security} <span class=\"quiet\">sequence {}, made {}{open}</span></summary><dl>",
        escape(&release.version),
        release.sequence,
        relative(release.created, state.at),
    );
    let mut line = |what: &str, text: String| {
        let _ = write!(html, "<dt>{}</dt><dd>{text}</dd>", escape(what));
    };
    if offered {
        line("Offered to", escape(&release.offered_to.join(", ")));
    }
    line("Made", instant(release.created));
    line("Build", escape(&release.build));
    if let Some(source) = &release.source {
        line("Source", code(source));
    }
    line(
        "Provenance",
        match &release.provenance {
            None => "none was given".into(),
            Some(provenance) => format!(
                "{} by {}, SHA-256 {}",
                code(&provenance.kind),
                provenance.builder.as_ref().map_or_else(|| "a builder it does not name".into(), |b| code(b)),
                code(&provenance.sha256)
            ),
        },
    );
    for artifact in &release.artifacts {
        line(
            "Artifact",
            format!(
                "{}, {}, for {}<br>SHA-256 {}",
                escape(&artifact.name),
                bytes(artifact.length),
                escape(&artifact.hardware.join(", ")),
                code(&artifact.sha256)
            ),
        );
    }
    if let Some(eligibility) = &release.eligibility {
        line("Only for devices with", code(eligibility));
    }
    if let Some(range) = &release.upgrade_from {
        line("Upgrades from", code(range));
    }
    if !release.supersedes.is_empty() {
        let sequences: Vec<String> = release.supersedes.iter().map(u64::to_string).collect();
        line("Takes back", format!("sequence {}", sequences.join(", ")));
    }
    for note in &release.notes {
        line("Note", escape(note));
    }
    line("Manifest", format!("SHA-256 {}", code(&release.manifest_sha256)));
    html.push_str("</dl>");
    if let Some(record) = record {
        html.push_str(&findings(state, record));
    }
    html.push_str("</details>");
    html
}

fn findings(state: &State, record: &RecordState) -> String {
    if let Some(fault) = &record.report_fault {
        return format!("<p>{} {}</p>", mark(Mark::Bad, "the validation report cannot be relied on"), escape(fault));
    }
    let Some(at) = record.validated else { return "<p class=\"quiet\">It was not validated.</p>".into() };
    let mut table = Table::new(&format!("Validated {}", relative(at, state.at)), &["Rule", "Result", "What", "Why"]);
    for FindingState { rule, title, verdict, detail, .. } in &record.findings {
        let verdict = match verdict.as_str() {
            "pass" => mark(Mark::Good, "pass"),
            "warn" => mark(Mark::Look, "look"),
            "fail" => mark(Mark::Bad, "fail"),
            _ => mark(Mark::Neutral, "not applicable"),
        };
        table.row(&[code(rule), verdict, escape(title), escape(detail)]);
    }
    table.finish()
}
