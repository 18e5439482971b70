//! The client's own `Device` in a protected cohort, from evidence to an installed release, with the gate as a separate program.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use serde_json::json;
use tidegate_client::clock::{StubClock, SystemClock};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::fetch::file::url_of;
use tidegate_client::fetch::http::{Authorities, HttpFetch, HttpOptions, Identity, Proxy};
use tidegate_client::fetch::{AnyFetch, FetchError};
use tidegate_client::gate::{Bank, GateClient, Signer, TpmAttestor, TpmOptions};
use tidegate_client::install::FileSlot;
use tidegate_client::key::DeviceKey;
use tidegate_client::updater::Repository;
use tidegate_client::watch::unwatched;
use tidegate_client::{Error, Fault};
use tidegate_model::decision::Outcome;

use crate::fleet::{self, IMAGE};
use crate::redirect::{Moto, moto};
use crate::simulator::{Simulator, epoch};
use crate::support::{COHORTS, RunningGate, TestSite, client, device};
use crate::tpm::Tpm;

const CANARY: &[(&str, Option<u32>)] = &[("canary", Some(1_000_000))];

/// A running gate, and a repository with one cohort that it protects.
struct ProtectedRepository {
    site: TestSite,
    gate: RefCell<RunningGate>,
    /// The URL of the gate in the cohort map.
    url: String,
    sim: RefCell<Simulator>,
}

impl ProtectedRepository {
    fn new(site: TestSite, variables: &[(String, String)]) -> Self {
        let gate = site.start_with_config(&site.path("gate.toml"), variables);
        let is_secure = std::fs::read_to_string(site.path("gate.toml")).unwrap().contains("[tls]");
        let (scheme, host) = if is_secure { ("https", "localhost") } else { ("http", "127.0.0.1") };
        let url = format!("{scheme}://{host}:{}", gate.address.port());
        let mut sim = fleet::channel(CANARY);
        fleet::set_protected_cohorts(&mut sim, CANARY, &[("canary", &url)]);
        sim.publish(&["stable", "snapshot", "timestamp"]);
        Self { site, gate: RefCell::new(gate), url, sim: RefCell::new(sim) }
    }

