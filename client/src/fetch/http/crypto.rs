//! The cryptography of TLS: ring's, except that the curve P-256 is computed by the crate that verifies metadata, which is linked in any
//! case. ring's own tables for P-256 would be 150 kB more.

use std::sync::Arc;

use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p256::ecdsa::{self, signature::Signer as _};
use p256::elliptic_curve::point::AffineCoordinates as _;
use p256::pkcs8::DecodePrivateKey as _;
use p256::{ProjectivePoint, PublicKey, SecretKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::crypto::ring as defaults;
use rustls::crypto::ring::cipher_suite as suites;
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom, SharedSecret, SupportedKxGroup,
    WebPkiSupportedAlgorithms,
};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{Error, NamedGroup, PeerMisbehaved, SignatureAlgorithm, SignatureScheme, SupportedCipherSuite};
use sha2::{Digest as _, Sha256, Sha384};
use webpki::ring as verifiers;
use zeroize::Zeroizing;

/// What rustls computes with.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: CIPHER_SUITES.to_vec(),
        kx_groups: vec![defaults::kx_group::X25519, &P256, defaults::kx_group::SECP384R1],
        signature_verification_algorithms: ALGORITHMS,
        secure_random: &Random,
        key_provider: &Keys,
    })
}

/// AES-GCM alone, which servers have: those of TLS 1.3 must (RFC 8446, 9.1). ChaCha20-Poly1305 would be 45 kB more.
const CIPHER_SUITES: [SupportedCipherSuite; 6] = [
    suites::TLS13_AES_256_GCM_SHA384,
    suites::TLS13_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

const P256_SHA256: &dyn SignatureVerificationAlgorithm = &Verifier { hash: alg_id::ECDSA_SHA256 };
const P256_SHA384: &dyn SignatureVerificationAlgorithm = &Verifier { hash: alg_id::ECDSA_SHA384 };

/// Those of `rustls::crypto::ring`, which does not export them.
const ALGORITHMS: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[
        P256_SHA256,
        P256_SHA384,
        verifiers::ECDSA_P384_SHA256,
        verifiers::ECDSA_P384_SHA384,
        verifiers::ED25519,
        verifiers::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        verifiers::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
        verifiers::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
        verifiers::RSA_PKCS1_2048_8192_SHA256,
        verifiers::RSA_PKCS1_2048_8192_SHA384,
        verifiers::RSA_PKCS1_2048_8192_SHA512,
        verifiers::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
        verifiers::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
        verifiers::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    ],
    mapping: &[
        (SignatureScheme::ECDSA_NISTP384_SHA384, &[verifiers::ECDSA_P384_SHA384, P256_SHA384]),
        (SignatureScheme::ECDSA_NISTP256_SHA256, &[P256_SHA256, verifiers::ECDSA_P384_SHA256]),
        (SignatureScheme::ED25519, &[verifiers::ED25519]),
        (SignatureScheme::RSA_PSS_SHA512, &[verifiers::RSA_PSS_2048_8192_SHA512_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA384, &[verifiers::RSA_PSS_2048_8192_SHA384_LEGACY_KEY]),
        (SignatureScheme::RSA_PSS_SHA256, &[verifiers::RSA_PSS_2048_8192_SHA256_LEGACY_KEY]),
        (SignatureScheme::RSA_PKCS1_SHA512, &[verifiers::RSA_PKCS1_2048_8192_SHA512]),
        (SignatureScheme::RSA_PKCS1_SHA384, &[verifiers::RSA_PKCS1_2048_8192_SHA384]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[verifiers::RSA_PKCS1_2048_8192_SHA256]),
    ],
};

/// Verifies signatures of P-256 keys in certificates and handshakes.
#[derive(Debug)]
struct Verifier {
    hash: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for Verifier {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.hash
    }

    fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let key = uncompressed(key).ok_or(InvalidSignature)?;
        let signature = ecdsa::Signature::from_der(signature).map_err(|_| InvalidSignature)?;
        let (short, long);
        let hash: &[u8] = if self.hash == alg_id::ECDSA_SHA256 {
            short = Sha256::digest(message);
            &short
        } else {
            long = Sha384::digest(message);
            &long
        };
        ecdsa::VerifyingKey::from(key).verify_prehash(hash, &signature).map_err(|_| InvalidSignature)
    }
}

