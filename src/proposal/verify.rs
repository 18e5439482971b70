//! Checking a proposal from a root that one was given: its chain, what it proposes, and every signature in it.

use std::collections::BTreeMap;

use serde_json::Value;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::{Common, Delegations, Envelope, Role, Root, Targets};
use tidegate_tuf::{TrustedSet, valid_signers};

use super::file::{Kind, Proposal, RoleText};
use crate::error::{Error, Result, Rule};
use crate::metadata::{Document, Repository, danger_parse_unverified};

/// A proposal that follows from a given root, and what it takes to finish it.
#[derive(Debug, Clone)]
pub struct Verified {
    /// Every root, from version 1 to the one in force; none for a first root.
    pub roots: Vec<Root>,
    /// The proposed root, if it changes.
    pub new_root: Option<Root>,
    /// The other roles in force, by name.
    pub base: BTreeMap<String, Targets>,
    /// The other roles as proposed, by name.
    pub proposed: BTreeMap<String, Targets>,
    /// The thresholds to be met, in the order of the changes; for root, the old one's before the new one's.
    pub requirements: Vec<Requirement>,
    /// Who holds which key, as the roles in force and then the proposed ones say.
    pub holders: BTreeMap<KeyId, String>,
    /// Documents in force and proposed, by role, for comparison.
    pub documents: BTreeMap<String, (Option<Document>, Document)>,
}

/// Keys of which a threshold must sign a role.
#[derive(Debug, Clone)]
pub struct Requirement {
    /// The role to be signed.
    pub role: String,
    /// Whose keys these are, for people: `root 1 (in force)`, `root 2 (proposed)`.
    pub by: String,
    /// The keys that are declared beside them.
    pub keys: BTreeMap<KeyId, Key>,
    /// Ids and threshold.
    pub threshold: Role,
}

/// Where a requirement stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RequirementStatus {
    /// The role to be signed.
    pub role: String,
    /// Whose keys count.
    pub by: String,
    /// How many it takes.
    pub threshold: u64,
    /// The keys that have signed.
    pub signed: Vec<KeyId>,
    /// The keys that have not.
    pub missing: Vec<KeyId>,
}

impl RequirementStatus {
    /// Whether enough have signed.
    pub fn is_met(&self) -> bool {
        self.signed.len() as u64 >= self.threshold
    }
}

impl Verified {
    /// The status of each requirement.
    ///
    /// # Errors
    ///
    /// Fails if a role's file is malformed.
    pub fn requirement_status(&self, proposal: &Proposal) -> Result<Vec<RequirementStatus>> {
        self.requirements
            .iter()
            .map(|requirement| {
                let file = proposal.file(&requirement.role)?;
                let envelope = envelope(&requirement.role, &file)?;
                let signed = valid_signers(&requirement.keys, &requirement.threshold, &envelope);
                let missing = requirement.threshold.keyids.iter().filter(|id| !signed.contains(id)).cloned().collect();
                Ok(RequirementStatus {
                    role: requirement.role.clone(),
                    by: requirement.by.clone(),
                    threshold: requirement.threshold.threshold,
                    signed,
                    missing,
                })
            })
            .collect()
    }

    /// The roles that `key` may sign, and the id that it is declared under for each.
    ///
    /// What others have declared may have members beside the key itself (tuf-on-ci names the owner there), and so another id than the
    /// same key would get here. Signatures go by the declared one (TAP 12).
    pub fn roles_of(&self, key: &Key) -> Vec<(&str, &KeyId)> {
        let mut roles: Vec<(&str, &KeyId)> = self
            .requirements
            .iter()
            .flat_map(|r| {
                let own = |id: &&KeyId| r.keys.get(*id).is_some_and(|declared| is_same(declared, key));
                r.threshold.keyids.iter().filter(own).map(|id| (r.role.as_str(), id))
            })
            .collect();
        roles.dedup();
        roles
    }
}

/// Whether two keys verify the same signatures, however they are spelled and whatever is declared beside them.
fn is_same(one: &Key, other: &Key) -> bool {
    one.scheme() == other.scheme()
        && one.decode().zip(other.decode()).is_some_and(|(one, other)| one.fingerprint() == other.fingerprint())
}

