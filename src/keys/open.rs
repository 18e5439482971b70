//! Opens a key from any source.

use std::path::Path;
use std::rc::Rc;

use tidegate_tuf::key::Key;

use super::{CommandKey, FileKey, KeyUri, Passphrases, Signer};
use crate::error::Result;

/// Opens the private key of `uri`; `name` is its name in passphrase prompts and errors.
///
/// Relative paths start at `workspace`. `declared` is the public part from `tidegate.toml`, for tokens that store none; the
/// caller checks whether the opened key matches it.
///
/// # Errors
///
/// Fails if the key cannot be opened, or if this build does not support its kind.
pub fn open(
    name: &str,
    uri: &KeyUri,
    workspace: &Path,
    declared: Option<&Key>,
    passphrases: &mut dyn Passphrases,
) -> Result<Rc<dyn Signer>> {
    match uri {
        KeyUri::File(path) => Ok(Rc::new(FileKey::open(name, &workspace.join(path), passphrases)?)),
        KeyUri::Command(uri) => Ok(Rc::new(CommandKey::open(name, uri, workspace)?)),
        #[cfg(feature = "pkcs11")]
        KeyUri::Pkcs11(uri) => Ok(Rc::new(super::TokenKey::open(name, uri, declared, passphrases)?)),
        #[cfg(feature = "kms")]
        KeyUri::Kms(uri) => Ok(Rc::new(super::KmsKey::open(name, uri)?)),
        #[cfg(not(all(feature = "pkcs11", feature = "kms")))]
        #[allow(unreachable_patterns, reason = "the available kinds depend on the features")]
        other => {
            let _ = declared;
            Err(crate::Error::input(format!("key {name}: this build cannot use {}: keys", other.source()))
                .remedy(format!("use a tidegate that was built with the feature {}", other.source())))
        }
    }
}
