//! Sending what is large: read once, in parts, several at a time, from where the last try ended.
//!
//! The whole file is hashed while it is read, and the object is made only if that is the hash in its name. Each part carries a
//! checksum of its own, which the store verifies. Which parts have arrived is remembered in the workspace with the hash of all
//! bytes up to their end, so that a part is used again only if it came from the same bytes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use object_store::multipart::{MultipartStore, PartId};
use object_store::{Error as StoreError, MultipartUpload, PutMultipartOptions};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidegate_tuf::hash::to_hex;
use tracing::debug;

use super::buffers::Buffers;
use super::remote::{Remote, WriteOutcome};
use crate::error::{Error, Result};
use crate::fs;

/// Parts that large files are sent in; S3 takes none smaller than 5 MiB (but the last).
pub(super) const PART: u64 = 8 << 20;
/// Buffers of that size in use at once, over all uploads: with them the program stays below 64 MiB.
pub(super) const BUFFERS: usize = 4;
/// S3 takes so many parts.
const MOST_PARTS: u64 = 10_000;
/// How often the arrival of parts is written down.
const NOTE: Duration = Duration::from_secs(1);

/// Bytes to be sent, read once from front to back.
pub(in crate::publish) struct Supply {
    name: String,
    from: From,
}

enum From {
    File(PathBuf),
    Stream(BoxStream<'static, Result<Bytes>>),
}

impl Supply {
    /// A file.
    pub(in crate::publish) fn file(path: &Path) -> Self {
        Self { name: path.display().to_string(), from: From::File(path.to_owned()) }
    }

    /// What another store sends; `name` says what and from where.
    pub(in crate::publish) fn stream(name: String, stream: BoxStream<'static, Result<Bytes>>) -> Self {
        Self { name, from: From::Stream(stream) }
    }

    fn open(self, buffers: Buffers) -> Result<Reader> {
        let source = match self.from {
            From::File(path) => {
                let file = std::fs::File::open(&path).map_err(|error| Error::io("read", &path, error))?;
                Input::File(file, path)
            }
            From::Stream(stream) => Input::Stream(stream, Bytes::new()),
        };
        Ok(Reader { name: self.name, source: Some(source), hash: Sha256::new(), read: 0, buffers })
    }
}

/// Reads and hashes.
struct Reader {
    name: String,
    source: Option<Input>,
    hash: Sha256,
    read: u64,
    buffers: Buffers,
}

enum Input {
    File(std::fs::File, PathBuf),
    Stream(BoxStream<'static, Result<Bytes>>, Bytes),
}

impl Reader {
    /// The next `size` bytes, fewer only at the end, none past it; and the SHA-256 of all bytes so far.
    async fn next(&mut self, size: u64) -> Result<(Bytes, [u8; 32])> {
        let lost = || Error::bug("a file that was being read is gone");
        let source = self.source.take().ok_or_else(lost)?;
        let mut hash = std::mem::take(&mut self.hash);
        let capacity = usize::try_from(size).map_err(|_| Error::bug("a part that is too large"))?;
        let (source, part) = match source {
            // Reading and hashing both take a processor's time, which the tasks that send must not lose.
            Input::File(file, path) => {
                let mut part = self.buffers.take(capacity);
                let work = tokio::task::spawn_blocking(move || {
                    let filled = fill(&file, &mut part).map_err(|error| Error::io("read", &path, error))?;
                    part.truncate(filled);
                    hash.update(&part);
                    Ok::<_, Error>((Input::File(file, path), part.freeze(), hash))
                });
                let (source, part, hashed) = work.await.map_err(|error| lost().with_source(error))??;
                hash = hashed;
                (source, part)
            }
            Input::Stream(mut stream, mut rest) => {
                let (mut part, mut filled) = (self.buffers.take(capacity), 0);
                while filled < capacity {
                    if rest.is_empty() {
                        match stream.next().await {
                            Some(chunk) => rest = chunk?,
                            None => break,
                        }
                    }
                    let chunk = rest.split_to(rest.len().min(capacity - filled));
                    if let Some(room) = part.get_mut(filled..filled + chunk.len()) {
                        room.copy_from_slice(&chunk);
                    }
                    filled += chunk.len();
                }
                part.truncate(filled);
                hash.update(&part);
                (Input::Stream(stream, rest), part.freeze())
            }
        };
        self.source = Some(source);
        self.read += part.len() as u64;
        let digest = hash.clone().finalize().into();
        self.hash = hash;
        Ok((part, digest))
    }

