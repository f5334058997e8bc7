//! What became of events and runs, for whoever looks: in bounded memory, and not needed for the work. Pure.
//!
//! It tells what this process saw; [`Journal::add_past`] adds what the Jobs in the cluster tell of the
//! time before it.

pub(crate) mod entry;
mod past;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use uuid::Uuid;

use crate::event::Envelope;
use crate::metrics::Ended;
use crate::report::{Ending, shortened};
use crate::run::{Place, Run, RunId};
use entry::{
    AnswerState, EventEntry, EventOutcome, MAX_REASON, RunEntry, RunState, Source, Subject,
    TaskState,
};

pub(crate) use past::{Past, PastEnd, PastJob};

/// Deliveries that are kept, some kilobytes each at most.
const MAX_EVENTS: usize = 300;

/// Runs that are kept after their end. Each takes about a kilobyte.
pub(crate) const MAX_ENDED_RUNS: usize = 500;

#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Entries>>);

#[derive(Default)]
struct Entries {
    /// The last one first.
    events: VecDeque<EventEntry>,
    /// On the heap each: a map has room for more than it holds.
    runs: HashMap<RunId, Box<RunEntry>>,
    /// In the order of their end.
    ended: VecDeque<RunId>,
    /// Whose the answers of runs that go on are.
    answers: HashMap<Uuid, RunId>,
}

/// What is known of a run's earlier life when its execution begins here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub(crate) waits: bool,
    pub(crate) started_was_sent: bool,
    pub(crate) taken_over: bool,
}

/// How the execution of a run came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunEnd {
    ByItself,
    /// A bug.
    Panicked,
}

impl Journal {
    /// A delivery, when it was decided on.
    pub(crate) fn event(
        &self,
        subject: Subject,
        run: &RunId,
        outcome: EventOutcome,
        reason: &str,
        arrived: Timestamp,
    ) {
        let reason = shortened(reason, MAX_REASON);
        let mut entries = self.entries();
        // A sender that tries again, or a distributor that polls, must not push the others out.
        if let Some(last) = entries.events.front_mut()
            && (last.event.as_ref(), last.outcome) == (Some(&subject), outcome)
            && last.reason == reason
        {
            last.times += 1;
            last.arrived = arrived;
            return;
        }
        entries.enter(EventEntry {
            arrived,
            event: Some(subject),
            outcome,
            reason,
            run: Some(run.clone()),
            times: 1,
        });
    }

    /// A request that was no event.
    pub(crate) fn no_event(&self, reason: &str, arrived: Timestamp) {
        self.entries().enter(EventEntry {
            arrived,
            event: None,
            outcome: EventOutcome::Invalid,
            reason: shortened(reason, MAX_REASON),
            run: None,
            times: 1,
        });
    }

    pub(crate) fn run_begins(&self, run: &Run, earlier: Earlier) {
        let mut entry = RunEntry::of(run);
        if earlier.taken_over {
            entry.source = Source::TakenOver;
        }
        if earlier.waits {
            entry.state = RunState::Waiting;
        }
        if let Some(started) = entry
            .answers
            .first_mut()
            .filter(|_| earlier.started_was_sent)
        {
            started.state = AnswerState::Sent;
        }
        self.entries().begin(entry);
    }

    /// An event whose config is of no use is answered.
    pub(crate) fn problem(&self, run: &RunId, event: &Envelope, arrived: Timestamp, problem: &str) {
        self.entries()
            .begin(RunEntry::without_config(run, event, arrived, problem));
    }

    /// Its turn has come.
    pub(crate) fn run_works(&self, run: &RunId) {
        self.change(run, |entry| entry.state = RunState::Running);
    }

    pub(crate) fn task_begins(&self, place: Place<'_>) {
        self.change(&place.run.id, |entry| {
            if let Some(task) = entry.task_mut(&place.job_name()) {
                task.state = TaskState::Running;
                task.begun = Some(Timestamp::now());
            }
        });
    }

    /// `failure` is for people: nothing in it is secret.
    pub(crate) fn task_ended(&self, place: Place<'_>, end: Ended, failure: &Ending, times: Times) {
        self.change(&place.run.id, |entry| {
            let Some(task) = entry.task_mut(&place.job_name()) else {
                return;
            };
            task.state = match end {
                Ended::Succeeded => TaskState::Succeeded,
                Ended::Warned => TaskState::Warning,
                Ended::Failed => TaskState::Failed,
            };
            (task.started, task.pod) = (times.started, times.pod);
            task.exit_code = times.exit_code;
            match times.whole {
                Some((begun, finished)) => {
                    (task.begun, task.finished) = (Some(begun), Some(finished));
                }
                None => task.finished = Some(Timestamp::now()),
            }
            if let Ending::Failed(reason) = failure {
                task.reason = Some(shortened(reason, MAX_REASON));
            }
        });
    }

    /// What came of an attempt to send an answer.
    pub(crate) fn attempt(&self, answer: Uuid, result: Result<(), &str>) {
        let mut entries = self.entries();
        let Some(run) = entries.answers.get(&answer).cloned() else {
            return;
        };
        let Some(entry) = entries.runs.get_mut(&run) else {
            return;
        };
        let mut answers = entry.answers.iter_mut();
        let Some(of) = answers.find(|of| of.id == answer) else {
            return;
        };
        of.attempts += 1;
        match result {
            Ok(()) => {
                of.state = AnswerState::Sent;
                of.taken = Some(Timestamp::now());
                of.last_error = None;
            }
            Err(reason) => of.last_error = Some(shortened(reason, MAX_REASON)),
        }
    }

