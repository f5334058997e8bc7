//! An event → its config → the matching actions → a run whose first Job exists.
//!
//! Admission goes on when the sender stops waiting: old distributors never deliver an event again. An
//! event that comes twice joins the admission or the run of its first delivery.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, info_span, warn};

use crate::cluster::{Cluster, Created, Existing, FirstJob, Start};
use crate::event::Event;
use crate::event::answer::Verdict;
use crate::executor::Executor;
use crate::job_config::reader::{self, CONFIG_URI, MAX_CONFIG_BYTES};
use crate::keptn::resources::{FetchError, Level, Resources};
use crate::policy::Policy;
use crate::report::{self, Ending, TaskReport};
use crate::resolve::{TaskDefaults, resolve};
use crate::run::{Run, RunId, Work, hash};

/// Keptn from 0.9 on gives up on a task that nobody started within 10 minutes; 2 of them are left for
/// telling it why.
const CONFIG_PATIENCE: Duration = Duration::from_secs((10 - 2) * 60);

/// Events that were answered without a Job, which only this process remembers.
const REMEMBERED: usize = 4096;

/// What the sender is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// No work follows from the event.
    Nothing(String),
    /// The run cannot be lost any more, or the answer is out.
    Accepted(String),
    /// A bug; the log has it.
    Panicked,
}

pub(crate) struct Admission {
    pub(crate) resources: Resources,
    pub(crate) cluster: Cluster,
    pub(crate) executor: Arc<Executor>,
    pub(crate) policy: Policy,
    pub(crate) defaults: TaskDefaults,
    pub(crate) under_way: UnderWay,
}

/// The admissions that have not ended, and the events that left nothing in the cluster.
#[derive(Default)]
pub(crate) struct UnderWay {
    pub(crate) tasks: TaskTracker,
    admissions: Mutex<HashMap<RunId, watch::Receiver<Option<Admitted>>>>,
    answered: Mutex<Answered>,
}

#[derive(Default)]
struct Answered {
    runs: HashSet<RunId>,
    order: VecDeque<RunId>,
}

/// A config that is there, with its hash.
struct Config {
    bytes: Vec<u8>,
    level: Level,
}

impl Admission {
    /// Starts the admission of an event, or joins the one under way; the receiver gets the result.
    /// `memory` is held for as long as the event is.
    pub(crate) fn admit(
        self: &Arc<Self>,
        event: Event,
        memory: Option<Arc<OwnedSemaphorePermit>>,
    ) -> watch::Receiver<Option<Admitted>> {
        let id = RunId::of(&event.envelope);
        let mut admissions = lock(&self.under_way.admissions);
        if let Some(admission) = admissions.get(&id) {
            return admission.clone();
        }
        let (sender, receiver) = watch::channel(None);
        admissions.insert(id.clone(), receiver.clone());
        drop(admissions);
        let span = info_span!(
            "admission", run = %id, event.id = event.envelope.id,
            event.r#type = %event.envelope.event_type, keptn.context = event.envelope.keptn_context,
        );
        let admission = Arc::clone(self);
        let work = async move {
            let decided = AssertUnwindSafe(admission.decide(&id, event))
                .catch_unwind()
                .await;
            sender.send_replace(Some(decided.unwrap_or_else(|_| {
                error!("admitting the event panicked");
                Admitted::Panicked
            })));
            lock(&admission.under_way.admissions).remove(&id);
            drop(memory);
        };
        self.under_way.tasks.spawn(work.instrument(span));
        receiver
    }

    async fn decide(&self, id: &RunId, event: Event) -> Admitted {
        let arrived = Timestamp::now();
        // The runs of an earlier process come first: one of them may be this event's.
        self.executor.recovered().await;
        if self.executor.is_executing(id) || lock(&self.under_way.answered).runs.contains(id) {
            return Admitted::Accepted("the event was seen before".into());
        }
        if event.envelope.scope.project.is_none() {
            return Admitted::Nothing(
                "the event has no `data.project`, so it has no config".into(),
            );
        }
        let config = match self.config(&event).await {
            Ok(Some(config)) => config,
            Ok(None) => {
                info!("no {CONFIG_URI} on service, stage or project level, nothing to do");
                return Admitted::Nothing(format!(
                    "no {CONFIG_URI} on service, stage or project level"
                ));
            }
            Err(error) => {
                let error = anyhow::Error::new(error).context(format!("cannot read {CONFIG_URI}"));
                return self
                    .refuse(id, &event, arrived, &format!("{error:#}"))
                    .await;
            }
        };
        let read = match reader::read(&config.bytes) {
            Ok(read) => read,
            Err(error) => return self.refuse(id, &event, arrived, &error.to_string()).await,
        };
        for warning in &read.warnings {
            warn!(level = ?config.level, "{warning}");
        }
        let matching = read.config.matching(&event);
        if matching.is_empty() {
            info!(
                "No match found for event {} of type {}. Skipping...",
                event.envelope.id, event.envelope.event_type
            );
            return Admitted::Nothing(format!("no action of {CONFIG_URI} matches the event"));
        }
        let actions = matching
            .into_iter()
            .map(|(index, action)| resolve(&event, index, action, &self.policy, &self.defaults))
            .collect();
        let run = Run {
            id: id.clone(),
            arrived,
            config_hash: hash(&config.bytes),
            event: event.envelope,
            actions,
        };
        self.make_durable(run).await
    }

