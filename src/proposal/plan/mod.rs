//! Guided plans: from a situation to the steps that resolve it, or the statement that none does.

mod gone;

use std::collections::BTreeSet;

use serde::Serialize;
use tidegate_tuf::key::KeyId;

use crate::config::Settings;
use crate::error::{Error, Result};
use crate::metadata::Repository;

/// What happened or is wanted.
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
    /// Whether it resolves the situation; if not, `steps` lists what can still be done.
    pub recoverable: bool,
    /// What to know before starting.
    pub facts: Vec<String>,
    /// The steps.
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

/// A plan for a situation, based on what is in force and the key names in `tidegate.toml`.
///
/// # Errors
///
/// Fails if the situation names an unknown key or role, or if the metadata is inconsistent.
pub fn plan(situation: &Situation, repository: &Repository, settings: &Settings) -> Result<Plan> {
    let inputs = PlanInputs { repository, settings };
    match situation {
        Situation::AddRootKey(name) => inputs.add_root_key(name),
        Situation::RemoveRootKey(name) => inputs.remove_root_key(name),
        Situation::ReplaceRootKey(old, new) => inputs.replace_root_key(old, new),
        Situation::Threshold(role, threshold) => inputs.threshold(role, *threshold),
        Situation::ReplaceOnlineKey(old, new) => inputs.replace_online_key(old, new),
        Situation::Lost(names) => gone::plan(&inputs, names, false),
        Situation::Compromised(names) => gone::plan(&inputs, names, true),
        Situation::RenameHolder(name, holder) => inputs.rename(name, holder),
    }
}

struct PlanInputs<'a> {
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
        self.ceremony_without(&[], signers, reason);
    }

    /// The same, where nobody has these keys any more.
    fn ceremony_without(&mut self, lost: &[String], signers: &str, reason: &str) {
        self.run("Propose it", format!("tidegate ceremony start --reason '{reason}'"));
        let lost = lost.iter().fold(String::new(), |words, name| words + " --lost " + name);
        self.run(
            "Try it on simulated devices at every root version; every device must be able to update",
            format!("tidegate ceremony rehearse{lost}"),
        );
        self.run(
            format!("Send proposals/ceremony.json to the signers ({signers}); each reviews and signs it on their own machine, with their copy of the root"),
            "tidegate ceremony sign ceremony.json --root root.json --key file:KEY.pem",
        );
        self.run("Combine the signed copies", "tidegate ceremony combine COPY...");
        self.run("Check that every threshold is met, and finish", "tidegate ceremony finish");
        self.run(
            "Publish and check as a device does",
            "tidegate publish FOLDER && tidegate verify FOLDER --root 1.root.json",
        );
    }
}

impl PlanInputs<'_> {
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

    /// Who signs `role` by its future keys, where `replaced` are given up for new ones of their name with `-b`.
    fn as_it_will_be(&self, role: &str, threshold: u64, replaced: &[String]) -> Result<String> {
        let mut names: Vec<_> = self.declared(role)?.0.iter().map(|id| self.label(id)).collect();
        for name in names.iter_mut().filter(|name| replaced.contains(name)) {
            *name = format!("{name}-b");
        }
        names.sort();
        Ok(format!("{role} as it will be: {threshold} of {}", names.join(", ")))
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
        plan.fact(format!("root needs {threshold} of {} keys now; with one more, one more may be lost", ids.len()));
        plan.run(
            "The new holder creates the key on their own machine, and sends the printed line",
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
            plan.fact(format!("root needs {threshold} signatures, and {left} keys would remain: lower the threshold in the same ceremony, or add a key"));
        } else if left == threshold {
            plan.fact(format!("{left} keys would remain, and all of them would have to sign: if one more is lost, root can never be signed again. Better replace {name}"));
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
            "The holder creates the new key on their own machine, and sends the printed line",
            format!("tidegate key new {new} --out {new}.pem"),
        );
        plan.say(format!("In tidegate.toml, add [keys.{new}] and replace {old} by {new} in roles.root.keys"));
        plan.ceremony(&self.signers("root", &BTreeSet::from([id]))?, &format!("replace root key {old} by {new}"));
        plan.say(format!("After filing the transcript, destroy {old}: devices that were offline follow without it"));
        Ok(plan)
    }

    fn threshold(&self, role: &str, threshold: u64) -> Result<Plan> {
        let (ids, current) = self.declared(role)?;
        let mut plan = Plan::new(format!("Change the threshold of {role} from {current} to {threshold}"));
        if threshold == 0 || threshold > ids.len() as u64 {
            return Err(Error::input(format!(
                "{role} has {} keys: a threshold of {threshold} can never be met",
                ids.len()
            ))
            .remedy("add keys first"));
        }
        if threshold < current {
            plan.fact(format!("lower: {threshold} stolen keys would be enough; now it takes {current}"));
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
        let mut signers = self.signers(above, &BTreeSet::new())?;
        // What is in force loses its signatures if there are too few of them for the new threshold.
        let online = matches!(role, "snapshot" | "timestamp") || role.contains('.');
        if threshold > current && !online && (self.repository.signers(role).len() as u64) < threshold || role == "root"
        {
            signers = format!("{above}: {signers}; {}", self.as_it_will_be(role, threshold, &[])?);
        }
        plan.ceremony(&signers, &format!("threshold of {role} to {threshold}"));
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
        plan.fact("two ceremonies: after the first both keys count, after the second only the new one. Devices on either side of each root can verify at any time");
        plan.fact("if the old key is compromised there is no overlap: use tidegate ceremony plan compromised");
        plan.run("Create the new key on the machine that signs online roles", format!("tidegate key new {new}"));
        plan.say(format!(
            "Add {new} beside {old} to the keys of {} in tidegate.toml; the threshold stays",
            roles.join(" and ")
        ));
        plan.ceremony(&self.signers("root", &BTreeSet::new())?, &format!("add online key {new}"));
        plan.say(format!("Take {old} out of the keys of {}", roles.join(" and ")));
        plan.ceremony(&self.signers("root", &BTreeSet::new())?, &format!("remove online key {old}"));
        Ok(plan)
    }

    fn rename(&self, name: &str, holder: &str) -> Result<Plan> {
        let id = self.id(name)?;
        let mut plan = Plan::new(format!("Name {holder} as the holder of {name}"));
        plan.fact("names of holders are signed beside the keys; the key does not change, and devices ignore names");
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
