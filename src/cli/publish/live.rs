//! What the places in tidegate.toml have, for commands that show what is not published.

use std::time::Duration;

use crate::cli::context::{Context, block_on};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::publish::{Options, PublicationStatus, Remote, live_timestamp};

/// How long a place may take to answer, as the user waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The places that tidegate.toml names.
///
/// # Errors
///
/// A usage error if it names none.
pub(in crate::cli) fn places(context: &Context) -> Result<Vec<String>> {
    let places = Settings::load(&context.dir)?.publish.places(&context.dir);
    if places.is_empty() {
        return Err(Error::usage("tidegate.toml does not say where to publish")
            .remedy("set place under [publish] in tidegate.toml, or name it: tidegate publish PLACE"));
    }
    Ok(places)
}

/// The timestamps of the places in tidegate.toml, as they are there now.
pub(in crate::cli) type Live = Vec<(String, Result<Option<Vec<u8>>>)>;

/// Reads the timestamp of each place, one request each; what cannot be read is part of the result. Without the workspace's lock.
pub(in crate::cli) fn read(context: &Context) -> Live {
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

/// Warns of what is not published yet, and of places that cannot be reached.
pub(in crate::cli) fn warn(context: &Context, status: &[PublicationStatus]) {
    for place in status.iter().filter(|place| place.is_behind() || place.unreachable.is_some()) {
        let remedy = if place.published == Some(false) { format!(": {}", command(place)) } else { String::new() };
        context.ui.warn(format_args!("{place}{remedy}"));
    }
}

/// The command that publishes.
fn command(status: &PublicationStatus) -> &'static str {
    if status.place.is_some() { "tidegate publish" } else { "tidegate publish PLACE" }
}

/// The command that publishes the workspace, for hints.
pub(in crate::cli) fn publish_command(context: &Context) -> &'static str {
    let place = Settings::load(&context.dir).is_ok_and(|settings| !settings.publish.place.is_empty());
    if place { "tidegate publish" } else { "tidegate publish PLACE" }
}
