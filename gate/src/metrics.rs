//! Metrics in Prometheus' text format. No label takes a value that a device chooses.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram's buckets, in milliseconds.
const BOUNDS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000];

/// All metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    grants: Mutex<BTreeMap<String, u64>>,
    durations: Mutex<BTreeMap<&'static str, Histogram>>,
    /// Connections that are open.
    pub connections: AtomicI64,
    /// Connections that were turned away: too many.
    pub turned_away: AtomicU64,
    /// Handshakes that failed: no certificate, a revoked one, no TLS 1.3.
    pub handshakes_failed: AtomicU64,
    /// Receipts that were stored.
    pub receipts: AtomicU64,
    /// Times that certificates were read anew.
    pub reloads: AtomicU64,
    /// Times that this failed.
    pub reloads_failed: AtomicU64,
    /// When the gate's certificate ends, in seconds since 1970.
    pub certificate_ends: AtomicI64,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    micros: u64,
}

impl Metrics {
    /// Counts an answer.
    pub fn answered(&self, route: &'static str, status: u16, rule: Option<&'static str>, took: Duration) {
        *lock(&self.requests).entry((route, status)).or_default() += 1;
        if let Some(rule) = rule {
            *lock(&self.refusals).entry(rule).or_default() += 1;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut durations = lock(&self.durations);
        let histogram = durations.entry(route).or_default();
        histogram.count += 1;
        histogram.micros = histogram.micros.saturating_add(micros);
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(micros <= bound * 1000);
        }
    }

    /// Counts a grant for a cohort. Only cohorts of the settings are granted.
    pub fn granted(&self, cohort: &str) {
        *lock(&self.grants).entry(cohort.to_owned()).or_default() += 1;
    }

    /// The text.
    pub fn text(&self, devices: usize) -> String {
        let mut out = String::new();
        head(&mut out, "tidegate_gate_requests_total", "counter", "Answers by route and status.");
        for ((route, status), count) in lock(&self.requests).iter() {
            let _ = writeln!(out, "tidegate_gate_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        head(&mut out, "tidegate_gate_refusals_total", "counter", "Refusals by rule.");
        for (rule, count) in lock(&self.refusals).iter() {
            let _ = writeln!(out, "tidegate_gate_refusals_total{{rule=\"{rule}\"}} {count}");
        }
        head(&mut out, "tidegate_gate_grants_total", "counter", "Grants by cohort.");
        for (cohort, count) in lock(&self.grants).iter() {
            let _ = writeln!(out, "tidegate_gate_grants_total{{cohort=\"{cohort}\"}} {count}");
        }
        let name = "tidegate_gate_answer_seconds";
        head(&mut out, name, "histogram", "Time until an answer begins.");
        for (route, histogram) in lock(&self.durations).iter() {
            for (bucket, bound) in histogram.buckets.iter().zip(BOUNDS) {
                let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"{}\"}} {bucket}", seconds(bound * 1000));
            }
            let _ = writeln!(out, "{name}_bucket{{route=\"{route}\",le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(out, "{name}_sum{{route=\"{route}\"}} {}", seconds(histogram.micros));
            let _ = writeln!(out, "{name}_count{{route=\"{route}\"}} {}", histogram.count);
        }
        let devices = i64::try_from(devices).unwrap_or(i64::MAX);
        for (name, help, value) in [
            ("connections", "Connections that are open.", self.connections.load(Relaxed)),
            ("devices_remembered", "Devices whose rate is remembered.", devices),
            (
                "certificate_expiry_seconds",
                "When the gate's certificate ends, Unix time.",
                self.certificate_ends.load(Relaxed),
            ),
        ] {
            head(&mut out, &format!("tidegate_gate_{name}"), "gauge", help);
            let _ = writeln!(out, "tidegate_gate_{name} {value}");
        }
        for (name, help, value) in [
            ("connections_turned_away_total", "Connections above the limits.", &self.turned_away),
            ("handshakes_failed_total", "TLS handshakes that failed.", &self.handshakes_failed),
            ("receipts_stored_total", "Receipts that were stored.", &self.receipts),
            ("reloads_total", "Times that certificates or the secret were read anew.", &self.reloads),
            ("reloads_failed_total", "Times that this failed, and the old ones stayed.", &self.reloads_failed),
        ] {
            head(&mut out, &format!("tidegate_gate_{name}"), "counter", help);
            let _ = writeln!(out, "tidegate_gate_{name} {}", value.load(Relaxed));
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
