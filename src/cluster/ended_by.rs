//! What ended a Pod, where it was not the task's own exit code, and what helps. Pure.

use super::hindrance::bare;
use super::names::init_container_name;
use super::outcome::{ContainerEnd, ContainerSeen, PodSeen};
use crate::report::shortened;

/// Bytes of JSON of what Kubernetes says.
const MESSAGE_BYTES: usize = 600;

/// None where the container of this Job ended by itself, or nothing tells.
pub(super) fn explanation(job: &str, pod: &PodSeen) -> Option<String> {
    if let Some(reason) = &pod.reason {
        return Some(of_node(reason, pod.message.as_deref().unwrap_or_default()));
    }
    if let Some(disruption) = &pod.disruption {
        let disruption = shortened(bare(disruption), MESSAGE_BYTES);
        return Some(format!(
            "its Pod was ended by the cluster: {disruption}; send the event again"
        ));
    }
    if pod.ending {
        return Some(
            "its Pod was deleted before the task ended, by somebody other than this service".into(),
        );
    }
    let ended = |container: &ContainerSeen| {
        let end = container.end()?;
        (end.exit_code != 0).then(|| of_container(job, container, end))?
    };
    let init_containers = pod.init_containers.iter();
    let mut containers = init_containers.chain(&pod.containers);
    containers.find_map(ended)
}

fn of_node(reason: &str, message: &str) -> String {
    let said = match message {
        "" => reason.to_owned(),
        message => format!("{reason}: {}", shortened(bare(message), MESSAGE_BYTES)),
    };
    if reason != "Evicted" {
        return format!("its Pod was ended by its node: {said}; send the event again");
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

fn of_container(job: &str, container: &ContainerSeen, end: &ContainerEnd) -> Option<String> {
    let ContainerSeen {
        name, memory_limit, ..
    } = container;
    let how = format!("({}, exit code {})", end.reason, end.exit_code);
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
        "StartError" | "ContainerCannotRun" => Some(format!(
            "container `{name}` could not be started {how}; check `image`, `cmd`, `args` and `workingDir` of the task"
        )),
        _ if *name == init_container_name(job) => Some(format!(
            "its init container `{name}`, which fetches the task's files, failed {how}"
        )),
        _ if name != job => Some(format!("its container `{name}` failed {how}")),
        _ => None,
    }
}
