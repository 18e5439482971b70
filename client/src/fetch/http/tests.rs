//! Against a real server on a real socket, which answers as each test scripts it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use super::*;

/// Serves one scripted answer after another, and keeps the connection if the answer lets it.
pub(crate) struct Server {
    address: String,
    seen: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

pub(crate) type Answer = Box<dyn FnOnce(&mut TcpStream) -> io::Result<()> + Send>;

impl Server {
    pub(crate) fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let (seen_there, connections_there) = (seen.clone(), connections.clone());
        thread::spawn(move || {
            let mut answers = VecDeque::from(answers);
            while !answers.is_empty() {
                let (mut stream, _) = listener.accept().unwrap();
                *connections_there.lock().unwrap() += 1;
                while let Some(head) = read_head(&mut stream) {
                    let body = read_body(&mut stream, &head);
                    seen_there.lock().unwrap().push(head + &body);
                    let Some(answer) = answers.pop_front() else { return };
                    if answer(&mut stream).is_err() {
                        break;
                    }
                }
            }
        });
        Self { address, seen, connections }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.extend(byte);
    }
    Some(String::from_utf8(head).unwrap().to_lowercase())
}

/// What comes after a head that declares its length.
fn read_body(stream: &mut TcpStream, head: &str) -> String {
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// An answer whose length is declared, so that the connection stays open.
pub(crate) fn answer(status: &str, headers: &str, body: impl Into<Vec<u8>>) -> Answer {
    let (body, status, headers) = (body.into(), status.to_owned(), headers.to_owned());
    Box::new(move |stream| {
        write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
        stream.write_all(&body)
    })
}

/// An answer that is sent as it stands, and the end of the connection.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Answer {
    let bytes = bytes.into();
    Box::new(move |stream| {
        stream.write_all(&bytes)?;
        Err(io::ErrorKind::ConnectionAborted.into())
    })
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn impatient() -> HttpFetch {
    let options = HttpOptions {
        connect_timeout: Duration::from_secs(2),
        response_timeout: Duration::from_millis(400),
        pace_window: Duration::from_millis(300),
        pace_least: 100,
        ..HttpOptions::default()
    };
    HttpFetch::with_options(options, Arc::new(SystemClock::new()))
}

pub(crate) fn bytes(reply: Reply) -> Vec<u8> {
    match reply {
        Reply::Found(body) => body.into_bytes().unwrap(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn fault(reply: Result<Reply, FetchError>) -> FetchError {
    match reply {
        Ok(Reply::Found(body)) => body.into_bytes().unwrap_err(),
        Ok(other) => panic!("{other:?}"),
        Err(error) => error,
    }
}

#[test]
fn one_connection_serves_every_request() {
    let server = Server::new(vec![
        answer("404 Not Found", "", "<html>no such root</html>"),
        answer("200 OK", "ETag: \"one\"\r\n", "first"),
        answer("200 OK", "Content-Encoding: gzip\r\n", gzip(b"second")),
        Box::new(|stream| stream.write_all(b"HTTP/1.1 304 Not Modified\r\nETag: \"one\"\r\n\r\n")),
        Box::new(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nthi\r\n2\r\nrd\r\n0\r\n\r\n")
        }),
        answer("403 Forbidden", "", "<Error>AccessDenied</Error>"),
        answer("500 Oops", "", "sorry"),
        answer("200 OK", "", "fourth"),
    ]);
    let http = HttpFetch::new();
    let url = server.url("/2.root.json");
    let metadata = Request::metadata(&url, 6);
    assert!(matches!(http.fetch(&metadata).unwrap(), Reply::NotFound(_)));
    let Reply::Found(body) = http.fetch(&metadata).unwrap() else { panic!() };
    assert_eq!(body.etag(), Some("\"one\""));
    assert_eq!(body.into_bytes().unwrap(), b"first");
    assert_eq!(bytes(http.fetch(&metadata).unwrap()), b"second");
    assert!(matches!(http.fetch(&metadata.unless(Some("\"one\""))).unwrap(), Reply::Unchanged));
    assert_eq!(bytes(http.fetch(&metadata).unwrap()), b"third");
    assert!(matches!(fault(http.fetch(&metadata)), FetchError::Status { status: 403, .. }));
    assert!(matches!(fault(http.fetch(&metadata)), FetchError::Status { status: 500, .. }));
    assert_eq!(bytes(http.fetch(&Request::target(&url, 6)).unwrap()), b"fourth");
    assert_eq!(*server.connections.lock().unwrap(), 1);
    let seen = server.seen();
    assert!(
        seen[0].starts_with("get /2.root.json http/1.1") && seen[0].contains("accept-encoding: gzip"),
        "{}",
        seen[0]
    );
    assert!(seen[3].contains("if-none-match: \"one\""), "{}", seen[3]);
    assert!(seen[7].contains("accept-encoding: identity"), "{}", seen[7]);
}

/// Answers to a request for the bytes from 4 on, and what they are taken for: `None` for a request for the whole file.
fn answers_to_a_range() -> Vec<(&'static str, Answer, Option<u64>)> {
    let part = |range: &str, body: &'static str| {
        let range = if range.is_empty() { String::new() } else { format!("Content-Range: {range}\r\n") };
        answer("206 Partial Content", &range, body)
    };
    vec![
        ("the range", part("bytes 4-9/10", "456789"), Some(4)),
        ("the range, total unknown", part("bytes 4-9/*", "456789"), Some(4)),
        (
            "a label",
            answer("206 Partial", "Content-Range: bytes 4-9/10\r\nContent-Encoding: zstd\r\n", "456789"),
            Some(4),
        ),
        ("the whole file", answer("200 OK", "", "0123456789"), Some(0)),
        ("the whole file as a range", part("bytes 0-9/10", "0123456789"), Some(0)),
        ("other bytes", part("bytes 3-9/10", "3456789"), None),
        ("no range", part("", "456789"), None),
        ("another unit", part("lines 4-9/10", "456789"), None),
        ("no end", part("bytes 4", "456789"), None),
        ("backwards", part("bytes 4-3/10", ""), None),
        ("the largest", part("bytes 4-18446744073709551615/10", "456789"), None),
        ("another length", part("bytes 4-9/10", "0123456789"), None),
        ("of a longer file", part("bytes 4-9/11", "456789"), None),
        ("of a shorter file", part("bytes 4-9/9", "456789"), None),
        ("past the end", part("bytes 4-10/*", "4567890"), None),
        ("no total", part("bytes 4-9/", "456789"), None),
        (
            "a login page",
            answer(
                "206 Partial",
                "Content-Range: bytes 4-9/10\r\nContent-Type: Text/HTML; charset=utf-8\r\n",
                "<html>",
            ),
            None,
        ),
        ("a part with markup", part("bytes 4-9/10", "<html>"), Some(4)),
        ("none such", answer("416 Range Not Satisfiable", "Content-Range: bytes */10\r\n", ""), None),
        ("a bad request", answer("400 Bad Request", "", "no"), None),
        ("a precondition", answer("412 Precondition Failed", "", "no"), None),
        ("not implemented", answer("501 Not Implemented", "", "no"), None),
    ]
}

#[test]
fn wrong_ranges_lead_to_a_plain_request() {
    for (name, faulty, expected) in answers_to_a_range() {
        let server = Server::new(vec![faulty, answer("200 OK", "", "0123456789")]);
        let url = server.url("/file");
        let Reply::Found(body) = HttpFetch::new().fetch(&Request::target(&url, 10).after(4)).unwrap() else { panic!() };
        let offset = body.offset();
        assert_eq!(offset, expected.unwrap_or(0), "{name}");
        let rest =
            if name == "a part with markup" { b"<html>" } else { &b"0123456789"[usize::try_from(offset).unwrap()..] };
        assert_eq!(body.into_bytes().unwrap(), rest, "{name}");
        let seen = server.seen();
        assert!(seen[0].contains("range: bytes=4-\r"), "{}", seen[0]);
        assert_eq!(seen.len(), if expected.is_some() { 1 } else { 2 }, "{name}");
        assert!(!seen.get(1).is_some_and(|head| head.contains("range:")), "{name}");
    }
}

#[test]
fn a_range_with_an_end_comes_exactly_or_not_at_all() {
    let open = |body: &str| raw(format!("HTTP/1.1 206 Partial\r\nContent-Range: bytes 4-6/10\r\n\r\n{body}"));
    let get = |first: Answer| {
        let server = Server::new(vec![first]);
        let url = server.url("/file");
        let reply = HttpFetch::new().fetch(&Request::target(&url, 10).after(4).before(7));
        assert!(server.seen()[0].contains("range: bytes=4-6\r"), "{:?}", server.seen());
        assert_eq!(server.seen().len(), 1);
        reply
    };
    assert_eq!(bytes(get(answer("206 Partial", "Content-Range: bytes 4-6/10\r\n", "456")).unwrap()), b"456");
    assert_eq!(bytes(get(open("456")).unwrap()), b"456");
    let early = fault(get(open("45")));
    assert!(matches!(early, FetchError::Interrupted { .. }), "{early}");
    let late = fault(get(open("4567")));
    assert!(matches!(late, FetchError::NoRanges { .. }), "{late}");
    // Among them all that suit a request without an end.
    for (name, faulty, _) in answers_to_a_range() {
        let error = fault(get(faulty));
        assert!(matches!(error, FetchError::NoRanges { .. }), "{name}: {error}");
    }
}

/// Something else than the file says nothing of the server's ranges.
#[test]
fn only_the_whole_file_in_place_of_a_range_says_that_there_are_none() {
    let page = "<html><title>Log in</title></html>";
    let chunked = |head: &str, body: &str| raw(format!("HTTP/1.1 200 OK\r\n{head}Connection: close\r\n\r\n{body}"));
    for (name, came, has_none) in [
        ("the file", answer("200 OK", "", "0123456789"), true),
        ("the file, of unknown length", chunked("", "0123456789"), true),
        ("the file, compressed", answer("200 OK", "Content-Encoding: gzip\r\n", gzip(b"0123456789")), true),
        ("a page", answer("200 OK", "Content-Type: text/html\r\n", page), false),
        (
            "a page, compressed",
            answer("200 OK", "Content-Type: text/html\r\nContent-Encoding: gzip\r\n", gzip(b"x")),
            false,
        ),
        ("a page without a type or a length", chunked("", page), false),
        ("something shorter", answer("200 OK", "", "{}"), false),
        ("something longer", answer("200 OK", "", "0123456789a"), false),
    ] {
        let server = Server::new(vec![came]);
        let url = server.url("/file");
        let error = fault(HttpFetch::new().fetch(&Request::target(&url, 10).after(4).before(7)));
        assert_eq!(matches!(error, FetchError::NoRanges { .. }), has_none, "{name}: {error}");
        assert_eq!(matches!(error, FetchError::Status { status: 200, .. }), !has_none, "{name}: {error}");
        assert!(error.is_temporary());
    }
}

#[test]
fn a_206_to_a_plain_request_is_the_file() {
    let whole = |headers: &str| answer("206 Partial Content", headers, "0123456789");
    for (headers, is_file) in
        [("", true), ("Content-Range: bytes 0-9/10\r\n", true), ("Content-Range: bytes 1-10/11\r\n", false)]
    {
        let server = Server::new(vec![whole(headers)]);
        let url = server.url("/file");
        match HttpFetch::new().fetch(&Request::target(&url, 10)) {
            Ok(reply) if is_file => assert_eq!(bytes(reply), b"0123456789"),
            reply => assert!(!is_file && matches!(fault(reply), FetchError::Status { status: 206, .. }), "{headers}"),
        }
    }
}

#[test]
fn endless_data_ends_at_the_limit() {
    let endless = |head: &'static str, chunk: Vec<u8>| -> Answer {
        Box::new(move |stream| {
            stream.write_all(head.as_bytes())?;
            loop {
                stream.write_all(&chunk)?;
            }
        })
    };
    let chunked = b"10\r\n0123456789abcdef\r\n".to_vec();
    // An empty deflate block that is not the last: it decompresses to nothing, for ever.
    let mut nothing = gzip(b"");
    nothing.truncate(10);
    let nothing_head: &'static str = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n";
    let server = Server::new(vec![
        endless("HTTP/1.1 200 OK\r\n\r\n", vec![b'x'; 4096]),
        endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked),
        endless("HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", vec![b'x'; 4096]),
        answer("200 OK", "Content-Encoding: gzip\r\n", gzip(&vec![b'x'; 10_000_000])),
        Box::new(move |stream| {
            stream.write_all(nothing_head.as_bytes())?;
            stream.write_all(&nothing)?;
            loop {
                stream.write_all(&[0, 0, 0, 0xff, 0xff].repeat(800))?;
            }
        }),
        endless("HTTP/1.1 200 OK\r\nX: ", vec![b'x'; 4096]),
    ]);
    let http = HttpFetch::new();
    let url = server.url("/timestamp.json");
    for case in 0..5 {
        let error = fault(http.fetch(&Request::metadata(&url, 10_000)));
        assert!(matches!(error, FetchError::TooLong { .. }), "{case}: {error}");
    }
    let error = fault(http.fetch(&Request::metadata(&url, 10_000)));
    assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
}

