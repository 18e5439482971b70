//! Errors on standard error, as text or JSON, and the exit code of each kind.

use std::io;
use std::process::ExitCode;

use serde_json::json;

use crate::error::{Error, ErrorKind};

const REFUSED: u8 = 1;
const USAGE: u8 = 2;
const CLOSED_PIPE: u8 = 3;
const BUG: u8 = 255;

/// Reports an error of a command.
pub(super) fn report(error: &Error, json: bool) -> ExitCode {
    if error.io_kind() == Some(io::ErrorKind::BrokenPipe) {
        return ExitCode::from(CLOSED_PIPE);
    }
    if json {
        eprintln!("{}", to_json(error));
    } else {
        eprintln!("error: {error}");
        if let Some(remedy) = error.remedy() {
            eprintln!("help: {remedy}");
        }
    }
    ExitCode::from(match error.kind() {
        ErrorKind::Usage => USAGE,
        ErrorKind::Bug => BUG,
        _ => REFUSED,
    })
}

/// Reports a wrong command line, or prints the requested help.
pub(super) fn report_usage(error: &clap::Error, json: bool) -> ExitCode {
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let message = text.split("\n\n").next().unwrap_or_default();
        let message = message.strip_prefix("error: ").unwrap_or(message).trim();
        let error =
            Error::new(ErrorKind::Usage, message).with_remedy("tidegate-gate --help lists the commands and options");
        return report(&error, json);
    }
    match error.print() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(CLOSED_PIPE),
        _ if error.use_stderr() => ExitCode::from(USAGE),
        _ => ExitCode::SUCCESS,
    }
}

/// Reports a panic. The default hook has already printed where it happened.
pub(super) fn report_panic(json: bool) -> ExitCode {
    report(&Error::new(ErrorKind::Bug, "internal error; this is a bug in tidegate-gate"), json)
}

fn to_json(error: &Error) -> serde_json::Value {
    json!({"error": {
        "kind": error.kind().name(),
        "rule": error.rule(),
        "message": error.message(),
        "remedy": error.remedy(),
        "causes": error.causes(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape that all three programs share.
    #[test]
    fn json_errors_have_all_fields() {
        let error = Error::input("gate.toml is invalid").with_cause("no cohorts").with_remedy("add one");
        assert_eq!(
            to_json(&error.with_rule("G-X-01")),
            json!({"error": {"kind": "input", "rule": "G-X-01", "message": "gate.toml is invalid", "remedy": "add one", "causes": ["no cohorts"]}})
        );
        assert_eq!(
            to_json(&Error::new(ErrorKind::Bug, "x")),
            json!({"error": {"kind": "bug", "rule": null, "message": "x", "remedy": null, "causes": []}})
        );
    }
}
