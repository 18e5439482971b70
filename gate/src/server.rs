//! The listener for devices: connection limits, TLS handshakes, HTTP/1, and reloads of files while it runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tidegate_model::name::DeviceId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::api::{self, Peer};
use crate::audit::AuditEntry;
use crate::config::{GateConfig, Limits};
use crate::context::GateContext;
use crate::error::{Error, Result};
use crate::identity::certificate::DeviceCertificate;
use crate::names::GateNames;
use crate::pool::{Place, Pool};
use crate::sender::AddressGroup;
use crate::{monitoring, nonce, proxy_protocol, tls};

/// The maximum number of headers, and of bytes in a request's head.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 16 * 1024;
/// The age from which an unfinished handshake gives way, if there is no room for others. An honest one takes two round trips.
const YIELDS_AFTER: Duration = Duration::from_secs(1);
/// Open files that are not connections of devices: storage, logs, monitoring.
const OTHER_FILES: usize = 128;
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
        let loaded = gate.config.tls.as_ref().map(|tls| tls::load(&gate.config, tls)).transpose()?;
        let (names, tls) = loaded.map_or((GateNames::local(), None), |loaded| {
            gate.metrics.certificate_expiry.store(loaded.expiry, Relaxed);
            (loaded.names, Some(loaded.server))
        });
        gate.set_names(names);
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
        background.spawn(write_counts(Arc::clone(&gate)));
        let (stopping, stopped) = watch::channel(());
        let door = Door {
            admission: Arc::new(Admission::new(&gate.config)),
            app: api::router(Arc::clone(&gate)),
            gate: Arc::clone(&gate),
        };
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
            let (door, tls, stopped) = (door.clone(), tls.subscribe(), stopped.clone());
            tokio::spawn(async move {
                if let Err(refused) = door.serve(socket, address.ip(), tls, stopped).await {
                    door.record(refused).await;
                }
            });
        }
        drop(devices);
        let _ = stopping.send(());
        drop(stopped);
        // Completes when the last connection has dropped its receiver.
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, stopping.closed()).await;
        gate.audit.end().await;
    }
}

/// A connection that ends without a request.
struct RefusedConnection {
    rule: &'static str,
    /// The device, if it is known; else the address, if that has a budget.
    sender: Option<String>,
}

/// What every connection needs.
#[derive(Clone)]
struct Door {
    gate: Arc<GateContext>,
    admission: Arc<Admission>,
    app: axum::Router,
}

impl Door {
    /// Serves a connection within the budgets of its sender.
    async fn serve(
        &self,
        mut socket: TcpStream,
        address: IpAddr,
        mut tls: watch::Receiver<Option<Arc<ServerConfig>>>,
        stopped: watch::Receiver<()>,
    ) -> std::result::Result<(), RefusedConnection> {
        let _ = socket.set_nodelay(true);
        let config = tls.borrow_and_update().clone();
        let sender = self.sender(&mut socket, address, config.is_some()).await?;
        let refused = |rule| RefusedConnection { rule, sender: sender.map(|sender| sender.to_string()) };
        let Some(config) = config else {
            let place = self.admission.connections.enter(sender).ok_or_else(|| refused("G-CON-01"))?;
            let peer = Peer { sender, certificate: None };
            return self.serve_http(socket, peer, place, tls, stopped).await.ok_or_else(|| refused("G-CON-06"));
        };
        // Without budget nothing is read, and nothing computed.
        let is_allowed = self.gate.rates.allows_handshake(sender);
        let handshake = is_allowed.then(|| self.admission.handshakes.enter(sender)).flatten();
        let handshake = handshake.ok_or_else(|| refused("G-CON-03"))?;
        let accepting =
            tokio::time::timeout(self.gate.config.limits.patience.into(), TlsAcceptor::from(config).accept(socket));
        let stream = tokio::select! {
            accepted = accepting => accepted.ok().and_then(Result::ok).ok_or_else(|| refused("G-CON-04"))?,
            () = handshake.taken() => return Err(refused("G-CON-06")),
        };
        let place = self.admission.connections.enter(sender).ok_or_else(|| refused("G-CON-01"))?;
        drop(handshake);
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.map(|der| DeviceCertificate::parse(der).map(Arc::new));
        let device = match &certificate {
            Some(Ok(certificate)) => {
                let device = &certificate.device;
                let full = || RefusedConnection { rule: "G-CON-02", sender: Some(device.to_string()) };
                Some(self.admission.devices.enter(device.clone()).ok_or_else(full)?)
            }
            _ => None,
        };
        let peer = Peer { sender, certificate };
        let served = self.serve_http(stream, peer, place, tls, stopped).await;
        drop(device);
        served.ok_or_else(|| refused("G-CON-06"))
    }

