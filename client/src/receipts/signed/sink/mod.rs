//! The destinations for receipts.

mod folder;
mod gate;
mod put;
mod stub;

use std::time::Duration;

pub use folder::FolderSink;
pub use gate::{GateSink, Post};
pub use put::{PutSink, Urls};
pub use stub::StubSink;

use crate::receipts::sink::{Answer, Destination, Sink};
use tidegate_model::receipt::SignedReceipt;

/// Sends receipts one by one until one is not accepted. `one` returns `Ok` if it is stored.
pub(crate) fn one_by_one(
    receipts: &[SignedReceipt],
    mut one: impl FnMut(&SignedReceipt) -> Result<(), NotTaken>,
) -> Answer {
    for (kept, receipt) in receipts.iter().enumerate() {
        match one(receipt) {
            Ok(()) => {}
            Err(NotTaken::Ever(why)) => return Answer::Refused { kept, of: 1, why },
            Err(NotTaken::Now { why, after }) => return Answer::Later { kept, why, after },
        }
    }
    Answer::Kept(receipts.len())
}

/// Why a receipt is not accepted.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// The rejection is permanent.
    Ever(String),
    /// The rejection is temporary.
    Now { why: String, after: Option<Duration> },
}
