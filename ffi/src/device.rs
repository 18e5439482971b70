//! A device, and what it does.

use std::ffi::{CString, c_char, c_void};
use std::sync::{Mutex, TryLockError};

use serde::Serialize;
use tidegate_client::agent::Next;
use tidegate_client::device::{Device, Downloaded, Record, Update};
use tidegate_client::state::State;
use tidegate_model::manifest::Urgency;
use tidegate_model::time;
use tidegate_model::version::{self, Version};

use crate::cancel::TidegateCancel;
use crate::failure::{Failure, TidegateStatus, guarded, quietly};
use crate::installer::{ForeignInstaller, TidegateInstaller};
use crate::pointer::{Place, free, handle, text};
use crate::progress::{TidegateProgress, tell};
use crate::settings::Settings;

/// An open device, whose state folder is locked. One thread at a time may use it; a second call at the same time, also one of a callback,
/// returns `TIDEGATE_STATUS_BUSY`.
pub struct TidegateDevice(Mutex<Open>);

struct Open {
    device: Device,
    /// What the last check decided to install.
    update: Option<Update>,
    downloaded: Option<Downloaded>,
}

/// An update that a check found.
#[derive(Serialize)]
struct Found<'a> {
    version: &'a Version,
    sequence: u64,
    urgency: Urgency,
    notes: &'a [String],
    length: u64,
    to_fetch: u64,
}

#[derive(Serialize)]
struct Files<'a> {
    version: &'a Version,
    sequence: u64,
    artifacts: Vec<File<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    path: String,
    length: u64,
}

/// What a step leads to.
#[derive(Serialize)]
struct Stepped<'a> {
    /// Whether the device must restart now.
    restart: bool,
    state: &'a State,
    installed: Option<Record>,
}

impl<'a> Stepped<'a> {
    fn new(device: &'a Device, next: Next) -> Self {
        let installed = device.status().installed;
        Self { restart: matches!(next, Next::Restart), state: &device.machine().state, installed }
    }
}

impl<'a> Found<'a> {
    fn new(update: &'a Update) -> Self {
        Self {
            version: &update.release.version,
            sequence: update.release.sequence,
            urgency: update.urgency,
            notes: &update.notes,
            length: update.artifacts.iter().fold(0, |sum, artifact| artifact.length.saturating_add(sum)),
            to_fetch: update.to_fetch,
        }
    }
}

impl<'a> Files<'a> {
    fn new(downloaded: &'a Downloaded) -> Self {
        let release = &downloaded.update().release;
        let file = |artifact: &'a tidegate_client::install::Artifact| File {
            name: &artifact.name,
            path: artifact.path.to_string_lossy().into_owned(),
            length: artifact.length,
        };
        Self {
            version: &release.version,
            sequence: release.sequence,
            artifacts: downloaded.artifacts().iter().map(file).collect(),
        }
    }
}

/// Calls with the device behind a pointer, unless another call uses it.
///
/// # Safety
///
/// As for [`handle`].
unsafe fn with(device: *const TidegateDevice, call: impl FnOnce(&mut Open) -> Result<(), Failure>) -> TidegateStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let device = unsafe { handle(device, "device") }?;
        match device.0.try_lock() {
            Ok(mut open) => call(&mut open),
            Err(TryLockError::WouldBlock) => {
                let why = "the device is used by another call: wait until that returns";
                Err(Failure::new(TidegateStatus::Busy, "busy", why))
            }
            Err(TryLockError::Poisoned(_)) => {
                let why = "an earlier call with this device failed by a fault of the library: close the device, and open it again";
                Err(Failure::new(TidegateStatus::Panic, "panic", why))
            }
        }
    })
}

