//! The log on standard error.

use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::error::{Error, ErrorKind, Result};
use crate::logging::Escaping;

/// The filter without `-v`: directives like `debug` or `tidegate_gate::storage=trace`.
const VARIABLE: &str = "TIDEGATE_LOG";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// Starts logging.
///
/// # Errors
///
/// Fails if TIDEGATE_LOG is not a valid filter.
pub(super) fn init(verbose: u8, format: Format) -> Result<()> {
    let directives = match verbose {
        0 => std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "info".into()),
        1 => "debug".into(),
        _ => "trace".into(),
    };
    let filter = EnvFilter::builder().parse(&directives).map_err(|error| {
        Error::new(ErrorKind::Usage, format!("{VARIABLE} is not a valid filter"))
            .with_cause(error)
            .with_remedy(format!("set for example {VARIABLE}=debug or {VARIABLE}=tidegate_gate::storage=trace"))
    })?;
    // Other crates could log URLs with signatures, headers or bodies.
    let filter = filter.and(filter_fn(|metadata| metadata.target().starts_with("tidegate")));
    let layer = tracing_subscriber::fmt::layer().with_writer(|| Escaping(std::io::stderr())).log_internal_errors(false);
    let layer = match format {
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
        }
        Format::Text => layer.with_filter(filter).boxed(),
    };
    // If an embedding program has started logging, its subscriber stays.
    let _ = tracing_subscriber::registry().with(layer).try_init();
    Ok(())
}
