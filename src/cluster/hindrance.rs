//! Why a task does not start although its Job is there, how long that may last, and what helps. Pure.
//!
//! Kubernetes tries such a Pod again until the Job's time limit: it never fails by itself, and may
//! still heal.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, PodCondition};
use tokio::time::Instant;

use crate::report::shortened;

/// Something else may be creating the Secret, the account, the room in the quota at this moment.
const SHORT: Duration = Duration::from_secs(3);

/// The kubelet tries again after 0.5, 1.5 and 3.5 seconds, and tells of each time.
const VOLUME: Duration = Duration::from_secs(2);

/// The Job controller asks again after 1 and 3 seconds: a Pod that ends meanwhile makes room.
const QUOTA: Duration = Duration::from_secs(4);

/// In the kubelet's messages: it, or the container runtime, has too much to do.
const SLOW: [&str; 3] = [
    "context deadline exceeded",
    "timed out waiting",
    "is reserved for",
];

/// In the kubelet's messages about volumes.
const MISSING: [&str; 2] = ["not found", "non-existent"];

/// In a container runtime's messages: not even what starts a container fits.
pub(super) const NO_ROOM_TO_START: &str = "memory limit too low";

/// In the API server's messages: its verdict on a Pod, and not its trouble.
const REFUSALS: [&str; 3] = ["is forbidden", "denied the request", "is invalid"];

/// In its words about a `LimitRange`, and about a `ResourceQuota` that wants every container to say what it takes.
const LIMITS: [&str; 3] = ["usage per ", "ratio per ", "must specify "];

/// Bytes of JSON of what Kubernetes says: registries answer with whole pages.
pub(super) const MESSAGE_BYTES: usize = 600;

/// How long an operator lets things heal that often do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Graces {
    pub(crate) image_pull: Duration,
    pub(crate) unschedulable: Duration,
}

/// What keeps a task from starting, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hindrance {
    pub(crate) kind: Kind,
    /// Which container waits; none where there is no Pod, or no node for it.
    container: Option<String>,
    reason: String,
    message: String,
    /// Where Kubernetes tells.
    pub(crate) since: Option<Timestamp>,
    /// Where nothing shows that it is over but that it is not told of again.
    pub(crate) last: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An image that nothing makes better.
    Image,
    Pull,
    /// Something that the container's variables or its security context need.
    Configuration,
    /// The container runtime refuses.
    Creation,
    Volume,
    /// Too little for the container runtime.
    Memory,
    Node,
    /// The API server refuses the Pod.
    Admission,
    Quota,
    /// What passes as a rule: a node or an API server that is overloaded.
    Trouble,
    /// Somebody suspended the Job while it ran.
    Suspension,
}

/// What an Event says that no status shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) about: About,
    pub(crate) message: String,
    pub(crate) last: Option<Timestamp>,
    /// When this process saw it.
    pub(crate) seen: Instant,
}

/// Events are many, and these few.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// That a Job has none.
    Pods,
    Volumes,
    /// What a Pod's containers share: its network, its share of memory.
    Sandboxes,
}

impl About {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Pods => "FailedCreate",
            Self::Volumes => "FailedMount",
            Self::Sandboxes => "FailedCreatePodSandBox",
        }
    }
}

impl Kind {
    fn of_waiting(reason: &str, message: &str) -> Option<Self> {
        Some(match reason {
            "" | "ContainerCreating" | "PodInitializing" => return None,
            "InvalidImageName" | "ErrImageNeverPull" => Self::Image,
            "ErrImagePull"
            | "ImagePullBackOff"
            | "RegistryUnavailable"
            | "ImageInspectError"
            | "SignatureValidationFailed" => {
                // As containerd tells of a name that the kubelet let pass.
                if message.contains("invalid reference format") {
                    Self::Image
                } else {
                    Self::Pull
                }
            }
            _ if SLOW.iter().any(|words| message.contains(words)) => Self::Trouble,
            // Of a `volumeMounts[].subPath` the kubelet tells as of variables.
            "CreateContainerConfigError" if !message.contains("subPath") => Self::Configuration,
            _ => Self::Creation,
        })
    }

