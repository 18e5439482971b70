//! Releases that the channel lists no longer: which may go, what is left, and what devices then fetch.

use crate::support::fleet::{Fleet, rule};
use tidegate::ceremony;
use tidegate::policy::ReleaseState;
use tidegate::release::record::{RecordedUrgency, ReleaseId, ReleaseSpec};
use tidegate::release::{report, retire};
use tidegate::workspace::{Ledger, Operation};
use tidegate::{Error, validate};

use super::{finish, tidegate};

/// Out to everybody at once.
fn everywhere(fleet: &Fleet, version: &str, upgrade_from: Option<&str>) -> ReleaseSpec {
    let spec = fleet.release(version, |new| {
        new.urgency = RecordedUrgency::Security;
        new.upgrade_from = upgrade_from.map(|range| range.parse().unwrap());
    });
    fleet.start(&spec);
    fleet.step(&spec, |transaction, op| transaction.complete(op)).unwrap();
    spec
}

fn id(fleet: &Fleet, spec: &ReleaseSpec) -> ReleaseId {
    spec.find(&fleet.path()).unwrap().id()
}

fn propose(fleet: &Fleet, specs: &[&ReleaseSpec]) -> Result<(), Error> {
    let ids: Vec<_> = specs.iter().map(|spec| id(fleet, spec)).collect();
    let (workspace, _) = fleet.open();
    let request = retire::propose(&workspace, &ids, None, fleet.now)?;
    ceremony::start(
        &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        &request,
    )
    .map(|_| ())
}

fn listed(fleet: &Fleet) -> Vec<String> {
    let repository = fleet.open().0.repository().unwrap();
    let targets = repository.targets("stable").unwrap();
    targets.targets.keys().filter(|path| path.ends_with("manifest.json")).cloned().collect()
}

#[test]
fn what_nobody_needs_goes_and_what_somebody_needs_stays() {
    let fleet = Fleet::new();
    let old = everywhere(&fleet, "1.0.0", None);
    let bridge = everywhere(&fleet, "1.1.0", None);
    let new = everywhere(&fleet, "2.0.0", Some(">=1.1.0"));
    let size = |fleet: &Fleet| fleet.open().0.repository().unwrap().role("stable").unwrap().bytes.len();
    let before = size(&fleet);

    assert_eq!(rule(propose(&fleet, &[&new])), "R-ASSIGNED");
    assert_eq!(rule(propose(&fleet, &[&bridge])), "R-BRIDGE");
    let (workspace, _) = fleet.open();
    let choice = retire::choose(&workspace, &workspace.repository().unwrap(), 1, fleet.now).unwrap();
    drop(workspace);
    assert_eq!(choice.go, [id(&fleet, &old)]);
    let stay: Vec<_> = choice.stay.iter().map(|(id, why)| (id.clone(), why.broken_rule().unwrap().id())).collect();
    assert_eq!(stay, [(id(&fleet, &bridge), "R-BRIDGE")]);

    propose(&fleet, &[&old]).unwrap();
    assert_eq!(listed(&fleet).len(), 3, "nothing has changed before it is signed");
    finish(&fleet).unwrap();
    assert_eq!(listed(&fleet), ["stable/releases/os/1.1.0/manifest.json", "stable/releases/os/2.0.0/manifest.json"]);
    assert!(size(&fleet) < before, "devices fetch less");
    assert_eq!(old.find(&fleet.path()).unwrap().state, ReleaseState::Retired);
    let ledger = Ledger::open(&fleet.path()).unwrap();
    let entry = ledger.entries().iter().find(|entry| entry.event == "retire").unwrap();
    assert_eq!(entry.subject, "stable/os/1.0.0");
    assert_eq!(entry.to.as_deref(), Some("retired"));
    assert_eq!(entry.reason.as_deref(), Some("retire stable/os/1.0.0"));

    // Its life is over, and its version is used up.
    assert_eq!(rule(propose(&fleet, &[&old])), "R-OVER");
    let (workspace, mut ring) = fleet.open();
    let options = validate::Options::default();
    assert_eq!(
        rule(validate::validate(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), &old, &options)),
        "R-OVER"
    );
    drop(workspace);

    // Who is on 1.0.0 still has a way: the next release is validated against it.
    let next = fleet.draft("2.1.0", |new| new.upgrade_from = Some(">=1.1.0".parse().unwrap()));
    let (workspace, mut ring) = fleet.open();
    let (_, report) =
        validate::validate(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), &next, &options).unwrap();
    let ways = report.findings.iter().find(|finding| finding.rule == "V-ELI-05").unwrap();
    assert_eq!(ways.verdict, report::Verdict::Pass, "{}", ways.detail);
}

#[test]
fn what_is_offered_meanwhile_is_not_retired_after_all() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |new| new.urgency = RecordedUrgency::Security);
    propose(&fleet, &[&spec]).unwrap();
    fleet.start(&spec);
    assert_eq!(rule(finish(&fleet)), "R-ORDER");
    fleet.step(&spec, |transaction, op| transaction.complete(op)).unwrap();
    assert_eq!(rule(finish(&fleet)), "R-ASSIGNED");
    assert_eq!(listed(&fleet).len(), 1);
    assert_eq!(spec.find(&fleet.path()).unwrap().state, ReleaseState::Stable);
}

#[test]
fn what_is_retired_can_be_pruned_from_storage() {
    let mut fleet = Fleet::new();
    let old = everywhere(&fleet, "1.0.0", None);
    // Other bytes, or there would be nothing of the old release's own but its manifest.
    std::fs::write(fleet.dir.path().join("image.bin"), "the bytes of another image").unwrap();
    everywhere(&fleet, "1.1.0", None);
    tidegate(&fleet, &["publish", "site"]);
    propose(&fleet, &[&old]).unwrap();
    finish(&fleet).unwrap();
    tidegate(&fleet, &["publish", "site"]);
    let releases = fleet.dir.path().join("site/targets/stable/releases/os");
    let files = |version: &str| std::fs::read_dir(releases.join(version)).map_or(0, Iterator::count);
    assert_eq!((files("1.0.0"), files("1.1.0")), (2, 2));
    // What lies there was written by this machine's clock, and the fleet has its own.
    for entry in walk(&fleet.dir.path().join("site")) {
        std::fs::File::open(&entry).unwrap().set_modified(fleet.now.into()).unwrap();
    }
    fleet.pass(24 * 31);
    tidegate(&fleet, &["refresh"]);
    tidegate(&fleet, &["publish", "site"]);
    tidegate(&fleet, &["prune", "site", "--apply"]);
    assert_eq!((files("1.0.0"), files("1.1.0")), (0, 2));
    let root = fleet.path().join("metadata/1.root.json");
    tidegate(&fleet, &["verify", "site", "--root", root.to_str().unwrap()]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
