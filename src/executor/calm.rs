//! What can wait while events become durable: in a burst the first Jobs come before the news of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, timeout};

/// Nothing is put off for longer. Keptn waits for `.started` without a limit, a person does not.
const LONGEST: Duration = Duration::from_secs(5);

/// Between two events of a burst there may be a moment without any.
const REST: Duration = Duration::from_millis(20);

/// Of the marks of news. The API server shares its time among all that is asked at once, and senders wait for
/// their Jobs: thousands of marks would be before each.
const MARKS_AT_ONCE: usize = 4;

#[derive(Clone)]
pub(super) struct Calm {
    /// How many first Jobs are being created.
    creations: Arc<watch::Sender<usize>>,
    marks: Arc<Semaphore>,
}

impl Default for Calm {
    fn default() -> Self {
        Self {
            creations: Arc::new(watch::Sender::new(0)),
            marks: Arc::new(Semaphore::new(MARKS_AT_ONCE)),
        }
    }
}

/// Of a first Job, until it is dropped.
pub(super) struct Creation(Calm);

impl Calm {
    pub(super) fn disturbed(&self) -> Creation {
        // Nobody waits for more of them.
        self.creations.send_if_modified(|count| {
            *count += 1;
            false
        });
        Creation(self.clone())
    }

    /// Returns when no first Job is being created, or after a while.
    pub(super) async fn comes(&self) {
        let mut creations = self.creations.subscribe();
        let calm = async {
            while *creations.borrow_and_update() > 0 {
                // The sender lives as long as this does.
                creations.wait_for(|count| *count == 0).await.ok();
                sleep(REST).await;
            }
        };
        timeout(LONGEST, calm).await.ok();
    }

    /// Returns when it is the turn of a mark, which has it until this is dropped.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Nobody closes it.
        self.marks.acquire().await.ok()
    }
}

impl Drop for Creation {
    fn drop(&mut self) {
        self.0.creations.send_if_modified(|count| {
            *count -= 1;
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_a_burst_nothing_waits() {
        let (calm, begun) = (Calm::default(), Instant::now());
        drop(calm.disturbed());
        calm.comes().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn news_wait_for_the_end_of_a_burst() {
        let (calm, begun) = (Calm::default(), Instant::now());
        let first = calm.disturbed();
        let waits = tokio::spawn({
            let calm = calm.clone();
            async move { calm.comes().await }
        });
        sleep(Duration::from_secs(1)).await;
        let second = calm.disturbed();
        drop(first);
        sleep(Duration::from_secs(1)).await;
        assert!(!waits.is_finished());
        drop(second);
        waits.await.unwrap();
        assert_eq!(begun.elapsed(), Duration::from_secs(2) + REST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_without_end_puts_nothing_off_for_long() {
        let (calm, begun) = (Calm::default(), Instant::now());
        let _creation = calm.disturbed();
        calm.comes().await;
        assert_eq!(begun.elapsed(), LONGEST);
    }
}
