//! Who may do what with a release, and what is refused.

mod approvals;
mod bridges;
mod cohorts;
mod race;
mod retire;
mod validation;

use std::process::Command;

use tidegate_model::time;

use crate::support::fleet::Fleet;

/// Has the ceremony that is under way signed, and finishes it.
fn finish(fleet: &Fleet) -> Result<(), tidegate::Error> {
    fleet.finish_ceremony()
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
