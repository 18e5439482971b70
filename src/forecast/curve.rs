//! A curve of devices over time: for terminals and as SVG.

use std::fmt::Write as _;

use chrono::{DateTime, Utc};
use maud::{PreEscaped, html};
use tidegate_model::time;

use crate::markup::chart::{Anchor, Chart, Frame, Label, Line, Mark, Point, pixels};
use crate::markup::text;

/// What to draw.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What it is of.
    pub title: String,
    /// Of how many devices.
    pub devices: u64,
    /// When the first value is for.
    pub from: DateTime<Utc>,
    /// How many devices by then, an hour later, and so on. At least one; never falling.
    pub values: Vec<u64>,
    /// What happens when: the hour, counted from `from`, and in few words.
    pub marks: Vec<(f64, String)>,
}

/// How high a curve in a terminal is, in lines.
const ROWS: usize = 8;
/// An eighth of a character's height, two eighths and so on.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A curve of at most `columns` characters in width, a line a string.
pub fn terminal(curve: &Curve, columns: usize) -> Vec<String> {
    let last = curve.values.len().saturating_sub(1);
    let columns = columns.clamp(16, curve.values.len().max(16));
    // Each column shows what is reached by its end.
    let value = |column: usize| curve.values.get((column + 1) * last / columns).copied().unwrap_or_default();
    let whole = u128::from(curve.devices.max(1));
    let height = |column| usize::try_from(u128::from(value(column)) * (ROWS as u128 * 8) / whole).unwrap_or(0);
    let mut lines: Vec<String> = (0..ROWS)
        .map(|row| {
            let below = (ROWS - 1 - row) * 8;
            let label = match row {
                0 => "100%".to_owned(),
                row if row * 2 == ROWS => " 50%".to_owned(),
                _ => "    ".to_owned(),
            };
            let cells = (0..columns)
                .map(|column| EIGHTHS.get(height(column).saturating_sub(below).min(8)).copied().unwrap_or(' '));
            format!("{label} |{}", cells.collect::<String>().trim_end())
        })
        .collect();
    lines.push(format!("  0% +{}", "-".repeat(columns)));
    let end = curve.from + chrono::TimeDelta::hours(i64::try_from(last).unwrap_or(0));
    let (left, right) = (time::format(curve.from), time::format(end));
    let gap = (columns + 1).saturating_sub(left.len() + right.len()).max(2);
    lines.push(format!("     {left}{}{right}", " ".repeat(gap)));
    lines
}

/// The picture's size, and where the curve is in it.
const FRAME: Frame = Frame { width: 800.0, height: 420.0, left: 64.0, right: 776.0, top: 56.0, bottom: 340.0 };
/// Marks closer than this share a label.
const APART: f64 = 24.0;
/// So many marks are explained below the curve.
const LEGEND: usize = 6;

