//! Where a private key is.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The schemes that are planned but not in this build, refused by name rather than as unknown.
const PLANNED: [&str; 3] = ["pkcs11", "command", "kms"];

/// Where a private key is, as `tidegate.toml` writes it: `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyUri {
    /// A PKCS#8 PEM file; a relative path counts from the workspace.
    File(PathBuf),
}

impl KeyUri {
    /// Reads a URI. Errs on a scheme that this build cannot use.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(Error::input(format!("{text:?} is not a key URI")).remedy("write it as file:keys/NAME.pem"));
        };
        match scheme {
            "file" if rest.is_empty() => {
                Err(Error::input("the key URI file: names no path").remedy("write it as file:keys/NAME.pem"))
            }
            "file" => Ok(Self::File(PathBuf::from(rest))),
            _ if PLANNED.contains(&scheme) => {
                Err(Error::input(format!("keys of the kind {scheme}: cannot be used by this version"))
                    .remedy("use a PKCS#8 PEM file: file:keys/NAME.pem"))
            }
            _ => Err(Error::input(format!("the kind of key {scheme:?} is unknown"))
                .remedy("use a PKCS#8 PEM file: file:keys/NAME.pem")),
        }
    }

    /// The path of a file key, from `workspace` if it is relative.
    pub fn path(&self, workspace: &Path) -> PathBuf {
        match self {
            Self::File(path) => workspace.join(path),
        }
    }
}

impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_can_be_used_and_others_are_named() {
        assert_eq!(KeyUri::parse("file:keys/a.pem").unwrap(), KeyUri::File("keys/a.pem".into()));
        for (text, part) in [
            ("keys/a.pem", "is not a key URI"),
            ("file:", "names no path"),
            ("pkcs11:token=x", "pkcs11"),
            ("kms:arn", "kms"),
            ("command:sign", "command"),
            ("ftp:x", "\"ftp\" is unknown"),
        ] {
            let error = KeyUri::parse(text).unwrap_err();
            assert!(error.to_string().contains(part), "{text}: {error}");
            assert!(error.remedy_text().is_some());
        }
    }

    #[test]
    fn relative_paths_count_from_the_workspace() {
        assert_eq!(KeyUri::parse("file:a.pem").unwrap().path(Path::new("/w")), Path::new("/w/a.pem"));
        assert_eq!(KeyUri::parse("file:/k/a.pem").unwrap().path(Path::new("/w")), Path::new("/k/a.pem"));
    }
}
