//! Receipts as `tidegate-device` keeps, shows and sends them.

#[path = "../../../client/tests/it/device_key.rs"]
mod device_key;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};
use tidegate_model::receipt::SignedReceipt;

use crate::cli::{Bench, with_release};
use crate::fleet::release;
use device_key::{key, pem};

/// A bench with a device key and receipts that go to the folder `usb`.
fn bench() -> Bench {
    let bench = with_release();
    write_key(&bench, 0o600);
    bench.set(&json!({"receipts": {"to": "file:usb", "key": "device.key"}}));
    bench
}

fn write_key(bench: &Bench, mode: u32) {
    fs::write(bench.path("device.key"), pem()).unwrap();
    fs::set_permissions(bench.path("device.key"), fs::Permissions::from_mode(mode)).unwrap();
}

/// The outcomes that were sent to the folder, sorted.
fn sent(bench: &Bench) -> Vec<String> {
    let read = |path: &Path| SignedReceipt::parse(&fs::read(path).unwrap()).unwrap();
    let mut outcomes: Vec<_> = files(&bench.path("usb"))
        .iter()
        .map(|path| {
            let signed = read(path);
            assert!(signed.verify(key().public()));
            signed.receipt.outcome.to_string()
        })
        .collect();
    outcomes.sort_unstable();
    outcomes
}

#[test]
fn one_shot_commands_send_at_their_end() {
    let bench = bench();
    // To look is to be offered; it is sent by the next command that acts.
    bench.run(&["check"]);
    assert!(sent(&bench).is_empty());
    let (code, out, err) = bench.run(&["receipts"]);
    assert_eq!((code, err.as_str()), (0, "next: tidegate-device receipts --send sends them now\n"));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "1 pending"), "{out}");
    assert!(lines[1].ends_with("offered      1.2.0 (sequence 12), cohort all"), "{out}");
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    assert_eq!(sent(&bench), ["installed", "offered"]);
    // The file slot takes effect at once: it is on trial.
    bench.run(&["install"]);
    let (code, out, _) = bench.run(&["confirm"]);
    assert_eq!((code, out.as_str()), (0, "confirmed 1.2.0 (sequence 12)\n"));
    assert_eq!(sent(&bench), ["confirmed", "installed", "offered"]);
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("\nreceipts     none pending\n"), "{out}");
    assert_eq!(bench.json(&["status"])["receipts"]["waiting"], 0);
}

