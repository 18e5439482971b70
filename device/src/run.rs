//! `tidegate-device run`: the long-running agent.
//!
//! Between checks the state folder is not locked and only the few variables of this loop remain: settings, facts and
//! state are read again each time. The process sleeps in one system call, which a signal ends.

mod log;
mod notify;
mod signals;

use std::time::Duration;

use super::arguments::Arguments;
use super::failure::Failure;
use super::output::Output;
use super::settings::{self, Settings};
use log::{Event, Log};
use notify::Supervisor;
use signals::{Signals, Woken};
use tidegate_client::Error;
use tidegate_client::agent::{Agent, Next};
use tidegate_client::clock::{BUILT, Clock as _, FlooredClock, SystemClock};
use tidegate_client::retry::{Retry, jitter};
use tidegate_client::state::Machine;
use tidegate_client::store::StoreError;
use tidegate_model::time::UtcTime;

/// The time between two requests for a restart.
const RESTART: Duration = Duration::from_secs(600);
/// The delay while another process uses the state folder.
const LOCKED: Duration = Duration::from_secs(5);
/// The longest pause after a failure.
const LONGEST: Duration = Duration::from_secs(86_400);

/// Runs until a signal to stop. `first` are the settings from the initial validation.
pub(super) fn run(arguments: &Arguments, first: Settings, output: Output) -> Result<bool, Failure> {
    let (schedule, id) = (first.schedule, first.id.clone());
    drop(first);
    let signals = Signals::new().map_err(|e| Error::Setting(format!("cannot listen for signals: {e}")))?;
    let supervisor = Supervisor::from_environment();
    let mut log = Log::new(output);
    log.write(Event::Started)?;
    supervisor.ready();

    let (mut round, mut failed) = (0, 0);
    // An update in progress is resumed at once; the first check has a random delay.
    let mut task = Task::Resume;
    let mut due = schedule.first(&id);
    loop {
        let (cycle, kept) = cycle(arguments, task, &signals, &supervisor, &mut log)?;
        if !matches!(cycle, Cycle::Failed) {
            failed = 0;
        }
        let (pause, next) = match cycle {
            Cycle::Next(Next::Restart) => (RESTART, Task::Resume),
            Cycle::Next(Next::Look { after }) => (after, Task::Resume),
            Cycle::Next(Next::Check { until }) => {
                if task == Task::Check {
                    round += 1;
                    due = schedule.next(&id, round);
                }
                (due.min(remaining(until)), Task::Check)
            }
            Cycle::Locked => (LOCKED, task),
            Cycle::Failed => {
                round += 1;
                due = schedule.next(&id, round);
                failed += 1;
                (
                    due.max(Retry::CHECKS.pause(failed, jitter())),
                    if task == Task::Resume { Task::Resume } else { Task::Check },
                )
            }
        };
        // The pause after a failure is the one that was told, whatever the schedule.
        let pause = kept.unwrap_or(pause);
        supervisor.status(&log.state());
        task = match wait(pause, &signals, &supervisor) {
            Woken::Stop => {
                supervisor.stopping();
                log.write(Event::Stopped)?;
                return Ok(true);
            }
            Woken::Wake => {
                log.write(Event::Woken)?;
                Task::Check
            }
            Woken::Time => next,
        };
    }
}

/// The purpose of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    Resume,
    Check,
}

/// How a cycle ended.
enum Cycle {
    Next(Next),
    /// Another process uses the state folder.
    Locked,
    /// A failure.
    Failed,
}

/// How a cycle ended, and the pause after a failure that has one of its own.
fn cycle(
    arguments: &Arguments,
    task: Task,
    signals: &Signals,
    supervisor: &Supervisor,
    log: &mut Log,
) -> Result<(Cycle, Option<Duration>), Failure> {
    // Nothing is lost here, so a signal may end the process at once.
    let _working = signals.working();
    let result = supervisor.watched(|watch| {
        let mut host = log.host(watch);
        let settings = settings::read_all(arguments)?;
        for problem in settings.problems.iter().chain(&settings.remark) {
            host.problem(problem);
        }
        let mut device = settings.builder.open()?;
        let mut agent = Agent::new(&mut device, &settings.options, &mut host);
        let next = match task {
            Task::Resume => agent.resume(),
            Task::Check => agent.check(),
        };
        if let Err(error) = &next {
            host.failed(error);
        }
        if let Some(sink) = settings.sink
            && may_send(&next)
        {
            host.send(&mut device, sink);
        }
        // In the device's time, which may not be the clock's.
        let pause = pause(&next, device.machine(), device.now());
        Ok::<_, Error>((next, pause))
    });
    log.flush()?;
    match result {
        Ok((Ok(next), pause)) => Ok((Cycle::Next(next), pause)),
        Ok((Err(_), pause)) => Ok((Cycle::Failed, pause)),
        Err(Error::Store(StoreError::Locked { .. })) => Ok((Cycle::Locked, None)),
        Err(error) => {
            log.write(Event::Failed(&error))?;
            Ok((Cycle::Failed, None))
        }
    }
}

/// The pause after a failure, if there was one.
fn pause(next: &Result<Next, Error>, machine: &Machine, now: UtcTime) -> Option<Duration> {
    let left = (machine.again_at()? - now).to_std().ok();
    // A time beyond the longest pause is from a clock that was ahead.
    let left = left.filter(|left| *left <= LONGEST).map(|left| left.max(LOCKED));
    match next {
        // The restart was asked for.
        Ok(_) if machine.state.is_unsettled() => None,
        Ok(_) => left.or(Some(LOCKED)),
        Err(_) => left,
    }
}

/// Whether there is time to send receipts: not during a trial that is checked every few seconds.
fn may_send(next: &Result<Next, Error>) -> bool {
    !matches!(next, Ok(Next::Look { after }) if *after < Duration::from_secs(300))
}

/// The time until an instant, with a minimum, so that no error makes this loop spin.
fn remaining(until: Option<UtcTime>) -> Duration {
    let Some(until) = until else { return Duration::MAX };
    let now = FlooredClock::new(SystemClock::new(), BUILT).now();
    let moment = Retry { times: 0, first: Duration::from_secs(2), longest: Duration::from_secs(2) }.pause(1, jitter());
    until.signed_duration_since(now).to_std().unwrap_or_default().max(moment)
}

/// Sleeps, and reports to the supervisor periodically.
fn wait(pause: Duration, signals: &Signals, supervisor: &Supervisor) -> Woken {
    let mut left = pause;
    loop {
        supervisor.alive();
        let slice = supervisor.interval().map_or(left, |interval| interval.min(left));
        match signals.wait(slice) {
            Woken::Time if slice < left => left -= slice,
            woken => return woken,
        }
    }
}
