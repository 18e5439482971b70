//! Memory before trust: what hostile documents make the program take at most, whoever signed them.
//!
//! A mirror without keys serves documents that cost much, stolen keys sign such documents, gates and programs answer with them. Each row is a
//! run of the program; what it took is what the system counted for its process.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::cli::Bench;
use crate::fleet;
use crate::simulator::{Simulator, epoch};
use crate::tools;

/// What a run may take beyond a check of a sound repository, so that the code of programs that were built for debugging does not count: as
/// shipped, a sound check takes 5 MB, and 10 MB with what is built for debugging.
const MOST: u64 = 4_000_000;
/// The same where keys were stolen.
const SIGNED: u64 = 7_000_000;
/// The same for sound documents that are as long as they may be.
const WHOLE: u64 = 14_000_000;

const ROLES: [&str; 7] =
    ["root", "timestamp", "snapshot", "targets", "stable", "stable.all", "stable.all, listed with its length"];

/// How a mirror answers.
#[derive(Clone)]
enum Answer {
    /// With these bytes, and headers.
    Bytes(Vec<u8>, String),
    /// With these headers, and then these bytes over and over.
    Endless(&'static str, Vec<u8>),
}

struct Server {
    url: String,
    files: Arc<Mutex<BTreeMap<String, Answer>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { url: format!("http://{}", listener.local_addr().unwrap()), files: Arc::default() };
        let files = server.files.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let files = files.clone();
                // The program may leave at any time.
                std::thread::spawn(move || drop(answer(&stream, &files)));
            }
        });
        server
    }

    fn serve(&self, sim: &Simulator) {
        let files = sim.files.iter().map(|(path, bytes)| (format!("/{path}"), plain(bytes.clone())));
        *self.files.lock().unwrap() = files.collect();
    }

    fn put(&self, path: &str, answer: Answer) {
        self.files.lock().unwrap().insert(path.into(), answer);
    }
}

fn answer(mut stream: &TcpStream, files: &Mutex<BTreeMap<String, Answer>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head)? > 0 {}
    for line in head.lines() {
        length = line.to_ascii_lowercase().strip_prefix("content-length: ").map_or(length, |n| n.parse().unwrap());
    }
    reader.read_exact(&mut vec![0; length])?;
    let path = head.split(' ').nth(1).unwrap_or_default();
    let answer = files.lock().unwrap().get(path).cloned();
    match answer {
        None => write!(stream, "HTTP/1.1 404 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        Some(Answer::Bytes(bytes, headers)) => {
            let status = if headers.contains("refused") { 403 } else { 200 };
            write!(stream, "HTTP/1.1 {status} x\r\nConnection: close\r\n{headers}\r\n")?;
            stream.write_all(&bytes)
        }
        Some(Answer::Endless(headers, bytes)) => {
            write!(stream, "HTTP/1.1 200 x\r\nConnection: close\r\n{headers}\r\n")?;
            loop {
                stream.write_all(&bytes)?;
            }
        }
    }
}

