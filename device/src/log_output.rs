//! `-v`, `-vv` and `TIDEGATE_LOG`: what the client does, on standard error.

use std::fmt::{Debug, Write as _};

use super::failure::{Failure, say};
use tidegate_client::clock::{Clock as _, SystemClock};
use tidegate_model::time;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// The environment variable with the level, for programs that are started by others. `-v` has precedence.
const VARIABLE: &str = "TIDEGATE_LOG";

/// Prints events from now on: requests and steps with `-v`, also commands and single reads with `-vv`.
pub(super) fn start(verbose: u8) -> Result<(), Failure> {
    let level = match verbose {
        0 => match std::env::var(VARIABLE).as_deref() {
            Err(_) | Ok("" | "off") => return Ok(()),
            Ok("error" | "warn" | "info") => Level::INFO,
            Ok("debug") => Level::DEBUG,
            Ok("trace") => Level::TRACE,
            Ok(other) => {
                let message =
                    format!("{VARIABLE}: unknown level {other:?}: use error, warn, info, debug, trace or off");
                return Err(Failure::Usage(message));
            }
        },
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    // It can only be set once, and this is where.
    let _ = tracing::subscriber::set_global_default(Stderr { level });
    Ok(())
}

/// Writes the events of this project's crates to standard error, one a line. Spans are not used.
struct Stderr {
    level: Level,
}

impl Subscriber for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("tidegate")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let time = time::format(SystemClock::new().now());
        say(&format!("{time} {} {}{}", event.metadata().level(), line.message, line.fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The parts of a line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            let _ = write!(self.fields, " {field}={text}");
        }
    }
}
