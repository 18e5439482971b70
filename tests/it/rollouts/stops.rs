//! What may stop what: for each single thing that stops, simulated weeks with the documented cron line, and devices of everybody else.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use chrono::TimeDelta;
use tidegate::policy::ReleaseState;
use tidegate::release::record::ReleaseSpec;
use tidegate_model::decision::Outcome;

use crate::support::Fleet;
use crate::support::fleet::rule;

/// Two channels and two products; `beta` is signed by other keys than `stable` and lives for 10 days.
fn wide() -> Fleet {
    Fleet::shaped(|name, text| match name {
        "tidegate.toml" => {
            let text = text.replace("products = [\"os\"]", "products = [\"os\", \"app\"]");
            let from = text.find("[channels.stable.release]").unwrap();
            let until = from + text[from..].find("\n# How objects").unwrap();
            let beta = text[from..until].replace("channels.stable", "channels.beta");
            let beta =
                beta.replace("\"release-1\", \"release-2\"", "\"targets-1\", \"targets-2\"").replace("90d", "10d");
            let beta = beta.replace("[\"rollout\"]", "[\"targets-3\"]");
            format!("{}{beta}\n{}", &text[..from], &text[from..])
        }
        "cohorts.toml" => {
            let beta = "[beta]\nsalt = \"00000000000000000000000000000000\"\n\n[[beta.cohort]]\nname = \"everyone\"\nshare = \"100%\"\n";
            format!("{text}\n{beta}")
        }
        "policy.toml" => text.replace("max_age = \"7d\"", "max_age = \"365d\""),
        _ => text,
    })
}

struct World {
    fleet: Fleet,
    site: PathBuf,
    /// What the cron line printed when it failed, by the hour.
    failed: BTreeMap<i64, String>,
    hour: i64,
}

impl World {
    /// `os` 1.0.0 and `app` 7.0.0 are stable everywhere, `os` 2.0.0 has begun with the canary.
    fn new() -> (Self, ReleaseSpec) {
        let mut fleet = wide();
        for version in ["stable/os/1.0.0", "stable/app/7.0.0"] {
            let spec = fleet.release(version, |_| ());
            assert_eq!(fleet.everywhere(&spec).record.state, ReleaseState::Stable);
        }
        let beta = register_beta(&fleet);
        fleet
            .step(&beta, |transaction, op| transaction.start(tidegate::rollout::RampRequest::default(), op))
            .unwrap_err();
        let two = fleet.release("stable/os/2.0.0", |_| ());
        fleet.start(&two);
        let site = fleet.dir.path().join("site");
        let mut world = Self { fleet, site, failed: BTreeMap::new(), hour: 0 };
        world.cron();
        assert!(world.failed.is_empty(), "{:?}", world.failed);
        (world, two)
    }

    fn tidegate(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("-C").arg(self.fleet.path());
        command.args(["--now", &tidegate_model::time::format(self.fleet.now)]).args(words).output().unwrap()
    }

    /// `tidegate --quiet refresh && tidegate --quiet publish PLACE`
    fn cron(&mut self) {
        let mut out = self.tidegate(&["-q", "refresh"]);
        if out.status.success() {
            out = self.tidegate(&["-q", "publish", "--no-verify", self.site.to_str().unwrap()]);
        }
        if !out.status.success() {
            self.failed.insert(self.hour, String::from_utf8(out.stderr).unwrap());
        }
    }

    /// So many days with the cron line every 6 hours. After each day every device is asked, and must do as `expected` says.
    fn days(&mut self, days: i64, expected: &[(&str, &str)]) {
        for _ in 0..days {
            for _ in 0..4 {
                self.fleet.pass(6);
                self.hour += 6;
                self.cron();
            }
            self.holds(expected);
        }
    }

    /// `status` and `doctor` name the cause, and the command that fixes it.
    fn reports(&self, cause: &str, command: &str) {
        for words in [&["status"][..], &["doctor", self.site.to_str().unwrap()]] {
            let out = self.tidegate(words);
            let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
            assert!(text.contains(cause) && text.contains(command), "{words:?}: {cause}, {command}: {text}");
        }
    }

    fn holds(&self, expected: &[(&str, &str)]) {
        let found = self.devices();
        for (who, what) in expected {
            assert_eq!(found[*who], *what, "{who} after {} hours: {found:?} {:?}", self.hour, self.failed);
        }
    }

