//! What devices need in order to follow.

use crate::proposal::file::Proposal;
use crate::proposal::verify::Verified;

pub(super) fn devices(proposal: &Proposal, verified: &Verified) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(current) = verified.roots.last().map(|root| root.common.version) else {
        return vec!["devices are to be shipped with this root; none that has another one follows it".into()];
    };
    if let Some(new) = &verified.new_root {
        let to = new.common.version;
        lines.push(format!("a device at root {current} fetches root {to}, which keys of both must have signed"));
        if current > 1 {
            lines.push(format!(
                "one that slept since root 1 fetches every root from 2 to {to}: all of them must stay published"
            ));
        }
        let rotated = ["timestamp", "snapshot"].into_iter().filter(|role| {
            let (Some(root), Some(new)) = (verified.roots.last(), Some(new)) else { return false };
            let (old, new) = (root.role(role), new.role(role));
            old.zip(new).is_some_and(|(old, new)| old.keyids.iter().any(|id| !new.keyids.contains(id)))
        });
        let rotated: Vec<_> = rotated.collect();
        if !rotated.is_empty() {
            lines.push(format!(
                "keys of {} are revoked, so devices forget the timestamp and snapshot they hold; versions that a thief ran up no longer count",
                rotated.join(" and ")
            ));
        }
        let overlap = |role: &str| {
            let old = verified.roots.last().and_then(|root| root.role(role));
            old.zip(new.role(role)).is_none_or(|(old, new)| {
                let both = old.keyids.iter().filter(|id| new.keyids.contains(id)).count() as u64;
                both >= new.threshold
            })
        };
        for role in ["targets", "snapshot", "timestamp"].into_iter().filter(|role| !overlap(role)) {
            lines.push(format!(
                "{role} changes hands at once: a device that checks while this is being published may fail once, and succeeds at its next check; to avoid even that, add the new key first and remove the old one in a second ceremony"
            ));
        }
    }
    let below: Vec<&str> = proposal.changes.iter().map(|c| c.role.as_str()).filter(|role| *role != "root").collect();
    if !below.is_empty() {
        lines.push(format!("every device fetches the new {} at its next check", below.join(", ")));
    }
    lines
}
