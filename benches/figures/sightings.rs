//! What a watch of this process shows, and when: the same that the service's own watches show it.

use std::collections::HashMap;
use std::time::Instant;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::Api;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::figures::PATIENCE;

/// What was seen of a Job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) created: Option<Instant>,
    pub(crate) container_ended: Option<Instant>,
    /// By its condition.
    pub(crate) job_ended: Option<Instant>,
    pub(crate) pod: Option<String>,
}

/// A watch on the Jobs of a namespace and one on its Pods.
pub(crate) struct Sightings {
    seen: watch::Sender<HashMap<String, Seen>>,
    watches: [JoinHandle<()>; 2],
}

impl Sightings {
    pub(crate) fn begin(client: &Client, namespace: &str) -> Self {
        let seen = watch::Sender::<HashMap<String, Seen>>::default();
        let (of_jobs, of_pods) = (seen.clone(), seen.clone());
        let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let jobs = follow(jobs, move |job: &Job| {
            of_jobs.send_modify(|seen| saw_job(seen.entry(job.name_any()).or_default(), job));
        });
        let pods = follow(pods, move |pod: &Pod| {
            if let Some(job) = pod.labels().get("job-name") {
                of_pods.send_modify(|seen| saw_pod(seen.entry(job.clone()).or_default(), pod));
            }
        });
        Self {
            seen,
            watches: [tokio::spawn(jobs), tokio::spawn(pods)],
        }
    }

    /// Waits for something to be seen of a Job.
    pub(crate) async fn when<T>(
        &self,
        job: &str,
        of: impl Fn(&Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut receiver = self.seen.subscribe();
        let is_there = |seen: &HashMap<String, Seen>| seen.get(job).and_then(&of).is_some();
        let waited = tokio::time::timeout(PATIENCE, receiver.wait_for(is_there)).await;
        let seen = waited.with_context(|| format!("the Job `{job}` does not get on"))??;
        seen.get(job).and_then(of).context("it was there")
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

async fn follow<K>(api: Api<K>, saw: impl Fn(&K))
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        if let Ok(Event::Apply(object) | Event::InitApply(object)) = event {
            saw(&object);
        }
    }
}

fn saw_job(seen: &mut Seen, job: &Job) {
    let now = Instant::now();
    seen.created.get_or_insert(now);
    let conditions = job
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let ended = conditions.into_iter().flatten().any(|condition| {
        condition.status == "True" && ["Complete", "Failed"].contains(&condition.type_.as_str())
    });
    if ended {
        seen.job_ended.get_or_insert(now);
    }
}

fn saw_pod(seen: &mut Seen, pod: &Pod) {
    seen.pod = Some(pod.name_any());
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let terminated = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.terminated.is_some())
    };
    if containers.is_some_and(|containers| containers.iter().all(terminated)) {
        seen.container_ended.get_or_insert(Instant::now());
    }
}
