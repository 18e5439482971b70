//! Validation: every rule made to speak up, once, by the thing it is there for; and custom checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::sync::Arc;
use tidegate::Rule;

use crate::support::fleet::{Fleet, lay_out, rule};
use serde_json::{Value, json};
use tidegate::release::draft::{self, NewArtifact, NewRelease};
use tidegate::release::record::ReleaseSpec;
use tidegate::release::report::{ValidationReport, Verdict};
use tidegate::validate::{self, Options, Published};
use tidegate::workspace::{Ledger, Operation};
use tidegate_model::condition::Condition;
use tidegate_model::digest::Digest;

fn report_with(fleet: &Fleet, spec: &ReleaseSpec, options: &Options) -> ValidationReport {
    let (workspace, mut ring) = fleet.open();
    validate::validate(&mut Operation::new(&workspace, "tester", fleet.now, &mut ring), spec, options).unwrap().1
}

fn report(fleet: &Fleet, spec: &ReleaseSpec) -> ValidationReport {
    report_with(fleet, spec, &Options::default())
}

fn edit(fleet: &Fleet, file: &str, from: &str, to: &str) {
    let path = fleet.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{file}: {from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn append(fleet: &Fleet, file: &str, more: &str) {
    let path = fleet.path().join(file);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{text}\n{more}")).unwrap();
}

/// A frozen draft that carries a file of this name and these bytes.
fn carrying(fleet: &Fleet, name: &str, bytes: &[u8]) -> ReleaseSpec {
    let spec: ReleaseSpec = "1.0.0".parse().unwrap();
    let (workspace, _) = fleet.open();
    draft::new(
        &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        plain(&spec),
    )
    .unwrap();
    let file = fleet.dir.path().join(name);
    fs::write(&file, bytes).unwrap();
    let hardware = BTreeSet::from(["board-a".parse().unwrap()]);
    let artifact = NewArtifact { file: &file, name: None, hardware, media_type: None, replace: false };
    draft::add(
        &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
        &spec,
        &artifact,
        |_| (),
    )
    .unwrap();
    draft::manifest(&mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()), &spec)
        .unwrap();
    spec
}

pub(super) fn plain(spec: &ReleaseSpec) -> NewRelease {
    NewRelease::of(spec.clone(), "ci".parse().unwrap())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn condition(value: &Value) -> Condition {
    Condition::from_value(value).unwrap()
}

fn statement(of: &[u8]) -> Vec<u8> {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "image.bin", "digest": {"sha256": Digest::of(of).to_string()}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": {}, "runDetails": {"builder": {"id": "https://ci.example.com/builder@v1"}}},
    });
    serde_json::to_vec(&statement).unwrap()
}

fn with_statement(fleet: &Fleet, statement: &[u8]) -> ReleaseSpec {
    let path = fleet.dir.path().join("provenance.json");
    fs::write(&path, statement).unwrap();
    fleet.draft("1.0.0", |new| new.provenance = Some(path))
}

/// The file of the store with these bytes.
fn stored(fleet: &Fleet, bytes: &[u8]) -> std::path::PathBuf {
    fleet.path().join(tidegate::workspace::artifacts::find(&fleet.path(), &Digest::of(bytes)))
}

const IMAGE: &[u8] = b"the bytes of an image";

/// A rule, what makes it speak up, how loud, and a part of what it says.
type Case = (&'static str, fn(&mut Fleet) -> ValidationReport, Verdict, &'static str);

