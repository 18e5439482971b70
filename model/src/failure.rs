//! The JSON form of an error, the same in all programs: `docs/schemas/error.schema.json`.
//!
//! With `--json` a program that fails writes one such object, on one line, to standard error.

use serde::Serialize;

use crate::prelude::*;

/// What kind of error it is: who can fix it, and how. Programs branch on this; people read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorKind {
    /// The command line is wrong.
    Usage,
    /// A file, a setting or a value given by the caller is wrong.
    Input,
    /// A rule forbids it: policy, the state of a release, a missing signature.
    Refused,
    /// Something signed does not verify, or a server does not follow the protocol.
    Trust,
    /// The network failed; trying again later may help.
    Network,
    /// The file system or another local resource failed.
    Io,
    /// Another process works on the same files, or published in the meantime.
    Conflict,
    /// The program is wrong.
    Bug,
}

impl ErrorKind {
    /// The exit code of a program that ends with such an error.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Bug => 255,
            Self::Input | Self::Refused | Self::Trust | Self::Network | Self::Io | Self::Conflict => 1,
        }
    }
}

/// An error for machines, the value of the field `error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// The stable id of the rule that was broken, if it was a rule.
    pub rule: Option<String>,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it, if that is known.
    pub remedy: Option<String>,
    /// The errors underneath, outermost first.
    pub causes: Vec<String>,
}

impl ErrorBody {
    /// An error without rule, remedy and causes.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, rule: None, message: message.into(), remedy: None, causes: Vec::new() }
    }
}

/// An error for machines, as a program writes it: `{"error": {...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorReport {
    /// The error.
    pub error: ErrorBody,
}

impl From<ErrorBody> for ErrorReport {
    fn from(error: ErrorBody) -> Self {
        Self { error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_always_present() {
        let report = ErrorReport::from(ErrorBody::new(ErrorKind::Io, "cannot read a"));
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"error":{"kind":"io","rule":null,"message":"cannot read a","remedy":null,"causes":[]}}"#
        );
    }
}
