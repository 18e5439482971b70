//! What is cancelled ends within a second, wherever it is; nobody is blamed, what was fetched is kept, and afterwards it goes on.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_client::agent::{Agent, AgentOptions, Health, HealthCommand, Next};
use tidegate_client::clock::SystemClock;
use tidegate_client::command::Command;
use tidegate_client::device::{Device, DeviceBuilder};
use tidegate_client::disk::Disk;
use tidegate_client::facts::FactSource;
use tidegate_client::fetch::AnyFetch;
use tidegate_client::fetch::http::{HttpFetch, HttpOptions, Proxy};
use tidegate_client::install::BootHook;
use tidegate_client::retry::Retry;
use tidegate_client::state::State;
use tidegate_client::updater::Repository;
use tidegate_client::watch::{Cancel, Phase, Progress, unwatched};
use tidegate_client::{Error, Fault};

use crate::board::{Board, repository};
use crate::mirror::{Mirror, scratch};

/// Longer than what the buffers of sockets hold.
fn image() -> Vec<u8> {
    (0..=250).cycle().take(8_000_000).collect()
}

/// What the server does with the image, or with the timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Well,
    SaysNothing,
    StopsHalfway,
    HangsUp,
}

/// A server of a repository's files. It stops with its last connection.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
}

impl Server {
    fn start(mirror: &Mirror) -> Self {
        let files: BTreeMap<String, Vec<u8>> = mirror.sim().files.clone();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), mode: Arc::new(Mutex::new(Mode::Well)) };
        let there = server.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let (server, files) = (there.clone(), files.clone());
                thread::spawn(move || while server.answer(&mut stream, &files).is_ok() {});
            }
        });
        server
    }

    fn answer(&self, stream: &mut TcpStream, files: &BTreeMap<String, Vec<u8>>) -> io::Result<()> {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
        let mode = *self.mode.lock().unwrap();
        let from = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.unwrap_or(0);
        let Some(file) = files.get(path) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        match mode {
            Mode::SaysNothing if path.ends_with("timestamp.json") => thread::sleep(Duration::from_secs(60)),
            Mode::HangsUp if path.ends_with("image.bin") => return Err(io::ErrorKind::ConnectionReset.into()),
            _ => {}
        }
        let (first, last) = (from, file.len() - 1);
        let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
        let body = &file[from..];
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{last}/{}\r\n\r\n",
            body.len(),
            file.len()
        );
        stream.write_all(head.as_bytes())?;
        if mode == Mode::StopsHalfway && path.ends_with("image.bin") {
            stream.write_all(&body[..body.len() / 2])?;
            thread::sleep(Duration::from_secs(60));
        }
        stream.write_all(body)
    }
}

fn http() -> AnyFetch {
    let options = HttpOptions { proxy: Proxy::None, ..HttpOptions::default() };
    AnyFetch::with_http(HttpFetch::with_options(options, Arc::new(SystemClock::new())))
}

fn at(builder: DeviceBuilder, address: SocketAddr) -> DeviceBuilder {
    builder.repository(Repository::at(&format!("http://{address}")).unwrap()).fetch(http())
}

/// Cancels what is done, once it has begun to wait, and returns its error.
fn cancelled<T: Send + 'static>(cancel: &Cancel, act: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Error {
    let thread = thread::spawn(act);
    thread::sleep(Duration::from_millis(400));
    assert!(!thread.is_finished(), "it should wait for something");
    let started = Instant::now();
    cancel.cancel();
    let result = thread.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let error = result.err().unwrap();
    assert!(matches!(error, Error::Cancelled(_)) && error.fault() == Fault::Nobody, "{error:?}");
    error
}

fn blames_nobody(board: &Board, when: &str) {
    let status = board.status();
    assert_eq!(
        (status.update.failures, status.quarantined.len(), status.update.begun.map_or(0, |it| it.times)),
        (0, 0, 0),
        "{when}"
    );
}

fn update(mut device: Device, cancel: &Cancel) -> Result<Next, Error> {
    let update = device.check()?.update.unwrap();
    let downloaded = device.download(&update, &mut unwatched)?;
    let next = device.install(&downloaded, &mut unwatched)?;
    assert!(!cancel.is_cancelled());
    Ok(next)
}

