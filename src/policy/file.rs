//! `policy.toml`: the requirements for each step of a release.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};
use tidegate_model::name::Name;
use tidegate_model::position::PPM;

use super::checks::{self, CheckKind, OwnCheck};
use super::freeze::{self, Freeze};
use super::health::HealthPolicy;
use super::state::ReleaseEvent;
use crate::config::{Cohorts, Settings, check_schema, invalid, load, parse, parse_share};
use crate::error::Result;
use crate::keys::KeyName;
use tidegate_model::span::Span;

const FILE: &str = "policy.toml";

/// `policy.toml`. A valid policy can be satisfied.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The form of the file: 1.
    pub schema: u64,
    /// Requirements before a rollout starts.
    pub validation: ValidationPolicy,
    /// Requirements during a rollout.
    pub rollout: RolloutPolicy,
    /// What a security release may skip.
    pub security: SecurityPolicy,
    /// Requirements on the build.
    #[serde(default)]
    pub provenance: ProvenancePolicy,
    /// Which releases a channel keeps listing.
    #[serde(default)]
    pub retirement: RetirementPolicy,
    /// Who must approve which steps.
    #[serde(default, rename = "approval")]
    pub approvals: Vec<ApprovalRule>,
    /// When no further devices are exposed.
    #[serde(default, rename = "freeze")]
    pub freezes: Vec<Freeze>,
    /// What a health report must show for a limited rollout to continue.
    #[serde(default)]
    pub health: Option<HealthPolicy>,
}

/// Validation requirements.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValidationPolicy {
    /// The kinds of checks that a report must have passed.
    pub required: BTreeSet<CheckKind>,
    /// How old the report may be.
    pub max_age: Span,
    /// The cohort that may have a release for validation, before a rollout.
    #[serde(default)]
    pub cohort: Option<Name>,
    /// A sample of the fleet, a CSV file relative to the workspace: each of its devices must have an upgrade path.
    #[serde(default)]
    pub fleet: Option<String>,
    /// Custom checks.
    #[serde(default, rename = "check")]
    pub checks: Vec<OwnCheck>,
}

/// Limits on the speed of a rollout.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// How long a whole cohort must have been offered a release before the next cohort is.
    pub soak: Span,
    /// Cohorts with another soak time.
    #[serde(default)]
    pub soak_of: BTreeMap<Name, Span>,
    /// The largest share of the fleet that may be exposed at one instant; more requires a ramp.
    #[serde(deserialize_with = "share")]
    pub largest_step: u32,
    /// The shortest ramp from 0 to 100%.
    pub shortest_ramp: Span,
    /// How long a limited rollout continues without being advanced or renewed.
    pub max_unattended: Span,
}

/// What a security release, and a retraction, may skip: never signing and validation.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecurityPolicy {
    /// What may be skipped.
    pub skip: BTreeSet<Skippable>,
    /// Whether a security release may go through the cohorts, with ramps, instead of to all cohorts at once.
    #[serde(default)]
    pub staged: bool,
}

/// What a security release may skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skippable {
    /// The soak times of cohorts.
    Soak,
    /// Ramps.
    Ramp,
    /// Freeze periods.
    Freeze,
    /// Approvals.
    Approval,
}

/// Requirements on the build of a release.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProvenancePolicy {
    /// Whether a release needs a provenance statement.
    #[serde(default)]
    pub required: bool,
    /// The allowed builders, by the ids in their statements. Any if absent.
    #[serde(default)]
    pub builders: Option<BTreeSet<String>>,
    /// Public keys, one of which must have signed the statement's envelope. If absent, the statement need not be signed.
    #[serde(default)]
    pub keys: Option<Vec<String>>,
}

/// Which releases a channel keeps listing.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetirementPolicy {
    /// How many releases of each product stay listed; `None` for all of them.
    #[serde(default)]
    pub keep_releases: Option<usize>,
}

/// Who must approve which steps.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApprovalRule {
    /// The steps.
    pub steps: BTreeSet<ReleaseEvent>,
    /// Only steps that expose one of these cohorts; all steps if absent.
    #[serde(default)]
    pub cohorts: Option<BTreeSet<Name>>,
    /// Keys of `tidegate.toml`, any of whose holders may approve.
    pub by: BTreeSet<KeyName>,
    /// How many of their holders must approve.
    pub count: usize,
    /// The maximum age of an approval; any age if absent.
    #[serde(default)]
    pub max_age: Option<Span>,
}

impl ApprovalRule {
    /// The steps that can require approval. Steps that stop or end an exposure never do.
    pub const STEPS: [ReleaseEvent; 6] = [
        ReleaseEvent::Register,
        ReleaseEvent::Expose,
        ReleaseEvent::Start,
        ReleaseEvent::Advance,
        ReleaseEvent::Resume,
        ReleaseEvent::Complete,
    ];

