//! Time set by others: online keys are stolen, and what they sign is dated in the future.
//!
//! The thief publishes between honest publications, over simulated days. Devices with a right clock, with one that jumps, and without one
//! check after each. What opens does not open early, and the next honest publication ends all effects.

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use tidegate_client::clock::{FlooredClock, StubClock};
use tidegate_client::device::{Check, Device, DeviceBuilder};
use tidegate_client::policy::Policy;
use tidegate_model::decision::{Outcome, Rule};
use tidegate_tuf::time;

use crate::fleet::{self, approve, assign, channel, manifest};
use crate::mirror::{Mirror, scratch};
use crate::simulator::{Simulator, epoch};

/// The online roles, in the order of publication, and their lifetimes in days.
const ONLINE: [(&str, i64); 3] = [("stable.all", 14), ("snapshot", 7), ("timestamp", 1)];

/// The stolen keys.
const STOLEN: [&[&str]; 5] = [
    &["timestamp"],
    &["snapshot"],
    &["stable.all"],
    &["snapshot", "timestamp"],
    &["stable.all", "snapshot", "timestamp"],
];

/// What a device's clock shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shows {
    Right,
    /// The start of 1970: before the program was built.
    Nothing,
    /// 2099.
    Ahead,
    /// Five days ago: after the program was built.
    Behind,
}

/// The clocks, by what each may show.
const CLOCKS: [&[Shows]; 3] =
    [&[Shows::Right], &[Shows::Right, Shows::Nothing, Shows::Ahead, Shows::Behind], &[Shows::Nothing]];

/// One visit of the publisher, and of the thief if there are hours by which a theft is dated ahead.
#[derive(Debug, Clone)]
struct Visit {
    after_minutes: i64,
    shows: usize,
    ahead_hours: Option<i64>,
    lifetime_hours: i64,
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let visit = (30..900_i64, any::<prop::sample::Index>(), prop::option::of(1..480_i64), 1..9000_i64);
    let visit = visit.prop_map(|(after_minutes, shows, ahead_hours, lifetime_hours)| Visit {
        after_minutes,
        shows: shows.index(12),
        ahead_hours,
        lifetime_hours,
    });
    prop::collection::vec(visit, 24..30)
}

fn date(sim: &mut Simulator, role: &str, issued: DateTime<Utc>, lifetime: TimeDelta) {
    sim.signed.get_mut(role).unwrap()["x-tidegate-issued"] = json!(time::format(issued));
    sim.set_expiry(role, issued + lifetime);
    sim.publish(&[role]);
}

/// The honest publisher renews everything online, with higher versions.
fn publish(sim: &mut Simulator, now: DateTime<Utc>) {
    for (role, days) in ONLINE {
        date(sim, role, now, TimeDelta::days(days));
    }
}

/// A repository with one release for everybody; `more` are fields of its offer.
fn repository(more: &Value) -> Simulator {
    let mut sim = channel(&[("all", Some(1_000_000))]);
    let bytes = approve(&mut sim, &manifest("1.2.0", 12));
    assign(&mut sim, "all", &bytes, more);
    sim.publish(&["stable"]);
    for role in ["root", "targets", "stable"] {
        sim.set_expiry(role, epoch() + TimeDelta::days(365));
        sim.publish(&[role]);
    }
    publish(&mut sim, epoch());
    sim
}

fn days(days: i64) -> DateTime<Utc> {
    epoch() + TimeDelta::days(days)
}

fn ramp(from: i64, to: i64) -> Value {
    json!({"ramp": {"start": time::format(days(from)), "end": time::format(days(to)), "from": 0, "to": 1_000_000}})
}

/// A device whose program was built a month before all this.
fn device(mirror: &Mirror, state: &std::path::Path, clock: &StubClock) -> DeviceBuilder {
    let policy: Policy = serde_json::from_value(json!({"windows": ["01:00 - 05:00"]})).unwrap();
    let clock = FlooredClock::new(clock.clone(), epoch() - TimeDelta::days(30));
    fleet::device(mirror, state, epoch()).clock(clock).policy(policy)
}

