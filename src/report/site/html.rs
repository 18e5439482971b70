//! Small pieces of HTML. Everything that comes from a repository passes through [`text`].

use chrono::{DateTime, TimeDelta, Utc};
use maud::{Markup, Render, html};
use tidegate_model::time;

use crate::config::write_share;
use crate::markup::text;

/// A hash, key id or path.
pub(super) fn code(content: &str) -> Markup {
    html! { code { (text(content)) } }
}

/// A wide table, which scrolls by itself, and by keyboard.
pub(super) fn region(label: &str, table: &Table) -> Markup {
    html! { div class="scroll" role="region" aria-label=(text(label)) tabindex="0" { (table) } }
}

/// How a word is meant: told by shape and word, and by colour last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Look,
    Bad,
    Neutral,
}

/// A word with its mark.
pub(super) fn mark(mark: Mark, word: &str) -> Markup {
    let class = match mark {
        Mark::Good => "mark",
        Mark::Look => "mark look",
        Mark::Bad => "mark bad",
        Mark::Neutral => "mark none",
    };
    html! { span class=(class) { (text(word)) } }
}

/// An instant, to the minute.
pub(super) fn instant(at: DateTime<Utc>) -> Markup {
    html! { time datetime=(time::format(at)) { (at.format("%Y-%m-%d %H:%M")) } }
}

/// `in 19 h`, `3 d ago`.
pub(super) fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let left = at - now;
    if left.abs() < TimeDelta::minutes(1) {
        return "now".into();
    }
    let text = span(left.abs());
    if left > TimeDelta::zero() { format!("in {text}") } else { format!("{text} ago") }
}

fn span(delta: TimeDelta) -> String {
    match (delta.num_days(), delta.num_hours(), delta.num_minutes()) {
        (days, ..) if days >= 3 => format!("{days} days"),
        (_, hours, _) if hours >= 1 => format!("{hours} h"),
        (.., minutes) => format!("{minutes} min"),
    }
}

/// A share for people: exact where that is short, else to a tenth of a percent.
pub(super) fn share(ppm: u32) -> String {
    let rounded = (ppm + 500) / 1000 * 1000;
    let exact = write_share(ppm);
    if exact.len() <= "12.5%".len() || rounded == 0 { exact } else { write_share(rounded) }
}

/// A number of bytes.
pub(super) fn bytes(count: u64) -> String {
    let mut value = count;
    let mut rest = 0;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024 || unit == "GiB" {
            return if rest == 0 { format!("{value} {unit}") } else { format!("{value}.{} {unit}", rest * 10 / 1024) };
        }
        (value, rest) = (value / 1024, value % 1024);
    }
    format!("{count} bytes")
}

/// A number of devices.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// A table. On narrow screens each row becomes a block.
pub(super) struct Table {
    class: &'static str,
    caption: String,
    headings: Vec<&'static str>,
    rows: Vec<Vec<Markup>>,
}

impl Table {
    /// A table without rows, described by `caption`.
    pub(super) fn new(caption: &str, headings: &[&'static str]) -> Self {
        Self { class: "stack", caption: caption.to_owned(), headings: headings.to_vec(), rows: Vec::new() }
    }

    /// The same of numbers, which stay on one line.
    pub(super) fn of_figures(mut self) -> Self {
        self.class = "stack figures";
        self
    }

    /// Adds a row; the first cell is the row's heading.
    pub(super) fn row(&mut self, cells: Vec<Markup>) {
        self.rows.push(cells);
    }

    fn shown(&self, cells: &[Markup]) -> Markup {
        html! {
            tr {
                @for (index, cell) in cells.iter().enumerate() {
                    @if index == 0 {
                        th scope="row" { (cell) }
                    } @else {
                        td data-is=(self.headings.get(index).copied().unwrap_or_default()) { (cell) }
                    }
                }
            }
        }
    }
}

impl Render for Table {
    fn render(&self) -> Markup {
        html! {
            table class=(self.class) {
                caption { (text(&self.caption)) }
                thead { tr { @for heading in &self.headings { th scope="col" { (heading) } } } }
                tbody { @for cells in &self.rows { (self.shown(cells)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_in_the_largest_unit_that_tells_enough() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(100);
        for (delta, text) in [
            (TimeDelta::seconds(30), "now"),
            (TimeDelta::minutes(5), "in 5 min"),
            (TimeDelta::hours(47), "in 47 h"),
            (TimeDelta::days(-20), "20 days ago"),
        ] {
            assert_eq!(relative(now + delta, now), text);
        }
        let shares = [0, 5, 10_000, 125_000, 141_667, 999_999, 1_000_000].map(share);
        assert_eq!(shares, ["0%", "0.0005%", "1%", "12.5%", "14.2%", "100%", "100%"]);
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((bytes(12), bytes(1536), bytes(5 << 30)), ("12 bytes".into(), "1.5 KiB".into(), "5 GiB".into()));
    }
}