    /// What the Job controller says when it cannot create a Pod.
    fn of_creation(message: &str) -> Self {
        let says = |words: &&str| message.contains(*words);
        if message.contains("exceeded quota") {
            Self::Quota
        } else if REFUSALS.iter().any(says) {
            Self::Admission
        } else {
            Self::Trouble
        }
    }

    /// What the kubelet says of a Pod that it cannot make ready for containers. What is not there at all is worth
    /// an end; its other troubles pass as a rule.
    fn of_preparation(warning: &Warning) -> Self {
        let says = |words: &&str| warning.message.contains(*words);
        match warning.about {
            About::Volumes if MISSING.iter().any(says) => Self::Volume,
            About::Sandboxes if says(&NO_ROOM_TO_START) => Self::Memory,
            About::Pods | About::Volumes | About::Sandboxes => Self::Trouble,
        }
    }

    /// What the scheduler says of a Pod without a node. No node makes up for a claim that is not there.
    fn of_scheduling(message: &str) -> Self {
        match message.split_once("persistentvolumeclaim ") {
            Some((_, claim)) if claim.contains("not found") => Self::Volume,
            _ => Self::Node,
        }
    }

    /// None for what only the task's time limit ends.
    fn grace(self, graces: Graces) -> Option<Duration> {
        Some(match self {
            Self::Image => Duration::ZERO,
            Self::Pull => graces.image_pull,
            Self::Node => graces.unschedulable,
            Self::Quota => QUOTA,
            Self::Volume | Self::Memory => VOLUME,
            Self::Configuration | Self::Creation | Self::Admission | Self::Suspension => SHORT,
            Self::Trouble => return None,
        })
    }
}

impl Hindrance {
    /// Of a container that waits for something else than its turn.
    pub(crate) fn of_waiting(container: &str, waiting: &ContainerStateWaiting) -> Option<Self> {
        let reason = waiting.reason.as_deref().unwrap_or_default();
        let message = waiting.message.as_deref().unwrap_or_default();
        Some(Self {
            kind: Kind::of_waiting(reason, message)?,
            container: Some(container.to_owned()),
            reason: reason.to_owned(),
            message: message.to_owned(),
            since: None,
            last: None,
        })
    }

    pub(crate) fn of_condition(condition: &PodCondition) -> Option<Self> {
        let is_unschedulable = condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable");
        let message = condition.message.clone().unwrap_or_default();
        is_unschedulable.then(|| Self {
            kind: Kind::of_scheduling(&message),
            container: None,
            reason: "Unschedulable".into(),
            message,
            since: condition.last_transition_time.as_ref().map(|time| time.0),
            last: None,
        })
    }

    /// The Pod waits for a volume, or what else comes before its containers.
    pub(crate) fn of_preparation(container: &str, warning: &Warning) -> Self {
        Self {
            kind: Kind::of_preparation(warning),
            container: Some(container.to_owned()),
            reason: warning.about.reason().into(),
            message: warning.message.clone(),
            since: None,
            last: Some(warning.seen),
        }
    }

    /// The Job has no Pod.
    pub(crate) fn of_creation(warning: &Warning) -> Self {
        Self {
            kind: Kind::of_creation(&warning.message),
            container: None,
            reason: warning.about.reason().into(),
            message: warning.message.clone(),
            since: None,
            last: None,
        }
    }

    pub(crate) fn suspension() -> Self {
        Self {
            kind: Kind::Suspension,
            container: None,
            reason: "JobSuspended".into(),
            message:
                "the Job was suspended while its task ran, by somebody other than this service"
                    .into(),
            since: None,
            last: None,
        }
    }

