//! A fleet is cut up anew while a release is going out.

use std::fs;

use crate::support::fleet::{Fleet, named, rule};
use tidegate::proposal::{self, ProposalRequest, Review};
use tidegate::rollout::RampRequest;
use tidegate::workspace::Operation;
use tidegate::{Error, ceremony, validate};

use super::{finish, tidegate};

fn edit(fleet: &Fleet, edits: &[(&str, &str)]) {
    for file in ["cohorts.toml", "policy.toml"] {
        let path = fleet.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        let text = edits.iter().fold(text, |text, (from, to)| text.replace(from, to));
        fs::write(path, text).unwrap();
    }
}

/// Proposes what the files say, and gives what its signers read.
fn propose(fleet: &Fleet) -> Result<Review, Error> {
    let (workspace, _) = fleet.open();
    let proposal = ceremony::start(
        &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        &ProposalRequest::default(),
    )?;
    let root = fs::read(fleet.path().join("metadata/1.root.json")).unwrap();
    // As it travels: from nothing but the file and a root.
    let proposal = proposal::Proposal::parse("a copy", &proposal.to_bytes()?)?;
    let verified = proposal::verify(&proposal, Some(&root))?;
    proposal::review(&proposal, &verified, fleet.now)
}

fn rows(review: &Review) -> Vec<String> {
    let rows = review.roles.iter().flat_map(|role| &role.rows).filter(|row| row.what.contains("cohort"));
    rows.filter(|row| !row.what.contains("json") && !row.what.starts_with("role"))
        .map(|row| format!("{} {}: {} > {}", row.mark, row.what, row.before, row.after))
        .collect()
}

const EARLY: &str = "[[stable.cohort]]\nname = \"early\"\nshare = \"20%\"";

#[test]
fn signers_see_what_becomes_of_the_cohorts_and_the_rollout_goes_on() {
    let mut fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let pilots = "[[stable.cohort]]\nname = \"pilots\"\nshare = \"15%\"";
    edit(&fleet, &[(EARLY, pilots), ("share = \"75%\"", "share = \"80%\"")]);
    let review = propose(&fleet).unwrap();
    assert_eq!(rows(&review), ["- cohort early: 20% > ", "+ cohort pilots:  > 15%", "~ cohort general: 75% > 80%"]);
    assert!(review.possible.iter().any(|line| line.starts_with("20% of the devices")), "{:?}", review.possible);
    let warnings: Vec<_> = review.warnings.iter().filter(|line| !line.contains("example keys")).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    finish(&fleet).unwrap();

    // The channel's validation knows the new map, tough walks all of it, and the next step goes to the new cohort.
    fleet.pass(48);
    let (workspace, mut ring) = fleet.open();
    let options = validate::Options::default();
    let (_, report) =
        validate::validate(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), &spec, &options).unwrap();
    assert_eq!(report.failed().count(), 0, "{:?}", report.failed().collect::<Vec<_>>());
    drop(workspace);
    let in_force = fleet.advance(&spec, 24).unwrap();
    assert!(named(&in_force, "pilots").has(1));
    assert!(!in_force.iter().any(|cohort_in_force| cohort_in_force.cohort.as_str() == "early"));
    // The snapshot goes on listing the role of the cohort that is gone.
    let repository = fleet.open().0.repository().unwrap();
    assert_eq!(repository.listed_version("stable.early"), Some(1));
    tidegate(&fleet, &["publish", "site"]);
    let root = fleet.path().join("metadata/1.root.json");
    tidegate(&fleet, &["verify", "site", "--root", root.to_str().unwrap()]);
    tidegate(&fleet, &["site", "site", "--root", root.to_str().unwrap(), "--out", "page"]);
}

