//! A Kubernetes API for Jobs and Pods, in process under the real client, with a kubelet that ends each
//! task as the scenario says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures::stream;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::Transcript;

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
    changes: Vec<Change>,
    /// What becomes of a task, by its name.
    tasks: BTreeMap<String, Behaviour>,
    /// Statuses for the next calls, by method, before the true answers.
    troubles: Vec<(Method, StatusCode)>,
    /// Watches that began before this number end: their client is gone, or the server restarted.
    generation: watch::Sender<usize>,
    calls: Vec<String>,
}

#[derive(Clone)]
struct Change {
    kind: String,
    before: Option<Value>,
    after: Option<Value>,
}

#[derive(Clone)]
enum Behaviour {
    Exits { code: i32, log: String },
    InitExits { code: i32, log: String },
    NeverEnds,
    MissesDeadline,
    Refused { code: u16, message: String },
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
            calls: Vec::new(),
        };
        Self {
            state: Arc::new(Mutex::new(model)),
            version: watch::Sender::new(0),
            transcript,
        }
    }

    pub(super) fn client(&self) -> Client {
        let router = Router::new().fallback(answer).with_state(self.clone());
        Client::new(router.into_service::<kube::client::Body>(), "keptn")
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

    pub(super) fn jobs(&self) -> Vec<Value> {
        let model = self.state.lock().unwrap();
        let jobs = model.objects.iter().filter(|((kind, _), _)| kind == "jobs");
        jobs.map(|(_, job)| job.clone()).collect()
    }

    /// Verb and resource of every call so far.
    pub(super) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    pub(super) fn deletes_job(&self, task: &str) {
        for job in self.jobs().iter().filter(|job| task_of(job) == task) {
            self.change("jobs", &text(&job["metadata"]["name"]), None);
        }
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
        model.changes.push(Change {
            kind: kind.into(),
            before,
            after: after.clone(),
        });
        drop(model);
        self.version.send_replace(version);
        after
    }

    fn creates(&self, mut job: Value) -> Response {
        let name = text(&job["metadata"]["name"]);
        let model = self.state.lock().unwrap();
        if model
            .objects
            .contains_key(&("jobs".to_owned(), name.clone()))
        {
            return status(
                409,
                "AlreadyExists",
                &format!("jobs.batch \"{name}\" already exists"),
            );
        }
        if let Some(Behaviour::Refused { code, message }) = model.tasks.get(&task_of(&job)) {
            return status(*code, "Forbidden", message);
        }
        drop(model);
        job["metadata"]["namespace"] = "keptn".into();
        job["metadata"]["uid"] = name.clone().into();
        let queued = job["spec"]["suspend"] == true;
        let how = if queued { "queued" } else { "created" };
        self.transcript
            .add(format!("job {how}: {} {name}", task_of(&job)));
        let job = self.change("jobs", &name, Some(job)).unwrap();
        if !queued {
            self.run(&job);
        }
        (StatusCode::CREATED, job.to_string()).into_response()
    }

    fn patches(&self, kind: &str, name: &str, patch: &Value) -> Response {
        let Some(mut object) = self.object(kind, name) else {
            return status(404, "NotFound", &format!("{kind} \"{name}\" not found"));
        };
        let was_queued = object["spec"]["suspend"] == true;
        merge(&mut object, patch);
        let object = self.change(kind, name, Some(object)).unwrap();
        if was_queued && object["spec"]["suspend"] == false {
            self.transcript
                .add(format!("job released: {} {name}", task_of(&object)));
            self.run(&object);
        }
        object.to_string().into_response()
    }

    /// The kubelet and the Job controller: Pod, end of the container, end of the Job.
    fn run(&self, job: &Value) {
        let name = text(&job["metadata"]["name"]);
        let behaviour = self.state.lock().unwrap().tasks.get(&task_of(job)).cloned();
        let behaviour = behaviour.unwrap_or(Behaviour::Exits {
            code: 0,
            log: String::new(),
        });
        let pod = format!("{name}-pod");
        let mut labels = job["spec"]["template"]["metadata"]["labels"].clone();
        labels["job-name"] = name.clone().into();
        let show = |statuses: &Value| {
            let object = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": pod, "namespace": "keptn", "labels": labels}, "status": statuses});
            self.change("pods", &pod, Some(object));
        };
        let ended = |container: &str, code: i32| {
            json!([{"name": container, "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
                    "startedAt": "2026-11-23T20:41:00Z", "finishedAt": "2026-11-23T20:41:07Z"}}}])
        };
        let condition = |kind: &str, reason: &str| {
            let mut job = self.object("jobs", &name).unwrap();
            job["status"] = json!({"conditions": [{"type": kind, "status": "True", "reason": reason, "message": "m"}]});
            self.change("jobs", &name, Some(job));
        };
        match behaviour {
            Behaviour::NeverEnds | Behaviour::Refused { .. } => show(&json!({"phase": "Running"})),
            Behaviour::Exits { code, .. } => {
                show(&json!({"phase": "Running"}));
                show(&json!({"phase": "Running", "containerStatuses": ended(&name, code)}));
                if code == 0 {
                    condition("Complete", "CompletionsReached");
                } else {
                    condition("Failed", "BackoffLimitExceeded");
                }
            }
            Behaviour::InitExits { code, .. } => {
                show(
                    &json!({"phase": "Failed", "initContainerStatuses": ended(&format!("init-{name}"), code)}),
                );
            }
            Behaviour::MissesDeadline => condition("FailureTarget", "DeadlineExceeded"),
        }
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

    fn list(&self, kind: &str, selector: &str) -> Response {
        let model = self.state.lock().unwrap();
        let items: Vec<&Value> = model
            .objects
            .iter()
            .filter(|((of, _), object)| of == kind && selected(object, selector))
            .map(|(_, object)| object)
            .collect();
        let version = model.changes.len().to_string();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
            .to_string()
            .into_response()
    }

    fn watch(&self, kind: &str, selector: &str, from: usize) -> Response {
        let (kind, selector) = (kind.to_owned(), selector.to_owned());
        let (state, version) = (Arc::clone(&self.state), self.version.subscribe());
        let generation = self.state.lock().unwrap().generation.subscribe();
        let start = (from, version, generation);
        let lines = stream::unfold(start, move |(mut next, mut version, mut generation)| {
            let (kind, selector, state) = (kind.clone(), selector.clone(), Arc::clone(&state));
            async move {
                loop {
                    let change = state.lock().unwrap().changes.get(next).cloned();
                    let Some(change) = change else {
                        tokio::select! {
                            changed = version.changed() => changed.ok()?,
                            _ = generation.changed() => return None,
                        }
                        continue;
                    };
                    next += 1;
                    if change.kind == kind
                        && let Some(line) = change.line(&selector)
                    {
                        return Some((
                            Ok::<_, std::convert::Infallible>(line),
                            (next, version, generation),
                        ));
                    }
                }
            }
        });
        Body::from_stream(lines).into_response()
    }
}

