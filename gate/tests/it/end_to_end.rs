//! A device's whole way: the client's own `Device` in a protected cohort, from evidence to an installed release, through the gate as it is run.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
use tidegate_client::{Error, Fault};
use tidegate_model::decision::Outcome;

use crate::fleet::{self, IMAGE};
use crate::redirect::{Moto, moto};
use crate::simulator::{Simulator, epoch};
use crate::support::{COHORTS, House, Running, client, device};
use crate::tpm::Tpm;

const CANARY: &[(&str, Option<u32>)] = &[("canary", Some(1_000_000))];

/// A house with a running gate, and a repository whose one cohort is protected by it.
struct Site {
    house: House,
    gate: RefCell<Running>,
    /// As the cohort map names the gate.
    url: String,
    sim: RefCell<Simulator>,
}

impl Site {
    fn new(house: House, variables: &[(String, String)]) -> Self {
        let gate = house.serve_as(&house.path("gate.toml"), variables);
        let is_secure = std::fs::read_to_string(house.path("gate.toml")).unwrap().contains("[tls]");
        let (scheme, host) = if is_secure { ("https", "localhost") } else { ("http", "127.0.0.1") };
        let url = format!("{scheme}://{host}:{}", gate.address.port());
        let mut sim = fleet::channel(CANARY);
        fleet::set_protected_cohorts(&mut sim, CANARY, &[("canary", &url)]);
        sim.publish(&["stable", "snapshot", "timestamp"]);
        Self { house, gate: RefCell::new(gate), url, sim: RefCell::new(sim) }
    }

