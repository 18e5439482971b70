//! A sink for tests.

use std::time::Duration;

use super::{Answer, Destination, Sink};
use tidegate_model::receipt::SignedReceipt;

/// Stores receipts, or fails as configured. For tests.
#[derive(Debug, Clone, Default)]
pub struct StubSink {
    at_once: usize,
    /// The stored receipts, in order.
    pub kept: Vec<SignedReceipt>,
    /// The number of receipts per call.
    pub calls: Vec<usize>,
    failure: Option<(String, Option<Duration>)>,
    refused: Vec<u64>,
    ignores: bool,
}

impl StubSink {
    /// A sink that accepts this many per call.
    pub fn new(at_once: usize) -> Self {
        Self { at_once, ..Self::default() }
    }

    /// Fails from now on, with this delay.
    pub fn fail(&mut self, why: impl Into<String>, after: Option<Duration>) {
        self.failure = Some((why.into(), after));
    }

    /// Stops failing.
    pub fn well(&mut self) {
        self.failure = None;
    }

    /// Permanently refuses calls that contain a receipt with one of these sequences.
    pub fn refuse(&mut self, sequences: &[u64]) {
        self.refused = sequences.to_vec();
    }

    /// Stores nothing but reports success.
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
