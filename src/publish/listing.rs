//! What a place holds, as a stream: there may be more of it than fits into memory.

use futures::stream::{BoxStream, StreamExt as _};
use object_store::ObjectMeta;
use object_store::path::Path as Key;

use super::remote::{Backend, Remote};
use crate::error::{Error, Result};

impl Remote {
    /// What lies below a key of ours, such as `receipts/stable`; below the place itself if that is empty. Keys are relative to the place,
    /// in no order.
    pub(crate) fn objects(&self, below: &str) -> BoxStream<'_, Result<(String, ObjectMeta)>> {
        let prefix: Key = self.prefix.parts().chain(Key::from(below).parts()).collect();
        let strip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        let listed = self.store.list((!prefix.as_ref().is_empty()).then_some(&prefix));
        let found = listed.filter_map(move |object| async move {
            let object = object.map_err(|error| self.fault("list", "what is", &error));
            object.map(|meta| Some((meta.location.as_ref().get(strip..)?.to_owned(), meta))).transpose()
        });
        found.boxed()
    }

    /// Errs if it is a folder that is not there. Whether there is a bucket is seen when it is listed.
    pub(crate) fn must_be_there(&self) -> Result<()> {
        match &self.kind {
            Backend::Folder(root) if !root.is_dir() => Err(Error::input(format!("there is no folder {}", self.name()))
                .remedy("correct the name, or make the folder if nothing has been put there yet")),
            _ => Ok(()),
        }
    }
}