/// A point that is written out, the only form in TLS.
fn uncompressed(point: &[u8]) -> Option<PublicKey> {
    if point.first() == Some(&4) { PublicKey::from_sec1_bytes(point).ok() } else { None }
}

/// Key exchange by P-256.
#[derive(Debug)]
struct P256;

struct Exchange {
    secret: SecretKey,
    public: Box<[u8]>,
}

impl SupportedKxGroup for P256 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        loop {
            let mut bytes = Zeroizing::new([0; 32]);
            SystemRandom::new().fill(&mut *bytes).map_err(|_| GetRandomFailed)?;
            // One of 2^32 is not below the order of the curve.
            if let Ok(secret) = SecretKey::from_slice(&*bytes) {
                let public = secret.public_key().to_sec1_bytes();
                return Ok(Box::new(Exchange { secret, public }));
            }
        }
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

impl ActiveKeyExchange for Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = uncompressed(peer).ok_or(PeerMisbehaved::InvalidKeyShare)?;
        let shared = ProjectivePoint::from(*peer.as_affine()) * *self.secret.to_nonzero_scalar();
        Ok(SharedSecret::from(shared.to_affine().x().as_slice()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.public
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::secp256r1
    }
}

#[derive(Debug)]
struct Random;

impl SecureRandom for Random {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        SystemRandom::new().fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// Reads the keys of client certificates.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        if let Ok(rsa) = defaults::sign::RsaSigningKey::new(&key) {
            return Ok(Arc::new(rsa));
        }
        if let PrivateKeyDer::Pkcs8(key) = &key
            && let Ok(ed25519) = defaults::sign::any_eddsa_type(key)
        {
            return Ok(ed25519);
        }
        let key = ecdsa_key(&key).ok_or_else(|| Error::General("the private key is of no known kind".into()))?;
        Ok(Arc::new(Signing(Arc::new(key))))
    }
}

/// The private key of a client certificate.
#[derive(Debug)]
enum EcdsaKey {
    P256(ecdsa::SigningKey),
    P384(EcdsaKeyPair),
}

/// Reads a key in PKCS#8 or SEC 1.
fn ecdsa_key(der: &PrivateKeyDer<'_>) -> Option<EcdsaKey> {
    let (p256, pkcs8) = match der {
        PrivateKeyDer::Pkcs8(key) => (SecretKey::from_pkcs8_der(key.secret_pkcs8_der()).ok(), None),
        PrivateKeyDer::Sec1(key) => {
            let key = key.secret_sec1_der();
            (SecretKey::from_sec1_der(key).ok(), p384_in_pkcs8(key))
        }
        _ => return None,
    };
    if let Some(key) = p256 {
        return Some(EcdsaKey::P256(key.into()));
    }
    let pkcs8 = pkcs8.as_deref().unwrap_or(der.secret_der());
    EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, pkcs8, &SystemRandom::new()).ok().map(EcdsaKey::P384)
}

/// Puts a key of P-384 into PKCS#8, the only form that ring reads.
fn p384_in_pkcs8(sec1: &[u8]) -> Option<Vec<u8>> {
    // Version 0, id-ecPublicKey, secp384r1.
    const HEAD: &[u8] = b"\x02\x01\0\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\0\x22";
    const OCTET_STRING: u8 = 0x04;
    const SEQUENCE: u8 = 0x30;
    let element = |tag, content: &[u8]| {
        let length = u8::try_from(content.len()).ok()?;
        let long: &[u8] = if length < 0x80 { &[] } else { &[0x81] };
        Some([&[tag], long, &[length], content].concat())
    };
    element(SEQUENCE, &[HEAD, &element(OCTET_STRING, sec1)?].concat())
}

impl EcdsaKey {
    fn scheme(&self) -> SignatureScheme {
        match self {
            Self::P256(_) => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::P384(_) => SignatureScheme::ECDSA_NISTP384_SHA384,
        }
    }
}

