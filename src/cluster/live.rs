//! What a task does at this moment, and what it printed last. For the page only.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::calls::{Failed, call};
use super::logs;
use super::names::init_container_name;
use super::outcome::Seen;
use super::seen::{ContainerSeen, ContainerState, JobSeen, PodSeen};
use super::watch::JOB_NAME;
use crate::report::{LogText, Masks};

/// Of a container's log, its last lines.
const LINES: i64 = 200;

/// Of these.
const BYTES: usize = 32 << 10;

/// The last lines of a container.
#[derive(Debug, Clone, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tail {
    pub(crate) pod: String,
    pub(crate) container: String,
    /// None while it runs.
    pub(crate) exit_code: Option<i32>,
    pub(crate) text: String,
}

/// What a Job that goes on is at.
#[derive(Debug)]
pub(crate) struct Now {
    /// A few of them.
    pub(crate) words: String,
    /// Since when it has a Pod.
    pub(crate) begun: Option<Timestamp>,
}

impl Now {
    pub(super) fn of(seen: &Seen, job: &str) -> Self {
        Self {
            words: words(seen, job),
            begun: seen.pods().filter_map(|(_, pod)| pod.created).min(),
        }
    }
}

fn words(seen: &Seen, job: &str) -> String {
    if let Some(hindrance) = seen.hindrance_now() {
        return hindrance.explanation();
    }
    match &seen.job {
        JobSeen::NotYet => return "its Job is being created".into(),
        JobSeen::Gone | JobSeen::Absent => return "its Job is gone".into(),
        _ => {}
    }
    let Some((_, pod)) = seen.pods().max_by_key(|(_, pod)| pod.created) else {
        return "waits for its Pod".into();
    };
    let runs = |name: &str, containers: fn(&PodSeen) -> &[ContainerSeen]| {
        let mut all = containers(pod).iter();
        all.any(|of| of.name == name && of.state == ContainerState::Running)
    };
    if runs(job, |pod| &pod.containers) {
        "runs".into()
    } else if runs(&init_container_name(job), |pod| &pod.init_containers) {
        "its files are being fetched".into()
    } else {
        "its Pod is starting".into()
    }
}

/// What the containers of a Job's Pods printed last, without secrets.
pub(super) async fn tails(pods: &Api<Pod>, job: &str, masks: &Masks) -> Result<Vec<Tail>, Failed> {
    let of_job = ListParams::default().labels(&format!("{JOB_NAME}={job}"));
    let mut list = call(pods.list(&of_job)).await?.items;
    list.sort_by_key(|pod| pod.metadata.creation_timestamp.clone().map(|time| time.0));
    let mut tails = Vec::new();
    for pod in &list {
        let status = pod.status.clone().unwrap_or_default();
        let init = status.init_container_statuses.unwrap_or_default();
        let own = status.container_statuses.unwrap_or_default();
        for container in init.iter().chain(&own).filter(|of| has_printed(of)) {
            tails.push(Tail {
                text: tail(pods, &pod.name_any(), &container.name, masks).await?,
                pod: pod.name_any(),
                container: container.name.clone(),
                exit_code: exit_code(container),
            });
        }
    }
    Ok(tails)
}

fn has_printed(container: &ContainerStatus) -> bool {
    let state = container.state.as_ref();
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

fn exit_code(container: &ContainerStatus) -> Option<i32> {
    let terminated = container.state.as_ref()?.terminated.as_ref()?;
    Some(terminated.exit_code)
}

async fn tail(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    masks: &Masks,
) -> Result<String, Failed> {
    let mut text = LogText::new(BYTES, masks);
    let read = logs::stream(pods, pod, container, Some(LINES), &mut text);
    call(read).await?;
    Ok(text.finish().render(BYTES))
}
