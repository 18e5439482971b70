//! A mirror that serves a [`Simulator`]'s files to the client's own fetch trait, honestly or not.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest as _, Sha256};
use tidegate_client::fetch::{Body, Fetch, FetchError, Reply, Request};
use tidegate_client::updater::Repository;
use tidegate_tuf::hash::to_hex;

use crate::simulator::Simulator;

/// Clones share the repository and the log.
#[derive(Clone)]
pub struct Mirror(Arc<Mutex<Inner>>);

struct Inner {
    sim: Simulator,
    requests: Vec<(String, usize)>,
    /// Bytes that were read, by file.
    read: BTreeMap<String, usize>,
    tricks: BTreeMap<String, Trick>,
}

/// What a mirror does with a file instead of serving it.
#[derive(Clone, Debug)]
pub enum Trick {
    /// Serves these bytes.
    Bytes(Vec<u8>),
    /// Never stops.
    Endless,
    /// Has it no more.
    Gone,
    /// Breaks off after so many bytes of the file.
    Cut(usize),
    /// Answers 503 and asks to wait.
    Busy(std::time::Duration),
    /// Says that it sends what follows the bytes that are there, and sends the start (0), other bytes (1), or too many (2).
    WrongRange(usize),
    /// Knows no ranges with an end.
    NoRanges,
    /// The same, and every transfer breaks off after so many bytes.
    Drops(usize),
}

impl Mirror {
    pub fn of(sim: Simulator) -> Self {
        Self(Arc::new(Mutex::new(Inner { sim, requests: Vec::new(), read: BTreeMap::new(), tricks: BTreeMap::new() })))
    }

    pub fn repository() -> Repository {
        Repository::at("sim:").unwrap()
    }

    /// Changes the repository.
    pub fn edit(&self, edit: impl FnOnce(&mut Simulator)) {
        edit(&mut self.lock().sim);
    }

    /// The repository as it is now.
    pub fn sim(&self) -> Simulator {
        self.lock().sim.clone()
    }

    /// Replaces the repository.
    pub fn serve(&self, sim: Simulator) {
        self.lock().sim = sim;
    }

    /// Plays a trick with a file, such as `metadata/timestamp.json`.
    pub fn trick(&self, file: &str, trick: Trick) {
        self.lock().tricks.insert(file.into(), trick);
    }

    pub fn behave(&self) {
        self.lock().tricks.clear();
    }

    /// The files asked for since the last call, in order.
    pub fn take_requests(&self) -> Vec<String> {
        self.take_transfers().into_iter().map(|(file, _)| file).collect()
    }

    /// The same, with the bytes of each answer.
    pub fn take_transfers(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut self.lock().requests)
    }

    /// The bytes that were read since the last call, by file.
    pub fn take_read(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.lock().read)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Fetch for Mirror {
    fn fetch(&self, request: &Request<'_>) -> Result<Reply, FetchError> {
        let mut inner = self.lock();
        let file = request.url.strip_prefix("sim:/").unwrap().to_owned();
        let trick = inner.tricks.get(&file).cloned();
        let served = match &trick {
            Some(Trick::Bytes(bytes)) => Some(bytes.clone()),
            Some(Trick::Gone) => None,
            _ => inner.sim.files.get(&file).cloned(),
        };
        if let Some(Trick::Busy(pause)) = trick {
            let (url, came) = (request.url.to_owned(), String::new());
            return Err(FetchError::Status { url, status: 503, came, retry_after: Some(pause) });
        }
        let etag = served.as_ref().map(|bytes| to_hex(&Sha256::digest(bytes)));
        let unchanged = etag.is_some() && request.etag == etag.as_deref();
        let offset = served.as_ref().map_or(0, |bytes| usize::try_from(request.offset).unwrap().min(bytes.len()));
        let length = served.as_ref().map_or(0, Vec::len);
        let end = request.end.map_or(length, |end| usize::try_from(end).unwrap());
        let has_range = end <= length && !matches!(trick, Some(Trick::NoRanges | Trick::Drops(_)));
        if request.end.is_some() && served.is_some() && !has_range {
            inner.requests.push((file, 0));
            return Err(FetchError::NoRanges { url: request.url.to_owned(), reason: "it has other bytes".into() });
        }
        let served = served.map(|bytes| bytes[..end].to_vec());
        let count = if unchanged {
            0
        } else {
            served.as_ref().map_or(0, |bytes| bytes.len() - request.end.map_or(0, |_| offset))
        };
        inner.requests.push((file.clone(), count));
        let reader: Box<dyn io::Read + Send> = match (trick, served) {
            (Some(Trick::Endless), _) => Box::new(io::repeat(b'x')),
            (_, None) => return Ok(Reply::NotFound(String::new())),
            (Some(Trick::Cut(length)), Some(bytes)) if request.end.is_none() || length < bytes.len() => {
                let end = length.clamp(offset, bytes.len());
                Box::new(io::Read::chain(Cursor::new(bytes[offset..end].to_vec()), Broken))
            }
            (Some(Trick::Drops(length)), Some(bytes)) if bytes.len() - offset > length => {
                Box::new(io::Read::chain(Cursor::new(bytes[offset..offset + length].to_vec()), Broken))
            }
            (_, Some(_)) if unchanged => return Ok(Reply::Unchanged),
            (Some(Trick::WrongRange(kind)), Some(bytes)) => Box::new(Cursor::new(match kind {
                0 => bytes[..bytes.len() - offset].to_vec(),
                1 => vec![b'?'; bytes.len() - offset],
                _ => [&bytes[offset..], b"and more"].concat(),
            })),
            (_, Some(bytes)) => Box::new(Cursor::new(bytes[offset..].to_vec())),
        };
        let reader = Box::new(Counted { reader, mirror: self.clone(), file });
        Ok(Reply::Found(Body::new(reader, request, offset as u64).with_etag(etag)))
    }
}

/// A folder for state, in memory where that can be had: these tests sync tens of thousands of times.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

struct Counted {
    reader: Box<dyn io::Read + Send>,
    mirror: Mirror,
    file: String,
}

impl io::Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        *self.mirror.lock().read.entry(self.file.clone()).or_default() += count;
        Ok(count)
    }
}

struct Broken;

impl io::Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}
