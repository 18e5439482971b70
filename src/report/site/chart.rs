//! Pictures: exposure in time, and how long things last. SVG without styles of its own, so that the page needs no script and no
//! inline style.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use tidegate_model::position::PPM;

use super::health;
use super::html::{relative, share};
use crate::markup::chart::{Chart, Frame, Label, Line, Mark, Point, Shape, Symbol, pixels, symbol};
use crate::markup::text;
use crate::report::view::state::{Curve, CurvePoint, HealthPoint, ReleaseHealth};

const FRAME: Frame = Frame { width: 420.0, height: 200.0, left: 50.0, right: 410.0, top: 24.0, bottom: 172.0 };
/// Labels of the first and last instant must be at least this far from that of the present.
const APART: f64 = 120.0;

/// A curve, with what devices reported drawn over it.
pub(super) fn exposure(curve: &Curve, health: Option<&ReleaseHealth>, now: DateTime<Utc>, id: &str) -> Markup {
    let reported = health.and_then(health::in_words).map(|words| format!(" {words}.")).unwrap_or_default();
    html! {
        svg viewBox=(FRAME.view_box()) role="img" aria-labelledby=(id) {
            title id=(id) { (text(&describe(curve, now))) (text(&reported)) }
            (chart(curve, health, now))
        }
    }
}

fn chart(curve: &Curve, health: Option<&ReleaseHealth>, now: DateTime<Utc>) -> Chart {
    let scale = Scale::of(curve, health, now);
    let (so_far, planned) = split(curve, now, scale.to);
    let label = |class, x, text| Label { class, x, anchor: FRAME.anchor(x), text };
    let here = scale.point(&CurvePoint { at: now, ppm: curve.now_ppm });
    let mut ticks = vec![label(Some("ink"), here.x, format!("now {}", share(curve.now_ppm)))];
    let ends = [so_far.first(), curve.points.last().filter(|last| last.at > now)];
    for end in ends.into_iter().flatten() {
        let x = scale.x(end.at);
        if (FRAME.x(x) - FRAME.x(here.x)).abs() > APART {
            ticks.push(label(None, x, end.at.format("%-d %b %H:%M").to_string()));
        }
    }
    let stop = curve.stops.map(|stops| {
        let x = scale.x(stops);
        Mark { class: "stop", x, label: Some(label(None, x, "renew by".to_owned())) }
    });
    let so_far = scale.points(&so_far);
    let reported: Vec<(&Series, Vec<Point>)> = health.map(|health| scale.reported(health)).unwrap_or_default();
    let symbols = reported
        .iter()
        .filter_map(|(series, points)| Some(Symbol { class: series.end, shape: series.shape, at: *points.last()? }));
    Chart {
        frame: FRAME,
        levels: (0..=2).map(|step| scale.most / 2 * step).map(|ppm| (scale.y(ppm), share(ppm))).collect(),
        ticks,
        area: so_far.clone(),
        marks: stop.into_iter().chain([Mark { class: "now", x: here.x, label: None }]).collect(),
        dot: reported.is_empty().then_some(here),
        symbols: symbols.collect(),
        lines: [("so-far", so_far), ("planned", scale.points(&planned))]
            .into_iter()
            .chain(reported.into_iter().map(|(series, points)| (series.line, points)))
            .map(|(class, points)| Line { class, points })
            .collect(),
    }
}

/// What a curve shows, in words.
pub(super) fn describe(curve: &Curve, now: DateTime<Utc>) -> String {
    let mut told = format!("{} is open to {} of the fleet", curve.release, share(curve.now_ppm));
    if curve.paused {
        told.push_str("; it is paused, so no further device gets it");
    } else if let Some(last) = curve.points.last().filter(|last| last.at > now) {
        let _ = write!(told, ", to be {} {}", share(curve.final_ppm), relative(last.at, now));
    }
    if let Some(stops) = curve.stops {
        let (when, relative) = (if stops <= now { "stopped" } else { "stops" }, relative(stops, now));
        let _ = write!(told, "; it {when} {relative} unless renewed");
    }
    told.push('.');
    told
}

