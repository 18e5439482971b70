//! A ceremony in a workspace: started, combined, finished or aborted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::cohort::CohortMap;
use tidegate_model::digest::Digest;
use tidegate_model::layout::{self, DelegatedRole, Location};
use tidegate_model::name::Name;
use tidegate_tuf::key::KeyId;
use tidegate_tuf::metadata::Targets;

use super::first;
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::KeyRing;
use crate::metadata::{Edit, Repository};
use crate::proposal::{
    Kind, MAX_LENGTH, Proposal, ProposalRequest, Tool, Transcript, Verified, check_follows, objections, propose,
    satisfied, verify,
};
use crate::release::retire;
use crate::rollout::cohorts;
use crate::workspace::ledger::LedgerEvent;
use crate::workspace::listed_bytes;
use crate::workspace::{CEREMONY, Ledger, Operation, Workspace, has_begun, map_in_force};

/// The file of the current ceremony.
pub const FILE: &str = CEREMONY;
/// The folder of finished ceremonies' transcripts.
pub const TRANSCRIPTS: &str = "transcripts";

/// The current ceremony, verified from the first root; without a repository, that of the first root.
///
/// # Errors
///
/// `C-NONE` if no ceremony is in progress. Fails if the proposal is malformed or does not verify.
pub fn open(workspace: &Workspace, repository: Option<&Repository>) -> Result<(Proposal, Verified)> {
    let path = fs::confined(workspace.dir(), FILE)?;
    let Some(bytes) = fs::read_if_exists(&path, MAX_LENGTH)? else {
        return Err(Error::input("no ceremony is in progress").rule(Rule::CeremonyNone).remedy(
            if repository.is_some() {
                "start one: tidegate ceremony start --renew ROLE, or without --renew after a change of tidegate.toml"
            } else {
                "start with the first root: tidegate init"
            },
        ));
    };
    let proposal = Proposal::parse(FILE, &bytes)?;
    let verified = verify(&proposal, repository.map(Repository::anchor).transpose()?)?;
    Ok((proposal, verified))
}

/// Starts a ceremony.
///
/// # Errors
///
/// `C-ONE` if a ceremony is in progress. Fails if the clock is behind the last signature, or if the request cannot be proposed.
pub fn start(op: &mut Operation<'_>, request: &ProposalRequest) -> Result<Proposal> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let path = fs::confined(workspace.dir(), FILE)?;
    if path.exists() {
        return Err(Error::refused(Rule::CeremonyOne, "a ceremony is under way")
            .remedy("see what it waits for: tidegate ceremony status; or give it up: tidegate ceremony abort"));
    }
    let proposal = proposed(workspace, &workspace.repository()?, request, now)?;
    let mut changes = Changes::default();
    changes.put(FILE, proposal.to_bytes()?);
    write_down(workspace, &mut changes, now, [happening("ceremony-start", &proposal, actor, Map::new())?])?;
    workspace.commit(changes)?;
    Ok(proposal)
}

/// What [`start`] would propose.
///
/// # Errors
///
/// `C-NOTHING` if nothing is to be signed. Fails if the clock is behind the last signature, or if the request cannot be proposed.
pub fn proposed(
    workspace: &Workspace,
    repository: &Repository,
    request: &ProposalRequest,
    now: DateTime<Utc>,
) -> Result<Proposal> {
    let settings = workspace.settings()?;
    // A clock that runs behind what was signed last must not date a proposal.
    Edit::new(repository, now, settings.online())?;
    let mut proposal = propose(Some(repository), &settings, &workspace.cohorts()?, request, now)?;
    attach_maps_in_force(workspace, repository, &mut proposal)?;
    for (channel, _, map) in changed_maps(repository, &proposal)? {
        cohorts::check_change(workspace, repository, &channel, &map, now)?;
    }
    Ok(proposal)
}