/// An address that answers no connection: the queue of its listener is full.
fn deaf() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
    }
    (listener, waiting)
}

#[test]
fn every_wait_for_the_network_ends() {
    let mirror = Mirror::of(repository(&image()));
    let server = Server::start(&mirror);
    let (listener, _waiting) = deaf();
    let nowhere = listener.local_addr().unwrap();
    for (when, mode, address) in [
        ("connecting", Mode::Well, nowhere),
        ("waiting for an answer", Mode::SaysNothing, server.address),
        ("in a body", Mode::StopsHalfway, server.address),
        ("between two attempts", Mode::HangsUp, server.address),
    ] {
        let folder = scratch();
        let board = Board::new(folder.path(), &mirror);
        *server.mode.lock().unwrap() = mode;
        let cancel = Cancel::new();
        let slowly = Retry { times: 5, first: Duration::from_secs(60), longest: Duration::from_secs(60) };
        let device = at(board.builder(Disk::new()), address).retry(slowly).cancel(&cancel).open().unwrap();
        let token = cancel.clone();
        let error = cancelled(&cancel, move || update(device, &token));
        assert_eq!(error.to_string(), "cancelled; what was fetched is kept");
        blames_nobody(&board, when);
        if mode == Mode::StopsHalfway {
            let part = std::fs::read_dir(board.folder.join("state/downloads")).unwrap().next().unwrap().unwrap();
            assert!(part.metadata().unwrap().len() > 1_000_000, "what was fetched is kept");
        }
        // Until the token is cleared, nothing begins.
        let mut device = at(board.builder(Disk::new()), server.address).cancel(&cancel).open().unwrap();
        assert!(matches!(device.check(), Err(Error::Cancelled(_))), "{when}");
        drop(device);
        *server.mode.lock().unwrap() = Mode::Well;
        cancel.clear();
        let device = at(board.builder(Disk::new()), server.address).cancel(&cancel).open().unwrap();
        assert_eq!(update(device, &cancel).unwrap(), Next::Restart, "{when}");
    }
}

fn program(words: &[&str]) -> Command {
    Command::new(words.iter().map(ToString::to_string), Duration::from_secs(60))
}

/// A boot hook that hangs at its `n`-th call, after which it does not.
fn hanging_at(folder: &Path, n: usize) -> BootHook {
    let script = format!(
        "cd {}; n=$(cat calls 2>/dev/null || echo 0); echo $((n + 1)) > calls; [ $n != {n} ] || sleep 60
        case $1 in running) cat running;; try) printf %s $2 > attempted;; keep) printf %s $2 > kept; printf '' > attempted;; invalid) printf %s $2 > invalid;; esac",
        folder.display()
    );
    BootHook::new(program(&["sh", "-c", &script, "hook"]))
}

#[test]
fn every_call_of_a_boot_hook_ends() {
    let mirror = Mirror::of(repository(b"the new image is well"));
    let mut calls = 0;
    loop {
        let folder = scratch();
        let mut board = Board::new(folder.path(), &mirror);
        board.hook = Some(hanging_at(folder.path(), calls));
        let cancel = Cancel::new();
        let device = board.builder(Disk::new()).cancel(&cancel).open().unwrap();
        let token = cancel.clone();
        let thread = thread::spawn(move || update(device, &token));
        thread::sleep(Duration::from_millis(300));
        let is_over = thread.is_finished();
        let started = Instant::now();
        cancel.cancel();
        let result = thread.join().unwrap();
        if is_over {
            assert_eq!(result.unwrap(), Next::Restart);
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(1), "call {calls}: {:?}", started.elapsed());
        let error = result.err().unwrap();
        assert!(matches!(error, Error::Cancelled(_)), "call {calls}: {error}");
        cancel.clear();
        calls += 1;
        if matches!(board.state(), State::Rebooting { .. }) {
            let check = board.device().check().unwrap();
            assert!(check.remarks.iter().any(|remark| remark.contains("after a restart")), "{:?}", check.remarks);
            continue;
        }
        blames_nobody(&board, &format!("call {calls}"));
        let device = board.builder(Disk::new()).cancel(&cancel).open().unwrap();
        assert_eq!(update(device, &cancel).unwrap(), Next::Restart, "call {calls}");
    }
    assert!(calls >= 4, "{calls}");
}

