//! How a task ended, read off what the cluster shows. Pure.
//!
//! A container's end is final (`restartPolicy: Never`), where no other attempt follows it, and visible
//! about two seconds before the Job's condition; the condition tells what a Pod cannot: the deadline, a
//! Pod that is gone. A task that does not start ends when its [`Hindrance`] has lasted too long.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::ended_by;
use super::hindrance::{Graces, Hindrance, Warning};
use super::names::init_container_name;
use super::seen::{ContainerState, JobSeen, PodSeen};
use crate::report::Ending;

/// The kubelet's longest pause between two attempts is two minutes: what it has not said for longer is over.
const RECENT: Duration = Duration::from_secs(150);

/// What the watches saw of one Job and its Pods.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) job: JobSeen,
    /// By name; a Pod that is gone leaves what was last seen of it. As a rule there is one, and a map has room
    /// for eleven.
    pub(super) pods: BTreeMap<String, Box<PodSeen>>,
    /// The Job controller cannot create a Pod.
    pub(crate) no_pod: Option<Warning>,
    /// What Pods wait for before their containers, by the Pod's name.
    pub(crate) not_ready: BTreeMap<String, Warning>,
    hindered: Option<Hindered>,
}

/// What keeps the task from starting now, and since when.
#[derive(Debug, Clone)]
struct Hindered {
    by: Hindrance,
    since: Instant,
}

/// The same moment of this process's clock and of the one that the cluster's objects have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) time: Timestamp,
}

/// What a task may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For all attempts together.
    pub(crate) seconds: u32,
    /// At least one.
    pub(crate) attempts: usize,
    pub(crate) graces: Graces,
}

/// The end of a task, and where its logs are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskEnd {
    pub(crate) ending: Ending,
    /// What the task wrote to its `resultFile`.
    pub(crate) result: Option<String>,
    /// Of its container.
    pub(crate) exit_code: Option<i32>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) pod: Option<(String, Box<PodSeen>)>,
    pub(crate) aftermath: Aftermath,
}

/// What the end of a task leaves to do at its Job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aftermath {
    /// It shows its end itself.
    Nothing,
    /// What told the reason does not last: whoever takes the run over would find another one.
    Note,
    /// The Job would go on, too.
    NoteAndEnd,
}

impl TaskEnd {
    /// Of a task that left nothing in the cluster.
    pub(crate) fn failed(reason: String) -> Self {
        Self {
            ending: Ending::Failed(reason),
            result: None,
            exit_code: None,
            started: None,
            finished: None,
            pod: None,
            aftermath: Aftermath::Nothing,
        }
    }

    /// With the message of the container of this Job as the task's result.
    pub(crate) fn with_result(mut self, job: &str) -> Self {
        if self.ending == Ending::Succeeded && self.finished.is_none() {
            let failure = format!(
                "job {job} succeeded, but its `resultFile` cannot be read any more: its Pod is gone"
            );
            self.ending = Ending::Failed(failure);
        }
        let containers = self.pod.iter_mut().flat_map(|(_, pod)| &mut pod.containers);
        let mut named = containers.filter(|container| container.name == job);
        self.result = named.find_map(|container| match &mut container.state {
            ContainerState::Ended(end) => end.message.take(),
            ContainerState::Waiting(_) | ContainerState::Running => None,
        });
        self
    }
}

