//! How places are used, as options of commands.

use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::config::{Settings, Span};
use crate::error::Result;
use crate::publish::{HeaderRules, Options, Remote};

/// How a place is used.
#[derive(Debug, Clone, ClapArgs)]
pub(in crate::cli) struct AccessArgs {
    /// How long a request that fails for reasons that may pass is tried again
    #[arg(long, value_name = "SPAN", default_value = "3m")]
    retry_for: Span,
}

impl AccessArgs {
    /// Opens a place that the workspace `dir` is published to, or taken from.
    pub(in crate::cli) fn open(&self, place: &str, dir: &Path, settings: Option<&Settings>) -> Result<Remote> {
        let mut headers = HeaderRules::default();
        if let Some(publish) = settings.map(|settings| &settings.publish) {
            headers.compress = publish.compress_metadata;
            let seconds = publish.timestamp_max_age.map(Span::seconds);
            if let Some(seconds) = seconds.and_then(|seconds| u32::try_from(seconds).ok()) {
                headers.timestamp_max_age = seconds;
            }
        }
        let retry_for = self.retry_for.delta().to_std().unwrap_or(Duration::ZERO);
        Remote::open_with(place, &Options { retry_for, headers, ..Options::default() }.in_workspace(dir))
    }
}
