//! Guided plans: from a situation to the steps that lead out of it, or the plain word that none does.

use std::collections::BTreeSet;

use serde::Serialize;
use tidegate_client::tuf::key::KeyId;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::metadata::Repository;

/// What has happened or is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Situation {
    /// One more holder of root.
    AddRootKey(String),
    /// One fewer.
    RemoveRootKey(String),
    /// Another key in the place of one.
    ReplaceRootKey(String, String),
    /// Another threshold of a role.
    Threshold(String, u64),
    /// Another key of snapshot or timestamp, without a moment in which a device fails.
    ReplaceOnlineKey(String, String),
    /// Keys that nobody has any more.
    Lost(Vec<String>),
    /// Keys that somebody else may have.
    Compromised(Vec<String>),
    /// Another name for the holder of a key.
    RenameHolder(String, String),
}

/// Steps, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What it is for.
    pub title: String,
    /// Whether it leads out; if not, `steps` say what is left to do.
    pub recoverable: bool,
    /// What one should know before.
    pub facts: Vec<String>,
    /// What to do.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// In words.
    pub text: String,
    /// The command, if there is one.
    pub command: Option<String>,
}

/// A plan for a situation, from what is in force and what `tidegate.toml` calls the keys.
pub fn plan(situation: &Situation, repository: &Repository, settings: &Settings) -> Result<Plan> {
    let desk = Desk { repository, settings };
    match situation {
        Situation::AddRootKey(name) => desk.add_root_key(name),
        Situation::RemoveRootKey(name) => desk.remove_root_key(name),
        Situation::ReplaceRootKey(old, new) => desk.replace_root_key(old, new),
        Situation::Threshold(role, threshold) => desk.threshold(role, *threshold),
        Situation::ReplaceOnlineKey(old, new) => desk.replace_online_key(old, new),
        Situation::Lost(names) => desk.gone(names, false),
        Situation::Compromised(names) => desk.gone(names, true),
        Situation::RenameHolder(name, holder) => desk.rename(name, holder),
    }
}

struct Desk<'a> {
    repository: &'a Repository,
    settings: &'a Settings,
}

impl Plan {
    fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), recoverable: true, facts: Vec::new(), steps: Vec::new() }
    }

    fn fact(&mut self, text: impl Into<String>) {
        self.facts.push(text.into());
    }

    fn say(&mut self, text: impl Into<String>) {
        self.steps.push(Step { text: text.into(), command: None });
    }

    fn run(&mut self, text: impl Into<String>, command: impl Into<String>) {
        self.steps.push(Step { text: text.into(), command: Some(command.into()) });
    }

    /// The part that is the same for all.
    fn ceremony(&mut self, signers: &str, reason: &str) {
        self.run("Propose it", format!("tidegate ceremony start --reason '{reason}'"));
        self.run(
            "Play it to simulated devices of every generation; no device may be stranded",
            "tidegate ceremony rehearse",
        );
        self.run(
            format!("Send proposals/ceremony.json to the signers ({signers}); each reads it and signs on their own machine, with the root that they keep"),
            "tidegate ceremony sign ceremony.json --root root.json --key file:KEY.pem",
        );
        self.run("Put the copies that come back together", "tidegate ceremony combine COPY...");
        self.run("See that every threshold is met, and finish", "tidegate ceremony finish");
        self.run(
            "Publish and check as a device does",
            "tidegate publish FOLDER && tidegate verify FOLDER --root 1.root.json",
        );
    }
}