/// Saves a proposal with more signatures as the current one.
///
/// # Errors
///
/// Fails if the proposal cannot be serialized or the workspace cannot be written.
pub fn keep(op: &mut Operation<'_>, proposal: &Proposal) -> Result<()> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let mut changes = Changes::default();
    changes.put(FILE, proposal.to_bytes()?);
    let signed: Map<_, _> = proposal
        .signatures
        .iter()
        .map(|(role, by)| (role.clone(), json!(by.keys().map(KeyId::as_str).collect::<Vec<_>>())))
        .collect();
    let evidence = Map::from_iter([("signatures".to_owned(), signed.into())]);
    write_down(workspace, &mut changes, now, [happening("ceremony-sign", proposal, actor, evidence)?])?;
    workspace.commit(changes)
}

/// Aborts the current ceremony.
///
/// # Errors
///
/// `C-NONE` if no ceremony is in progress. Fails if the workspace cannot be written.
pub fn abort(op: &mut Operation<'_>, reason: Option<String>) -> Result<()> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let path = fs::confined(workspace.dir(), FILE)?;
    let Some(bytes) = fs::read_if_exists(&path, MAX_LENGTH)? else {
        return Err(Error::input("no ceremony is in progress")
            .rule(Rule::CeremonyNone)
            .remedy("there is nothing to abort"));
    };
    let mut changes = Changes::default();
    changes.remove(FILE);
    let mut ledger = Ledger::open(workspace.dir())?;
    ledger.append(
        now,
        LedgerEvent {
            event: "ceremony-abort",
            // A damaged file must not prevent aborting.
            subject: Proposal::parse(FILE, &bytes).map_or_else(|_| "a damaged proposal".to_owned(), |b| b.subject),
            actor: actor.to_owned(),
            transition: None,
            reason,
            evidence: Map::from_iter([("file".to_owned(), Digest::of(&bytes).to_string().into())]),
        },
    )?;
    ledger.put(&mut changes);
    workspace.commit(changes)
}

/// A finished ceremony.
#[derive(Debug)]
pub struct Done {
    /// The roles with a new version.
    pub roles: Vec<String>,
    /// The transcript.
    pub transcript: PathBuf,
}

/// Makes the proposal the metadata in force: checks every threshold, verifies everything again, renews online roles where needed,
/// and writes all files or none. `allowed` names what is brought into force although it is refused by default.
///
/// # Errors
///
/// `C-UNSEEN` or `C-CLIENT` if the proposal brings what is refused and not allowed. Fails if the proposal is stale, lacks signatures or does not verify, if the new cohort map exposes too much, or if an online
/// key cannot sign.
pub fn finish(op: &mut Operation<'_>, allowed: &BTreeSet<String>, tool: &Tool) -> Result<Done> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    if !has_begun(workspace.dir())? {
        return first::finish(op, allowed, tool);
    }
    let repository = workspace.repository()?;
    let (proposal, verified) = open(workspace, Some(&repository))?;
    if proposal.kind == Kind::Release {
        return Err(Error::input("this is a release")
            .remedy(format!("finish it with: tidegate release register {}", proposal.subject)));
    }
    check_follows(&proposal, &repository)?;
    let allowed = objections(&proposal, &verified).refuse(allowed)?;
    check_thresholds(&proposal, &verified)?;
    let mut moved = Vec::new();
    for (channel, sha256, map) in changed_maps(&repository, &proposal)? {
        cohorts::check_change(workspace, &repository, &channel, &map, now)?;
        let evidence = Map::from_iter([("map".to_owned(), json!(sha256))]);
        moved.push(LedgerEvent { subject: channel.to_string(), ..happening("cohorts", &proposal, actor, evidence)? });
    }

    let (edit, lists) = edit(workspace, &repository, (&proposal, &verified), now)?;
    let finished = edit.finish(op.keys)?.ok_or_else(|| Error::bug("a ceremony that changes nothing"))?;
    let mut changes = finished.changes;
    changes.extend(lists);
    for (path, bytes) in new_targets(&repository, &proposal)? {
        changes.put(path, bytes);
    }
    let transcript = Transcript::of((&proposal, &verified), &finished.repository, allowed, tool, now)?;
    let name = format!("{TRANSCRIPTS}/{}", transcript.file_name());
    changes.put(name.as_str(), transcript.to_markdown()?.into_bytes());
    changes.remove(FILE);
    let retired = retire::finished(
        &mut Operation::new(workspace, actor, now, &mut KeyRing::empty()),
        &repository,
        &proposal,
        &mut changes,
    )?;
    let evidence =
        Map::from_iter([("roles".to_owned(), json!(finished.roles)), ("transcript".to_owned(), name.as_str().into())]);
    let own = happening("ceremony-finish", &proposal, actor, evidence)?;
    write_down(workspace, &mut changes, now, std::iter::once(own).chain(retired).chain(moved))?;
    workspace.commit(changes)?;
    Ok(Done { roles: finished.roles, transcript: workspace.dir().join(name) })
}

