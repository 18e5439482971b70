//! The builder for a device.

use std::cell::Cell;
use std::path::PathBuf;

use super::running::running;
use super::state::{Quarantine, Record};
use super::{DEFERRAL, Device, Status};
use crate::clock::{BUILT, BootInfo, Clock, FlooredClock, SystemClock};
use crate::disk::Disk;
use crate::error::Error;
use crate::facts::FactSource;
use crate::fetch::{AnyFetch, Fetch};
use crate::gate::{CurrentVisit, Gate, GatedFetch};
use crate::install::Installer;
use crate::policy::{Deferral, Policy};
use crate::receipts::{NoReceipts, ReceiptRecorder, ReceiptStatus};
use crate::retry::Retry;
use crate::state::Machine;
use crate::store::{DirStore, Keep, Kept, Repair, Store as _, StoreError};
use crate::updater::{Repository, Updater};
use crate::watch::Cancel;
use tidegate_model::decision::{Installed, Profile};
use tidegate_model::facts::Facts;
use tidegate_model::gate::Attestation;
use tidegate_model::name::{DeviceId, HardwareId, Name};
use tidegate_model::receipt::SignedReceipt;
use tidegate_model::time::UtcTime;
use tidegate_model::version::Version;
use tidegate_tuf::Limits;

/// The settings of a [`Device`]. Settings marked *needed* have no default.
#[derive(Default)]
pub struct DeviceBuilder {
    root: Option<Vec<u8>>,
    repository: Option<Repository>,
    state_dir: Option<PathBuf>,
    id: Option<DeviceId>,
    channel: Option<Name>,
    product: Option<Name>,
    hardware: Option<HardwareId>,
    running: Option<Installed>,
    facts: Facts,
    fact_sources: Vec<FactSource>,
    limits: Limits,
    disk: Disk,
    fetch: Option<Box<dyn Fetch + Send>>,
    clock: Option<Box<dyn Clock + Send>>,
    installer: Option<Box<dyn Installer + Send>>,
    policy: Policy,
    retry: Option<Retry>,
    reserve: u64,
    keep_fallback: bool,
    recorder: Option<Box<dyn ReceiptRecorder>>,
    gate: Option<Box<dyn Gate + Send>>,
    cancel: Cancel,
    boot: Option<Box<dyn Fn() -> BootInfo + Send>>,
}

