//! HTTP and HTTPS, through ureq and rustls.
//!
//! The server is not trusted. Answers are limited in length (after decompression), in time (connecting, answering) and
//! in slowness (a minimum throughput). Redirects stay on the same scheme, host and port or lead to https on the same host,
//! except for those of a gate, which lead to an object's storage. Connections are kept alive.

mod authorization;
mod crypto;
mod gate;
mod gunzip;
mod pace;
mod proxy;
mod range;
pub(crate) mod send;
mod socket;
mod tls;

use std::io::{self, BufRead, BufReader, Read};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::debug;
use ureq::http::response::Parts;
use ureq::http::{HeaderMap, StatusCode, Uri, header};
use ureq::tls::TlsConfig;
use ureq::unversioned::transport::{ConnectProxyConnector, Connector as _, RustlsConnector};
use ureq::{Agent, Timeout};

pub use authorization::{Authorization, AuthorizationError, Source};
pub use proxy::{Proxy, ProxyUrl};
pub use send::Answered;
pub use tls::{Authorities, Identity, TlsError};

use crate::clock::{Monotonic, SystemClock};
use crate::fetch::answer;
use crate::fetch::error::FetchError;
use crate::fetch::request::{Body, Fetch, Head, Kind, Reply, Request};
use gunzip::Gunzip;
use pace::{Meter, Paced, Patience};
use proxy::{Proxies, WholeUrlConnector};
use socket::{Dialer, Names};
use tidegate_model::text::public_url;
use tidegate_model::time;

/// The most bytes that are read of an unwanted body, so that its connection can be used again.
const WORTH_READING: u64 = 64 * 1024;

/// How an [`HttpFetch`] behaves. The default suits devices on any network from 2G up.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// The time limit to resolve a name, and the one to connect, including TLS.
    pub connect_timeout: Duration,
    /// The time limit from the request to the end of the answer's headers.
    pub response_timeout: Duration,
    /// The window over which throughput is measured; also the time limit without a byte of a body.
    pub pace_window: Duration,
    /// The minimum number of bytes of a body per window.
    pub pace_least: u64,
    /// The maximum number of redirects.
    pub redirects: u32,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// The proxy.
    pub proxy: Proxy,
    /// The trusted certificate authorities.
    pub authorities: Authorities,
    /// The client certificate, for servers that request one.
    pub identity: Option<Identity>,
    /// The secret for one server.
    pub authorization: Option<Authorization>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            response_timeout: Duration::from_secs(30),
            pace_window: Duration::from_secs(30),
            pace_least: 8192,
            redirects: 5,
            user_agent: concat!("tidegate-device/", env!("CARGO_PKG_VERSION")).into(),
            proxy: Proxy::Environment,
            authorities: Authorities::system(),
            identity: None,
            authorization: None,
        }
    }
}

/// Fetches `http:` and `https:` URLs.
pub struct HttpFetch {
    plain: Agent,
    /// Created on first use, because reading the system's authorities is slow.
    secure: OnceLock<Result<Agent, TlsError>>,
    /// The same without the device's certificate, for redirects of a gate.
    nameless: OnceLock<Result<Agent, TlsError>>,
    proxies: Proxies,
    options: HttpOptions,
    patience: Patience,
    clock: Arc<dyn Monotonic>,
}

impl HttpFetch {
    /// A fetcher with default options and the system's clock.
    pub fn new() -> Self {
        Self::with_options(HttpOptions::default(), Arc::new(SystemClock::new()))
    }

    /// A fetcher with these options, that measures throughput by this clock.
    pub fn with_options(options: HttpOptions, clock: Arc<dyn Monotonic>) -> Self {
        let patience = Patience::default();
        let proxies = Proxies::new(&options.proxy);
        let plain = agent(&options, &patience, tls::none());
        Self { plain, secure: OnceLock::new(), nameless: OnceLock::new(), proxies, options, patience, clock }
    }

    /// The agent for this URL.
    fn agent(&self, url: &str) -> Result<&Agent, FetchError> {
        self.agent_from(&self.secure, url, self.options.identity.as_ref())
    }

