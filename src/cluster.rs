//! The cluster: the only module that names Kubernetes. Jobs are made, watched, marked and read here.

mod calls;
mod ended_by;
mod found;
mod hindrance;
mod history;
mod interruption;
mod leadership;
mod live;
mod logs;
pub(crate) mod manifest;
pub(crate) mod names;
mod namespace;
mod news;
pub(crate) mod outcome;
mod own_pod;
pub(crate) mod pod_defaults;
mod protobuf;
mod refusal;
mod seen;
mod warnings;
mod watch;
mod watched;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use kube::Client;
use kube::client::ClientBuilder;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::BoxError;
use tower::timeout::TimeoutLayer;
use tower::util::{MapRequestLayer, MapResponseLayer, MapResultLayer};

pub(crate) use found::{Found, Listing, Progress, Sighting, Told};
pub(crate) use hindrance::Graces;
pub(crate) use leadership::{Identity, Leadership, Standing};
pub(crate) use live::{Now, Tail};
pub(crate) use manifest::{AccessVariables, InitContainer, JobSettings, SecretKey, Start};
pub(crate) use news::News;
use outcome::Limits;
pub(crate) use outcome::{Aftermath, TaskEnd};
pub(crate) use own_pod::{OwnAccount, OwnPod};

use crate::journal::Past;
use crate::metrics::Metrics;
use crate::report::{ContainerLog, Ending, Masks};
use crate::run::{Place, RunId, job_name};
use calls::CALL_TIMEOUT;
use history::History;
use namespace::{Looked, Namespace, Needed};
use news::{Lists, Teller};

/// etcd takes requests of 1.5 MiB; the API server adds defaults and who manages which field.
const MAX_JOB_BYTES: usize = 1_400_000;

/// A Pod that somebody's sidecar keeps alive is ended this long after its task's answer.
const SIDECAR_GRACE_SECONDS: i64 = 30;

#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    /// In which Jobs run that ask for no other.
    namespace: String,
    /// In which Jobs run: that one, and those that tasks may ask for.
    namespaces: Arc<BTreeMap<String, Namespace>>,
    settings: Arc<JobSettings>,
    metrics: Metrics,
    graces: Graces,
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
pub(crate) fn connect(mut config: kube::Config, metrics: &Metrics) -> kube::Result<Client> {
    config.default_retry = false;
    let metrics = metrics.clone();
    let count = MapResultLayer::new(move |result: Result<http::Response<_>, BoxError>| {
        let code = result.as_ref().ok();
        metrics.request(code.map(|response| response.status().as_u16()));
        result
    });
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&time_limit())
        .with_layer(&count)
        .with_layer(&MapRequestLayer::new(protobuf::ask))
        .with_layer(&MapResponseLayer::new(protobuf::read))
        .build())
}

/// The library sets no limit for an API server that says nothing. This one is for the head of an answer;
/// bodies are streams.
pub(crate) fn time_limit() -> TimeoutLayer {
    TimeoutLayer::new(CALL_TIMEOUT)
}

impl Cluster {
    /// Jobs run in `namespace`, and in the others where their tasks ask for it.
    pub(crate) fn new(
        client: Client,
        namespace: String,
        others: impl IntoIterator<Item = String>,
        settings: JobSettings,
        metrics: Metrics,
        graces: Graces,
        clock: fn() -> Timestamp,
    ) -> Self {
        let of = |name: String, needed| {
            let namespace = Namespace::new(&client, &name, needed, clock);
            (name, namespace)
        };
        let others = others
            .into_iter()
            .map(|name| of(name, Needed::WherePermitted));
        let own = of(namespace.clone(), Needed::Always);
        let namespaces = others.chain([own]).collect();
        Self {
            client,
            namespace,
            namespaces: Arc::new(namespaces),
            settings: Arc::new(settings),
            metrics,
            graces,
        }
    }

    /// Where the Job of a task is. None if the settings allow it no more.
    fn namespace_of(&self, place: Place<'_>) -> Option<&Namespace> {
        self.namespaces.get(self.name_of_namespace(place))
    }

