//! What a Job and its Pods show of a task, of all that they have. Pure.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, ContainerStateTerminated, ContainerStatus, Pod, PodCondition,
};
use kube::ResourceExt;

use super::hindrance::{Hindrance, Warning};
use super::names;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum JobSeen {
    #[default]
    NotYet,
    Running,
    /// After it had run.
    Suspended,
    Complete,
    Failed {
        reason: String,
        message: String,
    },
    /// Its task ended, and why is noted on it.
    Noted(String),
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
    /// It has ended, and not well.
    pub(crate) failed: bool,
    /// Why the kubelet ended the Pod as a whole, such as `Evicted`.
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    /// Who of the cluster ends it, and why.
    pub(crate) disruption: Option<Disruption>,
    /// Its node has not been heard of since then.
    pub(crate) unheard_since: Option<Timestamp>,
    /// Why no node has it.
    unplaced: Option<Hindrance>,
    pub(crate) init_containers: Vec<ContainerSeen>,
    pub(crate) containers: Vec<ContainerSeen>,
}

/// That the cluster means a Pod to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disruption {
    pub(crate) reason: String,
    pub(crate) message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerSeen {
    pub(crate) name: String,
    pub(crate) memory_limit: Option<String>,
    pub(crate) state: ContainerState,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ContainerState {
    Waiting(Option<Hindrance>),
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

impl JobSeen {
    pub(crate) fn of(job: &Job) -> Self {
        if job.annotations().contains_key(names::SUCCEEDED) {
            return Self::Complete;
        }
        if let Some(reason) = job.annotations().get(names::FAILED) {
            return Self::Noted(reason.clone());
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
        let has_run = status.is_some_and(|status| status.start_time.is_some());
        let is_suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        if is_suspended && has_run {
            return Self::Suspended;
        }
        Self::Running
    }

    /// Whether nothing tells of an end.
    pub(crate) fn goes_on(&self) -> bool {
        matches!(self, Self::Running | Self::Suspended)
    }
}

impl PodSeen {
    pub(crate) fn of(pod: &Pod) -> Self {
        let Some(status) = &pod.status else {
            return Self::default();
        };
        let spec = pod.spec.as_ref();
        let specs = || {
            let containers = spec.map(|spec| spec.containers.iter());
            let init_containers = spec.map(|spec| spec.init_containers.iter().flatten());
            let containers = containers.into_iter().flatten();
            containers.chain(init_containers.into_iter().flatten())
        };
        let seen = |statuses: &Option<Vec<ContainerStatus>>| {
            let statuses = statuses.iter().flatten();
            let of = |status: &ContainerStatus| {
                let spec = specs().find(|container| container.name == status.name);
                ContainerSeen::of(status, spec)
            };
            statuses.map(of).collect()
        };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        Self {
            ending: pod.metadata.deletion_timestamp.is_some(),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            failed: status.phase.as_deref() == Some("Failed"),
            reason: status.reason.clone(),
            message: status.message.clone(),
            disruption: conditions.iter().find_map(Disruption::of),
            unheard_since: conditions.iter().find_map(unheard_since),
            unplaced: conditions.iter().find_map(Hindrance::of_condition),
            init_containers: seen(&status.init_container_statuses),
            containers: seen(&status.container_statuses),
        }
    }

    /// What keeps the container of this Job from starting.
    pub(super) fn hindrance(&self, job: &str, not_ready: Option<&Warning>) -> Option<Hindrance> {
        if let Some(unplaced) = &self.unplaced {
            return Some(unplaced.clone());
        }
        let own = self.containers.iter().find(|own| own.name == job)?;
        let containers = || self.init_containers.iter().chain([own]);
        let why = |container: &ContainerSeen| match &container.state {
            ContainerState::Waiting(why) => Some(why.clone()),
            ContainerState::Running | ContainerState::Ended(_) => None,
        };
        // A container that runs or has ended does not need those beside it.
        why(own)?;
        if let Some(hindrance) = containers().filter_map(why).flatten().next() {
            return Some(hindrance);
        }
        // It is there before anything runs.
        let waits = containers().all(|container| why(container).is_some());
        let warning = not_ready.filter(|_| waits)?;
        Some(Hindrance::of_preparation(&own.name, warning))
    }

    /// Whether the container of this Job has not started.
    pub(super) fn waits(&self, job: &str) -> bool {
        let mut containers = self.containers.iter();
        let own = containers.find(|container| container.name == job);
        own.is_some_and(|own| matches!(own.state, ContainerState::Waiting(_)))
    }

    /// Whether its containers' exit codes are the task's: those of a Pod that is ended from outside (deleted,
    /// evicted, its node shut down) may well be 0.
    pub(super) fn is_whole(&self) -> bool {
        !self.ending && self.reason.is_none()
    }

    /// Whether it may still do its task's work.
    pub(super) fn is_alive(&self) -> bool {
        !self.ending && !self.failed
    }

    pub(super) fn container(&self, name: &str) -> Option<&ContainerEnd> {
        let named = |container: &&ContainerSeen| container.name == name;
        self.containers.iter().find(named)?.end()
    }

    pub(super) fn init_container(&self, name: &str) -> Option<&ContainerEnd> {
        let named = |container: &&ContainerSeen| container.name == name;
        self.init_containers.iter().find(named)?.end()
    }

    /// Whether something keeps the Pod alive that is not the task, such as an injected sidecar.
    pub(super) fn outlives(&self, container: &str) -> bool {
        self.container(container).is_some()
            && self.containers.iter().any(|other| other.end().is_none())
    }
}

impl Disruption {
    fn of(condition: &PodCondition) -> Option<Self> {
        let applies = condition.type_ == "DisruptionTarget" && condition.status == "True";
        applies.then(|| Self {
            reason: condition.reason.clone().unwrap_or_default(),
            message: condition.message.clone().unwrap_or_default(),
        })
    }
}

/// When a node falls silent, the node lifecycle controller says of its Pods that they are not ready, and leaves all
/// else as the node said it last (`MarkPodsNotReady` of Kubernetes). A kubelet gives a reason with that.
fn unheard_since(condition: &PodCondition) -> Option<Timestamp> {
    let has_reason = condition
        .reason
        .as_ref()
        .is_some_and(|reason| !reason.is_empty());
    let is_unheard = condition.type_ == "Ready" && condition.status == "False" && !has_reason;
    let since = condition.last_transition_time.as_ref()?.0;
    is_unheard.then_some(since)
}

impl ContainerSeen {
    fn of(status: &ContainerStatus, spec: Option<&Container>) -> Self {
        let state = status.state.clone().unwrap_or_default();
        let resources = spec.and_then(|container| container.resources.as_ref());
        let limits = resources.and_then(|resources| resources.limits.as_ref());
        let waiting = state.waiting.unwrap_or_default();
        Self {
            name: status.name.clone(),
            memory_limit: limits
                .and_then(|of| of.get("memory"))
                .map(|of| of.0.clone()),
            state: match (state.terminated, state.running) {
                (Some(terminated), _) => ContainerState::Ended(ContainerEnd::of(&terminated)),
                (None, Some(_)) => ContainerState::Running,
                (None, None) => {
                    ContainerState::Waiting(Hindrance::of_waiting(&status.name, &waiting))
                }
            },
        }
    }

    pub(crate) fn end(&self) -> Option<&ContainerEnd> {
        match &self.state {
            ContainerState::Ended(end) => Some(end),
            ContainerState::Waiting(_) | ContainerState::Running => None,
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
            // 1970 stands for a container that was made and never ran.
            started: terminated
                .started_at
                .as_ref()
                .filter(|time| time.0 > Timestamp::UNIX_EPOCH)
                .or(terminated.finished_at.as_ref())
                .map(|time| time.0),
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