fn installs(check: &Check) -> bool {
    matches!(check.outcome(), Outcome::Install { .. })
}

/// Whether the device's owner lets it install now, as the device judges.
fn window_is_open(check: &Check) -> bool {
    check.policy.last().is_some_and(tidegate_client::policy::Judgement::allows)
}

fn is_window(now: DateTime<Utc>) -> bool {
    (3600..5 * 3600).contains(&(now.timestamp() % 86_400))
}

/// The instant at which the ramp reaches the device.
fn reached(sim: &Simulator) -> DateTime<Utc> {
    let (mirror, folder) = (Mirror::of(sim.clone()), scratch());
    let mut device = device(&mirror, folder.path(), &StubClock::at(epoch())).open().unwrap();
    match device.check().unwrap().outcome() {
        Outcome::Wait { until: Some(until), rule: Rule::Ramp, .. } => *until,
        other => panic!("{other}"),
    }
}

/// Plays one story.
fn play(stolen: &[&str], clocks: &[Shows], visits: &[Visit]) -> Result<(), TestCaseError> {
    let mut sim = repository(&ramp(3, 9));
    let reached = reached(&sim);
    let (mirror, folder, clock) = (Mirror::of(sim.clone()), scratch(), StubClock::at(epoch()));
    let mut now = epoch();
    let check = |sim: &Simulator| {
        mirror.serve(sim.clone());
        // A new process each time: what the device remembers is what it stored.
        device(&mirror, folder.path(), &clock).open().unwrap().check()
    };
    for visit in visits {
        now += TimeDelta::minutes(visit.after_minutes);
        let shows = clocks[visit.shows % clocks.len()];
        clock.set(match shows {
            Shows::Right => now,
            Shows::Nothing => DateTime::UNIX_EPOCH,
            Shows::Ahead => days(27_000),
            Shows::Behind => now - TimeDelta::days(5),
        });
        publish(&mut sim, now);
        match check(&sim) {
            Err(error) => prop_assert!(shows == Shows::Ahead, "no recovery at {now}: {error}"),
            Ok(check) => {
                prop_assert!(!installs(&check) || now >= reached, "a skipped ramp at {now}");
                if shows == Shows::Right || shows == Shows::Nothing {
                    prop_assert_eq!(installs(&check), now >= reached, "{}", check.explanation);
                    prop_assert_eq!(window_is_open(&check), installs(&check) && is_window(now), "{}", now);
                }
            }
        }
        let Some(hours) = visit.ahead_hours else { continue };
        let mut evil = sim.clone();
        for role in stolen {
            date(&mut evil, role, now + TimeDelta::hours(hours), TimeDelta::hours(visit.lifetime_hours));
        }
        if let Ok(check) = check(&evil)
            && shows == Shows::Right
        {
            prop_assert!(!installs(&check) || now >= reached, "a stolen key skipped the ramp at {now}");
            prop_assert!(!window_is_open(&check) || is_window(now), "a stolen key opened a window at {now}");
        }
        for role in stolen {
            sim.signed.get_mut(*role).unwrap()["version"] = json!(evil.version(role));
        }
    }
    Ok(())
}

#[test]
fn stolen_online_keys_open_nothing_early_and_devices_recover() {
    for stolen in STOLEN {
        for clocks in CLOCKS {
            let config = Config { cases: 2, failure_persistence: None, ..Config::default() };
            let story = TestRunner::new_with_rng(
                config,
                proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
            )
            .run(&visits(), |visits| play(stolen, clocks, &visits));
            story.unwrap_or_else(|e| panic!("stolen: {stolen:?}; clock: {clocks:?}: {e}"));
        }
    }
}

/// A device of the repository, with its mirror, state folder and clock.
struct Rig {
    sim: Simulator,
    mirror: Mirror,
    folder: tempfile::TempDir,
    clock: StubClock,
}