    /// As it is called.
    pub(crate) fn name_of_namespace<'a>(&'a self, place: Place<'a>) -> &'a str {
        place.namespace_or(&self.namespace)
    }

    /// Follows the cluster; never returns.
    pub(crate) async fn watch(&self, news: mpsc::UnboundedSender<News>) {
        let lists = Lists::new(self.namespaces.len());
        let watches = self.namespaces.iter().map(|(name, namespace)| {
            let teller = Teller::new(news.clone(), Arc::clone(&lists), namespace.needed);
            let (client, managed_by) = (self.client.clone(), &self.settings.managed_by);
            let watch = namespace.watch.clone();
            // In its own namespace the Lease tells installations apart.
            let home = (*name != self.namespace).then_some(self.namespace.as_str());
            watch.run(client, name, managed_by, home, teller, self.metrics.clone())
        });
        join_all(watches).await;
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
        let Some(namespace) = self.namespace_of(place) else {
            return Err(Refused(self.not_allowed(place)));
        };
        let record = place
            .run
            .encode()
            .map_err(|error| Refused(error.to_string()))?;
        let job = manifest::job(place, &record, start, &self.settings);
        let json = serde_json::to_vec(&job).map_err(|error| Refused(error.to_string()))?;
        if json.len() > MAX_JOB_BYTES {
            let bytes = json.len();
            return Err(Refused(format!(
                "the task's Job takes {bytes} bytes, Kubernetes takes {MAX_JOB_BYTES} at most: shorten its \
                 variables, arguments or annotations"
            )));
        }
        namespace.create(&place.job_name(), json).await
    }

    fn not_allowed(&self, place: Place<'_>) -> String {
        format!(
            "namespace `{}` is not allowed any more (ALLOWED_NAMESPACES of the service)",
            self.name_of_namespace(place)
        )
    }

    /// Another process waits for the end of this Job.
    pub(crate) fn leaves(&self, place: Place<'_>) {
        if let Some(namespace) = self.namespace_of(place) {
            namespace.watch.forget(&place.job_name());
        }
    }

    /// Whether a Job of the same name may be in another namespace.
    pub(crate) fn has_several_namespaces(&self) -> bool {
        self.namespaces.len() > 1
    }

    /// What the first Job of a run says of it now, in whichever namespace it is.
    pub(crate) async fn first_job(&self, run: &RunId) -> Option<Sighting> {
        let name = job_name(run, 0, 0);
        let looks = self
            .namespaces
            .values()
            .map(|namespace| namespace.get(&name));
        let found = join_all(looks).await.into_iter();
        found
            .filter_map(Looked::job)
            .find_map(|job| Sighting::of(&job))
    }

    /// Waits until the task of a Job has ended.
    pub(crate) async fn end(&self, place: Place<'_>) -> TaskEnd {
        match self.namespace_of(place) {
            Some(namespace) => {
                let limits = Limits {
                    seconds: place.task.time_limit,
                    attempts: 1 + usize::from(u8::from(place.task.retries)),
                    graces: self.graces,
                };
                let end = namespace.end(&place.job_name(), limits).await;
                match &place.task.result_file {
                    Some(_) => end.with_result(&place.job_name()),
                    None => end,
                }
            }
            None => TaskEnd::failed(self.not_allowed(place)),
        }
    }

