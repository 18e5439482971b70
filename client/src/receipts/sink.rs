//! The destination of receipts.

use std::time::Duration;

use tidegate_model::gate::GateUrl;
use tidegate_model::receipt::SignedReceipt;

/// Accepts receipts and stores each of them exactly once.
pub trait Sink {
    /// The maximum number per call: 1 to 64.
    fn at_once(&self) -> usize;

    /// Delivers receipts, in this order.
    fn send(&mut self, receipts: &[SignedReceipt], to: &Destination) -> Answer;
}

/// What a sink may need to know about the device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Destination {
    /// The gate of the device's cohort, if it has one.
    pub gate: Option<GateUrl>,
}

/// The answer of a sink. It concerns a prefix of the receipts and those that follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This many receipts, from the first on, are stored durably.
    Kept(usize),
    /// The first `kept` are stored; among the next `of` is one that is rejected permanently.
    Refused {
        /// The number of stored receipts.
        kept: usize,
        /// The number of receipts that the rejection concerns.
        of: usize,
        /// The reason.
        why: String,
    },
    /// The first `kept` are stored; the others may be accepted later.
    Later {
        /// The number of stored receipts.
        kept: usize,
        /// The reason.
        why: String,
        /// The delay before the next attempt, if the sink gave one.
        after: Option<Duration>,
    },
}

impl Answer {
    /// The number of stored receipts.
    pub fn kept(&self) -> usize {
        match self {
            Self::Kept(kept) | Self::Refused { kept, .. } | Self::Later { kept, .. } => *kept,
        }
    }
}
