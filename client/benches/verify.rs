//! How fast a file is verified, beside the hash alone: `cargo bench -p tidegate-client --bench verify [-- MIB]`.
//!
//! Both read the same file with the same buffer, in turns, in the same run; the best of five turns counts for each. What is reported
//! is the ratio: a machine's speed is its own.

#![allow(missing_docs, clippy::cast_precision_loss, clippy::indexing_slicing)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::{Checker, Hashes};

const BUFFER: usize = 64 * 1024;
const TURNS: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mib: u64 = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(512);
    let length = mib << 20;
    let mut file = tempfile::NamedTempFile::new()?;
    let mut block = vec![0_u8; 1 << 20];
    for turn in 0..mib {
        for (at, byte) in block.iter_mut().enumerate() {
            *byte = (at as u64).wrapping_mul(turn | 1).to_le_bytes()[0];
        }
        file.write_all(&block)?;
    }
    file.flush()?;

    let (mut plain, mut verified) = (Duration::MAX, Duration::MAX);
    for _ in 0..TURNS {
        let mut hash = Sha256::new();
        plain = plain.min(timed(file.path(), |bytes| {
            hash.update(bytes);
            Ok(())
        })?);
        let digest = hash.finalize().into();

        let mut checker = Checker::new(Some(length), Some(&Hashes::sha256(digest)));
        verified = verified.min(timed(file.path(), |bytes| Ok(checker.update(bytes)?))?);
        checker.finish()?;
    }
    let rate = |time: Duration| length as f64 / time.as_secs_f64() / 1e6;
    println!("file               {mib} MiB, best of {TURNS} turns");
    println!("sha2 alone         {:7.0} MB/s", rate(plain));
    println!("verified           {:7.0} MB/s", rate(verified));
    println!("ratio              {:7.2}", rate(verified) / rate(plain));
    Ok(())
}

type Fallible = Result<(), Box<dyn std::error::Error>>;

fn timed(
    path: &std::path::Path,
    mut each: impl FnMut(&[u8]) -> Fallible,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    let start = Instant::now();
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(start.elapsed()),
            count => each(&buffer[..count])?,
        }
    }
}
