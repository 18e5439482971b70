//! Receipts: install results reported by devices, read from storage, verified, and counted by device.
//!
//! A receipt is a device's word, signed by the device's key ([`tidegate_model::receipt`]). Whoever can write to the place where they
//! are kept can put anything there, so nothing is believed for lying there: each is held against its own name, the keys that are
//! [enrolled](Enrolments), and the [releases](Releases) that the workspace knows. What is refused is counted too, by [reason](Why).
//!
//! Devices are counted, not receipts. All keys of an enrolment are one device, and of what a device said of a release one thing counts:
//! the last that it said of how it ended (`confirmed`, `failed`, `rolled-back`), by its own clock; `installed` if it said nothing of that,
//! and `offered` if it said nothing else. So a device that repeats itself counts once, one that fails and tries again fails until it confirms, and
//! the order in which receipts are read is of no matter.
//!
//! In memory are an entry for each enrolled key and one for each device and release, never the receipts.

mod count;
mod delivery;
mod enrolments;
mod history;
mod read;
mod releases;
mod report;

pub use count::{Counter, Why};
pub use delivery::{DeliveryTally, Fetched};
pub use enrolments::{Enrolled, Enrolments};
pub use history::{GroupHistory, Point, ReleaseHistory};
pub use read::{check, read};
pub(crate) use releases::hardware_of;
pub use releases::{Known, Releases, Scope};
pub use report::{Group, Reason, ReceiptReport, Refused, ReleaseReport, Tally};
