//! The gate under abuse: ten kinds of clients that take what they can, behind a load balancer, while honest devices go on.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::support::device::Device;
use crate::support::wire::{Open, Response, exchange_over};
use crate::support::{COHORTS, RunningGate, TestSite, client};

/// So little for all that each kind of abuse would use it up.
const LIMITS: &str = r#"
[proxy_protocol]
trusted = ["127.0.0.0/8"]
[limits]
connections = 64
connections_per_address = 16
connections_per_device = 4
handshakes = 32
handshakes_per_address = 8
handshakes_per_second = 200
handshakes_per_address_per_minute = 300
requests = 16
per_second = 100
per_address_per_minute = 300
per_device_per_minute = 30
device_burst = 20
receipts_per_device_per_day = 20
"#;
/// How many connections one kind holds.
const HELD: usize = 80;
const CHALLENGE: &str = "/v1/challenge";

/// The load balancer: each connection begins with the address that it comes from.
fn connect(gate: SocketAddr, source: &str) -> TcpStream {
    let mut socket = TcpStream::connect(gate).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (family, to) = if source.contains(':') { ("TCP6", "2001:db8::1") } else { ("TCP4", "192.0.2.1") };
    // The gate may close at once.
    let _ = socket.write_all(format!("PROXY {family} {source} {to} 4711 443\r\n").as_bytes());
    socket
}

fn ask(gate: SocketAddr, source: &str, tls: &Arc<ClientConfig>, bytes: &[u8]) -> Option<Response> {
    Response::parse(exchange_over(connect(gate, source), Some(tls), bytes).ok()?)
}

/// An honest device's session: the numbers of requests that were answered as they should, and of all.
fn session(gate: SocketAddr, source: &str, device: &Device, number: u64) -> (usize, usize) {
    let tls = device.tls.as_ref().unwrap();
    let post = |path: &str, body: &Value| {
        let body = body.to_string();
        ask(gate, source, tls, &device.request("POST", path, body.as_bytes(), None, ""))
    };
    let text = |response: Option<Response>, field: &str| {
        let response = response.filter(|response| response.status == 200)?;
        response.json()[field].as_str().map(str::to_owned)
    };
    let Some(nonce) = text(post(CHALLENGE, &json!({"device": device.id})), "nonce") else { return (0, 4) };
    let form = json!({"device": device.id, "nonce": nonce, "cohorts": ["stable.canary"], "evidence": {"kind": "none"}});
    let Some(token) = text(post("/v1/grant", &form), "token") else { return (1, 4) };
    let path = "/v1/repo/metadata/3.stable.canary.json";
    let role = ask(gate, source, tls, &device.request("GET", path, b"", Some(&token), ""));
    let last = if device.has_key {
        post("/v1/receipts", &json!({"receipts": [device.receipt(number)]}))
    } else {
        ask(gate, source, tls, &device.request("HEAD", path, b"", Some(&token), ""))
    };
    (2 + [role, last].iter().flatten().filter(|response| response.status == 200).count(), 4)
}

/// Connections that are kept open and used for nothing.
struct Held<T>(VecDeque<T>);

impl<T> Held<T> {
    fn hold(&mut self, connection: T) {
        self.0.push_back(connection);
        if self.0.len() > HELD {
            self.0.pop_front();
        }
    }
}

type Kind<'a> = (&'static str, Box<dyn FnMut(usize) + Send + 'a>);

/// What abusive clients have: a certificate of a device that is not enrolled, an enrolled key, a certificate of nobody, nothing.
struct Abusers {
    certified: Device,
    enrolled: Device,
    foreign: Device,
    unidentified: Device,
}

impl Abusers {
    fn new(site: &TestSite) -> Self {
        Self {
            certified: Device::certified(site, "greedy-1"),
            enrolled: Device::enrolled(site, "greedy-2"),
            foreign: Device::with(site, "x", &client("x", &["tidegate:device:device-1"]), &site.untrusted_ca),
            unidentified: Device::unidentified(site),
        }
    }

