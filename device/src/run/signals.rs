//! Sleeping until a time or a signal.

use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level::pipe};

/// What ended a sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woken {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP or SIGUSR1: check now.
    Wake,
    /// The end of the time.
    Time,
}

/// The signals that this process handles.
pub(super) struct Signals {
    pipe: UnixStream,
    stop: Arc<AtomicBool>,
    working: Arc<AtomicBool>,
}

/// While this value exists, a signal to stop ends the process at once.
pub(super) struct Working<'a>(&'a AtomicBool);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let (pipe, write) = UnixStream::pair()?;
        let (stop, working) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_shutdown(signal, 0, working.clone())?;
            flag::register(signal, stop.clone())?;
            pipe::register(signal, write.try_clone()?)?;
        }
        for signal in [SIGHUP, SIGUSR1] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self { pipe, stop, working })
    }

    /// From now on, a signal to stop ends the process at once.
    pub(super) fn working(&self) -> Working<'_> {
        self.working.store(true, Ordering::SeqCst);
        Working(&self.working)
    }

    /// Sleeps for this time or until a signal. An earlier pending signal counts.
    pub(super) fn wait(&self, time: Duration) -> Woken {
        let end = Instant::now().checked_add(time);
        loop {
            if self.stop.load(Ordering::SeqCst) {
                return Woken::Stop;
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Woken::Time;
            }
            let mut buffer = [0; 64];
            // The system accepts no longer time; the loop continues the sleep.
            let left = left.map(|left| left.min(Duration::from_secs(86_400)));
            let read = self.pipe.set_read_timeout(left).and_then(|()| (&self.pipe).read(&mut buffer));
            match read {
                Ok(0) => return Woken::Stop,
                Ok(_) if self.stop.load(Ordering::SeqCst) => return Woken::Stop,
                Ok(_) => return Woken::Wake,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => std::thread::sleep(left.unwrap_or(Duration::from_secs(1)).min(Duration::from_secs(1))),
            }
        }
    }
}
