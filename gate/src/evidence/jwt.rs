//! Makes the crate `jsonwebtoken` verify signatures with `ring`, which TLS uses too, so that only one cryptographic library is linked.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};

/// Installs `ring` as the provider of this process. Further calls have no effect.
pub fn install() {
    static RING: CryptoProvider = CryptoProvider {
        // The gate does not sign JWTs.
        signer_factory: no_signer,
        verifier_factory: verifier,
        // Only used with private keys and for thumbprints.
        key_utils: KeyUtils::new_unimplemented(),
    };
    let _ = RING.install_default();
}

struct RingVerifier {
    algorithm: Algorithm,
    scheme: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
}

impl signature::Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        UnparsedPublicKey::new(self.scheme, &self.key).verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "jsonwebtoken defines the signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let scheme: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::EdDSA => &ED25519,
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, scheme, key: key.try_get_as_bytes()?.to_vec() }))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "jsonwebtoken defines the signature")]
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}
