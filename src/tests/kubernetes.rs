//! The embedded cluster as a scenario has it: what becomes of each task, what was created, and the
//! cluster's troubles ([`trouble`]).

mod trouble;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Transcript;
use crate::local::kubernetes as embedded;
pub(super) use embedded::Obstacle;
use embedded::{Change, Container, Exit, Key, Observer, Output, Parts, Resource, Runtime};
use trouble::Trouble;
pub(super) use trouble::WatchHabit;

/// A container ends this long after its Job may run.
const WORK: Duration = Duration::from_millis(200);

/// The Job's condition comes this long after the container's end.
const SETTLING: Duration = Duration::from_millis(400);

const NAMESPACE: &str = "keptn";

/// Where tasks may run if the settings say so.
const OTHER_NAMESPACE: &str = "other";

#[derive(Clone)]
pub(super) struct Kubernetes {
    cluster: embedded::Kubernetes,
    script: Arc<Script>,
    trouble: Trouble,
}

/// Runs tasks as the scenario says, and keeps what happened.
struct Script {
    /// What becomes of a task, by its name.
    tasks: watch::Sender<BTreeMap<String, Behaviour>>,
    /// The Jobs of the cluster's life, as each was last.
    jobs: Mutex<BTreeMap<String, Arc<Value>>>,
    creations: Mutex<BTreeMap<String, usize>>,
    /// Of Jobs whose tasks fail at first.
    attempts: Mutex<BTreeMap<String, usize>>,
    transcript: Transcript,
}

#[derive(Clone)]
enum Behaviour {
    Exits {
        code: i32,
        log: String,
    },
    InitExits {
        code: i32,
        log: String,
    },
    /// So many attempts fail, the next one succeeds.
    FailsAtFirst(usize),
    NeverEnds,
    Refused {
        code: u16,
        message: String,
    },
    BreaksTheService,
    /// Ends well, beside a container that goes on.
    IsOutlived,
    IsKept(Obstacle),
    RunsOutOfMemory,
    IsEndedByItsNode {
        reason: &'static str,
        message: String,
    },
    /// Beside a container that fails at once.
    FailsLater(i32),
}

/// A task in the words of a scenario.
pub(super) struct Task<'a> {
    cluster: &'a Kubernetes,
    name: String,
}

