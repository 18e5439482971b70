//! The types of `status.json`: what a repository says, for pages and for scripts.
//!
//! Plain data. Instants are UTC texts, shares are parts per million, so that the JSON Schema in `docs/schemas/` says all of it.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use tidegate_model::time;

use crate::publish::PublicationStatus;
use crate::receipts::DeliveryTally;

/// What a repository says at one instant.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(title = "Tidegate status")]
pub struct State {
    /// The form of this document: 1.
    pub schema: u64,
    /// The version of the program that computed it.
    pub generator: String,
    /// What people call the place that it was read from.
    pub place: String,
    /// Whether that is what devices see.
    pub shows: Shown,
    /// As of when.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    /// Whether everything that was read verifies and fits together, expiry aside.
    pub sound: bool,
    /// What does not.
    pub faults: Vec<Problem>,
    /// Roles and keys.
    pub trust: Trust,
    /// What expires, the first first.
    pub due: Vec<Due>,
    /// The channels.
    pub channels: Vec<Channel>,
    /// What devices report of the releases; absent where no receipts are configured, and on pages for the public.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// What is not signed metadata and known only to the workspace; absent for a repository from outside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceState>,
}

/// Whether a state is the one that devices see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Shown {
    /// What was read.
    pub source: Source,
    /// Whether devices see it: what was read is what is published. Absent if that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<bool>,
    /// The version of its timestamp; absent if there is none that verifies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<u64>,
    /// When that timestamp was signed: since then it can be live.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub signed: Option<DateTime<Utc>>,
    /// Of a workspace: how far each of its places is behind it. Empty on pages for the public.
    pub places: Vec<PublicationStatus>,
}

/// What a state was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// What is published at a place.
    Place,
    /// What one snapshot lists, which need not be the one that is live.
    Snapshot,
    /// A workspace, of which not everything may be published.
    Workspace,
}

/// What devices report of the releases, by signed receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Health {
    /// Why nothing could be counted, if that is so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Receipts that count.
    pub counted: u64,
    /// Receipts that count for nothing; `tidegate receipts` says why.
    pub refused: u64,
    /// When the last of those that count was given, by the device's clock.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub newest: Option<DateTime<Utc>>,
    /// By release: those that somebody is offered, and those that devices reported. The curve of the same channel, product and sequence
    /// is the plan.
    pub releases: Vec<ReleaseHealth>,
}

/// What devices report of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReleaseHealth {
    /// The channel.
    pub channel: String,
    /// The product.
    pub product: String,
    /// The release's version.
    pub release: String,
    /// Its sequence.
    pub sequence: u64,
    /// The devices that the shares of the plan are taken of: those that reported any release of the product on the channel, and those
    /// that are enrolled and never reported anything.
    pub fleet: u64,
    /// All devices over time: the last entry is as of now.
    pub over_time: Vec<HealthPoint>,
    /// The same by cohort and hardware, the groups with most devices first.
    pub groups: Vec<GroupHealth>,
    /// How many groups are left out of `groups`.
    pub other_groups: u64,
    /// What fetching it took; absent if no device told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryTally>,
}

/// What devices of one kind of hardware in one cohort report of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GroupHealth {
    /// The cohort.
    pub cohort: String,
    /// The hardware.
    pub hardware: String,
    /// The devices over time: the last entry is as of now.
    pub over_time: Vec<HealthPoint>,
}

/// How many devices had reported what by an instant. An instant at which nothing changed is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HealthPoint {
    /// When.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    /// The part of the fleet that the plan had reached, in parts per million; absent for a group, and without a plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned_ppm: Option<u32>,
    /// Devices that installed it.
    pub installed: u64,
    /// Of these: devices that confirmed it.
    pub confirmed: u64,
    /// Devices that could not install it.
    pub failed: u64,
    /// Of those that installed it: devices that went back to what they had.
    pub rolled_back: u64,
}

/// Something that does not verify or does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// The role, target path or file.
    pub subject: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Roles and keys.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Trust {
    /// The version of the root that everything was verified from.
    pub anchor: u64,
    /// SHA-256 of that root's file.
    pub anchor_sha256: String,
    /// The roles: root, timestamp, snapshot, then targets and what it delegates to.
    pub roles: Vec<Role>,
    /// The keys that they declare.
    pub keys: Vec<Key>,
}

