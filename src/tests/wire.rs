//! The way between one process and its surroundings: each call has a name and a number, and goes wrong
//! as a test plans it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies before the call arrives.
    DiesBefore,
    /// The process dies when the call has had its effect, and before it has the answer.
    DiesAfter,
    /// Nothing listens.
    Refused,
    /// The call has no effect.
    Answered(u16),
    /// The call has its effect all the same.
    DoneBut(u16),
    /// The connection breaks, before or after the call has its effect.
    Broken { done: bool },
    /// No answer comes.
    Silence { done: bool },
}

/// The connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Nothing has arrived.
    Refused,
    Broken,
}

type Plan = Box<dyn FnMut(usize, &str) -> Option<Fault> + Send>;

#[derive(Clone)]
pub(super) struct Wire {
    state: Arc<Mutex<State>>,
    dead: watch::Sender<bool>,
}

struct State {
    calls: Vec<String>,
    plan: Plan,
}

impl Wire {
    pub(super) fn sound() -> Self {
        Self::with(|_, _| None)
    }

    /// `plan` gets the number of a call, from 0, and its name.
    pub(super) fn with(plan: impl FnMut(usize, &str) -> Option<Fault> + Send + 'static) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                calls: Vec::new(),
                plan: Box::new(plan),
            })),
            dead: watch::Sender::new(false),
        }
    }

    /// All calls so far, in order.
    pub(super) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// From now on nothing that the process does has an effect: to the world it is dead.
    pub(super) fn cut(&self) {
        self.dead.send_replace(true);
    }

    pub(super) async fn is_cut(&self) {
        let mut dead = self.dead.subscribe();
        dead.wait_for(|dead| *dead).await.unwrap();
    }

    /// Carries one call: `effect` is what happens on the other side, `answer` makes one of a status.
    pub(super) async fn carry<R>(
        &self,
        name: &str,
        effect: impl Future<Output = R>,
        answer: impl Fn(u16) -> R,
    ) -> Result<R, Lost> {
        let fault = {
            let mut state = self.state.lock().unwrap();
            if *self.dead.borrow() {
                None
            } else {
                let number = state.calls.len();
                state.calls.push(name.to_owned());
                (state.plan)(number, name)
            }
        };
        self.unless_dead().await;
        match fault {
            None => {
                let answer = effect.await;
                self.unless_dead().await;
                Ok(answer)
            }
            Some(Fault::DiesBefore) => {
                self.cut();
                std::future::pending().await
            }
            Some(Fault::DiesAfter) => {
                effect.await;
                self.cut();
                std::future::pending().await
            }
            Some(Fault::Refused) => Err(Lost::Refused),
            Some(Fault::Answered(code)) => Ok(answer(code)),
            Some(Fault::DoneBut(code)) => {
                effect.await;
                Ok(answer(code))
            }
            Some(Fault::Broken { done }) => {
                if done {
                    effect.await;
                }
                Err(Lost::Broken)
            }
            Some(Fault::Silence { done }) => {
                if done {
                    effect.await;
                }
                // Longer than anybody waits for an answer.
                tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
                Err(Lost::Broken)
            }
        }
    }

    async fn unless_dead(&self) {
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }
}
