//! `tidegate diff`.

use serde_json::Value;

use super::story::{Story, text, tidegate};

fn diff(args: &[&str]) -> Value {
    let out = tidegate(&[&["--json", "diff"], args].concat());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let changes = serde_json::from_slice(&out.stdout).unwrap();
    let schema: Value = serde_json::from_str(include_str!("../../../docs/schemas/diff.schema.json")).unwrap();
    assert!(jsonschema::is_valid(&schema, &changes), "{changes:#}");
    changes
}

fn fields(changes: &Value, section: &str) -> Vec<String> {
    changes[section].as_array().unwrap().iter().map(|row| row["field"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_state_is_like_itself_wherever_it_is() {
    let story = Story::new();
    let (public, workspace) = (story.public(), story.workspace());
    let changes = diff(&["-C", text(&workspace), text(&public), text(&workspace)]);
    assert_eq!(changes["same"], true, "{changes}");
    let server = super::Server::over(&public);
    let changes = diff(&["-C", text(&workspace), &server.url, text(&workspace)]);
    assert_eq!(changes["same"], true, "over the network: {changes}");
    let out = story.run(&["diff", text(&public), text(&workspace)]);
    assert!(String::from_utf8_lossy(&out.stdout).trim_end().ends_with("are the same"));
}

#[test]
fn an_advance_affects_the_share_of_the_fleet_that_its_ramp_covers() {
    let story = Story::new();
    let (public, workspace) = (story.public(), story.workspace());
    // From here on the workspace is ahead of what is published.
    let now = "2026-03-07T18:00:00Z";
    for args in [
        &["rollout", "advance", "1.1.0", "--ramp", "48h", "--to", "50%"][..],
        &["release", "sign", "1.2.0", "--key", "release-1"],
        &["release", "validate", "1.2.0"],
        &["release", "register", "1.2.0"],
    ] {
        let out = tidegate(&[&["-C", text(&workspace), "--now", now, "-q"], args].concat());
        assert!(out.status.success(), "{args:?} {}", String::from_utf8_lossy(&out.stderr));
    }
    let changes = diff(&["-C", text(&workspace), "--now", now, text(&public), text(&workspace)]);
    assert_eq!(changes["same"], false);
    assert_eq!(fields(&changes, "keys"), [""; 0]);
    assert!(fields(&changes, "releases").contains(&"stable/os/1.2.0".to_owned()), "{changes}");
    assert!(fields(&changes, "offers").contains(&"stable.general os 1.1.0".to_owned()), "{changes}");
    assert!(fields(&changes, "versions").contains(&"stable".to_owned()), "{changes}");
    assert!(fields(&changes, "expiries").contains(&"timestamp".to_owned()), "{changes}");

    let factory = changes["affected"].as_array().unwrap().iter().find(|kind| kind.get("installed").is_none()).unwrap();
    let shift = |when: &str, after: &str| {
        let shifts = factory["shifts"].as_array().unwrap().iter();
        let found =
            shifts.filter(|shift| shift["when"] == when && shift["after"] == after && shift.get("cohort").is_none());
        found.map(|shift| shift["ppm"].as_u64().unwrap()).sum::<u64>()
    };
    // general is 75%, and its ramp ends at half of it; those of canary and early were offered it before.
    assert_eq!(shift("in the end", "install 1.1.0"), 375_000, "{factory:#}");
    assert_eq!(shift("now", "wait for 1.1.0"), 750_000, "{factory:#}");
}

#[test]
fn an_earlier_snapshot_is_a_state_too() {
    let story = Story::new();
    let (public, workspace, root) = (story.public(), story.workspace(), story.root());
    let listed = |folder: &std::path::Path| {
        let names = std::fs::read_dir(folder.join("metadata")).unwrap().map(|entry| entry.unwrap().file_name());
        let names = names.filter_map(|name| name.to_str()?.strip_suffix(".snapshot.json")?.parse::<u64>().ok());
        names.max().unwrap()
    };
    let before = listed(&public);
    for args in [&["rollout", "withdraw", "1.1.0", "--reason", "it is bad"][..], &["publish", text(&public)]] {
        let out = tidegate(&[&["-C", text(&workspace), "--now", "2026-03-06T18:00:00Z", "-q"], args].concat());
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let old = format!("{}@{before}", text(&public));
    let changes = diff(&["--now", "2026-03-06T19:00:00Z", &old, text(&public), "--root", text(&root)]);
    let canary =
        changes["offers"].as_array().unwrap().iter().find(|row| row["field"] == "stable.canary os 1.1.0").unwrap();
    let before = canary["before"].as_str().unwrap();
    assert!(before.starts_with("limited, until 2026-03-0"), "{before}");
    assert_eq!(canary["after"].as_str(), None);
    let out = tidegate(&["diff", &format!("{}@999", text(&public)), text(&public), "--root", text(&root)]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("999.snapshot.json is missing"));
}
