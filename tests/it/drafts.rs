//! Drafts are corrected until somebody signs, and what was given up holds nothing back.

use std::collections::BTreeSet;
use std::fs;

use chrono::TimeDelta;
use tidegate::Error;
use tidegate::keys::KeyRing;
use tidegate::policy::ReleaseState;
use tidegate::release::draft::{self, DraftEdit, NewArtifact, Optional};
use tidegate::release::record::{Record, ReleaseSpec};
use tidegate::release::{audit, signing};
use tidegate::rollout::RampRequest;
use tidegate::rollout::refresh::refresh;
use tidegate::workspace::Operation;

use crate::support::Fleet;
use crate::support::fleet::{named, rule};

impl Fleet {
    /// Does something to a draft, which takes no key.
    fn on_draft<T>(&self, act: impl FnOnce(&mut Operation<'_>) -> Result<T, Error>) -> Result<T, Error> {
        act(&mut Operation::new(&self.open().0, "tester", self.now, &mut KeyRing::empty()))
    }

    fn add(&self, spec: &ReleaseSpec, name: &str) -> Result<(), Error> {
        let artifact = NewArtifact {
            file: &self.dir.path().join("image.bin"),
            name: Some(name.parse().unwrap()),
            hardware: BTreeSet::from(["board-a".parse().unwrap()]),
            media_type: None,
            replace: false,
        };
        self.on_draft(|op| draft::add(op, spec, &artifact, |_| ())).map(|_| ())
    }

    fn sign_once(&self, spec: &ReleaseSpec) {
        let (workspace, mut ring) = self.open();
        let mut op = Operation::new(&workspace, "tester", self.now, &mut ring);
        signing::sign(&mut op, spec, &["release-1".into()], &[]).unwrap();
    }

    fn record(&self, spec: &ReleaseSpec) -> Record {
        spec.find(&self.path()).unwrap()
    }

    fn renewed(&self) -> Vec<String> {
        let (workspace, mut ring) = self.open();
        let settings = workspace.settings().unwrap();
        refresh(&mut Operation::new(&workspace, "nightly", self.now, &mut ring), &settings).unwrap().1
    }
}

fn note(text: &str) -> DraftEdit {
    DraftEdit { notes: vec![text.parse().unwrap()], ..DraftEdit::default() }
}

#[test]
fn a_draft_is_corrected_until_somebody_signs() {
    let fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |new| new.source = Some("git+https://example.org".parse().unwrap()));
    let image = "image.bin".parse().unwrap();
    let proposal = fleet.path().join("proposals/stable-os-1.0.0.json");
    assert!(proposal.is_file());
    assert_eq!(rule(fleet.on_draft(|op| draft::edit(op, &spec, &note("later")))), "R-FROZEN");
    assert_eq!(rule(fleet.on_draft(|op| draft::remove(op, &spec, &image))), "R-FROZEN");

    fleet.on_draft(|op| draft::unfreeze(op, &spec)).unwrap();
    assert!(!proposal.exists() && fleet.record(&spec).manifest.is_none());
    assert_eq!(rule(fleet.on_draft(|op| draft::unfreeze(op, &spec))), "R-FROZEN");
    fleet.add(&spec, "wrong.bin").unwrap();
    fleet.on_draft(|op| draft::remove(op, &spec, &"wrong.bin".parse().unwrap())).unwrap();
    let error = fleet.on_draft(|op| draft::remove(op, &spec, &"wrong.bin".parse().unwrap())).unwrap_err();
    assert_eq!(error.remedy_text(), Some("its artifacts are: image.bin"));
    let edit = DraftEdit { clear: BTreeSet::from([Optional::Source]), ..note("the first") };
    let (record, changed) = fleet.on_draft(|op| draft::edit(op, &spec, &edit)).unwrap();
    assert_eq!((changed, record.source, record.notes.len()), (vec!["source", "note"], None, 1));
    assert!(fleet.on_draft(|op| draft::edit(op, &spec, &edit)).unwrap_err().to_string().contains("nothing changes"));

    let frozen = fleet.on_draft(|op| draft::manifest(op, &spec)).unwrap();
    assert_eq!((frozen.manifest.artifacts.len(), frozen.manifest.sequence), (1, 1));
    fleet.sign_once(&spec);
    let refused = || {
        assert_eq!(rule(fleet.on_draft(|op| draft::unfreeze(op, &spec))), "R-FROZEN");
        assert_eq!(rule(fleet.on_draft(|op| draft::drop(op, &spec))), "R-FROZEN");
        assert_eq!(rule(fleet.on_draft(|op| draft::edit(op, &spec, &note("too late")))), "R-FROZEN");
    };
    refused();
    // A new proposal of the same manifest has no signatures, but the old ones exist.
    fleet.on_draft(|op| draft::manifest(op, &spec)).unwrap();
    refused();
    fleet.sign(&spec).unwrap();
    refused();
    fleet.step(&spec, |transaction, op| transaction.withdraw(op, None)).unwrap();
    assert!(!proposal.exists(), "what is withdrawn waits for no signature");
    assert_eq!(audit::audit(&fleet.path()).unwrap().1, [""; 0]);
}

