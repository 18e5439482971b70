//! The device's queue of receipts and the gate: each receipt is stored once, even if either side stops.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use object_store::ObjectStoreExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::signer::Signer as _;
use serde_json::json;
use tidegate_client::clock::SystemClock;
use tidegate_client::command::Command;
use tidegate_client::device::Device;
use tidegate_client::disk::{Disk, Faults};
use tidegate_client::fetch::http::{Answered, Authorities, HttpFetch, HttpOptions, Identity};
use tidegate_client::gate::{GateClient, Signer};
use tidegate_client::key::DeviceKey;
use tidegate_client::receipts::{GateSink, Naming, Post, PutSink, Receipts, Sending, Sent, Sink, Urls};
use tidegate_client::updater::Repository;
use tidegate_model::gate::GateUrl;
use tidegate_model::receipt::{InstallResult, Receipt, SignedReceipt};
use tidegate_model::time;

use crate::redirect::moto;
use crate::support::{COHORTS, RunningGate, TestSite, client, device};

/// A device with a certificate, whose key signs its receipts, and its state folder.
struct ReportingDevice {
    folder: tempfile::TempDir,
    key: DeviceKey,
    http: Arc<HttpFetch>,
}

/// Sends the request and loses the response.
struct LostResponse(Arc<HttpFetch>);

impl Post for LostResponse {
    fn post(&self, gate: &GateUrl, path: &str, body: &[u8]) -> Result<Answered, String> {
        let answered = self.0.post(gate, path, body)?;
        assert_eq!(answered.status, 200, "{answered:?}");
        Err("the connection broke off".into())
    }
}

impl ReportingDevice {
    fn new(site: &TestSite, id: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = client("x", &[&format!("tidegate:device:{id}")]).signed_by(&key, &site.ca).unwrap();
        let pem = key.serialize_pem();
        let options = HttpOptions {
            authorities: Authorities::from_pem(site.server_ca.pem().as_bytes()).unwrap(),
            identity: Some(Identity::from_pem(certificate.pem().as_bytes(), pem.as_bytes()).unwrap()),
            ..HttpOptions::default()
        };
        let http = Arc::new(HttpFetch::with_options(options, Arc::new(SystemClock::new())));
        site.write(&format!("{id}.pem"), &certificate.pem());
        let enrolled = site.run(&["enrol", id, "--key", site.path(&format!("{id}.pem")).to_str().unwrap()]);
        assert!(enrolled.status.success(), "{enrolled:?}");
        Self { folder: tempfile::tempdir().unwrap(), key: DeviceKey::from_pem(pem.as_bytes()).unwrap(), http }
    }

    fn receipt(&self, device: &str, number: u64) -> SignedReceipt {
        let outcomes = [InstallResult::Offered, InstallResult::Installed, InstallResult::Confirmed];
        let receipt = Receipt {
            device: device.parse().unwrap(),
            channel: "stable".parse().unwrap(),
            cohort: "canary".parse().unwrap(),
            product: "os".parse().unwrap(),
            release: "1.2.0".parse().unwrap(),
            sequence: 12 + number / 3,
            manifest: "ab".repeat(32).parse().unwrap(),
            hardware: "board-a".parse().unwrap(),
            outcome: outcomes[usize::try_from(number % 3).unwrap()],
            reason: None,
            at: time::parse("2026-01-05T12:00:00Z").unwrap(),
            from: "1.1.0".parse().unwrap(),
            offers: Vec::new(),
            delivery: None,
        };
        let signature = self.key.sign(&receipt.to_bytes().unwrap());
        receipt.signed(self.key.id().clone(), signature)
    }

