//! `tidegate release`: from a build output to a registered, validated release, and to its end.

mod correct;
mod create;
mod patch;
mod retire;
mod retract;

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};
use tidegate_model::condition::Condition;
use tidegate_model::name::{ArtifactName, HardwareId, Text};
use tidegate_model::text::public_url;
use tidegate_model::version::{self, Version, VersionRange};
use tidegate_tuf::json as strict;
use tidegate_tuf::key::KeyId;

use super::context::{Context, actor};
use super::passphrase::PassphraseArgs;
use super::place::{live, only_live};
use super::{next, show};
use crate::error::{Error, Result, Rule};
use crate::keys::KeyRing;
use crate::proposal;
use crate::release::delivery::{PatchBases, PatchOutcome, PatchReport};
use crate::release::diff::describe_delivery;
use crate::release::draft::{self, Frozen, NewArtifact, NewRelease};
use crate::release::listing::ReleaseProposal;
use crate::release::record::{self, Record, RecordedUrgency, ReleaseSpec};
use crate::release::report::{self, CheckResult, ValidationReport, Verdict};
use crate::release::signing::{self, Signed};
use crate::report::view::Place;
use crate::rollout::RolloutTransaction;
use crate::validate::{self, Published};
use crate::workspace::{Operation, Workspace};

/// Create, sign, register and validate a release
///
/// RELEASE is a version, or PRODUCT/VERSION, or CHANNEL/PRODUCT/VERSION where that is ambiguous.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Box<create::CreateArgs>),
    New(NewArgs),
    Add(AddArgs),
    Remove(correct::RemoveArgs),
    Edit(Box<correct::EditArgs>),
    Manifest(ManifestArgs),
    Patch(patch::Args),
    Unfreeze(correct::UnfreezeArgs),
    Drop(correct::DropArgs),
    Sign(SignArgs),
    Register(RegisterArgs),
    Validate(ValidateArgs),
    /// Show a release: its manifest, signatures and checks
    Show(ReleaseArgs),
    /// List all releases
    List,
    Retract(retract::Args),
    Retire(retire::Args),
}

#[derive(Debug, ClapArgs)]
struct ReleaseArgs {
    /// The release
    release: ReleaseSpec,
}

/// Freeze the manifest, show what it changes, and propose it for signing
///
/// Makes patches from what devices may run, and drops those that are not smaller than the chunks that they would replace.
#[derive(Debug, ClapArgs)]
struct ManifestArgs {
    /// The release
    release: ReleaseSpec,
    #[command(flatten)]
    patches: PatchArgs,
}

/// Which releases patches are made from.
#[derive(Debug, ClapArgs)]
struct PatchArgs {
    /// Make a patch from this version (repeatable), or `none` [default: from the newest that devices may run, as many as
    /// delivery.patches_from in tidegate.toml]
    #[arg(long, value_name = "VERSION", value_parser = parse_base)]
    patch_from: Vec<Base>,
}

/// A release to make a patch from, or none.
#[derive(Debug, Clone)]
enum Base {
    None,
    Version(Version),
}

fn parse_base(text: &str) -> Result<Base, String> {
    if text == "none" {
        return Ok(Base::None);
    }
    version::parse(text).map(Base::Version).map_err(|e| e.to_string())
}

impl PatchArgs {
    fn bases(&self) -> PatchBases {
        if self.patch_from.is_empty() {
            return PatchBases::Newest;
        }
        let version = |base: &Base| match base {
            Base::None => None,
            Base::Version(version) => Some(version.clone()),
        };
        PatchBases::These(self.patch_from.iter().filter_map(version).collect())
    }
}

/// What a draft may say beside its artifacts, when it is started and when it is edited.
#[derive(Debug, ClapArgs)]
struct DetailArgs {
    /// The source it was built from, best as a URI with a commit
    #[arg(long, value_name = "URI")]
    source: Option<Text>,
    /// An in-toto statement (SLSA provenance) of how it was built
    #[arg(long, value_name = "FILE")]
    provenance: Option<PathBuf>,
    /// Which devices may have it: a condition on facts, as JSON
    #[arg(long, value_name = "JSON", value_parser = parse_condition)]
    eligibility: Option<Condition>,
    /// From which installed versions a device may go to it directly, e.g. '>=1.8, <2'
    #[arg(long, value_name = "RANGE")]
    upgrade_from: Option<VersionRange>,
}