    /// Gives the cohort a release that is private, as a publisher does: what is protected lies behind the gate, and is listed for it.
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
        self.house.write("private/gate/stable.canary.json", &listing);
        for (path, bytes) in &sim.files {
            let path = self.house.path(if is_private(path) { "private" } else { "public" }).join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        // Longer than the gate remembers a listing.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }

    fn state(&self, id: &str) -> PathBuf {
        self.house.path(&format!("state-of-{id}"))
    }

    fn slot(&self, id: &str) -> PathBuf {
        self.house.path(&format!("slot-of-{id}"))
    }

    fn device(&self, id: &str, http: &Arc<HttpFetch>, gate: GateClient) -> DeviceBuilder {
        Device::builder()
            .root(self.sim.borrow().root(1))
            .repository(Repository::at(&url_of(&self.house.path("public")).unwrap()))
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

    /// A device with a certificate by the house's authority, and nothing to show of its state.
    fn certified(&self, id: &str) -> Device {
        let http = http(&self.house, Some(identity(&self.house, id)));
        self.device(id, &http, GateClient::new(http.clone())).open().unwrap()
    }

    /// A device with a key, which is enrolled or not.
    fn keyed(&self, id: &str, key: &device::Device) -> Device {
        let http = http(&self.house, None);
        let gate = GateClient::new(http.clone()).signer(signer(key));
        self.device(id, &http, gate).open().unwrap()
    }

    /// The lines of the gate's audit for a route, with a status.
    fn audited(&self, route: &str, status: u16) -> Vec<String> {
        let audit = self.gate.borrow().audit();
        let line = format!("\"route\":\"{route}\",\"status\":{status}");
        audit.lines().filter(|text| text.contains(&line)).map(str::to_owned).collect()
    }

    /// Kills the gate and starts it again where it was, perhaps with another secret.
    fn restart(&self, new_secret: bool) {
        self.gate.borrow_mut().kill();
        let settings = std::fs::read_to_string(self.house.path("gate.toml")).unwrap();
        let port = self.gate.borrow().address.port();
        self.house.write(
            "gate.toml",
            &settings.replace("listen = \"127.0.0.1:0\"", &format!("listen = \"127.0.0.1:{port}\"")),
        );
        if new_secret {
            std::fs::remove_file(self.house.path("gate.secret")).unwrap();
            assert!(self.house.run(&["secret"]).status.success());
        }
        *self.gate.borrow_mut() = self.house.serve();
    }
}

fn http(house: &House, identity: Option<Identity>) -> Arc<HttpFetch> {
    let authorities = Authorities::from_pem(house.server_ca.pem().as_bytes()).unwrap();
    let options = HttpOptions { authorities, identity, proxy: Proxy::None, ..HttpOptions::default() };
    Arc::new(HttpFetch::with_options(options, Arc::new(SystemClock::new())))
}

fn identity(house: &House, id: &str) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = client("x", &[&format!("tidegate:device:{id}")]).signed_by(&key, &house.ca).unwrap();
    Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
}

fn signer(device: &device::Device) -> Signer {
    let pem = device.key.to_pkcs8_pem(LineEnding::LF).unwrap();
    Signer::new(DeviceKey::from_pem(pem.as_bytes()).unwrap(), SystemClock::new())
}

fn installs(device: &mut Device) -> String {
    let check = device.check().unwrap();
    let update = check.update.unwrap_or_else(|| panic!("{}", check.explanation));
    let downloaded = device.download(&update, &mut |_, _| ()).unwrap();
    device.install(&downloaded).unwrap().release.version.to_string()
}

/// Why the device keeps what it has.
fn kept(device: &mut Device) -> String {
    let check = device.check().unwrap();
    match check.outcome() {
        Outcome::NoOffer { why } => why.clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn from_a_quote_of_its_tpm_to_an_installed_release_and_a_changed_register_is_refused() {
    let house = House::new();
    let Some(tpm) = Tpm::start(house.path("tpm")) else { return };
    tpm.extend(7, "aa");
    crate::tpm::settle(&house, &tpm.read(7));
    let pem = tpm.make_key("device-1", "ecdsa");
    assert!(house.run(&["enrol", "device-1", "--ak", &pem]).status.success());
    tpm.tool("tpm2_evictcontrol -Q -C o -c device-1.ctx 0x81010002");
    tpm.tool("tpm2_flushcontext -Q -t");
    let site = Site::new(house, &[]);
    site.release("1.2.0", 12, IMAGE);

    let attesting = |key: &str, pcrs: &[u8]| {
        let options = TpmOptions {
            key: key.into(),
            auth: None,
            tcti: Some(tpm.tcti()),
            bank: Bank::Sha256,
            pcrs: pcrs.iter().copied().collect::<BTreeSet<u8>>(),
            program: None,
        };
        let http = http(&site.house, Some(identity(&site.house, "device-1")));
        let attestor = TpmAttestor::new(options, site.house.dir.path()).unwrap();
        site.device("device-1", &http, GateClient::new(http.clone()).attestor(attestor)).open().unwrap()
    };
    let mut device = attesting("0x81010002", &[0, 7]);
    assert_eq!(installs(&mut device), "1.2.0");
    assert_eq!(std::fs::read(site.slot("device-1")).unwrap(), IMAGE);
    // One challenge, one grant, and only what is kept for the cohort.
    assert_eq!((site.audited("challenge", 200).len(), site.audited("grant", 200).len()), (1, 1));
    let given = site.audited("repo", 200);
    let expected = ["metadata/2.stable.canary.json", ".manifest.json", ".image.bin"];
    assert!(given.len() == 3 && given.iter().zip(expected).all(|(line, object)| line.contains(object)), "{given:?}");
    assert_eq!(serde_json::to_value(device.status()).unwrap()["device"]["attestation"], "tpm2");
    drop(device);

    // A saved context in the place of a handle, and too few registers.
    site.release("1.3.0", 13, IMAGE);
    let context = tpm.dir.join("device-1.ctx");
    let why = kept(&mut attesting(context.to_str().unwrap(), &[0]));
    tpm.tool("tpm2_flushcontext -Q -t");
    assert!(why.contains("missing: pcr sha256:7"), "{why}");
    assert_eq!(installs(&mut attesting(context.to_str().unwrap(), &[0, 7])), "1.3.0");
    tpm.tool("tpm2_flushcontext -Q -t");

    // What boots changes. The decision names it, and the device keeps what it has.
    site.release("1.4.0", 14, IMAGE);
    tpm.extend(7, "bb");
    let mut device = attesting("0x81010002", &[0, 7]);
    let why = kept(&mut device);
    let expected = format!(
        "cohort canary is protected, and its gate {} does not let this device in: the device's state does not satisfy the PCR policy of stable.canary: \
         pcr sha256:7 (G-ATT-12); missing: pcr sha256:7",
        site.url
    );
    assert_eq!(why, expected);
    assert_eq!(device.status().installed.unwrap().release.version.to_string(), "1.3.0");
    drop(device);
    // A TPM that is not there is the device's own fault.
    let error = attesting("0x81010099", &[0, 7]).check().unwrap_err();
    assert_eq!(error.fault(), Fault::Device, "{error}");
    assert!(error.to_string().contains("no evidence for this gate: tpm2_quote"), "{error}");
    // And without an attestor.
    let why = kept(&mut site.certified("device-1"));
    assert!(
        why.ends_with("stable.canary requires tpm2 quote, not no evidence (G-ATT-05); missing: tpm2 quote"),
        "{why}"
    );
}

#[test]
fn a_device_is_known_by_its_certificate_or_its_key_and_strangers_keep_what_they_have() {
    let house = House::new();
    house.settle("optional", COHORTS);
    let site = Site::new(house, &[]);
    site.release("1.2.0", 12, IMAGE);
    assert_eq!(installs(&mut site.certified("device-1")), "1.2.0");
    let key = device::Device::enrolled(&site.house, "device-2");
    assert_eq!(installs(&mut site.keyed("device-2", &key)), "1.2.0");
    // Nobody; a key that is not enrolled; another's key; one that is disabled.
    let http = http(&site.house, None);
    let mut nobody = site.device("device-3", &http, GateClient::new(http.clone())).open().unwrap();
    let stranger = device::Device::stranger(&site.house);
    let mut strange = site.keyed("device-4", &stranger);
    let mut posing = site.keyed("device-5", &key);
    assert!(kept(&mut nobody).contains(
        "the device must identify itself with a client certificate or a single header Tidegate-Proof (G-ID-02)"
    ));
    assert!(kept(&mut strange).contains("G-ID-04"));
    assert!(kept(&mut posing).contains("G-ID-07"));
    assert!(site.house.run(&["enrol", "device-2", "--disable"]).status.success());
    site.release("1.3.0", 13, IMAGE);
    // So that it knows that at once.
    site.restart(false);
    let mut disabled = site.keyed("device-2", &key);
    assert!(kept(&mut disabled).contains("this device is disabled (G-ID-08)"));
    assert_eq!(disabled.status().installed.unwrap().release.version.to_string(), "1.2.0");
}

#[test]
fn a_gate_that_dies_in_the_middle_and_comes_back_with_another_secret_costs_no_byte_twice() {
    let house = House::new();
    // Grants that end while they are used.
    house.settle("required", "[cohorts.\"stable.canary\"]\nleast = \"none\"\ntoken = \"1s\"\n");
    let site = Site::new(house, &[]);
    let image: Vec<u8> = (0..16_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    site.release("1.2.0", 12, &image);
    let mut device = site.certified("device-1");
    let update = device.check().unwrap().update.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1300));
    let mut here = 0;
    let error = device.download(&update, &mut |_, progress| {
        if here == 0 {
            site.gate.borrow_mut().kill();
        }
        here = progress.done;
    });
    let error = error.unwrap_err();
    assert_eq!(error.fault(), Fault::Network, "{error}");
    assert!(here > 0 && here < image.len() as u64, "{here}");
    // More, where this machine is slow.
    assert!(site.audited("grant", 200).len() >= 2, "the first one had ended");
    // It is gone, for those who come first as well.
    let mut other = site.certified("device-2");
    assert_eq!(other.check().unwrap_err().fault(), Fault::Network);
    assert!(other.status().installed.is_none());

    site.restart(true);
    let mut first = None;
    let downloaded = device.download(&update, &mut |_, progress| {
        first.get_or_insert(progress.done);
    });
    assert!(first.unwrap() > here, "it goes on where it was");
    device.install(&downloaded.unwrap()).unwrap();
    assert_eq!(std::fs::read(site.slot("device-1")).unwrap(), image);
    assert_eq!(installs(&mut other), "1.2.0");
}

/// The gate's machine is someone else's now: it gives what it likes.
#[test]
fn what_a_stolen_gate_gives_is_refused() {
    let house = House::new();
    house.settle("required", COHORTS);
    let site = Site::new(house, &[]);
    site.release("1.2.0", 12, IMAGE);
    let role = site.house.path("private/metadata/2.stable.canary.json");
    let (honest, before) = (
        std::fs::read(&role).unwrap(),
        std::fs::read(site.house.path("private/metadata/1.stable.canary.json")).unwrap(),
    );
    let image = find(&site.house.path("private/targets/stable/releases"), "image.bin");
    for (case, file, bytes) in [
        ("an older role", &role, before),
        ("no role", &role, b"{}".to_vec()),
        ("a long role", &role, vec![b' '; 9_000_000]),
        ("another image", &image, vec![b'x'; IMAGE.len()]),
        ("a long image", &image, vec![b'x'; 1_000_000]),
    ] {
        let good = std::fs::read(file).unwrap();
        std::fs::write(file, bytes).unwrap();
        let mut device = site.certified("device-1");
        let tried = device.check().and_then(|check| device.download(&check.update.unwrap(), &mut |_, _| ()).map(drop));
        let error = tried.unwrap_err();
        assert_eq!(error.fault(), Fault::Peer, "{case}: {error}");
        assert!(!site.slot("device-1").exists(), "{case}");
        std::fs::write(file, good).unwrap();
    }
    assert_eq!(std::fs::read(&role).unwrap(), honest);
    assert_eq!(installs(&mut site.certified("device-1")), "1.2.0");
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
fn presigned_urls_are_followed_without_what_shows_who_asks() {
    let Some(moto) = moto() else { return };
    let store = Recorder::before(&moto);
    // On this machine and without TLS, so that this store without TLS is one that a device may be sent to.
    let (house, key, variables) = in_buckets(&store.address, false);
    let site = Site::new(house, &variables);
    site.release("1.2.0", 12, IMAGE);
    upload(&site, &moto);
    assert_eq!(installs(&mut site.keyed("device-1", &key)), "1.2.0");
    assert_eq!(std::fs::read(site.slot("device-1")).unwrap(), IMAGE);
    assert_eq!(site.audited("repo", 307).len(), 3);
    let asked = store.presigned();
    assert_eq!(asked.len(), 3, "{asked:?}");
    for head in asked {
        let head = head.to_ascii_lowercase();
        assert!(head.contains("user-agent: tidegate-device"), "{head}");
        assert!(
            !head.contains("authorization:") && !head.contains("tidegate-proof") && !head.contains("bearer"),
            "{head}"
        );
    }

    // A gate that is reached by TLS may send nobody where there is none.
    let (house, key, variables) = in_buckets(&store.address, true);
    let site = Site::new(house, &variables);
    site.release("1.2.0", 12, IMAGE);
    let error = site.keyed("device-1", &key).check().unwrap_err();
    assert!(
        matches!(&error, Error::Fetch(FetchError::Redirect { rule, .. }) if rule.contains("https alone")),
        "{error}"
    );
    assert!(!error.to_string().contains("X-Amz"), "{error}");
    assert!(store.presigned().is_empty());
}

/// A house whose private place is a bucket, and a device that is enrolled there by its key.
fn in_buckets(endpoint: &str, is_secure: bool) -> (House, device::Device, Vec<(String, String)>) {
    let house = House::new();
    house.settle("optional", COHORTS);
    let mut settings = std::fs::read_to_string(house.path("gate.toml")).unwrap();
    settings = settings.replace("\"file:private\"", "\"s3://fleet/private\"");
    if !is_secure {
        let (before, rest) = settings.split_once("[tls]").unwrap();
        settings = before.to_owned() + rest.split_once("reload = \"1s\"\n").unwrap().1;
    }
    house.write("gate.toml", &settings);
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let key = device::Device::enrolled(&house, "device-1");
    (house, key, variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

/// Puts into the bucket what lies in the folder.
fn upload(site: &Site, moto: &Moto) {
    use object_store::aws::AmazonS3Builder;
    use object_store::{ObjectStoreExt as _, PutPayload};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = AmazonS3Builder::new().with_endpoint(&moto.1).with_bucket_name("fleet").with_region("us-east-1");
    let store = store.with_access_key_id("test").with_secret_access_key("test").with_allow_http(true).build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let private = site.house.path("private");
    let listing = std::fs::read_to_string(private.join("gate/stable.canary.json")).unwrap();
    let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
    let listed = listing["objects"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    for name in listed.chain(["gate/stable.canary.json"]) {
        let bytes = std::fs::read(private.join(name)).unwrap();
        runtime.block_on(store.put(&format!("private/{name}").into(), PutPayload::from(bytes))).unwrap();
    }
}

/// Stands before a server and remembers what it was asked.
struct Recorder {
    address: String,
    heard: Arc<std::sync::Mutex<Vec<Vec<u8>>>>,
}

impl Recorder {
    fn before(moto: &Moto) -> Self {
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

    /// The heads of the requests by presigned URLs since the last call.
    fn presigned(&self) -> Vec<String> {
        let heard: Vec<Vec<u8>> = self.heard.lock().unwrap().iter_mut().map(std::mem::take).collect();
        let texts = heard.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let heads = texts.flat_map(|text| text.split("\r\n\r\n").map(str::to_owned).collect::<Vec<_>>());
        heads.filter(|head| head.lines().next().is_some_and(|line| line.contains("X-Amz-Signature="))).collect()
    }
}
