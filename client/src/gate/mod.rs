//! The device's side of a [gate](tidegate_model::gate): it shows what it is, and fetches what is kept for devices like it.
//!
//! ```text
//! POST /v1/challenge -> nonce -> Attestor -> evidence -> POST /v1/grant -> token
//!                                                                            |   with each request, the device's certificate or key
//!                      GET /v1/repo/metadata/N.CHANNEL.COHORT.json <---------+
//!                      GET /v1/repo/targets/...     (releases that are assigned with "private": true)
//! ```
//!
//! A [`Device`](crate::device::Device) that was given a [`Gate`] asks it for nothing but that, and only if its cohort is protected and something
//! changed: everything else stays public, and what comes through a gate is verified like everything else. A gate that refuses is a reason to keep
//! what is installed, not an error; one that cannot be reached is an error of the network's kind.
//!
//! [`GateClient`] is the real one. What it is made of are traits with stubs beside them: [`StubGate`], [`StubAttestor`].
//!
//! ```no_run
//! use std::collections::BTreeSet;
//! use std::sync::Arc;
//!
//! use tidegate_client::clock::SystemClock;
//! use tidegate_client::device::Device;
//! use tidegate_client::fetch::AnyFetch;
//! use tidegate_client::gate::{Bank, GateClient, Signer, TpmAttestor, TpmOptions};
//! use tidegate_client::fetch::http::HttpFetch;
//! use tidegate_client::key::DeviceKey;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // One for all that is fetched, so that connections and the device's certificate, if it has one, are shared.
//! let http = Arc::new(HttpFetch::new());
//! let quote = TpmOptions {
//!     key: "0x81010002".into(),
//!     auth: None,
//!     tcti: None,
//!     bank: Bank::Sha256,
//!     pcrs: BTreeSet::from([0, 7]),
//!     program: None,
//! };
//! let gate = GateClient::new(http.clone())
//!     .signer(Signer::new(DeviceKey::open("/etc/tidegate/device.key")?, SystemClock::new()))
//!     .attestor(TpmAttestor::new(quote, "/var/lib/tidegate")?);
//! let builder = Device::builder().fetch(AnyFetch::with_http(http)).gate(gate);
//! # Ok(())
//! # }
//! ```

mod attestor;
mod client;
mod command;
mod evidence;
mod proof;
mod routed_fetch;
mod stub;
mod tpm;

use std::sync::Arc;

pub use attestor::{AttestError, Attestor, Challenge, StubAttestor};
pub use client::GateClient;
pub use command::CommandAttestor;
pub use evidence::Evidence;
pub use proof::{HEADER, Signer};
pub(crate) use routed_fetch::GatedFetch;
pub use stub::StubGate;
pub use tpm::{Bank, TpmAttestor, TpmOptions};

use crate::fetch::{FetchError, Pass};
use tidegate_model::gate::{Attestation, GateUrl};
use tidegate_model::name::DeviceId;

/// Lets a device in to what is kept for its cohort.
pub trait Gate {
    /// The kind of evidence that this device gives. `None` if it gives none.
    fn attestation(&self) -> Option<Attestation>;

    /// What opens, to this device, what is kept for a cohort. Unless it is asked for `afresh`, that may be what is still good of the last time.
    ///
    /// # Errors
    ///
    /// [`FetchError::Denied`] if the gate refuses; [`FetchError::Evidence`] if this device could not make its evidence; others if the gate
    /// could not be asked.
    fn enter(&self, visit: &Visit, afresh: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError>;
}

impl<T: Gate + ?Sized> Gate for Arc<T> {
    fn attestation(&self) -> Option<Attestation> {
        (**self).attestation()
    }

    fn enter(&self, visit: &Visit, afresh: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError> {
        (**self).enter(visit, afresh)
    }
}

/// Who wants in, where, for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The gate.
    pub gate: GateUrl,
    /// The role of the cohort, `CHANNEL.COHORT`.
    pub role: String,
    /// The device.
    pub device: DeviceId,
}

impl Visit {
    /// Whether this URL is behind the gate.
    pub fn leads_to(&self, url: &str) -> bool {
        url.strip_prefix(&self.gate.repository()).is_some_and(|rest| rest.starts_with('/'))
    }
}
