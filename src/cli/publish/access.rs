//! How places are used, as options of commands.

use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;

use crate::config::Settings;
use crate::error::Result;
use crate::publish::{HeaderRules, Options, Remote};
use tidegate_model::span::Span;

/// How a place is used.
#[derive(Debug, Clone, ClapArgs)]
pub(in crate::cli) struct AccessArgs {
    /// How long to retry requests that fail for temporary reasons
    #[arg(long, value_name = "SPAN", default_value = "3m")]
    retry_for: Span,
    /// The place of protected cohorts, which only their gate reads [default: publish.private in tidegate.toml]
    #[arg(long, value_name = "PLACE")]
    private: Option<String>,
}

impl Default for AccessArgs {
    fn default() -> Self {
        Self { retry_for: Span::of_seconds(180), private: None }
    }
}

impl AccessArgs {
    /// How a place is read together with that of protected objects.
    pub(in crate::cli) fn reading(private: Option<String>) -> Self {
        Self { private, ..Self::default() }
    }

    /// Opens a place that the workspace `dir` is published to.
    pub(in crate::cli) fn open(&self, place: &str, dir: &Path, settings: Option<&Settings>) -> Result<Remote> {
        self.open_with(place, self.private(dir, settings).as_deref(), dir, settings)
    }

    /// Opens a place that is only read, which may be a web server.
    pub(in crate::cli) fn open_to_read(&self, place: &str, dir: &Path, settings: Option<&Settings>) -> Result<Remote> {
        let options = self.options(dir, settings);
        with_private(Remote::open_to_read(place, &options)?, self.private(dir, settings).as_deref(), options)
    }

    fn private(&self, dir: &Path, settings: Option<&Settings>) -> Option<String> {
        self.private.clone().or_else(|| settings?.publish.private(dir))
    }

    /// The same, with what is protected in the place `private`, whatever the options and the settings say.
    pub(in crate::cli) fn open_with(
        &self,
        place: &str,
        private: Option<&str>,
        dir: &Path,
        settings: Option<&Settings>,
    ) -> Result<Remote> {
        // What is remembered of the place is written there.
        for folder in ["stores", "uploads"] {
            crate::fs::confined(dir, &format!(".tidegate/remote/{folder}"))?;
        }
        let options = self.options(dir, settings);
        let remote = with_private(Remote::open_with(place, &options)?, private, options)?;
        for folder in std::iter::once(&remote).chain(remote.private()) {
            folder.is_apart_from(dir)?;
        }
        Ok(remote)
    }

    fn options(&self, dir: &Path, settings: Option<&Settings>) -> Options {
        let mut headers = HeaderRules::default();
        if let Some(publish) = settings.map(|settings| &settings.publish) {
            headers.compress = publish.compress_metadata;
            let seconds = publish.timestamp_max_age.map(Span::seconds);
            if let Some(seconds) = seconds.and_then(|seconds| u32::try_from(seconds).ok()) {
                headers.timestamp_max_age = seconds;
            }
        }
        let retry_for = self.retry_for.delta().to_std().unwrap_or(Duration::ZERO);
        Options { retry_for, headers, ..Options::default() }.in_workspace(dir)
    }
}

fn with_private(remote: Remote, private: Option<&str>, options: Options) -> Result<Remote> {
    let Some(private) = private else { return Ok(remote) };
    let options = Options { variables: options.variables.for_private(), ..options };
    remote.with_private(Remote::open_with(private, &options)?)
}
