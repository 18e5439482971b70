//! The real gate client: challenges, grants, and authenticated requests.

mod attestor;
mod command;
mod evidence;
mod proof;
mod tpm;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64ct::{Base64UrlUnpadded, Encoding as _};
use serde_json::{Value, json};
use ureq::http::Method;

pub use attestor::{AttestError, Attestor, Challenge, StubAttestor};
pub use command::CommandAttestor;
pub use evidence::Evidence;
pub use proof::{HEADER, Signer};
pub use tpm::{Bank, TpmAttestor, TpmOptions};

use super::entry::{Gate, Visit};
use crate::clock::{Monotonic, SystemClock};
use crate::fetch::http::{Answered, HttpFetch};
use crate::fetch::{FetchError, Pass, Refusal};
use tidegate_model::gate::{Attestation, GateUrl};
use tidegate_model::time;
use tidegate_tuf::fields::{FieldError, Fields};
use tidegate_tuf::json;

/// How long a nonce is valid. The protocol fixes this, so the nonce also reveals the gate's time.
const NONCE: Duration = Duration::from_secs(120);
/// A grant is no longer used when less than this, or less than a quarter, of its lifetime remains.
const MARGIN: Duration = Duration::from_secs(30);
/// The maximum lifetime of a grant, regardless of the gate's answer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// The longest nonce and the longest token, in characters.
const TEXT: usize = 4096;

/// Sends requests to gates over HTTP. Share it in an [`Arc`] with other users of gates.
///
/// The device authenticates with the client certificate of the [`HttpFetch`] (mutual TLS), or with a device key that signs each request.
/// Grants are kept only in memory.
///
/// ```no_run
/// use std::collections::BTreeSet;
/// use std::sync::Arc;
///
/// use tidegate_client::clock::SystemClock;
/// use tidegate_client::device::Device;
/// use tidegate_client::fetch::AnyFetch;
/// use tidegate_client::gate::{Bank, GateClient, Signer, TpmAttestor, TpmOptions};
/// use tidegate_client::fetch::http::HttpFetch;
/// use tidegate_client::key::DeviceKey;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // One for all requests, so that connections and the device's certificate are shared.
/// let http = Arc::new(HttpFetch::new());
/// let quote = TpmOptions {
///     key: "0x81010002".into(),
///     auth: None,
///     tcti: None,
///     bank: Bank::Sha256,
///     pcrs: BTreeSet::from([0, 7]),
///     program: None,
/// };
/// let gate = GateClient::new(http.clone())
///     .signer(Signer::new(DeviceKey::open("/etc/tidegate/device.key")?, SystemClock::new()))
///     .attestor(TpmAttestor::new(quote, "/var/lib/tidegate")?);
/// let builder = Device::builder().fetch(AnyFetch::with_http(http)).gate(gate);
/// # Ok(())
/// # }
/// ```
pub struct GateClient {
    http: Arc<HttpFetch>,
    signer: Option<Signer>,
    attestor: Option<Box<dyn Attestor + Send + Sync>>,
    clock: Arc<dyn Monotonic>,
    grant: Mutex<Option<Grant>>,
}

/// A grant of a gate.
struct Grant {
    visit: Visit,
    /// The end of its use.
    until: Duration,
    token: Arc<Token>,
}

impl GateClient {
    /// A client that uses this fetcher, which the device should use too. It provides no evidence yet.
    pub fn new(http: impl Into<Arc<HttpFetch>>) -> Self {
        let clock = Arc::new(SystemClock::new());
        Self { http: http.into(), signer: None, attestor: None, clock, grant: Mutex::new(None) }
    }

    /// The same, authenticated by a device key.
    #[must_use]
    pub fn signer(self, signer: Signer) -> Self {
        Self { signer: Some(signer), ..self }
    }

    /// The same, with evidence by this attestor.
    #[must_use]
    pub fn attestor(self, attestor: impl Attestor + Send + Sync + 'static) -> Self {
        Self { attestor: Some(Box::new(attestor)), ..self }
    }

    /// The same, with the age of grants measured by this clock.
    #[must_use]
    pub fn clock(self, clock: Arc<dyn Monotonic>) -> Self {
        Self { clock, ..self }
    }

    /// Posts JSON to a path of a gate, such as `/v1/receipts`, as this device.
    ///
    /// # Errors
    ///
    /// If there was no answer. An answer may be a refusal.
    pub fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, FetchError> {
        let url = format!("{gate}{path}");
        let secret = |reason| FetchError::Secret { url: url.clone(), reason };
        let proof = self
            .signer
            .as_ref()
            .map(|signer| signer.proof(gate, "POST", path, body, ""))
            .transpose()
            .map_err(secret)?;
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(proof.as_deref().map(|proof| (HEADER, proof)));
        self.http.send(&Method::POST, &url, &headers, body)
    }