fn plain(bytes: Vec<u8>) -> Answer {
    let headers = format!("Content-Length: {}\r\n", bytes.len());
    Answer::Bytes(bytes, headers)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gzipped(bytes: &[u8]) -> Answer {
    let bytes = gzip(bytes);
    let headers = format!("Content-Encoding: gzip\r\nContent-Length: {}\r\n", bytes.len());
    Answer::Bytes(bytes, headers)
}

/// Documents of about so many bytes, each with what the program says about it.
fn hostile(length: usize) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let list = |unit: &str| filled("{\"signatures\":[],\"signed\":{\"a\":[", unit, "0]}}", length);
    let numbered = |head: &str, entry: fn(usize) -> String, tail: &str| {
        let mut text = String::from(head);
        for number in 0.. {
            text += &entry(number);
            if text.len() + 200 > length {
                break;
            }
        }
        text.pop();
        (text + tail).into_bytes()
    };
    let in_signed = "{\"signatures\":[],\"signed\":{";
    vec![
        ("empty keys", list("{\"\":0},"), "too many values"),
        ("empty objects", list("{},"), "too many values"),
        ("empty lists", list("[],"), "too many values"),
        ("numbers", list("0,"), "too many values"),
        ("words", list("null,"), "ignature"),
        ("empty strings", list("\"\","), "too many values"),
        ("objects in objects", list("{\"a\":{\"b\":{\"c\":{}}}},"), "ignature"),
        ("deep lists", filled("", "[", "", length), "nested too deep"),
        ("deep objects", filled("", "{\"\":", "0", length), "nested too deep"),
        ("a long string", filled("{\"signed\":{\"a\":\"", "x", "\"}}", length), "too long a string"),
        ("a long key", filled("{\"signed\":{\"", "x", "\":0}}", length), "too long a string"),
        ("a long string of escapes", filled("{\"signed\":{\"a\":\"", "\\u0061", "\"}}", length), "too long a string"),
        ("a long number", filled("{\"signed\":{\"a\":", "1", "}}", length), "not a whole number"),
        ("the same key", filled(in_signed, "\"a\":0,", "\"b\":0}}", length), "appears twice"),
        ("different keys", numbered(in_signed, |n| format!("\"{n:x}\":0,"), "}}"), "ignature"),
        (
            "signatures",
            numbered("{\"signatures\":[", |n| format!("{{\"keyid\":\"{n}\",\"sig\":\"\"}},"), "],\"signed\":{}}"),
            "too many entries",
        ),
        (
            "a signature of hex",
            filled("{\"signed\":{},\"signatures\":[{\"keyid\":\"a\",\"sig\":\"", "0f", "\"}]}", length),
            "too long a string",
        ),
        (
            "keys",
            numbered(
                "{\"signatures\":[],\"signed\":{\"keys\":{",
                |n| format!("\"{n}\":{{\"keytype\":\"\",\"scheme\":\"\",\"keyval\":{{}}}},"),
                "}}}",
            ),
            "ignature",
        ),
        (
            "delegations",
            numbered(
                "{\"signatures\":[],\"signed\":{\"delegations\":{\"roles\":[",
                |n| format!("{{\"name\":\"{n}\",\"keyids\":[],\"paths\":[\"\"]}},"),
                "]}}}",
            ),
            "ignature",
        ),
        ("white space", filled(in_signed, " \n", "}}", length), "ignature"),
        ("no UTF-8", [filled(in_signed, "\"a\":0,", "", length - 9), vec![0xff; 9]].concat(), "utf-8"),
    ]
}

/// `unit` as often as fits.
fn filled(head: &str, unit: &str, tail: &str, length: usize) -> Vec<u8> {
    let count = (length - head.len() - tail.len()) / unit.len();
    [head, &unit.repeat(count), tail].concat().into_bytes()
}

/// How much of a document of the role is read.
fn read_of(role: &str) -> usize {
    match role {
        "root" => 512_000,
        "timestamp" => 16_384,
        _ => 1_000_000,
    }
}

fn path_of(sim: &Simulator, role: &str) -> String {
    match role {
        "root" => format!("/metadata/{}.root.json", sim.version("root") + 1),
        "timestamp" => "/metadata/timestamp.json".into(),
        _ => format!("/metadata/{}.{role}.json", sim.version(role)),
    }
}

/// A repository with a release for everybody.
fn repository(hashes: bool) -> Simulator {
    let mut sim = fleet::channel(&[("lab", None), ("all", Some(1_000_000))]);
    sim.hashes = hashes;
    for role in ["root", "timestamp", "snapshot", "targets", "stable", "stable.lab", "stable.all"] {
        sim.set_expiry(role, epoch() + TimeDelta::days(36_500));
    }
    fleet::release(&mut sim, "all", "1.2.0", 12);
    sim.publish(&["stable.lab", "stable.all", "stable", "targets", "snapshot", "timestamp", "root"]);
    sim
}

