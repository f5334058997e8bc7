//! Delivery of answers: each is sent until Keptn's distributor takes it.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::event::answer::{Answer, SOURCE};
use crate::report;
use crate::telemetry::error_chain;

/// A distributor that polls forwards to a gateway far away, and its own limit is 30 s: giving up
/// earlier would leave open whether the event arrived.
const TIMEOUT: Duration = Duration::from_secs(35);

/// The event store is asked before a run goes on; without it the run must go on, too.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

const MAX_STORED_BYTES: usize = 4 << 20;

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An event smaller than this is not refused for its size.
const SMALL: usize = 4 << 10;

const LEAST_MESSAGE: usize = 1 << 10;

/// Each refusal that size can explain leaves this part of the message.
const SHRINK: usize = 4;

#[derive(Clone)]
pub(crate) struct Answers {
    client: reqwest::Client,
    endpoint: Url,
    /// Bytes of a whole event.
    max_bytes: usize,
    /// What must not be cut at a shutdown: an attempt under way, with the note of its success.
    attempts: TaskTracker,
    stopping: CancellationToken,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(default)]
    events: Vec<StoredEvent>,
}

#[derive(Deserialize)]
struct StoredEvent {
    #[serde(default, rename = "triggeredid")]
    triggered_id: String,
}

enum Refusal {
    Size(String),
    Other(String),
}

impl Answers {
    /// Bytes of logs that are worth keeping.
    pub(crate) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    pub(crate) fn new(
        endpoint: Url,
        max_bytes: usize,
        attempts: TaskTracker,
        stopping: CancellationToken,
    ) -> Result<Self, reqwest::Error> {
        Ok(Self {
            client: super::client(&endpoint, TIMEOUT)?,
            endpoint,
            max_bytes,
            attempts,
            stopping,
        })
    }

    /// The bytes that a message may take in this answer, as JSON writes it.
    pub(crate) fn room_for_message(&self, answer: &Answer) -> usize {
        let empty = answer.with_message(String::new());
        let taken = empty.to_json().map_or(self.max_bytes, |json| json.len());
        // Labels may take it all; the reason of a failure still has to be told.
        self.max_bytes.saturating_sub(taken).max(LEAST_MESSAGE)
    }

    /// Returns when the answer was taken; during a shutdown, never: the next process sends it. `then`
    /// notes the delivery: no orderly shutdown comes between the two.
    pub(crate) async fn deliver(&self, answer: Answer, then: impl Future<Output = ()>) {
        tokio::pin!(then);
        let event_type = answer.event_type();
        let mut pause = FIRST_PAUSE;
        loop {
            if self.stopping.is_cancelled() {
                std::future::pending::<()>().await;
            }
            let round = async {
                self.round(&answer).await?;
                then.as_mut().await;
                Ok::<_, String>(())
            };
            match self.attempts.track_future(round).await {
                Ok(()) => return,
                Err(reason) => warn!(
                    event.r#type = event_type,
                    reason,
                    retry_in_ms = pause.as_millis(),
                    "the event could not be sent to Keptn"
                ),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.stopping.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether Keptn's event store has this answer. It lags by up to a second and may be out of reach, so
    /// that "no" is not certain.
    pub(crate) async fn is_stored(&self, answer: &Answer) -> bool {
        match self.stored(answer).await {
            Ok(events) => {
                let triggered = answer.envelope().id.as_str();
                events.iter().any(|event| event.triggered_id == triggered)
            }
            Err(reason) => {
                info!(reason, "Keptn's event store cannot be asked");
                false
            }
        }
    }

    /// The one request that datastores of all versions answer exactly, through the distributor.
    async fn stored(&self, answer: &Answer) -> Result<Vec<StoredEvent>, String> {
        let mut url = self.endpoint.clone();
        url.set_path("/mongodb-datastore/event");
        let context = answer
            .envelope()
            .keptn_context
            .as_deref()
            .unwrap_or_default();
        let query = [
            ("keptnContext", context),
            ("type", answer.event_type()),
            ("source", SOURCE),
            ("pageSize", "100"),
        ];
        let request = self.client.get(url).query(&query).timeout(STORE_TIMEOUT);
        let response = request.send().await.map_err(|error| error_chain(&error))?;
        if !response.status().is_success() {
            return Err(format!("it answered {}", response.status()));
        }
        let body = super::body(response, MAX_STORED_BYTES).await;
        let body = body
            .map_err(|error| error_chain(&error))?
            .unwrap_or_default();
        let stored: Stored = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(stored.events)
    }

    /// Sends the answer, and shorter ones where its size can be the reason of a refusal. The next round
    /// begins with the whole answer again: a refusal may have had another reason.
    async fn round(&self, answer: &Answer) -> Result<(), String> {
        let mut answer = answer.clone();
        loop {
            let body = answer.to_json().map_err(|error| error_chain(&error))?;
            let bytes = body.len();
            match self.attempt(body).await {
                Ok(()) => {
                    info!(event.r#type = answer.event_type(), bytes, "sent to Keptn");
                    return Ok(());
                }
                Err(Refusal::Size(reason)) if !answer.message().is_empty() => {
                    warn!(
                        event.r#type = answer.event_type(),
                        bytes, reason, "refused, perhaps for its size: trying a shorter message"
                    );
                    let budget = answer.message().len() / SHRINK;
                    answer = answer.with_message(report::shortened(answer.message(), budget));
                }
                Err(Refusal::Size(reason) | Refusal::Other(reason)) => return Err(reason),
            }
        }
    }

    async fn attempt(&self, body: Vec<u8>) -> Result<(), Refusal> {
        let bytes = body.len();
        let sent = self
            .client
            .post(self.endpoint.clone())
            .header(CONTENT_TYPE, "application/cloudevents+json")
            .body(body)
            .send()
            .await;
        match sent {
            Ok(response) if response.status().is_success() => Ok(()),
            Ok(response) => {
                let status = response.status();
                let reason = format!("{} answered {status}", self.endpoint);
                let size = matches!(
                    status,
                    StatusCode::INTERNAL_SERVER_ERROR | StatusCode::PAYLOAD_TOO_LARGE
                );
                if size && bytes > SMALL {
                    Err(Refusal::Size(reason))
                } else {
                    Err(Refusal::Other(reason))
                }
            }
            Err(error) => Err(Refusal::Other(error_chain(&error))),
        }
    }
}
