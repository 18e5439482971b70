//! The status of receipts.

use std::fmt;

use serde::Serialize;

use tidegate_model::time::{self, UtcTime};

/// The status of a device's receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReceiptStatus {
    /// The number of unsent receipts.
    pub waiting: usize,
    /// The number of receipts dropped because the queue was full.
    pub dropped: u64,
    /// The number of permanently rejected receipts.
    pub refused: u64,
    /// The number of consecutive failures to send.
    pub failures: u32,
    /// The last problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The earliest time of the next attempt.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::optional_text")]
    pub until: Option<UtcTime>,
}

/// One line, e.g. `3 pending; sending failed 2 times in a row, the last: no connection`.
impl fmt::Display for ReceiptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.waiting {
            0 => write!(f, "none pending")?,
            count => write!(f, "{count} pending")?,
        }
        if self.dropped > 0 {
            write!(f, "; {} dropped because the queue was full", self.dropped)?;
        }
        if self.refused > 0 {
            write!(f, "; {} rejected permanently", self.refused)?;
        }
        if let Some(problem) = &self.problem {
            write!(f, "; ")?;
            if self.failures > 0 {
                write!(f, "sending failed {} in a row, the last: ", times(self.failures))?;
            }
            write!(f, "{problem}")?;
        }
        if let Some(until) = self.until {
            write!(f, "; next attempt at {}", time::format(until))?;
        }
        Ok(())
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}
