//! From a TPM (swtpm, by tpm2-tools) through the gate: enrol, quote, grant, download; and what is refused.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::device::Device;
use crate::support::{House, Running, target};

/// A TPM in software, until it is dropped.
pub struct Tpm {
    child: Child,
    pub dir: PathBuf,
    port: u16,
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tpm {
    /// `None` where the programs are missing.
    pub fn start(dir: PathBuf) -> Option<Self> {
        let has = |program: &str| {
            Command::new(program)
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        };
        if !has("swtpm") || !has("tpm2_quote") {
            assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "swtpm and tpm2-tools are missing");
            eprintln!("SKIPPED: swtpm and tpm2-tools are missing");
            return None;
        }
        std::fs::create_dir_all(&dir).unwrap();
        // Two ports in a row: the tools look for the control channel beside the other.
        let (port, held) = (0..100).find_map(|_| {
            let first = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = first.local_addr().unwrap().port();
            Some((port, TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok()?))
        })?;
        drop(held);
        let channel = |port: u16| format!("type=tcp,port={port},bindaddr=127.0.0.1");
        let child = Command::new("swtpm")
            .args([
                "socket",
                "--tpm2",
                "--tpmstate",
                &format!("dir={}", dir.display()),
                "--flags",
                "not-need-init,startup-clear",
            ])
            .args(["--server", &channel(port), "--ctrl", &channel(port + 1)])
            .spawn()
            .unwrap();
        let this = Self { child, dir, port };
        House::eventually("the TPM answers", || this.try_tool("tpm2_pcrread sha256:0"));
        Some(this)
    }