/// Shared, because a signer outlives the call that chooses it.
#[derive(Debug, Clone)]
struct Signing(Arc<EcdsaKey>);

impl SigningKey for Signing {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        if offered.contains(&self.0.scheme()) { Some(Box::new(self.clone())) } else { None }
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(match &*self.0 {
            EcdsaKey::P256(key) => public_key_to_spki(&alg_id::ECDSA_P256, key.verifying_key().to_sec1_point(false)),
            EcdsaKey::P384(key) => public_key_to_spki(&alg_id::ECDSA_P384, key.public_key()),
        })
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Signing {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = || Error::General("signing failed".into());
        match &*self.0 {
            EcdsaKey::P256(key) => {
                let signature: ecdsa::Signature = key.try_sign(message).map_err(|_| failed())?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            EcdsaKey::P384(key) => Ok(key.sign(&SystemRandom::new(), message).map_err(|_| failed())?.as_ref().to_vec()),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

#[cfg(test)]
mod tests {
    use p256::elliptic_curve::sec1::ToSec1Point as _;
    use rcgen::{CertificateParams, KeyPair as Issued, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    fn issued(algorithm: &'static rcgen::SignatureAlgorithm) -> (CertificateDer<'static>, Issued) {
        let key = Issued::generate_for(algorithm).unwrap();
        (CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().into(), key)
    }

    fn pkcs8(key: &Issued) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(key.serialize_der()).into()
    }

    fn trusting(certificate: &CertificateDer<'static>) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).unwrap();
        Arc::new(roots)
    }

    fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            to.read_tls(&mut rest).unwrap();
            to.process_new_packets()?;
        }
        Ok(())
    }

    /// A handshake with ring on the server's side: the group that was used.
    fn handshake(
        version: &'static rustls::SupportedProtocolVersion,
        group: &'static dyn SupportedKxGroup,
        algorithm: &'static rcgen::SignatureAlgorithm,
        client: (CertificateDer<'static>, PrivateKeyDer<'static>),
    ) -> Result<NamedGroup, Error> {
        let rings = Arc::new(CryptoProvider { kx_groups: vec![group], ..defaults::default_provider() });
        let (certificate, key) = issued(algorithm);
        let clients = WebPkiClientVerifier::builder_with_provider(trusting(&client.0), rings.clone()).build().unwrap();
        let server = ServerConfig::builder_with_provider(rings)
            .with_protocol_versions(&[version])?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.clone()], pkcs8(&key))?;
        let ours = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])?
            .with_root_certificates(trusting(&certificate))
            .with_client_auth_cert(vec![client.0], client.1)?;
        let mut server = Connection::from(ServerConnection::new(Arc::new(server))?);
        let mut ours = Connection::from(ClientConnection::new(Arc::new(ours), "localhost".try_into().unwrap())?);
        for _ in 0..4 {
            pass(&mut ours, &mut server)?;
            pass(&mut server, &mut ours)?;
        }
        assert!(!ours.is_handshaking() && !server.is_handshaking());
        assert!(server.peer_certificates().is_some());
        Ok(ours.negotiated_key_exchange_group().unwrap().name())
    }

    #[test]
    fn handshakes_agree_with_ring() {
        for version in [&TLS12, &TLS13] {
            for &group in defaults::ALL_KX_GROUPS {
                for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
                    let (certificate, key) = issued(algorithm);
                    let used = handshake(version, group, algorithm, (certificate, pkcs8(&key))).unwrap();
                    assert_eq!(used, group.name());
                }
            }
        }
    }

    #[test]
    fn client_keys_in_sec1_are_read() {
        let sec1 = |key: &Issued| {
            if let Ok(key) = SecretKey::from_pkcs8_der(&key.serialize_der()) {
                return key.to_sec1_der().unwrap().to_vec();
            }
            // Behind three bytes of the sequence, 21 of version and algorithm, and three of the octet string.
            key.serialize_der().split_off(27)
        };
        for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            let (certificate, key) = issued(algorithm);
            let der = PrivateKeyDer::Sec1(sec1(&key).into());
            handshake(&TLS13, defaults::kx_group::X25519, algorithm, (certificate, der)).unwrap();
        }
        for der in [b"".as_slice(), b"\x30\0", &[0; 300]] {
            Keys.load_private_key(PrivateKeyDer::Sec1(der.to_vec().into())).unwrap_err();
            Keys.load_private_key(PrivateKeyDer::Pkcs8(der.to_vec().into())).unwrap_err();
        }
        let (certificate, _) = issued(&PKCS_ECDSA_P256_SHA256);
        let (_, others) = issued(&PKCS_ECDSA_P256_SHA256);
        let error = handshake(&TLS13, &P256, &PKCS_ED25519, (certificate, pkcs8(&others))).unwrap_err();
        assert!(matches!(error, Error::InconsistentKeys(_)), "{error}");
    }

    #[test]
    fn key_shares_off_the_curve_are_refused() {
        let point = |secret: &SecretKey, compress| secret.public_key().to_sec1_point(compress).as_bytes().to_vec();
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        let good = point(&secret, false);
        let ours = P256.start().unwrap();
        let shared =
            p256::PublicKey::from_sec1_bytes(ours.pub_key()).unwrap().to_projective() * *secret.to_nonzero_scalar();
        let shared = shared.to_affine().x();
        assert_eq!(ours.complete(&good).unwrap().secret_bytes(), shared.as_slice());
        let mut off = good.clone();
        off[64] ^= 1;
        for wrong in [off, point(&secret, true), good[..64].to_vec(), vec![0], Vec::new(), vec![4; 65]] {
            assert!(P256.start().unwrap().complete(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn signatures_of_p256_are_verified_under_both_hashes() {
        let (_, key) = issued(&PKCS_ECDSA_P256_SHA256);
        let EcdsaKey::P256(key) = ecdsa_key(&pkcs8(&key)).unwrap() else { panic!("of another kind") };
        let public = key.verifying_key().to_sec1_point(false);
        let sign = |hash: &[u8]| -> ecdsa::Signature {
            ecdsa::signature::hazmat::PrehashSigner::sign_prehash(&key, hash).unwrap()
        };
        let (short, long) = (sign(&Sha256::digest(b"text")), sign(&Sha384::digest(b"text")));
        for (verifier, rings, right, wrong) in [
            (P256_SHA256, verifiers::ECDSA_P256_SHA256, short, long),
            (P256_SHA384, verifiers::ECDSA_P256_SHA384, long, short),
        ] {
            for verifier in [verifier, rings] {
                let verify = |message: &[u8], signature: ecdsa::Signature| {
                    verifier.verify_signature(public.as_bytes(), message, signature.to_der().as_bytes())
                };
                verify(b"text", right).unwrap();
                verify(b"texts", right).unwrap_err();
                verify(b"text", wrong).unwrap_err();
                verifier.verify_signature(public.as_bytes(), b"text", &right.to_bytes()).unwrap_err();
            }
        }
    }

    #[test]
    fn what_is_offered_is_what_rustls_offers_with_ring() {
        let (ours, rings) = (provider(), defaults::default_provider());
        let ids = |algorithms: &[&dyn SignatureVerificationAlgorithm]| {
            algorithms.iter().map(|one| (one.public_key_alg_id(), one.signature_alg_id())).collect::<Vec<_>>()
        };
        let table = |algorithms: WebPkiSupportedAlgorithms| {
            let mapping = algorithms.mapping.iter().map(|(scheme, all)| (*scheme, ids(all))).collect::<Vec<_>>();
            (ids(algorithms.all), mapping)
        };
        assert_eq!(table(ours.signature_verification_algorithms), table(rings.signature_verification_algorithms));
        let groups =
            |provider: &CryptoProvider| provider.kx_groups.iter().map(|group| group.name()).collect::<Vec<_>>();
        assert_eq!(groups(&ours), groups(&rings));
        let mut expected = rings.cipher_suites;
        expected.retain(|suite| !format!("{:?}", suite.suite()).contains("CHACHA20"));
        assert_eq!(ours.cipher_suites, expected);
    }
}
