//! Running Python with python-tuf, where it is to be had.

use std::path::PathBuf;
use std::process::Command;

/// A Python that can import every one of `modules`, or `None` where there is none.
///
/// The environment variable `TIDEGATE_PYTHON` names another interpreter than `python3`. With `TIDEGATE_REQUIRE_TOOLS=1`, as in CI,
/// a missing one is a failure, not a reason to skip.
pub fn with(modules: &[&str]) -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("TIDEGATE_PYTHON").unwrap_or_else(|| "python3".into()));
    let imports = format!("import {}", if modules.is_empty() { "sys".into() } else { modules.join(", ") });
    let found = Command::new(&python).args(["-c", &imports]).output().is_ok_and(|out| out.status.success());
    if found {
        return Some(python);
    }
    let wanted = format!("{} with {modules:?}", python.display());
    assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "{wanted} is required here and was not found");
    eprintln!("SKIPPED: this test needs {wanted}; set TIDEGATE_PYTHON to one that has it");
    None
}
