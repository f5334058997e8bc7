//! A Kubernetes API for Jobs, Pods, Events, Leases, Secrets and config maps in this process: what the API server keeps, what
//! the Job controller ([`controller`]) and the kubelet ([`kubelet`]) make of it, and the service under a real
//! client ([`api`]). Containers are run by a [`Runtime`].
//!
//! It shows what the service relies on, as a real cluster does: versions, conflicts, watches, Pods and their
//! containers' states, deadlines, suspended Jobs, time to live. It checks no manifests and no permissions.

pub(crate) mod api;
mod container;
mod controller;
mod kubelet;
mod log;
mod volumes;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use container::{Container, Exit, Mount, Obstacle, Output, Part, Runtime};
use controller::Running;
use log::Log;

/// A watch that is further behind starts anew, as with a real API server.
const CHANGES_KEPT: usize = 1024;

/// Told what happens in the cluster; in its order, where the cluster lives on one thread.
pub(crate) trait Observer: Send + Sync + 'static {
    fn changed(&self, change: &Change);

    /// A container printed something.
    fn printed(&self, container: &Container, bytes: &[u8]);
}

/// What a cluster is made with.
pub(crate) struct Parts {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) clock: fn() -> Timestamp,
    /// From a container's end to its Job's condition: two to three seconds on a real node.
    pub(crate) settling: Duration,
    /// Where volumes are made; none makes none.
    pub(crate) volumes: Option<PathBuf>,
}

#[derive(Clone)]
pub(crate) struct Kubernetes {
    state: Arc<Mutex<State>>,
    /// The number of changes so far: the resource version of the whole.
    version: watch::Sender<u64>,
    parts: Arc<Parts>,
    /// Ends all containers.
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Value>>,
    changes: VecDeque<Arc<Change>>,
    /// Objects created so far, for their uids.
    created: u64,
    running: BTreeMap<Key, Running>,
    /// By Pod and container.
    logs: BTreeMap<(String, String), Log>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Resource {
    ConfigMaps,
    Events,
    Jobs,
    Leases,
    Pods,
    Secrets,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) resource: Resource,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// One object before and after; without the one it was created, without the other deleted.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// Why a call of the API has no result, in the API's own words.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Resource {
    pub(crate) fn parse(plural: &str) -> Option<Self> {
        match plural {
            "configmaps" => Some(Self::ConfigMaps),
            "events" => Some(Self::Events),
            "jobs" => Some(Self::Jobs),
            "leases" => Some(Self::Leases),
            "pods" => Some(Self::Pods),
            "secrets" => Some(Self::Secrets),
            _ => None,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::ConfigMaps => "configmaps",
            Self::Events => "events",
            Self::Jobs => "jobs",
            Self::Leases => "leases",
            Self::Pods => "pods",
            Self::Secrets => "secrets",
        }
    }

    fn kind(self) -> (&'static str, &'static str) {
        match self {
            Self::ConfigMaps => ("v1", "ConfigMap"),
            Self::Events => ("v1", "Event"),
            Self::Jobs => ("batch/v1", "Job"),
            Self::Leases => ("coordination.k8s.io/v1", "Lease"),
            Self::Pods => ("v1", "Pod"),
            Self::Secrets => ("v1", "Secret"),
        }
    }
}

