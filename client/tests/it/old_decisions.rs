//! Old decisions: a mirror stretches a download over days, and the world moves on meanwhile.
//!
//! The image comes byte by byte, and the clock goes on with each. What a device knew when it began does not count when it installs.

use std::io::{self, Read};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tidegate_client::agent::{Agent, AgentOptions, StubHost};
use tidegate_client::clock::{Clock as _, StubClock};
use tidegate_client::facts::{FactSource, gather};
use tidegate_client::fetch::{Body, Fetch, FetchError, Reply, Request};
use tidegate_client::install::StubInstaller;
use tidegate_client::state::State;
use tidegate_client::{Error, Fault};

use crate::fleet::{self, IMAGE, assign, channel, release};
use crate::mirror::{Mirror, scratch};
use crate::simulator::{Simulator, epoch};

type Meanwhile = fn(&mut Simulator);
/// What happens after some hours: a change of the repository, or the loss of the network.
type Event = Option<(i64, Option<Meanwhile>)>;
/// A name, the minutes that a byte takes, what happens, the repository before, and why the release is not installed.
type Attack = (&'static str, u64, Event, Meanwhile, Option<&'static str>);

/// A mirror that sends one byte of the image in `pace`.
#[derive(Clone)]
struct SlowMirror {
    mirror: Mirror,
    clock: StubClock,
    pace: Duration,
    event: Arc<Mutex<Event>>,
    online: Arc<Mutex<bool>>,
    /// The offsets that images were requested from.
    offsets: Arc<Mutex<Vec<u64>>>,
}

impl Fetch for SlowMirror {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        if !*self.online.lock().unwrap() {
            return Err(FetchError::Unreachable { url: request.url.to_owned(), reason: "no network".into() });
        }
        let reply = self.mirror.fetch(request)?;
        match reply {
            Reply::Found(body) if request.url.ends_with(".image.bin") => {
                self.offsets.lock().unwrap().push(request.offset);
                let offset = body.offset();
                Ok(Reply::Found(Body::new(Box::new(Drip { body, from: self.clone() }), request, offset)))
            }
            reply => Ok(reply),
        }
    }
}

struct Drip {
    body: Body,
    from: SlowMirror,
}

impl Read for Drip {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.from.clock.advance(self.from.pace);
        let mut event = self.from.event.lock().unwrap();
        if let Some((hours, happens)) = *event
            && self.from.clock.now() >= epoch() + TimeDelta::hours(hours)
        {
            *event = None;
            match happens {
                Some(change) => self.from.mirror.edit(change),
                None => *self.from.online.lock().unwrap() = false,
            }
        }
        self.body.read(&mut buffer[..1]).map_err(io::Error::other)
    }
}

struct Rig {
    slow: SlowMirror,
    folder: tempfile::TempDir,
    installer: StubInstaller,
}

impl Rig {
    fn new(minutes_per_byte: u64, event: Event, prepare: Meanwhile) -> Self {
        let mut sim = channel(&[("all", Some(1_000_000))]);
        release(&mut sim, "all", "1.2.0", 12);
        prepare(&mut sim);
        let slow = SlowMirror {
            mirror: Mirror::of(sim),
            clock: StubClock::at(epoch()),
            pace: Duration::from_secs(60 * minutes_per_byte),
            event: Arc::new(Mutex::new(event)),
            online: Arc::new(Mutex::new(true)),
            offsets: Arc::default(),
        };
        Self { slow, folder: scratch(), installer: StubInstaller::new() }
    }

    /// One check by the agent; returns the state that it leaves.
    fn check(&self) -> (Result<(), Error>, State) {
        let builder = fleet::device(&self.slow.mirror, self.folder.path(), epoch());
        let builder = builder.fetch(self.slow.clone()).clock(self.slow.clock.clone());
        let mut device = builder.installer(self.installer.clone()).open().unwrap();
        let (options, mut host) = (AgentOptions::default(), StubHost::new());
        let result = Agent::new(&mut device, &options, &mut host).check().map(drop);
        (result, device.machine().state.clone())
    }

    fn has_installed(&self) -> bool {
        !self.installer.installed().is_empty()
    }

    /// The bytes of the image in the state folder.
    fn bytes(&self) -> u64 {
        let folder = std::fs::read_dir(self.folder.path().join("downloads")).into_iter().flatten().flatten();
        folder.map(|entry| entry.metadata().unwrap().len()).sum()
    }
}

fn withdraw(sim: &mut Simulator) {
    sim.signed.get_mut("stable.all").unwrap()["targets"] = json!({});
    sim.publish(&["stable.all", "snapshot", "timestamp"]);
}

fn pause(sim: &mut Simulator) {
    let bytes = fleet::approve(sim, &fleet::manifest("1.2.0", 12));
    assign(sim, "all", &bytes, &json!({"paused": true}));
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
}

fn replace(sim: &mut Simulator) {
    release(sim, "all", "1.3.0", 13);
}

/// The role expires after ten hours, and nobody renews it.
fn short_role(sim: &mut Simulator) {
    sim.set_expiry("stable.all", epoch() + TimeDelta::hours(10));
    sim.publish(&["stable.all", "snapshot", "timestamp"]);
}

/// The timestamp expires after ten hours.
fn short_timestamp(sim: &mut Simulator) {
    sim.set_expiry("timestamp", epoch() + TimeDelta::hours(10));
    sim.publish(&["timestamp"]);
}

fn lasting(_: &mut Simulator) {}

