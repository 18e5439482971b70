//! Files published beside a repository that are not part of it and that devices never read: the status page.

use bytes::Bytes;

use super::store::{Remote, WriteOutcome};
use crate::error::Result;

/// Above any status page.
const MAX_LENGTH: u64 = 64 << 20;

/// Writes files to the top level of a place, replacing files of the same name. Returns how many were new or changed.
///
/// Call this after the timestamp is published, because the files describe what is live. They are not trusted; the last writer
/// wins.
///
/// # Errors
///
/// Fails if another process holds the lock of a local folder, or if the store rejects a write.
pub async fn beside(remote: &Remote, files: &[(&str, Vec<u8>)]) -> Result<usize> {
    let _lock = remote.lock()?;
    let mut written = 0;
    for (name, bytes) in files {
        let bytes = Bytes::from(bytes.clone());
        // A file that is too long or unreadable counts as different.
        if remote.read(name, MAX_LENGTH).await.is_ok_and(|seen| seen.is_some_and(|seen| seen.bytes == bytes)) {
            continue;
        }
        if remote.overwrite(name, &bytes).await? == WriteOutcome::Written {
            written += 1;
        }
    }
    Ok(written)
}
