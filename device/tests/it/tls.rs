//! The program over TLS: authorities, certificates, secrets, proxies and bounds, as its settings and its environment say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::{Value, json};

use crate::cli::{Bench, with_release};
use crate::fleet::{IMAGE, release_image};
use crate::tls_server::{Authority, Content, Server, Tunnel};
use crate::tools::have;

const OFFERED: &str = "install 1.2.0 (sequence 12): image.bin\n";

/// A device whose repository is at a server, and the authority that vouches for the server, in `ca.pem`; `strangers.pem` is another one.
fn at_server(clients: Option<&Authority>) -> (Bench, Authority, Server) {
    let (bench, authority) = (with_release(), Authority::new());
    let server = Server::with(&authority, clients, Content::Folder(bench.path("repository")));
    fs::write(bench.path("ca.pem"), authority.pem()).unwrap();
    fs::write(bench.path("strangers.pem"), Authority::new().pem()).unwrap();
    bench.set(&json!({"repository": server.url("")}));
    (bench, authority, server)
}

fn network(bench: &Bench, more: &Value) {
    let mut network = json!({"ca": "ca.pem", "proxy": "none"});
    for (name, value) in more.as_object().unwrap() {
        network[name] = value.clone();
    }
    bench.set(&json!({ "network": network }));
}

