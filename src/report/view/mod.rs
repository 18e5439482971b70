//! What a repository says, for those who look rather than sign.
//!
//! [`Place::read`] verifies a repository with the trust core of devices, [`signed()`] puts what it says into plain types ([`State`], the
//! content of `status.json`), [`add_workspace`] adds what only the workspace knows, and [`add_health`] what devices report. The site, `diff` and `doctor` all show this.

mod affected;
mod curve;
mod diff;
mod health;
mod reading;
mod signed;
pub mod state;
mod workspace;

pub use affected::{Affected, Shift, affected};
pub use diff::{Changes, diff};
pub use health::add_health;
pub use reading::{Approved, Offered, OfferedList, Opened, Place, Reading};
pub use signed::{add_publication, signed};
pub use state::State;
pub use workspace::add_workspace;
