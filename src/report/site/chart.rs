//! Pictures: exposure in time, and how long things last. SVG without styles of its own, so that the page needs no script and no
//! inline style.

use std::fmt::Write as _;

use chrono::{DateTime, TimeDelta, Utc};
use tidegate_model::position::PPM;

use super::html::{relative, share};
use crate::markup::escape;
use crate::report::view::state::{Curve, CurvePoint};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 50.0;
const RIGHT: f64 = 410.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 172.0;

/// A curve with what it shows in words.
pub(super) fn exposure(curve: &Curve, now: DateTime<Utc>, id: &str) -> String {
    let scale = Scale::of(curve, now);
    let told = describe(curve, now);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-labelledby=\"{id}\"><title id=\"{id}\">{}</title>",
        escape(&told)
    );
    for step in 0..=2 {
        let ppm = scale.most / 2 * step;
        let y = scale.y(ppm);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>");
        let _ =
            write!(svg, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 7.0, y + 4.5, share(ppm));
    }
    let (so_far, planned) = split(curve, now, scale.to);
    let line = scale.line(&so_far);
    if let (Some(first), Some(last)) = (so_far.first(), so_far.last()) {
        let _ = write!(
            svg,
            "<path class=\"area\" d=\"M{:.1} {BOTTOM} L{line} L{:.1} {BOTTOM} Z\"/>",
            scale.x(first.at),
            scale.x(last.at)
        );
        let _ = write!(svg, "<path class=\"so-far\" d=\"M{line}\"/>");
    }
    if planned.len() > 1 {
        let _ = write!(svg, "<path class=\"planned\" d=\"M{}\"/>", scale.line(&planned));
    }
    if let Some(stops) = curve.stops {
        let x = scale.x(stops);
        let _ = write!(svg, "<line class=\"stop\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>");
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" {}>renew by</text>", TOP - 10.0, anchor(x));
    }
    let x = scale.x(now);
    let y = scale.y(curve.now_ppm);
    let _ = write!(svg, "<line class=\"now\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BOTTOM}\"/>");
    let _ = write!(svg, "<circle class=\"dot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
    let _ = write!(
        svg,
        "<text class=\"ink\" x=\"{x:.1}\" y=\"{:.1}\" {}>now {}</text>",
        BOTTOM + 20.0,
        anchor(x),
        share(curve.now_ppm)
    );
    // The ends of the story, where they leave room for the present.
    let ends = [so_far.first(), curve.points.last().filter(|last| last.at > now)];
    for end in ends.into_iter().flatten().filter(|end| (scale.x(end.at) - x).abs() > 120.0) {
        let x = scale.x(end.at);
        let at = end.at.format("%-d %b %H:%M");
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"{:.1}\" {}>{at}</text>", BOTTOM + 20.0, anchor(x));
    }
    svg.push_str("</svg>");
    format!("<figure>{svg}<figcaption>{}</figcaption></figure>", escape(&told))
}

/// What a curve shows, in words.
fn describe(curve: &Curve, now: DateTime<Utc>) -> String {
    let mut told = format!("{} is open to {} of the fleet", curve.release, share(curve.now_ppm));
    if curve.paused {
        told.push_str("; it is paused, so that nobody new takes it");
    } else if let Some(last) = curve.points.last().filter(|last| last.at > now) {
        let _ = write!(told, ", to be {} {}", share(curve.final_ppm), relative(last.at, now));
    }
    if let Some(stops) = curve.stops {
        let _ = write!(told, "; it stops {} unless renewed", relative(stops, now));
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

/// Where a text stands so that it stays within the picture.
fn anchor(x: f64) -> &'static str {
    match x {
        x if x < LEFT + 50.0 => "text-anchor=\"start\"",
        x if x > RIGHT - 50.0 => "text-anchor=\"end\"",
        _ => "text-anchor=\"middle\"",
    }
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
        let part = (at - self.from).num_seconds() as f64 / (self.to - self.from).num_seconds().max(1) as f64;
        LEFT + (RIGHT - LEFT) * part.clamp(0.0, 1.0)
    }

    fn y(&self, ppm: u32) -> f64 {
        BOTTOM - (BOTTOM - TOP) * f64::from(ppm) / f64::from(self.most.max(1))
    }

    fn line(&self, points: &[CurvePoint]) -> String {
        let pairs: Vec<String> =
            points.iter().map(|point| format!("{:.1} {:.1}", self.x(point.at), self.y(point.ppm))).collect();
        pairs.join(" L")
    }
}

/// A bar that is filled to so many parts per million. For the eye only: the number stands beside it.
pub(super) fn bar(ppm: u32) -> String {
    let width = f64::from(ppm) / f64::from(PPM) * 96.0;
    format!(
        "<svg class=\"bar\" viewBox=\"0 0 96 8\" aria-hidden=\"true\"><rect class=\"track\" width=\"96\" height=\"8\" rx=\"4\"/>\
         <rect class=\"fill\" width=\"{width:.1}\" height=\"8\" rx=\"4\"/></svg>"
    )
}

/// So many hours are the whole width of a time line.
const HORIZON: f64 = 24.0 * 400.0;

/// The line from now to an expiry, on a logarithmic scale. For the eye only.
pub(super) fn time_line(expires: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let x = reach(expires - now);
    format!(
        "<svg viewBox=\"0 0 400 14\" aria-hidden=\"true\"><rect class=\"track\" y=\"6\" width=\"400\" height=\"2\"/>\
         <rect class=\"fill\" y=\"5\" width=\"{x:.1}\" height=\"4\" rx=\"2\"/><circle class=\"dot\" cx=\"{:.1}\" cy=\"7\" r=\"4.5\"/></svg>",
        x.clamp(6.0, 394.0)
    )
}

/// The scale of [`time_line`].
pub(super) fn time_axis() -> String {
    let mut svg = "<svg viewBox=\"0 0 400 16\" aria-hidden=\"true\">".to_owned();
    let ticks =
        [("1 hour", 1), ("6 hours", 6), ("1 day", 24), ("1 week", 24 * 7), ("1 month", 24 * 30), ("1 year", 24 * 365)];
    for (label, hours) in ticks {
        let anchor = if hours > 24 * 300 { "end" } else { "middle" };
        let x = reach(TimeDelta::hours(hours));
        let _ = write!(svg, "<text x=\"{x:.1}\" y=\"12\" text-anchor=\"{anchor}\">{label}</text>");
    }
    svg.push_str("</svg>");
    svg
}

#[allow(clippy::cast_precision_loss, reason = "pixels")]
fn reach(left: TimeDelta) -> f64 {
    let hours = left.num_seconds().max(0) as f64 / 3600.0;
    400.0 * (hours.ln_1p() / HORIZON.ln_1p()).clamp(0.0, 1.0)
}
