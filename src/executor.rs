//! Executes runs: `.started`, task by task, `.finished`. The page to read first.
//!
//! Every step may be repeated: creating a Job finds the one that exists, an answer has the same id
//! each time, a mark is set again. So a run that a crash interrupted is executed from its beginning by
//! the next process, and arrives at the same answer.

mod calm;
mod course;
mod done;
mod runs;
mod task_result;
mod telling;

use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument, debug, info, warn};

use crate::cluster::{Cluster, Refused, Start};
use crate::event::Envelope;
use crate::event::answer::{self, Answer, Section, TimeFrame, Verdict};
use crate::job_config::fields::OnFailure;
use crate::journal::Journal;
use crate::keptn::answers::{Answers, Sent};
use crate::keptn::event_store::Stored;
use crate::metrics::{Ended, Metrics};
use crate::policy::Policy;
use crate::report::{self, Ending, Masks, TaskReport};
use crate::run::{Place, Refusal, Run, RunAction, RunId, SpansOfRuns};
use crate::slots::Turn;
use crate::traces::{AnswerTold, Beginning, RunTold, Traces};

use calm::Calm;
pub(crate) use course::Course;
use done::{Done, failed_as, time_of};
pub(crate) use runs::{Begun, Claim, Runs};
use task_result::Results;
use telling::told;

/// Keptn 0.8.2 needs `.started` stored before it sees `.finished`: where they arrive together, the
/// finished one overtakes and waits 2 to 3 seconds for its next try.
const BETWEEN_ANSWERS: Duration = Duration::from_millis(500);

/// Results of tasks get half of an answer at most, the logs need room too.
const RESULTS_SHARE: usize = 2;

/// Of the bytes of an answer, what the logs of a run may take of memory before they are cut to fit: a task that
/// prints much is to have the room that others leave.
const LOGS_SHARE: usize = 4;

/// A run may have hundreds of Jobs.
const MARKS_AT_ONCE: usize = 8;

/// What the steps of a run are made with.
pub(crate) struct Executor {
    cluster: Cluster,
    answers: Answers,
    rules: Permitted,
    masks: Masks,
    metrics: Metrics,
    journal: Journal,
    traces: Traces,
    calm: Calm,
}

/// What tasks may be, for those that a run record brings.
pub(crate) struct Permitted {
    pub(crate) policy: Policy,
    /// Of tasks that name no account.
    pub(crate) account: Option<String>,
}

impl Executor {
    pub(crate) fn new(
        cluster: Cluster,
        answers: Answers,
        rules: Permitted,
        masks: Masks,
        metrics: Metrics,
        journal: Journal,
        traces: Traces,
    ) -> Self {
        Self {
            cluster,
            answers,
            rules,
            masks,
            metrics,
            journal,
            traces,
            calm: Calm::default(),
        }
    }

    /// What a run does not do at the moment takes no memory: its parts are on the heap while they are at work. Most
    /// of its life it waits for the end of a task, and there may be thousands.
    async fn execute(&self, run: &Run, turn: Turn, course: &Course) {
        if course.finished == Sent::Yes {
            return Box::pin(self.conclude(run, &all_places(run))).await;
        }
        self.journal.run_begins(run, course.earlier());
        let (announced, (done, results)) = tokio::join!(
            Box::pin(self.announce(run, course)),
            Box::pin(self.work(run, turn, course))
        );
        let tasks = self.tasks_told(&done);
        // Also those that have no Job, and so no span.
        let is_errored = done.iter().any(|done| done.ended() == Ended::Failed);
        let failed = |done: &&Done<'_>| done.ended() != Ended::Succeeded;
        let failed = done.iter().filter(failed).count();
        let ends = done.iter().filter_map(|done| done.job.as_ref()?.1.finished);
        let last_end = ends.max();
        let places = if course.taken_over {
            all_places(run)
        } else {
            done.iter().filter_map(Done::place).collect()
        };
        let Some(finished) = Box::pin(self.finished(run, done, results)).await else {
            Box::pin(self.conclude(run, &places)).await;
            let verdict = if is_errored {
                Verdict::Errored
            } else {
                Verdict::Succeeded
            };
            return self.tell(run, course, verdict, failed, &tasks, &[]);
        };
        let mut answers: Vec<AnswerTold> = Vec::new();
        if let Some((started, told)) = announced {
            tokio::time::sleep_until(started + BETWEEN_ANSWERS).await;
            answers.push(told);
        }
        let verdict = finished.verdict();
        let event_type = finished.event_type().to_owned();
        let mark = async |delivered| {
            self.conclude(run, &places).await;
            // No orderly shutdown comes between the mark and this.
            answers.push(told(event_type, delivered));
            self.tell(run, course, verdict, failed, &tasks, &answers);
        };
        Box::pin(self.answers.deliver(finished, course.finished, mark)).await;
        if let Some(end) = last_end {
            self.metrics.answered(end);
        }
    }