impl Task<'_> {
    fn does(&self, behaviour: Behaviour) {
        let name = self.name.clone();
        self.cluster.script.tasks.send_modify(|tasks| {
            tasks.insert(name, behaviour);
        });
    }

    fn exits(&self, code: i32, log: &str) {
        let log = log.to_owned();
        self.does(Behaviour::Exits { code, log });
    }

    pub(super) fn prints(&self, log: &str) {
        self.exits(0, log);
    }

    pub(super) fn fails(&self, code: i32, log: &str) {
        self.exits(code, log);
    }

    pub(super) fn fails_at_first(&self, attempts: usize) {
        self.does(Behaviour::FailsAtFirst(attempts));
    }

    pub(super) fn fails_in_its_init_container(&self, log: &str) {
        self.does(Behaviour::InitExits {
            code: 1,
            log: log.into(),
        });
    }

    pub(super) fn never_ends(&self) {
        self.does(Behaviour::NeverEnds);
    }

    pub(super) fn is_refused(&self, code: u16, message: &str) {
        self.does(Behaviour::Refused {
            code,
            message: message.into(),
        });
    }

    pub(super) fn is_outlived_by_a_sidecar(&self) {
        self.does(Behaviour::IsOutlived);
    }

    /// Does not start, until the task does something else.
    pub(super) fn is_kept_by(&self, obstacle: Obstacle) {
        self.does(Behaviour::IsKept(obstacle));
    }

    pub(super) fn cannot_be_pulled(&self) {
        self.is_kept_by(Obstacle::Waits {
            reason: "ImagePullBackOff",
            message: "Back-off pulling image \"i\": ErrImagePull: no such tag".into(),
        });
    }

    pub(super) fn runs_out_of_memory(&self) {
        self.does(Behaviour::RunsOutOfMemory);
    }

    pub(super) fn is_evicted(&self, message: &str) {
        self.is_ended_by_its_node("Evicted", message);
    }

    pub(super) fn is_ended_by_its_node(&self, reason: &'static str, message: &str) {
        let message = message.to_owned();
        self.does(Behaviour::IsEndedByItsNode { reason, message });
    }

    /// Somebody's sidecar crashes, and then the task ends so.
    pub(super) fn ends_after_its_sidecar_crashed(&self, code: i32) {
        self.does(Behaviour::FailsLater(code));
    }

    /// Some part of the cluster ends the task's Pods, and says so.
    pub(super) fn is_disrupted(&self, reason: &str, message: &str) {
        self.pods_are(
            &json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
            "reason": reason, "message": message}]}}),
        );
        self.loses_its_pod();
    }

    /// What collects the Pods of nodes that are gone marks them as failed before.
    pub(super) fn loses_its_node(&self) {
        self.pods_are(&json!({"status": {"phase": "Failed", "conditions": [{"type": "DisruptionTarget",
            "status": "True", "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"}]}}));
        self.loses_its_pod();
    }

    /// Its node is not heard of any more: the cluster can say no more than that the Pod is not ready.
    pub(super) fn is_not_heard_of(&self) {
        self.pods_are(&json!({"status": {"conditions": [
            {"type": "Ready", "status": "False", "lastTransitionTime": clock().to_string()},
            {"type": "ContainersReady", "status": "True"}]}}));
    }

    /// Somebody deletes the task's Pods.
    pub(super) fn loses_its_pod(&self) {
        for (key, _) in self.cluster.every_pod_of(&self.name) {
            let patch = json!({"metadata": {"deletionTimestamp": clock().to_string()}});
            self.cluster.cluster.patch(&key, &patch).unwrap();
        }
    }

    fn pods_are(&self, patch: &Value) {
        for (key, _) in self.cluster.pods_of(&self.name) {
            self.cluster.cluster.patch(&key, patch).unwrap();
        }
    }

    /// Somebody suspends the task's Job, or resumes it.
    pub(super) fn is_suspended(&self, suspended: bool) {
        for job in self.cluster.jobs_of(&self.name) {
            let patch = json!({"spec": {"suspend": suspended}});
            self.cluster.cluster.patch(&key_of(&job), &patch).unwrap();
        }
    }

    /// The cluster ends the Job, as it does at the end of its time, and its Pod with it.
    pub(super) fn runs_out_of_time(&self) {
        for job in self.cluster.jobs_of(&self.name) {
            let patch = json!({"spec": {"activeDeadlineSeconds": 1}});
            self.cluster.cluster.patch(&key_of(&job), &patch).unwrap();
        }
    }

    /// Whoever creates the task's Job panics.
    pub(super) fn breaks_the_service(&self) {
        self.does(Behaviour::BreaksTheService);
    }

    /// A task that never ended does now, wherever it runs; one that waits will when it is released.
    pub(super) fn ends(&self) {
        self.prints("");
    }
}

impl Script {
    fn behaviour(&self, task: &str) -> Behaviour {
        let behaviour = self.tasks.borrow().get(task).cloned();
        behaviour.unwrap_or(Behaviour::Exits {
            code: 0,
            log: String::new(),
        })
    }

    fn task_of(&self, container: &Container) -> String {
        self.jobs
            .lock()
            .unwrap()
            .get(&container.job)
            .map_or_else(String::new, |job| task_of(job))
    }

    /// From 1.
    fn attempt(&self, container: &Container) -> usize {
        let mut attempts = self.attempts.lock().unwrap();
        let attempt = attempts.entry(container.job.clone()).or_default();
        *attempt += 1;
        *attempt
    }

    async fn ends(&self, container: &Container, output: &Output) -> Exit {
        let task = self.task_of(container);
        let is_init = container.name.starts_with("init-");
        let mut tasks = self.tasks.subscribe();
        loop {
            match self.behaviour(&task) {
                Behaviour::InitExits { code, log } if is_init => {
                    tokio::time::sleep(WORK).await;
                    output.write(log.as_bytes());
                    return Exit::Code(code);
                }
                _ if is_init => return Exit::Code(0),
                Behaviour::Exits { code, log } => {
                    tokio::time::sleep(WORK).await;
                    output.write(log.as_bytes());
                    return Exit::Code(code);
                }
                Behaviour::FailsAtFirst(failures) => {
                    tokio::time::sleep(WORK).await;
                    let attempt = self.attempt(container);
                    output.write(format!("attempt {attempt}\n").as_bytes());
                    return Exit::Code(i32::from(attempt <= failures));
                }
                Behaviour::RunsOutOfMemory => {
                    tokio::time::sleep(WORK).await;
                    return Exit::OutOfMemory;
                }
                Behaviour::IsEndedByItsNode { reason, message } => {
                    tokio::time::sleep(WORK).await;
                    return Exit::ByNode { reason, message };
                }
                Behaviour::FailsLater(_) if container.name == trouble::SIDECAR => {
                    return Exit::Code(7);
                }
                Behaviour::FailsLater(code) => {
                    tokio::time::sleep(WORK).await;
                    return Exit::Code(code);
                }
                Behaviour::IsOutlived if container.name == trouble::SIDECAR => {}
                Behaviour::IsOutlived => {
                    tokio::time::sleep(WORK).await;
                    return Exit::Code(0);
                }
                _ => {}
            }
            tasks.changed().await.unwrap();
        }
    }
}

