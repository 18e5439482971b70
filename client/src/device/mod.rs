//! A device: it finds the release for its cohort, decides, downloads, installs and confirms.
//!
//! ```text
//! refresh -> CHANNEL/cohorts.json -> cohort -> assignment (role CHANNEL.COHORT)
//!                                                  |  the same hash and length
//!                                   manifest (role CHANNEL) -> decide -> download -> install -> confirm
//! ```
//!
//! Two powers must agree before anything is installed: the cohort's role assigns a release, and the channel's role lists
//! that release's manifest, and every artifact in it, under the release's own path with the same hash.
//!
//! A device needs only its own path through the repository. Errors in another cohort do not affect it. When its own cohort's role
//! has expired or is missing, the result is a decision, not an error: the device keeps its release and reports why.
//! The same applies when its cohort is protected and the gate denies access. Files from a gate are verified like
//! everything else.

mod builder;
mod download;
mod gate;
mod lifecycle;
mod receipts;
mod state;

use serde::Serialize;
use tracing::debug;

pub use builder::DeviceBuilder;
pub use download::Downloaded;
use state::Quarantine;
pub use state::{InstallState, Record};

use crate::clock::Clock;
use crate::download::Wanted;
use crate::error::Error;
use crate::gate::{GatedFetch, Visit};
use crate::install::Installer;
use crate::policy::{Deferral, Judgement, Policy, Situation, Step, judge};
use crate::receipts::{ReceiptRecorder, ReceiptStatus};
use crate::retry::Retry;
use crate::state::Machine;
use crate::store::Repair;
use crate::store::{DirStore, Kept, Store as _};
use crate::updater::{Repository, Updater};
use tidegate_model::cohort::{CohortChoice, CohortMap};
use tidegate_model::decision::{Inputs, Installed, Offer, Outcome, Profile, Quarantined};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::{Explanation, explain};
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::manifest::{Manifest, Urgency};
pub use tidegate_model::release::Release;
use tidegate_model::rollout::Assignment;
use tidegate_model::time::Instant;
use tidegate_model::version::Version;
use tidegate_tuf::Chain;
use tidegate_tuf::hash::Checker;
use tidegate_tuf::path::TargetPath;

/// The longest cohort map that is read, in bytes.
const COHORTS_LENGTH: u64 = 8_000_000;
/// The longest manifest that is read, in bytes.
const MANIFEST_LENGTH: u64 = 1_000_000;

/// A device and its state folder. The folder is locked while this value exists.
pub struct Device {
    profile: Profile,
    factory: Installed,
    updater: Updater<GatedFetch, DirStore, Box<dyn Clock + Send>>,
    installer: Option<Box<dyn Installer + Send>>,
    store: DirStore,
    record: Kept<Record>,
    quarantine: Kept<Quarantine>,
    machine: Kept<Machine>,
    policy: Policy,
    retry: Retry,
    reserve: u64,
    repairs: Vec<Repair>,
    recorder: Box<dyn ReceiptRecorder>,
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// The decision, with the outcome of every rule.
    pub explanation: Explanation,
    /// The decision on the assigned release, if `explanation` is about a bridge to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub on_the_way_to: Vec<Explanation>,
    /// What to download, if the decision is to install.
    pub update: Option<Update>,
    /// How the device's own policy judges downloading and installing it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<Judgement>,
    /// Stored files that were damaged and are replaced.
    pub repairs: Vec<Repair>,
}

/// A release to install.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Update {
    /// Which release it is.
    pub release: Release,
    /// How urgent it is.
    pub urgency: Urgency,
    /// Its artifacts for this device.
    pub artifacts: Vec<UpdateArtifact>,
}

/// One file of an update.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UpdateArtifact {
    /// Its name in the manifest.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// The URL to fetch it from.
    pub url: String,
    #[serde(skip)]
    wanted: Wanted,
    /// The gate that serves it, if it is not public.
    #[serde(skip)]
    visit: Option<Visit>,
}

/// What a device has and knows, without a request to the repository.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its identity and the release it runs.
    pub device: Profile,
    /// What was installed last, if anything was.
    pub installed: Option<Record>,
    /// The state of the update.
    pub update: Machine,
    /// The user's deferral, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferral: Option<Deferral>,
    /// Releases that failed here and are not tried again.
    pub quarantined: Vec<Quarantined>,
    /// The status of the receipts, if the device records any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<ReceiptStatus>,
    /// Stored files that were damaged and are replaced.
    pub repairs: Vec<Repair>,
}

impl Check {
    /// What to do.
    pub fn outcome(&self) -> &Outcome {
        &self.explanation.decision.outcome
    }
}