#[test]
fn a_dropped_version_can_be_used_again() {
    let fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.validate(&spec);
    fleet.on_draft(|op| draft::drop(op, &spec)).unwrap();
    assert!(spec.find(&fleet.path()).is_err());
    assert_eq!(audit::audit(&fleet.path()).unwrap().1, [""; 0]);
    let spec = fleet.release("1.0.0", |_| ());
    assert_eq!(fleet.record(&spec).manifest.unwrap().sequence, 1);
    fleet.start(&spec);
    assert_eq!(rule(fleet.on_draft(|op| draft::drop(op, &spec))), "R-ORDER");
    assert_eq!(audit::audit(&fleet.path()).unwrap().1, [""; 0]);
}

#[test]
fn a_limit_refuses_what_exceeds_it_at_once() {
    let fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.on_draft(|op| draft::unfreeze(op, &spec)).unwrap();
    // One artifact short of the limit, written as that many calls would have.
    let mut record = fleet.record(&spec);
    let first = record.artifacts[0].clone();
    record.artifacts = (1..256).map(|n| draft_artifact(&first, n)).collect();
    let path = fleet.path().join("releases/stable/os/1.0.0/release.json");
    fs::write(path, tidegate::release::record::to_file(&record).unwrap()).unwrap();
    fleet.add(&spec, "last.bin").unwrap();
    let error = fleet.add(&spec, "one-too-many.bin").unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("artifacts") && cause.contains("256"), "{cause}");
    assert_eq!(fleet.record(&spec).artifacts.len(), 256);
    let many = DraftEdit { notes: vec!["a line".parse().unwrap(); 1025], ..DraftEdit::default() };
    assert!(fleet.on_draft(|op| draft::edit(op, &spec, &many)).is_err());
}

fn draft_artifact(like: &tidegate::release::ArtifactRecord, number: usize) -> tidegate::release::ArtifactRecord {
    tidegate::release::ArtifactRecord { name: format!("a-{number}.bin").parse().unwrap(), ..like.clone() }
}

#[test]
fn a_release_with_a_lower_version_supersedes_by_its_sequence() {
    let fleet = Fleet::new();
    let first = fleet.release("2.0.0", |_| ());
    fleet.start(&first);
    let edit = DraftEdit { supersedes: BTreeSet::from([2]), ..DraftEdit::default() };
    let spec = fleet.draft("1.9.0", |new| new.supersedes = BTreeSet::from([1]));
    fleet.on_draft(|op| draft::unfreeze(op, &spec)).unwrap();
    let error = fleet.on_draft(|op| draft::edit(op, &spec, &edit)).unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("supersedes"), "its own sequence is 2");
    fleet.on_draft(|op| draft::manifest(op, &spec)).unwrap();
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    fleet.register(&spec).unwrap();
    assert_eq!(fleet.validate(&spec).state, ReleaseState::Validation);
    let in_force = fleet.step(&spec, |t, op| t.start(RampRequest::default(), op)).unwrap().in_force;
    let order: Vec<_> = named(&in_force, "canary").offers.iter().map(|offer| offer.release.to_string()).collect();
    assert_eq!(order, ["1.9.0", "2.0.0"]);
}

#[test]
fn an_abandoned_proposal_holds_back_no_renewal() {
    let mut fleet = Fleet::new();
    let until = |fleet: &Fleet| fleet.open().0.repository().unwrap().role("stable").unwrap().expires;
    // In the last quarter of the channel's life, and not in its last eighth.
    let due = |fleet: &mut Fleet| {
        let lifetime = until(fleet) - fleet.now;
        fleet.now += lifetime - lifetime / 6;
        fleet.renewed()
    };
    let spec = fleet.draft("1.0.0", |_| ());
    let held = |roles: &[String]| !roles.contains(&"stable".to_owned());
    assert!(!held(&due(&mut fleet)), "it is older than a week");
    fs::write(fleet.path().join("proposals/leftover.json"), "{").unwrap();
    let lifetime = until(&fleet) - fleet.now;
    fleet.now += lifetime - lifetime / 6;
    fleet.on_draft(|op| draft::manifest(op, &spec)).unwrap();
    assert!(held(&fleet.renewed()), "somebody may be about to sign it");
    let proposal = fleet.path().join("proposals/stable-os-1.0.0.json");
    let text = fs::read(&proposal).unwrap();
    fleet.on_draft(|op| draft::drop(op, &spec)).unwrap();
    fs::write(&proposal, text).unwrap();
    fleet.now += TimeDelta::hours(1);
    assert!(!held(&fleet.renewed()), "there is no such release any more");
}
