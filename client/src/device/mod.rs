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
//!
//! [`Device::install`], [`Device::confirm`] and [`Device::reject`] are for callers that supervise a trial themselves. The
//! [`Agent`](crate::agent::Agent) uses smaller steps. Each of them can be repeated after an interruption.

mod builder;
mod deliver;
mod running;
mod state;

use std::cell::Cell;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tracing::{debug, trace};

pub use builder::DeviceBuilder;
pub use deliver::Overwritten;
use deliver::{allocated, files_of};
use state::Quarantine;
pub use state::{Failed, InstallState, Record};

use crate::clock::BootInfo;
use crate::delivery::{Files, Way, WayKind};
use crate::download::{Wanted, download, part_of};
use crate::error::{Error, Fault};
use crate::facts::{FactSource, gather};
use crate::fetch::FetchError;
use crate::gate::{CurrentVisit, Visit};
use crate::install::{Artifact, Installer, Place};
use crate::policy::{self, Deferral, Judgement, Newer, Policy, Situation, Step, judge};
use crate::receipts::{ReceiptRecorder, ReceiptStatus, Sending, Sent, Sink};
use crate::retry::{Retry, jitter};
use crate::state::{Event, Machine, State, Tolerance};
use crate::store::Repair;
use crate::store::{DirStore, Kept, Store as _};
use crate::updater::{Elsewhere, Repository, Updater};
use crate::watch::{Cancel, Progress, Watch};
use tidegate_model::cohort::{CohortChoice, CohortMap, MAX_LENGTH};
use tidegate_model::decision::{
    Approval, Installed, Outcome, Profile, Quarantined, Rule, RuleOutcome, Verdict, decide, needs_manifest,
};
use tidegate_model::digest::Digest;
use tidegate_model::explanation::{Circumstances, ExplainedOffer, Explanation};
use tidegate_model::facts::Facts;
use tidegate_model::gate::{Attestation, Protected};
use tidegate_model::layout;
use tidegate_model::manifest::{Manifest, Urgency};
use tidegate_model::name::ArtifactName;
use tidegate_model::receipt::{DeliveryCost, InstallResult, SignedReceipt};
pub use tidegate_model::release::Release;
use tidegate_model::rollout::{Offer, Offers};
use tidegate_model::text::public_url;
use tidegate_model::time::{self, UtcTime};
use tidegate_model::version::Version;
use tidegate_tuf::Chain;
use tidegate_tuf::hash::Checker;
use tidegate_tuf::json;
use tidegate_tuf::path::TargetPath;

/// The longest manifest that is read, in bytes.
const MANIFEST_LENGTH: u64 = 1_000_000;

/// A device and its state folder. The folder is locked while this value exists.
pub struct Device {
    profile: Profile,
    fact_sources: Vec<FactSource>,
    factory: Installed,
    updater: Updater,
    has_gate: bool,
    visit: CurrentVisit,
    cancel: Cancel,
    boot: Option<Box<dyn Fn() -> BootInfo + Send>>,
    installer: Option<Box<dyn Installer + Send>>,
    store: DirStore,
    record: Kept<Record>,
    quarantine: Kept<Quarantine>,
    machine: Kept<Machine>,
    overwritten: Kept<Overwritten>,
    policy: Policy,
    retry: Retry,
    reserve: u64,
    keep_fallback: bool,
    /// What the current download took, and the most that one artifact did.
    spent: Cell<Option<(DeliveryCost, u64)>>,
    /// The way to an artifact that failed last, and until when it counts as unusable.
    unusable: Cell<Option<(Digest, WayKind, Duration)>>,
    /// Whether the policy ended the current download.
    is_barred: Cell<bool>,
    repairs: Vec<Repair>,
    remarks: Vec<String>,
    /// What runs now, as the installer named it last.
    place: Option<Place>,
    /// Why the installer cannot tell what runs.
    unknown: Option<String>,
    recorder: Box<dyn ReceiptRecorder>,
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
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
    /// What else the owner of the device should know, such as that something else runs than was confirmed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// A release to install.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Update {
    /// Which release it is.
    pub release: Release,
    /// How urgent it is.
    pub urgency: Urgency,
    /// What its publisher says about it, for people.
    pub notes: Vec<String>,
    /// Its artifacts for this device.
    pub artifacts: Vec<UpdateArtifact>,
    /// How many bytes are still to be fetched, in the cheapest way.
    pub to_fetch: u64,
    /// A newer release that reaches this device so soon that the policy waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newer: Option<Newer>,
}

