//! Reads a request's body within its limits: bytes, time, and the memory that all requests share.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use http_body_util::BodyExt;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

/// For the whole body. Keptn's distributors give up after 5 s.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request waits for others to be admitted before it is refused.
const MEMORY_PATIENCE: Duration = Duration::from_secs(1);

/// One permit of the shared memory.
const UNIT: usize = 1024;

/// For a request that comes in, whatever its size.
const ARRIVING: usize = 2 * UNIT;

/// For an event's admission, whatever its size: its future, its connection, and its run.
const ADMISSION: usize = 14 * UNIT;

/// The memory of all that is in flight, in largest bodies: 8 MiB. The allocator keeps up to twice as much
/// again, and 64 MiB is what the service may take.
const SHARED: usize = 8;

/// A lower limit for bodies does not make less memory useful.
const LEAST: usize = 1 << 20;

/// What one event may take of it, in largest bodies, so that it comes to its turn beside others.
const MOST_OF_ONE: usize = 6;

/// Keptn's events are smaller. More than [`LARGE`] bodies above this are not read at once: each with a part
/// of the memory, they would wait for each other, and slow ones would keep it from the small.
const SMALL: usize = 64 << 10;
const LARGE: usize = 4;

/// A body that is too large is read on to this many bytes, so that its sender comes to reading the
/// answer; with a connection closed half-way it would only see that.
const MAX_DISCARDED: usize = 32 << 20;

pub(super) struct Limits {
    pub(super) max_body_bytes: usize,
    memory: Arc<Semaphore>,
    large: Semaphore,
}

#[derive(Debug)]
pub(crate) enum BodyError {
    TooLarge,
    TooManyValues,
    TooSlow,
    NoMemory,
    Broken(String),
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT)
}

impl Limits {
    pub(super) fn new(max_body_bytes: usize) -> Self {
        Self {
            max_body_bytes,
            memory: Arc::new(Semaphore::new(units(SHARED * max_body_bytes.max(LEAST)))),
            large: Semaphore::new(LARGE),
        }
    }

    /// The body, with the memory that its event may use.
    pub(super) async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<(Vec<u8>, Arc<OwnedSemaphorePermit>), BodyError> {
        let until = Instant::now() + BODY_TIMEOUT;
        let announced: Option<usize> = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        if announced > Some(self.max_body_bytes) {
            // Who asks before sending is told at once.
            if !headers.contains_key(EXPECT) {
                discard(body, until).await;
            }
            return Err(BodyError::TooLarge);
        }
        let mut memory = self.reserve(ARRIVING).await?;
        let mut bytes = Vec::new();
        let mut large = None;
        loop {
            let chunk = match timeout_at(until, next_chunk(&mut body)).await {
                Ok(chunk) => chunk?,
                Err(_) => return Err(BodyError::TooSlow),
            };
            let Some(chunk) = chunk else {
                let parsed = parsed_len(&bytes);
                if parsed > MOST_OF_ONE * self.max_body_bytes.max(LEAST) {
                    return Err(BodyError::TooManyValues);
                }
                memory.merge(self.reserve(ADMISSION + parsed).await?);
                return Ok((bytes, Arc::new(memory)));
            };
            let len = bytes.len() + chunk.len();
            if len > self.max_body_bytes {
                drop((bytes, memory, large));
                discard(body, until).await;
                return Err(BodyError::TooLarge);
            }
            if len > SMALL && large.is_none() {
                large = Some(within_patience(self.large.acquire()).await?);
            }
            memory.merge(self.reserve(chunk.len()).await?);
            // Twice as much would be more than was reserved.
            bytes.reserve_exact(chunk.len());
            bytes.extend_from_slice(&chunk);
        }
    }

    async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, BodyError> {
        let units = u32::try_from(units(bytes)).map_err(|_| BodyError::TooLarge)?;
        within_patience(Arc::clone(&self.memory).acquire_many_owned(units)).await
    }
}

async fn within_patience<T>(
    permit: impl Future<Output = Result<T, AcquireError>>,
) -> Result<T, BodyError> {
    match timeout(MEMORY_PATIENCE, permit).await {
        Ok(Ok(permit)) => Ok(permit),
        Ok(Err(_)) | Err(_) => Err(BodyError::NoMemory),
    }
}

/// What JSON may take once it is parsed, from above: its texts, and for each value, list and object what
/// `serde_json` allocates (an object begins with a B-tree node of 11 entries).
fn parsed_len(bytes: &[u8]) -> usize {
    bytes.iter().fold(bytes.len(), |len, byte| {
        len + match byte {
            b'{' => 700,
            b'[' => 160,
            b',' => 56,
            _ => 0,
        }
    })
}

async fn next_chunk(body: &mut Body) -> Result<Option<Bytes>, BodyError> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(error)) => return Err(BodyError::Broken(error.to_string())),
            Some(Ok(frame)) => {
                // Trailers say nothing about an event.
                if let Ok(chunk) = frame.into_data() {
                    return Ok(Some(chunk));
                }
            }
        }
    }
}

async fn discard(mut body: Body, until: Instant) {
    let mut discarded = 0;
    while let Ok(Ok(Some(chunk))) = timeout_at(until, next_chunk(&mut body)).await {
        discarded += chunk.len();
        if discarded > MAX_DISCARDED {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use futures::stream;

    use super::*;

    fn limits(memory: usize) -> Limits {
        Limits {
            max_body_bytes: 1 << 20,
            memory: Arc::new(Semaphore::new(units(memory))),
            large: Semaphore::new(LARGE),
        }
    }

    fn slow(chunk: &'static [u8]) -> Body {
        let first = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(chunk))]);
        Body::from_stream(first.chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up() {
        let read = limits(1 << 20).read(&HeaderMap::new(), slow(b"{")).await;
        assert!(matches!(read, Err(BodyError::TooSlow)), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_of_millions_of_values_is_refused() {
        let body = Body::from(format!("[{}]", "{\"\":0},".repeat(100_000)));
        let read = Limits::new(1 << 20).read(&HeaderMap::new(), body).await;
        assert!(matches!(read, Err(BodyError::TooManyValues)), "{read:?}");
        let plain = Body::from(vec![b'x'; 1 << 20]);
        let read = Limits::new(1 << 20).read(&HeaderMap::new(), plain).await;
        assert!(read.is_ok(), "{read:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_that_do_not_end_leave_room_for_small_ones() {
        static PART: [u8; SMALL + 1] = [b'x'; SMALL + 1];
        let limits = Limits::new(1 << 20);
        let headers = HeaderMap::new();
        let stuck =
            futures::future::join_all((0..=LARGE).map(|_| limits.read(&headers, slow(&PART))));
        let small = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            limits.read(&headers, Body::from("{}")).await
        };
        let (stuck, small) = tokio::join!(stuck, small);
        assert!(small.is_ok(), "{small:?}");
        let refused = |read: &&Result<_, BodyError>| matches!(read, Err(BodyError::NoMemory));
        assert_eq!(stuck.iter().filter(refused).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn more_events_than_memory_allows_are_refused_until_there_is_room() {
        let limits = limits(ADMISSION + 4 * ARRIVING);
        let body = || Body::from(vec![b'x'; 1600]);
        let held = limits.read(&HeaderMap::new(), body()).await.unwrap();
        let refused = limits.read(&HeaderMap::new(), body()).await;
        assert!(matches!(refused, Err(BodyError::NoMemory)), "{refused:?}");
        drop(held);
        assert!(limits.read(&HeaderMap::new(), body()).await.is_ok());
    }
}