const CASES: &[Case] = &[
    ("V-ART-01", artifact_damaged, Verdict::Fail, "image.bin"),
    ("V-ART-02", manifest_rewritten, Verdict::Fail, "a second encoding"),
    ("V-ART-03", no_gzip, Verdict::Fail, "image.gz does not begin like application/gzip"),
    ("V-ART-04", statement_damaged, Verdict::Fail, "has other bytes than it had"),
    ("V-ART-05", gzip_cut_off, Verdict::Fail, "image.gz cannot be read as application/gzip"),
    ("V-ART-06", published_damaged, Verdict::Fail, "image.bin has other bytes there"),
    ("V-ART-07", provenance_required_later, Verdict::Fail, "requires a provenance statement"),
    ("V-ART-08", chunks_damaged, Verdict::Fail, "the chunks of image.bin"),
    ("V-REL-01", overtaken, Verdict::Fail, "no longer follows"),
    ("V-REL-02", unsigned, Verdict::Fail, "0 of the 2 signatures"),
    ("V-REL-03", expired, Verdict::Fail, "stable expired at"),
    ("V-REL-04", nearly_expired, Verdict::Warn, "stable expires at"),
    ("V-REL-05", metadata_damaged, Verdict::Fail, "repository"),
    ("V-REL-06", metadata_damaged, Verdict::Fail, "snapshot"),
    ("V-ELI-01", nobody_eligible, Verdict::Fail, "no device of the release's hardware can fulfil"),
    ("V-ELI-02", previous_stranded, Verdict::Fail, "could no longer update"),
    ("V-ELI-03", version_falls, Verdict::Warn, "is not above"),
    ("V-ELI-04", unknown_fact, Verdict::Fail, "the fact ram is unknown"),
    ("V-ELI-05", gap, Verdict::Fail, "from 1.0.0 on board-a"),
    ("V-ELI-06", gap_in_the_fleet, Verdict::Fail, "1 of 2 devices cannot update: device-2 on 0.9.0"),
    ("V-DEV-01", unknown_hardware, Verdict::Fail, "board-a is unknown"),
    ("V-DEV-02", too_large, Verdict::Fail, "has 21 bytes, and the slot of board-a 20"),
    ("V-DEV-03", hardware_dropped, Verdict::Warn, "served board-b"),
    ("V-DEV-04", too_old_for_hardware, Verdict::Fail, "board-a runs 2.0.0 and above"),
    ("V-ROL-01", cohorts_unsigned, Verdict::Fail, "is not signed"),
    ("V-ROL-02", cohort_not_in_force, Verdict::Fail, "the channel has no cohort pilots"),
    ("V-ROL-03", first_step_large, Verdict::Warn, "policy.toml allows 1% at once"),
    ("V-DEV-05", hardware_without_a_fix, Verdict::Fail, "devices of hardware board-b get no fix"),
    ("V-ROL-04", fix_for_an_older_line, Verdict::Warn, "cannot take 2.0.0 (sequence 2) any more"),
    ("V-ROL-06", fix_above_a_bridge, Verdict::Fail, "need the bridge 1.9.0 (sequence 2) to 2.0.0"),
];

/// A signed cohort map with a condition that nobody can fulfil takes a workspace of its own: `src/validate/rollout.rs` has the test.
const ELSEWHERE: &[&str] = &["V-ROL-05"];

/// A packed file of a type that is not unpacked is no failure, and the report says that its content was not checked.
#[test]
fn unchecked_content_is_reported() {
    let fleet = Fleet::new();
    let spec = carrying(&fleet, "image.xz", b"\xfd7zXZ\0 and more");
    let report = report(&fleet, &spec);
    let of = |rule: &str| report.findings.iter().find(|finding| finding.rule == rule).unwrap();
    assert_eq!(of("V-ART-03").verdict, Verdict::Pass, "{}", of("V-ART-03").detail);
    assert_eq!(of("V-ART-05").verdict, Verdict::NotApplicable);
    assert!(of("V-ART-05").detail.contains("not checked"), "{}", of("V-ART-05").detail);
    assert!(of("V-ART-05").detail.ends_with("image.xz (application/x-xz)"), "{}", of("V-ART-05").detail);
}

#[test]
fn every_rule_speaks_up() {
    for (rule, make, verdict, part) in CASES {
        let report = make(&mut Fleet::new());
        let finding = report.findings.iter().find(|finding| finding.rule == *rule).unwrap();
        assert_eq!(finding.verdict, *verdict, "{rule}: {}", finding.detail);
        assert!(finding.detail.contains(part), "{rule}: {}", finding.detail);
        // All findings at once: none stopped at the first.
        assert_eq!(report.findings.len(), validate::rules().count(), "{rule}");
    }
    let tried: BTreeSet<&str> = CASES.iter().map(|(rule, ..)| *rule).chain(ELSEWHERE.iter().copied()).collect();
    let all: BTreeSet<&str> = validate::rules().map(|rule| rule.id).collect();
    assert_eq!(tried, all);
}