impl Device {
    /// A builder for a device.
    pub fn builder() -> DeviceBuilder {
        DeviceBuilder::default()
    }

    /// Checks the repository for the release that this device should run, and decides. Installs nothing.
    ///
    /// # Errors
    ///
    /// If the repository cannot be reached or fails verification. It is not an error if it has nothing for this device.
    pub fn check(&mut self) -> Result<Check, Error> {
        let profile = self.profile.clone();
        let check = self.check_as(&profile, None)?;
        if let Some(update) = &check.update {
            self.record_offer(update);
        }
        Ok(check)
    }

    /// Like [`check`](Self::check), but with other facts or at another time. The fact `attestation` assumes an
    /// attestor; without that fact, the device's own attestor counts.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check), and [`Error::Setting`] if the facts name an unknown attestation.
    pub fn explain(&mut self, facts: Option<Facts>, at: Option<Instant>) -> Result<Check, Error> {
        let own_facts = facts.unwrap_or_else(|| self.profile.own_facts.clone());
        let profile = Profile { own_facts, ..self.profile.clone() };
        let profile = profile.assumed().map_err(Error::Setting)?;
        let check = self.check_as(&profile, at);
        self.recorder.forget();
        check
    }

    /// What this device has and knows, without a request to the repository.
    pub fn status(&self) -> Status {
        Status {
            device: self.profile.clone(),
            installed: self.record.value().cloned(),
            update: self.machine().clone(),
            deferral: self.deferral(),
            quarantined: self.quarantined().to_vec(),
            receipts: self.receipts(),
            repairs: self.repairs.clone(),
        }
    }

    fn check_as(&mut self, profile: &Profile, at: Option<Instant>) -> Result<Check, Error> {
        self.updater.refresh()?;
        let channel = Chain::top().then(&layout::channel_role(&profile.channel));
        let map = self.cohorts(profile, &channel)?;
        let choice = map.choose(&profile.id, &profile.facts());
        self.recorder.observe(&self.profile.id, &map, &choice);
        let now = at.or(self.updater.trusted().map(tidegate_tuf::TrustedSet::now)).unwrap_or(Instant::UNIX_EPOCH);
        let protected = map.cohort(&choice.cohort).and_then(|cohort| cohort.protected.as_ref());
        let offered = match self.approach(profile, &choice, protected) {
            Ok(private) => self.offered(profile, &channel, &choice, private.as_ref(), now),
            Err(why) => Ok(Err(why)),
        };
        let offered = gate::or_denied(offered, &choice, protected);
        let Found { explanation, on_the_way_to, update } = offered?.unwrap_or_else(|why| {
            let offer = Offer::Nothing { why: &why };
            explain(&Inputs { device: profile, choice: &choice, offer, now, quarantined: &[] }).into()
        });
        debug!(cohort = %choice.cohort, outcome = %explanation.decision.outcome, "decided");
        let policy = update.as_ref().map_or_else(Vec::new, |update| {
            [Step::Download, Step::Install].map(|step| self.judge(step, update, profile, now)).into()
        });
        let repairs = self.repairs.iter().chain(self.updater.repairs()).cloned().collect();
        Ok(Check { explanation, on_the_way_to, update, policy, repairs })
    }

    /// The offer for the device's cohort and the decision on it, or why there is none. `private` is the location of protected files.
    fn offered(
        &mut self,
        profile: &Profile,
        channel: &Chain,
        choice: &CohortChoice,
        private: Option<&Repository>,
        now: Instant,
    ) -> Result<Result<Found, String>, Error> {
        let mut on_the_way_to = Vec::new();
        let (mut assignment, mut approved) = match self.assignment(profile, channel, choice, now)? {
            Ok(assigned) => assigned,
            Err(why) => return Ok(Err(why)),
        };
        // The same for its bridges.
        let private = private.filter(|_| assignment.private);
        loop {
            let manifest = self.manifest(&approved, private)?;
            let offer = Offer::Release { assignment: &assignment, manifest: &manifest, sha256: approved.sha256 };
            let quarantined = self.quarantined();
            let explanation = explain(&Inputs { device: profile, choice, offer, now, quarantined });
            let update = match &explanation.decision.outcome {
                // Bridges have ever lower sequences, so this ends.
                Outcome::Bridge { bridge, .. } => {
                    approved = self.approved(profile, channel, &bridge.release)?;
                    let role = layout::cohort_role(&profile.channel, &choice.cohort);
                    approved.must_be(&role, bridge.length, bridge.sha256)?;
                    assignment = assignment.through(bridge);
                    on_the_way_to.push(explanation);
                    continue;
                }
                Outcome::Install { artifacts, .. } => {
                    Some(self.update(channel, &manifest, approved.sha256, artifacts, private)?)
                }
                _ => None,
            };
            return Ok(Ok(Found { explanation, on_the_way_to, update }));
        }
    }

