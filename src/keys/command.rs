//! Keys behind an external program: any HSM, smart card or cloud service that a script can use.
//!
//! The protocol, version 1. Tidegate starts the program, without a shell, with the arguments of the key's URI; writes one
//! JSON object and a newline to its standard input and closes it; reads one JSON object from its standard output; and waits for
//! it to end. Standard error is passed through, so that the program can ask a person to touch a token. Its environment holds no passphrase
//! and no credential but those that the URI lists (`env=NAME`); its folder is the workspace.
//!
//! ```text
//! {"tidegate": 1, "operation": "public"}
//!   -> {"public": "ed25519:HEX"}  or  {"public": "p256:HEX"}
//! {"tidegate": 1, "operation": "sign", "public": "ed25519:HEX", "message": "BASE64", "sha256": "HEX"}
//!   -> {"signature": "HEX"}
//! either -> {"error": "why not"}
//! ```
//!
//! An Ed25519 signature is over `message`, 64 bytes. A P-256 signature is over `message` with SHA-256 (that digest is given too,
//! for services that take nothing else), as DER or as 64 bytes of r and s. The answer has at most 64 KiB and comes within
//! the URI's timeout; a program that takes longer is killed.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidegate_client::command::with_clean_environment;
use tidegate_tuf::hash::to_hex;
use tidegate_tuf::key::Key;

use super::uri::CommandUri;
use super::{Signer, parse_public, signature_bytes, write_public};
use crate::error::{Error, Kind, Result};

/// An answer is a few hundred bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// A key whose signatures an external program makes.
#[derive(Debug)]
pub struct CommandKey {
    name: String,
    uri: CommandUri,
    program: PathBuf,
    workspace: PathBuf,
    public: Key,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default)]
    public: Option<String>,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

impl CommandKey {
    /// Requests the public key from the program; `name` is the key's name in errors.
    ///
    /// # Errors
    ///
    /// Fails if the program cannot be run, or if its answer contains no valid public key.
    pub fn open(name: &str, uri: &CommandUri, workspace: &Path) -> Result<Self> {
        let program = uri.program(workspace);
        let workspace = if workspace.as_os_str().is_empty() { Path::new(".") } else { workspace };
        let answer = ask(name, uri, (&program, workspace), &json!({"tidegate": 1, "operation": "public"}))?;
        let public = answer.public.ok_or_else(|| wrong(name, uri, "it names no \"public\""))?;
        let public = parse_public(&public).map_err(|e| wrong(name, uri, e))?;
        Ok(Self { name: name.to_owned(), uri: uri.clone(), program, workspace: workspace.to_owned(), public })
    }
}

impl Signer for CommandKey {
    fn public(&self) -> &Key {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let request = json!({
            "tidegate": 1,
            "operation": "sign",
            "public": write_public(&self.public)?,
            "message": BASE64.encode(message),
            "sha256": to_hex(&Sha256::digest(message)),
        });
        let answer = ask(&self.name, &self.uri, (&self.program, &self.workspace), &request)?;
        let hex = answer.signature.ok_or_else(|| wrong(&self.name, &self.uri, "it has no \"signature\""))?;
        signature_bytes(&self.public, hex.as_bytes()).map_err(|e| wrong(&self.name, &self.uri, e))
    }
}

/// Checks the name of a variable that a program inherits because the settings list it.
///
/// # Errors
///
/// The problem: it is no name, or one of Tidegate's own, such as that of a passphrase.
pub fn check_variable(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() || name.contains(|c: char| c == '=' || c.is_control()) {
        return Err(format!("{name:?} is not the name of a variable"));
    }
    if name.starts_with("TIDEGATE_") {
        return Err(format!("{name} is a variable of Tidegate, which no program inherits"));
    }
    Ok(())
}

