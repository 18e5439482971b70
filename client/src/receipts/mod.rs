//! Receipts: the device reports the install results of releases.
//!
//! ```text
//! check decides to install ---- offered      signed and queued in the state folder      sent later
//! installed ------------------- installed    ------------------------------------->   Sink: gate, folder, PUT
//! confirmed ------------------- confirmed
//! cannot be installed --------- failed
//! rolled back ----------------- rolled-back
//! ```
//!
//! [`Device`](crate::device::Device) and [`Agent`](crate::agent::Agent) record results automatically if the device has a key
//! (`DeviceBuilder::receipts`, feature `gate`). Each result is saved *before* the state that follows from it. After an
//! interruption the step is repeated and its result is already recorded, so there is always one receipt. The last recorded result of a release
//! determines the possible next ones: `installed` is recorded again only after `rolled-back` or `failed`, that is for another attempt.
//!
//! A receipt leaves the queue once it is acknowledged ([`Device::send_receipts`](crate::device::Device::send_receipts)). A receipt that is sent twice
//! after an interruption is stored once, because its name depends on its content. Neither recording nor sending can make an update fail:
//! problems are reported in [`ReceiptStatus`].

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
