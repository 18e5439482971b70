//! The C interface of [`tidegate_client`]: a static and a shared library, and the header `include/tidegate.h`.
//!
//! The package's README says how to build and link it, and has the rules for threads, memory and errors. This is the only package of the
//! project with `unsafe` code: pointers become references in `pointer`, and callbacks are called in `progress` and `installer`.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic))]

mod cancel;
mod device;
mod failure;
mod installer;
mod pointer;
mod progress;
mod settings;

pub use cancel::{TidegateCancel, tidegate_cancel, tidegate_cancel_clear, tidegate_cancel_free, tidegate_cancel_new};
pub use device::{
    TidegateDevice, tidegate_check, tidegate_close, tidegate_confirm, tidegate_defer, tidegate_download,
    tidegate_install, tidegate_lift, tidegate_open, tidegate_reject, tidegate_status, tidegate_string_free,
    tidegate_version,
};
pub use failure::{TidegateStatus, tidegate_error_code, tidegate_error_hint, tidegate_error_message};
pub use installer::{TidegateInstalled, TidegateInstaller};
pub use progress::{TidegateProgress, TidegateWatch, tidegate_watch};
