//! From errors to text and exit codes, in one place.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use tidegate_model::failure::{ErrorBody, ErrorKind, ErrorReport};
use tidegate_model::text::{lines, public_urls};

use super::groups;
use super::ui::{Ui, log, log_block};
use crate::error::{Error, Kind};

/// Standard output was closed.
const CLOSED_PIPE: u8 = 3;

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
            rule: error.broken_rule().map(|rule| rule.id().to_owned()),
            remedy: error.remedy_text().map(ToOwned::to_owned),
            causes,
            ..ErrorBody::new(shared(error.kind()), error.to_string())
        };
        let value = serde_json::to_string(&ErrorReport::from(body)).unwrap_or_else(|_| error.to_string());
        log(public_urls(&value));
    } else {
        let why = causes.iter().fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
        ui.error(&why, error.remedy_text());
    }
    ExitCode::from(code)
}

/// Reports a command line that cannot be parsed, or prints the requested help.
pub(super) fn report_usage(error: &clap::Error, json: bool) -> ExitCode {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
        && let suggested = error.get(ContextKind::SuggestedSubcommand)
        && let Some(remedy) = groups::instead(&super::command(), word, &values(suggested))
    {
        return report(&Error::usage(format!("no command '{word}'")).remedy(remedy), &Ui::new(json, false));
    }
    if json && error.use_stderr() {
        let text = error.render().to_string();
        let mut parts = text.split("\n\n").map(str::trim);
        let message = parts.next().unwrap_or_default();
        let tip = parts.find_map(|part| part.strip_prefix("tip: "));
        let error = Error::usage(message.strip_prefix("error: ").unwrap_or(message))
            .remedy(tip.unwrap_or("tidegate --help lists the commands and options"));
        return report(&error, &Ui::new(true, false));
    }
    // clap repeats the arguments as they are. What cannot be shown as it is is shown without colours.
    let text = error.render().to_string();
    if error.use_stderr() && lines(&text) != text {
        log_block(&text);
        return ExitCode::from(ErrorKind::Usage.exit_code());
    }
    match error.print() {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::from(CLOSED_PIPE),
        _ if error.use_stderr() => ExitCode::from(ErrorKind::Usage.exit_code()),
        _ => ExitCode::SUCCESS,
    }
}

/// The texts of a part of clap's error.
fn values(value: Option<&ContextValue>) -> Vec<String> {
    match value {
        Some(ContextValue::String(one)) => vec![one.clone()],
        Some(ContextValue::Strings(all)) => all.clone(),
        _ => Vec::new(),
    }
}

/// Reports a panic. The default hook has already printed where it happened.
pub(super) fn report_panic(json: bool) -> ExitCode {
    report(&Error::bug("internal error; this is a bug in tidegate"), &Ui::new(json, false))
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
    use crate::error::Rule;

    #[test]
    fn each_kind_has_its_exit_code() {
        let closed = Error::io("write", Path::new("stdout"), io::Error::from(io::ErrorKind::BrokenPipe));
        for (error, expected) in [
            (Error::input(""), 1),
            (Error::refused(Rule::ReleaseOrder, ""), 1),
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
