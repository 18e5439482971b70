//! A device: it finds the release for its cohort, decides, downloads, installs and confirms.
//!
//! ```text
//! refresh -> CHANNEL/cohorts.json -> cohort -> offers (role CHANNEL.COHORT)
//!                                                |  each: the same hash and length
//!                                 manifest (role CHANNEL) -> decide -> download -> install -> confirm
//! ```
//!
//! Two powers must agree before anything is installed: the cohort's role offers a release, and the channel's role lists
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
use crate::policy::{Deferral, Judgement, Newer, Policy, Situation, Step, judge};
use crate::receipts::{ReceiptRecorder, ReceiptStatus};
use crate::retry::Retry;
use crate::state::Machine;
use crate::store::Repair;
use crate::store::{DirStore, Kept, Store as _};
use crate::updater::{Repository, Updater};
use tidegate_model::cohort::CohortMap;
use tidegate_model::decision::{
    Approval, Installed, Outcome, Profile, Quarantined, Rule, RuleOutcome, Verdict, decide, needs_manifest,
};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::{Circumstances, ExplainedOffer, Explanation};
use tidegate_model::facts::Facts;
use tidegate_model::layout;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::ArtifactName;
pub use tidegate_model::release::Release;
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::time::Instant;
use tidegate_model::version::Version;
use tidegate_tuf::Chain;
use tidegate_tuf::hash::Checker;
use tidegate_tuf::json;
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
    /// The decision on every offer, with the outcome of every rule.
    pub explanation: Explanation,
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
    /// A newer release that reaches this device so soon that the policy waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer: Option<Newer>,
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
    /// The decision on every offer, as far as the device knows them; see [`DeviceBuilder::observe_offers`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Explanation>,
    /// Why there is no such decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undecided: Option<String>,
}

impl Check {
    /// What to do.
    pub fn outcome(&self) -> &Outcome {
        &self.explanation.outcome
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
        let check = self.check_as(&profile, None, false)?;
        if let Some(update) = &check.update {
            self.record_offer(&check.explanation, update);
        }
        Ok(check)
    }

