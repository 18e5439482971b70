//! `tidegate receipts`: how devices fare, by what they say.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;
use tidegate_model::name::{HardwareId, Name};
use tidegate_model::time;

use super::context::{Context, block_on};
use super::show;
use crate::config::{ReceiptSettings, Settings, write_share};
use crate::error::{Error, Result, Rule};
use crate::fs;
use crate::publish::{Options, Remote};
use crate::receipts::{
    self, Counter, Enrolments, Fetched, Reason, ReceiptReport, ReleaseReport, Releases, Scope, Tally,
};
use crate::release::record::ReleaseSpec;
use crate::rollout::health::Action;
use crate::workspace::Workspace;
use crate::workspace::ledger::clean;
use tidegate_model::span::Span;

/// How many reasons the table has.
const REASONS: usize = 10;

/// Summarize install results reported by devices
///
/// Reads the receipts that the gate stored, verifies each with the key that its device enrolled, and reports how many were refused
/// and why. Counts devices by cohort, hardware and reason, not receipts: the last result of a device for a release counts.
///
/// With --health, writes the counts as the report that `tidegate rollout renew --require-health` reads, so that a rollout with too
/// many failures stops by itself.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate receipts file:receipts --enrolments file:enrolments
  tidegate receipts file:receipts --enrolments file:enrolments --release 1.2.0 \\
    --health health.json
  tidegate receipts s3://fleet-receipts/v1 --product os \\
    --enrolments s3://fleet-enrolments/v1

A health job publishes in any case, so that a pause reaches the devices:

    tidegate receipts --release 1.2.0 --health health.json &&
    tidegate rollout renew 1.2.0 --require-health health.json; healthy=$?
    tidegate publish; exit $healthy

docs/rollout.md describes what is counted and what is refused.")]
pub(super) struct Args {
    /// Where receipts are stored, as in the gate's `receipts`: file:FOLDER, s3://, gs://, az:// [default: receipts.places in
    /// tidegate.toml]
    #[arg(value_name = "PLACE")]
    places: Vec<String>,
    /// Where the devices' keys are enrolled, as in the gate's `enrolments` [default: receipts.enrolments in tidegate.toml]
    #[arg(long, value_name = "PLACE")]
    enrolments: Option<String>,
    /// Only this release
    #[arg(long, value_name = "RELEASE", conflicts_with_all = ["channel", "product"])]
    release: Option<ReleaseSpec>,
    /// Only this channel
    #[arg(long, value_name = "NAME")]
    channel: Option<Name>,
    /// Only this product
    #[arg(long, value_name = "NAME")]
    product: Option<Name>,
    /// Write the health report that `tidegate rollout renew --require-health` reads; `-` writes it to standard output, and
    /// nothing else
    #[arg(long, value_name = "FILE")]
    health: Option<PathBuf>,
    /// Write that report only if a device sent a receipt within this time, as no receipts look like no failures
    #[arg(long, value_name = "SPAN", requires = "health")]
    heard_within: Option<Span>,
    /// How long to retry requests that fail for temporary reasons
    #[arg(long, value_name = "SPAN", default_value = "3m")]
    retry_for: Span,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    let to_stdout = args.health.as_deref() == Some(Path::new("-"));
    if to_stdout && cx.ui.is_json() {
        return Err(Error::usage("--health - and --json both write to standard output")
            .remedy("leave one of them out, or give --health a file"));
    }
    let scope = Scope { channel: args.channel.clone(), product: args.product.clone(), release: args.release.clone() };
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let settings = workspace.settings()?;
    let releases = Releases::of(&workspace, &scope)?;
    let policy = workspace.policy()?.health;
    // Reading may take long, and changes nothing: others may go on with the workspace.
    drop(workspace);
    let (places, enrolled_at) = args.open(&cx.dir, &settings)?;

    let mut counter = Counter::new(&releases, cx.now);
    let enrolments = block_on(async {
        let mut bar = cx.ui.progress_count("enrolments read");
        let enrolments = Arc::new(Enrolments::read(&enrolled_at, |more| bar.advance(more)).await?);
        let mut bar = cx.ui.progress_count("receipts read");
        for place in &places {
            place.must_be_there()?;
            for below in releases.prefixes(&scope) {
                receipts::read(place, &below, &enrolments, |name, found| {
                    bar.advance(1);
                    counter.take(name, found);
                })
                .await?;
            }
        }
        Ok(enrolments)
    })?;
    if let Some(name) = enrolments.unreadable().first() {
        let more = enrolments.unreadable().len() - 1;
        let (name, at) = (clean(name), enrolled_at.name());
        let more = if more > 0 { format!(", nor are {more} others") } else { String::new() };
        cx.ui.warn(format_args!(
            "{name} at {at} is not a valid enrolment{more}: receipts of these devices do not count"
        ));
    }
    let named = places.iter().map(|place| place.name().to_owned()).collect();
    let report = counter.report(named, Some(enrolments.enrolled()), policy.as_ref());
    let silence = args.heard_within.and_then(|within| silence(&report, within));
    let health = args.health.as_ref().filter(|_| silence.is_none());
    if let Some(file) = health {
        if to_stdout {
            return cx.ui.json(&report.health());
        }
        let mut text = serde_json::to_vec_pretty(&report.health())
            .map_err(|error| Error::bug("a report cannot be written").with_source(error))?;
        text.push(b'\n');
        fs::write_atomic(file, &text)?;
    }
    if cx.ui.is_json() {
        let mut told = serde_json::to_value(&report)
            .map_err(|error| Error::bug("a report cannot be written").with_source(error))?;
        told["health"] = health.map_or(Value::Null, |file| file.display().to_string().into());
        cx.ui.json(&told)?;
    } else if !to_stdout {
        print(&report, args, health, cx)?;
    }
    silence.map_or(Ok(()), Err)
}

