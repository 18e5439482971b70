//! The fuzz targets' functions, over their seeds and mutations of them: what a fuzzer would run, without one.

use std::path::Path;

#[path = "../../../fuzz/src/harness.rs"]
mod harness;

/// Mutations per seed: enough to reach every branch that a short fuzzer run reaches, in a second or two a target.
const ROUNDS: u64 = 2_000;

type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("metadata_root", harness::metadata_root),
    ("metadata_timestamp", harness::metadata_timestamp),
    ("metadata_snapshot", harness::metadata_snapshot),
    ("metadata_targets", harness::metadata_targets),
    ("canonical_json", harness::canonical_json),
    ("key", harness::key),
    ("delegation_matching", harness::delegation_matching),
    ("manifest", harness::manifest),
    ("cohort_map", harness::cohort_map),
    ("listing", harness::listing),
    ("offers", harness::offers),
    ("session", harness::session),
];

#[test]
fn fuzz_targets_accept_mutated_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, target) in TARGETS {
        let mut files: Vec<_> = std::fs::read_dir(seeds.join(name)).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no seeds");
        // A session is a thousand times the work of a parse.
        let rounds = if *name == "session" { ROUNDS / 20 } else { ROUNDS };
        for file in files {
            let seed = std::fs::read(&file).unwrap();
            target(&seed);
            let mut random = Random(1);
            for _ in 0..rounds {
                target(&mutate(&seed, &mut random));
            }
        }
    }
}

#[test]
fn every_fuzz_target_is_run_here_too() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut found: Vec<_> = std::fs::read_dir(targets)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut run: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    run.sort();
    assert_eq!(found, run);
}

fn mutate(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(3) {
        bytes.resize(bytes.len().max(5), 0);
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = b"\"{}[],:0-\\/ \n\xff"[random.below(14)],
            2 => bytes.truncate(at),
            3 => drop(bytes.remove(at)),
            4 => bytes.insert(at, b"\"{}[]19*?/"[random.below(10)]),
            _ => {
                // A stretch of it comes twice: keys, list entries, signatures.
                let end = (at + 1 + random.below(60)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// A small generator of its own, so that a failure repeats on every machine (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}