/// A device, and the most that a run of it may take.
struct Meter {
    bench: Bench,
    server: Server,
    /// What a check of a sound repository takes.
    sound: u64,
    most: u64,
    rows: usize,
    worst: (u64, String),
    faults: Vec<String>,
}

impl Meter {
    fn new(sim: &Simulator) -> Self {
        let (bench, server) = (Bench::new(|_| ()), Server::start());
        fs::write(bench.path("root.json"), sim.root(1)).unwrap();
        bench.set(&json!({"repository": server.url}));
        let (worst, faults) = ((0, String::new()), Vec::new());
        let mut meter = Self { bench, server, sound: 0, most: 0, rows: 0, worst, faults };
        meter.server.serve(sim);
        let (said, taken) = meter.run();
        assert!(said.contains("install 1.2.0"), "{said}");
        println!("a sound check takes {} kB", taken / 1000);
        meter.sound = taken;
        meter.most = taken + MOST;
        meter
    }

    /// What the program said, and the bytes that it had resident at most.
    fn run(&self) -> (String, u64) {
        let _ = fs::remove_dir_all(self.bench.path("state"));
        let program = self.bench.command(&["check"]);
        let output = std::process::Command::new("time")
            .args(["-f", "%M", "-o"])
            .arg(self.bench.path("peak"))
            .arg(program.get_program())
            .args(program.get_args())
            .output()
            .unwrap();
        let peak = fs::read_to_string(self.bench.path("peak")).unwrap();
        let kib: u64 = peak.lines().last().unwrap().parse().unwrap();
        (String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), kib * 1024)
    }

    /// One row: the program must not take more, and must say this.
    fn row(&mut self, name: &str, says: &str) {
        let (said, taken) = self.run();
        self.rows += 1;
        if std::env::var_os("TIDEGATE_ROWS").is_some() {
            println!("{:>7} kB  {name}: {}", taken / 1000, said.lines().next().unwrap_or_default());
        }
        if taken > self.worst.0 {
            self.worst = (taken, name.to_owned());
        }
        if taken > self.most {
            self.faults.push(format!("{name}: {} kB", taken / 1000));
        }
        if !said.contains(says) || said.contains("panicked") {
            self.faults.push(format!("{name}: {says:?} is not in {said}"));
        }
    }

    fn end(self, least: usize) {
        println!("{} rows, at most {} kB: {}", self.rows, self.worst.0 / 1000, self.worst.1);
        assert!(self.faults.is_empty(), "{:#?}", self.faults);
        assert!(self.rows >= least, "{}", self.rows);
    }
}

#[test]
fn a_mirror_without_keys_takes_no_memory() {
    if !tools::have(&["time"]) {
        return;
    }
    let (by_version, by_hash) = (repository(false), repository(true));
    let mut meter = Meter::new(&by_version);
    for role in ROLES {
        let (role, sim) = match role.strip_suffix(", listed with its length") {
            Some(role) => (role, &by_hash),
            None => (role, &by_version),
        };
        meter.server.serve(sim);
        for (index, (kind, bytes, says)) in hostile(read_of(role)).into_iter().enumerate() {
            // All kinds for the role that anybody may replace, some of them for each of the others.
            let is_whole = role == "stable.all" && !sim.hashes;
            if is_whole || index % 3 == role.len() % 3 {
                let is_plain = is_whole || index % 2 == 0;
                meter.server.put(&path_of(sim, role), if is_plain { plain(bytes) } else { gzipped(&bytes) });
                meter.row(&format!("{role}: {kind}"), if is_whole { says } else { "" });
            }
        }
    }
    transfers(&mut meter, &by_version);
    meter.end(70);
}

