//! Repositories in a folder: `file:` URLs.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::error::FetchError;
use super::request::{Body, Fetch, Reply, Request};

/// Fetches `file:` URLs.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileFetch;

impl FileFetch {
    /// A fetcher of files.
    pub fn new() -> Self {
        Self
    }
}

impl Fetch for FileFetch {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let path = path_of(request.url)?;
        let failed = |e: io::Error| FetchError::Unreachable { url: request.url.to_owned(), reason: e.to_string() };
        let is_file = match fs::metadata(&path) {
            Ok(metadata) => metadata.is_file(),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => false,
            Err(e) => return Err(failed(e)),
        };
        // Only regular files: opening a pipe would block until its other end is open.
        if !is_file {
            return Ok(Reply::NotFound);
        }
        let mut file = File::open(&path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length > request.limit {
            return Err(FetchError::TooLong { url: request.url.to_owned(), limit: request.limit });
        }
        if request.end.is_some_and(|end| end > length) {
            return Err(request.no_ranges(format!("the file has {length} bytes")));
        }
        let offset = if request.offset <= length { request.offset } else { 0 };
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let rest = file.take(request.end.unwrap_or(u64::MAX).saturating_sub(offset));
        Ok(Reply::Found(Body::new(Box::new(rest), request, offset)))
    }
}

/// The `file:` URL of an absolute path.
///
/// # Errors
///
/// [`FetchError`] if the path is not absolute or not UTF-8.
pub fn url_of(path: &std::path::Path) -> Result<String, FetchError> {
    let bad = |reason| FetchError::BadUrl { url: path.display().to_string(), reason };
    if !path.is_absolute() {
        return Err(bad("the path must be absolute"));
    }
    let text = path.to_str().ok_or_else(|| bad("the path must be UTF-8"))?;
    let segments: Vec<String> = text.split(std::path::MAIN_SEPARATOR).map(tidegate_tuf::path::percent_encode).collect();
    Ok(format!("file://{}", segments.join("/")))
}

/// The path of a `file:` URL (RFC 8089): no host but `localhost`, no segment that leaves its folder.
fn path_of(url: &str) -> Result<PathBuf, FetchError> {
    let bad = |reason| FetchError::BadUrl { url: url.to_owned(), reason };
    let rest = url.get(..7).filter(|start| start.eq_ignore_ascii_case("file://")).and_then(|_| url.get(7..));
    let path = rest.ok_or_else(|| bad("it must start with file:///"))?;
    let path = path.strip_prefix("localhost").unwrap_or(path);
    let path = path.strip_prefix('/').ok_or_else(|| bad("it must name an absolute path on this machine"))?;
    let mut result = PathBuf::from("/");
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let segment = percent_decode(segment).ok_or_else(|| bad("its percent-encoding is broken"))?;
        if matches!(segment.as_str(), "." | "..") || segment.contains(['/', '\\', '\0']) {
            return Err(bad("a segment of its path leaves its folder"));
        }
        result.push(segment);
    }
    Ok(result)
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_are_inverse() {
        for path in ["/a/b", "/a b/%/c?#", "/\u{e9}"] {
            let url = url_of(path.as_ref()).unwrap();
            assert_eq!(path_of(&url).unwrap(), PathBuf::from(path), "{url}");
        }
        assert_eq!(path_of("FILE://localhost/a//b/").unwrap(), PathBuf::from("/a/b"));
        assert!(url_of("a/b".as_ref()).is_err());
    }

    #[test]
    fn urls_that_leave_their_folder_are_refused() {
        for url in [
            "file://host/a",
            "file:a",
            "file:///a/../b",
            "file:///a/%2e%2e/b",
            "file:///a%2fb",
            "file:///%",
            "file:///%g0",
            "file:///%00",
        ] {
            assert!(matches!(path_of(url), Err(FetchError::BadUrl { .. })), "{url}");
        }
    }

    #[test]
    fn a_file_is_read_whole_or_from_an_offset() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"0123456789").unwrap();
        let url = url_of(&folder.path().join("file")).unwrap();
        let fetch = |request: Request<'_>| match FileFetch::new().fetch(&request) {
            Ok(Reply::Found(body)) => Some((body.offset(), body.into_bytes().unwrap())),
            Ok(_) => None,
            Err(e) => panic!("{e}"),
        };
        assert_eq!(fetch(Request::target(&url, 10)), Some((0, b"0123456789".to_vec())));
        assert_eq!(fetch(Request::target(&url, 10).after(7)), Some((7, b"789".to_vec())));
        assert_eq!(fetch(Request::target(&url, 10).after(11)), Some((0, b"0123456789".to_vec())));
        assert_eq!(fetch(Request::target(&url, 10).after(2).before(5)), Some((2, b"234".to_vec())));
        let beyond = FileFetch::new().fetch(&Request::target(&url, 20).before(11));
        assert!(matches!(beyond, Err(FetchError::NoRanges { .. })));
        assert_eq!(fetch(Request::target(&format!("{url}x"), 10)), None);
        assert_eq!(fetch(Request::target(&format!("{url}/x"), 10)), None);
        assert_eq!(fetch(Request::target(&url_of(folder.path()).unwrap(), 10)), None);
        let error = FileFetch::new().fetch(&Request::target(&url, 9)).unwrap_err();
        assert!(matches!(error, FetchError::TooLong { limit: 9, .. }));
    }
}
