//! Verifies a repository in a local folder, from the root that is shipped to the newest targets: `verify FOLDER TARGET`.
//!
//! Where the bytes come from is up to the caller: this crate does no I/O and reads no clock.

use std::error::Error;
use std::path::Path;

use tidegate_tuf::path::{TargetPath, metadata_file};
use tidegate_tuf::{Search, Step, TrustedSet};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [folder, target] = arguments.as_slice() else { return Err("usage: verify FOLDER TARGET".into()) };
    println!("{}", verify(Path::new(folder), target, chrono::Utc::now())?);
    Ok(())
}

/// The length of `target` and the role that lists it, if every signature, version and expiry on the way to it is right.
pub(crate) fn verify(
    folder: &Path,
    target: &str,
    now: chrono::DateTime<chrono::Utc>,
) -> Result<String, Box<dyn Error>> {
    let read = |name: String| std::fs::read(folder.join("metadata").join(name));
    let mut trusted = TrustedSet::from_root(&read(metadata_file("root", Some(1)))?, now)?;
    while let Ok(next) = read(metadata_file("root", Some(trusted.root().common.version + 1))) {
        trusted.update_root(&next)?;
    }
    trusted.update_timestamp(&read(metadata_file("timestamp", None))?)?;
    let version = |trusted: &TrustedSet, role: &str| {
        let listed = trusted.listed(role).map(|file| file.version);
        if trusted.root().consistent_snapshot { listed } else { None }
    };
    trusted.update_snapshot(&read(metadata_file("snapshot", version(&trusted, "snapshot")))?)?;
    let mut search = Search::new(TargetPath::new(target)?, 32);
    loop {
        match search.step(&trusted) {
            Step::Load(chain) => {
                let bytes = read(metadata_file(chain.role(), version(&trusted, chain.role())))?;
                match chain.parent() {
                    None => trusted.update_targets(&bytes)?,
                    Some(_) => trusted.update_delegated(&chain, &bytes)?,
                }
            }
            Step::Found(found) => {
                let length = found.target.length;
                return Ok(format!("{target}: {length} bytes, listed by {}", found.chain.role()));
            }
            Step::NotFound => return Err(format!("no trusted role lists {target}").into()),
            Step::TooManyRoles => return Err("the search visited too many roles".into()),
        }
    }
}