    /// A new grant.
    fn ask(&self, visit: &Visit) -> Result<Grant, FetchError> {
        let Visit { gate, role, device } = visit;
        let asked = self.clock.elapsed();
        let challenge = self.request_json(gate, "/v1/challenge", &json!({"device": device}), |fields| {
            let nonce = fields.text_as("nonce", |text| match Base64UrlUnpadded::decode_vec(text) {
                Ok(nonce) if !nonce.is_empty() && text.len() <= TEXT => Ok(nonce),
                _ => Err("it is no base64url"),
            })?;
            Ok((nonce, fields.text_as("expires", time::parse)?))
        });
        let (nonce, challenged) = challenge?;
        let evidence = match &self.attestor {
            None => Evidence::None,
            Some(attestor) => attestor
                .evidence(&Challenge { gate, device, nonce: &nonce })
                .map_err(|e| FetchError::Evidence { url: gate.to_string(), reason: e.to_string() })?,
        };
        let nonce = Base64UrlUnpadded::encode_string(&nonce);
        let body = json!({"device": device, "nonce": nonce, "cohorts": [role], "evidence": evidence.to_value()});
        let (token, expires) = self.request_json(gate, "/v1/grant", &body, |fields| {
            let token = fields.text_as("token", |text| {
                let is_good = (1..=TEXT).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_graphic());
                if is_good { Ok(text.to_owned()) } else { Err("it cannot be sent in a header") }
            })?;
            let opened = fields.list("cohorts", 64, tidegate_tuf::fields::parsed::<String>)?;
            if !opened.contains(role) {
                return Err(FieldError::new("cohorts", format!("{role} is not among them")));
            }
            Ok((token, fields.text_as("expires", time::parse)?))
        })?;
        // Measured only by the gate's clock, because this device's clock may be wrong.
        let life = (expires - challenged).to_std().map_or_else(
            |_| NONCE.saturating_sub((challenged - expires).to_std().unwrap_or(NONCE)),
            |after| after.saturating_add(NONCE),
        );
        let life = life.min(LONGEST);
        let until = asked.saturating_add(life.saturating_sub(MARGIN.min(life / 4)));
        let token = Arc::new(Token { gate: gate.clone(), text: token, signer: self.signer.clone() });
        Ok(Grant { visit: visit.clone(), until, token })
    }

    /// Posts JSON and reads the JSON answer.
    fn request_json<T>(
        &self,
        gate: &GateUrl,
        path: &str,
        body: &Value,
        read: impl FnOnce(&mut Fields<'_>) -> Result<T, FieldError>,
    ) -> Result<T, FetchError> {
        let url = format!("{gate}{path}");
        let Answered { status, body, retry_after } = self.post(gate, path, body.to_string().as_bytes())?;
        match status {
            200 => {}
            401 | 403 => return Err(FetchError::Denied { url, status, refusal: Refusal::read(&body) }),
            400 => {
                let reason = format!("the gate does not understand this device: {}", Refusal::read(&body));
                return Err(FetchError::Protocol { url, reason });
            }
            _ => return Err(FetchError::Status { url, status, came: String::new(), retry_after }),
        }
        let wrong = |why: String| FetchError::Protocol {
            url: url.clone(),
            reason: format!("this is not an answer of a gate: {why}"),
        };
        let value = json::parse(&body).map_err(|e| wrong(e.to_string()))?;
        let mut fields = Fields::of(&value, "").map_err(|fault| wrong(fault.to_string()))?;
        read(&mut fields).map_err(|fault| wrong(fault.to_string()))
    }
}

impl Gate for GateClient {
    fn attestation(&self) -> Option<Attestation> {
        self.attestor.as_ref().and_then(|attestor| attestor.kind())
    }

    fn enter(&self, visit: &Visit, afresh: bool) -> Result<Arc<dyn Pass + Send + Sync>, FetchError> {
        let mut kept = self.grant.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.elapsed();
        if let Some(grant) = kept.as_ref().filter(|grant| !afresh && grant.visit == *visit && now < grant.until) {
            return Ok(grant.token.clone());
        }
        *kept = None;
        let grant = match self.ask(visit) {
            // The connection failed between a request and its answer, and a single-use value was sent twice.
            Err(FetchError::Denied { refusal, .. }) if is_spent(&refusal) => self.ask(visit),
            result => result,
        }?;
        Ok(kept.insert(grant).token.clone())
    }
}

/// Whether the refusal is about a used proof or nonce.
fn is_spent(refusal: &Refusal) -> bool {
    matches!(refusal.rule.as_str(), "G-ID-06" | "G-NON-03")
}

/// A token with the proof key of this device.
struct Token {
    gate: GateUrl,
    text: String,
    signer: Option<Signer>,
}

impl Pass for Token {
    fn headers(&self, url: &str) -> Result<Vec<(&'static str, String)>, String> {
        let path = url.strip_prefix(self.gate.as_str()).filter(|path| path.starts_with('/'));
        let path = path.ok_or_else(|| format!("it is for {} alone", self.gate))?;
        let mut headers = vec![("Authorization", format!("Bearer {}", self.text))];
        if let Some(signer) = &self.signer {
            headers.push((HEADER, signer.proof(&self.gate, "GET", path, b"", &self.text)?));
        }
        Ok(headers)
    }
}

/// Without the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl fmt::Debug for GateClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GateClient")
            .field("signer", &self.signer)
            .field("attests", &self.attestation())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
