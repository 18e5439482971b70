//! Private keys in PKCS#8 PEM files, plain or encrypted: Ed25519 and P-256, as `openssl genpkey` writes them. RSA keys, also in PKCS#1, sign
//! what roots of other tools require of them; no role of a workspace has one.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use ed25519_dalek::Signer as _;
use p256::ecdsa;
use p256::pkcs8::DecodePrivateKey as _;
use pkcs8::der::asn1::{AnyRef, BitStringRef};
use pkcs8::der::{Encode as _, pem};
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::Kdf;
use pkcs8::spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};
use pkcs8::{EncryptedPrivateKeyInfoRef, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument};
use ring::rand::SystemRandom;
use ring::signature::{KeyPair as _, RSA_PSS_SHA256, RsaKeyPair};
use tidegate_tuf::key::Key;
use zeroize::Zeroizing;

use super::{NoPassphrases, Passphrases, Signer, example, public};
use crate::error::{Error, Result, Rule};

/// RFC 8410: id-Ed25519.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480: id-ecPublicKey.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// RFC 8017: rsaEncryption.
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// A PEM key is a few hundred bytes; what is longer is something else.
const MAX_LENGTH: u64 = 64 * 1024;
/// The most that scrypt may take to unlock a key, in bytes: `128 N r p`.
const MAX_SCRYPT: u64 = 1 << 30;
/// The most rounds of PBKDF2.
const MAX_ROUNDS: u32 = 20_000_000;

/// A private key read from a file.
pub struct FileKey {
    public: Key,
    secret: Secret,
}

/// The private part. The kinds that roles of a workspace have wipe themselves when dropped.
enum Secret {
    Ed25519(Box<ed25519_dalek::SigningKey>),
    P256(Box<ecdsa::SigningKey>),
    Rsa(Box<RsaKeyPair>),
}

