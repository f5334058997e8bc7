//! Runs as spans of OpenTelemetry, for whoever collects them.
//!
//! Spans are made when a run is over, of its record and of what happened to it, and have ids that follow from
//! the run: a process that takes a run over tells the whole of it. Nothing waits for the collector.

mod export;
mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use reqwest::Url;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::keptn::Http;
use crate::run::SpansOfRuns;

pub(crate) use spans::{AnswerTold, Beginning, Config, Result, RunTold, TaskTold};

/// Of a collector that is away, or slow: about 2 MB.
const QUEUE: usize = 2048;

/// Where spans are sent, and as whose.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    /// With its path.
    pub(crate) url: Url,
    /// Names, and values such as credentials.
    pub(crate) headers: Vec<(String, SecretString)>,
    /// `service.name`.
    pub(crate) service: String,
}

/// Which of several processes it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Here {
    pub(crate) namespace: String,
    pub(crate) pod: Option<String>,
}

/// Takes what is told of runs.
#[derive(Clone, Default)]
pub(crate) struct Traces(Option<Queue>);

#[derive(Clone)]
struct Queue {
    spans: mpsc::Sender<Span>,
    /// Spans that the queue had no room for.
    dropped: Arc<AtomicU64>,
}

impl Traces {
    /// For one request to the collector.
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

    /// With the work of sending them, which ends soon after `stop`.
    pub(crate) fn to(
        collector: Collector,
        here: &Here,
        http: Http,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, spans) = mpsc::channel(QUEUE);
        let dropped = Arc::<AtomicU64>::default();
        let export = export::Export::new(collector, here, http, Arc::clone(&dropped));
        let queue = Queue {
            spans: sender,
            dropped,
        };
        (Self(Some(queue)), export.run(spans, stop))
    }

    pub(crate) fn of_runs(&self) -> SpansOfRuns {
        match self.0 {
            Some(_) => SpansOfRuns::Recorded,
            None => SpansOfRuns::None,
        }
    }

    /// Tells of a run that is over.
    pub(crate) fn run_is_over(&self, run: &RunTold<'_>) {
        if let Some(queue) = &self.0 {
            for span in spans::of(run) {
                if queue.spans.try_send(span).is_err() {
                    queue.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}
