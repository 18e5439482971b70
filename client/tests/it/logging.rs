//! What log events show, and what they must not.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use tidegate_client::clock::SystemClock;
use tidegate_client::command::Command;
use tidegate_client::fetch::http::{Authorization, HttpFetch, HttpOptions, Source};
use tidegate_client::fetch::{Fetch as _, Reply, Request};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

thread_local! {
    /// What this thread has logged, as text.
    static LOGGED: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Collects the events of each thread. It is the subscriber of the whole process: whether an event is wanted is remembered for all
/// threads, so subscribers that come and go in one test hide events from another.
struct Events;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl Subscriber for Events {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tidegate")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        let _ = LOGGED.try_with(|logged| {
            let mut logged = logged.borrow_mut();
            logged.push_str(&line.0);
            logged.push('\n');
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn events_of(act: impl FnOnce()) -> String {
    static SUBSCRIBED: Once = Once::new();
    SUBSCRIBED.call_once(|| tracing::subscriber::set_global_default(Events).unwrap());
    LOGGED.take();
    act();
    LOGGED.take()
}

/// Answers with these, one connection each.
fn serve(answers: Vec<&'static str>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let reader = BufReader::new(stream.try_clone().unwrap());
            let _ = reader.lines().map_while(Result::ok).find(String::is_empty);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    format!("http://{address}")
}

#[test]
fn requests_are_logged_without_secrets() {
    let server = serve(vec![
        "HTTP/1.1 302 Found\r\nLocation: /moved?signature=secret-2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nSet-Cookie: secret-3\r\nConnection: close\r\n\r\nhello",
    ]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "secret-4").unwrap();
    let authorization = Authorization::new(&server, Source::File(path)).unwrap();
    let options = HttpOptions { authorization: Some(authorization), ..HttpOptions::default() };
    let http = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
    let events = events_of(|| {
        let url = format!("{server}/file?token=secret-1");
        let Reply::Found(body) = http.fetch(&Request::target(&url, 5)).unwrap() else { panic!("not found") };
        assert_eq!(body.into_bytes().unwrap(), b"hello");
    });
    for expected in [
        format!("DEBUG message=sent a request method=\"GET\" url=\"{server}/file\" status=302"),
        format!("url=\"{server}/moved\" status=200 bytes=5"),
        format!("DEBUG message=received a file url=\"{server}/file\" offset=0 bytes=5"),
    ] {
        assert!(events.contains(&expected), "{expected}\n{events}");
    }
    assert!(!events.contains("secret") && !events.contains('?'), "{events}");
}

#[test]
fn programs_are_logged_without_arguments() {
    let command = ["sh", "-c", "echo secret-1; echo secret-2 >&2; exit 3", "secret-3"].map(String::from);
    let command =
        Command::new(command, Duration::from_secs(20)).variable("TOKEN", "secret-4").input(b"secret-5".into());
    let events = events_of(|| {
        command.run().unwrap();
    });
    assert!(events.contains("DEBUG message=ran a program program=\"sh\" code=3"), "{events}");
    assert!(!events.contains("secret"), "{events}");
}
