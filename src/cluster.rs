//! The cluster: the only module that names Kubernetes. Jobs are made, watched, marked and read here.

mod logs;
pub(crate) mod manifest;
pub(crate) mod names;
pub(crate) mod outcome;
mod own_pod;
mod watch;

use std::collections::HashMap;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{info, warn};

pub(crate) use manifest::{InitContainer, JobSettings, SecretKey, Start};
use outcome::JobSeen;
pub(crate) use outcome::TaskEnd;
pub(crate) use own_pod::OwnPod;

use crate::report::ContainerLog;
use crate::run::{Place, Run, RunId};
use watch::Watch;

/// For one call; the API server answers in milliseconds or is in trouble.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Added to a task's time limit before the API is asked whether the Job still exists: only a watch
/// that was away when the Job was deleted makes that necessary.
const OVERDUE: Duration = Duration::from_secs(60);

/// A Pod that somebody's sidecar keeps alive is ended this long after its task's answer.
const SIDECAR_GRACE_SECONDS: i64 = 30;

const LIST_PAUSE: Duration = Duration::from_secs(1);

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
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Created {
    New,
    /// By an earlier delivery of the event, or by an earlier attempt whose answer was lost.
    Before,
}

/// The API server will not have the Job, whatever is tried.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

/// What an existing Job tells of its run.
pub(crate) enum Existing {
    /// The answer is out; nothing is left to do.
    Reported,
    Unreported(Box<Run>, FirstJob),
    /// Gone again, or with a record that cannot be read.
    Unknown,
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
    pub(crate) async fn watch(&self) {
        let (client, managed_by) = (self.client.clone(), &self.settings.managed_by);
        self.watch
            .clone()
            .run(client, &self.namespace, managed_by)
            .await;
    }

    pub(crate) async fn synced(&self) {
        self.watch.synced().await;
    }

    /// Creates the Job of a task, trying until the API server gives its verdict.
    pub(crate) async fn create(&self, place: Place<'_>, start: Start) -> Result<Created, Refused> {
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
        match retried("create", &name, create).await {
            Ok(_) => {
                self.watch.created(&name);
                Ok(Created::New)
            }
            Err(Failed::Api(status)) if status.is_already_exists() => {
                // Whoever goes on with it follows it again; a reported one needs no following.
                if is_new_here {
                    self.watch.forget(&name);
                }
                Ok(Created::Before)
            }
            Err(error) => {
                // An attempt whose answer was lost may have succeeded before this one was refused.
                if self.get(&name).await.is_some() {
                    return Ok(Created::Before);
                }
                self.watch.forget(&name);
                Err(Refused(error.to_string()))
            }
        }
    }

    async fn get(&self, name: &str) -> Option<Job> {
        let get = || async { call(self.jobs.get(name)).await };
        match retried("get", name, get).await {
            Ok(job) => Some(job),
            Err(Failed::Api(status)) if status.is_not_found() => None,
            Err(error) => {
                warn!(job = name, %error, "the Job cannot be read");
                None
            }
        }
    }

    /// What the first Job of a run says of it.
    pub(crate) async fn existing(&self, place: Place<'_>) -> Existing {
        let Some(job) = self.get(&place.job_name()).await else {
            return Existing::Unknown;
        };
        if job.labels().contains_key(names::REPORTED) {
            return Existing::Reported;
        }
        record_of(&job).map_or(Existing::Unknown, |run| {
            Existing::Unreported(Box::new(run), FirstJob::of(&job))
        })
    }

    /// The runs whose answer is not out, with their first Job's state, oldest first.
    pub(crate) async fn unreported(&self) -> Vec<(Run, FirstJob)> {
        let mut runs: HashMap<RunId, (Run, Option<FirstJob>)> = HashMap::new();
        for job in self.unreported_jobs().await {
            let Some(run) = record_of(&job) else { continue };
            let is_first = run.first_place().map(|first| first.job_name()) == job.metadata.name;
            let first = is_first.then(|| FirstJob::of(&job));
            let (_, known) = runs.entry(run.id.clone()).or_insert((run, None));
            *known = known.or(first);
        }
        // Jobs are marked from the last to the first, so only a hand can have taken the first away. Its
        // `.started` is out, or else its later Jobs would not be there.
        let taken_away = FirstJob {
            queued: false,
            announced: Announced::Yes,
        };
        let mut unreported: Vec<_> = runs
            .into_values()
            .map(|(run, first)| (run, first.unwrap_or(taken_away)))
            .collect();
        unreported.sort_by(|(a, _), (b, _)| (a.arrived, &a.id).cmp(&(b.arrived, &b.id)));
        unreported
    }