impl Desk<'_> {
    fn declared(&self, role: &str) -> Result<(Vec<KeyId>, u64)> {
        let (_, role) =
            self.repository.keys_of(role).ok_or_else(|| Error::input(format!("the repository has no role {role}")))?;
        Ok((role.keyids.clone(), role.threshold))
    }

    fn label(&self, id: &KeyId) -> String {
        let named = self.settings.keys.keys().find(|name| self.settings.public(name).is_ok_and(|key| key.id() == *id));
        named.map_or_else(|| id.short().to_owned(), ToString::to_string)
    }

    fn id(&self, name: &str) -> Result<KeyId> {
        let found = self.settings.keys.keys().find(|key| key.as_str() == name);
        let found = found.ok_or_else(|| {
            let names: Vec<_> = self.settings.keys.keys().map(ToString::to_string).collect();
            Error::input(format!("tidegate.toml names no key {name:?}"))
                .remedy(format!("the keys are: {}", names.join(", ")))
        })?;
        Ok(self.settings.public(found)?.id())
    }

    /// The roles for which any of these keys counts, with how many of theirs are left and how many it takes.
    fn roles_of(&self, ids: &BTreeSet<KeyId>) -> Vec<(String, Vec<KeyId>, u64)> {
        self.repository
            .roles()
            .filter_map(|file| {
                let (all, threshold) = self.declared(&file.name).ok()?;
                let left: Vec<KeyId> = all.iter().filter(|id| !ids.contains(*id)).cloned().collect();
                (left.len() < all.len()).then(|| (file.name.clone(), left, threshold))
            })
            .collect()
    }

    fn signers(&self, role: &str, without: &BTreeSet<KeyId>) -> Result<String> {
        let (ids, threshold) = self.declared(role)?;
        let mut names: Vec<_> = ids.iter().filter(|id| !without.contains(*id)).map(|id| self.label(id)).collect();
        names.sort();
        Ok(format!("{threshold} of {}", names.join(", ")))
    }

    fn must_be_root_key(&self, name: &str) -> Result<KeyId> {
        let id = self.id(name)?;
        let (ids, _) = self.declared("root")?;
        if ids.contains(&id) {
            return Ok(id);
        }
        let names: Vec<_> = ids.iter().map(|id| self.label(id)).collect();
        Err(Error::input(format!("{name} is not a root key in force"))
            .remedy(format!("those are: {}", names.join(", "))))
    }

    fn add_root_key(&self, name: &str) -> Result<Plan> {
        let (ids, threshold) = self.declared("root")?;
        let mut plan = Plan::new(format!("Add the root key {name}"));
        plan.fact(format!("root takes {threshold} of {} keys now; with one more, one more may be lost", ids.len()));
        plan.run(
            "The new holder makes the key on their own machine, and sends the line that is printed",
            format!("tidegate key new {name} --out {name}.pem"),
        );
        plan.say(format!("Add [keys.{name}] with that public part to tidegate.toml, and {name} to roles.root.keys"));
        plan.ceremony(&self.signers("root", &BTreeSet::new())?, &format!("add root key {name}"));
        Ok(plan)
    }

    fn remove_root_key(&self, name: &str) -> Result<Plan> {
        self.must_be_root_key(name)?;
        let (ids, threshold) = self.declared("root")?;
        let mut plan = Plan::new(format!("Remove the root key {name}"));
        let left = ids.len() as u64 - 1;
        if left < threshold {
            plan.fact(format!("root takes {threshold} signatures, and {left} keys would be left: lower the threshold in the same ceremony, or add a key"));
        } else if left == threshold {
            plan.fact(format!("{left} keys would be left, and all of them would have to sign: if one more is lost, root can never be signed again. Better replace {name}"));
        }
        plan.say(format!("Take {name} out of roles.root.keys in tidegate.toml"));
        plan.ceremony(&self.signers("root", &BTreeSet::new())?, &format!("remove root key {name}"));
        Ok(plan)
    }

    fn replace_root_key(&self, old: &str, new: &str) -> Result<Plan> {
        let id = self.must_be_root_key(old)?;
        let mut plan = Plan::new(format!("Replace the root key {old} by {new}"));
        plan.fact("the new root needs a threshold of the keys in force and a threshold of its own; a key that is in both counts for both");
        plan.run(
            "The holder makes the new key on their own machine, and sends the line that is printed",
            format!("tidegate key new {new} --out {new}.pem"),
        );
        plan.say(format!("In tidegate.toml, add [keys.{new}] and put {new} in the place of {old} in roles.root.keys"));
        plan.ceremony(&self.signers("root", &BTreeSet::from([id]))?, &format!("replace root key {old} by {new}"));
        plan.say(format!("Once the transcript is filed, destroy {old}: devices that slept follow without it"));
        Ok(plan)
    }

    fn threshold(&self, role: &str, threshold: u64) -> Result<Plan> {
        let (ids, current) = self.declared(role)?;
        let mut plan = Plan::new(format!("Change the threshold of {role} from {current} to {threshold}"));
        if threshold == 0 || threshold > ids.len() as u64 {
            return Err(Error::refused(format!("{role} has {} keys: {threshold} can never be met", ids.len()))
                .remedy("add keys first"));
        }
        if threshold < current {
            plan.fact(format!("lower: {threshold} stolen keys would suffice where it takes {current} now"));
        } else {
            plan.fact(format!(
                "higher: {} keys may be lost then, {} may be now",
                ids.len() as u64 - threshold,
                ids.len() as u64 - current
            ));
        }
        if role == "root" && threshold > current {
            plan.fact(format!("the new root itself needs {threshold} signatures"));
        }
        let table = if matches!(role, "root" | "targets" | "snapshot" | "timestamp") {
            format!("roles.{role}")
        } else {
            format!("channels.{role}.release")
        };
        plan.say(format!("Set {table}.threshold = {threshold} in tidegate.toml"));
        let above = self.repository.delegator(role).unwrap_or("root");
        plan.ceremony(&self.signers(above, &BTreeSet::new())?, &format!("threshold of {role} to {threshold}"));
        Ok(plan)
    }

    fn replace_online_key(&self, old: &str, new: &str) -> Result<Plan> {
        let id = self.id(old)?;
        let roles: Vec<String> = self
            .roles_of(&BTreeSet::from([id]))
            .into_iter()
            .map(|(role, ..)| role)
            .filter(|role| matches!(role.as_str(), "snapshot" | "timestamp"))
            .collect();
        if roles.is_empty() {
            return Err(Error::input(format!("{old} is not a key of snapshot or timestamp in force")).remedy(
                "for a rollout or release key: tidegate ceremony plan compromised NAME, or replace it in tidegate.toml",
            ));
        }
        let mut plan = Plan::new(format!("Replace the online key {old} by {new}, with an overlap"));
        plan.fact("two ceremonies: in the first both keys count, in the second the old one goes. At every instant, devices on either side of each root verify");
        plan.fact("if the old key is compromised there is no overlap: use tidegate ceremony plan compromised");
        plan.run("Make the new key on the machine that signs online roles", format!("tidegate key new {new}"));
        plan.say(format!(
            "Add {new} beside {old} to the keys of {} in tidegate.toml; the threshold stays",
            roles.join(" and ")
        ));
        plan.ceremony(&self.signers("root", &BTreeSet::new())?, &format!("add online key {new}"));
        plan.say(format!("Take {old} out of the keys of {}", roles.join(" and ")));
        plan.ceremony(&self.signers("root", &BTreeSet::new())?, &format!("remove online key {old}"));
        Ok(plan)
    }

    fn gone(&self, names: &[String], stolen: bool) -> Result<Plan> {
        let ids: BTreeSet<KeyId> = names.iter().map(|name| self.id(name)).collect::<Result<_>>()?;
        let affected = self.roles_of(&ids);
        let list = names.join(", ");
        let mut plan = Plan::new(format!("{}: {list}", if stolen { "Compromised" } else { "Lost" }));
        if affected.is_empty() {
            plan.fact(format!("no role counts on {list}: nothing is at stake"));
            return Ok(plan);
        }
        let of = |role: &str| affected.iter().find(|(name, ..)| name == role);
        for (role, left, threshold) in &affected {
            let stuck = (left.len() as u64) < *threshold;
            let have = self.declared(role)?.0.len() - left.len();
            let consequence = match (stolen, stuck) {
                (true, _) if have as u64 >= *threshold => {
                    format!("whoever has them can sign {role} alone: {}", power(role))
                }
                (true, _) => {
                    format!("{have} of the {threshold} signatures that {role} takes: not enough to sign it alone")
                }
                (false, true) => format!("{role} can no longer be signed by the keys in force"),
                (false, false) => {
                    format!("{role} can still be signed, by {threshold} of the {} that are left", left.len())
                }
            };
            // Cohorts of a channel share their keys, and there may be hundreds.
            let consequence = match role.split_once('.') {
                Some((channel, _)) => consequence.replace(role.as_str(), &format!("each cohort of {channel}")),
                None => consequence,
            };
            if !plan.facts.contains(&consequence) {
                plan.fact(consequence);
            }
        }
        let root = of("root");
        if root.is_some_and(|(_, left, threshold)| (left.len() as u64) < *threshold) {
            plan.recoverable = false;
            plan.fact("ROOT CANNOT BE RECOVERED: no new root that devices accept can ever be signed again");
            plan.say("What is published stays valid until it expires; until then releases and rollouts go on with the keys that are left");
            plan.say("Make a new repository with new keys (tidegate init), and bring its root to every device by a way that does not rest on this one: a visit, the factory, a firmware image installed by hand");
            plan.say("While the old repository is alive, its last release may carry the new root and the new address: devices take it as data, and your own installer puts it in place");
            return Ok(plan);
        }
        if stolen
            && root.is_some_and(|(_, left, threshold)| {
                self.declared("root").is_ok_and(|(all, _)| (all.len() - left.len()) as u64 >= *threshold)
            })
        {
            plan.recoverable = false;
            plan.fact("WHOEVER HAS A THRESHOLD OF ROOT KEYS CAN TAKE THE FLEET: rotating is a race that devices decide by whichever root they see first");
            plan.say("Take the published timestamp.json offline if you cannot sign at once: devices then keep what they have");
            plan.say("Rotate at once with the steps below, and treat every device that fetched metadata in between as suspect");
        }
        for (role, left, threshold) in affected.iter().filter(|(role, ..)| role != "root") {
            if (left.len() as u64) < *threshold {
                let by = self.repository.delegator(role).unwrap_or("root");
                let fact = match role.split_once('.') {
                    Some((channel, _)) => {
                        format!("the cohorts of {channel} get new keys from {channel}, which can be signed")
                    }
                    None => format!("{role} gets new keys from {by}, which can be signed"),
                };
                if !plan.facts.contains(&fact) {
                    plan.fact(fact);
                }
            }
        }
        if stolen && affected.iter().any(|(role, ..)| matches!(role.as_str(), "timestamp" | "snapshot")) {
            plan.fact("devices may have been shown run-up version numbers; the new root makes them forget what those keys signed (fast-forward recovery)");
        }
        if stolen && affected.iter().any(|(role, ..)| role.contains('.')) {
            plan.say("Look at what cohorts are assigned: a thief can have moved them among approved releases, no further. Correct it with tidegate rollout once the key is replaced");
        }
        if stolen
            && affected.iter().any(|(role, ..)| {
                !role.contains('.') && !matches!(role.as_str(), "root" | "targets" | "timestamp" | "snapshot")
            })
        {
            plan.say("Compare the channel's role with the ledger (tidegate log --verify): a release that nobody registered must be withdrawn, and devices that installed it visited");
        }
        for name in names {
            plan.run(
                format!("Make a key to take the place of {name}, on the machine of its holder"),
                format!("tidegate key new {name}-b --out {name}-b.pem"),
            );
        }
        let replaced: Vec<String> = names.iter().map(|name| format!("{name} by {name}-b")).collect();
        plan.say(format!(
            "In tidegate.toml, add the new keys, and replace {} wherever it is listed",
            replaced.join(", ")
        ));
        let tops: BTreeSet<&str> = affected
            .iter()
            .map(|(role, ..)| match role.as_str() {
                "targets" | "snapshot" | "timestamp" | "root" => "root",
                other => self.repository.delegator(other).unwrap_or("targets"),
            })
            .collect();
        let mut signers: Vec<String> = Vec::new();
        for role in tops {
            signers.push(format!("{role}: {}", self.signers(role, &ids)?));
        }
        plan.ceremony(&signers.join("; "), &format!("{} {list}", if stolen { "compromised" } else { "lost" }));
        if stolen {
            plan.say("Revoke what the thief could reach beside the keys: credentials of the publishing machine, of CI, of the bucket");
        }
        Ok(plan)
    }

    fn rename(&self, name: &str, holder: &str) -> Result<Plan> {
        let id = self.id(name)?;
        let mut plan = Plan::new(format!("Name {holder} as the holder of {name}"));
        plan.fact(
            "names of holders are signed beside the keys; the key itself stays, and devices do not look at names",
        );
        plan.say(format!("Set keys.{name}.holder = \"{holder}\" in tidegate.toml"));
        let role = self
            .roles_of(&BTreeSet::from([id]))
            .into_iter()
            .map(|(role, ..)| role)
            .next()
            .unwrap_or_else(|| "root".into());
        let above = self.repository.delegator(&role).unwrap_or("root").to_owned();
        plan.ceremony(&self.signers(&above, &BTreeSet::new())?, &format!("{name} is held by {holder}"));
        Ok(plan)
    }
}

/// What a role's keys alone can do.
fn power(role: &str) -> &'static str {
    match role {
        "root" => "everything",
        "targets" => "make channels of their own; not yet without snapshot and timestamp",
        "snapshot" => "with timestamp, freeze devices or mix old versions; never add a release",
        "timestamp" => "freeze devices at what is published, and run up versions",
        role if role.contains('.') => {
            "assign any approved release to that cohort; never add one, never lower a device's sequence"
        }
        _ => "approve releases of that channel; a rollout key must still assign them",
    }
}
