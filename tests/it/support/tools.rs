//! Programs from outside that some tests need.

use std::path::PathBuf;
use std::process::Command;

/// Whether `program` can be started; a test that needs it skips loudly if not. With `TIDEGATE_REQUIRE_TOOLS=1`, as in CI, a missing one
/// is a failure.
pub fn have(program: &str, probe: &str) -> bool {
    let found = Command::new(program).arg(probe).output().is_ok();
    missing_unless(found, program)
}

/// A Python that can import every one of `modules`; `TIDEGATE_PYTHON` names another interpreter than `python3`.
pub fn python(modules: &[&str]) -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("TIDEGATE_PYTHON").unwrap_or_else(|| "python3".into()));
    // Not from this folder, which is first in the path: it has a folder `tuf`, which is no python-tuf.
    let imports = format!("import sys; sys.path = [path for path in sys.path if path]; import {}", modules.join(", "));
    let found = Command::new(&python).args(["-c", &imports]).output().is_ok_and(|out| out.status.success());
    missing_unless(found, &format!("{} with {modules:?}", python.display())).then_some(python)
}

/// [`python`], with a module of at least this version.
pub fn python_with(module: &str, version: [u32; 3], modules: &[&str]) -> Option<PathBuf> {
    let python = python(modules)?;
    let [a, b, c] = version;
    let asks = format!(
        "import importlib.metadata as m; exit(tuple(map(int, m.version('{module}').split('.')[:3])) < ({a}, {b}, {c}))"
    );
    let found = Command::new(&python).args(["-c", &asks]).status().is_ok_and(|status| status.success());
    missing_unless(found, &format!("{} with {module} {a}.{b}.{c} or later", python.display())).then_some(python)
}

/// A program that a Python package brought, beside the interpreter that `TIDEGATE_PYTHON` names; else one on the path.
pub fn beside_python(program: &str, probe: &str) -> Option<PathBuf> {
    let beside = std::env::var_os("TIDEGATE_PYTHON")
        .map(|python| PathBuf::from(python).with_file_name(program))
        .filter(|path| path.exists());
    let program = beside.unwrap_or_else(|| program.into());
    let found = Command::new(&program).arg(probe).output().is_ok();
    missing_unless(found, &program.display().to_string()).then_some(program)
}

/// `found`; skips loudly if not.
pub fn missing_unless(found: bool, wanted: &str) -> bool {
    if !found {
        super::skip(&format!("{wanted} was not found"));
    }
    found
}
