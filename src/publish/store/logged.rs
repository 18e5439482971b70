//! Logs HTTP requests to stores, including retries and requests for credentials: method, host, path, status and duration. Never the query,
//! headers or bodies, which contain signatures and credentials.

use std::time::Instant;

use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use tracing::trace;

/// Connects HTTP clients that log.
#[derive(Debug)]
pub(super) struct LoggedConnector;

impl HttpConnector for LoggedConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(LoggedHttp(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct LoggedHttp(HttpClient);

#[async_trait::async_trait]
impl HttpService for LoggedHttp {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let method = request.method().clone();
        let host = request.uri().host().unwrap_or_default().to_owned();
        // On link-local hosts, the path of a credentials endpoint can itself be a secret.
        let path = if host.starts_with("169.254.") { "(credentials)" } else { request.uri().path() }.to_owned();
        let started = Instant::now();
        let result = self.0.execute(request).await;
        let milliseconds = started.elapsed().as_millis();
        match &result {
            Ok(response) => {
                trace!(%method, host, path, status = response.status().as_u16(), milliseconds, "HTTP request");
            }
            Err(error) => trace!(%method, host, path, failure = ?error.kind(), milliseconds, "HTTP request"),
        }
        result
    }
}
