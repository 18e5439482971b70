//! A device in a protected cohort: what it asks its gate for, and what it makes of what that says. The real gate is in the gate's own tests.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tidegate_client::agent::{Agent, AgentOptions, Next, StubHost};
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::fetch::Refusal;
use tidegate_client::fetch::{Fetch, FetchError, Reply, Request};
use tidegate_client::gate::StubGate;
use tidegate_client::install::StubInstaller;
use tidegate_client::retry::Retry;
use tidegate_client::state::State;
use tidegate_client::watch::unwatched;
use tidegate_client::{Error, Fault};
use tidegate_model::decision::{Outcome, Rule};
use tidegate_model::facts::Facts;
use tidegate_model::gate::Attestation;
use tidegate_tuf::hash::to_hex;

use crate::delivery_files::{made, noise, publish};
use crate::fleet::{self, IMAGE, approve, assign, channel, manifest, release};
use crate::mirror::{Mirror, Trick, scratch};
use crate::simulator::{Simulator, epoch};

pub const GATE: &str = "https://gate.example.com";
const COHORTS: &[(&str, Option<u32>)] = &[("lab", None), ("all", Some(1_000_000))];

/// A repository of which a part is behind a gate.
#[derive(Clone)]
pub struct GatedRepository {
    pub mirror: Mirror,
    gate: StubGate,
    /// The files asked for in the open and through the gate.
    asked: Arc<Mutex<(Vec<String>, Vec<String>)>>,
    /// Whether releases are private.
    private: bool,
}

impl GatedRepository {
    /// Cohort `all` is protected, and assigned what `fill` assigns it.
    fn new(private: bool, fill: impl FnOnce(&mut Simulator)) -> Self {
        let mut sim = channel(COHORTS);
        fleet::set_protected_cohorts(&mut sim, COHORTS, &[("all", GATE)]);
        fill(&mut sim);
        sim.publish(&["stable.all", "stable.lab", "stable", "snapshot", "timestamp"]);
        Self { mirror: Mirror::of(sim), gate: StubGate::new(), asked: Arc::default(), private }
    }

    /// With release 1.2.0.
    pub fn with_release(private: bool) -> Self {
        Self::new(private, |sim| {
            let bytes = approve(sim, &manifest("1.2.0", 12));
            assign(sim, "all", &bytes, &json!({"private": private}));
        })
    }

    pub fn device(&self, state: &Path) -> DeviceBuilder {
        fleet::device(&self.mirror, state, epoch()).fetch(self.clone()).gate(self.gate.clone())
    }

    /// What was asked for since the last call, in the open and through the gate.
    fn take(&self) -> (Vec<String>, Vec<String>) {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Whether a file is kept behind the gate, and for whom. What both powers look at stays public.
    fn owner(&self, file: &str) -> Option<&'static str> {
        let is_private = file.ends_with(".stable.all.json")
            || (self.private && (file.contains("/releases/") || file.contains("/delivery/")));
        is_private.then_some("stable.all")
    }
}

impl Fetch for GatedRepository {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let behind = request.url.strip_prefix(GATE).map(|path| path.strip_prefix("/v1/repo/").unwrap());
        let file = behind.unwrap_or_else(|| request.url.strip_prefix("sim:/").unwrap()).to_owned();
        {
            let mut asked = self.asked.lock().unwrap();
            if behind.is_some() { asked.1.push(file.clone()) } else { asked.0.push(file.clone()) }
        }
        match (behind, self.owner(&file)) {
            (None, Some(_)) => return Ok(Reply::NotFound(String::new())),
            (Some(_), owner) => self.gate.opens(request, owner.unwrap_or("nobody"))?,
            (None, None) => assert!(request.pass.is_none(), "{file}: nobody else learns of the grant"),
        }
        let url = format!("sim:/{file}");
        self.mirror.fetch(&Request { url: &url, ..*request })
    }
}

fn refusal(why: &str, missing: &[&str]) -> Refusal {
    Refusal { rule: "G-ATT-12".into(), why: why.into(), missing: missing.iter().map(ToString::to_string).collect() }
}

fn installs(device: &mut Device) -> String {
    let check = device.check().unwrap();
    let update = check.update.unwrap_or_else(|| panic!("{}", check.explanation));
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    downloaded.update().release.version.to_string()
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    to_hex(&sha2::Sha256::digest(bytes))
}

