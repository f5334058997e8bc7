//! The Jobs of one namespace: made, followed, marked.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::telemetry::error_chain;

use super::calls::{Failed, call, retried};
use super::found::Sighting;
use super::outcome::{Aftermath, Limits, TaskEnd};
use super::refusal;
use super::seen::JobSeen;
use super::watch::{self, Watch};
use super::{Created, Refused};

/// Added to a task's time limit before the API is asked whether the Job still exists: only a watch
/// that was away when the Job was deleted makes that necessary.
const OVERDUE: Duration = Duration::from_secs(60);

/// After a Job was in the way of its own creation and then could not be found.
const VANISHED_PAUSE: Duration = Duration::from_secs(1);

const ONLY_METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Creations under way at once, of the thousands that a burst may want: more would not be there sooner, and each
/// has a connection of some 30 KiB.
const MAX_CREATIONS: usize = 24;

const FIELD_MANAGER: &str = "job-executor-service";

/// An answer of which only its code tells anything.
#[derive(Deserialize)]
struct Unread {}

/// Whether the service can do without the Jobs of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needed {
    Always,
    /// One that the settings name in addition: where its permissions are missing, its tasks fail and no
    /// others.
    WherePermitted,
}

/// What a call for a Job found.
pub(super) enum Looked {
    There(Box<Job>),
    Absent,
    /// The permissions in its namespace are missing.
    Hidden,
}

impl Looked {
    pub(super) fn job(self) -> Option<Job> {
        match self {
            Self::There(job) => Some(*job),
            Self::Absent | Self::Hidden => None,
        }
    }
}

#[derive(Clone)]
pub(super) struct Namespace {
    client: Client,
    creations: Arc<Semaphore>,
    pub(super) jobs: Api<Job>,
    pub(super) pods: Api<Pod>,
    pub(super) watch: Watch,
    pub(super) needed: Needed,
}

impl Namespace {
    pub(super) fn new(
        client: &Client,
        name: &str,
        needed: Needed,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self {
            client: client.clone(),
            creations: Arc::new(Semaphore::new(MAX_CREATIONS)),
            jobs: Api::namespaced(client.clone(), name),
            pods: Api::namespaced(client.clone(), name),
            watch: Watch::new(clock),
            needed,
        }
    }

    /// Creates the Job of this name, trying until the API server gives its verdict.
    pub(super) async fn create(&self, name: &str, job: Vec<u8>) -> Result<Created, Refused> {
        let is_new_here = self.watch.follow(name);
        let create = || async { call(self.post(job.clone())).await };
        loop {
            let created = retried("create", name, Failed::is_verdict, create).await;
            let Err(refused) = created else {
                self.watch.created(name);
                return Ok(Created::New);
            };
            // An attempt whose answer was lost may have succeeded before another was refused.
            if let Some(job) = self.get(name).await.job() {
                let sighting = Sighting::of(&job);
                if sighting.as_ref().is_some_and(|job| job.reported) {
                    // It has left the watch, which will not tell of it.
                    if is_new_here {
                        self.watch.forget(name);
                    }
                } else {
                    self.watch.learned(name, JobSeen::of(&job));
                    if is_new_here {
                        // The watch passes over the Pods of Jobs that nobody follows.
                        self.look_for_pods(name).await;
                    }
                }
                return Ok(Created::Before(sighting));
            }
            if !refused.is_already_exists() {
                self.watch.forget(name);
                return Err(refusal::of(&refused));
            }
            warn!(
                job = name,
                "the Job was there and is not, creating it again"
            );
            tokio::time::sleep(VANISHED_PAUSE).await;
        }
    }

