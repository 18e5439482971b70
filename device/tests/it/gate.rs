//! `tidegate-device` in a protected cohort, with a small server in the place of a gate.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::cli::Bench;
use crate::fleet::{self, IMAGE, approve, assign, manifest};

const COHORTS: &[(&str, Option<u32>)] = &[("lab", None), ("all", Some(1_000_000))];

/// It grants, unless it is told what to answer, and gives the files of a folder for that.
#[derive(Clone, Default)]
struct SmallGate(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    url: String,
    folder: PathBuf,
    refusal: Option<&'static str>,
    seen: Vec<String>,
}

impl SmallGate {
    fn start() -> Self {
        let gate = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        gate.0.lock().unwrap().url = format!("http://{}", listener.local_addr().unwrap());
        let there = gate.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A device may leave at any time.
                let _ = there.answer(&stream);
            }
        });
        gate
    }

    fn answer(&self, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
        for line in head.lines() {
            length = line.to_ascii_lowercase().strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let mut inner = self.0.lock().unwrap();
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (status, answer) = match (path.as_str(), inner.refusal) {
            (_, Some(refusal)) => (403, refusal.as_bytes().to_vec()),
            ("/v1/challenge", _) => (200, br#"{"nonce": "AAEC", "expires": "2026-01-05T12:02:00Z"}"#.to_vec()),
            ("/v1/grant", _) => {
                (200, br#"{"token": "tok", "expires": "2026-01-05T12:10:00Z", "cohorts": ["stable.all"]}"#.to_vec())
            }
            (path, _) if head.contains("Bearer tok") => {
                let file = inner.folder.join(path.strip_prefix("/v1/repo/").unwrap());
                fs::read(file).map_or((404, Vec::new()), |bytes| (200, bytes))
            }
            _ => (401, Vec::new()),
        };
        inner.seen.push(head + &String::from_utf8_lossy(&body));
        write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.len())?;
        stream.write_all(&answer)
    }

    fn refuse(&self, refusal: Option<&'static str>) {
        self.0.lock().unwrap().refusal = refusal;
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().seen)
    }
}

/// A device in the protected cohort `all`, whose release is behind the gate and asks for evidence.
fn behind(gate: &SmallGate) -> Bench {
    let url = gate.0.lock().unwrap().url.clone();
    let bench = Bench::new(|sim| {
        fleet::set_protected_cohorts(sim, COHORTS, &[("all", &url)]);
        let mut manifest = manifest("1.2.0", 12);
        manifest["eligibility"] = json!({"fact": "attestation", "exists": true});
        let bytes = approve(sim, &manifest);
        assign(sim, "all", &bytes, &json!({"private": true}));
        sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
    });
    let private = bench.path("private");
    for folder in ["metadata", "targets/stable/releases/os/1.2.0"] {
        let (from, to) = (bench.path("repository").join(folder), private.join(folder));
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if folder != "metadata" || name.ends_with(".stable.all.json") {
                fs::rename(entry.path(), to.join(name)).unwrap();
            }
        }
    }
    gate.0.lock().unwrap().folder = private;
    write_key(&bench);
    bench
}