/// The files of a private release's delivery are private as it is.
#[test]
fn deliveries_of_private_releases_come_through_the_gate() {
    let image = noise(1, 300_000);
    let mut gated = GatedRepository::new(true, |sim| {
        let listed = publish(sim, &made(None, &image), &[]);
        let mut manifest = fleet::manifest_of("1.2.0", 12, &image);
        manifest["artifacts"][0]["delivery"] = listed;
        let bytes = fleet::approve_image(sim, &manifest, &image);
        assign(sim, "all", &bytes, &json!({"private": true}));
    });
    gated.private = true;
    let folder = scratch();
    let slot = folder.path().join("slot");
    let slot_installer = tidegate_client::install::FileSlot::new(&slot);
    let mut device = gated.device(&folder.path().join("state")).installer(slot_installer).open().unwrap();
    let check = device.check().unwrap();
    let update = check.update.unwrap();
    assert_eq!(update.artifacts[0].ways.len(), 2);
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    device.install(&downloaded, &mut unwatched).unwrap();
    assert!(std::fs::read(&slot).unwrap() == image);
    let (open, through) = gated.take();
    let is_of_delivery = |file: &&String| file.contains("/delivery/") || file.contains("image.bin");
    assert_eq!(open.iter().filter(is_of_delivery).count(), 0, "{open:?}");
    let through: Vec<_> = through.iter().filter(is_of_delivery).map(|file| file.rsplit('.').next().unwrap()).collect();
    assert_eq!(through, ["index", "pack", "pack"]);
}

#[test]
fn only_protected_files_use_the_gate() {
    for private in [false, true] {
        let gated = GatedRepository::with_release(private);
        let folder = scratch();
        let installer = StubInstaller::new();
        let mut device = gated.device(folder.path()).installer(installer.clone()).open().unwrap();
        assert_eq!(installs(&mut device), "1.2.0");
        let (open, through) = gated.take();
        let release = |file: &str| format!("targets/stable/releases/os/1.2.0/{file}");
        let image = release(&format!("{}.image.bin", digest(IMAGE)));
        assert_eq!(through.first().unwrap(), "metadata/2.stable.all.json");
        assert!(!open.iter().any(|file| file.contains("stable.all")), "{open:?}");
        assert!(
            open.iter().any(|file| file.ends_with("cohorts.json")) && open.contains(&"metadata/2.stable.json".into())
        );
        if private {
            assert!(through.len() == 3 && through[1].ends_with(".manifest.json") && through[2] == image, "{through:?}");
            assert!(!open.iter().any(|file| file.contains("/releases/")), "{open:?}");
        } else {
            assert_eq!(through.len(), 1, "{through:?}");
            assert!(open.contains(&image), "{open:?}");
        }
        assert_eq!(gated.gate.granted(), ["stable.all"], "one grant for all of it");
        // Nothing changed: nothing is asked of the gate, which may be gone.
        gated.gate.vanish(true);
        drop(device);
        let mut device = gated.device(folder.path()).open().unwrap();
        assert!(matches!(device.check().unwrap().outcome(), Outcome::UpToDate { .. }));
        assert_eq!(gated.take(), (vec!["metadata/2.root.json".into(), "metadata/timestamp.json".into()], vec![]));
    }
}

#[test]
fn bridges_use_the_gate() {
    let gated = GatedRepository::new(true, |sim| {
        let bridge = approve(sim, &{
            let mut bridge = manifest("1.1.9", 10);
            bridge["upgrade_from"] = json!("<1.1.0");
            bridge
        });
        let mut target = manifest("1.2.0", 12);
        target["upgrade_from"] = json!(">=1.1.0");
        let target = approve(sim, &target);
        let bridges = json!([{"release": "1.1.9", "sequence": 10, "sha256": digest(&bridge), "length": bridge.len(), "upgrade_from": "<1.1.0"}]);
        assign(sim, "all", &target, &json!({"private": true, "bridges": bridges}));
    });
    let folder = scratch();
    let mut device = gated.device(folder.path()).installer(StubInstaller::new()).open().unwrap();
    assert_eq!(installs(&mut device), "1.1.9");
    let (open, through) = gated.take();
    assert!(!open.iter().any(|file| file.contains("/releases/")), "{open:?}");
    let bridge: Vec<_> = through.iter().filter(|file| file.contains("/1.1.9/")).collect();
    assert_eq!(bridge.len(), 2, "{through:?}");
    assert_eq!(installs(&mut device), "1.2.0");
}