    /// Writes the device's state file with these receipts in its queue.
    fn queue(&self, gate: Option<&RunningGate>, receipts: &[SignedReceipt]) {
        let queue: Vec<_> = receipts.iter().map(SignedReceipt::to_value).collect();
        let value = json!({
            "queue": queue, "releases": [], "gate": gate.map(url), "dropped": 0, "refused": 0, "failures": 0, "until": null, "problem": null,
        });
        // Remove the backup of the previous state too.
        let _ = std::fs::remove_dir_all(self.folder.path().join("state"));
        std::fs::create_dir_all(self.folder.path().join("state")).unwrap();
        let form = json!({"schema": 1, "serial": 1, "value": value});
        std::fs::write(self.folder.path().join("state/receipts.json"), form.to_string()).unwrap();
    }

    fn open(&self, disk: Disk) -> Device {
        Device::builder()
            .root("not needed to send receipts")
            .repository(Repository::at("http://127.0.0.1:9").unwrap())
            .state_dir(self.folder.path().join("state"))
            .id("device-1".parse().unwrap())
            .channel("stable".parse().unwrap())
            .product("os".parse().unwrap())
            .hardware("board-a".parse().unwrap())
            .factory("1.0.0".parse().unwrap(), 0)
            .receipts(Receipts { key: self.key.clone(), naming: Naming::Id })
            .disk(disk)
            .open()
            .unwrap()
    }

    fn send(&self, disk: Disk) -> Sent {
        self.send_by(disk, self.http.clone())
    }

    fn send_by(&self, disk: Disk, post: impl Post + Send + 'static) -> Sent {
        self.send_to(disk, &mut GateSink::new(post, None))
    }

    fn send_to(&self, disk: Disk, sink: &mut dyn Sink) -> Sent {
        self.open(disk).send_receipts(sink, Sending { at_once: true, ..Sending::default() }).unwrap()
    }
}

fn url(gate: &RunningGate) -> String {
    format!("https://localhost:{}", gate.address.port())
}

fn site() -> TestSite {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    site
}

/// The stored receipts.
fn kept(site: &TestSite) -> Vec<PathBuf> {
    fn files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }
    files(&site.path("receipts"))
}

#[test]
fn sends_a_queue_in_batches() {
    let site = site();
    let gate = site.start();
    let reporter = ReportingDevice::new(&site, "device-1");
    let receipts: Vec<_> = (0..150).map(|number| reporter.receipt("device-1", number)).collect();
    reporter.queue(Some(&gate), &receipts);
    let sent = reporter.send(Disk::new());
    assert_eq!((sent.sent, sent.waiting, sent.problem), (150, 0, None));
    let kept = kept(&site);
    assert_eq!(kept.len(), 150);
    for signed in &receipts {
        let path = site.path("receipts").join(signed.object_name().unwrap());
        let read = SignedReceipt::parse(&std::fs::read(path).unwrap()).unwrap();
        assert!(read == *signed && read.verify(reporter.key.public()));
    }
    assert_eq!(reporter.send(Disk::new()), Sent::default());
    // Sent in batches.
    assert_eq!(gate.audit().matches("\"route\":\"receipts\",\"status\":200").count(), 3, "{}", gate.audit());
}

/// The device stops at every step between the acknowledgement and the end of its own write.
#[test]
fn stores_receipts_once_when_the_device_stops() {
    let site = site();
    let gate = site.start();
    let reporter = ReportingDevice::new(&site, "device-1");
    let counted = Faults::none();
    reporter.queue(Some(&gate), &[reporter.receipt("device-1", 0)]);
    assert_eq!(reporter.send(Disk::with_faults(counted.clone())).sent, 1);
    assert!(counted.steps() >= 5, "{}", counted.steps());
    for n in 0..counted.steps() {
        let number = 100 + 3 * u64::try_from(n).unwrap();
        let receipts = [0, 1, 2].map(|more| reporter.receipt("device-1", number + more));
        reporter.queue(Some(&gate), &receipts);
        let before = kept(&site).len();
        reporter.send(Disk::with_faults(Faults::stop_at(n)));
        // After its restart the device does not know whether the receipts arrived.
        let sent = reporter.send(Disk::new());
        assert!(sent.waiting == 0 && sent.problem.is_none(), "stopped at {n}: {sent:?}");
        assert_eq!(kept(&site).len(), before + 3, "stopped at {n}");
    }
    // The response is lost.
    let receipts = [0, 1, 2].map(|more| reporter.receipt("device-1", 1000 + more));
    reporter.queue(Some(&gate), &receipts);
    let before = kept(&site).len();
    let sent = reporter.send_by(Disk::new(), LostResponse(reporter.http.clone()));
    assert_eq!((sent.sent, sent.waiting, sent.problem.as_deref()), (0, 3, Some("the connection broke off")));
    assert_eq!(reporter.send(Disk::new()).sent, 3);
    assert_eq!(kept(&site).len(), before + 3);
}

