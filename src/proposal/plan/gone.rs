//! Lost or stolen keys: the consequences, and the recovery if there is one.

use std::collections::BTreeSet;

use tidegate_tuf::key::KeyId;

use super::{Plan, PlanInputs};
use crate::error::Result;

/// A role with missing keys.
struct Affected {
    role: String,
    /// The remaining keys.
    left: Vec<KeyId>,
    /// The number of missing keys.
    gone: u64,
    threshold: u64,
}

impl Affected {
    /// Whether the remaining holders cannot sign it.
    fn is_stuck(&self) -> bool {
        (self.left.len() as u64) < self.threshold
    }

    /// Whether the holder of the missing keys can sign it.
    fn is_taken(&self) -> bool {
        self.gone >= self.threshold
    }

    fn is_online(&self) -> bool {
        matches!(self.role.as_str(), "timestamp" | "snapshot") || self.role.contains('.')
    }

    fn is_channel(&self) -> bool {
        !self.is_online() && !matches!(self.role.as_str(), "root" | "targets")
    }
}

/// The plan for lost keys or, if `stolen`, for keys that somebody else may have.
pub(super) fn plan(inputs: &PlanInputs<'_>, names: &[String], stolen: bool) -> Result<Plan> {
    let ids: BTreeSet<KeyId> = names.iter().map(|name| inputs.id(name)).collect::<Result<_>>()?;
    let affected: Vec<Affected> = inputs
        .roles_of(&ids)
        .into_iter()
        .map(|(role, left, threshold)| {
            let all = inputs.declared(&role)?.0.len();
            Ok(Affected { role, gone: (all - left.len()) as u64, left, threshold })
        })
        .collect::<Result<_>>()?;
    let list = names.join(", ");
    let mut plan = Plan::new(format!("{}: {list}", if stolen { "Compromised" } else { "Lost" }));
    if affected.is_empty() {
        plan.fact(format!("no role uses {list}: nothing is at risk"));
        return Ok(plan);
    }
    say_consequences(inputs, &affected, stolen, &mut plan);
    let root = affected.iter().find(|affected| affected.role == "root");
    if !stolen && root.is_some_and(Affected::is_stuck) {
        say_hopeless(&mut plan);
        return Ok(plan);
    }
    let race = stolen && root.is_some_and(Affected::is_taken);
    if race {
        plan.recoverable = false;
        plan.fact(
            "A THRESHOLD OF ROOT KEYS IS ENOUGH TO TAKE OVER THE FLEET: devices follow whichever root they see first",
        );
        plan.say(
            "Take the published timestamp.json offline if you cannot sign at once: devices then keep what they have",
        );
        plan.say(
            "Rotate at once with the steps below, and treat every device that fetched metadata in between as suspect",
        );
    }
    if stolen && affected.iter().any(|affected| affected.role.contains('.')) {
        plan.say("Check what cohorts are offered: an attacker can have moved them among approved releases, no further. Correct it with tidegate rollout once the key is replaced");
    }
    if stolen && affected.iter().any(Affected::is_channel) {
        plan.say("Compare the channel's role with the ledger (tidegate log --verify): a release that nobody registered must be withdrawn, and devices that installed it visited");
    }
    say_new_keys(inputs, names, &affected, &mut plan)?;
    let missing = if stolen { &[] } else { names };
    let reason = format!("{} {list}", if stolen { "compromised" } else { "lost" });
    plan.ceremony_without(missing, &signers(inputs, names, &ids, &affected, stolen)?, &reason);
    if stolen {
        plan.say("Revoke everything else the attacker could reach: credentials of the publishing machine, of CI, of the bucket");
    }
    Ok(plan)
}