impl Seen {
    /// With their names.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&String, &PodSeen)> + Clone {
        self.pods.iter().map(|(name, pod)| (name, &**pod))
    }

    /// When a Pod was created that outlives its task.
    pub(crate) fn outlived(&self, job: &str) -> Option<Timestamp> {
        self.pods().find(|(_, pod)| pod.outlives(job))?.1.created
    }

    /// Whether something keeps the task from starting, after whatever was just seen. Where Kubernetes does not
    /// say since when, a process that takes over counts from when it sees it.
    pub(crate) fn review(&mut self, job: &str, now: Now) {
        self.hindered = self.hindrance(job).map(|by| match &self.hindered {
            Some(known) if known.by.kind == by.kind => Hindered {
                by: known.by.followed_by(by),
                since: known.since,
            },
            _ => {
                let age = by.since.map(|since| now.time.duration_since(since));
                let age = age.and_then(|age| age.try_into().ok()).unwrap_or_default();
                let since = now.instant.checked_sub(age).unwrap_or(now.instant);
                Hindered { by, since }
            }
        });
    }

    /// What keeps the task from starting now.
    pub(crate) fn hindrance_now(&self) -> Option<&Hindrance> {
        self.hindered.as_ref().map(|hindered| &hindered.by)
    }

    fn hindrance(&self, job: &str) -> Option<Hindrance> {
        match &self.job {
            JobSeen::Suspended => return Some(Hindrance::suspension()),
            JobSeen::Running => {}
            _ => return None,
        }
        let mut alive = self.pods().filter(|(_, pod)| pod.is_alive());
        match alive.next() {
            Some((name, pod)) => pod.hindrance(job, self.not_ready.get(name)),
            None => self.no_pod().map(Hindrance::of_creation),
        }
    }

    /// One from before the last Pod is out of date.
    fn no_pod(&self) -> Option<&Warning> {
        let last_pod = self.pods().map(|(_, pod)| pod.created).max();
        let is_new = |warning: &&Warning| last_pod.is_none_or(|created| warning.last > created);
        self.no_pod.as_ref().filter(is_new)
    }

    /// When what keeps the task from starting has lasted too long.
    pub(crate) fn patience_ends(&self, graces: Graces) -> Option<Instant> {
        let hindered = self.hindered.as_ref()?;
        hindered.by.patience_ends(hindered.since, graces)
    }

    /// How the task of this Job ended, if it has.
    pub(crate) fn end(&self, job: &str, limits: Limits, now: Instant) -> Option<TaskEnd> {
        if let JobSeen::Noted(failure) = &self.job {
            return Some(self.ended(job, Ending::Failed(failure.clone())));
        }
        if let JobSeen::Failed { reason, .. } = &self.job
            && reason == "DeadlineExceeded"
        {
            return Some(self.deadline_exceeded(job, limits, now));
        }
        let whole = self.pods().filter(|(_, pod)| pod.is_whole());
        let mut ends = whole.filter_map(|(_, pod)| pod.container(job));
        if ends.any(|end| end.exit_code == 0) {
            return Some(self.ended(job, Ending::Succeeded));
        }
        let init_container = init_container_name(job);
        let has_failed = |(_, pod): &(&String, &PodSeen)| {
            let bad_init = pod
                .init_container(&init_container)
                .is_some_and(|end| end.exit_code != 0);
            let by_itself = pod.is_whole() && (pod.container(job).is_some() || bad_init);
            by_itself || (pod.failed && !pod.ending)
        };
        // Kubernetes makes another Pod after each that failed, until it has made them all.
        if self.pods().filter(has_failed).count() >= limits.attempts {
            return Some(self.failed(job, backoff_limit_exceeded(job, limits.attempts)));
        }
        match &self.job {
            JobSeen::NotYet | JobSeen::Running | JobSeen::Suspended => {
                let hindered = self.hindered.as_ref()?;
                let is_over = now >= self.patience_ends(limits.graces)?;
                is_over.then(|| TaskEnd {
                    aftermath: Aftermath::NoteAndEnd,
                    ..self.ended(job, Ending::Failed(hindered.by.text(job)))
                })
            }
            JobSeen::Complete => Some(self.ended(job, Ending::Succeeded)),
            JobSeen::Failed { reason, message } => {
                let failure = format!("job {job} failed. Reason: {reason}, Message: {message}");
                Some(self.failed(job, failure))
            }
            JobSeen::Noted(failure) => Some(self.ended(job, Ending::Failed(failure.clone()))),
            JobSeen::Gone => Some(self.missing(
                job,
                "was deleted before it ended, by somebody other than this service; send the event again",
            )),
            JobSeen::Absent => Some(self.missing(
                job,
                "is not there: its creation was refused, or somebody deleted it",
            )),
            JobSeen::Hidden => Some(self.missing(
                job,
                "cannot be seen any more: the service's account lacks the permissions in its namespace \
                 (deploy/job-namespace.yaml)",
            )),
        }
    }

    fn missing(&self, job: &str, what: &str) -> TaskEnd {
        self.ended(job, Ending::Failed(format!("job {job} {what}")))
    }

    /// With what the Pod waited for, where it never started, or what its node left open.
    fn deadline_exceeded(&self, job: &str, limits: Limits, now: Instant) -> TaskEnd {
        let failure = format!(
            "job {job} failed: job deadline exceeded ({} s; `maxPollDuration` of the \
             task or TASK_DEADLINE_SECONDS of the service changes it)",
            limits.seconds
        );
        // The Pod goes at the same moment.
        let last = self.pods().max_by_key(|(_, pod)| pod.created);
        let is_recent = |warning: &&Warning| now < warning.seen + RECENT;
        let hindrance = match last {
            Some((name, pod)) => pod.hindrance(job, self.not_ready.get(name).filter(is_recent)),
            None => self.no_pod.as_ref().map(Hindrance::of_creation),
        };
        let silence = last.and_then(|(_, pod)| ended_by::silence(pod));
        let waits = last.is_some_and(|(_, pod)| pod.waits(job));
        let why = hindrance.map(|hindrance| hindrance.explanation());
        let why = why.or(silence);
        match why.or_else(|| waits.then(|| "its container had not started by then".to_owned())) {
            None => self.ended(job, Ending::Failed(failure)),
            Some(why) => TaskEnd {
                aftermath: Aftermath::Note,
                ..self.ended(job, Ending::Failed(format!("{failure}; {why}")))
            },
        }
    }

    /// With what ended the last Pod, where it was not the task itself.
    fn failed(&self, job: &str, failure: String) -> TaskEnd {
        let mut end = self.ended(job, Ending::Failed(failure));
        let Some((_, pod)) = &end.pod else {
            return end;
        };
        if let (Ending::Failed(failure), Some(explanation)) =
            (&mut end.ending, ended_by::explanation(job, pod))
        {
            failure.push_str("; ");
            failure.push_str(&explanation);
            if pod.ending || pod.reason.is_some() {
                end.aftermath = Aftermath::Note;
            }
        }
        end
    }

    fn ended(&self, job: &str, ending: Ending) -> TaskEnd {
        // A Job that was deleted and created again has the Pod of before beside its own.
        let with_end = |(_, pod): &(&String, &PodSeen)| pod.container(job).is_some();
        let whole = |of: &(&String, &PodSeen)| with_end(of) && !of.1.ending;
        // The attempt that succeeded, or else the last one, tells why there was none after it.
        let end_of = |of: &(&String, &PodSeen)| {
            let end = of.1.container(job);
            end.map(|end| (end.exit_code == 0, end.finished))
        };
        let pods = self.pods();
        let pod = pods.clone().filter(whole).max_by_key(end_of);
        let pod = pod.or(pods.clone().filter(with_end).max_by_key(end_of));
        let pod = pod.or(pods.max_by_key(|(_, pod)| pod.created));
        let container = pod.and_then(|(_, pod)| pod.container(job));
        TaskEnd {
            ending,
            result: None,
            exit_code: container.map(|end| end.exit_code),
            started: container.and_then(|end| end.started),
            finished: container.and_then(|end| end.finished),
            pod: pod.map(|(name, pod)| (name.clone(), Box::new(pod.clone()))),
            aftermath: Aftermath::Nothing,
        }
    }
}