#[test]
fn every_part_of_a_gzip_header_may_be_there() {
    let named = |builder: flate2::GzBuilder| {
        let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"some metadata").unwrap();
        encoder.finish().unwrap()
    };
    let all = || flate2::GzBuilder::new().filename("timestamp.json").comment("of today").extra([7; 300]).mtime(5);
    let mut with_checksum = named(all());
    with_checksum[3] |= 2;
    // Behind the fixed part, the extra field, the name and the comment.
    let at = 10 + 2 + 300 + 15 + 9;
    with_checksum.splice(at..at, [1, 2]);
    for body in [named(flate2::GzBuilder::new()), named(all()), with_checksum] {
        let server = Server::new(vec![answer("200 OK", "Content-Encoding: gzip\r\n", body)]);
        let reply = HttpFetch::new().fetch(&Request::metadata(&server.url("/timestamp.json"), 10_000)).unwrap();
        assert_eq!(bytes(reply), b"some metadata");
    }
    let endless = named(flate2::GzBuilder::new().filename("n".repeat(5000)));
    let server = Server::new(vec![answer("200 OK", "Content-Encoding: gzip\r\n", endless)]);
    let error = fault(HttpFetch::new().fetch(&Request::metadata(&server.url("/timestamp.json"), 10_000)));
    assert!(matches!(error, FetchError::Protocol { .. }), "{error}");
}