    /// About `room` bytes of the log of each container of a task.
    pub(crate) fn logs(
        &self,
        place: Place<'_>,
        end: &TaskEnd,
        room: usize,
        masks: &Masks,
    ) -> impl Future<Output = Vec<ContainerLog>> + Send + 'static {
        let pods = self
            .namespace_of(place)
            .map(|namespace| namespace.pods.clone());
        let (pod, ending, masks) = (end.pod.clone(), end.ending.clone(), masks.clone());
        async move {
            match pods.zip(pod) {
                Some((pods, (name, seen))) => {
                    logs::read(&pods, &name, &seen, &ending, room, &masks).await
                }
                None => Vec::new(),
            }
        }
    }

    /// What the Jobs of this installation tell of runs, the last ones first.
    pub(crate) async fn past(&self) -> Result<Vec<Past>, String> {
        let mut history = History::default();
        for (name, namespace) in self.namespaces.iter() {
            let home = (*name != self.namespace).then_some(self.namespace.as_str());
            let labels = names::ours(&self.settings.managed_by, home);
            match history.read(&namespace.jobs, &labels).await {
                // The service's own namespace tells of all runs that it can do anything for.
                Err(error) if error.is_forbidden() && namespace.needed != Needed::Always => {}
                read => read.map_err(|error| error.to_string())?,
            }
        }
        Ok(history.into_runs())
    }

    /// What a Job that goes on is at. None of a Job that this process does not follow.
    pub(crate) fn now(&self, namespace: Option<&str>, job: &str) -> Option<Now> {
        let namespace = self.namespaces.get(namespace.unwrap_or(&self.namespace))?;
        Some(Now::of(&namespace.watch.seen(job)?, job))
    }

    /// What the containers of a Job printed last.
    pub(crate) async fn tails(
        &self,
        namespace: Option<&str>,
        job: &str,
        masks: &Masks,
    ) -> Result<Vec<Tail>, String> {
        let name = namespace.unwrap_or(&self.namespace);
        let Some(namespace) = self.namespaces.get(name) else {
            return Err(format!("namespace `{name}` is not allowed any more"));
        };
        let tails = live::tails(&namespace.pods, job, masks).await;
        tails.map_err(|error| error.to_string())
    }

    /// Lets the first Job of a run that waited for its turn run.
    pub(crate) async fn release(&self, place: Place<'_>) {
        self.patch(place, &json!({"spec": {"suspend": false}}))
            .await;
    }

    /// Notes on a Job what whoever takes the run over would not see: that its task succeeded where a sidecar
    /// keeps the Job from showing it, as the time limit would end both; or why it failed. Ends a Job that
    /// would go on.
    pub(crate) async fn mark_ended(&self, place: Place<'_>, end: &TaskEnd) {
        let failure = match &end.ending {
            Ending::Succeeded if self.outlived(place).is_some() => {
                return self.annotate(place, names::SUCCEEDED).await;
            }
            Ending::Succeeded => return,
            Ending::Failed(failure) => failure,
        };
        let mut patch = json!({"metadata": {"annotations": {names::FAILED: failure}}});
        match end.aftermath {
            Aftermath::Nothing => return,
            Aftermath::Note => {}
            // A Job without time ends at once, with no Pod more even if it is resumed.
            Aftermath::NoteAndEnd => {
                patch["spec"] = json!({"activeDeadlineSeconds": 0, "suspend": false});
            }
        }
        self.patch(place, &patch).await;
    }

    /// When a Pod was created that outlives its task.
    fn outlived(&self, place: Place<'_>) -> Option<Timestamp> {
        let name = place.job_name();
        self.namespace_of(place)?.watch.seen(&name)?.outlived(&name)
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
        let now = Timestamp::now().to_string();
        let patch = json!({"metadata": {"annotations": {annotation: now}}});
        self.patch(place, &patch).await;
    }

    /// Notes on a Job that its run is over; from now on the Job's time to live counts.
    pub(crate) async fn mark_reported(&self, place: Place<'_>) {
        let mut patch = json!({
            "metadata": {"labels": {names::REPORTED: "true"}},
            "spec": {"ttlSecondsAfterFinished": place.task.ttl},
        });
        let now = Timestamp::now();
        if place.is_first() {
            patch["metadata"]["annotations"] = json!({names::ANSWERED: now.to_string()});
        }
        if let Some(created) = self.outlived(place) {
            let ran = now.duration_since(created).as_secs();
            patch["spec"]["activeDeadlineSeconds"] = json!(ran + SIDECAR_GRACE_SECONDS);
        }
        self.patch(place, &patch).await;
        self.leaves(place);
    }

    async fn patch(&self, place: Place<'_>, patch: &Value) {
        if let Some(namespace) = self.namespace_of(place) {
            namespace.patch(&place.job_name(), patch).await;
        }
    }
}
