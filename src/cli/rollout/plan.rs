//! `tidegate rollout plan`: what a rollout will do, before anything is signed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::Args as ClapArgs;
use tidegate_model::decision::Installed;
use tidegate_model::facts::{Facts, TypedFact};
use tidegate_model::name::HardwareId;
use tidegate_model::receipt::DeliveryWay;
use tidegate_model::time;
use tidegate_model::version::{self, Version};

use super::super::show;
use crate::cli::context::{Context, parse_instant};
use crate::config::write_share;
use crate::error::{Error, Result};
use crate::fleet::Fleet;
use crate::forecast::curve::{self, Curve};
use crate::forecast::delivery::{BytesByWay, Fetched};
use crate::forecast::simulate::Simulation;
use crate::forecast::{ExpectedStep, FleetForecast, Forecast, MadeUp, Outlook, StepKind};
use crate::fs;
use crate::release::record::ReleaseSpec;
use crate::rollout::RolloutTransaction;
use crate::workspace::Workspace;
use tidegate_model::span::Span;

/// How many cohorts have a column of their own in the table of hours.
const COLUMNS: usize = 6;
/// How wide the curve is at most.
const CURVE: usize = 72;

#[derive(Debug, ClapArgs)]
#[command(group = clap::ArgGroup::new("whom").args(["fleet", "devices"]).required(true))]
#[command(override_usage = "tidegate rollout plan [OPTIONS] <RELEASE> --fleet <FILE>
       tidegate rollout plan [OPTIONS] <RELEASE> --devices <COUNT>")]
#[command(after_help = "Examples:
  tidegate rollout plan 1.2.0 --devices 1000000
  tidegate rollout plan 1.2.0 --fleet fleet.csv --svg plan.svg
  tidegate rollout plan stable/os/1.2.0 --devices 5000 --ramp 24h --hours 96 \\
    --from 2026-03-02T08:00:00Z

fleet.csv:
  id,hardware,version,sequence,group
  device-0001,board-a,1.1.0,7,field")]
pub(super) struct Args {
    /// The release; it may still be a draft
    release: ReleaseSpec,
    /// The fleet, as CSV; `-` for standard input. The columns are id, hardware, version, sequence, and facts by name
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Simulate a fleet of this many devices
    #[arg(long, value_name = "COUNT")]
    devices: Option<u64>,
    /// What the simulated devices run [default: the previous release]
    #[arg(long, value_name = "VERSION", value_parser = version::parse, conflicts_with = "fleet", requires = "sequence")]
    installed: Option<Version>,
    /// The sequence of what they run
    #[arg(long, value_name = "NUMBER", conflicts_with = "fleet", requires = "installed")]
    sequence: Option<u64>,
    /// A kind of hardware of the made-up devices; repeat it for more [default: all that the release is for]
    #[arg(long, value_name = "ID", conflicts_with = "fleet")]
    hardware: Vec<HardwareId>,
    /// A fact of the made-up devices; repeat it for more
    #[arg(long = "fact", value_name = "NAME=VALUE", conflicts_with = "fleet")]
    facts: Vec<TypedFact>,
    /// When the first step may be taken [default: now]
    #[arg(long, value_name = "RFC3339", value_parser = parse_instant)]
    from: Option<DateTime<Utc>>,
    /// How many hours to look at [default: until every cohort has it]
    #[arg(long, value_name = "COUNT", conflicts_with = "until")]
    hours: Option<usize>,
    /// Until when to look
    #[arg(long, value_name = "RFC3339", value_parser = parse_instant)]
    until: Option<DateTime<Utc>>,
    /// Expose each cohort over this time, instead of as fast as policy.toml allows
    #[arg(long, value_name = "SPAN")]
    ramp: Option<Span>,
    /// Draw the curve as a picture, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) fn run(args: &Args, cx: &Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let transaction = RolloutTransaction::open(&workspace, &args.release, cx.now)?;
    let from = args.from.unwrap_or(cx.now);
    let mut forecast = Forecast::new(&transaction, &Outlook { from, hours: hours(args, from)?, ramp: args.ramp })?;
    // Nothing is written: others may go on with the workspace while the fleet is looked at.
    drop(transaction);
    drop(workspace);
    let (fleet, said) = match &args.fleet {
        Some(path) => (Fleet::csv(path, forecast.scope())?, path.display().to_string()),
        None => forecast.made_up(MadeUp {
            devices: args.devices.unwrap_or_default(),
            hardware: args.hardware.iter().cloned().collect::<BTreeSet<_>>(),
            installed: args
                .installed
                .clone()
                .zip(args.sequence)
                .map(|(version, sequence)| Installed { version, sequence }),
            facts: args.facts.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect::<Facts>(),
        })?,
    };
    let mut bar = cx.ui.progress_items(fleet.length(), "looking at the fleet");
    let mut told = 0;
    let outcome = forecast.over(fleet, said, |fleet| {
        bar.advance(fleet.done() - told);
        told = fleet.done();
    })?;
    drop(bar);
    if let Some(path) = &args.svg {
        draw(path, &outcome)?;
        cx.ui.status(format_args!("Drew {}", path.display()));
    }
    if cx.ui.is_json() {
        return cx.ui.json(&outcome);
    }
    print(&outcome, cx)
}

