//! A day in the field: the agent against a server, over real sockets, that answers with every fault at random, and with a clock that jumps.
//!
//! The device is a process of its own, so that what is measured is the device: server and repository, which grow, are in the test's process. The
//! device's clock is simulated, its board is made of files. What is asserted after each call: the state reads back without a repair, and what runs
//! is a whole image. At the end: the newest release is installed, and neither memory nor descriptors have grown.
//!
//! `TIDEGATE_SOAK=SEED,HOURS cargo nextest run -p tidegate-client --all-features --no-capture -E 'test(a_day_of_faults)'` prints the table.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tidegate_client::agent::{Agent, Next};
use tidegate_client::clock::{FlooredClock, StubClock, SystemClock};
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

/// Seconds between checks.
const POLL: u64 = 60;
/// By how many kilobytes resident memory may grow from the second quarter to the last: less than 1 kB for each check.
const GROWTH: i64 = 320;

/// What the server knows.
struct Inner {
    sim: Simulator,
    hours: u64,
    /// The newest release.
    sequence: u64,
    /// Of a thousand requests, how many meet a fault.
    faults: u64,
    random: Random,
    requests: u64,
    met: [u64; FAULTS.len()],
}

/// Numbers at random (xorshift).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

impl Inner {
    /// An hour begins: it has its weather, and perhaps a release. Returns what was until now: requests, faults, and their rate.
    fn begin(&mut self, hour: u64) -> String {
        let said = format!("{} {} {}", self.requests, self.met.iter().sum::<u64>(), self.faults / 10);
        let due = (1 + hour * 4 / self.hours).min(4);
        if due > self.sequence {
            self.sequence = due;
            offer(&mut self.sim, due);
        }
        let weather = [0, 50, 150, 300, 600];
        let rate = usize::try_from(self.random.below(weather.len() as u64)).unwrap();
        // After the day the weather is fair, until everything is installed.
        self.faults = if hour < self.hours { weather[rate] } else { 0 };
        said
    }

    /// The fault that a request meets: only one that has an effect on it.
    fn fault(&mut self, file: Option<&[u8]>, has_range: bool) -> Option<&'static str> {
        if self.random.below(1000) >= self.faults {
            return None;
        }
        let index = usize::try_from(self.random.below(FAULTS.len() as u64)).unwrap();
        let fault = FAULTS[index];
        let acts = match fault {
            "slow" | "chunked" | "no length" => file.is_some() && !has_range,
            "no ranges" => file.is_some() && has_range,
            "dropped" | "short" | "wrong range" | "bare range" | "label" | "packed" | "damaged" | "endless" => {
                file.is_some()
            }
            _ => true,
        };
        self.met[index] += u64::from(acts);
        acts.then_some(fault)
    }
}

#[derive(Clone)]
struct Server(Arc<Mutex<Inner>>);