    /// Whether it applies to this step; `cohort` is the one that the step exposes, `None` for a step that exposes none or all.
    pub fn covers(&self, event: ReleaseEvent, cohort: Option<&Name>) -> bool {
        let among = |cohorts: &BTreeSet<Name>| cohort.is_none_or(|cohort| cohorts.contains(cohort));
        self.steps.contains(&event) && self.cohorts.as_ref().is_none_or(among)
    }
}

impl Policy {
    /// Reads and checks `policy.toml` of the workspace `dir`.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or is invalid.
    pub fn load(dir: &Path) -> Result<Self> {
        load::<Self>(dir, FILE)?.checked()
    }

    /// Reads and checks the file's content.
    ///
    /// # Errors
    ///
    /// Fails if the content is not valid TOML, or if a value is invalid.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        parse::<Self>(FILE, bytes)?.checked()
    }

    fn checked(self) -> Result<Self> {
        check_schema(FILE, self.schema)?;
        let never = |key: &str, why: &str, remedy: &str| Err(invalid(FILE, key, why, remedy));
        if self.validation.max_age.is_zero() {
            return never("validation.max_age", "every report would be too old", "give a span such as 7d");
        }
        if self.rollout.max_unattended.is_zero() {
            return never("rollout.max_unattended", "every rollout would end immediately", "give a span such as 24h");
        }
        if self.rollout.largest_step == 0 && self.rollout.shortest_ramp.is_zero() {
            return never(
                "rollout.largest_step",
                "no share may become eligible at once, but ramps may take no time",
                "give a share such as 10%, or a shortest_ramp such as 1h",
            );
        }
        if freeze::covers_every_week(&self.freezes) {
            return never(
                "freeze",
                "the weekly freezes cover the whole week: nothing could ever be rolled out",
                "leave some time between them",
            );
        }
        if self.retirement.keep_releases == Some(0) {
            return never(
                "retirement.keep_releases",
                "a channel that keeps no release has nothing to offer",
                "keep at least 1",
            );
        }
        if let Some(fleet) = &self.validation.fleet
            && (fleet.is_empty()
                || !Path::new(fleet).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)))
        {
            return never(
                "validation.fleet",
                "it is not a path in the workspace",
                "give a path relative to the workspace, without \"..\"",
            );
        }
        self.check_provenance()?;
        if let Some(health) = &self.health {
            health.check(FILE)?;
        }
        for (index, rule) in self.approvals.iter().enumerate() {
            rule.check(&format!("approval[{index}]"))?;
        }
        checks::check_all(FILE, &self.validation.checks)?;
        if self.validation.checks.is_empty() && self.validation.required.contains(&CheckKind::OwnChecks) {
            return Err(invalid(
                FILE,
                "validation.required",
                "own-checks can never pass: there is no [[validation.check]]",
                "add one, or remove own-checks",
            ));
        }
        Ok(self)
    }

    fn check_provenance(&self) -> Result<()> {
        let provenance = &self.provenance;
        if provenance.builders.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(invalid(
                FILE,
                "provenance.builders",
                "the list of builders is empty",
                "name one, or remove the key to allow any",
            ));
        }
        let Some(keys) = &provenance.keys else { return Ok(()) };
        if keys.is_empty() {
            return Err(invalid(
                FILE,
                "provenance.keys",
                "the list of keys is empty",
                "give a key as ed25519:HEX or p256:HEX, or remove the entry",
            ));
        }
        for key in keys {
            crate::keys::parse_public(key)
                .map_err(|e| invalid(FILE, "provenance.keys", &e, "write public keys as ed25519:HEX or p256:HEX"))?;
        }
        Ok(())
    }

    /// Checks the references to the other files: names must exist, and rules must be satisfiable.
    ///
    /// # Errors
    ///
    /// Fails if a name is unknown, or if a rule cannot be satisfied.
    pub fn check_against(&self, settings: &Settings, cohorts: &Cohorts) -> Result<()> {
        let mut known: BTreeSet<Name> = BTreeSet::new();
        for channel in cohorts.channels() {
            known.extend(cohorts.map(channel)?.cohorts().iter().map(|cohort| cohort.name.clone()));
        }
        let exists = |key: &str, name: &Name| {
            if known.contains(name) {
                return Ok(());
            }
            let names: Vec<_> = known.iter().map(Name::as_str).collect();
            Err(invalid(
                FILE,
                key,
                format!("cohorts.toml has no cohort {name}"),
                format!("the cohorts are: {}", names.join(", ")),
            ))
        };
        for name in self.rollout.soak_of.keys() {
            exists("rollout.soak_of", name)?;
        }
        if let Some(name) = &self.validation.cohort {
            exists("validation.cohort", name)?;
        }
        for (index, rule) in self.approvals.iter().enumerate() {
            for name in rule.cohorts.iter().flatten() {
                exists(&format!("approval[{index}].cohorts"), name)?;
            }
            rule.check_people(&format!("approval[{index}]"), settings)?;
        }
        Ok(())
    }

    /// How long `cohort` must have had a release before the next cohort gets it.
    pub fn soak(&self, cohort: &Name) -> Span {
        self.rollout.soak_of.get(cohort).copied().unwrap_or(self.rollout.soak)
    }
}