    /// When it will have lasted too long; none as long as it may be over.
    pub(crate) fn patience_ends(&self, since: Instant, graces: Graces) -> Option<Instant> {
        let end = since + self.kind.grace(graces)?;
        let is_certain = self.last.is_none_or(|last| last >= end);
        is_certain.then_some(end)
    }

    /// What is seen next of the same trouble: a pause between two attempts does not say what went wrong in
    /// them.
    pub(crate) fn followed_by(&self, next: Self) -> Self {
        if next.reason == "ImagePullBackOff" && next.message.len() < self.message.len() {
            return self.clone();
        }
        next
    }

    /// For the person who reads the answer, after the words of the original.
    pub(crate) fn text(&self, job: &str) -> String {
        format!(
            "job {job} failed. Reason: {}, Message: {}",
            self.reason,
            self.explanation()
        )
    }

    pub(crate) fn explanation(&self) -> String {
        let message = shortened(bare(&self.message), MESSAGE_BYTES);
        let advice = self.advice();
        match &self.container {
            Some(container) => format!("container `{container}` cannot start: {message}; {advice}"),
            None => format!("{message}; {advice}"),
        }
    }

    fn advice(&self) -> &'static str {
        match self.kind {
            Kind::Image if self.reason == "ErrImageNeverPull" => {
                "bring the image to the nodes, or choose another `imagePullPolicy`"
            }
            Kind::Image => "correct the name of the image",
            Kind::Pull => {
                "check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the \
                 service: how long pulls may fail)"
            }
            Kind::Configuration => {
                "create what is missing in the task's namespace, or correct `env`, `envFrom` or \
                 `securityContext` of the task"
            }
            Kind::Creation => {
                "check `cmd`, `workingDir`, `volumeMounts` and `securityContext` of the task"
            }
            Kind::Volume => {
                "create what is missing in the task's namespace, or correct `volumes` of the task"
            }
            Kind::Memory => "raise `resources.limits.memory` of the task",
            Kind::Node => {
                "check `nodeSelector`, `affinity`, `tolerations`, `volumes` and `resources.requests` of the \
                 task (UNSCHEDULABLE_GRACE_SECONDS of the service: how long a Pod may wait for a node)"
            }
            Kind::Quota => {
                "let other Pods of the namespace end, lower `resources` of the task, or raise the quota"
            }
            Kind::Admission if self.message.contains("service account") => {
                "create the account in the task's namespace, or correct `serviceAccount` of the task \
                 (DEFAULT_JOB_SERVICE_ACCOUNT of the service)"
            }
            Kind::Admission if LIMITS.iter().any(|words| self.message.contains(words)) => {
                "correct `resources` of the task, or the limits of its namespace"
            }
            Kind::Admission => {
                "the namespace does not admit such a Pod: correct the task, for instance its \
                 `securityContext`, or the rules of the namespace"
            }
            Kind::Trouble => "this passes as a rule: send the event again",
            Kind::Suspension => "the service has ended it; send the event again",
        }
    }
}