/// A health command and a restart command of an agent.
#[test]
fn the_programs_of_an_agent_end() {
    let mirror = Mirror::of(repository(b"the new image is well"));
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror);
    let cancel = Cancel::new();
    let check = |options: AgentOptions| {
        let mut device = board.builder(Disk::new()).cancel(&cancel).open().unwrap();
        let mut host = board.host();
        cancelled(&cancel, move || Agent::new(&mut device, &options, &mut host).check());
        cancel.clear();
    };
    check(AgentOptions { restart: Some(program(&["sleep", "60"])), ..AgentOptions::default() });
    assert!(matches!(board.state(), State::Rebooting { .. }) && board.status().update.failures == 0);
    board.restart();
    let health = HealthCommand {
        command: program(&["sleep", "60"]),
        within: Duration::from_secs(90),
        every: Duration::from_secs(1),
    };
    check(AgentOptions { health: Health::Command(health), ..AgentOptions::default() });
    assert!(matches!(board.state(), State::Trial { boots: 1, .. }), "{}", board.state());
    board.device().confirm().unwrap();
}

/// Facts are gathered again before an installation.
#[test]
fn a_program_that_gives_facts_ends() {
    let mirror = Mirror::of(repository(b"the new image is well"));
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror);
    let cancel = Cancel::new();
    let sources = vec![FactSource::Command(program(&["sleep", "60"]))];
    let mut device = board.builder(Disk::new()).fact_sources(sources).cancel(&cancel).open().unwrap();
    let update = device.check().unwrap().update.unwrap();
    let downloaded = device.download(&update, &mut unwatched).unwrap();
    cancelled(&cancel, move || device.install(&downloaded, &mut unwatched));
    blames_nobody(&board, "gathering facts");
}

/// The callback is told every phase, in order, and may end each.
#[test]
fn the_callback_ends_what_it_watches() {
    let mirror = Mirror::of(repository(&image()));
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror);
    let mut device = board.device();
    let update = device.check().unwrap().update.unwrap();
    let mut seen = Vec::new();
    let downloaded = device
        .download(&update, &mut |at| {
            seen.push((at.phase, at.percent()));
            assert_eq!(at.name, "image.bin");
            ControlFlow::Continue(())
        })
        .unwrap();
    let stop_in = |phase: Phase, percent: u8| {
        move |at: Progress<'_>| {
            if at.phase == phase && at.percent() >= percent {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    };
    for (phase, percent) in [(Phase::Install, 0), (Phase::Install, 50), (Phase::ReadBack, 0), (Phase::ReadBack, 100)] {
        let error = device.install(&downloaded, &mut stop_in(phase, percent)).unwrap_err();
        assert!(matches!(error, Error::Cancelled(_)), "{error}");
        assert_eq!(board.get("attempted"), "", "the half-written slot does not start");
        blames_nobody(&board, "in an installation");
    }
    device
        .install(&downloaded, &mut |at| {
            seen.push((at.phase, at.percent()));
            ControlFlow::Continue(())
        })
        .unwrap();
    for phase in [Phase::Download, Phase::Install, Phase::ReadBack] {
        let of = |percent| seen.iter().position(|it| *it == (phase, percent));
        assert!(of(100) > of(50) && of(50).is_some(), "{phase:?}");
    }
    assert!(seen.is_sorted_by_key(|(phase, _)| {
        [Phase::Download, Phase::Install, Phase::ReadBack].iter().position(|it| it == phase)
    }));
    drop(device);
    let folder = scratch();
    let board = Board::new(folder.path(), &mirror);
    let mut device = board.device();
    let update = device.check().unwrap().update.unwrap();
    let error = device.download(&update, &mut stop_in(Phase::Download, 30)).unwrap_err();
    assert!(matches!(error, Error::Cancelled(_)), "{error}");
    let mut first = None;
    device
        .download(&update, &mut |at| {
            first.get_or_insert(at.percent());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(first.unwrap() >= 30, "what was fetched is kept: {first:?}");
}