/// What happens during a download, and why the release is not installed then.
#[rustfmt::skip]
const ATTACKS: &[Attack] = &[
    // The download takes 22 minutes to 22 hours: the device decides again before it installs.
    ("withdrawn within minutes", 1, Some((0, Some(withdraw))), lasting, Some("release 1.2.0 is not to be installed now")),
    ("withdrawn", 60, Some((20, Some(withdraw))), lasting, Some("release 1.2.0 is not to be installed now")),
    ("paused", 60, Some((20, Some(pause))), lasting, Some("the rollout is paused")),
    ("replaced by another release", 60, Some((20, Some(replace))), lasting, Some("release 1.2.0 is not to be installed now")),
    ("its role has expired", 60, None, short_role, Some("role stable.all expired")),
    ("its role has expired, and there is no network", 60, Some((5, None)), short_role, Some("role stable.all expired")),
    ("the timestamp has expired", 60, None, short_timestamp, Some("timestamp: expired")),
    ("the timestamp has expired, and there is no network", 60, Some((5, None)), short_timestamp, Some("timestamp: expired")),
    ("nothing", 60, None, lasting, None),
    ("no network, and nothing has expired", 60, Some((5, None)), lasting, None),
    // It takes days: the device decides again every 24 hours.
    ("withdrawn in a long download", 300, Some((10, Some(withdraw))), lasting, Some("release 1.2.0 is not to be installed now")),
    ("no network in a long download, and the timestamp expires", 300, Some((5, None)), short_timestamp, Some("timestamp: expired")),
    ("nothing, in a long download", 300, None, lasting, None),
];

#[test]
fn an_old_decision_installs_nothing() {
    for (name, pace, event, prepare, refused) in ATTACKS {
        let rig = Rig::new(*pace, *event, *prepare);
        let (result, state) = rig.check();
        assert_eq!(rig.has_installed(), refused.is_none(), "{name}: {state}");
        let Some(refused) = refused else {
            result.unwrap();
            continue;
        };
        assert!(matches!(&state, State::Waiting { why, .. } if why.contains(refused)), "{name}: {state}");
        if let Err(error) = result {
            assert_eq!(error.fault(), Fault::Peer, "{name}");
        }
        // A long download stops within a day, and no byte is lost.
        let expected = if *pace == 300 { 5 } else { IMAGE.len() as u64 };
        assert_eq!(rig.bytes(), expected, "{name}");
    }
}

/// Without a network and with an expired timestamp the installation waits, and later continues where it stopped.
#[test]
fn a_stopped_download_resumes() {
    for (pace, offset) in [(300, Some(5)), (60, None)] {
        let rig = Rig::new(pace, Some((5, None)), short_timestamp);
        rig.check().0.unwrap_err();
        assert!(!rig.has_installed());
        let bytes = rig.bytes();
        // Without the network nothing changes.
        rig.check().0.unwrap_err();
        assert_eq!(rig.bytes(), bytes);
        *rig.slow.online.lock().unwrap() = true;
        rig.slow.mirror.edit(|sim| {
            sim.set_expiry("timestamp", epoch() + TimeDelta::days(30));
            sim.publish(&["timestamp"]);
        });
        rig.slow.offsets.lock().unwrap().clear();
        rig.check().0.unwrap();
        assert!(rig.has_installed());
        assert_eq!(rig.slow.offsets.lock().unwrap().first().copied(), offset);
    }
}

/// A long download refreshes once a day, and once more before the installation; a short one only then.
#[test]
fn decisions_are_renewed_every_day() {
    for (pace, times) in [(0, 2), (60, 2), (300, 6)] {
        let rig = Rig::new(pace, None, lasting);
        rig.check().0.unwrap();
        let requests = rig.slow.mirror.take_requests();
        let refreshed = requests.iter().filter(|file| file.ends_with("timestamp.json")).count();
        assert_eq!(refreshed, times, "{pace} minutes per byte");
    }
}

/// A mirror during whose download the battery runs low.
struct Unplugged {
    mirror: Mirror,
    facts: std::path::PathBuf,
}

impl Fetch for Unplugged {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        if request.url.ends_with(".image.bin") {
            std::fs::write(&self.facts, "battery-percent=5").unwrap();
        }
        self.mirror.fetch(request)
    }
}

/// Facts count as they are when the device installs, not as they were before the download.
#[test]
fn old_facts_install_nothing() {
    for (percent, falls) in [("80", true), ("80", false), ("5", false)] {
        let mut sim = channel(&[("all", Some(1_000_000))]);
        release(&mut sim, "all", "1.2.0", 12);
        let (mirror, folder, installer) = (Mirror::of(sim), scratch(), StubInstaller::new());
        let facts = folder.path().join("facts");
        std::fs::write(&facts, format!("battery-percent={percent}")).unwrap();
        let sources = vec![FactSource::File(facts.clone())];
        let policy = json!({"require": {"fact": "battery-percent", "ge": 30}});
        let mut device = fleet::device(&mirror, &folder.path().join("state"), epoch())
            .policy(serde_json::from_value(policy).unwrap())
            .facts(gather(&sources).facts)
            .fact_sources(sources)
            .installer(installer.clone());
        if falls {
            device = device.fetch(Unplugged { mirror: mirror.clone(), facts });
        }
        let mut device = device.open().unwrap();
        let (options, mut host) = (AgentOptions::default(), StubHost::new());
        Agent::new(&mut device, &options, &mut host).check().unwrap();
        let state = &device.machine().state;
        let waits = matches!(state, State::Waiting { why, .. } if why.contains("L-REQUIRE"));
        assert_eq!(waits, falls || percent == "5", "{percent}: {state}");
        assert_eq!(installer.installed().is_empty(), waits, "{percent}: {state}");
    }
}