    /// Checks that what was read has the length and hash that the metadata lists.
    fn check(&self, length: u64, sha256: &[u8; 32]) -> Result<()> {
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        if self.read == length && hash == *sha256 {
            return Ok(());
        }
        Err(Error::input(format!("{} is damaged: {} with {} bytes was read", self.name, to_hex(&hash), self.read))
            .remedy(format!("restore the file whose SHA-256 is {} and publish again", to_hex(sha256))))
    }
}

/// Reads until the buffer is full or the file ends. Gives the number of bytes.
fn fill(mut file: &std::fs::File, buffer: &mut [u8]) -> std::io::Result<usize> {
    use std::io::Read as _;
    let mut filled = 0;
    while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read(room) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// An upload that is under way, as it is remembered.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    schema: u64,
    place: String,
    key: String,
    upload: String,
    part: u64,
    /// By number: the store's name of a part that has arrived, and the SHA-256 of the file up to its end.
    parts: Vec<Option<Arrived>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Arrived {
    id: String,
    upto: String,
}

/// An object to create. If its bytes are not the expected ones, nothing is created.
pub(in crate::publish) struct Job<'a> {
    pub(in crate::publish) remote: &'a Remote,
    pub(in crate::publish) key: &'a str,
    /// The expected length in bytes.
    pub(in crate::publish) length: u64,
    /// The expected SHA-256.
    pub(in crate::publish) sha256: &'a [u8; 32],
    /// Is called with each part's length.
    pub(in crate::publish) sent: &'a (dyn Fn(u64) + Sync),
}

impl Job<'_> {
    /// Creates the object from `supply`, in parts if it is large. An existing object is compared.
    pub(in crate::publish) async fn upload(&self, supply: Supply) -> Result<WriteOutcome> {
        let Self { remote, key, length, sha256, sent } = *self;
        if length > look(remote.part)
            && let Some(found) = remote.look(key, length, sha256).await?
            // A store may have kept half of what an interrupted publisher sent; a single writer replaces it.
            && !(found == WriteOutcome::Different && remote.is_exclusive() && !remote.is_local())
        {
            // Completed by an attempt whose answer was lost.
            forget(self.record().as_deref());
            sent(length);
            return Ok(found);
        }
        let mut reader = supply.open(remote.buffers.clone())?;
        // What fits into one part is sent in one request, which can be conditional.
        if length <= remote.part {
            let _turn = remote.buffers.turn().await;
            // One byte more than expected is read, so that a file which grew is noticed.
            let (bytes, _) = reader.next(length + 1).await?;
            reader.check(length, sha256)?;
            let mut outcome = remote.create_checked(key, &bytes, Some(sha256)).await?;
            if outcome == WriteOutcome::Different && remote.is_exclusive() && !remote.is_local() {
                outcome = remote.overwrite(key, &bytes).await?;
            }
            remote.buffers.give_back(bytes);
            sent(length);
            return Ok(outcome);
        }
        match &remote.multipart {
            Some(store) => self.resumable(store.as_ref(), reader).await,
            None => self.in_parts(reader).await,
        }
    }

    /// In parts, all of them: for folders, whose unfinished uploads cannot be taken up again.
    async fn in_parts(&self, mut reader: Reader) -> Result<WriteOutcome> {
        self.remote.sweep(self.key).await;
        let options = PutMultipartOptions {
            attributes: self.remote.attributes(self.key, Some(self.sha256)),
            ..PutMultipartOptions::default()
        };
        let fault = |error: StoreError| self.remote.fault("write", self.key, &error);
        let mut upload =
            self.remote.store.put_multipart_opts(&self.remote.key(self.key), options).await.map_err(fault)?;
        let work = async {
            loop {
                let _turn = self.remote.buffers.turn().await;
                let (part, _) = reader.next(self.remote.part).await?;
                if part.is_empty() || reader.read > self.length {
                    break;
                }
                let read = part.len() as u64;
                upload.put_part(part.clone().into()).await.map_err(fault)?;
                self.remote.buffers.give_back(part);
                (self.sent)(read);
            }
            reader.check(self.length, self.sha256)?;
            upload.complete().await.map_err(fault)
        };
        let done = work.await;
        if done.is_err() {
            // What is left behind otherwise costs money on some stores; that it failed is known already.
            let _ = MultipartUpload::abort(upload.as_mut()).await;
        }
        done.map(|_| WriteOutcome::Written)
    }

