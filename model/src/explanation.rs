//! A decision with its inputs and the outcome of every rule, for people and for machines.
//!
//! Publisher and device print the same text, byte for byte.

use std::fmt;

use super::cohort::CohortChoice;
use super::decision::{Decision, Inputs, Installed, Offer, Outcome, Profile, Verdict, decide};
use super::manifest::Urgency;
use super::rollout::{Ramp, Stage};
use super::time::{self, Instant};
use super::version::Version;

/// A decision with its inputs and the outcome of every rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Explanation {
    /// The instant it is for.
    #[serde(with = "time::text")]
    pub at: Instant,
    /// The device.
    pub device: Profile,
    /// Its cohort.
    pub cohort: CohortChoice,
    /// The offered release, if there is one.
    pub offered: Option<Offered>,
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
}

/// An offered release in short.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Offered {
    /// Its version.
    pub release: Version,
    /// Its sequence.
    pub sequence: u64,
    /// Its stage.
    pub stage: Stage,
    /// Its urgency.
    pub urgency: Urgency,
    /// The ramp in time.
    pub ramp: Option<Ramp>,
}

/// Decides, and keeps the inputs.
pub fn explain(inputs: &Inputs<'_>) -> Explanation {
    let offered = match inputs.offer {
        Offer::Nothing { .. } => None,
        Offer::Release { assignment, manifest, .. } => Some(Offered {
            release: assignment.release.clone(),
            sequence: assignment.sequence,
            stage: assignment.stage,
            urgency: manifest.urgency,
            ramp: assignment.ramp,
        }),
    };
    Explanation {
        at: inputs.now,
        device: inputs.device.clone(),
        cohort: inputs.choice.clone(),
        offered,
        decision: decide(inputs),
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
        match &self.offered {
            None => writeln!(f, "offered    nothing")?,
            Some(Offered { release, sequence, stage, urgency, ramp }) => {
                write!(f, "offered    {release} (sequence {sequence}), stage {stage}, urgency {urgency}")?;
                match ramp {
                    None => writeln!(f, ", no ramp")?,
                    Some(ramp) => writeln!(f, ", {ramp}")?,
                }
            }
        }
        writeln!(f, "rules")?;
        for outcome in &self.decision.rules {
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
        writeln!(f, "decision   {}", self.decision.outcome)
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
