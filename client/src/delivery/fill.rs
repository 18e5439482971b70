//! Filling a slot or a file with an artifact.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tracing::debug;

use super::chunks::{Chunks, Records};
use super::pieces::{Old, Part, Patched, Pieces};
use super::{Files, Remote, Way, WayKind};
use crate::disk::{Disk, OpenFile, read_regular};
use crate::download::{Wanted, download};
use crate::error::Error;
use crate::fetch::{Body, Fetch, FetchError, Reply, Request};
use crate::retry::{Retry, jitter};
use crate::watch::{Cancel, Progress};
use tidegate_model::delivery::Directory;
use tidegate_model::delivery::index::{BLOCK, MIN_CHUNK};
use tidegate_model::delivery::patch::{MAX_SOURCES, PIECE};
use tidegate_model::digest::Digest;
use tidegate_tuf::hash::{Checker, Hashes};

/// How many bytes are written before they are made durable.
const SYNC: u64 = 4 << 20;
/// How much must come before a transfer that breaks off counts as progress.
const MOVED: u64 = 4 << 10;
/// How many bytes between two ranges are read and discarded, so that both take one request. From one Debian image to the next, that is a third of
/// the requests less for 6% more bytes; with twice as much, half of them for 17%, which costs more than it saves where bytes cost money.
const GAP: u64 = 16 << 10;
/// How many pieces of a patch may fail before it can count as not fitting the running release. Where a file system was mounted to be written, its
/// first ones do.
const FAILURES: usize = 64;

/// What to fill, with what.
pub(crate) struct Job<'a> {
    pub(crate) fetch: &'a dyn Fetch,
    pub(crate) disk: &'a Disk,
    pub(crate) retry: Retry,
    pub(crate) wanted: &'a Wanted,
    /// The files of the delivery, if it has one.
    pub(crate) files: Option<&'a Files>,
    /// The ways to try, in this order.
    pub(crate) ways: &'a [Way],
    /// The folder for indexes.
    pub(crate) folder: PathBuf,
    /// The slot or file.
    pub(crate) target: &'a Path,
    /// The running release's artifact.
    pub(crate) running: Option<&'a Path>,
    /// What ends it.
    pub(crate) cancel: &'a Cancel,
    /// Whether the next way may be tried after this one failed.
    pub(crate) instead: &'a dyn Fn(WayKind) -> Result<(), Error>,
}

/// Fills a slot or a file.
pub(crate) struct Filler<'a> {
    job: &'a Job<'a>,
    target: OpenFile,
    watch: &'a mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
    /// Bytes that are right.
    done: u64,
    /// Bytes written since they were last made durable.
    unsynced: u64,
    /// Bytes fetched.
    fetched: u64,
    /// Whether a piece was made of what was fetched.
    moved: bool,
    /// Whether the server gives ranges with an end, as far as it is known.
    has_ranges: bool,
    /// Failures of the network since something came.
    failures: u32,
    /// What came of the data of a piece before the transfer broke off, and where that starts.
    partial: (u64, Vec<u8>),
    buffer: Vec<u8>,
}

/// What may be fetched from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// The file of the delivery with the data.
    Container,
    /// The artifact itself.
    Whole,
}

impl<'a> Filler<'a> {
    /// # Errors
    ///
    /// [`Error::File`] if the target cannot be opened.
    pub(crate) fn new(
        job: &'a Job<'a>,
        watch: &'a mut dyn FnMut(Progress<'_>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        job.disk.create_folder(&job.folder).map_err(|e| failed(&job.folder, e))?;
        let mut target = job.disk.open(job.target).map_err(|e| failed(job.target, e))?;
        target.set_length(job.wanted.length).map_err(|e| failed(job.target, e))?;
        Ok(Self {
            job,
            target,
            watch,
            done: 0,
            unsynced: 0,
            fetched: 0,
            moved: false,
            has_ranges: true,
            failures: 0,
            partial: (0, Vec::new()),
            buffer: Vec::new(),
        })
    }

