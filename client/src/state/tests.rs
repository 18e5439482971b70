use super::*;
use crate::store::Keep as _;
use tidegate_model::digest::Digest;

fn release(sequence: u64) -> Release {
    Release { version: semver::Version::new(1, sequence, 0), sequence, sha256: Digest::of(b"manifest") }
}

fn attempt() -> Attempt {
    Attempt { release: release(2), before: Some("a".into()) }
}

fn noon() -> UtcTime {
    time::parse("2026-01-05T12:00:00Z").unwrap()
}

/// One state of each kind. The attempt is in slot b, installed during boot `one`.
fn states() -> Vec<State> {
    let (attempt, release, why, boot) = (attempt(), release(2), String::from("why"), String::from("one"));
    vec![
        State::Idle,
        State::Checking,
        State::Waiting { until: Some(noon()), why: why.clone(), release: None },
        State::Downloading { attempt: attempt.clone() },
        State::Verifying { attempt: attempt.clone() },
        State::Installing { attempt: attempt.clone(), boot: boot.clone() },
        State::Rebooting { attempt: attempt.clone(), boot: boot.clone() },
        State::Trial { attempt: attempt.clone(), boot: boot.clone(), boots: 1, since: 5 },
        State::Confirmed { release: release.clone() },
        State::RolledBack { attempt, boot, why: why.clone(), again: false },
        State::Quarantined { release, why },
    ]
}

fn started(running: &str, boot: &str) -> Event {
    Event::Started { running: Some(running.into()), boot: boot.into(), uptime: 9 }
}

/// One event of each kind, and of each way to start.
fn events() -> Vec<(&'static str, Event)> {
    vec![
        ("start old", started("a", "one")),
        ("reboot old", started("a", "two")),
        ("start new", started("b", "one")),
        ("reboot new", started("b", "two")),
        ("poll", Event::Poll),
        ("nothing", Event::Nothing),
        ("hold", Event::Hold { until: None, why: "window".into(), release: None }),
        ("offered", Event::Offered { attempt: attempt() }),
        ("downloaded", Event::Downloaded),
        ("verified", Event::Verified { boot: "one".into() }),
        ("installed", Event::Installed { boot: "one".into() }),
        ("failed", Event::Failed { until: noon(), why: "no network".into() }),
        ("cancelled", Event::Cancelled),
        ("rejected", Event::Rejected { why: "wrong board".into() }),
        ("healthy", Event::Healthy),
        ("unhealthy", Event::Unhealthy { why: "no display".into() }),
        ("returned", Event::Returned),
        ("displaced", Event::Displaced { why: "a runs".into(), by_hand: false }),
        ("lifted", Event::Lifted { sequence: 2 }),
    ]
}

/// The complete table: one row per event, one column per state, `.` for an invalid transition.
const TABLE: &str = "
           | idle check wait  down  verif insta reboo trial confi rolle quara
start old  | idle idle  wait  idle  idle  idle  reboo rolle confi rolle quara
reboot old | idle idle  wait  idle  idle  idle  rolle rolle confi rolle quara
start new  | idle idle  wait  idle  idle  reboo trial trial confi rolle quara
reboot new | idle idle  wait  idle  idle  trial trial trial confi rolle quara
poll       | chec .     check .     .     .     .     .     check .     check
nothing    | .    idle  .     .     .     .     .     .     .     .     .
hold       | .    wait  .     wait  wait  .     .     .     .     .     .
offered    | .    down  .     .     .     .     .     .     .     .     .
downloaded | .    .     .     verif .     .     .     .     .     .     .
verified   | .    .     .     .     insta .     .     .     .     .     .
installed  | .    .     .     .     .     reboo .     .     .     .     .
failed     | .    wait  .     wait  wait  wait  reboo .     .     rolle .
cancelled  | .    idle  .     idle  idle  idle  .     .     .     .     .
rejected   | .    .     .     .     .     quara .     .     .     .     .
healthy    | .    .     .     .     .     .     .     confi .     .     .
unhealthy  | .    .     .     .     .     .     rolle rolle .     .     .
returned   | .    .     .     .     .     .     .     .     .     quara .
displaced  | wait wait  wait  wait  wait  wait  .     .     wait  .     wait
lifted     | idle check wait  down  verif insta reboo trial confi rolle idle
";