impl FileKey {
    /// Reads the key at `path`; `name` is its name in passphrase prompts and errors.
    ///
    /// # Errors
    ///
    /// Fails if the file is missing or not a PEM private key, if others than the owner may read it (except for the [example
    /// keys](example)), or if the passphrase is wrong.
    pub fn open(name: &str, path: &Path, passphrases: &mut dyn Passphrases) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|e| missing(name, path, e))?;
        if !metadata.is_file() || metadata.len() > MAX_LENGTH {
            return Err(Error::input(format!("key {name}: {} is not a PEM file", path.display())));
        }
        let pem = fs::read_to_string(path).map(Zeroizing::new).map_err(|e| Error::io("read", path, e))?;
        let key = Self::from_pem(name, &pem, passphrases).map_err(|e| match e.remedy_text() {
            Some(_) => e,
            None => e.remedy(format!("the file is {}", path.display())),
        })?;
        if !example::is_example(&key.public) {
            check_mode(name, path, &metadata)?;
        }
        Ok(key)
    }

    /// Reads a key from PEM text, as [`open`](Self::open) does from a file.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a PEM private key of a supported kind, or if the passphrase is wrong.
    pub fn from_pem(name: &str, pem: &str, passphrases: &mut dyn Passphrases) -> Result<Self> {
        let (label, document) = SecretDocument::from_pem(pem.trim())
            .map_err(|e| Error::input(format!("key {name}: not a PEM private key")).with_source(e))?;
        let document = match label {
            "PRIVATE KEY" => document,
            "ENCRYPTED PRIVATE KEY" => decrypt(name, &document, passphrases)?,
            "RSA PRIVATE KEY" => return Self::from_rsa(name, RsaKeyPair::from_der(document.as_bytes())),
            _ => {
                return Err(Error::input(format!(
                    "key {name}: the PEM file holds {label:?}, not a PKCS#8 private key"
                ))
                .remedy("convert it with: openssl pkcs8 -topk8 -in OLD.pem -out NEW.pem"));
            }
        };
        Self::from_pkcs8(name, &document)
    }

    /// The key in the folder `dir` that has the public part `public`, whatever its file is called; encrypted ones are passed over.
    ///
    /// # Errors
    ///
    /// Fails if others than the owner may read that file.
    pub(super) fn find(name: &str, dir: &Path, public: &Key) -> Result<Option<Self>> {
        for (_, path) in files(dir) {
            if public_of(&path, &mut NoPassphrases).as_ref() == Some(public) {
                return Self::open(name, &path, &mut NoPassphrases).map(Some);
            }
        }
        Ok(None)
    }

    fn from_pkcs8(name: &str, document: &SecretDocument) -> Result<Self> {
        let undecodable = |source: pkcs8::Error| {
            Error::input(format!("key {name}: the private key cannot be decoded")).with_source(source)
        };
        let info = PrivateKeyInfoRef::try_from(document.as_bytes()).map_err(undecodable)?;
        match info.algorithm.oid {
            ED25519 => ed25519_dalek::SigningKey::try_from(info).map_err(undecodable).map(Self::from_ed25519),
            EC => {
                let secret = p256::SecretKey::from_pkcs8_der(document.as_bytes()).map_err(|e| {
                    undecodable(e).remedy("elliptic-curve keys must be on P-256: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
                })?;
                Ok(Self {
                    public: public::p256_key(&secret.public_key())?,
                    secret: Secret::P256(Box::new(ecdsa::SigningKey::from(secret))),
                })
            }
            RSA => Self::from_rsa(name, RsaKeyPair::from_pkcs8(document.as_bytes())),
            oid => Err(Error::input(format!("key {name}: keys of the kind {oid} cannot sign here"))
                .remedy("use an Ed25519 or P-256 key: openssl genpkey -algorithm ed25519")),
        }
    }

    fn from_rsa(name: &str, secret: Result<RsaKeyPair, ring::error::KeyRejected>) -> Result<Self> {
        let secret = secret.map_err(|e| {
            Error::input(format!("key {name}: the RSA key cannot sign: {e}"))
                .remedy("RSA keys have 2048 to 4096 bits and two primes; others sign by openssl, see docs/keys.md")
        })?;
        let public = rsa_public(secret.public_key().as_ref())
            .map_err(|e| Error::bug("an RSA public key cannot be encoded").with_source(e))?;
        Ok(Self { public: Key::rsa_pss(public), secret: Secret::Rsa(Box::new(secret)) })
    }

    pub(super) fn from_ed25519(secret: ed25519_dalek::SigningKey) -> Self {
        Self { public: Key::ed25519(secret.verifying_key().as_bytes()), secret: Secret::Ed25519(Box::new(secret)) }
    }
}

impl Signer for FileKey {
    fn public(&self) -> &Key {
        &self.public
    }

    /// Ed25519 (RFC 8032) and ECDSA with RFC 6979 nonces: the same message gives the same signature. RSASSA-PSS with SHA-256 and a salt of
    /// 32 bytes, which every TUF client verifies.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let failed = |e| Error::new(crate::Kind::Input, "signing failed").with_source(e);
        match &self.secret {
            Secret::Ed25519(key) => Ok(key.try_sign(message).map_err(failed)?.to_bytes().to_vec()),
            Secret::P256(key) => {
                let signature: ecdsa::Signature = key.try_sign(message).map_err(failed)?;
                Ok(signature.to_der().as_bytes().to_vec())
            }
            Secret::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PSS_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(|e| Error::new(crate::Kind::Input, format!("signing failed: {e}")))?;
                Ok(signature)
            }
        }
    }
}

/// The `SubjectPublicKeyInfo` in PEM (RFC 5280, RFC 3279) of an `RSAPublicKey` in DER (RFC 8017).
fn rsa_public(der: &[u8]) -> Result<String, pkcs8::der::Error> {
    let algorithm = AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) };
    let info = SubjectPublicKeyInfoRef { algorithm, subject_public_key: BitStringRef::from_bytes(der)? };
    Ok(pem::encode_string("PUBLIC KEY", pem::LineEnding::LF, &info.to_der()?)?)
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileKey({} {}, private part not shown)", self.public.scheme(), self.public.id().short())
    }
}

