//! Files beside a repository that are no part of it, and that no device reads: the status page.

use bytes::Bytes;

use super::store::{Remote, WriteOutcome};
use crate::error::Result;

/// Above any status page.
const MAX_LENGTH: u64 = 64 << 20;

/// Writes files to the top of a place, whatever was there under those names; how many were not there already.
///
/// After the timestamp, since they speak of what is live. Nobody trusts them, so the last one to write wins.
pub async fn beside(remote: &Remote, files: &[(&str, Vec<u8>)]) -> Result<usize> {
    let _lock = remote.lock()?;
    let mut written = 0;
    for (name, bytes) in files {
        let bytes = Bytes::from(bytes.clone());
        // One that is too long or cannot be read is another one.
        if remote.read(name, MAX_LENGTH).await.is_ok_and(|seen| seen.is_some_and(|seen| seen.bytes == bytes)) {
            continue;
        }
        if remote.overwrite(name, &bytes).await? == WriteOutcome::Written {
            written += 1;
        }
    }
    Ok(written)
}
