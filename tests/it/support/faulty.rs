//! An object store that dies, fails or pauses at the request of a test's choice.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// What happens at a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is carried out.
    None,
    /// It fails, and nothing of it is carried out.
    Before,
    /// It is carried out, and the answer is lost.
    After,
    /// It is turned away, as if somebody else had been there first.
    TurnedAway,
}

/// Decides what happens at the request with a number, counted from 0, and is told the rest of it in words.
pub type Script = Arc<dyn Fn(u64, &str) -> Fault + Send + Sync>;

/// Wraps a store; each request that it is sent is first put to a script.
pub struct Faulty {
    inner: Arc<dyn ObjectStore>,
    script: Script,
    count: Arc<AtomicU64>,
}

impl Faulty {
    pub fn new(inner: Arc<dyn ObjectStore>, script: Script) -> Self {
        Self { inner, script, count: Arc::default() }
    }

    async fn with<T>(&self, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
        run(&self.count, &self.script, what, work).await
    }
}

async fn run<T>(count: &AtomicU64, script: &Script, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    match script(count.fetch_add(1, Ordering::SeqCst), what) {
        Fault::None => work.await,
        Fault::Before => Err(gone()),
        Fault::TurnedAway => Err(Error::AlreadyExists { path: what.to_owned(), source: "409 Conflict".into() }),
        Fault::After => {
            let _ = work.await;
            Err(gone())
        }
    }
}

fn gone() -> Error {
    Error::Generic { store: "Faulty", source: "the connection is gone".into() }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.with(&format!("put {location}"), self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.with(&format!("begin {location}"), self.inner.put_multipart_opts(location, options)).await?;
        let (count, script) = (Arc::clone(&self.count), Arc::clone(&self.script));
        Ok(Box::new(FaultyUpload { inner, count, script, location: location.to_string() }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let what = if options.head { "head" } else { "get" };
        self.with(&format!("{what} {location}"), self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    count: Arc<AtomicU64>,
    script: Script,
    location: String,
}

impl fmt::Debug for FaultyUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyUpload({})", self.location)
    }
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        let (count, script) = (Arc::clone(&self.count), Arc::clone(&self.script));
        let what = format!("part of {}", self.location);
        Box::pin(async move { run(&count, &script, &what, part).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let what = format!("complete {}", self.location);
        run(&Arc::clone(&self.count), &Arc::clone(&self.script), &what, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