#[test]
fn a_refusal_is_a_decision() {
    let gated = GatedRepository::with_release(true);
    let folder = scratch();
    gated.gate.refuse(Some(refusal("the device's state is not one that stable.all takes", &["pcr sha256:7"])));
    let mut device = gated.device(folder.path()).open().unwrap();
    let check = device.check().unwrap();
    let Outcome::NoOffer { why } = check.outcome() else { panic!("{}", check.explanation) };
    assert_eq!(
        why,
        "cohort all is protected, and its gate https://gate.example.com denied this device access: the device's state is not one that \
         stable.all takes (G-ATT-12); missing: pcr sha256:7"
    );
    assert!(check.update.is_none() && device.status().installed.is_none());
    assert!(check.explanation.to_string().contains("missing: pcr sha256:7"));
    // What was put right is let in at the next check.
    gated.gate.refuse(None);
    assert!(device.check().unwrap().update.is_some());
    // A grant that does not open what it should.
    let gated = GatedRepository { private: false, ..GatedRepository::with_release(true) };
    let mut device = gated.device(scratch().path()).open().unwrap();
    let check = device.check().unwrap();
    let Outcome::NoOffer { why } = check.outcome() else { panic!("{}", check.explanation) };
    assert!(why.ends_with("the token's cohorts do not open this object (G-TOK)"), "{why}");
}

#[test]
fn a_device_without_gate_settings_keeps_its_release() {
    let gated = GatedRepository::with_release(false);
    let mut device = fleet::device(&gated.mirror, scratch().path(), epoch()).fetch(gated.clone()).open().unwrap();
    let check = device.check().unwrap();
    let Outcome::NoOffer { why } = check.outcome() else { panic!("{}", check.explanation) };
    assert!(why.contains(GATE) && why.contains("no gate settings"), "{why}");
    assert!(gated.take().1.is_empty());
}

#[test]
fn an_unreachable_gate_is_a_network_error() {
    let gated = GatedRepository::with_release(true);
    let folder = scratch();
    gated.gate.vanish(true);
    let mut device = gated.device(folder.path()).installer(StubInstaller::new()).open().unwrap();
    let before = serde_json::to_string(&device.status()).unwrap();
    let error = device.check().unwrap_err();
    assert_eq!(error.fault(), Fault::Network, "{error}");
    assert!(error.to_string().contains(GATE), "{error}");
    assert_eq!(serde_json::to_string(&device.status()).unwrap(), before);
    gated.gate.vanish(false);
    assert_eq!(installs(&mut device), "1.2.0");
}

