//! An event → its config → the matching actions → a run whose first Job exists.
//!
//! Admission goes on when the sender stops waiting: old distributors never deliver an event again. An
//! event that comes twice joins the admission or the run of its first delivery.

mod admitted;
mod config;
mod last_configs;
mod shared_reads;

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span, debug, error, info, info_span, warn};

use crate::cluster::{Cluster, Sighting};
use crate::event::Event;
use crate::event::answer::Verdict;
use crate::executor::{Begun, Claim, Runs};
use crate::job_config::matching::why_none;
use crate::job_config::problem::{ConfigErrors, Problem};
use crate::job_config::reader::{CONFIG_URI, ReadConfig};
use crate::job_config::yaml;
use crate::journal::entry::Subject;
use crate::journal::{Earlier, Journal, RunEnd};
use crate::keptn::answers::Sent;
use crate::keptn::error_log::ErrorLog;
use crate::keptn::event_store::{LAG, Stored};
use crate::keptn::resources::Resources;
use crate::metrics::{Fetched, Metrics};
use crate::policy::Policy;
use crate::report::{self, Ending, TaskReport};
use crate::resolve::{Resolver, TaskDefaults};
use crate::run::{Run, RunId, hash};
use crate::traces::{self, Beginning};
pub(crate) use admitted::{Admitted, Decision};
use config::Config;
use last_configs::LastConfigs;

/// Matching is the only work of the service that takes a processor for long; probes are answered
/// meanwhile.
const MAX_SEARCHES: usize = 1;

/// How often an event store that has just answered is asked again.
const SECOND_QUESTIONS: usize = 3;

/// Events that were answered without a Job, which only this process remembers.
const REMEMBERED: usize = 4096;

pub(crate) struct Admission {
    pub(crate) resources: Resources,
    pub(crate) error_log: Arc<ErrorLog>,
    pub(crate) cluster: Cluster,
    pub(crate) runs: Arc<Runs>,
    pub(crate) policy: Policy,
    pub(crate) defaults: TaskDefaults,
    /// Tells the runs of several installations in one namespace apart.
    pub(crate) installation: String,
    pub(crate) metrics: Metrics,
    pub(crate) journal: Journal,
    pub(crate) under_way: UnderWay,
}

/// The admissions that have not ended, and the events that left nothing in the cluster.
pub(crate) struct UnderWay {
    /// Events that are being matched.
    searches: Arc<Semaphore>,
    reads: config::Reads,
    last_configs: LastConfigs,
    pub(crate) tasks: TaskTracker,
    admissions: Mutex<HashMap<RunId, watch::Receiver<Option<Admitted>>>>,
    answered: Mutex<Answered>,
}

