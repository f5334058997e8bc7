//! What events to Keptn are sent with.

use std::time::Duration;

use reqwest::Url;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cli::ServeSettings;
use crate::keptn::answers::Answers;
use crate::keptn::error_log::{ErrorLog, Here};
use crate::keptn::event_store::EventStore;
use crate::keptn::{Http, Transport};

pub(super) struct ToKeptn<'a> {
    pub(super) transport: &'a Transport,
    pub(super) endpoint: &'a Url,
    pub(super) attempts: &'a TaskTracker,
    pub(super) stop: &'a CancellationToken,
    /// From when the store takes an event until it tells of it.
    pub(super) store_lag: Duration,
}

impl ToKeptn<'_> {
    fn over(&self, timeout: Duration) -> Http {
        Http::over(self.transport.clone(), timeout)
    }

    pub(super) fn answers(
        &self,
        settings: &ServeSettings,
        doubt: watch::Receiver<Option<Instant>>,
    ) -> Answers {
        Answers::new(
            self.over(Answers::TIMEOUT),
            self.endpoint.clone(),
            EventStore::new(
                self.over(EventStore::TIMEOUT),
                self.endpoint,
                self.store_lag,
            ),
            settings.max_answer_bytes as usize,
            self.attempts.clone(),
            self.stop.clone(),
            doubt,
        )
    }

    pub(super) fn error_log(&self, settings: &ServeSettings, own_namespace: &str) -> ErrorLog {
        let here = Here {
            namespace: own_namespace.to_owned(),
            pod: settings.pod_name.clone(),
        };
        let (http, endpoint) = (self.over(ErrorLog::TIMEOUT), self.endpoint.clone());
        ErrorLog::new(
            http,
            endpoint,
            here,
            self.attempts.clone(),
            self.stop.clone(),
        )
    }
}
