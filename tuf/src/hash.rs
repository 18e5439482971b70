//! Lengths and hashes of files, checked as the bytes stream by (TUF 4.4 "METAFILES", 4.5 "HASHES").

use core::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha512};

use crate::prelude::*;

/// The hashes that metadata lists for a file.
///
/// Algorithms that this crate does not know are skipped when parsing; a file for which none is left can be listed, but never
/// passes [`Checker::finish`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashes {
    sha256: Option<[u8; 32]>,
    /// Apart, since few list it.
    sha512: Option<Box<[u8; 64]>>,
}

impl Hashes {
    /// Hashes of a file known by its SHA-256 alone, as Tidegate writes them.
    pub fn sha256(digest: [u8; 32]) -> Self {
        Self { sha256: Some(digest), sha512: None }
    }

    /// Reads the `hashes` object. A digest of the wrong length is an error, and so is an empty object.
    pub(crate) fn from_map(map: &Map<String, Value>) -> Result<Self, String> {
        fn digest<const N: usize>(map: &Map<String, Value>, name: &str) -> Result<Option<[u8; N]>, String> {
            map.get(name)
                .map(|digest| {
                    from_hex(digest.as_str().unwrap_or_default())
                        .and_then(|bytes| bytes.try_into().ok())
                        .ok_or_else(|| format!("the {name} digest must be {} hex digits", 2 * N))
                })
                .transpose()
        }
        if map.is_empty() {
            return Err("\"hashes\" must list at least one hash".into());
        }
        Ok(Self { sha256: digest(map, "sha256")?, sha512: digest(map, "sha512")?.map(Box::new) })
    }

    /// The SHA-256 digest, if listed.
    pub fn sha256_digest(&self) -> Option<&[u8; 32]> {
        self.sha256.as_ref()
    }

    /// The digest that names the file under consistent snapshots, in lower-case hex: SHA-256 if listed, else SHA-512.
    pub fn name_prefix(&self) -> String {
        match (&self.sha256, &self.sha512) {
            (Some(digest), _) => to_hex(digest),
            (None, Some(digest)) => to_hex(&**digest),
            (None, None) => String::new(),
        }
    }
}

/// Checks a file against its listed length and hashes while it streams through.
///
/// Feed every byte to [`update`](Self::update), in order, then call [`finish`](Self::finish). More bytes than listed are an
/// error at once, so that an endless file costs no more than its listed length.
pub struct Checker {
    length: Option<u64>,
    seen: u64,
    checkable: bool,
    sha256: Option<([u8; 32], Sha256)>,
    sha512: Option<([u8; 64], Sha512)>,
}

