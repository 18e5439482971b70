//! Receipts: the device tells what became of releases.
//!
//! ```text
//! check decides to install ---- offered      in the state folder, signed at once      sent when there is time
//! written to its place -------- installed    ----------------------------------->    Sink: gate, folder, PUT
//! proved itself --------------- confirmed
//! cannot be installed --------- failed
//! back at what was before ----- rolled-back
//! ```
//!
//! [`Device`](crate::device::Device) and [`Agent`](crate::agent::Agent) record by themselves, once the device was given a key
//! (`DeviceBuilder::receipts`, feature `gate`). Each outcome is written down *before* the state that follows from it, so that
//! a stop in between repeats the step and finds it told already: one receipt, wherever it stops. What was told last of a release says what may
//! follow: `installed` comes again only after `rolled-back` or `failed`, that is with another attempt.
//!
//! A receipt leaves the queue when it was acknowledged ([`Device::send_receipts`](crate::device::Device::send_receipts)). One that is sent twice because the
//! device stopped in between is stored once: its name is made of what it says. Neither recording nor sending ever makes an update fail: what goes
//! wrong is noted ([`ReceiptStatus`]).

mod recorder;
mod sending;
#[cfg(feature = "gate")]
mod signed;
mod sink;
mod status;

pub(crate) use recorder::{NoReceipts, ReceiptRecorder};
pub use sending::{Sending, Sent};
#[cfg(feature = "gate")]
pub use signed::*;
pub use sink::{Answer, Destination, Sink};
pub use status::ReceiptStatus;
