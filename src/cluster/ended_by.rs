//! What ended a Pod, where it was not the task's own exit code, and what helps. Pure.

use super::hindrance::{NO_ROOM_TO_START, bare};
use super::names::init_container_name;
use super::seen::{ContainerEnd, ContainerSeen, ContainerState, Disruption, PodSeen};
use crate::report::shortened;

/// Bytes of JSON of what Kubernetes says.
const MESSAGE_BYTES: usize = 600;

/// None where the container of this Job ended by itself, or nothing tells.
pub(super) fn explanation(job: &str, pod: &PodSeen) -> Option<String> {
    if let Some(reason) = &pod.reason {
        let message = pod.message.as_deref().unwrap_or_default();
        return Some(of_node(pod, reason, message));
    }
    if let Some(disruption) = &pod.disruption {
        return Some(of_cluster(disruption));
    }
    if pod.ending {
        return Some(
            "its Pod was deleted before the task ended, by somebody other than this service; send the event \
             again"
                .into(),
        );
    }
    let failed = |container: &&ContainerSeen| container.end().is_some_and(|end| end.exit_code != 0);
    let own = pod.containers.iter().filter(|own| own.name == job);
    // What failed beside the task comes after what it says itself.
    let mut containers = own.chain(&pod.init_containers).chain(&pod.containers);
    let container = containers.find(failed)?;
    of_container(job, container, container.end()?)
}

/// That nobody knows how the task does.
pub(super) fn silence(pod: &PodSeen) -> Option<String> {
    let since = pod.unheard_since?;
    Some(format!(
        "its node has not answered since {since:.0}, so that nobody knows what became of the task; send the event \
         again"
    ))
}

/// The kubelet's verdict on a Pod, or `NodeLost` of those who miss the kubelet.
fn of_node(pod: &PodSeen, reason: &str, message: &str) -> String {
    let said = said(reason, message);
    match reason {
        "NodeLost" => return format!("its node was lost ({said}); send the event again"),
        "Evicted" => {}
        // Of a Pod that it does not admit, a kubelet names no containers (`rejectPod`).
        _ if !pod.containers.iter().any(has_run) => {
            return format!("its Pod was refused by its node: {said}; send the event again");
        }
        _ => return format!("its Pod was ended by its node: {said}; send the event again"),
    }
    let advice = if message.to_lowercase().contains("emptydir") {
        "raise `emptyDirSizeLimit` of the task, or `sizeLimit` of its volume"
    } else if message.contains("ephemeral") {
        "let the task write less to disk, or to a volume"
    } else {
        "raise `resources.requests` of the task, so that its node has room for it"
    };
    format!("its Pod was evicted by its node ({said}); {advice}")
}

fn has_run(container: &ContainerSeen) -> bool {
    !matches!(container.state, ContainerState::Waiting(_))
}

/// The reasons are those of the condition `DisruptionTarget` in Kubernetes 1.33: of its scheduler, taint eviction
/// controller, Pod garbage collector, and its eviction API.
fn of_cluster(Disruption { reason, message }: &Disruption) -> String {
    let said = said(reason, message);
    let (what, advice) = match reason.as_str() {
        "PreemptionByScheduler" => (
            "its Pod had to make room for one of a higher priority",
            "send the event again when the cluster has room",
        ),
        "DeletionByTaintManager" => (
            "its node was lost, or is being emptied",
            "send the event again, or let `tolerations` of the task bear the node's taint",
        ),
        "DeletionByPodGC" => ("its node is gone", "send the event again"),
        "EvictionByEvictionAPI" => (
            "its Pod was evicted by somebody, as before maintenance of its node",
            "send the event again",
        ),
        _ => ("its Pod was ended by the cluster", "send the event again"),
    };
    format!("{what} ({said}); {advice}")
}

fn said(reason: &str, message: &str) -> String {
    match bare(message) {
        "" => reason.to_owned(),
        message => format!("{reason}: {}", shortened(message, MESSAGE_BYTES)),
    }
}

fn of_container(job: &str, container: &ContainerSeen, end: &ContainerEnd) -> Option<String> {
    let ContainerSeen {
        name, memory_limit, ..
    } = container;
    let how = format!("({}, exit code {})", end.reason, end.exit_code);
    let message = end.message.as_deref().unwrap_or_default();
    match end.reason.as_str() {
        "OOMKilled" => {
            let limit = match memory_limit {
                Some(limit) => format!("than its limit of {limit}"),
                None => "than its node has".into(),
            };
            Some(format!(
                "container `{name}` was killed because it used more memory {limit} {how}; raise \
                 `resources.limits.memory` of the task"
            ))
        }
        "StartError" | "ContainerCannotRun" if message.contains(NO_ROOM_TO_START) => Some(format!(
            "container `{name}` could not be started within its limit of memory {how}; raise \
             `resources.limits.memory` of the task"
        )),
        "StartError" | "ContainerCannotRun" => Some(format!(
            "container `{name}` could not be started {how}; check `image`, `cmd`, `args` and `workingDir` of the task"
        )),
        _ if *name == init_container_name(job) => Some(format!(
            "its init container `{name}`, which fetches the task's files, failed {how}; its log says why"
        )),
        _ if name != job => Some(format!("its container `{name}` failed {how}")),
        _ => None,
    }
}
