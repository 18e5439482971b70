//! What a ceremony refuses: each with its rule, and nothing changed.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tidegate::ceremony;
use tidegate::proposal::{self, Proposal};
use tidegate::workspace::Operation;
use tidegate_tuf::key::KeyId;

use super::table::Table;

/// A table with a proposal that replaces root-3, and the proposal.
fn proposed() -> (Table, Proposal) {
    let mut table = Table::new();
    table.key("root-4");
    table.edit("\"root-3\"]", "\"root-4\"]");
    table.pass(1);
    let proposal = table.start().unwrap();
    (table, proposal)
}

fn rule<T: std::fmt::Debug>(result: tidegate::error::Result<T>) -> &'static str {
    let error = result.unwrap_err();
    assert!(error.remedy_text().is_some(), "{error}");
    error.broken_rule().unwrap_or_else(|| panic!("{error}")).id()
}

/// Everything in the workspace but locks.
fn everything(table: &Table) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![table.path()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.ends_with(".tidegate") {
                continue;
            }
            if path.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn a_proposal_altered_in_any_byte_is_refused() {
    let (table, mut proposal) = proposed();
    table.sign(&mut proposal, "root-1").unwrap();
    let anchor = table.first_root();
    let digest = proposal.digest().unwrap();
    let good = proposal.to_bytes().unwrap();
    let before = everything(&table);
    // Every byte is altered, in three ways that take turns.
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] = match at % 3 {
            0 => bad[at] ^ 1,
            1 => bad[at].wrapping_add(1),
            _ => b'0',
        };
        if bad == good {
            continue;
        }
        let Ok(altered) = Proposal::parse("b", &bad) else { continue };
        // What still reads as a proposal either no longer verifies, or is visibly another one, or differs in labels that nobody vouches for.
        let Ok(_) = proposal::verify(&altered, Some(&anchor)) else { continue };
        let labels = altered.names != proposal.names
            || altered.reason != proposal.reason
            || altered
                .signatures
                .values()
                .flatten()
                .zip(proposal.signatures.values().flatten())
                .any(|(a, b)| a.1 != b.1 && a.1.sig == b.1.sig);
        assert!(altered.digest().unwrap() != digest || labels, "byte {at}");
        if altered.digest().unwrap() != digest {
            assert_eq!(rule(proposal::combine(&proposal, &[("b".into(), altered)], Some(&anchor))), "C-OTHER");
        }
    }
    assert_eq!(everything(&table), before);
}

#[test]
fn the_table_of_bad_input() {
    let (table, proposal) = proposed();
    let anchor = table.first_root();
    let before = everything(&table);

    // For another repository.
    let (other, theirs) = proposed();
    std::fs::write(other.path().join("x"), "").unwrap();
    let mut foreign = Table::new();
    foreign.pass(2);
    let elsewhere = {
        let workspace = tempfile::tempdir().unwrap();
        let options = tidegate::workspace::init::Options {
            keys: tidegate::workspace::init::KeySource::Generate {
                kind: tidegate::keys::generate::Kind::Ed25519,
                passphrase: None,
            },
            salt: None,
            actor: "x".into(),
        };
        tidegate::ceremony::init(&workspace.path().join("w"), &options, table.now, &mut tidegate::keys::NoPassphrases)
            .unwrap();
        std::fs::read(workspace.path().join("w/metadata/1.root.json")).unwrap()
    };
    assert_eq!(rule(proposal::verify(&proposal, Some(&elsewhere))), "C-CHAIN");

    // Replayed from another proposal for the same version.
    let mut copy = theirs.clone();
    other.sign(&mut copy, "root-1").unwrap();
    assert_eq!(rule(proposal::combine(&proposal, &[("theirs".into(), copy.clone())], Some(&anchor))), "C-OTHER");
    // Or its signature moved into this one.
    let mut moved = proposal.clone();
    moved.signatures.clone_from(&copy.signatures);
    assert_eq!(rule(proposal::verify(&moved, Some(&anchor))), "C-SIGNATURE");

    // An unknown key, and one that has no say.
    let mut unknown = proposal.clone();
    let entry = copy.signatures["root"].values().next().unwrap().clone();
    unknown.add("root", KeyId::new("ab".repeat(32)), entry);
    assert_eq!(rule(proposal::verify(&unknown, Some(&anchor))), "C-KEY");
    assert_eq!(rule(table.sign(&mut proposal.clone(), "timestamp")), "C-KEY");

    // Not enough signatures.
    let mut one = proposal.clone();
    table.sign(&mut one, "root-1").unwrap();
    let workspace = table.workspace();
    assert_eq!(rule(table.finish(&workspace)), "C-THRESHOLD");
    drop(workspace);

    // A second ceremony beside the first.
    assert_eq!(rule(table.start()), "C-ONE");
    assert_eq!(everything(&table), before);
}

