//! Whether a device installs a release, and why: one pure function of signed metadata and the device's profile.
//!
//! Publisher and device call the same [`decide`] on each offer, and [`choose`] on all of them. Every [`Rule`] is evaluated and reported,
//! also behind one that fails, so that an explanation shows everything that prevents a device from installing a release.
//!
//! The outcome of an offer; the first match wins:
//!
//! | what fails | outcome |
//! |---|---|
//! | [`Rule::Offer`] | [`Outcome::NoOffer`] |
//! | [`Rule::Approved`] | [`Outcome::Refuse`] |
//! | [`Rule::Sequence`] | [`Outcome::UpToDate`] |
//! | [`Rule::Quarantine`] | [`Outcome::Refuse`] |
//! | [`Rule::Pause`], [`Rule::Until`], [`Rule::Ramp`] | [`Outcome::Wait`] |
//! | [`Rule::Product`], [`Rule::Channel`], [`Rule::Assigned`] | [`Outcome::Refuse`] |
//! | [`Rule::Hardware`], [`Rule::Eligibility`], [`Rule::Version`], [`Rule::Upgrade`] | [`Outcome::NotEligible`] |
//! | nothing, and a bridge is needed | [`Outcome::Bridge`] |
//! | nothing | [`Outcome::Install`] |
//!
//! The offer's own rules come first, so that the outcome is the same whether or not the manifest of an offer that cannot be taken now
//! was read. A bridge needs its own decision: fetch its manifest, and call [`decide`] again with
//! [`Offer::through`](super::rollout::Offer::through).

mod rules;

use super::cohort::CohortChoice;
use super::condition;
use super::digest::Digest;
use super::facts::{FactValue, Facts};
use super::gate::Attestation;
use super::manifest::Manifest;
use super::name::{ArtifactName, DeviceId, FactName, HardwareId, Name};
use super::rollout::{Bridge, Offer};
use super::time::{self, UtcTime};
use super::version::Version;
use crate::prelude::*;

/// A device as decisions see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// Its id.
    pub id: DeviceId,
    /// The product it requests.
    pub product: Name,
    /// The channel it follows.
    pub channel: Name,
    /// Its hardware.
    pub hardware: HardwareId,
    /// What it runs.
    pub installed: Installed,
    /// Its own facts; see [`Profile::facts`].
    #[serde(rename = "facts", default)]
    pub own_facts: Facts,
    /// Its kind of attestation. On a device only the attestor sets this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
}

/// The installed release.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Installed {
    /// Its version.
    pub version: Version,
    /// Its sequence; 0 for the factory image.
    pub sequence: u64,
}

/// A release that failed on this device.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quarantined {
    /// Its sequence.
    pub sequence: u64,
    /// SHA-256 of its manifest.
    pub sha256: Digest,
}

/// What is known of the manifest of an offered release.
#[derive(Debug, Clone, Copy)]
pub enum Approval<'a> {
    /// The channel's role lists it, and it was read.
    Manifest(&'a Manifest),
    /// The channel's role lists it. It was not read, because the offer cannot be taken now.
    NotRead,
    /// It contradicts the channel's role, or cannot be understood. Why, as a sentence without a full stop.
    Contradicted(&'a str),
}

/// The inputs of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The device.
    pub device: &'a Profile,
    /// Its cohort, by [`CohortMap::choose`](super::cohort::CohortMap::choose) on [`Profile::facts`].
    pub choice: &'a CohortChoice,
    /// An offer of that cohort.
    pub offer: &'a Offer,
    /// The manifest of the offered release.
    pub approval: Approval<'a>,
    /// The instant to decide for: what opens goes by it.
    pub now: UtcTime,
    /// The instant for what closes: the same, or later where signed metadata shows that more time has passed.
    pub latest: UtcTime,
    /// Releases that failed on this device.
    pub quarantined: &'a [Quarantined],
}

