//! Entries in Keptn's error log, which its Bridge shows, for what no answer tells. Keptn's distributors from
//! 0.8.4 on make an entry of each errored `.finished` by themselves, so that there is none for those here,
//! and take an event for all others. Keptn before 0.8.4 has no such log. A silent action tells nothing here
//! either.
//!
//! An entry is worth a few tries and no more: it delays nothing, and one that may have arrived is not sent
//! again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ConstantBuilder, Retryable};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info};
use uuid::Uuid;

use super::{Http, SendError};
use crate::event::Envelope;
use crate::event::answer::SOURCE;
use crate::event::log_entry::{self, is_news, log_entry};
use crate::report;
use crate::telemetry::error_chain;

/// After the first one.
const MORE_TRIES: usize = 2;

const PAUSE: Duration = Duration::from_secs(2);

/// How long a registration is believed in; from Keptn 0.9 on its id stays the same.
const KEPT: Duration = Duration::from_secs(300);

/// How long a Keptn without a registration is not asked again.
const KEPT_IF_NONE: Duration = Duration::from_secs(60);

/// Entries under way; more are left out.
const MAX_UNDER_WAY: usize = 64;

/// Events that have their entry, which only this process remembers.
const REMEMBERED: usize = 1024;

const MAX_MESSAGE: usize = 8 << 10;

/// Of all registrations of that name, with their subscriptions.
const MAX_BYTES: usize = 1 << 20;

pub(crate) struct ErrorLog {
    http: Http,
    /// The distributor's.
    endpoint: Url,
    here: Here,
    /// Locked while Keptn is asked: whoever needs the answer too waits for it.
    integration: AsyncMutex<Option<Integration>>,
    /// The ids of entries.
    entered: Mutex<VecDeque<Uuid>>,
    permits: Arc<Semaphore>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

/// What tells this installation from others of its name.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(crate) namespace: String,
    pub(crate) pod: Option<String>,
}

struct Integration {
    id: Option<String>,
    asked: Instant,
}

/// What a distributor told Keptn of the service beside it.
#[derive(Debug, Default, Deserialize)]
struct Registration {
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "kubernetesmetadata")]
    kubernetes: KubernetesMetadata,
    /// RFC 3339, always in UTC.
    #[serde(default, rename = "lastseen")]
    last_seen: String,
}

#[derive(Debug, Default, Deserialize)]
struct KubernetesMetadata {
    #[serde(default)]
    namespace: String,
    #[serde(default, rename = "podname")]
    pod: String,
}

/// Why a try came to nothing.
struct Failed {
    reason: String,
    again: Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Worthwhile,
    Useless,
}

impl ErrorLog {
    /// For one request. Nobody waits for it.
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

