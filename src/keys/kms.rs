//! Keys in AWS KMS: `ECC_NIST_P256` with `ECDSA_SHA_256`, and for roots of other tools RSA with `RSASSA_PSS_SHA_256`.
//!
//! Credentials come from the sources of the AWS tools: the environment, a profile, the instance. The private part never leaves
//! the service; only the SHA-256 of the message is sent.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::error::DisplayErrorContext;
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
            client.get_public_key().key_id(key).send().await.map_err(|e| DisplayErrorContext(e).to_string())
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
                .map_err(|e| DisplayErrorContext(e).to_string())
        })
        .map_err(|why| failed(&self.name, "sign", &why))?;
        let signature =
            answer.signature().ok_or_else(|| failed(&self.name, "sign", "the answer contains no signature"))?;
        super::signature_bytes(&self.public, signature.as_ref()).map_err(|why| failed(&self.name, "sign", &why))
    }
}

/// Runs one call to completion, on a separate thread because the caller may already be within a runtime.
fn call<T: Send>(uri: &KmsUri, work: impl AsyncFnOnce(Client) -> Result<T, String> + Send) -> Result<T, String> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(async move {
            let client = client(uri).await;
            work(client).await
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|_| Err("the AWS client gave up".into()))
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

fn failed(name: &str, what: &str, why: &str) -> Error {
    // The SDK's words are long and made for logs; the first line says it.
    let why: String = why.lines().next().unwrap_or_default().chars().take(400).collect();
    Error::new(Kind::Io, format!("key {name}: AWS KMS cannot {what}: {why}")).remedy(
        "check the key's uri, the region, and the credentials (aws sts get-caller-identity); it takes kms:GetPublicKey and kms:Sign",
    )
}