/// The PEM files in the folder `dir` by their names without `.pem`, sorted. A folder that cannot be read holds none.
pub fn files(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let named = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.strip_suffix(".pem")?.to_owned();
        Some((name, path))
    };
    let mut found: Vec<_> = entries.filter_map(|entry| named(entry.path())).collect();
    found.sort();
    found
}

/// The public part of the private key at `path`; `None` if it cannot be read.
pub fn public_of(path: &Path, passphrases: &mut dyn Passphrases) -> Option<Key> {
    let is_small = fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_LENGTH);
    let pem = is_small.then(|| fs::read_to_string(path).ok().map(Zeroizing::new))??;
    let name = path.file_stem()?.to_str()?;
    FileKey::from_pem(name, &pem, passphrases).ok().map(|key| key.public)
}

/// Checks the mode of a private key's file.
///
/// # Errors
///
/// Fails if group or others have any right to the file.
#[cfg(unix)]
pub fn check_mode(name: &str, path: &Path, metadata: &fs::Metadata) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = metadata.mode() & 0o777;
    let others = mode & 0o077;
    if others == 0 {
        return Ok(());
    }
    Err(Error::refused(
        Rule::KeyMode,
        format!("key {name}: {} can be read or changed by others (mode {mode:04o})", path.display()),
    )
    .remedy(format!("chmod 600 {}", path.display())))
}

/// Checks the mode of a private key's file; does nothing on this system.
///
/// # Errors
///
/// Never fails on this system.
#[cfg(not(unix))]
pub fn check_mode(_name: &str, _path: &Path, _metadata: &fs::Metadata) -> Result<()> {
    Ok(())
}

fn decrypt(name: &str, document: &SecretDocument, passphrases: &mut dyn Passphrases) -> Result<SecretDocument> {
    let info = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes())
        .map_err(|e| Error::input(format!("key {name}: the encrypted key cannot be decoded")).with_source(e))?;
    if !is_affordable(&info.encryption_algorithm) {
        return Err(Error::input(format!(
            "key {name}: unlocking it would take more than 1 GiB of memory (scrypt) or {MAX_ROUNDS} rounds (PBKDF2)"
        ))
        .remedy("if the key is yours, encrypt it again: openssl pkcs8 -topk8 -scrypt -in OLD.pem -out NEW.pem"));
    }
    let passphrase = passphrases.passphrase(name)?;
    info.decrypt(passphrase.as_bytes()).map_err(|_| {
        Error::input(format!(
            "key {name}: the passphrase is wrong, or its encryption is not PBES2 with scrypt or PBKDF2"
        ))
        .remedy("try the passphrase with: openssl pkey -noout -in FILE")
    })
}

/// Whoever made the file chose what unlocking it costs.
fn is_affordable(scheme: &EncryptionScheme) -> bool {
    match scheme.pbes2().map(|parameters| &parameters.kdf) {
        Some(Kdf::Scrypt(scrypt)) => {
            let lanes = 128 * u64::from(scrypt.block_size) * u64::from(scrypt.parallelization);
            scrypt.cost_parameter > 1 && scrypt.cost_parameter.saturating_mul(lanes) <= MAX_SCRYPT
        }
        Some(Kdf::Pbkdf2(pbkdf2)) => pbkdf2.iteration_count <= MAX_ROUNDS,
        // It cannot be decrypted.
        _ => true,
    }
}

fn missing(name: &str, path: &Path, source: std::io::Error) -> Error {
    if source.kind() == std::io::ErrorKind::NotFound {
        return Error::input(format!("key {name}: there is no file {}", path.display()))
            .with_source(source)
            .remedy("bring the key to this machine, or correct its uri in tidegate.toml");
    }
    Error::io("read", path, source)
}

#[cfg(test)]
mod tests {
    use super::super::NoPassphrases;
    use super::super::generate::{Kind, generate};
    use super::*;