impl std::fmt::Debug for DeviceBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceBuilder")
            .field("repository", &self.repository)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl DeviceBuilder {
    /// The root that the device is shipped with, preferably on storage that updates cannot write. *Needed.*
    ///
    /// All trust starts here: every run verifies the chain of later roots from this one.
    #[must_use]
    pub fn root(self, root: impl Into<Vec<u8>>) -> Self {
        Self { root: Some(root.into()), ..self }
    }

    /// Where the repository is. *Needed.*
    #[must_use]
    pub fn repository(self, repository: Repository) -> Self {
        Self { repository: Some(repository), ..self }
    }

    /// The folder for metadata, downloads and the device's state. It must survive updates. *Needed.*
    #[must_use]
    pub fn state_dir(self, folder: impl Into<PathBuf>) -> Self {
        Self { state_dir: Some(folder.into()), ..self }
    }

    /// The device's unique id; it determines the position in rollouts. *Needed.*
    #[must_use]
    pub fn id(self, id: DeviceId) -> Self {
        Self { id: Some(id), ..self }
    }

    /// The channel to follow. *Needed.*
    #[must_use]
    pub fn channel(self, channel: Name) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// The product to look for. *Needed.*
    #[must_use]
    pub fn product(self, product: Name) -> Self {
        Self { product: Some(product), ..self }
    }

    /// The hardware that artifacts must fit. *Needed.*
    #[must_use]
    pub fn hardware(self, hardware: HardwareId) -> Self {
        Self { hardware: Some(hardware), ..self }
    }

    /// The version and sequence of the factory image, with sequence 0 if it has none. *Needed.*
    ///
    /// After an installation the installed release counts, unless the factory image has a higher sequence.
    #[must_use]
    pub fn factory(self, version: Version, sequence: u64) -> Self {
        Self { running: Some(Installed { version, sequence }), ..self }
    }

    /// The device's own facts. Default: none.
    #[must_use]
    pub fn facts(self, facts: Facts) -> Self {
        Self { facts, ..self }
    }

    /// Where to collect the facts again when the device decides again after a download. Default: nowhere, so that they stay.
    #[must_use]
    pub fn fact_sources(self, fact_sources: Vec<FactSource>) -> Self {
        Self { fact_sources, ..self }
    }

    /// Bounds on what the repository can make the device do.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// How to fetch. Default: [`AnyFetch`].
    #[must_use]
    pub fn fetch(self, fetch: impl Fetch + Send + 'static) -> Self {
        Self { fetch: Some(Box::new(fetch)), ..self }
    }

    /// The clock. Default: the system's clock, but never earlier than [`BUILT`].
    #[must_use]
    pub fn clock(self, clock: impl Clock + Send + 'static) -> Self {
        Self { clock: Some(Box::new(clock)), ..self }
    }

    /// The installer. Without it, everything except [`Device::install`] works.
    #[must_use]
    pub fn installer(self, installer: impl Installer + Send + 'static) -> Self {
        Self { installer: Some(Box::new(installer)), ..self }
    }

    /// What the device's owner allows, and when. Default: everything, always. [`Device::check`] reports the result; the
    /// [`Agent`](crate::agent::Agent) obeys it.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// How often to retry an interrupted download. Default: never; the caller's next call resumes it.
    #[must_use]
    pub fn retry(self, retry: Retry) -> Self {
        Self { retry: Some(retry), ..self }
    }

    /// How many bytes of the state folder's file system downloads must leave free. Default: none.
    #[must_use]
    pub fn reserve(self, bytes: u64) -> Self {
        Self { reserve: bytes, ..self }
    }

    /// Whether to store a release before the slot that does not run is overwritten, where there is room. Default: it is filled as the
    /// bytes come, and meanwhile there is no fallback.
    #[must_use]
    pub fn keep_fallback(self, keep: bool) -> Self {
        Self { keep_fallback: keep, ..self }
    }

    /// How to sign receipts of install results. Without it, none are recorded.
    #[cfg(feature = "gate")]
    #[must_use]
    pub fn receipts(self, receipts: crate::receipts::Receipts) -> Self {
        Self { recorder: Some(Box::new(crate::receipts::SigningRecorder::new(receipts))), ..self }
    }

    /// How to access a protected cohort's files. Default: no access; the device keeps its release.
    ///
    /// These files are fetched like all others. A `GateClient` should therefore share its `HttpFetch` with [`fetch`](Self::fetch).
    #[must_use]
    pub fn gate(self, gate: impl Gate + Send + 'static) -> Self {
        Self { gate: Some(Box::new(gate)), ..self }
    }

    /// The token that ends what the device does, from another thread.
    #[must_use]
    pub fn cancel(self, cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), ..self }
    }

    /// What tells which boot this is, so that a device knows whether it was restarted. The default is the operating system, which tells it
    /// on Linux.
    #[must_use]
    pub fn boot(self, boot: impl Fn() -> BootInfo + Send + 'static) -> Self {
        Self { boot: Some(Box::new(boot)), ..self }
    }

    /// The disk with the state folder. Tests can inject faults here.
    #[must_use]
    pub fn disk(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    /// Opens and locks the state folder and reads the device's state.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] with all needed settings that are missing, by the names of their methods; [`Error::Store`] if the folder cannot be used or another process
    /// uses it.
    pub fn open(self) -> Result<Device, Error> {
        self.open_on(DirStore::open_on)
    }

    /// The same, for a device that installs nothing: where the state folder cannot be written, it keeps what it finds in memory, and
    /// [says so](super::Check::remarks).
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), except that the folder may be read-only.
    pub fn open_to_check(self) -> Result<Device, Error> {
        self.open_on(|disk, folder| match DirStore::open_on(disk, &folder) {
            Err(e) if e.is_read_only() => Ok(DirStore::observe(folder)),
            opened => opened,
        })
    }

    /// The same, even while another process uses the state folder. What it finds is kept in memory.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), except for the lock.
    pub fn open_in_memory(self) -> Result<Device, Error> {
        self.open_on(|_, folder| Ok(DirStore::observe(folder)))
    }

    /// What the device has and knows, even while another process uses the state folder. Changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), except for the lock.
    pub fn observe(self) -> Result<Status, Error> {
        let mut device = self.open_on(|_, folder| Ok(DirStore::observe(folder)))?;
        device.look();
        Ok(device.status())
    }

    /// The same, with the decision on the offers that were found last, without a request.
    ///
    /// # Errors
    ///
    /// As for [`observe`](Self::observe).
    pub fn observe_offers(self) -> Result<Status, Error> {
        let mut device = self.open_on(|_, folder| Ok(DirStore::observe(folder)))?;
        device.look();
        let (decision, undecided) = match device.check_offline() {
            Ok(check) => (Some(check.explanation), None),
            Err(error) => (None, Some(error.to_string())),
        };
        Ok(Status { decision, undecided, ..device.status() })
    }

    /// The status of the receipts and the unsent ones, even while another process uses the state folder. Changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`observe`](Self::observe).
    pub fn observe_receipts(self) -> Result<(Option<ReceiptStatus>, Vec<SignedReceipt>), Error> {
        let device = self.open_on(|_, folder| Ok(DirStore::observe(folder)))?;
        Ok((device.receipts(), device.waiting_receipts().to_vec()))
    }

    /// Defers the next release until `until`, or as long as the [`Policy`] allows, even while another process uses the state
    /// folder.
    ///
    /// # Errors
    ///
    /// As for [`observe`](Self::observe), and [`Error::State`] if no release is waiting for installation, or the policy does not
    /// let users defer this one, or no longer.
    pub fn defer(self, until: UtcTime) -> Result<Deferral, Error> {
        self.open_on(|_, folder| Ok(DirStore::observe(folder)))?.defer_pending(until)
    }

    /// The needed settings that are not there, by the words of their methods.
    fn missing(&self) -> Vec<&'static str> {
        let needed = [
            ("root", self.root.is_none()),
            ("repository", self.repository.is_none()),
            ("state_dir", self.state_dir.is_none()),
            ("id", self.id.is_none()),
            ("channel", self.channel.is_none()),
            ("product", self.product.is_none()),
            ("hardware", self.hardware.is_none()),
            ("factory", self.running.is_none()),
        ];
        needed.iter().filter(|(_, is_missing)| *is_missing).map(|(name, _)| *name).collect()
    }

    fn open_on(self, open: impl FnOnce(Disk, PathBuf) -> Result<DirStore, StoreError>) -> Result<Device, Error> {
        let missing = self.missing();
        let (Some(root), Some(repository), Some(state_dir), Some(factory)) =
            (self.root, self.repository, self.state_dir, self.running)
        else {
            return Err(not_set(&missing));
        };
        let (Some(id), Some(channel), Some(product), Some(hardware)) =
            (self.id, self.channel, self.product, self.hardware)
        else {
            return Err(not_set(&missing));
        };
        let mut profile = Profile {
            id,
            product,
            channel,
            hardware,
            installed: factory.clone(),
            own_facts: self.facts,
            attestation: None,
        };
        // Only the attestor sets this fact.
        profile.own_facts.remove(Attestation::FACT);
        let store = open(self.disk, state_dir)?;
        let (mut repairs, mut remarks) = (Vec::new(), Vec::new());
        let others = foreign(&store, &profile.id, &mut remarks);
        let record: Kept<Record> = kept(&store, "installed.json", others, &mut repairs)?;
        let quarantine: Kept<Quarantine> = kept(&store, "quarantine.json", others, &mut repairs)?;
        let machine: Kept<Machine> = kept(&store, "machine.json", others, &mut repairs)?;
        let overwritten = kept(&store, "overwritten.json", others, &mut repairs)?;
        remarks.extend(record.newer().or(quarantine.newer()).or(machine.newer()).map(newer));
        remarks.extend(store.is_read_only().then(|| read_only(&store)));
        let mut recorder = self.recorder.unwrap_or_else(|| Box::new(NoReceipts));
        recorder.open(&store, &mut repairs);
        profile.installed = running(record.value(), None, &profile, &factory);
        let fetch = self.fetch.unwrap_or_else(|| Box::new(AnyFetch::new()));
        profile.attestation = self.gate.as_ref().and_then(|gate| gate.attestation());
        let (has_gate, visit) = (self.gate.is_some(), CurrentVisit::default());
        let fetch = GatedFetch::new(fetch, self.gate, visit.clone());
        let clock = self.clock.unwrap_or_else(|| Box::new(FlooredClock::new(SystemClock::new(), BUILT)));
        let metadata = store.subfolder("metadata")?;
        let updater = Updater::new(root, repository, fetch, metadata, clock);
        let updater = updater.with_limits(self.limits).cancelled_by(&self.cancel);
        let mut installer = self.installer;
        if let Some(installer) = &mut installer {
            installer.cancelled_by(&self.cancel);
        }
        Ok(Device {
            profile,
            fact_sources: self.fact_sources.into_iter().map(|source| source.until(&self.cancel)).collect(),
            factory,
            updater,
            has_gate,
            visit,
            cancel: self.cancel,
            boot: self.boot,
            installer,
            store,
            record,
            quarantine,
            machine,
            overwritten,
            policy: self.policy,
            retry: self.retry.unwrap_or(Retry::NEVER),
            reserve: self.reserve,
            keep_fallback: self.keep_fallback,
            spent: Cell::default(),
            unusable: Cell::default(),
            is_barred: Cell::default(),
            repairs,
            remarks,
            place: None,
            unknown: None,
            recorder,
        })
    }
}

