//! A site with a gate: settings, authorities, devices, storage; and the running program.

pub mod device;
pub mod wire;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use sha2::{Digest as _, Sha256};

/// Part of every protected object, and of nothing else.
pub const MARK: &str = "TIDE-IN-THE-GATE";

/// The settings of most tests.
pub const COHORTS: &str = r#"
[cohorts."stable.canary"]
least = "none"
[cohorts."stable.lab"]
least = "affirming"
evidence = ["ear"]
max_age = "10m"
claims = { "submods.os.build" = ["release", "debug"] }
[verifiers.acme]
jwks = "acme.json"
algorithms = ["ES256"]
issuer = "https://verifier.example.com"
"#;

/// Limits under `[limits]` that no test reaches.
pub const HIGH_LIMITS: &str = "per_device_per_minute = 1000000\ndevice_burst = 1000000\nper_address_per_minute = 1000000\n\
                               handshakes_per_address_per_minute = 1000000\nreceipts_per_device_per_day = 1000000\n\
                               receipt_bytes_per_device_per_day = 1000000000\nreceipts_per_device = 1000000\n";

pub struct TestSite {
    pub dir: tempfile::TempDir,
    pub ca: CertifiedIssuer<'static, KeyPair>,
    /// An authority that the gate does not trust.
    pub untrusted_ca: CertifiedIssuer<'static, KeyPair>,
    pub server_ca: CertifiedIssuer<'static, KeyPair>,
}

/// The running program, which stops when dropped.
pub struct RunningGate {
    pub address: SocketAddr,
    pub local: Option<SocketAddr>,
    child: Child,
    pub audit: PathBuf,
    pub events: Arc<Mutex<String>>,
}

impl TestSite {
    /// Creates a site with mutual TLS.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [ca, untrusted_ca, server_ca] = ["devices", "strangers", "servers"].map(authority);
        let site = Self { dir, ca, untrusted_ca, server_ca };
        site.write("device-ca.pem", &site.ca.pem());
        site.renew_certificate();
        site.write("acme.json", r#"{"keys": [{"kty": "EC", "crv": "P-256", "kid": "none", "x": "AA", "y": "AA"}]}"#);
        site.write_objects();
        site.publish(1, &"ab".repeat(32));
        site
    }

    /// Publishes the metadata of the channel `stable` with one release, 1.2.0, which has this manifest.
    pub fn publish(&self, version: u32, manifest: &str) {
        let role = |name: &str, signed: serde_json::Value| {
            let text = serde_json::json!({"signatures": [], "signed": signed}).to_string();
            self.write(&format!("public/metadata/{name}.json"), &text);
        };
        let target = serde_json::json!({"length": 1, "hashes": {"sha256": manifest}});
        let targets = serde_json::json!({"stable/releases/os/1.2.0/manifest.json": target, "stable/cohorts.json": {}});
        role(&format!("{version}.stable"), serde_json::json!({"targets": targets}));
        let meta = serde_json::json!({"targets.json": {"version": 1}, "stable.json": {"version": version}, "stable.canary.json": {"version": 9}});
        role(&format!("{version}.snapshot"), serde_json::json!({"meta": meta}));
        role("timestamp", serde_json::json!({"meta": {"snapshot.json": {"version": version}}}));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if name == "server.key" {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// Issues a new certificate for the gate.
    pub fn renew_certificate(&self) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.server_ca).unwrap();
        self.write("server.key", &key.serialize_pem());
        self.write("server.pem", &certificate.pem());
        certificate.der().to_vec()
    }

