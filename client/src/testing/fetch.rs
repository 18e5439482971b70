//! What every fetcher does.

use super::{Violation, expect, works};
use crate::fetch::{Fetch, FetchError, Reply, Request};

/// Where files are put to be fetched.
pub trait TestFiles {
    /// Makes a file available under a new URL, or gives the URL of one that is not there. Names are ASCII letters.
    fn put(&self, name: &str, content: Option<&[u8]>) -> String;
}

/// Checks a fetcher with files that `place` makes available.
///
/// # Errors
///
/// The first [`Violation`].
pub fn check_fetch(fetch: &dyn Fetch, place: &dyn TestFiles) -> Result<(), Violation> {
    let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let url = place.put("file", Some(&content));
    let length = content.len() as u64;
    let asks = [Request::metadata(&url, length), Request::target(&url, length), Request::metadata(&url, u64::MAX)];
    for ask in asks {
        same("a file is fetched whole", &got(fetch, &ask)?, 0, &content)?;
    }
    for limit in [length - 1, 1] {
        let got = bytes(fetch, &Request::metadata(&url, limit));
        let is_refused = matches!(got, Err(FetchError::TooLong { .. }));
        expect("a file that is longer than the limit is TooLong", is_refused, || said(&got))?;
    }
    empty_and_missing(fetch, place)?;
    for offset in [1, 5000, length - 1] {
        let (at, part) = got(fetch, &Request::target(&url, length).after(offset))?;
        expect("a reply starts at the offset or at 0", at == 0 || at == offset, || {
            format!("{at} instead of {offset}")
        })?;
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        same(
            "what is fetched after an offset ends where the file ends",
            &(at, part),
            at,
            content.get(start..).unwrap_or_default(),
        )?;
    }
    for (offset, end) in [(0, 1), (10, 5000), (length - 10, length)] {
        range(fetch, &Request::target(&url, length).after(offset).before(end), &content)?;
    }
    tags(fetch, &url, &content)
}

fn empty_and_missing(fetch: &dyn Fetch, place: &dyn TestFiles) -> Result<(), Violation> {
    let empty = place.put("empty", Some(b""));
    same("an empty file is a file", &got(fetch, &Request::metadata(&empty, 10))?, 0, b"")?;
    let missing = place.put("missing", None);
    for ask in [Request::metadata(&missing, 10), Request::target(&missing, 10), Request::target(&missing, 10).after(5)]
    {
        // The search for the next root ends at a file that is not there (TUF 5.3.3). An error would end the update.
        let reply = works("a missing file is Reply::NotFound, not an error", fetch.fetch(&ask))?;
        let is_missing = matches!(reply, Reply::NotFound(_));
        expect("a missing file is Reply::NotFound", is_missing, || format!("{reply:?}"))?;
    }
    Ok(())
}

/// A range is exact, or it is `NoRanges`, so that the caller asks for the whole.
fn range(fetch: &dyn Fetch, ask: &Request<'_>, content: &[u8]) -> Result<(), Violation> {
    let (offset, end) = (ask.offset, ask.end.unwrap_or(ask.limit));
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    match bytes(fetch, ask) {
        Err(FetchError::NoRanges { .. }) => Ok(()),
        Err(e) => Err(Violation { rule: "a fetcher without ranges says NoRanges", found: e.to_string() }),
        Ok(part) => {
            let wanted = content.get(place(offset)..place(end)).unwrap_or_default();
            same("a range has exactly its bytes", &part, offset, wanted)
        }
    }
}

fn tags(fetch: &dyn Fetch, url: &str, content: &[u8]) -> Result<(), Violation> {
    let ask = Request::metadata(url, content.len() as u64);
    let other = works("a file is fetched although its tag is another", bytes(fetch, &ask.unless(Some("\"another\""))))?;
    same("a file is fetched although its tag is another", &other, 0, content)?;
    let Reply::Found(body) = works("a file is fetched", fetch.fetch(&ask))? else {
        return Err(Violation { rule: "a file is fetched", found: "no file".into() });
    };
    let Some(tag) = body.etag().map(str::to_owned) else { return Ok(()) };
    drop(body);
    match works("a file that still has its tag is no error", fetch.fetch(&ask.unless(Some(&tag))))? {
        Reply::Unchanged => Ok(()),
        Reply::Found(body) => {
            let bytes = works("a file that still has its tag is no error", body.into_bytes())?;
            same("a file that still has its tag is Unchanged, or whole", &(0, bytes), 0, content)
        }
        Reply::NotFound(_) => {
            Err(Violation { rule: "a file that still has its tag is there", found: "NotFound".into() })
        }
    }
}

/// Where the reply starts, and its bytes.
fn bytes(fetch: &dyn Fetch, ask: &Request<'_>) -> Result<(u64, Vec<u8>), FetchError> {
    match fetch.fetch(ask)? {
        Reply::Found(body) => Ok((body.offset(), body.into_bytes()?)),
        reply => Err(FetchError::Protocol { url: ask.url.to_owned(), reason: format!("{reply:?}") }),
    }
}

fn got(fetch: &dyn Fetch, ask: &Request<'_>) -> Result<(u64, Vec<u8>), Violation> {
    works("a file that is there is fetched", bytes(fetch, ask))
}

fn said(result: &Result<(u64, Vec<u8>), FetchError>) -> String {
    match result {
        Ok((_, bytes)) => format!("{} bytes", bytes.len()),
        Err(e) => e.to_string(),
    }
}

fn same(rule: &'static str, got: &(u64, Vec<u8>), offset: u64, wanted: &[u8]) -> Result<(), Violation> {
    let found = || format!("{} bytes from {}, which are not the {} wanted ones", got.1.len(), got.0, wanted.len());
    expect(rule, got.0 == offset && got.1 == wanted, found)
}