fn newer(schema: u64) -> String {
    format!("a newer version of this program wrote the device's state (schema {schema}): what is known of it counts")
}

fn read_only(store: &DirStore) -> String {
    let folder = store.folder().display();
    format!("{folder} cannot be written: what is found now is not kept, and nothing can be installed")
}

/// The file that names the device whose state it is.
const OWNER: &str = "device";
/// What is about one device. Trusted metadata and downloads are not.
const OWN: [&str; 6] =
    ["installed.json", "quarantine.json", "machine.json", "overwritten.json", "receipts.json", DEFERRAL];

/// Whether the state is that of another device, from which the folder was copied. Then it is removed.
fn foreign(store: &DirStore, id: &DeviceId, remarks: &mut Vec<String>) -> bool {
    let owner = store.load(OWNER, 256).ok().flatten().unwrap_or_default();
    if owner == id.as_str().as_bytes() {
        return false;
    }
    let is_foreign = !owner.is_empty();
    if is_foreign {
        let owner = String::from_utf8_lossy(&owner).into_owned();
        remarks.push(format!("the state folder is that of device {owner}: {id} starts from what its image says"));
    }
    // A view changes nothing. What cannot be written now is written at the next start.
    let removed =
        || OWN.iter().try_for_each(|name| store.remove(&format!("backup/{name}")).and_then(|()| store.remove(name)));
    if store.is_locked() && (!is_foreign || removed().is_ok()) {
        let _ = store.save(OWNER, id.as_str().as_bytes());
    }
    is_foreign
}

/// A value of this device's state.
fn kept<T: Keep>(
    store: &DirStore,
    name: &'static str,
    is_foreign: bool,
    repairs: &mut Vec<Repair>,
) -> Result<Kept<T>, StoreError> {
    if is_foreign { Ok(Kept::none(name)) } else { Kept::load(store, name, repairs) }
}

fn not_set(names: &[&str]) -> Error {
    Error::Setting(match names.split_last() {
        Some((last, names)) if !names.is_empty() => {
            format!("the device's {} and {last} are not set", names.join(", "))
        }
        _ => format!("the device's {} is not set", names.concat()),
    })
}
