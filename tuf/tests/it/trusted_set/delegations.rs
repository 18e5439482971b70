//! The search through delegations.

use tidegate_tuf::path::TargetPath;
use tidegate_tuf::{Search, Step, TrustedSet};

use super::{refreshed, top};
use crate::simulator::Simulator;

fn search(sim: &Simulator, set: &mut TrustedSet, path: &str) -> (Vec<String>, Step) {
    let mut asked = Vec::new();
    let mut search = Search::new(TargetPath::new(path).unwrap(), 8);
    loop {
        match search.step(set) {
            Step::Load(chain) => {
                asked.push(chain.to_string());
                if set.update_delegated(&chain, sim.newest(chain.role())).is_err() {
                    return (asked, Step::NotFound);
                }
            }
            done => return (asked, done),
        }
    }
}

#[test]
fn delegations_are_walked_in_order_and_only_as_far_as_needed() {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.delegate("targets", "b", &["*/*"], false);
    sim.delegate("targets", "c", &["*/*"], false);
    sim.delegate("b", "targets-of-d", &["b/*"], false);
    sim.delegate("targets-of-d", "b", &["b/*"], false);
    sim.add_target("c", "a/x", b"must not be found: a is terminating");
    sim.add_target("c", "b/x", b"found last");
    sim.add_target("targets", "top/x", b"found first");
    sim.publish(&["a", "b", "c", "targets-of-d", "targets", "snapshot", "timestamp"]);
    for (path, asked, found_by) in [
        ("top/x", vec![], Some("targets")),
        ("a/x", vec!["targets > a"], None),
        ("b/x", vec!["targets > b", "targets > b > targets-of-d", "targets > c"], Some("targets > c")),
        ("c/x", vec!["targets > b", "targets > c"], None),
        ("x", vec![], None),
    ] {
        let (got, step) = search(&sim, &mut refreshed(&sim), path);
        assert_eq!(got, asked, "{path}");
        let by = if let Step::Found(found) = step { Some(found.chain.to_string()) } else { None };
        assert_eq!(by.as_deref(), found_by, "{path}");
    }
}

#[test]
fn the_number_of_roles_visited_is_bounded() {
    let mut sim = Simulator::new();
    let mut above = "targets".to_owned();
    for n in 0..20 {
        let role = format!("r{n}");
        sim.delegate(&above, &role, &["*"], false);
        above = role;
    }
    let roles: Vec<String> = (0..20).rev().map(|n| format!("r{n}")).collect();
    for role in &roles {
        sim.publish(&[role]);
    }
    sim.publish(&["targets", "snapshot", "timestamp"]);
    let (asked, step) = search(&sim, &mut refreshed(&sim), "x");
    assert_eq!((asked.len(), step), (7, Step::TooManyRoles));
}

/// A role that one delegator trusts is not trusted through another.
#[test]
fn trust_is_per_delegator() {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.delegate("targets", "b", &["b/*"], true);
    sim.delegate("a", "shared", &["a/*"], true);
    sim.delegate("b", "shared", &["b/*"], true);
    // Only the key that `a` declares signs.
    sim.signers.get_mut("shared").unwrap().truncate(1);
    sim.add_target("shared", "a/x", b"good");
    sim.add_target("shared", "b/x", b"evil");
    sim.publish(&["shared", "a", "b", "targets", "snapshot", "timestamp"]);
    let mut set = refreshed(&sim);
    assert!(matches!(search(&sim, &mut set, "a/x").1, Step::Found(_)));
    let (asked, step) = search(&sim, &mut set, "b/x");
    assert_eq!(asked, ["targets > b", "targets > b > shared"]);
    assert_eq!(step, Step::NotFound);
    let error = set.update_delegated(&top().then("b").then("shared"), sim.newest("shared")).unwrap_err();
    assert_eq!(error.to_string(), "shared: 0 of the 1 signatures that b requires are valid (TUF 5.6.3)");
}

#[test]
fn a_delegated_role_must_be_listed_in_the_snapshot() {
    let mut sim = Simulator::new();
    sim.delegate("targets", "a", &["a/*"], true);
    sim.publish(&["a", "targets"]);
    sim.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap().remove("a.json");
    sim.publish(&["snapshot", "timestamp"]);
    let mut set = refreshed(&sim);
    let error = set.update_delegated(&top().then("a"), sim.newest("a")).unwrap_err();
    assert_eq!(error.to_string(), "a: delegated by targets, but the snapshot does not list it (TUF 5.6.1)");
}