#[test]
fn a_good_release_passes_them_all() {
    let fleet = Fleet::new();
    let spec = with_statement(&fleet, &statement(IMAGE));
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    fleet.register(&spec).unwrap();
    let report = report(&fleet, &spec);
    let loud: BTreeMap<_, _> = report
        .findings
        .iter()
        .filter(|finding| matches!(finding.verdict, Verdict::Fail | Verdict::Warn))
        .map(|finding| (finding.rule.as_str(), finding.detail.as_str()))
        .collect();
    assert!(loud.is_empty(), "{loud:?}");
    let junit = validate::junit(&report);
    assert!(junit.contains("V-REL-05") && junit.contains("failures=\"0\""), "{junit}");
}

fn artifact_damaged(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    fs::write(stored(fleet, IMAGE), b"the bites of an image").unwrap();
    report(fleet, &spec)
}

fn manifest_rewritten(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    let folder = fleet.path().join("releases/stable/os/1.0.0");
    let bytes = fs::read(folder.join("manifest.json")).unwrap();
    let loose = [bytes.as_slice(), b" "].concat();
    fs::write(folder.join("manifest.json"), &loose).unwrap();
    let record = fs::read_to_string(folder.join("release.json")).unwrap();
    let record = record
        .replace(&Digest::of(&bytes).to_string(), &Digest::of(&loose).to_string())
        .replace(&format!("\"length\": {}", bytes.len()), &format!("\"length\": {}", loose.len()));
    fs::write(folder.join("release.json"), record).unwrap();
    report(fleet, &spec)
}

fn no_gzip(fleet: &mut Fleet) -> ValidationReport {
    let spec = carrying(fleet, "image.gz", b"anything but packed");
    report(fleet, &spec)
}

fn statement_damaged(fleet: &mut Fleet) -> ValidationReport {
    let spec = with_statement(fleet, &statement(IMAGE));
    fs::write(stored(fleet, &statement(IMAGE)), statement(b"something else")).unwrap();
    report(fleet, &spec)
}

fn gzip_cut_off(fleet: &mut Fleet) -> ValidationReport {
    let packed = gzip(&[7; 4096]);
    let spec = carrying(fleet, "image.gz", &packed[..packed.len() - 4]);
    report(fleet, &spec)
}

fn published_damaged(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.release("1.0.0", |_| ());
    let site = fleet.dir.path().join("site");
    lay_out(fleet, &site);
    let origin = Arc::new(tidegate::audit::PublishedRepository::open(site.to_str().unwrap()).unwrap());
    let published = Published { place: site.display().to_string(), origin };
    let place = Options { published: Some(published), ..Options::default() };
    let good = report_with(fleet, &spec, &place);
    let finding = good.findings.iter().find(|finding| finding.rule == "V-ART-06").unwrap();
    assert_eq!(finding.verdict, Verdict::Pass, "{}", finding.detail);
    let file = format!("targets/stable/releases/os/1.0.0/{}.image.bin", Digest::of(IMAGE));
    fs::write(site.join(file), b"the bites of an image").unwrap();
    report_with(fleet, &spec, &place)
}

fn provenance_required_later(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    append(fleet, "policy.toml", "[provenance]\nrequired = true");
    report(fleet, &spec)
}

fn chunks_damaged(fleet: &mut Fleet) -> ValidationReport {
    append(fleet, "tidegate.toml", "[delivery]\nminimum_bytes = 1");
    let spec = fleet.draft("1.0.0", |_| ());
    let index = |file: &std::path::PathBuf| *file != stored(fleet, IMAGE);
    let store = fs::read_dir(fleet.path().join("artifacts/sha256")).unwrap().map(|entry| entry.unwrap().path());
    store.filter(index).for_each(|file| fs::write(file, b"no index").unwrap());
    report(fleet, &spec)
}

