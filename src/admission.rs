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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, info_span, warn};

use crate::cluster::{Announced, Cluster, Created, Existing, FirstJob, Start};
use crate::event::Event;
use crate::event::answer::Verdict;
use crate::executor::Executor;
use crate::job_config::reader::{self, CONFIG_URI, ConfigError, MAX_CONFIG_BYTES};
use crate::keptn::resources::{FetchError, Level, Resources};
use crate::policy::Policy;
use crate::report::{self, Ending, TaskReport};
use crate::resolve::{Resolver, TaskDefaults};
use crate::run::{Run, RunId, Work, hash};
use crate::telemetry::error_chain;

/// For all levels together. Keptn from 0.9 on gives up on a task that nobody started within 10
/// minutes; 2 of them are left for telling it why.
const CONFIG_PATIENCE: Duration = Duration::from_secs((10 - 2) * 60);

/// Matching is the only work of the service that takes a processor for long; probes are answered
/// meanwhile.
const MAX_SEARCHES: usize = 1;

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
    /// Tells the runs of several installations in one namespace apart.
    pub(crate) installation: String,
    pub(crate) under_way: UnderWay,
}

/// The admissions that have not ended, and the events that left nothing in the cluster.
pub(crate) struct UnderWay {
    /// Events that are being matched.
    searches: Semaphore,
    pub(crate) tasks: TaskTracker,
    admissions: Mutex<HashMap<RunId, watch::Receiver<Option<Admitted>>>>,
    answered: Mutex<Answered>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            searches: Semaphore::new(MAX_SEARCHES),
            tasks: TaskTracker::new(),
            admissions: Mutex::default(),
            answered: Mutex::default(),
        }
    }
}

#[derive(Default)]
struct Answered {
    runs: HashSet<RunId>,
    order: VecDeque<RunId>,
}

/// A config, and the level that it was found on.
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
        memory: Arc<OwnedSemaphorePermit>,
    ) -> watch::Receiver<Option<Admitted>> {
        let id = RunId::of(&event.envelope, &self.installation);
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
            Err(reason) => {
                let reason = format!("cannot read {CONFIG_URI}: {reason}");
                return self.refuse(id, &event, arrived, &reason).await;
            }
        };
        // Reading and searching take a while where both are as large as they may be.
        let permit = self.under_way.searches.acquire().await;
        let run = tokio::task::block_in_place(|| self.run(id, &event, arrived, &config));
        drop(permit);
        match run {
            Ok(Some(run)) => self.make_durable(run).await,
            Ok(None) => {
                info!(
                    "No match found for event {} of type {}. Skipping...",
                    event.envelope.id, event.envelope.event_type
                );
                Admitted::Nothing(format!("no action of {CONFIG_URI} matches the event"))
            }
            Err(error) => self.refuse(id, &event, arrived, &error.to_string()).await,
        }
    }

    /// The run that the config makes of an event, if any action matches.
    fn run(
        &self,
        id: &RunId,
        event: &Event,
        arrived: Timestamp,
        config: &Config,
    ) -> Result<Option<Run>, ConfigError> {
        let read = reader::read(&config.bytes)?;
        for warning in &read.warnings {
            warn!(level = ?config.level, "{warning}");
        }
        let matching = read.config.matching(event);
        if matching.is_empty() {
            return Ok(None);
        }
        let mut resolver = Resolver::new(event, id, &self.policy, &self.defaults);
        Ok(Some(Run {
            id: id.clone(),
            arrived,
            config_hash: hash(&config.bytes),
            event: event.envelope.clone(),
            actions: matching
                .into_iter()
                .map(|(index, action)| resolver.action(index, action))
                .collect(),
        }))
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
                    announced: Announced::No,
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
                // Somebody else may use the slot while Keptn is told.
                drop(turn);
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
        // Nobody asked for an answer to a sequence's own event, as an action that matches it does: it
        // is shipyard-controller's to answer, and `.finished` would start what waits for its end.
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

    /// Service level, then stage, then project. Only 404 moves on: any other error may hide a config.
    /// The error is for the reader of the answer.
    async fn config(&self, event: &Event) -> Result<Option<Config>, String> {
        let last_error = Mutex::new(String::from("no answer"));
        let lookup = async {
            for level in [Level::Service, Level::Stage, Level::Project] {
                if let Some(bytes) = self.config_of(event, level, &last_error).await? {
                    return Ok(Some(Config { bytes, level }));
                }
            }
            Ok::<_, FetchError>(None)
        };
        match timeout(CONFIG_PATIENCE, lookup).await {
            Ok(Ok(config)) => Ok(config),
            Ok(Err(error)) => Err(error_chain(&error)),
            Err(_) => Err(format!(
                "{} (tried for {} minutes)",
                lock(&last_error),
                CONFIG_PATIENCE.as_secs() / 60
            )),
        }
    }

    async fn config_of(
        &self,
        event: &Event,
        level: Level,
        last_error: &Mutex<String>,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let scope = &event.envelope.scope;
        // The commit is one of the stage's branch, the project's files are on another.
        let commit = event.envelope.git_commit_id.as_deref();
        let commit = commit.filter(|_| level != Level::Project);
        let get = || {
            self.resources
                .get(scope, level, CONFIG_URI, commit, MAX_CONFIG_BYTES)
        };
        get.retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(5))
                .without_max_times()
                .with_jitter(),
        )
        .when(|error| !matches!(error, FetchError::TooLarge { .. }))
        .notify(|error, pause| {
            let error = error_chain(error);
            warn!(
                error,
                retry_in_ms = pause.as_millis(),
                "{CONFIG_URI} could not be read"
            );
            *lock(last_error) = error;
        })
        .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic can leave these collections half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