impl Change {
    /// A watch event, as a watch with this selector sees the change.
    fn line(&self, selector: &str) -> Option<String> {
        let seen =
            |object: &Option<Value>| object.clone().filter(|object| selected(object, selector));
        let (kind, object) = match (seen(&self.before), seen(&self.after)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", self.after.clone().unwrap_or(before)),
        };
        Some(format!("{}\n", json!({"type": kind, "object": object})))
    }
}

fn selected(object: &Value, selector: &str) -> bool {
    let labels = &object["metadata"]["labels"];
    selector
        .split(',')
        .filter(|term| !term.is_empty())
        .all(|term| {
            if let Some(absent) = term.strip_prefix('!') {
                return labels[absent].is_null();
            }
            match term.split_once('=') {
                Some((label, value)) => labels[label] == value,
                None => !labels[term].is_null(),
            }
        })
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    for (key, value) in patch {
        if !object.is_object() {
            *object = json!({});
        }
        merge(&mut object[key], value);
    }
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code});
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

async fn answer(
    State(cluster): State<Kubernetes>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let query: BTreeMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| {
            let value = value
                .replace("%2F", "/")
                .replace("%3D", "=")
                .replace("%2C", ",")
                .replace("%21", "!");
            (key.to_owned(), value)
        })
        .collect();
    let watched = query.contains_key("watch");
    let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    let of_namespace = path.iter().position(|part| *part == "namespaces").unwrap() + 2;
    let rest = &path[of_namespace..];
    let verb = match (&method, rest) {
        (_, [_]) if watched => "watch".to_owned(),
        (&Method::GET, [_]) => "list".to_owned(),
        (&Method::POST, _) => "create".to_owned(),
        (other, _) => other.as_str().to_lowercase(),
    };
    let resource = rest
        .iter()
        .step_by(2)
        .copied()
        .collect::<Vec<_>>()
        .join("/");
    let mut model = cluster.state.lock().unwrap();
    model.calls.push(format!("{verb} {resource}"));
    let trouble = model
        .troubles
        .iter()
        .position(|(of, _)| of == method)
        .filter(|_| !watched);
    if let Some(trouble) = trouble {
        let (_, code) = model.troubles.remove(trouble);
        return status(code.as_u16(), "Trouble", "trouble of the API server");
    }
    drop(model);
    let selector = query
        .get("labelSelector")
        .map(String::as_str)
        .unwrap_or_default();
    let parsed = || serde_json::from_slice::<Value>(&body).unwrap();
    match (method, rest) {
        (Method::POST, ["jobs"]) => cluster.creates(parsed()),
        (Method::PATCH, [kind, name]) => cluster.patches(kind, name, &parsed()),
        (Method::GET, [kind]) if watched => {
            let from = query
                .get("resourceVersion")
                .and_then(|version| version.parse().ok());
            cluster.watch(kind, selector, from.unwrap_or(0))
        }
        (Method::GET, [kind]) => cluster.list(kind, selector),
        (Method::GET, ["pods", pod, "log"]) => cluster.log(pod),
        (Method::GET, [kind, name]) => match cluster.object(kind, name) {
            Some(object) => object.to_string().into_response(),
            None => status(404, "NotFound", &format!("{kind} \"{name}\" not found")),
        },
        (method, rest) => panic!("no such call: {method} {rest:?}"),
    }
}
