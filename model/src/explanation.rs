//! A decision with its inputs and the outcome of every rule, for people and for machines.
//!
//! Publisher and device print the same text, byte for byte.

use core::fmt::{self, Write as _};

use super::cohort::CohortChoice;
use super::decision::{
    Approval, Decision, Inputs, Installed, Outcome, Profile, Quarantined, Verdict, choose, decide, no_offer,
};
use super::manifest::Urgency;
use super::rollout::{Offer, Ramp, Stage};
use super::time::{self, UtcTime};
use super::version::Version;
use crate::prelude::*;

/// The decisions on all offers of a device's cohort, with their inputs and the outcome of every rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// The instant it is for.
    #[serde(with = "time::text")]
    pub at: UtcTime,
    /// The device.
    pub device: Profile,
    /// Its cohort.
    pub cohort: CohortChoice,
    /// The offers, in order of preference, with the decision on each.
    pub offers: Vec<ExplainedOffer>,
    /// What to do.
    pub outcome: Outcome,
    /// When the outcome will change without a new offer, if it will.
    #[serde(with = "time::optional_text")]
    pub changes: Option<UtcTime>,
}

/// An offer with the decision on it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ExplainedOffer {
    /// The version of the release.
    pub release: Version,
    /// Its sequence.
    pub sequence: u64,
    /// Its stage.
    pub stage: Stage,
    /// Its urgency; `None` if its manifest was not read.
    pub urgency: Option<Urgency>,
    /// The ramp in time.
    pub ramp: Option<Ramp>,
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// If a bridge is needed: the decisions on the bridges, down to the one to install.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub through: Vec<ExplainedOffer>,
}

/// The circumstances that all offers of a cohort are decided in.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The device.
    pub device: &'a Profile,
    /// Its cohort.
    pub choice: &'a CohortChoice,
    /// The instant to decide for.
    pub now: UtcTime,
    /// The instant for what closes; see [`Inputs::latest`].
    pub latest: UtcTime,
    /// Releases that failed on this device.
    pub quarantined: &'a [Quarantined],
}

impl<'a> Circumstances<'a> {
    /// The inputs of the decision on an offer.
    pub fn inputs(&self, offer: &'a Offer, approval: Approval<'a>) -> Inputs<'a> {
        let Self { device, choice, now, latest, quarantined } = *self;
        Inputs { device, choice, offer, approval, now, latest, quarantined }
    }

    /// Explains the decision on each offer, and chooses.
    pub fn explain(&self, offers: Vec<ExplainedOffer>) -> Explanation {
        let chosen = choose(offers.iter().map(ExplainedOffer::outcome));
        let outcome = chosen.and_then(|index| offers.get(index)).map(ExplainedOffer::outcome);
        let outcome = outcome.cloned().unwrap_or_else(|| no_offer("the cohort has no offer"));
        // Whatever is done now, an offer above may be reached later.
        let above = offers.iter().take(chosen.map_or(0, |index| index + 1));
        let changes = above.filter_map(ExplainedOffer::changes).min();
        Explanation { at: self.now, device: self.device.clone(), cohort: self.choice.clone(), offers, outcome, changes }
    }

    /// The explanation for a cohort whose offers cannot be had. `why` is a sentence without a full stop.
    pub fn nothing(&self, why: &str) -> Explanation {
        Explanation { outcome: no_offer(why), ..self.explain(Vec::new()) }
    }
}

impl ExplainedOffer {
    /// Decides on an offer.
    pub fn new(inputs: &Inputs<'_>) -> Self {
        let Inputs { offer, approval, .. } = inputs;
        let urgency = match approval {
            Approval::Manifest(manifest) => Some(manifest.urgency),
            Approval::NotRead | Approval::Contradicted(_) => None,
        };
        Self {
            release: offer.release.clone(),
            sequence: offer.sequence,
            stage: offer.stage,
            urgency,
            ramp: offer.ramp,
            decision: decide(inputs),
            through: Vec::new(),
        }
    }

