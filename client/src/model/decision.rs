//! Whether a device installs a release, and why: one pure function over what was signed and what the device is.
//!
//! Publisher and device call the same [`decide`]. Every [`Rule`] is evaluated and reported, also behind one that fails, so that
//! an explanation shows everything that stands between a device and a release.
//!
//! What the rules say together, first match wins:
//!
//! | what fails | outcome |
//! |---|---|
//! | [`Rule::Offer`] | [`Outcome::NoOffer`] |
//! | [`Rule::Product`], [`Rule::Channel`], [`Rule::Assigned`] | [`Outcome::Refuse`] |
//! | [`Rule::Sequence`] | [`Outcome::UpToDate`] |
//! | [`Rule::Quarantine`] | [`Outcome::Refuse`] |
//! | [`Rule::Hardware`], [`Rule::Eligibility`], [`Rule::Version`], [`Rule::Upgrade`] | [`Outcome::NotEligible`] |
//! | [`Rule::Pause`], [`Rule::Ramp`] | [`Outcome::Wait`] |
//! | nothing, and the way leads over a bridge | [`Outcome::Bridge`] |
//! | nothing | [`Outcome::Install`] |
//!
//! A bridge is decided on by itself: fetch its manifest, and call [`decide`] again with
//! [`Assignment::through`](super::rollout::Assignment::through).

use super::cohort::CohortChoice;
use super::condition;
use super::digest::Digest;
use super::facts::{FactValue, Facts};
use super::manifest::{Manifest, Urgency};
use super::name::{ArtifactName, DeviceId, FactName, HardwareId, Name};
use super::rollout::{Assignment, Bridge};
use super::time::{self, Instant};
use super::version::{Version, VersionRange, is_newer};

/// A device as decisions see it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Profile {
    /// Its id.
    pub id: DeviceId,
    /// The product it asks for.
    pub product: Name,
    /// The channel it follows.
    pub channel: Name,
    /// Its hardware.
    pub hardware: HardwareId,
    /// What it runs.
    pub installed: Installed,
    /// What it says about itself; see [`Profile::facts`].
    pub own_facts: Facts,
}

/// The installed release.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
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

/// What a cohort is given.
#[derive(Debug, Clone, Copy)]
pub enum Offer<'a> {
    /// A release.
    Release {
        /// What the cohort's role says.
        assignment: &'a Assignment,
        /// What the channel's role approved.
        manifest: &'a Manifest,
        /// SHA-256 of the manifest's bytes.
        sha256: Digest,
    },
    /// Nothing: no assignment for the product, or none that can be trusted now.
    Nothing {
        /// Why, as a sentence without a full stop.
        why: &'a str,
    },
}

/// All that a decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The device.
    pub device: &'a Profile,
    /// Its cohort, by [`CohortMap::choose`](super::cohort::CohortMap::choose) on [`Profile::facts`].
    pub choice: &'a CohortChoice,
    /// What that cohort is given.
    pub offer: Offer<'a>,
    /// The instant to decide for.
    pub now: Instant,
    /// Releases that failed on this device.
    pub quarantined: &'a [Quarantined],
}

/// A decision with the outcome of every rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Decision {
    /// What to do.
    pub outcome: Outcome,
    /// When the outcome changes by itself, if it does.
    #[serde(with = "time::optional_text")]
    pub changes: Option<Instant>,
    /// Every rule, in the order of [`Rule::ALL`].
    pub rules: Vec<RuleOutcome>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Outcome {
    /// Install the assigned release.
    Install {
        /// Its version.
        release: Version,
        /// Its sequence.
        sequence: u64,
        /// The artifacts that fit the device's hardware, at least one.
        artifacts: Vec<ArtifactName>,
    },
    /// Take a release between first, then look again.
    Bridge {
        /// The release between.
        bridge: Bridge,
        /// The version it leads to.
        target: Version,
    },
    /// The device has the assigned release, or one after it.
    UpToDate {
        /// Which of the two.
        why: String,
    },
    /// The release is for this device, but not yet.
    Wait {
        /// When the device may have it; `None` if that needs a new assignment.
        #[serde(with = "time::optional_text")]
        until: Option<Instant>,
        /// The rule that holds it back.
        rule: Rule,
        /// Why.
        why: String,
    },
    /// The release is not for this device as it is.
    NotEligible {
        /// The first rule that fails.
        rule: Rule,
        /// Why.
        why: String,
    },
    /// What is offered must not be installed here: it contradicts itself, or failed here before.
    Refuse {
        /// The first rule that fails.
        rule: Rule,
        /// Why.
        why: String,
    },
    /// The cohort is given nothing.
    NoOffer {
        /// Why.
        why: String,
    },
}

