//! The cluster: the only module that names Kubernetes. Jobs are made, watched, marked and read here.

mod calls;
mod found;
mod leadership;
mod logs;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod outcome;
mod own_pod;
mod watch;

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tower::timeout::TimeoutLayer;
use tracing::{info, warn};

pub(crate) use found::{Found, Listing, Progress, Sighting, Told};
pub(crate) use leadership::{Identity, Leadership, Standing};
pub(crate) use manifest::{AccessVariables, InitContainer, JobSettings, SecretKey, Start};
use outcome::JobSeen;
pub(crate) use outcome::TaskEnd;
pub(crate) use own_pod::OwnPod;
pub(crate) use watch::News;

use crate::report::{ContainerLog, Ending};
use crate::run::{Place, RunId, job_name};
use calls::{CALL_TIMEOUT, Failed, call, retried};
use watch::Watch;

/// Added to a task's time limit before the API is asked whether the Job still exists: only a watch
/// that was away when the Job was deleted makes that necessary.
const OVERDUE: Duration = Duration::from_secs(60);

/// A Pod that somebody's sidecar keeps alive is ended this long after its task's answer.
const SIDECAR_GRACE_SECONDS: i64 = 30;

/// After a Job was in the way of its own creation and then could not be found.
const VANISHED_PAUSE: Duration = Duration::from_secs(1);

const FIELD_MANAGER: &str = "job-executor-service";

#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    jobs: Api<Job>,
    pods: Api<Pod>,
    watch: Watch,
    settings: JobSettings,
}

/// What became of creating a Job that may have been created before.
#[derive(Debug)]
pub(crate) enum Created {
    New,
    /// By an earlier delivery of the event, or by an earlier attempt whose answer was lost. Without a
    /// sighting it is not of this service.
    Before(Option<Sighting>),
}

/// The API server will not have the Job, whatever is tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) String);

/// A client whose calls all end, each once: which are tried again is decided call by call.
pub(crate) fn connect(mut config: kube::Config) -> kube::Result<Client> {
    config.default_retry = false;
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&time_limit())
        .build())
}

/// The library sets no limit for an API server that says nothing. This one is for the head of an answer;
/// bodies are streams.
pub(crate) fn time_limit() -> TimeoutLayer {
    TimeoutLayer::new(CALL_TIMEOUT)
}

impl Cluster {
    pub(crate) fn new(client: Client, namespace: String, settings: JobSettings) -> Self {
        Self {
            jobs: Api::namespaced(client.clone(), &namespace),
            pods: Api::namespaced(client.clone(), &namespace),
            watch: Watch::new(),
            client,
            namespace,
            settings,
        }
    }

    /// Follows the cluster; never returns.
    pub(crate) async fn watch(&self, news: mpsc::UnboundedSender<News>) {
        let (client, managed_by) = (self.client.clone(), &self.settings.managed_by);
        self.watch
            .clone()
            .run(client, &self.namespace, managed_by, news)
            .await;
    }