    /// The number of bytes fetched so far.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Whether the target is the artifact already.
    pub(crate) fn is_right(&mut self) -> bool {
        let wanted = self.job.wanted;
        let mut checker = wanted.checker();
        let mut buffer = vec![0; PIECE];
        while checker.seen() < wanted.length {
            let count = buffer.len().min(usize::try_from(wanted.length - checker.seen()).unwrap_or(usize::MAX));
            let bytes = buffer.get_mut(..count).unwrap_or_default();
            if self.target.read_at(checker.seen(), bytes).is_err() || checker.update(bytes).is_err() {
                return false;
            }
        }
        checker.finish().is_ok()
    }

    /// Makes the target the artifact, by the ways that come before the whole file. Returns the way by which it came; `None` if the whole file is next.
    ///
    /// # Errors
    ///
    /// Those of the network, once it was retried; [`Error::File`] if the target cannot be written; what `watch` returns.
    pub(crate) fn fill(&mut self) -> Result<Option<WayKind>, Error> {
        let job = self.job;
        for way in job.ways.iter().map(|it| it.way) {
            let is_made = match way {
                WayKind::Patch => self.by_patch()?,
                WayKind::Chunks => self.by_chunks()?,
                WayKind::Whole => break,
            };
            if is_made && self.is_right() {
                return Ok(Some(way));
            }
            (job.instead)(way)?;
        }
        Ok(None)
    }

    /// Makes the target the artifact from the whole file, in its order, with the first piece written last. It is checked when it is complete, and
    /// does not resume after a stop.
    ///
    /// # Errors
    ///
    /// As for [`fill`](Self::fill), and [`Error::WrongTarget`] if another file comes.
    pub(crate) fn whole(&mut self) -> Result<(), Error> {
        let wanted = self.job.wanted;
        let (mut checker, mut first) = (wanted.checker(), Vec::new());
        self.partial.1.clear();
        let (mut most, mut stalled) = (0, 0);
        while checker.seen() < wanted.length {
            let request = Request::target(&wanted.url, wanted.length).after(checker.seen() + self.had(checker.seen()));
            if let Err(e) = self.pour(&request, &mut checker, &mut first)? {
                // A server that starts anew each time gives the same bytes again: that is no progress.
                let came = checker.seen() + self.had(checker.seen());
                stalled = if came > most { 0 } else { stalled + 1 };
                (self.failures, most) = (stalled, most.max(came));
                self.again(e, Source::Whole)?;
            }
        }
        let wrong = |mismatch| Error::WrongTarget { path: wanted.name.clone(), url: wanted.url.clone(), mismatch };
        checker.finish().map_err(wrong)?;
        self.sync()?;
        self.write(0, &first)?;
        self.sync()
    }

    /// Writes what comes of the whole file, except for its first piece.
    fn pour(
        &mut self,
        request: &Request<'_>,
        checker: &mut Checker,
        first: &mut Vec<u8>,
    ) -> Result<Result<(), FetchError>, Error> {
        let wanted = self.job.wanted;
        let mut body = match self.open(request) {
            Ok(body) => body,
            Err(e) => return Ok(Err(e)),
        };
        let mut position = body.offset();
        if position == 0 {
            *checker = wanted.checker();
            self.done = 0;
        }
        while position < wanted.length {
            let at = checker.seen();
            if let Err(e) = self.read(&mut body, &mut position, at..wanted.length.min(at + PIECE as u64)) {
                return Ok(Err(e));
            }
            let bytes = std::mem::take(&mut self.buffer);
            // It cannot be longer.
            let _ = checker.update(&bytes);
            if at == 0 {
                bytes.clone_into(first);
            } else {
                self.write(at, &bytes)?;
            }
            self.progress(bytes.len())?;
        }
        Ok(Ok(()))
    }

    /// `false` if the patch cannot be used, or what it leaves is fetched better as chunks.
    fn by_patch(&mut self) -> Result<bool, Error> {
        let job = self.job;
        let Some(Files { index, patch: Some((patch, _)), .. }) = job.files else { return Ok(false) };
        let old = Old::open(job.running);
        if !old.is_there() {
            return Ok(false);
        }
        let Some(directory) = self.directory()? else { return Ok(false) };
        let mut pieces = Patched { patch, directory, old, source: Vec::new() };
        let mut missing = self.compare(&mut pieces)?;
        let rest = 1..missing.len();
        self.make(&mut pieces, &mut missing, rest.clone(), Source::Container)?;
        let mut left = 0;
        for index in rest.clone().filter(|index| missing.get(*index) == Some(&true)) {
            left += self.part(&mut pieces, index)?.length as u64;
        }
        if left > 0 {
            debug!(bytes = left, "a part of the patch does not fit");
            if index.file.length < left {
                return Ok(false);
            }
            self.make(&mut pieces, &mut missing, rest, Source::Whole)?;
        }
        self.finish(&mut pieces, missing)
    }

