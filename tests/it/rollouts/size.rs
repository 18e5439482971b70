//! A step rewrites what changed, however much there is.

use std::collections::BTreeMap;

use tidegate::rollout::RampRequest;

use crate::support::Fleet;

/// A step rewrites its cohort's role, snapshot and timestamp, and nothing else.
#[test]
fn step_rewrites_only_three_roles() {
    let count = 40;
    let mut fleet = Fleet::shaped(|name, text| match name {
        "cohorts.toml" => {
            let cohorts =
                (0..count).map(|number| format!("[[stable.cohort]]\nname = \"c{number}\"\nshare = \"2.5%\"\n\n"));
            format!("[stable]\nsalt = \"00000000000000000000000000000000\"\n\n{}", cohorts.collect::<String>())
        }
        "policy.toml" => text.replace("cohort = \"validation\"\n", "").replace("{ canary = \"48h\" }", "{}"),
        _ => text,
    });
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    for number in 1..4 {
        fleet.pass(25);
        let before: BTreeMap<String, Vec<u8>> = fleet.metadata().into_iter().collect();
        let step = fleet.step(&spec, |transaction, op| transaction.advance(RampRequest::default(), None, op)).unwrap();
        let cohort = format!("stable.c{number}");
        let after: BTreeMap<String, Vec<u8>> = fleet.metadata().into_iter().collect();
        let new: Vec<_> = after
            .iter()
            .filter(|(name, bytes)| before.get(*name) != Some(bytes))
            .map(|(name, _)| name.as_str())
            .collect();
        // The first cohorts are looked after as well once half of their time is over: 72 h here.
        let renewed = match number {
            2 => vec!["stable.c0"],
            3 => vec!["stable.c1"],
            _ => Vec::new(),
        };
        let mut expected = [vec!["snapshot", "timestamp", cohort.as_str()], renewed].concat();
        expected.sort_unstable();
        assert_eq!(step.roles, expected);
        assert_eq!(new.len(), expected.len(), "{new:?}");
    }
}