/// The library's version, which must not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Opens a device, and locks its state folder. `settings` is a JSON object; ffi/README.md lists the settings. `installer` may be NULL: then the
/// settings may name one, and without any the device checks and downloads. It is copied. `cancel` may be NULL. The device must be
/// closed with `tidegate_close`.
///
/// # Safety
///
/// Pointers are null or valid; the functions of `installer` can be called with its context until the device is closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_open(
    settings: *const c_char,
    installer: *const TidegateInstaller,
    cancel: *const TidegateCancel,
    device: *mut *mut TidegateDevice,
) -> TidegateStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let (place, text) = unsafe { (Place::new(device, "device")?, text(settings, "settings")?) };
        // SAFETY: this function's contract.
        let (installer, cancel) = unsafe { (installer.as_ref(), cancel.as_ref()) };
        if installer.is_some_and(|installer| installer.install.is_none()) {
            return Err(Failure::argument("installer: install is null"));
        }
        let Settings { mut builder, has_installer } = Settings::read(text)?;
        if let Some(installer) = installer {
            if has_installer {
                return Err(Failure::setting("give either an installer, or the setting `slot` or `installer`"));
            }
            builder = builder.installer(ForeignInstaller(*installer));
        }
        if let Some(cancel) = cancel {
            builder = builder.cancel(&cancel.0);
        }
        let open = Open { device: builder.open()?, update: None, downloaded: None };
        place.give(TidegateDevice(Mutex::new(open)));
        Ok(())
    })
}

/// Closes a device and unlocks its state folder. NULL is allowed. No call may use the device.
///
/// # Safety
///
/// `device` is null or came from `tidegate_open`, was not closed, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_close(device: *mut TidegateDevice) {
    // SAFETY: this function's contract.
    quietly(|| unsafe { free(device) });
}

