//! Errors for the operator: settings, files, keys, storage. Devices get a `Refusal` instead.

use std::fmt;
use std::path::Path;

pub use tidegate_model::failure::ErrorKind;

/// The result of an operation that can fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What failed, why, and what to do about it.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    rule: Option<&'static str>,
    message: String,
    remedy: Option<String>,
    causes: Vec<String>,
    io_kind: Option<std::io::ErrorKind>,
}

impl Error {
    /// An error without a rule, a remedy or a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, rule: None, message: message.into(), remedy: None, causes: Vec::new(), io_kind: None }
    }

    /// An error in a file or value that the operator provides.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Input, message)
    }

    /// The operating system cannot do `action` with a file.
    pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::system(format!("cannot {action} {}", path.display()), error)
    }

    /// The operating system reports a failure.
    pub fn system(message: impl Into<String>, error: &std::io::Error) -> Self {
        Self { io_kind: Some(error.kind()), ..Self::new(ErrorKind::Io, message).with_cause(error) }
    }

    /// Adds the stable id of the rule that was broken.
    #[must_use]
    pub fn with_rule(mut self, rule: &'static str) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// The kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The stable id of the rule that was broken.
    pub fn rule(&self) -> Option<&'static str> {
        self.rule
    }

    /// What failed, without causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The causes, nearest first.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// The kind that the operating system reported.
    pub fn io_kind(&self) -> Option<std::io::ErrorKind> {
        self.io_kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
///
/// Fails if the file cannot be read or is longer.
pub(crate) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::io("read", path, &error);
    read_to_end(path, std::fs::File::open(path).map_err(failed)?, limit)
}

/// Reads a file with a private key or a secret, of at most `limit` bytes. The same rule for every such file of the settings.
///
/// # Errors
///
/// Fails if other users have access to the file, if it cannot be read, or if it is longer.
pub(crate) fn read_private_file(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::io("read", path, &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(Error::new(ErrorKind::Trust, format!("{} is accessible to other users", path.display()))
                .with_remedy(format!("chmod 600 {}", path.display())));
        }
    }
    read_to_end(path, file, limit)
}

fn read_to_end(path: &Path, file: std::fs::File, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| Error::io("read", path, &error);
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Error::input(format!("{} is longer than {limit} bytes", path.display())));
    }
    Ok(bytes)
}