    /// Sends `.started` while the first task already works; tells when Keptn took it.
    async fn announce(&self, run: &Run, course: &Course) -> Option<(Instant, AnswerTold)> {
        if !run.is_answered() || course.started == Sent::Yes {
            return None;
        }
        self.calm.comes().await;
        let _turn = self.calm.turn().await;
        let started = answer::started(&run.event, run.arrived);
        let event_type = started.event_type().to_owned();
        let mark = async |_| {
            if let Some(first) = run.first_place() {
                self.cluster.mark_started(first).await;
            }
        };
        let delivered = self.answers.deliver(started, course.started, mark).await;
        Some((Instant::now(), told(event_type, delivered)))
    }

    /// One task after the other. An action ends with its first task that fails, but for those that always
    /// run; the run does not.
    async fn work<'a>(
        &self,
        run: &'a Run,
        turn: Turn,
        course: &Course,
    ) -> (Vec<Done<'a>>, Section) {
        let _slot = turn.wait().await;
        if let Some(first) = run.first_place().filter(|_| course.queued) {
            self.cluster.release(first).await;
        }
        self.journal.run_works(&run.id);
        let mut done = Vec::new();
        let mut results = Results::within(self.answers.max_bytes() / RESULTS_SHARE);
        for (action, places) in run.steps() {
            let mut failed = false;
            for refusal in action.refusals() {
                self.was_refused(action, &refusal);
                failed |= refusal.on_failure == OnFailure::Fail;
                done.push(Done::refused(action, refusal));
            }
            let count = places.len();
            for (index, &place) in places.iter().enumerate() {
                if failed && !place.task.always {
                    continue;
                }
                let name = &place.task.name;
                let number = place.task_index + 1;
                info!("Starting task {number}/{count}: '{name}' ...");
                self.journal.task_begins(place);
                let (mut task, result) = Box::pin(self.task(place, course)).await;
                if !action.silent {
                    task.ending = results.take(result, task.ending);
                }
                if course.has_passed(place, &places[index + 1..]) {
                    task.ending = Ending::Succeeded;
                }
                let ended = task.ended();
                self.metrics.task(ended);
                let shown = self.shown(&task.ending);
                self.journal.task_ended(place, ended, &shown, task.times());
                failed |= ended == Ended::Failed;
                done.push(task);
            }
        }
        (done, results.into_section())
    }

    /// What the record says is checked again: whoever may create Jobs in a namespace can write one.
    async fn create(&self, place: Place<'_>) -> Result<(), Refused> {
        let account = self.rules.account.as_deref();
        self.rules
            .policy
            .check_recorded(place.task, account)
            .map_err(Refused)?;
        self.cluster.create(place, Start::Now).await?;
        Ok(())
    }

    /// With what the task says for the answer.
    async fn task<'a>(&self, place: Place<'a>, course: &Course) -> (Done<'a>, Section) {
        let begins = Timestamp::now();
        // Admission created the first Job, which made the run durable, and this run's earlier life
        // those that follow.
        if !course.has_reached(place)
            && let Err(Refused(reason)) = Box::pin(self.create(place)).await
        {
            let refusal = Refusal {
                task: place.task.name.clone(),
                reason,
                on_failure: place.task.on_failure,
            };
            return (Done::refused(place.action, refusal), Section::new());
        }
        let end = self.cluster.end(place).await;
        let time = time_of(&end, begins.max(place.run.arrived), course);
        Box::pin(self.cluster.mark_ended(place, &end)).await;
        let succeeded = end.ending == Ending::Succeeded;
        info!(job = place.job_name(), succeeded, "the task ended");
        debug!(ending = ?end.ending, "how it ended");
        // The next task does not wait for the logs of this one.
        let heard = place.run.is_answered() && !place.action.silent;
        let logs = heard.then(|| {
            let (all, tasks) = (self.answers.max_bytes(), place.run.task_count().max(1));
            let room = all.min(all * LOGS_SHARE / tasks);
            let logs = self.cluster.logs(place, &end, room, &self.masks);
            tokio::spawn(logs.in_current_span())
        });
        let (result, ending) =
            task_result::of(&place.run.event, &end, place.task.result_file.as_ref());
        let done = Done {
            action: place.action,
            task: place.task.name.clone(),
            on_failure: place.task.on_failure,
            ending,
            job: Some((place, end)),
            time: Some(time),
            logs,
        };
        (done, result)
    }

    /// Counts and logs a task that has failed before it had a Job.
    pub(crate) fn was_refused(&self, action: &RunAction, refusal: &Refusal) {
        let Refusal { task, reason, .. } = refusal;
        warn!(action = action.name, task, "the task was refused");
        debug!(task, reason, "why it was refused");
        self.metrics.task(failed_as(refusal.on_failure));
    }

    /// As a run's record may tell it.
    pub(crate) fn without_secrets(&self, refused: &Refused) -> String {
        self.masks.text(&refused.0)
    }

    /// Without what is secret.
    fn shown(&self, ending: &Ending) -> Ending {
        match ending {
            Ending::Failed(reason) => Ending::Failed(self.masks.text(reason)),
            Ending::Succeeded => Ending::Succeeded,
        }
    }

    /// The answer, if Keptn gets one. Silent actions say nothing in it either.
    async fn finished(&self, run: &Run, done: Vec<Done<'_>>, results: Section) -> Option<Answer> {
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
                task: done.task,
                on_failure: done.on_failure,
                ending: self.shown(&done.ending),
                logs,
            });
        }
        if !run.is_answered() {
            return None;
        }
        let time = frame.map_or(run.arrived, |frame| frame.end.max(run.arrived));
        let verdict = report::verdict(&reports);
        let answer = answer::finished(&run.event, time, verdict, "", frame);
        let answer = answer.with_section(results);
        let room = self.answers.room_for_message(&answer);
        Some(answer.with_message(report::message(&reports, room)))
    }

    /// Marks the Jobs of a run that is over. The first one comes last: until then the run is found as a
    /// whole, and a note on it tells that nothing but marks is missing. From its mark on a Job's time to
    /// live counts, so that without the note a task whose Job is gone already would run again.
    async fn conclude(&self, run: &Run, places: &[Place<'_>]) {
        let (first, others): (Vec<Place<'_>>, Vec<Place<'_>>) =
            places.iter().partition(|place| place.is_first());
        if let Some(first) = run.first_place().filter(|_| !others.is_empty()) {
            self.cluster.mark_answered(first).await;
        }
        let mark = |place| self.cluster.mark_reported(place);
        stream::iter(others)
            .for_each_concurrent(MARKS_AT_ONCE, mark)
            .await;
        for place in first {
            self.cluster.mark_reported(place).await;
        }
    }

    /// Ends a run whose execution panicked: Keptn must not wait for it.
    async fn give_up(&self, run: &Run, course: &Course, panic: &str) {
        let mut course = course.clone();
        if course.started == Sent::No {
            course.started = Sent::Perhaps(Instant::now());
        }
        self.announce(run, &course).await;
        let places = all_places(run);
        if !run.is_answered() {
            return self.conclude(run, &places).await;
        }
        let message = format!(
            "the job-executor-service failed while it executed this run, which is a bug in it: {panic}. \
             Its log has more; the run's Jobs are {}",
            places
                .iter()
                .map(Place::job_name)
                .collect::<Vec<_>>()
                .join(", ")
        );
        let answer = answer::finished(&run.event, run.arrived, Verdict::Errored, "", None);
        let room = self.answers.room_for_message(&answer);
        let answer = answer.with_message(report::shortened(&message, room));
        let sent = Sent::Perhaps(Instant::now());
        let event_type = answer.event_type().to_owned();
        let mark = async |delivered| {
            self.conclude(run, &places).await;
            let answers = [told(event_type, delivered)];
            self.tell(run, &course, Verdict::Errored, 0, &[], &answers);
        };
        self.answers.deliver(answer, sent, mark).await;
    }

    /// Whether runs become spans.
    pub(crate) fn spans_of_runs(&self) -> SpansOfRuns {
        self.traces.of_runs()
    }

    /// Answers an event for which no Job could be made. Returns when Keptn took both answers, since
    /// nothing in the cluster remembers them. Whoever tried before did so until `then`.
    pub(crate) async fn answer_without_job(
        &self,
        run: &RunId,
        event: &Envelope,
        arrived: Timestamp,
        beginning: Beginning,
        (verdict, message): (Verdict, &str),
        then: Instant,
    ) {
        let sent = Sent::Perhaps(then);
        let started = answer::started(event, arrived);
        let started_type = started.event_type().to_owned();
        let delivered = self.answers.deliver(started, sent, async |_| {}).await;
        let started = told(started_type, delivered);
        tokio::time::sleep(BETWEEN_ANSWERS).await;
        let answer = answer::finished(event, arrived, verdict, "", None);
        let room = self.answers.room_for_message(&answer);
        let message = report::shortened(message, room);
        let finished = answer.with_message(message);
        let finished_type = finished.event_type().to_owned();
        let note = async |delivered| {
            self.traces.run_is_over(&RunTold {
                id: run,
                event,
                arrived,
                over: Timestamp::now(),
                verdict,
                beginning,
                tasks: &[],
                answers: &[started, told(finished_type, delivered)],
            });
        };
        self.answers.deliver(finished, sent, note).await;
    }

    /// Whether Keptn heard that work for this event began.
    pub(crate) async fn was_started(&self, event: &Envelope, arrived: Timestamp) -> Stored {
        self.answers.stored(&answer::started(event, arrived)).await
    }

    /// Whether Keptn heard that work for this event ended.
    pub(crate) async fn was_finished(&self, event: &Envelope, arrived: Timestamp) -> Stored {
        let finished = answer::finished(event, arrived, Verdict::Succeeded, "", None);
        self.answers.stored(&finished).await
    }
}

/// All tasks, also those that have no Job, where nothing can be marked.
fn all_places(run: &Run) -> Vec<Place<'_>> {
    run.steps().flat_map(|(_, places)| places).collect()
}