fn say_consequences(inputs: &PlanInputs<'_>, affected: &[Affected], stolen: bool, plan: &mut Plan) {
    let mut say = |role: &str, text: String| {
        // Cohorts of a channel share their keys, and there may be hundreds.
        let text = match role.split_once('.') {
            Some((channel, _)) => text.replace(role, &format!("each cohort of {channel}")),
            None => text,
        };
        if !plan.facts.contains(&text) {
            plan.fact(text);
        }
    };
    for a in affected {
        let Affected { role, left, gone, threshold } = a;
        let text = match (stolen, a.is_stuck()) {
            (true, _) if a.is_taken() => format!("they are enough to sign {role}: {}", power(role)),
            (true, _) => format!("{gone} of the {threshold} signatures that {role} needs: not enough to sign it"),
            (false, true) => format!("{role} can no longer be signed by the keys in force"),
            (false, false) => format!("{role} can still be signed by {threshold} of the {} remaining keys", left.len()),
        };
        say(role, text);
    }
    for a in affected.iter().filter(|a| a.role != "root" && a.is_stuck()) {
        let role = &a.role;
        let by = inputs.repository.delegator(role).unwrap_or("root");
        say(role, format!("{role} gets new keys from {by}, which can be signed"));
    }
    if stolen && affected.iter().any(|a| matches!(a.role.as_str(), "timestamp" | "snapshot")) {
        plan.fact("devices may have seen inflated version numbers; the new root makes them forget what those keys signed (fast-forward recovery)");
    }
}

fn say_hopeless(plan: &mut Plan) {
    plan.recoverable = false;
    plan.fact("ROOT CANNOT BE RECOVERED: no new root that devices accept can ever be signed again");
    plan.say("What is published stays valid until it expires; until then releases and rollouts continue with the remaining keys");
    plan.say("Create a new repository with new keys (tidegate init), and bring its root to every device without relying on this one: a visit, the factory, a firmware image installed by hand");
    plan.say("While the old repository is alive, its last release may carry the new root and the new address: devices take it as data, and your own installer puts it in place");
}

fn say_new_keys(inputs: &PlanInputs<'_>, names: &[String], affected: &[Affected], plan: &mut Plan) -> Result<()> {
    for name in names {
        let id = inputs.id(name)?;
        let counts = |a: &&Affected| inputs.declared(&a.role).is_ok_and(|(all, _)| all.contains(&id));
        if affected.iter().filter(counts).all(Affected::is_online) {
            plan.run(
                format!("Create a key to replace {name} on the machine that signs with it; the command adds it to tidegate.toml"),
                format!("tidegate key new {name}-b --no-passphrase"),
            );
        } else {
            plan.run(
                format!("Create a key to replace {name} on the machine of its holder, who sends the printed lines for tidegate.toml"),
                format!("tidegate key new {name}-b --out {name}-b.pem"),
            );
        }
    }
    let replaced: Vec<String> = names.iter().map(|name| format!("{name} by {name}-b")).collect();
    plan.say(format!("In tidegate.toml, replace {} wherever it is listed", replaced.join(", ")));
    Ok(())
}

/// Who has to sign: whoever declares the keys, and, where what is in force loses its signatures, the role itself by its keys as they
/// will be.
fn signers(
    inputs: &PlanInputs<'_>,
    names: &[String],
    ids: &BTreeSet<KeyId>,
    affected: &[Affected],
    stolen: bool,
) -> Result<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut declared_by = BTreeSet::new();
    for a in affected {
        declared_by.insert(inputs.repository.delegator(&a.role).unwrap_or("root"));
    }
    for role in declared_by {
        // A stolen key still signs; whoever else can should rather.
        let stuck = affected.iter().any(|a| a.role == role && a.is_stuck());
        let without = if stolen && stuck { BTreeSet::new() } else { ids.clone() };
        parts.push(format!("{role}: {}", inputs.signers(role, &without)?));
    }
    for a in affected.iter().filter(|a| !a.is_online()) {
        let valid = inputs.repository.signers(&a.role).iter().filter(|id| !ids.contains(*id)).count() as u64;
        if a.role == "root" || valid < a.threshold {
            parts.push(inputs.as_it_will_be(&a.role, a.threshold, names)?);
        }
    }
    Ok(parts.join("; "))
}

/// What a role's keys alone can do.
fn power(role: &str) -> &'static str {
    match role {
        "root" => "everything",
        "targets" => "create their own channels, if they also have snapshot and timestamp",
        "snapshot" => "with timestamp, freeze devices or mix old versions; never add a release",
        "timestamp" => "freeze devices at what is published, and run up versions",
        role if role.contains('.') => {
            "offer any approved release to that cohort; never add one, never lower a device's sequence"
        }
        _ => "approve releases of that channel; a rollout key must still offer them",
    }
}
