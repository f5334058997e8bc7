//! How many runs work at once, and who is next: the run whose event came in first.
//!
//! The queue itself is the cluster's (each waiting run has a suspended Job); this is only whose turn it
//! is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::run::RunId;

type Key = (Timestamp, RunId);

#[derive(Clone)]
pub(crate) struct Slots(Arc<Mutex<State>>);

struct State {
    limit: usize,
    /// After a restart more runs may be at work than a lower limit allows.
    working: usize,
    waiting: BTreeMap<Key, oneshot::Sender<Slot>>,
}

/// The right to work; the next in the queue gets it when this one is dropped.
pub(crate) struct Slot(Option<Slots>);

pub(crate) enum Turn {
    Now(Slot),
    Later(oneshot::Receiver<Slot>),
}

impl Slots {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            limit: count,
            working: 0,
            waiting: BTreeMap::new(),
        })))
    }

    /// Takes a slot, or a place in the queue.
    pub(crate) fn queue(&self, arrived: Timestamp, run: &RunId) -> Turn {
        let mut state = self.state();
        if state.working < state.limit {
            state.working += 1;
            return Turn::Now(Slot(Some(self.clone())));
        }
        let (sender, receiver) = oneshot::channel();
        state.waiting.insert((arrived, run.clone()), sender);
        Turn::Later(receiver)
    }

    /// For a run that works already, as after a restart: it has its slot even above the limit.
    pub(crate) fn take(&self) -> Turn {
        self.state().working += 1;
        Turn::Now(Slot(Some(self.clone())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No panic can leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub(crate) fn is_now(&self) -> bool {
        matches!(self, Self::Now(_))
    }

    pub(crate) async fn wait(self) -> Option<Slot> {
        match self {
            Self::Now(slot) => Some(slot),
            // The sender is dropped only with the queue, at the end of the process.
            Self::Later(slot) => slot.await.ok(),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(slots) = self.0.take() else { return };
        let mut state = slots.state();
        state.working -= 1;
        while state.working < state.limit {
            let Some((_, next)) = state.waiting.pop_first() else {
                return;
            };
            match next.send(Slot(Some(slots.clone()))) {
                Ok(()) => state.working += 1,
                // Whoever gave up waiting is passed over; dropping the slot must not free it again.
                Err(mut unwanted) => unwanted.0 = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::envelope;

    fn queue(slots: &Slots, second: i64) -> Turn {
        let arrived = Timestamp::from_second(second).unwrap();
        slots.queue(arrived, &RunId::of(&envelope(&second.to_string()), ""))
    }

    #[tokio::test]
    async fn the_first_to_arrive_is_the_next_to_run() {
        let slots = Slots::new(1);
        let Turn::Now(slot) = queue(&slots, 1) else {
            panic!("a free slot is given at once");
        };
        let (third, gone, second) = (queue(&slots, 3), queue(&slots, 0), queue(&slots, 2));
        drop(gone);
        assert!(!second.is_now() && !third.is_now());
        drop(slot);
        let slot = second.wait().await.unwrap();
        let Turn::Later(mut waiting) = third else {
            panic!("the limit is one");
        };
        assert!(waiting.try_recv().is_err());
        drop(slot);
        drop(waiting.await.unwrap());
        assert!(queue(&slots, 4).is_now());
    }
}