const STYLE: &str = "
svg { color: #1b1f24; background: #ffffff; font: 13px system-ui, sans-serif }
text { fill: currentColor }
.grid { stroke: currentColor; stroke-opacity: .25 }
.axis { stroke: currentColor }
.area { fill: #0b6bcb; fill-opacity: .18 }
.line { fill: none; stroke: #0b6bcb; stroke-width: 2.5 }
.mark { stroke: currentColor; stroke-dasharray: 2 4 }
.small { font-size: 11px }
@media (prefers-color-scheme: dark) {
svg { color: #e6e8eb; background: #14171a }
.area { fill: #6cb6ff }
.line { stroke: #6cb6ff }
}
";

/// A picture with a description in words. It follows the reader's light or dark setting, and shows nothing by colour alone.
pub fn svg(curve: &Curve) -> String {
    let picture = html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(FRAME.view_box()) role="img" aria-labelledby="title desc" {
            "\n" title id="title" { (text(&curve.title)) }
            "\n" desc id="desc" { (text(&in_words(curve))) }
            "\n" style { (PreEscaped(STYLE)) }
            "\n" text x=(FRAME.left) y="24" font-weight="600" { (text(&curve.title)) }
            "\n" (chart(curve))
            @for (index, line) in legend(curve).iter().enumerate() {
                @let x = FRAME.x(to_f64(index % 2) / 2.0);
                @let y = FRAME.bottom + 42.0 + 16.0 * to_f64(index / 2);
                text class="small" x=(pixels(x)) y=(pixels(y)) { (text(line)) } "\n"
            }
        }
        "\n"
    };
    picture.into_string()
}

fn chart(curve: &Curve) -> Chart {
    let hours = curve.values.len().saturating_sub(1).max(1);
    let part = |hour: f64| hour / to_f64(hours);
    let label = |x, text| Label { class: Some("small"), x, anchor: Anchor::Middle, text };
    let devices = to_f64(curve.devices.max(1));
    let values = curve.values.iter().enumerate();
    // Between the hours the curve is a straight line, as ramps are.
    let points: Vec<Point> =
        values.map(|(hour, count)| Point { x: part(to_f64(hour)), y: to_f64(*count) / devices }).collect();
    Chart {
        frame: FRAME,
        levels: (0..=4_u64).map(|quarter| (to_f64(quarter) / 4.0, format!("{}%", quarter * 25))).collect(),
        ticks: ticks(curve, hours).into_iter().map(|(hour, day)| label(part(hour), day)).collect(),
        area: points.clone(),
        lines: vec![Line { class: "line", points }],
        marks: labels(curve, part)
            .into_iter()
            .map(|(numbers, x)| Mark { class: "mark", x, label: Some(label(x, numbers)) })
            .collect(),
        dot: None,
        symbols: Vec::new(),
    }
}

/// The numbers of the marks, each with its part of the time. Marks that are close together share a label.
fn labels(curve: &Curve, part: impl Fn(f64) -> f64) -> Vec<(String, f64)> {
    let mut labels: Vec<(usize, usize, f64)> = Vec::new();
    for (number, (hour, _)) in (1..).zip(&curve.marks) {
        let at = part(*hour);
        match labels.last_mut() {
            Some((_, last, taken)) if FRAME.x(at) - FRAME.x(*taken) < APART => *last = number,
            _ => labels.push((number, number, at)),
        }
    }
    let text = |first, last| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    labels.into_iter().map(|(first, last, at)| (text(first, last), at)).collect()
}

/// What the numbers stand for; of many the first.
fn legend(curve: &Curve) -> Vec<String> {
    let line = |(number, (_, what)): (usize, &(f64, String))| format!("{number} {what}");
    let mut lines: Vec<String> = (1..).zip(&curve.marks).take(LEGEND).map(line).collect();
    if curve.marks.len() > LEGEND {
        lines.truncate(LEGEND - 1);
        lines.push(format!("and {} more steps", curve.marks.len() - lines.len()));
    }
    lines
}

/// The curve for those who cannot see it: how many devices at the beginning, at each quarter of the time, and at the end.
fn in_words(curve: &Curve) -> String {
    let last = curve.values.len().saturating_sub(1);
    let mut text = format!("Devices that are offered the release, of {}.", curve.devices);
    for quarter in 0..=4 {
        let hour = last * quarter / 4;
        let at = curve.from + chrono::TimeDelta::hours(i64::try_from(hour).unwrap_or(0));
        let count = curve.values.get(hour).copied().unwrap_or_default();
        let _ = write!(text, " By {}: {count}.", time::format(at));
    }
    for (_, what) in curve.marks.iter().take(12) {
        let _ = write!(text, " {what}.");
    }
    text
}

/// Midnights, few enough to be read; or hours, if it is all over within two days.
fn ticks(curve: &Curve, hours: usize) -> Vec<(f64, String)> {
    let days = hours.div_ceil(24);
    let step = if days <= 2 { hours.div_ceil(8).max(1) } else { 24 * days.div_ceil(8) };
    let form = if days <= 2 { "%m-%d %H:%M" } else { "%m-%d" };
    let seconds = curve.from.timestamp().rem_euclid(if days <= 2 { 3600 } else { 86_400 });
    let first = if seconds == 0 { 0.0 } else { (if days <= 2 { 3600.0 } else { 86_400.0 } - to_f64(seconds)) / 3600.0 };
    (0..=hours / step)
        .map(|number| first + to_f64(number * step))
        .filter(|at| *at <= to_f64(hours))
        .map(|at| {
            #[allow(clippy::cast_possible_truncation, reason = "a plan has fewer hours than that")]
            let instant = curve.from + chrono::TimeDelta::seconds((at * 3600.0).round() as i64);
            (at, instant.format(form).to_string())
        })
        .collect()
}

/// For drawing only: nothing is decided by these numbers.
#[allow(clippy::cast_precision_loss, reason = "a picture has fewer points than that")]
fn to_f64(number: impl TryInto<i64>) -> f64 {
    number.try_into().map_or(f64::MAX, |number| number as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        Curve {
            title: "os & 1.2.0".into(),
            devices: 100,
            from: DateTime::UNIX_EPOCH,
            values: (0..=64).map(|hour| hour * 100 / 64).collect(),
            marks: vec![(0.0, "canary starts".into()), (32.0, "general <starts>".into())],
        }
    }

    #[test]
    fn a_terminal_shows_what_is_reached() {
        let lines = terminal(&curve(), 64);
        assert_eq!(lines.len(), ROWS + 2);
        assert!(lines[0].starts_with("100% |") && lines[0].ends_with('█'), "{lines:#?}");
        assert_eq!(lines[7].chars().filter(|c| *c == '█').count(), 64 - 8, "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= 70), "{lines:#?}");
        assert!(lines[9].contains("1970-01-01T00:00:00Z") && lines[9].ends_with("1970-01-03T16:00:00Z"), "{lines:#?}");
        let empty = terminal(&Curve { values: vec![0], devices: 0, ..curve() }, 64);
        assert!(empty[..ROWS].iter().all(|line| !line.contains('█')), "{empty:#?}");
    }

    #[test]
    fn a_picture_is_told_in_words_and_is_well_formed() {
        let svg = svg(&curve());
        assert!(svg.contains("<title id=\"title\">os &amp; 1.2.0</title>"), "{svg}");
        assert!(svg.contains("By 1970-01-02T08:00:00Z: 50."), "{svg}");
        assert!(svg.contains(">1 canary starts<") && svg.contains(">2 general &lt;starts&gt;<"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark"));
        let many =
            Curve { marks: (0..9).map(|mark| (f64::from(mark) / 100.0, format!("mark {mark}"))).collect(), ..curve() };
        let many = super::svg(&many);
        assert!(many.contains(">1-9<") && many.contains(">and 4 more steps<") && !many.contains("mark 5<"), "{many}");
        for tag in ["title", "desc", "style", "text", "svg"] {
            let opened = svg.matches(&format!("<{tag} ")).count() + svg.matches(&format!("<{tag}>")).count();
            assert_eq!(opened, svg.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
