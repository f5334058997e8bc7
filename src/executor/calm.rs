//! What can wait while events become durable: in a burst the first Jobs come before the news of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{sleep, timeout};

/// Nothing is put off for longer. Keptn waits for `.started` without a limit, a person does not; 2,000 events
/// take a slow API server less.
const LONGEST: Duration = Duration::from_secs(10);

/// Between two events of a burst there may be a moment without any.
const REST: Duration = Duration::from_millis(20);

/// Of news, with its mark. The API server shares its time among all that is asked at once, and senders wait for
/// their Jobs: thousands of marks would be before each, and as many connections in memory.
const AT_ONCE: usize = 8;

/// Then it goes without: what is told of other runs may be stuck.
const LONGEST_FOR_A_TURN: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(super) struct Calm {
    /// How many first Jobs are being created.
    creations: Arc<watch::Sender<usize>>,
    turns: Arc<Semaphore>,
}

impl Default for Calm {
    fn default() -> Self {
        Self {
            creations: Arc::new(watch::Sender::new(0)),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
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

    /// Returns when it is the turn of some news, which has it until this is dropped, or after a while.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = timeout(LONGEST_FOR_A_TURN, self.turns.acquire()).await;
        // Nobody closes it.
        turn.ok()?.ok()
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

    #[tokio::test(start_paused = true)]
    async fn news_that_is_stuck_keeps_no_other_back_for_long() {
        let (calm, begun) = (Calm::default(), Instant::now());
        let mut stuck = Vec::new();
        for _ in 0..AT_ONCE {
            stuck.push(calm.turn().await);
        }
        assert!(stuck.iter().all(Option::is_some));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(calm.turn().await.is_none());
        assert_eq!(begun.elapsed(), LONGEST_FOR_A_TURN);
        drop(stuck);
        assert!(calm.turn().await.is_some());
    }
}
