//! The device's own key: it signs receipts and authenticates requests to a gate.
//!
//! Ed25519 or P-256, in a PKCS#8 PEM file as `openssl genpkey` writes it. The file must be readable by its owner alone. The private part is
//! wiped from memory when the key is dropped, and no error and no `Debug` text contains any of it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek as ed25519;
use ed25519_dalek::Signer as _;
use p256::ecdsa;
use p256::pkcs8::spki::EncodePublicKey as _;
use p256::pkcs8::{LineEnding, ObjectIdentifier, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use crate::disk::check_private;
use tidegate_tuf::key::{Key, KeyId};

/// The maximum length of a key file, in bytes. Keys have a few hundred.
const LENGTH: u64 = 16 * 1024;
/// RFC 8410: id-Ed25519.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// RFC 5480: id-ecPublicKey.
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// A device's private key. Clones share it.
#[derive(Clone)]
pub struct DeviceKey {
    public: Key,
    id: KeyId,
    secret: Arc<Secret>,
}

/// Both kinds wipe their memory when they are dropped.
enum Secret {
    Ed25519(ed25519::SigningKey),
    P256(ecdsa::SigningKey),
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("{path}: cannot read the device's key: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Other users than the owner have access to the file.
    #[error("{0}")]
    Exposed(String),
    /// The key is not supported.
    #[error("{path}: {why}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason and the remedy.
        why: String,
    },
}

impl DeviceKey {
    /// Reads the key in this file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, if other users may read or change it (on Unix), or if it contains no supported key.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, KeyError> {
        let path = path.as_ref();
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let unusable = |why: &str| KeyError::Unusable { path: path.to_owned(), why: why.to_owned() };
        // Opening a pipe would block until its other end is open.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(unusable("not a regular file"));
        }
        let file = File::open(path).map_err(failed)?;
        // Checked on the open file, so that nobody can replace it after the check.
        check_private(path, &file.metadata().map_err(failed)?).map_err(KeyError::Exposed)?;
        // Allocated at full size, because a growing buffer would leave copies in memory.
        let mut pem = Zeroizing::new(Vec::with_capacity(usize::try_from(LENGTH).unwrap_or_default() + 1));
        file.take(LENGTH + 1).read_to_end(&mut pem).map_err(failed)?;
        if pem.len() as u64 > LENGTH {
            return Err(unusable("too long for a key"));
        }
        Self::from_pem(&pem).map_err(|why| unusable(&why))
    }

    /// Reads the key in this PEM text.
    ///
    /// # Errors
    ///
    /// The reason if there is no supported key. The text reveals only the kind of key.
    pub fn from_pem(pem: &[u8]) -> Result<Self, String> {
        const MAKE: &str = "make one with: openssl genpkey -algorithm ed25519";
        const BROKEN: &str = "the private key cannot be decoded";
        let text = std::str::from_utf8(pem).map_err(|_| format!("no PEM private key: {MAKE}"))?;
        let (label, document) = SecretDocument::from_pem(text).map_err(|_| format!("no PEM private key: {MAKE}"))?;
        match label {
            "PRIVATE KEY" => {}
            "ENCRYPTED PRIVATE KEY" => {
                return Err("the private key is encrypted, but a device cannot ask for a passphrase".into());
            }
            "EC PRIVATE KEY" => {
                return Err("not PKCS#8; convert it with: openssl pkcs8 -topk8 -nodes -in OLD -out NEW".into());
            }
            _ => return Err(format!("the PEM text contains no private key: {MAKE}")),
        }
        let info = PrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|_| BROKEN)?;
        match info.algorithm.oid {
            ED25519 => ed25519::SigningKey::try_from(info).map(Self::from_ed25519).map_err(|_| BROKEN.into()),
            EC => {
                let key = ecdsa::SigningKey::try_from(info);
                let key = key.map_err(|_| "elliptic-curve keys must be on the curve P-256".to_owned())?;
                let public = p256::PublicKey::from(key.verifying_key());
                let pem = public.to_public_key_pem(LineEnding::LF).map_err(|_| BROKEN)?;
                Ok(Self::new(Key::ecdsa_p256(pem), Secret::P256(key)))
            }
            _ => Err(format!("only Ed25519 and P-256 keys are supported: {MAKE}")),
        }
    }

    fn from_ed25519(key: ed25519::SigningKey) -> Self {
        Self::new(Key::ed25519(key.verifying_key().as_bytes()), Secret::Ed25519(key))
    }

    fn new(public: Key, secret: Secret) -> Self {
        Self { id: public.id(), public, secret: Arc::new(secret) }
    }

    /// The id of the public key, used by gates and in receipts (TUF 4.2.2).
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The public key.
    pub fn public(&self) -> &Key {
        &self.public
    }

    /// The signature over a message, as [`PublicKey::verify`](tidegate_tuf::key::PublicKey::verify) takes it: Ed25519 in 64 bytes, P-256 in DER.
    ///
    /// Signatures are deterministic (RFC 8032, RFC 6979).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &*self.secret {
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Secret::P256(key) => {
                let signature: ecdsa::Signature = key.sign(message);
                signature.to_der().as_bytes().to_vec()
            }
        }
    }
}

