//! What python-tuf, go-tuf and tough cannot read: the rules against the programs themselves. For go-tuf, whose modules are not among
//! the packages that tests can install, the table says what it does, as read in its source and tried by hand.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tidegate::ceremony;
use tidegate::keys::KeyRing;
use tidegate::metadata::Repository;
use tidegate::proposal::{self, Proposal, ProposalRequest, objections};
use tidegate::workspace::Operation;
use tidegate_tuf::key::Key;
use tidegate_tuf::metadata::{Envelope, Targets as Ours};
use tough::TargetName;
use tough::schema::{Root, Signed, Snapshot, Targets, Timestamp};

use super::table::Table;
use crate::support::{python_tuf, script};

const P384: &str = "-----BEGIN PUBLIC KEY-----\n\
    MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEsnjxXsKtsfZmRdqgnWODrLUO88q8nOz3\n\
    e7I/IiRox+eRkoJfqSrlBfciVxTxOzR6AmqbIYg5QlVszjhfsP0YEGbLJz/cvDuI\n\
    mhY1rbYLTllg0Qs4StBeOx0/zqnWPPtd\n\
    -----END PUBLIC KEY-----\n";
const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDaBWswI1RwgOXdPdL2En7KCbbp\n\
    v9aZli2k4M0JI1k6IwfO2vWIP1TK6Qkm73eiQ+XJOpLVwaLd68FroUocW089q/Zb\n\
    eXCGOB2CIhOtTYKR9r+qmJ+l58WcMJ0iaXxaW/fHE2sLnZUh8lx4PjvfvhNi+kqx\n\
    V+S24lCiN0j3/rRfewIDAQAB\n\
    -----END PUBLIC KEY-----\n";
const RSA_2048: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA1/OtR1Srhf1JOMo1g/Ap\n\
    88XlW0q04yyZHvK5NOzXbJcYpD9zMgS7gnZe95XCkhosKyOCMLW/RIv0AJGBzbbp\n\
    8UQI7/G+/qhUZ5+fhOBQAlawJnvbjROSzoD6JAdLVYxlsFY1Fj8l7apiJF0tvktW\n\
    B1LzCHGC2NwdqpS/FoOQp3eUkU4gbGa5bgsfyqdzutdQYrhNcuy5scGr14UMoMXd\n\
    IFyGpaOkOq+t0BSjfUDxLaxgu43AraE0l5hYCdzGqdDK3Tbwc8Wqq/X+gD+WYPbH\n\
    n258ZjPBR+tiQskpkVkBebZNzcORFlLPahCv40HR5ApbSrWwhAVWNe7RbIlR0t0r\n\
    4QIDAQAB\n\
    -----END PUBLIC KEY-----\n";

/// The SHA-256 of "x", which is the content of a file.
const X: &str = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";

/// One thing that is different in a role, which clients cannot read it then, and paths whose delegation they see otherwise.
struct Case {
    role: &'static str,
    name: &'static str,
    change: fn(&mut Value),
    unreadable: &'static [&'static str],
    probes: &'static [&'static str],
}

const fn case(
    role: &'static str,
    name: &'static str,
    unreadable: &'static [&'static str],
    change: fn(&mut Value),
) -> Case {
    Case { role, name, change, unreadable, probes: &[] }
}

/// A pattern for the paths of the channel, asked with these paths.
const fn pattern(
    name: &'static str,
    unreadable: &'static [&'static str],
    probes: &'static [&'static str],
    change: fn(&mut Value),
) -> Case {
    Case { role: "targets", name, change, unreadable, probes }
}

/// One more key for a role, under its own id.
fn add_key(signed: &mut Value, keys: &str, role: &str, key: Value) {
    let id = Key::from_value(&key).unwrap().id();
    signed.pointer_mut(keys).unwrap()[id.as_str()] = key;
    signed.pointer_mut(role).unwrap()["keyids"].as_array_mut().unwrap().push(json!(id.as_str()));
}

fn root_key(signed: &mut Value, keytype: &str, scheme: &str, public: &str) {
    let key = json!({"keytype": keytype, "scheme": scheme, "keyval": {"public": public}});
    add_key(signed, "/keys", "/roles/targets", key);
}

fn paths(signed: &mut Value, paths: &[&str]) {
    signed["delegations"]["roles"][0]["paths"] = json!(paths);
}

fn listed<'a>(signed: &'a mut Value, path: &str) -> &'a mut Value {
    let targets = &mut signed["targets"];
    targets[path] = json!({"length": 1, "hashes": {"sha256": "0a".repeat(32)}});
    &mut targets[path]
}

