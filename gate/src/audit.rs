//! The audit: one line of JSON for each decision. It holds no secret, and no device id unless that is asked for.

use std::fs::OpenOptions;
use std::io::Write;

use serde::Serialize;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::secret::Secret;

/// Lines that wait for a slow disk. When there are more, requests wait: nothing is decided without a line.
const WAITING: usize = 1024;

/// One decision.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    /// When, `YYYY-MM-DDTHH:MM:SSZ`.
    pub at: String,
    /// What was asked for: `challenge`, `grant`, `repo`, `receipts`, `other`.
    pub route: &'static str,
    /// The status of the answer.
    pub status: u16,
    /// The rule by which it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// Who asked: its id, or a keyed hash that stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The kind of evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<&'static str>,
    /// The cohorts that were granted, or whose object was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cohorts: Vec<String>,
    /// The object, where its path is one of a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What a grant lacked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// How many receipts were stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<usize>,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// Where lines go.
#[derive(Debug)]
pub struct Log {
    lines: mpsc::Sender<Vec<u8>>,
    device_ids: bool,
}

impl Log {
    /// Opens it as the settings say. A thread of its own writes, so that a slow disk stops no other work.
    pub fn open(config: &Config) -> Result<Self> {
        let mut out: Box<dyn Write + Send> = match &config.audit.file {
            Some(file) => {
                let path = config.path(file);
                let mut options = OpenOptions::new();
                options.append(true).create(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                Box::new(options.open(&path).map_err(|error| Error::file("append to", &path, error))?)
            }
            None => Box::new(std::io::stdout()),
        };
        let (lines, mut waiting) = mpsc::channel::<Vec<u8>>(WAITING);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                while let Some(line) = waiting.blocking_recv() {
                    // Nothing is left to tell of a failure to.
                    let _ = out.write_all(&line).and_then(|()| out.flush());
                }
            })
            .map_err(|error| Error::new(format!("cannot start the audit's thread: {error}")))?;
        Ok(Self { lines, device_ids: config.audit.device_ids })
    }

    /// What stands for a device in lines.
    pub fn name(&self, device: &str, secret: &Secret) -> String {
        if self.device_ids {
            return device.to_owned();
        }
        let (_, mac) = secret.sign("audit", &[device.as_bytes()]);
        format!("~{}", crate::encoding::to_hex(mac.get(..8).unwrap_or_default()))
    }

    /// Writes a line down, or waits until it can be.
    pub async fn write(&self, line: &Line) {
        if let Ok(mut text) = serde_json::to_vec(line) {
            text.push(b'\n');
            let _ = self.lines.send(text).await;
        }
    }
}
