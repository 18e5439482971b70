//! Ten thousand devices over simulated days: they decide by their own code on what is published, install, confirm or go back, and say so in
//! receipts that they sign. Each day a cron job counts the receipts and renews the rollout by what it finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use chrono::TimeDelta;
use serde_json::Value;
use tidegate_model::cohort::{CohortChoice, CohortMap};
use tidegate_model::decision::{Approval, Inputs, Outcome as Decision, Profile, Quarantined, decide, no_offer};
use tidegate_model::digest::Digest;
use tidegate_model::manifest::Manifest;
use tidegate_model::receipt::{InstallResult, Receipt};
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::time::{self, UtcTime};

use super::{Signer, enrolment, object, tidegate, told, write};
use crate::support::Fleet;

const DEVICES: usize = 10_000;
/// The rollout's last day, on which it is completed.
const LAST: i64 = 9;
/// So often does the one device say the same.
const REPEATED: i64 = 5_000;
/// All devices before anything has happened to them. Every workspace has the same cohort map.
static ALL: OnceLock<Vec<Device>> = OnceLock::new();
const COHORTS: [&str; 4] = ["validation", "canary", "early", "general"];

/// How devices fare, in parts per million of those that go back, by day and hardware.
type Fate = fn(day: i64, hardware: &str) -> u32;

/// Now and then one goes back, whatever it is given.
const WELL: Fate = |_, _| 5_000;
/// One kind of hardware fails, and more of it each day: 1 %, 2 %, 4 %...
const ILL: Fate =
    |day, hardware| if hardware == "board-b" { 10_000_u32.saturating_mul(1 << day).min(1_000_000) } else { 0 };

#[derive(Clone)]
struct Device {
    profile: Profile,
    signer: Signer,
    choice: CohortChoice,
    /// Whether it has ever been given the release.
    exposed: bool,
    quarantined: Vec<Quarantined>,
}

/// What cohorts are offered by what is published: nothing, or a release.
struct Published {
    offers: BTreeMap<String, Result<(Offer, Manifest), String>>,
}

struct World {
    fleet: Fleet,
    public: PathBuf,
    receipts: PathBuf,
    devices: Vec<Device>,
    manifest: Digest,
    fate: Fate,
    begun: UtcTime,
    day: i64,
}

/// How it went.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Observed {
    /// The day on which it was stopped, and by which rule.
    stopped: Option<(i64, String)>,
    /// Devices that were given the release, in all, after each day.
    exposed: Vec<usize>,
    /// The last count.
    counted: Value,
    /// The same for people, of the day on which it was stopped.
    told: String,
}

impl World {
    /// The fleet before anything has happened to it, with everybody enrolled, and the release on its way.
    fn new(fate: Fate) -> Self {
        let fleet = Fleet::new();
        let public = fleet.dir.path().join("public");
        let (enrolments, receipts) = (fleet.dir.path().join("enrolments"), fleet.dir.path().join("receipts"));
        fs::create_dir_all(&receipts).unwrap();
        let begun = fleet.now;
        let mut world =
            Self { fleet, public, receipts, devices: Vec::new(), manifest: Digest::of(b""), fate, begun, day: 0 };
        let now = begun;
        fs::write(world.fleet.path().join("image.bin"), "the bytes of an image").unwrap();
        for line in [
            "release new 1.0.0 --build-id ci",
            "release add 1.0.0 image.bin --hardware board-a --hardware board-b",
            "release manifest 1.0.0",
            "release sign 1.0.0 --key release-1 --key release-2",
            "release validate 1.0.0",
            "release register 1.0.0",
            "release validate 1.0.0",
            "rollout start 1.0.0",
            "publish ../public",
        ] {
            world.run(now, line);
        }
        world.manifest =
            Digest::of(&fs::read(world.fleet.path().join("releases/stable/os/1.0.0/manifest.json")).unwrap());
        world.devices = ALL.get_or_init(|| devices(&world.map())).clone();
        for Device { profile, signer, .. } in &world.devices {
            let id = profile.id.as_str();
            write(&enrolments, &format!("{id}.json"), enrolment(id, signer).to_string().as_bytes());
        }
        world
    }

    fn run(&self, now: UtcTime, line: &str) -> String {
        told(&self.fleet.path(), now, &line.split(' ').collect::<Vec<_>>())
    }

