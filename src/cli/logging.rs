//! `-v`, `-vv` and `TIDEGATE_LOG`: requests to storage and uses of keys, on standard error.

use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::ui::LogLines;
use crate::error::{Error, Result};

/// The filter without `-v`: directives like `debug` or `tidegate::publish=trace`.
const VARIABLE: &str = "TIDEGATE_LOG";

/// Starts logging: requests to storage and uses of keys with `-v`, HTTP requests and programs with `-vv`.
///
/// # Errors
///
/// Fails if `TIDEGATE_LOG` is not a valid filter.
pub(super) fn start(verbose: u8) -> Result<()> {
    let directives = match verbose {
        0 => match std::env::var(VARIABLE) {
            Ok(text) if !text.is_empty() => text,
            _ => return Ok(()),
        },
        1 => "debug".into(),
        _ => "trace".into(),
    };
    let filter = EnvFilter::builder().parse(&directives).map_err(|error| {
        Error::usage(format!("{VARIABLE} is not a valid filter"))
            .with_source(error)
            .remedy(format!("set for example {VARIABLE}=debug or {VARIABLE}=tidegate::publish=trace"))
    })?;
    // Other crates could log URLs with signatures, headers or bodies.
    let filter = filter.and(filter_fn(|metadata| metadata.target().starts_with("tidegate")));
    let layer = tracing_subscriber::fmt::layer().with_writer(|| LogLines).with_ansi(false).log_internal_errors(false);
    // If an embedding program has started logging, its subscriber stays.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    Ok(())
}
