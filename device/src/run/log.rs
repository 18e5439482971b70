//! The agent's log: lines of text on standard error, or with `--json` one JSON object per line on standard output.

use std::ops::ControlFlow;

use serde::Serialize;
use serde_json::Value;

use super::notify::Watch;
use crate::failure::{Failure, error_body, say};
use crate::gate::ReceiptSink;
use crate::gate::receipts::send_in_service;
use crate::output::{Output, print_json};
use tidegate_client::Error;
use tidegate_client::agent::{Entry, Host};
use tidegate_client::clock::{Clock as _, SystemClock};
use tidegate_client::device::Device;
use tidegate_client::state::{State, bounded};
use tidegate_client::watch::Progress;
use tidegate_model::failure::ErrorBody;
use tidegate_model::time;

pub(super) struct Log {
    output: Output,
    state: String,
    /// The last logged remarks.
    remarks: Vec<String>,
    /// A state that is not written yet: the line of a failure contains it.
    pending: Option<Value>,
    /// The steps of this attempt that were logged. They are not logged again when the next check tries them again.
    steps: Vec<String>,
    /// Why the agent waits, if it does.
    waits: Option<String>,
    /// The first failure to write.
    failure: Option<Failure>,
}

/// Something to write.
#[derive(Clone, Copy)]
pub(super) enum Event<'a> {
    Started,
    Stopped,
    Woken,
    Failed(&'a Error),
}

#[derive(Serialize)]
struct Line<'a, T: Serialize> {
    time: String,
    event: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<T>,
}

impl Log {
    pub(super) fn new(output: Output) -> Self {
        let state = State::Idle.to_string();
        Self { output, state, remarks: Vec::new(), pending: None, steps: Vec::new(), waits: None, failure: None }
    }

    /// The last logged state of the update.
    pub(super) fn state(&self) -> String {
        self.state.clone()
    }

    pub(super) fn host<'a>(&'a mut self, watch: &'a Watch) -> LogHost<'a> {
        LogHost { log: self, watch }
    }

    pub(super) fn write(&mut self, event: Event<'_>) -> Result<(), Failure> {
        let version = concat!("tidegate-device ", env!("CARGO_PKG_VERSION"), " runs");
        match event {
            Event::Started => self.line("started", version, None, None::<()>),
            Event::Stopped => self.line("stopped", "stopped by a signal", None, None::<()>),
            Event::Woken => self.line("woken", "woken by a signal", None, None::<()>),
            Event::Failed(error) => self.failed(error),
        }
        self.flush()
    }

    /// Writes one line, with the pause if there is one.
    fn failed(&mut self, error: &Error) {
        let message = error.to_string();
        let is_told = self.waits.as_ref() == Some(&bounded(&message));
        let state = self.pending.take_if(|_| is_told);
        let message = if is_told { self.state.clone() } else { message };
        self.line("failed", &message, Some(error_body(error)), state);
    }

    /// Returns the first failure to write a line.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.line_of_state();
        self.failure.take().map_or(Ok(()), Err)
    }

    fn line_of_state(&mut self) {
        if let Some(state) = self.pending.take() {
            self.line("state", &self.state.clone(), None, Some(state));
        }
    }

    fn line(&mut self, event: &str, message: &str, error: Option<ErrorBody>, detail: Option<impl Serialize>) {
        let is_error = error.is_some();
        self.line_of_state();
        if self.output.json {
            let time = time::format(SystemClock::new().now());
            if let Err(failure) = print_json(&Line { time, event, message, error, detail }) {
                self.failure.get_or_insert(failure);
            }
        } else if !self.output.quiet || is_error {
            say(&format!("{event}: {message}"));
        }
    }
}

pub(super) struct LogHost<'a> {
    log: &'a mut Log,
    watch: &'a Watch,
}

impl LogHost<'_> {
    pub(super) fn problem(&mut self, problem: &str) {
        self.log.line("problem", problem, None, None::<()>);
    }

    pub(super) fn failed(&mut self, error: &Error) {
        self.log.failed(error);
    }

    /// Sends pending receipts, and logs the result if there is one.
    pub(super) fn send(&mut self, device: &mut Device, sink: ReceiptSink) {
        self.watch.renew();
        let (result, problems) = send_in_service(device, sink);
        for problem in problems {
            self.problem(&problem);
        }
        if let Some((summary, sent)) = result {
            self.log.line("receipts", &summary, None, Some(&sent));
        }
        self.watch.renew();
    }
}

impl Host for LogHost<'_> {
    fn note(&mut self, entry: &Entry<'_>) {
        self.watch.renew();
        match entry {
            Entry::Checked(check) => {
                for repair in &check.repairs {
                    let message =
                        format!("stored file {} was corrupt; restored from backup: {}", repair.name, repair.reason);
                    self.problem(&message);
                }
                let before = std::mem::replace(&mut self.log.remarks, check.remarks.clone());
                check.remarks.iter().filter(|remark| !before.contains(remark)).for_each(|remark| self.problem(remark));
                self.log.line("checked", &check.outcome().to_string(), None, Some(check.outcome()));
            }
            // What a check finds is told when it has ended, and a state that stays only once.
            Entry::Now(State::Checking) => {}
            Entry::Now(state) => {
                let now = state.to_string();
                self.log.waits = match state {
                    State::Waiting { why, .. } => Some(why.clone()),
                    _ => None,
                };
                let is_step = matches!(state, State::Downloading { .. } | State::Verifying { .. });
                if is_step && self.log.steps.contains(&now) {
                    return;
                }
                match state {
                    _ if is_step => self.log.steps.push(now.clone()),
                    State::Idle | State::Waiting { .. } => {}
                    _ => self.log.steps.clear(),
                }
                if now != self.log.state {
                    self.log.line_of_state();
                    self.log.state = now;
                    self.log.pending = serde_json::to_value(state).ok();
                    if !matches!(state, State::Waiting { .. }) {
                        self.log.line_of_state();
                    }
                }
            }
            Entry::Restarting => self.log.line("restarting", "running the restart command", None, None::<()>),
            Entry::Problem(problem) => self.problem(problem),
        }
    }

    fn progress(&mut self, _: Progress<'_>) -> ControlFlow<()> {
        self.watch.renew();
        ControlFlow::Continue(())
    }
}
