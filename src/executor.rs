//! Executes runs: `.started`, task by task, `.finished`. The page to read first.
//!
//! Every step may be repeated: creating a Job finds the one that exists, an answer has the same id
//! each time, a mark is set again. So a run that a crash interrupted is executed from its beginning by
//! the next process, and arrives at the same answer.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{Instrument, error, info, info_span, warn};

use crate::cluster::{Announced, Cluster, FirstJob, Start, TaskEnd};
use crate::event::Envelope;
use crate::event::answer::{self, Answer, TimeFrame, Verdict};
use crate::keptn::answers::Answers;
use crate::report::{self, ContainerLog, Ending, TaskReport};
use crate::run::{Place, Run, RunAction, RunId, Work};
use crate::slots::{Slots, Turn};

/// Keptn 0.8.2 needs `.started` stored before it sees `.finished`: where they arrive together, the
/// finished one overtakes and waits 2 to 3 seconds for its next try.
const BETWEEN_ANSWERS: Duration = Duration::from_millis(500);

pub(crate) struct Executor {
    cluster: Cluster,
    answers: Answers,
    slots: Slots,
    executing: Mutex<HashSet<RunId>>,
    recovered: watch::Sender<bool>,
}

/// A task that ended, or one that was refused.
struct Done<'a> {
    action: &'a RunAction,
    task: &'a str,
    ending: Ending,
    job: Option<(Place<'a>, TaskEnd)>,
    logs: Option<JoinHandle<Vec<ContainerLog>>>,
}

impl Executor {
    pub(crate) fn new(cluster: Cluster, answers: Answers, slots: Slots) -> Self {
        Self {
            cluster,
            answers,
            slots,
            executing: Mutex::default(),
            recovered: watch::Sender::new(false),
        }
    }

    /// Takes a slot for a new run, or a place in the queue.
    pub(crate) fn queue(&self, run: &Run) -> Turn {
        self.slots.queue(run.arrived, &run.id)
    }

    pub(crate) fn is_executing(&self, run: &RunId) -> bool {
        self.executing().contains(run)
    }

    /// Executes all runs of earlier processes whose answer is not out.
    pub(crate) async fn recover(self: &Arc<Self>) {
        for (run, first) in self.cluster.unreported().await {
            info!(run = %run.id, event.id = run.event.id, "taking over a run");
            let turn = if first.queued {
                self.queue(&run)
            } else {
                self.slots.take()
            };
            self.start(run, turn, first);
        }
        self.recovered.send_replace(true);
    }

    /// Whether the runs of earlier processes are known here, so that none is taken for a new one.
    pub(crate) fn is_recovered(&self) -> bool {
        *self.recovered.borrow()
    }

    pub(crate) async fn recovered(&self) {
        // The sender lives as long as `self`.
        self.recovered
            .subscribe()
            .wait_for(|recovered| *recovered)
            .await
            .ok();
    }

    /// Executes a run whose first Job exists, unless that is under way.
    pub(crate) fn start(self: &Arc<Self>, run: Run, turn: Turn, first: FirstJob) {
        if !self.executing().insert(run.id.clone()) {
            return;
        }
        let executor = Arc::clone(self);
        let span = info_span!(
            parent: None, "run", run = %run.id, event.id = run.event.id, event.r#type = %run.event.event_type,
            keptn.context = run.event.keptn_context,
        );
        let work = async move {
            let execution = AssertUnwindSafe(Box::pin(executor.execute(&run, turn, first)));
            if execution.catch_unwind().await.is_err() {
                error!(
                    "executing the run panicked; its Jobs are kept and taken over at the next start"
                );
            }
            executor.executing().remove(&run.id);
        };
        // Nobody waits for it at a shutdown: the next process takes the run over.
        tokio::spawn(work.instrument(span));
    }