/// The points until now, and those from now on.
fn split(curve: &Curve, now: DateTime<Utc>, end: DateTime<Utc>) -> (Vec<CurvePoint>, Vec<CurvePoint>) {
    let here = CurvePoint { at: now, ppm: curve.now_ppm };
    let mut so_far: Vec<_> = curve.points.iter().copied().filter(|point| point.at <= now).collect();
    so_far.push(here);
    // Nobody new takes what is paused.
    let later = curve.points.iter().copied().filter(|point| point.at > now && !curve.paused);
    let mut planned: Vec<_> = std::iter::once(here).chain(later).collect();
    if let Some(last) = planned.last().copied() {
        planned.push(CurvePoint { at: end, ..last });
    }
    (so_far, planned)
}

struct Scale {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    most: u32,
}

impl Scale {
    fn of(curve: &Curve, health: Option<&ReleaseHealth>, now: DateTime<Utc>) -> Self {
        let instants = || curve.points.iter().map(|point| point.at).chain([now]).chain(curve.stops);
        let (first, last) = (instants().min().unwrap_or(now), instants().max().unwrap_or(now));
        let margin = ((last - first) / 12).max(TimeDelta::minutes(30));
        let most = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000].into_iter();
        let reported = health.and_then(|health| Some(part(health, health.over_time.last()?.installed))).unwrap_or(0);
        let highest = curve.final_ppm.max(curve.now_ppm).max(reported);
        let most = most.filter(|most| *most >= highest).min().unwrap_or(PPM);
        Self { from: first - margin, to: last + margin, most }
    }

    #[allow(clippy::cast_precision_loss, reason = "pixels")]
    fn x(&self, at: DateTime<Utc>) -> f64 {
        (at - self.from).num_seconds() as f64 / (self.to - self.from).num_seconds().max(1) as f64
    }

    fn y(&self, ppm: u32) -> f64 {
        f64::from(ppm) / f64::from(self.most.max(1))
    }

    fn point(&self, point: &CurvePoint) -> Point {
        Point { x: self.x(point.at), y: self.y(point.ppm) }
    }

    fn points(&self, points: &[CurvePoint]) -> Vec<Point> {
        points.iter().map(|point| self.point(point)).collect()
    }

    /// What devices reported, as steps; of what went wrong only what did.
    fn reported(&self, health: &ReleaseHealth) -> Vec<(&'static Series, Vec<Point>)> {
        let Some(last) = health::last(&health.over_time) else { return Vec::new() };
        let shown = SERIES.iter().filter(|series| series.is_usual || (series.of)(&last) > 0);
        let points = |series: &Series| {
            let mut points: Vec<Point> = Vec::new();
            for reported in &health.over_time {
                let point = self.point(&CurvePoint { at: reported.at, ppm: part(health, (series.of)(reported)) });
                points.extend(points.last().map(|before| Point { x: point.x, y: before.y }));
                points.push(point);
            }
            points
        };
        shown.map(|series| (series, points(series))).collect()
    }
}

/// So many devices as a part of those that a plan's shares are of.
fn part(health: &ReleaseHealth, devices: u64) -> u32 {
    let ppm = u128::from(devices) * u128::from(PPM) / u128::from(health.fleet.max(1));
    u32::try_from(ppm).unwrap_or(PPM).min(PPM)
}

/// One of the lines of what devices report: told apart by shape and pattern, not by colour alone.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) of: fn(&HealthPoint) -> u64,
    line: &'static str,
    end: &'static str,
    shape: Shape,
    /// Whether it is drawn even if there is none.
    is_usual: bool,
}

pub(super) const SERIES: [Series; 4] = [
    Series {
        name: "Installed",
        of: |point| point.installed,
        line: "installed",
        end: "end",
        shape: Shape::Circle,
        is_usual: true,
    },
    Series {
        name: "Confirmed",
        of: |point| point.confirmed,
        line: "confirmed",
        end: "end",
        shape: Shape::Square,
        is_usual: true,
    },
    Series {
        name: "Failed",
        of: |point| point.failed,
        line: "failed",
        end: "end ill",
        shape: Shape::Cross,
        is_usual: false,
    },
    Series {
        name: "Rolled back",
        of: |point| point.rolled_back,
        line: "rolled-back",
        end: "end ill",
        shape: Shape::Diamond,
        is_usual: false,
    },
];

