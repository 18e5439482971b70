//! The functions themselves.

use tidegate_client::tuf::key::{Key, KeyId};
use tidegate_client::tuf::metadata::{Delegations, Envelope, Metadata, PathSet, Root, Snapshot, Targets, Timestamp};
use tidegate_client::tuf::path::{Pattern, TargetPath, metadata_file};
use tidegate_client::tuf::{TrustedSet, json, time, valid_signers};

/// Root metadata: read, verified against itself, and offered as its own successor.
pub fn metadata_root(data: &[u8]) {
    let Some(root) = read::<Root>("root", data) else { return };
    for role in ["root", "timestamp", "snapshot", "targets"] {
        let declared = root.role(role).expect("every root has the four roles");
        assert!(declared.threshold > 0);
    }
    let start = time::parse("2026-01-01T00:00:00Z").expect("a valid time");
    if let Ok(mut set) = TrustedSet::from_root(data, start) {
        assert!(set.update_root(data).is_err(), "a root is not its own successor");
        assert!(set.update_timestamp(data).is_err(), "a root is not a timestamp");
    }
}

/// Timestamp metadata.
pub fn metadata_timestamp(data: &[u8]) {
    if let Some(timestamp) = read::<Timestamp>("timestamp", data) {
        assert!(timestamp.snapshot().version > 0);
    }
}

/// Snapshot metadata.
pub fn metadata_snapshot(data: &[u8]) {
    if let Some(snapshot) = read::<Snapshot>("snapshot", data) {
        assert!(snapshot.meta.values().all(|file| file.version > 0));
        assert!(
            snapshot
                .meta
                .keys()
                .all(|file| file.strip_suffix(".json").is_none_or(|role| snapshot.role(role).is_some()))
        );
    }
}

/// Targets metadata: read, its delegations walked.
pub fn metadata_targets(data: &[u8]) {
    let Some(targets) = read::<Targets>("targets", data) else { return };
    for path in targets.targets.keys().take(16) {
        let Ok(path) = TargetPath::new(path.clone()) else { continue };
        let hashes = &targets.targets[path.as_str()].hashes;
        let url = path.url_path(hashes, true);
        assert!(!url.contains("//") && !url.split('/').any(|s| s == ".." || s == "."), "{url}");
        if let Some(delegations) = &targets.delegations {
            walk(delegations, path.as_str());
        }
    }
}

fn walk(delegations: &Delegations, path: &str) {
    for role in &delegations.roles {
        let _ = role.paths.covers(path);
        let file = metadata_file(&role.name, Some(1));
        assert!(!file.contains('/') && !file.contains('\\'), "{file}");
    }
}

/// Strict parsing and canonical form: what parses has one canonical form, and that form is a fixed point.
pub fn canonical_json(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    let canonical = json::canonical(&value).expect("what was parsed strictly can be written");
    // Control characters stand as they are in canonical JSON, which makes it no JSON; all else reads back.
    if !canonical.iter().any(|byte| *byte < 0x20) {
        assert_eq!(json::parse(&canonical).expect("canonical JSON parses"), value);
    }
}

/// Key objects, and signatures that these keys never made.
pub fn key(data: &[u8]) {
    let (object, signature) = data.split_at(data.len() - data.len() / 4);
    let Ok(value) = json::parse(object) else { return };
    let Ok(key) = Key::from_value(&value) else { return };
    assert_eq!(key.to_value(), value);
    assert_eq!(key.id(), Key::from_value(&value).expect("it was read before").id());
    if let Some(public) = key.decode() {
        assert!(!public.verify(b"a message that nobody signed", signature));
    }
}

/// Path patterns, against a definition of them that is slow and plain.
pub fn delegation_matching(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((pattern, path)) = text.split_once('\n') else { return };
    let set = PathSet::Patterns(vec![Pattern::new(pattern)]);
    let covered = set.covers(path);
    // The plain definition takes exponential time.
    if pattern.len() <= 10 && path.len() <= 12 {
        let (pattern, path): (Vec<_>, Vec<_>) = (pattern.chars().collect(), path.chars().collect());
        assert_eq!(covered, plainly(&pattern, &path));
    }
    let prefixes = PathSet::HashPrefixes(vec![pattern.to_owned()]);
    assert!(!prefixes.covers(path) || pattern.bytes().all(|b| b.is_ascii_hexdigit()));
}

fn plainly(pattern: &[char], path: &[char]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            plainly(rest, path) || path.split_first().is_some_and(|(c, more)| *c != '/' && plainly(pattern, more))
        }
        (Some((wanted, rest)), Some((c, more))) => {
            (wanted == c || (*wanted == '?' && *c != '/')) && plainly(rest, more)
        }
        _ => false,
    }
}

fn read<T: Metadata>(role: &str, data: &[u8]) -> Option<T> {
    let envelope = Envelope::parse(role, data).ok()?;
    let again = json::parse(data).expect("an envelope is JSON");
    assert_eq!(json::canonical(&again["signed"]).expect("it was canonical before"), envelope.signed_bytes());
    if let Ok(root) = envelope.danger_read_unverified::<Root>("root") {
        let declared = root.role("root").expect("every root has a root role");
        let signers = valid_signers(root.keys(), declared, &envelope);
        assert!(signers.len() <= declared.keyids.len());
        assert!(signers.iter().all(|id: &KeyId| declared.keyids.contains(id)));
    }
    envelope.danger_read_unverified::<T>(role).ok()
}
