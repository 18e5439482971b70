//! The places that receipts can be sent to.

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

/// Hands receipts over one by one, until one is not taken: `one` says `Ok` if it is there.
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

/// Why one receipt is not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// It never will be.
    Ever(String),
    /// It may be another time.
    Now { why: String, after: Option<Duration> },
}
