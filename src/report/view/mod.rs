//! What a repository says, for those who look rather than sign.
//!
//! [`Place::read`] verifies a repository with the trust core of devices, [`signed()`] puts what it says into plain types ([`State`], the
//! content of `status.json`), and [`add_workspace`] adds what only the workspace knows. The site, `diff` and `doctor` all show this.

mod affected;
mod curve;
mod diff;
mod reading;
mod signed;
pub mod state;
mod workspace;

pub use affected::{Affected, Shift, affected};
pub use diff::{Changes, diff};
pub use reading::{Approved, Offered, OfferedList, Place, Reading};
pub use signed::signed;
pub use state::State;
pub use workspace::add_workspace;
