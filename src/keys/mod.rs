//! Keys: where they are stored, how they sign, how they are generated.
//!
//! `tidegate.toml` declares a key with a [`KeyUri`], which locates the private part, and its public part. All sources sign
//! through [`Signer`]; generating a key ([`generate`]) is separate from using one. Private parts are wiped from memory when
//! dropped and never appear in `Debug` output, logs or errors.

mod command;
pub mod example;
mod file;
pub mod generate;
#[cfg(feature = "kms")]
mod kms;
mod name;
mod open;
mod passphrase;
mod percent;
#[cfg(feature = "pkcs11")]
mod pkcs11;
mod pkcs11_uri;
mod public;
mod ring;
mod signature;
mod uri;

use std::fmt;

use tidegate_tuf::key::Key;
use zeroize::Zeroizing;

use crate::error::Result;

pub use command::{CommandKey, check_variable};
pub use file::{FileKey, check_mode, files, public_of};
#[cfg(feature = "kms")]
pub use kms::KmsKey;
pub use name::KeyName;
pub use open::open;
pub use passphrase::Ask;
#[cfg(feature = "pkcs11")]
pub use pkcs11::TokenKey;
pub use pkcs11_uri::Pkcs11Uri;
pub use public::{parse_public, write_public};
pub use ring::{KeyEntry, KeyRing};
pub use signature::signature_bytes;
pub use uri::{CommandUri, KeyUri, KmsUri};

/// Something that signs with one private key.
pub trait Signer: fmt::Debug {
    /// The public part, as metadata declares it.
    fn public(&self) -> &Key;

    /// Signs `message`; the result is raw bytes as the key's scheme defines them, ready to be written as hex.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>>;
}

/// A source of passphrases: the environment, a file descriptor, a person at a terminal.
pub trait Passphrases: fmt::Debug {
    /// The passphrase of the key called `name`.
    fn passphrase(&mut self, name: &str) -> Result<Zeroizing<String>>;

    /// The PIN of the token with this label that contains the key called `name`.
    fn pin(&mut self, name: &str, token: &str) -> Result<Zeroizing<String>> {
        let _ = token;
        self.passphrase(name)
    }
}

/// Has no passphrases: an encrypted key is an error.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPassphrases;

impl Passphrases for NoPassphrases {
    fn passphrase(&mut self, name: &str) -> Result<Zeroizing<String>> {
        Err(crate::Error::input(format!("the key {name} is encrypted, and no passphrase was given")))
    }
}