/// What Kubernetes says, as part of a longer text.
pub(super) fn bare(message: &str) -> &str {
    message.trim().trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(reason: &str, message: &str) -> Option<Hindrance> {
        let waiting = ContainerStateWaiting {
            reason: Some(reason.into()),
            message: Some(message.into()),
        };
        Hindrance::of_waiting("c", &waiting)
    }

    const GRACES: Graces = Graces {
        image_pull: Duration::from_secs(30),
        unschedulable: Duration::from_secs(300),
    };

    #[test]
    fn each_hindrance_has_its_grace() {
        let rows = [
            ("ContainerCreating", ""),
            ("PodInitializing", ""),
            ("InvalidImageName", ""),
            ("ErrImagePull", "couldn't parse: invalid reference format"),
            ("ErrImageNeverPull", ""),
            ("ErrImagePull", "connection refused"),
            ("ImagePullBackOff", ""),
            ("CreateContainerConfigError", "secret \"s\" not found"),
            ("CreateContainerError", ""),
            ("RunContainerError", ""),
            ("CreateContainerError", "context deadline exceeded"),
            (
                "CreateContainerConfigError",
                "failed to sync secret cache: timed out waiting for the condition",
            ),
        ];
        let rows = rows.map(|(reason, message)| {
            let hindrance = waiting(reason, message);
            format!("{reason}: {}", told(hindrance.map(|of| of.kind)))
        });
        insta::assert_snapshot!(rows.join("\n"), @"
        ContainerCreating: no hindrance
        PodInitializing: no hindrance
        InvalidImageName: 0 s
        ErrImagePull: 0 s
        ErrImageNeverPull: 0 s
        ErrImagePull: 30 s
        ImagePullBackOff: 30 s
        CreateContainerConfigError: 3 s
        CreateContainerError: 3 s
        RunContainerError: 3 s
        CreateContainerError: until the time limit
        CreateContainerConfigError: until the time limit
        ");
    }

    fn told(kind: Option<Kind>) -> String {
        match kind.map(|kind| kind.grace(GRACES)) {
            None => "no hindrance".into(),
            Some(None) => "until the time limit".into(),
            Some(Some(grace)) => format!("{} s", grace.as_secs()),
        }
    }

    #[test]
    fn a_pod_that_is_refused_is_told_from_an_api_server_in_trouble() {
        let rows = [
            "pods \"j-\" is forbidden: exceeded quota: q, requested: pods=1",
            "pods \"j-\" is forbidden: error looking up service account ns/none: serviceaccount \"none\" not found",
            "pods \"j-x\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true",
            "admission webhook \"policy.example.com\" denied the request: no such image",
            "Pod \"j-x\" is invalid: spec.containers[0].image: Required value",
            "pods \"j-\" is forbidden: maximum memory usage per Container is 10Mi, but limit is 20Mi",
            "Internal error occurred: failed calling webhook \"policy.example.com\": connection refused",
            "etcdserver: request timed out",
        ];
        let rows = rows.map(|message| told(Some(Kind::of_creation(message))));
        insta::assert_snapshot!(rows.join("\n"), @"
        4 s
        3 s
        3 s
        3 s
        3 s
        3 s
        until the time limit
        until the time limit
        ");
    }

    #[test]
    fn a_pause_between_pulls_does_not_hide_why_they_failed() {
        let failed = waiting("ErrImagePull", "manifest unknown: no such tag").unwrap();
        let pause = waiting("ImagePullBackOff", "Back-off pulling image").unwrap();
        assert_eq!(failed.followed_by(pause), failed);
        let whole = waiting(
            "ImagePullBackOff",
            "Back-off pulling image \"i\": manifest unknown: no such tag",
        );
        assert_eq!(failed.followed_by(whole.clone().unwrap()), whole.unwrap());
    }

    #[test]
    fn a_long_message_is_cut() {
        let long = waiting("ErrImagePull", &"x".repeat(10_000)).unwrap();
        assert!(long.text("j").len() < 1_000);
    }

    #[test]
    fn only_what_is_not_there_at_all_ends_a_pod_that_is_made_ready() {
        let rows = [
            (
                About::Volumes,
                "MountVolume.SetUp failed for volume \"v\" : configmap \"c\" not found",
            ),
            (
                About::Volumes,
                "MountVolume.SetUp failed for volume \"v\" : failed to sync configmap cache",
            ),
            (
                About::Sandboxes,
                "runc create failed: container init was OOM-killed (memory limit too low?)",
            ),
            (About::Sandboxes, "failed to setup network for sandbox"),
        ];
        let rows = rows.map(|(about, message)| {
            let warning = Warning {
                about,
                message: message.into(),
                last: None,
                seen: Instant::now(),
            };
            told(Some(Hindrance::of_preparation("c", &warning).kind))
        });
        insta::assert_snapshot!(rows.join("\n"), @"
        2 s
        until the time limit
        2 s
        until the time limit
        ");
    }
}
