//! Progress: of the library to the caller, and of the caller's installer to the library.

use std::ffi::{c_char, c_int, c_void};
use std::ops::ControlFlow;

use serde_json::Value;
use tidegate_client::watch::{Phase, Progress, Watch};

use crate::failure::{Failure, guarded, to_c};
use crate::pointer::text;

/// Is told how far a step is, at least once a second: `phase` is `download`, `install` or `read-back`, `name` that of an artifact. Any other
/// result than 0 ends the step with `TIDEGATE_STATUS_CANCELLED`. The strings are valid during the call.
pub type TidegateProgress = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        phase: *const c_char,
        name: *const c_char,
        done: u64,
        total: u64,
    ) -> c_int,
>;

/// Tells the caller's function, if there is one.
pub(crate) fn tell(call: TidegateProgress, context: *mut c_void, progress: Progress<'_>) -> ControlFlow<()> {
    let Some(call) = call else { return ControlFlow::Continue(()) };
    let phase = match serde_json::to_value(progress.phase) {
        Ok(Value::String(phase)) => to_c(&phase),
        _ => return ControlFlow::Continue(()),
    };
    let name = to_c(progress.name);
    // SAFETY: the caller promises that its function can be called with its context, on this thread, during this call.
    match unsafe { call(context, phase.as_ptr(), name.as_ptr(), progress.done, progress.total) } {
        0 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    }
}

/// The installation in progress, for `tidegate_watch`.
#[derive(Debug)]
pub struct TidegateWatch<'a, 'b>(pub(crate) &'a mut Watch<'b>);

/// Tells, from within the installer's `install`, that `done` of `total` bytes of an artifact are installed. Any other result than 0 means that
/// the installation is to end: return `TIDEGATE_INSTALLED_CANCELLED`. Call it at least once a second.
///
/// # Safety
///
/// `watch` is null or what `install` was called with, which has not returned yet; `name` is null or a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tidegate_watch(
    watch: *mut TidegateWatch<'_, '_>,
    name: *const c_char,
    done: u64,
    total: u64,
) -> c_int {
    let status = guarded(|| {
        // SAFETY: this function's contract.
        let (watch, name) = unsafe { (watch.as_mut(), text(name, "name")?) };
        let watch = watch.ok_or_else(|| Failure::argument("watch is null"))?;
        let progress = Progress::new(Phase::Install, name, done, total);
        watch.0.at(progress).map_err(|cancelled| tidegate_client::Error::from(cancelled).into())
    });
    status as c_int
}
