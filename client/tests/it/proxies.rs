//! Through the proxies that networks really have: squid and tinyproxy, with their stock rules.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_client::clock::SystemClock;
use tidegate_client::fetch::http::{Authorities, HttpFetch, HttpOptions, Proxy};
use tidegate_client::fetch::{Fetch as _, FetchError, Reply, Request};

use crate::tls_server::{Authority, Server};
use crate::tools::have;

/// A proxy that runs until this is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(program: &str, options: &[&str], folder: &Path, rules: impl Fn(u16) -> String) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let file = folder.join("conf");
        fs::write(&file, rules(address.port())).unwrap();
        let mut command = Command::new(program);
        command.args(options).arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let running = Self { child: command.spawn().unwrap(), address };
        let started = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "{program} does not start");
            thread::sleep(Duration::from_millis(20));
        }
        running
    }

    /// The rules of Debian's configuration, with one port more for tunnels.
    fn squid(folder: &Path, tunnel: u16) -> Self {
        Self::start("squid", &["-N", "-f"], folder, |port| {
            format!(
                "acl SSL_ports port 443 {tunnel}\nacl Safe_ports port 80 443 1025-65535\nacl CONNECT method CONNECT\n\
                 http_access deny !Safe_ports\nhttp_access deny CONNECT !SSL_ports\nhttp_access allow localhost\n\
                 http_access deny all\nhttp_port 127.0.0.1:{port}\npid_filename none\naccess_log none\n\
                 cache_log /dev/null\ncache_store_log none\nnetdb_filename none\npinger_enable off\n\
                 shutdown_lifetime 0 seconds\ncoredump_dir /tmp\nvisible_hostname localhost\n"
            )
        })
    }

    fn tinyproxy(folder: &Path, tunnel: u16, more: &str) -> Self {
        Self::start("tinyproxy", &["-d", "-c"], folder, |port| {
            format!(
                "Port {port}\nListen 127.0.0.1\nTimeout 600\nMaxClients 10\nAllow 127.0.0.1\nConnectPort 443\n\
                 ConnectPort {tunnel}\nLogLevel Critical\n{more}"
            )
        })
    }
}

/// A server of ten bytes that keeps connections, gives ranges, and notes what it is asked.
fn plain_server() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/dir/file?query", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let there = heads.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, heads) = (stream.unwrap(), there.clone());
            thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        let answer = if text.to_lowercase().contains("range: bytes=4-") {
                            "HTTP/1.1 206 Part\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\n456789"
                        } else {
                            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789"
                        };
                        heads.lock().unwrap().push(text);
                        stream.write_all(answer.as_bytes()).unwrap();
                    }
                }
            });
        }
    });
    (url, heads)
}

fn fetcher(proxy: &str, authority: &Authority) -> HttpFetch {
    let options = HttpOptions {
        connect_timeout: Duration::from_secs(5),
        response_timeout: Duration::from_secs(5),
        proxy: Proxy::Url(proxy.parse().unwrap()),
        authorities: Authorities::from_pem(authority.pem().as_bytes()).unwrap(),
        ..HttpOptions::default()
    };
    HttpFetch::with_options(options, Arc::new(SystemClock::new()))
}

fn bytes(reply: Result<Reply, FetchError>) -> Result<Vec<u8>, FetchError> {
    match reply? {
        Reply::Found(body) => body.into_bytes(),
        other => panic!("{other:?}"),
    }
}

/// Plain HTTP with the whole URL, on one connection; a range; a tunnel for https; and a tunnel that the proxy does not allow.
fn is_usable(proxy: &Running, user: &str, tls: &Server, closed: &Server, authority: &Authority) {
    let fetch = fetcher(&format!("http://{user}{}", proxy.address), authority);
    let (url, heads) = plain_server();
    let request = Request::target(&url, 10);
    for _ in 0..2 {
        assert_eq!(bytes(fetch.fetch(&request)).unwrap(), b"0123456789");
    }
    assert_eq!(bytes(fetch.fetch(&request.after(4))).unwrap(), b"456789");
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("GET /dir/file?query HTTP/1.")), "{heads:?}");
    // It came through the proxy, which keeps its own credentials.
    assert!(heads.iter().all(|head| head.to_lowercase().contains("\r\nvia: ")), "{heads:?}");
    assert!(!heads.iter().any(|head| head.to_lowercase().contains("proxy-authorization")), "{heads:?}");
    let url = tls.url("/file");
    assert_eq!(bytes(fetch.fetch(&Request::metadata(&url, 10))).unwrap(), b"/file");
    let error = bytes(fetch.fetch(&Request::metadata(&closed.url("/file"), 10))).unwrap_err().to_string();
    let named = format!("(through the proxy {})", proxy.address);
    assert!(error.contains("403") && error.ends_with(&named), "{error}");
    assert!(closed.heads.lock().unwrap().is_empty());
}

#[test]
fn a_stock_squid_is_gone_through() {
    if !have(&["squid"]) {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (tls, closed) = (Server::new(&authority, None), Server::new(&authority, None));
    let proxy = Running::squid(folder.path(), tls.port);
    is_usable(&proxy, "", &tls, &closed, &authority);
    // The proxy's own page for errors is told as such.
    let fetch = fetcher(&format!("http://{}", proxy.address), &authority);
    let error = bytes(fetch.fetch(&Request::metadata("http://127.0.0.1:1/file", 10))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("answered 403 with text/html") && text.contains(&proxy.address.to_string()), "{text}");
}

#[test]
fn a_stock_tinyproxy_is_gone_through() {
    if !have(&["tinyproxy"]) {
        return;
    }
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let (tls, closed) = (Server::new(&authority, None), Server::new(&authority, None));
    let proxy = Running::tinyproxy(folder.path(), tls.port, "");
    is_usable(&proxy, "", &tls, &closed, &authority);
    drop(proxy);
    let proxy = Running::tinyproxy(folder.path(), tls.port, "BasicAuth device s3cret\n");
    is_usable(&proxy, "device:s%33cret@", &tls, &closed, &authority);
    let fetch = fetcher(&format!("http://device:wrong@{}", proxy.address), &authority);
    let (url, heads) = plain_server();
    for url in [url, tls.url("/file")] {
        let error = bytes(fetch.fetch(&Request::metadata(&url, 10))).unwrap_err().to_string();
        let named = format!("(through the proxy {})", proxy.address);
        assert!((error.contains("407") || error.contains("401")) && error.ends_with(&named), "{error}");
        assert!(!error.contains("wrong"), "{error}");
    }
    let fetch = fetcher(&format!("http://{}", proxy.address), &authority);
    for url in [plain_server().0, tls.url("/file")] {
        let error = tidegate_client::Error::from(bytes(fetch.fetch(&Request::metadata(&url, 10))).unwrap_err());
        assert!(error.to_string().contains("407"), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("network.proxy") && hint.contains("https_proxy")));
    }
    assert!(heads.lock().unwrap().is_empty());
}

#[test]
fn a_dead_proxy_is_named_and_not_passed_over() {
    let authority = Authority::new();
    let (url, heads) = plain_server();
    let dead = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls = Server::new(&authority, None);
    for url in [url, tls.url("/file")] {
        let error =
            bytes(fetcher(&format!("http://{dead}"), &authority).fetch(&Request::metadata(&url, 10))).unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }), "{error}");
        assert!(error.to_string().ends_with(&format!("(through the proxy {dead})")), "{error}");
    }
    assert!(heads.lock().unwrap().is_empty() && tls.heads.lock().unwrap().is_empty());
}
