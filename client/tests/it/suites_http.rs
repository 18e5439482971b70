//! The HTTP fetcher in the suite for fetchers.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_client::clock::SystemClock;
use tidegate_client::fetch::http::{HttpFetch, HttpOptions, Proxy};
use tidegate_client::testing::check_fetch;

use crate::suites::Folder;

/// With a server that knows ranges and tags, and one that does not.
#[test]
fn the_http_fetcher_keeps_the_suite() {
    let options = HttpOptions { proxy: Proxy::None, ..HttpOptions::default() };
    let http = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
    for knows_ranges in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let url = serve(folder.path().into(), knows_ranges);
        check_fetch(&http, &Folder(folder.path().into(), Some(url))).unwrap();
    }
}

/// Answers `GET` with the files of a folder, one connection each, until the test ends.
fn serve(folder: PathBuf, knows_ranges: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let header = |name: &str| {
                let of = |line: &String| line.to_lowercase().strip_prefix(&format!("{name}: ")).map(str::to_owned);
                lines.iter().find_map(of).filter(|_| knows_ranges)
            };
            let path = lines[0].split(' ').nth(1).unwrap().trim_start_matches('/');
            let (status, extra, body) = match fs::read(folder.join(path)) {
                Err(_) => ("404 Not Found", String::new(), Vec::new()),
                Ok(_) if header("if-none-match").is_some_and(|tag| tag == "\"tag\"") => {
                    ("304 Not Modified", String::new(), Vec::new())
                }
                Ok(bytes) => match header("range") {
                    None => ("200 OK", if knows_ranges { "ETag: \"tag\"\r\n".into() } else { String::new() }, bytes),
                    Some(range) => {
                        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                        let first: usize = first.parse().unwrap();
                        let last = last.parse().unwrap_or(bytes.len()).min(bytes.len() - 1);
                        let extra = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
                        ("206 Partial Content", extra, bytes[first..=last].to_vec())
                    }
                },
            };
            let head =
                format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
    });
    url
}
