//! The server as a client sees it, byte for byte.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::keys::generate::{Kind, generate};

/// A server over a folder that goes away with it.
struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    meter: Meter,
    log: Arc<Mutex<Vec<Exchange>>>,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

const TIMESTAMP: &[u8] =
    br#"{"signatures":[],"signed":{"_type":"timestamp","filler":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}}"#;

impl Running {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join("public").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        write("metadata/timestamp.json", TIMESTAMP);
        write("metadata/1.root.json", b"{}");
        write("targets/digits.bin", b"0123456789");
        write("targets/large.bin", &vec![7; 5 << 20]);
        write("targets/empty.bin", b"");
        write(".publish.lock", b"secret");
        write("a b", b"space");
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        #[cfg(unix)]
        {
            let public = folder.path().join("public");
            std::os::unix::fs::symlink("../secret", public.join("out")).unwrap();
            std::os::unix::fs::symlink("/", public.join("slash")).unwrap();
            std::os::unix::fs::symlink("targets/digits.bin", public.join("within")).unwrap();
        }
        let log = Arc::<Mutex<Vec<Exchange>>>::default();
        let seen = Arc::clone(&log);
        let server = Server::bind(&folder.path().join("public"), ([127, 0, 0, 1], 0).into()).await.unwrap();
        let server = server.observe(move |exchange| seen.lock().unwrap().push(exchange.clone()));
        let (address, meter) = (server.address(), server.meter());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { address, folder, meter, log, stop: Some(stop), task }
    }

    fn public(&self) -> std::path::PathBuf {
        self.folder.path().join("public")
    }

    /// Sends raw bytes on a connection of their own and gives back everything that comes.
    async fn raw(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await.expect("an answer");
        Answer::parse(&bytes)
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")).await
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Self { status, head, body: bytes.get(end + 4..).unwrap_or_default().to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

#[tokio::test]
async fn files_come_with_what_caches_need() {
    let server = Running::start().await;
    let answer = server.ask("GET", "/metadata/timestamp.json", "").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, TIMESTAMP));
    assert_eq!(answer.header("content-length"), Some(TIMESTAMP.len().to_string().as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("public, max-age=60"));
    assert_eq!(answer.header("vary"), Some("accept-encoding"));
    let answer = server.ask("GET", "/metadata/1.root.json", "").await;
    assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"));
    let answer = server.ask("GET", "/targets/empty.bin", "").await;
    assert_eq!((answer.status, answer.header("content-length"), answer.body.len()), (200, Some("0"), 0));
    let answer = server.ask("GET", "/targets/large.bin", "").await;
    assert_eq!((answer.status, answer.body.len()), (200, 5 << 20));
    assert!(answer.body.iter().all(|byte| *byte == 7));
    let answer = server.ask("GET", "/metadata/2.root.json", "").await;
    assert_eq!((answer.status, answer.header("cache-control")), (404, Some("public, max-age=60")));
}

#[tokio::test]
async fn a_head_is_a_get_without_its_body() {
    let server = Running::start().await;
    for (path, headers) in [
        ("/metadata/timestamp.json", ""),
        ("/metadata/timestamp.json", "Accept-Encoding: gzip\r\n"),
        ("/targets/digits.bin", "Range: bytes=2-4\r\n"),
        ("/targets/large.bin", ""),
        ("/nothing", ""),
    ] {
        let (get, head) = (server.ask("GET", path, headers).await, server.ask("HEAD", path, headers).await);
        assert_eq!(head.status, get.status, "{path}");
        assert!(head.body.is_empty(), "{path}");
        for name in ["etag", "content-length", "content-type", "content-encoding", "content-range", "cache-control"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
    }
}

#[tokio::test]
async fn unchanged_bytes_are_not_sent_again() {
    let server = Running::start().await;
    for path in ["/metadata/timestamp.json", "/targets/large.bin"] {
        let tag = server.ask("GET", path, "").await.header("etag").unwrap().to_owned();
        let again = server.ask("GET", path, &format!("If-None-Match: {tag}\r\n")).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        assert_eq!(again.header("etag"), Some(tag.as_str()));
        assert!(again.header("cache-control").is_some());
        assert!(again.header("content-length").is_none_or(|length| length == "0"));
    }
    let zipped = "Accept-Encoding: gzip\r\n";
    let plain = server.ask("GET", "/metadata/timestamp.json", "").await.header("etag").unwrap().to_owned();
    let tag = server.ask("GET", "/metadata/timestamp.json", zipped).await.header("etag").unwrap().to_owned();
    assert_ne!(plain, tag, "two representations, two tags");
    let again = server.ask("GET", "/metadata/timestamp.json", &format!("{zipped}If-None-Match: {tag}\r\n")).await;
    assert_eq!(again.status, 304);

    // Written anew with other bytes of the same length, by rename as publishing does it.
    let path = server.public().join("metadata/timestamp.json");
    std::fs::write(path.with_extension("new"), TIMESTAMP.to_ascii_uppercase()).unwrap();
    std::fs::rename(path.with_extension("new"), &path).unwrap();
    let changed = server.ask("GET", "/metadata/timestamp.json", &format!("If-None-Match: {plain}\r\n")).await;
    assert_eq!(changed.status, 200);
    // And the old bytes once more: a tag is of the content, not of the write.
    std::fs::write(path.with_extension("new"), TIMESTAMP).unwrap();
    std::fs::rename(path.with_extension("new"), &path).unwrap();
    let back = server.ask("GET", "/metadata/timestamp.json", &format!("If-None-Match: {plain}\r\n")).await;
    assert_eq!(back.status, 304);
    let stale = server.ask("GET", "/metadata/timestamp.json", "If-Match: \"other\"\r\n").await;
    assert_eq!(stale.status, 412);
}

#[tokio::test]
async fn metadata_is_gzipped_for_those_who_take_it() {
    use std::io::Read;
    let server = Running::start().await;
    let answer = server.ask("GET", "/metadata/timestamp.json", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.len() < TIMESTAMP.len());
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, TIMESTAMP);
    let target = server.ask("GET", "/targets/digits.bin", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(target.header("content-encoding"), None, "targets are sent as they are");
    let range = server.ask("GET", "/metadata/timestamp.json", "Accept-Encoding: gzip\r\nRange: bytes=0-9\r\n").await;
    assert_eq!((range.status, range.header("content-encoding"), range.body.as_slice()), (206, None, &TIMESTAMP[..10]));
}

#[tokio::test]
async fn a_download_resumes_where_it_stopped() {
    let server = Running::start().await;
    let part = server.ask("GET", "/targets/digits.bin", "Range: bytes=4-\r\n").await;
    assert_eq!((part.status, part.body.as_slice()), (206, b"456789".as_slice()));
    assert_eq!(part.header("content-range"), Some("bytes 4-9/10"));
    let beyond = server.ask("GET", "/targets/digits.bin", "Range: bytes=10-\r\n").await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let other = server.ask("GET", "/targets/digits.bin", "Range: bytes=4-\r\nIf-Range: \"old\"\r\n").await;
    assert_eq!((other.status, other.body.len()), (200, 10));
    let tail = server.ask("GET", "/targets/large.bin", "Range: bytes=-300000\r\n").await;
    assert_eq!((tail.status, tail.body.len()), (206, 300_000));
}

#[tokio::test]
async fn ranges_are_read_as_the_rfc_defines_them() {
    let server = Running::start().await;
    for (range, status, body) in [
        ("bytes=0-0", 206, "0"),
        ("bytes=0-", 206, "0123456789"),
        ("bytes=3-5", 206, "345"),
        ("bytes=9-9", 206, "9"),
        ("bytes=5-100", 206, "56789"),
        ("bytes=-4", 206, "6789"),
        ("bytes=10-", 416, ""),
        ("bytes=10-20", 416, ""),
        // A server may ignore what is wrong, what is rare and what is long.
        ("bytes=-10", 200, "0123456789"),
        ("bytes=-100", 200, "0123456789"),
        ("bytes=-0", 200, "0123456789"),
        ("bytes=5-18446744073709551615", 200, "0123456789"),
        ("bytes=0-1,3-4", 200, "0123456789"),
        ("bytes=", 200, "0123456789"),
        ("bytes=-", 200, "0123456789"),
        ("bytes=a-b", 200, "0123456789"),
        ("bytes=--1", 200, "0123456789"),
        ("items=0-1", 200, "0123456789"),
    ] {
        let answer = server.ask("GET", "/targets/digits.bin", &format!("Range: {range}\r\n")).await;
        assert_eq!((answer.status, answer.body.as_slice()), (status, body.as_bytes()), "{range}");
    }
    assert_eq!(server.ask("GET", "/targets/empty.bin", "Range: bytes=0-\r\n").await.status, 416);
    let tag = server.ask("GET", "/targets/digits.bin", "").await.header("etag").unwrap().to_owned();
    for (validator, status) in
        [(tag.as_str(), 206), ("\"u\"", 200), (&format!("W/{tag}"), 200), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)]
    {
        let headers = format!("Range: bytes=1-1\r\nIf-Range: {validator}\r\n");
        assert_eq!(server.ask("GET", "/targets/digits.bin", &headers).await.status, status, "{validator}");
    }
}

#[tokio::test]
async fn conditions_are_read_as_the_rfc_defines_them() {
    let server = Running::start().await;
    let tag = server.ask("GET", "/targets/digits.bin", "").await.header("etag").unwrap().to_owned();
    assert!(tag.starts_with('"'), "a strong tag: {tag}");
    for (name, value, status) in [
        ("If-None-Match", tag.clone(), 304),
        ("If-None-Match", format!("W/{tag}"), 304),
        ("If-None-Match", format!("\"a\", {tag}"), 304),
        ("If-None-Match", "*".to_owned(), 304),
        ("If-None-Match", "\"a\"".to_owned(), 200),
        ("If-None-Match", tag.replace('"', ""), 200),
        ("If-Match", tag.clone(), 200),
        ("If-Match", "*".to_owned(), 200),
        ("If-Match", "\"a\"".to_owned(), 412),
        ("If-Match", format!("W/{tag}"), 412),
    ] {
        let answer = server.ask("GET", "/targets/digits.bin", &format!("{name}: {value}\r\n")).await;
        assert_eq!(answer.status, status, "{name}: {value}");
    }
    for (accepted, gzip) in [
        ("gzip", true),
        ("deflate, gzip;q=0.5", true),
        ("*", true),
        ("*;q=0.1", true),
        ("gzip;q=0", false),
        ("gzip;q=0.000, *", false),
        ("identity", false),
        ("br", false),
        ("*;q=0", false),
        ("", false),
    ] {
        let headers = format!("Accept-Encoding: {accepted}\r\n");
        let answer = server.ask("GET", "/metadata/timestamp.json", &headers).await;
        assert_eq!(answer.header("content-encoding").is_some(), gzip, "{accepted}");
    }
}

#[tokio::test]
async fn hostile_requests_get_nothing() {
    let server = Running::start().await;
    for path in [
        "/",
        "/metadata",
        "/metadata/",
        "/../secret",
        "/metadata/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/.%2e/secret",
        "//etc/passwd",
        "/..;/secret",
        "/..\\secret",
        "/..%5csecret",
        "/%00",
        "/a%0d%0aX:y",
        "/.publish.lock",
        "/out",
        "/slash/etc/passwd",
        "/targets/digits.bin/",
        "/targets/digits.bin/x",
        "/%ff%fe",
        "/%",
        "/%c0%ae%c0%ae/secret",
        "http://x/../secret",
    ] {
        let answer = server.ask("GET", path, "").await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{path}");
    }
    let long = format!("/{}", "a".repeat(300));
    assert_eq!(server.ask("GET", &long, "").await.status, 404, "longer than the file system takes");
    assert_eq!(server.ask("GET", &format!("/{}", "a/".repeat(3000)), "").await.status, 404);
    assert!(matches!(server.ask("GET", &"/a".repeat(40_000), "").await.status, 414 | 431));
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        let answer = server.ask(method, "/metadata/timestamp.json", "").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    for raw in [
        "\r\n\r\n",
        "GET\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "\x16\x03\x01\x02\x00",
        "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
    ] {
        let answer = server.raw(raw).await;
        assert!(matches!(answer.status, 0 | 400), "{raw:?}: {answer:?}");
    }
    // After all that it still serves, and what is allowed is served.
    assert_eq!(server.ask("GET", "/a%20b", "").await.body, b"space");
    assert_eq!(server.ask("GET", "/within", "").await.body, b"0123456789");
    assert_eq!(server.ask("GET", "/metadata/timestamp.json?x=../y", "").await.status, 200);
    assert_eq!(server.ask("GET", "http://elsewhere/a%20b", "").await.body, b"space", "the absolute form of a proxy");
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_all_are_counted() {
    let server = Running::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = "GET /targets/digits.bin HTTP/1.1\r\nHost: x\r\n\r\n";
    for _ in 0..3 {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"0123456789") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    }
    assert_eq!(server.meter.read(), Traffic { connections: 1, requests: 3, bytes: 30 });
    drop(stream);
    assert_eq!(server.ask("HEAD", "/targets/digits.bin", "").await.status, 200);
    assert_eq!(server.meter.read(), Traffic { connections: 2, requests: 4, bytes: 30 });
    let log = server.log.lock().unwrap();
    let seen: Vec<_> =
        log.iter().map(|e| (e.connection, e.method.as_str(), e.path.as_str(), e.status.as_u16(), e.bytes)).collect();
    assert_eq!(seen.first(), Some(&(1, "GET", "/targets/digits.bin", 200, 10)));
    assert_eq!(seen.last(), Some(&(2, "HEAD", "/targets/digits.bin", 200, 0)));
}

#[tokio::test]
async fn a_stopped_server_lets_go_of_idle_connections() {
    let mut server = Running::start().await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    idle.write_all(b"GET /a%20b HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"space") {
        assert_ne!(idle.read_buf(&mut answer).await.unwrap(), 0);
    }
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(3), server.task).await.expect("stops at once").unwrap();
    assert_eq!(idle.read(&mut [0; 16]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_unusable_folder_or_port_is_reported_at_the_start() {
    let address = ([127, 0, 0, 1], 0).into();
    let missing = Server::bind(Path::new("/no/such/folder"), address).await.err().unwrap();
    assert_eq!(missing.to_string(), "cannot serve /no/such/folder");
    let folder = tempfile::tempdir().unwrap();
    let first = Server::bind(folder.path(), address).await.unwrap();
    let second = Server::bind(folder.path(), first.address()).await.err().unwrap();
    assert!(second.remedy_text().unwrap().contains("--port"), "{second}");
}

#[tokio::test]
async fn folders_with_secrets_are_refused() {
    const KEY: &str = "subject=x\n-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (name, content, is_secret) in [
        ("a/b/c/notes.txt", KEY, true),
        ("k.pem", "-----BEGIN OPENSSH PRIVATE KEY-----\n", true),
        ("marked.pem", "\u{feff}-----BEGIN PRIVATE KEY-----\n", true),
        ("targets/account.json", r#"{"private_key": "-----BEGIN PRIVATE KEY-----\nMC4C"}"#, true),
        ("fleet/tidegate.toml", "", true),
        ("x/y/ledger.jsonl", "", true),
        ("targets/about.txt", "how to keep a PRIVATE KEY", false),
        ("cert.pem", "-----BEGIN CERTIFICATE-----\n", false),
        (".hidden/k.pem", KEY, false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        let refused = Server::bind(folder.path(), ([127, 0, 0, 1], 0).into()).await.err();
        let rule = refused.as_ref().and_then(Error::broken_rule);
        assert_eq!(rule == Some(crate::Rule::ServeSecret), is_secret, "{name}: {refused:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (_, document) = pkcs8::SecretDocument::from_pem(&generate(Kind::Ed25519, None).unwrap().pem).unwrap();
    std::fs::write(folder.path().join("k.der"), document.as_bytes()).unwrap();
    let refused = Server::bind(folder.path(), ([127, 0, 0, 1], 0).into()).await.err();
    assert_eq!(refused.unwrap().broken_rule(), Some(crate::Rule::ServeSecret));
    // One that comes later is not given out.
    let running = Running::start().await;
    std::fs::write(running.public().join("targets/late.pem"), KEY).unwrap();
    assert_eq!(running.ask("GET", "/targets/late.pem", "").await.status, 404);
}