type Expected = fn(&FetchError) -> bool;

#[test]
fn broken_answers_are_errors_of_their_kind() {
    let mut cut = gzip(b"some metadata");
    cut.truncate(20);
    let mut followed = gzip(b"some metadata");
    followed.extend(b"more");
    let mut damaged = gzip(b"some metadata");
    damaged[15] ^= 0xff;
    let mut long = gzip(b"some metadata");
    *long.last_mut().unwrap() = 1;
    let cases: Vec<(&str, Answer, Kind, Expected)> = vec![
        ("gzip of another length", answer("200 OK", "Content-Encoding: gzip\r\n", long), Kind::Metadata, |e| {
            matches!(e, FetchError::Protocol { .. })
        }),
        ("cut gzip", answer("200 OK", "Content-Encoding: gzip\r\n", cut), Kind::Metadata, |e| {
            matches!(e, FetchError::Protocol { .. })
        }),
        ("followed gzip", answer("200 OK", "Content-Encoding: gzip\r\n", followed), Kind::Metadata, |e| {
            matches!(e, FetchError::Protocol { .. })
        }),
        ("damaged gzip", answer("200 OK", "Content-Encoding: gzip\r\n", damaged), Kind::Metadata, |e| {
            matches!(e, FetchError::Protocol { .. })
        }),
        ("unasked encoding", answer("200 OK", "Content-Encoding: br\r\n", "x"), Kind::Metadata, |e| {
            matches!(e, FetchError::Protocol { .. })
        }),
        ("short body", raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"), Kind::Target, |e| {
            matches!(e, FetchError::Interrupted { .. })
        }),
        ("unasked 304", raw("HTTP/1.1 304 Not Modified\r\n\r\n"), Kind::Metadata, |e| {
            matches!(e, FetchError::Status { status: 304, .. })
        }),
        ("no HTTP", raw("SSH-2.0-OpenSSH\r\n\r\n"), Kind::Metadata, |e| matches!(e, FetchError::Protocol { .. })),
        ("bad chunk", raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), Kind::Metadata, |e| {
            matches!(e, FetchError::Interrupted { .. } | FetchError::Protocol { .. })
        }),
    ];
    for (name, answer, kind, expected) in cases {
        let server = Server::new(vec![answer]);
        let url = server.url("/file");
        let error = fault(HttpFetch::new().fetch(&Request { kind, ..Request::metadata(&url, 1000) }));
        assert!(expected(&error), "{name}: {error:?}");
    }
}

