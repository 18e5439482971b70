//! A plain static server, for trying out and for tests.
//!
//! It does what a CDN must do for devices, and nothing else: GET and HEAD, kept-alive connections, strong `ETag`s
//! and `304`, single ranges, gzip of metadata where it is accepted, and the `Cache-Control` that
//! [`publish`](crate::publish) gives the same objects on a store. Nothing outside the folder is ever served.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidegate::Error> {
//! let server = tidegate::serve::Server::bind("./demo/published".as_ref(), ([127, 0, 0, 1], 0).into()).await?;
//! println!("http://{}", server.address());
//! server.run(async { let _ = tokio::signal::ctrl_c().await; }).await;
//! # Ok(()) }
//! ```

mod conditional;
mod file;
mod path;
mod respond;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use self::file::Folder;
use crate::error::{Error, Kind, Result};

/// How long a client may take to send the head of a request, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take to end once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// Connections open at once; further ones wait in the listener's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Room for the head of a request. No request of a device comes near it.
const MAX_HEAD: usize = 16 * 1024;

/// One request and its answer, told to the [`Server::observe`]r when the last byte is out (or the client is gone).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exchange {
    /// Who asked.
    pub peer: SocketAddr,
    /// Which connection it came on; they are numbered from 1.
    pub connection: u64,
    /// The method.
    pub method: Method,
    /// The path as it was sent, still percent-encoded.
    pub path: String,
    /// The answer.
    pub status: StatusCode,
    /// Bytes of body that were handed to the connection.
    pub bytes: u64,
    /// From the head of the request to the end of the body.
    pub elapsed: Duration,
}

/// Is told each request.
type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// A server that is bound to its address and not yet running.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Shared,
}

/// What all connections share.
struct Shared {
    folder: Folder,
    traffic: Arc<Counters>,
    observer: Option<Observer>,
}

/// Counts what a server did, and may be read while it runs.
#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    requests: AtomicU64,
    bytes: AtomicU64,
}

/// What a server did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections accepted.
    pub connections: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes of bodies handed to connections.
    pub bytes: u64,
}

/// Reads a server's [`Traffic`] while it runs.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Counters>);

impl Meter {
    /// What the server did since it was bound.
    pub fn read(&self) -> Traffic {
        Traffic {
            connections: self.0.connections.load(Ordering::SeqCst),
            requests: self.0.requests.load(Ordering::SeqCst),
            bytes: self.0.bytes.load(Ordering::SeqCst),
        }
    }
}

impl Server {
    /// Binds to `address` (port 0: any that is free) to serve what lies below `folder`.
    pub async fn bind(folder: &Path, address: SocketAddr) -> Result<Self> {
        let folder = Folder::open(folder).map_err(|source| {
            Error::io("serve", folder, source).remedy("give the folder that `tidegate publish` wrote")
        })?;
        let bind = |source| {
            Error::new(Kind::Io, format!("cannot listen on {address}"))
                .remedy("choose another port with --port, or 0 for any that is free")
                .with_source(source)
        };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let shared = Shared { folder, traffic: Arc::default(), observer: None };
        Ok(Self { listener, address, shared })
    }

    /// Tells `observer` each request when it has ended.
    #[must_use]
    pub fn observe(mut self, observer: impl Fn(&Exchange) + Send + Sync + 'static) -> Self {
        self.shared.observer = Some(Arc::new(observer));
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle to its counts.
    pub fn meter(&self) -> Meter {
        Meter(Arc::clone(&self.shared.traffic))
    }

    /// Serves until `stop` is ready, then lets requests under way end and closes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let shared = Arc::new(self.shared);
        let (stopping, stopped) = watch::channel(());
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            while connections.try_join_next().is_some() {}
            let Some((stream, peer, slot)) = accepted else {
                // Out of file descriptors, or a client that left at once: neither is a reason to stop.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let number = shared.traffic.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
            connections.spawn(async move {
                converse(stream, peer, number, shared, stopped).await;
                drop(slot);
            });
        }
        drop(stopping);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, all).await;
    }
}

/// The next connection and its slot; none if accepting failed.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.ok()?;
    let (stream, peer) = listener.accept().await.ok()?;
    Some((stream, peer, slot))
}

/// Answers the requests of one connection until either side closes it.
async fn converse(
    stream: TcpStream,
    peer: SocketAddr,
    connection: u64,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<()>,
) {
    // Answers are small; waiting for more to send costs a device a round trip.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            let asked = Asked { peer, connection, since: Instant::now(), shared: Arc::clone(&shared) };
            Ok::<_, Infallible>(respond::respond(&shared.folder, &request, asked).await)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // A client that has said all it will say still gets its answer.
        .half_close(true)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut conversation = std::pin::pin!(conversation);
    tokio::select! {
        _ = conversation.as_mut() => return,
        _ = stopped.changed() => conversation.as_mut().graceful_shutdown(),
    }
    let _ = conversation.await;
}

/// Where a request came from: what its [`Exchange`] needs besides the answer.
struct Asked {
    peer: SocketAddr,
    connection: u64,
    since: Instant,
    shared: Arc<Shared>,
}

impl Asked {
    /// Tells the observer that the exchange has ended.
    fn ended(&self, method: &Method, path: &str, status: StatusCode, bytes: u64) {
        if let Some(observer) = &self.shared.observer {
            observer(&Exchange {
                peer: self.peer,
                connection: self.connection,
                method: method.clone(),
                path: path.to_owned(),
                status,
                bytes,
                elapsed: self.since.elapsed(),
            });
        }
    }
}
