//! Events that ask Keptn for the same at the same time: some ask at once, the others together.
//!
//! The configuration service reads its repository for each question, and the events of a burst are often of one
//! service of Keptn's. Nobody gets an answer to a question that was asked before the event came.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, watch};

use super::lock;

/// Of one key, at once: a question that takes long does not hold up those that come after it.
const AT_ONCE: usize = 2;

pub(super) struct SharedReads<Key, Answer> {
    by_key: Mutex<HashMap<Key, Entry<Answer>>>,
}

struct Entry<Answer> {
    /// Who reads at the moment.
    count: usize,
    readers: Arc<Readers<Answer>>,
}

/// One of those who read, until it is dropped.
struct Reading<'a, Key: Eq + Hash, Answer> {
    reads: &'a SharedReads<Key, Answer>,
    key: &'a Key,
}

struct Readers<Answer> {
    permits: Semaphore,
    /// The answer to a question that waits to be asked, for whoever wants to know the same.
    next: Mutex<Option<watch::Receiver<Option<Answer>>>>,
}

impl<Key, Answer> Default for SharedReads<Key, Answer> {
    fn default() -> Self {
        Self {
            by_key: Mutex::default(),
        }
    }
}

impl<Answer> Default for Entry<Answer> {
    fn default() -> Self {
        Self {
            count: 0,
            readers: Arc::default(),
        }
    }
}

impl<Answer> Default for Readers<Answer> {
    fn default() -> Self {
        Self {
            permits: Semaphore::new(AT_ONCE),
            next: Mutex::default(),
        }
    }
}

enum Role<Answer> {
    /// For others, too.
    Asks(watch::Sender<Option<Answer>>),
    Listens(watch::Receiver<Option<Answer>>),
}

impl<Key: Clone + Eq + Hash, Answer: Clone> SharedReads<Key, Answer> {
    /// The answer to a question that is asked now or later, by whomever.
    pub(super) async fn read(&self, key: &Key, ask: impl AsyncFnOnce() -> Answer) -> Answer {
        let (readers, _reading) = self.begin(key);
        readers.read(ask).await
    }

    fn begin<'a>(&'a self, key: &'a Key) -> (Arc<Readers<Answer>>, Reading<'a, Key, Answer>) {
        let mut by_key = lock(&self.by_key);
        let entry = by_key.entry(key.clone()).or_default();
        entry.count += 1;
        (Arc::clone(&entry.readers), Reading { reads: self, key })
    }
}

impl<Key: Eq + Hash, Answer> Drop for Reading<'_, Key, Answer> {
    fn drop(&mut self) {
        let mut by_key = lock(&self.reads.by_key);
        if let Some(entry) = by_key.get_mut(self.key) {
            entry.count -= 1;
            if entry.count == 0 {
                by_key.remove(self.key);
            }
        }
    }
}

impl<Answer: Clone> Readers<Answer> {
    async fn read(&self, ask: impl AsyncFnOnce() -> Answer) -> Answer {
        loop {
            // The semaphore is never closed. It gives nothing to those that try while others wait.
            if let Ok(_permit) = self.permits.try_acquire() {
                return ask().await;
            }
            match self.role() {
                Role::Asks(sender) => {
                    let _permit = self.permits.acquire().await.ok();
                    // Whoever comes from now on may know of something newer.
                    lock(&self.next).take();
                    let answer = ask().await;
                    sender.send_replace(Some(answer.clone()));
                    return answer;
                }
                Role::Listens(mut receiver) => {
                    // Who asked may have given up; then this one tries.
                    if let Ok(answer) = receiver.wait_for(Option::is_some).await
                        && let Some(answer) = answer.clone()
                    {
                        return answer;
                    }
                }
            }
        }
    }

    fn role(&self) -> Role<Answer> {
        let mut next = lock(&self.next);
        match next.as_ref() {
            Some(receiver) if receiver.has_changed().is_ok() => Role::Listens(receiver.clone()),
            _ => {
                let (sender, receiver) = watch::channel(None);
                *next = Some(receiver);
                Role::Asks(sender)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures::future::join_all;
    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    /// Answers with how many were asked before.
    #[derive(Default)]
    struct Keptn {
        asked: AtomicUsize,
        reads: SharedReads<&'static str, usize>,
    }

    impl Keptn {
        async fn read(&self, key: &'static str) -> usize {
            let ask = async || {
                let number = self.asked.fetch_add(1, Ordering::Relaxed);
                sleep(TIME).await;
                number
            };
            self.reads.read(&key, ask).await
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_cannot_ask_at_once_ask_together() {
        let (keptn, begun) = (Keptn::default(), Instant::now());
        let mut answers = join_all((0..100).map(|_| keptn.read("a"))).await;
        answers.dedup();
        assert_eq!(answers, [0, 1, 2]);
        assert_eq!(begun.elapsed(), 2 * TIME);
        assert!(lock(&keptn.reads.by_key).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_never_older_than_the_question() {
        let keptn = Keptn::default();
        let late = async {
            sleep(TIME / 2).await;
            keptn.read("a").await
        };
        let later = async {
            sleep(TIME * 3 / 2).await;
            keptn.read("a").await
        };
        let first = join_all((0..AT_ONCE).map(|_| keptn.read("a")));
        let (first, late, later) = tokio::join!(first, late, later);
        assert_eq!((first, late, later), (vec![0, 1], 2, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_the_same_is_asked_at_once() {
        let (keptn, begun) = (Keptn::default(), Instant::now());
        join_all(["a", "b", "c", "d", "e", "f"].map(|key| keptn.read(key))).await;
        assert_eq!((keptn.asked(), begun.elapsed()), (6, TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_leaves_the_others_an_answer() {
        let keptn = Keptn::default();
        let first = join_all((0..AT_ONCE).map(|_| keptn.read("a")));
        let gives_up = timeout(TIME / 2, keptn.read("a"));
        let (_, gone, answer) = tokio::join!(first, gives_up, keptn.read("a"));
        assert!(gone.is_err());
        assert_eq!(answer, AT_ONCE);
        assert!(lock(&keptn.reads.by_key).is_empty());
    }
}