/// A server or something before it compresses what is signed as it is.
#[test]
fn targets_that_are_compressed_on_the_way_are_unpacked() {
    let image = [vec![0; 900_000], b"signed".to_vec()].concat();
    let packed = gzip(&image);
    let length = format!("Content-Length: {}\r\n", packed.len());
    for length in ["", &length] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n{length}\r\n");
        let server = Server::new(vec![raw([head.as_bytes(), packed.as_slice()].concat())]);
        let url = server.url("/file");
        assert!(bytes(HttpFetch::new().fetch(&Request::target(&url, image.len() as u64)).unwrap()) == image);
    }
    // It is signed in this form.
    let server = Server::new(vec![answer("200 OK", "Content-Encoding: gzip\r\n", packed.clone())]);
    let url = server.url("/file");
    assert!(bytes(HttpFetch::new().fetch(&Request::target(&url, packed.len() as u64)).unwrap()) == packed);
}

#[test]
fn a_label_on_the_signed_bytes_does_no_harm() {
    for label in ["gzip", "br", "aws-chunked", "identity, zstd"] {
        let server = Server::new(vec![answer("200 OK", &format!("Content-Encoding: {label}\r\n"), "signed")]);
        let url = server.url("/file");
        assert_eq!(bytes(HttpFetch::new().fetch(&Request::target(&url, 6)).unwrap()), b"signed", "{label}");
    }
}

