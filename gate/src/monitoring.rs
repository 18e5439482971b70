//! Metrics, health and readiness for the operator, in plain HTTP on a separate listener.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::context::GateContext;

/// The number of concurrent connections.
const MAX_CONNECTIONS: usize = 64;

pub(crate) async fn serve(listener: TcpListener, gate: Arc<GateContext>) {
    let app = Router::new()
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok\n".into()) }))
        .route("/readyz", get(|State(gate): State<Arc<GateContext>>| async move { readiness(&gate).await }))
        .route(
            "/metrics",
            get(|State(gate): State<Arc<GateContext>>| async move {
                text(StatusCode::OK, gate.metrics.render(gate.rates.tracked_devices()))
            }),
        )
        .with_state(gate);
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let Ok((socket, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let service = TowerToHyperService::new(app.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .serve_connection(
                    TokioIo::new(socket),
                    hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                        hyper::service::Service::call(&service, request.map(Body::new))
                    }),
                );
            let _ = tokio::time::timeout(Duration::from_secs(60), served).await;
            drop(permit);
        });
    }
}

/// Ready: the storage answers and the certificate is valid.
async fn readiness(gate: &GateContext) -> Response<Body> {
    let mut problems = Vec::new();
    for storage in [&gate.private, &gate.state] {
        if storage.head("gate/readiness").await.is_err() {
            problems.push(storage.location());
        }
    }
    if gate.config.tls.is_some()
        && gate.metrics.certificate_expiry.load(std::sync::atomic::Ordering::Relaxed)
            <= i64::try_from(gate.now()).unwrap_or(i64::MAX)
    {
        problems.push("the gate's certificate has expired");
    }
    if problems.is_empty() {
        text(StatusCode::OK, "ready\n".into())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", problems.join(", ")))
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