    /// What devices fresh from the factory do: of each product, in the canary and in the largest cohort.
    fn devices(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for product in ["os", "app"] {
            for number in 0..200 {
                let profile = Fleet::profile(&format!("device-{number}"), "stable", product, "board-a");
                let check = self.fleet.device(&self.site, &profile).check();
                let (cohort, what) = match check {
                    Ok(check) => (
                        check.explanation.cohort.cohort.to_string(),
                        match check.outcome() {
                            Outcome::Install { release, .. } => release.to_string(),
                            other => other.to_string(),
                        },
                    ),
                    Err(error) => ("canary".into(), error.to_string()),
                };
                found.entry(format!("{product} {cohort}")).or_insert(what);
                if ["canary", "general"].iter().all(|cohort| found.contains_key(&format!("{product} {cohort}"))) {
                    break;
                }
            }
        }
        found
    }
}

/// A release on `beta`, which is not offered to anybody.
fn register_beta(fleet: &Fleet) -> ReleaseSpec {
    let spec = fleet.draft("beta/os/3.0.0", |_| ());
    assert_eq!(rule(fleet.register(&spec)), "R-THRESHOLD");
    spec
}

const EVERYBODY: &[(&str, &str)] =
    &[("os canary", "2.0.0"), ("os general", "1.0.0"), ("app canary", "7.0.0"), ("app general", "7.0.0")];
const WITHOUT_TWO: &[(&str, &str)] =
    &[("os canary", "1.0.0"), ("os general", "1.0.0"), ("app canary", "7.0.0"), ("app general", "7.0.0")];

/// An offer that is not renewed ends by itself after 72 hours; everything else goes on for weeks.
#[test]
fn an_offer_that_ends_by_itself_stops_only_itself() {
    let (mut world, _) = World::new();
    world.days(2, EVERYBODY);
    world.days(1, &EVERYBODY[1..]);
    world.days(10, WITHOUT_TWO);
    assert!(world.failed.is_empty(), "{:?}", world.failed);
    world.reports("2.0.0", "tidegate rollout renew stable/os/2.0.0");
}

#[test]
fn a_pause_stops_only_its_offer() {
    let (mut world, two) = World::new();
    world.fleet.step(&two, |transaction, op| transaction.pause(op, None)).unwrap();
    world.days(8, WITHOUT_TWO);
    assert!(world.failed.is_empty(), "{:?}", world.failed);
    world.reports("paused", "tidegate rollout resume stable/os/2.0.0");
    // And is no end: whoever resumes it goes on.
    world.fleet.validate(&two);
    world
        .fleet
        .step(&two, |transaction, op| transaction.resume(tidegate::rollout::RampRequest::default(), op))
        .unwrap();
    world.cron();
    world.holds(EVERYBODY);
}

#[test]
fn a_withdrawal_falls_back_to_what_is_below() {
    let (mut world, two) = World::new();
    world.fleet.step(&two, |transaction, op| transaction.withdraw(op, Some("does not boot"))).unwrap();
    world.days(4, WITHOUT_TWO);
    assert!(world.failed.is_empty(), "{:?}", world.failed);
    world.reports("2.0.0", "tidegate release create");
}

/// A draft, a proposal and a release folder that cannot be read stop no renewal, also not those that come once in weeks.
#[test]
fn leftovers_stop_nothing() {
    let (mut world, two) = World::new();
    world.fleet.draft("stable/os/4.0.0", |_| ());
    world.fleet.step(&two, |transaction, op| transaction.withdraw(op, None)).unwrap();
    let broken = world.fleet.path().join("releases/stable/os/5.0.0");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("release.json"), "not a record").unwrap();
    for _ in 0..100 {
        world.fleet.now += TimeDelta::hours(24);
        world.hour += 24;
        world.cron();
    }
    world.holds(WITHOUT_TWO);
    world.reports("releases/stable/os/5.0.0/release.json", "from version control");
    let failed: Vec<_> = world.failed.values().filter(|text| !text.contains("beta")).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A cohort whose rollout key is elsewhere expires by itself.
