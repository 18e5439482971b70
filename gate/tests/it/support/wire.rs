//! Raw bytes over sockets, to send what a well-behaved client would not.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};

/// A response, read to the end of the connection.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// All received bytes.
    pub raw: Vec<u8>,
}

impl Response {
    pub fn parse(raw: Vec<u8>) -> Option<Self> {
        let at = raw.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&raw[..at]).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, body: raw[at + 4..].to_vec(), head, raw })
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn rule(&self) -> String {
        self.json()["error"]["rule"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends bytes and reads until the server closes. `None` without a valid response.
pub fn send(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, bytes: &[u8]) -> Option<Response> {
    Response::parse(exchange(address, tls, bytes).unwrap_or_default())
}

/// Sends bytes and returns all received bytes.
pub fn exchange(address: SocketAddr, tls: Option<&Arc<ClientConfig>>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    exchange_over(TcpStream::connect(address)?, tls, bytes)
}

/// The same over an open connection.
pub fn exchange_over(mut socket: TcpStream, tls: Option<&Arc<ClientConfig>>, bytes: &[u8]) -> io::Result<Vec<u8>> {
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    socket.set_write_timeout(Some(Duration::from_secs(60)))?;
    let mut raw = Vec::new();
    match tls {
        None => {
            // The gate may close before it has read everything.
            let _ = socket.write_all(bytes);
            let _ = socket.read_to_end(&mut raw);
        }
        Some(config) => {
            let connection =
                ClientConnection::new(Arc::clone(config), "localhost".try_into().unwrap()).map_err(io::Error::other)?;
            let mut stream = StreamOwned::new(connection, socket);
            let _ = stream.write_all(bytes);
            let _ = stream.read_to_end(&mut raw);
        }
    }
    Ok(raw)
}

/// A connection that stays open.
pub struct Open(StreamOwned<ClientConnection, TcpStream>);

impl Open {
    pub fn new(address: SocketAddr, tls: &Arc<ClientConfig>) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), tls)
    }

    /// The same over an open connection.
    pub fn over(socket: TcpStream, tls: &Arc<ClientConfig>) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let connection = ClientConnection::new(Arc::clone(tls), "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() && stream.conn.complete_io(&mut stream.sock).is_ok() {}
        Self(stream)
    }

    /// The server's certificate, in DER.
    pub fn server(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().and_then(|chain| chain.first()).map(|first| first.to_vec()).unwrap_or_default()
    }

    pub fn kind(&self) -> Option<rustls::HandshakeKind> {
        self.0.conn.handshake_kind()
    }

    /// Sends bytes, if the connection has not ended.
    pub fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).and_then(|()| self.0.flush());
    }

    /// Sends bytes and reads the beginning of the response. `None` if the connection has ended.
    pub fn send(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).ok()?;
        let mut buffer = [0; 8192];
        let count = self.0.read(&mut buffer).ok()?;
        (count > 0).then(|| buffer[..count].to_vec())
    }
}
