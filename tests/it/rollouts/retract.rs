//! Releases that are taken back, and what a stolen rollout key can do about it.

use std::fs;
use std::path::PathBuf;

use crate::support::Fleet;
use crate::support::fleet::{lay_out, rule};
use chrono::TimeDelta;
use serde_json::json;
use tidegate::Error;
use tidegate::forecast::explain;
use tidegate::metadata::Edit;
use tidegate::policy::ReleaseState;
use tidegate::release::record::{RecordedUrgency, ReleaseSpec};
use tidegate::release::retract::{Retracted, RetractionRequest, retract};
use tidegate::rollout::RampRequest;
use tidegate::workspace::Ledger;
use tidegate::workspace::Operation;
use tidegate_client::clock::StubClock;
use tidegate_client::device::Device;
use tidegate_client::fetch::file::url_of;
use tidegate_client::install::FileSlot;
use tidegate_client::updater::Repository as Published;
use tidegate_client::watch::unwatched;
use tidegate_model::decision::{Outcome, Profile};
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_model::time;

const IMAGES: [(&str, &str); 3] = [("1.1.0", "eleven"), ("1.2.0", "twelve"), ("1.3.0", "thirteen, which is bad")];

/// A fleet that had 1.1.0, has 1.2.0, and is getting 1.3.0.
struct History {
    fleet: Fleet,
    site: PathBuf,
}

impl History {
    fn new() -> Self {
        let fleet = Fleet::new();
        let site = fleet.dir.path().join("site");
        Self { fleet, site }
    }

    /// Brings a release to every cohort.
    fn everywhere(&mut self, version: &str, image: &str) -> ReleaseSpec {
        fs::write(self.fleet.dir.path().join("image.bin"), image).unwrap();
        let spec = self.fleet.release(version, |new| new.urgency = RecordedUrgency::Security);
        self.fleet.start(&spec);
        self.fleet.pass(1);
        lay_out(&self.fleet, &self.site);
        spec
    }

    fn take_back(&self, bad: &[&str], to: Option<&str>) -> Result<Retracted, Error> {
        let (workspace, _) = self.fleet.open();
        let request = RetractionRequest {
            bad: bad.iter().map(|bad| bad.parse().unwrap()).collect(),
            to: to.map(|to| to.parse().unwrap()),
            urgency: RecordedUrgency::Normal,
            reason: Some("does not boot".into()),
        };
        retract(
            &mut Operation::new(&workspace, "tester", self.fleet.now, &mut tidegate::keys::KeyRing::empty()),
            &request,
        )
    }

    /// Has it signed, validated and registered.
    fn registered(&self, retracted: &Retracted) -> ReleaseSpec {
        let spec: ReleaseSpec = retracted.frozen.record.id().to_string().parse().unwrap();
        self.fleet.sign(&spec).unwrap();
        self.fleet.validate(&spec);
        self.fleet.register(&spec).unwrap();
        let record = self.fleet.validate(&spec);
        assert_eq!(record.state, ReleaseState::Validation);
        spec
    }

    fn profile(id: &str) -> Profile {
        Fleet::profile(id, "stable", "os", "board-a")
    }

    fn device(&self, id: &str) -> Device {
        let profile = Self::profile(id);
        Device::builder()
            .root(fs::read(self.fleet.path().join("metadata/1.root.json")).unwrap())
            .repository(Published::at(&url_of(&self.site).unwrap()).unwrap())
            .state_dir(self.fleet.dir.path().join("devices").join(id))
            .id(profile.id)
            .channel(profile.channel)
            .product(profile.product)
            .hardware(profile.hardware)
            .factory(profile.installed.version, profile.installed.sequence)
            .installer(FileSlot::new(self.slot(id)))
            .clock(StubClock::at(self.fleet.now))
            .open()
            .unwrap()
    }

    fn slot(&self, id: &str) -> PathBuf {
        self.fleet.dir.path().join(format!("{id}.slot"))
    }

