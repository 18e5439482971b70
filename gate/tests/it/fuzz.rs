//! The fuzz targets of the gate, over their seeds and mutations of them: what a fuzzer would run, without one.

use std::path::Path;

use tidegate_gate::{bounds, proxy_protocol};

use crate::mutations::run;

#[path = "../../../fuzz/src/gate.rs"]
mod gate;

type Target = fn(&[u8]);

#[test]
fn fuzz_targets_accept_mutated_seeds() {
    let targets: [(&str, Target); 2] =
        [("gate_json_bounds", gate::json_bounds), ("gate_proxy_header", gate::proxy_header)];
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, target) in targets {
        run(&fuzz.join("seeds").join(name), 2_000, target);
    }
    let found = std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap();
    let found = found.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("gate_"));
    assert_eq!(found.count(), targets.len());
}
