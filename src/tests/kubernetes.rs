//! A Kubernetes API for Jobs, Pods and Leases, in process under the real client, with a kubelet that ends
//! each task as the scenario says.

mod api;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Transcript;

/// A container ends this long after its Job may run.
const WORK: Duration = Duration::from_millis(200);

/// The Job's condition comes this long after the container's end.
const SETTLING: Duration = Duration::from_millis(400);

#[derive(Clone)]
pub(super) struct Kubernetes {
    state: Arc<Mutex<Model>>,
    version: watch::Sender<usize>,
    transcript: Transcript,
}

struct Model {
    /// Kind (`jobs`, `pods`) and name → object.
    objects: BTreeMap<(String, String), Value>,
    /// Every change, with what the object was before; its place is the resource version.
    changes: Vec<Arc<Change>>,
    /// What becomes of a task, by its name.
    tasks: BTreeMap<String, Behaviour>,
    /// Statuses for the next calls, by method, before the true answers.
    troubles: Vec<(Method, StatusCode)>,
    /// Watches that began before this number end: their client is gone, or the server restarted.
    generation: watch::Sender<usize>,
    watches: WatchHabit,
    /// Nothing listens.
    away: bool,
    calls: Vec<String>,
}

/// How watches behave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum WatchHabit {
    #[default]
    Sound,
    /// Each ends after every change that it shows.
    Ends,
    /// Each is told after every change that its resource version is too old.
    Compacted,
    /// Changes are shown ten seconds late.
    Late,
    /// Each change is shown twice.
    Repeats,
}

struct Change {
    kind: String,
    before: Option<Value>,
    after: Option<Value>,
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
    NeverEnds,
    MissesDeadline,
    Refused {
        code: u16,
        message: String,
    },
    BreaksTheService,
    /// Ends well, beside a container that goes on.
    IsOutlived,
}

/// A task in the words of a scenario.
pub(super) struct Task<'a> {
    cluster: &'a Kubernetes,
    name: String,
}

