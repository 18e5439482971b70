//! What servers answer to a request for a part of a file.
//!
//! | answer | the rest from an offset | a range with an end |
//! |---|---|---|
//! | 206 with the requested bytes | continues | is the range |
//! | 200, or 206 from the first byte on | is the whole file | the server gives no ranges |
//! | 206 with other bytes, without `Content-Range`, in several parts, or of another length than it says | asks for the whole file | the server gives no ranges |
//! | 400, 412, 416, 501 | asks for the whole file | the server gives no ranges |
//!
//! A server may also answer a plain request with 206, if that starts at the first byte.

use ureq::http::{Response, header};

use super::text;
use crate::fetch::error::FetchError;
use crate::fetch::request::Request;

/// Whether only a part of the file is wanted.
pub(super) fn is_wanted(request: &Request<'_>) -> bool {
    request.offset > 0 || request.end.is_some()
}

/// Where in the file the body of a 206 starts, if that suits the request.
pub(super) fn start(response: &Response<ureq::Body>, request: &Request<'_>) -> Option<u64> {
    let range = text(response.headers(), &header::CONTENT_RANGE);
    if range.is_none() && !is_wanted(request) {
        return Some(0);
    }
    let (first, last) = first_and_last(range?)?;
    let length = last.checked_sub(first)?.checked_add(1)?;
    let is_consistent = response.body().content_length().is_none_or(|declared| declared == length);
    let suits = match request.end {
        Some(end) => first == request.offset && last.checked_add(1) == Some(end),
        None => first == request.offset || first == 0,
    };
    (is_consistent && suits).then_some(first)
}

/// `FIRST` and `LAST` of `Content-Range: bytes FIRST-LAST/LENGTH` (RFC 9110, 14.4).
fn first_and_last(value: &str) -> Option<(u64, u64)> {
    let (first, last) = value.strip_prefix("bytes ")?.split_once('/')?.0.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

/// The request without a range, after an answer that does not suit it.
pub(super) fn plain<'a>(request: &Request<'a>, status: u16) -> Result<Request<'a>, FetchError> {
    if request.end.is_some() {
        return Err(request.no_ranges(format!("it answered {status}, not with these bytes")));
    }
    if !is_wanted(request) {
        return Err(FetchError::status(request.url, status, String::new()));
    }
    Ok(Request { offset: 0, ..*request })
}
