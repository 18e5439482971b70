//! What the places in tidegate.toml have, for commands that tell where things stand.

use std::time::Duration;

use crate::cli::context::{Context, block_on};
use crate::config::Settings;
use crate::error::Result;
use crate::metadata::Repository;
use crate::publish::{Options, Remote, Standing, live_timestamp, standings};

/// How long a place may take to answer: whoever asks where things stand waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The timestamps of the places in tidegate.toml, as they are there now.
pub(in crate::cli) type Live = Vec<(String, Result<Option<Vec<u8>>>)>;

/// Reads the timestamp of each place, one request each; what cannot be read is part of the result. Without the workspace's lock.
pub(in crate::cli) fn look(context: &Context) -> Live {
    let Ok(settings) = Settings::load(&context.dir) else { return Vec::new() };
    let places = settings.publish.places(&context.dir);
    if places.is_empty() {
        return Vec::new();
    }
    let options = Options { retry_for: Duration::ZERO, timeout: PATIENCE, ..Options::default() };
    let read = async |place: String| {
        let seen = match Remote::open_to_read(&place, &options) {
            Ok(remote) => live_timestamp(&remote).await,
            Err(error) => Err(error),
        };
        (place, seen)
    };
    // Nothing fails here but the start of the runtime, and then nothing is known.
    block_on(async { Ok(futures::future::join_all(places.into_iter().map(read)).await) }).unwrap_or_default()
}

/// How the places stand to the workspace.
pub(in crate::cli) fn stand(context: &Context, repository: &Repository, live: &Live) -> Result<Vec<Standing>> {
    standings(&context.dir, repository, live)
}

/// Says what is not published yet, and what was not looked at.
pub(in crate::cli) fn tell(context: &Context, standings: &[Standing]) {
    for standing in standings.iter().filter(|standing| standing.is_behind() || standing.unreachable.is_some()) {
        let remedy = if standing.published == Some(false) { format!(": {}", command(standing)) } else { String::new() };
        context.ui.warn(format_args!("{standing}{remedy}"));
    }
}

/// The command that publishes.
fn command(standing: &Standing) -> &'static str {
    if standing.place.is_some() { "tidegate publish" } else { "tidegate publish PLACE" }
}

/// The command that publishes the workspace, for hints.
pub(in crate::cli) fn next(context: &Context) -> &'static str {
    let place = Settings::load(&context.dir).is_ok_and(|settings| !settings.publish.place.is_empty());
    if place { "tidegate publish" } else { "tidegate publish FOLDER" }
}
