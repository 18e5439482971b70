//! `tidegate-gate serve`

use std::path::Path;

use crate::config::GateConfig;
use crate::context::GateContext;
use crate::error::{Error, Result};
use crate::server::GateServer;

#[derive(clap::Args)]
pub(super) struct Arguments {}

pub(super) async fn run(path: &Path) -> Result<()> {
    let server = GateServer::bind(GateContext::open(GateConfig::load(path)?)?).await?;
    let local = server.local_address().map(|address| address.to_string());
    tracing::info!(devices = %server.address()?, local, "listening");
    notify_systemd();
    server.serve(stop_signal()?).await;
    tracing::info!("stopped");
    Ok(())
}

/// Completes on SIGTERM or SIGINT.
#[cfg(unix)]
fn stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| Error::system("cannot wait for signals", &error);
    let mut term = signal(SignalKind::terminate()).map_err(failed)?;
    let mut int = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// `Type=notify`: the unit is started when the sockets are bound (sd_notify(3)).
fn notify_systemd() {
    #[cfg(unix)]
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
    {
        let _ = socket.send_to(b"READY=1", path);
    }
}