/// Start a release as a draft
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate release new 1.2.0 --build-id ci-4711 \\
    --source git+https://example.org/os@9f3c1d2
  tidegate release new 1.2.1 --urgency security --note 'Fixes the updater'
  tidegate release new 2.0.0 --upgrade-from '>=1.8, <2' \\
    --eligibility '{\"fact\": \"ram-mb\", \"ge\": 512}'")]
struct NewArgs {
    /// The release
    release: ReleaseSpec,
    #[command(flatten)]
    draft: DraftArgs,
}

/// What a draft starts with beside its artifacts.
#[derive(Debug, ClapArgs)]
struct DraftArgs {
    /// The build's id in the system that ran it
    #[arg(long, value_name = "TEXT", default_value = draft::BY_HAND)]
    build_id: Text,
    /// normal or security
    #[arg(long, value_name = "URGENCY", default_value = "normal", value_parser = parse_urgency)]
    urgency: RecordedUrgency,
    #[command(flatten)]
    details: DetailArgs,
    /// The sequence of a release that it may replace although its version is not higher (repeatable)
    #[arg(long, value_name = "SEQUENCE")]
    supersedes: Vec<u64>,
    /// A line of notes for people (repeatable)
    #[arg(long, value_name = "TEXT")]
    note: Vec<Text>,
}

impl DraftArgs {
    fn draft(&self, release: &ReleaseSpec) -> NewRelease {
        NewRelease {
            spec: release.clone(),
            build_id: self.build_id.clone(),
            source: self.details.source.clone(),
            provenance: self.details.provenance.clone(),
            urgency: self.urgency,
            eligibility: self.details.eligibility.clone(),
            upgrade_from: self.details.upgrade_from.clone(),
            supersedes: self.supersedes.iter().copied().collect(),
            notes: self.note.clone(),
        }
    }
}

/// Add an artifact: hash the file and keep its bytes
#[derive(Debug, ClapArgs)]
#[command(after_help = "Example:
  tidegate release add 1.2.0 build/rootfs.img --hardware board-a")]
struct AddArgs {
    /// The release
    release: ReleaseSpec,
    /// The file to add
    file: PathBuf,
    /// The hardware that it is for (repeatable)
    #[arg(long, value_name = "ID", required = true)]
    hardware: Vec<HardwareId>,
    /// Its name in the repository [default: the file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<ArtifactName>,
    /// Its media type [default: guessed from the name]
    #[arg(long, value_name = "TYPE")]
    media_type: Option<Text>,
    /// Replace the artifact of the same name
    #[arg(long)]
    replace: bool,
}

/// Add signatures of release keys until the threshold is met, on one machine or several
///
/// Without --key and --copy, signs with every key of the channel that can be used here.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  tidegate release sign 1.2.0
  tidegate release sign 1.2.0 --key release-1")]
