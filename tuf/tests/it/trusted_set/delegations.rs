//! The search through delegations.

use serde_json::{Value, json};
use tidegate_tuf::metadata::{Envelope, Targets};
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

/// A repository whose targets role delegates to bins, `bits` long, of which the one for `app/1` is published.
fn with_bins(bits: u64, bin: &str) -> Simulator {
    let mut sim = Simulator::new();
    sim.delegate("targets", bin, &["*"], true);
    sim.add_target(bin, "app/1", b"in its bin");
    sim.add_target(bin, "app/2", b"in the bin of another");
    let delegations = &mut sim.signed.get_mut("targets").unwrap()["delegations"];
    let keyids = delegations["roles"][0]["keyids"].clone();
    delegations.as_object_mut().unwrap().remove("roles");
    delegations["succinct_roles"] = json!({"bit_length": bits, "name_prefix": "bin", "keyids": keyids, "threshold": 1});
    sim.publish(&[bin, "targets", "snapshot", "timestamp"]);
    sim
}

/// The names are python-tuf's (`SuccinctRoles.get_role_for_target`).
#[test]
fn bins_are_named_as_tap_15_says() {
    for (bits, name, other) in [
        (1, "bin-0", "bin-1"),
        (2, "bin-1", "bin-2"),
        (3, "bin-2", "bin-5"),
        (5, "bin-08", "bin-14"),
        (8, "bin-42", "bin-a6"),
        (14, "bin-10b2", "bin-2980"),
        (17, "bin-08591", "bin-14c01"),
        (32, "bin-42c8adad", "bin-a600d7f0"),
    ] {
        let sim = with_bins(bits, name);
        let mut set = refreshed(&sim);
        let (asked, step) = search(&sim, &mut set, "app/1");
        assert_eq!(asked, [format!("targets > {name}")]);
        assert!(matches!(step, Step::Found(_)), "{name}: {step:?}");
        let targets = set.targets(&top()).unwrap();
        let bins = targets.delegations.as_ref().unwrap().bins.as_ref().unwrap();
        assert_eq!(bins.name(bins.number_for("releases/\u{fc}/x")), other);
        let bin = targets.delegation(name).unwrap();
        assert!(bin.paths.covers("app/1") && !bin.paths.covers("releases/\u{fc}/x"), "{bin:?}");
    }
}

#[test]
fn a_bin_speaks_for_its_own_paths_and_no_other_role_is_a_bin() {
    let sim = with_bins(8, "bin-42");
    let mut set = refreshed(&sim);
    // app/2 belongs to another bin, which the snapshot does not list.
    let step = Search::new(TargetPath::new("app/2").unwrap(), 8).step(&set);
    let Step::Load(chain) = step else { panic!("{step:?}") };
    assert_ne!(chain.role(), "bin-42");
    let error = set.update_delegated(&chain, sim.newest("bin-42")).unwrap_err();
    assert!(error.to_string().contains("the snapshot does not list it"), "{error}");
    for name in ["bin", "bin-", "bin-4", "bin-042", "bin-4A", "bin-+4", "bin-100", "bin42", "bin-42-0", "targets", ""] {
        assert!(set.targets(&top()).unwrap().delegation(name).is_none(), "{name:?}");
        let error = set.update_delegated(&top().then(name), sim.newest("bin-42")).unwrap_err();
        assert!(error.to_string().contains("does not delegate to it"), "{name:?}: {error}");
    }
}

type Edit = fn(&mut Value);

#[test]
fn bins_out_of_form_are_refused() {
    let sim = with_bins(8, "bin-42");
    let read = |edit: &dyn Fn(&mut Value)| {
        let mut sim = sim.clone();
        edit(&mut sim.signed.get_mut("targets").unwrap()["delegations"]);
        let bytes = sim.sign("targets");
        Envelope::parse("targets", &bytes).unwrap().danger_read_unverified::<Targets>("targets").map(drop)
    };
    assert!(read(&|_| ()).is_ok());
    let edits: [(&str, Edit); 7] = [
        ("beside \"roles\"", |d| d["roles"] = json!([])),
        ("from 1 to 32", |d| d["succinct_roles"]["bit_length"] = json!(0)),
        ("from 1 to 32", |d| d["succinct_roles"]["bit_length"] = json!(33)),
        ("bit_length", |d| d["succinct_roles"]["bit_length"] = json!("8")),
        ("threshold", |d| d["succinct_roles"]["threshold"] = json!(0)),
        ("name_prefix", |d| d["succinct_roles"]["name_prefix"] = json!(null)),
        ("keyids", |d| drop(d["succinct_roles"].as_object_mut().unwrap().remove("keyids"))),
    ];
    for (part, edit) in edits {
        let error = read(&edit).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}
