//! Messages to the service manager: `sd_notify(3)` and its watchdog.
//!
//! While the process sleeps, it reports to the watchdog itself. While it works, a second thread does, but only as long as the work progresses:
//! every event and every block of a download moves a deadline, and after the deadline there are no more reports.

use std::env;
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How long the work may run without progress before the reports to the watchdog stop. The longest single step is an
/// installation, or a call of a hook, which have their own limits.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);

/// The service manager, if there is one.
pub(super) struct Supervisor {
    socket: Option<(UnixDatagram, Address)>,
    interval: Option<Duration>,
}

enum Address {
    Path(String),
    #[cfg(target_os = "linux")]
    Abstract(std::os::unix::net::SocketAddr),
}

/// Moves the deadline of the current work.
pub(super) struct Watch(Mutex<Instant>);

impl Watch {
    pub(super) fn renew(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_alive(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < PATIENCE
    }
}

impl Supervisor {
    pub(super) fn from_environment() -> Self {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| {
            let address = match name.strip_prefix('@') {
                None => Address::Path(name),
                #[cfg(target_os = "linux")]
                Some(name) => {
                    use std::os::linux::net::SocketAddrExt as _;
                    Address::Abstract(std::os::unix::net::SocketAddr::from_abstract_name(name).ok()?)
                }
                #[cfg(not(target_os = "linux"))]
                Some(_) => return None,
            };
            Some((UnixDatagram::unbound().ok()?, address))
        });
        let is_ours = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let limit = env::var("WATCHDOG_USEC").ok().and_then(|limit| limit.parse().ok()).filter(|_| is_ours);
        Self {
            socket,
            interval: limit.map(|limit: u64| Duration::from_micros(limit / 2).max(Duration::from_millis(10))),
        }
    }

    /// The watchdog's interval.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval
    }

    pub(super) fn ready(&self) {
        self.say("READY=1");
    }

    pub(super) fn stopping(&self) {
        self.say("STOPPING=1");
    }

    pub(super) fn alive(&self) {
        if self.interval.is_some() {
            self.say("WATCHDOG=1");
        }
    }

    /// Shown by `systemctl status`.
    pub(super) fn status(&self, line: &str) {
        self.say(&format!("STATUS={}", tidegate_model::text::one_line(line)));
    }

    /// Runs some work and reports to the watchdog meanwhile.
    pub(super) fn watched<T>(&self, work: impl FnOnce(&Watch) -> T) -> T {
        let watch = Watch(Mutex::new(Instant::now()));
        let Some(interval) = self.interval else { return work(&watch) };
        let (done, is_done) = mpsc::channel::<()>();
        thread::scope(|scope| {
            scope.spawn(|| {
                // Moved here, so that only this thread receives from it.
                let is_done = is_done;
                while watch.is_alive() {
                    self.alive();
                    if is_done.recv_timeout(interval) != Err(RecvTimeoutError::Timeout) {
                        return;
                    }
                }
            });
            let result = work(&watch);
            drop(done);
            result
        })
    }

    /// Sends a message. Failures are ignored.
    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = match address {
                Address::Path(path) => socket.send_to(text.as_bytes(), path),
                #[cfg(target_os = "linux")]
                Address::Abstract(address) => socket.send_to_addr(text.as_bytes(), address),
            };
        }
    }
}