    #[derive(Debug)]
    struct Says(&'static str);

    impl Passphrases for Says {
        fn passphrase(&mut self, _name: &str) -> Result<Zeroizing<String>> {
            Ok(Zeroizing::new(self.0.into()))
        }
    }

    #[test]
    fn every_kind_signs_what_the_client_verifies_and_repeats_itself() {
        for kind in [Kind::Ed25519, Kind::P256] {
            for passphrase in [None, Some("correct horse")] {
                let made = generate(kind, passphrase).unwrap();
                let key = FileKey::from_pem("k", &made.pem, &mut Says("correct horse")).unwrap();
                assert_eq!(key.public(), &made.public);
                let signature = key.sign(b"message").unwrap();
                assert_eq!(signature, key.sign(b"message").unwrap());
                assert!(key.public().decode().unwrap().verify(b"message", &signature));
                assert!(!key.public().decode().unwrap().verify(b"massage", &signature));
                assert!(!format!("{key:?}").contains("Secret"));
                if passphrase.is_some() {
                    assert!(made.pem.contains("ENCRYPTED"));
                    let error = FileKey::from_pem("k", &made.pem, &mut Says("wrong")).unwrap_err();
                    assert!(error.to_string().contains("passphrase is wrong"), "{error}");
                    assert!(FileKey::from_pem("k", &made.pem, &mut NoPassphrases).is_err());
                }
            }
        }
    }

    #[test]
    fn a_key_that_costs_too_much_to_unlock_is_refused() {
        use pkcs8::pkcs5::pbes2::{Parameters, Pbkdf2Params, Pbkdf2Prf, ScryptParams};
        let pem = generate(Kind::Ed25519, Some("x")).unwrap().pem;
        let (_, document) = SecretDocument::from_pem(&pem).unwrap();
        let good = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).unwrap();
        let pbes2 = good.encryption_algorithm.pbes2().unwrap();
        let with = |kdf: Kdf| EncryptionScheme::from(Parameters { kdf, encryption: pbes2.encryption });
        let Kdf::Scrypt(own) = &pbes2.kdf else { panic!("{pbes2:?}") };
        let scrypt = |cost_parameter, block_size, parallelization| {
            with(ScryptParams { cost_parameter, block_size, parallelization, ..*own }.into())
        };
        let pbkdf2 = |iteration_count| {
            let (salt, prf) = (own.salt, Pbkdf2Prf::HmacWithSha256);
            with(Pbkdf2Params { salt, iteration_count, key_length: None, prf }.into())
        };
        for scheme in [scrypt(1 << 14, 8, 1), scrypt(1 << 20, 8, 1), pbkdf2(MAX_ROUNDS)] {
            assert!(is_affordable(&scheme), "{scheme:?}");
        }
        for scheme in [scrypt(1 << 21, 8, 1), scrypt(1 << 14, 8, 1000), scrypt(0, 8, 1), pbkdf2(MAX_ROUNDS + 1)] {
            assert!(!is_affordable(&scheme), "{scheme:?}");
            let bytes = pkcs8::der::Encode::to_der(&EncryptedPrivateKeyInfoRef {
                encryption_algorithm: scheme,
                encrypted_data: good.encrypted_data,
            });
            let document = SecretDocument::try_from(bytes.unwrap()).unwrap();
            let error = decrypt("k", &document, &mut Says("x")).unwrap_err();
            assert!(error.to_string().contains("1 GiB"), "{error}");
        }
    }

    #[test]
    fn other_pem_files_are_named() {
        let mut none = NoPassphrases;
        for (pem, part) in [
            ("", "not a PEM private key"),
            ("-----BEGIN EC PRIVATE KEY-----\nMAA=\n-----END EC PRIVATE KEY-----\n", "EC PRIVATE KEY"),
            ("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n", "cannot be decoded"),
        ] {
            let error = FileKey::from_pem("k", pem, &mut none).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.pem");
        fs::write(&path, generate(Kind::Ed25519, None).unwrap().pem.as_bytes()).unwrap();
        for mode in [0o640, 0o604, 0o620, 0o644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = FileKey::open("k", &path, &mut NoPassphrases).unwrap_err();
            assert!(error.remedy_text().unwrap().starts_with("chmod 600 "), "{error}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        FileKey::open("k", &path, &mut NoPassphrases).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn example_keys_may_be_readable() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("keys-example/root-1.pem");
        FileKey::open("root-1", &path, &mut NoPassphrases).unwrap();
    }
}
