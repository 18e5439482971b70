//! From `cohorts.toml` and rollouts to what is assigned privately.

use super::GATE;
use crate::support::Fleet;

/// An assignment records whether its release is public, and a public release stays public.
#[test]
fn assignment_records_whether_release_is_public() {
    let of = |in_force: &[tidegate::workspace::CohortInForce], cohort: &str| {
        let cohort_in_force =
            in_force.iter().find(|cohort_in_force| cohort_in_force.cohort.as_str() == cohort).unwrap();
        cohort_in_force.offers.first().map(|offer| offer.private)
    };
    // The validation cohort is public, and has the release from the start: so it is for all to read.
    let fleet = fleet_with_protected(&["canary"]);
    let spec = fleet.release("1.0.0", |_| ());
    let in_force = fleet.start(&spec);
    assert_eq!(of(&in_force, "early"), None);
    assert_eq!((of(&in_force, "validation"), of(&in_force, "canary")), (Some(false), Some(false)));

    let mut fleet = fleet_with_protected(&["validation", "canary"]);
    let spec = fleet.release("1.0.0", |_| ());
    let in_force = fleet.start(&spec);
    assert_eq!((of(&in_force, "validation"), of(&in_force, "canary")), (Some(true), Some(true)));
    fleet.pass(48);
    fleet.validate(&spec);
    let in_force = fleet.advance(&spec, 24).unwrap();
    assert_eq!(of(&in_force, "early"), Some(false));
    assert_eq!(
        (of(&in_force, "validation"), of(&in_force, "canary")),
        (Some(false), Some(false)),
        "no secret any more"
    );
}

/// A fleet some of whose cohorts are protected: marked in `cohorts.toml`, and signed at a ceremony.
fn fleet_with_protected(cohorts: &[&str]) -> Fleet {
    let fleet = Fleet::new();
    let path = fleet.path().join("cohorts.toml");
    let mut text = std::fs::read_to_string(&path).unwrap();
    for cohort in cohorts {
        let name = format!("name = \"{cohort}\"\n");
        assert!(text.contains(&name));
        text = text.replacen(&name, &format!("{name}protected = {{ gate = \"{GATE}\" }}\n"), 1);
    }
    std::fs::write(&path, text).unwrap();
    let roles = |fleet: &Fleet| {
        let repository = fleet.open().0.repository().unwrap();
        let versions = repository.roles().map(|file| (file.name.clone(), file.version));
        versions.collect::<std::collections::BTreeMap<_, _>>()
    };
    let before = roles(&fleet);
    let run = |args: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["--now", "2026-11-25T00:00:00Z", "-C"])
            .arg(fleet.path())
            .args(args)
            .output()
            .unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    run(&["ceremony", "start"]);
    let shown = run(&["ceremony", "show"]);
    let digest = shown.lines().find_map(|line| line.strip_prefix("digest")).unwrap().trim();
    run(&["ceremony", "sign", "--key", "release-1", "--key", "release-2", "--confirm", &digest[..16]]);
    run(&["ceremony", "finish"]);
    let after = roles(&fleet);
    for cohort in ["validation", "canary", "early", "general"] {
        let role = format!("stable.{cohort}");
        // The version that the public could read is not the one that is kept from it.
        assert_eq!(after[&role] > before[&role], cohorts.contains(&cohort), "{role}");
    }
    fleet
}
