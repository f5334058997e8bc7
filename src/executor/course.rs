//! Where a run stands when its execution begins: at its start, or after another process has executed some of it.
//! Pure.

use std::collections::BTreeSet;

use tokio::time::Instant;

use crate::cluster::{Progress, Start, Told};
use crate::job_config::fields::OnFailure;
use crate::journal::Earlier;
use crate::keptn::answers::Sent;
use crate::run::Place;
use crate::traces::Beginning;

/// Where a run stands when its execution begins.
#[derive(Debug, Clone)]
pub(crate) struct Course {
    /// Its first Job waits for its turn.
    pub(crate) queued: bool,
    pub(crate) started: Sent,
    pub(crate) finished: Sent,
    /// The names of its Jobs that are known.
    pub(super) jobs: BTreeSet<String>,
    /// There may be Jobs that this execution does not come to.
    pub(super) taken_over: bool,
    pub(super) beginning: Beginning,
}

impl Course {
    /// Of a run whose first Job this process has just created.
    pub(crate) fn begins(
        first: Place<'_>,
        start: Start,
        started: Sent,
        beginning: Beginning,
    ) -> Self {
        Self {
            queued: start == Start::Queued,
            started,
            finished: Sent::No,
            jobs: BTreeSet::from([first.job_name()]),
            taken_over: false,
            beginning,
        }
    }

    /// Of a run that another process may have executed until `then`.
    pub(crate) fn goes_on(progress: Progress, then: Instant) -> Self {
        let (started, finished) = match progress.told {
            Told::Nothing => (Sent::Perhaps(then), Sent::Perhaps(then)),
            Told::Started => (Sent::Yes, Sent::Perhaps(then)),
            Told::Finished => (Sent::Yes, Sent::Yes),
        };
        Self {
            queued: progress.queued,
            started,
            finished,
            jobs: progress.jobs,
            taken_over: true,
            beginning: Beginning::default(),
        }
    }

    pub(super) fn earlier(&self) -> Earlier {
        Earlier {
            waits: self.queued,
            started_was_sent: self.started == Sent::Yes,
            taken_over: self.taken_over,
        }
    }

    /// Whether the Job of this task was created, as it or a later one tells. One that is missing then was
    /// deleted.
    pub(super) fn has_reached(&self, place: Place<'_>) -> bool {
        // Names sort as the tasks run.
        self.jobs.range(place.job_name()..).next().is_some()
    }

    /// Whether this task succeeded, as a later one of its action tells: one that runs only then. Its Job
    /// may look otherwise by now: deleted, or kept by a sidecar beyond its time limit.
    pub(super) fn has_passed(&self, place: Place<'_>, later: &[Place<'_>]) -> bool {
        let mut needs = later.iter().filter(|later| !later.task.always);
        place.task.on_failure == OnFailure::Fail
            && needs.any(|later| self.jobs.contains(&later.job_name()))
    }
}