impl Checker {
    /// A checker for a file of `length` bytes (any length if `None`) with these hashes (none to check if `None`).
    pub fn new(length: Option<u64>, hashes: Option<&Hashes>) -> Self {
        Self {
            length,
            seen: 0,
            checkable: hashes.is_none_or(|h| h.sha256.is_some() || h.sha512.is_some()),
            sha256: hashes.and_then(|h| h.sha256).map(|digest| (digest, Sha256::new())),
            sha512: hashes.and_then(|h| h.sha512.as_deref()).map(|digest| (*digest, Sha512::new())),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    ///
    /// If there are more bytes than listed.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if let Some(length) = self.length
            && self.seen > length
        {
            return Err(Mismatch::TooLong { listed: length });
        }
        if let Some((_, hash)) = &mut self.sha256 {
            hash.update(bytes);
        }
        if let Some((_, hash)) = &mut self.sha512 {
            hash.update(bytes);
        }
        Ok(())
    }

    /// The number of bytes so far.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Checks that the file matches its length and hashes.
    ///
    /// # Errors
    ///
    /// If the length or a hash differs from the listed one, or if no listed hash algorithm is supported.
    pub fn finish(self) -> Result<(), Mismatch> {
        if let Some(length) = self.length
            && self.seen != length
        {
            return Err(Mismatch::TooShort { listed: length, received: self.seen });
        }
        if !self.checkable {
            return Err(Mismatch::NoKnownHash);
        }
        if let Some((listed, hash)) = self.sha256 {
            let received: [u8; 32] = hash.finalize().into();
            if received != listed {
                return Err(Mismatch::Hash {
                    algorithm: "sha256",
                    listed: to_hex(&listed),
                    received: to_hex(&received),
                });
            }
        }
        if let Some((listed, hash)) = self.sha512 {
            let received: [u8; 64] = hash.finalize().into();
            if received != listed {
                return Err(Mismatch::Hash {
                    algorithm: "sha512",
                    listed: to_hex(&listed),
                    received: to_hex(&received),
                });
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checker").field("length", &self.length).field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// How a file differs from what metadata lists for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Mismatch {
    /// More bytes than listed; reading stopped there.
    #[error("longer than the listed {listed} bytes")]
    TooLong {
        /// The listed length in bytes.
        listed: u64,
    },
    /// Fewer bytes than listed.
    #[error("{received} bytes long, but {listed} are listed")]
    TooShort {
        /// The listed length in bytes.
        listed: u64,
        /// The received bytes.
        received: u64,
    },
    /// Only hashes of unknown algorithms are listed.
    #[error("no supported hash algorithm is listed (supported: sha256, sha512)")]
    NoKnownHash,
    /// The length matches, but the content does not.
    #[error("its {algorithm} is {received}, but {listed} is listed")]
    Hash {
        /// `sha256` or `sha512`.
        algorithm: &'static str,
        /// The listed digest, lower-case hex.
        listed: String,
        /// The digest of the received bytes, lower-case hex.
        received: String,
    },
}

/// Lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Decodes hex of either case; `None` on anything else.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(bytes: &[u8]) -> Hashes {
        Hashes { sha256: Some(Sha256::digest(bytes).into()), sha512: Some(Box::new(Sha512::digest(bytes).into())) }
    }

    fn check(length: Option<u64>, hashes: &Hashes, bytes: &[u8]) -> Result<(), Mismatch> {
        let mut checker = Checker::new(length, Some(hashes));
        for chunk in bytes.chunks(3) {
            checker.update(chunk)?;
        }
        checker.finish()
    }

    #[test]
    fn the_listed_file_passes_and_no_other() {
        let hashes = listed(b"the file");
        assert_eq!(check(Some(8), &hashes, b"the file"), Ok(()));
        assert_eq!(check(None, &hashes, b"the file"), Ok(()));
        assert_eq!(check(Some(8), &hashes, b"the file and more"), Err(Mismatch::TooLong { listed: 8 }));
        assert_eq!(check(Some(8), &hashes, b"the fil"), Err(Mismatch::TooShort { listed: 8, received: 7 }));
        assert!(matches!(check(Some(8), &hashes, b"the fiLe"), Err(Mismatch::Hash { algorithm: "sha256", .. })));
    }

    #[test]
    fn every_listed_hash_must_match() {
        let mut hashes = listed(b"the file");
        hashes.sha512 = Some(Box::new([0; 64]));
        assert!(matches!(check(Some(8), &hashes, b"the file"), Err(Mismatch::Hash { algorithm: "sha512", .. })));
    }

    #[test]
    fn hashes_that_cannot_be_checked_are_refused() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        assert!(Hashes::from_map(&map(&[])).is_err());
        assert!(Hashes::from_map(&map(&[("sha256", "00")])).is_err());
        assert!(Hashes::from_map(&map(&[("sha256", &"zz".repeat(32))])).is_err());
        let unknown = Hashes::from_map(&map(&[("md5", "00")])).unwrap();
        assert_eq!(check(Some(8), &unknown, b"the file"), Err(Mismatch::NoKnownHash));
        assert!(Hashes::from_map(&map(&[("md5", "00"), ("sha256", &"0a".repeat(32))])).is_ok());
    }
}