    /// Publishes a private release for the cohort: the objects and their listing are behind the gate.
    fn release(&self, version: &str, sequence: u64, image: &[u8]) {
        let mut sim = self.sim.borrow_mut();
        let bytes = fleet::approve_image(&mut sim, &fleet::manifest_of(version, sequence, image), image);
        fleet::assign(&mut sim, "canary", &bytes, &json!({"private": true}));
        sim.publish(&["stable.canary", "stable", "snapshot", "timestamp"]);
        let is_private = |path: &str| {
            path.ends_with(".stable.canary.json") || path.contains("/releases/") || path.contains("/cohorts/canary/")
        };
        let listed: Vec<&String> = sim.files.keys().filter(|path| is_private(path)).collect();
        let listing = json!({"schema": 1, "cohort": "stable.canary", "objects": listed}).to_string();
        self.site.write("private/gate/stable.canary.json", &listing);
        for (path, bytes) in &sim.files {
            let path = self.site.path(if is_private(path) { "private" } else { "public" }).join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        // Longer than the gate caches a listing.
        std::thread::sleep(Duration::from_millis(1100));
    }

    fn state(&self, id: &str) -> PathBuf {
        self.site.path(&format!("state-of-{id}"))
    }

    fn slot(&self, id: &str) -> PathBuf {
        self.site.path(&format!("slot-of-{id}"))
    }

    fn device(&self, id: &str, http: &Arc<HttpFetch>, gate: GateClient) -> DeviceBuilder {
        Device::builder()
            .root(self.sim.borrow().root(1))
            .repository(Repository::at(&url_of(&self.site.path("public")).unwrap()).unwrap())
            .state_dir(self.state(id))
            .id(id.parse().unwrap())
            .channel("stable".parse().unwrap())
            .product("os".parse().unwrap())
            .hardware("board".parse().unwrap())
            .factory("1.0.0".parse().unwrap(), 0)
            .clock(StubClock::at(epoch()))
            .installer(FileSlot::new(self.slot(id)))
            .fetch(AnyFetch::with_http(http.clone()))
            .gate(gate)
    }

    /// A device with a certificate of the site's authority and without evidence.
    fn certified(&self, id: &str) -> Device {
        let http = http(&self.site, Some(identity(&self.site, id)));
        self.device(id, &http, GateClient::new(http.clone())).open().unwrap()
    }

    /// A device with a key, enrolled or not.
    fn keyed(&self, id: &str, key: &device::Device) -> Device {
        let http = http(&self.site, None);
        let gate = GateClient::new(http.clone()).signer(signer(key));
        self.device(id, &http, gate).open().unwrap()
    }

    /// The lines of the audit log for a route and a status, once there are so many or 20 s have passed: a line is written after the
    /// last byte of a response was sent, which may be after the device has read it.
    fn audited(&self, route: &str, status: u16, at_least: usize) -> Vec<String> {
        let line = format!("\"route\":\"{route}\",\"status\":{status}");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let audit = self.gate.borrow().audit();
            let lines: Vec<String> = audit.lines().filter(|text| text.contains(&line)).map(str::to_owned).collect();
            if lines.len() >= at_least || Instant::now() > deadline {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the gate and starts it on the same port, optionally with a new secret.
    fn restart(&self, new_secret: bool) {
        self.gate.borrow_mut().kill();
        let settings = std::fs::read_to_string(self.site.path("gate.toml")).unwrap();
        let port = self.gate.borrow().address.port();
        self.site.write(
            "gate.toml",
            &settings.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"127.0.0.1:{port}\"")),
        );
        if new_secret {
            std::fs::remove_file(self.site.path("gate.secret")).unwrap();
            assert!(self.site.run(&["secret"]).status.success());
        }
        *self.gate.borrow_mut() = self.site.start();
    }
}

fn http(site: &TestSite, identity: Option<Identity>) -> Arc<HttpFetch> {
    let authorities = Authorities::from_pem(site.server_ca.pem().as_bytes()).unwrap();
    let options = HttpOptions { authorities, identity, proxy: Proxy::None, ..HttpOptions::default() };
    Arc::new(HttpFetch::with_options(options, Arc::new(SystemClock::new())))
}

fn identity(site: &TestSite, id: &str) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = client("x", &[&format!("tidegate:device:{id}")]).signed_by(&key, &site.ca).unwrap();
    Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

fn signer(device: &device::Device) -> Signer {
    let pem = device.key.to_pkcs8_pem(LineEnding::LF).unwrap();
    Signer::new(DeviceKey::from_pem(pem.as_bytes()).unwrap(), SystemClock::new())
}

fn installs(device: &mut Device) -> String {
    let check = device.check().unwrap();
    let update = check.update.unwrap_or_else(|| panic!("{}", check.explanation));
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    downloaded.update().release.version.to_string()
}

/// Why the device keeps its installed release.
fn kept(device: &mut Device) -> String {
    let check = device.check().unwrap();
    match check.outcome() {
        Outcome::NoOffer { why } => why.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn installs_with_a_tpm_quote() {
    let site = TestSite::new();
    let Some(tpm) = Tpm::start(site.path("tpm")) else { return };
    tpm.extend(7, "aa");
    crate::tpm::write_config(&site, &tpm.read(7));
    let pem = tpm.make_key("device-1", "ecdsa");
    assert!(site.run(&["enrol", "device-1", "--ak", &pem]).status.success());
    tpm.tool("tpm2_evictcontrol -Q -C o -c device-1.ctx 0x81010002");
    tpm.tool("tpm2_flushcontext -Q -t");
    let repository = ProtectedRepository::new(site, &[]);
    repository.release("1.2.0", 12, IMAGE);

    let attesting = |key: &str, pcrs: &[u8]| {
        let options = TpmOptions {
            key: key.into(),
            auth: None,
            tcti: Some(tpm.tcti()),
            bank: Bank::Sha256,
            pcrs: pcrs.iter().copied().collect::<BTreeSet<u8>>(),
            program: None,
        };
        let http = http(&repository.site, Some(identity(&repository.site, "device-1")));
        let attestor = TpmAttestor::new(options, repository.site.dir.path()).unwrap();
        repository.device("device-1", &http, GateClient::new(http.clone()).attestor(attestor)).open().unwrap()
    };
    let mut device = attesting("0x81010002", &[0, 7]);
    assert_eq!(installs(&mut device), "1.2.0");
    assert_eq!(std::fs::read(repository.slot("device-1")).unwrap(), IMAGE);
    // One challenge, one grant, and only the cohort's objects.
    assert_eq!((repository.audited("challenge", 200, 1).len(), repository.audited("grant", 200, 1).len()), (1, 1));
    let given = repository.audited("repo", 200, 3);
    let expected = ["metadata/2.stable.canary.json", ".manifest.json", ".image.bin"];
    assert!(given.len() == 3 && given.iter().zip(expected).all(|(line, object)| line.contains(object)), "{given:?}");
    assert_eq!(serde_json::to_value(device.status()).unwrap()["device"]["attestation"], "tpm2");
    drop(device);

    // A saved context instead of a handle, and too few PCRs.
    repository.release("1.3.0", 13, IMAGE);
    let context = tpm.dir.join("device-1.ctx");
    let why = kept(&mut attesting(context.to_str().unwrap(), &[0]));
    tpm.tool("tpm2_flushcontext -Q -t");
    assert!(why.contains("missing: pcr sha256:7"), "{why}");
    assert_eq!(installs(&mut attesting(context.to_str().unwrap(), &[0, 7])), "1.3.0");
    tpm.tool("tpm2_flushcontext -Q -t");

    // After a change of the boot chain the decision names the PCR, and the device keeps its release.
    repository.release("1.4.0", 14, IMAGE);
    tpm.extend(7, "bb");
    let mut device = attesting("0x81010002", &[0, 7]);
    let why = kept(&mut device);
    let expected = format!(
        "cohort canary is protected, and its gate {} denied this device access: the device's state does not satisfy the PCR policy of stable.canary: \
         pcr sha256:7 (G-ATT-12); missing: pcr sha256:7",
        repository.url
    );
    assert_eq!(why, expected);
    assert_eq!(device.status().installed.unwrap().release.version.to_string(), "1.3.0");
    drop(device);
    // A missing TPM is a fault of the device.
    let error = attesting("0x81010099", &[0, 7]).check().unwrap_err();
    assert_eq!(error.fault(), Fault::Device, "{error}");
    assert!(error.to_string().contains("no evidence for this gate: tpm2_quote"), "{error}");
    // Without an attestor the gate refuses.
    let why = kept(&mut repository.certified("device-1"));
    assert!(
        why.ends_with("stable.canary requires tpm2 quote, not no evidence (G-ATT-05); missing: tpm2 quote"),
        "{why}"
    );
}

#[test]
fn identifies_devices_by_certificate_or_key() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let repository = ProtectedRepository::new(site, &[]);
    repository.release("1.2.0", 12, IMAGE);
    assert_eq!(installs(&mut repository.certified("device-1")), "1.2.0");
    let key = device::Device::enrolled(&repository.site, "device-2");
    assert_eq!(installs(&mut repository.keyed("device-2", &key)), "1.2.0");
    // No identity; a key that is not enrolled; the key of another device; a disabled device.
    let http = http(&repository.site, None);
    let mut unidentified = repository.device("device-3", &http, GateClient::new(http.clone())).open().unwrap();
    let stranger = device::Device::unidentified(&repository.site);
    let mut strange = repository.keyed("device-4", &stranger);
    let mut posing = repository.keyed("device-5", &key);
    assert!(kept(&mut unidentified).contains(
        "the device must identify itself with a client certificate or a single header Tidegate-Proof (G-ID-02)"
    ));
    assert!(kept(&mut strange).contains("G-ID-04"));
    assert!(kept(&mut posing).contains("G-ID-07"));
    assert!(repository.site.run(&["enrol", "device-2", "--disable"]).status.success());
    repository.release("1.3.0", 13, IMAGE);
    // A restart empties the cache of enrolments.
    repository.restart(false);
    let mut disabled = repository.keyed("device-2", &key);
    assert!(kept(&mut disabled).contains("this device is disabled (G-ID-08)"));
    assert_eq!(disabled.status().installed.unwrap().release.version.to_string(), "1.2.0");
}

#[test]
fn resumes_a_download_after_a_restart() {
    let site = TestSite::new();
    // Grants expire during the download.
    site.write_config("required", "[cohorts.\"stable.canary\"]\nleast = \"none\"\ntoken = \"1s\"\n");
    let repository = ProtectedRepository::new(site, &[]);
    let image: Vec<u8> = (0..16_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    repository.release("1.2.0", 12, &image);
    let mut device = repository.certified("device-1");
    let update = device.check().unwrap().update.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    let mut here = 0;
    let error = device.download(&update, &mut |progress| {
        if here == 0 {
            repository.gate.borrow_mut().kill();
        }
        here = progress.done;
        ControlFlow::Continue(())
    });
    let error = error.unwrap_err();
    assert_eq!(error.fault(), Fault::Network, "{error}");
    assert!(here > 0 && here < image.len() as u64, "{here}");
    // On a slow machine there may be more.
    assert!(repository.audited("grant", 200, 2).len() >= 2, "the first grant has expired");
    // Other devices cannot reach the gate either.
    let mut other = repository.certified("device-2");
    assert_eq!(other.check().unwrap_err().fault(), Fault::Network);
    assert!(other.status().installed.is_none());

    repository.restart(true);
    let mut first = None;
    let downloaded = device.download(&update, &mut |progress| {
        first.get_or_insert(progress.done);
        ControlFlow::Continue(())
    });
    assert!(first.unwrap() > here, "the download resumes");
    device.install(&downloaded.unwrap(), &mut unwatched).unwrap();
    assert_eq!(std::fs::read(repository.slot("device-1")).unwrap(), image);
    assert_eq!(installs(&mut other), "1.2.0");
}

/// An attacker controls the gate and delivers other bytes.
#[test]
fn device_refuses_wrong_bytes() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let repository = ProtectedRepository::new(site, &[]);
    repository.release("1.2.0", 12, IMAGE);
    let role = repository.site.path("private/metadata/2.stable.canary.json");
    let (honest, before) = (
        std::fs::read(&role).unwrap(),
        std::fs::read(repository.site.path("private/metadata/1.stable.canary.json")).unwrap(),
    );
    let image = find(&repository.site.path("private/targets/stable/releases"), "image.bin");
    for (case, file, bytes) in [
        ("an older role", &role, before),
        ("no role", &role, br#"{"signed": {}, "signatures": []}"#.to_vec()),
        ("a long role", &role, vec![b' '; 9_000_000]),
        ("another image", &image, vec![b'x'; IMAGE.len()]),
        ("a long image", &image, vec![b'x'; 1_000_000]),
    ] {
        let good = std::fs::read(file).unwrap();
        std::fs::write(file, bytes).unwrap();
        let mut device = repository.certified("device-1");
        let tried = device.check().and_then(|check| device.download(&check.update.unwrap(), &mut unwatched).map(drop));
        let error = tried.unwrap_err();
        assert_eq!(error.fault(), Fault::Peer, "{case}: {error}");
        assert!(!repository.slot("device-1").exists(), "{case}");
        std::fs::write(file, good).unwrap();
    }
    assert_eq!(std::fs::read(&role).unwrap(), honest);
    assert_eq!(installs(&mut repository.certified("device-1")), "1.2.0");
}

fn find(folder: &Path, ending: &str) -> PathBuf {
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for path in std::fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            match path.to_str() {
                Some(text) if text.ends_with(ending) && path.is_file() => return path,
                _ if path.is_dir() => left.push(path),
                _ => {}
            }
        }
    }
    panic!("no {ending}")
}

#[test]
fn device_sends_no_credentials_to_presigned_urls() {
    let Some(moto) = moto() else { return };
    let store = RecordingProxy::start(&moto);
    // The gate has no TLS either, so it may redirect to a server without TLS.
    let (site, key, variables) = in_buckets(&store.address, false);
    let repository = ProtectedRepository::new(site, &variables);
    repository.release("1.2.0", 12, IMAGE);
    upload(&repository, &moto);
    assert_eq!(installs(&mut repository.keyed("device-1", &key)), "1.2.0");
    assert_eq!(std::fs::read(repository.slot("device-1")).unwrap(), IMAGE);
    assert_eq!(repository.audited("repo", 307, 3).len(), 3);
    let requests = store.presigned();
    assert_eq!(requests.len(), 3, "{requests:?}");
    for head in requests {
        let head = head.to_ascii_lowercase();
        assert!(head.contains("user-agent: tidegate-device"), "{head}");
        assert!(
            !head.contains("authorization:") && !head.contains("tidegate-proof") && !head.contains("bearer"),
            "{head}"
        );
    }

    // A gate with TLS must not redirect to a server without TLS.
    let (site, key, variables) = in_buckets(&store.address, true);
    let repository = ProtectedRepository::new(site, &variables);
    repository.release("1.2.0", 12, IMAGE);
    let error = repository.keyed("device-1", &key).check().unwrap_err();
    assert!(
        matches!(&error, Error::Fetch(FetchError::Redirect { rule, .. }) if rule.contains("https alone")),
        "{error}"
    );
    assert!(!error.to_string().contains("X-Amz"), "{error}");
    assert!(store.presigned().is_empty());
}

/// A site whose protected objects are in a bucket, and a device with an enrolled key.
fn in_buckets(endpoint: &str, is_secure: bool) -> (TestSite, device::Device, Vec<(String, String)>) {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let mut settings = std::fs::read_to_string(site.path("gate.toml")).unwrap();
    settings = settings.replace("\"file:private\"", "\"s3://fleet/private\"");
    if !is_secure {
        let (before, rest) = settings.split_once("[tls]").unwrap();
        settings = before.to_owned() + rest.split_once("reload = \"1s\"\n").unwrap().1;
    }
    site.write("gate.toml", &settings);
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let key = device::Device::enrolled(&site, "device-1");
    (site, key, variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// Uploads the objects from the folder to the bucket.
fn upload(repository: &ProtectedRepository, moto: &Moto) {
    use object_store::aws::AmazonS3Builder;
    use object_store::{ObjectStoreExt as _, PutPayload};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = AmazonS3Builder::new().with_endpoint(&moto.1).with_bucket_name("fleet").with_region("us-east-1");
    let store = store.with_access_key_id("test").with_secret_access_key("test").with_allow_http(true).build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let private = repository.site.path("private");
    let listing = std::fs::read_to_string(private.join("gate/stable.canary.json")).unwrap();
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let listed = listing["objects"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    for name in listed.chain(["gate/stable.canary.json"]) {
        let bytes = std::fs::read(private.join(name)).unwrap();
        runtime.block_on(store.put(&format!("private/{name}").into(), PutPayload::from(bytes))).unwrap();
    }
}

/// A proxy that records requests.
struct RecordingProxy {
    address: String,
    heard: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
}

impl RecordingProxy {
    fn start(moto: &Moto) -> Self {
        use std::io::{Read as _, Write as _};
        use std::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let to = moto.1.strip_prefix("http://").unwrap().to_owned();
        let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut near in listener.incoming().map_while(Result::ok) {
                let mut far = TcpStream::connect(&to).unwrap();
                let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut back_from, &mut back_to);
                    let _ = back_to.shutdown(std::net::Shutdown::Both);
                });
                let all = Arc::clone(&all);
                std::thread::spawn(move || {
                    let index = {
                        let mut all = all.lock().unwrap();
                        all.push(Vec::new());
                        all.len() - 1
                    };
                    let mut buffer = vec![0; 65_536];
                    while let Ok(count) = near.read(&mut buffer) {
                        all.lock().unwrap()[index].extend_from_slice(&buffer[..count]);
                        if count == 0 || far.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = far.shutdown(std::net::Shutdown::Write);
                });
            }
        });
        Self { address, heard }
    }

    /// The heads of requests to presigned URLs since the last call.
    fn presigned(&self) -> Vec<String> {
        let heard: Vec<Vec<u8>> = self.heard.lock().unwrap().iter_mut().map(std::mem::take).collect();
        let texts = heard.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let heads = texts.flat_map(|text| text.split("\r\n\r\n").map(str::to_owned).collect::<Vec<_>>());
        heads.filter(|head| head.lines().next().is_some_and(|line| line.contains("X-Amz-Signature="))).collect()
    }
}
