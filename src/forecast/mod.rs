//! Forecasts the effect of a rollout on a fleet, before anything is signed.

mod approval;
pub mod curve;
pub mod delivery;
mod expected_steps;
mod explain;
pub mod simulate;
pub mod timeline;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use tidegate_model::cohort::{CohortMap, Selector};
use tidegate_model::decision::Installed;
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::{FactName, HardwareId};
use tidegate_model::rollout::{Offer, Stage};
use tidegate_model::time;
use tidegate_model::version::{Version, is_newer};

use crate::error::{Error, Result, Rule};
use crate::fleet::{Fleet, Scope, Synthetic};
use crate::policy::ReleaseState;
use crate::release::draft::previous;
use crate::release::record;
use crate::rollout::RolloutTransaction;
use crate::workspace::map_in_force;
use approval::{Manifests, Offered};
use expected_steps::{StepInputs, course};
use simulate::{Simulation, Sought, Window, simulate};
use tidegate_model::span::Span;
use timeline::{Approvals, Given, OfferTimeline, Offering};

pub use delivery::DeliveryForecast;
pub use expected_steps::{ExpectedStep, ExpectedSteps, StepKind};
pub use explain::{Answer, Explainer, FleetAnswer, Group, Reached, Reason, explain};

/// The most hours that a plan looks ahead: two years.
pub const MAX_HOURS: usize = 24 * 366 * 2;
/// The default limit of a plan, in hours.
const USUAL_HOURS: usize = 24 * 60;

/// The request for a plan.
#[derive(Debug, Clone, Default)]
pub struct Outlook {
    /// The earliest time of the first step, where the forecast begins.
    pub from: DateTime<Utc>,
    /// How many hours to look at; by default, until every cohort has the release.
    pub hours: Option<usize>,
    /// How long to take for each cohort, instead of the minimum of the policy.
    pub ramp: Option<Span>,
}

/// A fleet to be made up.
#[derive(Debug, Clone)]
pub struct MadeUp {
    /// How many devices.
    pub devices: u64,
    /// Their hardware, in turn; if none is said, all that the release is for.
    pub hardware: BTreeSet<HardwareId>,
    /// What they run; by default, the release before.
    pub installed: Option<Installed>,
    /// What they say about themselves.
    pub facts: Facts,
}

/// A rollout that can be planned, before a fleet is read.
#[derive(Debug)]
pub struct Forecast {
    /// The release.
    pub release: String,
    /// Its state now.
    pub state: String,
    /// Its steps.
    pub course: ExpectedSteps,
    /// The hours of the forecast.
    pub window: Window,
    manifest: Manifest,
    scene: Rc<OfferTimeline>,
    sought: Sought,
    before: Option<Installed>,
    /// What is not known of the bytes, and assumed.
    assumed: Option<String>,
}

/// A plan: the effect on a fleet.
#[derive(Debug, Serialize)]
pub struct FleetForecast {
    /// The release.
    pub release: String,
    /// Its state now.
    pub state: String,
    /// The fleet, in words.
    pub fleet: String,
    /// The steps, and what was assumed.
    #[serde(flatten)]
    pub course: ExpectedSteps,
    /// When every cohort has it.
    #[serde(with = "time::optional_text")]
    pub whole: Option<DateTime<Utc>>,
    /// The effect on the devices of each cohort, hour by hour.
    #[serde(flatten)]
    pub simulation: Simulation,
    /// How many devices are offered it by the beginning, by the end of the first hour, and so on.
    pub curve: Vec<u64>,
    /// What they fetch.
    pub delivery: DeliveryForecast,
}

