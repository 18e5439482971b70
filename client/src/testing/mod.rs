//! Behavioural suites for parts of your own: what a device relies on in every [`Installer`](crate::install::Installer),
//! [`Store`](crate::store::Store) and [`Fetch`](crate::fetch::Fetch). Feature `testing`; the parts of this crate pass the same suites.
//!
//! | suite | what it needs | what it checks |
//! |---|---|---|
//! | [`check_installer`] | a [`Board`] that can be restarted | installs, confirms, goes back; survives a stop at every step and a full disk; refuses what changed |
//! | [`check_store`] | an empty store | replaces, limits, removes, refuses names that could leave it |
//! | [`check_fetch`] | a [`TestFiles`] to put files | whole files, limits, ranges, tags, and that a missing file is [`Reply::NotFound`](crate::fetch::Reply::NotFound) |
//!
//! A suite returns the first [`Violation`]:
//!
//! ```
//! use tidegate_client::store::MemoryStore;
//! use tidegate_client::testing::check_store;
//!
//! check_store(&MemoryStore::new())?;
//! # Ok::<(), tidegate_client::testing::Violation>(())
//! ```

mod fetch;
mod installer;
mod store;

pub use fetch::{TestFiles, check_fetch};
pub use installer::{Board, check_installer};
pub use store::check_store;

/// What a part did that it must not do, or did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {found}")]
pub struct Violation {
    /// The rule.
    pub rule: &'static str,
    /// What was found instead.
    pub found: String,
}

/// An error unless the condition holds.
fn expect(rule: &'static str, holds: bool, found: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation { rule, found: found() }) }
}

/// The value, or the error as a violation.
fn works<T, E: std::fmt::Display>(rule: &'static str, result: Result<T, E>) -> Result<T, Violation> {
    result.map_err(|e| Violation { rule, found: e.to_string() })
}