fn overtaken(fleet: &mut Fleet) -> ValidationReport {
    let (one, two) = (fleet.draft("1.0.0", |_| ()), fleet.draft("1.1.0", |_| ()));
    fleet.sign(&one).unwrap();
    fleet.validate(&one);
    fleet.register(&one).unwrap();
    report(fleet, &two)
}

fn unsigned(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    report(fleet, &spec)
}

fn expired(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.release("1.0.0", |_| ());
    fleet.pass(24 * 91);
    report(fleet, &spec)
}

fn nearly_expired(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.release("1.0.0", |_| ());
    fleet.pass(24 * 80);
    report(fleet, &spec)
}

/// What the other implementation reads is on the disk, and ours read it when the workspace was opened.
fn metadata_damaged(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.release("1.0.0", |_| ());
    let (workspace, _) = fleet.open();
    let (settings, policy, cohorts) =
        (workspace.settings().unwrap(), workspace.policy().unwrap(), workspace.cohorts().unwrap());
    let repository = workspace.repository().unwrap();
    let record = spec.find(&fleet.path()).unwrap();
    let (manifest, bytes) = record.manifest(&fleet.path()).unwrap();
    let snapshot = repository.files().into_keys().find(|name| name.ends_with(".snapshot.json"));
    let path = fleet.path().join("metadata").join(snapshot.unwrap());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen("\"sig\":\"", "\"sig\":\"00", 1)).unwrap();
    validate::run(&validate::Subject {
        dir: &fleet.path(),
        settings: &settings,
        policy: &policy,
        cohorts: &cohorts,
        repository: &repository,
        record: &record,
        manifest: &manifest,
        bytes: &bytes,
        previous: None,
        fleet: None,
        published: None,
        now: fleet.now,
    })
    .unwrap()
}

fn nobody_eligible(fleet: &mut Fleet) -> ValidationReport {
    let never = json!({"all": [{"fact": "hardware", "eq": "board-b"}, {"fact": "group", "eq": "lab"}]});
    let spec = fleet.draft("1.0.0", |new| new.eligibility = Some(condition(&never)));
    report(fleet, &spec)
}

fn previous_stranded(fleet: &mut Fleet) -> ValidationReport {
    fleet.release("1.0.0", |_| ());
    let spec = fleet.draft("2.0.0", |new| new.upgrade_from = Some(">=1.5.0".parse().unwrap()));
    report(fleet, &spec)
}

fn version_falls(fleet: &mut Fleet) -> ValidationReport {
    fleet.release("1.1.0", |_| ());
    let spec = fleet.draft("1.0.0", |_| ());
    report(fleet, &spec)
}

fn unknown_fact(fleet: &mut Fleet) -> ValidationReport {
    append(fleet, "tidegate.toml", "[facts.ram-mb]\ntype = \"integer\"\n[facts.group]\ntype = \"text\"");
    let spec = fleet.draft("1.0.0", |new| new.eligibility = Some(condition(&json!({"fact": "ram", "ge": 512}))));
    report(fleet, &spec)
}

/// The bridge from 1.0.0 to 2.0.0 is withdrawn. While it stands, there is a way.
fn gap(fleet: &mut Fleet) -> ValidationReport {
    fleet.release("1.0.0", |_| ());
    let bridge = fleet.release("1.1.0", |_| ());
    let spec = fleet.draft("2.0.0", |new| new.upgrade_from = Some(">=1.1.0".parse().unwrap()));
    let good = report(fleet, &spec);
    let finding = good.findings.iter().find(|finding| finding.rule == "V-ELI-05").unwrap();
    assert_eq!(finding.verdict, Verdict::Pass, "{}", finding.detail);
    fleet.step(&bridge, |transaction, op| transaction.withdraw(op, None)).unwrap();
    report(fleet, &spec)
}

fn gap_in_the_fleet(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |new| new.upgrade_from = Some(">=0.9.5".parse().unwrap()));
    let csv = fleet.dir.path().join("fleet.csv");
    fs::write(&csv, "id,hardware,version\ndevice-1,board-a,0.9.7\ndevice-2,board-a,0.9.0\n").unwrap();
    report_with(fleet, &spec, &Options { fleet: Some(csv), ..Options::default() })
}

