//! A run as its Jobs in the cluster tell of it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::entry::{AnswerState, RunEntry, RunState, Source, TaskState};
use crate::run::Run;

/// What the Jobs of a run say.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) run: Run,
    /// By their names.
    pub(crate) jobs: BTreeMap<String, PastJob>,
    /// Its first Job waits for its turn.
    pub(crate) waits: bool,
    /// When Keptn took `.started`.
    pub(crate) started: Option<Timestamp>,
    /// When Keptn took `.finished`, or the end of a run of which it is told nothing.
    pub(crate) finished: Option<Timestamp>,
    /// Nothing is left to do.
    pub(crate) over: bool,
}

/// What one Job says of its task.
#[derive(Debug)]
pub(crate) struct PastJob {
    pub(crate) end: PastEnd,
    pub(crate) created: Option<Timestamp>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PastEnd {
    None,
    Succeeded,
    Failed(String),
}

impl Past {
    pub(super) fn entry(&self) -> RunEntry {
        let mut entry = RunEntry::of(&self.run);
        entry.source = Source::Cluster;
        for task in entry.tasks_mut() {
            let Some(job) = task.job.as_ref().and_then(|name| self.jobs.get(name)) else {
                continue;
            };
            task.state = TaskState::Running;
            match &job.end {
                PastEnd::None => {}
                PastEnd::Succeeded => task.succeeds(),
                PastEnd::Failed(reason) => task.fails(reason),
            }
            (task.begun, task.started) = (job.created, job.started);
            task.finished = job.finished;
        }
        // A Job shows its end seconds late; the next one is not created before it, nor is `.finished` sent.
        let mut next = self.finished;
        let actions = entry.actions.iter_mut().rev();
        for task in actions.flat_map(|action| action.tasks.iter_mut().rev()) {
            if let (Some(finished), Some(next)) = (&mut task.finished, next) {
                *finished = next.min(*finished);
            }
            next = task.begun.or(next);
        }
        let taken = [self.started, self.finished];
        for (index, answer) in entry.answers.iter_mut().enumerate() {
            let sent = self.over || taken.get(index).is_some_and(Option::is_some);
            if sent {
                answer.state = AnswerState::Sent;
            }
            answer.taken = taken.get(index).copied().flatten();
        }
        if self.waits {
            entry.state = RunState::Waiting;
        }
        if self.over {
            entry.actions.iter_mut().for_each(|action| {
                let mut failed = false;
                for task in &mut action.tasks {
                    // What is left of an action after a task that was refused runs all the same.
                    failed |= task.state == TaskState::Failed && task.job.is_some();
                    // What an earlier failure did not skip had a Job, which is gone.
                    if task.state == TaskState::Pending && !failed {
                        task.state = TaskState::Unknown;
                    }
                }
            });
            let last = entry.tasks().filter_map(|task| task.finished).max();
            let verdict = entry.verdict();
            entry.close(self.finished.or(last), verdict);
        }
        entry
    }
}
