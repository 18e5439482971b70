//! From pointers to references and back.

use std::ffi::{CStr, c_char};
use std::ptr;

use serde::Serialize;

use crate::failure::{Failure, to_c};

/// The longest text that is taken, in bytes.
pub(crate) const LONGEST: usize = 1_000_000;

/// The text behind a pointer.
///
/// # Safety
///
/// `text` is null or points at a string that ends with a zero byte, and stays as it is during the call.
pub(crate) unsafe fn text<'a>(text: *const c_char, name: &str) -> Result<&'a str, Failure> {
    if text.is_null() {
        return Err(Failure::argument(format!("{name} is null")));
    }
    // SAFETY: it is not null; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(text) }.to_bytes();
    if bytes.len() > LONGEST {
        return Err(Failure::argument(format!("{name} is longer than {LONGEST} bytes")));
    }
    std::str::from_utf8(bytes).map_err(|e| Failure::argument(format!("{name}: {e}")))
}

/// The handle behind a pointer.
///
/// # Safety
///
/// `handle` is null or came from this library and was not freed, and is not freed during the call.
pub(crate) unsafe fn handle<'a, T>(handle: *const T, name: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }.ok_or_else(|| Failure::argument(format!("{name} is null")))
}

/// A place for a result, which is set to null until there is one.
pub(crate) struct Place<T>(*mut *mut T);

impl<T> Place<T> {
    /// The place behind a pointer.
    ///
    /// # Safety
    ///
    /// `place` is null or points at a pointer that may be written during the call.
    pub(crate) unsafe fn new(place: *mut *mut T, name: &str) -> Result<Self, Failure> {
        if place.is_null() {
            return Err(Failure::argument(format!("{name} is null")));
        }
        // SAFETY: it is not null; the rest is the caller's promise.
        unsafe { place.write(ptr::null_mut()) };
        Ok(Self(place))
    }

    /// The same for a result that the caller may not want.
    ///
    /// # Safety
    ///
    /// As for [`new`](Self::new).
    pub(crate) unsafe fn optional(place: *mut *mut T) -> Option<Self> {
        // SAFETY: the caller's promise.
        unsafe { Self::new(place, "") }.ok()
    }

    fn put(self, value: *mut T) {
        // SAFETY: `new` was promised that it may be written during the call, which lasts still.
        unsafe { self.0.write(value) };
    }

    /// Gives the caller a value, which the caller frees.
    pub(crate) fn give(self, value: T) {
        self.put(Box::into_raw(Box::new(value)));
    }
}

impl Place<c_char> {
    /// Gives the caller a value as JSON, which the caller frees.
    pub(crate) fn give_json(self, value: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_string(value).map_err(Failure::state)?;
        self.put(to_c(&json).into_raw());
        Ok(())
    }
}

/// Frees what [`Place::give`] gave.
///
/// # Safety
///
/// `value` is null or came from [`Place::give`] or `Box::into_raw`, and is not used any more.
pub(crate) unsafe fn free<T>(value: *mut T) {
    if !value.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(value) });
    }
}
