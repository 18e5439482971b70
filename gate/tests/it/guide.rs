//! Runs the commands of `docs/gate.md`.

use std::path::Path;
use std::process::Command;

#[test]
fn guide_commands_work() {
    for tool in ["openssl", "curl", "jq"] {
        if Command::new(tool).arg("--version").output().is_err() {
            assert!(std::env::var_os("TIDEGATE_REQUIRE_TOOLS").is_none(), "{tool} is missing");
            eprintln!("SKIPPED: {tool} is missing");
            return;
        }
    }
    let guide = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gate.md")).unwrap();
    let (_, script) = guide.split_once("```sh guide\n").unwrap();
    let (script, _) = script.split_once("\n```").unwrap();
    // Use other ports than the page, so that tests can run in parallel.
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = script.replace("8443", &free()).replace("9464", &free());
    let program = Path::new(env!("CARGO_BIN_EXE_tidegate-gate")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let dir = tempfile::tempdir().unwrap();
    let out = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(dir.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{out:?}");
    assert!(output.contains("gate.toml is valid; cohorts: stable.canary") && output.contains("ready\n"), "{output}");
    // The output ends with the protected file.
    assert!(output.trim_end().ends_with("{}"), "{output}");
    // The gate stops when it has written everything.
    crate::support::TestSite::wait_until("the audit log is written", || {
        let audit = std::fs::read_to_string(dir.path().join("gate-trial/audit.jsonl")).unwrap();
        audit.contains("\"route\":\"repo\",\"status\":200")
    });
}