    /// The channel's cohort map, listed by the channel's role and no other.
    fn cohorts(&mut self, profile: &Profile, channel: &Chain) -> Result<CohortMap, Error> {
        let path = layout::cohorts_path(&profile.channel);
        let found = self.find(&path, channel)?;
        let bytes = self.document("cohorts.json", &found, COHORTS_LENGTH, None)?;
        CohortMap::parse(&bytes).map_err(|e| Error::BadDocument { path, reason: e.to_string() })
    }

    /// The release that the cohort's role assigns and the channel's role approves, or why there is none.
    fn assignment(
        &mut self,
        profile: &Profile,
        channel: &Chain,
        choice: &CohortChoice,
        at: Instant,
    ) -> Result<Result<(Assignment, Approved), String>, Error> {
        let role = layout::cohort_role(&profile.channel, &choice.cohort);
        let path = layout::assignment_path(&profile.channel, &choice.cohort, &profile.product);
        let chain = channel.then(&role);
        let found = self.find(&path, &chain);
        // The role may expire before the instant in question.
        let trusted = self.updater.trusted().and_then(|trusted| trusted.targets(&chain));
        let expires = trusted.map(|targets| targets.common.expires).filter(|expires| *expires <= at);
        let found = match (found, expires) {
            (Ok(_) | Err(Error::TargetNotFound { .. }), Some(expires)) => return Ok(Err(expired(&role, expires))),
            (Ok(found), None) => found,
            (Err(e), _) => return nothing(&role, profile, e).map(Err),
        };
        let bad = |reason: String| Error::BadDocument { path: path.clone(), reason };
        let custom = found.target.custom.as_ref().ok_or_else(|| bad("it contains no assignment".into()))?;
        let assignment = Assignment::from_custom(custom).map_err(|e| bad(e.to_string()))?;
        let approved = self.approved(profile, channel, &assignment.release)?;
        let sha256 = sha256_of(&found)?;
        approved.must_be(&role, found.target.length, sha256)?;
        Ok(Ok((assignment, approved)))
    }

    /// The manifest that the channel's role lists for a release.
    fn approved(&mut self, profile: &Profile, channel: &Chain, release: &Version) -> Result<Approved, Error> {
        let path = layout::manifest_path(&profile.channel, &profile.product, release);
        let found = self.find(&path, channel).map_err(|e| match e {
            Error::TargetNotFound { .. } => Error::NotApproved {
                what: format!("release {release}"),
                approval: channel.role().to_owned(),
                reason: "it lists no such release".into(),
            },
            e => e,
        })?;
        Ok(Approved { sha256: sha256_of(&found)?, found })
    }

    fn manifest(&mut self, approved: &Approved, private: Option<&Repository>) -> Result<Manifest, Error> {
        let bytes = self.document("manifest.json", &approved.found, MANIFEST_LENGTH, private)?;
        Manifest::parse(&bytes)
            .map_err(|e| Error::BadDocument { path: approved.found.path.to_string(), reason: e.to_string() })
    }

    /// What to download for a release. The manifest and the channel's role must agree on each artifact.
    fn update(
        &mut self,
        channel: &Chain,
        manifest: &Manifest,
        sha256: Digest,
        names: &[tidegate_model::name::ArtifactName],
        private: Option<&Repository>,
    ) -> Result<Update, Error> {
        let mut artifacts = Vec::new();
        for artifact in manifest.artifacts.iter().filter(|artifact| names.contains(&artifact.name)) {
            let found = self.find(&artifact.path, channel)?;
            let listed = Approved { sha256: sha256_of(&found)?, found };
            listed.must_be("the manifest", artifact.length, artifact.sha256)?;
            let found = listed.found;
            let url = match private {
                Some(place) => self.updater.target_url_in(place, &found),
                None => self.updater.target_url(&found),
            };
            artifacts.push(UpdateArtifact {
                name: artifact.name.to_string(),
                length: artifact.length,
                sha256: artifact.sha256,
                url: url.clone(),
                wanted: Wanted {
                    name: artifact.path.clone(),
                    url,
                    length: found.target.length,
                    hashes: found.target.hashes,
                },
                visit: private.and_then(|_| self.updater.fetcher().visit()),
            });
        }
        let release = Release { version: manifest.version.clone(), sequence: manifest.sequence, sha256 };
        Ok(Update { release, urgency: manifest.urgency, artifacts })
    }

