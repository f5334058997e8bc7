//! How a task ended, read off what the cluster shows. Pure.
//!
//! A container's end is final (`restartPolicy: Never`), where no other attempt follows it, and visible
//! about two seconds before the Job's condition; the condition tells what a Pod cannot: the deadline, a
//! Pod that is gone.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;

use super::names::{self, init_container_name};
use crate::report::Ending;

/// What the watches saw of one Job and its Pods.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    pub(crate) job: JobSeen,
    /// By name; a Pod that is gone leaves what was last seen of it.
    pub(crate) pods: BTreeMap<String, PodSeen>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum JobSeen {
    #[default]
    NotYet,
    Running,
    Complete,
    Failed {
        reason: String,
        message: String,
    },
    Gone,
    /// It was looked for and never seen.
    Absent,
    /// The service has no permissions in its namespace.
    Hidden,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct PodSeen {
    /// Somebody ends the Pod: its containers' exit codes are no longer the task's.
    pub(crate) ending: bool,
    pub(crate) created: Option<Timestamp>,
    /// Why the kubelet ended the Pod as a whole, such as `Evicted`.
    pub(crate) reason: Option<String>,
    pub(crate) init_containers: Vec<ContainerSeen>,
    pub(crate) containers: Vec<ContainerSeen>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerSeen {
    pub(crate) name: String,
    pub(crate) state: ContainerState,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ContainerState {
    Waiting,
    Running,
    Ended(ContainerEnd),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerEnd {
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
}

/// What a task may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For all attempts together.
    pub(crate) seconds: u32,
    /// At least one.
    pub(crate) attempts: usize,
}

/// The end of a task, and where its logs are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TaskEnd {
    pub(crate) ending: Ending,
    /// What the task wrote to its `resultFile`.
    pub(crate) result: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) pod: Option<(String, PodSeen)>,
}

impl TaskEnd {
    /// Of a task that left nothing in the cluster.
    pub(crate) fn failed(reason: String) -> Self {
        Self {
            ending: Ending::Failed(reason),
            result: None,
            started: None,
            finished: None,
            pod: None,
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
            ContainerState::Waiting | ContainerState::Running => None,
        });
        self
    }
}

impl JobSeen {
    pub(crate) fn of(job: &Job) -> Self {
        if job.annotations().contains_key(names::SUCCEEDED) {
            return Self::Complete;
        }
        let status = job.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        for condition in conditions
            .iter()
            .filter(|condition| condition.status == "True")
        {
            match condition.type_.as_str() {
                "Complete" | "SuccessCriteriaMet" => return Self::Complete,
                // FailureTarget comes first, while the Pods are still being ended.
                "Failed" | "FailureTarget" => {
                    return Self::Failed {
                        reason: condition.reason.clone().unwrap_or_default(),
                        message: condition.message.clone().unwrap_or_default(),
                    };
                }
                _ => {}
            }
        }
        Self::Running
    }
}

impl PodSeen {
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else {
            return Self::default();
        };
        let seen = |statuses: &Option<Vec<ContainerStatus>>| {
            statuses.iter().flatten().map(ContainerSeen::of).collect()
        };
        Self {
            ending: pod.metadata.deletion_timestamp.is_some(),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            reason: status.reason.as_ref().map(|reason| match &status.message {
                Some(message) => format!("{reason}: {message}"),
                None => reason.clone(),
            }),
            init_containers: seen(&status.init_container_statuses),
            containers: seen(&status.container_statuses),
        }
    }

    fn container(&self, name: &str) -> Option<&ContainerEnd> {
        let named = |container: &&ContainerSeen| container.name == name;
        self.containers.iter().find(named)?.end()
    }

    fn init_container(&self, name: &str) -> Option<&ContainerEnd> {
        let named = |container: &&ContainerSeen| container.name == name;
        self.init_containers.iter().find(named)?.end()
    }

    /// Whether something keeps the Pod alive that is not the task, such as an injected sidecar.
    fn outlives(&self, container: &str) -> bool {
        self.container(container).is_some()
            && self.containers.iter().any(|other| other.end().is_none())
    }
}

impl ContainerSeen {
    fn of(status: &ContainerStatus) -> Self {
        let state = status.state.clone().unwrap_or_default();
        Self {
            name: status.name.clone(),
            state: match (state.terminated, state.running) {
                (Some(terminated), _) => ContainerState::Ended(ContainerEnd::of(&terminated)),
                (None, Some(_)) => ContainerState::Running,
                (None, None) => ContainerState::Waiting,
            },
        }
    }

    pub(crate) fn end(&self) -> Option<&ContainerEnd> {
        match &self.state {
            ContainerState::Ended(end) => Some(end),
            ContainerState::Waiting | ContainerState::Running => None,
        }
    }
}

