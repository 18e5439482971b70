//! What servers answer to a request for a part of a file.
//!
//! | answer | the rest from an offset | a range with an end |
//! |---|---|---|
//! | 206 with the requested bytes | continues | is the range |
//! | 200, or 206 from the first byte on | is the whole file | the server gives no ranges |
//! | 200 with a page, or with another length than the file's | may be the file: its hash decides | is something else than the file |
//! | 206 with other bytes, without `Content-Range`, in several parts, of another length than it says, or of a file of another length | asks for the whole file | the server gives no ranges |
//! | 206 with `text/html` | asks for the whole file | is the range |
//! | 400, 412, 416, 501 | asks for the whole file | the server gives no ranges |
//!
//! A server may also answer a plain request with 206, if that starts at the first byte.

use ureq::http::{Response, header};

use super::{content_type, text};
use crate::fetch::error::FetchError;
use crate::fetch::request::{Kind, Request};

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
    let (first, last, total) = bytes_of(range?)?;
    let is_of_the_file =
        request.kind != Kind::Target || (last < request.limit && total.is_none_or(|total| total == request.limit));
    // A login page of the network must not continue a file.
    let is_page = content_type(response.headers()).to_ascii_lowercase().contains("html");
    let continues_a_file = first > 0 && request.end.is_none();
    let length = last.checked_sub(first)?.checked_add(1)?;
    let is_consistent = response.body().content_length().is_none_or(|declared| declared == length);
    let suits = match request.end {
        Some(end) => first == request.offset && last.checked_add(1) == Some(end),
        None => first == request.offset || first == 0,
    };
    (is_consistent && suits && is_of_the_file && !(is_page && continues_a_file)).then_some(first)
}

/// `FIRST`, `LAST` and `TOTAL` of `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110, 14.4), which may be `*`.
fn bytes_of(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = if total.trim() == "*" { None } else { Some(total.trim().parse().ok()?) };
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, total))
}

/// The request without a range, after an answer that does not suit it.
pub(super) fn plain<'a>(request: &Request<'a>, status: u16) -> Result<Request<'a>, FetchError> {
    if request.end.is_some() {
        return Err(refused(request, status));
    }
    if !is_wanted(request) {
        return Err(FetchError::status(request.url, status, String::new()));
    }
    Ok(Request { offset: 0, ..*request })
}

/// An answer without the requested range.
pub(super) fn refused(request: &Request<'_>, status: u16) -> FetchError {
    request.no_ranges(format!("it answered {status}, not with these bytes"))
}