fn hours(args: &Args, from: DateTime<Utc>) -> Result<Option<usize>> {
    let Some(until) = args.until else { return Ok(args.hours) };
    let seconds = (until - from).num_seconds();
    if seconds <= 0 {
        return Err(Error::usage(format!("--until {} is not after the beginning", time::format(until)))
            .remedy(format!("give a time after {}", time::format(from))));
    }
    Ok(usize::try_from(seconds.unsigned_abs().div_ceil(3600)).ok())
}

fn print(outcome: &FleetForecast, cx: &Context) -> Result<()> {
    let ui = &cx.ui;
    let FleetForecast { release, state, fleet, course, simulation, curve, .. } = outcome;
    ui.result(format_args!("{release}, which is {state}: a plan from {}", time::format(simulation.window.from)))?;
    ui.result(format_args!("fleet  {fleet}"))?;
    for assumption in &course.assumptions {
        ui.result(format_args!("assumed: {assumption}"))?;
    }
    if simulation.others > 0 {
        ui.result(format_args!("not counted: {} devices of other products or channels", simulation.others))?;
    }
    ui.result("")?;
    show::table(ui, &["WHEN", "WHAT", "COHORT", "HOW", "ALL OF IT"], &steps(&course.steps))?;
    for (cohort, why) in &course.passed_over {
        ui.result(format_args!("skipped: {cohort}: {why}"))?;
    }
    ui.result("")?;
    show::table(ui, &["COHORT", "DEVICES", "OFFERED", "LATER", "HAVE IT", "NEVER"], &cohorts(simulation))?;
    for tally in &simulation.cohorts {
        for (why, count) in &tally.never {
            ui.result(format_args!("never: {count} of {}: {why}", tally.cohort))?;
        }
        if tally.by_way_of_others > 0 {
            ui.result(format_args!("{} of {} take another release first", tally.by_way_of_others, tally.cohort))?;
        }
    }
    let version = release.rsplit('/').next().unwrap_or(release);
    for (before, count) in &simulation.twice {
        ui.result(format_args!("{count} devices update twice ({before}, then {version})"))?;
    }
    ui.result("")?;
    for line in curve::terminal(&drawn(outcome), CURVE) {
        ui.result(line)?;
    }
    ui.result("")?;
    let (headings, rows) = by_hour(simulation, curve);
    show::table(ui, &headings.iter().map(String::as_str).collect::<Vec<_>>(), &rows)?;
    print_delivery(outcome, cx)
}

/// What devices fetch: by version and way, then by hour.
fn print_delivery(outcome: &FleetForecast, cx: &Context) -> Result<()> {
    let (ui, delivery) = (&cx.ui, &outcome.delivery);
    if delivery.ways.is_empty() {
        return Ok(());
    }
    ui.result("")?;
    let row = |fetched: &Fetched| {
        let Fetched { artifact, from, way, devices, bytes_each, bytes } = fetched;
        let numbers = [*devices, *bytes_each, *bytes].map(|number| number.to_string());
        [vec![artifact.to_string(), from.to_string(), way.name().to_owned()], numbers.to_vec()].concat()
    };
    let rows = show::folded(delivery.ways.iter().map(row).collect());
    show::table(ui, &["ARTIFACT", "FROM", "WAY", "DEVICES", "BYTES EACH", "BYTES"], &rows)?;
    for assumption in &delivery.assumptions {
        ui.result(format_args!("assumed: {assumption}"))?;
    }
    let (total, without) = (delivery.total.sum(), delivery.without);
    if delivery.ways.iter().all(|fetched| fetched.way == DeliveryWay::Whole) {
        return ui.result(format_args!("in all: {total} bytes"));
    }
    ui.result(format_args!("in all: at most {total} bytes; {without} if every device fetched whole artifacts"))?;
    ui.result("")?;
    let from = outcome.simulation.window;
    let busy = delivery.hours.iter().enumerate().filter(|(_, bytes)| bytes.sum() > 0);
    let row = |(hour, bytes): (usize, &BytesByWay)| {
        [
            vec![time::format(from.instant(hour))],
            [bytes.patch, bytes.chunks, bytes.whole].map(|n| n.to_string()).to_vec(),
        ]
        .concat()
    };
    show::table(ui, &["BY", "PATCH", "CHUNKS", "WHOLE"], &show::folded(busy.map(row).collect()))
}

