//! The listener for devices: connection limits, TLS handshakes, HTTP/1, and reloads of files while it runs.

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

use crate::api::{self, TlsPeer};
use crate::context::GateContext;
use crate::error::{Error, Result};
use crate::identity::certificate::DeviceCertificate;
use crate::names::GateNames;
use crate::{monitoring, nonce, tls};

/// The maximum number of headers, and of bytes in a request's head.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 16 * 1024;
/// How long open requests may take after a stop signal.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);
/// How often spent nonces are removed.
const NONCE_CLEANUP_INTERVAL: Duration = Duration::from_secs(600);

/// A gate whose sockets are bound.
#[derive(Debug)]
pub struct GateServer {
    gate: Arc<GateContext>,
    devices: TcpListener,
    local: Option<TcpListener>,
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
}

impl GateServer {
    /// Binds the sockets. Connections wait in their queues until [`GateServer::serve`].
    ///
    /// # Errors
    ///
    /// Fails if a socket cannot be bound or the TLS files cannot be loaded.
    pub async fn bind(gate: GateContext) -> Result<Self> {
        let bind = |address| async move {
            TcpListener::bind(address)
                .await
                .map_err(|error| Error::system(format!("cannot listen on {address}"), &error))
        };
        let tls = match &gate.config.tls {
            Some(tls) => {
                let loaded = tls::load(&gate.config, tls)?;
                gate.metrics.certificate_expiry.store(loaded.expiry, Relaxed);
                gate.set_names(loaded.names);
                Some(loaded.server)
            }
            None => {
                gate.set_names(GateNames::local());
                None
            }
        };
        let devices = bind(gate.config.listen).await?;
        let local = match gate.config.local {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { gate: Arc::new(gate), devices, local, tls: watch::Sender::new(tls) })
    }

    /// The address for devices.
    ///
    /// # Errors
    ///
    /// Fails if the operating system does not report it.
    pub fn address(&self) -> Result<std::net::SocketAddr> {
        self.devices.local_addr().map_err(|error| Error::system("cannot read the address of a socket", &error))
    }