fn ask(name: &str, uri: &CommandUri, (program, folder): (&Path, &Path), request: &Value) -> Result<Answer> {
    let listed = uri.environment.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = with_clean_environment(program);
    command.args(&uri.args).envs(listed).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|e| {
        Error::new(Kind::Io, format!("key {name}: cannot start {}", program.display()))
            .with_source(e)
            .remedy("install the program, or correct the key's uri in tidegate.toml")
    })?;
    let outcome = converse(&mut child, uri.timeout, request);
    if outcome.is_err() {
        // It may have ended by itself; what counts is that it is not left behind.
        let _ = child.kill();
        let _ = child.wait();
    }
    let output = outcome.map_err(|why| wrong(name, uri, why))?;
    let answer: Answer = serde_json::from_slice(&output).map_err(|e| {
        let start: String = String::from_utf8_lossy(&output).chars().take(80).collect();
        wrong(name, uri, format!("its answer {start:?} is not understood: {e}"))
    })?;
    match answer.error {
        Some(error) => {
            let error: String = error.chars().filter(|c| !c.is_control()).take(500).collect();
            Err(Error::new(Kind::Io, format!("key {name}: {} refuses: {error}", uri.program.display())))
        }
        None => Ok(answer),
    }
}

/// Writes the request, reads the answer, waits for the end: all within `timeout`.
fn converse(child: &mut Child, timeout: Duration, request: &Value) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + timeout;
    let late = || format!("it took longer than {} s", timeout.as_secs());
    let (mut stdin, stdout) =
        child.stdin.take().zip(child.stdout.take()).ok_or("it has no standard input or output")?;
    let line = format!("{request}\n");
    // The threads end with the pipes, at the latest when the program is killed.
    std::thread::spawn(move || match stdin.write_all(line.as_bytes()) {
        // A program that knows the answer without reading the question is in its right.
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e),
        _ => Ok(()),
    });
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = Vec::new();
        let result = stdout.take(MAX_ANSWER + 1).read_to_end(&mut output).map(|_| output);
        let _ = send.send(result);
    });
    let output =
        receive.recv_timeout(timeout).map_err(|_| late())?.map_err(|e| format!("its answer cannot be read: {e}"))?;
    if output.len() as u64 > MAX_ANSWER {
        return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
    }
    loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) if status.success() => return Ok(output),
            // Its own words come first, if it has any.
            Some(_) if serde_json::from_slice::<Answer>(&output).is_ok_and(|answer| answer.error.is_some()) => {
                return Ok(output);
            }
            Some(status) => return Err(format!("it ended with {status}")),
            None if Instant::now() >= deadline => return Err(late()),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn wrong(name: &str, uri: &CommandUri, why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Io, format!("key {name}: the program {} failed: {why}", uri.program.display()))
        .remedy("docs/keys.md describes what the program must answer")
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn open(script: &str, timeout: u64) -> Result<CommandKey> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sign");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let uri = CommandUri {
            program: path,
            args: Vec::new(),
            timeout: Duration::from_secs(timeout),
            environment: Vec::new(),
        };
        CommandKey::open("k", &uri, dir.path())
    }

    #[test]
    fn a_program_that_misbehaves_is_an_error_that_says_how() {
        for (script, part) in [
            ("echo '{\"public\": \"ed25519:00\"}'", "is not a public key"),
            ("echo hello", "\"hello\\n\" is not understood"),
            ("echo '{\"error\": \"the card is not in\"}'; exit 1", "refuses: the card is not in"),
            ("echo '{}'", "names no \"public\""),
            ("echo '{\"public\": \"x\", \"more\": 1}'", "unknown field `more`"),
            ("exit 3", "exit status: 3"),
            ("exec head -c 100000 /dev/zero", "longer than 65536 bytes"),
            ("exec sleep 20", "longer than 1 s"),
            ("exec >&-; exec sleep 20", "longer than 1 s"),
        ] {
            let begun = Instant::now();
            let error = open(script, 1).unwrap_err();
            assert!(error.to_string().contains(part), "{script}: {error}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{script}");
        }
        let uri = CommandUri {
            program: "/no/such".into(),
            args: Vec::new(),
            timeout: Duration::from_secs(1),
            environment: Vec::new(),
        };
        assert!(CommandKey::open("k", &uri, Path::new("/")).unwrap_err().is_not_found());
    }
}