    /// In parts, several at once; those that an earlier try has sent are not sent again.
    async fn resumable(&self, store: &dyn MultipartStore, reader: Reader) -> Result<WriteOutcome> {
        let size = part_size(self.length, self.remote.part);
        let path = self.record();
        let mut record = match path.as_deref().and_then(|path| Record::load(path, self.remote, self.key, size)) {
            Some(record) => record,
            None => self.begin(store, size).await?,
        };
        let reader = tokio::sync::Mutex::new(reader);
        let (count, failed) = self.send_parts(store, &reader, &mut record, path.as_deref()).await;
        if let Some(failure) = failed {
            return Err(self.interrupted(store, failure, &record, path.as_deref()).await);
        }
        if let Err(error) = reader.into_inner().check(self.length, self.sha256) {
            let _ = store.abort_multipart(&self.remote.key(self.key), &record.upload).await;
            forget(path.as_deref());
            return Err(error);
        }
        record.parts.truncate(count);
        self.complete(store, &record, path.as_deref()).await
    }

    /// Sends the parts that are not known to have arrived. Returns their number, and the first failure.
    async fn send_parts(
        &self,
        store: &dyn MultipartStore,
        reader: &tokio::sync::Mutex<Reader>,
        record: &mut Record,
        path: Option<&Path>,
    ) -> (usize, Option<Failure>) {
        let size = record.part;
        let (known, upload, at) = (record.parts.clone(), record.upload.clone(), self.remote.key(self.key));
        let stop = AtomicBool::new(false);
        let (stop, known, upload, at) = (&stop, &known, &upload, &at);
        let parts = stream::unfold(Some(0_usize), |number| async move {
            let number = number.filter(|_| !stop.load(Ordering::Relaxed))?;
            let turn = self.remote.buffers.turn().await;
            let mut reader = reader.lock().await;
            match reader.next(size).await {
                Ok((part, _)) if part.is_empty() || reader.read > self.length => None,
                Ok((part, upto)) => Some((Ok((number, part, to_hex(&upto), turn)), Some(number + 1))),
                Err(error) => Some((Err(Failure::Ours(error)), None)),
            }
        });
        let sends = parts.map(|part| async move {
            let (number, part, upto, turn) = part?;
            let length = part.len() as u64;
            if let Some(Some(there)) = known.get(number)
                && there.upto == upto
            {
                self.remote.buffers.give_back(part);
                return Ok((number, length, there.clone()));
            }
            let id = self.send_part(store, at, upload, number, &part).await;
            self.remote.buffers.give_back(part);
            drop(turn);
            let id = id.map_err(Failure::Store)?.content_id;
            Ok((number, length, Arrived { id, upto }))
        });
        let mut sends = std::pin::pin!(sends.buffer_unordered(BUFFERS));
        let (mut failed, mut noted, mut count) = (None, Instant::now(), 0);
        while let Some(done) = sends.next().await {
            match done {
                Ok((number, length, arrived)) => {
                    count += 1;
                    if record.parts.len() <= number {
                        record.parts.resize(number + 1, None);
                    }
                    if let Some(slot) = record.parts.get_mut(number) {
                        *slot = Some(arrived);
                    }
                    (self.sent)(length);
                }
                // Those under way may arrive yet, and then need not be sent again.
                Err(error) => {
                    stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(error);
                }
            }
            if noted.elapsed() >= NOTE {
                noted = Instant::now();
                record.save(path);
            }
        }
        (count, failed)
    }

    /// Keeps what has arrived for the next try, or removes it, and returns the error.
    async fn interrupted(
        &self,
        store: &dyn MultipartStore,
        failure: Failure,
        record: &Record,
        path: Option<&Path>,
    ) -> Error {
        if matches!(failure, Failure::Store(StoreError::NotFound { .. })) {
            // The store has removed the unfinished upload: the next try begins a new one.
            forget(path);
        } else if path.is_some() {
            record.save(path);
        } else {
            let _ = store.abort_multipart(&self.remote.key(self.key), &record.upload).await;
        }
        match failure {
            Failure::Ours(error) => error,
            Failure::Store(error) => self.remote.fault("write", self.key, &error),
        }
    }

    async fn complete(&self, store: &dyn MultipartStore, record: &Record, path: Option<&Path>) -> Result<WriteOutcome> {
        let parts: Vec<PartId> =
            record.parts.iter().flatten().map(|part| PartId { content_id: part.id.clone() }).collect();
        record.save(path);
        match store.complete_multipart(&self.remote.key(self.key), &record.upload, parts).await {
            Ok(_) => {}
            // Completed by a try whose answer was lost, or thrown away.
            Err(error) => {
                let found = self.remote.look(self.key, self.length, self.sha256).await;
                if matches!(error, StoreError::NotFound { .. }) {
                    forget(path);
                }
                if !matches!(found, Ok(Some(WriteOutcome::AlreadyThere))) {
                    return Err(self.remote.fault("complete", self.key, &error));
                }
            }
        }
        forget(path);
        Ok(WriteOutcome::Written)
    }