impl ApprovalRule {
    fn check(&self, at: &str) -> Result<()> {
        let refuse = |key: &str, why: String, remedy: &str| Err(invalid(FILE, &format!("{at}.{key}"), why, remedy));
        let names = || Self::STEPS.map(ReleaseEvent::name).join(", ");
        if self.steps.is_empty() {
            return refuse("steps", "it is about no step".into(), &format!("name some of: {}", names()));
        }
        if let Some(step) = self.steps.iter().find(|step| !Self::STEPS.contains(step)) {
            return refuse(
                "steps",
                format!("{} never waits for approval", step.name()),
                &format!("those that may: {}", names()),
            );
        }
        if self.count == 0 {
            return refuse("count", "0 approvals are no rule".into(), "give 1 or more, or remove the rule");
        }
        if self.cohorts.as_ref().is_some_and(BTreeSet::is_empty) {
            return refuse("cohorts", "it is about no cohort".into(), "name one, or remove the key for all");
        }
        if self.max_age.is_some_and(Span::is_zero) {
            return refuse("max_age", "every approval would be too old".into(), "give a span such as 24h");
        }
        Ok(())
    }

    fn check_people(&self, at: &str, settings: &Settings) -> Result<()> {
        let mut people = BTreeSet::new();
        for key in &self.by {
            let Some(known) = settings.keys.get(key) else {
                let names: Vec<_> = settings.keys.keys().map(KeyName::as_str).collect();
                return Err(invalid(
                    FILE,
                    &format!("{at}.by"),
                    format!("tidegate.toml names no key {key}"),
                    format!("add [keys.{key}], or name some of: {}", names.join(", ")),
                ));
            };
            people.insert(known.holder.as_deref().unwrap_or(key.as_str()));
        }
        if self.count > people.len() {
            return Err(invalid(
                FILE,
                &format!("{at}.count"),
                format!("{} approvals from {} people are impossible", self.count, people.len()),
                format!("lower it to {}, or add keys of more people", people.len()),
            ));
        }
        Ok(())
    }
}