#[test]
fn public_cohorts_use_no_gate() {
    let gated = GatedRepository::new(true, |sim| {
        release(sim, "lab", "1.3.0", 13);
    });
    let gated = GatedRepository { private: false, ..gated };
    gated.gate.vanish(true);
    let folder = scratch();
    let lab = || Facts::parse(br#"{"group": "lab"}"#).unwrap();
    let mut device = gated.device(folder.path()).facts(lab()).installer(StubInstaller::new()).open().unwrap();
    assert_eq!(installs(&mut device), "1.3.0");
    assert!(gated.take().1.is_empty());
    // Nor does it take with it what it had in a protected one.
    gated.gate.vanish(false);
    assert!(device.explain(Some(Facts::new()), None).is_ok());
    assert_eq!(gated.take().1, ["metadata/2.stable.all.json"]);
    device.check().unwrap();
    assert!(gated.take().1.is_empty());
}

#[test]
fn an_expired_grant_is_renewed_mid_download() {
    let gated = GatedRepository::with_release(true);
    let folder = scratch();
    let at_once = Retry { times: 2, first: Duration::ZERO, longest: Duration::ZERO };
    let mut device = gated.device(folder.path()).installer(StubInstaller::new()).retry(at_once).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    let file = format!("targets/stable/releases/os/1.2.0/{}.image.bin", digest(IMAGE));
    gated.mirror.trick(&file, Trick::Cut(7));
    gated.take();
    let (gate, mirror) = (gated.gate.clone(), gated.mirror.clone());
    let mut seen = Vec::new();
    let downloaded = device.download(&update, &mut |progress| {
        seen.push(progress.done);
        // While the first part comes, the grant ends.
        gate.expire();
        mirror.behave();
        ControlFlow::Continue(())
    });
    let downloaded = downloaded.unwrap();
    assert_eq!(seen, [7, IMAGE.len() as u64], "it went on where it was");
    // Once with what had ended, once with what is new.
    assert_eq!(gated.take().1, [file.clone(), file.clone(), file]);
    assert_eq!(gated.gate.granted().len(), 2);
    device.install(&downloaded, &mut unwatched).unwrap();
    // A gate that takes no token at all is asked for one more, not for ever.
    let gated = GatedRepository::with_release(true);
    let mut device = gated.device(scratch().path()).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    gated.gate.refuse(Some(refusal("not any more", &["pcr sha256:7"])));
    gated.gate.expire();
    let error = device.download(&update, &mut unwatched).unwrap_err();
    assert!(matches!(&error, Error::Fetch(FetchError::Denied { .. })), "{error}");
    assert!(error.to_string().contains("not any more (G-ATT-12); missing: pcr sha256:7"), "{error}");
    assert_eq!(error.fault(), Fault::Peer);
    assert!(error.hint().is_some());
}

/// The role was let in before, and the artifact is not: the agent waits, and nothing counts as a failure.
#[test]
fn a_denied_device_resumes_when_admitted() {
    let gated = GatedRepository::with_release(true);
    let folder = scratch();
    let mut device = gated.device(folder.path()).installer(StubInstaller::new()).open().unwrap();
    assert!(device.check().unwrap().update.is_some());
    gated.gate.refuse(Some(refusal("not any more", &["pcr sha256:7"])));
    gated.gate.expire();
    let (options, mut host) = (AgentOptions::default(), StubHost::new());
    for _ in 0..5 {
        let next = Agent::new(&mut device, &options, &mut host).check().unwrap();
        assert_eq!(next, Next::Check { until: None });
        let machine = device.machine();
        assert_eq!(machine.failures, 0);
        let State::Waiting { why, .. } = &machine.state else { panic!("{}", machine.state) };
        assert!(why.contains("not any more (G-ATT-12); missing: pcr sha256:7"), "{why}");
    }
    gated.gate.refuse(None);
    Agent::new(&mut device, &options, &mut host).check().unwrap();
    assert_eq!(device.status().installed.unwrap().release.sequence, 12);
}

/// Trusted with letting devices in, and with nothing else.
#[test]
fn gate_responses_are_verified() {
    let role = "metadata/2.stable.all.json";
    let image = format!("targets/stable/releases/os/1.2.0/{}.image.bin", digest(IMAGE));
    let gated = GatedRepository::with_release(true);
    let sim = gated.mirror.sim();
    let manifest = sim.files.keys().find(|file| file.ends_with(".manifest.json")).unwrap().clone();
    let forged = sim.sign_with("stable.all", &sim.signers["stable.lab"]);
    let cases: &[(&str, &str, Trick)] = &[
        ("an older version of the role", role, Trick::Bytes(sim.files["metadata/1.stable.all.json"].clone())),
        ("another cohort's role", role, Trick::Bytes(sim.files["metadata/2.stable.lab.json"].clone())),
        ("the role by another's key", role, Trick::Bytes(forged)),
        ("no role", role, Trick::Bytes(b"{}".to_vec())),
        ("a role without an end", role, Trick::Endless),
        ("another manifest", &manifest, Trick::Bytes(b"{}".to_vec())),
        ("a manifest without an end", &manifest, Trick::Endless),
        ("another image", &image, Trick::Bytes(vec![b'x'; IMAGE.len()])),
        ("a longer image", &image, Trick::Bytes([IMAGE, b"more"].concat())),
        ("an image without an end", &image, Trick::Endless),
    ];
    for (case, file, trick) in cases {
        let gated = GatedRepository::with_release(true);
        gated.mirror.trick(file, trick.clone());
        let folder = scratch();
        let mut device = gated.device(folder.path()).installer(StubInstaller::new()).open().unwrap();
        let tried = device.check().and_then(|check| {
            let update = check.update.unwrap_or_else(|| panic!("{case}: {}", check.explanation));
            device.download(&update, &mut unwatched).map(drop)
        });
        let error = tried.unwrap_err();
        // What is no metadata may have come from anyone on the way.
        let fault = if *case == "no role" { Fault::Network } else { Fault::Peer };
        assert_eq!(error.fault(), fault, "{case}: {error}");
        assert!(device.status().installed.is_none(), "{case}");
        // Nothing of it was kept that stands in the way.
        gated.mirror.behave();
        assert_eq!(installs(&mut device), "1.2.0", "{case}");
    }
}

#[test]
fn a_release_may_require_evidence() {
    let asking = |condition: serde_json::Value| {
        GatedRepository::new(false, |sim| {
            let mut manifest = manifest("1.2.0", 12);
            manifest["eligibility"] = condition;
            let bytes = approve(sim, &manifest);
            assign(sim, "all", &bytes, &json!({}));
        })
    };
    let kind = |kind: &str| Some(Facts::parse(format!(r#"{{"attestation": "{kind}"}}"#).as_bytes()).unwrap());
    for (condition, ear) in [
        (json!({"fact": "attestation", "exists": true}), true),
        (json!({"fact": "attestation", "in": ["tpm2"]}), false),
    ] {
        let gated = asking(condition);
        let folder = scratch();
        // It is the attestor's to say: a device's own facts are not asked.
        let claims = kind("tpm2").unwrap();
        let mut device = gated.device(folder.path()).facts(claims).open().unwrap();
        let check = device.check().unwrap();
        let Outcome::NotEligible { rule: Rule::Eligibility, why } = check.outcome() else {
            panic!("{}", check.explanation)
        };
        assert!(why.contains("the fact attestation is missing: this device has no attestor"), "{why}");
        assert!(!serde_json::to_string(&device.status()).unwrap().contains("attestation"));
        // What if it had one.
        assert!(device.explain(kind("tpm2"), None).unwrap().update.is_some());
        let check = device.explain(kind("ear"), None).unwrap();
        assert_eq!(check.update.is_some(), ear, "{}", check.explanation);
        assert!(check.explanation.to_string().contains("evidence   ear\n"));
        if !ear {
            assert!(
                check.outcome().to_string().ends_with("this device gives evidence of the kind \"ear\""),
                "{}",
                check.outcome()
            );
        }
        let error = device.explain(kind("rumour"), None).unwrap_err();
        assert_eq!((error.fault(), error.to_string().contains("tpm2, ear, none")), (Fault::Caller, true), "{error}");
        drop(device);
        // And now it has.
        gated.gate.attest(Some(Attestation::Tpm2));
        let mut device = gated.device(folder.path()).open().unwrap();
        let check = device.check().unwrap();
        assert!(check.update.is_some(), "{}", check.explanation);
        assert_eq!(serde_json::to_value(&check).unwrap()["explanation"]["device"]["attestation"], "tpm2");
        assert!(device.explain(kind("none"), None).unwrap().update.is_none());
    }
}

#[test]
fn a_cohort_may_require_evidence() {
    let gated = GatedRepository::with_release(false);
    gated.mirror.edit(|sim| {
        let map = json!({"schema": 1, "salt": "00112233445566778899aabbccddeeff", "cohorts": [
            {"name": "all", "condition": {"fact": "attestation", "eq": "tpm2"}, "protected": {"gate": GATE}},
            {"name": "lab", "share": 1_000_000},
        ]});
        sim.add_target("stable", "stable/cohorts.json", map.to_string().as_bytes());
        sim.publish(&["stable", "snapshot", "timestamp"]);
    });
    let cohort = |device: &mut Device| device.check().unwrap().explanation.cohort.cohort.to_string();
    let folder = scratch();
    assert_eq!(cohort(&mut gated.device(folder.path()).open().unwrap()), "lab");
    gated.gate.attest(Some(Attestation::Tpm2));
    assert_eq!(cohort(&mut gated.device(folder.path()).open().unwrap()), "all");
}