/// A decision with the outcome of every rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Decision {
    /// What to do.
    pub outcome: Outcome,
    /// When the outcome will change without a new offer, if it will.
    #[serde(with = "time::optional_text")]
    pub changes: Option<UtcTime>,
    /// Every rule, in the order of [`Rule::ALL`].
    pub rules: Vec<RuleOutcome>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// Install the offered release.
    Install {
        /// Its version.
        release: Version,
        /// Its sequence.
        sequence: u64,
        /// The artifacts that fit the device's hardware, at least one.
        artifacts: Vec<ArtifactName>,
    },
    /// Install an intermediate release first, then check again.
    Bridge {
        /// The intermediate release.
        bridge: Bridge,
        /// The version it leads to.
        target: Version,
    },
    /// The device has the offered release or a later one.
    UpToDate {
        /// The reason.
        why: String,
    },
    /// The release is for this device, but not yet.
    Wait {
        /// When the device may install it; `None` if that needs a new offer.
        #[serde(with = "time::optional_text")]
        until: Option<UtcTime>,
        /// The rule that delays it.
        rule: Rule,
        /// Why.
        why: String,
    },
    /// The release is not suitable for this device in its current state.
    NotEligible {
        /// The first rule that fails.
        rule: Rule,
        /// Why.
        why: String,
    },
    /// The offer must not be installed on this device: it is inconsistent, or it failed here before.
    Refuse {
        /// The first rule that fails.
        rule: Rule,
        /// Why.
        why: String,
    },
    /// The cohort has no offer.
    NoOffer {
        /// Why.
        why: String,
    },
}

/// The kind of an [`Outcome`]. The names are those of its JSON form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutcomeKind {
    /// [`Outcome::Install`]
    Install,
    /// [`Outcome::Bridge`]
    Bridge,
    /// [`Outcome::UpToDate`]
    UpToDate,
    /// [`Outcome::Wait`]
    Wait,
    /// [`Outcome::NotEligible`]
    NotEligible,
    /// [`Outcome::Refuse`]
    Refuse,
    /// [`Outcome::NoOffer`]
    NoOffer,
}

impl OutcomeKind {
    /// The kinds with their names.
    pub const NAMES: [(&str, Self); 7] = [
        ("install", Self::Install),
        ("bridge", Self::Bridge),
        ("up-to-date", Self::UpToDate),
        ("wait", Self::Wait),
        ("not-eligible", Self::NotEligible),
        ("refuse", Self::Refuse),
        ("no-offer", Self::NoOffer),
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl Outcome {
    /// Its kind.
    pub fn kind(&self) -> OutcomeKind {
        match self {
            Self::Install { .. } => OutcomeKind::Install,
            Self::Bridge { .. } => OutcomeKind::Bridge,
            Self::UpToDate { .. } => OutcomeKind::UpToDate,
            Self::Wait { .. } => OutcomeKind::Wait,
            Self::NotEligible { .. } => OutcomeKind::NotEligible,
            Self::Refuse { .. } => OutcomeKind::Refuse,
            Self::NoOffer { .. } => OutcomeKind::NoOffer,
        }
    }
}

/// A rule of decisions. The ids are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Rule {
    /// The cohort has an offer.
    #[serde(rename = "D-OFFER")]
    Offer,
    /// The channel has approved the offered release, with the same manifest.
    #[serde(rename = "D-APPROVED")]
    Approved,
    /// The offered sequence increases. This rule cannot be disabled.
    #[serde(rename = "D-SEQUENCE")]
    Sequence,
    /// The release did not fail on this device before.
    #[serde(rename = "D-QUARANTINE")]
    Quarantine,
    /// The offer is not paused.
    #[serde(rename = "D-PAUSE")]
    Pause,
    /// The offer has not ended by itself.
    #[serde(rename = "D-UNTIL")]
    Until,
    /// The ramp has reached the device.
    #[serde(rename = "D-RAMP")]
    Ramp,
    /// The manifest is for the device's product.
    #[serde(rename = "D-PRODUCT")]
    Product,
    /// The manifest is for the device's channel.
    #[serde(rename = "D-CHANNEL")]
    Channel,
    /// The manifest belongs to the offered release: same version, same sequence.
    #[serde(rename = "D-ASSIGNED")]
    Assigned,
    /// The version increases, or the release supersedes the installed one.
    #[serde(rename = "D-VERSION")]
    Version,
    /// An artifact fits the device's hardware, and on a device: its installer takes those that do.
    #[serde(rename = "D-HARDWARE")]
    Hardware,
    /// The release's condition on facts holds.
    #[serde(rename = "D-ELIGIBILITY")]
    Eligibility,
    /// The release upgrades from the installed version, or a bridge does.
    #[serde(rename = "D-UPGRADE")]
    Upgrade,
}

/// The outcome of a rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RuleOutcome {
    /// The rule.
    pub rule: Rule,
    /// The verdict.
    pub verdict: Verdict,
    /// Why, as a sentence without a full stop.
    pub why: String,
    /// For [`Rule::Eligibility`]: the condition's outcome, down to its tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<condition::Outcome>,
}