    async fn begin(&self, store: &dyn MultipartStore, size: u64) -> Result<Record> {
        let options = PutMultipartOptions {
            attributes: self.remote.attributes(self.key, Some(self.sha256)),
            ..PutMultipartOptions::default()
        };
        let upload = store
            .create_multipart_opts(&self.remote.key(self.key), options)
            .await
            .map_err(|error| self.remote.fault("write", self.key, &error))?;
        let record = Record {
            schema: 1,
            place: self.remote.place(),
            key: self.key.to_owned(),
            upload,
            part: size,
            parts: Vec::new(),
        };
        record.save(self.record().as_deref());
        Ok(record)
    }

    async fn send_part(
        &self,
        store: &dyn MultipartStore,
        key: &object_store::path::Path,
        upload: &str,
        index: usize,
        part: &Bytes,
    ) -> Result<PartId, StoreError> {
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            let sent = store.put_part(key, &upload.to_owned(), index, part.clone().into()).await;
            debug!(
                place = self.remote.name(),
                key = key.as_ref(),
                part = index,
                bytes = part.len(),
                ok = sent.is_ok(),
                "write a part"
            );
            match sent {
                Err(error) if super::fault::is_transient(&error) && self.remote.may_retry(begun, &mut tries).await => {}
                done => return done,
            }
        }
    }

    /// Where the upload of an object is remembered.
    fn record(&self) -> Option<PathBuf> {
        let name = to_hex(&Sha256::digest(format!("{}\n{}", self.remote.place(), self.key)));
        Some(self.remote.memory.as_ref()?.join("uploads").join(format!("{name}.json")))
    }
}

/// Why a part did not arrive.
enum Failure {
    Ours(Error),
    Store(StoreError),
}

impl Record {
    fn load(path: &Path, remote: &Remote, key: &str, size: u64) -> Option<Self> {
        let bytes = fs::read_if_exists(path, 64 << 20).ok()??;
        let record: Self = serde_json::from_slice(&bytes).ok()?;
        (record.schema == 1 && record.place == remote.place() && record.key == key && record.part == size)
            .then_some(record)
    }

    /// Writes it down. If that fails, a later try sends more than it must.
    fn save(&self, path: Option<&Path>) {
        if let Some(path) = path
            && let Ok(bytes) = serde_json::to_vec(self)
        {
            let _ = fs::write_atomic(path, &bytes);
        }
    }
}

fn forget(path: Option<&Path>) {
    if let Some(path) = path {
        let _ = std::fs::remove_file(path);
    }
}

/// The length of the parts of a file: as few MiB more as it takes to need no more parts than there may be.
fn part_size(length: u64, part: u64) -> u64 {
    part.max(length.div_ceil(MOST_PARTS).next_multiple_of(1 << 20))
}

/// How many requests an upload takes that finds nothing in its way.
pub(in crate::publish) fn requests(length: u64, part: u64) -> u64 {
    match length {
        // Sent; looked for and sent; looked for, begun, sent in parts, completed.
        _ if length <= look(part) => 1,
        _ if length <= part => 2,
        _ => 3 + length.div_ceil(part_size(length, part)),
    }
}

/// Above this length it is worth a request to find out whether a file is there already.
fn look(part: u64) -> u64 {
    part / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_for_any_file() {
        for (length, size) in [(1, PART), (80_000 << 20, PART), (80_001 << 20, 9 << 20), (5 << 40, 525 << 20)] {
            assert_eq!(part_size(length, PART), size, "{length}");
            assert!(length.div_ceil(size) <= MOST_PARTS);
        }
    }

    #[tokio::test]
    async fn a_stream_is_cut_into_parts_of_one_size() {
        let chunks = [3, 0, 5, 9, 1].map(|length| Ok(Bytes::from(vec![7; length])));
        let mut reader =
            Supply::stream("x".into(), futures::stream::iter(chunks).boxed()).open(Buffers::new(1)).unwrap();
        let mut lengths = Vec::new();
        loop {
            let (part, upto) = reader.next(8).await.unwrap();
            assert_eq!(upto, <[u8; 32]>::from(Sha256::digest(vec![7; usize::try_from(reader.read).unwrap()])));
            if part.is_empty() {
                break;
            }
            lengths.push(part.len());
        }
        assert_eq!(lengths, [8, 8, 2]);
        assert!(reader.check(17, &[0; 32]).is_err());
    }
}
