//! What careless or hostile callers do: every null pointer, bad texts, calls in the wrong order, reentry, and secrets.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, Ordering};

use serde_json::{Value, json};
use tidegate_ffi::{
    TidegateCancel, TidegateDevice, TidegateInstaller, TidegateStatus, TidegateWatch, tidegate_cancel,
    tidegate_cancel_clear, tidegate_cancel_free, tidegate_cancel_new, tidegate_check, tidegate_close, tidegate_confirm,
    tidegate_defer, tidegate_download, tidegate_error_code, tidegate_error_hint, tidegate_error_message,
    tidegate_install, tidegate_lift, tidegate_open, tidegate_reject, tidegate_status, tidegate_string_free,
    tidegate_version, tidegate_watch,
};

use crate::mirror::scratch;
use crate::support::{settings, simulator};

/// A text of the library, without freeing it.
fn shown(text: *const c_char) -> Option<String> {
    // SAFETY: the library's texts are C strings, and no call comes between.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned())
}

/// A result of the library, which is freed.
fn taken(text: *mut c_char) -> Option<Value> {
    let value = shown(text).map(|text| serde_json::from_str(&text).unwrap());
    // SAFETY: it came from a call that says so.
    unsafe { tidegate_string_free(text) };
    value
}

fn failed(status: TidegateStatus, expected: TidegateStatus, said: &str) {
    let message = shown(tidegate_error_message()).unwrap_or_default();
    assert_eq!(status, expected, "{message}");
    assert!(message.contains(said), "{message}");
    assert!(shown(tidegate_error_code()).is_some());
}

fn open_with(
    settings: &str,
    installer: *const TidegateInstaller,
    cancel: *const TidegateCancel,
) -> (TidegateStatus, *mut TidegateDevice) {
    let (text, mut device) = (CString::new(settings).unwrap(), null_mut());
    // SAFETY: all are valid or null.
    let status = unsafe { tidegate_open(text.as_ptr(), installer, cancel, &raw mut device) };
    (status, device)
}

fn close(device: *mut TidegateDevice) {
    // SAFETY: it is open or null, and used no more.
    unsafe { tidegate_close(device) };
}

