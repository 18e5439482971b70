//! The audit log: lines of JSON. Each admission has its own line. Equal refusals are counted: the first of a device and rule is written at
//! once, the others as one line per interval, so that nobody can fill the disk. It contains no secrets, and device ids only if the settings
//! enable them.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tidegate_model::text::one_line;
use tokio::sync::{mpsc, oneshot};

use crate::config::GateConfig;
use crate::encoding::to_hex;
use crate::error::{Error, Result};
use crate::secret::SharedSecret;

/// The number of lines that may wait for a slow disk. Beyond it requests wait too, so that no decision lacks its line.
const QUEUE: usize = 1024;
/// The number of devices and rules whose refusals are counted apart. Beyond it refusals are counted by rule alone.
const MAX_COUNTS: usize = 5_000;

/// One decision, or several equal refusals.
#[derive(Debug, Default, Clone, Serialize)]
pub struct AuditEntry {
    /// The time, `YYYY-MM-DDTHH:MM:SSZ`.
    pub at: String,
    /// The route: `challenge`, `grant`, `repo`, `receipts`, `other`; `connection` for what is refused before a request.
    pub route: &'static str,
    /// The status of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The rule of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<&'static str>,
    /// The number of further refusals of this device by this rule. The other fields are those of the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// The device: its id, or a keyed hash of it. Likewise the address of a sender that is not identified.
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

/// What the thread gets that writes.
#[derive(Debug)]
enum Line {
    Text(Vec<u8>),
    /// Everything before has to be written.
    End(oneshot::Sender<()>),
}

/// What is counted together: route, rule and device.
type RefusalKey = (&'static str, &'static str, Option<String>);

/// Writes the audit log.
#[derive(Debug)]
pub struct AuditLog {
    lines: mpsc::Sender<Line>,
    device_ids: bool,
    /// The refusals of this interval: how many since the first one, and the last one.
    refusals: Mutex<HashMap<RefusalKey, (u64, AuditEntry)>>,
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
        let (lines, mut queue) = mpsc::channel::<Line>(QUEUE);
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || {
                while let Some(line) = queue.blocking_recv() {
                    let text = match line {
                        Line::Text(text) => text,
                        Line::End(written) => {
                            let _ = written.send(());
                            continue;
                        }
                    };
                    if let Err(error) = out.write_all(&text).and_then(|()| out.flush()) {
                        tracing::error!(%error, "cannot write to the audit log");
                    }
                }
            })
            .map_err(|error| Error::system("cannot start the thread of the audit log", &error))?;
        Ok(Self { lines, device_ids: config.audit.device_ids, refusals: Mutex::default() })
    }

    /// How the log names a device, or an address.
    pub fn device_label(&self, device: &str, secret: &SharedSecret) -> String {
        if self.device_ids {
            return device.to_owned();
        }
        let (_, mac) = secret.mac("audit", &[device.as_bytes()]);
        format!("~{}", to_hex(mac.get(..8).unwrap_or_default()))
    }

    /// Appends a line, or counts a further refusal. Waits while the queue is full.
    pub async fn append(&self, entry: AuditEntry) {
        if let Some(entry) = self.count(entry) {
            self.write(&entry).await;
        }
    }

    /// Writes what has been counted, and starts to count again.
    pub async fn write_counts(&self) {
        let counted = std::mem::take(&mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner));
        for (count, entry) in counted.into_values().filter(|(count, _)| *count > 0) {
            self.write(&AuditEntry { count: Some(count), ..entry }).await;
        }
    }

    /// Writes what has been counted, and waits until everything is written.
    pub async fn end(&self) {
        self.write_counts().await;
        let (written, is_written) = oneshot::channel();
        if self.lines.send(Line::End(written)).await.is_ok() {
            let _ = is_written.await;
        }
    }

    /// Returns an entry that has its own line.
    fn count(&self, mut entry: AuditEntry) -> Option<AuditEntry> {
        let Some(rule) = entry.rule else { return Some(entry) };
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (entry.route, rule, entry.device.clone());
        if refusals.len() >= MAX_COUNTS && !refusals.contains_key(&key) {
            entry.device = None;
            key.2 = None;
        }
        if let Some(counted) = refusals.get_mut(&key) {
            *counted = (counted.0 + 1, entry);
            return None;
        }
        refusals.insert(key, (0, entry.clone()));
        Some(entry)
    }

    async fn write(&self, entry: &AuditEntry) {
        if let Ok(text) = serde_json::to_string(entry) {
            let _ = self.lines.send(Line::Text(format!("{}\n", one_line(&text)).into_bytes())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(rule: &'static str, device: &str) -> AuditEntry {
        AuditEntry { route: "grant", rule: Some(rule), device: Some(device.into()), ..AuditEntry::default() }
    }

    fn written(queue: &mut mpsc::Receiver<Line>) -> Vec<serde_json::Value> {
        let text = |line| match line {
            Line::Text(text) => serde_json::from_slice(&text).unwrap(),
            Line::End(_) => panic!(),
        };
        std::iter::from_fn(|| queue.try_recv().ok()).map(text).collect()
    }

    #[tokio::test]
    async fn equal_refusals_are_counted() {
        let (lines, mut queue) = mpsc::channel(10 * MAX_COUNTS);
        let log = AuditLog { lines, device_ids: true, refusals: Mutex::default() };
        for _ in 0..1000 {
            log.append(refusal("G-LIM-03", "one")).await;
        }
        log.append(refusal("G-TOK-05", "one")).await;
        log.append(refusal("G-LIM-03", "two")).await;
        log.append(AuditEntry { route: "grant", ..AuditEntry::default() }).await;
        assert_eq!(written(&mut queue).len(), 4, "the first of each, and what is no refusal");
        log.write_counts().await;
        let counts = written(&mut queue);
        assert_eq!(counts.len(), 1);
        assert_eq!((&counts[0]["count"], &counts[0]["device"]), (&999.into(), &"one".into()));
        log.append(refusal("G-LIM-03", "one")).await;
        assert_eq!(written(&mut queue).len(), 1, "a new interval begins");
    }

    #[tokio::test]
    async fn many_devices_write_a_bounded_number_of_lines() {
        let (lines, mut queue) = mpsc::channel(10 * MAX_COUNTS);
        let log = AuditLog { lines, device_ids: true, refusals: Mutex::default() };
        for number in 0..4 * MAX_COUNTS {
            log.append(refusal("G-ID-02", &number.to_string())).await;
        }
        log.write_counts().await;
        let lines = written(&mut queue);
        assert_eq!(lines.len(), MAX_COUNTS + 2);
        let rest = lines.last().unwrap();
        assert_eq!((&rest["count"], &rest["device"]), (&(3 * MAX_COUNTS - 1).into(), &serde_json::Value::Null));
    }
}