    /// The answer is no more than the new Job's metadata, and no warnings of fields that a Job does not have:
    /// both cost the API server much of what the creation does, and nobody reads them.
    async fn post(&self, job: Vec<u8>) -> kube::Result<()> {
        let jobs = self.jobs.resource_url();
        let request = http::Request::post(format!(
            "{jobs}?fieldManager={FIELD_MANAGER}&fieldValidation=Ignore"
        ));
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, ONLY_METADATA)
            .extension("create")
            .body(job);
        let request = request.map_err(kube::core::request::Error::BuildRequest);
        let request = request.map_err(kube::Error::BuildRequest)?;
        // The semaphore is never closed.
        let _permit = self.creations.acquire().await.ok();
        let created = self.client.request::<Unread>(request);
        created.await.map(|Unread {}| ())
    }

    pub(super) async fn get(&self, name: &str) -> Looked {
        let get = || async { call(self.jobs.get(name)).await };
        match retried("get", name, self.is_final(), get).await {
            Ok(job) => Looked::There(Box::new(job)),
            Err(failed) if failed.is_not_found() => Looked::Absent,
            Err(_) => Looked::Hidden,
        }
    }

    /// What is not tried again: permissions come back for the service's own namespace, or nothing works.
    fn is_final(&self) -> fn(&Failed) -> bool {
        match self.needed {
            Needed::Always => Failed::is_not_found,
            Needed::WherePermitted => |failed| failed.is_not_found() || failed.is_forbidden(),
        }
    }

    /// Waits until the task of a Job has ended.
    pub(super) async fn end(&self, job: &str, limits: Limits) -> TaskEnd {
        if self.watch.is_unknown(job) {
            Box::pin(self.look(job)).await;
        }
        let overdue = Duration::from_secs(limits.seconds.into()) + OVERDUE;
        loop {
            let Ok(end) = timeout(overdue, self.watch.end(job, limits)).await else {
                Box::pin(self.look(job)).await;
                continue;
            };
            match end.aftermath {
                // What the watches show may be older than what is so.
                Aftermath::NoteAndEnd => Box::pin(self.look(job)).await,
                Aftermath::Note | Aftermath::Nothing if end.finished.is_some() => return end,
                // The Job's condition can be here before the Pod's, and with it goes where the logs are.
                Aftermath::Note | Aftermath::Nothing => Box::pin(self.look_for_pods(job)).await,
            }
            if let Some(end) = self.watch.end_by_now(job, limits) {
                return end;
            }
        }
    }

    /// Asks for a Job that the watch does not show: one that was deleted while the watch was away, or
    /// one that is reported.
    async fn look(&self, name: &str) {
        let state = match self.get(name).await {
            Looked::There(job) => JobSeen::of(&job),
            Looked::Absent if self.watch.is_unknown(name) => JobSeen::Absent,
            Looked::Absent => JobSeen::Gone,
            Looked::Hidden => JobSeen::Hidden,
        };
        self.watch.learned(name, state);
        self.look_for_pods(name).await;
    }

    async fn look_for_pods(&self, job: &str) {
        let pods = ListParams::default().labels(&format!("{}={job}", watch::JOB_NAME));
        let list = || async { call(self.pods.list(&pods)).await };
        match retried("list Pods of", job, Failed::is_verdict, list).await {
            Ok(pods) => self.watch.learned_pods(&pods.items),
            Err(error) => warn!(
                job,
                error = error_chain(&error),
                "the Job's Pods cannot be listed"
            ),
        }
    }

    /// Tries until it is done or there is no such Job: without its mark a run would be executed again.
    pub(super) async fn patch(&self, job: &str, patch: &Value) {
        let params = PatchParams::default();
        let apply =
            || async { call(self.jobs.patch_metadata(job, &params, &Patch::Merge(patch))).await };
        match retried("patch", job, self.is_final(), apply).await {
            Ok(_) => {}
            Err(failed) if failed.is_not_found() => info!(
                job,
                "the Job was deleted meanwhile, nothing is left to mark"
            ),
            Err(error) => error!(job, error = error_chain(&error), "the Job cannot be marked"),
        }
    }
}
