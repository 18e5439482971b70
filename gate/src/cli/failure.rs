//! Errors on standard error, as text or JSON, and the exit code of each kind.

use std::io;
use std::process::ExitCode;

use tidegate_model::failure::{ErrorBody, ErrorReport};
use tidegate_model::text::lines;

use super::say;
use crate::error::{Error, ErrorKind};

/// Standard output was closed.
const CLOSED_PIPE: u8 = 3;

/// Reports an error of a command.
pub(super) fn report(error: &Error, json: bool) -> ExitCode {
    if error.io_kind() == Some(io::ErrorKind::BrokenPipe) {
        return ExitCode::from(CLOSED_PIPE);
    }
    if json {
        say(&to_json(error));
    } else {
        say(&format!("error: {error}"));
        if let Some(remedy) = error.remedy() {
            say(&format!("help: {remedy}"));
        }
    }
    ExitCode::from(error.kind().exit_code())
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
    // clap repeats the arguments as they are. What cannot be shown as it is is shown without colours.
    let text = error.render().to_string();
    if error.use_stderr() && lines(&text) != text {
        say(text.trim_end());
        return ExitCode::from(ErrorKind::Usage.exit_code());
    }
    match error.print() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(CLOSED_PIPE),
        _ if error.use_stderr() => ExitCode::from(ErrorKind::Usage.exit_code()),
        _ => ExitCode::SUCCESS,
    }
}

/// Reports a panic. The default hook has already printed where it happened.
pub(super) fn report_panic(json: bool) -> ExitCode {
    report(&Error::new(ErrorKind::Bug, "internal error; this is a bug in tidegate-gate"), json)
}

/// The error on one line, in the form that all programs share.
fn to_json(error: &Error) -> String {
    let body = ErrorBody {
        rule: error.rule().map(ToString::to_string),
        remedy: error.remedy().map(ToString::to_string),
        causes: error.causes().to_vec(),
        ..ErrorBody::new(error.kind(), error.message())
    };
    serde_json::to_string(&ErrorReport::from(body)).unwrap_or_else(|_| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(error: &Error) -> Value {
        serde_json::from_str(&to_json(error)).unwrap()
    }

    /// The shape that all three programs share.
    #[test]
    fn json_errors_have_all_fields() {
        let error = Error::input("gate.toml is invalid").with_cause("no cohorts").with_remedy("add one");
        assert_eq!(
            parsed(&error.with_rule("G-X-01")),
            json!({"error": {"kind": "input", "rule": "G-X-01", "message": "gate.toml is invalid", "remedy": "add one", "causes": ["no cohorts"]}})
        );
        assert_eq!(
            parsed(&Error::new(ErrorKind::Bug, "x")),
            json!({"error": {"kind": "bug", "rule": null, "message": "x", "remedy": null, "causes": []}})
        );
    }
}
