//! Creates a proposal from `tidegate.toml`.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::{Envelope, Root, Targets};
use tidegate_tuf::valid_signers;

use super::file::{Change, Follows, Kind, Proposal, RoleText};
use crate::config::{Cohorts, RoleSettings, Settings};
use crate::error::{Error, Result, Rule};
use crate::metadata::{Delegation, Document, Repository, RoleFile};
use tidegate_model::span::Span;

/// What to propose in addition to the changes of `tidegate.toml`.
#[derive(Debug, Clone, Default)]
pub struct ProposalRequest {
    /// Roles to sign again unchanged, for a new lifetime.
    pub renew: BTreeSet<String>,
    /// Target paths to remove from channels.
    pub unlist: BTreeSet<String>,
    /// JSON files to list in channels, by target path.
    pub list: BTreeMap<String, Vec<u8>>,
    /// The reason, for reviewers.
    pub reason: Option<String>,
}

/// Proposes to bring the signed metadata in line with the keys, thresholds, holders and delegations of `tidegate.toml` and
/// `cohorts.toml`.
///
/// Unchanged roles whose signatures would no longer count are proposed again as well. Without a repository it is the first root that
/// is proposed, with the first targets and channels.
///
/// # Errors
///
/// `C-NOTHING` if there is nothing to change. Fails if the request names a role that ceremonies do not sign.
pub fn propose(
    repository: Option<&Repository>,
    settings: &Settings,
    cohorts: &Cohorts,
    request: &ProposalRequest,
    now: DateTime<Utc>,
) -> Result<Proposal> {
    let mut draft = Draft { repository, now, changes: BTreeMap::new(), order: Vec::new(), files: BTreeMap::new() };
    for role in &request.renew {
        if !matches!(role.as_str(), "root" | "targets") && !settings.channels.keys().any(|c| c.as_str() == role) {
            return Err(Error::input(format!("{role} is not signed at a ceremony"))
                .remedy("renew root, targets or a channel here; tidegate refresh renews the others"));
        }
    }
    draft.root(settings, request)?;
    draft.targets(settings, request)?;
    for name in settings.channels.keys() {
        draft.channel(settings, cohorts, name, request)?;
    }
    let Some(first) = draft.order.first() else {
        return Err(Error::refused(
            Rule::CeremonyNothing,
            "nothing to propose: the signed metadata matches tidegate.toml and cohorts.toml",
        )
        .remedy("edit tidegate.toml first (see tidegate ceremony plan), or renew a role: --renew root"));
    };
    let subject = match draft.changes.get(first) {
        Some(document) => format!("{first} {}", document.version()),
        None => return Err(Error::bug("a change without a document")),
    };
    let changes = draft
        .order
        .iter()
        .filter_map(|role| Some(Change { role: role.clone(), signed: draft.changes.get(role)?.to_value() }))
        .collect();
    let follows = match repository {
        Some(repository) => follows(repository, &draft.order)?,
        None => Follows { from: 1, roots: Vec::new(), roles: Vec::new() },
    };
    let mut proposal = Proposal::new(Kind::Ceremony, subject, now, follows, changes);
    proposal.reason.clone_from(&request.reason);
    proposal.names = settings.key_names()?;
    proposal.files = draft.files;
    // What was just made must pass what every signer checks.
    let anchor = repository.map(Repository::anchor).transpose()?;
    let proposal = Proposal::parse("the new proposal", &proposal.to_bytes()?)?;
    super::verify(&proposal, anchor)?;
    Ok(proposal)
}

/// The chain that a change of `roles` is based on: all roots, and the targets and channel roles that are needed.
///
/// # Errors
///
/// Fails if a role's file is not UTF-8.
pub fn follows(repository: &Repository, roles: &[String]) -> Result<Follows> {
    let text = |role: &str, bytes: &[u8]| {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| Error::input(format!("the role {role} is not UTF-8, so it cannot travel in a proposal")))
    };
    let roots = repository.roots().iter().map(|bytes| text("root", bytes)).collect::<Result<_>>()?;
    let mut follows = Follows { from: repository.first_root(), roots, roles: Vec::new() };
    let below_root = roles.iter().any(|role| role != "root");
    let needed = repository
        .roles()
        .filter(|file| (file.name == "targets" && below_root) || roles.contains(&file.name) && file.name != "root");
    for file in needed {
        follows.roles.push(RoleText { role: file.name.clone(), file: text(&file.name, &file.bytes)? });
    }
    Ok(follows)
}

struct Draft<'a> {
    repository: Option<&'a Repository>,
    now: DateTime<Utc>,
    changes: BTreeMap<String, Document>,
    order: Vec<String>,
    files: BTreeMap<Digest, Value>,
}