#[test]
fn what_answered_is_told() {
    let html = "<!DOCTYPE html><html><head><title>Hotel WiFi</title></head></html>";
    let xml = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>";
    for (status, headers, body, told) in [
        ("200 OK", "Content-Type: text/html\r\n", html, "200 with text/html (Hotel WiFi): a login page"),
        ("200 OK", "", html, "200 with a page (Hotel WiFi): a login page"),
        ("401 Unauthorized", "", "", "401: it wants a login"),
        (
            "403 Forbidden",
            "Content-Type: application/xml\r\n",
            xml,
            "403 with application/xml (AccessDenied): it gives no access: a private bucket",
        ),
        (
            "502 Bad Gateway",
            "Content-Type: text/html\r\n",
            "<h1>502</h1>",
            "502 with text/html (502): it is overloaded",
        ),
        ("511 Network Authentication Required", "", "", "511: a login page of the network"),
    ] {
        let server = Server::new(vec![answer(status, headers, body)]);
        let url = server.url("/metadata/timestamp.json?secret");
        // A limit that is shorter than the page.
        let error = fault(HttpFetch::new().fetch(&Request::metadata(&url, 10))).to_string();
        let start = format!("{}: the server answered {told}", url.trim_end_matches("?secret"));
        assert!(error.starts_with(&start), "{error}\n{start}");
    }
    // What is not there, which is no error of the fetcher.
    for (status, headers, body, told) in [
        ("404 Not Found", "Content-Type: text/html\r\n", html, "404 with text/html (Hotel WiFi): the URL is wrong"),
        ("410 Gone", "", "", "410: the URL is wrong, or the repository is incomplete"),
    ] {
        let server = Server::new(vec![answer(status, headers, body)]);
        let url = server.url("/file?secret");
        let Ok(Reply::NotFound(said)) = HttpFetch::new().fetch(&Request::target(&url, 10)) else { panic!() };
        assert!(said.starts_with(told), "{said}");
        let error = crate::Error::unless_found(Reply::NotFound(said), "image", &url).unwrap_err().to_string();
        let start =
            format!("the repository has no image ({} was not found: the server answered {told}", server.url("/file"));
        assert!(error.starts_with(&start), "{error}");
    }
    // A page may be the file.
    let server = Server::new(vec![answer("200 OK", "Content-Type: text/html\r\n", html)]);
    let url = server.url("/page");
    assert_eq!(bytes(HttpFetch::new().fetch(&Request::target(&url, 1000)).unwrap()), html.as_bytes());
}

