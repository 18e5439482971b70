//! Canonical JSON and signature decisions, held against python-tuf's on thousands of sound and mutated cases.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use tidegate_tuf::json;
use tidegate_tuf::metadata::{Envelope, Metadata, Root, Snapshot, Targets, Timestamp};
use tidegate_tuf::valid_signers;

use crate::python;

const CASES: usize = 20_000;

/// Where we differ from python-tuf: what the case has, our verdict, and the reason.
const LISTED: &[(&str, bool, &str)] = &[
    (
        "has: duplicate key",
        false,
        "parsers differ on which one wins, so a signature could cover another value than the one used",
    ),
    ("has: number beyond 64 bits", false, "no field needs one, and a device must not guess"),
    ("has: negative zero", false, "it has two canonical spellings among implementations"),
    ("has: nesting beyond 128", false, "a bound on the stack; the reference's is the interpreter's"),
    ("has: RSA below 2048 bits", false, "the specification forbids such keys (TUF 4.2.2)"),
    ("has: two ids of one key", false, "a key counts once, whatever ids it is declared under (TUF 5.3.4)"),
    ("has: two ids of one key", true, "the listed part of the case is another one that we allow"),
    (
        "has: expiry in another spelling",
        false,
        "the reference verifies its own re-serialisation of the date; we verify the bytes as received",
    ),
    (
        "has: expiry in another spelling",
        true,
        "as above; fractions of a second and offsets are read, since tuftool and go-tuf write them",
    ),
    ("version True", false, "true is not a version"),
    ("version 18446744073709551616", false, "beyond 64 bits"),
    ("meta hash short", false, "a digest that can never match is refused at once"),
    ("target custom is text", false, "custom is an object (TUF 4.5)"),
    ("key scheme", true, "a key of an unknown kind verifies nothing, but does not spoil the keys beside it"),
    ("root key of unknown type", true, "as above: new kinds of keys can be introduced beside old ones"),
    ("root key public not text", true, "as above"),
    ("key bad-public", true, "as above"),
    ("root with a role more", true, "what is not known is ignored"),
    ("root with mirrors", true, "mirrors is an optional role of the specification (TUF 4.3)"),
    ("meta more than snapshot", true, "what is not known is ignored"),
    ("delegation no terminating", true, "the specification's own example leaves it out"),
    ("delegation neither kind of path", true, "both are optional (TUF 4.5); such a delegation covers nothing"),
    ("consistent_snapshot text", false, "consistent_snapshot is a boolean (TUF 4.3)"),
    ("delegation terminating text", false, "terminating is a boolean (TUF 4.5)"),
];

#[test]
fn decisions_agree_with_python_tuf() {
    if !cfg!(feature = "rsa") {
        eprintln!("SKIPPED: built without the feature `rsa`, and python-tuf knows RSA keys");
        return;
    }
    let Some(python) = python::with(&["tuf", "securesystemslib", "cryptography"]) else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/differential.py");
    let seed = std::env::var("TIDEGATE_SEED").unwrap_or_else(|_| "1".into());
    let out = Command::new(python).arg(script).args([seed, CASES.to_string()]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));

    let (mut cases, mut accepted) = (0, 0);
    let mut listed = BTreeMap::<&str, usize>::new();
    let mut unlisted = BTreeMap::<String, usize>::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| case[field].as_str().unwrap_or_default();
        let bytes = |field: &str| BASE64_STANDARD.decode(text(field)).unwrap();
        let (theirs, ours) = match text("kind") {
            "canonical" => {
                let ours = json::parse(&bytes("input")).and_then(|value| json::canonical(&value)).ok();
                let theirs = case["verdict"].as_bool().unwrap().then(|| bytes("canonical"));
                if let (Some(ours), Some(theirs)) = (&ours, &theirs) {
                    assert_eq!(ours, theirs, "canonical forms differ: {line}");
                }
                (theirs.is_some(), ours.is_some())
            }
            _ => (case["verdict"].as_bool().unwrap(), accepts(text("role"), &bytes("delegator"), &bytes("input"))),
        };
        cases += 1;
        accepted += usize::from(ours);
        if ours == theirs {
            continue;
        }
        let name = text("name");
        match LISTED.iter().find(|(part, we, _)| name.contains(part) && *we == ours) {
            Some((part, ..)) => *listed.entry(part).or_default() += 1,
            None => *unlisted.entry(format!("{}: {name}: we say {ours}", text("kind"))).or_default() += 1,
        }
    }
    for (part, count) in &listed {
        let reason = LISTED.iter().find(|(p, ..)| p == part).map_or("", |(.., reason)| reason);
        println!("listed: {part}: {count} cases: {reason}");
    }
    println!("{cases} cases, {accepted} accepted by us, {} disagreements listed", listed.values().sum::<usize>());
    assert!(unlisted.is_empty(), "disagreements without a reason: {unlisted:#?}");
    assert!(cases == CASES && accepted > cases / 4, "the cases must be many, and many of them sound");
}

/// Whether we accept `input` as the metadata of `role`, given the root that declares its keys.
fn accepts(role: &str, delegator: &[u8], input: &[u8]) -> bool {
    fn read<T: Metadata>(role: &str, envelope: &Envelope) -> bool {
        envelope.danger_read_unverified::<T>(role).is_ok()
    }
    let root = Envelope::parse("root", delegator).and_then(|envelope| envelope.danger_read_unverified::<Root>("root"));
    let (Ok(root), Ok(envelope)) = (root, Envelope::parse(role, input)) else { return false };
    let declared = root.role(role).unwrap();
    valid_signers(root.keys(), declared, &envelope).len() as u64 >= declared.threshold
        && match role {
            "root" => read::<Root>(role, &envelope),
            "timestamp" => read::<Timestamp>(role, &envelope),
            "snapshot" => read::<Snapshot>(role, &envelope),
            _ => read::<Targets>(role, &envelope),
        }
}