    /// The agent for this URL: with TLS, with or without the device's certificate, created on first use; or without TLS.
    fn agent_from<'a>(
        &'a self,
        secure: &'a OnceLock<Result<Agent, TlsError>>,
        url: &str,
        identity: Option<&Identity>,
    ) -> Result<&'a Agent, FetchError> {
        if !is_secure(url) && !self.proxies.of(url)?.is_some_and(ProxyUrl::is_secure) {
            return Ok(&self.plain);
        }
        let make = || {
            let tls = tls::config(&self.options.authorities, identity)?;
            Ok(agent(&self.options, &self.patience, tls))
        };
        let agent = secure.get_or_init(make).as_ref();
        agent.map_err(|e| FetchError::Authorities { url: url.to_owned(), reason: e.to_string() })
    }

    /// One request and its answer, redirects not followed.
    fn ask(&self, url: &str, request: &Request<'_>) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
        if let Some(pass) = request.pass {
            return self.ask_gate(url, request, pass);
        }
        let secret = match &self.options.authorization {
            Some(authorization) => {
                authorization.value(url).map_err(|reason| FetchError::Secret { url: request.url.to_owned(), reason })?
            }
            None => None,
        };
        let secret = secret.map(|secret| (header::AUTHORIZATION.as_str(), secret));
        self.ask_by(self.agent(url)?, url, request, secret.as_slice())
    }

    /// One request, and its answer, with these headers.
    fn ask_by(
        &self,
        agent: &Agent,
        url: &str,
        request: &Request<'_>,
        headers: &[(&str, String)],
    ) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
        self.patience.renew(self.options.connect_timeout * 2 + self.options.response_timeout * 2);
        self.patience.until(request.cancel);
        let encodings = if request.kind == Kind::Metadata { "gzip" } else { "identity" };
        let proxy = self.proxies.of(url)?;
        let call = || {
            let builder = agent.get(url).config().proxy(proxy.map(ProxyUrl::for_ureq)).build();
            let mut builder = builder.header(header::ACCEPT_ENCODING, encodings);
            if range::is_wanted(request) {
                let last = request.end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
                builder = builder.header(header::RANGE, format!("bytes={}-{last}", request.offset));
            }
            if let Some(etag) = request.etag {
                builder = builder.header(header::IF_NONE_MATCH, etag);
            }
            for (name, value) in headers {
                builder = builder.header(*name, value);
            }
            builder.call()
        };
        let started = Instant::now();
        let answer = match call() {
            // A server may close an idle connection at the moment of its next use.
            Err(ureq::Error::Io(e)) if is_hang_up(&e) => call(),
            result => result,
        };
        log("GET", url, answer.as_ref().ok(), started);
        answer.map_err(|e| match self.patience.check() {
            Ok(()) => self.unanswered(request.url, &e, proxy),
            Err(cancelled) => cancelled.into(),
        })
    }

    fn unanswered(&self, url: &str, error: &ureq::Error, proxy: Option<&ProxyUrl>) -> FetchError {
        let url = url.to_owned();
        let unreachable =
            |reason: String| FetchError::Unreachable { url: url.clone(), reason: reason + &through(proxy) };
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => FetchError::BadUrl { url, reason: "it is malformed" },
            ureq::Error::Protocol(e) => FetchError::Protocol { url, reason: format!("broken HTTP: {e}") },
            ureq::Error::LargeResponseHeader(..) => {
                FetchError::Protocol { url, reason: "the answer's headers are too long".into() }
            }
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect) => {
                unreachable(format!("no connection within {} s", self.options.connect_timeout.as_secs()))
            }
            ureq::Error::Timeout(_) => {
                unreachable(format!("no answer within {} s", self.options.response_timeout.as_secs()))
            }
            other => {
                let reason = other.to_string();
                let is_of_time = |what: &&str| reason.contains(what);
                if !["certificate expired", "certificate not valid yet"].iter().any(is_of_time) {
                    return unreachable(reason);
                }
                let clock = time::format(chrono::Utc::now());
                FetchError::CertificateTime { url: url.clone(), reason: reason + &through(proxy), clock }
            }
        }
    }

    /// The body of an answer, with limits on slowness and length.
    fn paced(&self, body: ureq::Body, url: &str, limit: u64) -> Paced {
        let meter = Meter::new(self.options.pace_window, self.options.pace_least);
        Paced::new(body.into_reader(), meter, self.clock.clone(), self.patience.clone(), url, limit)
    }

    /// Reads an unused body to its end if it is short, so that the connection can be reused.
    fn drain(&self, body: ureq::Body, url: &str) {
        let _ = io::copy(&mut self.paced(body, url, WORTH_READING), &mut io::sink());
    }

    /// An answer that is not the file.
    fn status(&self, response: ureq::http::Response<ureq::Body>, url: &str) -> FetchError {
        let (parts, came) = self.look(response, url);
        let (status, retry_after) = (parts.status.as_u16(), send::retry_after(&parts.headers));
        FetchError::Status { url: url.to_owned(), status, came, retry_after }
    }

    /// What came in place of a file, in words. Reads it to its end if it is short, so that the connection can be reused.
    fn look(&self, response: ureq::http::Response<ureq::Body>, url: &str) -> (Parts, String) {
        let (parts, body) = response.into_parts();
        let mut reader = self.paced(body, url, WORTH_READING);
        let (start, _) = start_of(&mut reader);
        let _ = io::copy(&mut reader, &mut io::sink());
        let came = self.came(&parts, &start, url);
        (parts, came)
    }

    fn came(&self, parts: &Parts, start: &[u8], url: &str) -> String {
        // It may be the proxy's answer.
        let proxy = self.proxies.of(url).unwrap_or_default().filter(|_| !is_secure(url));
        answer::came(parts.status.as_u16(), content_type(&parts.headers), "", start) + &through(proxy)
    }

    /// A 200 to a request for a range: the whole file, so that the server gives no ranges, or something else, which says nothing of that.
    fn no_range(&self, response: ureq::http::Response<ureq::Body>, request: &Request<'_>) -> FetchError {
        let (parts, body) = response.into_parts();
        let length = body.content_length();
        if length != Some(request.limit) {
            let is_packed = parts.headers.contains_key(header::CONTENT_ENCODING);
            let (start, _) = start_of(&mut self.paced(body, request.url, WORTH_READING));
            if (length.is_some() && !is_packed) || answer::is_page(content_type(&parts.headers), &start) {
                return FetchError::status(request.url, 200, self.came(&parts, &start, request.url));
            }
        }
        range::refused(request, 200)
    }

    fn found(
        &self,
        response: ureq::http::Response<ureq::Body>,
        request: &Request<'_>,
        offset: u64,
    ) -> Result<Reply, FetchError> {
        let url = request.url;
        let (parts, body) = response.into_parts();
        let room = request.limit.saturating_sub(offset);
        let length = body.content_length();
        let encoding = text(&parts.headers, &header::CONTENT_ENCODING).map(str::to_ascii_lowercase);
        let encoding = encoding.as_deref().filter(|it| !matches!(*it, "" | "identity"));
        let is_target = request.kind == Kind::Target;
        // Incompressible data grows slightly when it is compressed; more growth is an attack. The limit also ends a stream that decompresses to
        // nothing without end. Of other files, it leaves enough to see that they are too long.
        let limit = room.saturating_add(room / 64).saturating_add(1024);
        let mut source = BufReader::new(self.paced(body, url, limit));
        // Signed bytes may have any label. But some servers compress them unasked: then they have another length, and begin as gzip does.
        let is_gzip = matches!(encoding, Some("gzip" | "x-gzip"))
            && (!is_target
                || (request.end.is_none()
                    && offset == 0
                    && !request.as_is
                    && length != Some(room)
                    && begins_as_gzip(&mut source).map_err(|e| FetchError::from_io(url, e))?));
        if let Some(other) = encoding.filter(|_| !is_gzip && !is_target) {
            let reason = format!("the answer has Content-Encoding {other:?}, which was not requested");
            return Err(FetchError::Protocol { url: url.to_owned(), reason });
        }
        let mut reader: Box<dyn Read + Send> = if is_gzip {
            // Images may be zeros for the most part.
            Box::new(Gunzip::new(source, if is_target { 20 * gunzip::GROWTH } else { gunzip::GROWTH }))
        } else {
            Box::new(source)
        };
        let is_too_long = !is_gzip && length.is_some_and(|length| length > room);
        let etag = text(&parts.headers, &header::ETAG).filter(|tag| tag.len() <= 1024).map(str::to_owned);
        let is_unpacked = is_gzip && is_target;
        let mut head = Head { etag, length: length.filter(|_| !is_unpacked), is_unpacked, doubt: None };
        if offset == 0 {
            let (start, result) = start_of(&mut reader);
            // What cannot be unpacked is perhaps not to be.
            if !is_unpacked {
                result.map_err(|e| FetchError::from_io(url, e))?;
            }
            let content_type = content_type(&parts.headers);
            let is_page = answer::is_page(content_type, &start);
            let label = encoding.filter(|_| is_target).unwrap_or_default();
            if is_page || !label.is_empty() {
                let status = parts.status.as_u16();
                let came = answer::came(status, content_type, label, if is_page { &start } else { &[] });
                if !is_target || is_too_long {
                    return Err(FetchError::status(url, status, came));
                }
                head.doubt = Some(came);
            }
            reader = Box::new(io::Cursor::new(start).chain(reader));
        }
        if is_too_long {
            return Err(FetchError::TooLong { url: url.to_owned(), limit: request.limit });
        }
        Ok(Reply::Found(Body::new(reader, request, offset).with_head(head)))
    }
}

