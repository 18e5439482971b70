//! The token that ends what a device does.

use std::ptr;

use tidegate_client::watch::Cancel;

use crate::failure::{TidegateStatus, guarded, quietly};
use crate::pointer::{free, handle};

/// Ends what a device does, from any thread, within a second. It may be freed before the devices that were opened with it.
#[derive(Debug)]
pub struct TidegateCancel(pub(crate) Cancel);

/// A token that is not cancelled. Free it with `tidegate_cancel_free`.
#[unsafe(no_mangle)]
pub extern "C" fn tidegate_cancel_new() -> *mut TidegateCancel {
    let mut token = ptr::null_mut();
    quietly(|| token = Box::into_raw(Box::new(TidegateCancel(Cancel::new()))));
    token
}

/// Ends what the devices with this token do: their calls return `TIDEGATE_STATUS_CANCELLED`, and so do later ones until
/// `tidegate_cancel_clear`. It waits for nothing, and any thread may call it.
///
/// # Safety
///
/// `token` is null or came from `tidegate_cancel_new` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_cancel(token: *const TidegateCancel) -> TidegateStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { handle(token, "token") }?.0.cancel();
        Ok(())
    })
}

/// Lets the devices with this token work again.
///
/// # Safety
///
/// `token` is null or came from `tidegate_cancel_new` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_cancel_clear(token: *const TidegateCancel) -> TidegateStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { handle(token, "token") }?.0.clear();
        Ok(())
    })
}

/// Frees a token. NULL is allowed.
///
/// # Safety
///
/// `token` is null or came from `tidegate_cancel_new`, was not freed, and is not used any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_cancel_free(token: *mut TidegateCancel) {
    // SAFETY: this function's contract.
    quietly(|| unsafe { free(token) });
}