/// A repository in a folder, and settings for it.
fn repository(folder: &Path) -> Value {
    let sim = simulator(b"an image");
    for (path, bytes) in &sim.files {
        let path = folder.join("repository").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(folder.join("root.json"), sim.root(1)).unwrap();
    settings(folder, folder.join("repository").to_str().unwrap())
}

fn check(device: *mut TidegateDevice) -> (TidegateStatus, Option<Value>) {
    let mut update = null_mut();
    // SAFETY: the device is open; a null pointer is allowed.
    let status = unsafe { tidegate_check(device, null_mut(), &raw mut update) };
    (status, taken(update))
}

fn download(device: *mut TidegateDevice) -> TidegateStatus {
    // SAFETY: the device is open.
    unsafe { tidegate_download(device, None, null_mut(), null_mut()) }
}

fn install(device: *mut TidegateDevice) -> TidegateStatus {
    // SAFETY: the device is open.
    unsafe { tidegate_install(device, None, null_mut(), null_mut()) }
}

#[test]
fn a_null_pointer_is_an_error_or_allowed() {
    let bad = |status, said: &str| failed(status, TidegateStatus::BadArgument, said);
    let folder = scratch();
    let settings = repository(folder.path()).to_string();
    let text = CString::new(settings.as_str()).unwrap();
    let mut device = null_mut();
    // SAFETY: null is what these functions say to check.
    unsafe {
        bad(tidegate_open(null(), null(), null(), &raw mut device), "settings is null");
        bad(tidegate_open(text.as_ptr(), null(), null(), null_mut()), "device is null");
        let none = TidegateInstaller { context: null_mut(), install: None, running: None, confirm: None, revert: None };
        bad(tidegate_open(text.as_ptr(), &raw const none, null(), &raw mut device), "install is null");
        assert!(device.is_null());
        bad(tidegate_check(null_mut(), null_mut(), null_mut()), "device is null");
        bad(tidegate_download(null_mut(), None, null_mut(), null_mut()), "device is null");
        bad(tidegate_install(null_mut(), None, null_mut(), null_mut()), "device is null");
        bad(tidegate_confirm(null_mut(), null_mut()), "device is null");
        bad(tidegate_reject(null_mut(), null_mut()), "device is null");
        bad(tidegate_defer(null_mut(), c"2027-01-01T00:00:00Z".as_ptr(), null_mut()), "device is null");
        bad(tidegate_lift(null_mut(), c"1.0.0".as_ptr()), "device is null");
        bad(tidegate_status(null_mut(), null_mut()), "device is null");
        bad(tidegate_cancel(null()), "token is null");
        bad(tidegate_cancel_clear(null()), "token is null");
        assert_eq!(tidegate_watch(null_mut(), c"image".as_ptr(), 0, 1), TidegateStatus::BadArgument as c_int);
        // What is freed may be null, and leaves the last error as it is.
        tidegate_close(null_mut());
        tidegate_cancel_free(null_mut());
        tidegate_string_free(null_mut());
        assert_eq!(shown(tidegate_error_message()).unwrap(), "watch is null");
    }
    let (status, device) = open_with(&settings, null(), null());
    assert_eq!(status, TidegateStatus::Ok);
    assert!(tidegate_error_message().is_null());
    // SAFETY: the device is open.
    unsafe {
        bad(tidegate_status(device, null_mut()), "status is null");
        bad(tidegate_lift(device, null()), "release is null");
        bad(tidegate_defer(device, null(), null_mut()), "until is null");
        assert_eq!(tidegate_check(device, null_mut(), null_mut()), TidegateStatus::Ok);
    }
    close(device);
    assert_eq!(shown(tidegate_version()).unwrap(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn bad_settings_are_errors_that_name_them() {
    let folder = scratch();
    let good = repository(folder.path());
    let refused = |settings: &str, status, said: &str| {
        let (found, device) = open_with(settings, null(), null());
        failed(found, status, said);
        assert!(device.is_null());
    };
    let (argument, setting) = (TidegateStatus::BadArgument, TidegateStatus::Setting);
    let mut device = null_mut();
    // SAFETY: a C string that is not UTF-8.
    let status = unsafe { tidegate_open(c"{\xff}".as_ptr(), null(), null(), &raw mut device) };
    failed(status, argument, "settings: invalid utf-8");
    refused("", argument, "settings: ");
    refused("{", argument, "settings: ");
    refused(&"[".repeat(500_000), argument, "settings: ");
    refused(&format!("\"{}\"", "x".repeat(1_000_000)), argument, "longer than 1000000 bytes");
    refused("[]", setting, "an object");
    let changed = |key: &str, value: Value| {
        let mut settings = good.clone();
        settings[key] = value;
        settings.to_string()
    };
    for key in good.as_object().unwrap().keys() {
        refused(&changed(key, json!(1)), setting, key);
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(key);
        refused(&without.to_string(), setting, key);
    }
    refused("{}", setting, "missing settings: root, repository, state_dir, device_id, channel");
    refused(&changed("slots", json!({})), setting, "slots");
    refused(&changed("network", json!({"proxy": "socks5://127.0.0.1"})), setting, "network.proxy");
    refused(&changed("network", json!({"ca": folder.path().join("root.json")})), setting, "network.ca");
    refused(&changed("policy", json!({"windows": "never"})), setting, "policy.windows");
    refused(&changed("installer", json!({"kind": "magic"})), setting, "tidegate_open");
    refused(&changed("installer", json!({"kind": "slots", "images": [], "boot": []})), setting, "installer.boot");
    refused(&changed("root", json!("/no/such/root")), TidegateStatus::Device, "/no/such/root");
    let both = changed("slot", json!(folder.path().join("slot")));
    let stub =
        TidegateInstaller { context: null_mut(), install: Some(nothing), running: None, confirm: None, revert: None };
    let (status, _) = open_with(&both, &raw const stub, null());
    failed(status, setting, "either an installer");
}

#[test]
fn errors_keep_secrets() {
    let folder = scratch();
    let mut settings = repository(folder.path());
    let secret = "hunter2";
    for url in [
        format!("https://user:{secret}@127.0.0.1:9/repository?token={secret}"),
        format!("https://user:{secret}@127.0.0.1:9/ repository"),
        format!("ftp://user:{secret}@127.0.0.1:9"),
        format!("http://user:{secret}@127.0.0.1:9"),
    ] {
        settings["repository"] = json!(url);
        let (status, device) = open_with(&settings.to_string(), null(), null());
        let status = if device.is_null() { status } else { check(device).0 };
        failed(status, status, "127.0.0.1");
        assert_ne!(status, TidegateStatus::Ok);
        for text in [tidegate_error_message(), tidegate_error_hint()] {
            assert!(!shown(text).unwrap_or_default().contains(secret), "{url}: {:?}", shown(text));
        }
        close(device);
    }
    settings["network"] = json!({"proxy": format!("socks5://user:{secret}@127.0.0.1")});
    let (status, _) = open_with(&settings.to_string(), null(), null());
    failed(status, TidegateStatus::Setting, "network.proxy");
    assert!(!shown(tidegate_error_message()).unwrap().contains(secret), "{:?}", shown(tidegate_error_message()));
}

#[test]
fn calls_in_the_wrong_order_are_errors_of_state() {
    let folder = scratch();
    let mut settings = repository(folder.path());
    settings["slot"] = json!(folder.path().join("slot"));
    let (_, device) = open_with(&settings.to_string(), null(), null());
    let state = TidegateStatus::State;
    failed(download(device), state, "tidegate_check found no update");
    failed(install(device), state, "tidegate_download first");
    // SAFETY: the device is open.
    unsafe {
        failed(tidegate_confirm(device, null_mut()), state, "nothing is installed");
        failed(tidegate_reject(device, null_mut()), state, "nothing to reject");
        failed(tidegate_lift(device, c"1.1.0".as_ptr()), state, "1.1.0");
        failed(tidegate_lift(device, c"one".as_ptr()), TidegateStatus::BadArgument, "release: ");
    }
    let (status, second) = open_with(&settings.to_string(), null(), null());
    failed(status, TidegateStatus::Busy, "");
    assert!(second.is_null());
    assert_eq!(check(device).1.unwrap()["version"], "1.1.0");
    assert_eq!((download(device), install(device)), (TidegateStatus::Ok, TidegateStatus::Ok));
    failed(install(device), state, "tidegate_download first");
    close(device);
}

/// What the functions of an installer below use: the device, and what is to be said.
#[derive(Default)]
struct Board {
    device: AtomicPtr<TidegateDevice>,
    place: std::sync::Mutex<&'static str>,
    result: std::sync::atomic::AtomicI32,
    inner: std::sync::atomic::AtomicI32,
}

fn board<'a>(context: *mut c_void) -> &'a Board {
    // SAFETY: the context of these tests is a board, which lives longer than its device.
    unsafe { &*context.cast::<Board>() }
}

unsafe extern "C" fn nothing(
    _: *mut c_void,
    _: *const c_char,
    _: *mut TidegateWatch<'_, '_>,
    _: *mut c_char,
    _: usize,
) -> c_int {
    0
}

/// Uses the device that waits for it, and writes a text that fills the buffer to its last byte.
unsafe extern "C" fn install_and_fill(
    context: *mut c_void,
    release: *const c_char,
    watch: *mut TidegateWatch<'_, '_>,
    text: *mut c_char,
    size: usize,
) -> c_int {
    let board = board(context);
    let (status, _) = check(board.device.load(Ordering::SeqCst));
    board.inner.store(status as c_int, Ordering::SeqCst);
    let release: Value = serde_json::from_str(&shown(release).unwrap()).unwrap();
    assert_eq!(release["artifacts"][0]["length"], 8);
    // SAFETY: within the call, with its watch; the buffer has this size.
    unsafe {
        assert_eq!(tidegate_watch(watch, c"image".as_ptr(), 8, 8), 0);
        assert_eq!(tidegate_watch(watch, null(), 8, 8), TidegateStatus::BadArgument as c_int);
        text.write_bytes(0xc3, size);
    }
    let result = board.result.load(Ordering::SeqCst);
    if result == 0 {
        *board.place.lock().unwrap() = "b";
    }
    result
}

unsafe extern "C" fn running(context: *mut c_void, text: *mut c_char, _: usize) -> c_int {
    // SAFETY: there is room for two bytes.
    unsafe { text.write(board(context).place.lock().unwrap().as_bytes()[0].cast_signed()) };
    0
}

unsafe extern "C" fn revert(context: *mut c_void, before: *const c_char, _: *mut c_char, _: usize) -> c_int {
    assert_eq!(shown(before).unwrap(), "a");
    *board(context).place.lock().unwrap() = "a";
    0
}

unsafe extern "C" fn stop(_: *mut c_void, _: *const c_char, _: *const c_char, _: u64, _: u64) -> c_int {
    -1
}

#[test]
fn an_installer_of_the_caller_fails_reverts_and_is_not_reentered() {
    let folder = scratch();
    let settings = repository(folder.path()).to_string();
    let board = Board { place: std::sync::Mutex::new("a"), ..Board::default() };
    let installer = TidegateInstaller {
        context: (&raw const board).cast_mut().cast(),
        install: Some(install_and_fill),
        running: Some(running),
        confirm: None,
        revert: Some(revert),
    };
    let (_, device) = open_with(&settings, &raw const installer, null());
    board.device.store(device, Ordering::SeqCst);
    check(device);
    // SAFETY: the device is open.
    let stopped = unsafe { tidegate_download(device, Some(stop), null_mut(), null_mut()) };
    failed(stopped, TidegateStatus::Cancelled, "cancelled");
    assert_eq!(download(device), TidegateStatus::Ok);
    board.result.store(77, Ordering::SeqCst);
    failed(install(device), TidegateStatus::Device, "\u{fffd}\u{fffd}");
    assert_eq!(board.inner.load(Ordering::SeqCst), TidegateStatus::Busy as c_int);
    board.result.store(0, Ordering::SeqCst);
    assert_eq!(install(device), TidegateStatus::Ok);
    let (mut result, mut status) = (null_mut(), null_mut());
    // SAFETY: the device is open.
    unsafe {
        assert_eq!(tidegate_reject(device, &raw mut result), TidegateStatus::Ok);
        assert_eq!(tidegate_status(device, &raw mut status), TidegateStatus::Ok);
    }
    assert_eq!(taken(result).unwrap()["restart"], false);
    assert_eq!(taken(status).unwrap()["quarantined"][0]["version"], "1.1.0");
    assert_eq!(*board.place.lock().unwrap(), "a");
    assert_eq!(check(device), (TidegateStatus::Ok, None));
    // SAFETY: the device is open.
    assert_eq!(unsafe { tidegate_lift(device, c"1.1.0".as_ptr()) }, TidegateStatus::Ok);
    assert!(check(device).1.is_some());
    close(device);
}

#[test]
fn a_user_defers_an_update_as_far_as_the_policy_lets() {
    let folder = scratch();
    let mut settings = repository(folder.path());
    let later = c"2100-01-01T00:00:00Z".as_ptr();
    for limit in [None, Some("2d")] {
        settings["policy"] = limit.map_or(json!({}), |limit| json!({"deferral": {"limit": limit}}));
        let (_, device) = open_with(&settings.to_string(), null(), null());
        let mut deferral = null_mut();
        // SAFETY: the device is open.
        unsafe {
            failed(tidegate_defer(device, later, null_mut()), TidegateStatus::State, "found no update");
            failed(tidegate_defer(device, c"soon".as_ptr(), null_mut()), TidegateStatus::BadArgument, "until: ");
            check(device);
            let status = tidegate_defer(device, later, &raw mut deferral);
            if limit.is_none() {
                failed(status, TidegateStatus::State, "policy.deferral.limit");
                assert!(deferral.is_null());
            } else {
                assert_eq!(status, TidegateStatus::Ok);
                let deferral = taken(deferral).unwrap();
                assert_eq!(deferral["sequence"], 1);
                assert!(deferral["until"].as_str().unwrap() < "2100", "{deferral}");
            }
        }
        close(device);
    }
}

#[test]
fn a_token_ends_calls_until_it_is_cleared() {
    let folder = scratch();
    let settings = repository(folder.path()).to_string();
    let token = tidegate_cancel_new();
    let (_, device) = open_with(&settings, null(), token);
    // SAFETY: the token and the device are valid.
    unsafe { tidegate_cancel(token) };
    failed(check(device).0, TidegateStatus::Cancelled, "cancelled");
    // SAFETY: as above. The device keeps what it needs of the token.
    unsafe {
        tidegate_cancel_clear(token);
        tidegate_cancel_free(token);
    }
    assert_eq!(check(device).0, TidegateStatus::Ok);
    close(device);
}