    fn published(&self, path: &str) -> Vec<u8> {
        fs::read(self.public.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// A role that is published, as the live timestamp leads to it.
    fn role(&self, name: &str) -> Value {
        let read =
            |file: &str| -> Value { serde_json::from_slice(&self.published(&format!("metadata/{file}"))).unwrap() };
        let version =
            |of: &Value, role: &str| of["signed"]["meta"][format!("{role}.json")]["version"].as_u64().unwrap();
        let snapshot = read(&format!("{}.snapshot.json", version(&read("timestamp.json"), "snapshot")));
        read(&format!("{}.{name}.json", version(&snapshot, name)))["signed"].clone()
    }

    fn map(&self) -> CohortMap {
        let hash =
            self.role("stable")["targets"]["stable/cohorts.json"]["hashes"]["sha256"].as_str().unwrap().to_owned();
        CohortMap::parse(&self.published(&format!("targets/stable/{hash}.cohorts.json"))).unwrap()
    }

    /// What devices that ask now are offered, cohort by cohort.
    fn offered(&self, now: UtcTime) -> Published {
        let of = |cohort: &str| {
            let role = self.role(&format!("stable.{cohort}"));
            if time::parse(role["expires"].as_str().unwrap()).unwrap() <= now {
                return Err("nobody renews it".to_owned());
            }
            let target = &role["targets"][format!("stable/cohorts/{cohort}/os.json")];
            let Some(custom) = target["custom"].as_object() else { return Err("nothing is assigned".to_owned()) };
            let offer = Offers::from_custom(custom).unwrap().offers.remove(0);
            let place = format!("targets/stable/releases/os/{}/{}.manifest.json", offer.release, offer.sha256);
            let bytes = self.published(&place);
            assert_eq!(Digest::of(&bytes), offer.sha256);
            Ok((offer, Manifest::parse(&bytes).unwrap()))
        };
        Published { offers: COHORTS.iter().map(|cohort| ((*cohort).to_owned(), of(cohort))).collect() }
    }

    /// Every device asks, and does as it decides.
    fn devices_ask(&mut self, now: UtcTime) {
        let published = self.offered(now);
        let mut sampled: BTreeMap<&str, usize> = BTreeMap::new();
        for device in &mut self.devices {
            let Device { profile, signer, choice, exposed, quarantined } = device;
            let decision = match &published.offers[choice.cohort.as_str()] {
                Ok((offer, manifest)) => {
                    let approval = Approval::Manifest(manifest);
                    let quarantined = quarantined.as_slice();
                    decide(&Inputs {
                        device: &*profile,
                        choice: &*choice,
                        offer,
                        approval,
                        now,
                        latest: now,
                        quarantined,
                    })
                    .outcome
                }
                Err(why) => no_offer(why),
            };
            let installs = matches!(decision, Decision::Install { .. });
            // One of each cohort goes the whole way, with the device's own client, over the published files.
            let sample =
                sampled.entry(COHORTS.iter().find(|name| **name == choice.cohort.as_str()).unwrap()).or_default();
            *sample += 1;
            if *sample == 1 && self.day % 3 == 0 && quarantined.is_empty() && profile.installed.sequence == 0 {
                self.fleet.now = now;
                let found = self.fleet.device(&self.public, profile).check().unwrap().explanation.outcome;
                assert_eq!(matches!(found, Decision::Install { .. }), installs, "{found} but {decision}");
            }
            if !installs {
                continue;
            }
            *exposed = true;
            let id = profile.id.clone();
            let share = (self.fate)(self.day, profile.hardware.as_str());
            let luck = Digest::of(format!("luck of {id}").as_bytes());
            let luck = u32::from_be_bytes(luck.as_bytes()[..4].try_into().unwrap()) % 1_000_000;
            let say = |minutes: i64, outcome: InstallResult, reason: Option<&str>| Receipt {
                device: id.clone(),
                channel: profile.channel.clone(),
                cohort: choice.cohort.clone(),
                product: profile.product.clone(),
                release: "1.0.0".parse().unwrap(),
                sequence: 1,
                manifest: self.manifest,
                hardware: profile.hardware.clone(),
                outcome,
                reason: reason.map(|reason| reason.parse().unwrap()),
                at: now + TimeDelta::minutes(minutes),
                from: "0.0.1".parse().unwrap(),
                offers: Vec::new(),
                delivery: None,
            };
            let ended = if luck < share {
                say(20, InstallResult::RolledBack, Some("health command failed"))
            } else {
                say(20, InstallResult::Confirmed, None)
            };
            let mut said = vec![ended];
            // Not all have the patience to tell every step.
            if luck % 8 == 0 {
                said.extend([say(1, InstallResult::Offered, None), say(10, InstallResult::Installed, None)]);
            }
            let went_back = luck < share;
            for receipt in said {
                let (name, bytes) = object(&signer.sign(receipt));
                write(&self.receipts, &name, &bytes);
            }
            if went_back {
                quarantined.push(Quarantined { sequence: 1, sha256: self.manifest });
            } else {
                profile.installed.sequence = 1;
                profile.installed.version = "1.0.0".parse().unwrap();
            }
        }
    }

    fn exposed(&self) -> usize {
        self.devices.iter().filter(|device| device.exposed).count()
    }

    /// What cron runs. Gives the rule by which the rollout was stopped, if it was, and the count.
    fn cron(&self, now: UtcTime) -> (Option<String>, Value) {
        let count = [
            "receipts",
            "file:../receipts",
            "--enrolments",
            "file:../enrolments",
            "--release",
            "1.0.0",
            "--health",
            "health.json",
            "--json",
        ];
        let counted = serde_json::from_str(&told(&self.fleet.path(), now, &count)).unwrap();
        let renewed =
            tidegate(&self.fleet.path(), now, &[], &["rollout", "renew", "1.0.0", "--require-health", "health.json"]);
        let said = String::from_utf8_lossy(&renewed.stderr).into_owned();
        let stopped = match renewed.status.code() {
            Some(0) => None,
            Some(1) => Some(
                said[said.rfind("[H-").unwrap_or_else(|| panic!("{said}"))..]
                    .trim_start_matches('[')
                    .split(']')
                    .next()
                    .unwrap()
                    .to_owned(),
            ),
            code => panic!("{code:?}: {said}"),
        };
        self.run(now, "refresh");
        self.run(now, "publish ../public --no-verify");
        (stopped, counted)
    }

    /// The steps that the operator takes on their days, so long as nothing stops them.
    fn operator(&self, now: UtcTime) {
        let line = match self.day {
            2 => "rollout advance 1.0.0 --cohort early --ramp 48h",
            5 => "rollout advance 1.0.0 --cohort general --ramp 72h",
            LAST => "rollout complete 1.0.0",
            _ => return,
        };
        self.run(now, "release validate 1.0.0");
        self.run(now, line);
        self.run(now, "publish ../public --no-verify");
    }

    /// Lets days pass, to the end of the rollout or two days past its stop. `each_day` may put more receipts into the place, before cron counts.
    fn live(mut self, each_day: impl Fn(&Self, UtcTime)) -> Observed {
        let mut observed = Observed { stopped: None, exposed: Vec::new(), counted: Value::Null, told: String::new() };
        for day in 0..=LAST {
            self.day = day;
            let now = self.begun + TimeDelta::days(day);
            self.devices_ask(now);
            each_day(&self, now + TimeDelta::minutes(30));
            observed.exposed.push(self.exposed());
            let (stopped, counted) = self.cron(now + TimeDelta::hours(1));
            if observed.stopped.is_none() {
                observed.counted = counted;
            }
            match (&observed.stopped, stopped) {
                (None, Some(rule)) => {
                    let line = "receipts file:../receipts --enrolments file:../enrolments --release 1.0.0";
                    observed.told = self.run(now + TimeDelta::hours(1), line);
                    observed.stopped = Some((day, rule));
                }
                (Some((since, _)), _) if day >= since + 2 => break,
                (Some(_), _) => {}
                (None, None) => self.operator(now + TimeDelta::hours(2)),
            }
        }
        observed
    }

    /// What a device of a cohort says at an instant, whoever it is.
    fn claim(&self, device: &Device, outcome: InstallResult, at: UtcTime) -> Receipt {
        let mut receipt = super::receipt(device.profile.id.as_str(), self.manifest, outcome, at);
        receipt.cohort = device.choice.cohort.clone();
        receipt.hardware = device.profile.hardware.clone();
        receipt
    }

    /// Forgeries to make the fleet look as `outcome`: by keys that nobody enrolled, in other devices' names, and by one device over and over.
    fn forge(&self, outcome: InstallResult, now: UtcTime) {
        let keep = |signer: &Signer, receipt: Receipt| {
            let (name, bytes) = object(&signer.sign(receipt));
            write(&self.receipts, &name, &bytes);
        };
        let exposed: Vec<&Device> = self.devices.iter().filter(|device| device.exposed).collect();
        let (liar, others) = exposed.split_first().unwrap();
        for device in others.iter().take(400) {
            keep(&Signer::of(&format!("a stranger's {}", device.profile.id)), self.claim(device, outcome, now));
            keep(&liar.signer, self.claim(device, outcome, now));
        }
        for second in 0..REPEATED {
            keep(&liar.signer, self.claim(liar, outcome, now - TimeDelta::seconds(second)));
        }
    }
}

/// All devices. By two hands: in a build that is not optimised that takes long.
fn devices(map: &CohortMap) -> Vec<Device> {
    let device = |number: usize| {
        let id = format!("device-{number:05}");
        // Three of ten.
        let hardware = if number % 10 < 3 { "board-b" } else { "board-a" };
        let profile = Fleet::profile(&id, "stable", "os", hardware);
        let signer = Signer::of(&id);
        let choice = map.choose(&profile.id, &profile.facts());
        Device { profile, signer, choice, exposed: false, quarantined: Vec::new() }
    };
    std::thread::scope(|scope| {
        let halves = [0..DEVICES / 2, DEVICES / 2..DEVICES];
        let halves = halves.map(|half| scope.spawn(move || half.map(device).collect::<Vec<_>>()));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    })
}

fn refused(counted: &Value) -> BTreeMap<String, u64> {
    let all = counted["refused"].as_array().unwrap();
    all.iter()
        .map(|refused| (refused["why"].as_str().unwrap().to_owned(), refused["count"].as_u64().unwrap()))
        .collect()
}

#[test]
fn a_bad_rollout_stops_by_itself_whatever_is_forged_to_hide_it() {
    let honest = World::new(ILL).live(|_, _| ());
    let (day, rule) = honest.stopped.clone().unwrap();
    let exposed = honest.exposed[usize::try_from(day).unwrap()];
    let all = &honest.counted["releases"][0]["all"];
    println!(
        "{DEVICES} devices, of which 3 in 10 fail more each day: stopped on day {day} by {rule}, when {exposed} devices \
         ({} in 1,000) had been given the release and {} had gone back; by day: {:?}",
        exposed * 1000 / DEVICES,
        all["rolled_back"],
        honest.exposed
    );
    assert_eq!((day, rule.as_str()), (3, "H-ROLLED-BACK"));
    assert_eq!(all["offered"], exposed, "every device that was exposed has been heard");
    // The canary, and what the ramp over the next cohort reached in 22 of its 48 hours: about 500 + 920.
    assert!((1_300..1_550).contains(&exposed), "{exposed}");
    assert_eq!(honest.exposed[exposed_after(day)..], [exposed, exposed], "nobody new, day after day");
    // It says where to look.
    let reason = &honest.counted["releases"][0]["reasons"][0];
    assert_eq!(
        (&reason["reason"], &reason["hardware"]),
        (&"health command failed".into(), &serde_json::json!({"board-b": all["rolled_back"]}))
    );

    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rollout.md")).unwrap();
    assert!(page.contains(&format!("```text\n{}\n```", honest.told.trim_end())), "{}", honest.told);

    // The same with forgers who want it to go on.
    let hidden = World::new(ILL).live(|world, now| {
        if world.day == 3 {
            world.forge(InstallResult::Confirmed, now);
        }
    });
    assert_eq!((&hidden.stopped, &hidden.exposed), (&honest.stopped, &honest.exposed));
    assert_eq!(hidden.counted["releases"], honest.counted["releases"], "as if they had not been there");
    let refused = refused(&hidden.counted);
    assert_eq!((refused["unknown-key"], refused["other-device"]), (400, 400), "{refused:?}");
    assert_eq!(hidden.counted["repeated"].as_i64(), Some(REPEATED));
}

/// The place of the day after.
fn exposed_after(day: i64) -> usize {
    usize::try_from(day).unwrap() + 1
}

#[test]
fn a_good_rollout_runs_to_its_end_whatever_is_forged_to_stop_it() {
    let observed = World::new(WELL).live(|world, now| {
        if world.day == LAST {
            world.forge(InstallResult::Failed, now);
        }
    });
    println!("{DEVICES} devices, of which 1 in 200 goes back at all times: by day: {:?}", observed.exposed);
    assert_eq!(observed.stopped, None);
    assert_eq!(observed.exposed.last(), Some(&DEVICES));
    assert!(observed.exposed.windows(2).all(|days| days[0] <= days[1]));
    let release = &observed.counted["releases"][0];
    let (went_back, failed) = (release["all"]["rolled_back"].as_u64().unwrap(), &release["all"]["failed"]);
    assert!((20..100).contains(&went_back), "{went_back}");
    assert_eq!(failed, 1, "the one device that says so, once");
    assert_eq!(release["all"]["offered"], DEVICES);
    let refused = refused(&observed.counted);
    assert_eq!((refused["unknown-key"], refused["other-device"]), (400, 400), "{refused:?}");
    assert_eq!(observed.counted["repeated"].as_i64(), Some(REPEATED - 1));
}
