//! The ten minutes of `docs/gate.md`, as a new user would type them.

use std::path::Path;
use std::process::Command;

#[test]
fn the_guide_works_as_it_is_written() {
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
    // Other ports than those of the page: it may run beside others.
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
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{out:?}");
    assert!(said.contains("gate.toml is valid; cohorts: stable.canary") && said.contains("ready\n"), "{said}");
    // The protected file itself.
    assert!(said.trim_end().ends_with("{}"), "{said}");
    let audit = std::fs::read_to_string(dir.path().join("house/audit.jsonl")).unwrap();
    assert!(audit.contains("\"route\":\"repo\",\"status\":200"), "{audit}");
}