impl Task<'_> {
    fn does(&self, behaviour: Behaviour) {
        let mut model = self.cluster.state.lock().unwrap();
        model.tasks.insert(self.name.clone(), behaviour);
    }

    pub(super) fn prints(&self, log: &str) {
        self.does(Behaviour::Exits {
            code: 0,
            log: log.into(),
        });
    }

    pub(super) fn fails(&self, code: i32, log: &str) {
        self.does(Behaviour::Exits {
            code,
            log: log.into(),
        });
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

    pub(super) fn misses_its_deadline(&self) {
        self.does(Behaviour::MissesDeadline);
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

    /// The cluster ends the Job, as it does at the end of its time, and its Pod with it.
    pub(super) fn runs_out_of_time(&self) {
        for job in self
            .cluster
            .jobs()
            .iter()
            .filter(|job| task_of(job) == self.name)
        {
            let name = text(&job["metadata"]["name"]);
            self.cluster.concludes(&name, "Failed", "DeadlineExceeded");
            self.cluster.change("pods", &format!("{name}-pod"), None);
        }
    }

    /// Whoever creates the task's Job panics.
    pub(super) fn breaks_the_service(&self) {
        self.does(Behaviour::BreaksTheService);
    }

    /// A task that never ended does now, wherever it runs; one that waits will when it is released.
    pub(super) fn ends(&self) {
        self.prints("");
        let jobs = self.cluster.jobs();
        for job in jobs
            .iter()
            .filter(|job| task_of(job) == self.name && job["spec"]["suspend"] != true)
        {
            self.cluster.run(job);
        }
    }
}

fn task_of(job: &Value) -> String {
    text(&job["metadata"]["labels"]["keptn.sh/jes-task"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Kubernetes {
    pub(super) fn new(transcript: Transcript) -> Self {
        let model = Model {
            objects: BTreeMap::new(),
            changes: Vec::new(),
            tasks: BTreeMap::new(),
            troubles: Vec::new(),
            generation: watch::Sender::new(0),
            watches: WatchHabit::Sound,
            away: false,
            calls: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(model)),
            version: watch::Sender::new(0),
            transcript,
        }
    }

    pub(super) fn task(&self, name: &str) -> Task<'_> {
        Task {
            cluster: self,
            name: name.into(),
        }
    }

    pub(super) fn answers_with(&self, method: &Method, statuses: &[u16]) {
        let mut model = self.state.lock().unwrap();
        for status in statuses {
            model
                .troubles
                .push((method.clone(), StatusCode::from_u16(*status).unwrap()));
        }
    }

    pub(super) fn answers_truly_again(&self) {
        self.state.lock().unwrap().troubles.clear();
    }

    /// All watches end, as when the API server restarts.
    pub(super) fn forget_clients(&self) {
        self.state
            .lock()
            .unwrap()
            .generation
            .send_modify(|generation| *generation += 1);
    }

    pub(super) fn has_watches_that(&self, habit: WatchHabit) {
        self.state.lock().unwrap().watches = habit;
    }

    /// How often each Job was created, by name; deleted ones count.
    pub(super) fn creations(&self) -> BTreeMap<String, usize> {
        let mut creations = BTreeMap::new();
        for change in &self.state.lock().unwrap().changes {
            if let (true, None, Some(job)) = (change.kind == "jobs", &change.before, &change.after)
            {
                *creations.entry(text(&job["metadata"]["name"])).or_default() += 1;
            }
        }
        creations
    }

    /// Each Job as it was last, also those that are deleted.
    pub(super) fn last_states(&self) -> Vec<Value> {
        let mut states = BTreeMap::new();
        for change in &self.state.lock().unwrap().changes {
            if let (true, Some(job)) = (change.kind == "jobs", &change.after) {
                states.insert(text(&job["metadata"]["name"]), job.clone());
            }
        }
        states.into_values().collect()
    }

    pub(super) fn lease_holder(&self) -> String {
        let model = self.state.lock().unwrap();
        let lease = model.objects.iter().find(|((kind, _), _)| kind == "leases");
        lease.map_or_else(String::new, |(_, lease)| {
            text(&lease["spec"]["holderIdentity"])
        })
    }

    pub(super) fn jobs(&self) -> Vec<Value> {
        let model = self.state.lock().unwrap();
        let jobs = model.objects.iter().filter(|((kind, _), _)| kind == "jobs");
        jobs.map(|(_, job)| job.clone()).collect()
    }

    /// Verb and resource of every call so far.
    pub(super) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The time to live of the Jobs that are reported is over.
    pub(super) fn expires_jobs(&self) {
        for job in self.jobs() {
            if job["spec"]["ttlSecondsAfterFinished"].is_u64() {
                self.change("jobs", &text(&job["metadata"]["name"]), None);
            }
        }
    }

    pub(super) fn deletes_job(&self, task: &str) {
        for job in self.jobs().iter().filter(|job| task_of(job) == task) {
            let name = text(&job["metadata"]["name"]);
            self.change("jobs", &name, None);
            self.change("pods", &format!("{name}-pod"), None);
        }
    }

    /// A Pod of the service itself.
    pub(super) fn has_pod(&self, name: &str) {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"},
            "metadata": {"name": name, "namespace": "keptn", "labels": {}}});
        self.change("pods", name, Some(pod));
    }

    pub(super) fn has_no_pod(&self, name: &str) {
        self.change("pods", name, None);
    }

    /// The API server is stopped, or there again.
    pub(super) fn is_away(&self, away: bool) {
        self.state.lock().unwrap().away = away;
        self.forget_clients();
    }

    /// As if the process had died before it marked this Job.
    pub(super) fn loses_its_mark(&self, task: &str) {
        for mut job in self.jobs().into_iter().filter(|job| task_of(job) == task) {
            let labels = job["metadata"]["labels"].as_object_mut().unwrap();
            labels.remove("keptn.sh/jes-reported");
            let name = text(&job["metadata"]["name"]);
            self.change("jobs", &name, Some(job));
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
        self.version
            .subscribe()
            .wait_for(|_| holds(self))
            .await
            .unwrap();
    }

    fn change(&self, kind: &str, name: &str, object: Option<Value>) -> Option<Value> {
        let mut model = self.state.lock().unwrap();
        let version = model.changes.len() + 1;
        let key = (kind.to_owned(), name.to_owned());
        let before = model.objects.remove(&key);
        let after = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            model.objects.insert(key, object.clone());
            object
        });
        model.changes.push(Arc::new(Change {
            kind: kind.into(),
            before,
            after: after.clone(),
        }));
        drop(model);
        self.version.send_replace(version);
        after
    }

    fn creates(&self, kind: &str, mut object: Value) -> Response {
        let name = text(&object["metadata"]["name"]);
        if self.object(kind, &name).is_some() {
            let message = format!("{kind} \"{name}\" already exists");
            return status(409, "AlreadyExists", &message);
        }
        object["metadata"]["namespace"] = "keptn".into();
        object["metadata"]["uid"] = name.clone().into();
        if kind != "jobs" {
            let object = self.change(kind, &name, Some(object)).unwrap();
            return (StatusCode::CREATED, object.to_string()).into_response();
        }
        let behaviour = self.behaviour(&object);
        match behaviour {
            Behaviour::Refused { code, message } => return status(code, "Forbidden", &message),
            Behaviour::BreaksTheService => panic!("a bug of the service"),
            _ => {}
        }
        let queued = object["spec"]["suspend"] == true;
        let how = if queued { "queued" } else { "created" };
        self.transcript
            .add(format!("job {how}: {} {name}", task_of(&object)));
        let job = self.change("jobs", &name, Some(object)).unwrap();
        if !queued {
            self.run(&job);
        }
        (StatusCode::CREATED, job.to_string()).into_response()
    }

    fn behaviour(&self, job: &Value) -> Behaviour {
        let model = self.state.lock().unwrap();
        let behaviour = model.tasks.get(&task_of(job)).cloned();
        behaviour.unwrap_or(Behaviour::Exits {
            code: 0,
            log: String::new(),
        })
    }

    fn patches(&self, kind: &str, name: &str, patch: &Value) -> Response {
        let Some(mut object) = self.object(kind, name) else {
            return status(404, "NotFound", &format!("{kind} \"{name}\" not found"));
        };
        let based_on = &patch["metadata"]["resourceVersion"];
        if !based_on.is_null() && *based_on != object["metadata"]["resourceVersion"] {
            let message = format!("Operation cannot be fulfilled on {kind} \"{name}\"");
            return status(409, "Conflict", &message);
        }
        let was_queued = object["spec"]["suspend"] == true;
        merge(&mut object, patch);
        let object = self.change(kind, name, Some(object)).unwrap();
        if was_queued && object["spec"]["suspend"] == false {
            self.transcript
                .add(format!("job released: {} {name}", task_of(&object)));
            self.run(&object);
        }
        self.expires(&object);
        object.to_string().into_response()
    }

    /// Its time to live counts from when a Job has ended and has one.
    fn expires(&self, job: &Value) {
        let ttl = job["spec"]["ttlSecondsAfterFinished"].as_u64();
        if let (Some(ttl), false) = (ttl, job["status"]["conditions"].is_null()) {
            let (cluster, name) = (self.clone(), text(&job["metadata"]["name"]));
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(ttl)).await;
                cluster.change("jobs", &name, None);
            });
        }
    }

    /// The kubelet and the Job controller: Pod, end of the container, end of the Job.
    fn run(&self, job: &Value) {
        let (cluster, job) = (self.clone(), job.clone());
        tokio::spawn(async move { cluster.works(&job).await });
    }

    async fn works(&self, job: &Value) {
        let name = text(&job["metadata"]["name"]);
        let behaviour = self.behaviour(job);
        let ended = |container: &str, code: i32| {
            json!([{"name": container, "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                    "startedAt": "2026-11-23T20:41:00Z", "finishedAt": "2026-11-23T20:41:07Z"}}}])
        };
        self.shows(job, &json!({"phase": "Running"}));
        if matches!(behaviour, Behaviour::NeverEnds) {
            return;
        }
        tokio::time::sleep(WORK).await;
        let (kind, reason) = match behaviour {
            Behaviour::IsOutlived => {
                let mut containers = ended(&name, 0);
                let sidecar = json!({"name": "sidecar", "image": "i", "imageID": "i", "ready": true,
                    "restartCount": 0, "state": {"running": {}}});
                containers.as_array_mut().unwrap().push(sidecar);
                let status = json!({"phase": "Running", "containerStatuses": containers});
                return self.shows(job, &status);
            }
            Behaviour::Exits { code, .. } => {
                let status = json!({"phase": "Running", "containerStatuses": ended(&name, code)});
                self.shows(job, &status);
                match code {
                    0 => ("Complete", "CompletionsReached"),
                    _ => ("Failed", "BackoffLimitExceeded"),
                }
            }
            Behaviour::InitExits { code, .. } => {
                let init = format!("init-{name}");
                let status =
                    json!({"phase": "Failed", "initContainerStatuses": ended(&init, code)});
                self.shows(job, &status);
                ("Failed", "BackoffLimitExceeded")
            }
            _ => ("FailureTarget", "DeadlineExceeded"),
        };
        tokio::time::sleep(SETTLING).await;
        self.concludes(&name, kind, reason);
    }

    fn concludes(&self, name: &str, kind: &str, reason: &str) {
        let Some(mut job) = self.object("jobs", name) else {
            return;
        };
        job["status"] = json!({"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "m"}]});
        self.change("jobs", name, Some(job.clone()));
        self.expires(&job);
    }

    /// The Pod of a Job, if somebody has not deleted the Job.
    fn shows(&self, job: &Value, status: &Value) {
        let name = text(&job["metadata"]["name"]);
        if self.object("jobs", &name).is_none() {
            return;
        }
        let pod = format!("{name}-pod");
        let mut labels = job["spec"]["template"]["metadata"]["labels"].clone();
        labels["job-name"] = name.into();
        let object = json!({"apiVersion": "v1", "kind": "Pod", "status": status,
            "metadata": {"name": pod, "namespace": "keptn", "labels": labels,
                "creationTimestamp": "2026-11-23T20:41:00Z"}});
        self.change("pods", &pod, Some(object));
    }

    fn log(&self, pod: &str) -> Response {
        let job = self
            .object("jobs", pod.trim_end_matches("-pod"))
            .unwrap_or_default();
        let model = self.state.lock().unwrap();
        match model.tasks.get(&task_of(&job)) {
            Some(Behaviour::Exits { log, .. } | Behaviour::InitExits { log, .. }) => log.clone(),
            _ => String::new(),
        }
        .into_response()
    }

    fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let model = self.state.lock().unwrap();
        model
            .objects
            .get(&(kind.to_owned(), name.to_owned()))
            .cloned()
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code});
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}
