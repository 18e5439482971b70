//! A workspace as people use it, through the library: releases from draft to stable, on a clock that the test moves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use tidegate::ceremony::init;
use tidegate::keys::{KeyRing, NoPassphrases};
use tidegate::policy::ReleaseState;
use tidegate::proposal::{self, Tool};
use tidegate::release::draft::{self, NewArtifact, NewRelease};
use tidegate::release::record::{Record, ReleaseSpec};
use tidegate::release::signing;
use tidegate::rollout::{RampRequest, RolloutTransaction};
use tidegate::workspace::init::{KeySource, Options};
use tidegate::workspace::{CohortInForce, Operation, Workspace};
use tidegate::{Error, ceremony, validate};
use tidegate_client::clock::StubClock;
use tidegate_client::device::Device;
use tidegate_client::fetch::file::url_of;
use tidegate_client::updater::Repository as Published;
use tidegate_model::decision::{Installed, Profile};
use tidegate_model::facts::Facts;
use tidegate_model::span::Span;

/// A workspace with everybody's keys, and a clock that the test moves.
pub struct Fleet {
    pub dir: tempfile::TempDir,
    pub now: DateTime<Utc>,
}

impl Fleet {
    pub fn new() -> Self {
        Self::shaped(|_, text| text)
    }

    /// One whose configuration files, given by name, were changed before anything was signed.
    pub fn shaped(change: impl Fn(&str, String) -> String) -> Self {
        let now = DateTime::parse_from_rfc3339("2026-11-25T00:00:00Z").unwrap().with_timezone(&Utc);
        Self::shaped_at(now, change)
    }