/// Checks a proposal from `anchor`, a root that the caller trusts: the one that devices are shipped with, or any later one. `None` is
/// for the proposal of a first root, which follows from nothing: only its digest tells it from another.
///
/// Whatever the error, nothing in the proposal may be used.
///
/// # Errors
///
/// Fails if the chain does not start at `anchor`, or if a role or a signature does not verify.
pub fn verify(proposal: &Proposal, anchor: Option<&[u8]>) -> Result<Verified> {
    let roots = match anchor {
        Some(anchor) => chain(proposal, anchor)?,
        None => check_first(proposal).map(|()| Vec::new())?,
    };
    let current = roots.last();
    let mut verified = Verified {
        new_root: None,
        base: BTreeMap::new(),
        proposed: BTreeMap::new(),
        requirements: Vec::new(),
        holders: BTreeMap::new(),
        documents: BTreeMap::new(),
        roots: Vec::new(),
    };
    let mut documents: BTreeMap<&str, Document> = BTreeMap::new();
    documents.extend(proposal.follows.roots.last().map(|text| ("root", text)).map(document).transpose()?);
    for RoleText { role, file } in &proposal.follows.roles {
        let current = current.ok_or_else(|| Error::bug("a base without roots"))?;
        let targets = base(role, file, current, &verified.base)?;
        verified.base.insert(role.clone(), targets);
        documents.extend([document((role, file))?]);
    }
    for change in &proposal.changes {
        let role = change.role.as_str();
        let file = proposal.file(role)?;
        let envelope = envelope(role, &file)?;
        let before = documents.remove(role);
        let common = if role == "root" {
            let new: Root = envelope.danger_read_unverified(role).map_err(malformed)?;
            let asks = |root: &Root, which: &str| {
                requirement(role, format!("root {} ({which})", root.common.version), root.keys(), root.role(role))
            };
            verified.requirements.extend(current.and_then(|current| asks(current, "in force")));
            verified.requirements.extend(asks(&new, "proposed"));
            check_key_ids(role, new.keys(), current.map(Root::keys))?;
            let common = new.common.clone();
            verified.new_root = Some(new);
            common
        } else {
            let new: Targets = envelope.danger_read_unverified(role).map_err(malformed)?;
            let found = verified.new_root.as_ref().or(current);
            let found = found.and_then(|root| delegator(role, root, &verified.proposed, &verified.base));
            let (by, keys, declared) = found.ok_or_else(|| orphan(role))?;
            verified.requirements.extend(requirement(role, by, keys, Some(declared)));
            if let Some(delegations) = &new.delegations {
                let in_force = verified.base.get(role).and_then(|targets| targets.delegations.as_ref());
                check_key_ids(role, delegations.keys(), in_force.map(Delegations::keys))?;
            }
            let common = new.common.clone();
            verified.proposed.insert(role.to_owned(), new);
            common
        };
        check_issue(proposal, role, before.as_ref(), &common)?;
        let Value::Object(signed) = change.signed.clone() else { return Err(Error::bug("a change without an object")) };
        verified.documents.insert(role.to_owned(), (before, Document::from_verified(signed)));
    }
    for document in documents.values() {
        verified.holders.extend(document.holders());
    }
    for (before, after) in verified.documents.values() {
        verified.holders.extend(before.iter().flat_map(Document::holders));
        verified.holders.extend(after.holders());
    }
    verified.roots = roots;
    check_subject(proposal, &verified)?;
    check_signatures(proposal, &verified)?;
    Ok(verified)
}

/// A ceremony is called by the first role that it changes: its title is what people look at first.
fn check_subject(proposal: &Proposal, verified: &Verified) -> Result<()> {
    let first = proposal.changes.first().and_then(|change| Some((&change.role, verified.documents.get(&change.role)?)));
    let Some((role, (_, document))) = first.filter(|_| proposal.kind == Kind::Ceremony) else { return Ok(()) };
    let subject = format!("{role} {}", document.version());
    if proposal.subject == subject {
        return Ok(());
    }
    Err(Error::refused(
        Rule::CeremonyFormat,
        format!("the proposal is called {:?}, and changes {subject}", proposal.subject),
    )
    .remedy("do not sign it: its title misleads; ask whoever sent it, over another way"))
}