/// The gate is killed after an acknowledgement: it has stored the receipts and does not store them twice.
#[test]
fn stores_receipts_once_when_the_gate_stops() {
    let site = site();
    let mut gate = site.start();
    let reporter = ReportingDevice::new(&site, "device-1");
    let receipts: Vec<_> = (0..70).map(|number| reporter.receipt("device-1", number)).collect();
    reporter.queue(Some(&gate), &receipts);
    // The acknowledgement arrives, but the device does not record it.
    reporter.send(Disk::with_faults(Faults::stop_at(0)));
    gate.kill();
    assert_eq!(kept(&site).len(), 64);
    let sent = reporter.send(Disk::new());
    assert_eq!((sent.sent, sent.waiting), (0, 70));
    assert!(sent.problem.unwrap().contains("localhost"));
    let gate = site.start();
    // The gate has another port now, which the device learns from the cohort map.
    reporter.queue(Some(&gate), &receipts);
    let sent = reporter.send(Disk::new());
    assert_eq!((sent.sent, sent.waiting, sent.problem), (70, 0, None));
    assert_eq!(kept(&site).len(), 70);
}

/// The device finds the receipts that the gate refuses and drops only these.
#[test]
fn drops_only_refused_receipts() {
    let site = site();
    let gate = site.start();
    let reporter = ReportingDevice::new(&site, "device-1");
    let mut receipts: Vec<_> = (0..20).map(|number| reporter.receipt("device-1", number)).collect();
    // One receipt is from a previous device id; another has a damaged signature.
    receipts[7] = reporter.receipt("device-2", 7);
    receipts[13].signature.reverse();
    reporter.queue(Some(&gate), &receipts);
    let sent = reporter.send(Disk::new());
    assert_eq!((sent.sent, sent.refused.len(), sent.waiting, sent.problem), (18, 2, 0, None));
    assert!(sent.refused[0].contains("G-REC-04") && sent.refused[1].contains("G-REC-05"), "{:?}", sent.refused);
    assert_eq!(kept(&site).len(), 18);
    assert_eq!(reporter.open(Disk::new()).receipts().unwrap().refused, 2);
}

/// A device that the gate refuses keeps its receipts.
#[test]
fn unidentified_device_keeps_its_receipts() {
    let site = site();
    let gate = site.start();
    let mut reporter = ReportingDevice::new(&site, "device-1");
    let receipts = [reporter.receipt("device-1", 0)];
    let options = HttpOptions {
        authorities: Authorities::from_pem(site.server_ca.pem().as_bytes()).unwrap(),
        ..HttpOptions::default()
    };
    let certified =
        std::mem::replace(&mut reporter.http, Arc::new(HttpFetch::with_options(options, Arc::new(SystemClock::new()))));
    reporter.queue(Some(&gate), &receipts);
    let sent = reporter.send(Disk::new());
    assert_eq!((sent.sent, sent.waiting, sent.refused.len()), (0, 1, 0));
    reporter.http = certified;
    assert_eq!(reporter.send(Disk::new()).sent, 1);
}