/// A rule of decisions. The ids are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub enum Rule {
    /// The cohort is given a release.
    #[serde(rename = "D-OFFER")]
    Offer,
    /// The manifest is of the device's product.
    #[serde(rename = "D-PRODUCT")]
    Product,
    /// The manifest is of the device's channel.
    #[serde(rename = "D-CHANNEL")]
    Channel,
    /// The manifest is of the release that is assigned: same version, same sequence.
    #[serde(rename = "D-ASSIGNED")]
    Assigned,
    /// The sequence rises. Nothing switches this off.
    #[serde(rename = "D-SEQUENCE")]
    Sequence,
    /// The version rises, or the release supersedes the installed one.
    #[serde(rename = "D-VERSION")]
    Version,
    /// The release did not fail on this device before.
    #[serde(rename = "D-QUARANTINE")]
    Quarantine,
    /// An artifact fits the device's hardware.
    #[serde(rename = "D-HARDWARE")]
    Hardware,
    /// The release's condition on facts holds.
    #[serde(rename = "D-ELIGIBILITY")]
    Eligibility,
    /// The release upgrades from the installed version, or a bridge does.
    #[serde(rename = "D-UPGRADE")]
    Upgrade,
    /// The assignment is not paused.
    #[serde(rename = "D-PAUSE")]
    Pause,
    /// The ramp has reached the device.
    #[serde(rename = "D-RAMP")]
    Ramp,
}

/// What came of a rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RuleOutcome {
    /// The rule.
    pub rule: Rule,
    /// What came of it.
    pub verdict: Verdict,
    /// Why, as a sentence without a full stop.
    pub why: String,
    /// For [`Rule::Eligibility`]: the condition's outcome, down to its tests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<condition::Outcome>,
}

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is satisfied.
    Pass,
    /// It is not.
    Fail,
    /// There is nothing for it to look at.
    NotApplicable,
}

/// Decides whether a device installs what its cohort is given.
pub fn decide(inputs: &Inputs<'_>) -> Decision {
    let Inputs { device, choice, offer, now, quarantined } = *inputs;
    let (assignment, manifest, sha256) = match offer {
        Offer::Release { assignment, manifest, sha256 } => (assignment, manifest, sha256),
        Offer::Nothing { why } => return no_offer(why),
    };
    let rules = vec![
        pass(Rule::Offer, format!("cohort {} is assigned {}", choice.cohort, Named(assignment))),
        same(Rule::Product, "product", &manifest.product, &device.product),
        same(Rule::Channel, "channel", &manifest.channel, &device.channel),
        assigned(assignment, manifest),
        sequence(manifest, &device.installed),
        version(manifest, &device.installed),
        quarantine(manifest, sha256, quarantined),
        hardware(manifest, &device.hardware),
        eligibility(manifest, &device.facts()),
        upgrade(assignment, manifest, &device.installed),
        pause(assignment),
        ramp(assignment, manifest, choice, now),
    ];
    let outcome = conclude(inputs, assignment, manifest, &rules);
    let changes = match &outcome {
        Outcome::Wait { until, .. } => *until,
        _ => None,
    };
    Decision { outcome, changes, rules }
}

impl Profile {
    /// The facts that conditions see: the device's own, and `product`, `channel`, `hardware`, `version` and `sequence`,
    /// which always say what the profile says.
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
        for (name, value) in built_in {
            if let Ok(name) = name.parse::<FactName>() {
                facts.insert(name, value);
            }
        }
        facts
    }
}

impl Rule {
    /// Every rule, in the order in which decisions report them.
    pub const ALL: [Rule; 12] = [
        Rule::Offer,
        Rule::Product,
        Rule::Channel,
        Rule::Assigned,
        Rule::Sequence,
        Rule::Version,
        Rule::Quarantine,
        Rule::Hardware,
        Rule::Eligibility,
        Rule::Upgrade,
        Rule::Pause,
        Rule::Ramp,
    ];

    /// The stable id, e.g. `D-RAMP`.
    pub fn id(self) -> &'static str {
        match self {
            Rule::Offer => "D-OFFER",
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

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.id())
    }
}

fn no_offer(why: &str) -> Decision {
    let rest = Rule::ALL.into_iter().filter(|rule| *rule != Rule::Offer);
    let mut rules = vec![fail(Rule::Offer, why.to_owned())];
    rules.extend(rest.map(|rule| not_applicable(rule, "nothing is offered".into())));
    Decision { outcome: Outcome::NoOffer { why: why.to_owned() }, changes: None, rules }
}