/// What [`finish`] signs with online keys, around what people have signed; and lists of offers to write with it.
fn edit<'a>(
    workspace: &Workspace,
    repository: &'a Repository,
    (proposal, verified): (&Proposal, &Verified),
    now: DateTime<Utc>,
) -> Result<(Edit<'a>, Changes)> {
    let settings = workspace.settings()?;
    let mut edit = Edit::new(repository, now, settings.online())?;
    for change in &proposal.changes {
        edit.put_signed(&change.role, proposal.file(&change.role)?);
    }
    let mut lists = Changes::default();
    let reguarded = reguarded(workspace, repository)?;
    renew_online((&mut edit, &mut lists), repository, &settings, verified, &reguarded, now)?;
    // Publishing ends with the timestamp, whatever else changes.
    edit.renew("timestamp", settings.roles.timestamp.expires.delta())?;
    Ok((edit, lists))
}

/// The roles that [`finish`] would sign and whose keys cannot be tried here, with those keys.
///
/// # Errors
///
/// Fails if the proposal cannot be finished for another reason than missing signatures.
pub fn out_of_reach(
    workspace: &Workspace,
    repository: Option<&Repository>,
    (proposal, verified): (&Proposal, &Verified),
    ring: &KeyRing,
    now: DateTime<Utc>,
) -> Result<BTreeMap<String, Vec<KeyId>>> {
    match repository {
        Some(repository) => edit(workspace, repository, (proposal, verified), now)?.0.out_of_reach(ring),
        None => first::edit(proposal, verified, &workspace.settings()?, now)?.out_of_reach(ring),
    }
}

/// Checks that every threshold is met.
///
/// # Errors
///
/// `C-THRESHOLD` with the missing signers.
pub fn check_thresholds(proposal: &Proposal, verified: &Verified) -> Result<()> {
    let short: Vec<String> = verified
        .requirement_status(proposal)?
        .iter()
        .filter(|requirement| !requirement.is_met())
        .map(|requirement| {
            let mut missing: Vec<_> = requirement.missing.iter().map(|id| proposal.label(id)).collect();
            missing.sort();
            format!(
                "{} has {} of {} signatures of {} (not yet: {})",
                requirement.role,
                requirement.signed.len(),
                requirement.threshold,
                requirement.by,
                missing.join(", ")
            )
        })
        .collect();
    if short.is_empty() {
        return Ok(());
    }
    Err(Error::refused(Rule::CeremonyThreshold, short.join("; "))
        .remedy("have the missing keys sign it (tidegate ceremony sign --key NAME), or add copies that were signed elsewhere: tidegate ceremony combine FILE"))
}