/// What is not as it says, or without end.
fn transfers(meter: &mut Meter, sim: &Simulator) {
    let document = filled("{\"signatures\":[],\"signed\":{\"a\":[", "{\"\":0},", "0]}}", 15_999_000);
    let small = filled("{\"signatures\":[],\"signed\":{\"a\":[", "{\"\":0},", "0]}}", 30_000);
    let with = |headers: &str, bytes: &[u8]| Answer::Bytes(bytes.to_vec(), headers.to_owned());
    let bomb = gzip(&vec![b' '; 15_999_000]);
    // Blocks that are stored and empty: a stream that unpacks to nothing.
    let nothing = [&gzip(b"")[..10], &[0, 0, 0, 0xff, 0xff].repeat(500_000)].concat();
    let rows = [
        ("a document of 16 MB in 23 kB", gzipped(&document), "grows too much"),
        ("white space of 16 MB in 16 kB", with("Content-Encoding: gzip\r\n", &bomb), "grows too much"),
        ("gzip in gzip", with("Content-Encoding: gzip\r\n", &gzip(&bomb)), "malformed"),
        ("gzip in gzip, declared", with("Content-Encoding: gzip, gzip\r\n", &gzip(&bomb)), "not requested"),
        ("gzip of nothing", with("Content-Encoding: gzip\r\n", &nothing), "longer than"),
        ("another coding", with("Content-Encoding: br\r\n", &small), "not requested"),
        ("no length", Answer::Endless("", vec![b' '; 65_536]), "longer than"),
        (
            "chunks without end",
            Answer::Endless(
                "Transfer-Encoding: chunked\r\n",
                [b"1000\r\n".as_slice(), &[b' '; 4096], b"\r\n"].concat(),
            ),
            "longer than",
        ),
        ("a chunk of any length", with("Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n"), ""),
        (
            "chunks with long extensions",
            Answer::Endless("Transfer-Encoding: chunked\r\n", [b"1;".as_slice(), &[b'x'; 16_000]].concat()),
            "",
        ),
        ("a length beyond what is read", with("Content-Length: 18446744073709551615\r\n", &small), "longer than"),
        ("a length that is too long", with("Content-Length: 1900000\r\n", &small), ""),
        ("a length that is too short", with("Content-Length: 20\r\n", &small), "malformed"),
        ("headers without end", Answer::Endless("X: ", vec![b'x'; 65_536]), "headers"),
    ];
    for (name, answer, says) in rows {
        meter.server.serve(sim);
        meter.server.put(&path_of(sim, "stable.all"), answer);
        meter.row(name, says);
    }
}

type Bend = fn(&mut Simulator);

/// What stolen keys sign: the roles that are published, what is done to them, and what the program says.
const SIGNED_ROWS: [(&str, &[&str], Bend, &str); 10] = [
    ("a snapshot of 11,000 roles", &["snapshot", "timestamp"], |s| roles(s, 11_000), "install 1.2.0"),
    ("a snapshot of 12,500 roles", &["snapshot", "timestamp"], |s| roles(s, 12_500), "too many entries"),
    (
        "a list of offers with custom data",
        &["stable.all", "snapshot", "timestamp"],
        |s| customs(s, "stable.all", 3_000),
        "",
    ),
    (
        "a list of offers with more custom data",
        &["stable.all", "snapshot", "timestamp"],
        |s| customs(s, "stable.all", 15_000),
        "too much memory",
    ),
    (
        "a channel with custom data",
        &["stable", "snapshot", "timestamp"],
        |s| customs(s, "stable", 15_000),
        "too much memory",
    ),
    ("a list of offers with files", &["stable.all", "snapshot", "timestamp"], |s| files(s, "stable.all", 11_000), ""),
    (
        "a channel with unknown fields",
        &["stable", "snapshot", "timestamp"],
        |s| s.signed.get_mut("stable").unwrap()["x"] = lists(100_000),
        "too much memory",
    ),
    (
        "a timestamp with unknown fields",
        &["timestamp"],
        |s| s.signed.get_mut("timestamp").unwrap()["x"] = lists(1_000),
        "too many values",
    ),
    ("a root with keys", &["root"], |s| keys(s, 1_100), "too many entries"),
    (
        "a root with unknown fields",
        &["root"],
        |s| s.signed.get_mut("root").unwrap()["x"] = lists(10_000),
        "too many values",
    ),
];