/// Exit code, standard output, standard error; in an environment that says nothing but this.
fn run(bench: &Bench, environment: &[(&str, &str)], words: &[&str]) -> (i32, String, String) {
    let mut command: Command = bench.command(words);
    for name in ["SSL_CERT_FILE", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    let Output { status, stdout, stderr } = command.envs(environment.iter().copied()).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// The authorities of these tests are valid from 1975 to 4096.
#[test]
fn a_clock_that_is_years_off_is_named() {
    if !have(&["faketime"]) {
        return;
    }
    let (bench, _, _server) = at_server(None);
    network(&bench, &json!({}));
    let check = bench.command(&["check"]);
    for (now, said) in
        [("1970-01-01 00:00:10", "certificate not valid yet"), ("4099-01-01 00:00:10", "certificate expired")]
    {
        let mut command = Command::new("faketime");
        command.args(["-m", "-f", &format!("@{now}")]).arg(check.get_program()).args(check.get_args()).env("TZ", "UTC");
        let output = command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let clock = format!("this device's clock says {}T00:00:1", &now[..10]);
        assert!(error.contains(said) && error.contains(&clock), "{error}");
        assert!(error.contains("help: check this device's clock"), "{error}");
    }
}

#[test]
fn the_systems_authorities_are_trusted_unless_others_are_given() {
    let (bench, _, _server) = at_server(None);
    let path = |name: &str| bench.path(name).to_str().unwrap().to_owned();
    let (ours, strangers, absent) = (path("ca.pem"), path("strangers.pem"), path("absent.pem"));
    let check = |file: &str| run(&bench, &[("SSL_CERT_FILE", file)], &["-q", "check"]);
    let trusted = |(code, out, err): (i32, String, String)| assert_eq!((code, out.as_str()), (0, OFFERED), "{err}");
    let refused = |(code, out, err): (i32, String, String), why: &str| {
        assert_eq!((code, out.as_str()), (1, ""), "{err}");
        assert!(err.contains(why), "{err}");
    };
    // Those of the system are the default, and can be asked for.
    for settings in [json!({"proxy": "none"}), json!({"proxy": "none", "ca": "system"})] {
        bench.set(&json!({ "network": settings }));
        trusted(check(&ours));
        refused(check(&strangers), "certificate");
        refused(check(&absent), "absent.pem");
    }
    // Given ones replace them.
    network(&bench, &json!({}));
    trusted(check(&strangers));
    network(&bench, &json!({"ca": "strangers.pem"}));
    refused(check(&ours), "certificate");
}

#[test]
fn a_server_that_requires_certificates_gets_the_devices() {
    let clients = Authority::new();
    let (bench, _, _server) = at_server(Some(&clients));
    network(&bench, &json!({}));
    let (code, _, err) = run(&bench, &[], &["check"]);
    assert_eq!(code, 1, "{err}");
    for (name, issuer) in [("stranger", &Authority::new()), ("device", &clients)] {
        let (certificate, key) = issuer.issue(&[], ExtendedKeyUsagePurpose::ClientAuth);
        fs::write(bench.path(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(bench.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    network(&bench, &json!({"client_certificate": "stranger.crt", "client_key": "stranger.key"}));
    let exposed = run(&bench, &[], &["check"]).2;
    assert!(exposed.contains("stranger.key can be read or changed by others (mode 0644): chmod 600 "), "{exposed}");
    for name in ["stranger.key", "device.key"] {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(run(&bench, &[], &["check"]).0, 1);
    network(&bench, &json!({"client_certificate": "device.crt", "client_key": "device.key"}));
    let (code, out, err) = run(&bench, &[], &["-q", "install"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    assert_eq!(fs::read(bench.path("slot")).unwrap(), IMAGE);
}

#[test]
fn the_secret_is_sent_to_the_server_that_it_is_for() {
    let (bench, authority, server) = at_server(None);
    let files = Server::with(&authority, None, Content::Folder(bench.path("repository/targets")));
    fs::write(bench.path("token"), "Bearer of-the-file\n").unwrap();
    bench.set(&json!({"metadata_url": server.url("/metadata"), "targets_url": files.url("")}));
    network(&bench, &json!({"authorization": {"file": "token"}}));
    let (code, out, err) = run(&bench, &[], &["-q", "check"]);
    assert_eq!((code, out.as_str()), (0, OFFERED), "{err}");
    let told = server.authorizations();
    assert!(told.len() >= 5 && told.iter().all(|value| value.as_deref() == Some("Bearer of-the-file")), "{told:?}");
    let others = files.authorizations();
    assert!(!others.is_empty() && others.iter().all(Option::is_none), "{others:?}");
    // From a program, and for the other server.
    let secret = json!({"program": ["echo", "Bearer of-the-program"], "server": files.url("")});
    network(&bench, &json!({ "authorization": secret }));
    let (code, out, err) = run(&bench, &[], &["-q", "install"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    assert!(server.authorizations().iter().all(Option::is_none));
    let told = files.authorizations();
    assert!(!told.is_empty() && told.iter().all(|value| value.as_deref() == Some("Bearer of-the-program")), "{told:?}");
    assert!(!err.contains("of-the-program"));
}

#[test]
fn proxies_come_from_the_environment_or_the_settings() {
    let (bench, _, server) = at_server(None);
    let (of_environment, of_settings) = (Tunnel::new(), Tunnel::new());
    let url = format!("http://{}", of_environment.address);
    let check = |environment: &[(&str, &str)]| {
        let (code, out, err) = run(&bench, environment, &["-q", "check"]);
        assert_eq!((code, out.as_str()), (0, OFFERED), "{err}");
        (of_environment.asked(), of_settings.asked())
    };
    let connect = format!("CONNECT localhost:{} ", server.port);
    let went_through = |asked: &[String]| !asked.is_empty() && asked.iter().all(|head| head.starts_with(&connect));
    bench.set(&json!({"network": {"ca": "ca.pem"}}));
    for name in ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
        let (asked, other) = check(&[(name, &url)]);
        assert!(went_through(&asked) && other.is_empty(), "{name}: {asked:?}");
    }
    assert_eq!(check(&[]).0.len(), 0);
    assert_eq!(check(&[("https_proxy", &url), ("no_proxy", "localhost")]).0.len(), 0);
    // What the settings say counts.
    network(&bench, &json!({"proxy": format!("http://{}", of_settings.address)}));
    let (other, asked) = check(&[("https_proxy", &url)]);
    assert!(went_through(&asked) && other.is_empty(), "{asked:?}");
    network(&bench, &json!({"proxy": "none"}));
    assert_eq!(check(&[("https_proxy", &url)]).0.len(), 0);
}

#[test]
fn bounds_on_rate_and_data_hold_downloads_back() {
    let (bench, _, server) = at_server(None);
    // What a decision takes may be fetched in any case; the image may not.
    network(&bench, &json!({"allowance": {"bytes": IMAGE.len() - 1, "per": "30d"}}));
    let (code, out, err) = run(&bench, &[], &["-q", "check"]);
    assert_eq!((code, out.as_str()), (0, OFFERED), "{err}");
    let (code, out, err) = run(&bench, &[], &["-q", "install"]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("the 21 bytes that this device may fetch are used up until"), "{out}{err}");
    assert!(!bench.path("slot").exists());
    let asked = |server: &Server| {
        let heads = std::mem::take(&mut *server.heads.lock().unwrap());
        heads.iter().filter(|head| head.contains(".image.bin ")).count()
    };
    asked(&server);
    // Within the allowance it goes, and no faster than it may: the image takes half a second at least.
    let rate = IMAGE.len() * 2;
    network(&bench, &json!({"allowance": {"bytes": 1_000_000, "per": "30d"}, "rate": rate}));
    let begun = Instant::now();
    let (code, out, err) = run(&bench, &[], &["-q", "install", "--now"]);
    assert_eq!((code, out.as_str()), (0, "installed 1.2.0 (sequence 12)\n"), "{err}");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert_eq!(asked(&server), 1);
}

/// Half a second's download at a pseudo-terminal, and again without one.
#[test]
fn a_download_shows_how_far_it_is_on_a_terminal_alone() {
    if !have(&["script"]) {
        return;
    }
    let bench = || {
        let bench = Bench::new(|sim| {
            release_image(sim, "all", "1.2.0", 12, &vec![7; 1 << 20]);
        });
        let authority = Authority::new();
        let server = Server::with(&authority, None, Content::Folder(bench.path("repository")));
        fs::write(bench.path("ca.pem"), authority.pem()).unwrap();
        bench.set(&json!({"repository": server.url("")}));
        network(&bench, &json!({"rate": 2 << 20}));
        (bench, server)
    };
    let at_a_terminal = |words: &[&str]| {
        let (bench, _server) = bench();
        let command = bench.command(words);
        let line: Vec<_> = [command.get_program()].into_iter().chain(command.get_args()).collect();
        let line = line.join(std::ffi::OsStr::new(" "));
        let out = Command::new("script").arg("-qec").arg(line).arg("/dev/null").stdin(Stdio::null()).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    let seen = at_a_terminal(&["download"]);
    assert!(seen.contains("\rimage.bin: ") && seen.contains(" % of 1048576 bytes"), "{seen:?}");
    let seen = at_a_terminal(&["-q", "download"]);
    assert!(!seen.contains('%'), "{seen:?}");
    let (bench, _server) = bench();
    let (code, _, err) = run(&bench, &[], &["download"]);
    assert!(code == 0 && !err.contains('%'), "{err}");
}