    /// The address for metrics and readiness.
    pub fn local_address(&self) -> Option<std::net::SocketAddr> {
        self.local.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop` completes, then waits for open requests.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let Self { gate, devices, local, tls } = self;
        let mut background = tokio::task::JoinSet::new();
        background.spawn(reload(Arc::clone(&gate), tls.clone()));
        background.spawn(remove_expired_nonces(Arc::clone(&gate)));
        if let Some(listener) = local {
            background.spawn(monitoring::serve(listener, Arc::clone(&gate)));
        }
        let (stopping, stopped) = watch::channel(());
        let permits = Arc::new(Semaphore::new(gate.config.limits.connections.min(Semaphore::MAX_PERMITS)));
        let addresses = Arc::new(AddressCounts::default());
        let app = api::router(Arc::clone(&gate));
        tokio::pin!(stop);
        loop {
            let (socket, address) = tokio::select! {
                () = &mut stop => break,
                accepted = devices.accept() => {
                    let Ok(accepted) = accepted else {
                        // Most likely no file descriptors are left. Other connections will close soon.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    };
                    accepted
                }
            };
            let permit = Arc::clone(&permits).try_acquire_owned().ok();
            let counted = addresses.acquire(address.ip(), gate.config.limits.connections_per_address);
            let (Some(permit), Some(counted)) = (permit, counted) else {
                gate.metrics.rejected_connections.fetch_add(1, Relaxed);
                continue;
            };
            let (gate, app, tls, stopped) = (Arc::clone(&gate), app.clone(), tls.subscribe(), stopped.clone());
            tokio::spawn(async move {
                let permits = (permit, counted);
                gate.metrics.connections.fetch_add(1, Relaxed);
                serve_connection(&gate, socket, app, tls, stopped).await;
                gate.metrics.connections.fetch_sub(1, Relaxed);
                drop(permits);
            });
        }
        drop(devices);
        let _ = stopping.send(());
        drop(stopped);
        // Completes when the last connection has dropped its receiver.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, stopping.closed()).await;
    }
}

async fn serve_connection(
    gate: &Arc<GateContext>,
    socket: TcpStream,
    app: axum::Router,
    mut tls: watch::Receiver<Option<Arc<ServerConfig>>>,
    stopped: watch::Receiver<()>,
) {
    let _ = socket.set_nodelay(true);
    let config = tls.borrow_and_update().clone();
    let Some(config) = config else {
        return serve_http(gate, socket, TlsPeer::default(), app, tls, stopped).await;
    };
    let handshake = TlsAcceptor::from(config).accept(socket);
    let Ok(Ok(stream)) = tokio::time::timeout(gate.config.limits.patience.into(), handshake).await else {
        gate.metrics.failed_handshakes.fetch_add(1, Relaxed);
        return;
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let peer = TlsPeer { certificate: certificate.map(|der| DeviceCertificate::parse(der).map(Arc::new)) };
    serve_http(gate, stream, peer, app, tls, stopped).await;
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gate: &GateContext,
    stream: S,
    peer: TlsPeer,
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
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(served);
    let time_limit = tokio::time::sleep(limits.connection.into());
    tokio::pin!(time_limit);
    let mut ending = false;
    loop {
        tokio::select! {
            _ = &mut served => return,
            // Also ends connections of slow readers. Devices continue a download with a range request.
            () = &mut time_limit => return,
            // Certificates or revocation lists have changed: open requests complete, and devices have to connect again.
            _ = tls.changed(), if !ending => ending = true,
            _ = stopped.changed(), if !ending => ending = true,
        }
        if ending {
            served.as_mut().graceful_shutdown();
        }
    }
}

/// Reloads certificates, revocation lists and the secret when their files change. If they cannot be used, the previous ones stay in use.
async fn reload(gate: Arc<GateContext>, sender: watch::Sender<Option<Arc<ServerConfig>>>) {
    let interval = gate.config.tls.as_ref().map_or(Duration::from_secs(10), |tls| tls.reload.into());
    let mut loaded = tls::modification_times(&gate.config);
    loop {
        tokio::time::sleep(interval.max(Duration::from_secs(1))).await;
        let found = tls::modification_times(&gate.config);
        if found == loaded {
            continue;
        }
        loaded = found;
        let result = gate.reload_secret().and_then(|()| match &gate.config.tls {
            Some(tls) => tls::load(&gate.config, tls).map(|loaded| {
                gate.metrics.certificate_expiry.store(loaded.expiry, Relaxed);
                gate.set_names(loaded.names);
                sender.send_replace(Some(loaded.server));
            }),
            None => Ok(()),
        });
        match &result {
            Ok(()) => tracing::info!("reloaded"),
            Err(error) => tracing::warn!(%error, "not reloaded; the previous files stay in use"),
        }
        let counter = if result.is_ok() { &gate.metrics.reloads } else { &gate.metrics.failed_reloads };
        counter.fetch_add(1, Relaxed);
    }
}

async fn remove_expired_nonces(gate: Arc<GateContext>) {
    loop {
        tokio::time::sleep(NONCE_CLEANUP_INTERVAL).await;
        match nonce::remove_expired(&gate.state, gate.now()).await {
            Ok(removed) => tracing::debug!(removed, "spent nonces removed"),
            Err(error) => tracing::debug!(%error, "spent nonces not removed"),
        }
    }
}

/// The number of connections of each address.
#[derive(Debug, Default)]
struct AddressCounts(Mutex<HashMap<IpAddr, usize>>);

impl AddressCounts {
    fn acquire(self: &Arc<Self>, address: IpAddr, maximum: usize) -> Option<CountedConnection> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(address).or_default();
        if *count >= maximum {
            return None;
        }
        *count += 1;
        Some(CountedConnection { all: Arc::clone(self), address })
    }
}

#[derive(Debug)]
struct CountedConnection {
    all: Arc<AddressCounts>,
    address: IpAddr,
}

impl Drop for CountedConnection {
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