#[test]
fn a_proposal_that_no_longer_follows_is_refused() {
    let (mut table, proposal) = proposed();
    let kept = table.path().join("kept.json");
    std::fs::copy(table.path().join(ceremony::FILE), &kept).unwrap();
    let signed =
        proposal::combine(&proposal, &table.copies(&proposal, &["root-1", "root-2"]), Some(&table.first_root()))
            .unwrap();
    ceremony::abort(
        &mut Operation::new(&table.workspace(), "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        Some("another one".into()),
    )
    .unwrap();
    table.ceremony(&["root-1", "root-2"]);
    // The old one comes back, complete.
    std::fs::write(table.path().join(ceremony::FILE), signed.to_bytes().unwrap()).unwrap();
    let before = everything(&table);
    let workspace = table.workspace();
    assert_eq!(rule(table.finish(&workspace)), "C-STALE");
    drop(workspace);
    // And a signer who holds the newer root is told.
    let newer = std::fs::read(table.path().join("metadata/2.root.json")).unwrap();
    assert_eq!(rule(proposal::verify(&signed, Some(&newer))), "C-STALE");
    assert_eq!(everything(&table), before);
}

#[test]
fn two_signatures_of_one_holder_are_refused() {
    let mut table = Table::new();
    for name in ["root-1", "root-2"] {
        table.edit(&format!("[keys.{name}]"), &format!("[keys.{name}]\nholder = \"holder 1\""));
    }
    table.pass(1);
    let proposal = table.start().unwrap();
    let copies = table.copies(&proposal, &["root-1", "root-2"]);
    assert_eq!(rule(proposal::combine(&proposal, &copies, Some(&table.first_root()))), "C-HOLDER");
    // A role whose threshold one person alone would meet is not proposed at all.
    ceremony::abort(
        &mut Operation::new(&table.workspace(), "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        None,
    )
    .unwrap();
    table.edit("[keys.root-3]", "[keys.root-3]\nholder = \"holder 1\"");
    assert_eq!(rule(table.start()), "C-HOLDER");
}

/// The tables that signers read go by key ids; so does a device. A key of the thief's under the id of one that is known would be in
/// neither.
#[test]
fn a_key_that_passes_for_a_known_one_is_refused() {
    let (table, proposal) = proposed();
    let anchor = table.first_root();
    let thief = tidegate::keys::generate::generate(tidegate::keys::generate::Kind::Ed25519, None).unwrap().public;
    let mut swapped = proposal.clone();
    let ids: Vec<String> =
        swapped.changes[0].signed["keys"].as_object().unwrap().keys().map(ToString::to_string).collect();
    for id in ids {
        swapped.changes[0].signed["keys"][&id] = thief.to_value();
        assert_eq!(rule(proposal::verify(&swapped, Some(&anchor))), "C-KEY-ID");
        swapped = proposal.clone();
    }
    // And in a delegation.
    let mut table = Table::new();
    table.key("release-3");
    table.edit("keys = [\"release-1\", \"release-2\"]", "keys = [\"release-1\", \"release-3\"]");
    table.pass(1);
    let mut proposal = table.start().unwrap();
    let keys = proposal.changes[0].signed["delegations"]["keys"].as_object_mut().unwrap();
    let id = keys.keys().next().unwrap().clone();
    keys[&id] = thief.to_value();
    assert_eq!(rule(proposal::verify(&proposal, Some(&table.first_root()))), "C-KEY-ID");
}

#[test]
fn nothing_to_propose_is_said() {
    let mut table = Table::new();
    table.pass(1);
    assert_eq!(rule(table.start()), "C-NOTHING");
}

#[test]
fn an_edited_transcript_is_refused() {
    let (table, proposal) = proposed();
    let combined =
        proposal::combine(&proposal, &table.copies(&proposal, &["root-1", "root-2"]), Some(&table.first_root()))
            .unwrap();
    let workspace = table.workspace();
    ceremony::keep(
        &mut Operation::new(&workspace, "tester", table.now, &mut tidegate::keys::KeyRing::empty()),
        &combined,
    )
    .unwrap();
    let done = table.finish(&workspace).unwrap();
    drop(workspace);
    let text = std::fs::read_to_string(&done.transcript).unwrap();
    for (from, to) in [
        ("root key root-4", "root key root-5"),
        ("\"subject\": \"root 2\"", "\"subject\": \"root 3\""),
        ("tidegate test", "tidegate 9"),
    ] {
        assert!(text.contains(from));
        assert_eq!(rule(proposal::Transcript::parse("t", &text.replacen(from, to, 1))), "C-TRANSCRIPT", "{to}");
    }
    // One that is consistent in itself and says something else of the repository.
    let sha = text.split("\"sha256\": \"").nth(1).unwrap()[..64].to_owned();
    let forged = proposal::Transcript::parse("t", &text.replace(&sha, &"0".repeat(64))).unwrap();
    assert_eq!(rule(proposal::check(&forged, &table.repository())), "C-TRANSCRIPT");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whoever signs, and in whatever order and grouping the copies are combined, the bytes are the same.
    #[test]
    fn combining_in_any_order_gives_the_same_bytes(order in Just(vec![0_usize, 1, 2, 3]).prop_shuffle(), split in 0_usize..4) {
        thread_local!(static TABLE: (Table, Proposal, Vec<(String, Proposal)>) = {
            let (table, proposal) = proposed();
            let copies = table.copies(&proposal, &["root-1", "root-2", "root-4", "root-3"]);
            (table, proposal, copies)
        });
        TABLE.with(|(table, proposal, copies)| {
            let anchor = table.first_root();
            let all = proposal::combine(proposal, copies, Some(&anchor)).unwrap().to_bytes().unwrap();
            let shuffled: Vec<_> = order.iter().map(|at| copies[*at].clone()).collect();
            let (left, right) = shuffled.split_at(split);
            let left = proposal::combine(proposal, left, Some(&anchor)).unwrap();
            let right = proposal::combine(&right[0].1, right, Some(&anchor)).unwrap();
            let both = proposal::combine(&right, &[("left".into(), left)], Some(&anchor)).unwrap();
            assert_eq!(both.to_bytes().unwrap(), all);
        });
    }
}