#[test]
fn an_expired_cohort_stops_only_itself() {
    let (mut world, two) = World::new();
    fs::remove_file(world.fleet.path().join("keys/targets-3.pem")).unwrap();
    world.fleet.step(&two, |transaction, op| transaction.withdraw(op, None)).unwrap();
    world.days(16, WITHOUT_TWO);
    let (hour, text) = world.failed.first_key_value().unwrap();
    assert!(*hour > 0 && text.contains("published, but expired: beta.everyone"), "{text}");
    assert!(text.contains("tidegate refresh"), "{text}");
    world.reports("beta.everyone", "tidegate refresh");
}

/// Whatever expired comes back whole, with what was renewed meanwhile.
#[test]
fn an_expired_channel_comes_back_with_its_cohorts() {
    let (mut world, _) = World::new();
    let keys = ["targets-1", "targets-2"].map(|key| world.fleet.path().join(format!("keys/{key}.pem")));
    let texts = keys.clone().map(|key| fs::read(key).unwrap());
    for key in &keys {
        fs::remove_file(key).unwrap();
    }
    for _ in 0..25 {
        world.fleet.now += TimeDelta::hours(24);
        world.cron();
    }
    for (key, text) in keys.iter().zip(texts) {
        fs::write(key, text).unwrap();
    }
    world.failed.clear();
    // `refresh` renews a channel that is due, once its keys are at hand again.
    world.cron();
    assert!(world.failed.is_empty(), "{:?}", world.failed);
    let root = world.fleet.path().join("metadata/1.root.json");
    let now = tidegate_model::time::format(world.fleet.now);
    let out = world.tidegate(&["verify", world.site.to_str().unwrap(), "--root", root.to_str().unwrap()]);
    assert!(
        out.status.success(),
        "{now} {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// Another channel whose keys are elsewhere expires: it is reported in the exit status, after everything else was published.
#[test]
fn an_expired_channel_stops_only_itself() {
    let (mut world, two) = World::new();
    for key in ["targets-1", "targets-2"] {
        fs::remove_file(world.fleet.path().join(format!("keys/{key}.pem"))).unwrap();
    }
    for _ in 0..14 {
        world.fleet.validate(&two);
        world.fleet.step(&two, |transaction, op| transaction.renew(op)).unwrap();
        world.days(1, EVERYBODY);
    }
    let (hour, text) = world.failed.first_key_value().unwrap();
    assert!(*hour > 0, "{text}");
    assert!(text.contains("published, but expired: beta") && text.contains("P-EXPIRED"), "{text}");
    assert!(text.contains("tidegate ceremony start --renew beta"), "{text}");
    world.reports("beta", "tidegate ceremony start --renew beta");
    let published = fs::read_to_string(world.site.join("metadata/timestamp.json")).unwrap();
    let expires = tidegate_model::time::format(world.fleet.now + TimeDelta::days(1));
    assert!(published.contains(&expires), "{published}");
}

/// Only root and targets, and what everybody needs, make `publish` refuse; its help names the command.
#[test]
fn expired_targets_stop_everybody_and_publish_says_so() {
    let (mut world, _) = World::new();
    for key in ["targets-1", "targets-2", "targets-3"] {
        fs::remove_file(world.fleet.path().join(format!("keys/{key}.pem"))).unwrap();
    }
    world.fleet.now += TimeDelta::days(360);
    world.cron();
    let text = world.failed.values().next().unwrap();
    assert!(text.contains("tidegate ceremony start --renew root"), "{text}");
    world.reports("targets", "tidegate ceremony start --renew root");
}

/// Timestamp and snapshot stop everybody, for as long as nobody refreshes.
#[test]
fn timestamp_and_snapshot_stop_everybody_until_the_next_refresh() {
    let (mut world, two) = World::new();
    // The timestamp lives for a day, the snapshot for 7.
    for days in [2, 8] {
        world.fleet.now += TimeDelta::days(days);
        let found = world.devices();
        assert!(found.values().all(|what| what.contains("expired")), "{found:?}");
        world.reports("timestamp", "tidegate refresh");
        world.fleet.validate(&two);
        world.fleet.step(&two, |transaction, op| transaction.renew(op)).unwrap();
        world.cron();
        world.holds(EVERYBODY);
    }
    assert!(world.failed.is_empty(), "{:?}", world.failed);
}