impl Server {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    fn start(sim: Simulator, seed: u64, hours: u64) -> (Self, String) {
        let (random, met) = (Random::new(seed), [0; FAULTS.len()]);
        let inner = Inner { sim, hours, sequence: 0, faults: 0, random, requests: 0, met };
        let server = Self(Arc::new(Mutex::new(inner)));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let there = server.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let server = there.clone();
                // Else each answer waits for the client's system to acknowledge its head.
                stream.set_nodelay(true).unwrap();
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
    #[allow(clippy::too_many_lines, reason = "one arm for each fault")]
    fn answer(&self, stream: &mut TcpStream, head: &str) -> io::Result<()> {
        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
        let from = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
        let (file, from, fault, cut) = {
            let mut inner = self.lock();
            if let Some(hour) = path.strip_prefix("hour/") {
                return stream
                    .write_all(inner.begin(hour.parse().unwrap()).as_bytes())
                    .and(Err(io::ErrorKind::Other.into()));
            }
            inner.requests += 1;
            let file = inner.sim.files.get(path).cloned();
            let from = from.filter(|from| file.as_ref().is_some_and(|file| *from < file.len()));
            let fault = inner.fault(file.as_deref(), from.is_some());
            let length = file.as_ref().map_or(1, Vec::len).max(1) as u64;
            (file, from, fault, usize::try_from(inner.random.below(length)).unwrap())
        };
        let mut send = |status: &str, headers: &str, body: &[u8]| {
            write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(body)
        };
        let page = b"<html><title>Log in</title></html>";
        match fault {
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
        match (fault, from) {
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

/// How much the mean grew from the second quarter to the last.
fn growth(samples: &[u64]) -> i64 {
    let quarter = samples.len() / 4;
    let mean = |from: usize| samples[from..from + quarter].iter().sum::<u64>() / quarter as u64;
    i64::try_from(mean(samples.len() - quarter)).unwrap() - i64::try_from(mean(quarter)).unwrap()
}

/// One day of a device.
struct Day {
    board: Board,
    images: Vec<Vec<u8>>,
    url: String,
    /// What the time is.
    now: DateTime<Utc>,
    /// What the device takes it for.
    clock: StubClock,
    random: Random,
    /// Of a thousand calls, how many meet a clock that is wrong.
    rate: u64,
    checks: u64,
    failures: u64,
    jumps: [u64; 3],
    memory: Vec<u64>,
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
        // A `Retry-After` of two minutes is for the next call.
        let soon = Retry { times: 3, first: Duration::from_millis(1), longest: Duration::from_secs(1) };
        let builder = self.board.builder(Disk::new()).repository(Repository::at(&self.url).unwrap()).fetch(http);
        builder.clock(FlooredClock::new(self.clock.clone(), epoch())).retry(soon).open().unwrap()
    }

    /// Sets the clock, at times wrong: hours behind, days ahead, or in 1970.
    fn set_clock(&mut self) {
        self.clock.set(self.now);
        if self.random.below(1000) < self.rate {
            let kind = usize::try_from(self.random.below(3)).unwrap();
            let by = i64::try_from(self.random.below(10)).unwrap() + 1;
            let wrong = [self.now - TimeDelta::hours(by), self.now + TimeDelta::days(by), DateTime::UNIX_EPOCH];
            self.clock.set(wrong[kind]);
            self.jumps[kind] += 1;
        }
    }

    /// One call of the agent by a process of its own. Returns for how long it then sleeps.
    fn step(&mut self) -> Duration {
        self.set_clock();
        let mut device = self.device();
        let next = Agent::new(&mut device, &self.board.options, &mut self.board.host()).check();
        let (machine, told) = (device.machine().clone(), device.now());
        drop(device);
        self.checks += 1;
        self.failures += u64::from(next.is_err());
        let status = self.board.status();
        assert!(status.repairs.is_empty(), "{:?}", status.repairs);
        let read_back = (status.update.state.to_string(), status.update.failures);
        assert_eq!(read_back, (machine.state.to_string(), machine.failures));
        let runs = self.board.runs();
        assert!(runs == OLD || self.images.contains(&runs), "what runs is no release");
        self.memory.push(taken().0);
        match (&next, &machine.state) {
            (Ok(Next::Restart), _) => {
                self.board.restart();
                Duration::ZERO
            }
            // What is longer is from a clock that was ahead.
            (Err(_), State::Waiting { until: Some(until), .. }) if *until - told < TimeDelta::days(1) => {
                (*until - told).to_std().unwrap_or_default()
            }
            _ => Duration::from_secs(POLL),
        }
    }

    /// Begins an hour. Returns requests, faults and their rate until now.
    fn begin(&mut self, hour: i64, hours: i64) -> String {
        self.rate = if hour < hours { 50 } else { 0 };
        let mut stream = TcpStream::connect(self.url.trim_start_matches("http://")).unwrap();
        write!(stream, "GET /hour/{hour} HTTP/1.1\r\n\r\n").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    fn row(&mut self, hour: i64, hours: i64) -> usize {
        let said = self.begin(hour, hours).replace(' ', " | ");
        // Connections of the last call are closed by then.
        thread::sleep(Duration::from_millis(20));
        let (memory, descriptors) = taken();
        let runs = self.board.status().device.installed.version.to_string();
        let (checks, failures, jumps) = (self.checks, self.failures, self.jumps.iter().sum::<u64>());
        println!("| {hour} | {checks} | {failures} | {said} % | {jumps} | {memory} | {descriptors} | {runs} |");
        descriptors
    }
}

/// The device's process: its folder, with `root.json`, and its server.
fn run_device(folder: &Path, url: &str, seed: u64, hours: i64) {
    let mut known = Simulator::empty();
    known.files.insert("metadata/1.root.json".into(), fs::read(folder.join("root.json")).unwrap());
    let mut day = Day {
        board: Board::new(folder, &Mirror::of(known)),
        images: (1..=4).map(image).collect(),
        url: url.into(),
        now: epoch(),
        clock: StubClock::at(epoch()),
        random: Random::new(seed + 1),
        rate: 0,
        checks: 0,
        failures: 0,
        jumps: [0; 3],
        memory: Vec::with_capacity(100_000),
    };
    println!(
        "| hour | checks | failed | requests | faults met | weather | wrong clocks | resident kB | descriptors | runs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    day.board.options.retry.longest = Duration::from_secs(900);
    let (mut hour, mut descriptors) = (0, Vec::new());
    day.begin(0, hours);
    while hour < hours + 12 {
        while day.now < epoch() + TimeDelta::hours(hour + 1) {
            let pause = day.step();
            day.now += TimeDelta::from_std(pause).unwrap();
            day.board.pass(pause.as_secs());
        }
        hour = (day.now - epoch()).num_hours();
        descriptors.push(day.row(hour, hours));
        if hour >= hours && day.board.status().device.installed.sequence == 4 {
            break;
        }
    }
    let status = day.board.status();
    assert!(status.device.installed.sequence == 4 && day.board.runs() == day.images[3], "{}", status.update.state);
    assert!(status.quarantined.is_empty(), "{:?}", status.quarantined);
    let grown = growth(&day.memory);
    println!("resident kB from the second quarter to the last: {grown:+}, in {} checks", day.memory.len() / 2);
    println!("clock behind {}, ahead {}, in 1970 {}", day.jumps[0], day.jumps[1], day.jumps[2]);
    assert!(grown <= GROWTH, "memory grew by {grown} kB");
    let (first, last) = (descriptors[descriptors.len() / 3], descriptors[descriptors.len() - 1]);
    assert!(last <= first + 2, "descriptors grew from {first} to {last}");
    assert!(day.failures > 0 && day.jumps.iter().all(|times| *times > 0), "too few faults were met");
}

#[test]
fn a_day_of_faults_ends_well() {
    let given = std::env::var("TIDEGATE_SOAK").unwrap_or_else(|_| "1,24".into());
    let (seed, hours) = given.split_once(',').unwrap();
    let (seed, hours): (u64, u64) = (seed.parse().unwrap(), hours.parse().unwrap());
    if let (Ok(folder), Ok(url)) = (std::env::var("TIDEGATE_SOAK_FOLDER"), std::env::var("TIDEGATE_SOAK_URL")) {
        return run_device(folder.as_ref(), &url, seed, i64::try_from(hours).unwrap());
    }
    let folder = scratch();
    let mut sim = channel(ALL);
    for role in ["root", "timestamp", "snapshot", "targets", "stable", "stable.all"] {
        sim.set_expiry(role, epoch() + TimeDelta::days(3650));
    }
    sim.publish(&["stable.all", "stable", "targets", "snapshot", "timestamp", "root"]);
    fs::write(folder.path().join("root.json"), sim.root(1)).unwrap();
    let (server, url) = Server::start(sim, seed, hours);
    let mut device = Command::new(std::env::current_exe().unwrap());
    device.args(["soak::a_day_of_faults_ends_well", "--exact", "--nocapture"]);
    device.env("TIDEGATE_SOAK_FOLDER", folder.path()).env("TIDEGATE_SOAK_URL", url).env("TIDEGATE_SOAK", given);
    // What is freed is given back, so that what stays is what is held.
    device.envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "65536"), ("MALLOC_TRIM_THRESHOLD_", "0")]);
    let output = device.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let inner = server.lock();
    println!("{said}");
    for (name, met) in FAULTS.iter().zip(inner.met) {
        println!("{name}: {met}");
    }
    assert!(inner.met.iter().sum::<u64>() > 100, "too few faults were met");
}