/// Finds out what runs, checks the repository, and decides. `*update` becomes NULL if there is nothing to install, else
/// `{"version": .., "sequence": .., "urgency": .., "notes": [..], "length": .., "to_fetch": ..}`: that is what `tidegate_download` downloads. `*check`
/// becomes what `tidegate-device check --json` prints. Either pointer may be NULL. Free the strings with `tidegate_string_free`.
///
/// # Safety
///
/// `device` is null or open; `check` and `update` are null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_check(
    device: *mut TidegateDevice,
    check: *mut *mut c_char,
    update: *mut *mut c_char,
) -> TidegateStatus {
    // SAFETY: this function's contract.
    let (check, update) = unsafe { (Place::optional(check), Place::optional(update)) };
    let call = |open: &mut Open| {
        (open.update, open.downloaded) = (None, None);
        let found = open.device.check()?;
        if let Some(place) = check {
            place.give_json(&found)?;
        }
        if let (Some(place), Some(update)) = (update, &found.update) {
            place.give_json(&Found::new(update))?;
        }
        open.update = found.update;
        Ok(())
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Downloads and verifies what the last check found. It resumes partial downloads. `progress` may be NULL. `*files` becomes
/// `{"version": .., "sequence": .., "artifacts": [{"name": .., "path": .., "length": ..}]}`; the pointer may be NULL.
///
/// # Safety
///
/// `device` is null or open; `progress` can be called with `context`; `files` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_download(
    device: *mut TidegateDevice,
    progress: TidegateProgress,
    context: *mut c_void,
    files: *mut *mut c_char,
) -> TidegateStatus {
    // SAFETY: this function's contract.
    let files = unsafe { Place::optional(files) };
    let call = |open: &mut Open| {
        open.downloaded = None;
        let nothing = || Failure::state("there is nothing to download: tidegate_check found no update");
        let update = open.update.as_ref().ok_or_else(nothing)?;
        let downloaded = open.device.download(update, &mut |at| tell(progress, context, at))?;
        let downloaded = open.downloaded.insert(downloaded);
        files.map_or(Ok(()), |place| place.give_json(&Files::new(downloaded)))
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Installs what was downloaded. It is on trial until `tidegate_confirm` or `tidegate_reject`. `*result` becomes
/// `{"restart": .., "state": .., "installed": ..}`: with `"restart": true`, the device must restart to run it. `progress` and `result` may be NULL.
///
/// # Safety
///
/// `device` is null or open; `progress` can be called with `context`; `result` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_install(
    device: *mut TidegateDevice,
    progress: TidegateProgress,
    context: *mut c_void,
    result: *mut *mut c_char,
) -> TidegateStatus {
    // SAFETY: this function's contract.
    let result = unsafe { Place::optional(result) };
    let call = |open: &mut Open| {
        let nothing = || Failure::state("nothing is downloaded: call tidegate_download first");
        let downloaded = open.downloaded.as_ref().ok_or_else(nothing)?;
        let next = open.device.install(downloaded, &mut |at| tell(progress, context, at))?;
        (open.update, open.downloaded) = (None, None);
        result.map_or(Ok(()), |place| place.give_json(&Stepped::new(&open.device, next)))
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Makes the running release permanent. `*record` becomes the record of what is installed; the pointer may be NULL.
///
/// # Safety
///
/// `device` is null or open; `record` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_confirm(device: *mut TidegateDevice, record: *mut *mut c_char) -> TidegateStatus {
    // SAFETY: this function's contract.
    let place = unsafe { Place::optional(record) };
    let call = |open: &mut Open| {
        let record = open.device.confirm()?;
        place.map_or(Ok(()), |place| place.give_json(&record))
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Makes the previous release run again, and quarantines the one on trial. `*result` becomes as after `tidegate_install`; the pointer may
/// be NULL.
///
/// # Safety
///
/// `device` is null or open; `result` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_reject(device: *mut TidegateDevice, result: *mut *mut c_char) -> TidegateStatus {
    // SAFETY: this function's contract.
    let result = unsafe { Place::optional(result) };
    let call = |open: &mut Open| {
        (open.update, open.downloaded) = (None, None);
        let next = open.device.reject()?;
        result.map_or(Ok(()), |place| place.give_json(&Stepped::new(&open.device, next)))
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Postpones the update that the last check found at the user's request, until a time such as `2027-01-31T08:00:00Z`, as far as the setting `policy`
/// lets users do that. Later checks say so in their `policy`; the caller must heed it. `*deferral` becomes `{"sequence": .., "since": .., "until": ..}`; the pointer
/// may be NULL.
///
/// # Safety
///
/// `device` is null or open; `until` is null or a C string; `deferral` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_defer(
    device: *mut TidegateDevice,
    until: *const c_char,
    deferral: *mut *mut c_char,
) -> TidegateStatus {
    // SAFETY: this function's contract.
    let place = unsafe { Place::optional(deferral) };
    let call = |open: &mut Open| {
        // SAFETY: this function's contract.
        let until = unsafe { text(until, "until") }?;
        let until = time::parse(until).map_err(|e| Failure::argument(format!("until: {e}")))?;
        let nothing = || Failure::state("there is nothing to defer: tidegate_check found no update");
        let deferral = open.device.defer(open.update.as_ref().ok_or_else(nothing)?, until)?;
        place.map_or(Ok(()), |place| place.give_json(&deferral))
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Lets a release in quarantine be tried again, by its version. The releases in quarantine are in the status.
///
/// # Safety
///
/// `device` is null or open; `release` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_lift(device: *mut TidegateDevice, release: *const c_char) -> TidegateStatus {
    let call = |open: &mut Open| {
        // SAFETY: this function's contract.
        let release = unsafe { text(release, "release") }?;
        let release = version::parse(release).map_err(|e| Failure::argument(format!("release: {e}")))?;
        Ok(open.device.lift(&release)?)
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// `*status` becomes what the device has and knows, without a request: much of what `tidegate-device status --json` prints.
///
/// # Safety
///
/// `device` is null or open; `status` is null or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_status(device: *mut TidegateDevice, status: *mut *mut c_char) -> TidegateStatus {
    let call = |open: &mut Open| {
        // SAFETY: this function's contract.
        let place = unsafe { Place::new(status, "status") }?;
        place.give_json(&open.device.status())
    };
    // SAFETY: this function's contract.
    unsafe { with(device, call) }
}

/// Frees a string that a call gave. NULL is allowed.
///
/// # Safety
///
/// `string` is null or came from a call of this library that says so, and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_string_free(string: *mut c_char) {
    quietly(|| {
        if !string.is_null() {
            // SAFETY: this function's contract.
            drop(unsafe { CString::from_raw(string) });
        }
    });
}
