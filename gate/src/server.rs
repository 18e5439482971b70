//! Sockets: connections bounded in number and time, handshakes, and what is read again while they go on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::api::{self, Peer};
use crate::context::Gate;
use crate::error::{Error, Result};
use crate::identity::certificate::Certified;
use crate::{monitoring, nonce, tls};

/// The head of a request: no more headers, no more bytes.
const HEADERS: usize = 64;
const HEAD: usize = 16 * 1024;
/// For how long what goes on may go on when the gate is told to stop.
const FAREWELL: Duration = Duration::from_secs(10);
/// How often spent nonces are cleared away.
const SWEEP: Duration = Duration::from_secs(600);

/// A gate that listens.
#[derive(Debug)]
pub struct Server {
    gate: Arc<Gate>,
    devices: TcpListener,
    local: Option<TcpListener>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

impl Server {
    /// Listens, so that nothing is lost from now on; serves nobody yet.
    pub async fn bind(gate: Gate) -> Result<Self> {
        let bind = |address| async move {
            TcpListener::bind(address).await.map_err(|error| Error::new(format!("cannot listen on {address}: {error}")))
        };
        let tls = match &gate.config.tls {
            Some(tls) => {
                let loaded = tls::load(&gate.config, tls)?;
                gate.metrics.certificate_ends.store(loaded.ends, Relaxed);
                Some(loaded.server)
            }
            None => None,
        };
        let devices = bind(gate.config.listen).await?;
        let local = match gate.config.local {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { gate: Arc::new(gate), devices, local, tls: watch::Sender::new(tls) })
    }

    /// Where devices are served.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        self.devices.local_addr().map_err(|error| Error::new(error.to_string()))
    }

    /// Where metrics and readiness are served.
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.local.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop` ends, and then lets what goes on come to its end.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { gate, devices, local, tls } = self;
        let mut background = tokio::task::JoinSet::new();
        background.spawn(reload(Arc::clone(&gate), tls.clone()));
        background.spawn(sweep(Arc::clone(&gate)));
        if let Some(listener) = local {
            background.spawn(monitoring::serve(listener, Arc::clone(&gate)));
        }
        let (stopping, stopped) = watch::channel(());
        let all = Arc::new(Semaphore::new(gate.config.limits.connections.min(Semaphore::MAX_PERMITS)));
        let addresses = Arc::new(Addresses::default());
        let app = api::router(Arc::clone(&gate));
        tokio::pin!(stop);
        loop {
            let (socket, address) = tokio::select! {
                () = &mut stop => break,
                accepted = devices.accept() => {
                    let Ok(accepted) = accepted else {
                        // Out of file descriptors, above all: others end soon.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    accepted
                }
            };
            let one = Arc::clone(&all).try_acquire_owned().ok();
            let place = addresses.enter(address.ip(), gate.config.limits.connections_per_address);
            let (Some(one), Some(place)) = (one, place) else {
                gate.metrics.turned_away.fetch_add(1, Relaxed);
                continue;
            };
            let (gate, app, tls, stopped) = (Arc::clone(&gate), app.clone(), tls.subscribe(), stopped.clone());
            tokio::spawn(async move {
                let held = (one, place);
                gate.metrics.connections.fetch_add(1, Relaxed);
                connection(&gate, socket, app, tls, stopped).await;
                gate.metrics.connections.fetch_sub(1, Relaxed);
                drop(held);
            });
        }
        drop(devices);
        let _ = stopping.send(());
        drop(stopped);
        // Ends when the last connection has dropped its end.
        let _ = tokio::time::timeout(FAREWELL, stopping.closed()).await;
    }
}

async fn connection(
    gate: &Arc<Gate>,
    socket: TcpStream,
    app: axum::Router,
    mut tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    stopped: watch::Receiver<()>,
) {
    let _ = socket.set_nodelay(true);
    let config = tls.borrow_and_update().clone();
    let Some(config) = config else {
        return http(gate, socket, Peer::default(), app, tls, stopped).await;
    };
    let handshake = TlsAcceptor::from(config).accept(socket);
    let Ok(Ok(stream)) = tokio::time::timeout(gate.config.limits.patience.into(), handshake).await else {
        gate.metrics.handshakes_failed.fetch_add(1, Relaxed);
        return;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer { certificate: certificate.map(|der| Certified::read(der).map(Arc::new)) };
    http(gate, stream, peer, app, tls, stopped).await;
}

async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gate: &Gate,
    stream: S,
    peer: Peer,
    app: axum::Router,
    mut tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    mut stopped: watch::Receiver<()>,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        hyper::service::Service::call(
            &hyper_util::service::TowerToHyperService::new(app.clone()),
            request.map(Body::new),
        )
    });
    let limits = &gate.config.limits;
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from(limits.patience))
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let long_enough = tokio::time::sleep(limits.connection.into());
    tokio::pin!(long_enough);
    let mut ending = false;
    loop {
        tokio::select! {
            _ = &mut served => return,
            // However slowly somebody reads. Downloads are taken up again by range.
            () = &mut long_enough => return,
            // Certificates or revocations have changed: whoever is still welcome comes again. What goes on comes to its end.
            _ = tls.changed(), if !ending => ending = true,
            _ = stopped.changed(), if !ending => ending = true,
        }
        if ending {
            served.as_mut().graceful_shutdown();
        }
    }
}

/// Reads certificates, revocations and the secret again when their files have changed. What cannot be used changes nothing.
async fn reload(gate: Arc<Gate>, sender: watch::Sender<Option<Arc<ServerConfig>>>) {
    let every = gate.config.tls.as_ref().map_or(Duration::from_secs(10), |tls| tls.reload.into());
    let mut stamp = tls::stamp(&gate.config);
    loop {
        tokio::time::sleep(every.max(Duration::from_secs(1))).await;
        let now = tls::stamp(&gate.config);
        if now == stamp {
            continue;
        }
        stamp = now;
        let done = gate.reload_secret().and_then(|()| match &gate.config.tls {
            Some(tls) => tls::load(&gate.config, tls).map(|loaded| {
                gate.metrics.certificate_ends.store(loaded.ends, Relaxed);
                sender.send_replace(Some(loaded.server));
            }),
            None => Ok(()),
        });
        let event = match &done {
            Ok(()) => serde_json::json!({"event": "reloaded"}),
            Err(error) => serde_json::json!({"event": "not reloaded, the old ones stay", "error": error.to_string()}),
        };
        eprintln!("{event}");
        let counter = if done.is_ok() { &gate.metrics.reloads } else { &gate.metrics.reloads_failed };
        counter.fetch_add(1, Relaxed);
    }
}

async fn sweep(gate: Arc<Gate>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        nonce::sweep(&gate.state, gate.now()).await;
    }
}

/// How many connections each address has.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    fn enter(self: &Arc<Self>, address: IpAddr, most: usize) -> Option<Entered> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Entered { all: Arc::clone(self), address })
    }
}

#[derive(Debug)]
struct Entered {
    all: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}