impl ContainerEnd {
    fn of(terminated: &ContainerStateTerminated) -> Self {
        Self {
            exit_code: terminated.exit_code,
            reason: terminated.reason.clone().unwrap_or_default(),
            message: terminated
                .message
                .clone()
                .filter(|message| !message.is_empty()),
            started: terminated.started_at.as_ref().map(|time| time.0),
            finished: terminated.finished_at.as_ref().map(|time| time.0),
        }
    }

    /// The words of the original's log headings; none for a good end.
    pub(crate) fn error(&self) -> Option<String> {
        if self.reason == "Completed" && self.exit_code == 0 {
            return None;
        }
        Some(match &self.message {
            Some(message) => format!("Reason: {}, Message: {message}", self.reason),
            None => format!("Reason: {}, ExitCode: {}", self.reason, self.exit_code),
        })
    }
}

impl Seen {
    /// When a Pod was created that outlives its task.
    pub(crate) fn outlived(&self, job: &str) -> Option<Timestamp> {
        let outliving = |pod: &&PodSeen| pod.outlives(job);
        self.pods.values().find(outliving)?.created
    }

    /// How the task of this Job ended, if it has.
    pub(crate) fn end(&self, job: &str, limits: Limits) -> Option<TaskEnd> {
        if let JobSeen::Failed { reason, .. } = &self.job
            && reason == "DeadlineExceeded"
        {
            let failure = format!(
                "job {job} failed: job deadline exceeded ({} s; `maxPollDuration` of the \
                 task or TASK_DEADLINE_SECONDS of the service changes it)",
                limits.seconds
            );
            return Some(self.ended(job, Ending::Failed(failure)));
        }
        // A Pod that is ended from outside (deleted, evicted, its node shut down) may well exit with 0;
        // then the Job's condition decides.
        let alive = || {
            self.pods
                .values()
                .filter(|pod| !pod.ending && pod.reason.is_none())
        };
        let ends = alive().filter_map(|pod| pod.container(job));
        if ends.clone().any(|end| end.exit_code == 0) {
            return Some(self.ended(job, Ending::Succeeded));
        }
        let init_container = init_container_name(job);
        let bad_init = |pod: &&PodSeen| {
            pod.init_container(&init_container)
                .is_some_and(|end| end.exit_code != 0)
        };
        // Kubernetes makes another Pod after each that failed, until it has made them all.
        if ends.count() + alive().filter(bad_init).count() >= limits.attempts {
            let failure = backoff_limit_exceeded(job, limits.attempts);
            return Some(self.ended(job, Ending::Failed(failure)));
        }
        match &self.job {
            JobSeen::NotYet | JobSeen::Running => None,
            JobSeen::Complete => Some(self.ended(job, Ending::Succeeded)),
            JobSeen::Failed { reason, message } => {
                let mut failure = format!("job {job} failed. Reason: {reason}, Message: {message}");
                for pod in self.pods.values().filter_map(|pod| pod.reason.as_deref()) {
                    failure.push_str(&format!(" (the Pod: {pod})"));
                }
                Some(self.ended(job, Ending::Failed(failure)))
            }
            JobSeen::Gone => Some(self.failed(job, "was deleted before it ended")),
            JobSeen::Absent => Some(self.failed(
                job,
                "is not there: its creation was refused, or somebody deleted it",
            )),
            JobSeen::Hidden => Some(self.failed(
                job,
                "cannot be seen any more: the service's account lacks the permissions in its namespace \
                 (deploy/job-namespace.yaml)",
            )),
        }
    }

    fn failed(&self, job: &str, what: &str) -> TaskEnd {
        self.ended(job, Ending::Failed(format!("job {job} {what}")))
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
        let pods = self.pods.iter();
        let pod = pods.clone().filter(whole).max_by_key(end_of);
        let pod = pod.or(pods.clone().filter(with_end).max_by_key(end_of));
        let pod = pod.or(pods.max_by_key(|(_, pod)| pod.created));
        let container = pod.and_then(|(_, pod)| pod.container(job));
        TaskEnd {
            ending,
            result: None,
            started: container.and_then(|end| end.started),
            finished: container.and_then(|end| end.finished),
            pod: pod.map(|(name, pod)| (name.clone(), pod.clone())),
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
        let pods = pod.into_iter().map(|pod| ("j-x".to_owned(), pod)).collect();
        let limits = Limits {
            seconds: 30,
            attempts: 1,
        };
        match (Seen { job, pods }).end("j", limits) {
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
    const EVICTED: &str = "{status: {reason: Evicted, message: no disk, containerStatuses: []}}";

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
        job j failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit
        goes on
        goes on
        goes on
        goes on
        succeeded
        job j failed: job deadline exceeded (30 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it)
        job j failed. Reason: BackoffLimitExceeded, Message: m (the Pod: Evicted: no disk)
        job j was deleted before it ended
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