    async fn execute(&self, run: &Run, turn: Turn, first: FirstJob) {
        let (started, done) = tokio::join!(self.announce(run, first), self.work(run, turn, first));
        let jobs: Vec<(Place<'_>, TaskEnd)> =
            done.iter().filter_map(|done| done.job.clone()).collect();
        let finished = self.finished(run, done).await;
        // The first Job comes last: until it is marked, the run is found again as a whole.
        let mark = async {
            for (place, end) in jobs.iter().rev() {
                self.cluster.mark_reported(*place, end).await;
            }
        };
        match finished {
            Some(finished) => {
                if let Some(started) = started {
                    tokio::time::sleep_until(started + BETWEEN_ANSWERS).await;
                }
                self.answers.deliver(finished, mark).await;
            }
            None => mark.await,
        }
        info!(
            "Successfully finished processing of event: {}",
            run.event.id
        );
    }

    /// Sends `.started` while the first task already works; tells when Keptn took it.
    async fn announce(&self, run: &Run, first: FirstJob) -> Option<Instant> {
        if !run.is_answered() || first.announced == Announced::Yes {
            return None;
        }
        let started = answer::started(&run.event, run.arrived);
        let mark = async {
            if let Some(first) = run.first_place() {
                self.cluster.mark_started(first).await;
            }
        };
        // A second `.started` hangs the sequence in Keptn from 0.14 on.
        if first.announced == Announced::Perhaps && self.answers.is_stored(&started).await {
            info!("Keptn has `.started` of this run already");
            mark.await;
            return None;
        }
        self.answers.deliver(started, mark).await;
        Some(Instant::now())
    }

    /// One task after the other. An action ends with its first task that fails, the run does not.
    async fn work<'a>(&self, run: &'a Run, turn: Turn, first: FirstJob) -> Vec<Done<'a>> {
        let _slot = turn.wait().await;
        if let Some(first) = run.first_place().filter(|_| first.queued) {
            self.cluster.release(first).await;
        }
        let mut done = Vec::new();
        for (action, places) in run.steps() {
            if let Work::Refused { task, reason } = &action.work {
                warn!(action = action.name, task, reason, "the task was refused");
                done.push(Done::refused(action, task, reason.clone()));
            }
            let count = places.len();
            for place in places {
                let name = &place.task.name;
                info!(
                    "Starting task {}/{count}: '{name}' ...",
                    place.task_index + 1
                );
                let task = self.task(place).await;
                let failed = task.ending != Ending::Succeeded;
                done.push(task);
                if failed {
                    break;
                }
            }
        }
        done
    }

    async fn task<'a>(&self, place: Place<'a>) -> Done<'a> {
        // The first Job was created when the event was admitted: that made the run durable.
        if !place.is_first()
            && let Err(refused) = self.cluster.create(place, Start::Now).await
        {
            return Done::refused(place.action, &place.task.name, refused.to_string());
        }
        let end = self.cluster.end(place).await;
        info!(job = place.job_name(), ending = ?end.ending, "the task ended");
        // The next task does not wait for the logs of this one.
        let heard = place.run.is_answered() && !place.action.silent;
        let logs = heard.then(|| {
            let room = self.answers.max_bytes() / place.run.task_count().max(1);
            let (cluster, of) = (self.cluster.clone(), end.clone());
            tokio::spawn(async move { cluster.logs(&of, room).await }.in_current_span())
        });
        Done {
            action: place.action,
            task: &place.task.name,
            ending: end.ending.clone(),
            job: Some((place, end)),
            logs,
        }
    }

    /// The answer, if Keptn gets one. Silent actions say nothing in it either.
    async fn finished(&self, run: &Run, done: Vec<Done<'_>>) -> Option<Answer> {
        let mut reports = Vec::new();
        let mut frame = None::<TimeFrame>;
        for done in done.into_iter().filter(|done| !done.action.silent) {
            let end = done.job.as_ref().map(|(_, end)| end);
            if let Some((start, end)) = end.and_then(|end| end.started.zip(end.finished)) {
                let start = frame.map_or(start, |frame| frame.start);
                frame = Some(TimeFrame { start, end });
            }
            let logs = match done.logs {
                Some(logs) => logs.await.unwrap_or_default(),
                None => Vec::new(),
            };
            reports.push(TaskReport {
                task: done.task.to_owned(),
                ending: done.ending,
                logs,
            });
        }
        if !run.is_answered() {
            return None;
        }
        let time = frame.map_or(run.arrived, |frame| frame.end.max(run.arrived));
        let verdict = report::verdict(&reports);
        let answer = answer::finished(&run.event, time, verdict, "", frame);
        let room = self.answers.room_for_message(&answer);
        Some(answer.with_message(report::message(&reports, room)))
    }

    /// Answers an event for which no Job could be made. Returns when Keptn took both answers, since
    /// nothing in the cluster remembers them.
    pub(crate) async fn answer_without_job(
        &self,
        event: &Envelope,
        arrived: Timestamp,
        verdict: Verdict,
        message: &str,
    ) {
        let started = answer::started(event, arrived);
        self.answers.deliver(started, std::future::ready(())).await;
        tokio::time::sleep(BETWEEN_ANSWERS).await;
        let answer = answer::finished(event, arrived, verdict, "", None);
        let room = self.answers.room_for_message(&answer);
        let message = report::shortened(message, room);
        let finished = answer.with_message(message);
        self.answers.deliver(finished, std::future::ready(())).await;
    }

    fn executing(&self) -> MutexGuard<'_, HashSet<RunId>> {
        // No panic can leave the set half changed.
        self.executing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Done<'a> {
    fn refused(action: &'a RunAction, task: &'a str, reason: String) -> Self {
        Self {
            action,
            task,
            ending: Ending::Failed(reason),
            job: None,
            logs: None,
        }
    }
}
