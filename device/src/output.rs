//! Standard output and standard error.

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::failure::{Failure, say};
use tidegate_client::store::Repair;
use tidegate_client::watch::{Phase, Progress};
use tidegate_model::text::{lines, one_line};

/// How to print.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Output {
    /// Prints a result: as text, or as JSON if that was requested.
    pub(super) fn result(self, text: impl AsRef<str>, value: &impl Serialize) -> Result<(), Failure> {
        if self.json { print_json(value) } else { print_text(text) }
    }

    /// Prints the next step.
    pub(super) fn next(self, text: &str) {
        if !self.quiet && !self.json {
            say(&format!("next: {text}"));
        }
    }

    /// Prints a warning.
    pub(super) fn warning(self, text: &str) {
        if !self.quiet {
            say(&format!("warning: {text}"));
        }
    }

    /// Warns of files that were corrupt and have been restored.
    pub(super) fn repairs(self, repairs: &[Repair]) {
        for Repair { name, reason, .. } in repairs {
            self.warning(&format!("the stored file {name} was corrupt; restored from backup: {reason}"));
        }
    }

    /// Warns of what the owner of the device should know.
    pub(super) fn remarks(self, remarks: &[String]) {
        for remark in remarks {
            self.warning(remark);
        }
    }

    /// A progress line for a terminal: none at first, then at most 30 times a second.
    pub(super) fn progress(self) -> impl FnMut(Progress<'_>) -> ControlFlow<()> + use<> {
        const BEFORE_THE_FIRST: Duration = Duration::from_millis(250);
        const BETWEEN: Duration = Duration::from_millis(34);
        let shows = !self.quiet && !self.json && io::stderr().is_terminal();
        let started = Instant::now();
        let mut last: Option<Instant> = None;
        move |at| {
            let (done, total) = (at.done, at.total);
            let complete = done >= total;
            let due = match last {
                None => !complete && started.elapsed() >= BEFORE_THE_FIRST,
                Some(last) => complete || last.elapsed() >= BETWEEN,
            };
            if shows && due {
                let end = if complete { "\n" } else { "" };
                let doing = match at.phase {
                    Phase::Install => "installing ",
                    Phase::ReadBack => "reading back ",
                    _ => "",
                };
                eprint!("\r{doing}{}: {} % of {total} bytes{end}", one_line(at.name), at.percent());
                last = (!complete).then(Instant::now);
            }
            ControlFlow::Continue(())
        }
    }
}

/// Prints a text, with a line end if it has none. What others wrote in it is escaped.
pub(super) fn print_text(text: impl AsRef<str>) -> Result<(), Failure> {
    let text = lines(text.as_ref());
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    let mut out = io::stdout().lock();
    write!(out, "{text}{end}").and_then(|()| out.flush()).map_err(Failure::Output)
}

/// Prints one line of JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(|e| Failure::Output(e.into()))?;
    print_text(line)
}