#[test]
fn stolen_keys_take_no_memory() {
    if !tools::have(&["time"]) {
        return;
    }
    let sim = repository(true);
    let mut meter = Meter::new(&sim);
    meter.most = meter.sound + SIGNED;
    for (name, publish, bend, says) in SIGNED_ROWS {
        let mut bent = sim.clone();
        bend(&mut bent);
        bent.publish(publish);
        meter.server.serve(&bent);
        meter.row(name, says);
    }
    // What the channel lists: a cohort map and a manifest of each kind.
    for (kind, bytes, _) in hostile(990_000) {
        for path in ["stable/cohorts.json", "stable/releases/os/1.2.0/manifest.json"] {
            let mut bent = sim.clone();
            bent.add_target("stable", path, &bytes);
            let listed = bent.signed["stable"]["targets"][path].clone();
            let offers =
                &mut bent.signed.get_mut("stable.all").unwrap()["targets"]["stable/cohorts/all/os.json"]["custom"];
            offers["tidegate"]["offers"][0]["length"] = listed["length"].clone();
            offers["tidegate"]["offers"][0]["sha256"] = listed["hashes"]["sha256"].clone();
            resign_offers(&mut bent);
            bent.publish(&["stable", "stable.all", "snapshot", "timestamp"]);
            meter.server.serve(&bent);
            let says = if path.contains("cohorts") { "cohort map" } else { "manifest" };
            meter.row(&format!("{path}: {kind}"), says);
        }
    }
    whole(&mut meter, &sim);
    meter.end(40);
}

/// Documents as long as they may be, which a fleet may need.
fn whole(meter: &mut Meter, sim: &Simulator) {
    meter.most = meter.sound + WHOLE;
    let map = |cohorts: Vec<Value>| {
        let map = json!({"schema": 1, "salt": "00".repeat(16), "cohorts": cohorts});
        tidegate_tuf::json::canonical(&map).unwrap()
    };
    let all = || json!({"name": "all", "share": 1_000_000});
    let devices: Vec<_> = (0..50_000).map(|number| format!("{number:064x}")).collect();
    let conditions =
        (0..9_999).map(|n| json!({"name": format!("c{n}"), "condition": {"fact": "group", "eq": format!("{n}")}}));
    for (name, bytes) in [
        ("a cohort of 50,000 devices", map(vec![json!({"name": "lab", "devices": devices}), all()])),
        ("10,000 cohorts", map(conditions.chain([all()]).collect())),
    ] {
        let mut bent = sim.clone();
        bent.add_target("stable", "stable/cohorts.json", &bytes);
        bent.publish(&["stable", "snapshot", "timestamp"]);
        meter.server.serve(&bent);
        meter.row(name, "install 1.2.0");
    }
    let mut bent = sim.clone();
    files(&mut bent, "stable", 35_000);
    bent.publish(&["stable", "snapshot", "timestamp"]);
    meter.server.serve(&bent);
    meter.row("a channel of 35,000 files", "install 1.2.0");
}

/// Lists the offers by the bytes that they have now.
fn resign_offers(sim: &mut Simulator) {
    let path = "stable/cohorts/all/os.json";
    let custom = sim.signed["stable.all"]["targets"][path]["custom"].clone();
    let bytes = tidegate_tuf::json::canonical(&custom["tidegate"]).unwrap();
    sim.add_target("stable.all", path, &bytes);
    sim.set_custom("stable.all", path, custom);
}

fn roles(sim: &mut Simulator, count: usize) {
    let entry = json!({"version": 1, "length": 1, "hashes": {"sha256": "00".repeat(32)}});
    let meta = sim.signed.get_mut("snapshot").unwrap()["meta"].as_object_mut().unwrap();
    meta.extend((0..count).map(|number| (format!("stable.c{number}.json"), entry.clone())));
}

fn files(sim: &mut Simulator, role: &str, count: usize) {
    let entry = json!({"length": 1, "hashes": {"sha256": "00".repeat(32)}});
    let targets = sim.signed.get_mut(role).unwrap()["targets"].as_object_mut().unwrap();
    targets.extend((0..count).map(|number| (format!("stable/cohorts/all/{number}"), entry.clone())));
}

