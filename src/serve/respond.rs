//! One request, one answer.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, StreamExt};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Asked;
use super::conditional::{Condition, Part, condition, part, takes_gzip};
use super::file::{Folder, Found};
use super::path::SafePath;
use crate::publish::Headers;

/// How much of a file is read at a time.
const CHUNK: usize = 128 * 1024;
/// Metadata larger than this is sent as it is: compressing it would hold all of it in memory.
const GZIP_UP_TO: u64 = 8 << 20;

/// A body before it is counted.
type Plain = UnsyncBoxBody<Bytes, io::Error>;

/// Answers a request; faults become answers, too.
pub(super) async fn respond<B>(folder: &Folder, request: &Request<B>, asked: Asked) -> Response<Counted> {
    let response = match answer(folder, request).await {
        Ok(response) => response,
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot read that file\n"),
    };
    asked.shared.traffic.requests.fetch_add(1, Ordering::SeqCst);
    let (method, path, status) = (request.method().clone(), request.uri().path().to_owned(), response.status());
    response.map(|inner| Counted { inner, method, path, status, bytes: 0, asked })
}

async fn answer<B>(folder: &Folder, request: &Request<B>) -> io::Result<Response<Plain>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let Some(path) = SafePath::parse(request.uri().path()) else {
        return Ok(plain(StatusCode::NOT_FOUND, "no such file\n"));
    };
    let key = path.key();
    let Some(found) = folder.find(&path).await? else {
        // Half of what an idle fleet asks is for the next root, and the answer is this one: as cacheable as the
        // timestamp, for the same time.
        let mut response = plain(StatusCode::NOT_FOUND, "no such file\n");
        let headers = Headers::of("timestamp.json");
        response.headers_mut().insert(header::CACHE_CONTROL, value(headers.cache_control));
        return Ok(response);
    };
    let head = request.method() == Method::HEAD;
    file(request.headers(), head, found, Headers::of(&key)).await
}

/// The answer that sends a file, or the part of it that is asked for.
async fn file(asked: &HeaderMap, head: bool, found: Found, kind: Headers) -> io::Result<Response<Plain>> {
    let compressible = kind.content_type == "application/json" && found.len <= GZIP_UP_TO;
    // A part of compressed bytes is of no use to anyone, so whoever asks for a range gets the bytes as they are.
    let gzip = compressible && takes_gzip(asked) && !asked.contains_key(header::RANGE);
    let tag = if gzip { format!("{}-gzip\"", found.tag.trim_end_matches('"')) } else { found.tag.clone() };

    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert(header::ETAG, owned(&tag)?);
    headers.insert(header::CACHE_CONTROL, value(kind.cache_control));
    if compressible {
        headers.insert(header::VARY, value("accept-encoding"));
    }
    match condition(asked, &tag) {
        Condition::Proceed => {}
        Condition::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Condition::Failed => return Ok(plain(StatusCode::PRECONDITION_FAILED, "the file is another one now\n")),
    }
    headers.insert(header::CONTENT_TYPE, value(kind.content_type));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
    headers.insert(header::ACCEPT_RANGES, value("bytes"));
    if gzip {
        let body = compress(found).await?;
        headers.insert(header::CONTENT_ENCODING, value("gzip"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = if head { empty() } else { full(body) };
        return Ok(response);
    }
    let range = match part(asked, &tag, found.len) {
        Part::Whole => 0..found.len,
        Part::Bytes(range) => {
            headers.insert(
                header::CONTENT_RANGE,
                owned(&format!("bytes {}-{}/{}", range.start, range.end - 1, found.len))?,
            );
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            range
        }
        Part::Unsatisfiable => {
            let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, "the file is not that long\n");
            response.headers_mut().insert(header::CONTENT_RANGE, owned(&format!("bytes */{}", found.len))?);
            return Ok(response);
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    if !head {
        *response.body_mut() = streamed(found.file, range.start, range.end - range.start).await?;
    }
    Ok(response)
}

/// `len` bytes of a file from `start`. A file that ends early ends the connection, so the client cannot mistake it.
async fn streamed(file: std::fs::File, start: u64, len: u64) -> io::Result<Plain> {
    let mut file = tokio::fs::File::from_std(file);
    if start > 0 {
        file.seek(io::SeekFrom::Start(start)).await?;
    }
    let chunks = stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = BytesMut::with_capacity(want);
        let read = (&mut file).take(want as u64).read_buf(&mut chunk).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        Ok(Some((chunk.freeze(), (file, left.saturating_sub(read as u64)))))
    });
    Ok(StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync())
}

/// The whole file, gzipped.
async fn compress(found: Found) -> io::Result<Bytes> {
    let compressed = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        found.file.take(found.len).read_to_end(&mut bytes)?;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&bytes)?;
        encoder.finish()
    });
    Ok(compressed.await.map_err(io::Error::other)??.into())
}

/// A short text that says what is wrong.
fn plain(status: StatusCode, text: &'static str) -> Response<Plain> {
    let mut response = Response::new(full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, value("text/plain; charset=utf-8"));
    response
}

fn full(bytes: Bytes) -> Plain {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> Plain {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn value(text: &'static str) -> HeaderValue {
    HeaderValue::from_static(text)
}

fn owned(text: &str) -> io::Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(io::Error::other)
}

/// A body that counts what passes and reports when it is done with, however it ends.
pub(super) struct Counted {
    inner: Plain,
    method: Method,
    path: String,
    status: StatusCode,
    bytes: u64,
    asked: Asked,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = std::task::ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
            self.bytes += sent;
            // At once rather than at the end: whoever has received the last byte then finds it counted.
            self.asked.shared.traffic.bytes.fetch_add(sent, Ordering::SeqCst);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.asked.ended(&self.method, &self.path, self.status, self.bytes);
    }
}
