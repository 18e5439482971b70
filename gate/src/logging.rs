//! What log lines share: one line each, and durations.

use std::io::{self, Write};
use std::time::Instant;

use tidegate_model::text::one_line;

/// The milliseconds since `started`.
pub fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Writes each event of a log as one line, in which what others wrote is escaped.
#[derive(Debug)]
pub struct Escaping<W>(pub W);

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        writeln!(self.0, "{}", one_line(text.trim_end_matches('\n')))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_one_line() {
        let mut written = Vec::new();
        Escaping(&mut written).write_all("INFO a\n{\"forged\": 1}\u{1b}[2K\u{202e}\n".as_bytes()).unwrap();
        assert_eq!(written, b"INFO a\\n{\"forged\": 1}\\u001b[2K\\u202e\n");
    }
}