/// What stands against a report when no device has spoken for longer than that.
fn silence(report: &ReceiptReport, within: Span) -> Option<Error> {
    let said = match report.newest {
        Some(newest) if report.at - newest <= within.delta() => return None,
        Some(newest) => format!("the last receipt that counts is of {}", time::format(newest)),
        None => "no receipt counts".to_owned(),
    };
    let what = format!("{said}, and a receipt is required within {within}: no report is written");
    let remedy = "check that receipts arrive; until they do, the rollout is not renewed and stops by itself";
    Some(Error::refused(Rule::HealthSilence, what).remedy(remedy))
}

impl Args {
    /// The places with receipts, and that with enrolments.
    fn open(&self, dir: &Path, settings: &Settings) -> Result<(Vec<Remote>, Remote)> {
        let options =
            Options { retry_for: self.retry_for.delta().to_std().unwrap_or(Duration::ZERO), ..Options::default() };
        sources(&self.places, self.enrolments.as_deref(), (dir, &settings.receipts), &options)
    }
}

/// Opens the places with receipts, and that with enrolments: as given, else as the workspace has them.
///
/// # Errors
///
/// A usage error if one of them is not named.
pub(super) fn sources(
    places: &[String],
    enrolments: Option<&str>,
    (dir, settings): (&Path, &ReceiptSettings),
    options: &Options,
) -> Result<(Vec<Remote>, Remote)> {
    let here = Path::new("");
    let places: Vec<_> = match places {
        [] => settings.places.iter().map(|place| open(place, dir, options)).collect::<Result<_>>()?,
        given => given.iter().map(|place| open(place, here, options)).collect::<Result<_>>()?,
    };
    if places.is_empty() {
        return Err(Error::usage("no receipts location configured")
            .remedy("name the place, such as file:receipts, or set receipts.places in tidegate.toml"));
    }
    let enrolments = match (enrolments, &settings.enrolments) {
        (Some(given), _) => open(given, here, options)?,
        (None, Some(set)) => open(set, dir, options)?,
        (None, None) => {
            return Err(Error::usage(
                "no location of enrolled device keys configured; receipts cannot be verified without it",
            )
            .remedy("give --enrolments PLACE, or set receipts.enrolments in tidegate.toml"));
        }
    };
    Ok((places, enrolments))
}

/// Opens a place; `file:FOLDER`, and a folder by its path, count from `base`.
fn open(place: &str, base: &Path, options: &Options) -> Result<Remote> {
    if place.contains("://") {
        return Remote::open_with(place, options);
    }
    let folder = base.join(place.strip_prefix("file:").unwrap_or(place));
    let folder = folder.to_str().ok_or_else(|| Error::usage(format!("{} is not UTF-8", folder.display())))?;
    Remote::open_with(folder, options)
}

fn print(report: &ReceiptReport, args: &Args, health: Option<&PathBuf>, cx: &Context) -> Result<()> {
    let ui = &cx.ui;
    for release in &report.releases {
        print_release(release, cx)?;
        ui.result("")?;
    }
    if report.releases.is_empty() {
        ui.result("No device is offered a release, and none has sent a receipt.")?;
    }
    for refused in &report.refused {
        ui.result(format_args!(
            "refused  {}  {}: {}, such as {}",
            refused.count,
            refused.why.id(),
            refused.text,
            // Whoever put it there has named it.
            clean(&refused.example)
        ))?;
    }
    if let Some(enrolled) = &report.enrolled {
        let newest = report.newest.map(|at| format!(", the last of {}", time::format(at))).unwrap_or_default();
        ui.status(format_args!(
            "Counted {} receipts{newest}; {} devices are enrolled, {} of them disabled",
            report.counted, enrolled.devices, enrolled.disabled
        ));
        if enrolled.shared > 0 {
            ui.warn(format_args!(
                "{} keys are enrolled for several devices each, and are not counted: give each device its own key",
                enrolled.shared
            ));
        }
    }
    if report.counted == 0 && report.refused() > 0 {
        ui.warn("no receipt counts: are these the enrolments of the devices that sent them?");
    }
    if let Some(file) = health {
        ui.status(format_args!("Wrote {}", file.display()));
        let going = report.releases.iter().filter(|release| release.is_offered);
        // Of what is offered the newest is the one that is on its way.
        if let Some(release) = going.max_by_key(|release| release.sequence) {
            ui.hint(format_args!("tidegate rollout renew {} --require-health {}", release.release, file.display()));
        }
    } else if args.health.is_none() {
        let mut words = vec!["tidegate receipts"];
        words.extend(args.places.iter().map(String::as_str));
        words.extend(args.enrolments.iter().flat_map(|place| ["--enrolments", place]));
        ui.hint(format_args!("{} --health health.json, for tidegate rollout renew --require-health", words.join(" ")));
    }
    Ok(())
}

