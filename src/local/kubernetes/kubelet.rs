//! The kubelet: a Pod's containers, one init container after the other and then the others together, and
//! what the Pod shows of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{self as core, EnvVar, PodSpec};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::container::{Container, Exit, Mount, Obstacle, Output, Part};
use super::log::Log;
use super::{Key, Kubernetes, Resource, text, volumes};
use crate::resolve::expansion::expanded;

/// The most of a termination message that Kubernetes keeps.
const MESSAGE_BYTES: usize = 4096;

/// Before a volume is tried again; doubled for each time that follows.
const FIRST_REMOUNT: Duration = Duration::from_millis(500);

/// The containers of one Pod, and their states.
pub(super) struct Sandbox<'a> {
    pub(super) cluster: &'a Kubernetes,
    pod: &'a Key,
    spec: PodSpec,
    job: String,
    pub(super) volumes: BTreeMap<String, TempDir>,
}

/// Whether the Pod has succeeded.
pub(super) async fn run(cluster: &Kubernetes, pod: &Key, stop: &CancellationToken) -> bool {
    let Some(object) = cluster.get(pod) else {
        return false;
    };
    let spec = serde_json::from_value(object["spec"].clone());
    let mut sandbox = Sandbox {
        cluster,
        pod,
        spec: spec.unwrap_or_default(),
        job: text(&object["metadata"]["labels"]["job-name"]).to_owned(),
        volumes: BTreeMap::new(),
    };
    if let Err(error) = sandbox.make_volumes() {
        let status = json!({"phase": "Failed", "reason": "Failed", "message": error.to_string()});
        cluster.patch(pod, &json!({"status": status})).ok();
        return false;
    }
    let succeeded = sandbox.run(stop).await;
    for (_, volume) in std::mem::take(&mut sandbox.volumes) {
        // What is left of it does not matter to the Pod's end.
        volume.close().ok();
    }
    succeeded
}

