//! The connections whose request has not come in full, and until when each may take what it takes.
//!
//! When there are too many, the oldest give way: whoever is slow among hundreds does not keep out those that
//! come after.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// From the beginning of a connection to the header of its first request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// From the header to the last byte of the answer: the body has 10 s, no answer takes as long to make, and what
/// is left is for reading it. Where the connection is kept, reading is part of [`IDLE_TIMEOUT`].
pub(super) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// From an answer to the next request. Clients of Go and of Rust give up a connection that was idle for 90 s; were
/// the server the first to do so, an event that is just being sent would be lost, as no client sends a POST
/// again by itself. A distributor that polls sends every so many tens of seconds, hence no multiple of ten.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(127);

/// Each takes up to [`super::connections::BUFFER`] and some 10 KiB, 13 MiB together. It is half of the file
/// descriptors that a process often has. Of the status page, whose answers are large, it is all connections: there
/// nothing says that a request is complete.
const MAX_ARRIVING: usize = 512;

/// Of one port.
#[derive(Default)]
pub(super) struct Arriving(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, Place>,
    /// No connection is kept for another request any more.
    is_closing: bool,
}

struct Place {
    phase: Phase,
    end: CancellationToken,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// New, or its header is here.
    Begun,
    /// It was answered, and may send another request.
    Idle,
}

/// What becomes of a connection when its request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Afterwards {
    Closed,
    /// For the next request.
    Kept,
}

/// What comes on a connection.
#[derive(Clone)]
pub(super) struct Arrival(Arc<Inner>);

struct Inner {
    all: Arc<Arriving>,
    end: CancellationToken,
    state: Mutex<State>,
}

struct State {
    /// Its place among those whose request has not come in full.
    number: Option<u64>,
    until: Instant,
}

impl Arriving {
    /// A connection, of which the first request is awaited.
    pub(super) fn accepted(self: &Arc<Self>) -> Arrival {
        let end = CancellationToken::new();
        let number = self.waiting().takes(Phase::Begun, &end);
        Arrival(Arc::new(Inner {
            all: Arc::clone(self),
            end,
            state: Mutex::new(State {
                number: Some(number),
                until: Instant::now() + HEADER_TIMEOUT,
            }),
        }))
    }

    /// Ends the connections that are idle; the others go on to their answer.
    pub(super) fn close(&self) {
        let mut waiting = self.waiting();
        waiting.is_closing = true;
        for place in waiting.by_age.values() {
            if place.phase == Phase::Idle {
                place.end.cancel();
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.0)
    }
}

impl Waiting {
    fn takes(&mut self, phase: Phase, end: &CancellationToken) -> u64 {
        let number = self.next;
        self.next += 1;
        let end = end.clone();
        self.by_age.insert(number, Place { phase, end });
        if self.by_age.len() > MAX_ARRIVING
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            oldest.end.cancel();
        }
        number
    }
}

impl Arrival {
    /// The header of a request is here.
    pub(super) fn has_header(&self) {
        let mut state = self.state();
        state.until = Instant::now() + EXCHANGE_TIMEOUT;
        if let Some(number) = state.number
            && let Some(place) = self.0.all.waiting().by_age.get_mut(&number)
        {
            place.phase = Phase::Begun;
        }
    }

    /// The request is here; until it is answered nobody ends it for its age.
    pub(super) fn is_complete(&self) {
        if let Some(number) = self.state().number.take() {
            self.0.all.waiting().by_age.remove(&number);
        }
    }

    /// Its answer is made; the next request is awaited, unless the server stops.
    pub(super) fn is_answered(&self) -> Afterwards {
        self.is_complete();
        let mut state = self.state();
        let mut waiting = self.0.all.waiting();
        if waiting.is_closing {
            return Afterwards::Closed;
        }
        state.number = Some(waiting.takes(Phase::Idle, &self.0.end));
        state.until = Instant::now() + IDLE_TIMEOUT;
        Afterwards::Kept
    }

    /// When it has taken too long for what it is at.
    pub(super) fn until(&self) -> Instant {
        self.state().until
    }

    /// Cancelled when it has to give way.
    pub(super) fn end(&self) -> &CancellationToken {
        &self.0.end
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic can leave what is behind it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_there_are_too_many_the_oldest_whose_request_is_not_complete_gives_way() {
        let all = Arc::<Arriving>::default();
        let (complete, idle) = (all.accepted(), all.accepted());
        complete.is_complete();
        let slow = all.accepted();
        assert_eq!(idle.is_answered(), Afterwards::Kept);
        // The idle one is younger than the slow one now.
        let others: Vec<Arrival> = (2..MAX_ARRIVING).map(|_| all.accepted()).collect();
        assert!(!slow.end().is_cancelled());
        let _one_more = all.accepted();
        assert!(slow.end().is_cancelled());
        assert!(!idle.end().is_cancelled());
        let _another = all.accepted();
        assert!(idle.end().is_cancelled());
        assert!(!complete.end().is_cancelled());
        assert!(!others[0].end().is_cancelled());
    }
}