impl Runtime for Script {
    fn run<'a>(
        &'a self,
        container: &'a Container,
        output: &'a Output,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Exit> {
        async move {
            tokio::select! {
                exit = self.ends(container, output) => exit,
                () = stop.cancelled() => Exit::Code(143),
            }
        }
        .boxed()
    }

    fn obstacle(&self, job: &str) -> Option<Obstacle> {
        let task = self.jobs.lock().unwrap().get(job).map(|job| task_of(job))?;
        match self.behaviour(&task) {
            Behaviour::IsKept(obstacle) => Some(obstacle),
            _ => None,
        }
    }

    fn obstacles_change(&self) -> BoxFuture<'static, ()> {
        let mut tasks = self.tasks.subscribe();
        async move { tasks.changed().await.unwrap() }.boxed()
    }
}

impl Observer for Script {
    fn changed(&self, change: &Change) {
        let (Resource::Jobs, Some(job)) = (change.key.resource, &change.after) else {
            return;
        };
        let name = &change.key.name;
        self.jobs
            .lock()
            .unwrap()
            .insert(name.clone(), Arc::clone(job));
        let is_queued = |job: &Arc<Value>| job["spec"]["suspend"] == true;
        let what = match change.before.as_ref().map(is_queued) {
            None => {
                *self
                    .creations
                    .lock()
                    .unwrap()
                    .entry(name.clone())
                    .or_default() += 1;
                if is_queued(job) { "queued" } else { "created" }
            }
            Some(true) if !is_queued(job) => "released",
            Some(_) => return,
        };
        self.transcript
            .add(format!("job {what}: {} {name}", task_of(job)));
    }

    fn printed(&self, _container: &Container, _bytes: &[u8]) {}
}

fn task_of(job: &Value) -> String {
    text(&job["metadata"]["labels"]["keptn.sh/jes-task"])
}

