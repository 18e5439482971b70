//! The device's side of Tidegate: finds, verifies and installs signed over-the-air releases.
//!
//! A release is a set of static files in a repository that follows [The Update Framework] 1.0.34. Any web server, CDN or USB stick
//! can carry it; none of them is trusted. This crate is the complete client. It needs no async runtime, and no C code except for TLS.
//!
//! # A device in ten lines
//!
//! ```no_run
//! use tidegate_client::device::Device;
//! use tidegate_client::install::FileSlot;
//! use tidegate_client::updater::Repository;
//! use tidegate_client::watch::unwatched;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut device = Device::builder()
//!     .root(std::fs::read("/usr/share/tidegate/root.json")?)
//!     .repository(Repository::at("https://updates.example.com")?)
//!     .state_dir("/var/lib/tidegate")
//!     .id("device-0001".parse()?)
//!     .channel("stable".parse()?)
//!     .product("os".parse()?)
//!     .hardware("board-a".parse()?)
//!     .factory("1.0.0".parse()?, 0)
//!     .installer(FileSlot::new("/var/lib/images/next.img"))
//!     .open()?;
//! let check = device.check()?;
//! println!("{}", check.outcome());
//! if let Some(update) = &check.update {
//!     let downloaded = device.download(update, &mut unwatched)?;
//!     device.install(&downloaded, &mut unwatched)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - **Only verified data is used.** Every byte is checked against signatures that lead back to the root the device was
//!   shipped with. A release needs two roles: the cohort's role assigns it, the channel's role approves it ([`device`]).
//! - **No rollback attacks.** Versions of metadata and sequences of releases only increase, whatever a server or a damaged file
//!   contains ([`updater`]).
//! - **Every step can be interrupted.** The device may stop at any instant; it restarts with the old release or the new one, and the
//!   next run completes the work ([`disk`]).
//! - **All resources are bounded.** Lengths, numbers and slowness are limited, after decompression ([`tidegate_tuf::limits`], [`fetch`]). Memory use does not depend on the length of downloads.
//! - **Every decision has its reasons.** [`Device::check`](device::Device::check) returns the outcome of every rule, and
//!   [`Device::explain`](device::Device::explain) does so for other facts and other times.
//!
//! # Modules
//!
//! | module | purpose | I/O |
//! |---|---|---|
//! | [`tidegate_tuf`] | the trust core: metadata over raw bytes, the client workflow, delegations | none |
//! | [`tidegate_model`] | the model shared by publisher and device: manifests, cohorts, ramps, conditions, decisions | none |
//! | [`fetch`] | fetching files | network, files |
//! | [`store`], [`disk`] | storing files | files |
//! | [`clock`] | wall and monotonic time, and the effect of wrong clocks | clocks |
//! | [`updater`] | the TUF client: up-to-date metadata, and targets found in it | by the traits above |
//! | [`delivery`] | fetching an artifact in pieces, straight into a slot | by the traits above |
//! | [`download`], [`install`] | from a target to a file, from a file to a slot | by the traits above |
//! | [`device`] | the complete update of a device | by the traits above |
//! | [`gate`] | access to protected cohorts through a gate | by the traits above |
//! | `testing` | behavioural suites for installers, stores and fetchers of your own | files |
//! | `key`, [`receipts`] | the device's key, and receipts of install results signed with it | by traits |
//!
//! Each effect is a small trait with a stub beside it ([`fetch::MemoryFetch`], [`store::MemoryStore`], [`clock::StubClock`],
//! [`install::StubInstaller`]; [`disk::Faults`] plans failures), so an integration can be tested without a network, a clock or
//! a slot. A TUF client for another purpose needs no more than [`updater::Updater`].
//!
//! # Errors
//!
//! [`Error::fault`] returns the origin of an error: the peer, the network, the device or the caller. Clauses in messages are
//! those of the specification. It is a decision, not an error, if there is nothing to install.
//!
//! # Features
//!
//! - `http` (default): HTTP and HTTPS through ureq and rustls.
//! - `gate`: access to protected cohorts through their gates, a device key, and receipts of install results signed with it.
//! - `testing`: suites that check an [`Installer`](install::Installer), a [`Store`](store::Store) or a [`Fetch`](fetch::Fetch) of your own.
//!
//! [The Update Framework]: https://theupdateframework.github.io/specification/v1.0.34/
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
pub mod agent;
pub mod clock;
pub mod command;
pub mod delivery;
pub mod device;
pub mod disk;
pub mod download;
mod error;
pub mod facts;
pub mod fetch;
pub mod gate;
pub mod install;
#[cfg(feature = "gate")]
pub mod key;
pub mod policy;
pub mod receipts;
pub mod retry;
pub mod state;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod updater;
pub mod watch;
pub mod zone;

pub use error::{Error, Fault};
pub use {tidegate_model as model, tidegate_tuf as tuf};