    /// The directory of the patch, from the state folder if it is there.
    fn directory(&mut self) -> Result<Option<Directory>, Error> {
        let job = self.job;
        let Some((patch, file)) = job.files.and_then(|files| files.patch.as_ref()) else { return Ok(None) };
        let pieces = job.wanted.length.div_ceil(PIECE as u64);
        if file.length > 64 + pieces.saturating_mul(64 + 8 * MAX_SOURCES as u64) {
            return Ok(None);
        }
        let stored = job.folder.join(file.sha256.to_string());
        let bytes = match read_regular(&stored, file.length) {
            Ok(bytes) if Digest::of(&bytes) == file.sha256 => bytes,
            _ => {
                let Some(bytes) = self.beginning(patch, file.length)? else { return Ok(None) };
                if Digest::of(&bytes) != file.sha256 {
                    return Ok(None);
                }
                job.disk.replace(&stored, &bytes).map_err(|e| failed(&stored, e))?;
                bytes
            }
        };
        Ok(Directory::parse(&bytes, job.wanted.length, patch.file.length).ok())
    }

    /// Fetches the first bytes of a file; `None` if they cannot be had.
    fn beginning(&mut self, remote: &Remote, length: u64) -> Result<Option<Vec<u8>>, Error> {
        let whole = Request::target(&remote.url, remote.file.length);
        self.partial.1.clear();
        loop {
            let request = Request { end: self.has_ranges.then_some(length), ..whole.after(self.had(0)) };
            let result = self.open(&request).and_then(|mut body| {
                let mut position = body.offset();
                self.read(&mut body, &mut position, 0..length)?;
                end_of(body, &request);
                Ok(())
            });
            match result {
                Ok(()) => return Ok(Some(std::mem::take(&mut self.buffer))),
                Err(FetchError::NoRanges { .. }) if self.has_ranges => self.has_ranges = false,
                Err(e) => {
                    if !self.again(e, Source::Container)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// `false` if the index cannot be used, or the artifact that it describes is not to be had.
    fn by_chunks(&mut self) -> Result<bool, Error> {
        let job = self.job;
        let Some(Files { index, pack, .. }) = job.files else { return Ok(false) };
        let path = job.folder.join(index.file.sha256.to_string());
        // No index of so many chunks is longer.
        let most = (job.wanted.length / MIN_CHUNK as u64 + 2 * BLOCK as u64) * 96;
        if index.file.length > most || !self.index(index, &path)? {
            return Ok(false);
        }
        let lengths = [index.file.length, job.wanted.length, pack.file.length];
        let spool = path.with_extension("records");
        let records = match Records::unpack(job.disk, &path, lengths, &spool) {
            Err(e) if e.kind() == io::ErrorKind::StorageFull => {
                // The whole file needs no room here.
                [&spool, &path].into_iter().try_for_each(|path| job.disk.remove(path).map_err(|e| failed(path, e)))?;
                return Ok(false);
            }
            records => records.map_err(|e| failed(&spool, e))?,
        };
        let Some(records) = records else { return Ok(false) };
        let mut chunks = Chunks::new(pack, records, Old::open(job.running), Old::open(Some(job.target)));
        let mut missing = self.compare(&mut chunks)?;
        chunks.search(&missing).map_err(|e| failed(&path, e))?;
        for source in [Source::Container, Source::Whole] {
            let rest = 1..missing.len();
            self.make(&mut chunks, &mut missing, rest, source)?;
        }
        self.finish(&mut chunks, missing)
    }

    /// Fetches the index, unless it is there. `false` if it cannot be had.
    fn index(&mut self, index: &Remote, path: &Path) -> Result<bool, Error> {
        let (job, done) = (self.job, self.done);
        let Remote { url, file } = index;
        let hashes = Hashes::sha256(*file.sha256.as_bytes());
        let wanted = Wanted { name: url.clone(), url: url.clone(), length: file.length, hashes };
        if path.metadata().is_err() {
            self.fetched += file.length;
        }
        loop {
            let watch = &mut *self.watch;
            let mut watched = |_: Progress<'_>| watch(job.wanted.progress(done));
            match download(job.fetch, job.disk, &wanted, path, &mut watched) {
                Ok(()) => return Ok(true),
                Err(Error::WrongTarget { .. } | Error::Missing { .. }) => return Ok(false),
                Err(Error::Fetch(e)) => {
                    if !self.again(e, Source::Container)? {
                        return Ok(false);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Makes the first piece, when all the others are durable.
    fn finish(&mut self, pieces: &mut dyn Pieces, mut missing: Vec<bool>) -> Result<bool, Error> {
        if missing.iter().skip(1).any(|missing| *missing) {
            return Ok(false);
        }
        self.sync()?;
        for source in [Source::Container, Source::Whole] {
            self.make(pieces, &mut missing, 0..1, source)?;
        }
        self.sync()?;
        Ok(!missing.contains(&true))
    }

    /// Which pieces are not in the target at their own places.
    fn compare(&mut self, pieces: &mut dyn Pieces) -> Result<Vec<bool>, Error> {
        self.done = 0;
        let mut missing = Vec::with_capacity(pieces.count());
        let mut buffer = Vec::new();
        for index in 0..pieces.count() {
            let part = self.part(pieces, index)?;
            buffer.resize(part.length, 0);
            let is_here = self.target.read_at(part.at, &mut buffer).is_ok() && Digest::of(&buffer) == part.sha256;
            missing.push(!is_here);
            if is_here {
                self.progress(part.length)?;
            }
        }
        Ok(missing)
    }

    fn part(&self, pieces: &mut dyn Pieces, index: usize) -> Result<Part, Error> {
        pieces.part(index).map_err(|e| failed(&self.job.folder, e))
    }

    /// Makes the missing pieces of this range: without data where that is possible, then with what is fetched from this source. Those that
    /// fail stay missing.
    fn make(
        &mut self,
        pieces: &mut dyn Pieces,
        missing: &mut [bool],
        range: Range<usize>,
        source: Source,
    ) -> Result<(), Error> {
        let mut todo: Vec<_> =
            missing.iter().zip(0..).map(|(missing, index)| *missing && range.contains(&index)).collect();
        if source == Source::Container {
            for index in range {
                self.local(pieces, index, missing, &mut todo)?;
            }
        }
        let container = pieces.container().clone();
        let whole = match source {
            Source::Container => Request::target(&container.url, container.file.length),
            Source::Whole => Request::target(&self.job.wanted.url, self.job.wanted.length),
        };
        let mut round = Round { pieces, missing, todo, source, made: 0, failed: 0 };
        self.partial.1.clear();
        // A server without ranges may continue a file, or send it from its start; then all that stands in order comes at once.
        let mut whole_reads = 0;
        while let Some(run) = self.run(&mut round)?.filter(|_| whole_reads <= 2) {
            let request = whole.after(run.start + self.had(run.start));
            let request = if self.has_ranges { request.before(run.end) } else { request };
            match self.fetch(&mut round, &request, run.end)? {
                Ok(is_from_start) => whole_reads += u32::from(is_from_start),
                Err(FetchError::NoRanges { .. }) if self.has_ranges => self.has_ranges = false,
                Err(e) => {
                    if !self.again(e, source)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a piece without data, if that is possible now.
    fn local(
        &mut self,
        pieces: &mut dyn Pieces,
        index: usize,
        missing: &mut [bool],
        todo: &mut [bool],
    ) -> Result<(), Error> {
        let (Some(todo), Some(missing)) = (todo.get_mut(index), missing.get_mut(index)) else { return Ok(()) };
        if !*todo {
            return Ok(());
        }
        let part = self.part(pieces, index)?;
        if part.data.is_empty() {
            let mut piece = Vec::with_capacity(part.length);
            if pieces.make(index, &[], &mut piece) {
                self.put(&part, &piece)?;
                *missing = false;
            }
            // After a failure there may be data for it.
            *todo = *missing && !self.part(pieces, index)?.data.is_empty();
        }
        Ok(())
    }

    /// The next bytes to request: data with small gaps between, and without, is one range.
    fn run(&mut self, round: &mut Round<'_>) -> Result<Option<Range<u64>>, Error> {
        let mut run: Option<Range<u64>> = None;
        for index in 0..round.todo.len() {
            if round.todo.get(index) != Some(&true) {
                continue;
            }
            if round.source == Source::Container {
                self.local(round.pieces, index, round.missing, &mut round.todo)?;
                if round.todo.get(index) != Some(&true) {
                    continue;
                }
            }
            let part = self.part(round.pieces, index)?;
            let data = round.data(&part);
            match &mut run {
                None => run = Some(data),
                Some(run) if data.start.checked_sub(run.end).is_some_and(|gap| gap <= GAP) => run.end = data.end,
                // The same chunk again.
                Some(run) if run.contains(&data.start) && data.end <= run.end => {}
                Some(_) => break,
            }
        }
        Ok(run)
    }

    /// Requests a range, up to `end`, and makes the pieces whose data comes. Returns whether the file came from its start instead.
    fn fetch(
        &mut self,
        round: &mut Round<'_>,
        request: &Request<'_>,
        end: u64,
    ) -> Result<Result<bool, FetchError>, Error> {
        let mut body = match self.open(request) {
            Ok(body) => body,
            Err(e) => return Ok(Err(e)),
        };
        let mut position = body.offset();
        let is_from_start = position < request.offset || (request.end.is_none() && position == 0);
        let end = if is_from_start { u64::MAX } else { end };
        for index in 0..round.todo.len() {
            if round.todo.get(index) != Some(&true) {
                continue;
            }
            if position >= end {
                break;
            }
            let part = self.part(round.pieces, index)?;
            let data = round.data(&part);
            if data.is_empty() || data.start + self.had(data.start) < position || data.end > end {
                continue;
            }
            if let Err(e) = self.read(&mut body, &mut position, data) {
                return Ok(Err(e));
            }
            let bytes = std::mem::take(&mut self.buffer);
            let result = self.receive(round, index, &part, &bytes);
            self.buffer = bytes;
            if result? {
                round.todo.fill(false);
                return Ok(Ok(is_from_start));
            }
        }
        end_of(body, request);
        Ok(Ok(is_from_start))
    }

    /// Makes a piece of its data. Returns whether too many of them failed.
    fn receive(&mut self, round: &mut Round<'_>, index: usize, part: &Part, data: &[u8]) -> Result<bool, Error> {
        let mut piece = Vec::new();
        let made = match round.source {
            Source::Container => {
                piece.reserve_exact(part.length);
                round.pieces.make(index, data, &mut piece).then_some(piece.as_slice())
            }
            Source::Whole => Some(data).filter(|data| Digest::of(data) == part.sha256),
        };
        if let Some(todo) = round.todo.get_mut(index) {
            *todo = false;
        }
        let Some(made) = made else {
            round.failed += 1;
            debug!(at = part.at, "a piece came with other bytes than it should");
            return Ok(round.source == Source::Container && round.failed >= FAILURES && round.failed / 4 > round.made);
        };
        self.put(part, made)?;
        if let Some(missing) = round.missing.get_mut(index) {
            *missing = false;
        }
        round.made += 1;
        self.moved = true;
        Ok(false)
    }

    /// Writes a piece that is right.
    fn put(&mut self, part: &Part, bytes: &[u8]) -> Result<(), Error> {
        self.write(part.at, bytes)?;
        self.progress(part.length)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.target.write_at(at, bytes).map_err(|e| self.failed(e))?;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC { self.sync() } else { Ok(()) }
    }

    /// Makes what was written durable.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if that fails.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        if self.unsynced > 0 {
            self.target.sync().map_err(|e| self.failed(e))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    fn progress(&mut self, more: usize) -> Result<(), Error> {
        self.done += more as u64;
        (self.watch)(self.job.wanted.progress(self.done))
    }

    fn failed(&self, source: io::Error) -> Error {
        failed(self.job.target, source)
    }

    fn open(&self, request: &Request<'_>) -> Result<Body, FetchError> {
        match self.job.fetch.fetch(request)? {
            Reply::Found(body) => {
                let expected = request.end.unwrap_or(request.limit).saturating_sub(body.offset());
                match &body.head().doubt {
                    Some(came) if body.head().length.is_some_and(|length| length != expected) => {
                        Err(FetchError::status(request.url, 200, came.clone()))
                    }
                    _ => Ok(body),
                }
            }
            Reply::Unchanged => Err(FetchError::status(request.url, 304, String::new())),
            Reply::NotFound(said) => {
                let (status, came) = said.split_at_checked(3).unwrap_or_default();
                let (status, came) = status.parse().map_or((404, ""), |status| (status, came));
                Err(FetchError::status(request.url, status, came.to_owned()))
            }
        }
    }

    /// How much came of the data that starts there, before the transfer broke off.
    fn had(&self, start: u64) -> u64 {
        if self.partial.0 == start { self.partial.1.len() as u64 } else { 0 }
    }

    /// Reads these bytes of the file into the buffer. What comes before them is skipped; what came of them before is continued.
    fn read(&mut self, body: &mut Body, position: &mut u64, data: Range<u64>) -> Result<(), FetchError> {
        let length = usize::try_from(data.end - data.start).unwrap_or(usize::MAX);
        self.buffer.resize(length.max(64 << 10), 0);
        let mut at = 0;
        if *position > data.start
            && let Some(had) = self.buffer.get_mut(..self.partial.1.len())
        {
            had.copy_from_slice(&self.partial.1);
            at = had.len();
        }
        while *position < data.end {
            let before = usize::try_from(data.start.saturating_sub(*position)).unwrap_or(usize::MAX);
            let room = if before > 0 { 0..before.min(self.buffer.len()) } else { at..length };
            let read = body.read(self.buffer.get_mut(room).unwrap_or_default());
            let ended = || FetchError::Interrupted { url: body.url().to_owned(), reason: "it ended early".into() };
            let count = match read.and_then(|count| if count == 0 { Err(body.instead(ended())) } else { Ok(count) }) {
                Ok(count) => count,
                Err(e) => {
                    if at as u64 > self.had(data.start) {
                        if at as u64 - self.had(data.start) >= MOVED {
                            self.failures = 0;
                        }
                        self.partial = (data.start, self.buffer.get(..at).unwrap_or_default().to_vec());
                    }
                    return Err(e);
                }
            };
            *position += count as u64;
            self.fetched += count as u64;
            at += if before > 0 { 0 } else { count };
        }
        self.buffer.truncate(length);
        self.partial.1.clear();
        self.failures = 0;
        Ok(())
    }

    /// Whether to try again after a failure, which may take a pause. `false` if this source is not worth it.
    fn again(&mut self, error: FetchError, source: Source) -> Result<bool, Error> {
        let asked = error.retry_after().unwrap_or_default();
        if asked > self.job.retry.longest {
            // The next check comes after that.
            return Err(error.into());
        }
        if error.is_temporary() && self.failures < self.job.retry.times {
            self.failures += 1;
            // The day may end in the middle of a piece.
            self.progress(0)?;
            self.job.cancel.sleep(self.job.retry.pause(self.failures, jitter()).max(asked))?;
            return Ok(true);
        }
        let is_of_the_file = match &error {
            FetchError::Status { .. }
            | FetchError::Protocol { .. }
            | FetchError::TooLong { .. }
            | FetchError::Redirect { .. }
            | FetchError::NoRanges { .. } => true,
            FetchError::Interrupted { .. } => !self.moved,
            _ => false,
        };
        if source == Source::Whole || !is_of_the_file {
            return Err(error.into());
        }
        debug!(%error, "goes on without a file of the delivery");
        self.failures = 0;
        Ok(false)
    }
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::File { action: "write", path: path.to_owned(), source }
}

/// Reads a range to its end, so that the connection can be used again. What is wrong there does no harm.
fn end_of(mut body: Body, request: &Request<'_>) {
    if request.end.is_some() {
        let _ = body.read(&mut [0]);
    }
}

/// Pieces that are fetched from one source.
struct Round<'a> {
    pieces: &'a mut dyn Pieces,
    missing: &'a mut [bool],
    todo: Vec<bool>,
    source: Source,
    made: usize,
    failed: usize,
}

impl Round<'_> {
    /// Where the data of a piece is in the source.
    fn data(&self, part: &Part) -> Range<u64> {
        match self.source {
            Source::Container => part.data.clone(),
            Source::Whole => part.at..part.at.saturating_add(part.length as u64),
        }
    }
}
