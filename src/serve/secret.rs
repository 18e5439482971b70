//! What is never served: workspaces and private keys.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::Path;

use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef};

use crate::error::{Error, Result, Rule};

/// So many files and folders are looked at before the first request; private keys are looked for at each request as well.
const MOST: usize = 100_000;
/// Longer files are not looked into: private keys are shorter.
const LONGEST: u64 = 64 * 1024;
/// What only workspaces have.
const WORKSPACE: [&str; 2] = ["tidegate.toml", "ledger.jsonl"];

/// Refuses a folder that contains a workspace or a private key where it would be served.
///
/// # Errors
///
/// Fails at the first that is found, the least deep first.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut folders = VecDeque::from([root.to_owned()]);
    let mut left = MOST;
    while let Some(folder) = folders.pop_front() {
        // What cannot be read cannot be served.
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten().take(left) {
            left -= 1;
            let (path, name) = (entry.path(), entry.file_name());
            // Names with a dot are not served, and links only lead to what is looked at as well.
            let Some(kind) = entry.file_type().ok().filter(|_| !name.to_string_lossy().starts_with('.')) else {
                continue;
            };
            let what = if kind.is_dir() {
                folders.push_back(path);
                continue;
            } else if WORKSPACE.iter().any(|known| name == *known) {
                "belongs to a workspace"
            } else if kind.is_file() && holds_key(&path) {
                "holds a private key"
            } else {
                continue;
            };
            return Err(Error::refused(
                Rule::ServeSecret,
                format!("{} is not served: {} {what}", root.display(), path.display()),
            )
            .remedy("give the folder that `tidegate publish` wrote, without other files in it"));
        }
    }
    Ok(())
}

fn holds_key(path: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    read.is_ok() && is_key(&bytes)
}

/// Whether this is the content of a file with a private key: of any kind in PEM, PKCS#8 in DER.
pub(super) fn is_key(bytes: &[u8]) -> bool {
    if PrivateKeyInfoRef::try_from(bytes).is_ok() || EncryptedPrivateKeyInfoRef::try_from(bytes).is_ok() {
        return true;
    }
    // Also within a line, as in the JSON of a cloud's credentials.
    let begins = |line: &[u8]| {
        let start = line.windows(11).position(|part| part == b"-----BEGIN ");
        let rest = start.and_then(|start| line.get(start..)).unwrap_or_default();
        rest.windows(11).any(|part| part == b"PRIVATE KEY")
    };
    bytes.len() as u64 <= LONGEST && bytes.split(|byte| matches!(byte, b'\n' | b'\r')).any(begins)
}
