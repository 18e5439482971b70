//! The memory of uploads: a fixed number of buffers per place, reused.
//!
//! Allocating a buffer for each part would not use more, but the allocator would keep memory for every thread that ever had one.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place's buffers.
#[derive(Debug, Clone)]
pub(super) struct Buffers {
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<BytesMut>>>,
}

/// The right to fill a buffer.
pub(super) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Buffers {
    pub(super) fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), idle: Arc::default() }
    }

    /// Waits until a buffer may be filled.
    pub(super) async fn turn(&self) -> Turn {
        Turn { _permit: Arc::clone(&self.free).acquire_owned().await.ok() }
    }

    /// A buffer of that length, with arbitrary content.
    pub(super) fn take(&self, length: usize) -> BytesMut {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut buffer = idle.unwrap_or_else(|| BytesMut::with_capacity(length));
        buffer.resize(length, 0);
        buffer
    }

    /// Returns a buffer that has been sent. A buffer that is still in use elsewhere is not reused.
    pub(super) fn give_back(&self, sent: Bytes) {
        if let Ok(buffer) = sent.try_into_mut() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_buffer_that_was_sent_is_used_again() {
        let buffers = Buffers::new(1);
        let turn = buffers.turn().await;
        let sent = buffers.take(1000).freeze();
        let (at, copy) = (sent.as_ptr(), sent.clone());
        buffers.give_back(copy);
        assert!(buffers.idle.lock().unwrap().is_empty(), "it is held still");
        buffers.give_back(sent);
        assert_eq!(buffers.take(1000).as_ptr(), at);
        assert!(futures::poll!(std::pin::pin!(buffers.turn())).is_pending());
        drop(turn);
        buffers.turn().await;
    }
}