struct SignArgs {
    /// The release
    release: ReleaseSpec,
    /// The key to sign with, as tidegate.toml names it (repeatable) [default: every key that can be used here]
    #[arg(long, value_name = "NAME")]
    key: Vec<String>,
    /// Add the signatures of a copy that was signed elsewhere with tidegate ceremony sign (repeatable)
    #[arg(long, value_name = "FILE")]
    copy: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// List the signed release in its channel; it is offered to nobody yet
///
/// Runs all checks first, as release validate does, unless a report that policy.toml accepts is there.
#[derive(Debug, ClapArgs)]
struct RegisterArgs {
    /// The release
    release: ReleaseSpec,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Run all checks and sign the report
#[derive(Debug, ClapArgs)]
struct ValidateArgs {
    /// The release
    release: ReleaseSpec,
    /// Then offer it to the validation cohort in policy.toml
    #[arg(long)]
    expose: bool,
    /// The key that signs the report [default: the channel's first rollout key]
    #[arg(long, value_name = "NAME")]
    key: Option<String>,
    /// Also write the report as JUnit XML, for a CI system to show
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// A sample of the fleet as CSV, of which every device must be able to update [default: validation.fleet in policy.toml]
    #[arg(long, value_name = "CSV")]
    fleet: Option<PathBuf>,
    #[arg(long, value_name = "PLACE", help = live!("Where it is published, to compare every byte there"))]
    published: Option<String>,
    /// The place of protected cohorts, for releases that are private there
    #[arg(long, value_name = "PLACE", requires = "published")]
    private: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(super) fn run(args: &Args, cx: &mut Context) -> Result<()> {
    match &args.command {
        Command::Create(args) => create::run(args, cx),
        Command::New(args) => new(args, cx),
        Command::Add(args) => add(args, cx),
        Command::Remove(args) => correct::remove(args, cx),
        Command::Edit(args) => correct::edit(args, cx),
        Command::Manifest(args) => manifest(args, cx),
        Command::Patch(args) => patch::run(args, cx),
        Command::Unfreeze(args) => correct::unfreeze(args, cx),
        Command::Drop(args) => correct::drop(args, cx),
        Command::Sign(args) => sign(args, cx),
        Command::Register(args) => register(args, cx),
        Command::Validate(args) => validate(args, cx),
        Command::Show(args) => show_one(args, cx),
        Command::List => list(cx),
        Command::Retract(args) => retract::run(args, cx),
        Command::Retire(args) => retire::run(args, cx),
    }
}

fn new(args: &NewArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let new = args.draft.draft(&args.release);
    let record = draft::new(&mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()), new)?;
    if cx.ui.is_json() {
        return cx.ui.json(&record);
    }
    cx.ui.status(format_args!("Started {} as a draft (build {})", record.id(), record.build_id));
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

fn add(args: &AddArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let mut bar = None;
    let new = NewArtifact {
        file: &args.file,
        name: args.name.clone(),
        hardware: args.hardware.iter().cloned().collect(),
        media_type: args.media_type.clone(),
        replace: args.replace,
    };
    let (record, artifact) = draft::add(
        &mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()),
        &args.release,
        &new,
        |progress| show::step(&cx.ui, &mut bar, progress),
    )?;
    drop(bar);
    if cx.ui.is_json() {
        return cx.ui.json(&artifact);
    }
    cx.ui.status(format_args!("Added {} to {}", artifact.name, record.id()));
    let hardware: Vec<_> = artifact.hardware.iter().map(HardwareId::as_str).collect();
    cx.ui.status(format_args!("  {} bytes, {}, for {}", artifact.length, artifact.media_type, hardware.join(", ")));
    if let Some(delivery) = &artifact.delivery {
        cx.ui.status(format_args!("  {}", describe_delivery(delivery)));
    }
    cx.ui.result(format_args!("{}  {}", artifact.sha256, artifact.name))?;
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

fn manifest(args: &ManifestArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let mut bar = None;
    let frozen = draft::manifest_from(
        &mut Operation::new(&workspace, &actor(), cx.now, &mut KeyRing::empty()),
        &args.release,
        &args.patches.bases(),
        |progress| show::step(&cx.ui, &mut bar, progress),
    )?;
    drop(bar);
    if cx.ui.is_json() {
        return cx.ui.json(&frozen_json(&frozen));
    }
    tell_compared(cx, &frozen);
    tell_frozen(cx, &workspace, &frozen)
}

/// Says what the differences are against.
fn tell_compared(cx: &Context, frozen: &Frozen) {
    match &frozen.previous {
        Some(previous) => cx.ui.status(format_args!("{} against {previous}:", frozen.record.id())),
        None => cx.ui.status(format_args!("{}, the first release of its product:", frozen.record.id())),
    }
}

fn frozen_json(frozen: &Frozen) -> Value {
    json!({
        "release": frozen.record.id().to_string(),
        "manifest": frozen.record.manifest,
        "previous": frozen.previous.as_ref().map(ToString::to_string),
        "differences": frozen.differences,
        "patches": frozen.patches,
        "proposal": {"role": frozen.proposal.role, "base_version": frozen.proposal.base_version, "threshold": frozen.threshold},
    })
}

/// Says what was frozen and proposed, and how it is signed.
fn tell_frozen(cx: &Context, workspace: &Workspace, frozen: &Frozen) -> Result<()> {
    for difference in &frozen.differences {
        cx.ui.result(difference)?;
    }
    for report in &frozen.patches {
        tell_patch(cx, workspace, report)?;
    }
    if let Some(manifest) = &frozen.record.manifest {
        cx.ui.status(format_args!("Froze the manifest: {} bytes, sha256 {}", manifest.length, manifest.sha256));
    }
    let proposal = &frozen.proposal;
    cx.ui.status(format_args!(
        "Proposed version {} of the role {}; it needs {} signatures",
        proposal.base_version + 1,
        proposal.role,
        frozen.threshold
    ));
    next::hint(cx, workspace, &frozen.record.id());
    Ok(())
}

/// Says what became of a patch that the manifest does not list.
fn tell_patch(cx: &Context, workspace: &Workspace, report: &PatchReport) -> Result<()> {
    let PatchReport { artifact, from, from_sha256, outcome, length, chunks } = report;
    let (length, chunks) = (length.unwrap_or_default(), chunks.unwrap_or_default());
    match outcome {
        PatchOutcome::Made => cx.ui.status(format_args!(
            "The patch of {artifact} from {from} has {length} bytes, the chunks in its place {chunks}"
        )),
        PatchOutcome::NotSmaller => cx.ui.status(format_args!(
            "No patch of {artifact} from {from}: it would have {length} bytes, and the chunks in its place have {chunks}"
        )),
        PatchOutcome::NotHere => {
            let place = if workspace.settings()?.publish.place.is_empty() { " PLACE" } else { "" };
            cx.ui.warn(format_args!(
                "no patch of {artifact} from {from}: its bytes (sha256 {from_sha256}) are not in this workspace; bring them: tidegate pull{place} \
                 --artifacts"
            ));
        }
    }
    Ok(())
}

fn sign(args: &SignArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let mut ring = workspace.ring(&workspace.settings()?, args.passphrase.source())?;
    let copies = args.copy.iter().map(|path| Ok((path.display().to_string(), super::ceremony::read_proposal(path)?)));
    let copies = copies.collect::<Result<Vec<_>>>()?;
    if (!args.key.is_empty() || copies.is_empty()) && !cx.ui.is_step() {
        show_proposal(args, cx, &workspace)?;
    }
    let signed =
        signing::sign(&mut Operation::new(&workspace, &actor(), cx.now, &mut ring), &args.release, &args.key, &copies)?;
    if cx.ui.is_json() {
        return cx.ui.json(&signatures(&signed, &ring));
    }
    if !signed.used.is_empty() {
        cx.ui.status(format_args!("Signed {} with {}", signed.record.id(), signed.used.join(", ")));
    }
    for (name, why) in &signed.unusable {
        cx.ui.status(format_args!("{name} cannot be used here: {why}"));
    }
    cx.ui.result(format_args!(
        "{} of {} signatures: {}",
        signed.signers.len(),
        signed.threshold,
        ring.labels(&signed.signers)
    ))?;
    next::hint(cx, &workspace, &signed.record.id());
    Ok(())
}

/// What the keys are about to sign, as those who sign elsewhere see it.
fn show_proposal(args: &SignArgs, cx: &Context, workspace: &Workspace) -> Result<()> {
    let id = args.release.find(workspace.dir())?.id();
    let path = workspace.dir().join(ReleaseProposal::file(&id));
    // Without a proposal, signing says what is missing.
    if !path.is_file() {
        return Ok(());
    }
    let proposal = super::ceremony::read_proposal(&path)?;
    let verified = proposal::verify(&proposal, Some(workspace.repository()?.anchor()?))?;
    for line in proposal::review(&proposal, &verified, cx.now)?.lines() {
        cx.ui.painted(line);
    }
    Ok(())
}

fn register(args: &RegisterArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let mut ring = workspace.ring(&workspace.settings()?, args.passphrase.source())?;
    let actor = actor();
    let mut op = Operation::new(&workspace, &actor, cx.now, &mut ring);
    let mut report = None;
    let (record, roles) = match signing::register(&mut op, &args.release) {
        Err(error) if error.broken_rule() == Some(Rule::ReleaseValidated) && !is_ahead(args, cx, &workspace)? => {
            let (record, made) = validate::validate(&mut op, &args.release, &validate::Options::default())?;
            if !cx.ui.is_json() {
                tell_checks(cx, &record, &made)?;
            }
            check_passed(&record, &made)?;
            report = Some(made);
            signing::register(&mut op, &args.release)?
        }
        registered => registered?,
    };
    if cx.ui.is_json() {
        return cx.ui.json(&json!({
            "release": record.id().to_string(),
            "state": record.state,
            "roles": roles,
            "report": report,
        }));
    }
    cx.ui.status(format_args!("Registered {}: its channel lists it; it is offered to nobody yet", record.id()));
    cx.ui.status(format_args!("  new versions of: {}", roles.join(", ")));
    next::hint(cx, &workspace, &record.id());
    let surplus =
        crate::release::retire::surplus(&workspace, &workspace.repository()?, &record.channel, &record.product)?;
    if surplus > 0 {
        cx.ui.status(format_args!("The channel lists {surplus} more than policy.toml keeps: tidegate release retire"));
    }
    Ok(())
}

fn validate(args: &ValidateArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open(&cx.dir)?;
    let settings = workspace.settings()?;
    let mut ring = workspace.ring(&settings, args.passphrase.source())?;
    let published = |place: &String| {
        let read = Place::parse(only_live(place)?)?.with_private(args.private.as_deref());
        Ok(Published { place: public_url(place), origin: read.origin()? })
    };
    let published = args.published.as_ref().map(published).transpose()?;
    let options = validate::Options { key: args.key.clone(), fleet: args.fleet.clone(), published };
    let (record, report) =
        validate::validate(&mut Operation::new(&workspace, &actor(), cx.now, &mut ring), &args.release, &options)?;
    if let Some(path) = &args.junit {
        crate::fs::write_atomic(path, validate::junit(&report).as_bytes())?;
    }
    if cx.ui.is_json() {
        cx.ui.json(&report)?;
    } else {
        cx.ui.status(format_args!("Validated {}, manifest sha256 {}", record.id(), report.manifest));
        show::findings(&cx.ui, &report)?;
    }
    check_passed(&record, &report)?;
    if args.expose {
        let transaction = RolloutTransaction::open(&workspace, &args.release, cx.now)?;
        let outcome = transaction.expose(&mut Operation::new(&workspace, &actor(), cx.now, &mut ring))?;
        for cohort in &outcome.cohorts {
            cx.ui.status(format_args!("The cohort {cohort} is offered it"));
        }
    }
    next::hint(cx, &workspace, &record.id());
    Ok(())
}

/// Whether the release's report is dated later than now: then the clock is wrong, which another report would hide.
fn is_ahead(args: &RegisterArgs, cx: &Context, workspace: &Workspace) -> Result<bool> {
    let record = args.release.find(workspace.dir())?;
    let report = report::load(workspace.dir(), &record, &workspace.repository()?)?;
    Ok(report.is_some_and(|report| report.at > cx.now))
}

/// Says how many checks passed, and which did not.
fn tell_checks(cx: &Context, record: &Record, report: &ValidationReport) -> Result<()> {
    let count = |verdict: Verdict| report.findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (passed, warned, failed) = (count(Verdict::Pass), count(Verdict::Warn), count(Verdict::Fail));
    cx.ui.status(format_args!(
        "Validated {}: {passed} checks passed, {failed} failed, {warned} to look at",
        record.id()
    ));
    let open = |finding: &&CheckResult| matches!(finding.verdict, Verdict::Warn | Verdict::Fail);
    for finding in report.findings.iter().filter(open) {
        let verdict = if finding.verdict == Verdict::Fail { "FAIL" } else { "warn" };
        let line = format!("  {verdict}  {}  {} ({})", finding.rule, finding.title, finding.detail);
        cx.ui.folded(&line, 8)?;
    }
    Ok(())
}

fn check_passed(record: &Record, report: &ValidationReport) -> Result<()> {
    let failed: Vec<_> = report.failed().map(|finding| finding.rule.as_str()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::refused(Rule::ReleaseValidated, format!("{} checks failed: {}", failed.len(), failed.join(", ")))
        .remedy(format!("fix what they name, then: tidegate release validate {}", record.id())))
}

fn show_one(args: &ReleaseArgs, cx: &Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let record = args.release.find(workspace.dir())?;
    let repository = workspace.repository()?;
    let ring = workspace.ring(&workspace.settings()?, Box::new(crate::keys::NoPassphrases))?;
    let signed = signing::signatures_of(&workspace, &record, &repository)?;
    let report = report::load(workspace.dir(), &record, &repository)?;
    if cx.ui.is_json() {
        let manifest = match record.manifest {
            Some(_) => Some(record.manifest(workspace.dir())?.0),
            None => None,
        };
        return cx.ui.json(&json!({
            "record": record,
            "manifest": manifest,
            "signatures": signed.as_ref().map(|signed| signatures(signed, &ring)),
            "report": report,
        }));
    }
    show::record(&cx.ui, &record)?;
    if let Some(signed) = &signed {
        let shown = if signed.signers.is_empty() { "none".into() } else { ring.labels(&signed.signers) };
        cx.ui.result(format_args!("signatures   {} of {}: {shown}", signed.signers.len(), signed.threshold))?;
    }
    if let Some(report) = &report {
        let failed = report.failed().count();
        let warned = report.findings.iter().filter(|finding| finding.verdict == Verdict::Warn).count();
        let at = tidegate_model::time::format(report.at);
        cx.ui.result(format_args!("validated    {at}: {failed} failed, {warned} to look at"))?;
    }
    Ok(())
}

fn list(cx: &Context) -> Result<()> {
    let workspace = Workspace::open_to_read(&cx.dir)?;
    let records = record::all(workspace.dir())?;
    if cx.ui.is_json() {
        return cx.ui.json(&records);
    }
    if records.is_empty() {
        cx.ui.status("There are no releases yet");
        next::hint_at_all(cx, &workspace);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    show::table(&cx.ui, &["RELEASE", "STATE", "SEQUENCE", "URGENCY", "ARTIFACTS", "BUILD"], &rows)
}

fn row(record: &Record) -> Vec<String> {
    let sequence = record.manifest.as_ref().map_or_else(|| "-".into(), |manifest| manifest.sequence.to_string());
    let urgency = tidegate_model::manifest::Urgency::from(record.urgency).to_string();
    vec![
        record.id().to_string(),
        record.status().to_string(),
        sequence,
        urgency,
        record.artifacts.len().to_string(),
        record.build_id.to_string(),
    ]
}

fn signatures(signed: &Signed, ring: &KeyRing) -> Value {
    let list = |ids: &[KeyId]| -> Vec<Value> {
        ids.iter()
            .map(|id| json!({"keyid": id.as_str(), "name": ring.by_id(id).map(|key| key.name.as_str())}))
            .collect()
    };
    json!({
        "release": signed.record.id().to_string(),
        "state": signed.record.state,
        "threshold": signed.threshold,
        "signed": list(&signed.signers),
        "missing": list(&signed.missing),
    })
}

fn parse_urgency(text: &str) -> Result<RecordedUrgency, String> {
    match text {
        "normal" => Ok(RecordedUrgency::Normal),
        "security" => Ok(RecordedUrgency::Security),
        _ => Err("take normal or security".into()),
    }
}

fn parse_condition(text: &str) -> Result<Condition, String> {
    let value = strict::parse(text.as_bytes()).map_err(|e| e.to_string())?;
    Condition::from_value(&value).map_err(|e| e.to_string())
}