fn unknown_hardware(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    edit(fleet, "tidegate.toml", "[hardware.board-a]", "[hardware.board-c]");
    report(fleet, &spec)
}

fn too_large(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    edit(fleet, "tidegate.toml", "slot_bytes = 1073741824", "slot_bytes = 20");
    report(fleet, &spec)
}

fn hardware_dropped(fleet: &mut Fleet) -> ValidationReport {
    for_two_boards(fleet);
    let spec = fleet.draft("1.1.0", |_| ());
    report(fleet, &spec)
}

fn hardware_without_a_fix(fleet: &mut Fleet) -> ValidationReport {
    for_two_boards(fleet);
    let spec = fleet.draft("1.1.0", |new| new.urgency = tidegate::release::record::RecordedUrgency::Security);
    report(fleet, &spec)
}

/// A registered release for two kinds of hardware.
fn for_two_boards(fleet: &Fleet) {
    let both: ReleaseSpec = "1.0.0".parse().unwrap();
    {
        let (workspace, _) = fleet.open();
        draft::new(
            &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
            plain(&both),
        )
        .unwrap();
        let hardware = ["board-a", "board-b"].map(|id| id.parse().unwrap()).into();
        let file = fleet.dir.path().join("image.bin");
        let artifact = NewArtifact { file: &file, name: None, hardware, media_type: None, replace: false };
        draft::add(
            &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
            &both,
            &artifact,
            |_| (),
        )
        .unwrap();
        draft::manifest(
            &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
            &both,
        )
        .unwrap();
    }
    fleet.sign(&both).unwrap();
    fleet.validate(&both);
    fleet.register(&both).unwrap();
}

fn too_old_for_hardware(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    edit(fleet, "tidegate.toml", "[hardware.board-a]", "[hardware.board-a]\nminimum_version = \"2.0.0\"");
    report(fleet, &spec)
}

fn cohorts_unsigned(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    edit(fleet, "cohorts.toml", "share = \"20%\"", "share = \"25%\"");
    edit(fleet, "cohorts.toml", "share = \"75%\"", "share = \"70%\"");
    report(fleet, &spec)
}

fn cohort_not_in_force(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    edit(fleet, "cohorts.toml", "name = \"early\"", "name = \"pilots\"");
    edit(fleet, "policy.toml", "canary = \"48h\"", "pilots = \"48h\"");
    report(fleet, &spec)
}

fn first_step_large(fleet: &mut Fleet) -> ValidationReport {
    let spec = fleet.draft("1.0.0", |_| ());
    edit(fleet, "policy.toml", "largest_step = \"10%\"", "largest_step = \"1%\"");
    report(fleet, &spec)
}

/// A fix for an older line does not fail because a newer one is offered.
fn fix_for_an_older_line(fleet: &mut Fleet) -> ValidationReport {
    fleet.release("1.5.0", |_| ());
    let newer = fleet.release("2.0.0", |_| ());
    fleet.start(&newer);
    let fix = fleet.draft("1.5.1", |_| ());
    let report = report(fleet, &fix);
    let failed: Vec<_> = report.findings.iter().filter(|finding| finding.verdict == Verdict::Fail).collect();
    assert!(failed.iter().all(|finding| finding.rule.starts_with("V-REL")), "{failed:?}");
    report
}

/// A fix with a sequence above the bridge that its devices need; under a new sequence the bridge is there again.
fn fix_above_a_bridge(fleet: &mut Fleet) -> ValidationReport {
    fleet.release("1.5.0", |_| ());
    fleet.release("1.9.0", |_| ());
    fleet.release("2.0.0", |new| new.upgrade_from = Some(">=1.9.0".parse().unwrap()));
    let fix = fleet.draft("1.5.1", |_| ());
    let bad = report(fleet, &fix);
    fleet.release("1.9.1", |_| ());
    let good = report(fleet, &fix);
    let finding = good.findings.iter().find(|finding| finding.rule == "V-ROL-06").unwrap();
    assert_eq!(finding.verdict, Verdict::Pass, "{}", finding.detail);
    bad
}