const ALL: &[&str] = &["go-tuf", "python-tuf", "tough"];

const CASES: &[Case] = &[
    case("root", "nothing", &[], |_| ()),
    case("root", "an unknown role", &["python-tuf", "tough"], |signed| {
        signed["roles"]["mirrors"] = signed["roles"]["root"].clone();
    }),
    case("root", "a role delegated-targets", &["python-tuf"], |signed| {
        signed["roles"]["delegated-targets"] = signed["roles"]["root"].clone();
    }),
    case("root", "an unknown field", &[], |signed| signed["x-other"] = json!({"b": [1, {"a": "c"}]})),
    case("root", "an unknown field of a role", &[], |signed| signed["roles"]["root"]["x-other"] = json!(true)),
    case("root", "an unknown field of a key", &[], |signed| {
        let key = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "1a".repeat(32), "x": 1}, "x-owner": "me"});
        add_key(signed, "/keys", "/roles/targets", key);
    }),
    case("root", "a key id without its key", &["go-tuf"], |signed| {
        signed["roles"]["targets"]["keyids"].as_array_mut().unwrap().push(json!("ab".repeat(32)));
    }),
    case("root", "a key id that is no hash", &["go-tuf", "tough"], |signed| {
        signed["roles"]["targets"]["keyids"].as_array_mut().unwrap().push(json!("a-name"));
    }),
    case("root", "a key of P-384", &["tough"], |signed| root_key(signed, "ecdsa", "ecdsa-sha2-nistp384", P384)),
    case("root", "a key of P-384 by the old name", &["go-tuf", "tough"], |signed| {
        root_key(signed, "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384", P384);
    }),
    case("root", "a key of ML-DSA-44", &["go-tuf", "tough"], |signed| root_key(signed, "ml-dsa", "ml-dsa-44/1", "00")),
    case("root", "a key of RSA with 2048 bits", &[], |signed| root_key(signed, "rsa", "rsassa-pss-sha256", RSA_2048)),
    case("root", "a key of RSA with 1024 bits", &["every-client"], |signed| {
        root_key(signed, "rsa", "rsassa-pss-sha256", RSA_1024);
    }),
    case("root", "a key of RSA with PKCS 1.5", &["go-tuf", "tough"], |signed| {
        root_key(signed, "rsa", "rsa-pkcs1v15-sha256", RSA_2048);
    }),
    case("root", "a key of SPHINCS+", ALL, |signed| root_key(signed, "sphincs", "sphincs-shake-128s", "00")),
    case("root", "spec_version 1.0", &[], |signed| signed["spec_version"] = json!("1.0")),
    case("root", "a number beyond 2^53", &["go-tuf"], |signed| signed["x-other"] = json!((1_u64 << 53) + 1)),
    case("root", "a number below 2^53", &[], |signed| signed["x-other"] = json!((1_u64 << 53) - 1)),
    case("root", "a field that differs by case", &["go-tuf"], |signed| signed["Version"] = json!("x")),
    case("root", "names of which one begins another", &["tough"], |signed| signed["x"] = json!({"a": 1, "a!": 2})),
    case("root", "text beyond ASCII", &["tough"], |signed| signed["x"] = json!("e\u{301}")),
    case("targets", "nothing", &[], |_| ()),
    case("targets", "an unknown field of delegations", &["tough"], |signed| signed["delegations"]["x"] = json!(1)),
    case("targets", "an unknown field of a delegation", &["tough"], |signed| {
        signed["delegations"]["roles"][0]["x"] = json!(1);
    }),
    case("targets", "a delegation without terminating", ALL, |signed| {
        signed["delegations"]["roles"][0].as_object_mut().unwrap().remove("terminating");
    }),
    case("targets", "a delegation that is not terminating", &[], |signed| {
        signed["delegations"]["roles"][0]["terminating"] = json!(false);
    }),
    case("targets", "a delegation without paths", &["python-tuf", "tough"], |signed| {
        signed["delegations"]["roles"][0].as_object_mut().unwrap().remove("paths");
    }),
    case("targets", "a delegation of no paths", &[], |signed| paths(signed, &[])),
    case("targets", "null beside paths", ALL, |signed| {
        signed["delegations"]["roles"][0]["path_hash_prefixes"] = Value::Null;
    }),
    case("targets", "another delegation with every kind of character", &["go-tuf"], |signed| {
        let mut role = signed["delegations"]["roles"][0].clone();
        role["name"] = json!("a$b:c d?");
        signed["delegations"]["roles"].as_array_mut().unwrap().push(role);
    }),
    case("targets", "an ML-DSA key for a channel", &["go-tuf", "tough"], |signed| {
        let key = json!({"keytype": "ml-dsa", "scheme": "ml-dsa-44/1", "keyval": {"public": "00"}});
        add_key(signed, "/delegations/keys", "/delegations/roles/0", key);
    }),
    case("stable", "nothing", &[], |_| ()),
    case("stable", "an empty file", &[], |signed| listed(signed, "stable/releases/a/1.0.0/b")["length"] = json!(0)),
    case("stable", "a length beyond 63 bits", &["go-tuf"], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["length"] = json!(u64::MAX);
    }),
    case("stable", "an unknown field of a target", &[], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["x"] = json!("y");
    }),
    case("stable", "custom", &[], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["custom"] = json!({"x": 1_u64 << 60});
    }),
    case("stable", "an empty custom", &["tough"], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["custom"] = json!({});
    }),
    case("stable", "custom null", &["go-tuf", "tough"], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["custom"] = Value::Null;
    }),
    case("stable", "a SHA-512 alone", &["tough"], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["hashes"] = json!({"sha512": "0a".repeat(64)});
    }),
    case("stable", "a path that leads nowhere", &["tough"], |signed| _ = listed(signed, "..")),
    case("stable", "an upper-case hash", &["go-tuf", "python-tuf"], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["hashes"] = json!({"sha256": X.to_uppercase()});
    }),
    case("stable", "a hash of an unknown kind", &["go-tuf", "python-tuf"], |signed| {
        listed(signed, "stable/releases/a/1.0.0/b")["hashes"] = json!({"sha256": X, "sha9": "00"});
    }),
    case("root", "a threshold above the number of different keys", &["every-client"], |signed| {
        let id = signed["roles"]["targets"]["keyids"][0].as_str().unwrap().to_owned();
        let mut twin = signed["keys"][&id].clone();
        twin["x"] = json!(1);
        add_key(signed, "/keys", "/roles/targets", twin);
        signed["roles"]["targets"]["threshold"] = json!(4);
    }),
    pattern("a path by its hash", &["go-tuf"], &["stable/cohorts.json"], |signed| {
        let role = signed["delegations"]["roles"][0].as_object_mut().unwrap();
        role.remove("paths");
        role.insert(
            "path_hash_prefixes".into(),
            json!(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"]),
        );
    }),
    pattern("stars and question marks", &[], &["stable/abc.json", "stable/b.json", "stablX"], |signed| {
        paths(signed, &["stable/*.json", "stable/?.json", "stabl?"]);
    }),
    pattern("brackets", ALL, &["stable/a", "stable/[a]"], |signed| paths(signed, &["stable/[a]"])),
    pattern("braces", &["tough"], &["stable/a", "stable/{a,b}"], |signed| paths(signed, &["stable/{a,b}"])),
    pattern("a brace alone", &["tough"], &["stable/a}"], |signed| paths(signed, &["stable/a}"])),
    pattern("other signs", &[], &["stable/a", "stable/a]!", "stable/a**"], |signed| {
        paths(signed, &["stable/a]!", "stable/a**"]);
    }),
    pattern("a backslash", &["go-tuf", "tough"], &["stable/*", "stable/\\a", "stable/\\*"], |signed| {
        paths(signed, &["stable/\\*"]);
    }),
];