    /// The same, begun at this instant.
    pub fn shaped_at(now: DateTime<Utc>, change: impl Fn(&str, String) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("fleet")).unwrap();
        for (name, text) in tidegate::workspace::init::TEMPLATE.iter().filter(|(name, _)| *name != ".gitignore") {
            fs::write(dir.path().join("fleet").join(name), change(name, (*text).to_owned())).unwrap();
        }
        let options = Options {
            keys: KeySource::Example,
            salt: Some("00112233445566778899aabbccddeeff".into()),
            actor: "tester".into(),
        };
        init(&dir.path().join("fleet"), &options, now, &mut NoPassphrases).unwrap();
        fs::write(dir.path().join("image.bin"), "the bytes of an image").unwrap();
        Self { dir, now }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("fleet")
    }

    pub fn open(&self) -> (Workspace, KeyRing) {
        let workspace = Workspace::open(&self.path()).unwrap();
        let ring = workspace.ring(&workspace.settings().unwrap(), Box::new(NoPassphrases)).unwrap();
        (workspace, ring)
    }

    pub fn pass(&mut self, hours: i64) {
        self.now += TimeDelta::hours(hours);
    }

    /// A draft with one artifact and a frozen manifest.
    pub fn draft(&self, version: &str, change: impl FnOnce(&mut NewRelease)) -> ReleaseSpec {
        self.draft_for(version, "board-a", change)
    }

    /// The same, for this hardware.
    pub fn draft_for(&self, version: &str, hardware: &str, change: impl FnOnce(&mut NewRelease)) -> ReleaseSpec {
        let spec: ReleaseSpec = version.parse().unwrap();
        let mut new = NewRelease::of(spec.clone(), "ci".parse().unwrap());
        change(&mut new);
        let (workspace, _) = self.open();
        draft::new(&mut Operation::new(&workspace, "tester", self.now, &mut tidegate::keys::KeyRing::empty()), new)
            .unwrap();
        let artifact = NewArtifact {
            file: &self.dir.path().join("image.bin"),
            name: None,
            hardware: BTreeSet::from([hardware.parse().unwrap()]),
            media_type: None,
            replace: false,
        };
        draft::add(
            &mut Operation::new(&workspace, "tester", self.now, &mut tidegate::keys::KeyRing::empty()),
            &spec,
            &artifact,
            |_| (),
        )
        .unwrap();
        draft::manifest(
            &mut Operation::new(&workspace, "tester", self.now, &mut tidegate::keys::KeyRing::empty()),
            &spec,
        )
        .unwrap();
        spec
    }

    pub fn sign(&self, spec: &ReleaseSpec) -> Result<(), Error> {
        let (workspace, mut ring) = self.open();
        signing::sign(
            &mut Operation::new(&workspace, "tester", self.now, &mut ring),
            spec,
            &["release-1".into(), "release-2".into()],
            &[],
        )
        .map(|_| ())
    }

    /// Has it listed; it must have been validated.
    pub fn register(&self, spec: &ReleaseSpec) -> Result<(), Error> {
        let (workspace, mut ring) = self.open();
        signing::register(&mut Operation::new(&workspace, "tester", self.now, &mut ring), spec).map(|_| ())
    }

    pub fn validate(&self, spec: &ReleaseSpec) -> Record {
        let (workspace, mut ring) = self.open();
        validate::validate(
            &mut Operation::new(&workspace, "tester", self.now, &mut ring),
            spec,
            &validate::Options::default(),
        )
        .unwrap()
        .0
    }

    /// A validated release.
    pub fn release(&self, version: &str, change: impl FnOnce(&mut NewRelease)) -> ReleaseSpec {
        self.release_for(version, "board-a", change)
    }

    /// The same, for this hardware.
    pub fn release_for(&self, version: &str, hardware: &str, change: impl FnOnce(&mut NewRelease)) -> ReleaseSpec {
        let spec = self.draft_for(version, hardware, change);
        self.sign(&spec).unwrap();
        self.validate(&spec);
        self.register(&spec).unwrap();
        assert_eq!(self.validate(&spec).state, ReleaseState::Validation);
        spec
    }

    pub fn step<T>(
        &self,
        spec: &ReleaseSpec,
        step: impl FnOnce(RolloutTransaction<'_>, &mut Operation<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (workspace, mut ring) = self.open();
        let transaction = RolloutTransaction::open(&workspace, spec, self.now).unwrap();
        step(transaction, &mut Operation::new(&workspace, "tester", self.now, &mut ring))
    }

    pub fn start(&self, spec: &ReleaseSpec) -> Vec<CohortInForce> {
        self.step(spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap().in_force
    }

    /// Takes a release through all cohorts, in 123 hours, and completes it.
    pub fn everywhere(&mut self, spec: &ReleaseSpec) -> tidegate::rollout::StepOutcome {
        self.start(spec);
        for _ in 0..2 {
            self.pass(49);
            self.advance(spec, 24).unwrap();
        }
        self.pass(25);
        self.validate(spec);
        self.step(spec, |transaction, op| transaction.complete(op)).unwrap()
    }

    pub fn advance(&self, spec: &ReleaseSpec, hours: u64) -> Result<Vec<CohortInForce>, Error> {
        let request = RampRequest { span: Some(Span::hours(hours)), ..RampRequest::default() };
        self.step(spec, |transaction, op| transaction.advance(request, None, op)).map(|outcome| outcome.in_force)
    }

    /// Has the ceremony that is under way signed by the release keys, and finishes it.
    pub fn finish_ceremony(&self) -> Result<(), Error> {
        let (workspace, mut ring) = self.open();
        let repository = workspace.repository().unwrap();
        let (mut proposal, verified) = ceremony::open(&workspace, Some(&repository)).unwrap();
        for key in ["release-1", "release-2"] {
            let signer = ring.signer(key).unwrap();
            proposal::sign(&mut proposal, &verified, signer.as_ref(), ("file", "tidegate test"), &[].into(), self.now)
                .unwrap();
        }
        ceremony::keep(
            &mut Operation::new(&workspace, "tester", self.now, &mut tidegate::keys::KeyRing::empty()),
            &proposal,
        )
        .unwrap();
        let tool = Tool { version: "tidegate test".into(), sha256: "00".repeat(32) };
        ceremony::finish(&mut Operation::new(&workspace, "tester", self.now, &mut ring), &[].into(), &tool).map(|_| ())
    }

    /// A device that follows this fleet, at this fleet's time. What it knows it keeps between calls.
    pub fn device(&self, site: &Path, profile: &Profile) -> Device {
        Device::builder()
            .root(fs::read(self.path().join("metadata/1.root.json")).unwrap())
            .repository(Published::at(&url_of(site).unwrap()).unwrap())
            .state_dir(self.dir.path().join("devices").join(profile.id.as_str()))
            .id(profile.id.clone())
            .channel(profile.channel.clone())
            .product(profile.product.clone())
            .hardware(profile.hardware.clone())
            .factory(profile.installed.version.clone(), profile.installed.sequence)
            .facts(profile.own_facts.clone())
            .clock(StubClock::at(self.now))
            .open()
            .unwrap()
    }

    /// Renews what expires and publishes, as a nightly job does.
    pub fn nightly(&self, site: &Path) {
        let (workspace, mut ring) = self.open();
        let settings = workspace.settings().unwrap();
        tidegate::rollout::refresh::refresh(&mut Operation::new(&workspace, "nightly", self.now, &mut ring), &settings)
            .unwrap();
        drop(workspace);
        lay_out(self, site);
    }

    /// A device without facts.
    pub fn profile(id: &str, channel: &str, product: &str, hardware: &str) -> Profile {
        Profile {
            id: id.parse().unwrap(),
            product: product.parse().unwrap(),
            channel: channel.parse().unwrap(),
            hardware: hardware.parse().unwrap(),
            installed: Installed { version: semver::Version::new(0, 0, 1), sequence: 0 },
            own_facts: Facts::new(),
            attestation: None,
        }
    }

    pub fn metadata(&self) -> Vec<(String, Vec<u8>)> {
        let repository = self.open().0.repository().unwrap();
        repository.files().into_iter().map(|(name, bytes)| (name, bytes.to_vec())).collect()
    }
}

pub fn rule(result: Result<impl std::fmt::Debug, Error>) -> &'static str {
    result.unwrap_err().broken_rule().unwrap().id()
}

pub fn named<'a>(in_force: &'a [CohortInForce], cohort: &str) -> &'a CohortInForce {
    in_force.iter().find(|cohort_in_force| cohort_in_force.cohort.as_str() == cohort).unwrap()
}

/// Copies what the metadata lists to where a device fetches it.
pub fn lay_out(fleet: &Fleet, site: &Path) {
    lay_out_folder(&fleet.path(), &fleet.open().0.repository().unwrap(), site);
}

/// The same for the workspace in a folder.
pub fn lay_out_folder(dir: &Path, repository: &tidegate::metadata::Repository, site: &Path) {
    fs::create_dir_all(site.join("metadata")).unwrap();
    for (name, bytes) in repository.files() {
        fs::write(site.join("metadata").join(name), bytes).unwrap();
    }
    for role in repository.roles() {
        for (path, file) in repository.targets(&role.name).iter().flat_map(|targets| &targets.targets) {
            let path = tidegate_tuf::path::TargetPath::new(path.as_str()).unwrap();
            let to = site.join("targets").join(path.file_path(&file.hashes, true));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let sha256 = file.hashes.name_prefix().parse().unwrap();
            let from = dir.join(tidegate::workspace::artifacts::find(dir, &sha256));
            fs::copy(from, to).unwrap();
        }
    }
}
