//! What a watch shows of Jobs and their Pods, up to their last state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::run::Run;

const BY_THE_SERVICE: &str = "ended by the service";

pub(super) struct Recorder {
    objects: Arc<Mutex<BTreeMap<String, Seen>>>,
    _watches: [AbortOnDropHandle<()>; 2],
}

#[derive(Clone)]
struct Seen {
    last: Value,
    gone: bool,
}

impl Recorder {
    pub(super) fn of(client: &Client, namespace: &str) -> Self {
        let objects = Arc::<Mutex<BTreeMap<String, Seen>>>::default();
        let jobs = Api::<Job>::namespaced(client.clone(), namespace);
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let watches = [
            tokio::spawn(record(jobs, Arc::clone(&objects))),
            tokio::spawn(record(pods, Arc::clone(&objects))),
        ];
        Self {
            objects,
            _watches: watches.map(AbortOnDropHandle::new),
        }
    }

    fn jobs_of(&self, id: &str) -> Vec<Seen> {
        let objects = self.objects.lock().unwrap();
        let of_event = |seen: &&Seen| seen.last["metadata"]["labels"]["keptn.sh/event-id"] == id;
        objects.values().filter(of_event).cloned().collect()
    }

    fn pods_of(&self, job: &Value) -> Vec<Seen> {
        let objects = self.objects.lock().unwrap();
        let of_job = |seen: &&Seen| {
            seen.last["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]
        };
        objects.values().filter(of_job).cloned().collect()
    }

    /// A Job whose container runs, and its Pod.
    pub(super) fn running(&self, id: &str) -> Option<(String, String)> {
        let jobs = self.jobs_of(id).into_iter();
        let mut running = jobs.flat_map(|job| {
            let pods = self.pods_of(&job.last).into_iter();
            pods.filter(|pod| {
                !pod.last["status"]["containerStatuses"][0]["state"]["running"].is_null()
            })
            .map(move |pod| (name(&job.last).to_owned(), name(&pod.last).to_owned()))
        });
        running.next()
    }

    /// Whether there are so many Jobs, and nothing is going to change any more.
    pub(super) fn all_over(&self, id: &str, jobs: usize) -> bool {
        let seen = self.jobs_of(id);
        let over = |job: &Seen| {
            let reported = !job.last["metadata"]["labels"]["keptn.sh/jes-reported"].is_null();
            let ended = conditions(&job.last)
                .iter()
                .any(|kind| kind.starts_with("Complete") || kind.starts_with("Failed:"));
            let pod_over =
                |pod: &Seen| pod.gone || matches!(phase(&pod.last), "Succeeded" | "Failed");
            // A Pod is ended for one reason or the other: with its Job, or by the Job's time limit.
            let told = conditions(&job.last).join(" ");
            let is_over = ["DeadlineExceeded", BY_THE_SERVICE];
            let must_go = job.gone || is_over.iter().any(|end| told.contains(end));
            let pods = self.pods_of(&job.last);
            (job.gone || reported && ended)
                && pods
                    .iter()
                    .all(|pod| pod_over(pod) && (pod.gone || !must_go))
        };
        seen.len() == jobs && seen.iter().all(over)
    }

    /// By name.
    pub(super) fn jobs(&self, id: &str) -> Value {
        let jobs = self.jobs_of(id).into_iter().map(|job| {
            let metadata = &job.last["metadata"];
            let pods = self.pods_of(&job.last).into_iter().map(|pod| {
                let status = &pod.last["status"];
                json!({
                    "name": name(&pod.last),
                    "labels": pod.last["metadata"]["labels"],
                    "annotations": pod.last["metadata"]["annotations"],
                    "gone": pod.gone,
                    "being ended": !pod.last["metadata"]["deletionTimestamp"].is_null(),
                    "phase": phase(&pod.last),
                    "init containers": states(&status["initContainerStatuses"]),
                    "containers": states(&status["containerStatuses"]),
                })
            });
            let shown = json!({
                "labels": metadata["labels"],
                "annotations": annotations(&metadata["annotations"]),
                "spec": job.last["spec"],
                "conditions": conditions(&job.last),
                "succeeded": job.last["status"]["succeeded"],
                "failed": job.last["status"]["failed"],
                "gone": job.gone,
                "pods": pods.collect::<Vec<_>>(),
            });
            (name(&job.last).to_owned(), shown)
        });
        Value::Object(jobs.collect())
    }
}

async fn record<K>(api: Api<K>, objects: Arc<Mutex<BTreeMap<String, Seen>>>)
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
    K: serde::Serialize,
    K::DynamicType: Default,
{
    let mut events = Box::pin(watcher(api, watcher::Config::default()).default_backoff());
    loop {
        let (object, gone) = match events.try_next().await {
            Ok(Some(Event::Apply(object) | Event::InitApply(object))) => (object, false),
            Ok(Some(Event::Delete(object))) => (object, true),
            Ok(Some(_)) | Err(_) => continue,
            Ok(None) => return,
        };
        let last = serde_json::to_value(object).unwrap();
        let uid = last["metadata"]["uid"].as_str().unwrap().to_owned();
        objects.lock().unwrap().insert(uid, Seen { last, gone });
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

fn phase(pod: &Value) -> &str {
    pod["status"]["phase"].as_str().unwrap_or_default()
}

/// The record as text, without when the event came.
fn annotations(annotations: &Value) -> Value {
    let mut annotations = annotations.clone();
    if let Some(record) = annotations["keptn.sh/jes-record"].as_str() {
        let mut run = serde_json::to_value(Run::decode(record).unwrap()).unwrap();
        run["arrived"] = Value::Null;
        annotations["keptn.sh/jes-record"] = run;
    }
    annotations
}

fn conditions(job: &Value) -> Vec<String> {
    // Of a Job that the service left no time, a busy Job controller may see its deleted Pod before it has
    // noted why it deletes it.
    let has_no_time = job["spec"]["activeDeadlineSeconds"] == 0;
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|condition| condition["status"] == "True")
        .map(|condition| {
            let text = |field: &str| condition[field].as_str().unwrap_or_default();
            if has_no_time {
                return format!("{}: {BY_THE_SERVICE}", text("type"));
            }
            format!("{}: {}: {}", text("type"), text("reason"), text("message"))
        })
        .collect()
}

fn states(statuses: &Value) -> Vec<String> {
    let statuses = statuses.as_array().into_iter().flatten();
    statuses
        .map(|status| {
            let (name, state) = (&status["name"], &status["state"]);
            let terminated = &state["terminated"];
            // When its Pod goes, the kubelet writes a container off that it did not start, some time
            // after the answer is out.
            if terminated["reason"] == "ContainerStatusUnknown"
                || state["waiting"]["reason"] == "CreateContainerConfigError"
            {
                return format!("{name} was not created");
            }
            if terminated.is_null() {
                return format!("{name} {state}");
            }
            let present = |field: &str| !terminated[field].is_null();
            format!(
                "{name} exit {} {}{}{}{}",
                terminated["exitCode"],
                terminated["reason"],
                if present("message") { " message" } else { "" },
                if present("startedAt") { " start" } else { "" },
                if present("finishedAt") { " end" } else { "" },
            )
        })
        .collect()
}