/// What a role is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RoleKind {
    /// Keys and thresholds of the top-level roles.
    Root,
    /// Which snapshot is the newest.
    Timestamp,
    /// Which versions of all roles belong together.
    Snapshot,
    /// Delegations to channels.
    Targets,
    /// What may be installed.
    Channel,
    /// Where the rollout stands.
    Cohort,
    /// A role that is none of Tidegate's layout.
    Other,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: RoleKind,
    /// Its file below `metadata/`.
    pub file: String,
    /// Its version.
    pub version: u64,
    /// When it was signed, if it says so.
    #[serde(with = "time::optional_text")]
    #[schemars(with = "Option<String>")]
    pub issued: Option<DateTime<Utc>>,
    /// When it expires.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub expires: DateTime<Utc>,
    /// Whether it has.
    pub expired: bool,
    /// How many of its keys must sign.
    pub threshold: u64,
    /// The ids of its keys.
    pub keys: Vec<String>,
    /// The ids of the keys that signed the version in force.
    pub signed_by: Vec<String>,
    /// The role that declares its keys.
    pub delegated_by: String,
    /// The paths that it may list; empty for top-level roles.
    pub paths: Vec<String>,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Key {
    /// The id that the metadata gives it.
    pub keyid: String,
    /// SHA-256 of its canonical key object: what to compare over the phone.
    pub fingerprint: String,
    /// The signature scheme, e.g. `ed25519`.
    pub scheme: String,
    /// What the workspace calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who holds it, as the signed metadata says, else the workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whether it is one of the example keys, whose private parts everyone knows.
    pub example: bool,
    /// The roles that it signs.
    pub roles: Vec<String>,
}

/// How soon something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// It has expired.
    Expired,
    /// Less than a quarter of its life is left.
    Soon,
    /// There is time.
    Later,
}

/// A role that will expire, or an offer that will end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Due {
    /// The role.
    pub role: String,
    /// Its offer, as `PRODUCT VERSION`, if it is not the role that ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offer: Option<String>,
    /// When.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub expires: DateTime<Utc>,
    /// How soon that is.
    pub urgency: Urgency,
    /// The command that renews it.
    pub remedy: String,
}

impl Due {
    /// What ends: the role, or its offer.
    pub fn subject(&self) -> String {
        self.offer.as_ref().map_or_else(|| self.role.clone(), |offer| format!("{} {offer}", self.role))
    }
}

/// A channel.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// The salt of its positions, in hex; absent if the cohort map could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// Its cohorts, in order: the first that matches a device wins.
    pub cohorts: Vec<Cohort>,
    /// Its products.
    pub products: Vec<Product>,
}

/// A cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cohort {
    /// Its name.
    pub name: String,
    /// Who belongs to it.
    pub members: Members,
    /// The gate through which its devices take what is meant for them, if it is protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// When its role expires, and every offer with it; absent if the role does not verify, or is protected and not here.
    #[serde(with = "time::optional_text")]
    #[schemars(with = "Option<String>")]
    pub expires: Option<DateTime<Utc>>,
}

/// Who belongs to a cohort.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Members {
    /// A share of the fleet.
    Share {
        /// In parts per million.
        ppm: u32,
    },
    /// The devices that it lists.
    Devices {
        /// How many.
        count: u64,
    },
    /// The devices whose facts fulfil a condition.
    Condition {
        /// The condition, in words.
        condition: String,
    },
}

/// A product on a channel.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Product {
    /// Its name.
    pub name: String,
    /// What the channel approves, the newest first.
    pub releases: Vec<Release>,
    /// What each cohort is offered, in the cohorts' order.
    pub cohorts: Vec<CohortOffers>,
    /// How each release that is offered spreads over the fleet.
    pub curves: Vec<Curve>,
}

/// A release that the channel approves.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// Its sequence.
    pub sequence: u64,
    /// `normal` or `security`.
    pub urgency: String,
    /// When its manifest was made.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub created: DateTime<Utc>,
    /// SHA-256 of its manifest.
    pub manifest_sha256: String,
    /// The build's id.
    pub build: String,
    /// What it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The statement of how it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Its files.
    pub artifacts: Vec<Artifact>,
    /// Which devices may have it, in words; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eligibility: Option<String>,
    /// From which versions it upgrades; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upgrade_from: Option<String>,
    /// The sequences that it may replace although their version is not lower.
    pub supersedes: Vec<u64>,
    /// Notes for people.
    pub notes: Vec<String>,
    /// The cohorts that are offered it.
    pub offered_to: Vec<String>,
    /// The part of the fleet, of devices that no cohort names, to which it is open now, in parts per million.
    pub exposed_ppm: u32,
}

/// A provenance statement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Provenance {
    /// Its `predicateType`.
    #[serde(rename = "type")]
    pub kind: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// The builder that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Artifact {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// The hardware it fits.
    pub hardware: Vec<String>,
    /// How it travels in fewer bytes; absent if it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<ArtifactDelivery>,
}

/// How an artifact travels in fewer bytes, by signed sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ArtifactDelivery {
    /// What its chunks and their index take, at most, in bytes.
    pub chunks: u64,
    /// Patches from what devices may run.
    pub patches: Vec<PatchState>,
}

