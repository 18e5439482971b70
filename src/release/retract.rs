//! Retracts releases: creates a release with a higher sequence and older bytes, for the devices that have the bad releases.
//!
//! Anti-rollback is never off. Devices keep rejecting lower sequences; those that have a retracted release move to a sequence
//! above it whose bytes are those of an earlier release. The new release has the earlier one's version, with build metadata added
//! (`1.2.0+retract.4`), which has no precedence. A device that runs the earlier release already has these bytes and stays; one
//! that runs an older release upgrades normally; and one that runs a superseded release installs it although its own version is
//! higher.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::{Map, json};
use tidegate_model::manifest::Manifest;
use tidegate_model::name::Text;
use tidegate_model::version::{Version, VersionRange, is_newer};

use super::draft::{self, Frozen, happening};
use super::record::{self, ArtifactRecord, Record, RecordedUrgency, ReleaseId, ReleaseSpec, RetractionRecord};
use crate::error::{Error, Result, Rule};
use crate::fs::{self, Changes};
use crate::keys::KeyRing;
use crate::policy::{Facts, ReleaseEvent, ReleaseState, Retraction};
use crate::workspace::artifacts::{self, Stored};
use crate::workspace::ledger::clean;
use crate::workspace::{Ledger, Operation, Workspace};

/// Which releases to retract, and what replaces them.
#[derive(Debug, Clone)]
pub struct RetractionRequest {
    /// The bad releases, of one product on one channel; at least one.
    pub bad: Vec<ReleaseSpec>,
    /// The release whose bytes the devices get; if `None`, the newest rolled-out release before the bad ones.
    pub to: Option<ReleaseSpec>,
    /// Its urgency: a security release goes to all cohorts at once.
    pub urgency: RecordedUrgency,
    /// The reason, for the ledger and the signed notes.
    pub reason: Option<String>,
}

/// A retraction that was created.
#[derive(Debug)]
pub struct Retracted {
    /// The new release, frozen and proposed for signing.
    pub frozen: Frozen,
    /// The retracted releases.
    pub bad: Vec<Record>,
    /// The release whose bytes it carries.
    pub to: Record,
}

/// Creates a release that retracts others, and proposes it for signing. It is not offered yet.
///
/// # Errors
///
/// Fails if the releases are not of one product and channel, if one cannot be retracted in its state, or if no earlier release is
/// available to carry.
pub fn retract(op: &mut Operation<'_>, request: &RetractionRequest) -> Result<Retracted> {
    let (workspace, actor, now) = (op.workspace, op.actor, op.now);
    let dir = workspace.dir();
    let policy = workspace.policy()?;
    let mut bad = Vec::new();
    for spec in &request.bad {
        let record = spec.find(dir)?;
        record.after(
            ReleaseEvent::Retract,
            &Facts { frozen: record.manifest.is_some(), ..Facts::default() },
            &policy,
            now,
        )?;
        bad.push(record);
    }
    bad.sort_by_key(sequence);
    bad.dedup_by_key(|record| record.id());
    let newest = bad.last().ok_or_else(|| Error::usage("nothing is named that is to be taken back"))?.clone();
    if let Some(other) = bad.iter().find(|record| !siblings(record, &newest)) {
        return Err(Error::input(format!("{} and {} are not of one product and channel", other.id(), newest.id()))
            .remedy("take them back one after the other"));
    }
    let mut others = record::all(dir)?;
    others.retain(|other| siblings(other, &newest));
    let sequences: BTreeSet<u64> = bad.iter().filter_map(sequence).collect();
    let over = |other: &&Record| matches!(other.state, ReleaseState::Withdrawn | ReleaseState::Retired);
    if let Some(other) = others
        .iter()
        .filter(|other| !over(other))
        .find(|other| other.retraction.is_some() && other.supersedes.is_superset(&sequences))
    {
        return Err(Error::refused(Rule::ReleaseExists, format!("{} takes back {} already", other.id(), names(&bad)))
            .remedy(format!("go on with it, or give it up: tidegate rollout withdraw {}", other.id())));
    }
    let to = carried(request.to.as_ref(), &bad, &others, dir)?;
    for artifact in &to.artifacts {
        artifacts::open(dir, Stored { sha256: artifact.sha256, length: artifact.length })?;
    }
    let draft = drafted(request, &bad, &newest, &to, &others, now)?;
    let id = draft.id();
    if fs::confined(dir, &id.file("release.json"))?.exists() {
        return Err(Error::refused(Rule::ReleaseExists, format!("{id} exists already"))
            .remedy(format!("go on with it: tidegate release show {id}")));
    }
    write_down(workspace, request, &draft, &bad, &to, (actor, now))?;
    let frozen = draft::manifest(&mut Operation::new(workspace, actor, now, &mut KeyRing::empty()), &spec(&id)?)?;
    Ok(Retracted { frozen, bad, to })
}

