//! `-v` and `TIDEGATE_LOG`: what the log shows, and what it never contains.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use crate::cli::{Bench, with_release};

/// Parts of everything secret in the settings below.
const SECRETS: [&str; 3] = ["secret-user", "secret-word", "secret-token"];

/// Serves the repository of the bench over HTTP. Returns its URL.
fn serve(bench: &Bench) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = bench.path("repository");
    std::thread::spawn(move || {
        for stream in listener.incoming().map(Result::unwrap) {
            let mut reader = BufReader::new(stream);
            let mut first = String::new();
            let _ = reader.read_line(&mut first);
            let _ = reader.by_ref().lines().map_while(Result::ok).find(String::is_empty);
            let path = first.split(' ').nth(1).unwrap_or_default();
            let path = path.split('?').next().unwrap().trim_start_matches('/');
            let (status, body) = fs::read(folder.join(path)).map_or((404, Vec::new()), |body| (200, body));
            let stream = reader.get_mut();
            let _ =
                write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(&body);
        }
    });
    format!("http://{address}")
}

fn bench() -> Bench {
    let bench = with_release();
    let url = serve(&bench);
    let with_user = url.replace("://", "://secret-user:secret-word@");
    fs::write(bench.path("token"), "Bearer secret-token").unwrap();
    bench.set(&json!({
        "repository": with_user,
        "network": {"proxy": "none", "authorization": {"file": "token", "server": url}},
    }));
    bench
}

#[test]
fn verbose_output_shows_requests_and_no_secrets() {
    let bench = bench();
    let (code, quiet, err) = bench.run(&["check"]);
    assert_eq!((code, err.contains("DEBUG")), (0, false));
    let (code, out, once) = bench.run(&["-v", "check"]);
    assert_eq!((code, &out), (0, &quiet));
    assert!(once.contains("DEBUG sent a request method=\"GET\""), "{once}");
    assert!(once.contains("/metadata/timestamp.json") && once.contains("status=200"), "{once}");
    let (code, _, twice) = bench.run(&["-vv", "install"]);
    assert_eq!(code, 0, "{twice}");
    assert!(twice.contains("TRACE advances the update"), "{twice}");
    for secret in SECRETS {
        assert!(!once.contains(secret) && !twice.contains(secret), "{secret}: {once}{twice}");
    }
}

#[test]
fn the_variable_sets_the_level() {
    let bench = bench();
    let run = |level: &str| bench.command(&["check"]).env("TIDEGATE_LOG", level).output().unwrap();
    for (level, logs) in [("debug", true), ("trace", true), ("info", false), ("off", false), ("", false)] {
        let output = run(level);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.contains("sent a request")), (Some(0), logs), "{level}: {text}");
    }
    let output = run("loud");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("TIDEGATE_LOG: unknown level \"loud\""));
}
