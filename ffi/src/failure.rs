//! What went wrong: a status for every call, and the last error of each thread.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use tidegate_client::store::StoreError;
use tidegate_client::{Error, Fault};

/// What came of a call. The numbers never change; later versions may add some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub enum TidegateStatus {
    /// It worked. That there is nothing to install is no error, either.
    Ok = 0,
    /// An argument is null, not UTF-8, too long, or not JSON.
    BadArgument = 1,
    /// A setting is missing, unknown or wrong.
    Setting = 2,
    /// The network: a later attempt may work.
    Network = 3,
    /// The repository, or someone between it and the device: its files are missing or fail verification.
    Peer = 4,
    /// The device: its disk, its installer or a program.
    Device = 5,
    /// The call does not suit the device's present state.
    State = 6,
    /// The caller ended it. What was fetched is kept.
    Cancelled = 7,
    /// Another process uses the state folder, or another call uses the handle.
    Busy = 8,
    /// A fault of this library. Close the device, and open it again.
    Panic = 9,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    status: TidegateStatus,
    code: &'static str,
    message: String,
    hint: Option<&'static str>,
}

impl Failure {
    pub(crate) fn new(status: TidegateStatus, code: &'static str, message: impl Display) -> Self {
        Self { status, code, message: message.to_string(), hint: None }
    }

    pub(crate) fn argument(message: impl Display) -> Self {
        Self::new(TidegateStatus::BadArgument, "bad-argument", message)
    }

    pub(crate) fn setting(message: impl Display) -> Self {
        Self::new(TidegateStatus::Setting, "setting", message)
    }

    pub(crate) fn state(message: impl Display) -> Self {
        Self::new(TidegateStatus::State, "state", message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Cancelled(_) => TidegateStatus::Cancelled,
            Error::Store(StoreError::Locked { .. }) => TidegateStatus::Busy,
            Error::State(_) | Error::InvalidTransition(_) | Error::Outdated { .. } => TidegateStatus::State,
            error => match error.fault() {
                Fault::Peer => TidegateStatus::Peer,
                Fault::Network => TidegateStatus::Network,
                Fault::Device => TidegateStatus::Device,
                Fault::Caller | Fault::Nobody => TidegateStatus::Setting,
            },
        };
        Self { status, code: error.code(), message: error.to_string(), hint: error.hint() }
    }
}

/// The texts of the last error of a thread.
struct Last {
    code: CString,
    message: CString,
    hint: Option<CString>,
}

thread_local! {
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

/// Runs a call: no panic leaves it, and what went wrong is kept for this thread.
pub(crate) fn guarded(call: impl FnOnce() -> Result<(), Failure>) -> TidegateStatus {
    let panicked = |_| {
        let message = "a fault of this library: close the device, open it again, and report what was called";
        Err(Failure::new(TidegateStatus::Panic, "panic", message))
    };
    let (last, status) = match catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(panicked) {
        Ok(()) => (None, TidegateStatus::Ok),
        Err(Failure { status, code, message, hint }) => {
            let last = Last { code: to_c(code), message: to_c(&message), hint: hint.map(to_c) };
            (Some(last), status)
        }
    };
    // A thread that ends has no place for it any more.
    let _ = LAST.try_with(|kept| *kept.borrow_mut() = last);
    status
}

/// Runs a call that cannot fail and does not touch the last error, so that a caller can free things before it reads that.
pub(crate) fn quietly(call: impl FnOnce()) {
    // What panics here has nobody to tell.
    let _ = catch_unwind(AssertUnwindSafe(call));
}

/// A text as a C string. Zero bytes, which it cannot have, become spaces.
pub(crate) fn to_c(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

fn last(text: impl FnOnce(&Last) -> Option<&CString>) -> *const c_char {
    let found = LAST.try_with(|kept| kept.borrow().as_ref().and_then(text).map(|text| text.as_ptr()));
    found.ok().flatten().unwrap_or(ptr::null())
}

/// The stable name of this thread's last error, such as `no-room`; NULL after a call that worked. Like the texts below, it is valid until
/// this thread's next call that returns a status, and must not be freed.
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_error_code() -> *const c_char {
    last(|error| Some(&error.code))
}

/// What went wrong, for people: without passwords and queries of URLs. NULL after a call that worked.
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_error_message() -> *const c_char {
    last(|error| Some(&error.message))
}

/// What to do about it; NULL if the message says it already.
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_error_hint() -> *const c_char {
    last(|error| error.hint.as_ref())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    #[test]
    fn a_panic_becomes_a_status() {
        assert_eq!(guarded(|| panic!("within")), TidegateStatus::Panic);
        // SAFETY: the last error of this thread is a C string until the next call.
        let code = unsafe { CStr::from_ptr(tidegate_error_code()) };
        assert_eq!(code, c"panic");
        assert_eq!(guarded(|| Ok(())), TidegateStatus::Ok);
        assert!(
            tidegate_error_code().is_null() && tidegate_error_message().is_null() && tidegate_error_hint().is_null()
        );
    }
}