/// A sample of the planned curve, for the legend.
pub(super) fn plan_sample() -> Markup {
    html! {
        svg class="sample" viewBox="0 0 36 10" aria-hidden="true" {
            rect class="area" y="5" width="36" height="5" {}
            line class="so-far" x1="0" x2="36" y1="5" y2="5" {}
        }
    }
}

/// A sample of a line, for the legend.
pub(super) fn sample(series: &Series) -> Markup {
    html! {
        svg class="sample" viewBox="0 0 36 10" aria-hidden="true" {
            line class=(series.line) x1="0" x2="36" y1="5" y2="5" {}
            (symbol(series.end, series.shape, 18.0, 5.0))
        }
    }
}

/// A group's devices over time, with what it shows in words: those that installed a release, and those that failed or rolled back.
pub(super) fn history(points: &[HealthPoint], words: &str) -> Markup {
    const SMALL: Frame = Frame { width: 160.0, height: 32.0, left: 6.0, right: 150.0, top: 5.0, bottom: 27.0 };
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return html! {} };
    let whole = (last.at - first.at).num_seconds().max(1);
    let most = last.installed.max(last.failed + last.rolled_back).max(1);
    let line = |class, of: fn(&HealthPoint) -> u64| {
        let mut line: Vec<Point> = Vec::new();
        for point in points {
            let to = Point { x: ratio((point.at - first.at).num_seconds(), whole), y: ratio_of(of(point), most) };
            line.extend(line.last().map(|before| Point { x: to.x, y: before.y }));
            line.push(to);
        }
        Line { class, points: line }
    };
    let chart = Chart {
        frame: SMALL,
        levels: Vec::new(),
        ticks: Vec::new(),
        area: Vec::new(),
        lines: vec![line("installed", |p| p.installed), line("failed", |p| p.failed + p.rolled_back)],
        marks: Vec::new(),
        dot: None,
        symbols: Vec::new(),
    };
    html! { svg class="history" viewBox=(SMALL.view_box()) role="img" aria-label=(text(words)) { (chart) } }
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn ratio(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn ratio_of(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// A bar that is filled to so many parts per million. For the eye only: the number is beside it.
pub(super) fn bar(ppm: u32) -> Markup {
    let width = f64::from(ppm) / f64::from(PPM) * 96.0;
    html! {
        svg class="bar" viewBox="0 0 96 8" aria-hidden="true" {
            rect class="track" width="96" height="8" rx="4" {}
            rect class="fill" width=(pixels(width)) height="8" rx="4" {}
        }
    }
}

/// So many hours are the whole width of a time line.
const HORIZON: f64 = 24.0 * 400.0;

/// The line from now to an expiry, on a logarithmic scale. For the eye only.
pub(super) fn time_line(expires: DateTime<Utc>, now: DateTime<Utc>) -> Markup {
    let x = reach(expires - now);
    html! {
        svg viewBox="0 0 400 14" aria-hidden="true" {
            rect class="track" y="6" width="400" height="2" {}
            rect class="fill" y="5" width=(pixels(x)) height="4" rx="2" {}
            circle class="dot" cx=(pixels(x.clamp(6.0, 394.0))) cy="7" r="4.5" {}
        }
    }
}

/// The scale of [`time_line`].
pub(super) fn time_axis() -> Markup {
    let ticks =
        [("1 hour", 1), ("6 hours", 6), ("1 day", 24), ("1 week", 24 * 7), ("1 month", 24 * 30), ("1 year", 24 * 365)];
    html! {
        svg viewBox="0 0 400 16" aria-hidden="true" {
            @for (label, hours) in ticks {
                @let anchor = if hours > 24 * 300 { "end" } else { "middle" };
                text x=(pixels(reach(TimeDelta::hours(hours)))) y="12" text-anchor=(anchor) { (label) }
            }
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn reach(left: TimeDelta) -> f64 {
    let hours = left.num_seconds().max(0) as f64 / 3600.0;
    400.0 * (hours.ln_1p() / HORIZON.ln_1p()).clamp(0.0, 1.0)
}
