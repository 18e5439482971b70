//! Receipts as objects of a store that lets devices only create objects, without a gate.

use std::sync::Arc;

use ureq::http::Method;

use super::folder::object;
use super::{Answer, Destination, NotTaken, Sink, one_by_one};
use crate::command::{Command, Ran};
use crate::fetch::http::{Answered, HttpFetch};
use tidegate_model::receipt::SignedReceipt;
use tidegate_model::text::public_url;

/// The source of the URL for a receipt.
#[derive(Debug, Clone)]
pub enum Urls {
    /// One URL in which `{name}` stands for the object's name: a folder's URL with a signature for everything below it, or a store that
    /// allows anonymous creation.
    Pattern(String),
    /// A program that gets the object's name as its last argument and prints the presigned URL for this object.
    Program(Command),
}

/// Uploads each receipt under its own name, on condition that the name is unused (`If-None-Match: *`).
#[derive(Debug)]
pub struct PutSink {
    http: Arc<HttpFetch>,
    urls: Urls,
}

/// The placeholder for the object's name in a pattern.
const NAME: &str = "{name}";

impl PutSink {
    /// A sink that uses `http`.
    ///
    /// # Errors
    ///
    /// What is wrong with the pattern.
    pub fn new(http: impl Into<Arc<HttpFetch>>, urls: Urls) -> Result<Self, String> {
        if let Urls::Pattern(pattern) = &urls {
            let (before, _) = pattern.split_once(NAME).ok_or(
                "a presigned URL is valid for one object: use {name} as the placeholder for the object's name, or configure a program that prints a URL for it",
            )?;
            if before.contains(['?', '#']) {
                return Err("{name} must be in the path of the URL".into());
            }
            must_be_private(&pattern.replacen(NAME, "name", 1))?;
        }
        Ok(Self { http: http.into(), urls })
    }

    fn url(&self, name: &str) -> Result<String, String> {
        match &self.urls {
            // The name contains only characters that need no escape in a URL.
            Urls::Pattern(pattern) => Ok(pattern.replacen(NAME, name, 1)),
            Urls::Program(program) => {
                let program = program.clone().arguments(&[name]);
                let said = program.run().and_then(Ran::success).map_err(|e| e.to_string())?;
                let url = said.trim();
                must_be_private(url)?;
                Ok(url.to_owned())
            }
        }
    }

    fn put(&self, signed: &SignedReceipt) -> Result<(), NotTaken> {
        let (name, bytes) = object(signed)?;
        let now = |why| NotTaken::Now { why, after: None };
        let url = self.url(&name).map_err(now)?;
        let headers = [("Content-Type", "application/json"), ("If-None-Match", "*")];
        let Answered { status, retry_after, .. } =
            self.http.send_nameless(&Method::PUT, &url, &headers, &bytes).map_err(|e| now(e.to_string()))?;
        let why = || format!("{} answered with status {status}", public_url(&url));
        match status {
            // 412: it exists already, with the same content, because the name depends on it.
            200 | 201 | 204 | 412 => Ok(()),
            413 => Err(NotTaken::Ever(why())),
            // Also 400 and 403: the URL, its signature or its time is wrong, which can be corrected.
            _ => Err(NotTaken::Now { why: why(), after: retry_after }),
        }
    }
}

impl Sink for PutSink {
    /// Each needs its own request and is recorded before the next.
    fn at_once(&self) -> usize {
        1
    }

    fn send(&mut self, receipts: &[SignedReceipt], _: &Destination) -> Answer {
        one_by_one(receipts, |signed| self.put(signed))
    }
}

