//! How receipts stand.

use std::fmt;

use serde::Serialize;

use tidegate_model::time::{self, Instant};

/// How a device's receipts stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptStatus {
    /// How many wait to be sent.
    pub waiting: usize,
    /// How many were dropped, because there was no room for more.
    pub dropped: u64,
    /// How many were refused for good where they were sent.
    pub refused: u64,
    /// How often sending failed since it went well.
    pub failures: u32,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Not to be sent before.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::optional_text")]
    pub until: Option<Instant>,
}

/// One line, e.g. `3 wait; failed 2 times: no connection`.
impl fmt::Display for ReceiptStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.waiting {
            0 => write!(f, "none waits")?,
            1 => write!(f, "1 waits")?,
            more => write!(f, "{more} wait")?,
        }
        if self.dropped > 0 {
            write!(f, "; {} dropped for lack of room", self.dropped)?;
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
            write!(f, "; again from {} on", time::format(until))?;
        }
        Ok(())
    }
}

fn times(count: u32) -> String {
    if count == 1 { "once".into() } else { format!("{count} times") }
}