impl Draft<'_> {
    fn in_force(&self, role: &str) -> Option<&RoleFile> {
        self.repository?.role(role)
    }

    fn targets_in_force(&self, role: &str) -> Option<&Targets> {
        self.repository?.targets(role)
    }

    fn put(&mut self, role: &str, mut document: Document, lifetime: Span) {
        let current = self.in_force(role).map(|file| file.version);
        let listed = self.repository.and_then(|repository| repository.listed_version(role));
        let version = current.max(listed).unwrap_or_default() + 1;
        document.issue(version, self.now, self.now + lifetime.delta());
        self.changes.insert(role.to_owned(), document);
        self.order.push(role.to_owned());
    }

    fn root(&mut self, settings: &Settings, request: &ProposalRequest) -> Result<()> {
        let base = self.in_force("root").map(|file| file.document.clone());
        let top = [
            ("root", &settings.roles.root),
            ("targets", &settings.roles.targets),
            ("snapshot", &settings.roles.snapshot),
            ("timestamp", &settings.roles.timestamp),
        ];
        let roles = top.iter().map(|(name, role)| Ok((*name, settings.role_keys(role)?))).collect::<Result<_>>()?;
        let mut document = base.clone().unwrap_or_else(|| Document::root(&roles));
        document.set_consistent_snapshot();
        document.set_roles(&roles);
        document.set_holders(&holders(settings, top.iter().map(|(_, role)| *role))?);
        for (name, role) in top.iter().filter(|(name, _)| matches!(*name, "root" | "targets")) {
            enough_holders(settings, name, role)?;
        }
        let same = base.is_some_and(|base| base.says_the_same(&document));
        if !same || request.renew.contains("root") {
            self.put("root", document, settings.roles.root.expires);
        }
        Ok(())
    }

    fn targets(&mut self, settings: &Settings, request: &ProposalRequest) -> Result<()> {
        let base = self.in_force("targets").map(|file| file.document.clone());
        let mut document = base.clone().unwrap_or_else(Document::targets);
        // Ours never list any; those of a repository that is taken over are left to its past.
        for path in self.targets_in_force("targets").into_iter().flat_map(|targets| targets.targets.keys()) {
            document.remove_target(path);
        }
        let wanted: Vec<String> = settings.channels.keys().map(layout::channel_role).collect();
        let delegated = self.targets_in_force("targets").and_then(|targets| targets.delegations.as_ref());
        for role in delegated.into_iter().flat_map(|delegations| &delegations.roles) {
            if !wanted.contains(&role.name) {
                document.remove_delegation(&role.name);
            }
        }
        for (name, channel) in &settings.channels {
            let role = layout::channel_role(name);
            enough_holders(settings, &role, &channel.release)?;
            let keys = settings.role_keys(&channel.release)?;
            document.set_delegation(&Delegation { name: role, keys, paths: layout::channel_patterns(name) });
        }
        let release = settings.channels.values().map(|channel| &channel.release);
        document.set_holders(&holders(settings, release)?);
        let resign = !self.still_signed("targets", &settings.roles.targets, settings)?;
        let same = base.is_some_and(|base| base.says_the_same(&document));
        if !same || resign || request.renew.contains("targets") {
            self.put("targets", document, settings.roles.targets.expires);
        }
        Ok(())
    }

    fn channel(
        &mut self,
        settings: &Settings,
        cohorts: &Cohorts,
        name: &tidegate_model::name::Name,
        request: &ProposalRequest,
    ) -> Result<()> {
        let role = layout::channel_role(name);
        let channel = settings.channel(name)?;
        let base = self.in_force(&role).map(|file| file.document.clone());
        let mut document = base.clone().unwrap_or_else(Document::targets);
        let map = cohorts.map(name)?;
        let bytes = map.to_bytes().map_err(|e| Error::input("the cohort map cannot be written").with_source(e))?;
        let digest = Digest::of(&bytes);
        let path = layout::cohorts_path(name);
        let listed = self.targets_in_force(&role).and_then(|targets| targets.targets.get(&path));
        if listed.is_none_or(|file| file.hashes.sha256_digest() != Some(digest.as_bytes())) {
            document.set_target(&path, bytes.len() as u64, digest.as_bytes(), None);
            let value = serde_json::from_slice(&bytes).map_err(|e| Error::bug("a cohort map").with_source(e))?;
            self.files.insert(digest, value);
        }
        for path in request.unlist.iter().filter(|path| path.starts_with(&format!("{name}/"))) {
            document.remove_target(path);
        }
        for (path, bytes) in request.list.iter().filter(|(path, _)| path.starts_with(&format!("{name}/"))) {
            let digest = Digest::of(bytes);
            document.set_target(path, bytes.len() as u64, digest.as_bytes(), None);
            let value = serde_json::from_slice(bytes).map_err(|e| Error::bug("a file to list").with_source(e))?;
            self.files.insert(digest, value);
        }
        let keys = settings.role_keys(&channel.rollout)?;
        let existing = self.targets_in_force(&role).and_then(|targets| targets.delegations.as_ref());
        let wanted: Vec<String> = map.cohorts().iter().map(|cohort| layout::cohort_role(name, &cohort.name)).collect();
        // The snapshot goes on listing a role that is gone, as it has to; who finds the new map finds no way to it.
        for role in existing.into_iter().flat_map(|delegations| &delegations.roles) {
            if !wanted.contains(&role.name) {
                document.remove_delegation(&role.name);
            }
        }
        for role in wanted {
            let Some(layout::DelegatedRole::Cohort { cohort, .. }) = layout::DelegatedRole::parse(&role) else {
                continue;
            };
            let paths = layout::cohort_patterns(name, &cohort);
            document.set_delegation(&Delegation { name: role, keys: keys.clone(), paths });
        }
        document.set_holders(&holders(settings, [&channel.rollout])?);
        let same = base.as_ref().is_some_and(|base| base.says_the_same(&document));
        let resign = !self.still_signed(&role, &channel.release, settings)?;
        if !same || resign || request.renew.contains(&role) {
            self.put(&role, document, channel.release.expires);
        }
        Ok(())
    }

    /// Whether the role's file in force has a threshold of the signatures that `wanted` asks for.
    fn still_signed(&self, role: &str, wanted: &RoleSettings, settings: &Settings) -> Result<bool> {
        let Some(file) = self.in_force(role) else { return Ok(true) };
        let wanted = settings.role_keys(wanted)?;
        let keys: BTreeMap<KeyId, Key> = wanted.keys.iter().map(|key| (key.id(), key.clone())).collect();
        let declared =
            tidegate_tuf::metadata::Role { keyids: keys.keys().cloned().collect(), threshold: wanted.threshold };
        let envelope = Envelope::parse(role, &file.bytes).map_err(|e| Error::bug(e.to_string()))?;
        Ok(valid_signers(&keys, &declared, &envelope).len() as u64 >= wanted.threshold)
    }
}