impl Default for UnderWay {
    fn default() -> Self {
        Self {
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            reads: config::Reads::default(),
            last_configs: LastConfigs::default(),
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

/// No action is for the event, with the reasons.
struct NoMatch(String);

/// Why a config is of no use.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("cannot read {CONFIG_URI}: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Invalid(ConfigErrors),
}

/// What happened to an event before it came.
enum Past {
    None,
    /// It was begun, and somebody deleted its Jobs before it was over.
    Started,
    Job(Sighting),
    Answered,
}

impl Admission {
    /// Starts the admission of an event, or joins the one under way; the receiver gets the result.
    /// `memory` is held for as long as the event is.
    pub(crate) fn admit(
        self: &Arc<Self>,
        mut event: Event,
        memory: Arc<OwnedSemaphorePermit>,
    ) -> watch::Receiver<Option<Admitted>> {
        let id = RunId::of(&event.envelope, &self.installation);
        let sender = event.envelope.trace.take();
        event.envelope.trace = id.traced(sender, self.runs.executor.spans_of_runs());
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
            project = event.envelope.scope.project, stage = event.envelope.scope.stage,
            service = event.envelope.scope.service, actions = Empty, tasks = Empty,
        );
        let admission = Arc::clone(self);
        let begun = Instant::now();
        let work = async move {
            let (arrived, subject) = (Timestamp::now(), Subject::of(&event.envelope));
            let decided = AssertUnwindSafe(Box::pin(admission.decide(&id, event, arrived)))
                .catch_unwind()
                .await;
            let admitted = decided.unwrap_or_else(|_| {
                error!("admitting the event panicked");
                Admitted::Panicked
            });
            let outcome = admitted.decision();
            let seconds = begun.elapsed().as_secs_f64();
            info!(outcome, seconds, "the event is decided");
            let (outcome, reason) = admitted.told();
            let journal = &admission.journal;
            journal.event(subject, &id, outcome, reason, arrived);
            sender.send_replace(Some(admitted));
            lock(&admission.under_way.admissions).remove(&id);
            drop(memory);
        };
        self.under_way.tasks.spawn(work.instrument(span));
        receiver
    }

    async fn decide(self: &Arc<Self>, id: &RunId, event: Event, arrived: Timestamp) -> Admitted {
        if self.runs.is_claimed(id) || lock(&self.under_way.answered).runs.contains(id) {
            return seen_before();
        }
        if event.envelope.scope.project.is_none() {
            return Admitted::Nothing(
                Decision::NoProject,
                "the event has no `data.project`, so it has no config".into(),
            );
        }
        let found = config::find(&self.resources, &self.under_way.reads, &event).await;
        self.metrics.config(match &found {
            Ok(Some(_)) => Fetched::Found,
            Ok(None) => Fetched::Absent,
            Err(_) => Fetched::Failed,
        });
        let of_config = match &found {
            Ok(_) => traces::Config::Read,
            Err(_) => traces::Config::Unreadable,
        };
        let beginning = Beginning {
            config: Some((Timestamp::now(), of_config)),
            job: None,
        };
        let config = match found {
            Ok(Some(config)) => config,
            Ok(None) => {
                return Admitted::Nothing(
                    Decision::NoConfig,
                    format!("no {CONFIG_URI} on service, stage or project level"),
                );
            }
            Err(reason) => {
                let broken = Broken::Unreadable(reason);
                return self.refuse(id, &event, arrived, beginning, &broken).await;
            }
        };
        let event = Arc::new(event);
        match self.search(id, &event, arrived, config).await {
            Ok(Ok(run)) => self.begin(run, beginning).await,
            Ok(Err(NoMatch(why))) => {
                info!(
                    "No match found for event {} of type {}. Skipping...",
                    event.envelope.id, event.envelope.event_type
                );
                debug!(why, "no action matches");
                Admitted::Nothing(
                    Decision::NoMatch,
                    format!("no action of {CONFIG_URI} matches the event: {why}"),
                )
            }
            Err(errors) => {
                let broken = Broken::Invalid(errors);
                self.refuse(id, &event, arrived, beginning, &broken).await
            }
        }
    }

    /// Reading and searching take a processor for a while where both are as large as they may be.
    async fn search(
        self: &Arc<Self>,
        id: &RunId,
        event: &Arc<Event>,
        arrived: Timestamp,
        config: Config,
    ) -> Result<Result<Run, NoMatch>, ConfigErrors> {
        // What takes microseconds is done where it is.
        if event.is_small()
            && let Some(read) = self.under_way.last_configs.get(&config.bytes)
            && !read.config.searches_whole_events()
        {
            return Ok(self.run(id, event, arrived, &config, &read));
        }
        // The semaphore is never closed.
        let permit = Arc::clone(&self.under_way.searches)
            .acquire_owned()
            .await
            .ok();
        let (admission, id, event) = (Arc::clone(self), id.clone(), Arc::clone(event));
        let span = tracing::Span::current();
        let search = move || {
            let _permit = permit;
            span.in_scope(|| {
                let read = admission.under_way.last_configs.read(&config.bytes)?;
                Ok(admission.run(&id, &event, arrived, &config, &read))
            })
        };
        tokio::task::spawn_blocking(search)
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }

    /// The run that the config makes of an event, or why there is none.
    fn run(
        &self,
        id: &RunId,
        event: &Event,
        arrived: Timestamp,
        config: &Config,
        read: &ReadConfig,
    ) -> Result<Run, NoMatch> {
        if !read.warnings.is_empty() {
            let at = places(&read.warnings);
            warn!(config.level = ?config.level, at, "{CONFIG_URI} has what is ignored or surely wrong, `lint` says what");
        }
        for warning in &read.warnings {
            debug!("{warning}");
        }
        let matching = read.config.matching(event);
        if matching.is_empty() {
            return Err(NoMatch(why_none(&read.config.judge(event))));
        }
        let resolver = Resolver::new(event, id, &self.policy, &self.defaults);
        Ok(resolver.run(matching, hash(&config.bytes), arrived))
    }

    /// Makes the run durable, unless it was there before.
    async fn begin(&self, mut run: Run, beginning: Beginning) -> Admitted {
        let span = Span::current();
        span.record("actions", run.actions.len());
        span.record("tasks", run.task_count());
        for action in &run.actions {
            info!(
                "Match found for event {} of type {}. Starting k8s job to run action '{}'",
                run.event.id, run.event.event_type, action.name
            );
        }
        if run.first_place().is_none() {
            if self.is_known(&run.id).await {
                return seen_before();
            }
            return self.answer_refused(&run, beginning).await;
        }
        let Some(mut claim) = self.runs.claim(&run.id) else {
            return seen_before();
        };
        loop {
            let started = match self.past(&run).await {
                Past::None => Sent::No,
                Past::Started => Sent::Yes,
                Past::Job(first) => {
                    self.runs.go_on_with(claim, first);
                    return seen_before();
                }
                Past::Answered => {
                    let decision = Decision::AnsweredBefore;
                    return Admitted::Nothing(decision, "the event was answered before".into());
                }
            };
            match self.make_durable(claim, &mut run, started, beginning).await {
                Ok(admitted) => return admitted,
                Err(undecided) => claim = undecided,
            }
        }
    }

    /// What Keptn heard of this run before: a polling distributor of 0.8 delivers past events again after
    /// each of its restarts, when their Jobs are long gone.
    async fn past(&self, run: &Run) -> Past {
        // Creating it finds the first Job only in the namespace that the config names now.
        if self.cluster.has_several_namespaces()
            && let Some(first) = self.cluster.first_job(&run.id).await
        {
            return Past::Job(first);
        }
        if !run.is_answered() {
            return Past::None;
        }
        let executor = &self.runs.executor;
        match executor.was_started(&run.event, run.arrived).await {
            Stored::No | Stored::Unknown => return Past::None,
            Stored::Yes => {}
        }
        // As long as its Jobs are there they tell more.
        if let Some(first) = self.cluster.first_job(&run.id).await {
            return Past::Job(first);
        }
        for _ in 0..SECOND_QUESTIONS {
            match executor.was_finished(&run.event, run.arrived).await {
                Stored::No => return Past::Started,
                Stored::Yes => return Past::Answered,
                Stored::Unknown => tokio::time::sleep(LAG).await,
            }
        }
        // Most of what was begun is over.
        Past::Answered
    }

    /// Gives the claim back where the API server did not decide for a while.
    async fn make_durable(
        &self,
        mut claim: Claim,
        run: &mut Run,
        started: Sent,
        beginning: Beginning,
    ) -> Result<Admitted, Claim> {
        while run.first_place().is_some() {
            match self.runs.begin(claim, run, started, beginning).await {
                Begun::Started => {
                    let told = "the run is started".into();
                    return Ok(Admitted::Accepted(Decision::Started, told));
                }
                Begun::Before => return Ok(seen_before()),
                Begun::Undecided(undecided) => return Err(undecided),
                Begun::Refused(again, refused) => {
                    claim = again;
                    let reason = self.runs.executor.without_secrets(&refused);
                    run.goes_on_without_first_task(reason);
                }
            }
        }
        Ok(self.answer_refused(run, beginning).await)
    }

    /// Answers a run of which nothing can run.
    async fn answer_refused(&self, run: &Run, beginning: Beginning) -> Admitted {
        let mut reports = Vec::new();
        for action in &run.actions {
            for refusal in action.refusals() {
                self.runs.executor.was_refused(action, &refusal);
                if !action.silent {
                    reports.push(TaskReport {
                        task: refusal.task,
                        on_failure: refusal.on_failure,
                        ending: Ending::Failed(refusal.reason),
                        logs: Vec::new(),
                    });
                }
            }
        }
        self.journal.run_begins(run, Earlier::default());
        if run.is_answered() {
            let message = report::message(&reports, usize::MAX);
            let verdict = report::verdict(&reports);
            self.runs
                .executor
                .answer_without_job(
                    &run.id,
                    &run.event,
                    run.arrived,
                    beginning,
                    (verdict, &message),
                    self.runs.others_answer_until(&run.id).await,
                )
                .await;
        }
        self.journal.run_over(&run.id, RunEnd::ByItself);
        self.remember(&run.id);
        let told = "no task could be run, Keptn was told why".into();
        Admitted::Accepted(Decision::TasksRefused, told)
    }

    /// Answers an event whose config is of no use.
    async fn refuse(
        &self,
        id: &RunId,
        event: &Event,
        arrived: Timestamp,
        beginning: Beginning,
        broken: &Broken,
    ) -> Admitted {
        if self.is_known(id).await {
            return seen_before();
        }
        let reason = &broken.to_string();
        match broken {
            Broken::Unreadable(_) => error!("{reason}"),
            Broken::Invalid(errors) => {
                error!(at = places(&errors.problems), "{CONFIG_URI} is invalid");
                debug!("{reason}");
            }
        }
        // Nobody asked for an answer to a sequence's own event, as an action that matches it does: it
        // is shipyard-controller's to answer, and `.finished` would start what waits for its end.
        if event.envelope.event_type.task().is_none() {
            self.error_log.enter(&event.envelope, reason);
            return Admitted::Nothing(Decision::BadConfig, reason.to_owned());
        }
        self.journal.problem(id, &event.envelope, arrived, reason);
        self.runs
            .executor
            .answer_without_job(
                id,
                &event.envelope,
                arrived,
                beginning,
                (Verdict::Errored, reason),
                self.runs.others_answer_until(id).await,
            )
            .await;
        self.journal.run_over(id, RunEnd::ByItself);
        self.remember(id);
        let told = format!("answered as errored: {reason}");
        Admitted::Accepted(Decision::BadConfig, told)
    }

    /// Whether the event has a run already: what the config and the settings say now does not change it.
    async fn is_known(&self, id: &RunId) -> bool {
        self.runs.is_claimed(id) || self.cluster.first_job(id).await.is_some()
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
}

/// Lines and columns. What is there may be a secret that somebody put into a config, so that no log says it
/// above debug.
fn places(problems: &[Problem]) -> String {
    let place = |problem: &Problem| {
        let yaml::Span { line, column, .. } = problem.place?;
        Some(format!("{line}:{column}"))
    };
    let places: Vec<String> = problems.iter().filter_map(place).collect();
    places.join(", ")
}

fn seen_before() -> Admitted {
    let told = "the event was seen before".into();
    Admitted::Accepted(Decision::SeenBefore, told)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No panic can leave what is behind it half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