impl Default for HttpFetch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for HttpFetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpFetch").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Fetch for HttpFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let asked = request.url;
        let mut url = asked.to_owned();
        let mut request = *request;
        let mut redirects = 0;
        let mut renewed = false;
        loop {
            let response = self.ask(&url, &request)?;
            let status = response.status();
            match status {
                StatusCode::OK if request.end.is_none() => return self.found(response, &request, 0),
                StatusCode::OK => return Err(self.no_range(response, &request)),
                StatusCode::PARTIAL_CONTENT => match range::start(&response, &request) {
                    Some(start) => return self.found(response, &request, start),
                    None => request = range::plain(&request, 206)?,
                },
                // A range that does not suit the server, or a server that knows none.
                StatusCode::BAD_REQUEST
                | StatusCode::PRECONDITION_FAILED
                | StatusCode::RANGE_NOT_SATISFIABLE
                | StatusCode::NOT_IMPLEMENTED
                    if range::is_wanted(&request) =>
                {
                    request = range::plain(&request, status.as_u16())?;
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if request.pass.is_some() => {
                    return Err(self.denied(response, asked, url == asked));
                }
                // The secret may have been replaced since it was read.
                StatusCode::UNAUTHORIZED if !renewed && self.options.authorization.is_some() => {
                    renewed = true;
                    self.options.authorization.iter().for_each(Authorization::renew);
                    self.drain(response.into_body(), asked);
                }
                StatusCode::NOT_MODIFIED if request.etag.is_some() => {
                    self.drain(response.into_body(), asked);
                    return Ok(Reply::Unchanged);
                }
                StatusCode::NOT_FOUND | StatusCode::GONE => {
                    let (_, came) = self.look(response, asked);
                    return Ok(Reply::NotFound(format!("{}{came}", status.as_u16())));
                }
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let location = text(response.headers(), &header::LOCATION).unwrap_or_default();
                    redirects += 1;
                    let next = if redirects > self.options.redirects {
                        Err("there were too many redirects before it")
                    } else {
                        follow(&request, &url, location)
                    };
                    url = next.map_err(|rule| FetchError::Redirect {
                        url: asked.to_owned(),
                        status: status.as_u16(),
                        to: public_url(location),
                        rule,
                    })?;
                    self.drain(response.into_body(), asked);
                }
                _ => {
                    return Err(self.status(response, asked));
                }
            }
        }
    }
}