fn key_of(job: &Value) -> Key {
    let metadata = &job["metadata"];
    let namespace = text(&metadata["namespace"]);
    Key::new(Resource::Jobs, &namespace, &text(&metadata["name"]))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The same at all times: what leaves a run is compared with what leaves another one.
pub(super) fn clock() -> Timestamp {
    "2026-11-23T20:41:00Z".parse().unwrap()
}

impl Kubernetes {
    pub(super) fn new(transcript: Transcript) -> Self {
        let script = Arc::new(Script {
            tasks: watch::Sender::new(BTreeMap::new()),
            jobs: Mutex::default(),
            creations: Mutex::default(),
            attempts: Mutex::default(),
            transcript,
        });
        let cluster = embedded::Kubernetes::new(Parts {
            runtime: Arc::clone(&script) as Arc<dyn Runtime>,
            observer: Arc::clone(&script) as Arc<dyn Observer>,
            clock,
            settling: SETTLING,
            volumes: None,
        });
        Self {
            cluster,
            script,
            trouble: Trouble::default(),
        }
    }

    pub(super) fn task(&self, name: &str) -> Task<'_> {
        Task {
            cluster: self,
            name: name.into(),
        }
    }

    pub(super) fn answers_with(&self, method: &Method, statuses: &[u16]) {
        for status in statuses {
            self.trouble
                .then(method, StatusCode::from_u16(*status).unwrap());
        }
    }

    pub(super) fn answers_truly_again(&self) {
        self.trouble.is_over();
    }

    /// All watches end, as when the API server restarts.
    pub(super) fn forget_clients(&self) {
        self.trouble.ends_watches();
    }

    pub(super) fn has_watches_that(&self, habit: WatchHabit) {
        self.trouble.has_watches_that(habit);
    }

    /// The API server is stopped, or there again.
    pub(super) fn is_away(&self, away: bool) {
        self.trouble.is_away(away);
    }

    /// Whole logs take for ever after so many bytes.
    pub(super) fn shows_of_logs(&self, bytes: usize) {
        self.trouble.shows_of_logs(bytes);
    }

    /// The account of the service may not read Events.
    pub(super) fn forbids_events(&self) {
        self.trouble.forbids_events();
    }

    /// The account of the service has no permissions in the other namespace.
    pub(super) fn forbids_the_other_namespace(&self) {
        self.trouble.forbids(OTHER_NAMESPACE);
    }

    /// Verb and resource of every call so far.
    pub(super) fn calls(&self) -> Vec<String> {
        self.trouble.calls()
    }

    /// How often each Job was created, by name; deleted ones count.
    pub(super) fn creations(&self) -> BTreeMap<String, usize> {
        self.script.creations.lock().unwrap().clone()
    }

    /// Each Job as it was last, also those that are deleted.
    pub(super) fn last_states(&self) -> Vec<Value> {
        let jobs = self.script.jobs.lock().unwrap();
        jobs.values().map(|job| Value::clone(job)).collect()
    }

    pub(super) fn lease_holder(&self) -> String {
        let (_, leases) = self.cluster.list(Resource::Leases, NAMESPACE);
        leases
            .first()
            .map_or_else(String::new, |lease| text(&lease["spec"]["holderIdentity"]))
    }

    pub(super) fn jobs(&self) -> Vec<Value> {
        let of = |namespace| self.cluster.list(Resource::Jobs, namespace).1;
        let jobs = [NAMESPACE, OTHER_NAMESPACE].map(of).concat();
        jobs.iter().map(|job| Value::clone(job)).collect()
    }

    /// Those that may still run.
    pub(super) fn pods_of(&self, task: &str) -> Vec<(Key, Value)> {
        let mut pods = self.every_pod_of(task);
        pods.retain(|(_, pod)| {
            !matches!(
                text(&pod["status"]["phase"]).as_str(),
                "Succeeded" | "Failed"
            )
        });
        pods
    }

    fn every_pod_of(&self, task: &str) -> Vec<(Key, Value)> {
        let jobs = self.jobs_of(task);
        let pods = [NAMESPACE, OTHER_NAMESPACE].map(|of| self.cluster.list(Resource::Pods, of).1);
        let pods = pods.into_iter().flatten().filter(|pod| {
            let is_of =
                |job: &Value| pod["metadata"]["labels"]["job-name"] == job["metadata"]["name"];
            jobs.iter().any(is_of)
        });
        pods.map(|pod| {
            let metadata = &pod["metadata"];
            let key = Key::new(
                Resource::Pods,
                &text(&metadata["namespace"]),
                &text(&metadata["name"]),
            );
            (key, Value::clone(&pod))
        })
        .collect()
    }

    fn jobs_of(&self, task: &str) -> Vec<Value> {
        let mut jobs = self.jobs();
        jobs.retain(|job| task_of(job) == task);
        jobs
    }

    /// The time to live of the Jobs that are reported is over.
    pub(super) fn expires_jobs(&self) {
        for job in self.jobs() {
            if job["spec"]["ttlSecondsAfterFinished"].is_u64() {
                self.cluster.delete(&key_of(&job)).unwrap();
            }
        }
    }

    pub(super) fn deletes_job(&self, task: &str) {
        for job in self.jobs_of(task) {
            self.cluster.delete(&key_of(&job)).unwrap();
        }
    }

    /// A Pod of the service itself.
    pub(super) fn has_pod(&self, name: &str) {
        let pod = json!({"metadata": {"labels": {}}, "status": {"phase": "Running"}});
        self.cluster
            .create(&Key::new(Resource::Pods, NAMESPACE, name), pod)
            .ok();
    }

    pub(super) fn has_no_pod(&self, name: &str) {
        self.cluster
            .delete(&Key::new(Resource::Pods, NAMESPACE, name))
            .unwrap();
    }

    /// As if the process had died before it marked this Job.
    pub(super) fn loses_its_mark(&self, task: &str) {
        for job in self.jobs_of(task) {
            let patch = json!({"metadata": {"labels": {"keptn.sh/jes-reported": null}}});
            self.cluster.patch(&key_of(&job), &patch).unwrap();
        }
    }

    pub(super) async fn all_reported(&self) {
        let reported = |job: &Value| job["metadata"]["labels"]["keptn.sh/jes-reported"] == "true";
        self.until(|cluster| cluster.jobs().iter().all(reported))
            .await;
    }

    pub(super) async fn is_marked_started(&self) {
        let marked =
            |job: &Value| !job["metadata"]["annotations"]["keptn.sh/jes-started"].is_null();
        self.until(|cluster| cluster.jobs().iter().any(marked))
            .await;
    }

    pub(super) async fn has_jobs(&self, count: usize) {
        self.until(|cluster| cluster.jobs().len() >= count).await;
    }

    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        self.cluster.until(|| holds(self)).await;
    }
}
