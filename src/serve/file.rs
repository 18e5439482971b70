//! From a request to the file that it names, and to the answer.

use std::io::{self, Read, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::{self, Stream};
use futures::{TryFutureExt, TryStreamExt};
use http_serve::{BoxError, Entity};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::publish::Headers;

/// Files up to this size are read into memory and tagged by their content, so that a tag survives a copy of the
/// repository. Larger ones are tagged by length and time, as hashing a disk image would delay its first byte by seconds.
const WHOLE_UP_TO: u64 = 4 << 20;
/// How much of a larger file is read at a time.
const CHUNK: usize = 128 * 1024;
const JSON: &str = "application/json";

/// The body of an answer.
pub(super) type Body = http_serve::Body<Bytes, BoxError>;

/// Answers a request for a file below `root`, a path without symbolic links. Failures become answers, too.
pub(super) async fn respond<B>(root: &Arc<Path>, request: &mut Request<B>) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let Some(key) = key(request.uri().path()) else { return absent() };
    let served = Headers::of(&key);
    // A part of compressed bytes is of no use to anyone, so a request for a range gets the bytes as they are.
    let compressible = served.content_type == JSON && !request.headers().contains_key(header::RANGE);
    let gzip = compressible && http_serve::should_gzip(request.headers());
    let root = Arc::clone(root);
    let found = tokio::task::spawn_blocking(move || File::find(&root, &key, served.content_type, gzip));
    let file = match found.await {
        Ok(Ok(Some(file))) => file,
        Ok(Ok(None)) => return absent(),
        Ok(Err(_)) | Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot read that file\n"),
    };
    if request.headers().get(header::RANGE).is_some_and(|range| !is_single(range, file.length)) {
        request.headers_mut().remove(header::RANGE);
    }
    let mut response = http_serve::serve(file, request);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(served.cache_control));
    if served.content_type == JSON {
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    response
}

/// The key of the object that a percent-encoded path names, as an object store has it.
///
/// Each segment is decoded once and taken literally, so `%2e%2e` is `..` (refused) and `%252e` is the file name `%2e`.
/// Refused: empty segments, names that start with a dot (lock and temporary files have such names), any kind of slash or
/// control character within a segment, and what is not UTF-8.
fn key(path: &str) -> Option<String> {
    let segments = path.strip_prefix('/')?.split('/').map(|segment| {
        let name = percent_decode_str(segment).decode_utf8().ok()?;
        let unsafe_in_names = |c: char| matches!(c, '/' | '\\' | ':') || c.is_control();
        (!name.is_empty() && !name.starts_with('.') && !name.contains(unsafe_in_names)).then(|| name.into_owned())
    });
    Some(segments.collect::<Option<Vec<_>>>()?.join("/"))
}

/// Whether this is one range of a file of that length, and one that `http-serve` reads as RFC 9110 does: it refuses a
/// suffix that is the whole file or more, and fails on an empty suffix and on the largest number. Without the header the
/// whole file is sent, which is always right.
fn is_single(range: &HeaderValue, length: u64) -> bool {
    let range = range.to_str().unwrap_or_default();
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return false;
    };
    match (first, last.parse()) {
        ("", Ok(suffix)) => (1..length).contains(&suffix),
        (_, Ok(last)) => last < u64::MAX,
        (_, Err(_)) => last.is_empty(),
    }
}

/// No such file. Half of what an idle fleet requests is the next root, and this is the answer: as cacheable as the
/// timestamp, for the same time.
fn absent() -> Response<Body> {
    let mut response = text(StatusCode::NOT_FOUND, "no such file\n");
    let cache_control = HeaderValue::from_static(Headers::of("timestamp.json").cache_control);
    response.headers_mut().insert(header::CACHE_CONTROL, cache_control);
    response
}

fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Whether a path without links is below the folder, and no name in it starts with a dot: a link may lead where no request can.
fn is_within(root: &Path, path: &Path) -> bool {
    let hidden = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with('.');
    path.strip_prefix(root).is_ok_and(|below| !below.iter().any(hidden))
}

/// A file as it is served.
struct File {
    length: u64,
    /// The strong entity tag, with its quotes.
    tag: String,
    content_type: &'static str,
    gzip: bool,
    content: Content,
}