    /// Whose budgets the connection uses. Without TLS and PROXY protocol all devices come from the program that ends their TLS: nobody's.
    async fn sender(
        &self,
        socket: &mut TcpStream,
        address: IpAddr,
        is_tls: bool,
    ) -> std::result::Result<Option<AddressGroup>, RefusedConnection> {
        let limits = &self.gate.config.limits;
        if !self.gate.config.proxy_protocol.trusted.iter().any(|network| network.contains(address)) {
            return Ok(is_tls.then(|| address.into()));
        }
        let refused = |rule| RefusedConnection { rule, sender: Some(AddressGroup::from(address).to_string()) };
        let place = self.admission.headers.enter(()).ok_or_else(|| refused("G-CON-03"))?;
        let reading = tokio::time::timeout(limits.patience.into(), proxy_protocol::read(socket));
        let source = tokio::select! {
            header = reading => header.ok().flatten().ok_or_else(|| refused("G-CON-05"))?,
            () = place.taken() => return Err(refused("G-CON-06")),
        };
        Ok(Some(source.unwrap_or(address).into()))
    }

    /// Serves requests. `None` if the connection gave way to another sender.
    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        peer: Peer,
        place: Place<Option<AddressGroup>>,
        tls: watch::Receiver<Option<Arc<ServerConfig>>>,
        stopped: watch::Receiver<()>,
    ) -> Option<()> {
        self.gate.metrics.connections.fetch_add(1, Relaxed);
        let served = tokio::select! {
            () = serve_http(&self.gate, stream, peer, self.app.clone(), tls, stopped) => Some(()),
            () = place.taken() => None,
        };
        self.gate.metrics.connections.fetch_sub(1, Relaxed);
        served
    }

    /// Counts a refused connection in metrics and in the audit log.
    async fn record(&self, refused: RefusedConnection) {
        self.gate.metrics.record_rejected_connection(refused.rule);
        let device = refused.sender.map(|sender| self.gate.audit.device_label(&sender, &self.gate.secret()));
        let at = api::format_time(self.gate.now());
        let entry = AuditEntry { at, route: "connection", rule: Some(refused.rule), device, ..AuditEntry::default() };
        self.gate.audit.append(entry).await;
    }
}

/// The places of connections.
struct Admission {
    /// Connections of load balancers that have not said yet who sends.
    headers: Arc<Pool<()>>,
    handshakes: Arc<Pool<Option<AddressGroup>>>,
    connections: Arc<Pool<Option<AddressGroup>>>,
    devices: Arc<Pool<DeviceId>>,
}

impl Admission {
    fn new(config: &GateConfig) -> Self {
        let limits = &config.limits;
        let (connections, handshakes) = places(limits, open_files());
        if connections < limits.connections || handshakes < limits.handshakes {
            tracing::warn!(
                connections,
                handshakes,
                "the system allows few open files, so there are fewer places; raise LimitNOFILE"
            );
        }
        Self {
            headers: Pool::new(handshakes, usize::MAX, Some(YIELDS_AFTER)),
            handshakes: Pool::new(handshakes, limits.handshakes_per_address, Some(YIELDS_AFTER)),
            connections: Pool::new(
                connections,
                if config.tls.is_some() || !config.proxy_protocol.trusted.is_empty() {
                    limits.connections_per_address
                } else {
                    limits.connections
                },
                None,
            ),
            devices: Pool::new(limits.connections, limits.connections_per_device, None),
        }
    }
}

/// So many connections and handshakes that together they leave open files for everything else: otherwise the system would refuse the next
/// connection, whoever sends it.
fn places(limits: &Limits, open_files: usize) -> (usize, usize) {
    let room = open_files.saturating_sub(OTHER_FILES).max(8);
    (limits.connections.min(room / 4 * 3), limits.handshakes.min(room / 8))
}

/// How many files the process may have open, where the system says so.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(usize::MAX)
}

async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    gate: &GateContext,
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

/// Writes the counts of refusals.
async fn write_counts(gate: Arc<GateContext>) {
    loop {
        tokio::time::sleep(gate.config.audit.interval.into()).await;
        gate.audit.write_counts().await;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_open_files_for_everything_else() {
        let limits = Limits::default();
        assert_eq!(places(&limits, usize::MAX), (limits.connections, limits.handshakes));
        for open_files in [0, 100, 256, 1024, 4096, 5000] {
            // The headers of load balancers have as many places as handshakes.
            let (connections, handshakes) = places(&limits, open_files);
            assert!(connections > 0 && handshakes > 0);
            assert!(connections + 2 * handshakes + OTHER_FILES <= open_files.max(OTHER_FILES + 8), "{open_files}");
        }
        assert!(open_files() > 0);
    }
}