    fn command(&self, line: &str) -> Command {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).current_dir(&self.dir).env("TPM2TOOLS_TCTI", self.tcti());
        command
    }

    /// How tpm2-tools reach it.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    fn try_tool(&self, line: &str) -> bool {
        self.command(line).output().unwrap().status.success()
    }

    pub fn tool(&self, line: &str) -> String {
        let out = self.command(line).output().unwrap();
        assert!(out.status.success(), "{line}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    /// An attestation key, and its public part in PEM.
    pub fn make_key(&self, name: &str, scheme: &str) -> String {
        let (kind, scheme) = if scheme == "ecdsa" { ("ecc", "ecdsa") } else { ("rsa", "rsassa") };
        self.tool(&format!("tpm2_createek -Q -c {name}.ek -G {kind} -u {name}.ekpub"));
        self.tool(&format!("tpm2_createak -Q -C {name}.ek -c {name}.ctx -G {kind} -g sha256 -s {scheme} -u {name}.pem -f pem -n {name}.name"));
        self.tool("tpm2_flushcontext -Q -t");
        self.dir.join(format!("{name}.pem")).to_str().unwrap().to_owned()
    }

    pub fn extend(&self, register: u8, byte: &str) {
        self.tool(&format!("tpm2_pcrextend {register}:sha256={}", byte.repeat(32)));
    }

    pub fn read(&self, register: u8) -> String {
        let text = self.tool(&format!("tpm2_pcrread sha256:{register}"));
        text.split("0x").nth(1).unwrap().trim().to_ascii_lowercase()
    }

    /// Evidence over these registers, with qualifying data.
    fn quote(&self, name: &str, registers: &[u8], data: &[u8]) -> Value {
        let list = registers.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        let data = HEXLOWER.encode(data);
        self.tool(&format!("tpm2_quote -Q -c {name}.ctx -l sha256:{list} -q {data} -m q.msg -s q.sig -g sha256"));
        self.tool("tpm2_flushcontext -Q -t");
        let bytes = |file: &str| BASE64URL_NOPAD.encode(&std::fs::read(self.dir.join(file)).unwrap());
        let pcrs: BTreeMap<String, String> =
            registers.iter().map(|register| (format!("sha256:{register}"), self.read(*register))).collect();
        json!({"kind": "tpm2", "quote": bytes("q.msg"), "signature": bytes("q.sig"), "pcrs": pcrs})
    }
}

/// As the device computes it.
fn qualifying(nonce: &str, device: &str) -> Vec<u8> {
    let nonce = BASE64URL_NOPAD.decode(nonce.as_bytes()).unwrap();
    Sha256::digest([b"tidegate/gate/quote/1\n", nonce.as_slice(), b"\n", device.as_bytes(), b"\n"].concat()).to_vec()
}

pub fn settle(house: &House, pcr7: &str) {
    house.settle("required", &format!("[pcrs.golden]\n\"sha256:0\" = [\"{}\"]\n\"sha256:7\" = [\"{pcr7}\"]\n[cohorts.\"stable.canary\"]\nleast = \"affirming\"\nevidence = [\"tpm2\"]\npcrs = \"golden\"\n", "00".repeat(32)));
}

fn refused(device: &Device, gate: &Running, evidence: impl FnOnce(&str) -> Value) -> (u16, String, Value) {
    let answer = device.grant(gate, &["stable.canary"], evidence);
    let error = answer.json()["error"].clone();
    (answer.status, error["rule"].as_str().unwrap_or_default().into(), error["missing"].clone())
}

#[test]
fn a_device_shows_its_state_by_its_tpm_and_a_changed_register_is_refused_with_the_reason() {
    let house = House::new();
    let Some(tpm) = Tpm::start(house.path("tpm")) else { return };
    tpm.extend(7, "aa");
    settle(&house, &tpm.read(7));
    // Enrolment.
    for (id, scheme) in [("device-1", "ecdsa"), ("device-2", "rsassa")] {
        let pem = tpm.make_key(id, scheme);
        let enrolled = house.run(&["enrol", id, "--ak", &pem]);
        assert!(enrolled.status.success(), "{enrolled:?}");
    }
    let gate = house.serve();
    let [one, two, three] = ["device-1", "device-2", "device-3"].map(|id| Device::certified(&house, id));
    let (name, image) = target("stable/releases/os/1.2.0/os.img", "1.2.0");
    for device in [&one, &two] {
        // Quote, grant, download.
        let answer = device
            .grant(&gate, &["stable.canary"], |nonce| tpm.quote(&device.id, &[0, 7], &qualifying(nonce, &device.id)));
        assert_eq!(answer.status, 200, "{answer:?}");
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        assert_eq!(device.get(&gate, &name, &token).body, image.as_bytes());
    }
    // More registers than the policy looks at.
    assert_eq!(
        refused(&one, &gate, |nonce| tpm.quote("device-1", &[0, 1, 7, 23], &qualifying(nonce, "device-1"))).0,
        200
    );

    let quote = json!(["tpm2 quote"]);
    // A device of which no attestation key is known, and one that shows another's.
    let (_, rule, missing) =
        refused(&three, &gate, |nonce| tpm.quote("device-1", &[0, 7], &qualifying(nonce, "device-3")));
    assert_eq!((rule.as_str(), missing), ("G-ATT-03", json!(["enrolled attestation key"])));
    for key in ["device-1", "device-2"] {
        let other = if key == "device-1" { &two } else { &one };
        let (_, rule, missing) = refused(other, &gate, |nonce| tpm.quote(key, &[0, 7], &qualifying(nonce, &other.id)));
        assert_eq!((rule.as_str(), &missing), ("G-ATT-04", &quote));
    }
    // Another nonce; another device's.
    let old = one.nonce(&gate);
    let (_, rule, _) = refused(&one, &gate, |_| tpm.quote("device-1", &[0, 7], &qualifying(&old, "device-1")));
    assert_eq!(rule, "G-ATT-04");
    let (_, rule, _) = refused(&one, &gate, |nonce| tpm.quote("device-1", &[0, 7], &qualifying(nonce, "device-2")));
    assert_eq!(rule, "G-ATT-04");
    // A register that the policy needs was not quoted.
    let (_, rule, missing) = refused(&one, &gate, |nonce| tpm.quote("device-1", &[0], &qualifying(nonce, "device-1")));
    assert_eq!((rule.as_str(), missing), ("G-ATT-12", json!(["pcr sha256:7"])));
    // Values that are not those that were quoted, missing ones, others.
    let golden = tpm.read(7);
    let forge = |change: &dyn Fn(&mut Value)| {
        refused(&one, &gate, |nonce| {
            let mut evidence = tpm.quote("device-1", &[0, 7], &qualifying(nonce, "device-1"));
            change(&mut evidence);
            evidence
        })
    };
    for change in [
        &(|e: &mut Value| e["pcrs"]["sha256:7"] = json!("11".repeat(32))) as &dyn Fn(&mut Value),
        &|e: &mut Value| e["pcrs"]["sha256:7"] = json!("zz"),
        &|e: &mut Value| e["pcrs"]["sha256:8"] = json!("00".repeat(32)),
        &|e: &mut Value| {
            e["pcrs"].as_object_mut().unwrap().remove("sha256:0");
        },
        &|e: &mut Value| e["signature"] = json!(""),
        &|e: &mut Value| e["signature"] = json!("AAAA"),
        &|e: &mut Value| e["quote"] = json!("AAAA"),
        &|e: &mut Value| e["quote"] = json!("A".repeat(8000)),
        &|e: &mut Value| {
            let text = e["quote"].as_str().unwrap().to_owned();
            e["quote"] = json!(format!("{text}AAAA"));
        },
    ] {
        let (status, rule, _) = forge(change);
        assert_eq!((status, rule.as_str()), (403, "G-ATT-04"));
    }

    // What boots changes: refused, with the reason; and the values of before do not help.
    tpm.extend(7, "bb");
    let (status, rule, missing) =
        refused(&one, &gate, |nonce| tpm.quote("device-1", &[0, 7], &qualifying(nonce, "device-1")));
    assert_eq!((status, rule.as_str(), missing), (403, "G-ATT-12", json!(["pcr sha256:7"])));
    let (_, rule, _) = forge(&|e| e["pcrs"]["sha256:7"] = json!(golden));
    assert_eq!(rule, "G-ATT-04");
    let audit = gate.audit();
    assert!(audit.contains("\"rule\":\"G-ATT-12\"") && audit.contains("\"missing\":[\"pcr sha256:7\"]"), "{audit}");
}
