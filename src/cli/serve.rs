//! `tidegate serve`: a static server for trying out.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;
use tidegate_model::text::one_line;

use super::context::{Context, block_on};
use crate::error::Result;
use crate::serve::{Exchange, Server};

/// Serve a published folder over HTTP, for tests
///
/// Answers like a CDN: ETag and 304, ranges, gzip of metadata, Cache-Control. Prints each request on stderr. Stops on Ctrl-C. For
/// production use any static host; this server has no TLS. A folder with a workspace or a private key in it is refused.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The folder that `tidegate publish` wrote
    folder: PathBuf,
    /// The port to listen on; 0 takes any free one
    #[arg(short, long, default_value_t = 8080)]
    port: u16,
    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    bind: IpAddr,
}

/// Serves until interrupted.
pub(super) fn run(args: &Args, context: &mut Context) -> Result<()> {
    let ui = &context.ui;
    let style = ui.style();
    let quiet = ui.is_quiet();
    block_on(async {
        let server = Server::bind(&args.folder, SocketAddr::new(args.bind, args.port)).await?;
        let url = format!("http://{}", server.address());
        // The address is the result: with port 0 a script has no other way to learn it.
        if ui.is_json() {
            ui.result(json!({ "url": url }))?;
        } else {
            ui.result(&url)?;
        }
        let folder = one_line(&args.folder.display().to_string());
        ui.painted(format_args!("serving {folder} at {}; Ctrl-C stops it", style.bold(&url)));
        let server = server.observe(move |exchange| {
            if !quiet {
                super::ui::log(line(exchange));
            }
        });
        server.run(interrupted()).await;
        Ok(())
    })
}

/// One request as a line.
fn line(exchange: &Exchange) -> String {
    format!(
        "{} #{} {} {} {} {} B {:.1} ms",
        exchange.peer.ip(),
        exchange.connection,
        exchange.method,
        exchange.path,
        exchange.status.as_u16(),
        exchange.bytes,
        exchange.elapsed.as_secs_f64() * 1000.0
    )
}

/// Ready when the process is asked to stop.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminated) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