impl Rig {
    fn new(more: &Value) -> Self {
        let sim = repository(more);
        Self { mirror: Mirror::of(sim.clone()), sim, folder: scratch(), clock: StubClock::at(epoch()) }
    }

    fn open(&self) -> Device {
        self.mirror.serve(self.sim.clone());
        device(&self.mirror, self.folder.path(), &self.clock).open().unwrap()
    }

    fn check(&self) -> Check {
        self.open().check().unwrap()
    }
}

/// Expiry and `until` go by the later of the clock and signed time.
#[test]
fn signed_time_closes_what_the_clock_does_not() {
    let mut rig = Rig::new(&json!({"until": time::format(days(4))}));
    assert!(installs(&rig.check()));
    // By a timestamp from day 5 the offer has ended, and by one from day 20 its role has expired.
    date(&mut rig.sim, "timestamp", days(5), TimeDelta::days(1));
    assert!(matches!(rig.check().outcome(), Outcome::Wait { rule: Rule::Until, .. }));
    date(&mut rig.sim, "snapshot", days(0), TimeDelta::days(300));
    date(&mut rig.sim, "timestamp", days(20), TimeDelta::days(1));
    assert!(matches!(rig.check().outcome(), Outcome::NoOffer { .. }));
    publish(&mut rig.sim, days(0));
    assert!(installs(&rig.check()));
    // A clock that is right goes on by itself.
    rig.clock.set(days(4));
    date(&mut rig.sim, "timestamp", days(3), TimeDelta::days(300));
    assert!(matches!(rig.check().outcome(), Outcome::Wait { rule: Rule::Until, .. }));
}

/// A clock that is set back is no clock: the device goes by signed time, as without one.
#[test]
fn a_clock_before_the_remembered_time_is_not_plausible() {
    let mut rig = Rig::new(&ramp(3, 4));
    rig.clock.set(days(6));
    publish(&mut rig.sim, days(6));
    assert!(installs(&rig.check()));
    // After the program was built, and before what the device remembers.
    rig.clock.set(days(-20));
    assert!(installs(&rig.check()));
    assert_eq!(rig.check().explanation.at, days(6));
    // A thief's date is not remembered: the clock had not reached it.
    rig.clock.set(days(7));
    date(&mut rig.sim, "snapshot", days(7), TimeDelta::days(300));
    date(&mut rig.sim, "timestamp", days(12), TimeDelta::days(1));
    assert_eq!(rig.check().explanation.at, days(7));
    assert_eq!(rig.check().explanation.at, days(7));
}

/// A deferral ends by the device's own clock, whatever is signed.
#[test]
fn signed_time_does_not_end_a_deferral() {
    let mut rig = Rig::new(&json!({}));
    let deferring: Policy = serde_json::from_value(json!({"deferral": {"limit": "3d"}})).unwrap();
    let open = |rig: &Rig| {
        rig.mirror.serve(rig.sim.clone());
        device(&rig.mirror, rig.folder.path(), &rig.clock).policy(deferring.clone())
    };
    let mut waiting = open(&rig).open().unwrap();
    let update = waiting.check().unwrap().update.unwrap();
    let machine = json!({"schema": 1, "serial": 1, "value": {
        "state": {"kind": "waiting", "why": "deferred", "release": update.release}, "failures": 0,
    }});
    drop(waiting);
    std::fs::write(rig.folder.path().join("machine.json"), machine.to_string()).unwrap();
    open(&rig).defer(days(2)).unwrap();
    date(&mut rig.sim, "timestamp", days(5), TimeDelta::days(1));
    let held = |rig: &Rig| !open(rig).open().unwrap().check().unwrap().policy.last().unwrap().allows();
    assert!(held(&rig));
    rig.clock.set(days(2));
    publish(&mut rig.sim, days(2));
    assert!(!held(&rig));
}