    /// What to do: the outcome of the last bridge, or else of the offer itself.
    pub fn outcome(&self) -> &Outcome {
        &self.through.last().unwrap_or(self).decision.outcome
    }

    fn changes(&self) -> Option<UtcTime> {
        self.through.last().unwrap_or(self).decision.changes
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, label: &str) -> fmt::Result {
        let Self { release, sequence, stage, urgency, ramp, decision, through } = self;
        write!(f, "{label:<10} {release} (sequence {sequence}), stage {stage}")?;
        if let Some(urgency) = urgency {
            write!(f, ", urgency {urgency}")?;
        }
        match ramp {
            None => writeln!(f, ", no ramp")?,
            Some(ramp) => writeln!(f, ", {ramp}")?,
        }
        for outcome in &decision.rules {
            let verdict = match outcome.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::NotApplicable => "-",
            };
            writeln!(f, "  {verdict:<4}  {:<15} {}", outcome.rule, outcome.why)?;
            if let Some(condition) = &outcome.condition {
                condition.write(f, 12)?;
            }
        }
        writeln!(f, "  {}", decision.outcome)?;
        through.iter().try_for_each(|bridge| bridge.write(f, "bridge"))
    }
}

impl Explanation {
    /// The outcome, and below it what becomes of the other offers, one a line.
    pub fn summary(&self) -> String {
        let mut text = self.outcome.to_string();
        let chosen = self.offers.iter().position(|offer| *offer.outcome() == self.outcome);
        for (index, offer) in self.offers.iter().enumerate() {
            // Below what is taken nothing is decided.
            let is_below =
                matches!(self.outcome, Outcome::Install { .. }) && chosen.is_some_and(|chosen| index > chosen);
            if Some(index) != chosen && !is_below {
                let _ = write!(text, "\n  {} (sequence {}): {}", offer.release, offer.sequence, offer.outcome());
            }
        }
        text
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Profile { id, product, channel, hardware, installed, own_facts, attestation } = &self.device;
        let Installed { version, sequence } = installed;
        writeln!(f, "at         {}", time::format(self.at))?;
        writeln!(f, "device     {id}, product {product}, channel {channel}, hardware {hardware}")?;
        writeln!(f, "installed  {version} (sequence {sequence})")?;
        if let Some(kind) = attestation {
            writeln!(f, "evidence   {kind}")?;
        }
        for (index, (name, value)) in own_facts.iter().enumerate() {
            writeln!(f, "{}{name} = {value}", if index == 0 { "facts      " } else { "           " })?;
        }
        writeln!(f, "cohort     {}", self.cohort)?;
        if self.offers.is_empty() {
            writeln!(f, "offered    nothing")?;
        }
        self.offers.iter().try_for_each(|offer| offer.write(f, "offered"))?;
        writeln!(f, "decision   {}", self.outcome)
    }
}

/// One line, e.g. `wait until 2026-01-05T18:00:00Z: ...`.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Install { release, sequence, artifacts } => {
                write!(f, "install {release} (sequence {sequence}):")?;
                artifacts
                    .iter()
                    .enumerate()
                    .try_for_each(|(index, name)| write!(f, "{}{name}", if index == 0 { " " } else { ", " }))
            }
            Outcome::Bridge { bridge, target } => {
                write!(
                    f,
                    "install bridge {} (sequence {}) first, on the way to {target}",
                    bridge.release, bridge.sequence
                )
            }
            Outcome::UpToDate { why } => write!(f, "up to date: {why}"),
            Outcome::Wait { until: Some(until), why, .. } => write!(f, "wait until {}: {why}", time::format(*until)),
            Outcome::Wait { until: None, why, .. } => write!(f, "wait: {why}"),
            Outcome::NotEligible { why, rule } => write!(f, "not eligible ({rule}): {why}"),
            Outcome::Refuse { why, rule } => write!(f, "refuse ({rule}): {why}"),
            Outcome::NoOffer { why } => write!(f, "nothing to install: {why}"),
        }
    }
}
