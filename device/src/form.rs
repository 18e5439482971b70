//! Reading settings.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use tidegate_client::Error;
use tidegate_tuf::fields::{FieldError, Fields};

/// The maximum length of a settings file or root, in bytes.
const LENGTH: u64 = 1_000_000;

pub(super) fn text(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<String>, FieldError> {
    Ok(fields.optional_text(key)?.map(str::to_owned))
}

pub(super) fn path(fields: &mut Fields<'_>, key: &'static str) -> Result<Option<PathBuf>, FieldError> {
    Ok(fields.optional_text(key)?.map(PathBuf::from))
}

/// Reads a small file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::File { action: "read", path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(failed)?.take(LENGTH + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LENGTH {
        return Err(Error::Setting(format!("{}: longer than {LENGTH} bytes", path.display())));
    }
    Ok(bytes)
}
