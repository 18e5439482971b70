//! Giving an object: by a presigned URL, or through the gate.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use object_store::{GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _};

use crate::refusal::Refusal;
use crate::storage::Place;

/// A redirect to where the store itself gives the object, for a few seconds.
pub async fn redirect(
    place: &Place,
    key: &str,
    method: &Method,
    life: Duration,
) -> Result<Option<Response<Body>>, Refusal> {
    let Some(signer) = &place.signer else { return Ok(None) };
    let url = signer.signed_url(method.clone(), &place.key(key), life).await.map_err(|error| place.failed(&error))?;
    let location = HeaderValue::from_str(url.as_str())
        .map_err(|_| Refusal::unavailable("G-SRV-02", "the store's URL cannot be written"))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Some(response))
}

/// The object, or the part of it that is asked for.
pub async fn stream(place: &Place, key: &str, method: &Method, headers: &HeaderMap) -> Result<Response<Body>, Refusal> {
    let key = place.key(key);
    let meta = match place.store.head(&key).await {
        Ok(meta) => meta,
        Err(object_store::Error::NotFound { .. }) => {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "G-PATH-02", "there is no such object"));
        }
        Err(error) => return Err(place.failed(&error)),
    };
    // By name: versions and hashes are in it, so the bytes never change.
    let etag = format!(
        "\"{}\"",
        crate::encoding::to_hex(&crate::encoding::sha256(&[key.as_ref().as_bytes(), &meta.size.to_be_bytes()]))
    );
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let same = |list: &str| {
        list.split(',').any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == etag)
    };
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(header::ETAG, value(&etag)?);
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if text(header::IF_NONE_MATCH).is_some_and(same) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    let wants_part = text(header::IF_RANGE).is_none_or(|given| given == etag) && *method == Method::GET;
    let part = text(header::RANGE).filter(|_| wants_part).and_then(|range| Part::parse(range, meta.size));
    let (from, to) = match part {
        Some(Part::Of(from, to)) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = value(&format!("bytes {from}-{}/{}", to.saturating_sub(1), meta.size))?;
            response.headers_mut().insert(header::CONTENT_RANGE, range);
            (from, to)
        }
        Some(Part::Beyond) => {
            let mut response =
                Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, "G-PATH-03", "the object ends before that range")
                    .response();
            response.headers_mut().insert(header::CONTENT_RANGE, value(&format!("bytes */{}", meta.size))?);
            return Ok(response);
        }
        None => (0, meta.size),
    };
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(to - from));
    if *method == Method::HEAD || from == to {
        return Ok(response);
    }
    let options = GetOptions { range: Some(GetRange::Bounded(from..to)), ..GetOptions::default() };
    let found = place.store.get_opts(&key, options).await.map_err(|error| place.failed(&error))?;
    *response.body_mut() = Body::from_stream(found.into_stream());
    Ok(response)
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|_| Refusal::unavailable("G-SRV-02", "a header cannot be written"))
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    /// From, and to but not with.
    Of(u64, u64),
    /// Nothing of the object is in it.
    Beyond,
}

impl Part {
    /// One range (RFC 9110 section 14.2). `None` for what is none, or several, which may be ignored.
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
        Some(if from < to { Self::Of(from, to) } else { Self::Beyond })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        for (header, expected) in [
            ("bytes=0-3", Some(Part::Of(0, 4))),
            ("bytes=2-", Some(Part::Of(2, 10))),
            ("bytes=-3", Some(Part::Of(7, 10))),
            ("bytes=-30", Some(Part::Of(0, 10))),
            ("bytes=9-99", Some(Part::Of(9, 10))),
            ("bytes=0-18446744073709551615", Some(Part::Of(0, 10))),
            ("bytes=10-", Some(Part::Beyond)),
            ("bytes=-0", Some(Part::Beyond)),
            ("bytes=3-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=+1-2", None),
            ("bytes=18446744073709551616-", None),
            ("items=0-1", None),
        ] {
            assert_eq!(Part::parse(header, 10), expected, "{header}");
        }
    }
}
