//! Keys and thresholds: who comes, who goes, and what that allows.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::{Delegations, Role, Root, Targets};
use tidegate_tuf::path::PathSet;

use super::ReviewBuilder;

impl ReviewBuilder<'_> {
    pub(super) fn root(&mut self, old: Option<&Root>, new: &Root) {
        for name in ["root", "targets", "snapshot", "timestamp"] {
            if let Some(after) = new.role(name) {
                let before = old.and_then(|old| Some((old.keys(), old.role(name)?)));
                self.keys(name, before, (new.keys(), after));
                if matches!(name, "root" | "targets") {
                    self.possession(name, before.map(|(_, role)| role), after);
                }
            }
        }
        if old.is_none() {
            self.warnings.push(
                "this is a first root, of a new repository: nothing that a signer keeps vouches for it, only the digest that is read out; \
                 if devices are in the field already, do not sign it"
                    .into(),
            );
        }
        let offline: BTreeSet<&KeyId> =
            ["root", "targets"].iter().filter_map(|r| new.role(r)).flat_map(|r| &r.keyids).collect();
        for name in ["snapshot", "timestamp"] {
            for id in new.role(name).into_iter().flat_map(|role| &role.keyids).filter(|id| offline.contains(id)) {
                self.warnings.push(format!(
                    "{} is a key of root or targets and would sign {name} online as well",
                    self.proposal.label(id)
                ));
            }
        }
    }

    /// A new key of a role that no key online can replace, without a signature: nobody has shown yet that its private part is there.
    pub(super) fn possession(&mut self, role: &str, old: Option<&Role>, new: &Role) {
        let signed = |id: &KeyId| self.proposal.signatures.values().any(|signatures| signatures.contains_key(id));
        let is_new = |id: &&KeyId| old.is_none_or(|old| !old.keyids.contains(id));
        let unproven: Vec<_> =
            new.keyids.iter().filter(is_new).filter(|id| !signed(id)).map(|id| self.proposal.label(id)).collect();
        if !unproven.is_empty() {
            self.warnings.push(format!(
                "new keys of {role} that have not signed: {}; have their holders sign before `ceremony finish`, or nobody knows that they can",
                unproven.join(", ")
            ));
        }
    }

    /// The proposal alone says what keys are called, so one must not pass for another.
    pub(super) fn names(&mut self) {
        let declaring = self.verified.base.values().chain(self.verified.proposed.values());
        let delegated = declaring.filter_map(|targets| targets.delegations.as_ref()).map(Delegations::keys);
        let roots = self.verified.roots.last().into_iter().chain(&self.verified.new_root).map(Root::keys);
        let ids: BTreeSet<&KeyId> =
            delegated.chain(roots).flat_map(BTreeMap::keys).chain(self.proposal.names.keys()).collect();
        let mut labels: BTreeMap<String, usize> = BTreeMap::new();
        for id in ids {
            *labels.entry(self.proposal.label(id)).or_default() += 1;
        }
        for (label, count) in labels.into_iter().filter(|(_, count)| *count > 1) {
            self.warnings
                .push(format!("{count} different keys are called {label} in this proposal: compare their ids"));
        }
    }

    /// Compares the keys and threshold of a role that `root` or a delegation declares.
    fn keys(
        &mut self,
        name: &str,
        before: Option<(&BTreeMap<KeyId, Key>, &Role)>,
        (keys, after): (&BTreeMap<KeyId, Key>, &Role),
    ) {
        let none = Vec::new();
        let old_ids = before.map_or(&none, |(_, role)| &role.keyids);
        let mut changed = false;
        for id in old_ids {
            if !after.keyids.contains(id) {
                let scheme = before.and_then(|(keys, _)| keys.get(id)).map_or("", Key::scheme);
                self.row('-', format!("{name} key {}", self.person(id)), format!("{scheme} {}", id.short()), "");
                self.impossible.push(format!("{} signs {name} no longer", self.person(id)));
                changed = true;
            }
        }
        for id in &after.keyids {
            let key = keys.get(id);
            let shown = format!("{} {}", key.map_or("", Key::scheme), id.short());
            if !old_ids.contains(id) {
                self.row('+', format!("{name} key {}", self.person(id)), "", shown);
                self.possible.push(format!("{} signs {name}", self.person(id)));
                changed = true;
            }
            if key.and_then(Key::decode).is_none() {
                self.warnings.push(format!(
                    "the {name} key {} is of a kind that devices cannot verify",
                    self.proposal.label(id)
                ));
            } else if key.is_some_and(crate::keys::example::is_example) {
                self.examples += 1;
            }
        }
        let count = after.keyids.len() as u64;
        let of = |role: &Role| format!("{} of {}", role.threshold, role.keyids.len());
        if let Some((_, old)) = before {
            if old.threshold != after.threshold || old.keyids.len() != after.keyids.len() {
                self.row('~', format!("{name} threshold"), of(old), of(after));
                changed = true;
            }
            if after.threshold < old.threshold {
                self.warnings.push(format!(
                    "the threshold of {name} is lowered from {} to {}: fewer people, or fewer stolen keys, suffice",
                    old.threshold, after.threshold
                ));
            }
        } else {
            self.row('+', format!("{name} threshold"), "", of(after));
        }
        if !changed && before.is_some() {
            return;
        }
        let others = count.saturating_sub(after.threshold);
        self.possible.push(format!(
            "any {} of the {count} {name} keys sign for {name}; {}",
            after.threshold,
            match others {
                0 => "none may be lost".to_owned(),
                1 => "one may be lost".to_owned(),
                more => format!("{more} may be lost"),
            }
        ));
        if others == 0 && matches!(name, "root" | "targets") {
            self.warnings.push(format!("if one key of {name} is lost, {name} can never be signed again"));
        }
        if after.threshold > count {
            self.warnings.push(format!("{name} asks for more signatures than it has keys: it can never be signed"));
        }
        if name == "root" && after.threshold == 1 {
            self.warnings.push("one key alone would decide over root, and so over everything".into());
        }
        if matches!(name, "snapshot" | "timestamp") && old_ids.iter().any(|id| !after.keyids.contains(id)) {
            self.impossible.push(format!(
                "whoever has the old {name} key can no longer freeze or mislead devices that have followed"
            ));
        }
    }

    pub(super) fn delegations(&mut self, role: &str, old: Option<&Targets>, new: &Targets) {
        let list = |targets: Option<&Targets>| {
            targets.and_then(|t| t.delegations.clone()).map(|d| d.roles).unwrap_or_default()
        };
        let (before, after) = (list(old), list(Some(new)));
        for gone in before.iter().filter(|d| !after.iter().any(|new| new.name == d.name)) {
            self.row('-', format!("delegation {}", gone.name), patterns(&gone.paths), "");
            self.impossible.push(format!("{} is removed; its releases can no longer be installed", gone.name));
            if !self.left_the_map(&gone.name, new) {
                self.warnings.push(format!(
                    "the delegation to {} is removed; devices that follow it stop getting updates",
                    gone.name
                ));
            }
        }
        let Some(delegations) = &new.delegations else { return };
        // Cohorts by the hundred share one set of keys: said once.
        let mut said: BTreeSet<String> = BTreeSet::new();
        for delegation in &after {
            let old_one = before.iter().find(|d| d.name == delegation.name);
            if old_one == Some(delegation) {
                continue;
            }
            match old_one {
                None => self.row('+', format!("delegation {}", delegation.name), "", patterns(&delegation.paths)),
                Some(old) if old.paths != delegation.paths => {
                    self.row(
                        '~',
                        format!("paths of {}", delegation.name),
                        patterns(&old.paths),
                        patterns(&delegation.paths),
                    );
                    self.warnings.push(format!("{} would be trusted with other paths", delegation.name));
                }
                Some(_) => {}
            }
            if !delegation.terminating {
                self.warnings.push(format!(
                    "the delegation to {} is not terminating: later roles could answer for its paths",
                    delegation.name
                ));
            }
            if let PathSet::Patterns(paths) = &delegation.paths {
                let prefix = format!("{}/", delegation.name.split('.').next().unwrap_or_default());
                for path in paths.iter().filter(|path| !path.as_str().starts_with(&prefix)) {
                    self.warnings.push(format!(
                        "{} would be trusted with {}, which is not below {prefix}",
                        delegation.name,
                        path.as_str()
                    ));
                }
            } else {
                self.warnings.push(format!(
                    "{} would be trusted with paths by their hashes, which cannot be read",
                    delegation.name
                ));
            }
            let from = old_one.and_then(|old_one| {
                let keys = old.and_then(|old| old.delegations.as_ref())?.keys();
                Some((keys, &old_one.role))
            });
            if from.is_some_and(|(_, role)| *role == delegation.role) {
                continue;
            }
            let same = format!("{:?}{:?}", from.map(|(_, role)| role), delegation.role);
            if said.insert(same) {
                self.keys(&delegation.name, from, (delegations.keys(), &delegation.role));
            } else {
                self.row('~', format!("keys of {}", delegation.name), "", "as the delegation before it");
            }
        }
        let moved = before.iter().map(|d| &d.name).filter(|name| after.iter().any(|d| d.name == **name));
        let order: Vec<_> =
            after.iter().map(|d| &d.name).filter(|name| before.iter().any(|d| d.name == **name)).collect();
        if !moved.eq(order.iter().copied()) {
            self.row('~', format!("order of {role}'s delegations"), "", "earlier ones take precedence");
        }
    }

    pub(super) fn key_stays(&self, role: &str, id: &KeyId) -> bool {
        match role {
            "root" => self.verified.new_root.as_ref().is_some_and(|root| root.keys().contains_key(id)),
            _ => self
                .verified
                .proposed
                .get(role)
                .and_then(|t| t.delegations.as_ref())
                .is_some_and(|d| d.keys().contains_key(id)),
        }
    }
}

fn patterns(paths: &PathSet) -> String {
    match paths {
        PathSet::Patterns(paths) => paths.iter().map(tidegate_tuf::path::Pattern::as_str).collect::<Vec<_>>().join(" "),
        PathSet::HashPrefixes(prefixes) => format!("hashes {}", prefixes.join(" ")),
    }
}
