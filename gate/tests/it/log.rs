//! The log of the service: what it shows, and what it never contains.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::ear::{TestVerifier, claims};
use crate::support::device::Device;
use crate::support::{COHORTS, TestSite, target};

/// Parts of everything secret that the test does not get from the gate itself.
const SECRETS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "SECRET-KEY-ID"),
    ("AWS_SECRET_ACCESS_KEY", "SECRET-ACCESS-KEY"),
    ("AWS_SESSION_TOKEN", "SECRET-SESSION-TOKEN"),
];

/// An HTTP server that answers each request with the status and body of `answer`, which gets the request's number and first line.
fn http_server(answer: impl Fn(usize, &str) -> (u16, String) + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for (number, socket) in listener.incoming().enumerate() {
            let mut socket = BufReader::new(socket.unwrap());
            let (mut first, mut length) = (String::new(), 0);
            let _ = socket.read_line(&mut first);
            loop {
                let mut line = String::new();
                if socket.read_line(&mut line).unwrap_or_default() < 3 {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
            }
            let _ = socket.read_exact(&mut vec![0; length]);
            let (status, body) = answer(number, &first);
            let _ = write!(
                socket.get_mut(),
                "HTTP/1.1 {status} X\r\nETag: \"e\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    address
}

/// A gate with buckets and a verifier with credentials in its URL; a device runs a whole session. Returns the log, and everything secret.
fn session(variables: &[(&str, &str)], arguments: &[&str]) -> (String, Vec<String>) {
    // The first write fails, so that there is a retry. Reads are forbidden, except of quotas.
    let bucket = http_server(|number, first| match first.split(' ').next() {
        _ if number == 0 => (500, String::new()),
        Some("PUT") => (200, String::new()),
        _ if first.contains("/state/usage/") => (404, "<Error><Code>NoSuchKey</Code></Error>".into()),
        _ => (403, "<Error><Code>AccessDenied</Code></Error>".into()),
    });
    let verifier = TestVerifier::new("k1");
    let keys = json!({"keys": [verifier.jwk()]}).to_string();
    let jwks = http_server(move |_, _| (200, keys.clone()));
    let site = TestSite::new();
    let with_credentials = |address: &str| format!("http://user:SECRET-PASSWORD@{address}/keys?sig=SECRET-QUERY");
    let acme = COHORTS.replace("acme.json", &with_credentials(&jwks.to_string()));
    let broken =
        format!("[verifiers.broken]\njwks = {:?}\nalgorithms = [\"ES256\"]\n", with_credentials("127.0.0.1:1"));
    site.write_config("optional", &(acme + &broken));
    let settings = std::fs::read_to_string(site.path("gate.toml")).unwrap();
    let settings = settings.replace("\"file:private\"", "\"s3://fleet/private\"");
    site.write("gate.toml", &settings.replace("\"file:state\"", "\"s3://fleet/state\""));
    let device = Device::enrolled(&site, "device-1");
    let endpoint = format!("http://{bucket}");
    let environment =
        [("AWS_ENDPOINT_URL", endpoint.as_str()), ("AWS_REGION", "us-east-1"), ("AWS_ALLOW_HTTP", "true")];
    let environment: Vec<(String, String)> = environment
        .iter()
        .chain(&SECRETS)
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let gate = site.start_with(&site.path("gate.toml"), &environment, arguments);

    let mut secrets: Vec<String> = SECRETS.iter().map(|(_, value)| (*value).to_owned()).collect();
    secrets.extend(["SECRET-PASSWORD", "SECRET-QUERY", "X-Amz-Signature", "PRIVATE KEY"].map(str::to_owned));
    let secret: Value = serde_json::from_slice(&std::fs::read(site.path("gate.secret")).unwrap()).unwrap();
    secrets.push(secret["current"].as_str().unwrap().to_owned());

    let mut seen = Vec::new();
    let mut attested = |token: &dyn Fn(&str) -> String| {
        let answer = device.grant(&gate, &["stable.lab"], |nonce| {
            seen.extend([nonce.to_owned(), token(nonce)]);
            json!({"kind": "ear", "token": token(nonce)})
        });
        answer.status
    };
    assert_eq!(attested(&|nonce| verifier.token(&verifier.header(), &claims(nonce))), 200);
    assert_eq!(attested(&|nonce| TestVerifier::new("k1").token(&verifier.header(), &claims(nonce))), 403);
    secrets.extend(seen);
    let token = device.token(&gate);
    let redirect = device.get(&gate, "metadata/3.stable.canary.json", &token);
    let location = redirect.header("location").unwrap();
    let signature = location.split("X-Amz-Signature=").nth(1).unwrap();
    secrets.push(signature.split('&').next().unwrap().to_owned());
    // The bucket forbids to read the listing.
    assert_eq!(device.get(&gate, &target("stable/releases/os/1.2.0/os.img", "1.2.0").0, &token).status, 503);
    assert_eq!(device.get(&gate, "metadata/3.stable.canary.json", &format!("{token}A")).status, 401);
    assert_eq!(device.post(&gate, "/v1/receipts", &json!({"receipts": [device.receipt(1)]})).status, 200);
    // A request whose proof the test knows.
    let request = device.request("GET", "/v1/repo/metadata/3.stable.canary.json", b"", Some(&token), "");
    crate::support::wire::send(gate.address, device.tls.as_ref(), &request).unwrap();
    let request = String::from_utf8(request).unwrap();
    let proof = request.lines().find_map(|line| line.strip_prefix("Tidegate-Proof: ")).unwrap();
    secrets.extend(proof.rsplit('.').take(2).map(str::to_owned));
    secrets.push(token);
    let log = gate.events.lock().unwrap().clone();
    (log, secrets)
}

/// The most verbose log shows each request to storage and each step of identification and attestation, and none of the secrets.
#[test]
fn verbose_logs_contain_no_secrets() {
    for (variables, arguments) in [(&[][..], &["-vv"][..]), (&[("TIDEGATE_LOG", "trace")], &[])] {
        let (log, secrets) = session(variables, arguments);
        for secret in &secrets {
            assert!(!secret.is_empty() && !log.contains(secret.as_str()), "{secret}: {log}");
        }
        for expected in [
            "\"message\":\"secret loaded\"",
            "\"message\":\"TLS files loaded\"",
            "\"message\":\"listening\"",
            "\"message\":\"device identified by a proof\"",
            "\"message\":\"nonce issued\"",
            "\"message\":\"nonce verified and spent\"",
            "\"message\":\"verifier keys loaded\"",
            "\"message\":\"verifier keys not loaded\"",
            "\"message\":\"signature of an attestation result verified\"",
            "\"message\":\"attestation result verified\"",
            "\"message\":\"attestation result refused\"",
            "\"message\":\"token issued\"",
            "\"message\":\"token verified\"",
            "\"message\":\"signatures of receipts verified\"",
            "\"message\":\"storage request failed\"",
            "\"method\":\"PRESIGN\"",
        ] {
            assert!(log.contains(expected), "{expected}: {log}");
        }
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let requests = |message: &str| -> Vec<&Value> {
            lines.iter().filter(|line| line["message"] == message && line["method"] == "PUT").collect()
        };
        for request in requests("storage request") {
            assert!(request["object"].is_string() && request["status"] == "ok", "{request}");
            assert!(request["duration_ms"].is_u64(), "{request}");
        }
        let puts = requests("HTTP request");
        assert!(puts.iter().any(|put| put["status"] == 500) && puts.iter().any(|put| put["status"] == 200), "{puts:?}");
        assert!(puts[0]["path"].as_str().unwrap().starts_with("/fleet/state/nonces/"), "{puts:?}");
        assert!(puts.iter().all(|put| put["duration_ms"].is_u64()), "{puts:?}");
    }
}

/// Without options, the log contains only the events of the service itself, not its requests.
#[test]
fn the_default_log_is_short() {
    let (log, _) = session(&[], &[]);
    assert!(
        log.contains("\"message\":\"listening\"") && log.contains("\"message\":\"storage request failed\""),
        "{log}"
    );
    assert!(!log.contains("\"level\":\"DEBUG\"") && !log.contains("\"level\":\"TRACE\""), "{log}");
}

#[test]
fn an_invalid_filter_is_a_usage_error() {
    let site = TestSite::new();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate-gate"))
        .args(["--config", site.path("gate.toml").to_str().unwrap(), "check"])
        .env("TIDEGATE_LOG", "gate=loud")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(2), "{out:?}");
    assert!(String::from_utf8_lossy(&out.stderr).contains("help: set for example TIDEGATE_LOG=debug"), "{out:?}");
}