/// Who holds the keys of these roles, as far as `tidegate.toml` says.
fn holders<'a>(
    settings: &Settings,
    roles: impl IntoIterator<Item = &'a RoleSettings>,
) -> Result<BTreeMap<KeyId, String>> {
    let mut holders = BTreeMap::new();
    for name in roles.into_iter().flat_map(|role| &role.keys) {
        if let Some(holder) = settings.keys.get(name).and_then(|key| key.holder.clone()) {
            let printable =
                !holder.is_empty() && holder.len() <= 100 && holder.bytes().all(|c| (b' '..=b'~').contains(&c));
            if !printable {
                return Err(Error::input(format!(
                    "tidegate.toml: keys.{name}.holder: what is signed is ASCII, 1 to 100 characters"
                ))
                .remedy("write the holder's name in ASCII"));
            }
            holders.insert(settings.public(name)?.id(), holder);
        }
    }
    Ok(holders)
}

/// A threshold of two that one person can meet is a threshold of one.
fn enough_holders(settings: &Settings, role: &str, wanted: &RoleSettings) -> Result<()> {
    let holder = |name| settings.keys.get(name).and_then(|key| key.holder.as_deref());
    let named: BTreeSet<&str> = wanted.keys.iter().filter_map(holder).collect();
    let unnamed = wanted.keys.iter().filter(|name| holder(*name).is_none()).count();
    if (named.len() + unnamed) as u64 >= wanted.threshold {
        return Ok(());
    }
    Err(Error::refused(
        Rule::CeremonyHolder,
        format!(
            "the role {role} would need {} signatures, but its keys have only {} holders",
            wanted.threshold,
            named.len() + unnamed
        ),
    )
    .remedy("give keys to more people, or lower the threshold"))
}

/// Whether a role's file has a threshold of signatures under what a proposal declares; used when it is finished.
pub(crate) fn satisfied(role: &str, bytes: &[u8], root: &Root, delegator: Option<&Targets>) -> bool {
    let Ok(envelope) = Envelope::parse(role, bytes) else { return false };
    let found = match delegator {
        None => root.role(role).map(|declared| (root.keys(), declared)),
        Some(targets) => targets.delegations.as_ref().and_then(|d| Some((d.keys(), d.role(role)?))),
    };
    found.is_some_and(|(keys, declared)| valid_signers(keys, declared, &envelope).len() as u64 >= declared.threshold)
}