fn share<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_share(&text).map(|ppm| ppm.min(PPM)).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = include_str!("../../repo-template/policy.toml");

    #[test]
    fn the_template_is_valid() {
        let policy = Policy::parse(TEMPLATE.as_bytes()).unwrap();
        assert_eq!(policy.validation.required.len(), 5);
        assert_eq!(policy.soak(&"canary".parse().unwrap()), Span::hours(48));
        assert_eq!(policy.soak(&"early".parse().unwrap()), Span::hours(24));
    }

    #[test]
    fn a_rule_that_can_never_be_met_is_refused() {
        for (from, to, part) in [
            ("max_age = \"7d\"", "max_age = \"0\"", "validation.max_age: every report would be too old"),
            ("max_unattended = \"72h\"", "max_unattended = \"0\"", "rollout.max_unattended"),
            ("largest_step = \"10%\"", "largest_step = \"ten\"", "is not a share"),
            ("\"artifact-integrity\"", "\"artifact-beauty\"", "artifact-beauty"),
            ("max_age = \"7d\"", "max_age = \"7d\"\nfleet = \"../fleet.csv\"", "not a path in the workspace"),
            ("max_age = \"7d\"", "max_age = \"7d\"\nfleet = \"\"", "not a path in the workspace"),
            ("\"artifact-integrity\"", "\"own-checks\"", "own-checks can never pass"),
            ("skip = [\"soak\", \"ramp\", \"freeze\"]", "skip = [\"signing\"]", "signing"),
        ] {
            assert!(TEMPLATE.contains(from), "{from}");
            let error = Policy::parse(TEMPLATE.replacen(from, to, 1).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{to}: {error}");
        }
    }

    fn refusal(more: &str) -> String {
        let error = Policy::parse(format!("{TEMPLATE}\n{more}").as_bytes()).unwrap_err();
        assert!(error.remedy_text().is_some(), "{error}");
        error.to_string()
    }

    fn check_against(more: &str) -> Result<()> {
        let settings = Settings::parse(include_bytes!("../../repo-template/tidegate.toml")).unwrap();
        let cohorts = Cohorts::parse(include_bytes!("../../repo-template/cohorts.toml")).unwrap();
        Policy::parse(format!("{TEMPLATE}\n{more}").as_bytes())?.check_against(&settings, &cohorts)
    }

    #[test]
    fn what_nobody_could_ever_satisfy_is_refused() {
        for (more, part) in [
            (
                "[[freeze]]\nweekly = \"mon 00:00 - sun 23:59\"\n[[freeze]]\nweekly = \"sun 12:00 - mon 12:00\"",
                "cover the whole week",
            ),
            ("[retirement]\nkeep_releases = 0", "keeps no release"),
            ("[provenance]\nrequired = true\nbuilders = []", "the list of builders is empty"),
            ("[provenance]\nkeys = []", "the list of keys is empty"),
            ("[provenance]\nkeys = [\"ed25519:00\"]", "provenance.keys"),
            ("[[approval]]\nsteps = [\"start\"]\nby = [\"rollout\"]\ncount = 0", "0 approvals are no rule"),
            ("[[approval]]\nsteps = []\nby = [\"rollout\"]\ncount = 1", "about no step"),
            ("[[approval]]\nsteps = [\"withdraw\"]\nby = [\"rollout\"]\ncount = 1", "withdraw never waits"),
            ("[[approval]]\nsteps = [\"start\"]\nby = [\"rollout\"]\ncount = 1\nmax_age = \"0\"", "would be too old"),
            (
                "[[validation.check]]\nid = \"SBOM\"\ntitle = \"t\"\ncommand = [\"x\"]\ntimeout = \"1m\"",
                "is not a valid id of an own check",
            ),
            ("[[validation.check]]\nid = \"X-A\"\ntitle = \"t\"\ncommand = []\ntimeout = \"1m\"", "names no program"),
            (
                "[[validation.check]]\nid = \"X-A\"\ntitle = \"t\"\ncommand = [\"x\"]\ntimeout = \"0\"",
                "could never pass",
            ),
        ] {
            let error = refusal(more);
            assert!(error.contains(part), "{more}: {error}");
        }
    }

    #[test]
    fn names_must_exist_and_there_must_be_enough_people() {
        let rule = |by: &str, count: usize, more: &str| {
            format!("[[approval]]\nsteps = [\"advance\"]\nby = [{by}]\ncount = {count}\n{more}")
        };
        check_against("").unwrap();
        check_against(&rule("\"release-1\", \"release-2\"", 2, "cohorts = [\"general\"]")).unwrap();
        for (more, part) in [
            (rule("\"release-1\", \"release-2\"", 3, ""), "3 approvals from 2 people are impossible"),
            (rule("\"nobody\"", 1, ""), "names no key nobody"),
            (
                rule("\"rollout\"", 1, "cohorts = [\"generals\"]"),
                "approval[0].cohorts: cohorts.toml has no cohort generals",
            ),
        ] {
            let error = check_against(&more).unwrap_err();
            assert!(error.to_string().contains(part), "{more}: {error}");
        }
        let other = TEMPLATE.replace("canary = \"48h\"", "canaries = \"48h\"");
        let settings = Settings::parse(include_bytes!("../../repo-template/tidegate.toml")).unwrap();
        let cohorts = Cohorts::parse(include_bytes!("../../repo-template/cohorts.toml")).unwrap();
        let error = Policy::parse(other.as_bytes()).unwrap().check_against(&settings, &cohorts).unwrap_err();
        assert!(error.to_string().contains("rollout.soak_of: cohorts.toml has no cohort canaries"), "{error}");
    }

    #[test]
    fn two_keys_of_one_holder_are_one_person() {
        let text = include_str!("../../repo-template/tidegate.toml");
        let text = ["release-1", "release-2"].iter().fold(text.to_owned(), |text, key| {
            text.replace(&format!("[keys.{key}]\n"), &format!("[keys.{key}]\nholder = \"holder 1\"\n"))
        });
        let settings = Settings::parse(text.as_bytes()).unwrap();
        let cohorts = Cohorts::parse(include_bytes!("../../repo-template/cohorts.toml")).unwrap();
        let more = "[[approval]]\nsteps = [\"start\"]\nby = [\"release-1\", \"release-2\"]\ncount = 2";
        let policy = Policy::parse(format!("{TEMPLATE}\n{more}").as_bytes()).unwrap();
        let error = policy.check_against(&settings, &cohorts).unwrap_err();
        assert!(error.to_string().contains("2 approvals from 1 people are impossible"), "{error}");
    }
}
