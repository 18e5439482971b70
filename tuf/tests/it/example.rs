//! `examples/verify.rs`, run against repositories in a folder.

use std::fs;

use crate::simulator::{Simulator, epoch};

#[path = "../../examples/verify.rs"]
mod verify;

/// A repository with a rotated root, in which the delegated role `firmware` lists `device/image.bin`.
fn repository() -> Simulator {
    let mut sim = Simulator::new();
    sim.rotate("timestamp");
    sim.delegate("targets", "firmware", &["device/*"], true);
    sim.add_target("firmware", "device/image.bin", b"the new image");
    sim.publish(&["root", "firmware", "targets", "snapshot", "timestamp"]);
    sim
}

/// Writes the repository into a folder and runs the example's logic there.
fn run(sim: &Simulator, target: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in &sim.files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    verify::verify(folder.path(), target, epoch()).map_err(|error| error.to_string())
}

#[test]
fn finds_a_delegated_target() {
    assert_eq!(run(&repository(), "device/image.bin").unwrap(), "device/image.bin: 13 bytes, listed by firmware");
}

#[test]
fn refuses_an_unlisted_target() {
    assert_eq!(run(&repository(), "device/other.bin").unwrap_err(), "no trusted role lists device/other.bin");
}

/// One digit of a signed length is changed in the role that lists the target.
#[test]
fn refuses_tampered_metadata() {
    let mut sim = repository();
    sim.hashes = false;
    sim.publish(&["firmware", "snapshot", "timestamp"]);
    assert!(run(&sim, "device/image.bin").is_ok());
    let file = sim.files.get_mut("metadata/2.firmware.json").unwrap();
    let tampered = String::from_utf8(file.clone()).unwrap().replace("\"length\":13", "\"length\":14");
    assert_ne!(tampered.as_bytes(), file.as_slice());
    *file = tampered.into_bytes();
    let error = run(&sim, "device/image.bin").unwrap_err();
    assert!(error.contains("firmware") && error.contains("signature"), "{error}");
}
