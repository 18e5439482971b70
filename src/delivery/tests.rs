//! Chunks and patches of made-up images give the images, whatever changed between them.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;
use tidegate_model::digest::Digest;

use super::{cut, expand_chunks, expand_patch, make_patch, missing};

/// Bytes without order.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).take(length).collect()
}

/// An image of parts, and the next version of it: parts moved, changed, cut, new and gone.
fn images() -> (Vec<u8>, Vec<u8>) {
    let part = |seed| noise(seed, 150_000);
    let old: Vec<u8> = [(1..8).map(part).collect::<Vec<_>>().concat(), vec![0; 400_000], part(9)].concat();
    // A program whose addresses changed.
    let mut changed = part(3);
    changed.iter_mut().skip(5).step_by(101).for_each(|byte| *byte = byte.wrapping_add(4));
    let new = [
        part(1),
        part(2),
        changed,
        vec![0; 700_000],
        part(20),
        part(7),
        b"inserted".to_vec(),
        part(6),
        part(5)[777..].to_vec(),
        part(9),
    ];
    (old, new.concat())
}

struct Files {
    dir: TempDir,
}

impl Files {
    fn new() -> Files {
        Files { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
}

#[test]
fn chunks_give_the_artifact() {
    let files = Files::new();
    let (old, new) = images();
    let mut costs = Vec::new();
    for (name, image) in [("old", &old), ("new", &new), ("small", &b"x".to_vec()), ("zeros", &vec![0; 300_000])] {
        let artifact = files.write(name, image);
        let (index, pack) = (files.path(&format!("{name}.index")), files.path(&format!("{name}.pack")));
        let done = AtomicU64::new(0);
        let progress = |bytes| {
            done.fetch_add(bytes, Ordering::Relaxed);
        };
        let made = cut(&artifact, &index, &pack, &progress).unwrap();
        assert_eq!(done.into_inner(), image.len() as u64);
        for (file, path) in [(made.index, &index), (made.pack, &pack)] {
            let bytes = fs::read(path).unwrap();
            assert_eq!((file.length, file.sha256), (bytes.len() as u64, Digest::of(&bytes)));
        }
        assert_eq!(expand_chunks(&index, &pack, image.len() as u64, &|_| ()).unwrap(), Digest::of(image));
        costs.push((index.clone(), image.len() as u64, made.pack.length));
        // What exists is not overwritten.
        cut(&artifact, &index, &pack, &|_| ()).unwrap_err();
    }
    let file = |at: usize| (costs[at].0.as_path(), costs[at].1, costs[at].2);
    assert_eq!((file(3).2, missing(file(0), file(0)).unwrap()), (0, 0));
    // New are 150,000 bytes, those of the changed part, and the chunks that stand on the borders of parts.
    let cost = missing(file(0), file(1)).unwrap();
    assert!((280_000..600_000).contains(&cost), "{cost}");
}

#[test]
fn a_patch_gives_the_artifact_in_few_bytes() {
    let files = Files::new();
    let (old, new) = images();
    let cases: [(&str, &[u8], &[u8], u64); 6] = [
        ("changed", &old, &new, 165_000),
        ("same", &old, &old, 1_000),
        ("cut", &old, &old[..600_001], 1_000),
        ("from nothing", &[], &new[..10_000], 10_200),
        ("to nothing", &old, &[], 100),
        ("unlike", &noise(77, 100_000), &noise(78, 300_000), 300_500),
    ];
    for (name, old, new, most) in cases {
        let (from, to, patch) = (files.write("from", old), files.write("to", new), files.path(name));
        let made = make_patch(&from, &to, &patch, &|_| ()).unwrap();
        let bytes = fs::read(&patch).unwrap();
        assert_eq!((made.length, made.sha256), (bytes.len() as u64, Digest::of(&bytes)));
        assert_eq!(made.directory.sha256, Digest::of(&bytes[..made.directory.length as usize]));
        assert!(made.length <= most, "{name}: {}", made.length);
        let given = expand_patch(&patch, made.directory.length, &from, new.len() as u64, &|_| ()).unwrap();
        assert_eq!(given, Digest::of(new), "{name}");
    }
}

#[test]
fn files_that_are_made_twice_are_the_same() {
    let files = Files::new();
    let (old, new) = images();
    let (from, to) = (files.write("from", &old), files.write("to", &new));
    let made = |name: &str| make_patch(&from, &to, &files.path(name), &|_| ()).unwrap();
    assert_eq!(made("1.patch"), made("2.patch"));
}

#[test]
fn damaged_deliveries_are_named() {
    let files = Files::new();
    let (old, new) = images();
    let (from, to, patch) = (files.write("from", &old), files.write("to", &new), files.path("patch"));
    let made = make_patch(&from, &to, &patch, &|_| ()).unwrap();
    let mut bytes = fs::read(&patch).unwrap();
    let end = bytes.len() - 1000;
    bytes[end] ^= 1;
    let damaged = files.write("damaged", &bytes);
    let expand = |patch, old| expand_patch(patch, made.directory.length, old, new.len() as u64, &|_| ()).unwrap_err();
    let error = expand(&damaged, &from).to_string();
    assert!(error.starts_with(&damaged.display().to_string()), "{error}");
    let error = expand(&patch, &to).to_string();
    assert!(error.ends_with("it is a patch from another artifact"), "{error}");
}
