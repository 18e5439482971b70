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
        let failed = |e: io::Error| FetchError::Unreachable { url: request.url.to_owned(), reason: e.to_string() };
        // Only regular files: opening a pipe would block until its other end is open.
        let is_file = |path: &PathBuf| match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.is_file()),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(failed(e)),
        };
        let mut path = path_of(request.url, true)?;
        if !is_file(&path)? {
            // tough names a role's file as it is in the URL.
            path = path_of(request.url, false)?;
            if !is_file(&path)? {
                return Ok(Reply::NotFound(String::new()));
            }
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

/// The path of a `file:` URL (RFC 8089): no host but `localhost`, no segment that leaves its folder. The last one is taken as
/// it is unless it `decodes` to a file's name.
fn path_of(url: &str, decodes: bool) -> Result<PathBuf, FetchError> {
    let bad = |reason| FetchError::BadUrl { url: url.to_owned(), reason };
    let rest = url.get(..7).filter(|start| start.eq_ignore_ascii_case("file://")).and_then(|_| url.get(7..));
    let path = rest.ok_or_else(|| bad("it must start with file:///"))?;
    let path = path.strip_prefix("localhost").unwrap_or(path);
    let path = path.strip_prefix('/').ok_or_else(|| bad("it must name an absolute path on this machine"))?;
    let mut result = PathBuf::from("/");
    let is_name = |name: &str| !matches!(name, "." | "..") && !name.contains(['/', '\\', '\0']);
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
    while let Some(raw) = segments.next() {
        let name = percent_decode(raw).ok_or_else(|| bad("its percent-encoding is broken"))?;
        let stays = segments.peek().is_none() && (!decodes || !is_name(&name));
        let segment = if stays { raw } else { &name };
        if !is_name(segment) {
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
            assert_eq!(path_of(&url, true).unwrap(), PathBuf::from(path), "{url}");
        }
        assert_eq!(path_of("FILE://localhost/a//b/", true).unwrap(), PathBuf::from("/a/b"));
        assert!(url_of("a/b".as_ref()).is_err());
    }

    #[test]
    fn urls_that_leave_their_folder_are_refused() {
        for url in [
            "file://host/a",
            "file:a",
            "file:///a/../b",
            "file:///a/..",
            "file:///a/%2e%2e/b",
            "file:///a%2fb/c",
            "file:///a\\b",
            "file:///%00/c",
            "file:///%",
            "file:///%g0",
        ] {
            for decodes in [true, false] {
                assert!(matches!(path_of(url, decodes), Err(FetchError::BadUrl { .. })), "{url}");
            }
        }
    }

    #[test]
    fn a_role_is_found_under_the_encoded_name_that_tough_gives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let top = url_of(folder.path()).unwrap();
        let read = |name: &str| match FileFetch::new().fetch(&Request::target(&format!("{top}/{name}"), 99)) {
            Ok(Reply::Found(body)) => Some(String::from_utf8(body.into_bytes().unwrap()).unwrap()),
            Ok(_) => None,
            Err(e) => panic!("{e}"),
        };
        let names = ["..%2F..%2Fpath.json", "%F0%9F%8D%BA%2F30.json", "a%20b.json"];
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        assert_eq!(names.map(&read), names.map(|name| Some(name.to_owned())));
        assert_eq!(read("..%2F30.json"), None);
        fs::write(folder.path().join("a b.json"), "decoded").unwrap();
        assert_eq!(read("a%20b.json").as_deref(), Some("decoded"), "before the other");
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
