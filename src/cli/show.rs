//! How things are shown to people.

use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::digest::Digest;
use tidegate_model::position::rounded;
use tidegate_model::rollout::Offer;
use tidegate_model::time;

use super::ui::{Progress as Bar, Ui};
use crate::config::write_share;
use crate::error::Result;
use crate::fs;
use crate::metadata::MAX_ROOT;
use crate::release::Record;
use crate::release::delivery::Progress;
use crate::release::report::{CheckResult, ValidationReport, Verdict};
use crate::workspace::CohortInForce;
use tidegate_model::span::Span;

/// Prints rows under headings, columns as wide as they need to be.
pub(super) fn table(ui: &Ui, headings: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(headings.get(column).map(|heading| heading.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    ui.result(line(headings.to_vec()))?;
    for row in rows {
        ui.result(line(row.iter().map(String::as_str).collect()))?;
    }
    Ok(())
}

/// Of very many rows only the first and the last.
pub(super) fn folded(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    const MOST: usize = 40;
    if rows.len() <= MOST {
        return rows;
    }
    let left_out = rows.len() - MOST;
    let mut kept = rows;
    let rest = kept.split_off(MOST / 2);
    kept.push(vec![format!("({left_out} more; --json has them all)")]);
    kept.extend(rest.into_iter().skip(left_out));
    kept
}

/// Where a finding's words begin.
const DETAIL: usize = 18;

/// Prints the findings of a validation, kind by kind.
pub(super) fn findings(ui: &Ui, report: &ValidationReport) -> Result<()> {
    let mut kind = None;
    for finding in &report.findings {
        if kind != Some(finding.kind) {
            kind = Some(finding.kind);
            ui.result(finding.kind)?;
        }
        let verdict = match finding.verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "look",
            Verdict::Fail => "FAIL",
            Verdict::NotApplicable => " -  ",
        };
        let CheckResult { rule, title, detail, .. } = finding;
        match finding.verdict {
            Verdict::Pass | Verdict::NotApplicable => {
                ui.folded(&format!("  {verdict}  {rule}  {title} ({detail})"), DETAIL)?;
            }
            Verdict::Warn | Verdict::Fail => {
                ui.folded(&format!("  {verdict}  {rule}  {title}"), DETAIL)?;
                ui.folded(&format!("{:DETAIL$}{detail}", ""), DETAIL)?;
            }
        }
    }
    Ok(())
}

/// Shows how far some work is.
pub(super) fn step(ui: &Ui, bar: &mut Option<Bar>, progress: Progress<'_>) {
    match progress {
        Progress::Begin(what, length) => *bar = Some(ui.progress_bytes(length, what)),
        Progress::Done(count) => {
            if let Some(bar) = bar {
                bar.advance(count);
            }
        }
    }
}

/// Prints a release's record.
pub(super) fn record(ui: &Ui, record: &Record) -> Result<()> {
    ui.result(format_args!("release      {}", record.id()))?;
    ui.result(format_args!("state        {}", record.status()))?;
    let mut build = record.build_id.to_string();
    for part in [&record.source, &record.provenance.as_ref().and_then(|p| p.builder.clone())].into_iter().flatten() {
        build = format!("{build}, {part}");
    }
    ui.result(format_args!("build        {build}"))?;
    if let Some(manifest) = &record.manifest {
        ui.result(format_args!("sequence     {}", manifest.sequence))?;
        ui.result(format_args!("manifest     {} bytes, sha256 {}", manifest.length, manifest.sha256))?;
    }
    for artifact in &record.artifacts {
        let hardware: Vec<_> = artifact.hardware.iter().map(AsRef::as_ref).collect();
        ui.result(format_args!(
            "artifact     {}, {} bytes, for {}",
            artifact.name,
            artifact.length,
            hardware.join(" ")
        ))?;
        ui.result(format_args!("             sha256 {}", artifact.sha256))?;
        if let Some(delivery) = &artifact.delivery {
            let (chunks, patches) = (delivery.index.length + delivery.pack.length, &delivery.patches);
            ui.result(format_args!("             chunks, {chunks} bytes at most"))?;
            for patch in patches {
                ui.result(format_args!("             patch from {}, {} bytes", patch.from.version, patch.length))?;
            }
        }
    }
    if let Some(eligibility) = &record.eligibility {
        ui.result(format_args!("eligibility  {eligibility}"))?;
    }
    if let Some(range) = &record.upgrade_from {
        ui.result(format_args!("upgrade from {range}"))?;
    }
    if !record.supersedes.is_empty() {
        let sequences: Vec<_> = record.supersedes.iter().map(ToString::to_string).collect();
        ui.result(format_args!("supersedes   sequence {}", sequences.join(", ")))?;
    }
    if let Some(retraction) = &record.retraction {
        ui.result(format_args!("replaces     {}, with the bytes of {}", retraction.of, retraction.to))?;
    }
    for note in &record.notes {
        ui.result(format_args!("note         {note}"))?;
    }
    Ok(())
}

/// From so many cohorts on, neighbours that stand alike are told once.
const MANY_COHORTS: usize = 24;

/// Prints who is offered what of a product: a line for each offer, in order of preference.
pub(super) fn cohorts(ui: &Ui, in_force: &[CohortInForce], now: DateTime<Utc>) -> Result<()> {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut last: Vec<Vec<String>> = Vec::new();
    let mut alike = 0;
    let told = |alike: usize| vec![format!("({alike} more alike)")];
    for current in in_force {
        let mut own = offer_rows(current, now);
        if in_force.len() > MANY_COHORTS && last == own {
            alike += 1;
            continue;
        }
        if alike > 0 {
            rows.push(told(alike));
        }
        alike = 0;
        last.clone_from(&own);
        let protected = if current.protected { " (protected)" } else { "" };
        let mut name = format!("{}{protected}", current.cohort);
        for row in &mut own {
            row.insert(0, std::mem::take(&mut name));
        }
        rows.extend(own);
    }
    if alike > 0 {
        rows.push(told(alike));
    }
    table(ui, &["COHORT", "SHARE", "RELEASE", "STAGE", "EXPOSED", "UNTIL"], &rows)
}

/// A row for each offer of a cohort, without its name: share, release, stage, exposure, and when the offer ends.
fn offer_rows(current: &CohortInForce, now: DateTime<Utc>) -> Vec<Vec<String>> {
    let mut share = current.share.map_or_else(|| "named".into(), write_share);
    // With the role, all its offers end.
    let has_expired = current.expires <= now;
    if current.offers.is_empty() {
        let until = if has_expired { expiry(current.expires, now) } else { "-".into() };
        return vec![vec![share, "-".into(), "-".into(), "-".into(), until]];
    }
    let row = |offer: &Offer| {
        let stage = if offer.paused { format!("{} (paused)", offer.stage) } else { offer.stage.to_string() };
        let exposed = rounded(current.exposed(offer.sequence, now));
        let exposed = match offer.ramp {
            Some(ramp) if !offer.paused && ramp.end() > now && ramp.from() < ramp.to() => {
                let left = Span::from_delta(ramp.end() - now);
                format!("{exposed}, {} in {left}", rounded(ramp.to()))
            }
            _ => exposed,
        };
        let private = if current.protected && offer.private { " (private)" } else { "" };
        let until = match offer.until {
            _ if has_expired => expiry(current.expires, now),
            Some(until) if offer.has_ended(now) => format!("{} ENDED", time::format(until)),
            Some(until) => expiry(until, now),
            None => "-".into(),
        };
        vec![std::mem::take(&mut share), format!("{}{private}", offer.release), stage, exposed, until]
    };
    current.offers.iter().map(row).collect()
}

/// An expiry, with how long that is.
pub(super) fn expiry(expires: DateTime<Utc>, now: DateTime<Utc>) -> String {
    if expires <= now {
        return format!("{} EXPIRED", time::format(expires));
    }
    let left = expires - now;
    // Seconds matter only when there are few.
    let odd = if left.num_hours() >= 1 { left.num_seconds() % 60 } else { 0 };
    let left = Span::from_delta(left - TimeDelta::seconds(odd));
    // Days are enough when there are many.
    let left = if left.seconds() >= 2 * 86_400 { format!("{}d", left.seconds() / 86_400) } else { left.to_string() };
    format!("{} ({left})", time::format(expires))
}

/// The file that every device is shipped with, in the workspace `dir`.
pub(super) fn first_root(ui: &Ui, dir: &Path) -> Result<()> {
    let path = dir.join("metadata/1.root.json");
    let sha256 = Digest::of(&fs::read(&path, MAX_ROOT)?);
    ui.status("");
    ui.status("Ship devices with the first root; they verify everything else from it:");
    ui.result(format_args!("{}  sha256 {sha256}", path.display()))
}
