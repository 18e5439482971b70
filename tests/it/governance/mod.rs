//! Who may do what with a release, and what is refused.

mod approvals;
mod cohorts;
mod race;
mod retire;
mod validation;

use std::process::Command;

use tidegate::ceremony::{self, Tool};
use tidegate_client::model::time;

use crate::support::fleet::Fleet;

/// Has the ceremony that is under way signed, and finishes it.
fn finish(fleet: &Fleet) -> Result<(), tidegate::Error> {
    let (workspace, mut ring) = fleet.open();
    let repository = workspace.repository().unwrap();
    let (mut bundle, verified) = ceremony::open(&workspace, &repository).unwrap();
    for key in ["release-1", "release-2"] {
        let signer = ring.signer(key).unwrap();
        ceremony::sign(&mut bundle, &verified, signer.as_ref(), "file", "tidegate test", fleet.now).unwrap();
    }
    ceremony::keep(&workspace, &bundle, "tester", fleet.now).unwrap();
    let tool = Tool { version: "tidegate test".into(), sha256: "00".repeat(32) };
    ceremony::finish(&workspace, &mut ring, &tool, "tester", fleet.now).map(|_| ())
}

/// Runs the command line at the fleet's time.
fn tidegate(fleet: &Fleet, args: &[&str]) {
    let out = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["-C", "fleet", "--now", &time::format(fleet.now)])
        .args(args)
        .current_dir(fleet.dir.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
}