#[test]
fn idle_connections_are_reopened() {
    let server = Server::new(vec![
        Box::new(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }),
        answer("200 OK", "", "2"),
    ]);
    let http = HttpFetch::new();
    let url = server.url("/file");
    assert_eq!(bytes(http.fetch(&Request::target(&url, 1)).unwrap()), b"1");
    assert_eq!(bytes(http.fetch(&Request::target(&url, 1)).unwrap()), b"2");
}

#[test]
fn nobody_there_is_the_networks_fault() {
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = fault(HttpFetch::new().fetch(&Request::metadata(&format!("http://{unused}/"), 1)));
    assert!(matches!(error, FetchError::Unreachable { .. }), "{error:?}");
    let error = fault(HttpFetch::new().fetch(&Request::metadata("http://", 1)));
    assert!(matches!(error, FetchError::BadUrl { .. }), "{error:?}");
}

/// Slow retrieval (TUF 1.5.2): the server never stops, yet never gets anywhere.
#[test]
fn slow_retrieval_ends_in_time() {
    let drip = |head: &'static [u8], piece: &'static [u8]| -> Answer {
        Box::new(move |stream| {
            stream.write_all(head)?;
            loop {
                stream.write_all(piece)?;
                thread::sleep(Duration::from_millis(20));
            }
        })
    };
    let cases: Vec<(&str, Answer)> = vec![
        ("headers", drip(b"HTTP/1.1 200 OK\r\nX: ", b"x")),
        ("body with a length", drip(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"x")),
        ("body without a length", drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x")),
        ("chunks", drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")),
        ("a chunk header", drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0")),
        ("trailers", drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n")),
        ("silence", drip(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"")),
        ("an unwanted body", drip(b"HTTP/1.1 404 Not Found\r\nContent-Length: 10000\r\n\r\n", b"x")),
    ];
    for (name, answer) in cases {
        let server = Server::new(vec![answer]);
        let url = server.url("/file");
        let started = Instant::now();
        match impatient().fetch(&Request::target(&url, 10_000)) {
            // What an unwanted body does is of no interest, as long as it ends.
            Ok(Reply::NotFound(_)) if name == "an unwanted body" => {}
            reply => {
                let error = fault(reply);
                assert!(
                    matches!(error, FetchError::TooSlow { .. } | FetchError::Unreachable { .. }),
                    "{name}: {error:?}"
                );
            }
        }
        assert!(started.elapsed() < Duration::from_secs(4), "{name}: {:?}", started.elapsed());
    }
}

/// The socket is busy all the time, but one read of the body would last for hours.
#[test]
fn patience_ends_a_read_that_yields_nothing() {
    let server = Server::new(vec![Box::new(|stream: &mut TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")?;
        loop {
            stream.write_all(b"A: b\r\n")?;
            thread::sleep(Duration::from_millis(1));
        }
    })]);
    let url = server.url("/file");
    let started = Instant::now();
    let error = fault(impatient().fetch(&Request::target(&url, 10_000)));
    assert!(matches!(error, FetchError::TooSlow { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_steady_slow_server_is_borne_with() {
    let server = Server::new(vec![Box::new(|stream: &mut TcpStream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n")?;
        for _ in 0..60 {
            stream.write_all(&[b'x'; 10])?;
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    })]);
    let url = server.url("/file");
    assert_eq!(bytes(impatient().fetch(&Request::target(&url, 600)).unwrap()).len(), 600);
}

#[test]
fn redirects_stay_where_they_are() {
    for (location, expected) in [
        ("/b", Ok("http://host:80/b")),
        ("b?c#d", Ok("http://host:80/dir/b?c")),
        ("http://host/x", Ok("http://host/x")),
        ("HTTP://HOST:80/x", Ok("HTTP://HOST:80/x")),
        ("//host/x", Ok("http://host/x")),
        ("https://host/x", Ok("https://host/x")),
        ("https://host:8443/x", Ok("https://host:8443/x")),
        ("https://other/x", Err(())),
        ("https://user@host/x", Err(())),
        ("http://host:8080/x", Err(())),
        ("http://other/x", Err(())),
        ("http://user@host/x", Err(())),
        ("//other/x", Err(())),
        ("file:///etc/passwd", Err(())),
        ("http://host.evil/", Err(())),
        ("http://", Err(())),
        ("", Err(())),
        ("#x", Err(())),
    ] {
        let result = redirected("http://host/dir/a", location);
        assert_eq!(result.as_deref().map_err(|_| ()), expected, "{location:?}");
    }
    assert!(redirected("https://host/a", "http://host/a").is_err());
    assert!(redirected("https://host/a", "https://host:443/b").is_ok());
}

#[test]
fn redirects_are_followed_a_few_times() {
    let hop = || answer("302 Found", "Location: /next\r\n", "moved");
    let server = Server::new((0..5).map(|_| hop()).chain([answer("200 OK", "", "here")]).collect());
    let url = server.url("/file");
    assert_eq!(bytes(HttpFetch::new().fetch(&Request::target(&url, 4)).unwrap()), b"here");
    let server = Server::new((0..6).map(|_| hop()).collect());
    let url = server.url("/file");
    assert!(matches!(fault(HttpFetch::new().fetch(&Request::target(&url, 4))), FetchError::Redirect { .. }));
    let server = Server::new(vec![answer("302 Found", "Location: http://127.0.0.1:9/\r\n", "")]);
    let url = server.url("/file");
    let error = fault(HttpFetch::new().fetch(&Request::target(&url, 4)));
    assert!(matches!(error, FetchError::Redirect { status: 302, .. }), "{error:?}");
    assert_eq!(server.seen().len(), 1);
    // The location is told as it came, without what may be secret.
    let server = Server::new(vec![answer("307 Moved", "Location: //login.example/?token=1\r\n", "")]);
    let error = fault(HttpFetch::new().fetch(&Request::target(&server.url("/file"), 4))).to_string();
    assert!(
        error.contains("the server answered 307 with the location \"//login.example/\": only redirects"),
        "{error}"
    );
}
