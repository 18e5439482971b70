//! A plain static server, for trying out and for tests.
//!
//! It does what a CDN must do for devices, and nothing else: GET and HEAD, kept-alive connections, strong `ETag`s
//! and `304`, single ranges, gzip of metadata where it is accepted, and the `Cache-Control` that
//! [`publish`](crate::publish) gives the same objects on a store. Nothing outside the folder is ever served, and no private key; a folder
//! with a workspace in it is refused.
//!
//! ```no_run
//! # async fn example() -> Result<(), tidegate::Error> {
//! let server = tidegate::serve::Server::bind("./demo/published".as_ref(), ([127, 0, 0, 1], 0).into()).await?;
//! println!("http://{}", server.address());
//! server.run(async { let _ = tokio::signal::ctrl_c().await; }).await;
//! # Ok(()) }
//! ```

mod file;
mod secret;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{Error, Kind, Result};

/// How long a client may take to send the head of a request, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take to end once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// Room for the head of a request. No request of a device comes near it.
const MAX_HEAD: usize = 16 * 1024;

/// One request and its answer, reported to the observer ([`Server::observe`]) when the last byte is out (or the client is gone).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exchange {
    /// Who sent the request.
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

/// Receives each exchange.
type Observer = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// A server that is bound to its address and not yet running.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Shared,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// What all connections share.
struct Shared {
    /// Without symbolic links, so that a resolved path can be compared with it.
    folder: Arc<Path>,
    meter: Meter,
    observer: Option<Observer>,
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
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Traffic>>);

impl Meter {
    /// What the server did since it was bound.
    pub fn read(&self) -> Traffic {
        self.count(|_| {})
    }

    fn count(&self, change: impl FnOnce(&mut Traffic)) -> Traffic {
        let mut traffic = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut traffic);
        *traffic
    }
}

impl Server {
    /// Binds to `address` (port 0: any free port) to serve the files below `folder`.
    ///
    /// # Errors
    ///
    /// Fails if `folder` is not a folder, if it contains a workspace or a private key (`S-SECRET`), or if the address is in use.
    pub async fn bind(folder: &Path, address: SocketAddr) -> Result<Self> {
        let unusable =
            |source| Error::io("serve", folder, source).remedy("give the folder that `tidegate publish` wrote");
        let folder = folder.canonicalize().map_err(unusable)?;
        if !folder.is_dir() {
            return Err(unusable(std::io::ErrorKind::NotADirectory.into()));
        }
        secret::check(&folder)?;
        let bind = |source| {
            Error::new(Kind::Io, format!("cannot listen on {address}"))
                .remedy("choose another port with --port, or 0 for any that is free")
                .with_source(source)
        };
        let listener = TcpListener::bind(address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let shared = Shared { folder: folder.into(), meter: Meter::default(), observer: None };
        Ok(Self { listener, address, shared })
    }

    /// Calls `observer` with each exchange when it has ended.
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
        self.shared.meter.clone()
    }

    /// Serves until `stop` is ready, then lets requests under way end and closes.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let shared = Arc::new(self.shared);
        let (stopping, stopped) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => accepted,
            };
            while connections.try_join_next().is_some() {}
            let Ok((stream, peer)) = accepted else {
                // Out of file descriptors, or a client that left at once: neither is a reason to stop.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let number = shared.meter.count(|traffic| traffic.connections += 1).connections;
            let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
            connections.spawn(converse(stream, peer, number, shared, stopped));
        }
        drop(stopping);
        let all = async { while connections.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, all).await;
    }
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
    let service = service_fn(|mut request: Request<Incoming>| {
        let (since, shared) = (Instant::now(), Arc::clone(&shared));
        async move {
            let response = file::respond(&shared.folder, &mut request).await;
            shared.meter.count(|traffic| traffic.requests += 1);
            let (method, path, status) = (request.method().clone(), request.uri().path().to_owned(), response.status());
            let exchange = Exchange { peer, connection, method, path, status, bytes: 0, elapsed: Duration::ZERO };
            let mut pending = Pending { exchange, since, shared };
            // Counted at once rather than at the end: whoever has received the last byte then finds it counted.
            let counted = response.map(|body| {
                body.map_frame(move |frame| {
                    let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                    pending.exchange.bytes += sent;
                    pending.shared.meter.count(|traffic| traffic.bytes += sent);
                    frame
                })
                .boxed_unsync()
            });
            Ok::<_, Infallible>(counted)
        }
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // A client that has closed its side still gets its answer.
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

/// An exchange whose answer is being sent. It goes away with the body of the answer, and is then observed.
struct Pending {
    exchange: Exchange,
    since: Instant,
    shared: Arc<Shared>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(observer) = &self.shared.observer {
            self.exchange.elapsed = self.since.elapsed();
            observer(&self.exchange);
        }
    }
}
