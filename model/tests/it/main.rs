//! The shared model: frozen vectors, properties, refusals, decisions.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, unreachable_pub, dead_code, clippy::too_many_lines)]

mod decisions;
mod delivery;
mod fleet;
mod properties;
mod refusals;
mod refused_documents;
mod vectors;

use tidegate_model::name::{DeviceId, Name};
use tidegate_model::time::{self, UtcTime};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn device(id: &str) -> DeviceId {
    id.parse().unwrap()
}

fn instant(text: &str) -> UtcTime {
    time::parse(text).unwrap()
}