#[test]
fn reports_are_kept_by_the_hashes_that_the_ledger_knows_them_by() {
    let mut fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.validate(&spec);
    fleet.sign(&spec).unwrap();
    fleet.pass(1);
    fleet.validate(&spec);
    fleet.pass(1);
    fleet.validate(&spec);
    let folder = fleet.path().join("releases/stable/os/1.0.0");
    let ledger = Ledger::open(&fleet.path()).unwrap();
    let known: Vec<_> = ledger.entries().iter().filter_map(|entry| entry.evidence.get("report")?.as_str()).collect();
    let [first, second, newest] = known[..] else { panic!("{known:?}") };
    for (hash, file) in [
        (first, format!("reports/{first}.json")),
        (second, format!("reports/{second}.json")),
        (newest, "report.json".into()),
    ] {
        assert_eq!(Digest::of(&fs::read(folder.join(&file)).unwrap()).to_string(), hash, "{file}");
    }
    // The release is still read as one, and the newest report counts.
    fleet.register(&spec).unwrap();
}

#[test]
fn a_report_is_good_from_when_it_was_made_until_it_is_too_old() {
    let mut fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    fleet.pass(24 * 365);
    fleet.validate(&spec);
    fleet.pass(-24 * 365);
    let error = fleet.register(&spec).unwrap_err();
    assert!(
        error.to_string().contains("in the future"),
        "a clock that ran ahead makes nothing fresh for a year: {error}"
    );
    fleet.validate(&spec);
    fleet.pass(24 * 8);
    assert_eq!(rule(fleet.register(&spec)), "R-VALIDATED");
}

#[test]
fn provenance_is_held_against_the_artifacts_before_anything_is_frozen() {
    let draft = |fleet: &Fleet, bytes: &[u8]| {
        let path = fleet.dir.path().join("provenance.json");
        fs::write(&path, bytes).unwrap();
        let spec: ReleaseSpec = "1.0.0".parse().unwrap();
        let (workspace, _) = fleet.open();
        draft::new(
            &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
            NewRelease { provenance: Some(path), ..plain(&spec) },
        )?;
        let file = fleet.dir.path().join("image.bin");
        let hardware = BTreeSet::from(["board-a".parse().unwrap()]);
        let artifact = NewArtifact { file: &file, name: None, hardware, media_type: None, replace: false };
        draft::add(
            &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
            &spec,
            &artifact,
            |_| (),
        )?;
        draft::manifest(
            &mut Operation::new(&workspace, "tester", fleet.now, &mut tidegate::keys::KeyRing::empty()),
            &spec,
        )
    };
    let fleet = Fleet::new();
    let frozen = draft(&fleet, &statement(IMAGE)).unwrap();
    let recorded = frozen.manifest.build.provenance.unwrap();
    assert_eq!(recorded.sha256, Digest::of(&statement(IMAGE)), "it is under the release's signatures");
    assert_eq!(recorded.builder.unwrap().as_str(), "https://ci.example.com/builder@v1");

    assert_eq!(rule(draft(&Fleet::new(), &statement(b"another image"))), "R-PROVENANCE");
    let pinned = |more: &str| {
        let fleet = Fleet::new();
        append(&fleet, "policy.toml", &format!("[provenance]\nrequired = true\n{more}"));
        fleet
    };
    draft(&pinned("builders = [\"https://ci.example.com/builder@v1\"]"), &statement(IMAGE)).unwrap();
    assert_eq!(rule(draft(&pinned("builders = [\"https://elsewhere/\"]"), &statement(IMAGE))), "R-PROVENANCE");
    // A statement in nobody's envelope says nothing where a key is asked for.
    let key = format!("keys = [\"ed25519:{}\"]", "11".repeat(32));
    assert_eq!(rule(draft(&pinned(&key), &statement(IMAGE))), "R-PROVENANCE");
    let none = pinned("");
    let (workspace, _) = none.open();
    let spec: ReleaseSpec = "1.0.0".parse().unwrap();
    draft::new(
        &mut Operation::new(&workspace, "tester", none.now, &mut tidegate::keys::KeyRing::empty()),
        plain(&spec),
    )
    .unwrap();
    let file = none.dir.path().join("image.bin");
    let hardware = BTreeSet::from(["board-a".parse().unwrap()]);
    let artifact = NewArtifact { file: &file, name: None, hardware, media_type: None, replace: false };
    draft::add(
        &mut Operation::new(&workspace, "tester", none.now, &mut tidegate::keys::KeyRing::empty()),
        &spec,
        &artifact,
        |_| (),
    )
    .unwrap();
    assert_eq!(
        rule(draft::manifest(
            &mut Operation::new(&workspace, "tester", none.now, &mut tidegate::keys::KeyRing::empty()),
            &spec
        )),
        "R-PROVENANCE"
    );
}

