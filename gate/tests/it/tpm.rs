//! Quotes of a TPM (swtpm with tpm2-tools): enrolment, quote, grant, download, and refused quotes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::device::Device;
use crate::support::{RunningGate, TestSite, target};

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
        TestSite::wait_until("the TPM answers", || this.try_tool("tpm2_pcrread sha256:0"));
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
    qualifying_for("localhost", nonce, device)
}

/// The same for any gate.
fn qualifying_for(gate: &str, nonce: &str, device: &str) -> Vec<u8> {
    let nonce = BASE64URL_NOPAD.decode(nonce.as_bytes()).unwrap();
    Sha256::digest(
        [b"tidegate/gate/quote/2\n", gate.as_bytes(), b"\n", nonce.as_slice(), b"\n", device.as_bytes(), b"\n"]
            .concat(),
    )
    .to_vec()
}

pub fn write_config(site: &TestSite, pcr7: &str) {
    site.write_config("required", &format!("[pcrs.golden]\n\"sha256:0\" = [\"{}\"]\n\"sha256:7\" = [\"{pcr7}\"]\n[cohorts.\"stable.canary\"]\nleast = \"affirming\"\nevidence = [\"tpm2\"]\npcrs = \"golden\"\n", "00".repeat(32)));
}

fn refused(device: &Device, gate: &RunningGate, evidence: impl FnOnce(&str) -> Value) -> (u16, String, Value) {
    let answer = device.grant(gate, &["stable.canary"], evidence);
    let error = answer.json()["error"].clone();
    (answer.status, error["rule"].as_str().unwrap_or_default().into(), error["missing"].clone())
}

/// A gate with a PCR policy, a TPM, and two devices with enrolled attestation keys.
struct TpmSite {
    site: TestSite,
    tpm: Tpm,
    gate: RunningGate,
    ecdsa: Device,
    rsa: Device,
}

impl TpmSite {
    /// `None` where the programs are missing.
    fn new() -> Option<Self> {
        let site = TestSite::new();
        let tpm = Tpm::start(site.path("tpm"))?;
        tpm.extend(7, "aa");
        write_config(&site, &tpm.read(7));
        for (id, scheme) in [("device-1", "ecdsa"), ("device-2", "rsassa")] {
            let pem = tpm.make_key(id, scheme);
            let enrolled = site.run(&["enrol", id, "--ak", &pem]);
            assert!(enrolled.status.success(), "{enrolled:?}");
        }
        let gate = site.start();
        let [ecdsa, rsa] = ["device-1", "device-2"].map(|id| Device::certified(&site, id));
        Some(Self { site, tpm, gate, ecdsa, rsa })
    }

    /// The refusal of a quote over these PCRs, with the key of one device and the qualifying data of another.
    fn refused(&self, device: &Device, key: &str, pcrs: &[u8], named: &str) -> (u16, String, Value) {
        refused(device, &self.gate, |nonce| self.tpm.quote(key, pcrs, &qualifying(nonce, named)))
    }

    /// The refusal of changed evidence.
    fn refused_change(&self, change: &dyn Fn(&mut Value)) -> (u16, String, Value) {
        refused(&self.ecdsa, &self.gate, |nonce| {
            let mut evidence = self.tpm.quote("device-1", &[0, 7], &qualifying(nonce, "device-1"));
            change(&mut evidence);
            evidence
        })
    }
}

#[test]
fn accepts_quotes_of_enrolled_keys() {
    let Some(TpmSite { tpm, gate, ecdsa, rsa, .. }) = &TpmSite::new() else { return };
    let (name, image) = target("stable/releases/os/1.2.0/os.img", "1.2.0");
    for device in [ecdsa, rsa] {
        let answer = device
            .grant(gate, &["stable.canary"], |nonce| tpm.quote(&device.id, &[0, 7], &qualifying(nonce, &device.id)));
        assert_eq!(answer.status, 200, "{answer:?}");
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        assert_eq!(device.get(gate, &name, &token).body, image.as_bytes());
    }
    // The quote may contain more PCRs than the policy.
    let quote = |nonce: &str| tpm.quote("device-1", &[0, 1, 7, 23], &qualifying(nonce, "device-1"));
    assert_eq!(refused(ecdsa, gate, quote).0, 200);
}

#[test]
fn refuses_wrong_quotes() {
    let Some(tpm_site) = TpmSite::new() else { return };
    // A device without an attestation key, and devices that use each other's.
    let unknown = Device::certified(&tpm_site.site, "device-3");
    let (_, rule, missing) = tpm_site.refused(&unknown, "device-1", &[0, 7], "device-3");
    assert_eq!((rule.as_str(), missing), ("G-ATT-03", json!(["enrolled attestation key"])));
    for (device, key) in [(&tpm_site.rsa, "device-1"), (&tpm_site.ecdsa, "device-2")] {
        let (_, rule, missing) = tpm_site.refused(device, key, &[0, 7], &device.id);
        assert_eq!((rule.as_str(), missing), ("G-ATT-04", json!(["tpm2 quote"])));
    }
    // Another nonce; another device id.
    let old = tpm_site.ecdsa.nonce(&tpm_site.gate);
    let quote = |_: &str| tpm_site.tpm.quote("device-1", &[0, 7], &qualifying(&old, "device-1"));
    assert_eq!(refused(&tpm_site.ecdsa, &tpm_site.gate, quote).1, "G-ATT-04");
    assert_eq!(tpm_site.refused(&tpm_site.ecdsa, "device-1", &[0, 7], "device-2").1, "G-ATT-04");
    // Another gate passes on a quote that was made for it.
    let quote = |nonce: &str| tpm_site.tpm.quote("device-1", &[0, 7], &qualifying_for("other", nonce, "device-1"));
    assert_eq!(refused(&tpm_site.ecdsa, &tpm_site.gate, quote).1, "G-ATT-04");
    // A PCR of the policy is missing in the quote.
    let (_, rule, missing) = tpm_site.refused(&tpm_site.ecdsa, "device-1", &[0], "device-1");
    assert_eq!((rule.as_str(), missing), ("G-ATT-12", json!(["pcr sha256:7"])));
    // Changed, missing and additional PCR values; damaged structures.
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
        let (status, rule, _) = tpm_site.refused_change(change);
        assert_eq!((status, rule.as_str()), (403, "G-ATT-04"));
    }
}

/// After a change of the boot chain the refusal names the PCR, and the previous value does not help.
#[test]
fn refuses_changed_pcrs() {
    let Some(tpm_site) = TpmSite::new() else { return };
    let golden = tpm_site.tpm.read(7);
    assert_eq!(tpm_site.refused(&tpm_site.ecdsa, "device-1", &[0, 7], "device-1").0, 200);
    tpm_site.tpm.extend(7, "bb");
    let (status, rule, missing) = tpm_site.refused(&tpm_site.ecdsa, "device-1", &[0, 7], "device-1");
    assert_eq!((status, rule.as_str(), missing), (403, "G-ATT-12", json!(["pcr sha256:7"])));
    assert_eq!(tpm_site.refused_change(&|e| e["pcrs"]["sha256:7"] = json!(golden)).1, "G-ATT-04");
    let audit = tpm_site.gate.audit();
    assert!(audit.contains("\"rule\":\"G-ATT-12\"") && audit.contains("\"missing\":[\"pcr sha256:7\"]"), "{audit}");
}