/// What the Job's condition is going to say, and what the original's users search for.
fn backoff_limit_exceeded(job: &str, attempts: usize) -> String {
    let attempts = match attempts {
        1 => String::new(),
        more => format!(" ({more} attempts)"),
    };
    format!(
        "job {job} failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified \
         backoff limit{attempts}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(yaml: &str) -> PodSeen {
        PodSeen::of(&serde_yaml::from_str(yaml).unwrap())
    }

    fn job(yaml: &str) -> JobSeen {
        JobSeen::of(&serde_yaml::from_str(yaml).unwrap())
    }

    fn end(job: JobSeen, pod: Option<PodSeen>) -> String {
        let pods = pod.map(|pod| ("j-x".to_owned(), Box::new(pod)));
        let graces = Graces {
            image_pull: Duration::from_secs(30),
            unschedulable: Duration::from_secs(300),
        };
        let limits = Limits {
            seconds: 30,
            attempts: 1,
            graces,
        };
        let seen = Seen {
            job,
            pods: pods.into_iter().collect(),
            ..Seen::default()
        };
        match seen.end("j", limits, Instant::now()) {
            None => "goes on".into(),
            Some(TaskEnd {
                ending: Ending::Succeeded,
                ..
            }) => "succeeded".into(),
            Some(TaskEnd {
                ending: Ending::Failed(reason),
                ..
            }) => reason,
        }
    }

    const CREATING: &str =
        "{status: {containerStatuses: [{name: j, state: {waiting: {reason: ContainerCreating}}}]}}";
    const RUNNING: &str = "{status: {containerStatuses: [{name: j, state: {running: {}}}]}}";
    const DONE: &str = "{status: {containerStatuses: [{name: sidecar, state: {running: {}}}, \
        {name: j, state: {terminated: {exitCode: 0, reason: Completed}}}]}}";
    const EXIT_3: &str = "{status: {containerStatuses: [{name: j, state: {terminated: {exitCode: 3, reason: Error}}}]}}";
    const KILLED: &str = "{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}, status: \
        {containerStatuses: [{name: j, state: {terminated: {exitCode: 143, reason: Error}}}]}}";
    const BAD_INIT: &str = "{status: {initContainerStatuses: [{name: init-j, state: {terminated: \
        {exitCode: 1, reason: Error}}}], containerStatuses: [{name: j, state: {waiting: {}}}]}}";
    const EVICTED_WITH_0: &str = "{status: {reason: Evicted, message: no disk, containerStatuses: \
        [{name: j, state: {terminated: {exitCode: 0, reason: Completed}}}]}}";
    const EVICTED: &str =
        "{status: {phase: Failed, reason: Evicted, message: no disk, containerStatuses: []}}";

    fn condition(kind: &str, reason: &str) -> JobSeen {
        job(&format!(
            "{{status: {{conditions: [{{type: {kind}, status: 'True', reason: {reason}, message: m}}]}}}}"
        ))
    }

    #[test]
    fn the_end_of_the_container_is_the_end_of_the_task() {
        let running = || job("{}");
        let rows = [
            end(JobSeen::NotYet, None),
            end(running(), Some(pod(RUNNING))),
            end(running(), Some(pod(DONE))),
            end(running(), Some(pod(EXIT_3))),
            end(running(), Some(pod(BAD_INIT))),
            end(running(), Some(pod(KILLED))),
            end(running(), Some(pod(EVICTED))),
            end(running(), Some(pod(EVICTED_WITH_0))),
            end(condition("Suspended", "x"), None),
            end(condition("Complete", "x"), None),
            end(
                condition("FailureTarget", "DeadlineExceeded"),
                Some(pod(KILLED)),
            ),
            end(
                condition("FailureTarget", "DeadlineExceeded"),
                Some(pod(CREATING)),
            ),
            end(
                condition("Failed", "BackoffLimitExceeded"),
                Some(pod(EVICTED)),
            ),
            end(JobSeen::Gone, Some(pod(KILLED))),
            end(JobSeen::Gone, Some(pod(DONE))),
        ];
        insta::assert_snapshot!(rows.join("\n"), @"
        goes on
        goes on
        succeeded
        job j failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit
        job j failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its init container `init-j`, which fetches the task's files, failed (Error, exit code 1); its log says why
        goes on
        job j failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its Pod was evicted by its node (Evicted: no disk); raise `resources.requests` of the task, so that its node has room for it
        goes on
        goes on
        succeeded
        job j failed: job deadline exceeded (30 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it)
        job j failed: job deadline exceeded (30 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it); its container had not started by then
        job j failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its Pod was evicted by its node (Evicted: no disk); raise `resources.requests` of the task, so that its node has room for it
        job j was deleted before it ended, by somebody other than this service; send the event again
        succeeded
        ");
    }

    #[test]
    fn a_sidecar_that_goes_on_is_noticed() {
        assert!(pod(DONE).outlives("j"));
        assert!(!pod(EXIT_3).outlives("j"));
        assert!(!pod(RUNNING).outlives("j"));
    }
}
