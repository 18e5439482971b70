//! What goes wrong, and who can fix it.

mod rule;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};

pub use rule::Rule;

/// A `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can fix an error. Programs branch on this, people read the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A file of the workspace, or a value given by the caller, is not what it must be.
    Input,
    /// What was asked for is against a rule: policy, the state of a release, a missing signature.
    Refused,
    /// Something signed does not verify: a signature, threshold, hash, version or expiry.
    Trust,
    /// The file system or the network failed.
    Io,
    /// Another process is at work on the same workspace or repository, or published in the meantime.
    Conflict,
    /// The command line cannot mean anything.
    Usage,
    /// The program is at fault.
    Bug,
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// An error that says what is wrong and what to do about it.
///
/// `what` names the file, role or rule; `remedy`, when there is one, is a sentence or a command that fixes it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    rule: Option<Rule>,
    what: String,
    remedy: Option<String>,
    until: Option<DateTime<Utc>>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `what` names the file, role or rule and what is wrong with it.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, rule: None, what: what.into(), remedy: None, until: None, source: None }
    }

    /// A file or value is not what it must be.
    pub fn input(what: impl Into<String>) -> Self {
        Self::new(Kind::Input, what)
    }

    /// `rule` refuses it.
    pub fn refused(rule: Rule, what: impl Into<String>) -> Self {
        Self::new(Kind::Refused, what).rule(rule)
    }

    /// Something signed does not verify.
    pub fn trust(what: impl Into<String>) -> Self {
        Self::new(Kind::Trust, what)
    }

    /// The command line cannot mean anything.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// The program contradicts itself.
    pub fn bug(what: impl Into<String>) -> Self {
        Self::new(Kind::Bug, what)
    }

    /// The operating system refused `action` (a verb, such as "read") on `path`.
    pub fn io(action: &str, path: &Path, source: io::Error) -> Self {
        let remedy = match source.kind() {
            io::ErrorKind::StorageFull => Some("free some space and run the command again; nothing was changed"),
            io::ErrorKind::PermissionDenied => Some("check the owner and mode of that path"),
            _ => None,
        };
        let error = Self::new(Kind::Io, format!("cannot {action} {}", path.display())).with_source(source);
        match remedy {
            Some(remedy) => error.remedy(remedy),
            None => error,
        }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Says until when it stays refused, if time alone resolves it.
    #[must_use]
    pub fn until(mut self, until: Option<DateTime<Utc>>) -> Self {
        self.until = until;
        self
    }

    /// Names the rule that was broken.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Adds the error underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who can fix it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What is wrong, without the rule.
    pub fn text(&self) -> &str {
        &self.what
    }

    /// The rule that was broken, if it was a rule.
    pub fn broken_rule(&self) -> Option<Rule> {
        self.rule
    }

    /// What to do about it, if that is known.
    pub fn remedy_text(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// Until when it stays refused, if time alone resolves it.
    pub fn refused_until(&self) -> Option<DateTime<Utc>> {
        self.until
    }

    /// Whether the operating system said that a path does not exist.
    pub fn is_not_found(&self) -> bool {
        self.source
            .as_deref()
            .and_then(|source| source.downcast_ref::<io::Error>())
            .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(rule) = self.rule {
            write!(f, " [{rule}]")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_names_action_path_and_remedy() {
        let error = Error::io("write", Path::new("a/b"), io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.to_string(), "cannot write a/b");
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.remedy_text().unwrap().contains("free some space"));
        assert!(!error.is_not_found());
        assert!(Error::io("read", Path::new("x"), io::Error::from(io::ErrorKind::NotFound)).is_not_found());
    }

    #[test]
    fn a_broken_rule_is_named() {
        assert_eq!(Error::refused(Rule::ReleaseSoak, "too soon").to_string(), "too soon [R-SOAK]");
    }
}
