//! Where receipts go.

use std::time::Duration;

use tidegate_model::gate::GateUrl;
use tidegate_model::receipt::SignedReceipt;

/// Takes receipts, each of which it keeps once and for good.
pub trait Sink {
    /// How many it takes at a time: 1 to 64.
    fn at_once(&self) -> usize;

    /// Hands receipts over, in this order.
    fn send(&mut self, receipts: &[SignedReceipt], to: &Destination) -> Answer;
}

/// What a sink may have to know of the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// The gate of the device's cohort, if it has one.
    pub gate: Option<GateUrl>,
}

/// What a sink says. It speaks of the first few of the receipts, and of those after them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The first so many are there, and durable.
    Kept(usize),
    /// The first `kept` are there; among the `of` after them is one that will never be taken.
    Refused {
        /// How many are there.
        kept: usize,
        /// How many the refusal is about.
        of: usize,
        /// Why.
        why: String,
    },
    /// The first `kept` are there; the others may be taken another time.
    Later {
        /// How many are there.
        kept: usize,
        /// Why.
        why: String,
        /// After how long, if that was said.
        after: Option<Duration>,
    },
}

impl Answer {
    /// How many are there.
    pub fn kept(&self) -> usize {
        match self {
            Self::Kept(kept) | Self::Refused { kept, .. } | Self::Later { kept, .. } => *kept,
        }
    }
}