impl Forecast {
    /// Computes the forecast of a rollout.
    ///
    /// # Errors
    ///
    /// Fails if the release cannot be used again, or if its channel's metadata cannot be read.
    pub fn new(transaction: &RolloutTransaction<'_>, outlook: &Outlook) -> Result<Self> {
        let record = transaction.record();
        if matches!(record.state, ReleaseState::Withdrawn | ReleaseState::Retired) {
            return Err(Error::refused(
                Rule::ReleaseOver,
                format!("{} is {}, and cannot be used again", record.id(), record.status()),
            )
            .remedy("plan another version"));
        }
        let dir = transaction.workspace.dir();
        let map = map_in_force(dir, &transaction.repository, &record.channel)?;
        let siblings: Vec<_> = record::all(dir)?
            .into_iter()
            .filter(|other| other.channel == record.channel && other.product == record.product)
            .collect();
        let mut manifest = transaction.manifest.clone();
        let mut notes = Vec::new();
        if record.manifest.is_none() {
            let highest = siblings.iter().filter_map(|other| other.manifest.as_ref()).map(|m| m.sequence).max();
            manifest.sequence = highest.unwrap_or(0) + 1;
            notes.push(format!("it is a draft: it is taken as it is now, with sequence {}", manifest.sequence));
        }
        let bytes = manifest.to_bytes().map_err(|e| Error::input("the manifest cannot be").with_source(e))?;
        let bytes = if transaction.bytes.is_empty() { &bytes } else { &transaction.bytes };
        let own = (Digest::of(bytes), bytes.len() as u64);
        let mut offer = Offer::new(manifest.version.clone(), manifest.sequence, own, Stage::Limited, outlook.from);
        offer.bridges = transaction.bridges()?;
        let mut course = course(&StepInputs {
            manifest: &manifest,
            offer: offer.clone(),
            paused: record.paused,
            policy: &transaction.policy,
            in_force: transaction.in_force(),
            visible: transaction.in_force().iter().map(|current| transaction.visible_since(current)).collect(),
            from: outlook.from,
            ramp: outlook.ramp,
        })?;
        course.assumptions.extend(notes);
        // Devices on a higher version keep it, unless the release supersedes it.
        let is_below = |other: &&record::Record| {
            let sequence = other.manifest.as_ref().map(|manifest| manifest.sequence);
            !is_newer(&other.version, &manifest.version)
                || sequence.is_some_and(|sequence| manifest.supersedes.contains(&sequence))
        };
        let before = previous(siblings.iter().filter(is_below), manifest.sequence).and_then(|record| {
            Some(Installed { version: record.version.clone(), sequence: record.manifest.as_ref()?.sequence })
        });
        let window = window(&course, outlook)?;
        let mut approvals = Approvals::from([(offer.sha256, Ok(manifest.clone()))]);
        let offers = offers(transaction, &course, &manifest, outlook.from, &mut approvals)?;
        let sought = Sought { sequence: manifest.sequence, without: without(&map, &course) };
        let scene = Rc::new(OfferTimeline::new(map, offers, approvals));
        Ok(Self {
            release: record.id().to_string(),
            state: record.status().to_string(),
            course,
            window,
            manifest,
            scene,
            sought,
            before,
            assumed: None,
        })
    }

    /// What a fleet file leaves unsaid.
    pub fn scope(&self) -> Scope {
        let mut facts: BTreeSet<FactName> = BTreeSet::new();
        for cohort in self.scene.map().cohorts() {
            if let Selector::Condition(condition) = &cohort.selector {
                facts.extend(condition.facts().into_iter().cloned());
            }
        }
        facts.extend(self.scene.conditions().flat_map(|condition| condition.facts().into_iter().cloned()));
        let Manifest { product, channel, .. } = &self.manifest;
        Scope { product: Some(product.clone()), channel: Some(channel.clone()), facts: Some(facts) }
    }