    /// The version and sequence that the device remembers to run.
    fn runs(&self, id: &str) -> (String, u64) {
        let release = self.device(id).status().installed.unwrap().release;
        (release.version.to_string(), release.sequence)
    }

    /// What the device runs after it did what it is told; and what it was told.
    fn update(&self, id: &str) -> (String, Outcome) {
        let mut device = self.device(id);
        let check = device.check().unwrap();
        if let Some(update) = &check.update {
            let downloaded = device.download(update, &mut unwatched).unwrap();
            device.install(&downloaded, &mut unwatched).unwrap();
            device.confirm().unwrap();
        }
        (fs::read_to_string(self.slot(id)).unwrap_or_default(), check.explanation.outcome)
    }
}

#[test]
fn devices_that_have_the_bad_release_move_and_others_stay() {
    let mut history = History::new();
    let good = IMAGES[1];
    // One device follows each release, and goes to sleep there.
    let mut specs = Vec::new();
    for ((version, image), device) in IMAGES.into_iter().zip(["has-old", "has-good", "has-bad"]) {
        specs.push(history.everywhere(version, image));
        assert_eq!(history.update(device).0, image);
    }

    // Only what is withdrawn is taken back, and nothing is half done before.
    let retracted = history.take_back(&["1.3.0"], None).unwrap();
    let record = &retracted.frozen.record;
    assert_eq!(record.id().to_string(), "stable/os/1.2.0+retract.4");
    assert_eq!(retracted.to.version.to_string(), "1.2.0");
    let manifest = &retracted.frozen.manifest;
    assert_eq!((manifest.sequence, manifest.supersedes.iter().copied().collect::<Vec<_>>()), (4, vec![3]));
    assert_eq!(manifest.artifacts[0].sha256, Digest::of(good.1.as_bytes()));
    let spec = history.registered(&retracted);
    let start =
        |history: &History| history.fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op));
    assert_eq!(rule(start(&history)), "R-RETRACT");
    history.fleet.step(&specs[2], |transaction, op| transaction.withdraw(op, None)).unwrap();

    // A retraction skips what policy lets it skip: no soak, no ramp, whatever the cohort's size.
    start(&history).unwrap();
    let mut state = ReleaseState::Limited;
    for _ in 0..2 {
        let request = RampRequest::default();
        let outcome = history.fleet.step(&spec, |transaction, op| transaction.advance(request, None, op)).unwrap();
        state = outcome.record.state;
    }
    assert_eq!(state, ReleaseState::Limited);
    history.fleet.step(&spec, |transaction, op| transaction.complete(op)).unwrap();
    lay_out(&history.fleet, &history.site);

    // The bad one moves, to the bytes of the one before; anti-rollback is as it was.
    assert_eq!(history.update("has-bad").0, good.1);
    assert_eq!(history.runs("has-bad"), ("1.2.0+retract.4".into(), 4));
    // The good one has those bytes already, and stays.
    let (image, outcome) = history.update("has-good");
    assert_eq!(image, good.1);
    let Outcome::UpToDate { why } = &outcome else { panic!("{outcome}") };
    assert_eq!(why, "1.2.0 (sequence 2) is already installed");
    assert_eq!(history.runs("has-good").1, 2);
    // The old one takes it as the upgrade that it is; and so does one from the factory.
    assert_eq!(history.update("has-old").0, good.1);
    assert_eq!(history.update("new").0, good.1);

    // The publisher explains it, from what is signed.
    let (workspace, _) = history.fleet.open();
    let repository = workspace.repository().unwrap();
    let mut profile = History::profile("has-bad");
    profile.installed = tidegate_model::decision::Installed { version: "1.3.0".parse().unwrap(), sequence: 3 };
    let answer = explain(workspace.dir(), &repository, &profile, history.fleet.now).unwrap().explanation;
    assert!(answer.to_string().contains("but the release supersedes sequence 3"), "{answer}");

    // What happened is in the ledger, with the reason.
    let ledger = Ledger::open(&history.fleet.path()).unwrap();
    let entry = ledger.entries().iter().find(|entry| entry.event == "retract").unwrap();
    assert_eq!((entry.subject.as_str(), entry.reason.as_deref()), ("stable/os/1.3.0", Some("does not boot")));
    assert_eq!(entry.evidence["by"], "stable/os/1.2.0+retract.4");
}