    /// Creates the Job of a task, trying until the API server gives its verdict. On the heap, as a call is:
    /// a Job takes some kilobytes.
    pub(crate) fn create<'a>(
        &'a self,
        place: Place<'a>,
        start: Start,
    ) -> BoxFuture<'a, Result<Created, Refused>> {
        self.try_create(place, start).boxed()
    }

    async fn try_create(&self, place: Place<'_>, start: Start) -> Result<Created, Refused> {
        let record = place
            .run
            .encode()
            .map_err(|error| Refused(error.to_string()))?;
        let job = manifest::job(place, &record, start, &self.settings);
        let name = job.name_any();
        let is_new_here = self.watch.follow(&name);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PostParams::default()
        };
        let create = || async { call(self.jobs.create(&params, &job)).await };
        loop {
            let created = retried("create", &name, Failed::is_verdict, create).await;
            let Err(refused) = created else {
                self.watch.created(&name);
                return Ok(Created::New);
            };
            // An attempt whose answer was lost may have succeeded before another was refused.
            if let Some(job) = self.get(&name).await {
                let sighting = Sighting::of(&job);
                if sighting.as_ref().is_some_and(|job| job.reported) {
                    // It has left the watch, which will not tell of it.
                    if is_new_here {
                        self.watch.forget(&name);
                    }
                } else {
                    self.watch.learned(&name, JobSeen::of(&job));
                    if is_new_here {
                        // The watch passes over the Pods of Jobs that nobody follows.
                        self.look_for_pods(&name).await;
                    }
                }
                return Ok(Created::Before(sighting));
            }
            if !refused.is_already_exists() {
                self.watch.forget(&name);
                return Err(Refused(refused.to_string()));
            }
            warn!(
                job = name,
                "the Job was there and is not, creating it again"
            );
            tokio::time::sleep(VANISHED_PAUSE).await;
        }
    }

    /// Another process waits for the end of this Job.
    pub(crate) fn leaves(&self, place: Place<'_>) {
        self.watch.forget(&place.job_name());
    }

    /// None if there is no Job of this name.
    async fn get(&self, name: &str) -> Option<Job> {
        let get = || async { call(self.jobs.get(name)).await };
        retried("get", name, Failed::is_not_found, get).await.ok()
    }

    /// What the first Job of a run says of it now.
    pub(crate) async fn first_job(&self, run: &RunId) -> Option<Sighting> {
        let job = self.get(&job_name(run, 0, 0)).await?;
        Sighting::of(&job)
    }

    /// Waits until the task of a Job has ended.
    pub(crate) async fn end(&self, place: Place<'_>) -> TaskEnd {
        let name = place.job_name();
        let limit = place.task.time_limit;
        if self.watch.is_unknown(&name) {
            self.look(&name).await;
        }
        let overdue = Duration::from_secs(limit.into()) + OVERDUE;
        let end = loop {
            match timeout(overdue, self.watch.end(&name, limit)).await {
                Ok(end) => break end,
                Err(_) => self.look(&name).await,
            }
        };
        if end.finished.is_some() {
            return end;
        }
        // The Job's condition can be here before the Pod's, and with it goes where the logs are.
        self.look_for_pods(&name).await;
        self.watch.end(&name, limit).await
    }

    /// Asks for a Job that the watch does not show: one that was deleted while the watch was away, or
    /// one that is reported.
    async fn look(&self, name: &str) {
        let state = self
            .get(name)
            .await
            .map_or(JobSeen::Gone, |job| JobSeen::of(&job));
        self.watch.learned(name, state);
        self.look_for_pods(name).await;
    }

    async fn look_for_pods(&self, job: &str) {
        let pods = ListParams::default().labels(&format!("{}={job}", watch::JOB_NAME));
        let list = || async { call(self.pods.list(&pods)).await };
        match retried("list Pods of", job, Failed::is_verdict, list).await {
            Ok(pods) => self.watch.learned_pods(&pods.items),
            Err(error) => warn!(job, %error, "the Job's Pods cannot be listed"),
        }
    }

    /// About `room` bytes of each container's log.
    pub(crate) async fn logs(&self, end: &TaskEnd, room: usize) -> Vec<ContainerLog> {
        match &end.pod {
            Some((name, seen)) => logs::read(&self.pods, name, seen, &end.ending, room).await,
            None => Vec::new(),
        }
    }

    /// Lets the first Job of a run that waited for its turn run.
    pub(crate) async fn release(&self, place: Place<'_>) {
        self.patch(&place.job_name(), &json!({"spec": {"suspend": false}}))
            .await;
    }

    /// Notes on a Job that its task succeeded where a sidecar keeps the Job from showing it: the time limit
    /// would end both, and whoever takes the run over would see only that.
    pub(crate) async fn mark_ended(&self, place: Place<'_>, end: &TaskEnd) {
        let seen = self.watch.seen(&place.job_name());
        let outlived = seen.and_then(|seen| seen.outlived(&place.job_name()));
        if end.ending == Ending::Succeeded && outlived.is_some() {
            self.annotate(place, names::SUCCEEDED).await;
        }
    }

    /// Notes on the first Job that `.started` was delivered.
    pub(crate) async fn mark_started(&self, place: Place<'_>) {
        self.annotate(place, names::STARTED).await;
    }

    /// Notes on the first Job that `.finished` was delivered.
    pub(crate) async fn mark_answered(&self, place: Place<'_>) {
        self.annotate(place, names::ANSWERED).await;
    }

    async fn annotate(&self, place: Place<'_>, annotation: &str) {
        let now = jiff::Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {annotation: now}}});
        self.patch(&place.job_name(), &patch).await;
    }

    /// Notes on a Job that its run is over; from now on the Job's time to live counts.
    pub(crate) async fn mark_reported(&self, place: Place<'_>) {
        let name = place.job_name();
        let mut patch = json!({
            "metadata": {"labels": {names::REPORTED: "true"}},
            "spec": {"ttlSecondsAfterFinished": place.task.ttl},
        });
        let now = jiff::Timestamp::now();
        if let Some(created) = self.watch.seen(&name).and_then(|seen| seen.outlived(&name)) {
            let ran = now.duration_since(created).as_secs();
            patch["spec"]["activeDeadlineSeconds"] = json!(ran + SIDECAR_GRACE_SECONDS);
        }
        self.patch(&name, &patch).await;
        self.watch.forget(&name);
    }

    /// Tries until it is done or there is no such Job: without its mark a run would be executed again.
    async fn patch(&self, job: &str, patch: &Value) {
        let params = PatchParams::default();
        let apply =
            || async { call(self.jobs.patch_metadata(job, &params, &Patch::Merge(patch))).await };
        if retried("patch", job, Failed::is_not_found, apply)
            .await
            .is_err()
        {
            info!(
                job,
                "the Job was deleted meanwhile, nothing is left to mark"
            );
        }
    }
}