/// Checks that nobody in the network can read or change a receipt.
fn must_be_private(url: &str) -> Result<(), String> {
    let uri = url.parse::<ureq::http::Uri>().ok();
    let (scheme, host) = match &uri {
        Some(uri) => (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default()),
        None => ("", ""),
    };
    let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    if !host.is_empty() && (scheme == "https" || (scheme == "http" && is_here)) {
        Ok(())
    } else {
        Err(format!("{} is not allowed: receipts are only sent over https, or to this machine", public_url(url)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::super::ledger::tests::{key, offered};
    use super::*;

    /// A store that accepts conditional uploads, or answers with a scripted status.
    struct Store {
        address: String,
        objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
        status: Arc<Mutex<Option<u16>>>,
    }

    impl Store {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let (objects, status) = (Arc::default(), Arc::default());
            let store = Self { address, objects, status };
            let (objects, status) = (Arc::clone(&store.objects), Arc::clone(&store.status));
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let (objects, status) = (Arc::clone(&objects), Arc::clone(&status));
                    std::thread::spawn(move || {
                        let mut reader = BufReader::new(stream);
                        while let Some(answer) = serve(&mut reader, &objects, &status) {
                            let head = format!("HTTP/1.1 {answer} X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n");
                            if reader.get_mut().write_all(head.as_bytes()).is_err() {
                                break;
                            }
                        }
                    });
                }
            });
            store
        }

        fn sink(&self) -> PutSink {
            let pattern = format!("http://{}/bucket/{{name}}?signature=secret", self.address);
            PutSink::new(HttpFetch::new(), Urls::Pattern(pattern)).unwrap()
        }
    }

    fn serve(
        reader: &mut BufReader<std::net::TcpStream>,
        objects: &Mutex<BTreeMap<String, Vec<u8>>>,
        status: &Mutex<Option<u16>>,
    ) -> Option<u16> {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_lowercase());
        }
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if let Some(status) = *status.lock().unwrap() {
            return Some(status);
        }
        let request = head.first()?.split(' ').collect::<Vec<_>>();
        if request.first() != Some(&"put") || !head.contains(&"if-none-match: *".to_owned()) {
            return Some(403);
        }
        let path = request.get(1)?.strip_suffix("?signature=secret")?;
        match objects.lock().unwrap().entry(path.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => Some(412),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(body);
                Some(200)
            }
        }
    }

    #[test]
    fn each_receipt_is_put_once_under_its_name() {
        let store = Store::new();
        let mut sink = store.sink();
        let ledger = offered(3);
        let to = Destination::default();
        for _ in 0..2 {
            assert_eq!(sink.send(ledger.waiting(), &to), Answer::Kept(3));
        }
        let objects = store.objects.lock().unwrap();
        assert_eq!(objects.len(), 3);
        for signed in ledger.waiting() {
            let bytes = objects.get(&format!("/bucket/{}", signed.object_name().unwrap())).unwrap();
            assert!(SignedReceipt::parse(bytes).unwrap().verify(key().public()));
        }
    }

    #[test]
    fn store_errors_show_no_secret() {
        let store = Store::new();
        let mut sink = store.sink();
        let ledger = offered(2);
        for (status, for_good) in [(400, false), (403, false), (409, false), (302, false), (503, false), (413, true)] {
            *store.status.lock().unwrap() = Some(status);
            let answer = sink.send(ledger.waiting(), &Destination::default());
            assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
            match answer {
                Answer::Later { kept: 0, why, after } => {
                    assert!(!for_good && why.contains(&status.to_string()), "{why}");
                    assert_eq!(after, Some(Duration::from_secs(7)));
                }
                Answer::Refused { kept: 0, of: 1, .. } => assert!(for_good, "{status}"),
                other => panic!("{status}: {other:?}"),
            }
        }
        assert!(store.objects.lock().unwrap().is_empty());
        // Nobody there.
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pattern = format!("http://{unused}/{{name}}?signature=secret");
        let mut sink = PutSink::new(HttpFetch::new(), Urls::Pattern(pattern)).unwrap();
        let Answer::Later { kept: 0, why, .. } = sink.send(ledger.waiting(), &Destination::default()) else { panic!() };
        assert!(why.contains(&unused.to_string()) && !why.contains("secret"), "{why}");
    }

    #[cfg(unix)]
    #[test]
    fn a_program_may_tell_the_url_of_each_object() {
        let store = Store::new();
        let tells = |text: String| {
            let words = ["sh", "-c", &text, "urls"].map(str::to_owned);
            Urls::Program(Command::new(words, Duration::from_secs(20)))
        };
        let good = tells(format!("echo \"http://{}/put/$1?signature=secret\"", store.address));
        let ledger = offered(2);
        let mut sink = PutSink::new(HttpFetch::new(), good).unwrap();
        assert_eq!(sink.send(ledger.waiting(), &Destination::default()), Answer::Kept(2));
        assert!(store.objects.lock().unwrap().keys().all(|name| name.starts_with("/put/receipts/stable/os/")));
        for (text, expected) in [
            ("exit 3", "exit code 3"),
            ("echo http://example.com/x?signature=secret", "only sent over https"),
            ("echo", "only sent over https"),
        ] {
            let mut sink = PutSink::new(HttpFetch::new(), tells(text.into())).unwrap();
            let answer = sink.send(ledger.waiting(), &Destination::default());
            let Answer::Later { why, .. } = answer else { panic!("{answer:?}") };
            assert!(why.contains(expected) && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn url_patterns_are_private() {
        for (pattern, expected) in [
            ("https://store.example.com/bucket/{name}?sig=x", None),
            ("http://127.0.0.1:9000/{name}", None),
            ("https://store.example.com/bucket/object?sig=x", Some("one object")),
            ("https://store.example.com/bucket?key={name}", Some("in the path")),
            ("http://store.example.com/{name}", Some("https")),
            ("ftp://store.example.com/{name}", Some("https")),
            ("{name}", Some("https")),
        ] {
            let made = PutSink::new(HttpFetch::new(), Urls::Pattern(pattern.into())).map(drop);
            match expected {
                None => made.unwrap(),
                Some(expected) => assert!(made.unwrap_err().contains(expected), "{pattern}"),
            }
        }
    }
}
