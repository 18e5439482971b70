//! From errors to text and exit codes, in one place.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use tidegate_model::failure::{ErrorBody, ErrorKind, ErrorReport};

use super::ui::Ui;
use crate::error::{Error, Kind};

/// Whoever read our output went away.
const CLOSED_PIPE: u8 = 3;
/// The program is at fault.
pub(super) const BUG: u8 = ErrorKind::Bug.exit_code();

/// Prints `error` with its causes and its remedy, and returns the exit code it stands for.
pub(super) fn report(error: &Error, ui: &Ui) -> ExitCode {
    let code = code(error);
    if code == CLOSED_PIPE {
        return ExitCode::from(code);
    }
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push(inner.to_string());
        cause = inner.source();
    }
    if ui.is_json() {
        let body = ErrorBody {
            rule: error.rule_id().map(ToOwned::to_owned),
            remedy: error.remedy_text().map(ToOwned::to_owned),
            causes,
            ..ErrorBody::new(shared(error.kind()), error.to_string())
        };
        let value = serde_json::to_string(&ErrorReport::from(body)).unwrap_or_else(|_| error.to_string());
        // Nothing is left to report a failure of this to.
        let _ = writeln!(io::stderr(), "{value}");
    } else {
        let mut text = format!("{} {error}", ui.style().red("error:"));
        for cause in causes {
            text.push_str(": ");
            text.push_str(&cause);
        }
        if let Some(remedy) = error.remedy_text() {
            text.push('\n');
            text.push_str(&ui.style().cyan("help:"));
            text.push(' ');
            text.push_str(remedy);
        }
        let _ = writeln!(io::stderr(), "{text}");
    }
    ExitCode::from(code)
}

/// Prints clap's own message (which may be the help that was asked for) and returns its exit code.
pub(super) fn report_usage(error: &clap::Error) -> ExitCode {
    match error.print() {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(CLOSED_PIPE),
        _ if error.use_stderr() => ExitCode::from(ErrorKind::Usage.exit_code()),
        _ => ExitCode::SUCCESS,
    }
}

fn code(error: &Error) -> u8 {
    if error.kind() == Kind::Io && is_closed_pipe(error) { CLOSED_PIPE } else { shared(error.kind()).exit_code() }
}

fn is_closed_pipe(error: &Error) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

/// The kind under the name that all programs share.
fn shared(kind: Kind) -> ErrorKind {
    match kind {
        Kind::Input => ErrorKind::Input,
        Kind::Refused => ErrorKind::Refused,
        Kind::Trust => ErrorKind::Trust,
        Kind::Io => ErrorKind::Io,
        Kind::Conflict => ErrorKind::Conflict,
        Kind::Usage => ErrorKind::Usage,
        Kind::Bug => ErrorKind::Bug,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn each_kind_has_its_exit_code() {
        let closed = Error::io("write", Path::new("stdout"), io::Error::from(io::ErrorKind::BrokenPipe));
        for (error, expected) in [
            (Error::input(""), 1),
            (Error::refused(""), 1),
            (Error::trust(""), 1),
            (Error::new(Kind::Io, ""), 1),
            (Error::new(Kind::Conflict, ""), 1),
            (Error::usage(""), 2),
            (closed, 3),
            (Error::bug(""), 255),
        ] {
            assert_eq!(code(&error), expected, "{error:?}");
        }
    }
}
