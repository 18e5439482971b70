//! What goes wrong in the gate's own house: settings, files, keys. Devices see [`Refusal`](crate::refusal::Refusal)s.

use std::fmt;

/// The result of what may fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong, where, and what to do.
#[derive(Debug)]
pub struct Error {
    what: String,
    remedy: Option<String>,
}

impl Error {
    /// Something is wrong.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: None }
    }

    /// A file cannot be used.
    pub fn file(doing: &str, path: &std::path::Path, error: impl fmt::Display) -> Self {
        Self::new(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// The same with what to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// What to do about it.
    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Error {}

/// Reads a file of at most `limit` bytes.
pub(crate) fn read(path: &std::path::Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|error| Error::file("read", path, error))?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| Error::file("read", path, error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(format!("{} is longer than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
