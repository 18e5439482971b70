//! Text from others: settings, facts and servers put no control character, and none that turns text around, on a terminal or in a log.

use std::fs;

use serde_json::{Value, json};
use tidegate_model::text::is_hidden;

use crate::cli::with_release;

/// Begins a line that looks like the program's own, moves the cursor, hides, and turns what follows around.
const HOSTILE: &str = "x\nerror: forged\r\t\u{1b}[2K\u{7f}\u{9b}31m\u{202e}\u{2066}\u{200b}\u{2028}y";

#[test]
fn no_setting_or_answer_reaches_a_terminal_as_it_is() {
    let bench = with_release();
    fs::write(
        bench.path("facts"),
        format!("#!/bin/sh\nprintf '%s' '{HOSTILE}'\nprintf '%s' '{HOSTILE}' >&2\nexit 1\n"),
    )
    .unwrap();
    fs::set_permissions(bench.path("facts"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let settings: Value = serde_json::from_slice(&fs::read(bench.path("device.json")).unwrap()).unwrap();
    let mut said = 0;
    let mut try_with = |settings: &Value| {
        fs::write(bench.path("device.json"), settings.to_string()).unwrap();
        for words in ["-vv check", "-vv --json check", "explain", "status", "status --json", "install"] {
            let (_, out, err) = bench.run(&words.split(' ').collect::<Vec<_>>());
            for text in [&out, &err] {
                let bad = text.lines().find(|line| line.contains(is_hidden) || line.starts_with("error: forged"));
                assert!(bad.is_none(), "{words}: {bad:?}\n{settings}");
                said += text.matches("forged").count();
            }
        }
    };
    for (name, value) in settings.as_object().unwrap() {
        let mut changed = settings.clone();
        changed[name] = if value.is_string() { HOSTILE.into() } else { json!({ HOSTILE: HOSTILE }) };
        try_with(&changed);
    }
    for (name, value) in [
        (HOSTILE, json!(HOSTILE)),
        ("repository", format!("http://127.0.0.1:1/{HOSTILE}").into()),
        ("facts", json!({"group": HOSTILE})),
        ("facts_program", json!(["./facts"])),
    ] {
        let mut changed = settings.clone();
        changed[name] = value;
        try_with(&changed);
    }
    assert!(said > 20, "{said}");
}
