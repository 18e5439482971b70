//! The agent's host for commands that act once.

use std::ops::ControlFlow;

use super::output::Output;
use tidegate_client::agent::{Entry, Host};
use tidegate_client::watch::Progress;
use tidegate_model::decision::Outcome;

/// Shows progress and remembers the decision.
pub(super) struct OnceHost<P> {
    output: Output,
    progress: P,
    pub(super) outcome: Option<Outcome>,
}

impl OnceHost<()> {
    pub(super) fn new(output: Output) -> OnceHost<impl FnMut(Progress<'_>) -> ControlFlow<()>> {
        OnceHost { output, progress: output.progress(), outcome: None }
    }
}

impl<P: FnMut(Progress<'_>) -> ControlFlow<()>> Host for OnceHost<P> {
    fn note(&mut self, entry: &Entry<'_>) {
        match entry {
            Entry::Checked(check) => {
                self.output.repairs(&check.repairs);
                self.output.remarks(&check.remarks);
                self.outcome = Some(check.outcome().clone());
            }
            Entry::Problem(problem) => self.output.warning(problem),
            Entry::Now(_) | Entry::Restarting => {}
        }
    }

    fn progress(&mut self, progress: Progress<'_>) -> ControlFlow<()> {
        (self.progress)(progress)
    }
}
