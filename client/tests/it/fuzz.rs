//! The fuzz targets' functions, over their seeds and mutations of them: what a fuzzer would run, without one.

use std::path::Path;

#[path = "../../../fuzz/src/harness.rs"]
mod harness;

use crate::mutations::run;

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
    ("delivery_index", harness::delivery_index),
    ("delivery_patch", harness::delivery_patch),
    ("cohort_map", harness::cohort_map),
    ("listing", harness::listing),
    ("offers", harness::offers),
    ("session", harness::session),
];

#[test]
fn fuzz_targets_accept_mutated_seeds() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, target) in TARGETS {
        // A session, and a megabyte of pieces, is a thousand times the work of a parse.
        let long = *name == "session" || *name == "delivery_patch";
        run(&seeds.join(name), if long { ROUNDS / 20 } else { ROUNDS }, *target);
    }
}

#[test]
fn every_fuzz_target_is_run_here_too() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let mut found: Vec<_> = std::fs::read_dir(targets)
        .unwrap()
        .map(|e| e.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        // These are run by the tests of the gate.
        .filter(|name| !name.starts_with("gate_"))
        .collect();
    found.sort();
    let mut run: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    run.sort();
    assert_eq!(found, run);
}