fn customs(sim: &mut Simulator, role: &str, count: usize) {
    files(sim, role, count);
    for file in sim.signed.get_mut(role).unwrap()["targets"].as_object_mut().unwrap().values_mut() {
        if file.get("custom").is_none() {
            file["custom"] = json!({"": {}});
        }
    }
}

fn keys(sim: &mut Simulator, count: usize) {
    let keys = sim.signed.get_mut("root").unwrap()["keys"].as_object_mut().unwrap();
    let key = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": "00".repeat(32)}});
    keys.extend((0..count).map(|number| (format!("{number:064}"), key.clone())));
}

fn lists(count: usize) -> Value {
    (0..count).map(|_| json!([])).collect()
}

#[cfg(feature = "gate")]
#[test]
fn a_gate_takes_no_memory() {
    if !tools::have(&["time"]) {
        return;
    }
    let sim = repository(true);
    let mut meter = Meter::new(&sim);
    let mut behind = sim.clone();
    let url = meter.server.url.clone();
    fleet::set_protected_cohorts(&mut behind, &[("lab", None), ("all", Some(1_000_000))], &[("all", &url)]);
    behind.publish(&["stable", "stable.all", "snapshot", "timestamp"]);
    crate::gate::write_key(&meter.bench);
    let script = "cat \"$0\"";
    let evidence = meter.bench.path("evidence");
    meter.bench.set(&json!({"gate": {"key": "device.key", "attestor":
        {"kind": "command", "program": ["sh", "-c", script, evidence], "gives": "ear"}}}));
    fs::write(&evidence, r#"{"kind": "ear", "token": "a.b.c"}"#).unwrap();
    let challenge = plain(br#"{"nonce": "AAEC", "expires": "2126-01-05T12:02:00Z"}"#.to_vec());
    for (index, (kind, bytes, _)) in hostile(64_000).into_iter().enumerate() {
        meter.server.serve(&behind);
        match index % 3 {
            0 => meter.server.put("/v1/challenge", plain(bytes)),
            1 => {
                meter.server.put("/v1/challenge", challenge.clone());
                meter.server.put("/v1/grant", plain(bytes));
            }
            _ => meter.server.put("/v1/challenge", Answer::Bytes(bytes, "X: refused\r\n".into())),
        }
        meter.row(&format!("a gate's answer: {kind}"), "");
    }
    for (name, answer) in [
        ("an answer without end", Answer::Endless("", vec![b' '; 65_536])),
        ("a refusal without end", Answer::Endless("X: refused\r\n", vec![b' '; 65_536])),
    ] {
        meter.server.serve(&behind);
        meter.server.put("/v1/challenge", answer);
        meter.row(name, "");
    }
    meter.server.serve(&behind);
    meter.server.put("/v1/challenge", challenge);
    let token = |unit: &str| filled("{\"kind\":\"ear\",\"token\":\"", unit, "\"}", 60_000);
    let quote = filled("{\"kind\":\"tpm2\",\"pcrs\":{},\"signature\":\"AA\",\"quote\":\"", "AAAA", "\"}", 60_000);
    let registers = filled(
        "{\"kind\":\"tpm2\",\"quote\":\"AA\",\"signature\":\"AA\",\"pcrs\":{",
        "\"a\":\"\",",
        "\"b\":\"\"}}",
        60_000,
    );
    let results = [
        ("a long token", token("a")),
        ("a long quote", quote),
        ("registers", registers),
        ("no end", vec![b' '; 4_000_000]),
    ];
    let documents = hostile(60_000).into_iter().step_by(3).map(|(kind, bytes, _)| (kind, bytes));
    for (kind, bytes) in results.into_iter().chain(documents) {
        fs::write(&evidence, bytes).unwrap();
        meter.row(&format!("evidence: {kind}"), "evidence");
    }
    meter.end(30);
}
