//! The functions themselves.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use tidegate_client::Fault;
use tidegate_client::clock::StubClock;
use tidegate_client::fetch::MemoryFetch;
use tidegate_client::store::{MemoryStore, Store as _};
use tidegate_client::updater::{Repository, Updater};
use tidegate_model::cohort::CohortMap;
use tidegate_model::condition::Condition;
use tidegate_model::delivery::index::{MAX_CHUNK, MIN_CHUNK};
use tidegate_model::delivery::patch::{MAX_SOURCE, MAX_SOURCES, PIECE};
use tidegate_model::delivery::{DeliveryError, Directory, apply, read_index, unpack};
use tidegate_model::digest::Digest;
use tidegate_model::facts::Facts;
use tidegate_model::listing::Listing;
use tidegate_model::manifest::Manifest;
use tidegate_model::name::DeviceId;
use tidegate_model::rollout::Offers;
use tidegate_tuf::key::{Key, KeyId};
use tidegate_tuf::metadata::{Delegations, Envelope, Metadata, Root, Snapshot, Targets, Timestamp};
use tidegate_tuf::path::{PathSet, Pattern, TargetPath, metadata_file};
use tidegate_tuf::{TrustedSet, json, time, valid_signers};

use crate::simulator::{Simulator, epoch};

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
    let again = json::parse_large(data, usize::MAX).expect("an envelope is JSON");
    assert_eq!(json::canonical(&again["signed"]).expect("it was canonical before"), envelope.signed_bytes());
    if let Ok(root) = envelope.danger_read_unverified::<Root>("root") {
        let declared = root.role("root").expect("every root has a root role");
        let signers = valid_signers(root.keys(), declared, &envelope);
        assert!(signers.len() <= declared.keyids.len());
        assert!(signers.iter().all(|id: &KeyId| declared.keyids.contains(id)));
    }
    envelope.danger_read_unverified::<T>(role).ok()
}

/// Manifests: what is read is written back the same.
pub fn manifest(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        let bytes = manifest.to_bytes().expect("a manifest that was read can be written");
        assert_eq!(Manifest::parse(&bytes).expect("and read again"), manifest);
    }
}

/// Cohort maps and the conditions in them: every device is in exactly one cohort.
pub fn cohort_map(data: &[u8]) {
    if let Ok(map) = CohortMap::parse(data) {
        let bytes = map.to_bytes().expect("a cohort map that was read can be written");
        assert_eq!(CohortMap::parse(&bytes).expect("and read again"), map);
        let facts = Facts::new();
        for id in ["a", "device-7", "ffffffffffffffff"] {
            let device: DeviceId = id.parse().expect("a valid device id");
            let name = map.place(&device, &facts).cohort.clone();
            assert!(map.cohort(&name).is_some());
        }
    }
    if let Ok(value) = json::parse(data)
        && let Ok(condition) = Condition::from_value(&value)
    {
        let _ = condition.evaluate(&Facts::new());
    }
}

/// Listings of the objects that a gate may serve.
pub fn listing(data: &[u8]) {
    if let Ok(listing) = Listing::parse(data, "stable.secret") {
        let bytes = listing.to_bytes().expect("a listing that was read can be written");
        assert_eq!(Listing::parse(&bytes, "stable.secret").expect("and read again"), listing);
    }
}

/// Lists of offers, their ramps and bridges.
pub fn offers(data: &[u8]) {
    let Ok(value) = json::parse(data) else { return };
    let Ok(offers) = Offers::from_value(&value) else { return };
    let written = offers.to_value().expect("a list that was read can be written");
    assert_eq!(Offers::from_value(&written).expect("and read again"), offers);
    for ramp in offers.offers.iter().filter_map(|offer| offer.ramp) {
        for position in [0, 1, u64::MAX / 2, u64::MAX] {
            if let Some(from) = ramp.exposed_at(position) {
                assert!(ramp.exposure(from).covers(position));
            }
        }
        assert!(ramp.exposure(ramp.start()).bound() <= ramp.exposure(ramp.end()).bound());
    }
}

/// An index of chunks, after the lengths of artifact and pack (five bytes each): what is read fits both. The index is a pack, too.
pub fn delivery_index(data: &[u8]) {
    let (Some((artifact, rest)), Some(pack)) = (data.split_at_checked(5), data.get(5..10)) else { return };
    let index = &rest[5..];
    let length = number(artifact) % (64 << 20);
    let (mut file, mut chunks, mut sum) = (index, 0, 0);
    let mut read = |into: &mut [u8]| {
        let (next, after) = file.split_at_checked(into.len()).expect("no more is read than there is");
        into.copy_from_slice(next);
        file = after;
        Ok::<(), DeliveryError>(())
    };
    let outcome = read_index([index.len() as u64, length, number(pack)], &mut read, &mut |record| {
        assert!(record.length > 0 && record.length as usize <= MAX_CHUNK && record.packed <= record.length);
        assert!(record.offset + u64::from(record.packed) <= number(pack));
        chunks += 1;
        sum += u64::from(record.length);
        let mut chunk = Vec::new();
        if chunks < 4 && unpack(index, record.length as usize, &mut chunk).is_ok() {
            assert_eq!(chunk.len(), record.length as usize);
        }
        assert!(chunk.len() <= record.length as usize);
        Ok(())
    });
    assert!(chunks <= length / MIN_CHUNK as u64 + 1);
    assert!(outcome.is_err() || sum == length && file.is_empty());
}

