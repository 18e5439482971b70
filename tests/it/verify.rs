//! What an audit says of sound and of unsound repositories.

use std::sync::Arc;

use crate::support::tools::have;
use crate::support::{Forge, Serving, publish};
use tidegate::audit::{AuditReport, Check, PublishedRepository, verify};
use tidegate_model::Extra;
use tidegate_model::digest::Digest;
use tidegate_model::rollout::{Bridge, Offer, Offers};

/// A workspace with two releases and two cohorts, published.
async fn published() -> (Forge, tempfile::TempDir) {
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("rootfs.img", b"one"), ("boot.img", &vec![7; 100_000])]);
    forge.release("1.1.0", 2, &[("rootfs.img", b"two")]);
    forge.assign("early", "1.1.0");
    forge.assign("late", "1.0.0");
    let place = tempfile::tempdir().unwrap();
    publish(&forge, place.path()).await;
    (forge, place)
}

async fn audit(forge: &Forge, place: &std::path::Path) -> AuditReport {
    let origin = Arc::new(PublishedRepository::open(place.to_str().unwrap()).unwrap());
    verify(origin, "the repository", forge.root(), chrono::Utc::now()).await.unwrap()
}

/// The faults that a check found.
fn faults(report: &AuditReport, check: Check) -> Vec<String> {
    report.faults.iter().filter(|f| f.check == check).map(|f| format!("{}: {}", f.subject, f.problem)).collect()
}

#[tokio::test]
async fn a_sound_repository_passes_both_implementations() {
    let (forge, place) = published().await;
    let report = audit(&forge, place.path()).await;
    assert!(report.ok, "{report}");
    let items: Vec<(Check, u64)> = report.rows.iter().map(|row| (row.check, row.items)).collect();
    // Metadata: root, timestamp, snapshot, targets, stable, two cohorts. Targets: cohort map, two manifests (each listed by
    // its channel and by a cohort, two files), three artifacts.
    assert_eq!(
        items,
        [
            (Check::Metadata, 7),
            (Check::Targets, 8),
            (Check::Delegations, 3),
            (Check::CohortMaps, 1),
            (Check::Manifests, 2),
            (Check::Offers, 2),
            (Check::SecondMetadata, 7),
            (Check::SecondTargets, 8),
        ]
    );
    assert_eq!(report.first_to_expire.unwrap().role, "timestamp");
}

#[tokio::test]
async fn it_is_read_over_http_as_well() {
    let (forge, place) = published().await;
    let server = Serving::start(place.path()).await;
    let url = server.url();
    let report = verify(Arc::new(PublishedRepository::open(&url).unwrap()), &url, forge.root(), chrono::Utc::now())
        .await
        .unwrap();
    assert!(report.ok, "{report}");
    assert_eq!(server.meter().read().connections, 1, "one connection is kept alive");
}

#[tokio::test]
async fn every_flipped_byte_of_every_file_is_found() {
    let (forge, place) = published().await;
    let mut files = Vec::new();
    let mut folders = vec![place.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().unwrap() != ".publish.lock" {
                files.push(path);
            }
        }
    }
    assert_eq!(files.len(), 15);
    for path in files {
        let good = std::fs::read(&path).unwrap();
        let mut bad = good.clone();
        // Past the signatures' start, so that it is a signature or the content that breaks.
        let at = bad.len() * 2 / 3;
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let is_start = path.ends_with("metadata/1.root.json");
        let report = audit(&forge, place.path()).await;
        // The root to start from was given, so that the published copy is looked at by nobody.
        assert_eq!(report.ok, is_start, "{}: {report}", path.display());
        std::fs::write(&path, &good).unwrap();

        std::fs::remove_file(&path).unwrap();
        let report = audit(&forge, place.path()).await;
        assert_eq!(report.ok, is_start, "{} removed: {report}", path.display());
        std::fs::write(&path, &good).unwrap();
    }
}

