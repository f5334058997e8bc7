//! Which runs this process executes: new ones that it admits, and those that the cluster shows.
//!
//! Of several processes one executes. The others make runs durable, as queued Jobs, which that one sees.

use std::any::Any;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error, info, info_span};

use super::{Course, Executor};
use crate::cluster::{
    Cluster, Created, Found, Leadership, Listing, News, Refused, Sighting, Standing, Start,
};
use crate::journal::RunEnd;
use crate::keptn::answers::Sent;
use crate::run::{Run, RunId};
use crate::slots::{Slots, Turn};
use crate::traces::Beginning;

/// For the process that was the first to get an event that leaves no Job, before another one looks whether it
/// is answered: that takes 2 s as a rule.
const OTHERS_ANSWER: Duration = Duration::from_secs(5);

/// An attempt to create the first Job may succeed without anybody knowing, and the run that another
/// process then executes may be over before the next attempt, and its Job gone: not before the 60 s that a Job
/// is kept at least. Until then the Job itself tells, later only Keptn does.
const UNDECIDED_AFTER: Duration = Duration::from_secs(30);

pub(crate) struct Runs {
    pub(crate) executor: Executor,
    cluster: Cluster,
    leadership: Leadership,
    slots: Slots,
    claims: Mutex<HashMap<RunId, Claimed>>,
    /// Whether the runs of earlier processes are known, so that new ones can take their turn.
    recovered: watch::Sender<bool>,
    /// Ends all executions; the next process takes the runs over.
    halt: CancellationToken,
}

enum Claimed {
    /// By an admission, with what the cluster showed of the run meanwhile.
    Admitting(Option<Box<Sighting>>),
    Executing,
}

/// The right to execute a run, or to bring it into being; nobody else in this process does.
pub(crate) struct Claim {
    runs: Arc<Runs>,
    run: RunId,
}

/// What became of a run that was to begin.
pub(crate) enum Begun {
    Started,
    /// The event has come before.
    Before,
    /// With the claim, for another attempt.
    Refused(Claim, Refused),
    /// The API server did not answer for a while, or only with trouble.
    Undecided(Claim),
}

impl Runs {
    pub(crate) fn new(
        executor: Executor,
        cluster: Cluster,
        leadership: Leadership,
        slots: Slots,
        halt: CancellationToken,
    ) -> Self {
        Self {
            executor,
            cluster,
            leadership,
            slots,
            claims: Mutex::default(),
            recovered: watch::Sender::new(false),
            halt,
        }
    }

    /// Whether events can be taken: this process knows the runs, or another one does.
    pub(crate) fn is_ready(&self) -> bool {
        match self.leadership.standing() {
            Standing::Unknown => false,
            Standing::Standby => true,
            Standing::Leading(_) => self.is_recovered(),
        }
    }

    fn leads(&self) -> bool {
        matches!(self.leadership.standing(), Standing::Leading(_))
    }

    fn is_recovered(&self) -> bool {
        *self.recovered.borrow()
    }

    /// Until when another process may have executed what is found here.
    pub(crate) fn others_until(&self) -> Instant {
        match self.leadership.standing() {
            Standing::Leading(since) => since,
            Standing::Unknown | Standing::Standby => Instant::now(),
        }
    }

    /// Until when another process may have answered an event that leaves no Job.
    pub(crate) async fn others_answer_until(&self, run: &RunId) -> Instant {
        if !self.leadership.has_company() {
            return self.others_until();
        }
        let is_first = self.leadership.is_first_to_answer(run).await;
        Instant::now()
            + if is_first {
                Duration::ZERO
            } else {
                OTHERS_ANSWER
            }
    }

    pub(crate) fn is_claimed(&self, run: &RunId) -> bool {
        self.claims().contains_key(run)
    }

    /// None if the run is executed or admitted already.
    pub(crate) fn claim(self: &Arc<Self>, run: &RunId) -> Option<Claim> {
        let mut claims = self.claims();
        if claims.contains_key(run) {
            return None;
        }
        claims.insert(run.clone(), Claimed::Admitting(None));
        Some(Claim {
            runs: Arc::clone(self),
            run: run.clone(),
        })
    }