    /// Nothing is left to do.
    pub(crate) fn run_over(&self, run: &RunId, end: RunEnd) {
        let mut entries = self.entries();
        let Some(entry) = entries.runs.get_mut(run) else {
            return;
        };
        let state = match end {
            RunEnd::ByItself => entry.verdict(),
            RunEnd::Panicked => RunState::Errored,
        };
        entry.close(Some(Timestamp::now()), state);
        entries.end(run);
    }

    /// What all Jobs in the cluster tell of runs, the last ones first.
    pub(crate) fn add_past(&self, past: Vec<Past>) {
        let mut entries = self.entries();
        // What was read before is read again, or its Jobs are gone.
        let stale = entries.runs.values();
        let stale = stale.filter(|run| run.source == Source::Cluster);
        for id in stale.map(|run| run.id.clone()).collect::<Vec<_>>() {
            entries.runs.remove(&id);
            entries.ended.retain(|ended| *ended != id);
        }
        for past in past {
            // What was seen here is more than the Jobs tell, and newer.
            let is_known = entries.runs.contains_key(&past.run.id);
            if !is_known && entries.ended.len() < MAX_ENDED_RUNS {
                entries.ended.push_front(past.run.id.clone());
                entries
                    .runs
                    .insert(past.run.id.clone(), Box::new(past.entry()));
            }
        }
    }

    /// The last one first.
    pub(crate) fn events(&self) -> Vec<EventEntry> {
        self.entries().events.iter().cloned().collect()
    }

    /// Those that go on first, then the last ones.
    pub(crate) fn runs(&self) -> Vec<RunEntry> {
        let mut runs: Vec<RunEntry> = self
            .entries()
            .runs
            .values()
            .map(|run| (**run).clone())
            .collect();
        runs.sort_by(|a, b| {
            let order = |run: &RunEntry| (!run.is_over(), run.arrived);
            (order(b), &b.id).cmp(&(order(a), &a.id))
        });
        runs
    }

    pub(crate) fn run(&self, id: &RunId) -> Option<RunEntry> {
        Some((**self.entries().runs.get(id)?).clone())
    }

    fn change(&self, run: &RunId, change: impl FnOnce(&mut RunEntry)) {
        if let Some(entry) = self.entries().runs.get_mut(run) {
            change(entry);
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // What is shown may be wrong after a panic; the work does not depend on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a task ran, in which Pod, and how it ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    /// From its turn to its end. None where it has no Job.
    pub(crate) whole: Option<(Timestamp, Timestamp)>,
    /// Of its container.
    pub(crate) started: Option<Timestamp>,
    pub(crate) pod: Option<String>,
    pub(crate) exit_code: Option<i32>,
}

impl Entries {
    fn enter(&mut self, event: EventEntry) {
        self.events.push_front(event);
        self.events.truncate(MAX_EVENTS);
    }

    fn begin(&mut self, entry: RunEntry) {
        self.ended.retain(|id| *id != entry.id);
        for answer in &entry.answers {
            self.answers.insert(answer.id, entry.id.clone());
        }
        self.runs.insert(entry.id.clone(), Box::new(entry));
    }

    fn end(&mut self, run: &RunId) {
        if let Some(entry) = self.runs.get(run) {
            for answer in &entry.answers {
                self.answers.remove(&answer.id);
            }
            self.ended.push_back(run.clone());
        }
        while self.ended.len() > MAX_ENDED_RUNS {
            if let Some(oldest) = self.ended.pop_front() {
                self.runs.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::run::tests::{envelope, run};

    fn past(number: usize) -> Past {
        let mut run = run(Vec::new());
        run.id = RunId::of(&envelope(&number.to_string()), "");
        Past {
            run,
            jobs: BTreeMap::new(),
            waits: false,
            started: None,
            finished: None,
            over: true,
        }
    }

    #[test]
    fn a_task_has_ended_where_the_next_one_begins() {
        let at = |second| Timestamp::from_second(second).ok();
        let job = |created, finished| PastJob {
            end: PastEnd::Succeeded,
            created: at(created),
            started: at(created),
            finished: at(finished),
        };
        let mut run = run(Vec::new());
        run.actions.push(run.actions[0].clone());
        let names: Vec<String> = run
            .steps()
            .flat_map(|(_, places)| places)
            .map(|place| place.job_name())
            .collect();
        let jobs = names.into_iter().zip([job(10, 14), job(12, 16)]);
        let past = Past {
            run,
            jobs: jobs.collect(),
            finished: at(15),
            ..past(0)
        };
        let ends: Vec<_> = past.entry().tasks().map(|task| task.finished).collect();
        assert_eq!(ends, [at(12), at(15)]);
    }

    #[test]
    fn a_newer_run_is_read_where_the_journal_was_full() {
        let journal = Journal::default();
        journal.add_past((0..MAX_ENDED_RUNS).map(past).collect());
        let newer = past(MAX_ENDED_RUNS).run.id;
        journal.add_past((0..=MAX_ENDED_RUNS).rev().map(past).collect());
        assert!(journal.run(&newer).is_some());
        assert_eq!(journal.runs().len(), MAX_ENDED_RUNS);
    }
}
