//! Metrics in the text format of Prometheus. No label takes a value that a device chooses.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Upper bounds of the histogram's buckets, in milliseconds.
const BOUNDS: [u64; 10] = [1, 2, 5, 10, 25, 50, 100, 250, 1000, 5000];

/// The metrics of the gate.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    grants: Mutex<BTreeMap<String, u64>>,
    durations: Mutex<BTreeMap<&'static str, Histogram>>,
    /// Open connections.
    pub connections: AtomicI64,
    rejected_connections: Mutex<BTreeMap<&'static str, u64>>,
    /// Stored receipts.
    pub stored_receipts: AtomicU64,
    /// Reloads of certificates, revocation lists or the secret.
    pub reloads: AtomicU64,
    /// Failed reloads.
    pub failed_reloads: AtomicU64,
    /// The expiry of the gate's certificate, in Unix seconds.
    pub certificate_expiry: AtomicI64,
}

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    micros: u64,
}

impl Metrics {
    /// Counts a response.
    pub fn record_response(&self, route: &'static str, status: u16, rule: Option<&'static str>, duration: Duration) {
        *lock(&self.requests).entry((route, status)).or_default() += 1;
        if let Some(rule) = rule {
            *lock(&self.refusals).entry(rule).or_default() += 1;
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut durations = lock(&self.durations);
        let histogram = durations.entry(route).or_default();
        histogram.count += 1;
        histogram.micros = histogram.micros.saturating_add(micros);
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BOUNDS) {
            *bucket += u64::from(micros <= bound * 1000);
        }
    }

    /// Counts a connection that ended without a request, by the rule of its refusal.
    pub fn record_rejected_connection(&self, rule: &'static str) {
        *lock(&self.rejected_connections).entry(rule).or_default() += 1;
    }

    /// Counts a grant for a cohort of the settings.
    pub fn record_grant(&self, cohort: &str) {
        *lock(&self.grants).entry(cohort.to_owned()).or_default() += 1;
    }

    /// The metrics as text.
    pub fn render(&self, devices: usize) -> String {
        let mut out = String::new();
        write_head(&mut out, "tidegate_gate_requests_total", "counter", "Responses by route and status.");
        for ((route, status), count) in lock(&self.requests).iter() {
            let _ = writeln!(out, "tidegate_gate_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}");
        }
        write_head(&mut out, "tidegate_gate_refusals_total", "counter", "Refusals by rule.");
        for (rule, count) in lock(&self.refusals).iter() {
            let _ = writeln!(out, "tidegate_gate_refusals_total{{rule=\"{rule}\"}} {count}");
        }
        write_head(&mut out, "tidegate_gate_grants_total", "counter", "Grants by cohort.");
        for (cohort, count) in lock(&self.grants).iter() {
            let _ = writeln!(out, "tidegate_gate_grants_total{{cohort=\"{cohort}\"}} {count}");
        }
        let name = "tidegate_gate_connections_refused_total";
        write_head(
            &mut out,
            name,
            "counter",
            "Connections refused, by rule: above a limit, or a failed TLS handshake.",
        );
        for (rule, count) in lock(&self.rejected_connections).iter() {
            let _ = writeln!(out, "{name}{{rule=\"{rule}\"}} {count}");
        }
        let name = "tidegate_gate_answer_seconds";
        write_head(&mut out, name, "histogram", "Time until a response begins.");
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
            ("connections", "Open connections.", self.connections.load(Relaxed)),
            ("devices_remembered", "Devices whose rate is tracked.", devices),
            (
                "certificate_expiry_seconds",
                "Expiry of the gate's certificate, Unix time.",
                self.certificate_expiry.load(Relaxed),
            ),
        ] {
            write_head(&mut out, &format!("tidegate_gate_{name}"), "gauge", help);
            let _ = writeln!(out, "tidegate_gate_{name} {value}");
        }
        for (name, help, value) in [
            ("receipts_stored_total", "Stored receipts.", &self.stored_receipts),
            ("reloads_total", "Reloads of certificates, revocation lists or the secret.", &self.reloads),
            ("reloads_failed_total", "Failed reloads; the previous files stayed in use.", &self.failed_reloads),
        ] {
            write_head(&mut out, &format!("tidegate_gate_{name}"), "counter", help);
            let _ = writeln!(out, "tidegate_gate_{name} {}", value.load(Relaxed));
        }
        out
    }
}

fn write_head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
