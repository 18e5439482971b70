//! The shared model: frozen vectors, properties, refusals, decisions.

mod decisions;
mod fleet;
mod properties;
mod refusals;
mod refused_documents;
mod vectors;

use tidegate_client::model::name::{DeviceId, Name};
use tidegate_client::model::time::{self, Instant};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn device(id: &str) -> DeviceId {
    id.parse().unwrap()
}

fn instant(text: &str) -> Instant {
    time::parse(text).unwrap()
}
