//! An installer that the caller has written.

use std::ffi::{CStr, c_char, c_int, c_void};

use serde::Serialize;
use tidegate_client::install::{Artifact, InstallError, Installer, Place};
use tidegate_client::watch::{Cancelled, Watch};
use tidegate_model::version::Version;

use crate::failure::to_c;
use crate::progress::TidegateWatch;

/// What an installer's `install` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum TidegateInstalled {
    /// It is installed.
    Ok = 0,
    /// It failed, as does every number that is not listed here: the device tries again later.
    Failed = 1,
    /// This release can never be installed on this device: it is quarantined.
    Rejected = 2,
    /// `tidegate_watch` said that it is to end.
    Cancelled = 3,
}

/// An installer: functions that are called with `context`, by the thread that called the library, while it waits. Where one fails, it writes
/// why, as UTF-8 with a zero byte at its end, into the `size` bytes at `text`. None of them may use the device, or leave by `longjmp` or an
/// exception. `install` is needed; each of the others may be NULL.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct TidegateInstaller {
    /// What the functions are called with. It must be valid until the device is closed.
    pub context: *mut c_void,
    /// Installs a release: `{"version": .., "artifacts": [{"name": .., "path": .., "length": .., "sha256": ..}]}`. The files were verified
    /// when they were downloaded: verify what you read again. If the release needs a restart, the next restart runs it on trial.
    /// Returns a `TidegateInstalled`.
    pub install: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            release: *const c_char,
            watch: *mut TidegateWatch<'_, '_>,
            text: *mut c_char,
            size: usize,
        ) -> c_int,
    >,
    /// Writes into `text` the name of what runs now, such as a slot's: the old and the new release have different names. Nothing means that it
    /// cannot be told: then releases count as running at once, as they do where this is NULL. Any other result than 0 is a failure, and `text` says why.
    pub running: Option<unsafe extern "C" fn(context: *mut c_void, text: *mut c_char, size: usize) -> c_int>,
    /// Makes what runs permanent. It may be called again. Any other result than 0 is a failure. NULL: there is nothing to do.
    pub confirm: Option<unsafe extern "C" fn(context: *mut c_void, text: *mut c_char, size: usize) -> c_int>,
    /// Makes `before`, a name from `running`, run again, now or from the next restart on. It may be called again. Any other result than
    /// 0 is a failure. NULL: it cannot.
    pub revert: Option<
        unsafe extern "C" fn(context: *mut c_void, before: *const c_char, text: *mut c_char, size: usize) -> c_int,
    >,
}

/// The bytes that an installer's text may have.
const TEXT: usize = 1024;

/// A [`TidegateInstaller`] for the client.
pub(crate) struct ForeignInstaller(pub(crate) TidegateInstaller);

// SAFETY: the functions and their context are used by the thread alone that uses the device, one at a time, as the header says.
unsafe impl Send for ForeignInstaller {}

#[derive(Serialize)]
struct Release<'a> {
    version: &'a Version,
    artifacts: Vec<File<'a>>,
}

#[derive(Serialize)]
struct File<'a> {
    name: &'a str,
    path: &'a str,
    length: u64,
    sha256: Option<String>,
}

fn failed(text: String, what: &str) -> InstallError {
    InstallError::Unsuitable(if text.is_empty() {
        format!("the installer cannot {what}, and does not say why")
    } else {
        text
    })
}

/// Calls a function of an installer with a buffer. Returns its result, and what it wrote.
fn with_text(call: impl FnOnce(*mut c_char, usize) -> c_int) -> (c_int, String) {
    let mut buffer = [0_u8; TEXT];
    // The last byte stays zero, if the function keeps to its size.
    let result = call(buffer.as_mut_ptr().cast(), TEXT);
    let text = CStr::from_bytes_until_nul(&buffer).map_or(&buffer[..], CStr::to_bytes);
    (result, String::from_utf8_lossy(text).into_owned())
}

impl Installer for ForeignInstaller {
    fn install(
        &mut self,
        version: &Version,
        artifacts: &[Artifact],
        watch: &mut Watch<'_>,
    ) -> Result<(), InstallError> {
        let Some(install) = self.0.install else { return Err(failed(String::new(), "install")) };
        let mut files = Vec::new();
        for artifact in artifacts {
            let path = artifact.path.to_str().ok_or_else(|| {
                InstallError::Unsuitable(format!("{}: the path is not UTF-8", artifact.path.display()))
            })?;
            let sha256 = artifact.hashes.sha256_digest().map(|digest| tidegate_tuf::hash::to_hex(digest));
            files.push(File { name: &artifact.name, path, length: artifact.length, sha256 });
        }
        let release = serde_json::to_string(&Release { version, artifacts: files });
        let release = to_c(&release.map_err(|e| InstallError::Unsuitable(e.to_string()))?);
        let mut watch = TidegateWatch(watch);
        // SAFETY: the caller promises that its functions can be called with its context until the device is closed.
        let (result, text) =
            with_text(|text, size| unsafe { install(self.0.context, release.as_ptr(), &raw mut watch, text, size) });
        match result {
            0 => Ok(()),
            _ if result == TidegateInstalled::Cancelled as c_int => Err(Cancelled.into()),
            _ if result == TidegateInstalled::Rejected as c_int => Err(InstallError::Rejected(text)),
            _ => Err(failed(text, "install")),
        }
    }

    fn running(&mut self) -> Result<Option<Place>, InstallError> {
        let Some(running) = self.0.running else { return Ok(None) };
        // SAFETY: as above.
        match with_text(|text, size| unsafe { running(self.0.context, text, size) }) {
            (0, place) if place.is_empty() => Ok(None),
            (0, place) => Ok(Some(place)),
            (_, why) => Err(failed(why, "tell what runs")),
        }
    }

    fn confirm(&mut self) -> Result<(), InstallError> {
        let Some(confirm) = self.0.confirm else { return Ok(()) };
        // SAFETY: as above.
        match with_text(|text, size| unsafe { confirm(self.0.context, text, size) }) {
            (0, _) => Ok(()),
            (_, why) => Err(failed(why, "confirm")),
        }
    }

    fn revert(&mut self, before: &Place) -> Result<(), InstallError> {
        let Some(revert) = self.0.revert else {
            return Err(InstallError::Unsuitable(format!("this installer cannot restore {before}")));
        };
        let before = to_c(before);
        // SAFETY: as above.
        match with_text(|text, size| unsafe { revert(self.0.context, before.as_ptr(), text, size) }) {
            (0, _) => Ok(()),
            (_, why) => Err(failed(why, "revert")),
        }
    }
}
