//! A day in the field: the agent against a server, over real sockets, that answers with every fault at random.
//!
//! The device's clock is simulated, its board is made of files. What is asserted after each call: the state reads back without a repair, and what
//! runs is a whole image. At the end: the newest release is installed, and neither memory nor descriptors have grown.
//!
//! `TIDEGATE_SOAK=SEED,HOURS cargo nextest run -p tidegate-client --all-features --run-ignored only --no-capture -E 'test(soak)'` prints the table.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use chrono::TimeDelta;
use serde_json::json;
use tidegate_client::agent::{Agent, Next};
use tidegate_client::clock::{StubClock, SystemClock};
use tidegate_client::device::Device;
use tidegate_client::disk::Disk;
use tidegate_client::fetch::http::{HttpFetch, HttpOptions, Proxy};
use tidegate_client::retry::Retry;
use tidegate_client::state::State;
use tidegate_client::updater::Repository;

use crate::board::{ALL, Board, OLD};
use crate::fleet::{approve_image, assign, channel, manifest_of};
use crate::mirror::{Mirror, scratch};
use crate::simulator::{Simulator, epoch};

const FAULTS: [&str; 23] = [
    "portal",
    "moved",
    "busy",
    "broken",
    "denied",
    "login",
    "missing",
    "dropped",
    "short",
    "no length",
    "no ranges",
    "wrong range",
    "bare range",
    "label",
    "packed",
    "silent",
    "no HTTP",
    "damaged",
    "endless",
    "hung up",
    "slow",
    "chunked",
    "redirected",
];

/// What server and test share.
struct Inner {
    files: BTreeMap<String, Vec<u8>>,
    /// Of a thousand requests, how many meet a fault.
    faults: u64,
    random: u64,
    requests: u64,
    met: [u64; FAULTS.len()],
}

impl Inner {
    /// A number below `bound` (xorshift).
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }
}

#[derive(Clone)]
struct Server(Arc<Mutex<Inner>>);

impl Server {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn start(seed: u64) -> (Self, String) {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let inner = Inner { files: BTreeMap::new(), faults: 0, random, requests: 0, met: [0; FAULTS.len()] };
        let server = Self(Arc::new(Mutex::new(inner)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let there = server.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let server = there.clone();
                thread::spawn(move || {
                    let (mut head, mut byte) = (Vec::new(), [0]);
                    while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                        head.push(byte[0]);
                        if head.ends_with(b"\r\n\r\n") {
                            let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                            if server.answer(&mut stream, &text).is_err() {
                                return;
                            }
                        }
                    }
                });
            }
        });
        (server, url)
    }

    /// Answers one request; an error ends the connection.
    fn answer(&self, stream: &mut TcpStream, head: &str) -> io::Result<()> {
        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
        let (file, fault, cut) = {
            let mut inner = self.lock();
            inner.requests += 1;
            let file = inner.files.get(path).cloned();
            let is_met = inner.below(1000) < inner.faults;
            let fault = if is_met { Some(usize::try_from(inner.below(FAULTS.len() as u64)).unwrap()) } else { None };
            if let Some(fault) = fault {
                inner.met[fault] += 1;
            }
            let length = file.as_ref().map_or(1, Vec::len).max(1) as u64;
            (file, fault, usize::try_from(inner.below(length)).unwrap())
        };
        let from = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
        let from = from.filter(|from| file.as_ref().is_some_and(|file| *from < file.len()));
        let mut send = |status: &str, headers: &str, body: &[u8]| {
            write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(body)
        };
        let page = b"<html><title>Log in</title></html>";
        match fault.map(|fault| FAULTS[fault]) {
            Some("portal") => return send("200 OK", "Content-Type: text/html\r\n", page),
            Some("moved") => return send("302 Found", "Location: http://portal.example.com/\r\n", b""),
            Some("redirected") => return send("302 Found", &format!("Location: /{path}\r\n"), b""),
            Some("busy") => return send("503 Busy", "Retry-After: 120\r\n", page),
            Some("broken") => return send("500 Broken", "", page),
            Some("denied") => return send("403 Forbidden", "", b"<Error>AccessDenied</Error>"),
            Some("login") => return send("401 Unauthorized", "", b""),
            Some("missing") => return send("404 Not Found", "", page),
            Some("no HTTP") => return stream.write_all(b"SSH-2.0-OpenSSH\r\n").and(Err(io::ErrorKind::Other.into())),
            Some("hung up") => return Err(io::ErrorKind::Other.into()),
            Some("silent") => {
                thread::sleep(Duration::from_millis(80));
                return Err(io::ErrorKind::Other.into());
            }
            _ => {}
        }
        let Some(file) = file else { return send("404 Not Found", "", b"") };
        let rest = &file[from.unwrap_or(0)..];
        let range = |from: usize| format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len());
        let cut = cut.min(rest.len());
        match (fault.map(|fault| FAULTS[fault]), from) {
            (Some("dropped"), _) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len())?;
                stream.write_all(&file[..cut.min(file.len())]).and(Err(io::ErrorKind::Other.into()))
            }
            (Some("short"), _) => send("200 OK", "", &file[..cut]),
            (Some("no length"), None) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                stream.write_all(&file[..cut]).and(Err(io::ErrorKind::Other.into()))
            }
            (Some("slow"), None) => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", file.len())?;
                file.chunks(file.len() / 8 + 1).try_for_each(|part| {
                    thread::sleep(Duration::from_millis(5));
                    stream.write_all(part)
                })
            }
            (Some("chunked"), None) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
                for part in file.chunks(5000) {
                    write!(stream, "{:x}\r\n", part.len())?;
                    stream.write_all(part)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\n\r\n")
            }
            (Some("no ranges"), _) => send("200 OK", "", &file),
            (Some("wrong range"), _) => send("206 Part", &range(cut), &file[cut..]),
            (Some("bare range"), _) => send("206 Part", "", rest),
            (Some("label"), _) => send("200 OK", "Content-Encoding: x-nothing\r\n", &file),
            (Some("packed"), _) => send("200 OK", "Content-Encoding: gzip\r\n", &file[cut..]),
            (Some("damaged"), _) => {
                let mut damaged = rest.to_vec();
                damaged.iter_mut().skip(cut).take(1).for_each(|byte| *byte ^= 1);
                match from {
                    Some(from) => send("206 Part", &range(from), &damaged),
                    None => send("200 OK", "", &damaged),
                }
            }
            (Some("endless"), _) => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                loop {
                    stream.write_all(&[b'x'; 4096])?;
                }
            }
            (_, Some(from)) => send("206 Part", &range(from), rest),
            (_, None) => send("200 OK", "", &file),
        }
    }
}