fn agent(options: &HttpOptions, patience: &Patience, tls: TlsConfig) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        // Redirects are followed by this crate, with its own rules.
        .max_redirects(0)
        .max_response_header_size(32 * 1024)
        .timeout_resolve(Some(options.connect_timeout))
        .timeout_connect(Some(options.connect_timeout))
        .timeout_send_request(Some(options.response_timeout))
        .timeout_recv_response(Some(options.response_timeout))
        .user_agent(&options.user_agent)
        // Each request names its proxy.
        .proxy(None)
        .tls_config(tls)
        .build();
    let connector =
        ().chain(WholeUrlConnector(config.clone()))
            .chain(ConnectProxyConnector::default())
            .chain(Dialer(patience.clone()))
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, Names(patience.clone()))
}

/// Logs a request and the status of its answer, if it has one.
fn log(method: &str, url: &str, answer: Option<&ureq::http::Response<ureq::Body>>, started: Instant) {
    let (url, milliseconds) = (public_url(url), started.elapsed().as_millis());
    if let Some(answer) = answer {
        let (status, bytes) = (answer.status().as_u16(), answer.body().content_length());
        debug!(method, url, status, bytes, milliseconds, "sent a request");
    } else {
        debug!(method, url, milliseconds, "sent a request without an answer");
    }
}