    /// Generates a fleet for the forecast, and describes it in words.
    ///
    /// # Errors
    ///
    /// Fails if neither the release nor the request names any hardware.
    pub fn made_up(&mut self, request: MadeUp) -> Result<(Fleet, String)> {
        let all = || self.manifest.artifacts.iter().flat_map(|artifact| artifact.hardware.iter().cloned()).collect();
        let hardware: BTreeSet<HardwareId> = if request.hardware.is_empty() { all() } else { request.hardware };
        let factory = Installed { version: Version::new(0, 0, 0), sequence: 0 };
        let installed = request.installed.or_else(|| self.before.clone()).unwrap_or(factory);
        self.assumed = Some(format!("every device runs {}", installed.version));
        let kinds: Vec<_> = hardware.iter().map(HardwareId::as_str).collect();
        let facts: Vec<_> = request.facts.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let said = format!(
            "{} simulated devices on {} (sequence {}), hardware {}, {}",
            request.devices,
            installed.version,
            installed.sequence,
            kinds.join(" and "),
            if facts.is_empty() { "without facts".to_owned() } else { format!("with {}", facts.join(", ")) },
        );
        let fleet = Fleet::synthetic(Synthetic {
            devices: request.devices,
            product: self.manifest.product.clone(),
            channel: self.manifest.channel.clone(),
            hardware,
            installed,
            facts: request.facts,
        })?;
        Ok((fleet, said))
    }

    /// Runs the forecast over a fleet; `progress` receives how far the fleet was read.
    ///
    /// # Errors
    ///
    /// Fails if the fleet cannot be read.
    pub fn over(self, mut fleet: Fleet, said: String, progress: impl FnMut(&Fleet)) -> Result<FleetForecast> {
        let Manifest { product, channel, .. } = &self.manifest;
        let simulation = simulate(&self.scene, &self.sought, (channel, product), &mut fleet, self.window, progress)?;
        let mut delivery = delivery::predict(&self.manifest, &simulation.takers, self.window.hours);
        delivery.assumptions.extend(self.assumed);
        Ok(FleetForecast {
            release: self.release,
            state: self.state,
            fleet: said,
            whole: self.course.whole(),
            course: self.course,
            curve: simulation.curve(),
            simulation,
            delivery,
        })
    }
}

/// What the cohorts are offered over time. Adds the manifests of all that may be installed to `approvals`.
fn offers(
    transaction: &RolloutTransaction<'_>,
    course: &ExpectedSteps,
    manifest: &Manifest,
    from: DateTime<Utc>,
    approvals: &mut Approvals,
) -> Result<Vec<Vec<Offering>>> {
    let Manifest { channel, product, .. } = manifest;
    let mut manifests = Manifests::new(transaction.workspace.dir(), &transaction.repository);
    let mut all = Vec::new();
    for current in transaction.in_force() {
        let offered = Offered { channel, cohort: &current.cohort, product };
        let mut over_time = Vec::new();
        for (since, offers) in course.offers(current, manifest, from) {
            for offer in &offers {
                manifests.add(approvals, offered, offer)?;
            }
            let given = if offers.is_empty() {
                Given::Nothing("the cohort is offered nothing".into())
            } else {
                Given::Offers(offers)
            };
            over_time.push(Offering { since, given });
        }
        all.push(over_time);
    }
    Ok(all)
}

/// Why cohorts, by their places in the map, are never offered the release.
fn without(map: &CohortMap, course: &ExpectedSteps) -> BTreeMap<usize, String> {
    let passed_over = |name| course.passed_over.iter().find(|(cohort, _)| cohort == name);
    let reason = |name| match passed_over(name) {
        Some((_, why)) => format!("the cohort is skipped: {why}"),
        None => "no step reaches the cohort".to_owned(),
    };
    let cohorts = map.cohorts().iter().map(|cohort| &cohort.name).enumerate();
    let without = cohorts.filter(|(_, name)| course.steps.iter().all(|step| step.cohort != **name));
    without.map(|(place, name)| (place, reason(name))).collect()
}

fn window(course: &ExpectedSteps, outlook: &Outlook) -> Result<Window> {
    let from = outlook.from;
    let hours = match outlook.hours {
        Some(hours) if hours > MAX_HOURS => {
            return Err(Error::usage(format!("{hours} hours are too many: a plan covers at most {MAX_HOURS}"))
                .remedy("give fewer --hours, or an earlier --until"));
        }
        Some(hours) => hours,
        None => {
            let seconds = course.whole().map_or(TimeDelta::zero(), |whole| whole - from).num_seconds().max(0);
            usize::try_from(seconds.unsigned_abs().div_ceil(3600)).unwrap_or(USUAL_HOURS).clamp(1, USUAL_HOURS)
        }
    };
    Ok(Window { from, hours })
}