/// The files that a case is read in, each with who delegates to it.
fn steps(repository: &Repository, altered: &Proposal) -> Vec<[String; 3]> {
    let file = |role: &str| String::from_utf8(altered.file(role).unwrap()).unwrap();
    let in_force = |role: &str| String::from_utf8(repository.role(role).unwrap().bytes.clone()).unwrap();
    let step = |delegator: String, role: &str, file: String| [delegator, role.to_owned(), file];
    vec![
        step(in_force("root"), "root", file("root")),
        step(file("root"), "root", file("root")),
        step(file("root"), "timestamp", in_force("timestamp")),
        step(file("root"), "snapshot", in_force("snapshot")),
        step(file("root"), "targets", file("targets")),
        step(file("stable"), "stable.canary", in_force("stable.canary")),
        step(file("targets"), "stable", file("stable")),
    ]
}

fn tough_reads(steps: &[[String; 3]]) -> Result<(), String> {
    fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }
    for [delegator, role, file] in steps {
        let verified = match role.as_str() {
            "root" => parse::<Signed<Root>>(delegator)?.signed.verify_role(&parse::<Signed<Root>>(file)?),
            "timestamp" => parse::<Signed<Root>>(delegator)?.signed.verify_role(&parse::<Signed<Timestamp>>(file)?),
            "snapshot" => parse::<Signed<Root>>(delegator)?.signed.verify_role(&parse::<Signed<Snapshot>>(file)?),
            "targets" => parse::<Signed<Root>>(delegator)?.signed.verify_role(&parse::<Signed<Targets>>(file)?),
            role => {
                let delegations = parse::<Signed<Targets>>(delegator)?.signed.delegations.unwrap();
                delegations.verify_role(&parse::<Signed<Targets>>(file)?, role)
            }
        };
        verified.map_err(|e| format!("{role}: {e}"))?;
    }
    Ok(())
}