#[test]
fn the_table_is_complete() {
    let mut rows = TABLE.trim_matches('\n').lines();
    assert_eq!(rows.next().unwrap().split_whitespace().count(), states().len() + 1);
    for (name, event) in events() {
        let row = rows.next().unwrap();
        let (label, cells) = row.split_once('|').unwrap();
        assert_eq!(label.trim(), name);
        for (state, cell) in states().into_iter().zip(cells.split_whitespace()) {
            let machine = Machine { state, ..Machine::default() };
            let found = match machine.next(event.clone(), Tolerance::default()) {
                Ok(next) => next.state.name(),
                Err(misplaced) => {
                    assert_eq!(misplaced.state, machine.state.name());
                    "."
                }
            };
            assert!(
                if cell == "." { found == "." } else { found.starts_with(cell) },
                "{name} while {}: {found}",
                machine.state
            );
        }
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn every_state_reads_back_and_has_a_line() {
    for state in states() {
        let machine = Machine { state, failures: 3, restart: None, begun: Some(Begun { sequence: 2, times: 1 }) };
        let text = serde_json::to_string(&machine).unwrap();
        assert_eq!(Machine::read(&serde_json::from_str(&text).unwrap(), "").unwrap(), machine, "{text}");
        assert!(text.contains(&format!("\"kind\":\"{}\"", machine.state.name())), "{text}");
        assert!(machine.state.to_string().starts_with(&machine.state.name().replace('-', " ")));
    }
    let waiting = &states()[2];
    assert_eq!(waiting.to_string(), "waiting until 2026-01-05T12:00:00Z: why");
    assert_eq!(states()[7].to_string(), "trial 1.2.0 (sequence 2), boot 1");
}

#[test]
fn boots_on_trial_are_counted_and_bounded() {
    let tolerance = Tolerance { boots: 3, ..Tolerance::default() };
    let rebooting = State::Rebooting { attempt: attempt(), boot: "zero".into() };
    let mut machine = Machine { state: rebooting, ..Machine::default() };
    for (boot, expected) in [("one", 1), ("one", 1), ("two", 2), ("three", 3), ("three", 3)] {
        machine = machine.next(started("b", boot), tolerance).unwrap();
        assert!(matches!(&machine.state, State::Trial { boots, .. } if *boots == expected), "{}", machine.state);
    }
    machine = machine.next(started("b", "four"), tolerance).unwrap();
    assert_eq!(
        machine.state.to_string(),
        "rolled back 1.2.0 (sequence 2): it restarted 3 times without becoming healthy"
    );
}

#[test]
fn attempts_are_counted_per_release() {
    let tolerance = Tolerance { attempts: 3, ..Tolerance::default() };
    let walk =
        [Event::Poll, Event::Offered { attempt: attempt() }, Event::Downloaded, Event::Verified { boot: "one".into() }];
    let mut machine = Machine::default();
    for times in 1..=3 {
        for event in walk.clone() {
            machine = machine.next(event, tolerance).unwrap();
        }
        assert_eq!(machine.begun, Some(Begun { sequence: 2, times }));
        machine = machine.next(started("a", &format!("boot {times}")), tolerance).unwrap();
        assert_eq!(machine.state, State::Idle);
    }
    machine = machine.next(Event::Poll, tolerance).unwrap();
    let other = Attempt { release: release(3), before: None };
    assert!(matches!(
        machine.next(Event::Offered { attempt: other }, tolerance).unwrap().state,
        State::Downloading { .. }
    ));
    machine = machine.next(walk[1].clone(), tolerance).unwrap();
    assert_eq!(machine.state.to_string(), "quarantined 1.2.0 (sequence 2): it was attempted 3 times and did not stay");
    let lifted = machine.next(Event::Lifted { sequence: 2 }, tolerance).unwrap();
    assert_eq!(lifted, Machine::default());
    let other = machine.next(Event::Lifted { sequence: 3 }, tolerance).unwrap();
    assert_eq!(other, machine);
    // Also while the device is still on its way back.
    let back = State::RolledBack { attempt: attempt(), boot: "one".into(), why: "why".into(), again: false };
    let back = Machine { state: back, ..machine };
    let back = back.next(Event::Lifted { sequence: 2 }, tolerance).unwrap().next(Event::Returned, tolerance).unwrap();
    assert_eq!(back.state.to_string(), "waiting: why; it will be retried");
}

/// A power cut during a trial can make the boot loader roll back. That alone does not quarantine a release.
#[test]
fn boot_loader_rollbacks_are_retried() {
    let tolerance = Tolerance { attempts: 2, ..Tolerance::default() };
    let rebooting = State::Rebooting { attempt: attempt(), boot: "one".into() };
    let back = |times| {
        let begun = Some(Begun { sequence: 2, times });
        let machine = Machine { state: rebooting.clone(), begun, ..Machine::default() };
        machine.next(started("a", "two"), tolerance).unwrap().next(Event::Returned, tolerance).unwrap()
    };
    let again = back(1);
    assert_eq!(again.state.to_string(), "waiting: it did not start: the boot loader rolled back; it will be retried");
    assert_eq!(again.begun, Some(Begun { sequence: 2, times: 1 }));
    assert!(matches!(back(2).state, State::Quarantined { .. }));
}

#[test]
fn consecutive_failures_are_counted() {
    let failed = Event::Failed { until: noon(), why: "no network".into() };
    let mut machine = Machine::default();
    for count in 1..=4 {
        machine = machine.next(Event::Poll, Tolerance::default()).unwrap();
        machine = machine.next(failed.clone(), Tolerance::default()).unwrap();
        assert_eq!(machine.failures, count);
    }
    machine = machine.next(Event::Poll, Tolerance::default()).unwrap();
    assert_eq!(machine.next(Event::Nothing, Tolerance::default()).unwrap().failures, 0);
}

/// An installer that does not distinguish places takes effect at once.
#[test]
fn without_places_what_was_installed_runs() {
    let attempt = Attempt { before: None, ..attempt() };
    let start = Event::Started { running: None, boot: "one".into(), uptime: 9 };
    let next = |state| Machine { state, ..Machine::default() }.next(start.clone(), Tolerance::default()).unwrap().state;
    assert!(matches!(next(State::Rebooting { attempt: attempt.clone(), boot: "one".into() }), State::Trial { .. }));
    // But a partial installation is possible.
    assert_eq!(next(State::Installing { attempt, boot: "one".into() }), State::Idle);
}

/// After an interruption in any state, whatever runs, the device settles or polls within a few events.
#[test]
fn no_state_is_a_dead_end() {
    for state in states() {
        for (name, start) in events().into_iter().take(4) {
            let machine = Machine { state: state.clone(), ..Machine::default() };
            let mut next = machine.next(start, Tolerance::default()).unwrap();
            for event in [Event::Unhealthy { why: String::new() }, Event::Returned, Event::Poll] {
                if let Ok(after) = next.next(event, Tolerance::default()) {
                    next = after;
                }
            }
            assert_eq!(next.state, State::Checking, "{state} {name}");
        }
    }
}

/// What hooks, programs and servers say can be of any length, and of any characters.
#[test]
fn reasons_are_bounded() {
    for (said, expected) in [
        ("plain".to_owned(), "plain".to_owned()),
        ("two\nlines\u{1b}[m".into(), "two lines [m".into()),
        ("x".repeat(1000), "x".repeat(1000)),
        ("x".repeat(1001), "x".repeat(1000) + "..."),
        ("\u{20ac}".repeat(100_000), "\u{20ac}".repeat(333) + "..."),
    ] {
        assert_eq!(bounded(&said), expected);
        let waiting = State::Waiting { until: None, why: said, release: None };
        assert_eq!(waiting.bounded(), State::Waiting { until: None, why: expected, release: None });
    }
}
