//! What is for the house alone: metrics, health, readiness. Plain HTTP on a listener of its own.

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
use object_store::ObjectStoreExt as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::context::Gate;
use crate::storage::Place;

/// Connections at a time.
const MOST: usize = 64;

pub(crate) async fn serve(listener: TcpListener, gate: Arc<Gate>) {
    let app = Router::new()
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok\n".into()) }))
        .route("/readyz", get(|State(gate): State<Arc<Gate>>| async move { ready(&gate).await }))
        .route(
            "/metrics",
            get(|State(gate): State<Arc<Gate>>| async move {
                text(StatusCode::OK, gate.metrics.text(gate.rates.remembered()))
            }),
        )
        .with_state(gate);
    let places = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
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
            drop(place);
        });
    }
}

/// Ready: every store behind the gate answers.
async fn ready(gate: &Gate) -> Response<Body> {
    let mut failed = Vec::new();
    for place in [Some(&gate.private), Some(&gate.state)].into_iter().flatten() {
        if !answers(place).await {
            failed.push(place.name());
        }
    }
    if gate.config.tls.is_some()
        && gate.metrics.certificate_ends.load(std::sync::atomic::Ordering::Relaxed)
            <= i64::try_from(gate.now()).unwrap_or(i64::MAX)
    {
        failed.push("the gate's certificate has expired");
    }
    if failed.is_empty() {
        text(StatusCode::OK, "ready\n".into())
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", failed.join(", ")))
    }
}

async fn answers(place: &Place) -> bool {
    let asked = place.store.head(&place.key("gate/readiness")).await;
    matches!(asked, Ok(_) | Err(object_store::Error::NotFound { .. }))
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
