//! Keptn's event store (mongodb-datastore, reached through the distributor): what this service has
//! answered already. It lags by up to a second ([`LAG`]), so that only "yes" is certain.

use std::time::Duration;

use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;
use tracing::info;

use super::Http;
use crate::event::answer::{Answer, SOURCE};
use crate::telemetry::error_chain;

/// How long after it was sent an event may be missing from the store of a Keptn.
pub(crate) const LAG: Duration = Duration::from_millis(1500);

const MAX_BYTES: usize = 4 << 20;

#[derive(Clone)]
pub(crate) struct EventStore {
    http: Http,
    /// The distributor's, without a path.
    base: Url,
    /// How long after it was sent an event may be missing from this one.
    lag: Duration,
}

/// What the store says of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    Yes,
    /// Not yet, at least.
    No,
    /// It cannot be asked.
    Unknown,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    events: Vec<StoredEvent>,
}

#[derive(Deserialize)]
struct StoredEvent {
    #[serde(default, rename = "triggeredid")]
    triggered_id: String,
    #[serde(default, rename = "type")]
    event_type: String,
    #[serde(default)]
    source: String,
}

impl EventStore {
    /// A new event waits for it, and its sender waits 5 s; without it the run must go on, too.
    pub(crate) const TIMEOUT: Duration = Duration::from_millis(1500);

    /// `endpoint` is where events are sent: the distributor gives the store on another path.
    pub(crate) fn new(http: Http, endpoint: &Url, lag: Duration) -> Self {
        let mut base = endpoint.clone();
        base.set_query(None);
        Self { http, base, lag }
    }

    pub(crate) fn lag(&self) -> Duration {
        self.lag
    }

    /// Whether Keptn has this answer.
    pub(crate) async fn has(&self, answer: &Answer) -> Stored {
        match self.ask(answer).await {
            Ok(events) => {
                let is_it = |event: &StoredEvent| {
                    event.triggered_id == answer.envelope().id
                        && event.event_type == answer.event_type()
                        && event.source == SOURCE
                };
                if events.iter().any(is_it) {
                    Stored::Yes
                } else {
                    Stored::No
                }
            }
            Err(reason) => {
                info!(reason, "Keptn's event store cannot be asked");
                Stored::Unknown
            }
        }
    }

    async fn ask(&self, answer: &Answer) -> Result<Vec<StoredEvent>, String> {
        let envelope = answer.envelope();
        let context = envelope
            .keptn_context
            .as_deref()
            .ok_or("the event has no shkeptncontext to ask by")?;
        let by_context = [
            ("keptnContext", context),
            ("type", answer.event_type()),
            ("source", SOURCE),
            ("pageSize", "100"),
        ];
        // The store splits a filter at these, and drops the parts that it does not understand.
        let plain = |text: &str| !text.contains([':', ',', ' ']);
        if plain(context) && plain(&envelope.id) {
            let filter = format!(
                "shkeptncontext:{context} AND triggeredid:{} AND source:{SOURCE}",
                envelope.id
            );
            let path = ["event", "type", answer.event_type()];
            let exact = self.get(&path, &[("filter", filter.as_str())]).await?;
            if let Some(events) = exact {
                return Ok(events);
            }
        }
        self.get(&["event"], &by_context)
            .await?
            .ok_or_else(|| "it knows no such request".to_owned())
    }

    /// None where there is nothing under this path.
    async fn get(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Option<Vec<StoredEvent>>, String> {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .map_err(|()| "KEPTN_EVENT_ENDPOINT has no path")?
            .clear()
            .push("mongodb-datastore")
            .extend(path);
        url.query_pairs_mut().extend_pairs(query);
        let request = Request::new(Method::GET, url);
        let answered = self.http.send(request, MAX_BYTES).await;
        let answered = answered.map_err(|error| error_chain(&error))?;
        let status = answered.status;
        if matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
        ) {
            return Ok(None);
        }
        if !status.is_success() {
            return Err(format!("it answered {status}"));
        }
        let body = answered.body.ok_or("it answered too much")?;
        let body: Body = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
        Ok(Some(body.events))
    }
}
