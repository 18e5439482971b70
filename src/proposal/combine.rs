//! Signing and combining: the only ways to add signatures to a proposal.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::KeyId;

use super::file::{Proposal, Signature};
use super::objections::objections;
use super::verify::{Verified, check_signature, verify};
use crate::error::{Error, Result, Rule};
use crate::keys::{Signer, signature_bytes};

/// Signs every role of the proposal that lists the key. Returns these roles.
///
/// `by` is the kind of key and the program that signs; `allowed` names what is signed although it is refused by default.
///
/// # Errors
///
/// `C-UNSEEN` or `C-CLIENT` if the proposal brings what is refused and not allowed. Fails if no role of the proposal lists the key, or if its signature does not verify.
pub fn sign(
    proposal: &mut Proposal,
    verified: &Verified,
    signer: &dyn Signer,
    (source, tool): (&str, &str),
    allowed: &BTreeSet<String>,
    now: DateTime<Utc>,
) -> Result<Vec<String>> {
    objections(proposal, verified).refuse(allowed)?;
    let key = signer.public();
    let roles: Vec<(String, KeyId)> =
        verified.roles_of(key).into_iter().map(|(role, id)| (role.to_owned(), id.clone())).collect();
    if roles.is_empty() {
        return Err(no_say(proposal, verified, &key.id()));
    }
    for (role, id) in &roles {
        let message = proposal.signed_bytes(role)?;
        let signature = signer.sign(&message)?;
        let public = key.decode().filter(|public| public.verify(&message, &signature));
        if public.is_none() {
            return Err(Error::trust(format!("the key {} made a signature that does not verify", key.id().short()))
                .remedy("replace the key's hardware or file"));
        }
        let entry = Signature { sig: to_hex(&signature), source: source.into(), time: now, tool: tool.into() };
        proposal.add(role, id.clone(), entry);
    }
    let mut roles: Vec<String> = roles.into_iter().map(|(role, _)| role).collect();
    roles.dedup();
    Ok(roles)
}

/// Adds a signature that another program made over the bytes of one role; `text` is its file, raw, hex or base64.
///
/// # Errors
///
/// Fails if the role does not list the key, or if the signature cannot be decoded or does not verify.
pub fn add_outside(
    proposal: &mut Proposal,
    verified: &Verified,
    role: &str,
    id: &KeyId,
    text: &[u8],
    now: DateTime<Utc>,
) -> Result<()> {
    let key = verified
        .requirements
        .iter()
        .filter(|r| r.role == role && r.threshold.keyids.contains(id))
        .find_map(|r| r.keys.get(id))
        .ok_or_else(|| no_say(proposal, verified, id))?;
    let signature = signature_bytes(key, text)
        .map_err(|why| Error::input(format!("the signature of {} on {role}: {why}", proposal.label(id))))?;
    let sig = to_hex(&signature);
    check_signature(verified, role, id, &proposal.signed_bytes(role)?, &sig)?;
    let entry = Signature { sig, source: "outside".into(), time: now, tool: "not known".into() };
    proposal.add(role, id.clone(), entry);
    Ok(())
}

/// Combines the signatures of several copies of one proposal. Every copy is verified from `anchor` ([`verify`]); if one is invalid, nothing is
/// combined. The result does not depend on the order.
///
/// # Errors
///
/// Fails if one of the proposals differs from the first or does not verify.
pub fn combine(first: &Proposal, others: &[(String, Proposal)], anchor: Option<&[u8]>) -> Result<Proposal> {
    verify(first, anchor)?;
    let digest = first.digest()?;
    let mut combined = first.clone();
    for (name, other) in others {
        if other.digest()? != digest {
            return Err(different(name, first, other));
        }
        verify(other, anchor).map_err(|e| named(name, &e))?;
        for (role, signatures) in &other.signatures {
            for (id, signature) in signatures {
                combined.add(role, id.clone(), signature.clone());
            }
        }
        // Names and reason are labels for people, outside the digest; what sorts first wins, in any order.
        for (id, label) in &other.names {
            let old = combined.names.entry(id.clone()).or_insert_with(|| label.clone());
            if *label < *old {
                old.clone_from(label);
            }
        }
        combined.reason = combined.reason.take().into_iter().chain(other.reason.clone()).min();
    }
    // Two copies may each be valid and yet not be so together: one holder with two keys.
    verify(&combined, anchor)?;
    Ok(combined)
}

fn different(name: &str, first: &Proposal, other: &Proposal) -> Error {
    let older = other.proposed < first.proposed;
    let what = if other.subject == first.subject && older {
        format!("{name} is an older proposal for {}, of {}", other.subject, other.proposed.format("%Y-%m-%dT%H:%M:%SZ"))
    } else {
        format!("{name} is another proposal ({}), not this one ({})", other.subject, first.subject)
    };
    Error::refused(Rule::CeremonyOther, what).remedy("sign this proposal; signatures cannot move to another")
}

/// Who may sign a role, for a key that may not.
fn no_say(proposal: &Proposal, verified: &Verified, id: &KeyId) -> Error {
    let mut may: Vec<String> =
        verified.requirements.iter().flat_map(|r| &r.threshold.keyids).map(|id| proposal.label(id)).collect();
    may.sort();
    may.dedup();
    Error::refused(Rule::CeremonyKey, format!("the key {} may not sign this proposal", proposal.label(id)))
        .remedy(format!("sign with one of: {}", may.join(", ")))
}

/// The same error, with the name of the file that it is about.
fn named(name: &str, error: &Error) -> Error {
    let named = Error::new(error.kind(), format!("{name}, so nothing was combined: {}", error.text()))
        .remedy(error.remedy_text().unwrap_or("get the file again"));
    match error.broken_rule() {
        Some(rule) => named.rule(rule),
        None => named,
    }
}