/// What a release retracts, checked against the signed manifests; `None` if its record claims no retraction.
///
/// The record is not signed, and a retraction may skip some policy requirements. So its manifest must supersede the retracted
/// sequence and have the artifacts of the release that the record names.
///
/// # Errors
///
/// `R-RETRACT` if the manifest does not match the record's claim. Fails if a record or manifest cannot be read.
pub fn facts(dir: &Path, record: &Record, manifest: &Manifest) -> Result<Option<Retraction>> {
    let Some(RetractionRecord { of, sequence: bad, to }) = &record.retraction else { return Ok(None) };
    let wrong = |why: String| {
        Error::trust(format!("{} is no retraction of {of}: {why}", record.id()))
            .rule(Rule::ReleaseRetract)
            .remedy("restore its release.json from version control")
    };
    if !manifest.supersedes.contains(bad) {
        return Err(wrong(format!("its manifest does not supersede sequence {bad}")));
    }
    let mut others = record::all(dir)?;
    others.retain(|other| siblings(other, record));
    let carried = others.iter().find(|other| other.version == *to);
    let carried = carried.ok_or_else(|| wrong(format!("there is no release {to} whose bytes it could carry")))?;
    let (older, _) = carried.manifest(dir)?;
    if fits(manifest) != fits(&older) {
        return Err(wrong(format!("its artifacts are not those of {to}")));
    }
    let still_offered = others
        .iter()
        .filter(|other| sequence(other).is_some_and(|sequence| manifest.supersedes.contains(&sequence)))
        .find(|other| !matches!(other.state, ReleaseState::Withdrawn | ReleaseState::Retired))
        .map(|other| other.id().to_string());
    Ok(Some(Retraction { still_offered }))
}

