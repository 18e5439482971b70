//! How receipts are sent, and what came of it.

use std::time::Duration;

use serde::Serialize;

use crate::retry::Retry;

/// How receipts are sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// Whether to send although a failure asked for patience.
    pub at_once: bool,
    /// After how long to leave the rest for the next time.
    pub within: Duration,
    /// How long to wait after failures.
    pub retry: Retry,
}

impl Default for Sending {
    fn default() -> Self {
        Self { at_once: false, within: Duration::from_secs(60), retry: Retry::CHECKS }
    }
}

/// What came of sending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// How many were acknowledged.
    pub sent: usize,
    /// Why those were refused that no longer wait, although nobody has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// How many wait still.
    pub waiting: usize,
    /// What went wrong, if something did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