fn print_release(release: &ReleaseReport, cx: &Context) -> Result<()> {
    let ui = &cx.ui;
    let Tally { offered, .. } = release.all;
    let (failing, tried) = (release.all.failing(), release.all.tried());
    ui.result(format_args!(
        "{}, sequence {}: {offered} devices reported it; {failing} of the {tried} that tried it failed",
        release.release, release.sequence
    ))?;
    let mut rows: Vec<_> =
        release.groups.iter().map(|group| row(group.cohort.as_str(), group.hardware.as_str(), &group.tally)).collect();
    let silent = release.cohorts.iter().filter(|(_, tally)| tally.offered == 0);
    rows.extend(silent.map(|(cohort, tally)| row(cohort.as_str(), "-", tally)));
    rows.sort();
    let mut rows = show::folded(rows);
    rows.push(row("all", "", &release.all));
    let headings =
        ["COHORT", "HARDWARE", "OFFERED", "INSTALLED", "CONFIRMED", "FAILED", "ROLLED BACK", "OPEN", "FAILING"];
    show::table(ui, &headings, &rows)?;
    if release.all.recovered > 0 {
        ui.result(format_args!(
            "{} of those that confirmed it had failed or rolled back before",
            release.all.recovered
        ))?;
    }
    if let Some(delivery) = &release.delivery {
        let row = |(way, fetched): (&str, Fetched)| {
            [vec![way.to_owned()], [fetched.devices, fetched.bytes].map(|number| number.to_string()).to_vec()].concat()
        };
        show::table(ui, &["FETCHED AS", "DEVICES", "BYTES"], &delivery.ways().map(row).collect::<Vec<_>>())?;
        ui.result(format_args!(
            "{} bytes in all; whole artifacts would be {} bytes, {} more",
            delivery.bytes(),
            delivery.without,
            delivery.saved()
        ))?;
    }
    if !release.reasons.is_empty() {
        let mut rows: Vec<_> = release.reasons.iter().take(REASONS).map(reason).collect();
        let others: u64 = release.reasons.iter().skip(REASONS).map(|reason| reason.devices).sum();
        let others = others + release.other_reasons;
        if others > 0 {
            rows.push(vec![others.to_string(), String::new(), "for other reasons; --json has more".into()]);
        }
        show::table(ui, &["DEVICES", "OUTCOME", "REASON", "HARDWARE", "COHORTS"], &rows)?;
    }
    for finding in release.verdict.iter().flat_map(|verdict| &verdict.findings) {
        let then = match finding.action {
            Action::Withdraw => "to renew it by this withdraws it",
            Action::Pause => "to renew it by this pauses it",
            Action::Renew => continue,
        };
        ui.result(format_args!("{}: {finding}: {then}", finding.rule))?;
    }
    Ok(())
}

fn row(cohort: &str, hardware: &str, tally: &Tally) -> Vec<String> {
    let Tally { offered, installed, confirmed, failed, rolled_back, .. } = *tally;
    let counts = [offered, installed, confirmed, failed, rolled_back, tally.open()];
    // Hundredths of a percent are enough.
    let share = write_share(tally.failing_share() / 100 * 100);
    let names = [cohort, hardware].map(str::to_owned);
    names.into_iter().chain(counts.map(|count| count.to_string())).chain([share]).collect()
}

fn reason(reason: &Reason) -> Vec<String> {
    fn list<T: AsRef<str>>(counts: &std::collections::BTreeMap<T, u64>) -> String {
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let named: Vec<_> = counts.iter().take(3).map(|(name, count)| format!("{} {count}", name.as_ref())).collect();
        named.join(", ")
    }
    vec![
        reason.devices.to_string(),
        reason.outcome.name().to_owned(),
        reason.reason.clone().unwrap_or_else(|| "-".into()),
        list::<HardwareId>(&reason.hardware),
        list::<Name>(&reason.cohorts),
    ]
}