/// One file of an update.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct UpdateArtifact {
    /// Its name in the manifest.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its SHA-256.
    pub sha256: Digest,
    /// The URL to fetch it from. As JSON it lacks user, password and query.
    #[serde(serialize_with = "without_secrets")]
    pub url: String,
    /// The ways to fetch it, the cheapest first.
    pub ways: Vec<Way>,
    #[serde(skip)]
    wanted: Wanted,
    /// The files of its delivery, if it has one.
    #[serde(skip)]
    files: Option<Files>,
    /// The gate that serves it, if it is not public.
    #[serde(skip)]
    visit: Option<Visit>,
}

/// What a device has and knows, without a request to the repository.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// Its identity and the release it runs.
    pub device: Profile,
    /// What was installed last, if anything was.
    pub installed: Option<Record>,
    /// The state of the update.
    pub update: Machine,
    /// The release for which the slot that does not run was overwritten: there is no fallback then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overwritten: Option<Overwritten>,
    /// The user's deferral, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deferral: Option<Deferral>,
    /// Releases that failed here and are not tried again.
    pub quarantined: Vec<Failed>,
    /// The status of the receipts, if the device records any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<ReceiptStatus>,
    /// Stored files that were damaged and are replaced.
    pub repairs: Vec<Repair>,
    /// What else the owner of the device should know, such as that something else runs than was confirmed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
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

/// How long a download continues before the device decides again.
const DECISION: Duration = Duration::from_secs(24 * 3600);

/// An update whose artifacts are downloaded and verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Downloaded {
    update: Update,
    artifacts: Vec<Artifact>,
    /// Whether it goes into a slot that was a fallback.
    overwrites: bool,
}

impl Downloaded {
    /// The update.
    pub fn update(&self) -> &Update {
        &self.update
    }

    /// The downloaded files.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }
}

const DEFERRAL: &str = "deferral.json";

impl Device {
    /// A builder for a device.
    pub fn builder() -> DeviceBuilder {
        DeviceBuilder::default()
    }

    /// [`check`](Self::check), once it is known what runs.
    pub(crate) fn check_compared(&mut self) -> Result<Check, Error> {
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
    pub fn explain(&mut self, facts: Option<Facts>, at: Option<UtcTime>) -> Result<Check, Error> {
        self.look();
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
            overwritten: self.overwritten.value().cloned(),
            deferral: self.deferral(),
            quarantined: self.quarantined().to_vec(),
            receipts: self.receipts(),
            repairs: self.repairs.clone(),
            remarks: self.remarks(),
            decision: None,
            undecided: None,
        }
    }

    /// The decision on what is stored, without a request.
    fn check_offline(&mut self) -> Result<Check, Error> {
        let profile = self.profile.clone();
        self.updater.offline = true;
        let check = self.check_as(&profile, None, false);
        self.updater.offline = false;
        check
    }

