//! Seeds of a fuzz target, and mutations of them.

use std::path::Path;

/// Runs a target over each seed of its folder, and so many mutations of each.
pub fn run(seeds: &Path, rounds: u64, target: impl Fn(&[u8])) {
    let mut files: Vec<_> = std::fs::read_dir(seeds).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seeds", seeds.display());
    for file in files {
        let seed = std::fs::read(&file).unwrap();
        target(&seed);
        let mut random = Random(1);
        for _ in 0..rounds {
            target(&mutate(&seed, &mut random));
        }
    }
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
