//! The examples in C and in Python, as programs that are built, linked and run, against a repository on a server.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{have, settings, simulator};

/// Serves files. The first transfer of an image stops halfway.
fn serve(files: BTreeMap<String, Vec<u8>>, stops: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shared = Arc::new((files, AtomicBool::new(stops)));
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let shared = shared.clone();
            thread::spawn(move || while answer(&mut stream, &shared.0, &shared.1).is_ok() {});
        }
    });
    address
}

fn answer(stream: &mut TcpStream, files: &BTreeMap<String, Vec<u8>>, stops: &AtomicBool) -> io::Result<()> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
    let start = |line: &str| line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok();
    let from: usize = head.lines().find_map(start).unwrap_or(0);
    let Some(file) = files.get(path) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    let status = if from == 0 { "200 OK" } else { "206 Partial Content" };
    let (body, last, length) = (&file[from..], file.len() - 1, file.len());
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{last}/{length}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if path.ends_with("image.bin") && stops.swap(false, Ordering::SeqCst) {
        stream.write_all(&body[..body.len() / 2])?;
        thread::sleep(Duration::from_secs(60));
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    stream.write_all(body)
}

/// Where cargo puts the libraries, beside this test.
fn built(library: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name(library);
    assert!(path.exists(), "{} is not there", path.display());
    path
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    assert_eq!(stderr, "", "{command:?}\n{stdout}");
    stdout.into_owned()
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// The file of settings of a device in this folder.
fn write_settings(folder: &Path, more: &Value, stops: bool) -> PathBuf {
    let sim = simulator(&vec![7; 4_000_000]);
    std::fs::write(folder.join("root.json"), sim.root(1)).unwrap();
    let mut settings = settings(folder, &format!("http://{}", serve(sim.files, stops)));
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    let path = folder.join("settings.json");
    std::fs::write(&path, settings.to_string()).unwrap();
    path
}

/// What the README says to link.
const LIBRARIES: &str = "-lpthread -ldl -lm";

/// Built as the README says, with the static library, under AddressSanitizer: reads and writes outside, use after free, leaks.
#[test]
fn the_example_in_c_updates_without_a_memory_fault() {
    if !have("cc") {
        return;
    }
    assert!(include_str!("../../README.md").contains(&format!("libtidegate_ffi.a {LIBRARIES} -o update")));
    let folder = crate::mirror::scratch();
    let (folder, program) = (folder.path(), folder.path().join("update"));
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    run(Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address", "-o"])
        .arg(&program)
        .arg("-I")
        .arg(include)
        .args([example("update.c"), built("libtidegate_ffi.a")])
        .args(LIBRARIES.split(' ')));
    std::fs::write(folder.join("current"), "a").unwrap();
    let settings = write_settings(folder, &json!({}), true);
    let update = || run(Command::new(&program).arg(&settings).arg(folder));
    let said = update();
    let lines: Vec<&str> = said.lines().map(|line| line.split([' ', ':']).next().unwrap()).collect();
    assert_eq!(lines, ["found", "nothing", "download", "install", "installed", "confirmed"], "{said}");
    assert!(said.contains("nothing came: again") && said.contains(r#""to_fetch":4000000"#), "{said}");
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    assert_eq!((read("current"), read("confirmed")), (b"b".to_vec(), b"b".to_vec()));
    assert!(read("b") == vec![7; 4_000_000]);
    assert_eq!(update(), "nothing to install\n");
    // An error, too, leaves nothing behind.
    std::fs::write(&settings, "{}").unwrap();
    let failed = Command::new(&program).arg(&settings).arg(folder).output().unwrap();
    let stderr = String::from_utf8_lossy(&failed.stderr);
    assert!(stderr.starts_with("open: ") && stderr.ends_with("(setting)\n"), "{stderr}");
}

#[test]
fn the_example_in_python_updates() {
    if !have("python3") {
        return;
    }
    let folder = crate::mirror::scratch();
    let folder = folder.path();
    let settings = write_settings(folder, &json!({"slot": folder.join("slot")}), false);
    let said = run(Command::new("python3").arg(example("update.py")).arg(built("libtidegate_ffi.so")).arg(settings));
    for line in [
        "outcome install",
        "found 1.1.0 4000000 bytes",
        "downloaded image.bin",
        "confirmed 1.1.0 confirmed",
        "runs 1.1.0",
    ] {
        assert!(said.lines().any(|said| said == line), "{line} is missing in:\n{said}");
    }
    assert!(std::fs::read(folder.join("slot")).unwrap() == vec![7; 4_000_000]);
}