    /// `thorough`: reads the manifest of every offer, also of those that cannot be taken now.
    fn check_as(&mut self, profile: &Profile, at: Option<UtcTime>, thorough: bool) -> Result<Check, Error> {
        self.updater.refresh()?;
        let channel = Chain::top().then(&layout::channel_role(&profile.channel));
        let map = self.cohorts(profile, &channel)?;
        let choice = map.choose(&profile.id, &profile.facts());
        self.recorder.observe(&self.profile.id, &map, &choice);
        let (now, latest) = at.map_or_else(|| (self.now(), self.updater.latest()), |at| (at, at));
        let known = |failed: &Failed| Quarantined { sequence: failed.sequence, sha256: failed.sha256 };
        let quarantined: Vec<_> = self.quarantined().iter().map(known).collect();
        let circumstances = Circumstances { device: profile, choice: &choice, now, latest, quarantined: &quarantined };
        let protected = map.cohort(&choice.cohort).and_then(|cohort| cohort.protected.as_ref());
        let offered = match self.approach(profile, &choice, protected) {
            Ok(private) => self.offered(&circumstances, &channel, private.as_ref(), thorough),
            Err(why) => Ok(Err(why)),
        };
        let offered = or_denied(offered, &choice, protected);
        let Found { explanation, update } =
            offered?.unwrap_or_else(|why| Found { explanation: circumstances.nothing(&why), update: None });
        debug!(cohort = %choice.cohort, outcome = %explanation.outcome, "decided");
        let policy = update.as_ref().map_or_else(Vec::new, |update| {
            [Step::Download, Step::Install].map(|step| self.judge(step, update, profile, now)).into()
        });
        let repairs = self.repairs.iter().chain(self.updater.repairs()).cloned().collect();
        Ok(Check { explanation, update, policy, repairs, remarks: self.remarks() })
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
    fn waits_for(&self, offer: &ExplainedOffer, now: UtcTime) -> Option<Newer> {
        let at = self.reached_at(&offer.decision.outcome, now)?;
        let fits = |rule: &RuleOutcome| rule.verdict != Verdict::Fail || rule.rule == Rule::Ramp;
        let newer = || Newer { release: offer.release.clone(), sequence: offer.sequence, at };
        offer.decision.rules.iter().all(fits).then(newer)
    }

    /// When the ramp of an offer reaches the device, if the policy waits so long.
    fn reached_at(&self, outcome: &Outcome, now: UtcTime) -> Option<UtcTime> {
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
                let names: Vec<_> = artifacts.iter().map(ArtifactName::as_str).collect();
                if let Some(Err(why)) = self.installer.as_ref().map(|installer| installer.accepts(&names)) {
                    explained.decision.unfit(why);
                    return Ok((explained, None));
                }
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
        let found = self.find(&path, channel).map_err(|e| self.other_channels(&profile.channel).unwrap_or(e))?;
        let bytes = self.document("cohorts.json", &found, MAX_LENGTH, None)?;
        CohortMap::parse(&bytes).map_err(|e| Error::BadDocument { path, reason: e.to_string() })
    }

    /// The channels that there are, the most similar first, if this one is none.
    fn other_channels(&self, channel: &tidegate_model::name::Name) -> Option<Error> {
        let mut channels = self.updater.trusted()?.delegated(&Chain::top());
        if channels.is_empty() || channels.iter().any(|other| other == channel.as_str()) {
            return None;
        }
        let same = |a: &mut dyn Iterator<Item = u8>, b: &mut dyn Iterator<Item = u8>| {
            a.zip(b).take_while(|(a, b)| a == b).count()
        };
        channels.sort_by_cached_key(|other| {
            let (a, b) = (channel.as_str(), other.as_str());
            let alike = same(&mut a.bytes(), &mut b.bytes()) + same(&mut a.bytes().rev(), &mut b.bytes().rev());
            a.len().max(b.len()).saturating_sub(alike)
        });
        channels.truncate(5);
        let (path, channels) = (layout::cohorts_path(channel), channels.join(", "));
        Some(Error::State(format!("{path}: there is no such channel: set channel to one that there is: {channels}")))
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
            let (ways, files) = self.delivery(channel, manifest, artifact, private);
            artifacts.push(UpdateArtifact {
                ways,
                files,
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
                visit: private.and_then(|_| self.visit.get()),
            });
        }
        let release = Release { version: manifest.version.clone(), sequence: manifest.sequence, sha256 };
        let notes = manifest.notes.iter().map(ToString::to_string).collect();
        let update = Update { release, urgency: manifest.urgency, notes, artifacts, to_fetch: 0, newer: None };
        Ok(Update { to_fetch: self.missing(&update), ..update })
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
                    Some(place) => self.updater.read_in(place, found, limit),
                    None => self.updater.read(found, limit),
                }?;
                self.store.save(&name, &bytes)?;
                Ok(bytes)
            }
        }
    }

    /// How the policy judges a step of an update, for the device that `profile` describes.
    fn judge(&self, step: Step, update: &Update, profile: &Profile, now: UtcTime) -> Judgement {
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

    fn quarantined(&self) -> &[Failed] {
        self.quarantine.value().map_or(&[], |quarantine| &quarantine.releases)
    }

    /// Prepares for the device's cohort. If it is protected, its role is fetched through its gate, whose location is returned.
    fn approach(
        &mut self,
        profile: &Profile,
        choice: &CohortChoice,
        protected: Option<&Protected>,
    ) -> Result<Option<Repository>, String> {
        let Some(protected) = protected else {
            self.visit.begin(None);
            self.updater.route(None);
            return Ok(None);
        };
        let gate = &protected.gate;
        if !self.has_gate {
            return Err(format!(
                "cohort {} is protected: its gate {gate} requires authentication, and this device has no gate settings",
                choice.cohort
            ));
        }
        let role = layout::cohort_role(&profile.channel, &choice.cohort);
        self.visit.begin(Some(Visit { gate: gate.clone(), role: role.clone(), device: profile.id.clone() }));
        let repository = Repository::at(&gate.repository()).map_err(|e| e.to_string())?;
        self.updater.route(Some(Elsewhere { role, repository: repository.clone() }));
        Ok(Some(repository))
    }

    /// Downloads an update's artifacts: into the slot that does not run, if the installer has slots and the release a
    /// [delivery](crate::delivery), or into the state folder. Resumes partial downloads and removes those of other updates. Every 24 hours,
    /// the device refreshes and decides again.
    ///
    /// # Errors
    ///
    /// [`Error::NoRoom`] before the first request if there is too little space. Network errors are retried as
    /// often as the device's [`Retry`] allows. [`Error::Outdated`] if the decision changes; partial downloads are kept.
    pub fn download(
        &mut self,
        update: &Update,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Downloaded, Error> {
        let mut update = update.clone();
        let mut watch = Watch::new(progress, &self.cancel);
        loop {
            let result = self.download_for_a_day(&update, &mut watch);
            if let Some((cost, _)) = self.spent.take() {
                self.recorder.record_fetched(&self.store, &update.release, cost);
            }
            match result {
                Err(Error::Outdated { .. }) if !self.is_barred.take() => update = self.decide_again(&update)?,
                result => return result,
            }
        }
    }

    /// Refreshes and decides again, with the facts of now. Without a network, the device goes by what it trusts, as far as that has not expired.
    ///
    /// # Errors
    ///
    /// [`Error::Outdated`] unless the decision is to install the same release; as for [`check`](Device::check).
    pub(crate) fn decide_again(&mut self, update: &Update) -> Result<Update, Error> {
        if !self.fact_sources.is_empty() {
            self.profile.own_facts = gather(&self.fact_sources).facts;
            self.profile.own_facts.remove(Attestation::FACT);
        }
        let profile = self.profile.clone();
        let mut check = self.check_as(&profile, None, false);
        if check.as_ref().is_err_and(|error| error.fault() == Fault::Network) {
            check = self.check_offline();
        }
        let Check { explanation, update: again, .. } = check?;
        let outdated = || outdated(update, explanation.outcome.to_string());
        again.filter(|again| again.release == update.release).ok_or_else(outdated)
    }

    fn download_for_a_day(&mut self, update: &Update, watch: &mut Watch<'_>) -> Result<Downloaded, Error> {
        let due = self.updater.elapsed().saturating_add(DECISION);
        self.remove_downloads_but(update);
        let (places, in_slots) = self.places(update)?;
        if !in_slots {
            self.must_have_room(&update.artifacts)?;
        }
        let mut artifacts = Vec::new();
        for (index, artifact) in update.artifacts.iter().enumerate() {
            let path = self.download_path(artifact);
            self.visit.begin(artifact.visit.clone());
            let mut watched = |at: Progress<'_>| {
                watch.at(Progress { name: &artifact.name, ..at })?;
                if self.updater.elapsed() < due { Ok(()) } else { Err(outdated(update, String::new())) }
            };
            let place = places.get(index).cloned().unwrap_or_default();
            if let Some(path) = self.deliver(update, artifact, &place, in_slots, &mut watched)? {
                artifacts.push(artifact.at(path));
                continue;
            }
            let before = self.stored(artifact);
            let mut failures = 0;
            loop {
                let mut most = 0;
                let mut watched = |at: Progress<'_>| {
                    most = at.done;
                    watch.at(Progress { name: &artifact.name, ..at })?;
                    if self.updater.elapsed() < due { Ok(()) } else { Err(outdated(update, String::new())) }
                };
                let before = length(&part_of(&path));
                match download(self.updater.fetcher(), self.store.disk(), &artifact.wanted, &path, &mut watched) {
                    Ok(()) => break,
                    // A server that asks for a longer pause is asked by the next check.
                    Err(e)
                        if matches!(&e, Error::Fetch(fetch) if fetch.is_temporary())
                            && failures < self.retry.times
                            && e.retry_after().is_none_or(|pause| pause <= self.retry.longest) =>
                    {
                        // Progress resets the number of attempts.
                        failures = if most > before { 1 } else { failures + 1 };
                        let pause = self.retry.pause(failures, jitter());
                        self.cancel.sleep(pause.max(e.retry_after().unwrap_or_default()))?;
                    }
                    Err(e) => return Err(e),
                }
            }
            if artifact.files.is_some() {
                self.spend(WayKind::Whole, artifact.length - before);
            }
            artifacts.push(artifact.at(path));
        }
        if in_slots && artifacts.iter().zip(&places).all(|(file, place)| place.slot.as_ref() == Some(&file.path)) {
            self.note_overwritten(&update.release, true, false)?;
        }
        let overwrites = places.iter().any(|place| place.slot.is_some());
        Ok(Downloaded { update: update.clone(), artifacts, overwrites })
    }

    /// Hashes the downloaded files again. Removes a file that has changed. (What is in a slot is read back when it is installed.)
    ///
    /// # Errors
    ///
    /// [`Error::WrongTarget`] if an artifact changed since it was verified, [`Error::File`] if it cannot be read.
    pub fn verify(&self, downloaded: &Downloaded) -> Result<(), Error> {
        let artifacts = downloaded.artifacts.iter().zip(&downloaded.update.artifacts);
        for (artifact, wanted) in artifacts.filter(|(file, artifact)| file.path == self.download_path(artifact)) {
            let failed = |source| Error::File { action: "read", path: artifact.path.clone(), source };
            let mut file = fs::File::open(&artifact.path).map_err(failed)?;
            let mut checker = Checker::new(Some(artifact.length), Some(&artifact.hashes));
            let fed = crate::download::feed(&mut file, &mut checker).map_err(failed)?;
            if let Err(mismatch) = fed.and_then(|()| checker.finish()) {
                let _ = self.store.disk().remove(&artifact.path);
                let (path, url) = (wanted.wanted.name.clone(), artifact.path.display().to_string());
                return Err(Error::WrongTarget { path, url, mismatch });
            }
        }
        Ok(())
    }

    /// The number of bytes still to fetch for an update, in the cheapest way.
    fn missing(&self, update: &Update) -> u64 {
        if self.is_complete(&update.release) {
            return 0;
        }
        let missing = |artifact: &UpdateArtifact| self.cheapest(artifact).min(artifact.length - self.stored(artifact));
        update.artifacts.iter().map(missing).fold(0, u64::saturating_add)
    }

    /// Whether an update was downloaded, so that only the installation is missing.
    pub(crate) fn has_downloaded(&self, update: &Update) -> bool {
        let is_there = |artifact: &UpdateArtifact| {
            let found = fs::symlink_metadata(self.download_path(artifact));
            found.is_ok_and(|found| found.is_file() && found.len() == artifact.length)
        };
        self.is_complete(&update.release) || update.artifacts.iter().all(is_there)
    }

    /// How many bytes of an artifact are in the state folder.
    fn stored(&self, artifact: &UpdateArtifact) -> u64 {
        let path = self.download_path(artifact);
        let here = length(&path).max(length(&part_of(&path)));
        // A longer part belongs to another file.
        if here > artifact.length { 0 } else { here }
    }

    /// The bytes that the state folder must take, and those that it can, if they are known and too few.
    fn lacks_room(&self, artifacts: &[UpdateArtifact]) -> Option<(u64, u64)> {
        let missing = artifacts.iter().map(|it| it.length - self.stored(it)).fold(0, u64::saturating_add);
        let needed = missing.saturating_add(self.reserve);
        let free = self.store.disk().room(self.store.folder()).ok().flatten()?;
        // If the free space is unknown, a full disk is reported on writing.
        (missing > 0 && free < needed).then_some((needed, free))
    }

    fn must_have_room(&self, artifacts: &[UpdateArtifact]) -> Result<(), Error> {
        match self.lacks_room(artifacts) {
            Some((needed, free)) => Err(Error::NoRoom { path: self.store.folder().to_owned(), free, needed }),
            None => Ok(()),
        }
    }

    fn download_path(&self, artifact: &UpdateArtifact) -> PathBuf {
        self.store.folder().join("downloads").join(artifact.sha256.to_string())
    }

    /// Removes downloads that are not part of this update.
    fn remove_downloads_but(&self, update: &Update) {
        let names = update.artifacts.iter().flat_map(files_of);
        let keep: Vec<PathBuf> = names.map(|name| self.store.folder().join("downloads").join(name)).collect();
        let entries = fs::read_dir(self.store.folder().join("downloads")).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| !keep.contains(path)) {
            let _ = self.store.disk().remove(&path);
        }
    }

    /// Removes all downloads. A file that cannot be removed now is removed before the next download.
    fn remove_downloads(&self) {
        let entries = fs::read_dir(self.store.folder().join("downloads")).into_iter().flatten().flatten();
        for entry in entries {
            let _ = self.store.disk().remove(&entry.path());
        }
    }

    /// An error if this release or a later one runs.
    pub(crate) fn must_be_newer(&self, release: &Release) -> Result<(), Error> {
        if release.sequence > self.profile.installed.sequence {
            return Ok(());
        }
        Err(Error::State(format!(
            "{} (sequence {}) or a later release is already installed",
            release.version, release.sequence
        )))
    }

    /// Confirms what was recorded, if that is no update in progress.
    pub(crate) fn confirm_recorded(&mut self) -> Result<(), Error> {
        if let Some(release) = self.unrecorded()? {
            self.settle(&release)?;
        }
        let record = self.installed()?;
        self.look();
        if let Some(why) = record.difference(self.place.as_ref(), &self.factory) {
            return Err(Error::State(format!("{why}: there is nothing to confirm")));
        }
        if record.state != InstallState::Confirmed {
            self.record_result(&record.release, InstallResult::Confirmed, None);
            self.settle(&record.release)?;
        }
        Ok(())
    }

    /// The state of the update.
    pub fn machine(&self) -> &Machine {
        static NEW: Machine = Machine { state: State::Idle, failures: 0, restart: None, begun: None };
        self.machine.value().unwrap_or(&NEW)
    }

    /// The device's time: that of its clock, or signed time if the clock is not plausible (see [`clock`](crate::clock)).
    pub fn now(&self) -> UtcTime {
        self.updater.now()
    }

    /// The newest signed time that the clock had reached: a clock before it is wrong.
    pub fn remembered(&self) -> UtcTime {
        self.updater.remembered()
    }

    /// The user's deferral. It is read each time, because the user may change it while this process runs.
    fn deferral(&self) -> Option<Deferral> {
        Kept::load(&self.store, DEFERRAL, &mut Vec::new()).ok()?.value().copied()
    }

    /// Postpones the installation of an update at the user's request, up to the limit of the device's policy. The installation of another
    /// release is not postponed.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the policy does not let users defer this release, or no longer; [`Error::Store`] if it cannot be stored.
    pub fn defer(&mut self, update: &Update, until: UtcTime) -> Result<Deferral, Error> {
        self.defer_release(&update.release, update.urgency, until)
    }

    /// Postpones the installation of the release that waits for it.
    fn defer_pending(mut self, until: UtcTime) -> Result<Deferral, Error> {
        let nothing = || Error::State("no release is waiting to be installed: there is nothing to defer".into());
        let release = self.machine().state.pending().cloned().ok_or_else(nothing)?;
        let found = self.check_offline().ok().and_then(|check| check.update);
        let found = found.filter(|update| update.release.sequence == release.sequence);
        self.defer_release(&release, found.map_or(Urgency::Normal, |update| update.urgency), until)
    }

    fn defer_release(&self, release: &Release, urgency: Urgency, until: UtcTime) -> Result<Deferral, Error> {
        let Release { version, sequence, .. } = release.clone();
        if urgency == Urgency::Security && self.policy.is_overridden(policy::Rule::Deferral) {
            let why = format!("{version} is a security release, which policy.security_overrides lets nobody defer");
            return Err(Error::State(why));
        }
        let limit = self.policy.deferral.limit;
        if limit.is_zero() {
            return Err(Error::State(
                "the policy lets no user defer releases: policy.deferral.limit is not set".into(),
            ));
        }
        let store = DirStore::unlocked(self.store.folder());
        let mut kept = Kept::<Deferral>::load(&store, DEFERRAL, &mut Vec::new())?;
        // One from the future is from before the clock was set back.
        let counts = |deferral: &&Deferral| deferral.sequence == sequence && deferral.since <= self.now();
        let before = kept.value().filter(counts);
        let since = before.map_or(self.now(), |deferral| deferral.since);
        let last = since.checked_add_signed(limit).unwrap_or(since);
        if last <= self.now() {
            let last = time::format(last);
            return Err(Error::State(format!("the policy let the user defer {version} until {last}, and no longer")));
        }
        let deferral = Deferral { sequence, since, until: until.min(last) };
        kept.save(&store, deferral)?;
        Ok(deferral)
    }

    /// The state after `event`, saved if it is durable.
    pub(crate) fn advance(&mut self, event: Event, tolerance: Tolerance) -> Result<(), Error> {
        let next = self.machine().next(event, tolerance)?;
        let next = Machine { state: next.state.bounded(), ..next };
        trace!(before = self.machine().state.name(), after = next.state.name(), "advances the update");
        self.record_step(&next.state);
        if !next.state.is_durable() || self.machine.stored().unwrap_or(&Machine::default()) == &next {
            self.machine.set(next);
            return Ok(());
        }
        Ok(self.machine.save(&self.store, next)?)
    }

    /// How the policy judges a step of an update now.
    pub(crate) fn judge_now(&self, step: Step, update: &Update) -> Judgement {
        self.judge(step, update, &self.profile, self.now())
    }

    /// What runs now, as the installer names it.
    pub(crate) fn running(&mut self) -> Result<Option<Place>, Error> {
        self.place = self.installer()?.running()?;
        self.update_profile();
        Ok(self.place.clone())
    }

    /// Whether it can install releases.
    pub fn has_installer(&self) -> bool {
        self.installer.is_some()
    }

    /// How many bytes are free where downloads go, if that is known.
    pub fn room(&self) -> Option<u64> {
        self.store.disk().room(self.store.folder()).ok().flatten()
    }

    /// What runs now, as the installer names it, once an installation can begin. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] without an installer, [`Error::Install`] if it could not install now.
    pub fn ready(&mut self) -> Result<Option<Place>, Error> {
        self.installer()?.ready()?;
        self.running()
    }

    /// Runs the installer. Records nothing.
    pub(crate) fn put(
        &mut self,
        downloaded: &Downloaded,
        progress: &mut dyn FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let release = &downloaded.update.release;
        if downloaded.overwrites {
            self.running()?;
            self.note_overwritten(release, self.is_complete(release), true)?;
        }
        let version = &release.version;
        let mut watch = Watch::new(progress, &self.cancel);
        Ok(self.installer()?.install(version, &downloaded.artifacts, &mut watch)?)
    }

    /// Records that a release runs on trial, and removes its download.
    pub(crate) fn begin_trial(&mut self, release: &Release) -> Result<(), Error> {
        let is_noted = |record: &Record| record.release == *release && record.state == InstallState::Trial;
        if !self.record.value().is_some_and(is_noted) {
            self.note_new(release, InstallState::Trial)?;
            self.remove_downloads();
        }
        Ok(())
    }

    /// Confirms the running release and records it.
    pub(crate) fn settle(&mut self, release: &Release) -> Result<(), Error> {
        // Without one, the release took effect at once.
        if self.installer.is_some() || self.place_before().is_some() {
            self.installer()?.confirm()?;
        }
        self.note_new(release, InstallState::Confirmed)
    }

    /// What ran before the release on trial.
    fn place_before(&self) -> Option<&Place> {
        match &self.machine().state {
            State::Trial { attempt, .. } => attempt.before.as_ref(),
            _ => None,
        }
    }

    /// The current boot.
    pub(crate) fn boot(&self) -> BootInfo {
        self.boot.as_ref().map_or_else(BootInfo::now, |boot| boot())
    }

    /// The token that ends what it does.
    pub(crate) fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    /// Whether its state can only be read.
    pub(crate) fn is_view(&self) -> bool {
        !self.store.is_locked()
    }

    /// Makes the installer restore what ran before.
    pub(crate) fn go_back(&mut self, before: &Place) -> Result<(), Error> {
        Ok(self.installer()?.revert(before)?)
    }

    /// Lets a release that failed here be tried again.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if it is not quarantined, [`Error::Store`] if that cannot be stored.
    pub fn lift(&mut self, version: &Version) -> Result<(), Error> {
        let mut quarantine = self.quarantine.value().cloned().unwrap_or_default();
        let (lifted, kept): (Vec<_>, _) =
            quarantine.releases.into_iter().partition(|failed| failed.version == *version);
        if lifted.is_empty() {
            return Err(Error::State(format!("{version} is not in quarantine on this device")));
        }
        quarantine.releases = kept;
        // First, because an agent quarantines the release of this state.
        for Failed { sequence, .. } in lifted {
            self.advance(Event::Lifted { sequence }, Tolerance::default())?;
        }
        Ok(self.quarantine.save(&self.store, quarantine)?)
    }

    /// Records that a release failed here, and that the previous one is the installed release again, in the place `before`.
    pub(crate) fn forget(&mut self, release: &Release, why: &str, before: Option<&Place>) -> Result<(), Error> {
        self.put_in_quarantine(release, why)?;
        self.take_back(release, before)
    }

    /// Records that a release failed here.
    pub(crate) fn put_in_quarantine(&mut self, release: &Release, why: &str) -> Result<(), Error> {
        if !self.quarantined().iter().any(|failed| failed.is(release)) {
            let Release { version, sequence, sha256 } = release.clone();
            let failed = Failed { version, sequence, sha256, why: why.to_owned() };
            let mut quarantine = self.quarantine.value().cloned().unwrap_or_default();
            quarantine.add(failed);
            // First, so that an interruption cannot make the device retry.
            self.quarantine.save(&self.store, quarantine)?;
        }
        self.remove_downloads();
        Ok(())
    }

    /// Records that the previous release is the installed release again, in the place `before`.
    pub(crate) fn take_back(&mut self, release: &Release, before: Option<&Place>) -> Result<(), Error> {
        let Some(record) = self.record.value().filter(|record| record.release == *release).cloned() else {
            return Ok(());
        };
        if let Some(release) = record.previous.clone() {
            let (state, place) = (InstallState::Confirmed, before.cloned());
            self.note(Record { release, state, place, image: None, previous: None, ..record })
        } else {
            self.record.remove(&self.store)?;
            self.update_profile();
            Ok(())
        }
    }

    /// Records that a release is installed and what it replaces, unless that is already recorded.
    fn note_new(&mut self, release: &Release, state: InstallState) -> Result<(), Error> {
        let noted = self.record.value().filter(|record| record.release == *release);
        if noted.is_some_and(|record| record.state == state) {
            return Ok(());
        }
        let previous = match noted.or(self.record.value()) {
            Some(record) if noted.is_some() || record.state == InstallState::Left => record.previous.clone(),
            record => record.map(|record| record.release.clone()),
        };
        let (place, image) = (self.place.clone(), self.image(release));
        self.note(Record {
            product: self.profile.product.clone(),
            channel: self.profile.channel.clone(),
            release: release.clone(),
            state,
            place,
            image,
            previous,
        })
    }

    fn note(&mut self, record: Record) -> Result<(), Error> {
        if self.overwritten.value().is_some_and(|overwritten| overwritten.release == record.release) {
            // What ran before is the fallback now.
            self.overwritten.remove(&self.store)?;
        }
        self.record.save(&self.store, record)?;
        self.update_profile();
        Ok(())
    }

    pub(crate) fn installed(&self) -> Result<Record, Error> {
        let nothing = || Error::State("nothing is installed on this device yet".into());
        self.record.value().cloned().ok_or_else(nothing)
    }

    fn installer(&mut self) -> Result<&mut (dyn Installer + Send + 'static), Error> {
        let none = || Error::Setting("no installer is set: give the device one, such as a slot".into());
        self.installer.as_deref_mut().ok_or_else(none)
    }

    /// The unsent receipts, the oldest first.
    pub fn waiting_receipts(&self) -> &[SignedReceipt] {
        self.recorder.pending()
    }

    /// The status of this device's receipts; `None` without a key to sign them.
    pub fn receipts(&self) -> Option<ReceiptStatus> {
        self.recorder.status()
    }

    /// Sends the queued receipts and removes the acknowledged ones. Sends nothing during the delay after a failure.
    ///
    /// # Errors
    ///
    /// [`Error::State`] without a key to sign receipts. A failure to send is not an error; see [`Sent::problem`].
    pub fn send_receipts(&mut self, sink: &mut dyn Sink, options: Sending) -> Result<Sent, Error> {
        let now = self.now();
        let none = || Error::State("this device records no receipts: configure a key to sign them".into());
        self.recorder.send(&self.store, sink, options, now).ok_or_else(none)
    }

    /// Records that a release could not be installed, for callers that drive the device themselves and stop trying.
    ///
    /// [`install`](Device::install) and [`reject`](Device::reject) record final results automatically.
    pub fn give_up(&mut self, update: &Update, why: &str) {
        self.record_result(&update.release, InstallResult::Failed, Some(why));
    }

    /// The last recording failure. A second call returns `None`.
    pub(crate) fn receipt_problem(&mut self) -> Option<String> {
        self.recorder.take_problem()
    }

    /// Records that a check decided to install this.
    fn record_offer(&mut self, explanation: &Explanation, update: &Update) {
        let at = self.now();
        self.recorder.record_offer(&self.store, explanation, &update.release, at);
    }

    /// Records the result of a release.
    fn record_result(&mut self, release: &Release, outcome: InstallResult, why: Option<&str>) {
        let at = self.now();
        self.recorder.record(&self.store, release, outcome, why, at);
    }

    /// Records the result of a step of the update, before the state is written.
    fn record_step(&mut self, after: &State) {
        let (at, before) = (self.now(), self.machine().state.clone());
        self.recorder.record_step(&self.store, &before, after, at);
    }

    /// Records the result of the current state, if that could not be written earlier.
    pub(crate) fn record_expected(&mut self) {
        let (at, state) = (self.now(), self.machine().state.clone());
        self.recorder.record_expected(&self.store, &state, at);
    }

    /// Records a failed release after too many failures in a row.
    pub(crate) fn record_failure(&mut self, error: &Error, tolerance: Tolerance) {
        let (at, machine) = (self.now(), self.machine().clone());
        self.recorder.record_failure(&self.store, &machine, tolerance, error, at);
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

fn without_secrets<S: serde::Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&public_url(url))
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
        Error::Missing { what, said, .. } if what == role => {
            let answered = if said.is_empty() { "" } else { ": the server answered " };
            Ok(format!("role {role} is listed, but its file is missing{answered}{said}"))
        }
        error => Err(error),
    }
}

fn expired(role: &str, expires: UtcTime) -> String {
    let expires = tidegate_tuf::time::format(expires);
    format!("role {role} expired at {expires}: it is renewed by tidegate refresh")
}

/// Converts a gate's refusal into a reason to keep the installed release.
fn or_denied(
    offered: Result<Result<Found, String>, Error>,
    choice: &CohortChoice,
    protected: Option<&Protected>,
) -> Result<Result<Found, String>, Error> {
    match (offered, protected) {
        (Err(Error::Fetch(FetchError::Denied { refusal, .. })), Some(protected)) => Ok(Err(format!(
            "cohort {} is protected, and its gate {} denied this device access: {refusal}",
            choice.cohort, protected.gate
        ))),
        (offered, _) => offered,
    }
}

fn outdated(update: &Update, why: String) -> Error {
    Error::Outdated { release: update.release.version.to_string(), why }
}

fn length(path: &std::path::Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| if metadata.is_file() { allocated(&metadata) } else { 0 })
}