pub fn write_key(bench: &Bench) {
    use ed25519_dalek::pkcs8::EncodePrivateKey as _;
    use std::os::unix::fs::PermissionsExt as _;
    let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    let pem = key.to_pkcs8_pem(ed25519_dalek::pkcs8::spki::der::pem::LineEnding::LF).unwrap();
    fs::write(bench.path("device.key"), pem.as_bytes()).unwrap();
    fs::set_permissions(bench.path("device.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn attesting() -> serde_json::Value {
    let script = r#"printf '{"kind": "ear", "token": "evidence.for.%s"}' "$TIDEGATE_NONCE""#;
    json!({"gate": {"key": "device.key", "attestor": {"kind": "command", "program": ["sh", "-c", script], "gives": "ear"}}})
}

#[test]
fn the_program_shows_what_the_device_is_and_installs() {
    let gate = SmallGate::start();
    let bench = behind(&gate);
    bench.set(&attesting());
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(fs::read(bench.path("slot")).unwrap(), IMAGE);
    let seen = gate.seen();
    assert!(
        seen[1].starts_with("POST /v1/grant ") && seen[1].contains(r#""token":"evidence.for.AAEC""#),
        "{}",
        seen[1]
    );
    assert_eq!(seen.len(), 5, "challenge, grant, role, manifest, artifact: {seen:?}");
    assert!(seen.iter().all(|request| request.to_ascii_lowercase().contains("\r\ntidegate-proof: ")));
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("\nevidence     ear, for gates that ask\n"), "{out}");
    assert_eq!(bench.json(&["status"])["device"]["attestation"], "ear");
}

#[test]
fn the_program_says_what_is_missing() {
    let gate = SmallGate::start();
    let bench = behind(&gate);
    // Without settings, with settings and no attestor, with one that the gate does not take.
    let (code, out, _) = bench.run(&["-q", "check"]);
    assert!(code == 0 && out.starts_with("nothing to install: ") && out.contains("no gate settings"), "{out}");
    assert!(gate.seen().is_empty());
    bench.set(&json!({"gate": {"key": "device.key"}}));
    let (code, out, _) = bench.run(&["-q", "check"]);
    assert!(code == 0 && out.contains("the fact attestation is missing: this device has no attestor"), "{out}");
    assert!(gate.seen()[1].contains(r#""evidence":{"kind":"none"}"#));
    let assumed = bench.json(&["explain", "--fact", "attestation=tpm2"]);
    assert_eq!(assumed["explanation"]["outcome"]["kind"], "install");
    assert_eq!(assumed["explanation"]["device"]["attestation"], "tpm2");
    let (code, _, err) = bench.run(&["explain", "--fact", "attestation=rumour"]);
    assert!(code == 2 && err.contains("tpm2, ear, none"), "{code} {err}");
    gate.refuse(Some(
        r#"{"error": {"rule": "G-ATT-05", "why": "stable.all takes tpm2 quote, not ear", "missing": ["tpm2 quote"]}}"#,
    ));
    fs::remove_dir_all(bench.path("state")).unwrap();
    bench.set(&attesting());
    let (code, out, _) = bench.run(&["-q", "explain"]);
    let expected = "denied this device access: stable.all takes tpm2 quote, not ear (G-ATT-05); missing: tpm2 quote\n";
    assert!(code == 0 && out.contains(expected) && out.contains("evidence   ear\n"), "{out}");
    let check = bench.json(&["check"]);
    let why = check["explanation"]["outcome"]["why"].as_str().unwrap();
    assert!(why.contains("missing: tpm2 quote"), "{check}");
}

/// An unreachable gate fails the check; an unusable key fails only the commands that need it.
#[test]
fn gate_failures_fail_only_what_needs_the_gate() {
    let gate = SmallGate::start();
    let bench = behind(&gate);
    bench.set(&json!({"gate": {"key": "absent.key"}}));
    let (code, out, err) = bench.run(&["check", "--json"]);
    assert!(code == 1 && out.is_empty() && err.contains(r#""kind":"io""#) && err.contains("absent.key"), "{out}{err}");
    // In the public cohort: a warning.
    let (code, out, err) = bench.run(&["check", "--fact", "group=lab"]);
    assert!(code == 0 && out.starts_with("nothing to install: role stable.lab offers no release"), "{out}");
    assert!(err.contains("warning") && err.contains("no gate can be entered") && err.contains("absent.key"), "{err}");
    // What a device says of itself is no evidence.
    bench.set(&json!({"gate": {"key": "device.key"}, "facts": {"attestation": "tpm2"}}));
    let (code, out, err) = bench.run(&["check"]);
    assert!(code == 0 && out.contains("the fact attestation is missing"), "{out}");
    assert!(err.contains("the fact attestation is ignored"), "{err}");
    // Settings that nobody could mean.
    bench.set(&json!({"gate": {"attestor": {"kind": "tpm2", "key": "0x81010002", "pcrs": [99]}}}));
    let (code, _, err) = bench.run(&["check"]);
    assert!(code == 2 && err.contains("gate.attestor") && err.contains("0 to 23"), "{code} {err}");
    // A command that cannot be run is this device's fault, and named.
    bench.set(&json!({"gate": {"attestor": {"kind": "command", "program": ["/no/such/attestor"], "gives": "ear"}}}));
    fs::remove_dir_all(bench.path("state")).unwrap();
    let (code, out, err) = bench.run(&["check", "--json"]);
    assert!(
        code == 1 && out.is_empty() && err.contains(r#""kind":"io""#) && err.contains("/no/such/attestor"),
        "{out}{err}"
    );
    // A gate at which nobody is.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    gate.0.lock().unwrap().url = format!("http://{nobody}");
    let bench = behind(&gate);
    bench.set(&attesting());
    let (code, out, err) = bench.run(&["check", "--json"]);
    assert!(
        code == 1 && out.is_empty() && err.contains(r#""kind":"network""#) && err.contains(&nobody.to_string()),
        "{out}{err}"
    );
}