/// Whether the last delegator delegates a path, as tough sees it.
fn tough_covers(targets: &str, path: &str) -> bool {
    let targets: Signed<Targets> = serde_json::from_str(targets).unwrap();
    targets.signed.delegations.unwrap().target_is_delegated(&TargetName::new(path).unwrap())
}

fn we_cover(targets: &str, path: &str) -> bool {
    let envelope = Envelope::parse("targets", targets.as_bytes()).unwrap();
    let targets: Ours = envelope.danger_read_unverified("targets").unwrap();
    targets.delegations.unwrap().roles.iter().any(|role| role.paths.covers(path))
}

#[test]
fn what_other_clients_cannot_read_is_known() {
    let mut table = Table::new();
    table.pass(1);
    let request =
        ProposalRequest { renew: ["root", "targets", "stable"].map(str::to_owned).into(), ..Default::default() };
    let workspace = table.workspace();
    let mut keys = KeyRing::empty();
    let proposal = ceremony::start(&mut Operation::new(&workspace, "tester", table.now, &mut keys), &request).unwrap();
    let repository = table.repository();
    let signed = |case: &Case| {
        let mut altered = proposal.clone();
        (case.change)(&mut altered.changes.iter_mut().find(|change| change.role == case.role).unwrap().signed);
        let verified =
            proposal::verify(&altered, Some(&table.first_root())).unwrap_or_else(|e| panic!("{}: {e:?}", case.name));
        let allowed: BTreeSet<String> = objections(&altered, &verified).new.into_iter().map(|o| o.name).collect();
        for name in ["root-1", "root-2", "targets-1", "targets-2", "release-1", "release-2"] {
            table.sign_allowing(&mut altered, name, &allowed).unwrap();
        }
        (steps(&repository, &altered), allowed)
    };
    let made: Vec<_> = CASES.iter().map(signed).collect();
    let dir = tempfile::tempdir().unwrap();
    let cases: Vec<Value> = made
        .iter()
        .zip(CASES)
        .map(|((steps, _), case)| {
            let steps: Vec<_> = steps
                .iter()
                .map(|[delegator, role, file]| json!({"delegator": delegator, "role": role, "file": file}))
                .collect();
            json!({"steps": steps, "probes": case.probes})
        })
        .collect();
    std::fs::write(dir.path().join("cases"), serde_json::to_vec(&cases).unwrap()).unwrap();
    let python = python_tuf().map(|python| script(&python, "reads.py", &[dir.path().join("cases").to_str().unwrap()]));
    let mut wrong = Vec::new();
    for (at, (case, (steps, allowed))) in CASES.iter().zip(&made).enumerate() {
        let ours: Vec<bool> = case.probes.iter().map(|path| we_cover(&steps[6][0], path)).collect();
        let mut check = |client: &str, said: Result<Vec<bool>, String>| {
            let named = allowed.iter().any(|name| name.starts_with(&format!("{client}:")));
            // What nobody can use nobody is named for.
            let every = allowed.iter().any(|name| name.starts_with("every-client:"));
            let fails = said.as_ref() != Ok(&ours) && !every;
            if named != fails || named != case.unreadable.contains(&client) {
                wrong.push(format!("{}, {}: {client} gives {said:?}, we {ours:?}; {allowed:?}", case.role, case.name));
            }
        };
        check(
            "tough",
            tough_reads(steps).map(|()| case.probes.iter().map(|path| tough_covers(&steps[6][0], path)).collect()),
        );
        if let Some(python) = &python {
            let said = &python[at];
            let covered = serde_json::from_value(said["covered"].clone()).unwrap();
            check("python-tuf", said["error"].as_str().map_or(Ok(covered), |error| Err(error.to_owned())));
        }
        let named = allowed.iter().any(|name| name.starts_with("go-tuf:"));
        if named != case.unreadable.contains(&"go-tuf") {
            wrong.push(format!("{}, {}: go-tuf: {allowed:?}", case.role, case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
