//! What is counted, as `OpenMetrics`. One registry for each service; the numbers begin at 0 with the process.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// The media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// From an event to its Job: an API call takes milliseconds, an outage of Keptn minutes.
const START_SECONDS: [f64; 11] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// From the end of the last task to the answer.
const ANSWER_SECONDS: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0];

/// What became of an event, or of a request that brought none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A run follows, or an answer is out.
    Accepted,
    /// No config, no match, or an answer long ago.
    Nothing,
    /// Not durable in time; the work goes on.
    Late,
    /// No event, or one that is too large.
    Invalid,
    Panicked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    /// It failed, and the action goes on.
    Warned,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fetched {
    Found,
    /// On no level.
    Absent,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Taken,
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Watched {
    Jobs,
    Pods,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Accepted,
        Self::Nothing,
        Self::Late,
        Self::Invalid,
        Self::Panicked,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Nothing => "nothing",
            Self::Late => "late",
            Self::Invalid => "invalid",
            Self::Panicked => "panicked",
        }
    }
}

impl Ended {
    const ALL: [Self; 3] = [Self::Succeeded, Self::Warned, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Warned => "warned",
            Self::Failed => "failed",
        }
    }
}

impl Fetched {
    const ALL: [Self; 3] = [Self::Found, Self::Absent, Self::Failed];

    fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
}

impl Delivery {
    const ALL: [Self; 2] = [Self::Taken, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Refused => "refused",
        }
    }
}

impl Watched {
    const ALL: [Self; 2] = [Self::Jobs, Self::Pods];

    fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Pods => "pods",
        }
    }
}

/// One label.
type Label<V> = [(&'static str, V); 1];

/// By their `outcome`.
type Count = Family<Label<&'static str>, Counter>;

#[derive(Clone)]
pub(crate) struct Metrics(Arc<All>);

struct All {
    registry: Registry,
    ready: Gauge,
    events: Count,
    runs: Gauge,
    tasks: Count,
    event_to_job: Histogram,
    end_to_answer: Histogram,
    deliveries: Count,
    configs: Count,
    /// By their status; 0 where there was no answer.
    requests: Family<Label<u16>, Counter>,
    /// By their resource.
    watches: Family<Label<&'static str>, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("job_executor");
        let ready = Gauge::default();
        registry.register(
            "ready",
            "Whether events are taken, as the last probe was answered: 1 or 0",
            ready.clone(),
        );
        let events = Count::default();
        registry.register("events", "Events by what became of them", events.clone());
        let runs = Gauge::default();
        registry.register(
            "runs_in_flight",
            "Runs that this process executes, those that wait for their turn included",
            runs.clone(),
        );
        let tasks = Count::default();
        registry.register("tasks", "Tasks that ended", tasks.clone());
        let event_to_job = Histogram::new(START_SECONDS);
        registry.register_with_unit(
            "event_to_job",
            "From an event's arrival to its first Job",
            Unit::Seconds,
            event_to_job.clone(),
        );
        let end_to_answer = Histogram::new(ANSWER_SECONDS);
        registry.register_with_unit(
            "end_to_answer",
            "From the end of a run's last task to the delivery of its answer",
            Unit::Seconds,
            end_to_answer.clone(),
        );
        let deliveries = Count::default();
        registry.register(
            "answer_attempts",
            "Attempts to send an event to Keptn",
            deliveries.clone(),
        );
        let configs = Count::default();
        registry.register(
            "config_fetches",
            "Look-ups of job/config.yaml on all levels",
            configs.clone(),
        );
        let requests = Family::<Label<u16>, Counter>::default();
        registry.register(
            "kubernetes_requests",
            "Requests to the Kubernetes API by status, 0 without an answer",
            requests.clone(),
        );
        let watches = Family::<Label<&'static str>, Counter>::default();
        registry.register(
            "watch_restarts",
            "Watches that failed and were begun anew",
            watches.clone(),
        );
        // What has not happened yet is 0: a rate begins with the first time, and an alert sees that one.
        for (of, outcomes) in [
            (&events, Outcome::ALL.map(Outcome::name).as_slice()),
            (&tasks, &Ended::ALL.map(Ended::name)),
            (&configs, &Fetched::ALL.map(Fetched::name)),
            (&deliveries, &Delivery::ALL.map(Delivery::name)),
        ] {
            for outcome in outcomes {
                drop(of.get_or_create(&[("outcome", *outcome)]));
            }
        }
        for watched in Watched::ALL {
            drop(watches.get_or_create(&[("resource", watched.name())]));
        }
        Self(Arc::new(All {
            registry,
            ready,
            events,
            runs,
            tasks,
            event_to_job,
            end_to_answer,
            deliveries,
            configs,
            requests,
            watches,
        }))
    }
}

/// A run that is executed, until it is dropped.
pub(crate) struct RunInFlight(Metrics);

impl Drop for RunInFlight {
    fn drop(&mut self) {
        self.0.0.runs.dec();
    }
}

impl Metrics {
    pub(crate) fn ready(&self, ready: bool) {
        self.0.ready.set(i64::from(ready));
    }

    pub(crate) fn event(&self, outcome: Outcome) {
        count(&self.0.events, outcome.name());
    }

    pub(crate) fn run_begins(&self) -> RunInFlight {
        self.0.runs.inc();
        RunInFlight(self.clone())
    }

    pub(crate) fn task(&self, outcome: Ended) {
        count(&self.0.tasks, outcome.name());
    }

    pub(crate) fn first_job(&self, arrived: Timestamp) {
        self.0.event_to_job.observe(seconds_since(arrived));
    }

    pub(crate) fn answered(&self, last_end: Timestamp) {
        self.0.end_to_answer.observe(seconds_since(last_end));
    }

    pub(crate) fn delivery(&self, outcome: Delivery) {
        count(&self.0.deliveries, outcome.name());
    }

    pub(crate) fn config(&self, outcome: Fetched) {
        count(&self.0.configs, outcome.name());
    }

    pub(crate) fn request(&self, code: Option<u16>) {
        let code = code.unwrap_or_default();
        self.0.requests.get_or_create(&[("code", code)]).inc();
    }

    pub(crate) fn watch_restarts(&self, resource: Watched) {
        let label = [("resource", resource.name())];
        self.0.watches.get_or_create(&label).inc();
    }

    /// In the text format of `OpenMetrics` 1.0.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to memory does not fail.
        prometheus_client::encoding::text::encode(&mut text, &self.0.registry).ok();
        text
    }
}

fn count(of: &Count, outcome: &'static str) {
    of.get_or_create(&[("outcome", outcome)]).inc();
}

/// A clock of the cluster may be ahead of this one.
fn seconds_since(then: Timestamp) -> f64 {
    let passed = Timestamp::now().duration_since(then);
    Duration::try_from(passed).map_or(0.0, |passed| passed.as_secs_f64())
}
