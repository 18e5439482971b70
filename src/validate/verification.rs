//! Release verification: signatures, thresholds, expiries and the chain of trust.

use std::sync::Arc;

use tidegate_model::digest::Digest;
use tidegate_model::layout;
use tidegate_tuf::time;

use super::{Rule, RuleResult, Subject, none_of, not_applicable, pass, warn};
use crate::audit::{self, ByHash};
use crate::error::{Kind, Result};
use crate::metadata::METADATA_DIR;
use crate::policy::{CheckKind, ReleaseState};
use crate::release::listing::ReleaseProposal;
use crate::workspace::artifacts;
use tidegate_model::span::Span;

const KIND: CheckKind = CheckKind::ReleaseVerification;
/// Offline roles that expire within this time want somebody's attention before a rollout begins.
const SOON: Span = Span::hours(14 * 24);

pub(super) const RULES: &[Rule] = &[
    Rule { id: "V-REL-01", kind: KIND, title: "the channel lists manifest and artifacts as they are", check: listed },
    Rule { id: "V-REL-02", kind: KIND, title: "a threshold of the channel's keys has signed", check: threshold },
    Rule { id: "V-REL-03", kind: KIND, title: "no role on the way to the release has expired", check: expiry },
    Rule { id: "V-REL-04", kind: KIND, title: "no role on the way to the release expires soon", check: expires_soon },
    Rule { id: "V-REL-05", kind: KIND, title: "an independent implementation accepts the metadata", check: second },
    Rule { id: "V-REL-06", kind: KIND, title: "the verification code of devices accepts the metadata", check: first },
];

fn is_registered(subject: &Subject<'_>) -> bool {
    !matches!(subject.record.state, ReleaseState::Draft | ReleaseState::Signed)
}

fn listed(subject: &Subject<'_>) -> Result<RuleResult> {
    if !is_registered(subject) {
        return proposed(subject);
    }
    let manifest = subject.manifest;
    let role = layout::channel_role(&manifest.channel);
    let path = layout::manifest_path(&manifest.channel, &manifest.product, &manifest.version);
    let own = (path, subject.bytes.len() as u64, Digest::of(subject.bytes));
    let artifacts = manifest.artifacts.iter().map(|a| (a.path.clone(), a.length, a.sha256));
    let targets = subject.repository.targets(&role);
    let mut wrong = Vec::new();
    for (path, length, sha256) in std::iter::once(own).chain(artifacts) {
        match targets.and_then(|targets| targets.targets.get(&path)) {
            None => wrong.push(format!("{role} does not list {path}")),
            Some(file) if file.length != length || file.hashes.sha256_digest() != Some(sha256.as_bytes()) => {
                wrong.push(format!("{role} lists {path} with another hash or length"));
            }
            Some(_) => {}
        }
    }
    none_of(&wrong, format!("{role} lists {} files as they are", manifest.artifacts.len() + 1))
}

/// Before registration: what the signers are asked to sign.
fn proposed(subject: &Subject<'_>) -> Result<RuleResult> {
    let id = subject.record.id();
    let Some(proposal) = ReleaseProposal::load(subject.dir, &id)? else {
        return not_applicable("it is not proposed for signing yet");
    };
    if !proposal.follows(subject.repository) {
        return super::fail(
            "the proposal no longer follows from the channel's role: propose it anew with tidegate release manifest",
        );
    }
    let lifetime = subject.settings.channel(&id.channel)?.release.expires;
    match proposal.check(&id, subject.manifest, subject.bytes, subject.repository, lifetime) {
        Ok(()) => pass(format!(
            "the proposed {} lists {} files as they are",
            proposal.role,
            subject.manifest.artifacts.len() + 1
        )),
        Err(error) if error.kind() == Kind::Trust => super::fail(error.to_string()),
        Err(error) => Err(error),
    }
}

