//! From errors to text and exit codes, in one place.

use std::error::Error as _;
use std::io::{self, Write as _};
use std::process::ExitCode;

use serde_json::json;

use super::ui::Ui;
use crate::error::{Error, Kind};

/// A refusal, or something at fault outside the program.
const FAILED: u8 = 1;
/// The command line cannot mean anything.
const USAGE: u8 = 2;
/// Whoever read our output went away.
const CLOSED_PIPE: u8 = 3;
/// The program is at fault.
pub(super) const BUG: u8 = 255;

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
        let value = json!({"error": {
            "kind": kind_name(error.kind()),
            "rule": error.rule_id(),
            "message": error.to_string(),
            "causes": causes,
            "remedy": error.remedy_text(),
        }});
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
        _ if error.use_stderr() => ExitCode::from(USAGE),
        _ => ExitCode::SUCCESS,
    }
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        Kind::Usage => USAGE,
        Kind::Bug => BUG,
        Kind::Io if is_closed_pipe(error) => CLOSED_PIPE,
        Kind::Input | Kind::Refused | Kind::Trust | Kind::Io | Kind::Conflict => FAILED,
    }
}

fn is_closed_pipe(error: &Error) -> bool {
    error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .is_some_and(|source| source.kind() == io::ErrorKind::BrokenPipe)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Input => "input",
        Kind::Refused => "refused",
        Kind::Trust => "trust",
        Kind::Io => "io",
        Kind::Conflict => "conflict",
        Kind::Usage => "usage",
        Kind::Bug => "bug",
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