fn steps(steps: &[ExpectedStep]) -> Vec<Vec<String>> {
    let row = |step: &ExpectedStep| {
        let how = match &step.ramp {
            None => "all at once".into(),
            Some(ramp) if ramp.from() == ramp.to() => format!("{} at once", write_share(ramp.to())),
            Some(ramp) => format!(
                "{} to {} in {}",
                write_share(ramp.from()),
                write_share(ramp.to()),
                Span::from_delta(ramp.end() - ramp.start())
            ),
        };
        vec![time::format(step.at), what(step.what).into(), step.cohort.to_string(), how, time::format(step.whole)]
    };
    show::folded(steps.iter().map(row).collect())
}

fn what(taken: StepKind) -> &'static str {
    match taken {
        StepKind::InForce => "in force",
        StepKind::Start => "start",
        StepKind::Advance => "advance",
    }
}

fn cohorts(simulation: &Simulation) -> Vec<Vec<String>> {
    let row = |name: String, counts: [u64; 5]| [vec![name], counts.map(|count| count.to_string()).to_vec()].concat();
    let of = |tally: &crate::forecast::simulate::Tally| {
        [tally.devices, tally.offered_in_all(), tally.later, tally.have_it, tally.never_in_all()]
    };
    let mut rows: Vec<_> = simulation.cohorts.iter().map(|tally| row(tally.cohort.to_string(), of(tally))).collect();
    rows = show::folded(rows);
    let mut all = [0; 5];
    for tally in &simulation.cohorts {
        for (sum, count) in all.iter_mut().zip(of(tally)) {
            *sum += count;
        }
    }
    rows.push(row("all".into(), all));
    rows
}

/// The hours in which anything happens.
fn by_hour(simulation: &Simulation, curve: &[u64]) -> (Vec<String>, Vec<Vec<String>>) {
    let devices = u128::from(simulation.devices().max(1));
    let own: Vec<_> =
        if simulation.cohorts.len() <= COLUMNS { simulation.cohorts.iter().collect() } else { Vec::new() };
    let mut headings: Vec<String> = ["BY", "NEW", "OFFERED", "OF ALL"].map(str::to_owned).into();
    headings.extend(own.iter().map(|tally| tally.cohort.to_string()));
    let mut totals = vec![0; own.len()];
    let mut rows = Vec::new();
    let mut quiet = 0;
    for (hour, count) in curve.iter().enumerate() {
        let before = hour.checked_sub(1).and_then(|hour| curve.get(hour)).copied().unwrap_or(0);
        for (total, tally) in totals.iter_mut().zip(&own) {
            *total += tally.offered.get(hour).copied().unwrap_or_default();
        }
        // The first and the last hour are always told.
        if *count == before && hour > 0 && hour + 1 < curve.len() {
            quiet += 1;
            continue;
        }
        if quiet > 0 {
            rows.push(vec![format!("({quiet}h without change)")]);
        }
        quiet = 0;
        let share = u32::try_from(u128::from(*count) * 1_000_000 / devices).unwrap_or(1_000_000);
        // Hundredths of a percent are enough.
        let share = write_share(share / 100 * 100);
        let mut row = vec![
            time::format(simulation.window.instant(hour)),
            format!("+{}", count - before),
            count.to_string(),
            share,
        ];
        row.extend(totals.iter().map(u64::to_string));
        rows.push(row);
    }
    (headings, rows)
}

fn drawn(outcome: &FleetForecast) -> Curve {
    let from = outcome.simulation.window.from;
    #[allow(clippy::cast_precision_loss, reason = "for drawing only")]
    let hours = |at: DateTime<Utc>| (at - from).num_seconds().max(0) as f64 / 3600.0;
    let planned = outcome.course.steps.iter().filter(|step| step.what != StepKind::InForce);
    Curve {
        title: format!("{}: devices that are offered it", outcome.release),
        devices: outcome.simulation.devices(),
        from,
        values: outcome.curve.clone(),
        marks: planned
            .map(|step| (hours(step.at), format!("{}, {}", step.cohort, step.at.format("%Y-%m-%d %H:%M"))))
            .collect(),
    }
}

fn draw(path: &Path, outcome: &FleetForecast) -> Result<()> {
    fs::write_atomic(path, curve::svg(&drawn(outcome)).as_bytes())
}
