//! Delivery of answers: each is sent until Keptn's distributor takes it.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use reqwest::{StatusCode, Url};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::event::answer::Answer;
use crate::report;

/// A distributor that polls forwards to a gateway far away, and its own limit is 30 s: giving up
/// earlier would leave open whether the event arrived.
const TIMEOUT: Duration = Duration::from_secs(35);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An event smaller than this is not refused for its size.
const SMALL: usize = 4 << 10;

/// Each refusal that size can explain leaves this part of the message.
const SHRINK: usize = 4;

#[derive(Clone)]
pub(crate) struct Answers {
    client: reqwest::Client,
    endpoint: Url,
    /// Bytes of a whole event.
    max_bytes: usize,
    /// What must not be cut at a shutdown: an attempt under way.
    attempts: TaskTracker,
    stopping: CancellationToken,
}

enum Refusal {
    Size(String),
    Other(String),
}

impl Answers {
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
        self.max_bytes.saturating_sub(taken)
    }

    /// Returns when the answer was taken; during a shutdown, never: the next process sends it.
    pub(crate) async fn deliver(&self, mut answer: Answer) {
        let event_type = answer.event_type().to_owned();
        let mut pause = FIRST_PAUSE;
        loop {
            if self.stopping.is_cancelled() {
                std::future::pending::<()>().await;
            }
            let body = match answer.to_json() {
                Ok(body) => body,
                Err(error) => {
                    tracing::error!(event.r#type = event_type, %error, "the answer cannot be written");
                    return;
                }
            };
            let bytes = body.len();
            match self.attempts.track_future(self.attempt(body)).await {
                Ok(()) => {
                    info!(event.r#type = event_type, bytes, "sent to Keptn");
                    return;
                }
                Err(Refusal::Size(reason)) => {
                    warn!(
                        event.r#type = event_type,
                        bytes,
                        reason,
                        "Keptn's distributor refused an event that may be too large, trying a shorter \
                         message"
                    );
                    let budget = answer.message().len() / SHRINK;
                    answer = answer.with_message(report::shortened(answer.message(), budget));
                    continue;
                }
                Err(Refusal::Other(reason)) => warn!(
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

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