/// The part of a manifest that decides which bytes a device gets.
fn fits(manifest: &Manifest) -> BTreeSet<(String, String, Vec<String>)> {
    let hardware = |artifact: &tidegate_model::manifest::Artifact| {
        artifact.hardware.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let artifacts = manifest.artifacts.iter();
    artifacts.map(|artifact| (artifact.name.to_string(), artifact.sha256.to_string(), hardware(artifact))).collect()
}

fn names(records: &[Record]) -> String {
    records.iter().map(|record| record.id().to_string()).collect::<Vec<_>>().join(", ")
}

fn siblings(a: &Record, b: &Record) -> bool {
    a.channel == b.channel && a.product == b.product
}

fn sequence(record: &Record) -> Option<u64> {
    record.manifest.as_ref().map(|manifest| manifest.sequence)
}

/// The release whose bytes are carried: rolled out, and older than all retracted ones.
fn carried(wanted: Option<&ReleaseSpec>, bad: &[Record], others: &[Record], dir: &Path) -> Result<Record> {
    let first = bad.first().and_then(sequence);
    let is_out = |record: &Record| {
        matches!(
            record.state,
            ReleaseState::Registered
                | ReleaseState::Validation
                | ReleaseState::Limited
                | ReleaseState::Stable
                | ReleaseState::Security
        )
    };
    let older = |record: &Record| {
        let is_earlier = sequence(record).is_some() && sequence(record) < first;
        let is_above = bad.iter().any(|bad| is_newer(&record.version, &bad.version));
        let is_below = bad.iter().all(|bad| is_newer(&bad.version, &record.version));
        // A fix for an older line is later and has a lower version than what is retracted.
        (is_earlier && !is_above) || (is_below && record.retraction.is_none())
    };
    let Some(wanted) = wanted else {
        let known =
            others.iter().filter(|other| older(other) && is_out(other) && other.state != ReleaseState::Registered);
        let newest =
            known.max_by(|a, b| a.version.cmp_precedence(&b.version).then_with(|| sequence(a).cmp(&sequence(b))));
        return newest.cloned().ok_or_else(|| {
            Error::refused(Rule::ReleaseRetract, "there is no release before it that devices could get instead")
                .remedy("release the fix (tidegate release create VERSION FILE --hardware ID): a device that has only ever had the bad release has nothing older")
        });
    };
    let to = wanted.find(dir)?;
    let refuse = |why: &str, remedy: &str| {
        Err(Error::refused(Rule::ReleaseRetract, format!("{}: {why}", to.id())).remedy(remedy.to_owned()))
    };
    if bad.iter().any(|bad| !siblings(bad, &to)) {
        return refuse("it is of another product or channel", "name one of the same product and channel");
    }
    if !older(&to) {
        return refuse(
            "it is not older than what is to be taken back",
            "a newer release is rolled out as it is: tidegate rollout start",
        );
    }
    if !is_out(&to) {
        return refuse(
            &format!("it is {}, so nobody should get its bytes", to.status()),
            "name one that is out: tidegate release list",
        );
    }
    Ok(to)
}

fn drafted(
    request: &RetractionRequest,
    bad: &[Record],
    newest: &Record,
    to: &Record,
    others: &[Record],
    now: DateTime<Utc>,
) -> Result<Record> {
    let of = sequence(newest).ok_or_else(|| Error::bug("a release that is out without a sequence"))?;
    let own = others.iter().filter_map(sequence).max().unwrap_or(of) + 1;
    let mut version = Version::new(to.version.major, to.version.minor, to.version.patch);
    version.pre = to.version.pre.clone();
    version.build =
        format!("retract.{own}").parse().map_err(|e| Error::bug("the build metadata of a version").with_source(e))?;
    let named: Vec<_> =
        bad.iter().map(|bad| format!("{} (sequence {})", bad.version, sequence(bad).unwrap_or_default())).collect();
    let mut notes = vec![format!("Takes back {}; carries the bytes of {}", named.join(", "), to.version)];
    notes.extend(request.reason.as_deref().map(clean));
    let notes = notes.iter().map(|note| note.parse::<Text>()).collect::<Result<Vec<_>, _>>().map_err(|e| {
        Error::input(format!("the reason cannot be a note: {e}")).remedy("give a shorter --reason, in ASCII")
    })?;
    Ok(Record {
        schema: 1,
        channel: to.channel.clone(),
        product: to.product.clone(),
        version,
        state: ReleaseState::Draft,
        paused: false,
        created: now,
        urgency: request.urgency,
        // The bytes are those of that build.
        build_id: to.build_id.clone(),
        source: to.source.clone(),
        provenance: to.provenance.clone(),
        artifacts: to.artifacts.iter().map(ArtifactRecord::clone).collect(),
        eligibility: to.eligibility.clone(),
        upgrade_from: upgrade_from(to, bad)?,
        supersedes: bad.iter().filter_map(sequence).collect(),
        retraction: Some(RetractionRecord { of: newest.version.clone(), sequence: of, to: to.version.clone() }),
        notes,
        manifest: None,
    })
}

/// The versions from which a device may install it: those that the older release upgrades from, if the bad ones are among them;
/// otherwise only the bad one, and other devices use the older release as a bridge.
fn upgrade_from(to: &Record, bad: &[Record]) -> Result<Option<VersionRange>> {
    let Some(range) = &to.upgrade_from else { return Ok(None) };
    if bad.iter().all(|bad| range.holds(&bad.version)) {
        return Ok(Some(range.clone()));
    }
    let [one] = bad else {
        return Err(Error::refused(
            Rule::ReleaseRetract,
            format!("{} upgrades from \"{range}\", which does not hold all that is to be taken back", to.id()),
        )
        .remedy("take them back one after the other, or name another release with --to"));
    };
    let Version { major, minor, patch, pre, .. } = &one.version;
    let exactly =
        if pre.is_empty() { format!("={major}.{minor}.{patch}") } else { format!("={major}.{minor}.{patch}-{pre}") };
    exactly.parse().map(Some).map_err(|e| Error::bug("a range of one version").with_source(e))
}

fn write_down(
    workspace: &Workspace,
    request: &RetractionRequest,
    draft: &Record,
    bad: &[Record],
    to: &Record,
    (actor, now): (&str, DateTime<Utc>),
) -> Result<()> {
    let mut changes = Changes::default();
    draft.put(&mut changes)?;
    let mut ledger = Ledger::open(workspace.dir())?;
    let id = draft.id().to_string();
    for record in bad {
        let evidence = Map::from_iter([("by".to_owned(), json!(id))]);
        let mut happening = happening(ReleaseEvent::Retract.name(), record, Some(record.status()), actor, evidence);
        happening.reason = request.reason.as_deref().map(clean);
        ledger.append(now, happening)?;
    }
    let taken: Vec<_> = bad.iter().map(|bad| bad.id().to_string()).collect();
    let evidence = Map::from_iter([
        ("retracts".to_owned(), json!(taken)),
        ("carries".to_owned(), json!(to.id().to_string())),
        ("build".to_owned(), json!(draft.build_id.as_str())),
    ]);
    ledger.append(now, happening("new", draft, None, actor, evidence))?;
    ledger.put(&mut changes);
    workspace.commit(changes)
}

fn spec(id: &ReleaseId) -> Result<ReleaseSpec> {
    id.to_string().parse().map_err(|e: String| Error::bug(e))
}
