//! Who may do what with a release, and what is refused.

mod approvals;
mod race;
mod retire;
mod validation;