#[cfg(unix)]
fn script(fleet: &Fleet, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = fleet.path().join("checks");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("sbom"), format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(folder.join("sbom"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
fn with_check(timeout: &str) -> Fleet {
    let fleet = Fleet::new();
    append(
        &fleet,
        "policy.toml",
        &format!(
            "[[validation.check]]\nid = \"X-SBOM\"\ntitle = \"there is a bill of materials\"\n\
             command = [\"./checks/sbom\"]\ntimeout = \"{timeout}\"\n"
        ),
    );
    fleet
}

#[cfg(unix)]
#[test]
fn own_checks_are_told_what_they_look_at_and_hold_a_release_back() {
    let fleet = with_check("60s");
    script(&fleet, "cat > \"$0.json\"; echo '{\"findings\": [{\"verdict\": \"pass\", \"detail\": \"12 parts\"}]}'");
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    let own = |report: &ValidationReport| {
        let finding = report.findings.iter().find(|finding| finding.rule == "X-SBOM").unwrap();
        (finding.verdict, finding.detail.clone())
    };
    assert_eq!(own(&report(&fleet, &spec)), (Verdict::Pass, "12 parts".into()));
    let asked: Value = serde_json::from_slice(&fs::read(fleet.path().join("checks/sbom.json")).unwrap()).unwrap();
    assert_eq!(asked["protocol"], "tidegate-check/1");
    assert_eq!(asked["rule"], "X-SBOM");
    assert_eq!(asked["release"], "stable/os/1.0.0");
    let artifact = &asked["artifacts"][0];
    assert_eq!(fs::read(artifact["file"].as_str().unwrap()).unwrap(), IMAGE);
    assert_eq!(artifact["sha256"], Digest::of(IMAGE).to_string());
    fleet.register(&spec).unwrap();

    // What it finds holds the release back, and so does a report from before there was the check.
    let fleet = with_check("60s");
    script(&fleet, "cat > /dev/null; echo 'libfoo has no licence' >&2; exit 1");
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    let (verdict, detail) = own(&report(&fleet, &spec));
    assert_eq!(verdict, Verdict::Fail);
    assert!(detail.contains("libfoo has no licence"), "{detail}");
    let error = fleet.register(&spec).unwrap_err();
    assert!(error.broken_rule() == Some(Rule::ReleaseValidated) && error.to_string().contains("X-SBOM"), "{error}");

    let fleet = Fleet::new();
    let spec = fleet.draft("1.0.0", |_| ());
    fleet.sign(&spec).unwrap();
    fleet.validate(&spec);
    append(
        &fleet,
        "policy.toml",
        "[[validation.check]]\nid = \"X-SBOM\"\ntitle = \"t\"\ncommand = [\"true\"]\ntimeout = \"60s\"",
    );
    let error = fleet.register(&spec).unwrap_err();
    assert!(error.to_string().contains("X-SBOM"), "{error}");
}

#[cfg(unix)]
#[test]
fn an_own_check_that_hangs_is_ended_and_fails() {
    let fleet = with_check("1s");
    script(&fleet, "sleep 600");
    let spec = fleet.draft("1.0.0", |_| ());
    let report = report(&fleet, &spec);
    let finding = report.findings.iter().find(|finding| finding.rule == "X-SBOM").unwrap();
    assert_eq!(finding.verdict, Verdict::Fail);
    assert!(finding.detail.contains("longer than"), "{}", finding.detail);
}