/// A patch, after the lengths of the new artifact and of the directory (three bytes each): what is made is what the directory says.
pub fn delivery_patch(data: &[u8]) {
    let (Some((new, rest)), Some(directory)) = (data.split_at_checked(3), data.get(3..6)) else { return };
    let patch = &rest[3..];
    let (new, old) = (number(new) % (1 << 20), delivery_old());
    let Some(bytes) = patch.get(..usize::try_from(number(directory)).expect("three bytes")) else { return };
    let Ok(directory) = Directory::parse(bytes, new, patch.len() as u64) else { return };
    let (mut made, mut length) = (Vec::new(), 0);
    for piece in directory.pieces() {
        assert!(
            piece.offset == length && piece.length > 0 && piece.length <= PIECE && piece.data_length <= piece.length
        );
        assert!(piece.sources.len() <= MAX_SOURCES && piece.source_length() <= MAX_SOURCE);
        length += piece.length as u64;
        let mut source = Vec::new();
        for part in &piece.sources {
            assert!(part.offset + u64::from(part.length) <= directory.old_length());
            // It may be a patch from a longer artifact: then there are zeros.
            let start = usize::try_from(part.offset).unwrap_or(usize::MAX);
            let there = old.get(start..).unwrap_or_default();
            source.extend_from_slice(&there[..there.len().min(part.length as usize)]);
        }
        source.resize(usize::try_from(piece.source_length()).expect("at most 1 MiB"), 0);
        let start = usize::try_from(piece.data_offset).expect("within the patch");
        let before = made.len();
        match apply(&piece, &source, &patch[start..start + piece.data_length], &mut made) {
            Ok(()) => assert!(made.len() == before + piece.length && Digest::of(&made[before..]) == piece.sha256),
            Err(_) => assert_eq!(made.len(), before),
        }
    }
    assert_eq!(length, new);
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The old artifact of the seeds: 768 KiB that compress to half.
pub fn delivery_old() -> &'static [u8] {
    static OLD: OnceLock<Vec<u8>> = OnceLock::new();
    OLD.get_or_init(|| {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 24 & if state & 0x0300 == 0 { 0xff } else { 0x0f }
        };
        (0..768 << 10).map(|_| u8::try_from(next()).expect("a byte")).collect()
    })
}

/// A whole update session against a server that bends a sound repository's files as the input says.
///
/// Whatever it serves, the device stores nothing but what the publisher signed, errs only at the server's fault, and updates
/// once the server is sound again.
pub fn session(data: &[u8]) {
    let (sound, signed) = sound();
    let (fetch, store) = (MemoryFetch::new(), MemoryStore::new());
    let names: Vec<&String> = sound.files.keys().collect();
    let serve = |edits: &[u8]| {
        fetch.clear();
        let mut files = sound.files.clone();
        for edit in edits.chunks_exact(5) {
            let [file, op, high, low, byte] = [edit[0], edit[1], edit[2], edit[3], edit[4]];
            let name = names[usize::from(file) % names.len()];
            let bytes = files.get_mut(name).expect("a file of the repository");
            let at = (usize::from(high) << 8 | usize::from(low)) % (bytes.len() + 1);
            match op % 6 {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, byte),
                2 if at < bytes.len() => bytes[at] = byte,
                3 if at < bytes.len() => drop(bytes.remove(at)),
                4 => bytes.clone_from(&sound.files[names[usize::from(byte) % names.len()]]),
                _ => bytes.clear(),
            }
        }
        for (name, bytes) in files {
            fetch.put(format!("test://r/{name}"), bytes);
        }
    };
    let update = || {
        let clock = StubClock::at(epoch());
        let mut updater = Updater::new(sound.root(1), Repository::at("test://r")?, fetch.clone(), store.clone(), clock);
        updater.refresh()?;
        let found = updater.find(&TargetPath::new("a/file").expect("a safe path"))?;
        updater.read(&found, 1000)
    };
    serve(data);
    for _ in 0..2 {
        match update() {
            Ok(bytes) => assert_eq!(bytes, b"good"),
            // What is no role at all may be a page of the network.
            Err(e) => assert!(matches!(e.fault(), Fault::Peer | Fault::Network), "{e}"),
        }
        for name in store.names().into_iter().filter(|name| name != "timestamp.etag") {
            let stored = store.load(&name, 1 << 20).expect("memory does not fail").expect("it is there");
            let envelope = Envelope::parse(&name, &stored).expect("what is stored was trusted");
            assert!(signed.contains(envelope.signed_bytes()), "{name} was never signed");
        }
    }
    serve(&[]);
    assert_eq!(update().expect("a sound repository updates"), b"good");
}

/// A repository with a delegated role and a second root, and all that its keys ever signed.
fn sound() -> &'static (Simulator, BTreeSet<Vec<u8>>) {
    static SOUND: OnceLock<(Simulator, BTreeSet<Vec<u8>>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let mut sim = Simulator::new();
        sim.delegate("targets", "a", &["a/*"], true);
        sim.add_target("a", "a/file", b"good");
        sim.publish(&["a", "targets", "snapshot", "timestamp", "root"]);
        let metadata = sim.files.iter().filter(|(name, _)| name.starts_with("metadata/"));
        let signed = metadata
            .map(|(name, bytes)| Envelope::parse(name, bytes).expect("sound metadata").signed_bytes().to_vec())
            .collect();
        (sim, signed)
    })
}