enum Content {
    Memory(Bytes),
    Disk(std::fs::File),
}

impl File {
    /// Finds a regular file; nothing if there is none, or if a symbolic link leads out of the folder.
    fn find(root: &Path, key: &str, content_type: &'static str, gzip: bool) -> io::Result<Option<Self>> {
        use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
        let path = match root.join(key).canonicalize() {
            // The kind is checked before opening, because opening a pipe blocks.
            Ok(path) if is_within(root, &path) && path.is_file() => path,
            Ok(_) => return Ok(None),
            Err(error) if matches!(error.kind(), NotFound | NotADirectory | InvalidFilename | InvalidInput) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let file = std::fs::File::open(path)?;
        let metadata = file.metadata()?;
        let length = metadata.len();
        if length > WHOLE_UP_TO {
            let modified = metadata.modified()?.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let tag = format!("\"{length:x}-{:x}\"", modified.as_nanos());
            return Ok(Some(Self { length, tag, content_type, gzip: false, content: Content::Disk(file) }));
        }
        let mut bytes = Vec::new();
        file.take(WHOLE_UP_TO).read_to_end(&mut bytes)?;
        if super::secret::is_key(&bytes) {
            return Ok(None);
        }
        // Half of the hash is enough to distinguish versions of one file, and keeps requests short.
        let hash = Sha256::digest(&bytes).first_chunk().map_or(0, |half| u128::from_be_bytes(*half));
        let mut tag = format!("\"{hash:032x}\"");
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&bytes)?;
            bytes = encoder.finish()?;
            tag = format!("\"{hash:032x}-gzip\"");
        }
        let length = bytes.len() as u64;
        Ok(Some(Self { length, tag, content_type, gzip, content: Content::Memory(bytes.into()) }))
    }
}

impl Entity for File {
    type Error = BoxError;
    type Data = Bytes;

    fn len(&self) -> u64 {
        self.length
    }

    fn get_range(&self, range: Range<u64>) -> Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send + Sync>> {
        let position = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        match &self.content {
            Content::Memory(bytes) => {
                let part = bytes.slice(position(range.start)..position(range.end));
                Box::pin(stream::iter([Ok(part)]))
            }
            Content::Disk(file) => {
                let file = file.try_clone();
                let chunks = async move {
                    let mut file = tokio::fs::File::from_std(file?);
                    file.seek(SeekFrom::Start(range.start)).await?;
                    Ok::<_, io::Error>(ReaderStream::with_capacity(file.take(range.end - range.start), CHUNK))
                };
                Box::pin(chunks.try_flatten_stream().map_err(BoxError::from))
            }
        }
    }

    fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if self.gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }

    fn etag(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.tag).ok()
    }

    fn last_modified(&self) -> Option<SystemTime> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_paths_are_taken_segment_by_segment() {
        for (sent, means) in [
            ("/timestamp.json", "timestamp.json"),
            ("/metadata/1.stable.canary.json", "metadata/1.stable.canary.json"),
            ("/a%20b/c%2Bd", "a b/c+d"),
            ("/%252e%252e/x", "%2e%2e/x"),
            ("/a..b", "a..b"),
            ("/caf%C3%A9", "café"),
        ] {
            assert_eq!(key(sent).as_deref(), Some(means), "{sent}");
        }
    }

    #[test]
    fn hostile_paths_are_refused() {
        for sent in [
            "",
            "*",
            "timestamp.json",
            "/",
            "//",
            "/a/",
            "/a//b",
            "/.",
            "/..",
            "/../x",
            "/a/../b",
            "/a/..",
            "/%2e%2e/x",
            "/%2E%2e/x",
            "/.%2e/x",
            "/..%2fx",
            "/a%2fb",
            "/a%5cb",
            "/a\\b",
            "/..\\x",
            "/%00",
            "/a%00.json",
            "/a%0ab",
            "/%ff",
            "/%c0%ae%c0%ae/x",
            "/.git/config",
            "/.publish.lock",
            "/c:/x",
            "/a%7f",
        ] {
            assert_eq!(key(sent), None, "{sent}");
        }
    }
}
