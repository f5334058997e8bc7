//! What became of a task.

use jiff::Timestamp;
use tokio::task::JoinHandle;

use crate::cluster::TaskEnd;
use crate::job_config::fields::OnFailure;
use crate::journal::Times;
use crate::metrics::Ended;
use crate::report::{ContainerLog, Ending};
use crate::run::{Place, Refusal, RunAction};

use super::course::Course;

/// A task that ended, or one that was refused.
pub(super) struct Done<'a> {
    pub(super) action: &'a RunAction,
    pub(super) task: String,
    pub(super) on_failure: OnFailure,
    pub(super) ending: Ending,
    pub(super) job: Option<(Place<'a>, TaskEnd)>,
    /// When it began and ended, as its span tells it.
    pub(super) time: Option<(Timestamp, Timestamp)>,
    pub(super) logs: Option<JoinHandle<Vec<ContainerLog>>>,
}

impl<'a> Done<'a> {
    /// None if it has no Job.
    pub(super) fn place(&self) -> Option<Place<'a>> {
        Some(self.job.as_ref()?.0)
    }

    pub(super) fn ended(&self) -> Ended {
        match self.ending {
            Ending::Succeeded => Ended::Succeeded,
            Ending::Failed(_) => failed_as(self.on_failure),
        }
    }

    pub(super) fn times(&self) -> Times {
        let end = self.job.as_ref().map(|(_, end)| end);
        Times {
            whole: self.time,
            started: end.and_then(|end| end.started),
            exit_code: end.and_then(|end| end.exit_code),
            pod: end.and_then(|end| Some(end.pod.as_ref()?.0.clone())),
        }
    }

    pub(super) fn refused(action: &'a RunAction, refusal: Refusal) -> Self {
        Self {
            action,
            task: refusal.task,
            on_failure: refusal.on_failure,
            ending: Ending::Failed(refusal.reason),
            job: None,
            time: None,
            logs: None,
        }
    }
}

/// When the task of a Job began and ended. What the cluster says has seconds only, and is what is left after
/// an earlier process.
pub(super) fn time_of(end: &TaskEnd, begins: Timestamp, course: &Course) -> (Timestamp, Timestamp) {
    let seen = Timestamp::now();
    if !course.taken_over {
        return (begins, seen);
    }
    let created = end.pod.as_ref().and_then(|(_, pod)| pod.created);
    let began = created.or(end.started).unwrap_or(begins);
    (began, end.finished.unwrap_or(seen))
}

pub(super) fn failed_as(on_failure: OnFailure) -> Ended {
    match on_failure {
        OnFailure::Warn => Ended::Warned,
        OnFailure::Fail => Ended::Failed,
    }
}
