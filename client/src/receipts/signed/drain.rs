//! Sends queued receipts to a sink.

use std::time::{Duration, Instant};

use chrono::TimeDelta;

use super::ledger::Ledger;
use crate::error::Error;
use crate::receipts::sending::{Sending, Sent};
use crate::receipts::sink::{Answer, Destination, Sink};
use crate::retry::jitter;
use crate::state::bounded;
use tidegate_model::time::UtcTime;

/// The maximum number of receipts per call.
const AT_ONCE: usize = 64;

/// Saves a ledger.
type Save<'a> = dyn FnMut(&Ledger) -> Result<(), Error> + 'a;

/// Sends queued receipts and removes the acknowledged and the permanently rejected ones from the ledger.
///
/// The ledger is saved after each call of the sink, so that few receipts are sent twice.
pub(crate) fn drain(
    ledger: &mut Ledger,
    sink: &mut dyn Sink,
    to: &Destination,
    options: Sending,
    now: UtcTime,
    save: &mut Save<'_>,
) -> Sent {
    let mut sent = Sent::default();
    let started = Instant::now();
    // A time beyond the longest delay comes from a clock that was ahead.
    let is_to_come = |until: UtcTime| (until - now).to_std().is_ok_and(|left| left <= options.retry.longest);
    let held_back = ledger.until.is_some_and(|until| until > now && is_to_come(until)) && !options.at_once;
    let mut size = AT_ONCE;
    while !ledger.queue.is_empty() && !held_back && started.elapsed() < options.within {
        let most = sink.at_once().clamp(1, AT_ONCE).min(size);
        let batch = ledger.queue.get(..most).unwrap_or(&ledger.queue);
        let length = batch.len();
        let answer = sink.send(batch, to);
        let kept = answer.kept().min(length);
        ledger.queue.drain(..kept);
        sent.sent += kept;
        let goes_on = match answer {
            Answer::Kept(_) if kept > 0 => {
                size = AT_ONCE;
                well(ledger)
            }
            Answer::Kept(_) => later(ledger, "the sink stored nothing and gave no reason", None, options, now),
            Answer::Refused { of, .. } if of > 1 && length - kept > 1 => {
                // One of them is the cause; smaller groups identify it.
                size = ((length - kept).min(of) / 2).max(1);
                if kept == 0 {
                    continue;
                }
                well(ledger)
            }
            Answer::Refused { why, .. } => {
                if !ledger.queue.is_empty() {
                    let gone = ledger.queue.remove(0).receipt;
                    ledger.refused = ledger.refused.saturating_add(1);
                    let what = format!("{} of {} (sequence {})", gone.outcome, gone.release, gone.sequence);
                    sent.refused.push(format!("{what}: {why}"));
                }
                size = AT_ONCE;
                well(ledger)
            }
            Answer::Later { why, after, .. } => later(ledger, &why, after, options, now),
        };
        if let Err(e) = save(ledger) {
            // It is sent again, and the sink recognizes it.
            ledger.problem = Some(format!("the acknowledgement cannot be saved: {e}"));
            break;
        }
        if !goes_on {
            break;
        }
    }
    sent.waiting = ledger.queue.len();
    sent.problem.clone_from(&ledger.problem);
    sent
}

/// Records success; sending continues.
fn well(ledger: &mut Ledger) -> bool {
    (ledger.failures, ledger.until, ledger.problem) = (0, None, None);
    true
}

/// Records a failure and the time of the next attempt; sending stops.
fn later(ledger: &mut Ledger, why: &str, after: Option<Duration>, options: Sending, now: UtcTime) -> bool {
    ledger.failures = ledger.failures.saturating_add(1);
    let pause = options.retry.pause(ledger.failures, jitter());
    // The sink may set the delay, up to the longest one.
    let pause = after.map_or(pause, |after| after.min(options.retry.longest));
    let pause = TimeDelta::from_std(pause).unwrap_or_default();
    ledger.until = now.checked_add_signed(pause);
    ledger.problem = Some(bounded(why));
    false
}

#[cfg(test)]
mod tests {
    use super::super::ledger::tests::offered;
    use super::super::sink::StubSink;
    use super::*;
    use tidegate_model::time;

    const NOWHERE: Destination = Destination { gate: None };

    fn now() -> UtcTime {
        time::parse("2026-01-05T12:00:00Z").unwrap()
    }

    fn sequences(ledger: &Ledger) -> Vec<u64> {
        ledger.waiting().iter().map(|signed| signed.receipt.sequence).collect()
    }