    async fn unreported_jobs(&self) -> Vec<Job> {
        let selector = names::unreported(&self.settings.managed_by);
        let first_page = ListParams::default().labels(&selector).limit(500);
        let mut params = first_page.clone();
        let mut jobs = Vec::new();
        loop {
            let list = || async { call(self.jobs.list(&params)).await };
            match retried("list", "all", list).await {
                Ok(page) => {
                    jobs.extend(page.items);
                    match page.metadata.continue_ {
                        Some(token) if !token.is_empty() => params.continue_token = Some(token),
                        _ => return jobs,
                    }
                }
                // The rest of a list is gone after some minutes; a permission can still come.
                Err(error) => {
                    warn!(%error, "the Jobs of earlier runs cannot be listed, starting again");
                    jobs.clear();
                    params = first_page.clone();
                    tokio::time::sleep(LIST_PAUSE).await;
                }
            }
        }
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
        match retried("list Pods of", job, list).await {
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

    /// Notes on the first Job that `.started` was delivered.
    pub(crate) async fn mark_started(&self, place: Place<'_>) {
        let now = jiff::Timestamp::now().to_string();
        self.patch(
            &place.job_name(),
            &json!({"metadata": {"annotations": {names::STARTED: now}}}),
        )
        .await;
    }

    /// Notes on a Job that its run is over; from now on the Job's time to live counts.
    pub(crate) async fn mark_reported(&self, place: Place<'_>, end: &TaskEnd) {
        let name = place.job_name();
        let mut patch = json!({
            "metadata": {"labels": {names::REPORTED: "true"}},
            "spec": {"ttlSecondsAfterFinished": place.task.ttl},
        });
        let pod = end.pod.as_ref().map(|(_, pod)| pod);
        if let Some(created) = pod
            .filter(|pod| pod.outlives(&name))
            .and_then(|pod| pod.created)
        {
            let ran = jiff::Timestamp::now().duration_since(created).as_secs();
            patch["spec"]["activeDeadlineSeconds"] = json!(ran + SIDECAR_GRACE_SECONDS);
        }
        self.patch(&name, &patch).await;
        self.watch.forget(&name);
    }

    async fn patch(&self, job: &str, patch: &Value) {
        let params = PatchParams::default();
        let apply =
            || async { call(self.jobs.patch_metadata(job, &params, &Patch::Merge(patch))).await };
        match retried("patch", job, apply).await {
            Ok(_) => {}
            Err(Failed::Api(status)) if status.is_not_found() => {
                info!(
                    job,
                    "the Job was deleted meanwhile, nothing is left to mark"
                );
            }
            Err(error) => warn!(job, %error, "the Job could not be marked"),
        }
    }
}

/// How far the first Job of a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstJob {
    pub(crate) queued: bool,
    pub(crate) announced: Announced,
}

/// Whether Keptn heard that the run began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announced {
    No,
    /// The Job says nothing of it; a crash may have come between `.started` and its mark.
    Perhaps,
    Yes,
}

impl FirstJob {
    fn of(job: &Job) -> Self {
        Self {
            queued: job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true),
            announced: if job.annotations().contains_key(names::STARTED) {
                Announced::Yes
            } else {
                Announced::Perhaps
            },
        }
    }
}

fn record_of(job: &Job) -> Option<Run> {
    let name = job.name_any();
    let record = job.annotations().get(names::RECORD)?;
    match Run::decode(record) {
        Ok(run) => Some(run),
        Err(error) => {
            let run: Option<&String> = job.labels().get(names::RUN);
            warn!(job = name, ?run, %error, "the Job's run cannot be continued");
            None
        }
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{}", .0.message)]
    Api(Box<kube::core::Status>),
    #[error("{0}")]
    Unreachable(#[source] kube::Error),
    #[error("no answer of the Kubernetes API within {} s", CALL_TIMEOUT.as_secs())]
    Timeout,
}

impl Failed {
    /// Whether the same call may succeed later.
    fn is_transient(&self) -> bool {
        match self {
            // 401: the account's token is being renewed.
            Self::Api(status) => status.code >= 500 || matches!(status.code, 401 | 408 | 429),
            Self::Unreachable(_) | Self::Timeout => true,
        }
    }
}

async fn call<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
    match timeout(CALL_TIMEOUT, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) => Err(Failed::Api(status)),
        Ok(Err(error)) => Err(Failed::Unreachable(error)),
        Err(_) => Err(Failed::Timeout),
    }
}

/// Tries until there is a result or an error that stays. Every call made with it may be executed
/// twice.
async fn retried<T, F, C>(verb: &'static str, job: &str, attempt: C) -> Result<T, Failed>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, Failed>>,
{
    attempt
        .retry(
            ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(50))
                .with_max_delay(Duration::from_secs(5))
                .without_max_times()
                .with_jitter(),
        )
        .when(Failed::is_transient)
        .notify(|error, pause| {
            warn!(verb, job, %error, retry_in_ms = pause.as_millis(), "the Kubernetes API call failed");
        })
        .await
}
