//! The command line: errors and exit codes.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{COHORTS, TestSite};

fn error(out: &Output) -> Value {
    let text = String::from_utf8_lossy(&out.stderr);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{out:?}"));
    // The same schema as for the errors of `tidegate` and `tidegate-device`.
    let schema = include_str!("../../../docs/schemas/error.schema.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    assert!(validator.is_valid(&report), "{report}");
    report["error"].clone()
}

#[test]
fn errors_are_text_or_json_on_stderr() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let out = site.run(&["secret"]);
    assert_eq!(out.status.code(), Some(1));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(text.starts_with("error: ") && text.contains("already exists\nhelp: use --rotate"), "{text}");

    let out = site.run(&["--json", "secret"]);
    assert_eq!((out.status.code(), out.stdout.len()), (Some(1), 0));
    let error_of = error(&out);
    assert_eq!((&error_of["kind"], &error_of["rule"]), (&"conflict".into(), &Value::Null));
    assert_eq!(error_of["remedy"], "use --rotate to add a new key");

    site.write("gate.toml", "schema = 1\n");
    let out = site.run(&["--json", "check"]);
    let error_of = error(&out);
    assert_eq!((out.status.code(), &error_of["kind"]), (Some(1), &"input".into()));
    assert!(error_of["causes"][0].as_str().unwrap().contains("missing field"), "{error_of}");
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    let site = TestSite::new();
    let out = site.run(&["enrol"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).starts_with("error: "), "{out:?}");
    let out = site.run(&["--json", "serv"]);
    assert_eq!((out.status.code(), &error(&out)["kind"]), (Some(2), &"usage".into()));
}

#[test]
fn a_closed_standard_output_exits_with_3() {
    let site = TestSite::new();
    site.write_config("required", COHORTS);
    let mut child = Command::new("sh")
        .args(["-c", "sleep 0.2; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_tidegate-gate"), "--config"])
        .arg(site.path("gate.toml"))
        .arg("check")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3), "{out:?}");
}

/// Paths in the settings are relative to their file, whatever folder the program is called in.
#[test]
fn paths_are_relative_to_the_settings() {
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    let elsewhere = tempfile::tempdir().unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_tidegate-gate"))
        .current_dir(&elsewhere)
        .arg("--config")
        .arg(site.path("gate.toml"))
        .arg("check")
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    assert!(std::fs::read_dir(&elsewhere).unwrap().next().is_none());
    assert!(["state", "receipts", "enrolments", "audit.jsonl"].iter().all(|name| site.path(name).exists()));
}

#[cfg(unix)]
#[test]
fn refuses_private_files_that_others_may_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = TestSite::new();
    site.write_config("optional", COHORTS);
    assert!(site.run(&["check"]).status.success());
    for file in ["server.key", "gate.secret"] {
        for mode in [0o640, 0o604, 0o660] {
            std::fs::set_permissions(site.path(file), std::fs::Permissions::from_mode(mode)).unwrap();
            let out = site.run(&["check"]);
            let text = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(!out.status.success() && text.contains("is accessible to other users"), "{text}");
            assert!(text.contains("help: chmod 600") && text.contains(file), "{text}");
        }
        std::fs::set_permissions(site.path(file), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Each line of the settings is hostile in turn, and URLs hold secrets.
#[test]
fn what_settings_hold_is_printed_escaped_and_without_secrets() {
    let site = TestSite::new();
    let url = "http://secret-user:secret-word@127.0.0.1:1/keys?secret-token=1";
    site.write_config("required", &COHORTS.replace("acme.json", url));
    let settings = std::fs::read_to_string(site.path("gate.toml")).unwrap();
    let places = settings.replace("\"file:state\"", "\"s3://secret-user:secret-word@bucket/x?secret-token=1\"");
    let hostile = r"x\nhelp: forged\r\u001b[2K\u007f\u009b\u202e\u2066\u2028";
    let mut cases = vec![settings.clone(), places, settings.replace("jwks", "jwk"), settings.replace("jwks =", "jwks")];
    let mut written = false;
    for line in settings.lines().filter(|line| line.contains("= \"")) {
        let (key, _) = line.split_once("= \"").unwrap();
        cases.push(settings.replace(line, &format!("{key}= \"{hostile}\"")));
        cases.push(settings.replace(line, &format!("\"{hostile}\" = \"{hostile}\"\n{line}")));
    }
    for text in cases {
        site.write("gate.toml", &text);
        for arguments in [&["check"][..], &["--json", "check"]] {
            let out = site.run(arguments);
            let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
            let bad = said.lines().find(|line| {
                line.contains(tidegate_model::text::is_hidden)
                    || line.starts_with("help: forged")
                    || line.contains("secret-")
            });
            assert!(bad.is_none(), "{bad:?}\n{text}");
            written |= said.contains("forged");
        }
    }
    assert!(written);
}