    fn send(ledger: &mut Ledger, sink: &mut StubSink, at_once: bool) -> (Sent, usize) {
        let mut saves = 0;
        let options = Sending { at_once, ..Sending::default() };
        let mut save = |_: &Ledger| {
            saves += 1;
            Ok(())
        };
        let sent = drain(ledger, sink, &NOWHERE, options, now(), &mut save);
        (sent, saves)
    }

    #[test]
    fn acknowledged_batches_leave_the_queue() {
        let mut ledger = offered(150);
        let mut sink = StubSink::new(1000);
        let (sent, saves) = send(&mut ledger, &mut sink, false);
        assert_eq!((sent.sent, sent.waiting, sent.problem, saves), (150, 0, None, 3));
        assert_eq!(sink.calls, [64, 64, 22]);
        assert_eq!(sink.kept.len(), 150);
        assert_eq!(send(&mut ledger, &mut sink, false), (Sent::default(), 0));
    }

    #[test]
    fn failures_delay_the_next_sending() {
        let mut ledger = offered(3);
        let mut sink = StubSink::new(64);
        sink.fail("no connection", None);
        let (sent, _) = send(&mut ledger, &mut sink, false);
        assert_eq!((sent.sent, sent.waiting, sent.problem.as_deref()), (0, 3, Some("no connection")));
        let until = ledger.until.unwrap();
        assert!(until > now() && until <= now() + TimeDelta::seconds(60));
        // Too early: the sink is not called.
        let (sent, saves) = send(&mut ledger, &mut sink, false);
        assert_eq!((sent.waiting, saves, sink.calls.len()), (3, 0, 1));
        // The sink sets the delay.
        sink.fail("slow down", Some(Duration::from_secs(600)));
        send(&mut ledger, &mut sink, true);
        assert_eq!((ledger.failures, ledger.until), (2, Some(now() + TimeDelta::seconds(600))));
        sink.fail("never", Some(Duration::from_secs(1 << 40)));
        send(&mut ledger, &mut sink, true);
        assert_eq!(ledger.until, Some(now() + TimeDelta::hours(4)));
        sink.well();
        let (sent, _) = send(&mut ledger, &mut sink, true);
        assert_eq!((sent.sent, sent.waiting, sent.problem), (3, 0, None));
        assert_eq!((ledger.failures, ledger.until, ledger.status().problem), (0, None, None));
    }

    #[test]
    fn a_clock_ahead_does_not_delay_for_years() {
        let mut ledger = offered(1);
        let mut sink = StubSink::new(64);
        ledger.until = Some(now() + TimeDelta::hours(3));
        assert_eq!(send(&mut ledger, &mut sink, false).0.waiting, 1);
        ledger.until = Some(now() + TimeDelta::days(1000));
        assert_eq!(send(&mut ledger, &mut sink, false).0.sent, 1);
    }

    #[test]
    fn a_refused_receipt_is_dropped_alone() {
        for refused in [vec![1], vec![64], vec![5, 6, 30], vec![100], (1..=100).collect()] {
            let mut ledger = offered(100);
            let mut sink = StubSink::new(64);
            sink.refuse(&refused);
            let (sent, _) = send(&mut ledger, &mut sink, false);
            assert_eq!((sent.sent, sent.refused.len(), sent.waiting), (100 - refused.len(), refused.len(), 0));
            assert_eq!((sent.problem, ledger.refused), (None, refused.len() as u64));
            assert!(sent.refused.first().unwrap().contains(&format!("sequence {}", refused[0])));
            let mut kept: Vec<u64> = sink.kept.iter().map(|signed| signed.receipt.sequence).collect();
            kept.sort_unstable();
            assert_eq!(kept, (1..=100).filter(|sequence| !refused.contains(sequence)).collect::<Vec<_>>());
            assert!(sequences(&ledger).is_empty());
        }
    }

    #[test]
    fn a_full_disk_ends_the_sending() {
        let mut ledger = offered(100);
        let mut sink = StubSink::new(64);
        let full = || Err(Error::State("the disk is full".into()));
        let sent = drain(&mut ledger, &mut sink, &NOWHERE, Sending::default(), now(), &mut |_| full());
        assert_eq!((sent.sent, sent.waiting), (64, 36));
        assert!(sent.problem.unwrap().contains("the disk is full"));
    }

    #[test]
    fn an_acknowledgement_of_nothing_is_a_failure() {
        let mut ledger = offered(2);
        let mut sink = StubSink::new(64);
        sink.ignore();
        let (sent, _) = send(&mut ledger, &mut sink, false);
        assert_eq!((sent.sent, sent.waiting, ledger.failures), (0, 2, 1));
    }
}
