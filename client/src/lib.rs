//! The device's side of Tidegate: finds, verifies and installs signed over-the-air releases.
//!
//! A release is a set of static files in a repository that follows [The Update Framework] 1.0.34. Any web server, CDN or USB stick
//! can carry it; none of them is trusted. This crate is the whole client, and needs no async runtime and no C code but that of TLS.
//!
//! # A device in ten lines
//!
//! ```no_run
//! use tidegate_client::device::Device;
//! use tidegate_client::install::FileSlot;
//! use tidegate_client::updater::Repository;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut device = Device::builder()
//!     .root(std::fs::read("/usr/share/tidegate/root.json")?)
//!     .repository(Repository::at("https://updates.example.com"))
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
//!     let downloaded = device.download(update, &mut |_, _| ())?;
//!     device.install(&downloaded)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What to rely on
//!
//! - **Nothing unverified is acted on.** Every byte is checked against signatures that lead back to the root the device was
//!   shipped with. A release needs two powers: its cohort's role assigns it, its channel's role approves it ([`device`]).
//! - **Nothing goes back.** Versions of metadata and sequences of releases only rise, whatever a server or a damaged file
//!   says ([`updater`]).
//! - **Nothing breaks off.** The device may stop at any instant; it comes back with the old release or the new one, and the
//!   next run completes what was begun ([`disk`]).
//! - **Nothing is endless.** Lengths, numbers and slowness are bounded, after decompression ([`tidegate_tuf::limits`], [`fetch`]). Memory use does not depend on the length of what is downloaded.
//! - **Every decision has its reasons.** [`Device::check`](device::Device::check) returns the outcome of every rule, and
//!   [`Device::explain`](device::Device::explain) does so for other facts and other times.
//!
//! # Where things are
//!
//! | module | what it is | I/O |
//! |---|---|---|
//! | [`tidegate_tuf`] | the trust core: metadata over raw bytes, the client workflow, delegations | none |
//! | [`tidegate_model`] | what publisher and device read alike: manifests, cohorts, ramps, conditions, decisions | none |
//! | [`fetch`] | getting files | network, files |
//! | [`store`], [`disk`] | keeping files | files |
//! | [`clock`] | wall and monotonic time, and what wrong clocks do | clocks |
//! | [`updater`] | the TUF client: up-to-date metadata, and targets found in it | by the traits above |
//! | [`download`], [`install`] | from a target to a file, from a file to a slot | by the traits above |
//! | [`device`] | all of it | by the traits above |
//! | [`gate`] | showing a gate what the device is, for what is kept for devices like it | by the traits above |
//! | `key`, [`receipts`] | the device's own key; what became of releases, signed with it and sent | by traits |
//!
//! Each effect is a small trait with a stub beside it ([`fetch::MemoryFetch`], [`store::MemoryStore`], [`clock::StubClock`],
//! [`install::StubInstaller`]; [`disk::Faults`] plans failures), so an integration can be tested without a network, a clock or
//! a slot. A TUF client for another purpose needs no more than [`updater::Updater`].
//!
//! # Errors
//!
//! [`Error::fault`] tells whose fault it is: the peer's, the network's, the device's or the caller's. Clauses in messages are
//! those of the specification. That there is nothing to install is a decision, not an error.
//!
//! # Features
//!
//! - `http` (default): HTTP and HTTPS through ureq and rustls.
//! - `gate`: what is kept for a protected cohort, through its gate; a device key; and receipts of what became of releases, signed with it.
//!
//! [The Update Framework]: https://theupdateframework.github.io/specification/v1.0.34/
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]
pub mod agent;
pub mod clock;
pub mod command;
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
pub mod updater;

pub use error::{Error, Fault};