    /// Those that keep connections and send nothing, or slowly.
    fn slow(&self, gate: SocketAddr) -> Vec<Kind<'_>> {
        let from = |kind: u8, number: usize| format!("203.0.113.{}", usize::from(kind) * 10 + number % 5);
        let tls = self.unidentified.tls.as_ref().unwrap();
        let (mut silent, mut half) = (Held(VecDeque::new()), Held(VecDeque::new()));
        let [mut idle, mut heads, mut bodies] = std::array::from_fn(|_| Held(VecDeque::new()));
        let begun = move |held: &mut Held<(Open, Option<Vec<u8>>)>, source: String, bytes: &[u8]| {
            let mut open = Open::over(connect(gate, &source), tls);
            open.write(bytes);
            held.hold((open, None));
        };
        vec![
            ("silent connections", Box::new(move |number| silent.hold(connect(gate, &from(0, number))))),
            (
                "half of a handshake",
                Box::new(move |number| {
                    let mut socket = connect(gate, &from(1, number));
                    let _ = socket.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
                    half.hold(socket);
                }),
            ),
            ("handshakes without a request", Box::new(move |number| begun(&mut idle, from(2, number), b""))),
            (
                "heads without an end",
                Box::new(move |number| begun(&mut heads, from(3, number), b"POST /v1/challenge HTT")),
            ),
            (
                "bodies without an end",
                Box::new(move |number| {
                    let head =
                        b"POST /v1/challenge HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{\"device";
                    begun(&mut bodies, from(4, number), head);
                }),
            ),
        ]
    }

    /// Those that send as much as they can.
    fn fast(&self, gate: SocketAddr) -> Vec<Kind<'_>> {
        let post = |device: &Device, path: &str, body: &Value| {
            let bytes = device.request("POST", path, body.to_string().as_bytes(), None, "");
            String::from_utf8(bytes).unwrap().replace("Connection: close\r\n", "").into_bytes()
        };
        let send = move |source: String, device: &Device, bytes: &[u8]| {
            let mut open = Open::over(connect(gate, &source), device.tls.as_ref().unwrap());
            while open.send(bytes).is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {}
        };
        let [certified, enrolled, foreign, unidentified] =
            [&self.certified, &self.enrolled, &self.foreign, &self.unidentified];
        let challenge = post(certified, CHALLENGE, &json!({"device": certified.id}));
        let receipts = json!({"receipts": (0..16).map(|number| certified.receipt(number)).collect::<Vec<_>>()});
        let unenrolled = post(certified, "/v1/receipts", &receipts);
        vec![
            (
                "one certificate, as often as it can",
                Box::new(move |number| send(format!("203.0.113.{}", 100 + number % 5), certified, &challenge)),
            ),
            (
                "requests of nobody, and of keys that are not enrolled",
                Box::new(move |number| {
                    let mut stranger =
                        Device { tls: unidentified.tls.clone(), ..Device::key_only(&number.to_string()) };
                    stranger.has_key = number % 2 == 0;
                    let bytes = post(&stranger, CHALLENGE, &json!({"device": "device-1"}));
                    send("203.0.113.110".into(), &stranger, &bytes);
                }),
            ),
            (
                "another address of one network for each request",
                Box::new(move |number| {
                    let bytes = b"GET /v1/nothing HTTP/1.1\r\nHost: localhost\r\n\r\n";
                    send(format!("2001:db8:bad::{number:x}"), unidentified, bytes);
                }),
            ),
            (
                "handshakes with certificates of others",
                Box::new(move |number| {
                    send(format!("203.0.113.{}", 120 + number % 5), foreign, b"GET / HTTP/1.1\r\n\r\n");
                }),
            ),
            (
                "receipts of a device that is not enrolled, and more than a device may store",
                Box::new(move |number| {
                    let more: Vec<Value> = (0..16).map(|n| enrolled.receipt((number * 16 + n) as u64)).collect();
                    let more = post(enrolled, "/v1/receipts", &json!({"receipts": more}));
                    send("203.0.113.130".into(), certified, &unenrolled);
                    send("203.0.113.131".into(), enrolled, &more);
                }),
            ),
        ]
    }
}

/// Runs honest sessions from so many addresses, four at a time. The numbers of good answers and of all.
fn honest_sessions(gate: &RunningGate, devices: &[Device]) -> (usize, usize) {
    let (good, all) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for part in devices.chunks(devices.len().div_ceil(4)) {
            let (good, all) = (&good, &all);
            scope.spawn(move || {
                for (number, device) in part.iter().enumerate() {
                    let source = format!("198.51.100.{}", device.id.strip_prefix("device-").unwrap());
                    let (some, of) = session(gate.address, &source, device, number as u64);
                    good.fetch_add(some, Relaxed);
                    all.fetch_add(of, Relaxed);
                }
            });
        }
    });
    (good.into_inner(), all.into_inner())
}

/// A metric of the gate, summed over its labels.
fn total(gate: &RunningGate, name: &str) -> usize {
    let text = String::from_utf8(gate.local("/metrics").body).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

#[test]
fn honest_devices_are_served_under_ten_kinds_of_abuse() {
    let site = TestSite::new();
    site.write_config("optional", &format!("{LIMITS}{COHORTS}"));
    let devices: Vec<Device> = (1..=30)
        .map(|number| match (number % 2, format!("device-{number}")) {
            (0, id) => Device::certified(&site, &id),
            (_, id) => Device::enrolled(&site, &id),
        })
        .collect();
    let abusers = Abusers::new(&site);
    let gate = site.start();
    let kinds: Vec<Kind<'_>> = abusers.slow(gate.address).into_iter().chain(abusers.fast(gate.address)).collect();
    assert_eq!(kinds.len(), 10);
    let counts: Vec<AtomicUsize> = kinds.iter().map(|_| AtomicUsize::new(0)).collect();
    let is_over = AtomicBool::new(false);
    let (good, all) = std::thread::scope(|scope| {
        for ((_, mut step), count) in kinds.into_iter().zip(&counts) {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Relaxed) {
                    step(count.fetch_add(1, Relaxed));
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
        }
        TestSite::wait_until("all kinds are at work", || counts.iter().all(|count| count.load(Relaxed) >= 20));
        let served = honest_sessions(&gate, &devices);
        is_over.store(true, Relaxed);
        served
    });
    assert_eq!(all, 120);
    assert!(good * 100 >= all * 95, "{good} of {all} honest requests, {counts:?}");
    // The abuse was such that limits were reached, and it left few lines in the audit log.
    let refused =
        total(&gate, "tidegate_gate_refusals_total") + total(&gate, "tidegate_gate_connections_refused_total");
    let audit = gate.audit();
    let lines = audit.lines().filter(|line| line.contains("\"rule\"")).count();
    println!("{good} of {all}; {refused} refusals in {lines} lines; {counts:?}");
    for rule in ["G-CON-03", "G-CON-04", "G-CON-06", "G-LIM-03", "G-LIM-08", "G-REC-06", "G-REC-08"] {
        assert!(audit.contains(rule), "{rule}: {audit}");
    }
    assert!(refused > 2 * lines && lines < 250, "{refused} refusals, {lines} lines");
    assert_eq!(gate.local("/readyz").status, 200);
}
