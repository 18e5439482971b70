//! How receipts are sent, and the result.

use std::time::Duration;

use serde::Serialize;

use crate::retry::Retry;

/// How receipts are sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// Whether to send during the delay after a failure.
    pub at_once: bool,
    /// The maximum duration; the remaining receipts are sent next time.
    pub within: Duration,
    /// How long to wait after failures.
    pub retry: Retry,
}

impl Default for Sending {
    fn default() -> Self {
        Self { at_once: false, within: Duration::from_secs(60), retry: Retry::CHECKS }
    }
}

/// The result of sending.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sent {
    /// How many were acknowledged.
    pub sent: usize,
    /// The reasons for permanent rejections; these receipts are dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// How many are still pending.
    pub waiting: usize,
    /// The problem, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}
