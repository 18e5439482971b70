//! A sink for tests.

use std::time::Duration;

use super::{Answer, Destination, Sink};
use tidegate_model::receipt::SignedReceipt;

/// Keeps what it is sent, unless it was told to do otherwise. For tests.
#[derive(Debug, Clone, Default)]
pub struct StubSink {
    at_once: usize,
    /// What it keeps, in the order in which it came.
    pub kept: Vec<SignedReceipt>,
    /// How many were sent each time.
    pub calls: Vec<usize>,
    failure: Option<(String, Option<Duration>)>,
    refused: Vec<u64>,
    ignores: bool,
}

impl StubSink {
    /// A sink that takes so many at a time.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, ..Self::default() }
    }

    /// Fails from now on, and says when to come again.
    pub fn fail(&mut self, why: impl Into<String>, after: Option<Duration>) {
        self.failure = Some((why.into(), after));
    }

    /// No longer fails.
    pub fn well(&mut self) {
        self.failure = None;
    }

    /// Refuses for good what holds a receipt of one of these sequences, as a whole.
    pub fn refuse(&mut self, sequences: &[u64]) {
        self.refused = sequences.to_vec();
    }

    /// Takes nothing, and says that all is well.
    pub fn ignore(&mut self) {
        self.ignores = true;
    }
}

impl Sink for StubSink {
    fn at_once(&self) -> usize {
        self.at_once
    }

    fn send(&mut self, receipts: &[SignedReceipt], _: &Destination) -> Answer {
        self.calls.push(receipts.len());
        if let Some((why, after)) = self.failure.clone() {
            return Answer::Later { kept: 0, why, after };
        }
        if self.ignores {
            return Answer::Kept(0);
        }
        if receipts.iter().any(|signed| self.refused.contains(&signed.receipt.sequence)) {
            return Answer::Refused { kept: 0, of: receipts.len(), why: "one of them is not as it must be".into() };
        }
        for signed in receipts {
            if !self.kept.contains(signed) {
                self.kept.push(signed.clone());
            }
        }
        Answer::Kept(receipts.len())
    }
}