/// What lies on the disk, as it would be published, and the first root, from which both implementations walk.
fn as_published(subject: &Subject<'_>) -> Result<(ByHash, Vec<u8>)> {
    let root = subject.repository.anchor()?;
    Ok((ByHash::new(subject.dir.join(METADATA_DIR), subject.dir.join(artifacts::DIR)), root.to_vec()))
}

fn second(subject: &Subject<'_>) -> Result<RuleResult> {
    let (origin, root) = as_published(subject)?;
    let opinion = audit::second_opinion(Arc::new(origin), root)?;
    none_of(&told(&opinion.faults), format!("tough accepts {} roles", opinion.roles))
}

/// Expiry is another rule's.
fn first(subject: &Subject<'_>) -> Result<RuleResult> {
    let (origin, root) = as_published(subject)?;
    match audit::walk_regardless_of_expiry(&origin, &root, None) {
        Ok(tree) => none_of(&told(&tree.faults), format!("it accepts {} roles", tree.roles())),
        Err(error) if matches!(error.kind(), Kind::Input | Kind::Trust) => super::fail(error.to_string()),
        Err(error) => Err(error),
    }
}

fn told(faults: &[audit::AuditFinding]) -> Vec<String> {
    faults.iter().map(|fault| format!("{}: {}", fault.subject, fault.problem)).collect()
}

fn threshold(subject: &Subject<'_>) -> Result<RuleResult> {
    let role = layout::channel_role(&subject.manifest.channel);
    let (signers, threshold) = if is_registered(subject) {
        let threshold = subject.repository.keys_of(&role).map_or(u64::MAX, |(_, role)| role.threshold);
        (subject.repository.signers(&role).len(), threshold)
    } else {
        match ReleaseProposal::load(subject.dir, &subject.record.id())? {
            Some(proposal) => {
                let (signers, threshold) = proposal.signers(subject.repository)?;
                (signers.len(), threshold)
            }
            None => return not_applicable("it is not proposed for signing yet"),
        }
    };
    let shown = format!("{signers} of the {threshold} signatures that {role} needs");
    if signers as u64 >= threshold { pass(shown) } else { super::fail(shown) }
}

/// The roles that a device needs: top-level, channel, and the channel's cohorts.
fn on_the_way<'a>(subject: &'a Subject<'_>) -> impl Iterator<Item = &'a crate::metadata::RoleFile> {
    let channel = layout::channel_role(&subject.manifest.channel);
    let cohorts = format!("{channel}.");
    subject.repository.roles().filter(move |role| {
        matches!(role.name.as_str(), "root" | "targets" | "snapshot" | "timestamp")
            || role.name == channel
            || role.name.starts_with(&cohorts)
    })
}

fn expiry(subject: &Subject<'_>) -> Result<RuleResult> {
    // Snapshot, timestamp and the cohorts' roles are signed again with the very next step.
    let offline = |role: &&crate::metadata::RoleFile| {
        matches!(role.name.as_str(), "root" | "targets") || role.name == subject.manifest.channel.as_str()
    };
    let wrong: Vec<_> = on_the_way(subject)
        .filter(offline)
        .filter(|role| role.expires <= subject.now)
        .map(|role| format!("{} expired at {}", role.name, time::format(role.expires)))
        .collect();
    none_of(&wrong, "root, targets and the channel are valid")
}

fn expires_soon(subject: &Subject<'_>) -> Result<RuleResult> {
    let soon: Vec<_> = on_the_way(subject)
        .filter(|role| {
            matches!(role.name.as_str(), "root" | "targets") || role.name == subject.manifest.channel.as_str()
        })
        .filter(|role| role.expires > subject.now && role.expires <= subject.now + SOON.delta())
        .map(|role| format!("{} expires at {}", role.name, time::format(role.expires)))
        .collect();
    if soon.is_empty() { pass(format!("none within {SOON}")) } else { warn(soon.join("; ")) }
}
