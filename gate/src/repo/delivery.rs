//! Delivery of an object: by a redirect to a presigned URL, or as a stream through the gate.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::encoding::{sha256, to_hex};
use crate::refusal::Refusal;
use crate::storage::Storage;

/// A redirect to a presigned URL, if the storage supports presigned URLs.
///
/// # Errors
///
/// Refuses if the storage cannot sign a URL.
pub async fn redirect(
    storage: &Storage,
    name: &str,
    method: &Method,
    lifetime: Duration,
) -> Result<Option<Response<Body>>, Refusal> {
    let Some(url) = storage.presign(method, name, lifetime).await? else { return Ok(None) };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, header_value(url.as_str())?);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Some(response))
}

/// The object, or the requested range of it.
///
/// # Errors
///
/// Refuses if the object does not exist or the storage does not answer.
pub async fn stream(
    storage: &Storage,
    name: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response<Body>, Refusal> {
    let meta = storage.head(name).await?;
    let size = meta.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, "G-PATH-02", "there is no such object"))?.size;
    // The name contains a version or a hash, so the bytes of a name never change.
    let path = storage.object_path(name);
    let etag = format!("\"{}\"", to_hex(&sha256(&[path.as_ref().as_bytes(), &size.to_be_bytes()])));
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let matches_etag = |list: &str| {
        list.split(',').any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == etag)
    };
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(header::ETAG, header_value(&etag)?);
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if text(header::IF_NONE_MATCH).is_some_and(matches_etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let allows_range = text(header::IF_RANGE).is_none_or(|given| given == etag) && *method == Method::GET;
    let range = text(header::RANGE).filter(|_| allows_range).and_then(|range| ByteRange::parse(range, size));
    let (from, to) = match range {
        Some(ByteRange::Within(from, to)) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = header_value(&format!("bytes {from}-{}/{size}", to.saturating_sub(1)))?;
            response.headers_mut().insert(header::CONTENT_RANGE, range);
            (from, to)
        }
        Some(ByteRange::Beyond) => {
            let refusal = Refusal::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "G-PATH-03",
                "the range begins after the end of the object",
            );
            let mut response = refusal.response();
            response.headers_mut().insert(header::CONTENT_RANGE, header_value(&format!("bytes */{size}"))?);
            return Ok(response);
        }
        None => (0, size),
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    if *method != Method::HEAD && from != to {
        *response.body_mut() = Body::from_stream(storage.get_range(name, from..to).await?);
    }
    Ok(response)
}

fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text)
        .map_err(|_| Refusal::unavailable("G-SRV-02", "a value of the storage does not fit into a header"))
}

#[derive(Debug, PartialEq, Eq)]
enum ByteRange {
    /// The first byte, and the byte after the last one.
    Within(u64, u64),
    /// The range contains no byte of the object.
    Beyond,
}

impl ByteRange {
    /// Parses a single range (RFC 9110 section 14.2). `None` for malformed and multiple ranges, which a server may ignore.
    fn parse(header: &str, size: u64) -> Option<Self> {
        let (first, last) = header.strip_prefix("bytes=")?.split_once('-')?;
        let number = |text: &str| text.bytes().all(|c| c.is_ascii_digit()).then(|| text.parse::<u64>().ok())?;
        let (from, to) = match (first, last) {
            ("", last) => (size.saturating_sub(number(last)?), size),
            (first, "") => (number(first)?, size),
            (first, last) => (number(first)?, number(last)?.saturating_add(1).min(size)),
        };
        if !first.is_empty() && !last.is_empty() && number(first)? > number(last)? {
            return None;
        }
        Some(if from < to { Self::Within(from, to) } else { Self::Beyond })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_ranges_like_rfc_9110() {
        for (header, expected) in [
            ("bytes=0-3", Some(ByteRange::Within(0, 4))),
            ("bytes=2-", Some(ByteRange::Within(2, 10))),
            ("bytes=-3", Some(ByteRange::Within(7, 10))),
            ("bytes=-30", Some(ByteRange::Within(0, 10))),
            ("bytes=9-99", Some(ByteRange::Within(9, 10))),
            ("bytes=0-18446744073709551615", Some(ByteRange::Within(0, 10))),
            ("bytes=10-", Some(ByteRange::Beyond)),
            ("bytes=-0", Some(ByteRange::Beyond)),
            ("bytes=3-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=18446744073709551616-", None),
            ("items=0-1", None),
        ] {
            assert_eq!(ByteRange::parse(header, 10), expected, "{header}");
        }
    }
}
