//! What the integration tests share.

pub mod faulty;
pub mod forge;

pub use forge::Forge;

/// Says that a test does not run here, and why. In CI every test runs, so there it is a failure.
pub fn skip(reason: &str, tool: &str) {
    let required = std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_some_and(|value| value == "1");
    assert!(!required, "this test must run here: {reason} (TIDEGATE_REQUIRE_TOOLS is set)");
    eprintln!("SKIPPED, needs {tool}: {reason}");
}