#[test]
fn a_cohort_may_go_while_it_is_offered_a_release_and_come_back() {
    let mut fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    fleet.start(&spec);
    let canary = "[[stable.cohort]]\nname = \"canary\"\nshare = \"5%\"\n";
    let without = [(canary, ""), ("share = \"75%\"", "share = \"80%\""), ("soak_of = { canary = \"48h\" }", "")];
    edit(&fleet, &without);
    let review = propose(&fleet).unwrap();
    assert!(review.impossible.iter().any(|line| line.contains("canary any more")), "{:?}", review.impossible);
    finish(&fleet).unwrap();
    fleet.pass(1);
    // What is published verifies, and the rollout finds its next cohort.
    let in_force = fleet.advance(&spec, 24).unwrap();
    assert!(named(&in_force, "early").has(1));
    tidegate(&fleet, &["publish", "site"]);
    let root = fleet.path().join("metadata/1.root.json");
    tidegate(&fleet, &["verify", "site", "--root", root.to_str().unwrap()]);
    let listed = |fleet: &Fleet| fleet.open().0.repository().unwrap().listed_version("stable.canary");
    let before = listed(&fleet);
    assert_eq!(before, Some(2), "the snapshot goes on listing it");

    edit(&fleet, &[(EARLY, &format!("{canary}\n{EARLY}")), ("share = \"80%\"", "share = \"75%\"")]);
    let review = propose(&fleet).unwrap();
    assert_eq!(rows(&review).first().map(String::as_str), Some("+ cohort canary:  > 5%"));
    finish(&fleet).unwrap();
    assert!(listed(&fleet) > before, "versions never go back, or devices would call it an attack");
    let outcome = fleet.step(&spec, |transaction, op| transaction.pause(op, None)).unwrap();
    assert!(!named(&outcome.in_force, "canary").has(1), "it begins anew");
    fleet.pass(1);
    tidegate(&fleet, &["publish", "site"]);
    tidegate(&fleet, &["verify", "site", "--root", root.to_str().unwrap()]);
}

#[test]
fn what_no_fleet_can_be_is_refused_before_anything_is_proposed() {
    let fleet = Fleet::new();
    let spec = fleet.release("1.0.0", |_| ());
    let refused = |edits: &[(&str, &str)], part: &str| {
        let files = ["cohorts.toml", "policy.toml"].map(|file| (file, fs::read(fleet.path().join(file)).unwrap()));
        edit(&fleet, edits);
        let error = propose(&fleet).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!fleet.path().join("proposals/ceremony.json").exists());
        for (file, bytes) in files {
            fs::write(fleet.path().join(file), bytes).unwrap();
        }
    };
    refused(&[("share = \"75%\"", "share = \"70%\"")], "add up to 950000");
    refused(&[("share = \"75%\"", "share = \"85%\"")], "add up to 1100000");
    refused(&[("name = \"early\"", "name = \"canary\"")], "canary");
    // The same for whoever starts a rollout after an edit that nobody signed: the signed map counts.
    edit(&fleet, &[("share = \"20%\"", "share = \"10%\""), ("share = \"75%\"", "share = \"85%\"")]);
    let in_force = fleet.step(&spec, |transaction, op| transaction.start(RampRequest::default(), op)).unwrap().in_force;
    assert_eq!(named(&in_force, "early").share, Some(200_000));
}

#[test]
fn a_map_that_was_swapped_on_the_way_is_no_proposal() {
    let fleet = Fleet::new();
    edit(&fleet, &[("share = \"20%\"", "share = \"10%\""), ("share = \"75%\"", "share = \"85%\"")]);
    propose(&fleet).unwrap();
    let path = fleet.path().join("proposals/ceremony.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"share\":100000"), "{text}");
    fs::write(&path, text.replace("\"share\":100000", "\"share\":200000")).unwrap();
    assert_eq!(rule(finish_or_parse(&fleet)), "C-FORMAT");
}

fn finish_or_parse(fleet: &Fleet) -> Result<(), Error> {
    let (workspace, _) = fleet.open();
    let repository = workspace.repository().unwrap();
    ceremony::open(&workspace, Some(&repository)).map(|_| ())
}
