//! JWTs are read by the crate `jsonwebtoken`; their signatures are verified by `ring`, which TLS uses as well, so that no second
//! implementation of cryptography is linked.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm};

/// Makes `ring` the provider of this process. Doing it again changes nothing.
pub fn install() {
    static RING: CryptoProvider = CryptoProvider {
        // The gate signs no JWT.
        signer_factory: no_signer,
        verifier_factory: verifier,
        // Only used to make keys from private ones, and for thumbprints.
        key_utils: KeyUtils::new_unimplemented(),
    };
    let _ = RING.install_default();
}

struct Verifier {
    algorithm: Algorithm,
    how: &'static dyn VerificationAlgorithm,
    key: Vec<u8>,
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        UnparsedPublicKey::new(self.how, &self.key).verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that the crate calls")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let how: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::EdDSA => &ED25519,
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Verifier { algorithm: *algorithm, how, key: key.try_get_as_bytes()?.to_vec() }))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that the crate calls")]
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(ErrorKind::InvalidAlgorithm.into())
}