    /// Writes the publisher's objects.
    fn write_objects(&self) {
        let artifact =
            |channel: &str, version: &str| target(&format!("{channel}/releases/os/{version}/os.img"), version);
        let canary = [
            artifact("stable", "1.2.0"),
            target("stable/cohorts/canary/os.json", "c"),
            target("stable/releases/os/1.2.0+b1/os+x.img", "plus"),
        ];
        let lab = [artifact("stable", "1.3.0")];
        let listed = |cohort: &str, objects: &[(String, String)]| {
            let names: Vec<&String> = objects.iter().map(|(name, _)| name).collect();
            self.write(
                &format!("private/gate/{cohort}.json"),
                &serde_json::json!({"schema": 1, "cohort": cohort, "objects": names}).to_string(),
            );
        };
        listed("stable.canary", &canary);
        listed("stable.lab", &lab);
        let unlisted = [artifact("stable", "9.9.9"), artifact("beta", "1.0.0")];
        listed("beta.canary", &unlisted[1..]);
        for (name, text) in canary.iter().chain(&lab).chain(&unlisted) {
            self.write(&format!("private/{name}"), text);
        }
        for role in ["3.stable.canary", "3.stable.lab", "3.beta.canary", "1.root", "timestamp"] {
            self.write(&format!("private/metadata/{role}.json"), &format!("{{\"{MARK}\": \"{role}\"}}"));
        }
        self.write("private/secret.txt", MARK);
        self.write("outside.txt", MARK);
    }

    /// Writes the settings: mutual TLS, then `more`.
    pub fn write_config(&self, clients: &str, more: &str) {
        let tls = format!(
            "[tls]\ncertificate = \"server.pem\"\nkey = \"server.key\"\ndevice_ca = \"device-ca.pem\"\nclients = \"{clients}\"\nreload = \"1s\"\n"
        );
        self.write("gate.toml", &format!("{}{tls}{more}", Self::head()));
        if !self.path("gate.secret").exists() {
            let made = self.run(&["secret"]);
            assert!(made.status.success(), "{made:?}");
        }
    }

    fn head() -> &'static str {
        "schema = 1\nlisten = \"127.0.0.1:0\"\nlocal = \"127.0.0.1:0\"\nsecret = \"gate.secret\"\nprivate = \"file:private\"\nstate = \"file:state\"\n\
         receipts = \"file:receipts\"\nrepository = \"file:public\"\nenrolments = \"file:enrolments\"\naudit = { file = \"audit.jsonl\" }\nlisting_life = \"1s\"\n"
    }

    /// Runs a command.
    pub fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_tidegate-gate"))
            .arg("--config")
            .arg(self.path("gate.toml"))
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Starts the service.
    pub fn start(&self) -> RunningGate {
        self.start_with_config(&self.path("gate.toml"), &[])
    }

    /// Starts the service with other settings and variables.
    pub fn start_with_config(&self, config: &Path, variables: &[(String, String)]) -> RunningGate {
        self.start_with(config, variables, &[])
    }

    /// Starts the service with other settings, variables and arguments.
    pub fn start_with(&self, config: &Path, variables: &[(String, String)], arguments: &[&str]) -> RunningGate {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate-gate"))
            .arg("--config")
            .arg(config)
            .arg("serve")
            .args(arguments)
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let event = loop {
            let start = log.len();
            let count = lines.read_line(&mut log).unwrap();
            assert!(count > 0, "the gate does not start: {log}");
            let event = serde_json::from_str::<serde_json::Value>(&log[start..]).unwrap_or_default();
            if event["message"] == "listening" {
                break event;
            }
        };
        let events = Arc::new(Mutex::new(log));
        let keep = Arc::clone(&events);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                keep.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let address = |name: &str| event[name].as_str().and_then(|text| text.parse().ok());
        RunningGate {
            address: address("devices").unwrap(),
            local: address("local"),
            child,
            audit: self.path("audit.jsonl"),
            events,
        }
    }

    /// Waits until a condition is met.
    pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
        for _ in 0..300 {
            if so() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("timed out: {what}");
    }
}

impl RunningGate {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The response of the listener for metrics.
    pub fn local(&self, path: &str) -> wire::Response {
        wire::send(
            self.local.unwrap(),
            None,
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap()
    }

    pub fn audit(&self) -> String {
        std::fs::read_to_string(&self.audit).unwrap_or_default()
    }
}

impl Drop for RunningGate {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The name of a target with its hash, and its protected text.
pub fn target(path: &str, text: &str) -> (String, String) {
    let text = format!("{MARK} {text} ").repeat(100);
    let hash = HEXLOWER.encode(&Sha256::digest(&text));
    let (folder, file) = path.rsplit_once('/').unwrap();
    (format!("targets/{folder}/{hash}.{file}"), text)
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = named(name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

/// The parameters of a client certificate: common name and subject alternative names.
pub fn client(common: &str, uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common);
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}