    /// Makes a run durable and executes it, or leaves it to the process that does. `started` tells
    /// whether Keptn heard of it, `beginning` what came before.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        claim: Claim,
        run: &Run,
        started: Sent,
        mut beginning: Beginning,
    ) -> Begun {
        let Some(first) = run.first_place() else {
            return Begun::Before;
        };
        let turn = self.is_recovered().then(|| self.queue(run));
        let start = if turn.as_ref().is_some_and(Turn::is_now) {
            Start::Now
        } else {
            Start::Queued
        };
        let creation = self.executor.calm.disturbed();
        let created = timeout(UNDECIDED_AFTER, self.cluster.create(first, start)).await;
        drop(creation);
        let Ok(created) = created else {
            self.cluster.leaves(first);
            return Begun::Undecided(claim);
        };
        match created {
            Ok(Created::New) => {
                self.executor.metrics.first_job(run.arrived);
                match turn {
                    Some(turn) => {
                        beginning.job = Some(Timestamp::now());
                        let course = Course::begins(first, start, started, beginning);
                        self.execute(claim, run.clone(), turn, course);
                    }
                    None => self.cluster.leaves(first),
                }
                Begun::Started
            }
            Ok(Created::Before(there)) => {
                if !self.leads() {
                    self.cluster.leaves(first);
                }
                if let Some(there) = there {
                    self.go_on_with(claim, there);
                }
                Begun::Before
            }
            Err(refused) => Begun::Refused(claim, refused),
        }
    }

    /// Goes on with a run whose first Job is there, if it is this process that executes.
    pub(crate) fn go_on_with(self: &Arc<Self>, claim: Claim, first: Sighting) {
        let found = Some(first).filter(|first| !first.reported && self.leads());
        if let Some(found) = found.and_then(Sighting::found) {
            self.go_on(claim, found);
        }
    }

    fn queue(&self, run: &Run) -> Turn {
        self.slots.queue(run.arrived, &run.id)
    }

    /// Executes what the cluster shows, once this process may; never returns.
    pub(crate) async fn follow(self: &Arc<Self>) {
        self.leadership.leading().await;
        let (sender, news) = mpsc::unbounded_channel();
        tokio::join!(self.cluster.watch(sender), self.hear(news));
    }

    async fn hear(self: &Arc<Self>, mut news: mpsc::UnboundedReceiver<News>) {
        let mut listing = Listing::default();
        while let Some(news) = news.recv().await {
            match news {
                News::Listed(job) => {
                    if let Some(job) = self.unclaimed(job) {
                        listing.add(job);
                    }
                }
                News::ListEnd { all } => {
                    // Whoever comes to execute finds the runs as their last executor left them; later
                    // lists may be older than what was done here meanwhile.
                    let begins = !self.is_recovered();
                    let listed = std::mem::take(&mut listing);
                    // Thousands of records take a second; probes are answered meanwhile.
                    let runs = tokio::task::spawn_blocking(|| listed.into_runs()).await;
                    for found in runs.unwrap_or_default() {
                        self.adopt(found, begins && all);
                        tokio::task::yield_now().await;
                    }
                    if begins {
                        info!("ready");
                        self.recovered.send_replace(true);
                    }
                }
                // The others follow from the first one.
                News::Seen(job) if job.is_first() => self.saw(job),
                News::Seen(_) => {}
            }
        }
    }

    fn saw(self: &Arc<Self>, job: Sighting) {
        if !job.reported
            && let Some(found) = self.unclaimed(job).and_then(Sighting::found)
        {
            self.adopt(found, false);
        }
    }

    /// The Job, if nobody here has to do with its run.
    fn unclaimed(&self, job: Sighting) -> Option<Sighting> {
        match self.claims().get_mut(&job.run) {
            None => Some(job),
            Some(Claimed::Admitting(seen)) => {
                if seen.is_none() || job.is_first() {
                    *seen = Some(Box::new(job));
                }
                None
            }
            Some(Claimed::Executing) => None,
        }
    }

    /// Takes over a run that was found, `certain` if it is known not to be over.
    fn adopt(self: &Arc<Self>, mut found: Found, certain: bool) {
        let Some(claim) = self.claim(&found.run.id) else {
            return;
        };
        info!(run = %found.run.id, event.id = found.run.event.id, "taking over a run");
        if certain && found.is_whole {
            return self.go_on(claim, found);
        }
        let runs = Arc::clone(self);
        let confirmed = async move {
            match runs.cluster.first_job(&found.run.id).await {
                Some(job) if job.reported => return,
                Some(job) => found.progress.confirmed(job),
                // Deleted by somebody; its run still needs an answer.
                None => {}
            }
            runs.go_on(claim, found);
        };
        tokio::spawn(
            self.halt
                .clone()
                .run_until_cancelled_owned(confirmed)
                .in_current_span(),
        );
    }

    fn go_on(self: &Arc<Self>, claim: Claim, found: Found) {
        let Found { run, progress, .. } = found;
        let turn = if progress.queued {
            self.queue(&run)
        } else {
            self.slots.take()
        };
        let course = Course::goes_on(progress, self.others_until());
        self.execute(claim, run, turn, course);
    }

    fn execute(self: &Arc<Self>, claim: Claim, run: Run, turn: Turn, course: Course) {
        claim.executes();
        let span = info_span!(
            parent: None, "run", run = %run.id, event.id = run.event.id, event.r#type = %run.event.event_type,
            keptn.context = run.event.keptn_context, project = run.event.scope.project,
            stage = run.event.scope.stage, service = run.event.scope.service,
        );
        let runs = Arc::clone(self);
        let work = async move {
            let (journal, _in_flight) =
                (&runs.executor.journal, runs.executor.metrics.run_begins());
            let execution = Box::pin(runs.executor.execute(&run, turn, &course));
            let Err(panic) = isolated(execution).await else {
                journal.run_over(&run.id, RunEnd::ByItself);
                return drop(claim);
            };
            error!(
                panic,
                "executing the run panicked, it is answered as errored"
            );
            let end = Box::pin(runs.executor.give_up(&run, &course, &panic));
            match isolated(end).await {
                Ok(()) => {
                    journal.run_over(&run.id, RunEnd::Panicked);
                    drop(claim);
                }
                Err(panic) => {
                    error!(
                        panic,
                        "answering the run panicked, it is kept for the next start"
                    );
                    std::mem::forget(claim);
                }
            }
        };
        // Nobody waits for it at a shutdown: the next process takes the run over. On the heap, as the library's
        // future has room for what it is given twice.
        tokio::spawn(
            self.halt
                .clone()
                .run_until_cancelled_owned(Box::pin(work))
                .instrument(span),
        );
    }

    fn claims(&self) -> MutexGuard<'_, HashMap<RunId, Claimed>> {
        // No panic can leave the map half changed.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    fn executes(&self) {
        self.runs
            .claims()
            .insert(self.run.clone(), Claimed::Executing);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let claimed = self.runs.claims().remove(&self.run);
        // What the cluster showed during an admission that did not lead to an execution here.
        if let Some(Claimed::Admitting(Some(job))) = claimed {
            self.runs.saw(*job);
        }
    }
}

/// A panic of one piece of work, as text, so that it ends nothing else.
async fn isolated(work: impl Future<Output = ()>) -> Result<(), String> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| text_of(&*panic))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".into())
}