/// The roots of the proposal, every step verified, `anchor` among them.
fn chain(proposal: &Proposal, anchor: &[u8]) -> Result<Vec<Root>> {
    let given: Root = danger_parse_unverified("root", anchor)
        .map_err(|e| Error::input("the root that was given is not one").with_source(e))?;
    let version = given.common.version;
    let count = proposal.follows.roots.len() as u64;
    if count == 0 {
        return Err(Error::trust(
            "the proposal is for a first root, of another repository than the one of the root that was given",
        )
        .rule(Rule::CeremonyChain)
        .remedy("do not sign it: a repository has one first root; ask whoever sent it what it is for"));
    }
    if version > count {
        return Err(Error::refused(Rule::CeremonyStale, format!(
            "the proposal follows from root {count}, but the root that was given is {version}: it is older than what is in force"
        ))
        .remedy("have it proposed anew from the root in force"));
    }
    let from = proposal.follows.from;
    if version < from {
        return Err(Error::refused(
            Rule::CeremonyChain,
            format!("the root that was given is {version}, and the repository is verified from root {from} on"),
        )
        .remedy(format!("give root {from} or a later one that you trust: --root FILE")));
    }
    let elsewhere = |why: String| {
        Error::trust(format!("the proposal is not for the repository of the given root: {why}"))
            .rule(Rule::CeremonyChain)
            .remedy("do not sign it; ask whoever sent it, over another way, which repository it is for")
    };
    let mut set: Option<TrustedSet> = None;
    let mut roots = Vec::new();
    for (text, number) in proposal.follows.roots.iter().zip(1_u64..).filter(|(_, number)| *number >= from) {
        match &mut set {
            None => {
                let first = TrustedSet::danger_from_root_ignoring_expiry(text.as_bytes());
                set = Some(first.map_err(|e| elsewhere(e.to_string()))?);
            }
            Some(set) => set.update_root(text.as_bytes()).map_err(|e| elsewhere(e.to_string()))?,
        }
        let root = set.as_ref().map(|set| set.root().clone()).ok_or_else(|| Error::bug("a chain without a set"))?;
        if root.common.version != number {
            return Err(elsewhere(format!("its root {number} has version {}", root.common.version)));
        }
        if number == version && !same_signed(anchor, text.as_bytes()) {
            return Err(elsewhere(format!("its root {number} is another one")));
        }
        roots.push(root);
    }
    // And once more from the given one: what came before it is only believed as history.
    let mut set = TrustedSet::danger_from_root_ignoring_expiry(anchor).map_err(|e| elsewhere(e.to_string()))?;
    for text in proposal.follows.roots.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
        set.update_root(text.as_bytes()).map_err(|e| elsewhere(e.to_string()))?;
    }
    Ok(roots)
}

/// Checks that a proposal which nothing vouches for is one for a first root.
fn check_first(proposal: &Proposal) -> Result<()> {
    let follows = &proposal.follows;
    if !follows.roots.is_empty() || !follows.roles.is_empty() {
        return Err(Error::usage(
            "the proposal follows from a root, so it can only be checked from a root that you trust",
        )
        .remedy("give the root that devices are shipped with, or a later one that you kept: --root FILE"));
    }
    let is_whole = proposal.change("root").is_some() && proposal.change("targets").is_some();
    if proposal.kind != Kind::Ceremony || !is_whole {
        return Err(Error::trust("the proposal follows from no root, and does not propose a first root and targets")
            .rule(Rule::CeremonyChain)
            .remedy("do not sign it; have it proposed anew: tidegate init"));
    }
    match proposal.changes.iter().find(|change| change.signed.get("version") != Some(&1.into())) {
        None => Ok(()),
        Some(change) => Err(Error::refused(
            Rule::CeremonyIssue,
            format!("the proposed {} is not version 1, and comes with a first root", change.role),
        )
        .remedy("have it proposed anew")),
    }
}

fn same_signed(a: &[u8], b: &[u8]) -> bool {
    match (Envelope::parse("root", a), Envelope::parse("root", b)) {
        (Ok(a), Ok(b)) => a.signed_bytes() == b.signed_bytes(),
        _ => false,
    }
}

/// Verifies a role in force by what delegates to it in force.
fn base(role: &str, file: &str, root: &Root, known: &BTreeMap<String, Targets>) -> Result<Targets> {
    let forged = |why: String| {
        Error::trust(format!("the proposal follows from a role {role} that does not verify: {why}"))
            .rule(Rule::CeremonyChain)
            .remedy("do not sign it; get the file again, or have it proposed anew")
    };
    let none = BTreeMap::new();
    let (_, keys, declared) = delegator(role, root, &none, known).ok_or_else(|| orphan(role))?;
    let envelope = Envelope::parse(role, file.as_bytes()).map_err(|e| forged(e.to_string()))?;
    let valid = valid_signers(keys, declared, &envelope).len() as u64;
    if valid < declared.threshold {
        return Err(forged(format!("{valid} of {} signatures are valid", declared.threshold)));
    }
    envelope.danger_read_unverified(role).map_err(|e| forged(e.to_string()))
}