/// A patch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PatchState {
    /// The version that it starts from.
    pub from: String,
    /// Its length in bytes.
    pub length: u64,
}

/// What a cohort is offered of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CohortOffers {
    /// The cohort.
    pub cohort: String,
    /// When the list was made; absent if there is none.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub assigned: Option<DateTime<Utc>>,
    /// The offers, in order: a device takes the first that it may install.
    pub offers: Vec<Offer>,
}

/// A release that a cohort is offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Offer {
    /// The release's version.
    pub release: String,
    /// The release's sequence.
    pub sequence: u64,
    /// `validation`, `limited`, `stable` or `security`.
    pub stage: String,
    /// When the cohort was first offered it.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub since: DateTime<Utc>,
    /// Whether nobody new is exposed for now.
    pub paused: bool,
    /// How exposure grows; absent for everyone at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ramp: Option<RampState>,
    /// When it ends unless it is renewed; absent if it does not end by itself.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub until: Option<DateTime<Utc>>,
    /// How much of the cohort it is open to now, or was when it was paused or ended, in parts per million.
    pub exposed_ppm: u32,
    /// Whether devices still act on it: it has not ended, and the cohort's role has not expired.
    pub in_force: bool,
}

/// How exposure grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RampState {
    /// From when on.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub start: DateTime<Utc>,
    /// Until when.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub end: DateTime<Utc>,
    /// From how many parts per million of the cohort.
    pub from_ppm: u32,
    /// To how many.
    pub to_ppm: u32,
}

/// How a release spreads over the fleet: straight lines between points. Devices that a cohort names are not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Curve {
    /// The release's version.
    pub release: String,
    /// Its sequence.
    pub sequence: u64,
    /// The points, in time. Two at one instant are a jump.
    pub points: Vec<CurvePoint>,
    /// The part of the fleet it is open to now, in parts per million.
    pub now_ppm: u32,
    /// And in the end, if nobody does anything but renew.
    pub final_ppm: u32,
    /// When exposure stops growing unless somebody renews; absent if it is done growing before.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub stops: Option<DateTime<Utc>>,
    /// Whether a cohort of it is paused.
    pub paused: bool,
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CurvePoint {
    /// When.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub at: DateTime<Utc>,
    /// Parts per million of the fleet.
    pub ppm: u32,
}

/// What only the workspace knows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct WorkspaceState {
    /// What people call the repository.
    pub name: String,
    /// The records of all releases.
    pub releases: Vec<RecordState>,
    /// What waits for signatures.
    pub proposals: Vec<ProposalState>,
    /// What happened.
    pub ledger: LedgerState,
}

/// A release's record.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RecordState {
    /// `CHANNEL/PRODUCT/VERSION`.
    pub release: String,
    /// Where it is in its life.
    pub state: String,
    /// Whether its rollout is paused.
    pub paused: bool,
    /// When it was last validated.
    #[serde(with = "time::optional_text", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub validated: Option<DateTime<Utc>>,
    /// Why the report cannot be relied on, if it cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_fault: Option<String>,
    /// What the validation found.
    pub findings: Vec<FindingState>,
}

/// A finding of a validation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FindingState {
    /// The rule.
    pub rule: String,
    /// Its kind.
    pub kind: String,
    /// What it asks for.
    pub title: String,
    /// `pass`, `warn`, `fail` or `not-applicable`.
    pub verdict: String,
    /// Why.
    pub detail: String,
}

/// A change that waits for signatures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ProposalState {
    /// Its file in the workspace.
    pub file: String,
    /// What it is about.
    pub subject: String,
    /// When it was proposed; absent if the file is damaged.
    #[serde(with = "time::optional_text")]
    #[schemars(with = "Option<String>")]
    pub proposed: Option<DateTime<Utc>>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The start of its digest, which signers compare.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What it takes.
    pub needs: Vec<Need>,
}

/// Signatures that a proposal takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Need {
    /// The role to be signed.
    pub role: String,
    /// Whose keys count.
    pub by: String,
    /// How many.
    pub threshold: u64,
    /// Who has signed.
    pub signed: Vec<String>,
    /// Who has not, yet could.
    pub missing: Vec<String>,
}

/// The ledger.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LedgerState {
    /// How many lines it has.
    pub count: u64,
    /// Where its chain is broken, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
    /// The hash of its last line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// The newest lines, the newest first.
    pub entries: Vec<LedgerEntry>,
}

/// A line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LedgerEntry {
    /// Its number.
    pub seq: u64,
    /// When.
    #[serde(with = "time::text")]
    #[schemars(with = "String")]
    pub time: DateTime<Utc>,
    /// By whom.
    pub actor: String,
    /// What was done.
    pub event: String,
    /// To what.
    pub subject: String,
    /// The state before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The state after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