/// Signs again what the proposal invalidates the signatures of: snapshot, timestamp, and cohorts under a new rollout key.
fn renew_online(
    (edit, lists): (&mut Edit<'_>, &mut Changes),
    repository: &Repository,
    settings: &crate::config::Settings,
    verified: &Verified,
    reguarded: &BTreeSet<String>,
    now: DateTime<Utc>,
) -> Result<()> {
    if let Some(root) = &verified.new_root {
        let stays = |role: &str| repository.role(role).is_some_and(|file| satisfied(role, &file.bytes, root, None));
        let keys = |root: &tidegate_tuf::metadata::Root| root.role("snapshot").map(|role| role.keyids.clone());
        let changed = verified.roots.last().map(keys) != Some(keys(root));
        // A new key signs from the start, so that the old one can be removed without a gap.
        if !stays("snapshot") || changed {
            edit.renew("snapshot", settings.roles.snapshot.expires.delta())?;
        }
    }
    let root =
        verified.new_root.as_ref().or(verified.roots.last()).ok_or_else(|| Error::bug("a chain without roots"))?;
    for targets in verified.proposed.values() {
        let delegated = targets.delegations.iter().flat_map(|delegations| &delegations.roles);
        for role in delegated {
            let Some(DelegatedRole::Cohort { channel: name, cohort }) = DelegatedRole::parse(&role.name) else {
                continue;
            };
            let lifetime = settings.channel(&name)?.rollout.expires.delta();
            match repository.role(&role.name) {
                None => edit.put(&role.name, cohorts::beginning(repository, &name, &cohort, now, lists)?, lifetime),
                Some(file) if !satisfied(&role.name, &file.bytes, root, Some(targets)) => {
                    edit.renew(&role.name, lifetime)?;
                }
                // A version that was public must not become the protected one, or vice versa.
                Some(_) if reguarded.contains(&role.name) => edit.renew(&role.name, lifetime)?,
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// The roles of cohorts whose protection differs between the cohort maps in force and `cohorts.toml`.
fn reguarded(workspace: &Workspace, repository: &Repository) -> Result<BTreeSet<String>> {
    let wanted = workspace.cohorts()?;
    let mut found = BTreeSet::new();
    for channel in wanted.channels().filter(|channel| repository.role(&layout::channel_role(channel)).is_some()) {
        let (before, after) = (map_in_force(workspace.dir(), repository, channel)?, wanted.map(channel)?);
        for cohort in after.cohorts() {
            let was = before.cohort(&cohort.name).map(|cohort| cohort.protected.is_some());
            if was.is_some_and(|was| was != cohort.protected.is_some()) {
                found.insert(layout::cohort_role(channel, &cohort.name));
            }
        }
    }
    Ok(found)
}

/// The bytes of newly listed cohort maps, which came with the proposal.
fn new_targets(repository: &Repository, proposal: &Proposal) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for (channel, digest) in cohort_maps(proposal) {
        if in_force(repository, &channel) != Some(digest) {
            let bytes = tidegate_tuf::json::canonical(attached(proposal, &channel, &digest)?)
                .map_err(|e| Error::input("the cohort map cannot be written").with_source(e))?;
            found.push((crate::workspace::artifacts::signed_path(&digest), bytes));
        }
    }
    for (role, path, digest) in patch_lists(proposal) {
        let is_listed = repository.targets(&role).and_then(|targets| targets.targets.get(&path));
        if is_listed.is_none_or(|file| file.hashes.sha256_digest() != Some(digest.as_bytes())) {
            let value = proposal.files.get(&digest).ok_or_else(|| {
                Error::input(format!("the proposal lists {path} and does not contain it")).rule(Rule::CeremonyFormat)
            })?;
            let bytes = tidegate_tuf::json::canonical(value)
                .map_err(|e| Error::input(format!("{path} cannot be written")).with_source(e))?;
            found.push((crate::workspace::artifacts::signed_path(&digest), bytes));
        }
    }
    Ok(found)
}

/// The lists of patches that the channels in a proposal list: role, path and hash.
fn patch_lists(proposal: &Proposal) -> Vec<(String, String, Digest)> {
    let of = |change: &crate::proposal::Change| -> Option<Vec<(String, String, Digest)>> {
        let listed = change.signed.pointer("/targets")?.as_object()?.iter();
        let patches = listed.filter(|(path, _)| matches!(Location::parse(path), Some(Location::Patches { .. })));
        let found = patches.filter_map(|(path, file)| {
            let digest = file.pointer("/hashes/sha256")?.as_str()?.parse().ok()?;
            Some((change.role.clone(), path.clone(), digest))
        });
        Some(found.collect())
    };
    proposal.changes.iter().filter_map(of).flatten().collect()
}

/// The replaced maps, with their hashes.
fn changed_maps(repository: &Repository, proposal: &Proposal) -> Result<Vec<(Name, Digest, CohortMap)>> {
    let mut found = Vec::new();
    for (channel, digest) in cohort_maps(proposal) {
        if in_force(repository, &channel).is_some_and(|in_force| in_force != digest) {
            let map = CohortMap::from_value(attached(proposal, &channel, &digest)?).map_err(|e| {
                Error::input(format!("the proposed cohort map of {channel} is malformed")).with_source(e)
            })?;
            found.push((channel, digest, map));
        }
    }
    Ok(found)
}

fn in_force(repository: &Repository, channel: &Name) -> Option<Digest> {
    repository.targets(&layout::channel_role(channel)).and_then(|targets| listed(targets, channel))
}

/// A file that came with the proposal.
pub(super) fn attached<'a>(proposal: &'a Proposal, channel: &Name, digest: &Digest) -> Result<&'a serde_json::Value> {
    proposal.files.get(digest).ok_or_else(|| {
        Error::input(format!("the proposal lists {} and does not contain it", layout::cohorts_path(channel)))
            .rule(Rule::CeremonyFormat)
            .remedy("give this one up and propose again: tidegate ceremony abort, then tidegate ceremony start")
    })
}

/// The cohort maps that the channels in a proposal list.
pub(super) fn cohort_maps(proposal: &Proposal) -> Vec<(Name, Digest)> {
    let of = |change: &crate::proposal::Change| {
        let DelegatedRole::Channel(name) = DelegatedRole::parse(&change.role)? else { return None };
        let file = change.signed.pointer("/targets")?.get(layout::cohorts_path(&name))?;
        Some((name, file.pointer("/hashes/sha256")?.as_str()?.parse().ok()?))
    };
    proposal.changes.iter().filter(|change| change.role != "root" && change.role != "targets").filter_map(of).collect()
}

fn listed(targets: &Targets, channel: &Name) -> Option<Digest> {
    targets.targets.get(&layout::cohorts_path(channel))?.hashes.name_prefix().parse().ok()
}

/// Attaches the cohort maps and lists of patches in force beside their replacements, so that people can compare them.
fn attach_maps_in_force(workspace: &Workspace, repository: &Repository, proposal: &mut Proposal) -> Result<()> {
    for (channel, digest) in cohort_maps(proposal) {
        if in_force(repository, &channel).is_none_or(|in_force| in_force == digest) {
            continue;
        }
        let bytes = map_in_force(workspace.dir(), repository, &channel)?.to_bytes();
        let bytes = bytes.map_err(|e| Error::bug("a cohort map").with_source(e))?;
        let content = serde_json::from_slice(&bytes).map_err(|e| Error::bug("a cohort map").with_source(e))?;
        proposal.files.insert(Digest::of(&bytes), content);
    }
    for (role, path, digest) in patch_lists(proposal) {
        let Some(file) = repository.targets(&role).and_then(|targets| targets.targets.get(&path)) else { continue };
        if file.hashes.sha256_digest() != Some(digest.as_bytes()) {
            let bytes = listed_bytes(workspace.dir(), repository, &role, &path)?;
            let content = serde_json::from_slice(&bytes).map_err(|e| Error::bug("a list of patches").with_source(e))?;
            proposal.files.insert(Digest::of(&bytes), content);
        }
    }
    Ok(())
}

pub(super) fn happening(
    event: &'static str,
    proposal: &Proposal,
    actor: &str,
    mut evidence: Map<String, serde_json::Value>,
) -> Result<LedgerEvent> {
    evidence.insert("digest".into(), proposal.digest()?.into());
    Ok(LedgerEvent {
        event,
        subject: proposal.subject.clone(),
        actor: actor.to_owned(),
        transition: None,
        reason: proposal.reason.clone(),
        evidence,
    })
}

fn write_down(
    workspace: &Workspace,
    changes: &mut Changes,
    now: DateTime<Utc>,
    happenings: impl IntoIterator<Item = LedgerEvent>,
) -> Result<()> {
    let mut ledger = Ledger::open(workspace.dir())?;
    for happening in happenings {
        ledger.append(now, happening)?;
    }
    ledger.put(changes);
    Ok(())
}
