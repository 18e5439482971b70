//! Keys in AWS KMS: `ECC_NIST_P256` with `ECDSA_SHA_256`, and for roots of other tools RSA with `RSASSA_PSS_SHA_256`.
//!
//! Credentials come from the sources of the AWS tools: the environment, a profile, the instance. The private part never leaves
//! the service; only the SHA-256 of the message is sent.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyUsageType, MessageType, SigningAlgorithmSpec};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use p256::pkcs8::DecodePublicKey as _;
use sha2::{Digest as _, Sha256};
use tidegate_tuf::key::Key;

use super::uri::KmsUri;
use super::{Signer, public};
use crate::error::{Error, Kind, Result};

/// Timeout of one call, including retries.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A key in AWS KMS.
#[derive(Debug)]
pub struct KmsKey {
    name: String,
    uri: KmsUri,
    public: Key,
}

impl KmsKey {
    /// Requests the public key from the service; `name` is the key's name in errors.
    ///
    /// # Errors
    ///
    /// Fails if the service cannot be reached, or if the key is neither on P-256 nor RSA, or does not sign.
    pub fn open(name: &str, uri: &KmsUri) -> Result<Self> {
        let key = uri.key.clone();
        let answer = call(uri, async move |client: Client| {
            client.get_public_key().key_id(key).send().await.map_err(|e| complaint(&e))
        })
        .map_err(|why| failed(name, "read the public key", &why))?;
        let unusable = |why: &str| {
            Error::input(format!("key {name}: the key in KMS cannot sign here: {why}"))
                .remedy("use a key with usage SIGN_VERIFY and spec ECC_NIST_P256 (or RSA, where a root of another tool lists it)")
        };
        if answer.key_usage().is_some_and(|usage| *usage != KeyUsageType::SignVerify) {
            return Err(unusable("its usage is not SIGN_VERIFY"));
        }
        let der = answer.public_key().ok_or_else(|| unusable("the service returned no public key"))?;
        let public = match p256::PublicKey::from_public_key_der(der.as_ref()) {
            Ok(key) => public::p256_key(&key)?,
            Err(_) => public::rsa_key(der.as_ref()).ok_or_else(|| unusable("it is neither on P-256 nor RSA"))?,
        };
        Ok(Self { name: name.to_owned(), uri: uri.clone(), public })
    }
}

impl Signer for KmsKey {
    fn public(&self) -> &Key {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let (key, digest) = (self.uri.key.clone(), Sha256::digest(message).to_vec());
        let algorithm = match self.public.keytype() {
            "rsa" => SigningAlgorithmSpec::RsassaPssSha256,
            _ => SigningAlgorithmSpec::EcdsaSha256,
        };
        let answer = call(&self.uri, async move |client: Client| {
            client
                .sign()
                .key_id(key)
                .message_type(MessageType::Digest)
                .signing_algorithm(algorithm)
                .message(Blob::new(digest))
                .send()
                .await
                .map_err(|e| complaint(&e))
        })
        .map_err(|why| failed(&self.name, "sign", &why))?;
        let wrong = |why: String| failed(&self.name, "sign", &Complaint::new(why));
        let signature = answer.signature().ok_or_else(|| wrong("the answer contains no signature".into()))?;
        super::signature_bytes(&self.public, signature.as_ref()).map_err(wrong)
    }
}

/// Runs one call to completion, on a separate thread because the caller may already be within a runtime.
fn call<T: Send>(uri: &KmsUri, work: impl AsyncFnOnce(Client) -> Result<T, Complaint> + Send) -> Result<T, Complaint> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Complaint::new(e.to_string()))?;
        runtime.block_on(async move {
            let client = client(uri).await;
            work(client).await
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err(Complaint::new("the AWS client gave up")))
}

async fn client(uri: &KmsUri) -> Client {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder().operation_timeout(TIMEOUT).connect_timeout(TIMEOUT / 3).build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts);
    if let Some(region) = &uri.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(profile) = &uri.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(endpoint) = &uri.endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    Client::new(&loader.load().await)
}

/// What went wrong, and what to do about it.
struct Complaint {
    why: String,
    remedy: &'static str,
}

impl Complaint {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: "try again; if it stays, use another key" }
    }
}

/// An error of the SDK in a few words: the service's code and message, or else the innermost cause.
fn complaint<E>(error: &SdkError<E>) -> Complaint
where
    E: std::error::Error + ProvideErrorMetadata + 'static,
{
    if let Some(service) = error.as_service_error() {
        let code = service.code().unwrap_or("an error without a code");
        let remedy = match code {
            "NotFoundException" => "check the key's uri: its id or alias, and ?region=",
            _ => {
                "the caller (aws sts get-caller-identity) needs kms:GetPublicKey and kms:Sign for a key that is enabled"
            }
        };
        let why = service.message().map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"));
        return Complaint { why, remedy };
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let remedy = match error {
        // The request was never made: nothing signed it.
        SdkError::DispatchFailure(failure) if !failure.is_io() && !failure.is_timeout() => {
            "give credentials as to the AWS tools: AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ?profile="
        }
        _ => "check ?region= and ?endpoint= of the key's uri, and that the service can be reached from here",
    };
    Complaint { why: cause.to_string(), remedy }
}

fn failed(name: &str, what: &str, complaint: &Complaint) -> Error {
    let why: String = complaint.why.lines().next().unwrap_or_default().chars().take(200).collect();
    Error::new(Kind::Io, format!("key {name}: AWS KMS cannot {what}: {why}")).remedy(complaint.remedy)
}