    pub(crate) fn new(
        http: Http,
        endpoint: Url,
        here: Here,
        tasks: TaskTracker,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            http,
            endpoint,
            here,
            integration: AsyncMutex::default(),
            entered: Mutex::default(),
            permits: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            tasks,
            stopping,
        }
    }

    /// Makes an entry about an event, once, in the background.
    pub(crate) fn enter(self: &Arc<Self>, event: &Envelope, message: &str) {
        if !is_news(event) || !self.is_first(event) {
            return;
        }
        let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
            debug!("Keptn's error log gets no entry, too many are under way");
            return;
        };
        let (log, event) = (Arc::clone(self), event.clone());
        let message = report::shortened(message, MAX_MESSAGE);
        let work = async move {
            // What is under way at a shutdown is left out.
            let entry = log.try_enter(&event, &message);
            log.stopping.run_until_cancelled(entry).await;
            drop(permit);
        };
        self.tasks.spawn(work.in_current_span());
    }

    fn is_first(&self, event: &Envelope) -> bool {
        let id = log_entry::id(event);
        // No panic can leave it half changed.
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        if entered.contains(&id) {
            return false;
        }
        entered.push_back(id);
        if entered.len() > REMEMBERED {
            entered.pop_front();
        }
        true
    }

    async fn try_enter(&self, event: &Envelope, message: &str) {
        let Some(integration) = self.integration().await else {
            debug!("Keptn's error log gets no entry: no registration of this installation");
            return;
        };
        let entry = log_entry(event, &integration, message, Timestamp::now());
        let body = entry.to_string();
        let send = || self.send(&body);
        let outcome = send.retry(a_few_times()).when(Failed::may_pass).await;
        match outcome {
            Ok(()) => info!("the problem is in Keptn's error log"),
            Err(Failed { reason, .. }) => info!(reason, "Keptn's error log got no entry"),
        }
    }

    async fn send(&self, body: &str) -> Result<(), Failed> {
        let mut request = Request::new(Method::POST, self.endpoint.clone());
        request.headers_mut().insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/cloudevents+json"),
        );
        *request.body_mut() = Some(body.to_owned().into());
        let answered = self.http.send(request, MAX_BYTES).await;
        match answered.map_err(|error| Failed::of_sending(&error))?.status {
            status if status.is_success() => Ok(()),
            status => Err(Failed {
                reason: format!("{} answered {status}", self.endpoint),
                again: Again::Worthwhile,
            }),
        }
    }

    /// The id under which Keptn knows this installation, if it does.
    async fn integration(&self) -> Option<String> {
        let mut known = self.integration.lock().await;
        if let Some(Integration { id, asked }) = &*known {
            let kept = if id.is_some() { KEPT } else { KEPT_IF_NONE };
            if asked.elapsed() < kept {
                return id.clone();
            }
        }
        let ask = || self.ask();
        let asked = ask.retry(a_few_times()).when(Failed::may_pass).await;
        let id = match asked {
            Ok(registrations) => of_this(registrations, &self.here),
            Err(Failed { reason, .. }) => {
                debug!(reason, "Keptn's registrations cannot be asked for");
                None
            }
        };
        *known = Some(Integration {
            id: id.clone(),
            asked: Instant::now(),
        });
        id
    }

    async fn ask(&self) -> Result<Vec<Registration>, Failed> {
        let useless = |reason: String| Failed {
            reason,
            again: Again::Useless,
        };
        let mut url = self.endpoint.clone();
        url.path_segments_mut()
            .map_err(|()| useless("KEPTN_EVENT_ENDPOINT has no path".into()))?
            .clear()
            .extend(["controlPlane", "v1", "uniform", "registration"]);
        url.query_pairs_mut().append_pair("name", SOURCE);
        let request = Request::new(Method::GET, url);
        let answered = self.http.send(request, MAX_BYTES).await;
        let answered = answered.map_err(|error| Failed::of_asking(&error))?;
        let status = answered.status;
        // The first two are the answers of a Keptn that knows no registrations.
        if matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR
        ) || !(status.is_success() || status.is_server_error())
        {
            return Err(useless(format!("Keptn answered {status}")));
        }
        if !status.is_success() {
            return Err(Failed {
                reason: format!("Keptn answered {status}"),
                again: Again::Worthwhile,
            });
        }
        let body = answered.body.unwrap_or_default();
        // `null` is a list without items.
        let registrations: Option<Vec<Registration>> =
            serde_json::from_slice(&body).map_err(|_| useless("no list of them".into()))?;
        Ok(registrations.unwrap_or_default())
    }
}

impl Failed {
    fn may_pass(&self) -> bool {
        self.again == Again::Worthwhile
    }

    fn of_asking(error: &SendError) -> Self {
        Self {
            reason: error_chain(error),
            again: Again::Worthwhile,
        }
    }

    fn of_sending(error: &SendError) -> Self {
        Self {
            again: if error.may_have_arrived() {
                Again::Useless
            } else {
                Again::Worthwhile
            },
            ..Self::of_asking(error)
        }
    }
}

fn a_few_times() -> ConstantBuilder {
    ConstantBuilder::default()
        .with_delay(PAUSE)
        .with_max_times(MORE_TRIES)
}

/// The registration of this Pod, or else of this namespace. One of another namespace is another
/// installation's; of several here the one that is alive.
fn of_this(registrations: Vec<Registration>, here: &Here) -> Option<String> {
    registrations
        .into_iter()
        .filter(|of| of.name == SOURCE && !of.id.is_empty())
        .filter(|of| of.metadata.kubernetes.namespace == here.namespace)
        .max_by_key(|of| {
            let this_pod = here.pod.as_ref() == Some(&of.metadata.kubernetes.pod);
            (this_pod, of.metadata.last_seen.clone())
        })
        .map(|of| of.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(id: &str, namespace: &str, pod: &str, last_seen: &str) -> Registration {
        Registration {
            id: id.into(),
            name: SOURCE.into(),
            metadata: Metadata {
                kubernetes: KubernetesMetadata {
                    namespace: namespace.into(),
                    pod: pod.into(),
                },
                last_seen: last_seen.into(),
            },
        }
    }

    #[test]
    fn the_registration_of_this_installation_is_found() {
        let here = Here {
            namespace: "keptn".into(),
            pod: Some("jes-1".into()),
        };
        let found = |registrations| of_this(registrations, &here);
        let other = || registration("other", "elsewhere", "jes-1", "2026-01-03");
        let old = || registration("old", "keptn", "jes-0", "2026-01-01");
        let new = || registration("new", "keptn", "jes-2", "2026-01-02");
        let mine = || registration("mine", "keptn", "jes-1", "2025-01-01");
        let named = || Registration {
            name: "webhook-service".into(),
            ..mine()
        };
        assert_eq!(found(vec![other(), old(), new(), mine()]).unwrap(), "mine");
        assert_eq!(found(vec![new(), old(), other()]).unwrap(), "new");
        assert_eq!(found(vec![other(), named()]), None);
        assert_eq!(found(Vec::new()), None);
    }
}