fn same(rule: Rule, what: &str, offered: &Name, own: &Name) -> RuleOutcome {
    if offered == own {
        pass(rule, format!("the release and the device are both of {what} {own}"))
    } else {
        fail(rule, format!("the release is of {what} {offered}, the device of {what} {own}"))
    }
}

fn assigned(assignment: &Assignment, manifest: &Manifest) -> RuleOutcome {
    if assignment.release == manifest.version && assignment.sequence == manifest.sequence {
        pass(Rule::Assigned, "the manifest is that of the assigned release".into())
    } else {
        fail(
            Rule::Assigned,
            format!(
                "the manifest is of {} (sequence {}), but assigned is {}",
                manifest.version,
                manifest.sequence,
                Named(assignment)
            ),
        )
    }
}

fn sequence(manifest: &Manifest, installed: &Installed) -> RuleOutcome {
    let (offered, own) = (manifest.sequence, installed.sequence);
    match offered.cmp(&own) {
        std::cmp::Ordering::Greater => pass(Rule::Sequence, format!("sequence {offered} is above the installed {own}")),
        std::cmp::Ordering::Equal => {
            fail(Rule::Sequence, format!("{} (sequence {own}) is installed already", installed.version))
        }
        std::cmp::Ordering::Less => fail(
            Rule::Sequence,
            format!("sequence {offered} is below the installed {own}: a device never goes back in sequence"),
        ),
    }
}

fn version(manifest: &Manifest, installed: &Installed) -> RuleOutcome {
    let (offered, own) = (&manifest.version, &installed.version);
    if manifest.sequence <= installed.sequence {
        not_applicable(Rule::Version, format!("the sequence does not rise; see {}", Rule::Sequence))
    } else if is_newer(offered, own) {
        pass(Rule::Version, format!("version {offered} is above the installed {own}"))
    } else if manifest.supersedes.contains(&installed.sequence) {
        let why = format!(
            "version {offered} is not above the installed {own}, but the release supersedes sequence {}",
            installed.sequence
        );
        pass(Rule::Version, why)
    } else {
        let why = format!(
            "version {offered} is not above the installed {own}, and the release does not supersede sequence {}",
            installed.sequence
        );
        fail(Rule::Version, why)
    }
}

fn quarantine(manifest: &Manifest, sha256: Digest, quarantined: &[Quarantined]) -> RuleOutcome {
    // Either is enough: one release has one sequence and one hash, and to match by half is no reason to try again.
    if quarantined.iter().any(|failed| failed.sequence == manifest.sequence || failed.sha256 == sha256) {
        fail(
            Rule::Quarantine,
            format!("{} (sequence {}) failed on this device before", manifest.version, manifest.sequence),
        )
    } else {
        pass(Rule::Quarantine, "the release has not failed on this device".into())
    }
}

fn hardware(manifest: &Manifest, hardware: &HardwareId) -> RuleOutcome {
    match manifest.artifacts_for(hardware).count() {
        0 => fail(Rule::Hardware, format!("no artifact is for hardware {hardware}")),
        count => pass(Rule::Hardware, format!("artifacts for hardware {hardware}: {count}")),
    }
}

fn eligibility(manifest: &Manifest, facts: &Facts) -> RuleOutcome {
    let Some(condition) = &manifest.eligibility else {
        return not_applicable(Rule::Eligibility, "the release has no condition".into());
    };
    let outcome = condition.evaluate(facts);
    let why = if outcome.holds {
        format!("the condition holds: {condition}")
    } else {
        format!("the condition does not hold: {condition}")
    };
    let verdict = if outcome.holds { Verdict::Pass } else { Verdict::Fail };
    RuleOutcome { rule: Rule::Eligibility, verdict, why, condition: Some(outcome) }
}

fn upgrade(assignment: &Assignment, manifest: &Manifest, installed: &Installed) -> RuleOutcome {
    let Installed { version, sequence } = installed;
    let range = match &manifest.upgrade_from {
        _ if manifest.sequence <= *sequence => {
            return not_applicable(Rule::Upgrade, format!("the sequence does not rise; see {}", Rule::Sequence));
        }
        None => return not_applicable(Rule::Upgrade, "the release upgrades from every version".into()),
        Some(range) => range,
    };
    if range.holds(version) {
        return pass(Rule::Upgrade, format!("the release upgrades from \"{range}\", which holds {version}"));
    }
    let lacking = format!("the release upgrades from \"{range}\", which does not hold {version}");
    match assignment.bridge_from(version, *sequence) {
        Some(Bridge { release, sequence, .. }) => {
            pass(Rule::Upgrade, format!("{lacking}, but bridge {release} (sequence {sequence}) does"))
        }
        None => fail(Rule::Upgrade, format!("{lacking}; {}", missing_bridge(assignment, range, installed))),
    }
}