    async fn make_durable(&self, run: Run) -> Admitted {
        for action in &run.actions {
            info!(
                "Match found for event {} of type {}. Starting k8s job to run action '{}'",
                run.event.id, run.event.event_type, action.name
            );
        }
        let Some(first) = run.first_place() else {
            return self.answer_refused(run).await;
        };
        let turn = self.executor.queue(&run);
        let start = if turn.is_now() {
            Start::Now
        } else {
            Start::Queued
        };
        match self.cluster.create(first, start).await {
            Ok(Created::New) => {
                let first = FirstJob {
                    queued: start == Start::Queued,
                    started_sent: false,
                };
                self.executor.start(run, turn, first);
                Admitted::Accepted("the run is started".into())
            }
            Ok(Created::Before) => {
                if let Existing::Unreported(run, first) = self.cluster.existing(first).await {
                    self.executor.start(*run, turn, first);
                }
                Admitted::Accepted("the event was seen before".into())
            }
            Err(refused) => {
                let task = first.task.name.clone();
                let action = first.action.index;
                let mut run = run;
                for of in run.actions.iter_mut().filter(|of| of.index == action) {
                    of.work = Work::Refused {
                        task: task.clone(),
                        reason: refused.to_string(),
                    };
                }
                // Another action may still be able to run.
                Box::pin(self.make_durable(run)).await
            }
        }
    }

    /// Answers a run of which nothing can run.
    async fn answer_refused(&self, run: Run) -> Admitted {
        let mut reports = Vec::new();
        for action in &run.actions {
            let Work::Refused { task, reason } = &action.work else {
                continue;
            };
            warn!(action = action.name, task, reason, "the task was refused");
            if !action.silent {
                reports.push(TaskReport {
                    task: task.clone(),
                    ending: Ending::Failed(reason.clone()),
                    logs: Vec::new(),
                });
            }
        }
        if run.is_answered() {
            let message = report::message(&reports, usize::MAX);
            let verdict = report::verdict(&reports);
            self.executor
                .answer_without_job(&run.event, run.arrived, verdict, &message)
                .await;
        }
        self.remember(&run.id);
        Admitted::Accepted("no task could be run, Keptn was told why".into())
    }

    /// Answers an event whose config is of no use.
    async fn refuse(
        &self,
        id: &RunId,
        event: &Event,
        arrived: Timestamp,
        reason: &str,
    ) -> Admitted {
        error!("{reason}");
        // A sequence's own event is shipyard-controller's to answer: a `.finished` of ours would end
        // the sequence and start the next stage's.
        if event.envelope.event_type.task().is_none() {
            return Admitted::Nothing(reason.to_owned());
        }
        self.executor
            .answer_without_job(&event.envelope, arrived, Verdict::Errored, reason)
            .await;
        self.remember(id);
        Admitted::Accepted(format!("answered as errored: {reason}"))
    }

    fn remember(&self, id: &RunId) {
        let mut answered = lock(&self.under_way.answered);
        if answered.runs.insert(id.clone()) {
            answered.order.push_back(id.clone());
        }
        if answered.order.len() > REMEMBERED
            && let Some(oldest) = answered.order.pop_front()
        {
            answered.runs.remove(&oldest);
        }
    }

    /// Service level, then stage, then project. Only Keptn's "not found" moves on: any other error
    /// may hide a config.
    async fn config(&self, event: &Event) -> Result<Option<Config>, FetchError> {
        let commit = event.envelope.git_commit_id.as_deref();
        for level in [Level::Service, Level::Stage, Level::Project] {
            // The commit is one of the stage's branch, the project's files are on another.
            let commit = commit.filter(|_| level != Level::Project);
            let scope = &event.envelope.scope;
            let get = || {
                self.resources
                    .get(scope, level, CONFIG_URI, commit, MAX_CONFIG_BYTES)
            };
            let found = get
                .retry(
                    ExponentialBuilder::default()
                        .with_min_delay(Duration::from_millis(100))
                        .with_max_delay(Duration::from_secs(5))
                        .without_max_times()
                        .with_total_delay(Some(CONFIG_PATIENCE))
                        .with_jitter(),
                )
                .when(|error| !matches!(error, FetchError::TooLarge { .. }))
                .notify(|error, pause| {
                    warn!(
                        error = format!("{:#}", error_chain(error)),
                        retry_in_ms = pause.as_millis(),
                        "{CONFIG_URI} could not be read"
                    );
                })
                .await?;
            if let Some(bytes) = found {
                return Ok(Some(Config { bytes, level }));
            }
        }
        Ok(None)
    }
}

fn error_chain(error: &FetchError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic can leave these collections half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
