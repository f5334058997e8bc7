//! Delivery of answers: each is sent until Keptn's distributor takes it, and once.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::event_store::{EventStore, Stored};
use super::{Answered, Http};
use crate::event::answer::Answer;
use crate::journal::Journal;
use crate::metrics::{Delivery, Metrics};
use crate::report;
use crate::telemetry::error_chain;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An event smaller than this is not refused for its size.
const SMALL: usize = 4 << 10;

const LEAST_MESSAGE: usize = 1 << 10;

/// Each refusal that size can explain leaves this part of the message.
const SHRINK: usize = 4;

/// Nobody reads what the distributor says with its status.
const MAX_REPLY: usize = 64 << 10;

#[derive(Clone)]
pub(crate) struct Answers {
    http: Http,
    endpoint: Url,
    store: EventStore,
    metrics: Metrics,
    journal: Journal,
    /// Bytes of a whole event.
    max_bytes: usize,
    /// What must not be cut at a shutdown: an attempt under way, with the note of its success.
    attempts: TaskTracker,
    stopping: CancellationToken,
    /// From when on another process may execute this one's runs: then nothing is sent.
    doubt: watch::Receiver<Option<Instant>>,
}

/// Whether an answer has been sent before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    No,
    /// At this moment at the latest, if at all: by an attempt without an answer, or by a process that
    /// is gone. A second one would hang a sequence of Keptn from 0.14 on.
    Perhaps(Instant),
    Yes,
}

/// An answer that Keptn took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    pub(crate) attempts: u32,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
}

/// Why an answer was not taken.
struct NotTaken {
    reason: String,
    /// Its size can be the reason.
    size: bool,
    may_have_arrived: bool,
}

impl Answers {
    /// A distributor that polls forwards to a gateway far away, and its own limit is 30 s: giving up
    /// earlier would leave open whether the event arrived.
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(35);

    pub(crate) fn new(
        http: Http,
        endpoint: Url,
        store: EventStore,
        max_bytes: usize,
        attempts: TaskTracker,
        stopping: CancellationToken,
        doubt: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            http,
            endpoint,
            store,
            metrics: Metrics::default(),
            journal: Journal::default(),
            max_bytes,
            attempts,
            stopping,
            doubt,
        }
    }

    pub(crate) fn told_to(self, metrics: Metrics, journal: Journal) -> Self {
        Self {
            metrics,
            journal,
            ..self
        }
    }

    /// Bytes of logs that are worth keeping.
    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The bytes that a message may take in this answer, as JSON writes it.
    pub(crate) fn room_for_message(&self, answer: &Answer) -> usize {
        let empty = answer.with_message(String::new());
        let taken = empty.to_json().map_or(self.max_bytes, |json| json.len());
        // Labels may take it all; the reason of a failure still has to be told.
        self.max_bytes.saturating_sub(taken).max(LEAST_MESSAGE)
    }

    /// Whether Keptn has this answer already.
    pub(crate) async fn stored(&self, answer: &Answer) -> Stored {
        self.store.has(answer).await
    }

    /// Returns when the answer was taken; during a shutdown, never: the next process sends it. `then`
    /// notes the delivery: no orderly shutdown comes between the two.
    pub(crate) async fn deliver<F: Future<Output = ()>>(
        &self,
        answer: Answer,
        mut sent: Sent,
        then: impl FnOnce(Delivered) -> F,
    ) -> Delivered {
        let mut then = Some(then);
        let (began, mut attempts) = (Timestamp::now(), 0);
        let event_type = answer.event_type();
        let mut pause = FIRST_PAUSE;
        let mut shortened = None;
        loop {
            if let Sent::Perhaps(at) = sent {
                tokio::time::sleep_until(at + self.store.lag()).await;
            }
            // The sender lives as long as the process.
            let mut doubt = self.doubt.clone();
            doubt.wait_for(|from| is_certain(*from)).await.ok();
            if self.stopping.is_cancelled() {
                std::future::pending::<()>().await;
            }
            attempts += 1;
            let attempt = async {
                let attempt = self.attempt(shortened.as_ref().unwrap_or(&answer), sent);
                let result = attempt.await;
                let told = result.as_ref().copied();
                let told = told.map_err(|failed| failed.reason.as_str());
                self.journal.attempt(answer.id(), told);
                result?;
                let delivered = Delivered {
                    attempts,
                    began,
                    ended: Timestamp::now(),
                };
                if let Some(then) = then.take() {
                    then(delivered).await;
                }
                Ok::<_, NotTaken>(delivered)
            };
            let failed = match self.attempts.track_future(attempt).await {
                Ok(delivered) => return delivered,
                Err(failed) => failed,
            };
            if failed.may_have_arrived {
                sent = Sent::Perhaps(Instant::now());
            }
            let tried = shortened.as_ref().unwrap_or(&answer).message();
            if failed.size && !tried.is_empty() {
                let reason = failed.reason;
                warn!(
                    event.r#type = event_type,
                    reason, "refused, perhaps for its size: trying a shorter message"
                );
                let shorter = report::shortened(tried, tried.len() / SHRINK);
                shortened = Some(answer.with_message(shorter));
                continue;
            }
            // The refusal had another reason, so the whole answer is tried again.
            shortened = None;
            warn!(
                event.r#type = event_type,
                reason = failed.reason,
                retry_in_seconds = pause.as_secs_f64(),
                "the event could not be sent to Keptn"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stopping.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, answer: &Answer, sent: Sent) -> Result<(), NotTaken> {
        let in_question = matches!(sent, Sent::Perhaps(_));
        if in_question && self.store.has(answer).await == Stored::Yes {
            info!(
                event.r#type = answer.event_type(),
                "Keptn has this event already"
            );
            return Ok(());
        }
        // The question took a while, and much longer where the process was stopped meanwhile.
        if !is_certain(*self.doubt.borrow()) {
            return Err(NotTaken {
                reason: "another process may execute the run by now".into(),
                size: false,
                may_have_arrived: false,
            });
        }
        let body = answer.to_json().map_err(|error| NotTaken {
            reason: error_chain(&error),
            size: false,
            may_have_arrived: false,
        })?;
        let bytes = body.len();
        let mut request = Request::new(Method::POST, self.endpoint.clone());
        request.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/cloudevents+json"),
        );
        *request.body_mut() = Some(body.into());
        let answered = self.http.send(request, MAX_REPLY).await;
        let is_taken = |answered: &Answered| answered.status.is_success();
        self.metrics.delivery(match &answered {
            Ok(answered) if is_taken(answered) => Delivery::Taken,
            _ => Delivery::Refused,
        });
        let status = match answered {
            Ok(answered) => answered.status,
            Err(error) => {
                return Err(NotTaken {
                    reason: error_chain(&error),
                    size: false,
                    may_have_arrived: error.may_have_arrived(),
                });
            }
        };
        if status.is_success() {
            info!(event.r#type = answer.event_type(), bytes, "sent to Keptn");
            return Ok(());
        }
        let too_large = status == StatusCode::PAYLOAD_TOO_LARGE;
        // The distributor's own refusal, or that of a gateway that gave up waiting.
        let unclear = status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT;
        let may_be_size = too_large || status == StatusCode::INTERNAL_SERVER_ERROR;
        Err(NotTaken {
            reason: format!("{} answered {status}", self.endpoint),
            size: may_be_size && bytes > SMALL,
            may_have_arrived: unclear,
        })
    }
}

/// Whether no other process can have taken over yet.
fn is_certain(doubt: Option<Instant>) -> bool {
    doubt.is_none_or(|from| Instant::now() < from)
}