#[test]
fn several_bad_releases_are_taken_back_at_once() {
    let mut history = History::new();
    history.everywhere("1.2.0", "twelve");
    let mut bad = Vec::new();
    for version in ["1.3.0", "1.3.1"] {
        bad.push(history.everywhere(version, version));
        assert_eq!(history.update(version).0, version);
    }
    for spec in &bad {
        history.fleet.step(spec, |transaction, op| transaction.withdraw(op, None)).unwrap();
    }
    let retracted = history.take_back(&["1.3.1", "1.3.0"], None).unwrap();
    assert_eq!(retracted.frozen.manifest.supersedes.iter().copied().collect::<Vec<_>>(), [2, 3]);
    let spec = history.registered(&retracted);
    history.fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap();
    for _ in 0..2 {
        history.fleet.step(&spec, |transaction, op| transaction.advance(RampRequest::default(), None, op)).unwrap();
    }
    lay_out(&history.fleet, &history.site);
    for device in ["1.3.0", "1.3.1"] {
        assert_eq!(history.update(device).0, "twelve");
    }
}

#[test]
fn what_cannot_be_taken_back_is_refused_and_changes_nothing() {
    let mut history = History::new();
    history.everywhere("1.1.0", "eleven");
    history.everywhere("1.2.0", "twelve");
    let draft = history.fleet.draft("1.4.0", |_| ());
    let before = (history.fleet.metadata(), Ledger::open(&history.fleet.path()).unwrap().entries().len());
    for (bad, to, expected) in [
        (&["1.1.0"][..], None, "R-RETRACT"),
        (&["1.2.0"], Some("1.2.0"), "R-RETRACT"),
        (&["1.1.0"], Some("1.2.0"), "R-RETRACT"),
        (&["1.2.0"], Some("1.4.0"), "R-RETRACT"),
        (&["1.4.0"], None, "R-ORDER"),
    ] {
        let error = history.take_back(bad, to).unwrap_err();
        assert_eq!(error.broken_rule().map(tidegate::Rule::id), Some(expected), "{bad:?} to {to:?}: {error}");
        assert!(error.remedy_text().is_some(), "{error}");
    }
    let after = (history.fleet.metadata(), Ledger::open(&history.fleet.path()).unwrap().entries().len());
    assert!(before == after);
    assert!(draft.find(&history.fleet.path()).unwrap().retraction.is_none());

    // A record that claims to be a retraction skips nothing unless what is signed says so.
    let retracted = history.take_back(&["1.2.0"], None).unwrap();
    let path = history.fleet.path().join(retracted.frozen.record.id().file("release.json"));
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(rule(history.take_back(&["1.2.0"], None)), "R-EXISTS", "once is enough");
    let spec: ReleaseSpec = retracted.frozen.record.id().to_string().parse().unwrap();
    for (from, to) in
        [("\"sequence\": 2,\n    \"to\"", "\"sequence\": 1,\n    \"to\""), ("\"to\": \"1.1.0\"", "\"to\": \"1.2.0\"")]
    {
        assert!(text.contains(from), "{text}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let start = history.fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op));
        assert_eq!(rule(start), "R-RETRACT");
    }
}

/// The holder of the rollout, snapshot and timestamp keys can choose among approved releases, but cannot roll devices back.
#[test]
fn stolen_rollout_key_cannot_roll_back_devices() {
    let mut history = History::new();
    for (version, image) in IMAGES {
        history.everywhere(version, image);
    }
    let device = "moved-on";
    assert_eq!(history.update(device).0, "thirteen, which is bad");
    let retracted = history.take_back(&["1.3.0"], None).unwrap();
    let spec = history.registered(&retracted);
    history.fleet.step(&"1.3.0".parse().unwrap(), |transaction, op| transaction.withdraw(op, None)).unwrap();
    history.fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap();
    for _ in 0..2 {
        history.fleet.step(&spec, |transaction, op| transaction.advance(RampRequest::default(), None, op)).unwrap();
    }
    lay_out(&history.fleet, &history.site);
    assert_eq!(history.update(device).0, "twelve");

    // What the attacker tries: old releases as they are, and under a sequence, a version or with bytes that are a lie.
    let manifest = |version: &str| {
        fs::read(history.fleet.path().join(format!("releases/stable/os/{version}/manifest.json"))).unwrap()
    };
    let lie = String::from_utf8(manifest("1.3.0")).unwrap().replace("\"sequence\":3", "\"sequence\":9");
    for (what, version, sequence, bytes) in [
        ("an old release", "1.1.0", 1, manifest("1.1.0")),
        ("the bad release", "1.3.0", 3, manifest("1.3.0")),
        ("the bad release as a newer one", "1.3.0", 9, manifest("1.3.0")),
        ("the bad release under the name of the retraction", "1.2.0+retract.4", 4, manifest("1.3.0")),
        ("a manifest with another sequence", "1.3.0", 9, lie.into_bytes()),
        ("a release that nobody approved", "6.6.6", 9, manifest("1.3.0")),
    ] {
        history.fleet.now += TimeDelta::minutes(10);
        assign(&history, version, sequence, &bytes);
        let mut device = history.device(device);
        match device.check() {
            // The device does not believe it, or does not want it; it never installs it.
            Err(error) => panic!("{what}: {error}"),
            Ok(check) => {
                let outcome = &check.explanation.outcome;
                assert!(check.update.is_none(), "{what}: {outcome}");
                assert!(
                    matches!(outcome, Outcome::UpToDate { .. } | Outcome::Refuse { .. } | Outcome::NoOffer { .. }),
                    "{what}: {outcome}"
                );
            }
        }
        drop(device);
        assert_eq!(history.runs("moved-on").1, 4, "{what}");
    }
    assert_eq!(fs::read_to_string(history.slot(device)).unwrap(), "twelve");
}

/// Signs for every cohort, with the online keys alone, that it gets these bytes under this name; and publishes it.
fn assign(history: &History, version: &str, sequence: u64, bytes: &[u8]) {
    let (workspace, mut ring) = history.fleet.open();
    let repository = workspace.repository().unwrap();
    let offer = json!({
        "release": version, "sequence": sequence, "sha256": Digest::of(bytes).to_string(), "length": bytes.len(),
        "stage": "security", "since": time::format(history.fleet.now), "paused": false,
    });
    let list = json!({"schema": 1, "assigned": time::format(history.fleet.now), "offers": [offer]});
    let custom = json!({"tidegate": list});
    let bytes = tidegate_tuf::json::canonical(&list).unwrap();
    let sha256 = Digest::of(&bytes);
    fs::write(history.fleet.path().join("artifacts/signed").join(sha256.to_string()), &bytes).unwrap();
    let mut edit = Edit::new(&repository, history.fleet.now, workspace.settings().unwrap().online()).unwrap();
    for cohort in ["validation", "canary", "early", "general"] {
        let (channel, cohort, product) = ("stable".parse().unwrap(), cohort.parse().unwrap(), "os".parse().unwrap());
        let path = layout::assignment_path(&channel, &cohort, &product);
        let role = layout::cohort_role(&channel, &cohort);
        edit.change(&role, TimeDelta::days(1), |document| {
            document.set_target(&path, bytes.len() as u64, sha256.as_bytes(), custom.as_object().cloned());
        })
        .unwrap();
    }
    let finished = edit.finish(&mut ring).unwrap().unwrap();
    finished.changes.commit(&history.fleet.path()).unwrap();
    drop(workspace);
    lay_out(&history.fleet, &history.site);
}
