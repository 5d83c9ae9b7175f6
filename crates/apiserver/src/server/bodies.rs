//! How much of the memory the bodies of requests may take.

use std::time::Duration;

use embedded_apimachinery::Status;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of all request bodies of the network that are being read or answered. Further requests wait in turn, and are
/// refused (429) after [`WAIT_MAX`].
const BYTES_MAX: usize = 64 << 20;
/// Wait for a place.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Unit of places.
const UNIT: usize = 1 << 10;

/// Places for bodies.
#[derive(Debug)]
pub(crate) struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(BYTES_MAX / UNIT))
    }
}

impl Bodies {
    /// Waits for a place for a body of `bytes` at most; it is taken until the permit is dropped.
    ///
    /// # Errors
    /// 429 when there is none in time.
    pub(super) async fn place(&self, bytes: usize) -> Result<SemaphorePermit<'_>, Status> {
        let units = u32::try_from(bytes.min(BYTES_MAX).div_ceil(UNIT)).unwrap_or(u32::MAX);
        match tokio::time::timeout(WAIT_MAX, self.0.acquire_many(units)).await {
            Ok(Ok(permit)) => Ok(permit),
            // It is never closed; were it, there would be no place either.
            Ok(Err(_)) | Err(_) => Err(Status::too_many_requests("too many requests with bodies, try again later", 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies_beyond_the_limit_wait_and_are_refused_in_the_end() {
        let bodies = Bodies::default();
        let half = bodies.place(BYTES_MAX / 2).await.unwrap();
        let other = bodies.place(BYTES_MAX / 2).await.unwrap();
        assert_eq!(bodies.place(1).await.unwrap_err().code(), 429);
        assert!(bodies.place(0).now_or_never().is_some(), "nothing always has a place");
        drop(half);
        assert!(bodies.place(BYTES_MAX / 2).now_or_never().is_some());
        drop(other);
        assert!(bodies.place(usize::MAX).now_or_never().is_some());
    }
}