/// The outcome of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is satisfied.
    Pass,
    /// It is not.
    Fail,
    /// The rule does not apply.
    NotApplicable,
}

/// Decides whether a device takes an offer.
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let Inputs { device, approval, .. } = *inputs;
    let mut outcomes = own_rules(inputs);
    if let Approval::Manifest(manifest) = approval {
        outcomes.extend([
            rules::same(Rule::Product, "product", &manifest.product, &device.product),
            rules::same(Rule::Channel, "channel", &manifest.channel, &device.channel),
            rules::assigned(inputs.offer, manifest),
            rules::version(manifest, &device.installed),
            rules::hardware(manifest, &device.hardware),
            rules::eligibility(manifest, &device.facts()),
            rules::upgrade(inputs.offer, manifest, &device.installed),
        ]);
    } else {
        let rest = Rule::ALL.into_iter().skip(outcomes.len());
        outcomes
            .extend(rest.map(|rule| rules::not_applicable(rule, "not evaluated: the manifest was not read".into())));
    }
    let outcome = conclude(inputs, &outcomes);
    let changes = match &outcome {
        Outcome::Wait { until, .. } => *until,
        _ => None,
    };
    Decision { outcome, changes, rules: outcomes }
}

impl Decision {
    /// The same for a device that could take the release but for its own settings, as [`Rule::Hardware`] then says. `why` is a sentence
    /// without a full stop.
    pub fn unfit(&mut self, why: String) {
        for outcome in self.rules.iter_mut().filter(|outcome| outcome.rule == Rule::Hardware) {
            (outcome.verdict, outcome.why) = (Verdict::Fail, why.clone());
        }
        self.outcome = Outcome::NotEligible { rule: Rule::Hardware, why };
    }
}

/// Whether the offer's own rules pass, so that its manifest is needed for a decision.
pub fn needs_manifest(inputs: &Inputs<'_>) -> bool {
    own_rules(inputs).iter().all(|outcome| outcome.verdict != Verdict::Fail)
}

/// The outcome for a cohort without offers. `why` is a sentence without a full stop.
pub fn no_offer(why: &str) -> Outcome {
    Outcome::NoOffer { why: why.to_owned() }
}

/// The index of the decision that counts, of those on a device's offers in order: the first offer that it takes now; else the first one that
/// it waits for; else the first one that it refuses; else what it has already; else the first one.
pub fn choose<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Option<usize> {
    let rank = |outcome: &Outcome| match outcome {
        Outcome::Install { .. } | Outcome::Bridge { .. } => 0,
        Outcome::Wait { .. } => 1,
        Outcome::Refuse { .. } => 2,
        Outcome::UpToDate { .. } => 3,
        Outcome::NotEligible { .. } | Outcome::NoOffer { .. } => 4,
    };
    // The first of equals.
    outcomes.into_iter().enumerate().min_by_key(|(_, outcome)| rank(outcome)).map(|(index, _)| index)
}

/// The rules that need no manifest.
fn own_rules(inputs: &Inputs<'_>) -> Vec<RuleOutcome> {
    let Inputs { device, choice, offer, approval, now, latest, quarantined } = *inputs;
    vec![
        rules::offered(offer, &choice.cohort),
        rules::approved(&approval),
        rules::sequence(offer, &device.installed),
        rules::quarantine(offer, quarantined),
        rules::pause(offer),
        rules::until(offer, latest),
        rules::ramp(offer, choice, now),
    ]
}

impl Profile {
    /// The facts that conditions see: the device's own, and `product`, `channel`, `hardware`, `version`, `sequence` and
    /// `attestation`, which are always those of the profile. The last is missing if the device gives no evidence.
    pub fn facts(&self) -> Facts {
        let sequence = i64::try_from(self.installed.sequence).unwrap_or(i64::MAX);
        let built_in = [
            ("product", FactValue::from(self.product.as_str())),
            ("channel", FactValue::from(self.channel.as_str())),
            ("hardware", FactValue::from(self.hardware.as_str())),
            ("version", FactValue::Text(self.installed.version.to_string())),
            ("sequence", FactValue::from(sequence)),
        ];
        let mut facts = self.own_facts.clone();
        facts.remove(Attestation::FACT);
        let attestation = self.attestation.map(|kind| (Attestation::FACT, FactValue::from(kind.name())));
        for (name, value) in built_in.into_iter().chain(attestation) {
            if let Ok(name) = name.parse::<FactName>() {
                facts.insert(name, value);
            }
        }
        facts
    }

