//! The secret that all instances of a gate share: its keys authenticate tokens and nonces, so that the gate stores neither.
//!
//! The file is readable by its owner only. It contains the current key and the previous one, so that tokens and nonces from before a
//! rotation stay valid until they expire.

use std::io::Write as _;
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::encoding::{from_hex, sha256, to_hex};
use crate::error::{Error, ErrorKind, Result, read_private_file};

/// The shortest accepted prefix of an HMAC-SHA256, in bytes (RFC 2104 section 5: half of it).
const MIN_MAC: usize = 16;

/// HMAC-SHA256 keys: the current one, then the previous one.
pub struct SharedSecret {
    keys: Vec<([u8; 4], hmac::Key)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretFile {
    schema: u64,
    current: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
}

impl SharedSecret {
    /// Loads the file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is invalid, or is accessible to other users.
    pub fn load(path: &Path) -> Result<Self> {
        let file = SecretFile::load(path)?;
        let keys = std::iter::once(&file.current).chain(&file.previous);
        let keys = keys.map(|text| {
            let bytes = from_hex(text).filter(|bytes| bytes.len() == 32);
            let bytes = bytes.ok_or_else(|| Error::input(format!("{}: a key is not 64 hex digits", path.display())))?;
            let [a, b, c, d, ..] = sha256(&[b"tidegate/gate/key-id/1", &bytes]);
            Ok(([a, b, c, d], hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
        });
        Ok(Self { keys: keys.collect::<Result<_>>()? })
    }

    /// The MAC of `parts` under the current key, for one purpose, and the key's id.
    pub fn mac(&self, purpose: &str, parts: &[&[u8]]) -> ([u8; 4], [u8; 32]) {
        // `load` returns at least one key.
        let Some((id, key)) = self.keys.first() else { return ([0; 4], [0; 32]) };
        (*id, mac(key, purpose, parts))
    }

    /// Whether `given`, the first 16 to 32 bytes of a MAC, authenticates `parts` under the key with this id, or under any key. Runs in
    /// constant time.
    pub fn verify(&self, id: Option<[u8; 4]>, purpose: &str, parts: &[&[u8]], given: &[u8]) -> bool {
        let keys = self.keys.iter().filter(|(known, _)| id.is_none_or(|id| id == *known));
        keys.map(|(_, key)| mac(key, purpose, parts)).any(|expected| {
            given.len() >= MIN_MAC
                && expected.get(..given.len()).is_some_and(|expected| bool::from(expected.ct_eq(given)))
        })
    }
}

fn mac(key: &hmac::Key, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    // Each part is prefixed with its length, so that different lists of parts never give the same bytes.
    for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    for (to, from) in out.iter_mut().zip(context.sign().as_ref()) {
        *to = *from;
    }
    out
}

impl std::fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSecret({} keys)", self.keys.len())
    }
}

impl SecretFile {
    fn load(path: &Path) -> Result<Self> {
        let file: Self = serde_json::from_slice(&read_private_file(path, 4096)?)
            .map_err(|_| Error::input(format!("{} is not a gate's secret", path.display())))?;
        if file.schema != 1 {
            return Err(Error::input(format!(
                "{}: schema {} is not supported; this program supports schema 1",
                path.display(),
                file.schema
            )));
        }
        Ok(file)
    }
}

/// Creates the file, or adds a new current key to it. Tokens and nonces of the former previous key become invalid. Returns whether the file
/// existed.
///
/// # Errors
///
/// Fails if the present file cannot be used or the new one cannot be written.
pub fn rotate(path: &Path) -> Result<bool> {
    let previous = if path.exists() { Some(SecretFile::load(path)?.current) } else { None };
    let rotated = previous.is_some();
    let file = SecretFile { schema: 1, current: to_hex(&random_bytes::<32>()?), previous };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |error: std::io::Error| Error::io("write", path, &error);
    // A temporary file has mode 0600 from the start.
    let mut temporary = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    let text = serde_json::to_vec(&file)
        .map_err(|error| Error::new(ErrorKind::Bug, "cannot serialize the secret").with_cause(error))?;
    temporary.write_all(&text).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(rotated)
}

/// Random bytes from the operating system.
///
/// # Errors
///
/// Fails if the operating system provides none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Error::new(ErrorKind::Io, "the operating system provides no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn rotation_keeps_the_previous_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(!rotate(&path).unwrap());
        let first = SharedSecret::load(&path).unwrap();
        let (id, mac) = first.mac("token", &[b"a", b"b"]);
        assert!(rotate(&path).unwrap());
        let second = SharedSecret::load(&path).unwrap();
        assert!(second.verify(Some(id), "token", &[b"a", b"b"], &mac));
        assert!(second.verify(None, "token", &[b"a", b"b"], &mac[..16]));
        for (purpose, parts, mac) in [
            ("nonce", [&b"a"[..], b"b"], &mac[..]),
            ("token", [b"ab", b""], &mac),
            ("token", [b"a", b"c"], &mac),
            ("token", [b"a", b"b"], &mac[..15]),
            ("token", [b"a", b"b"], &[]),
        ] {
            assert!(!second.verify(None, purpose, &parts, mac), "{purpose} {parts:?} {mac:?}");
        }
        assert!(!second.verify(Some([0; 4]), "token", &[b"a", b"b"], &mac));
        rotate(&path).unwrap();
        assert!(!SharedSecret::load(&path).unwrap().verify(None, "token", &[b"a", b"b"], &mac));
    }

    #[cfg(unix)]
    #[test]
    fn refuses_a_secret_that_other_users_can_read() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        rotate(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(SharedSecret::load(&path).unwrap_err().remedy().unwrap().contains("chmod 600"));
        assert!(rotate(&path).is_err());
    }
}
