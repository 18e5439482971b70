//! The secret that all instances of a gate share: with it they make and check tokens and nonces without keeping them.
//!
//! It is a file that only its owner may read: the key in force, and the one before it, so that what was given out before a
//! rotation stays valid until it expires.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use crate::encoding::{from_hex, sha256, to_hex};
use crate::error::{Error, Result, read};

/// The shortest piece of an HMAC-SHA256 that is accepted, in bytes (RFC 2104 section 5: half of it).
const SHORTEST_MAC: usize = 16;

/// HMAC-SHA256 keys: the first is in force, the second was before it.
pub struct Secret {
    keys: Vec<([u8; 4], hmac::Key)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    schema: u64,
    current: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
}

impl Secret {
    /// Reads the file; errs if others than its owner may read it.
    pub fn load(path: &Path) -> Result<Self> {
        let form = Form::load(path)?;
        let keys = std::iter::once(&form.current).chain(&form.previous);
        let keys = keys.map(|text| {
            let bytes = from_hex(text).filter(|bytes| bytes.len() == 32);
            let bytes = bytes.ok_or_else(|| Error::new(format!("{}: a key is not 64 hex digits", path.display())))?;
            let [a, b, c, d, ..] = sha256(&[b"tidegate/gate/key-id/1", &bytes]);
            Ok(([a, b, c, d], hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
        });
        Ok(Self { keys: keys.collect::<Result<_>>()? })
    }

    /// The MAC of `parts` under the key in force, for one purpose, and the key's id.
    pub fn sign(&self, purpose: &str, parts: &[&[u8]]) -> ([u8; 4], [u8; 32]) {
        // `load` makes no secret without a key.
        let Some((id, key)) = self.keys.first() else { return ([0; 4], [0; 32]) };
        (*id, mac(key, purpose, parts))
    }

    /// Whether `given`, the first 16 to 32 bytes of a MAC, is the one of `parts`, under the key with that id or, without one, under any.
    /// Takes the same time wherever they differ.
    pub fn verify(&self, id: Option<[u8; 4]>, purpose: &str, parts: &[&[u8]], given: &[u8]) -> bool {
        let keys = self.keys.iter().filter(|(known, _)| id.is_none_or(|id| id == *known));
        keys.map(|(_, key)| mac(key, purpose, parts)).any(|expected| {
            given.len() >= SHORTEST_MAC
                && expected.get(..given.len()).is_some_and(|expected| bool::from(expected.ct_eq(given)))
        })
    }
}

fn mac(key: &hmac::Key, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(key);
    // Each part with its length before it, so that no two lists of parts are the same bytes.
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

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({} keys)", self.keys.len())
    }
}

impl Form {
    fn load(path: &Path) -> Result<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(path).map_err(|error| Error::file("read", path, error))?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(Error::new(format!("{} may be read by others than its owner", path.display()))
                    .remedy(format!("chmod 600 {}", path.display())));
            }
        }
        let form: Self = serde_json::from_slice(&read(path, 4096)?)
            .map_err(|_| Error::new(format!("{} is not the secret of a gate", path.display())))?;
        if form.schema != 1 {
            return Err(Error::new(format!(
                "{}: schema {} is unknown: this program reads 1",
                path.display(),
                form.schema
            )));
        }
        Ok(form)
    }
}

/// Makes the file anew, or, if there is one, a new key before its present one. What the present one's predecessor signed is void then.
pub fn rotate(path: &Path) -> Result<bool> {
    let previous = if path.exists() { Some(Form::load(path)?.current) } else { None };
    let rotated = previous.is_some();
    let form = Form { schema: 1, current: to_hex(&random::<32>()?), previous };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let fail = |error: std::io::Error| Error::file("write", path, error);
    // Made with mode 0600 from the start.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(fail)?;
    let text = serde_json::to_vec(&form).map_err(|error| Error::new(error.to_string()))?;
    file.write_all(&text).map_err(fail)?;
    file.as_file().sync_all().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(rotated)
}

/// Random bytes from the system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::new("the system gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_keeps_what_the_key_before_signed_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(!rotate(&path).unwrap());
        let first = Secret::load(&path).unwrap();
        let (id, mac) = first.sign("token", &[b"a", b"b"]);
        assert!(rotate(&path).unwrap());
        let second = Secret::load(&path).unwrap();
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
        assert!(!Secret::load(&path).unwrap().verify(None, "token", &[b"a", b"b"], &mac));
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        rotate(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Secret::load(&path).unwrap_err().remedy_text().unwrap().contains("chmod 600"));
        assert!(rotate(&path).is_err());
    }
}