/// Without the private part.
impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceKey({} {})", self.public.scheme(), self.id.short())
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;

    use super::*;

    fn write(path: &Path, pem: &str) {
        std::fs::write(path, pem).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn signs(key: &DeviceKey) {
        let signature = key.sign(b"a message");
        let public = Key::from_value(&key.public().to_value()).unwrap();
        assert_eq!((public.id(), key.sign(b"a message")), (key.id().clone(), signature.clone()));
        let public = public.decode().unwrap();
        assert!(public.verify(b"a message", &signature));
        assert!(!public.verify(b"another", &signature));
    }

    fn ed25519_pem(seed: u8) -> String {
        ed25519::SigningKey::from_bytes(&[seed; 32]).to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
    }

    fn p256_pem() -> String {
        p256::SecretKey::from_slice(&[7; 32]).unwrap().to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
    }

    #[test]
    fn both_kinds_of_keys_sign() {
        let folder = tempfile::tempdir().unwrap();
        for (pem, scheme) in [(ed25519_pem(1), "ed25519"), (p256_pem(), "ecdsa-sha2-nistp256")] {
            let path = folder.path().join("device.key");
            write(&path, &pem);
            let key = DeviceKey::open(&path).unwrap();
            assert_eq!(key.public().scheme(), scheme);
            signs(&key);
            let shown = format!("{key:?}");
            assert!(shown.contains(key.id().short()) && shown.len() < 60, "{shown}");
        }
    }

    #[test]
    fn openssl_keys_are_read() {
        let folder = tempfile::tempdir().unwrap();
        for arguments in [&["ed25519"][..], &["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]] {
            let openssl = |arguments: &[&str]| {
                std::process::Command::new("openssl").args(arguments).current_dir(folder.path()).output()
            };
            let Ok(made) = openssl(&[&["genpkey", "-out", "device.key", "-algorithm"], arguments].concat()) else {
                assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "openssl is needed");
                eprintln!("SKIPPED: openssl is not installed");
                return;
            };
            assert!(made.status.success(), "{made:?}");
            let path = folder.path().join("device.key");
            write(&path, &std::fs::read_to_string(&path).unwrap());
            let key = DeviceKey::open(&path).unwrap();
            signs(&key);
            let public = openssl(&["pkey", "-in", "device.key", "-pubout"]).unwrap().stdout;
            let public = String::from_utf8(public).unwrap();
            if key.public().keytype() == "ecdsa" {
                assert_eq!(key.id(), &Key::ecdsa_p256(public).id());
            } else {
                std::fs::write(folder.path().join("message"), "a message").unwrap();
                std::fs::write(folder.path().join("signature"), key.sign(b"a message")).unwrap();
                let arguments =
                    ["pkeyutl", "-verify", "-rawin", "-inkey", "device.key", "-in", "message", "-sigfile", "signature"];
                let verified = openssl(&arguments).unwrap();
                assert!(verified.status.success(), "{verified:?}");
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn exposed_key_files_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.key");
        write(&path, &ed25519_pem(1));
        for (mode, refused) in
            [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o620, true), (0o601, true)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            match DeviceKey::open(&path) {
                Ok(_) => assert!(!refused, "{mode:o}"),
                Err(error) => assert!(refused && error.to_string().contains("chmod 600"), "{mode:o}: {error}"),
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("device.key");
        let inner = |pem: &str| pem.lines().nth(1).unwrap_or_default().to_owned();
        let whole = ed25519_pem(3);
        let relabelled = |label: &str| whole.replace("PRIVATE KEY", label);
        for (pem, expected) in [
            (String::new(), "openssl genpkey"),
            ("not a key".into(), "openssl genpkey"),
            (relabelled("ENCRYPTED PRIVATE KEY"), "encrypted"),
            (relabelled("EC PRIVATE KEY"), "openssl pkcs8"),
            (relabelled("CERTIFICATE"), "no private key"),
            (whole.replace(&inner(&whole), &inner(&whole).replace('M', "N")), ""),
            ("x".repeat(20_000), "too long"),
        ] {
            write(&path, &pem);
            let error = DeviceKey::open(&path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("device.key"), "{error}");
            assert!(inner(&pem).is_empty() || !error.contains(&inner(&pem)), "{error}");
        }
        // RSA and another curve: well-formed, but not supported.
        let rsa = "MCcCAQAwDQYJKoZIhvcNAQEBBQAEEzARAgEAAgEBAgEBAgEBAgEBAgEB";
        write(&path, &format!("-----BEGIN PRIVATE KEY-----\n{rsa}\n-----END PRIVATE KEY-----\n"));
        assert!(DeviceKey::open(&path).is_err());
        assert!(matches!(DeviceKey::open(folder.path().join("none")), Err(KeyError::File { .. })));
        assert!(DeviceKey::open(folder.path()).is_err());
    }
}
