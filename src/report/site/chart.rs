//! Pictures: exposure in time, and how long things last. SVG without styles of its own, so that the page needs no script and no
//! inline style.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, html};
use tidegate_model::position::PPM;

use super::html::{relative, share};
use crate::markup::chart::{Chart, Frame, Label, Line, Mark, Point, pixels};
use crate::markup::text;
use crate::report::view::state::{Curve, CurvePoint};

const FRAME: Frame = Frame { width: 420.0, height: 200.0, left: 50.0, right: 410.0, top: 24.0, bottom: 172.0 };
/// Labels of the first and last instant must be at least this far from that of the present.
const APART: f64 = 120.0;

/// A curve with what it shows in words.
pub(super) fn exposure(curve: &Curve, now: DateTime<Utc>, id: &str) -> Markup {
    let description = describe(curve, now);
    html! {
        figure {
            svg viewBox=(FRAME.view_box()) role="img" aria-labelledby=(id) {
                title id=(id) { (text(&description)) }
                (chart(curve, now))
            }
            figcaption { (text(&description)) }
        }
    }
}

fn chart(curve: &Curve, now: DateTime<Utc>) -> Chart {
    let scale = Scale::of(curve, now);
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
    Chart {
        frame: FRAME,
        levels: (0..=2).map(|step| scale.most / 2 * step).map(|ppm| (scale.y(ppm), share(ppm))).collect(),
        ticks,
        area: so_far.clone(),
        lines: vec![
            Line { class: "so-far", points: so_far },
            Line { class: "planned", points: scale.points(&planned) },
        ],
        marks: stop.into_iter().chain([Mark { class: "now", x: here.x, label: None }]).collect(),
        dot: Some(here),
    }
}

/// What a curve shows, in words.
fn describe(curve: &Curve, now: DateTime<Utc>) -> String {
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
    fn of(curve: &Curve, now: DateTime<Utc>) -> Self {
        let instants = || curve.points.iter().map(|point| point.at).chain([now]).chain(curve.stops);
        let (first, last) = (instants().min().unwrap_or(now), instants().max().unwrap_or(now));
        let margin = ((last - first) / 12).max(TimeDelta::minutes(30));
        let most = [10_000, 20_000, 50_000, 100_000, 200_000, 500_000].into_iter();
        let most = most.filter(|most| *most >= curve.final_ppm.max(curve.now_ppm)).min().unwrap_or(PPM);
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