#[test]
fn what_cannot_be_sent_is_a_warning_and_is_sent_later() {
    let bench = bench();
    fs::write(bench.path("usb"), "a file in the folder's place").unwrap();
    let (code, out, err) = bench.run(&["install"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    assert!(err.contains("warning: 2 receipts not sent: ") && err.contains("usb"), "{err}");
    let status = bench.json(&["status"])["receipts"].clone();
    assert_eq!((&status["waiting"], &status["failures"]), (&json!(2), &json!(1)));
    let (_, out, _) = bench.run(&["status"]);
    assert!(out.contains("receipts     2 pending; sending failed once in a row, the last: "), "{out}");
    // Patience is asked for, unless somebody says: now.
    fs::remove_file(bench.path("usb")).unwrap();
    bench.run(&["install"]);
    assert!(sent(&bench).is_empty());
    let report = bench.json(&["receipts"]);
    assert_eq!(report["waiting"].as_array().unwrap().len(), 2);
    assert!(SignedReceipt::from_value(&report["waiting"][0]).unwrap().verify(key().public()));
    let (code, out, err) = bench.run(&["receipts", "--send"]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "2 receipts sent\n", ""));
    assert_eq!(sent(&bench), ["installed", "offered"]);
    let report = bench.json(&["receipts", "--send"]);
    assert_eq!(
        report,
        json!({
            "status": {"waiting": 0, "dropped": 0, "refused": 0, "failures": 0}, "waiting": [], "sent": {"sent": 0, "waiting": 0},
        })
    );
}

#[test]
fn sending_that_fails_or_is_refused_is_told_by_the_exit_code() {
    let bench = bench();
    bench.run(&["check"]);
    fs::write(bench.path("usb"), "").unwrap();
    let (code, out, err) = bench.run(&["receipts", "--send"]);
    assert_eq!((code, out.as_str()), (1, "0 receipts sent, 1 pending\n"), "{err}");
    fs::remove_file(bench.path("usb")).unwrap();
    // Something else has its name.
    let report = bench.json(&["receipts"]);
    let name = SignedReceipt::from_value(&report["waiting"][0]).unwrap().object_name().unwrap();
    fs::create_dir_all(bench.path("usb").join(&name).parent().unwrap()).unwrap();
    fs::write(bench.path("usb").join(&name), "something else").unwrap();
    let (code, out, err) = bench.run(&["receipts", "--send"]);
    assert_eq!((code, out.as_str()), (1, "0 receipts sent, 1 rejected permanently\n"));
    assert!(err.contains("warning: receipt rejected permanently and dropped: offered of 1.2.0"), "{err}");
    assert_eq!(bench.json(&["status"])["receipts"]["refused"], 1);
}

#[test]
fn a_failed_command_sends_what_it_has_to_tell() {
    let bench = bench();
    fs::write(bench.path("blocked"), "a file, where a folder is to be").unwrap();
    bench.set(&json!({"receipts": {"to": "file:usb", "key": "device.key"}, "slot": "blocked/next.img"}));
    for _ in 0..3 {
        assert_eq!(bench.run(&["install"]).0, 1);
    }
    assert_eq!(sent(&bench), ["failed", "offered"]);
}

#[test]
fn the_agent_sends_after_each_cycle() {
    let bench = bench();
    bench.set(&json!({"poll": {"interval": "1h", "first_within": "0s"}}));
    let mut running = crate::run::Running::start(&mut bench.command(&[]));
    assert_eq!(running.until("receipts"), "3 receipts sent");
    assert_eq!(sent(&bench), ["confirmed", "installed", "offered"]);
}

#[test]
fn settings_are_checked_and_an_update_goes_on_without_a_key() {
    let bench = bench();
    for (receipts, expected) in [
        (json!({"key": "device.key"}), "`receipts.to`"),
        (json!({"to": "nowhere", "key": "device.key"}), "file:FOLDER"),
        (json!({"to": 1, "key": "device.key"}), "file:FOLDER"),
        (json!({"to": "gate", "gate": "http://gate.example.com", "key": "device.key"}), "not the URL of a gate"),
        (json!({"to": "file:x", "gate": "https://gate.example.com", "key": "device.key"}), "only for"),
        (json!({"to": "file:x", "key": "device.key", "device": "name"}), "hash, id"),
        (json!({"to": "file:x", "key": "device.key", "more": 1}), "more"),
    ] {
        bench.set(&json!({"receipts": receipts}));
        let (code, _, err) = bench.run(&["status"]);
        assert_eq!(code, 2, "{receipts}: {err}");
        assert!(err.contains(expected), "{receipts}: {err}");
    }
    // What is found out when the key is read, or the URL: receipts are not worth an update.
    for (receipts, expected) in [
        (json!({"to": "file:usb"}), "receipts.key is needed"),
        (json!({"to": "file:usb", "key": "none.key"}), "none.key"),
        (json!({"to": "file:usb", "key": "device.json"}), "device.json"),
        (json!({"to": "https://store.example.com/object?sig=x", "key": "device.key"}), "one object"),
    ] {
        bench.set(&json!({"receipts": receipts}));
        let (code, out, err) = bench.run(&["check"]);
        assert_eq!((code, out.as_str()), (0, "install 1.2.0 (sequence 12): image.bin\n"), "{err}");
        assert!(err.contains("warning: receipts are disabled: ") && err.contains(expected), "{err}");
        let (code, _, err) = bench.run(&["receipts"]);
        assert!(code != 0 && err.contains(expected), "{err}");
    }
    bench.set(&json!({"receipts": {"to": "file:usb", "key": "device.key"}}));
    write_key(&bench, 0o644);
    let (code, _, err) = bench.run(&["install"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("chmod 600") && !err.contains("PRIVATE"), "{err}");
    assert!(!bench.path("usb").exists());
    bench.set(&json!({"receipts": Value::Null}));
    let (code, _, err) = bench.run(&["receipts"]);
    assert!(code == 1 || code == 2, "{code}");
    assert!(err.contains("set \"receipts\""), "{err}");
}

#[test]
fn the_key_of_the_client_certificate_will_do() {
    let bench = bench();
    let authority = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&authority).unwrap();
    fs::write(bench.path("client.pem"), certificate.pem()).unwrap();
    fs::write(bench.path("client.key"), authority.serialize_pem()).unwrap();
    fs::set_permissions(bench.path("client.key"), fs::Permissions::from_mode(0o600)).unwrap();
    bench.set(&json!({
        "network": {"client_certificate": "client.pem", "client_key": "client.key"},
        "receipts": {"to": "file:usb", "device": "id"},
    }));
    bench.run(&["install"]);
    let paths = files(&bench.path("usb"));
    assert_eq!(paths.len(), 2);
    let signed = SignedReceipt::parse(&fs::read(&paths[0]).unwrap()).unwrap();
    let public = tidegate_client::key::DeviceKey::open(bench.path("client.key")).unwrap();
    assert!(signed.verify(public.public()) && public.public().keytype() == "ecdsa");
    assert_eq!(signed.receipt.device.as_str(), "device-1");
}

/// A gate in plain HTTP on this machine: it notes what it is sent, and answers with this status and body.
fn gate(status: u16, answer: fn(usize) -> String) -> (String, std::sync::mpsc::Receiver<(String, Value)>) {
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, notes) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let head = head.to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            reader.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let answer = answer(body["receipts"].as_array().unwrap().len());
            let length = answer.len();
            let answer =
                format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{answer}");
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            sender.send((head, body)).unwrap();
        }
    });
    (url, notes)
}