#[tokio::test]
async fn a_rollout_key_can_only_choose_among_what_the_channel_has_approved() {
    let (mut forge, place) = published().await;
    let good = forge.offer("1.1.0");
    let older = forge.offer("1.0.0");
    let manifest = String::from_utf8(forge.manifest("1.1.0")).unwrap().replace("build-2", "build-x");
    let bridge = |release: &str, sequence: u64, of: &Offer| Bridge {
        release: release.parse().unwrap(),
        sequence,
        sha256: of.sha256,
        length: of.length,
        upgrade_from: "<1.0.0".parse().unwrap(),
        extra: Extra::new(),
    };
    for (offers, problems) in [
        (vec![good.clone(), older.clone()], &[][..]),
        (vec![Offer { bridges: vec![bridge("1.0.0", 1, &older)], ..good.clone() }], &[]),
        (
            vec![Offer { sha256: Digest::of(manifest.as_bytes()), ..good.clone() }, older.clone()],
            &["what it offers as 1.1.0 is not the manifest that stable has approved at \
               stable/releases/os/1.1.0/manifest.json"],
        ),
        (
            vec![Offer { length: good.length + 1, ..good.clone() }],
            &["what it offers as 1.1.0 is not the manifest that stable has approved at \
               stable/releases/os/1.1.0/manifest.json"],
        ),
        (
            vec![Offer { release: "6.6.6".parse().unwrap(), sequence: 9, ..good.clone() }, good.clone()],
            &["it offers 6.6.6, which stable has not approved"],
        ),
        (
            vec![Offer { sequence: 9, ..good.clone() }, older.clone()],
            &["it offers 1.1.0 as sequence 9, but its manifest says 2"],
        ),
        (
            vec![Offer { bridges: vec![bridge("0.9.0", 1, &older)], ..good.clone() }],
            &["it offers 0.9.0, which stable has not approved"],
        ),
        (
            vec![Offer { bridges: vec![bridge("1.0.0", 1, &good)], ..good.clone() }],
            &["what it offers as 1.0.0 is not the manifest that stable has approved at \
               stable/releases/os/1.0.0/manifest.json"],
        ),
        (vec![older.clone(), good.clone()], &["it offers 1.0.0 above 1.1.0, which is a higher version"]),
    ] {
        forge.assign_all("late", offers);
        publish(&forge, place.path()).await;
        let report = audit(&forge, place.path()).await;
        let expected: Vec<String> =
            problems.iter().map(|problem| format!("stable/cohorts/late/os.json: {problem}")).collect();
        assert_eq!(faults(&report, Check::Offers), expected);
    }
}

#[tokio::test]
async fn a_list_of_offers_is_the_same_in_its_target_and_beside_it() {
    let (mut forge, place) = published().await;
    let list = |offers: Vec<Offer>| Offers::new(forge.now(), offers);
    let (one, other) = (list(vec![forge.offer("1.1.0")]), list(vec![forge.offer("1.0.0")]));
    forge.assign_bytes("late", &one.to_bytes().unwrap(), other.to_value().unwrap());
    publish(&forge, place.path()).await;
    let report = audit(&forge, place.path()).await;
    assert_eq!(
        faults(&report, Check::Offers),
        ["stable/cohorts/late/os.json: its length or hash is not that of the offers in it"]
    );
}

#[tokio::test]
async fn what_has_expired_is_told_by_both() {
    let (forge, place) = published().await;
    let origin = Arc::new(PublishedRepository::open(place.path().to_str().unwrap()).unwrap());
    let later = chrono::Utc::now() + chrono::TimeDelta::days(3);
    let report = verify(origin, "the repository", forge.root(), later).await.unwrap();
    assert!(!report.ok);
    assert!(faults(&report, Check::Metadata)[0].starts_with("timestamp: "), "{report}");
    // tough has its own clock, and was told that its word on expiry is not asked for.
    let second = report.rows.iter().find(|row| row.check == Check::SecondMetadata).unwrap();
    assert!(second.ok && second.detail.contains("expiry not judged"), "{report}");
}

#[tokio::test]
async fn a_root_that_is_none_is_refused() {
    let (_forge, place) = published().await;
    let origin = Arc::new(PublishedRepository::open(place.path().to_str().unwrap()).unwrap());
    let error = verify(origin, "the repository", b"{}".to_vec(), chrono::Utc::now()).await.unwrap_err();
    assert_eq!(error.kind(), tidegate::Kind::Trust);
}

/// Whoever holds the place can put any documents there. The audit refuses them, and its program takes little more than for sound ones.
#[tokio::test]
async fn hostile_metadata_takes_little_memory() {
    if !have("time", "-V") {
        return;
    }
    let (forge, place) = published().await;
    let files = tempfile::tempdir().unwrap();
    let (root, peak) = (files.path().join("root.json"), files.path().join("peak"));
    std::fs::write(&root, forge.root()).unwrap();
    // Whether it is sound, and the kB that were resident at most.
    let run = || {
        let mut command = std::process::Command::new("time");
        command.args(["-f", "%M", "-o"]).arg(&peak).arg(env!("CARGO_BIN_EXE_tidegate")).arg("verify");
        let output = command.arg(place.path()).arg("--root").arg(&root).output().unwrap();
        let said = std::fs::read_to_string(&peak).unwrap();
        (output.status.success(), said.lines().last().unwrap().parse::<u64>().unwrap())
    };
    let (is_sound, sound) = run();
    assert!(is_sound);
    for role in ["timestamp", "snapshot", "targets", "stable", "stable.early"] {
        let version = (role != "timestamp").then(|| forge.version(role));
        let path = place.path().join("metadata").join(tidegate_tuf::path::metadata_file(role, version));
        let good = std::fs::read(&path).unwrap();
        for unit in ["{\"\":0},", "[],", "[[[{\"\":{}}]]],", "\"\\u0000\","] {
            // The audit reads 1 MB of it, and more values than are allowed come first in the second document.
            for length in [600_000, 990_000] {
                let units = unit.repeat(length / unit.len());
                let document = format!("{{\"signatures\":[],\"signed\":{{\"a\":[{units}0]}}}}");
                std::fs::write(&path, document).unwrap();
                let (is_sound, taken) = run();
                assert!(!is_sound && taken < sound + 40_000, "{role}, {unit}, {length}: {taken} kB, sound: {sound} kB");
            }
        }
        std::fs::write(&path, good).unwrap();
    }
}