/// The image of each release: 300,000 bytes, no two alike.
fn image(sequence: u64) -> Vec<u8> {
    (0..37_500_u64).flat_map(|i| (i + 1).wrapping_mul(sequence * 2 + 0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

fn offer(sim: &mut Simulator, sequence: u64) {
    let (version, image) = (format!("1.{sequence}.0"), image(sequence));
    let manifest = approve_image(sim, &manifest_of(&version, sequence, &image), &image);
    assign(sim, "all", &manifest, &json!({}));
    sim.publish(&["stable.all", "stable", "snapshot", "timestamp"]);
}

/// Resident kilobytes, and open descriptors, of this process.
fn taken() -> (u64, usize) {
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    (pages * 4, fs::read_dir("/proc/self/fd").unwrap().count())
}

/// One day of a device.
struct Day {
    board: Board,
    server: Server,
    url: String,
    clock: StubClock,
    checks: u64,
    failures: u64,
}

impl Day {
    fn device(&self) -> Device {
        let options = HttpOptions {
            connect_timeout: Duration::from_secs(2),
            response_timeout: Duration::from_millis(50),
            proxy: Proxy::None,
            ..HttpOptions::default()
        };
        let http = HttpFetch::with_options(options, Arc::new(SystemClock::new()));
        let soon = Retry { times: 3, first: Duration::from_millis(1), longest: Duration::from_secs(3600) };
        let builder = self.board.builder(Disk::new()).repository(Repository::at(&self.url).unwrap()).fetch(http);
        builder.clock(self.clock.clone()).retry(soon).open().unwrap()
    }

    /// One call of the agent by a process of its own. Returns for how long it then sleeps.
    fn step(&mut self) -> Duration {
        let mut device = self.device();
        let next = Agent::new(&mut device, &self.board.options, &mut self.board.host()).check();
        let machine = device.machine().clone();
        drop(device);
        self.checks += 1;
        self.failures += u64::from(next.is_err());
        let status = self.board.status();
        assert!(status.repairs.is_empty(), "{:?}", status.repairs);
        let read_back = (status.update.state.to_string(), status.update.failures);
        assert_eq!(read_back, (machine.state.to_string(), machine.failures));
        let runs = self.board.runs();
        assert!(runs == OLD || (1..=4).any(|sequence| runs == image(sequence)), "what runs is no release");
        match (&next, &machine.state) {
            (Ok(Next::Restart), _) => {
                self.board.restart();
                Duration::ZERO
            }
            (Err(_), State::Waiting { until: Some(until), .. }) => {
                (*until - tidegate_client::clock::Clock::now(&self.clock)).to_std().unwrap_or_default()
            }
            _ => Duration::from_secs(600),
        }
    }

    fn row(&self, hour: i64) -> (u64, usize) {
        // Connections of the last call are closed by then.
        thread::sleep(Duration::from_millis(20));
        let (memory, descriptors) = taken();
        let (requests, met, rate) = {
            let inner = self.server.lock();
            (inner.requests, inner.met.iter().sum::<u64>(), inner.faults)
        };
        let runs = self.board.status().device.installed.version.to_string();
        println!(
            "| {hour} | {} | {} | {requests} | {met} | {} % | {memory} | {descriptors} | {runs} |",
            self.checks,
            self.failures,
            rate / 10
        );
        (memory, descriptors)
    }
}

#[test]
#[ignore = "run by a_day_of_faults_ends_well in a process of its own, and by hand for the table"]
fn soak() {
    let given = std::env::var("TIDEGATE_SOAK").unwrap_or_else(|_| "1,24".into());
    let (seed, hours) = given.split_once(',').unwrap();
    let (seed, hours): (u64, i64) = (seed.parse().unwrap(), hours.parse().unwrap());
    let folder = scratch();
    let mut sim = channel(ALL);
    for role in ["root", "timestamp", "snapshot", "targets", "stable", "stable.all"] {
        sim.set_expiry(role, epoch() + TimeDelta::days(3650));
    }
    sim.publish(&["stable.all", "stable", "targets", "snapshot", "timestamp", "root"]);
    let mirror = Mirror::of(sim);
    let (server, url) = Server::start(seed);
    let board = Board::new(folder.path(), &mirror);
    let clock = StubClock::at(epoch());
    let mut day = Day { board, server: server.clone(), url, clock: clock.clone(), checks: 0, failures: 0 };
    println!(
        "| hour | checks | failed | requests | faults met | weather | resident kB | descriptors | runs |\n|---|---|---|---|---|---|---|---|---|"
    );
    let (mut hour, mut sequence, mut early, mut last) = (0, 0, (0, 0), (0, 0));
    // After the day the weather is fair, until everything is installed.
    while hour < hours + 12 {
        let due = (1 + hour * 4 / hours).min(4);
        if due > sequence {
            sequence = due;
            mirror.edit(|sim| offer(sim, u64::try_from(sequence).unwrap()));
            server.lock().files = mirror.sim().files.into_iter().collect();
        }
        let weather = [0, 50, 150, 300, 600];
        let rate = server.lock().below(weather.len() as u64);
        server.lock().faults = if hour < hours { weather[usize::try_from(rate).unwrap()] } else { 0 };
        while tidegate_client::clock::Clock::now(&clock) < epoch() + TimeDelta::hours(hour + 1) {
            let pause = day.step();
            clock.advance(pause);
            day.board.pass(pause.as_secs());
        }
        hour = (tidegate_client::clock::Clock::now(&clock) - epoch()).num_hours();
        last = day.row(hour);
        if early.0 == 0 && hour >= hours / 3 {
            early = last;
        }
        if hour >= hours && day.board.status().device.installed.sequence == 4 {
            break;
        }
    }
    for (name, met) in FAULTS.iter().zip(server.lock().met) {
        println!("{name}: {met}");
    }
    let status = day.board.status();
    assert!(status.device.installed.sequence == 4 && day.board.runs() == image(4), "{}", status.update.state);
    assert!(status.quarantined.is_empty(), "{:?}", status.quarantined);
    assert!(last.0 < early.0 + 8000, "memory grew from {} to {} kB", early.0, last.0);
    assert!(last.1 <= early.1 + 2, "descriptors grew from {} to {}", early.1, last.1);
    assert!(day.failures > 0 && server.lock().met.iter().sum::<u64>() > 20, "too few faults were met");
}

#[test]
fn a_day_of_faults_ends_well() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["soak::soak", "--exact", "--ignored", "--nocapture"]).env("TIDEGATE_SOAK", "1,24");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
