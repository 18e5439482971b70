//! Failures, how they are printed, and exit codes.

use std::io::{self, Write as _};
use std::process::ExitCode;

use tidegate_client::store::StoreError;
use tidegate_client::{Error, Fault};
use tidegate_model::decision::Outcome;
use tidegate_model::failure::{ErrorBody, ErrorKind, ErrorReport};
use tidegate_model::text::one_line;

const CLOSED_PIPE: u8 = 3;

/// Why a command failed.
pub(super) enum Failure {
    /// The command line is wrong.
    Usage(String),
    /// The client failed.
    Error(Error),
    /// Standard output could not be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Failure {
    fn body(&self) -> ErrorBody {
        match self {
            Self::Usage(message) => ErrorBody {
                remedy: Some("run tidegate-device --help for commands and options".into()),
                ..ErrorBody::new(ErrorKind::Usage, message.clone())
            },
            Self::Error(error) => error_body(error),
            Self::Output(e) => ErrorBody::new(ErrorKind::Io, format!("cannot write to standard output: {e}")),
        }
    }
}

/// The client's error in the form that all programs share.
pub(super) fn error_body(error: &Error) -> ErrorBody {
    let rule = denied_rule(error);
    let kind = match error {
        _ if rule.is_some() => ErrorKind::Refused,
        Error::Setting(_) => ErrorKind::Usage,
        Error::Store(StoreError::Locked { .. }) => ErrorKind::Conflict,
        _ => match error.fault() {
            Fault::Peer => ErrorKind::Trust,
            Fault::Network => ErrorKind::Network,
            Fault::Device => ErrorKind::Io,
            Fault::Caller | Fault::Nobody => ErrorKind::Input,
        },
    };
    ErrorBody {
        rule: rule.filter(|rule| !rule.is_empty()).map(str::to_owned),
        remedy: error.hint().map(str::to_owned),
        ..ErrorBody::new(kind, error.to_string())
    }
}

/// The rule by which a gate denied access, if one did; empty if the gate named none.
fn denied_rule(error: &Error) -> Option<&str> {
    match error {
        Error::Fetch(tidegate_client::fetch::FetchError::Denied { refusal, .. }) => Some(&refusal.rule),
        _ => None,
    }
}

/// Whether the decision is a refusal, which needs attention.
pub(super) fn is_refusal(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refuse { .. })
}

/// Prints a failure to standard error and returns the exit code.
pub(super) fn finish(json: bool, result: Result<bool, Failure>) -> ExitCode {
    let failure = match result {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(ErrorKind::Refused.exit_code()),
        Err(Failure::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe => return ExitCode::from(CLOSED_PIPE),
        Err(failure) => failure,
    };
    let body = failure.body();
    let code = body.kind.exit_code();
    print(json, &body);
    ExitCode::from(code)
}

/// Prints a line to standard error. What others wrote in it is escaped.
pub(super) fn say(text: &str) {
    // Without standard error there is nowhere to report that this failed.
    let _ = writeln!(io::stderr().lock(), "{}", one_line(text));
}

/// Prints an error as text or as one line of JSON.
fn print(json: bool, body: &ErrorBody) {
    if json && let Ok(line) = serde_json::to_string(&ErrorReport::from(body.clone())) {
        return say(&line);
    }
    say(&format!("error: {}", body.message));
    if let Some(remedy) = &body.remedy {
        say(&format!("help: {remedy}"));
    }
}