/// Who declares the keys of `role`: the proposed roles before those in force.
fn delegator<'a>(
    role: &str,
    root: &'a Root,
    proposed: &'a BTreeMap<String, Targets>,
    base: &'a BTreeMap<String, Targets>,
) -> Option<(String, &'a BTreeMap<KeyId, Key>, &'a Role)> {
    if role == "targets" {
        return Some((format!("root {}", root.common.version), root.keys(), root.role(role)?));
    }
    proposed.iter().chain(base.iter().filter(|(name, _)| !proposed.contains_key(*name))).find_map(|(name, targets)| {
        let delegations = targets.delegations.as_ref()?;
        let declared = delegations.role(role)?;
        let by = format!("{name} {}", targets.common.version);
        Some((by, delegations.keys(), declared))
    })
}

fn requirement(role: &str, by: String, keys: &BTreeMap<KeyId, Key>, declared: Option<&Role>) -> Option<Requirement> {
    Some(Requirement { role: role.to_owned(), by, keys: keys.clone(), threshold: declared?.clone() })
}

/// Every key is declared under its own id, or under the one that it has in force.
///
/// Devices go by the declared id (TAP 12), and so do the tables that signers read: another key under an id that is known already would
/// come in unseen.
fn check_key_ids(role: &str, keys: &BTreeMap<KeyId, Key>, in_force: Option<&BTreeMap<KeyId, Key>>) -> Result<()> {
    let is_right = |id: &KeyId, key: &Key| key.id() == *id || in_force.and_then(|keys| keys.get(id)) == Some(key);
    match keys.iter().find(|(id, key)| !is_right(id, key)) {
        None => Ok(()),
        Some((id, key)) => Err(Error::trust(format!(
            "the proposed {role} declares the key {} under the id {}, which is not its own",
            key.id().short(),
            id.short()
        ))
        .rule(Rule::CeremonyKeyId)
        .remedy("do not sign it: whoever proposed it wants another key to pass for one that is known")),
    }
}

/// The new version is the next one, made when the proposal was, and not expired from the start.
fn check_issue(proposal: &Proposal, role: &str, before: Option<&Document>, new: &Common) -> Result<()> {
    let refuse = |why: String| {
        Error::refused(Rule::CeremonyIssue, format!("the proposed {role} {why}")).remedy("have it proposed anew")
    };
    if let Some(before) = before
        && new.version != before.version() + 1
    {
        return Err(refuse(format!("is version {}, and {} would follow", new.version, before.version() + 1)));
    }
    if new.issued != Some(proposal.proposed) {
        return Err(refuse("was not made when the proposal says".into()));
    }
    if new.expires <= proposal.proposed {
        return Err(refuse("would be expired from the start".into()));
    }
    Ok(())
}

/// Every signature is by a key that has a say and verifies; nobody signs twice towards one threshold.
fn check_signatures(proposal: &Proposal, verified: &Verified) -> Result<()> {
    for (role, signatures) in &proposal.signatures {
        let message = proposal.signed_bytes(role)?;
        for (id, entry) in signatures {
            check_signature(verified, role, id, &message, &entry.sig)?;
        }
    }
    for requirement in verified.requirement_status(proposal)? {
        let mut seen: BTreeMap<&str, &KeyId> = BTreeMap::new();
        for id in &requirement.signed {
            let Some(holder) = verified.holders.get(id) else { continue };
            if let Some(other) = seen.insert(holder, id) {
                return Err(Error::refused(
                    Rule::CeremonyHolder,
                    format!(
                        "{holder} signed {} with two keys ({} and {}) that both count for {}",
                        requirement.role,
                        proposal.label(other),
                        proposal.label(id),
                        requirement.by
                    ),
                )
                .remedy("a threshold is of people: have another holder sign"));
            }
        }
    }
    Ok(())
}