    /// Like [`check`](Self::check), but evaluates every rule of every offer, also with other facts or at another time. The fact `attestation` assumes an
    /// attestor; without that fact, the device's own attestor counts.
    ///
    /// # Errors
    ///
    /// As for [`check`](Self::check), and [`Error::Setting`] if the facts name an unknown attestation.
    pub fn explain(&mut self, facts: Option<Facts>, at: Option<Instant>) -> Result<Check, Error> {
        let own_facts = facts.unwrap_or_else(|| self.profile.own_facts.clone());
        let profile = Profile { own_facts, ..self.profile.clone() };
        let profile = profile.assumed().map_err(Error::Setting)?;
        let check = self.check_as(&profile, at, true);
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
            decision: None,
            undecided: None,
        }
    }

    /// The decision on what is stored, without a request.
    pub(super) fn check_offline(&mut self) -> Result<Check, Error> {
        let profile = self.profile.clone();
        self.updater.offline = true;
        let check = self.check_as(&profile, None, false);
        self.updater.offline = false;
        check
    }

    /// `thorough`: reads the manifest of every offer, also of those that cannot be taken now.
    fn check_as(&mut self, profile: &Profile, at: Option<Instant>, thorough: bool) -> Result<Check, Error> {
        self.updater.refresh()?;
        let channel = Chain::top().then(&layout::channel_role(&profile.channel));
        let map = self.cohorts(profile, &channel)?;
        let choice = map.choose(&profile.id, &profile.facts());
        self.recorder.observe(&self.profile.id, &map, &choice);
        let (now, latest) = at.map_or_else(|| (self.now(), self.updater.latest()), |at| (at, at));
        let quarantined = self.quarantined().to_vec();
        let circumstances = Circumstances { device: profile, choice: &choice, now, latest, quarantined: &quarantined };
        let protected = map.cohort(&choice.cohort).and_then(|cohort| cohort.protected.as_ref());
        let offered = match self.approach(profile, &choice, protected) {
            Ok(private) => self.offered(&circumstances, &channel, private.as_ref(), thorough),
            Err(why) => Ok(Err(why)),
        };
        let offered = gate::or_denied(offered, &choice, protected);
        let Found { explanation, update } =
            offered?.unwrap_or_else(|why| Found { explanation: circumstances.nothing(&why), update: None });
        debug!(cohort = %choice.cohort, outcome = %explanation.outcome, "decided");
        let policy = update.as_ref().map_or_else(Vec::new, |update| {
            [Step::Download, Step::Install].map(|step| self.judge(step, update, profile, now)).into()
        });
        let repairs = self.repairs.iter().chain(self.updater.repairs()).cloned().collect();
        Ok(Check { explanation, update, policy, repairs })
    }

    /// The decisions on the offers of the device's cohort, or why there are none. `private` is the location of protected files.
    fn offered(
        &mut self,
        circumstances: &Circumstances<'_>,
        channel: &Chain,
        private: Option<&Repository>,
        thorough: bool,
    ) -> Result<Result<Found, String>, Error> {
        let offers = match self.offers(circumstances, channel)? {
            Ok(offers) => offers,
            Err(why) => return Ok(Err(why)),
        };
        let mut explained = Vec::new();
        let (mut update, mut newer) = (None, None);
        let mut read = 0;
        for offer in &offers.offers {
            let private = private.filter(|_| offer.private);
            // What is below an offer that is taken is read for an explanation only.
            let reads = Reads { channel, private, thorough, wanted: update.is_none() };
            let (explanation, found) = self.consider(circumstances, offer, &reads, &mut read)?;
            update = update.or(found.map(|found| Update { newer: newer.take(), ..found }));
            newer = newer.or_else(|| self.waits_for(&explanation, circumstances.now));
            explained.push(explanation);
        }
        Ok(Ok(Found { explanation: circumstances.explain(explained), update }))
    }

    /// The release of an offer that waits for nothing but its ramp, if the policy waits for it.
    fn waits_for(&self, offer: &ExplainedOffer, now: Instant) -> Option<Newer> {
        let at = self.reached_at(&offer.decision.outcome, now)?;
        let fits = |rule: &RuleOutcome| rule.verdict != Verdict::Fail || rule.rule == Rule::Ramp;
        let newer = || Newer { release: offer.release.clone(), sequence: offer.sequence, at };
        offer.decision.rules.iter().all(fits).then(newer)
    }

    /// When the ramp of an offer reaches the device, if the policy waits so long.
    fn reached_at(&self, outcome: &Outcome, now: Instant) -> Option<Instant> {
        match outcome {
            Outcome::Wait { until: Some(at), rule: Rule::Ramp, .. } => {
                Some(*at).filter(|at| self.policy.waits_for(*at, now))
            }
            _ => None,
        }
    }

    /// The decision on an offer, and on the bridges to it; and what to install, if it can be taken now. `read` counts manifests.
    fn consider(
        &mut self,
        circumstances: &Circumstances<'_>,
        offer: &Offer,
        reads: &Reads<'_>,
        read: &mut usize,
    ) -> Result<(ExplainedOffer, Option<Update>), Error> {
        let known = self.read(circumstances, offer, reads, read)?;
        let mut explained = ExplainedOffer::new(&circumstances.inputs(offer, known.approval()));
        match (&explained.decision.outcome, &known) {
            // Bridges have ever lower sequences, so this ends.
            (Outcome::Bridge { bridge, .. }, _) => {
                let (mut bridge, update) = self.consider(circumstances, &offer.through(bridge), reads, read)?;
                let further = std::mem::take(&mut bridge.through);
                explained.through = std::iter::once(bridge).chain(further).collect();
                Ok((explained, update))
            }
            (Outcome::Install { artifacts, .. }, Known::Manifest(manifest)) => {
                match self.update(reads.channel, manifest, offer.sha256, artifacts, reads.private) {
                    Ok(update) => Ok((explained, Some(update))),
                    Err(e @ Error::NotApproved { .. }) => {
                        let why = e.to_string();
                        let inputs = circumstances.inputs(offer, Approval::Contradicted(&why));
                        Ok((ExplainedOffer::new(&inputs), None))
                    }
                    Err(e) => Err(e),
                }
            }
            _ => Ok((explained, None)),
        }
    }

    /// Reads the manifest of an offer if it is needed.
    fn read(
        &mut self,
        circumstances: &Circumstances<'_>,
        offer: &Offer,
        reads: &Reads<'_>,
        read: &mut usize,
    ) -> Result<Known, Error> {
        let approved = self.approved(circumstances.device, reads.channel, &offer.release);
        let role = layout::cohort_role(&circumstances.device.channel, &circumstances.choice.cohort);
        let approved =
            approved.and_then(|approved| approved.must_be(&role, offer.length, offer.sha256).map(|()| approved));
        let approved = match approved {
            Ok(approved) => approved,
            // A contradiction of this offer does not stop the others.
            Err(e @ Error::NotApproved { .. }) => return Ok(Known::Contradicted(e.to_string())),
            Err(e) => return Err(e),
        };
        // The policy waits for a release only if it fits the device.
        let unread = circumstances.inputs(offer, Approval::NotRead);
        let waits = || self.reached_at(&decide(&unread).outcome, circumstances.now).is_some();
        let wanted = reads.wanted && (needs_manifest(&unread) || waits());
        if !wanted && !reads.thorough {
            return Ok(Known::NotRead);
        }
        let name = if *read == 0 { "manifest.json".to_owned() } else { format!("manifest-{read}.json") };
        *read += 1;
        let bytes = match self.document(&name, &approved.found, MANIFEST_LENGTH, reads.private) {
            Err(_) if self.updater.offline => return Ok(Known::NotRead),
            bytes => bytes?,
        };
        Ok(match Manifest::parse(&bytes) {
            Ok(manifest) => Known::Manifest(Box::new(manifest)),
            Err(e) => Known::Contradicted(format!("{}: {e}", approved.found.path)),
        })
    }

    /// The channel's cohort map, listed by the channel's role and no other.
    fn cohorts(&mut self, profile: &Profile, channel: &Chain) -> Result<CohortMap, Error> {
        let path = layout::cohorts_path(&profile.channel);
        let found = self.find(&path, channel)?;
        let bytes = self.document("cohorts.json", &found, COHORTS_LENGTH, None)?;
        CohortMap::parse(&bytes).map_err(|e| Error::BadDocument { path, reason: e.to_string() })
    }

    /// What the cohort's role offers, or why there is nothing.
    fn offers(&mut self, circumstances: &Circumstances<'_>, channel: &Chain) -> Result<Result<Offers, String>, Error> {
        let Circumstances { device: profile, choice, latest, .. } = circumstances;
        let role = layout::cohort_role(&profile.channel, &choice.cohort);
        let path = layout::assignment_path(&profile.channel, &choice.cohort, &profile.product);
        let chain = channel.then(&role);
        let found = self.find(&path, &chain);
        // The role may expire before the instant in question.
        let trusted = self.updater.trusted().and_then(|trusted| trusted.targets(&chain));
        let expires = trusted.map(|targets| targets.common.expires).filter(|expires| expires <= latest);
        let found = match (found, expires) {
            (Ok(_) | Err(Error::TargetNotFound { .. }), Some(expires)) => return Ok(Err(expired(&role, expires))),
            (Ok(found), None) => found,
            (Err(e), _) => return nothing(&role, profile, e).map(Err),
        };
        let bad = |reason: String| Error::BadDocument { path: path.clone(), reason };
        let custom = found.target.custom.as_ref().ok_or_else(|| bad("it contains no offers".into()))?;
        let offers = Offers::from_custom(custom).map_err(|e| bad(e.to_string()))?;
        // The target's bytes are the same list, so that what is signed is also what can be fetched.
        let list = custom.get("tidegate").unwrap_or(&serde_json::Value::Null);
        let bytes = json::canonical(list).map_err(|e| bad(e.to_string()))?;
        if (found.target.length, sha256_of(&found)?) != (bytes.len() as u64, Digest::of(&bytes)) {
            return Err(bad("its length or hash is not that of the offers in it".into()));
        }
        Ok(Ok(offers))
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

    /// What to download for a release. The manifest and the channel's role must agree on each artifact.
    fn update(
        &mut self,
        channel: &Chain,
        manifest: &Manifest,
        sha256: Digest,
        names: &[ArtifactName],
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
        Ok(Update { release, urgency: manifest.urgency, artifacts, newer: None })
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
            newer: update.newer.as_ref(),
        };
        let judgement = judge(&self.policy, &situation);
        debug!(step = ?step, release = %update.release.version, allowed = judgement.allows(), "applied the device's policy");
        judgement
    }

    fn quarantined(&self) -> &[Quarantined] {
        self.quarantine.value().map_or(&[], |quarantine| &quarantine.releases)
    }
}

/// The decisions on all offers, and what to install.
struct Found {
    explanation: Explanation,
    update: Option<Update>,
}

/// Which manifests are read, and from where.
struct Reads<'a> {
    channel: &'a Chain,
    private: Option<&'a Repository>,
    /// Every one.
    thorough: bool,
    /// Those of offers that could be taken.
    wanted: bool,
}

/// What is known of the manifest of an offer.
enum Known {
    Manifest(Box<Manifest>),
    NotRead,
    Contradicted(String),
}

impl Known {
    fn approval(&self) -> Approval<'_> {
        match self {
            Self::Manifest(manifest) => Approval::Manifest(manifest),
            Self::NotRead => Approval::NotRead,
            Self::Contradicted(why) => Approval::Contradicted(why),
        }
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
        Error::TargetNotFound { .. } => Ok(format!("role {role} offers no release of {}", profile.product)),
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
    format!("role {role} expired at {expires}: it is renewed by tidegate refresh")
}
