//! Something between a publisher and a store that goes wrong at the request of a test's choice.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The publisher dies before the request is sent: this one and all later ones fail.
    Die,
    /// It dies after the store has carried it out.
    DieAfter,
    /// The connection is reset before the store has the request; later ones are fine.
    Reset,
    /// It is reset after the store has carried it out.
    ResetAfter,
    /// 500, once.
    Error500,
    /// 500, from then on.
    Down,
    /// 503 `SlowDown`, once.
    SlowDown,
    /// No answer in time, and nothing was carried out.
    Silence,
    /// No answer in time, though it was carried out.
    SilenceAfter,
    /// The answer ends in the middle.
    Truncated,
    /// A byte of the answer is another one.
    WrongAnswer,
    /// A byte of what is sent is another one when it arrives.
    WrongRequest,
    /// The credentials have expired, for good.
    Expired,
    /// The clock is too wrong for the store, for good.
    Skewed,
}

impl Fault {
    pub const ALL: [Self; 14] = [
        Self::Die,
        Self::DieAfter,
        Self::Reset,
        Self::ResetAfter,
        Self::Error500,
        Self::Down,
        Self::SlowDown,
        Self::Silence,
        Self::SilenceAfter,
        Self::Truncated,
        Self::WrongAnswer,
        Self::WrongRequest,
        Self::Expired,
        Self::Skewed,
    ];
}

/// Decides what happens at the request with a number, counted from 0, with its method and path.
pub type Script = Arc<dyn Fn(u64, &str) -> Fault + Send + Sync>;

/// A proxy, until it is dropped.
pub struct Proxy {
    pub endpoint: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    upstream: String,
    client: reqwest::Client,
    script: Script,
    count: AtomicU64,
    parts: AtomicU64,
    /// Set by a fault that lasts: what all later requests get.
    lasting: std::sync::Mutex<Option<Fault>>,
    silence: Duration,
    healed: AtomicBool,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Body = BoxBody<Bytes, io::Error>;

impl Proxy {
    /// Stands before `upstream`; a silence lasts for `silence`, which must be longer than the client waits.
    pub async fn start(upstream: &str, silence: Duration, script: Script) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            upstream: upstream.to_owned(),
            client: reqwest::Client::new(),
            script,
            count: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            lasting: std::sync::Mutex::new(None),
            silence,
            healed: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let _ = socket.set_nodelay(true);
                // A connection that is dropped is reset, not closed in peace.
                let _ = socket.set_zero_linger();
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| handle(Arc::clone(&state), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .await;
                });
            }
        });
        Self { endpoint, state, task }
    }

    /// Parts of files that have come so far, whatever became of them.
    pub fn parts(&self) -> u64 {
        self.state.parts.load(Ordering::SeqCst)
    }

    /// From now on nothing goes wrong.
    pub fn heal(&self) {
        self.state.healed.store(true, Ordering::SeqCst);
    }

    /// Requests that have come so far.
    pub fn count(&self) -> u64 {
        self.state.count.load(Ordering::SeqCst)
    }
}

async fn handle(state: Arc<State>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let number = state.count.fetch_add(1, Ordering::SeqCst);
    state.parts.fetch_add(u64::from(path.contains("partNumber=")), Ordering::SeqCst);
    let lasting = *state.lasting.lock().unwrap();
    let fault = match lasting {
        _ if state.healed.load(Ordering::SeqCst) => Fault::None,
        Some(fault) => fault,
        None => {
            // A script may look at the disk.
            let (script, what) = (Arc::clone(&state.script), format!("{} {path}", parts.method));
            tokio::task::spawn_blocking(move || script(number, &what)).await.map_err(io::Error::other)?
        }
    };
    let last = |fault| *state.lasting.lock().unwrap() = Some(fault);
    let forward = async |bytes: Bytes| -> io::Result<(reqwest::StatusCode, reqwest::header::HeaderMap, Bytes)> {
        let mut headers = parts.headers.clone();
        headers.remove(hyper::header::CONNECTION);
        let url = format!("{}{path}", state.upstream);
        let answer = state.client.request(parts.method.clone(), url).headers(headers).body(bytes).send().await;
        let answer = answer.map_err(io::Error::other)?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        Ok((status, headers, answer.bytes().await.map_err(io::Error::other)?))
    };
    match fault {
        Fault::None => Ok(answer(forward(bytes).await?, whole)),
        Fault::Die => {
            last(Fault::Die);
            Err(reset())
        }
        Fault::DieAfter => {
            last(Fault::Die);
            forward(bytes).await?;
            Err(reset())
        }
        Fault::Reset => Err(reset()),
        Fault::ResetAfter => {
            forward(bytes).await?;
            Err(reset())
        }
        Fault::Error500 => Ok(said(500, "InternalError", "We encountered an internal error. Please try again.")),
        Fault::Down => {
            last(Fault::Down);
            Ok(said(500, "InternalError", "We encountered an internal error. Please try again."))
        }
        Fault::SlowDown => Ok(said(503, "SlowDown", "Please reduce your request rate.")),
        Fault::Silence => {
            tokio::time::sleep(state.silence).await;
            Err(reset())
        }
        Fault::SilenceAfter => {
            forward(bytes).await?;
            tokio::time::sleep(state.silence).await;
            Err(reset())
        }
        Fault::Truncated => match forward(bytes).await? {
            (_, _, body) if body.is_empty() => Err(reset()),
            whole => Ok(answer(whole, |body| half(&body))),
        },
        Fault::WrongAnswer => Ok(answer(forward(bytes).await?, |body| whole(wrong(&body)))),
        Fault::WrongRequest => Ok(answer(forward(wrong(&bytes)).await?, whole)),
        Fault::Expired => {
            last(Fault::Expired);
            Ok(said(400, "ExpiredToken", "The provided token has expired."))
        }
        Fault::Skewed => {
            last(Fault::Skewed);
            Ok(said(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            ))
        }
    }
}

fn answer(
    (status, headers, body): (reqwest::StatusCode, reqwest::header::HeaderMap, Bytes),
    send: impl FnOnce(Bytes) -> Body,
) -> Response<Body> {
    let mut answer = Response::new(send(body));
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer.headers_mut().remove(hyper::header::TRANSFER_ENCODING);
    answer
}

fn whole(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed()
}

/// The first half, and then the end of the connection.
fn half(body: &Bytes) -> Body {
    let first = body.slice(..body.len() / 2);
    StreamBody::new(stream::iter([Ok(Frame::data(first)), Err(reset())])).boxed()
}

/// The same bytes but for one in the middle.
fn wrong(body: &Bytes) -> Bytes {
    let mut body = body.to_vec();
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
    body.into()
}

fn said(status: u16, code: &str, message: &str) -> Response<Body> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    let mut answer = Response::new(whole(body.into()));
    *answer.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
    answer
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}
