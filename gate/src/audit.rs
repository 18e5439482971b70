//! The audit log: one line of JSON for each decision. It contains no secrets, and device ids only if the settings enable them.

use std::fs::OpenOptions;
use std::io::Write;

use serde::Serialize;
use tokio::sync::mpsc;

use crate::config::GateConfig;
use crate::encoding::to_hex;
use crate::error::{Error, Result};
use crate::secret::SharedSecret;

/// The number of lines that may wait for a slow disk. Beyond it requests wait too, so that no decision lacks its line.
const QUEUE: usize = 1024;

/// One decision.
#[derive(Debug, Default, Serialize)]
pub struct AuditEntry {
    /// The time, `YYYY-MM-DDTHH:MM:SSZ`.
    pub at: String,
    /// The route: `challenge`, `grant`, `repo`, `receipts`, `other`.
    pub route: &'static str,
    /// The status of the response.
    pub status: u16,
    /// The rule of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// The device: its id, or a keyed hash of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The kind of evidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<&'static str>,
    /// The granted cohorts, or the cohort that gave access to the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cohorts: Vec<String>,
    /// The requested object, if the path is valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// What was missing for a grant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The number of stored receipts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<usize>,
    /// The duration, in milliseconds.
    pub ms: u64,
}

/// Writes the audit log.
#[derive(Debug)]
pub struct AuditLog {
    lines: mpsc::Sender<Vec<u8>>,
    device_ids: bool,
}

impl AuditLog {
    /// Opens the file or standard output. A separate thread writes, so that a slow disk does not block other work.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened or the thread cannot be started.
    pub fn open(config: &GateConfig) -> Result<Self> {
        let mut out: Box<dyn Write + Send> = match &config.audit.file {
            Some(file) => {
                let path = config.path(file);
                let mut options = OpenOptions::new();
                options.append(true).create(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                Box::new(options.open(&path).map_err(|error| Error::io("append to", &path, &error))?)
            }
            None => Box::new(std::io::stdout()),
        };
        let (lines, mut queue) = mpsc::channel::<Vec<u8>>(QUEUE);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                while let Some(line) = queue.blocking_recv() {
                    if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
                        tracing::error!(%error, "cannot write to the audit log");
                    }
                }
            })
            .map_err(|error| Error::system("cannot start the thread of the audit log", &error))?;
        Ok(Self { lines, device_ids: config.audit.device_ids })
    }

    /// How the log names a device.
    pub fn device_label(&self, device: &str, secret: &SharedSecret) -> String {
        if self.device_ids {
            return device.to_owned();
        }
        let (_, mac) = secret.mac("audit", &[device.as_bytes()]);
        format!("~{}", to_hex(mac.get(..8).unwrap_or_default()))
    }

    /// Appends a line. Waits while the queue is full.
    pub async fn append(&self, entry: &AuditEntry) {
        if let Ok(mut text) = serde_json::to_vec(entry) {
            text.push(b'\n');
            let _ = self.lines.send(text).await;
        }
    }
}