    /// The same device, with the attestation that the fact `attestation` among its own facts names; `none` means no attestation.
    /// Without that fact, the device is unchanged.
    ///
    /// # Errors
    ///
    /// What is wrong with the fact.
    pub fn assumed(mut self) -> Result<Self, String> {
        match self.own_facts.remove(Attestation::FACT) {
            None => {}
            Some(FactValue::Text(kind)) if kind == "none" => self.attestation = None,
            Some(FactValue::Text(kind)) => self.attestation = Some(kind.parse()?),
            Some(other) => return Err(format!("{other} is no kind of evidence: use one of tpm2, ear, none")),
        }
        Ok(self)
    }
}

impl Rule {
    /// Every rule, in the order in which decisions report them.
    pub const ALL: [Rule; 14] = [
        Rule::Offer,
        Rule::Approved,
        Rule::Sequence,
        Rule::Quarantine,
        Rule::Pause,
        Rule::Until,
        Rule::Ramp,
        Rule::Product,
        Rule::Channel,
        Rule::Assigned,
        Rule::Version,
        Rule::Hardware,
        Rule::Eligibility,
        Rule::Upgrade,
    ];

    /// The stable id, e.g. `D-RAMP`.
    pub fn id(self) -> &'static str {
        match self {
            Rule::Offer => "D-OFFER",
            Rule::Approved => "D-APPROVED",
            Rule::Until => "D-UNTIL",
            Rule::Product => "D-PRODUCT",
            Rule::Channel => "D-CHANNEL",
            Rule::Assigned => "D-ASSIGNED",
            Rule::Sequence => "D-SEQUENCE",
            Rule::Version => "D-VERSION",
            Rule::Quarantine => "D-QUARANTINE",
            Rule::Hardware => "D-HARDWARE",
            Rule::Eligibility => "D-ELIGIBILITY",
            Rule::Upgrade => "D-UPGRADE",
            Rule::Pause => "D-PAUSE",
            Rule::Ramp => "D-RAMP",
        }
    }
}

impl core::fmt::Display for Rule {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.id())
    }
}

fn conclude(inputs: &Inputs<'_>, outcomes: &[RuleOutcome]) -> Outcome {
    let Inputs { device, choice, offer, approval, .. } = inputs;
    let failed = |among: &[Rule]| {
        outcomes
            .iter()
            .find(|outcome| outcome.verdict == Verdict::Fail && among.contains(&outcome.rule))
            .map(|outcome| (outcome.rule, outcome.why.clone()))
    };
    if let Some((rule, why)) = failed(&[Rule::Approved]) {
        return Outcome::Refuse { rule, why };
    }
    if let Some((_, why)) = failed(&[Rule::Sequence]) {
        return Outcome::UpToDate { why };
    }
    if let Some((rule, why)) = failed(&[Rule::Quarantine]) {
        return Outcome::Refuse { rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Pause, Rule::Until]) {
        return Outcome::Wait { until: None, rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Ramp]) {
        return Outcome::Wait { until: rules::reached(offer, choice), rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Product, Rule::Channel, Rule::Assigned]) {
        return Outcome::Refuse { rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Version, Rule::Hardware, Rule::Eligibility, Rule::Upgrade]) {
        return Outcome::NotEligible { rule, why };
    }
    let Approval::Manifest(manifest) = approval else {
        // Whoever does not read the manifest of an offer that could be taken cannot take it.
        let why = "the manifest was not read".to_owned();
        return Outcome::Wait { until: None, rule: Rule::Approved, why };
    };
    let Installed { version, sequence } = &device.installed;
    let direct = manifest.upgrade_from.as_ref().is_none_or(|range| range.holds(version));
    match offer.bridge_from(version, *sequence) {
        Some(bridge) if !direct => Outcome::Bridge { bridge: bridge.clone(), target: manifest.version.clone() },
        _ => Outcome::Install {
            release: manifest.version.clone(),
            sequence: manifest.sequence,
            artifacts: manifest.artifacts_for(&device.hardware).map(|artifact| artifact.name.clone()).collect(),
        },
    }
}