/// Checks that `sig` (hex) is a signature of the key `id` over `message`.
///
/// # Errors
///
/// Fails if the role does not list the key, or if the signature does not verify.
pub(super) fn check_signature(verified: &Verified, role: &str, id: &KeyId, message: &[u8], sig: &str) -> Result<()> {
    let declared = verified
        .requirements
        .iter()
        .filter(|r| r.role == role && r.threshold.keyids.contains(id))
        .find_map(|r| r.keys.get(id));
    let Some(key) = declared else {
        return Err(Error::refused(Rule::CeremonyKey, format!("the key {} has no say in {role}", id.short()))
            .remedy("sign with a key that `tidegate ceremony status` lists"));
    };
    if key.decode().is_none() {
        return Err(Error::refused(
            Rule::CeremonySignature,
            format!(
                "the signature of {} on {role} cannot be checked: keys of {} are not supported",
                id.short(),
                key.scheme()
            ),
        )
        .remedy("reach the threshold with keys of ed25519, ecdsa-sha2-nistp256 or rsassa-pss-sha256"));
    }
    let is_by = |key: &Key| {
        let bytes = crate::keys::signature_bytes(key, sig.as_bytes()).ok();
        key.decode().zip(bytes).is_some_and(|(public, bytes)| public.verify(message, &bytes))
    };
    if is_by(key) {
        return Ok(());
    }
    let keys = verified.requirements.iter().flat_map(|requirement| &requirement.keys);
    if let Some((other, _)) = keys.into_iter().find(|(_, other)| is_by(other)) {
        return Err(Error::trust(format!(
            "the signature on {role} is by the key {}, not by {}",
            other.short(),
            id.short()
        ))
        .rule(Rule::CeremonySignature)
        .remedy("name the key that made it"));
    }
    Err(Error::trust(format!("the signature of {} on {role} is not over what is proposed", id.short()))
        .rule(Rule::CeremonySignature)
        .remedy("it was made for another proposal, or the file was altered; sign this one anew"))
}

pub(super) fn envelope<'a>(role: &str, file: &'a [u8]) -> Result<Envelope<'a>> {
    Envelope::parse(role, file).map_err(malformed)
}

fn document<'a>((role, file): (&'a str, &String)) -> Result<(&'a str, Document)> {
    let value = tidegate_tuf::json::parse_large(file.as_bytes(), usize::MAX)
        .map_err(|e| Error::bug("verified bytes do not parse").with_source(e))?;
    match value.get("signed").cloned() {
        Some(Value::Object(signed)) => Ok((role, Document::from_verified(signed))),
        _ => Err(Error::bug("verified bytes hold no signed part")),
    }
}

fn malformed(e: tidegate_tuf::Error) -> Error {
    Error::input("the proposal holds malformed metadata").with_source(e).rule(Rule::CeremonyFormat)
}

fn orphan(role: &str) -> Error {
    Error::refused(Rule::CeremonyChain, format!("nothing in the proposal delegates to {role}"))
        .remedy("have it proposed anew from the repository's own folder")
}

/// Checks that the proposal is based on exactly what is in force.
///
/// # Errors
///
/// `C-STALE` if a root or role has changed since.
pub fn check_follows(proposal: &Proposal, repository: &Repository) -> Result<()> {
    let stale = |what: String| {
        let remedy = match proposal.kind {
            Kind::Release => format!(
                "propose it anew (tidegate release manifest {id}), or give it up: tidegate release drop {id}",
                id = proposal.subject
            ),
            Kind::Ceremony => {
                "abort it and start again: tidegate ceremony abort, then start; signatures cannot be reused".to_owned()
            }
        };
        Error::refused(Rule::CeremonyStale, format!("the proposal no longer follows from what is in force: {what}"))
            .remedy(remedy)
    };
    let live = repository.roots();
    if live.len() != proposal.follows.roots.len()
        || repository.first_root() != proposal.follows.from
        || !live.iter().zip(&proposal.follows.roots).all(|(a, b)| a == b.as_bytes())
    {
        return Err(stale(format!(
            "root {} is in force, and it follows from root {}",
            live.len(),
            proposal.follows.roots.len()
        )));
    }
    for text in &proposal.follows.roles {
        let file = repository.role(&text.role);
        if file.is_none_or(|file| file.bytes != text.file.as_bytes()) {
            let version = file.map_or(0, |file| file.version);
            return Err(stale(format!("{} {version} is in force", text.role)));
        }
    }
    // A role that is new here must be new in the repository.
    for change in &proposal.changes {
        let known = change.role == "root" || proposal.follows.roles.iter().any(|text| text.role == change.role);
        if !known && repository.role(&change.role).is_some() {
            return Err(stale(format!("{} exists already", change.role)));
        }
    }
    Ok(())
}
