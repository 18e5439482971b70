//! A TLS server and its certificate authority.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tidegate_client::fetch::http::Identity;

/// An authority that vouches for servers and clients.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for these names, and its key.
    pub fn issue(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        params.extended_key_usages = vec![purpose];
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    pub fn identity(&self) -> Identity {
        let (certificate, key) = self.issue(&[], ExtendedKeyUsagePurpose::ClientAuth);
        Identity::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }
}

/// What a server has.
pub enum Content {
    /// It answers every request with what its path is. `/elsewhere` leads to another port.
    Echo,
    /// The files of a folder.
    Folder(PathBuf),
    /// Another server has them.
    Moved(String),
}

impl Content {
    /// The status, and the body if there is one.
    pub fn answer(&self, path: &str) -> (&'static str, Vec<u8>) {
        match self {
            Self::Echo if path == "/elsewhere" => ("302 Found", path.into()),
            Self::Echo => ("200 OK", path.into()),
            Self::Moved(to) => ("307 Temporary Redirect", format!("{to}{path}").into()),
            Self::Folder(folder) => match std::fs::read(folder.join(path.trim_start_matches('/'))) {
                Ok(bytes) => ("200 OK", bytes),
                Err(_) => ("404 Not Found", Vec::new()),
            },
        }
    }
}

/// A server that notes the requests' headers. Requests for `/secret` need the authorization `Bearer two`.
pub struct Server {
    pub port: u16,
    pub heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn new(authority: &Authority, clients: Option<&Authority>) -> Self {
        Self::with(authority, clients, Content::Echo)
    }

    pub fn with(authority: &Authority, clients: Option<&Authority>, content: Content) -> Self {
        let (certificate, key) = authority.issue(&["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(clients.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                config.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = Arc::new(config.with_single_cert(vec![CertificateDer::from(certificate)], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let heads_there = heads.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = StreamOwned::new(connection, stream.unwrap());
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let (mut status, body) = content.answer(&path);
                if path == "/secret" && !head.contains("authorization: Bearer two\r\n") {
                    status = "401 Unauthorized";
                }
                let more = match status {
                    "302 Found" => format!("Location: https://localhost:{}/x\r\n", port ^ 1),
                    "307 Temporary Redirect" => format!("Location: {}\r\n", String::from_utf8_lossy(&body)),
                    _ => String::new(),
                };
                let length = body.len();
                let _ =
                    write!(stream, "HTTP/1.1 {status}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(&body);
                stream.conn.send_close_notify();
                let _ = stream.flush();
                heads_there.lock().unwrap().push(head);
            }
        });
        Self { port, heads }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    pub fn authorizations(&self) -> Vec<Option<String>> {
        let heads = std::mem::take(&mut *self.heads.lock().unwrap());
        let value =
            |head: &String| head.lines().find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned));
        heads.iter().filter(|head| !head.is_empty()).map(value).collect()
    }
}

/// A proxy that asks for nothing and notes what it is asked.
pub struct Tunnel {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Tunnel {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let asked_there = asked.clone();
        thread::spawn(move || {
            for device in listener.incoming() {
                let mut device = device.unwrap();
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && device.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                asked_there.lock().unwrap().push(head);
                let mut server = std::net::TcpStream::connect(target.replace("localhost", "127.0.0.1")).unwrap();
                device.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                let (mut from, mut to) = (device.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || std::io::copy(&mut from, &mut to));
                let _ = std::io::copy(&mut server, &mut device);
                let _ = device.shutdown(Shutdown::Both);
            }
        });
        Self { address, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}