/// A device without a certificate identifies itself with its key.
#[test]
fn accepts_receipts_with_an_enrolled_key() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let enrolled = device::Device::enrolled(&site, "device-1");
    let gate = site.start();
    let mut reporter = ReportingDevice::new(&site, "device-1");
    reporter.key = DeviceKey::from_pem(enrolled.key.to_pkcs8_pem(LineEnding::LF).unwrap().as_bytes()).unwrap();
    let options = HttpOptions {
        authorities: Authorities::from_pem(site.server_ca.pem().as_bytes()).unwrap(),
        ..HttpOptions::default()
    };
    let http = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
    let client = GateClient::new(http).signer(Signer::new(reporter.key.clone(), SystemClock::new()));
    let receipts = [0, 1, 2].map(|number| reporter.receipt("device-1", number));
    reporter.queue(Some(&gate), &receipts);
    let sent = reporter.send_by(Disk::new(), client);
    assert_eq!((sent.sent, sent.waiting, sent.problem), (3, 0, None));
    assert_eq!(kept(&site).len(), 3);
}

/// Without a gate: presigned URLs of a real S3 server, each for creating one object.
#[test]
fn stores_receipts_once_by_presigned_urls() {
    let Some(moto) = moto() else { return };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let store = AmazonS3Builder::new().with_endpoint(&moto.1).with_bucket_name("fleet").with_region("us-east-1");
    let store = store.with_access_key_id("test").with_secret_access_key("test").with_allow_http(true).build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let site = site();
    let reporter = ReportingDevice::new(&site, "device-1");
    let receipts: Vec<_> = (0..5).map(|number| reporter.receipt("device-1", number)).collect();
    // A service that signs URLs for devices.
    let urls = receipts.iter().map(|signed| {
        let name = signed.object_name().unwrap();
        let key = format!("told/{name}").into();
        let url = store.signed_url(reqwest::Method::PUT, &key, std::time::Duration::from_secs(600));
        format!("{name} {}\n", runtime.block_on(url).unwrap())
    });
    std::fs::write(reporter.folder.path().join("urls"), urls.collect::<String>()).unwrap();
    let script = format!("grep -F \"$1 \" '{}' | cut -d ' ' -f 2", reporter.folder.path().join("urls").display());
    let program = Command::new(["sh", "-c", &script, "url"].map(str::to_owned), std::time::Duration::from_secs(20));
    let deliver = |disk| {
        let mut sink = PutSink::new(HttpFetch::new(), Urls::Program(program.clone())).unwrap();
        reporter.send_to(disk, &mut sink)
    };
    reporter.queue(None, &receipts);
    // Two receipts are stored; the device does not record the second one.
    let counted = Faults::none();
    reporter.queue(None, &receipts[..1]);
    assert_eq!(deliver(Disk::with_faults(counted.clone())).sent, 1);
    reporter.queue(None, &receipts);
    deliver(Disk::with_faults(Faults::stop_at(counted.steps())));
    assert_eq!(reporter.open(Disk::new()).waiting_receipts().len(), 4);
    let sent = deliver(Disk::new());
    assert_eq!((sent.sent, sent.waiting, sent.problem), (4, 0, None));
    for signed in &receipts {
        let key = format!("told/{}", signed.object_name().unwrap()).into();
        let bytes = runtime.block_on(async { store.get(&key).await.unwrap().bytes().await.unwrap() });
        assert!(SignedReceipt::parse(&bytes).unwrap() == *signed);
    }
    // If the URL does not work, all receipts stay in the queue, and the error does not contain the signature.
    let false_url = format!("echo '{}/fleet/told/x.json?X-Amz-Signature=0123'", moto.1);
    let program = Command::new(["sh", "-c", &false_url, "url"].map(str::to_owned), std::time::Duration::from_secs(20));
    reporter.queue(None, &receipts);
    let mut gone = PutSink::new(HttpFetch::new(), Urls::Program(program)).unwrap();
    std::mem::drop(moto);
    let sent = reporter.send_to(Disk::new(), &mut gone);
    assert_eq!((sent.sent, sent.waiting), (0, 5));
    assert!(!sent.problem.unwrap().contains("X-Amz"));
}