impl Key {
    pub(crate) fn new(resource: Resource, namespace: &str, name: &str) -> Self {
        Self {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn sibling(&self, resource: Resource, name: &str) -> Self {
        Self::new(resource, &self.namespace, name)
    }
}

impl Failure {
    fn not_found(key: &Key) -> Self {
        Self {
            code: 404,
            reason: "NotFound",
            message: format!("{} \"{}\" not found", key.resource.plural(), key.name),
        }
    }

    fn already_exists(key: &Key) -> Self {
        Self {
            code: 409,
            reason: "AlreadyExists",
            message: format!("{} \"{}\" already exists", key.resource.plural(), key.name),
        }
    }

    fn conflict(key: &Key) -> Self {
        let (resource, name) = (key.resource.plural(), &key.name);
        Self {
            code: 409,
            reason: "Conflict",
            message: format!(
                "Operation cannot be fulfilled on {resource} \"{name}\": the object has been modified; \
                 please apply your changes to the latest version and try again"
            ),
        }
    }

    fn gone() -> Self {
        Self {
            code: 410,
            reason: "Expired",
            message: "too old resource version".into(),
        }
    }
}

impl Kubernetes {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            state: Arc::default(),
            version: watch::Sender::new(0),
            parts: Arc::new(parts),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Ends what still runs, and waits for it.
    pub(crate) async fn shut_down(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits for a state of the cluster.
    pub(crate) async fn until(&self, holds: impl Fn() -> bool) {
        let mut changes = self.changes();
        // Not while the channel is borrowed: whoever changes something has the state locked, and then
        // waits for the channel.
        while !holds() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.state().objects.get(key).cloned()
    }

    /// With the version of the whole.
    pub(crate) fn list(&self, resource: Resource, namespace: &str) -> (u64, Vec<Arc<Value>>) {
        let state = self.state();
        let of = |key: &&Key| key.resource == resource && key.namespace == namespace;
        let objects = state.objects.iter().filter(|(key, _)| of(key));
        let objects = objects.map(|(_, object)| Arc::clone(object)).collect();
        (*self.version.borrow(), objects)
    }

    /// The first change after a version.
    fn change_after(&self, version: u64) -> Result<Option<Arc<Change>>, Failure> {
        let state = self.state();
        let oldest = state.changes.front().map_or(0, |change| change.version);
        if version + 1 < oldest {
            return Err(Failure::gone());
        }
        let place = usize::try_from(version + 1 - oldest).unwrap_or(usize::MAX);
        Ok(state.changes.get(place).cloned())
    }

    pub(crate) fn create(&self, key: &Key, mut object: Value) -> Result<Arc<Value>, Failure> {
        let change = {
            let mut state = self.state();
            if state.objects.contains_key(key) {
                return Err(Failure::already_exists(key));
            }
            state.created += 1;
            let (api_version, kind) = key.resource.kind();
            object["apiVersion"] = api_version.into();
            object["kind"] = kind.into();
            let metadata = &mut object["metadata"];
            metadata["name"] = key.name.clone().into();
            metadata["namespace"] = key.namespace.clone().into();
            metadata["uid"] = uid(state.created).into();
            metadata["creationTimestamp"] = self.now();
            self.put(&mut state, key, Some(object))
        };
        self.announce(&change);
        Ok(after(&change))
    }

    /// A merge patch (RFC 7396).
    pub(crate) fn patch(&self, key: &Key, patch: &Value) -> Result<Arc<Value>, Failure> {
        let change = {
            let mut state = self.state();
            let Some(object) = state.objects.get(key) else {
                return Err(Failure::not_found(key));
            };
            let based_on = &patch["metadata"]["resourceVersion"];
            if !based_on.is_null() && *based_on != object["metadata"]["resourceVersion"] {
                return Err(Failure::conflict(key));
            }
            let mut patched = Value::clone(object);
            merge(&mut patched, patch);
            self.put(&mut state, key, Some(patched))
        };
        self.announce(&change);
        Ok(after(&change))
    }

    pub(crate) fn delete(&self, key: &Key) -> Result<Arc<Value>, Failure> {
        let change = {
            let mut state = self.state();
            if !state.objects.contains_key(key) {
                return Err(Failure::not_found(key));
            }
            if key.resource == Resource::Pods {
                state.logs.retain(|(pod, _), _| *pod != key.name);
            }
            self.put(&mut state, key, None)
        };
        self.announce(&change);
        change.before.clone().ok_or_else(|| Failure::not_found(key))
    }

    fn put(&self, state: &mut State, key: &Key, object: Option<Value>) -> Arc<Change> {
        let version = *self.version.borrow() + 1;
        let before = state.objects.remove(key);
        let after = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = version.to_string().into();
            let object = Arc::new(object);
            state.objects.insert(key.clone(), Arc::clone(&object));
            object
        });
        let change = Arc::new(Change {
            version,
            key: key.clone(),
            before,
            after,
        });
        state.changes.push_back(Arc::clone(&change));
        if state.changes.len() > CHANGES_KEPT {
            state.changes.pop_front();
        }
        self.version.send_replace(version);
        change
    }

    fn announce(&self, change: &Change) {
        self.parts.observer.changed(change);
        if change.key.resource == Resource::Jobs {
            self.control(change);
        }
    }

    /// Tells of an object what no status shows: once, and then how often.
    fn warn(&self, of: &Key, reason: &str, message: &str) {
        let name = format!("{}.{}", of.name, reason.to_lowercase());
        let event = of.sibling(Resource::Events, &name);
        let now = self.now();
        let again = self.get(&event).map(|known| {
            let count = known["count"].as_u64().unwrap_or_default() + 1;
            json!({"count": count, "lastTimestamp": now})
        });
        let (_, kind) = of.resource.kind();
        match again {
            Some(again) => self.patch(&event, &again).ok(),
            None => self
                .create(
                    &event,
                    json!({"type": "Warning", "reason": reason, "message": message, "count": 1,
                        "firstTimestamp": now, "lastTimestamp": now,
                        "involvedObject": {"kind": kind, "namespace": of.namespace, "name": of.name}}),
                )
                .ok(),
        };
    }

    /// As Kubernetes writes times.
    fn now(&self) -> Value {
        json!(
            (self.parts.clock)()
                .strftime("%Y-%m-%dT%H:%M:%SZ")
                .to_string()
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No panic can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn after(change: &Change) -> Arc<Value> {
    change.after.clone().unwrap_or_default()
}

fn uid(number: u64) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    for (key, value) in patch {
        match object.as_object_mut() {
            Some(fields) if value.is_null() => {
                fields.remove(key);
            }
            _ => merge(&mut object[key.as_str()], value),
        }
    }
}