    /// Finds a target that only the last role of `chain` may list.
    fn find(&mut self, path: &str, chain: &Chain) -> Result<tidegate_tuf::Found, Error> {
        let found = self.updater.find(&TargetPath::new(path)?)?;
        if found.chain != *chain {
            let reason = format!("{} lists it, but only {chain} may", found.chain);
            return Err(Error::BadDocument { path: path.to_owned(), reason });
        }
        Ok(found)
    }

    /// A signed document, from the state folder if the copy there matches the listed hash.
    fn document(
        &mut self,
        name: &str,
        found: &tidegate_tuf::Found,
        limit: u64,
        private: Option<&Repository>,
    ) -> Result<Vec<u8>, Error> {
        let name = format!("documents/{name}");
        let stored = self.store.load(&name, limit).unwrap_or_default();
        let is_listed = |bytes: &[u8]| {
            let mut checker = Checker::new(Some(found.target.length), Some(&found.target.hashes));
            checker.update(bytes).and_then(|()| checker.finish()).is_ok()
        };
        match stored {
            Some(bytes) if is_listed(&bytes) => Ok(bytes),
            _ => {
                let bytes = match private {
                    Some(place) => self.updater.read_target_in(place, found, limit),
                    None => self.updater.read_target(found, limit),
                }?;
                self.store.save(&name, &bytes)?;
                Ok(bytes)
            }
        }
    }

    /// How the policy judges a step of an update, for the device that `profile` describes.
    fn judge(&self, step: Step, update: &Update, profile: &Profile, now: Instant) -> Judgement {
        let situation = Situation {
            step,
            now,
            sequence: update.release.sequence,
            urgency: update.urgency,
            missing: self.missing(update),
            facts: &profile.facts(),
            deferral: self.deferral(),
        };
        let judgement = judge(&self.policy, &situation);
        debug!(step = ?step, release = %update.release.version, allowed = judgement.allows(), "applied the device's policy");
        judgement
    }

    fn quarantined(&self) -> &[Quarantined] {
        self.quarantine.value().map_or(&[], |quarantine| &quarantine.releases)
    }
}

/// A decision and its inputs.
struct Found {
    explanation: Explanation,
    on_the_way_to: Vec<Explanation>,
    update: Option<Update>,
}

impl From<Explanation> for Found {
    fn from(explanation: Explanation) -> Self {
        Self { explanation, on_the_way_to: Vec::new(), update: None }
    }
}

/// A manifest or artifact as the channel's role lists it.
struct Approved {
    found: tidegate_tuf::Found,
    sha256: Digest,
}

impl Approved {
    /// Checks that `other` describes the approved file.
    fn must_be(&self, other: &str, length: u64, sha256: Digest) -> Result<(), Error> {
        if (self.found.target.length, self.sha256) == (length, sha256) {
            return Ok(());
        }
        Err(Error::NotApproved {
            what: self.found.path.to_string(),
            approval: self.found.chain.role().to_owned(),
            reason: format!(
                "it lists {} bytes with sha256 {}, but {other} has {length} bytes with sha256 {sha256}",
                self.found.target.length, self.sha256
            ),
        })
    }
}

fn sha256_of(found: &tidegate_tuf::Found) -> Result<Digest, Error> {
    let digest = found.target.hashes.sha256_digest().copied();
    digest.map(Digest::from).ok_or_else(|| Error::BadDocument {
        path: found.path.to_string(),
        reason: "it is listed without a sha256 hash".into(),
    })
}

/// Converts an error of the device's own cohort role into a reason to keep its release. Other errors stay errors.
fn nothing(role: &str, profile: &Profile, error: Error) -> Result<String, Error> {
    match error {
        Error::TargetNotFound { .. } => Ok(format!("role {role} assigns no release of {}", profile.product)),
        Error::Metadata(tidegate_tuf::Error::Expired { role: whose, expires, .. }) if whose == role => {
            Ok(expired(role, expires))
        }
        Error::Metadata(tidegate_tuf::Error::NotInSnapshot { role: absent, .. }) if absent == role => {
            Ok(format!("role {role} is not published"))
        }
        Error::Missing { what, .. } if what == role => Ok(format!("role {role} is listed, but its file is missing")),
        error => Err(error),
    }
}

fn expired(role: &str, expires: Instant) -> String {
    let expires = tidegate_tuf::time::format(expires);
    format!("role {role} expired at {expires}: the rollout was not renewed and has stopped")
}
