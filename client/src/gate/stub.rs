//! A gate without a network.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::{Gate, Visit};
use crate::fetch::{FetchError, Pass, Refusal, Request};
use tidegate_model::gate::Attestation;

/// A simulated gate for tests that records its visits. Clones share their state.
///
/// The files behind it are served by the test's own fetcher, such as [`MemoryFetch`](crate::fetch::MemoryFetch), at the URLs of
/// [`GateUrl::repository`](tidegate_model::gate::GateUrl::repository); [`opens`](Self::opens) checks access.
#[derive(Debug, Clone, Default)]
pub struct StubGate(Arc<Mutex<Stub>>);

#[derive(Debug, Default)]
struct Stub {
    attestation: Option<Attestation>,
    refusal: Option<Refusal>,
    is_gone: bool,
    granted: Vec<String>,
    /// The grants before this one have expired.
    first: usize,
}

/// The number of a grant.
#[derive(Debug)]
struct Number(usize);

impl Pass for Number {
    fn headers(&self, _: &str) -> Result<Vec<(&'static str, String)>, String> {
        Ok(vec![("Authorization", format!("Bearer {}", self.0))])
    }
}

impl StubGate {
    /// A gate that accepts everyone, for a device without an attestor.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the kind of the device's attestor, or removes it.
    pub fn attest(&self, kind: Option<Attestation>) {
        self.lock().attestation = kind;
    }

    /// Starts or stops refusing.
    pub fn refuse(&self, refusal: Option<Refusal>) {
        self.lock().refusal = refusal;
    }

    /// Becomes unreachable or reachable.
    pub fn vanish(&self, is_gone: bool) {
        self.lock().is_gone = is_gone;
    }

    /// Expires all grants.
    pub fn expire(&self) {
        let mut stub = self.lock();
        stub.first = stub.granted.len();
    }

    /// The roles that grants were made for, in order.
    pub fn granted(&self) -> Vec<String> {
        self.lock().granted.clone()
    }

    /// Checks a request as a gate does.
    ///
    /// # Errors
    ///
    /// [`FetchError::Denied`] if the request has no valid grant for this role.
    pub fn opens(&self, request: &Request<'_>, role: &str) -> Result<(), FetchError> {
        let headers = request.pass.and_then(|pass| pass.headers(request.url).ok()).unwrap_or_default();
        let number = headers.first().and_then(|(_, value)| value.strip_prefix("Bearer ")?.parse::<usize>().ok());
        let stub = self.lock();
        let granted = number.filter(|number| *number >= stub.first).and_then(|number| stub.granted.get(number));
        let (status, why) = match granted {
            Some(granted) if granted == role => return Ok(()),
            Some(_) => (403, "the token's cohorts do not open this object"),
            None => (401, "the token is missing or has expired"),
        };
        let refusal = Refusal { rule: "G-TOK".into(), why: why.into(), missing: Vec::new() };
        Err(FetchError::Denied { url: request.url.to_owned(), status, refusal })
    }

    fn lock(&self) -> MutexGuard<'_, Stub> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate for StubGate {
    fn attestation(&self) -> Option<Attestation> {
        self.lock().attestation
    }

    fn enter(&self, visit: &Visit, afresh: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError> {
        let mut stub = self.lock();
        let url = visit.gate.to_string();
        if stub.is_gone {
            return Err(FetchError::Unreachable { url, reason: "this stub is unreachable".into() });
        }
        if let Some(refusal) = stub.refusal.clone() {
            return Err(FetchError::Denied { url, status: 403, refusal });
        }
        let last =
            stub.granted.len().checked_sub(1).filter(|last| !afresh && stub.granted.get(*last) == Some(&visit.role));
        let number = last.unwrap_or_else(|| {
            stub.granted.push(visit.role.clone());
            stub.granted.len() - 1
        });
        Ok(Arc::new(Number(number)))
    }
}