#[test]
fn a_gate_is_shown_whose_receipts_they_are() {
    let bench = bench();
    let (url, notes) = gate(200, |count| json!({"stored": count, "known": 0}).to_string());
    // The same key, by the one setting or the other.
    for receipts in [json!({"to": "gate", "gate": url, "key": "device.key"}), json!({"to": "gate", "gate": url})] {
        bench.set(&json!({"receipts": receipts, "gate": {"key": "device.key"}}));
        if receipts.get("key").is_some() {
            bench.set(&json!({"gate": Value::Null}));
        }
        let (code, _, err) = bench.run(&["install"]);
        assert!(code == 0 && !err.contains("warning"), "{err}");
        bench.run(&["confirm"]);
        let (head, body) = notes.recv().unwrap();
        assert!(head.starts_with("post /v1/receipts http/1.1\r\n"), "{head}");
        let proof = head.lines().find_map(|line| line.strip_prefix("tidegate-proof: ")).unwrap();
        assert!(proof.starts_with(&format!("{}.", key().id())), "{proof}");
        let receipts = body["receipts"].as_array().unwrap();
        assert!(receipts.iter().all(|value| SignedReceipt::from_value(value).unwrap().verify(key().public())));
        // The next has all to tell again.
        fs::remove_dir_all(bench.path("state")).unwrap();
        while notes.try_recv().is_ok() {}
    }
    let (url, notes) = gate(403, |_| {
        json!({"error": {"rule": "G-ID-08", "why": "the device is disabled", "missing": []}}).to_string()
    });
    bench.set(&json!({"receipts": {"to": "gate", "gate": url, "key": "device.key"}}));
    let (code, _, err) = bench.run(&["install"]);
    assert_eq!((code, notes.recv().unwrap().1["receipts"].as_array().unwrap().len()), (0, 2));
    assert!(err.contains("2 receipts not sent: ") && err.contains("the device is disabled (G-ID-08)"), "{err}");
    // No gate is named, nor has the cohort one.
    bench.set(&json!({"receipts": {"to": "gate", "key": "device.key"}}));
    let (code, out, err) = bench.run(&["receipts", "--send"]);
    assert_eq!((code, out.as_str()), (1, "0 receipts sent, 2 pending\n"));
    assert!(err.contains("the settings name none"), "{err}");
}

/// A second release, and a device that never came online in between: both are told.
#[test]
fn releases_are_told_apart() {
    let bench = Bench::new(|sim| {
        release(sim, "all", "1.2.0", 12);
    });
    write_key(&bench, 0o600);
    bench.set(&json!({"receipts": {"to": "file:usb", "key": "device.key"}}));
    bench.run(&["install"]);
    bench.run(&["reject"]);
    assert_eq!(sent(&bench).len(), 3);
    assert!(files(&bench.path("usb")).iter().all(|path| path.starts_with(bench.path("usb/receipts/stable/os/12"))));
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