/// What a bridge would have to be, and what there is instead.
fn missing_bridge(assignment: &Assignment, range: &VersionRange, installed: &Installed) -> String {
    let missing = format!(
        "missing is a bridge that upgrades from {} with a sequence above {} to a version in \"{range}\"",
        installed.version, installed.sequence
    );
    let listed = assignment
        .bridges
        .iter()
        .map(|bridge| format!("{} (sequence {}) from \"{}\"", bridge.release, bridge.sequence, bridge.upgrade_from));
    let listed: Vec<_> = listed.collect();
    if listed.is_empty() {
        format!("{missing}, and none is listed")
    } else {
        format!("{missing}; listed: {}", listed.join(", "))
    }
}

fn pause(assignment: &Assignment) -> RuleOutcome {
    if assignment.paused {
        fail(Rule::Pause, "the rollout is paused in this cohort: it goes on when the publisher resumes it".into())
    } else {
        pass(Rule::Pause, "the rollout is not paused".into())
    }
}

fn ramp(assignment: &Assignment, manifest: &Manifest, choice: &CohortChoice, now: Instant) -> RuleOutcome {
    let Some(ramp) = &assignment.ramp else {
        return not_applicable(Rule::Ramp, "no ramp: the whole cohort is exposed".into());
    };
    if manifest.urgency == Urgency::Security {
        return not_applicable(Rule::Ramp, "a security release is not held back by a ramp".into());
    }
    let exposure = ramp.exposure(now);
    let exposed = format!("{} ppm of the cohort are exposed", exposure.to_ppm());
    let own = format!("this device is at {} ppm", super::position::to_ppm(choice.within));
    match (exposure.covers(choice.within), ramp.exposed_at(choice.within)) {
        (true, _) => pass(Rule::Ramp, format!("{exposed}, {own}")),
        (false, Some(instant)) => {
            fail(Rule::Ramp, format!("{exposed}, {own}: exposed from {} on", time::format(instant)))
        }
        (false, None) => fail(Rule::Ramp, format!("{exposed}, {own}: this ramp ends at {} ppm, before it", ramp.to())),
    }
}

fn conclude(inputs: &Inputs<'_>, assignment: &Assignment, manifest: &Manifest, rules: &[RuleOutcome]) -> Outcome {
    let Inputs { device, choice, .. } = inputs;
    let failed = |among: &[Rule]| {
        rules
            .iter()
            .find(|outcome| outcome.verdict == Verdict::Fail && among.contains(&outcome.rule))
            .map(|outcome| (outcome.rule, outcome.why.clone()))
    };
    if let Some((rule, why)) = failed(&[Rule::Product, Rule::Channel, Rule::Assigned]) {
        return Outcome::Refuse { rule, why };
    }
    if let Some((_, why)) = failed(&[Rule::Sequence]) {
        return Outcome::UpToDate { why };
    }
    if let Some((rule, why)) = failed(&[Rule::Quarantine]) {
        return Outcome::Refuse { rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Hardware, Rule::Eligibility, Rule::Version, Rule::Upgrade]) {
        return Outcome::NotEligible { rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Pause]) {
        return Outcome::Wait { until: None, rule, why };
    }
    if let Some((rule, why)) = failed(&[Rule::Ramp]) {
        let until = assignment.ramp.as_ref().and_then(|ramp| ramp.exposed_at(choice.within));
        return Outcome::Wait { until, rule, why };
    }
    let Installed { version, sequence } = &device.installed;
    let direct = manifest.upgrade_from.as_ref().is_none_or(|range| range.holds(version));
    match assignment.bridge_from(version, *sequence) {
        Some(bridge) if !direct => Outcome::Bridge { bridge: bridge.clone(), target: manifest.version.clone() },
        _ => Outcome::Install {
            release: manifest.version.clone(),
            sequence: manifest.sequence,
            artifacts: manifest.artifacts_for(&device.hardware).map(|artifact| artifact.name.clone()).collect(),
        },
    }
}

fn pass(rule: Rule, why: String) -> RuleOutcome {
    RuleOutcome { rule, verdict: Verdict::Pass, why, condition: None }
}

fn fail(rule: Rule, why: String) -> RuleOutcome {
    RuleOutcome { rule, verdict: Verdict::Fail, why, condition: None }
}

fn not_applicable(rule: Rule, why: String) -> RuleOutcome {
    RuleOutcome { rule, verdict: Verdict::NotApplicable, why, condition: None }
}

/// The assigned release with its sequence.
struct Named<'a>(&'a Assignment);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (sequence {})", self.0.release, self.0.sequence)
    }
}