/// Whether an answer begins as gzip does, as far as its first bytes are here.
fn begins_as_gzip(source: &mut impl BufRead) -> io::Result<bool> {
    let start = source.fill_buf()?;
    Ok(!start.is_empty() && [0x1f, 0x8b].iter().zip(start).all(|(expected, byte)| expected == byte))
}

/// The first bytes of an answer.
fn start_of(reader: &mut impl Read) -> (Vec<u8>, io::Result<usize>) {
    let mut start = Vec::new();
    let result = reader.by_ref().take(answer::START as u64).read_to_end(&mut start);
    (start, result)
}

/// The end of a message about what a proxy may have caused.
fn through(proxy: Option<&ProxyUrl>) -> String {
    proxy.map(|proxy| format!(" (through the proxy {proxy:?})")).unwrap_or_default()
}

fn is_secure(url: &str) -> bool {
    url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"))
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn content_type(headers: &HeaderMap) -> &str {
    text(headers, &header::CONTENT_TYPE).unwrap_or_default()
}

/// The target of a redirect, if it may be followed for this request.
fn follow(request: &Request<'_>, from: &str, location: &str) -> Result<String, &'static str> {
    if request.pass.is_some() { gate::redirected(from, location) } else { redirected(from, location) }
}

/// The target of a redirect, if it may be followed: to the same scheme, host and port, or from http to https on the same host.
///
/// Otherwise a mirror could make devices send requests into networks that the mirror cannot reach.
fn redirected(from: &str, location: &str) -> Result<String, &'static str> {
    const ELSEWHERE: &str =
        "only redirects to the same scheme, host and port, or to https on the same host, are followed";
    let Redirect { from, to, url } = Redirect::read(from, location)?;
    let follows = |to: &Origin| *to == from || (from.0 == "http" && to.0 == "https" && to.1 == from.1);
    if to.as_ref().is_some_and(follows) { Ok(url) } else { Err(ELSEWHERE) }
}

/// Scheme, host and port.
type Origin = (String, String, u16);

/// Whether the host is this machine.
fn is_here((_, host, _): &Origin) -> bool {
    matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]")
}

/// A redirect, possibly to another server.
struct Redirect {
    from: Origin,
    /// `None` if the device never sends requests to that server.
    to: Option<Origin>,
    /// The target.
    url: String,
}

impl Redirect {
    fn read(from: &str, location: &str) -> Result<Self, &'static str> {
        const MALFORMED: &str = "that is not a URL";
        let base: Uri = from.parse().map_err(|_| MALFORMED)?;
        let origin = origin(&base).ok_or(MALFORMED)?;
        let location = location.split('#').next().unwrap_or_default();
        let url = if location.is_empty() {
            return Err(MALFORMED);
        } else if location.starts_with("//") {
            format!("{}:{location}", origin.0)
        } else if location.starts_with('/') {
            format!("{}://{}:{}{location}", origin.0, origin.1, origin.2)
        } else if location.contains("://") {
            location.to_owned()
        } else {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{}://{}:{}{folder}/{location}", origin.0, origin.1, origin.2)
        };
        let uri: Uri = url.parse().map_err(|_| MALFORMED)?;
        // Credentials in a URL are not part of its origin and are refused.
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        let to = if has_user { None } else { self::origin(&uri) };
        Ok(Self { from: origin, to, url })
    }
}

fn origin(uri: &Uri) -> Option<Origin> {
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let port = uri.port_u16().or(match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    })?;
    Some((scheme, uri.host()?.to_ascii_lowercase(), port))
}

#[cfg(test)]
pub(crate) mod tests;
