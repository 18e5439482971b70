//! `-v`, `-vv` and `TIDEGATE_LOG`: what the log shows, and what it never contains; errors as JSON.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::Forge;
use crate::support::s3::{BUCKET, S3};

fn tidegate(args: &[&str], variables: &[(String, String)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).stdin(Stdio::null()).env("NO_COLOR", "1").envs(variables.iter().cloned()).output().unwrap()
}

fn stderr(out: &Output) -> String {
    String::from_utf8(out.stderr.clone()).unwrap()
}

/// Parts of the secrets below.
const PASSPHRASE: &str = "secret-passphrase";
const TOKEN: &str = "secret-session-token";

#[tokio::test(flavor = "multi_thread")]
async fn verbose_output_shows_requests_and_keys_and_no_secrets() {
    let s3 = S3::here().await;
    let mut forge = Forge::new(&["early", "late"]);
    forge.release("1.0.0", 1, &[("os.img", b"one")]);
    forge.assign("early", "1.0.0");
    let forge = forge.with_settings();
    let dir = forge.dir().to_str().unwrap().to_owned();
    let now = tidegate_tuf::time::format(forge.now());
    let place = format!("s3://{BUCKET}/site");
    let variables = s3.variables();
    let publish = |more: &[&str], variables: &[(String, String)]| {
        let arguments = [&["-C", &*dir, "--now", &*now, "publish", "--single-writer", &*place], more].concat();
        tidegate(&arguments, variables)
    };

    let quiet = publish(&["--dry-run"], &variables);
    assert!(!stderr(&quiet).contains("DEBUG"), "{}", stderr(&quiet));
    let once = publish(&["--dry-run", "-v"], &variables);
    assert_eq!(once.stdout, quiet.stdout);
    let once = stderr(&once);
    assert!(once.contains("DEBUG") && once.contains("metadata/timestamp.json") && !once.contains("TRACE"), "{once}");
    let by_variable = [&variables[..], &[("TIDEGATE_LOG".into(), "tidegate::publish=debug".into())]].concat();
    assert!(stderr(&publish(&["--dry-run"], &by_variable)).contains("DEBUG"));

    let twice = publish(&["-vv"], &variables);
    assert!(twice.status.success(), "{}", stderr(&twice));
    let twice = stderr(&twice);
    for expected in ["HTTP request", "method=PUT", "status=200", "metadata/timestamp.json", "write"] {
        assert!(twice.contains(expected), "{expected}: {twice}");
    }
    // A token makes every request wrong here, which must not put it into the log either.
    let with_token = [&variables[..], &[("AWS_SESSION_TOKEN".into(), TOKEN.into())]].concat();
    let refused = stderr(&publish(&["-vv", "--dry-run"], &with_token));

    // A key with a passphrase, made and used.
    let passphrase = [("TIDEGATE_PASSPHRASE".to_owned(), PASSPHRASE.to_owned())];
    let made = tidegate(&["-C", &dir, "key", "new", "spare", "-vv"], &passphrase);
    assert!(made.status.success(), "{}", stderr(&made));
    let used = tidegate(&["-C", &dir, "key", "check", "spare", "-vv"], &passphrase);
    assert!(used.status.success(), "{}", stderr(&used));
    let used = stderr(&used);
    assert!(used.contains("open a key key=\"spare\" kind=\"file\"") && used.contains("sign key=\"spare\""), "{used}");

    let (key, secret) = (&variables[1].1, &variables[2].1);
    for text in [&once, &twice, &refused, &stderr(&made), &used] {
        for secret in [secret, key, PASSPHRASE, TOKEN, "Signature=", "Credential=", "PRIVATE KEY"] {
            assert!(!text.contains(secret), "{secret}: {text}");
        }
    }
}

#[test]
fn a_wrong_filter_is_an_error() {
    let out = tidegate(&["status"], &[("TIDEGATE_LOG".into(), "tidegate=loud".into())]);
    assert_eq!(out.status.code(), Some(2));
    assert!(stderr(&out).contains("TIDEGATE_LOG is not a valid filter"), "{}", stderr(&out));
}

/// The same schema as for the errors of `tidegate-device` and `tidegate-gate`.
#[test]
fn errors_as_json_follow_the_schema() {
    let schema = include_str!("../../docs/schemas/error.schema.json");
    let validator = jsonschema::validator_for(&serde_json::from_str(schema).unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let forge = Forge::new(&["early"]).with_settings();
    for (arguments, code, kind) in [
        (&["statsu"][..], 2, "usage"),
        (&["status", "--bogus"], 2, "usage"),
        (&["release"], 2, "usage"),
        (&["rollout", "start"], 2, "usage"),
        (&["-C", dir, "status"], 1, "input"),
        (&["-C", forge.dir().to_str().unwrap(), "rollout", "pause", "9.9.9"], 1, "input"),
        (&["verify", "/nowhere", "--root", "/nowhere/root.json"], 1, "io"),
    ] {
        let out = tidegate(&[arguments, &["--json"]].concat(), &[]);
        assert_eq!((out.status.code(), out.stdout.len()), (Some(code), 0), "{arguments:?}: {}", stderr(&out));
        let report: Value = serde_json::from_str(&stderr(&out)).unwrap_or_else(|e| panic!("{e}: {}", stderr(&out)));
        assert!(validator.is_valid(&report), "{arguments:?}: {report}");
        assert_eq!(report["error"]["kind"], kind, "{arguments:?}: {report}");
        assert!(kind == "io" || report["error"]["remedy"].is_string(), "{arguments:?}: {report}");
    }
}