impl Sandbox<'_> {
    fn make_volumes(&mut self) -> std::io::Result<()> {
        let Some(root) = &self.cluster.parts.volumes else {
            return Ok(());
        };
        for volume in self.spec.volumes.iter().flatten() {
            if volumes::is_made(volume) {
                let directory = tempfile::Builder::new().prefix("keptn-").tempdir_in(root)?;
                self.volumes.insert(volume.name.clone(), directory);
            }
        }
        Ok(())
    }

    async fn run(&self, stop: &CancellationToken) -> bool {
        self.finds_a_node(stop).await;
        self.shows_all_waiting();
        self.is_made_ready(stop).await;
        self.fills_volumes(stop).await;
        if stop.is_cancelled() {
            return false;
        }
        for container in self.spec.init_containers.iter().flatten() {
            if !self.run_container(Part::Init, container, stop).await {
                self.status(&json!({"phase": "Failed"}));
                return false;
            }
        }
        let containers = self.spec.containers.iter();
        let runs = containers.map(|container| self.run_container(Part::Main, container, stop));
        join_all(runs).await.into_iter().all(|succeeded| succeeded)
    }

    /// Until nothing of the kind that `of` looks for is in the way, which `shows` tells of each time.
    async fn overcomes<T>(
        &self,
        stop: &CancellationToken,
        of: impl Fn(Obstacle) -> Option<T>,
        shows: impl Fn(&T),
        mut again: impl FnMut() -> Option<Duration>,
    ) {
        loop {
            let runtime = &self.cluster.parts.runtime;
            let change = runtime.obstacles_change();
            let Some(obstacle) = runtime.obstacle(&self.job).and_then(&of) else {
                return;
            };
            shows(&obstacle);
            let pause = again().unwrap_or(Duration::MAX);
            tokio::select! {
                () = stop.cancelled() => return,
                () = change => {}
                () = sleep(pause) => {}
            }
        }
    }

    async fn finds_a_node(&self, stop: &CancellationToken) {
        let of = |obstacle| match obstacle {
            Obstacle::Unschedulable(message) => Some(message),
            _ => None,
        };
        let shows = |message: &String| {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": message, "lastTransitionTime": self.cluster.now()});
            self.status(&json!({"conditions": [condition]}));
        };
        self.overcomes(stop, of, shows, || None).await;
        let condition = json!({"type": "PodScheduled", "status": "True",
            "lastTransitionTime": self.cluster.now()});
        if self
            .cluster
            .get(self.pod)
            .is_some_and(|pod| pod["status"]["conditions"].is_array())
        {
            self.status(&json!({"conditions": [condition]}));
        }
    }

    async fn is_made_ready(&self, stop: &CancellationToken) {
        let of = |obstacle| match obstacle {
            Obstacle::Unmountable(message) => Some(("FailedMount", message)),
            Obstacle::NoSandbox(message) => Some(("FailedCreatePodSandBox", message)),
            _ => None,
        };
        let shows =
            |(reason, message): &(&str, String)| self.cluster.warn(self.pod, reason, message);
        let mut pause = FIRST_REMOUNT;
        let again = || {
            let now = pause;
            pause *= 2;
            Some(now)
        };
        self.overcomes(stop, of, shows, again).await;
    }

    /// Until all that the Pod's volumes show is there.
    async fn fills_volumes(&self, stop: &CancellationToken) {
        let mut pause = FIRST_REMOUNT;
        loop {
            let volumes = self.spec.volumes.iter().flatten();
            let mut missing = volumes.filter_map(|volume| {
                let why = self.fill(volume).err()?;
                let name = &volume.name;
                Some(format!(
                    "MountVolume.SetUp failed for volume \"{name}\" : {why}"
                ))
            });
            let Some(missing) = missing.next() else {
                return;
            };
            self.cluster.warn(self.pod, "FailedMount", &missing);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => pause *= 2,
            }
        }
    }

    async fn waits(&self, part: Part, container: &core::Container, stop: &CancellationToken) {
        let of = |obstacle| match obstacle {
            Obstacle::Waits { reason, message } => {
                Some(json!({"reason": reason, "message": message}))
            }
            _ => None,
        };
        let shows = |waiting: &Value| self.shows(part, container, &json!({"waiting": waiting}));
        self.overcomes(stop, of, shows, || None).await;
    }

    async fn run_container(
        &self,
        part: Part,
        container: &core::Container,
        stop: &CancellationToken,
    ) -> bool {
        let resolved = match self.resolve(part, container) {
            Ok(resolved) => resolved,
            Err(missing) => {
                let waiting = json!({"waiting": {"reason": "CreateContainerConfigError", "message": missing}});
                self.shows(part, container, &waiting);
                stop.cancelled().await;
                return false;
            }
        };
        self.waits(part, container, stop).await;
        if stop.is_cancelled() {
            return false;
        }
        self.begins_termination_message(container);
        let started = self.cluster.now();
        self.shows(part, container, &json!({"running": {"startedAt": started}}));
        let output = Output {
            cluster: self.cluster.clone(),
            container: resolved.clone(),
        };
        let exit = self
            .cluster
            .parts
            .runtime
            .run(&resolved, &output, stop)
            .await;
        let code = exit.code();
        let (reason, message) = match exit {
            Exit::Code(0) => ("Completed", self.termination_message(container)),
            Exit::Code(_) => ("Error", self.termination_message(container)),
            Exit::NotStarted(message) => ("StartError", Some(message)),
            Exit::OutOfMemory => ("OOMKilled", None),
            Exit::ByNode { reason, message } => {
                self.status(&json!({"phase": "Failed", "reason": reason, "message": message}));
                ("Error", None)
            }
        };
        self.shows(
            part,
            container,
            &json!({"terminated": {"exitCode": code, "reason": reason, "message": message,
                "startedAt": started, "finishedAt": self.cluster.now()}}),
        );
        code == 0
    }

    /// The file that its Pod names for the container's message, where that is on one of its volumes.
    fn message_file(&self, container: &core::Container) -> Option<PathBuf> {
        let path = container.termination_message_path.as_deref()?;
        let mounts = self.mounts(container);
        mounts.iter().find_map(|mount| {
            let below = path.strip_prefix(&mount.path)?.strip_prefix('/')?;
            Some(mount.directory.join(below))
        })
    }

    /// A kubelet puts an empty file there, whatever was there before.
    fn begins_termination_message(&self, container: &core::Container) {
        if let Some(file) = self.message_file(container) {
            std::fs::write(file, "").ok();
        }
    }

    /// What the container wrote to it.
    fn termination_message(&self, container: &core::Container) -> Option<String> {
        let mut message = std::fs::read(self.message_file(container)?).ok()?;
        message.truncate(MESSAGE_BYTES);
        (!message.is_empty()).then(|| String::from_utf8_lossy(&message).into_owned())
    }

    fn status(&self, status: &Value) {
        self.cluster
            .patch(self.pod, &json!({"status": status}))
            .ok();
    }

    /// Before any container runs, each has a state already.
    fn shows_all_waiting(&self) {
        let waiting = |containers: &[core::Container], reason: &str| -> Vec<Value> {
            let state = json!({"waiting": {"reason": reason}});
            let containers = containers.iter();
            containers
                .map(|container| container_status(container, &state))
                .collect()
        };
        let mut status = json!({"startTime": self.cluster.now()});
        let init_containers = self.spec.init_containers.as_deref().unwrap_or_default();
        let reason = if init_containers.is_empty() {
            "ContainerCreating"
        } else {
            status["initContainerStatuses"] = waiting(init_containers, "PodInitializing").into();
            "PodInitializing"
        };
        status["containerStatuses"] = waiting(&self.spec.containers, reason).into();
        self.status(&status);
    }

    /// Shows the state of one container beside those of the others.
    fn shows(&self, part: Part, container: &core::Container, state: &Value) {
        let Some(pod) = self.cluster.get(self.pod) else {
            return;
        };
        let (list, phase) = match part {
            Part::Init => ("initContainerStatuses", "Pending"),
            // A Pod whose containers cannot start is not running.
            Part::Main if state["waiting"].is_null() => ("containerStatuses", "Running"),
            Part::Main => ("containerStatuses", "Pending"),
        };
        let mut statuses = pod["status"][list].as_array().cloned().unwrap_or_default();
        for status in &mut statuses {
            if status["name"] == container.name {
                *status = container_status(container, state);
            }
        }
        self.status(&json!({"phase": phase, list: statuses}));
    }

    /// # Errors
    ///
    /// What the container refers to and is not there.
    fn resolve(&self, part: Part, container: &core::Container) -> Result<Container, String> {
        let mut variables = BTreeMap::new();
        for source in container.env_from.iter().flatten() {
            let mut found = BTreeMap::new();
            if let Some(secret) = &source.secret_ref {
                let optional = secret.optional.unwrap_or_default();
                found.extend(self.secret(&secret.name, optional)?);
            }
            if let Some(map) = &source.config_map_ref {
                let optional = map.optional.unwrap_or_default();
                found.extend(self.config_map(&map.name, optional)?);
            }
            let prefix = source.prefix.as_deref().unwrap_or_default();
            let found = found.into_iter();
            variables.extend(found.map(|(key, value)| (format!("{prefix}{key}"), value)));
        }
        for variable in container.env.iter().flatten() {
            if let Some(value) = self.value(variable, &variables)? {
                variables.insert(variable.name.clone(), value);
            }
        }
        let words = |words: &Option<Vec<String>>| {
            let words = words.iter().flatten();
            words.map(|word| expanded(word, &variables)).collect()
        };
        let of_pod = self.spec.security_context.as_ref();
        let own = container.security_context.as_ref();
        Ok(Container {
            part,
            job: self.job.clone(),
            pod: self.pod.name.clone(),
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            image_pull_policy: container.image_pull_policy.clone(),
            command: words(&container.command),
            args: words(&container.args),
            working_dir: container.working_dir.clone(),
            mounts: self.mounts(container),
            user: own
                .and_then(|own| own.run_as_user)
                .or_else(|| of_pod?.run_as_user),
            group: own
                .and_then(|own| own.run_as_group)
                .or_else(|| of_pod?.run_as_group),
            env: variables.into_iter().collect(),
        })
    }

    fn mounts(&self, container: &core::Container) -> Vec<Mount> {
        let mounts = container.volume_mounts.iter().flatten();
        mounts
            .filter_map(|mount| {
                Some(Mount {
                    path: mount.mount_path.clone(),
                    directory: self.volumes.get(&mount.name)?.path().to_owned(),
                })
            })
            .collect()
    }

    fn value(
        &self,
        variable: &EnvVar,
        known: &BTreeMap<String, String>,
    ) -> Result<Option<String>, String> {
        let source = variable.value_from.as_ref();
        let secret = source.and_then(|source| source.secret_key_ref.as_ref());
        let map = source.and_then(|source| source.config_map_key_ref.as_ref());
        let (optional, mut found, key, holder) = match (secret, map) {
            (Some(secret), _) => {
                let optional = secret.optional.unwrap_or_default();
                let found = self.secret(&secret.name, optional)?;
                (optional, found, &secret.key, ("Secret", &secret.name))
            }
            (None, Some(map)) => {
                let optional = map.optional.unwrap_or_default();
                let found = self.config_map(&map.name, optional)?;
                (optional, found, &map.key, ("ConfigMap", &map.name))
            }
            (None, None) => {
                let value = variable.value.as_deref().unwrap_or_default();
                return Ok(Some(expanded(value, known)));
            }
        };
        let value = found.remove(key);
        if value.is_none() && !optional {
            let (kind, name) = holder;
            let namespace = &self.pod.namespace;
            return Err(format!(
                "couldn't find key {key} in {kind} {namespace}/{name}"
            ));
        }
        Ok(value)
    }

    pub(super) fn config_map(
        &self,
        name: &str,
        optional: bool,
    ) -> Result<BTreeMap<String, String>, String> {
        let Some(map) = self
            .cluster
            .get(&self.pod.sibling(Resource::ConfigMaps, name))
        else {
            return if optional {
                Ok(BTreeMap::new())
            } else {
                Err(format!("configmap \"{name}\" not found"))
            };
        };
        let data = map["data"].as_object().into_iter().flatten();
        Ok(data
            .map(|(key, value)| (key.clone(), text(value).to_owned()))
            .collect())
    }

    pub(super) fn secret(
        &self,
        name: &str,
        optional: bool,
    ) -> Result<BTreeMap<String, String>, String> {
        let Some(secret) = self.cluster.get(&self.pod.sibling(Resource::Secrets, name)) else {
            return if optional {
                Ok(BTreeMap::new())
            } else {
                Err(format!("secret \"{name}\" not found"))
            };
        };
        let data = secret["data"].as_object().into_iter().flatten();
        Ok(data
            .map(|(key, value)| {
                let bytes = STANDARD.decode(text(value)).unwrap_or_default();
                (key.clone(), String::from_utf8_lossy(&bytes).into_owned())
            })
            .collect())
    }
}

fn container_status(container: &core::Container, state: &Value) -> Value {
    let image = container.image.as_deref().unwrap_or_default();
    json!({"name": container.name, "image": image, "imageID": image,
        "ready": !state["running"].is_null(), "restartCount": 0, "state": state})
}

impl Kubernetes {
    pub(super) fn log(&self, pod: &str, container: &str) -> Vec<u8> {
        let place = (pod.to_owned(), container.to_owned());
        let state = self.state();
        state.logs.get(&place).map(Log::read).unwrap_or_default()
    }

    /// A Secret of the cluster, for tasks that name it.
    pub(crate) fn create_secret(
        &self,
        namespace: &str,
        name: &str,
        values: &BTreeMap<String, String>,
    ) {
        let data: BTreeMap<&String, String> = values
            .iter()
            .map(|(key, value)| (key, STANDARD.encode(value)))
            .collect();
        let key = Key::new(Resource::Secrets, namespace, name);
        self.create(&key, json!({"data": data})).ok();
    }
}
