//! A task → the Job that Kubernetes gets. Pure: the same task gives the same Job.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapEnvSource, ConfigMapKeySelector, Container, EmptyDirVolumeSource,
    EnvFromSource, EnvVar, EnvVarSource, LocalObjectReference, PodSpec, PodTemplateSpec,
    ResourceRequirements, SeccompProfile, SecretEnvSource, SecretKeySelector, SecurityContext,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;

use super::names::{self, init_container_name, label_value};
use super::pod_defaults::{ContainerDefaults, JobLabels, PodDefaults};
use crate::job_config::fields::{self, Amounts, EnvFrom, KeyHolder, KeyRef};
use crate::job_config::files::{DIRECTORY, VOLUME};
use crate::job_config::pod_parts::PodParts;
use crate::resolve::expansion::escaped;
use crate::run::{KeyVariable, Place, RunTask};

/// The part of a Job that is the same for all tasks.
#[derive(Debug, Clone)]
pub(crate) struct JobSettings {
    /// The value of the managed-by label: tells the Jobs of several installations apart.
    pub(crate) managed_by: String,
    /// Where Jobs run that ask for no other namespace.
    pub(crate) home: String,
    pub(crate) labels: JobLabels,
    pub(crate) container_defaults: ContainerDefaults,
    pub(crate) pod_defaults: PodDefaults,
    pub(crate) init_container: InitContainer,
}

/// The container that fetches a task's files.
#[derive(Debug, Clone)]
pub(crate) struct InitContainer {
    pub(crate) image: String,
    /// The configuration service's addresses as Pods see them.
    pub(crate) configuration_service: String,
    pub(crate) access: AccessVariables,
    pub(crate) resources: fields::Resources,
}

/// How Keptn lets the container in, by the names of variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct AccessVariables {
    pub(crate) plain: Vec<(&'static str, String)>,
    pub(crate) secret: Vec<(&'static str, SecretKey)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretKey {
    pub(crate) secret: String,
    pub(crate) key: String,
}

const TRACEPARENT: &str = "TRACEPARENT";
const TRACESTATE: &str = "TRACESTATE";

/// Whether the Job may run at once, or waits for its run's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    Queued,
}

pub(crate) fn job(place: Place<'_>, record: &str, start: Start, settings: &JobSettings) -> Job {
    let task = place.task;
    let name = place.job_name();
    let mut annotations = task.annotations.clone();
    annotations.insert(names::RECORD.into(), record.into());
    Job {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: task.namespace.as_ref().map(ToString::to_string),
            labels: Some(job_labels(place, settings)),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            backoff_limit: Some(u8::from(task.retries).into()),
            active_deadline_seconds: Some(task.time_limit.into()),
            suspend: (start == Start::Queued).then_some(true),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pod_labels(place, settings)),
                    annotations: Some(task.annotations.clone()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(place, &name, settings)),
            },
            ..JobSpec::default()
        }),
        ..Job::default()
    }
}

fn pod_labels(place: Place<'_>, settings: &JobSettings) -> BTreeMap<String, String> {
    // The operator's do not replace those by which the Jobs are found.
    let mut labels = settings.labels.0.clone();
    let namespace = place.task.namespace.as_ref().map(ToString::to_string);
    if namespace.is_some_and(|namespace| namespace != settings.home) {
        labels.insert(names::HOME.into(), settings.home.clone());
    }
    labels.extend([
        (names::MANAGED_BY.into(), settings.managed_by.clone()),
        (names::RUN.into(), place.run.id.to_string()),
    ]);
    labels
}

fn job_labels(place: Place<'_>, settings: &JobSettings) -> BTreeMap<String, String> {
    let run = place.run;
    let text = |text: &Option<String>| label_value(text.as_deref().unwrap_or_default());
    let mut labels = pod_labels(place, settings);
    labels.extend([
        ("keptn.sh/context".into(), text(&run.event.keptn_context)),
        ("keptn.sh/event-id".into(), label_value(&run.event.id)),
        ("keptn.sh/commitid".into(), text(&run.event.git_commit_id)),
        (
            "keptn.sh/jes-action".into(),
            label_value(&place.action.name),
        ),
        ("keptn.sh/jes-task".into(), label_value(&place.task.name)),
        (
            "keptn.sh/jes-job-confighash".into(),
            run.config_hash.clone(),
        ),
        (
            "keptn.sh/jes-action-index".into(),
            place.action.index.to_string(),
        ),
        (
            "keptn.sh/jes-task-index".into(),
            place.task_index.to_string(),
        ),
    ]);
    labels
}

fn pod(place: Place<'_>, job_name: &str, settings: &JobSettings) -> PodSpec {
    let task = place.task;
    let mount = VolumeMount {
        name: VOLUME.into(),
        mount_path: DIRECTORY.into(),
        ..VolumeMount::default()
    };
    let container = Container {
        name: job_name.into(),
        image: Some(task.image.clone()),
        image_pull_policy: task.image_pull_policy.map(|policy| format!("{policy:?}")),
        command: unless_empty(&task.cmd),
        args: unless_empty(&task.args),
        working_dir: task.working_dir.clone(),
        env: Some(trace_variables(place).chain(variables(task)).collect()),
        env_from: Some(sources(task)).filter(|sources| !sources.is_empty()),
        resources: resources(&task.resources),
        security_context: Some(security_context(task, settings)),
        volume_mounts: Some(
            std::iter::once(mount.clone())
                .chain(task.pod.volume_mounts.iter().cloned())
                .collect(),
        ),
        // The kubelet brings what the task writes there to where the service sees it.
        termination_message_path: task.result_file.as_ref().map(ToString::to_string),
        ..Container::default()
    };
    PodSpec {
        restart_policy: Some("Never".into()),
        init_containers: (!task.files.is_empty())
            .then(|| vec![init_container(place, job_name, mount, settings)]),
        containers: vec![container],
        volumes: Some(
            std::iter::once(files_volume(task))
                .chain(task.pod.volumes.iter().cloned())
                .collect(),
        ),
        image_pull_secrets: pull_secrets(&task.pod),
        node_selector: Some(task.pod.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: Some(task.pod.tolerations.clone()).filter(|of| !of.is_empty()),
        affinity: task.pod.affinity.clone(),
        service_account_name: task.service_account.clone(),
        // Whoever names an account wants what that account offers; the namespace's default one is
        // not for images that come from a config.
        automount_service_account_token: task.service_account.is_none().then_some(false),
        security_context: Some(settings.pod_defaults.0.clone()),
        ..PodSpec::default()
    }
}

fn init_container(
    place: Place<'_>,
    job_name: &str,
    mount: VolumeMount,
    of_job: &JobSettings,
) -> Container {
    let settings = &of_job.init_container;
    let scope = &place.run.event.scope;
    let text = |text: &Option<String>| escaped(text.as_deref().unwrap_or_default());
    let mut env = vec![
        variable_of(
            "CONFIGURATION_SERVICE",
            escaped(&settings.configuration_service),
        ),
        variable_of("KEPTN_PROJECT", text(&scope.project)),
        variable_of("KEPTN_STAGE", text(&scope.stage)),
        variable_of("KEPTN_SERVICE", text(&scope.service)),
    ];
    if place.run.event.git_commit_id.is_some() {
        env.push(variable_of(
            "GIT_COMMIT_ID",
            text(&place.run.event.git_commit_id),
        ));
    }
    let AccessVariables { plain, secret } = &settings.access;
    let plain = plain.iter();
    env.extend(plain.map(|(name, value)| variable_of(name, escaped(value))));
    let secret = secret.iter();
    env.extend(secret.map(|(name, key)| variable_in_secret(name, key)));
    let files = place
        .task
        .files
        .iter()
        .map(|file| format!("--file={}", escaped(&file.to_string())));
    Container {
        name: init_container_name(job_name),
        image: Some(settings.image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(std::iter::once("init".to_owned()).chain(files).collect()),
        env: Some(env),
        resources: resources(&settings.resources),
        security_context: Some(security_context(place.task, of_job)),
        volume_mounts: Some(vec![mount]),
        ..Container::default()
    }
}

fn variable_of(name: &str, value: String) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value),
        ..EnvVar::default()
    }
}

fn variable_in_secret(name: &str, SecretKey { secret, key }: &SecretKey) -> EnvVar {
    EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.clone(),
                key: key.clone(),
                // A clear "401" of the configuration service says more than a Pod that waits.
                optional: Some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

/// What the kubelet fills in comes first: texts see it as `$(X)`.
fn variables(task: &RunTask) -> impl Iterator<Item = EnvVar> {
    let keys = task.keys.iter().map(|KeyVariable { name, key }| EnvVar {
        name: name.clone(),
        value_from: Some(key_source(key)),
        ..EnvVar::default()
    });
    let texts = task.env.iter();
    keys.chain(texts.map(|variable| variable_of(&variable.name, variable.value.clone())))
}

/// By the names that OpenTelemetry has for them. A state belongs to its parent: a task that says itself what
/// it is part of gets neither.
fn trace_variables(place: Place<'_>) -> impl Iterator<Item = EnvVar> {
    let has_own = has_variable(place.task, TRACEPARENT);
    let trace = place.trace().filter(|_| !has_own);
    let (parent, state) = trace.unzip();
    let state = state
        .flatten()
        .filter(|_| !has_variable(place.task, TRACESTATE));
    let parent = parent.map(|parent| variable_of(TRACEPARENT, parent));
    let state = state.map(|state| variable_of(TRACESTATE, escaped(state)));
    parent.into_iter().chain(state)
}

fn has_variable(task: &RunTask, name: &str) -> bool {
    let mut texts = task.env.iter().map(|variable| &variable.name);
    let mut keys = task.keys.iter().map(|variable| &variable.name);
    texts.any(|text| text == name) || keys.any(|key| key == name)
}

fn key_source(KeyRef { of, key, optional }: &KeyRef) -> EnvVarSource {
    let (key, optional) = (key.clone(), optional.then_some(true));
    match of {
        KeyHolder::Secret(name) => EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: name.to_string(),
                key,
                optional,
            }),
            ..EnvVarSource::default()
        },
        KeyHolder::ConfigMap(name) => EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: name.to_string(),
                key,
                optional,
            }),
            ..EnvVarSource::default()
        },
    }
}

/// Of whole objects; of a key that two of them have, the later's value counts.
fn sources(task: &RunTask) -> Vec<EnvFromSource> {
    let secrets = task.secrets.iter().map(|secret| EnvFromSource {
        secret_ref: Some(SecretEnvSource {
            name: secret.clone(),
            optional: None,
        }),
        ..EnvFromSource::default()
    });
    secrets.chain(task.env_from.iter().map(source)).collect()
}

fn source(
    EnvFrom {
        of,
        prefix,
        optional,
    }: &EnvFrom,
) -> EnvFromSource {
    let optional = optional.then_some(true);
    let (secret_ref, config_map_ref) = match of {
        KeyHolder::Secret(name) => {
            let name = name.to_string();
            (Some(SecretEnvSource { name, optional }), None)
        }
        KeyHolder::ConfigMap(name) => {
            let name = name.to_string();
            (None, Some(ConfigMapEnvSource { name, optional }))
        }
    };
    EnvFromSource {
        prefix: (!prefix.is_empty()).then(|| prefix.clone()),
        secret_ref,
        config_map_ref,
    }
}

fn files_volume(task: &RunTask) -> Volume {
    let limit = task.empty_dir_size_limit.as_ref();
    Volume {
        name: VOLUME.into(),
        empty_dir: Some(EmptyDirVolumeSource {
            size_limit: limit.map(|limit| Quantity(limit.as_str().to_owned())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn pull_secrets(pod: &PodParts) -> Option<Vec<LocalObjectReference>> {
    let secrets = pod.image_pull_secrets.iter();
    let secrets: Vec<LocalObjectReference> = secrets
        .map(|name| LocalObjectReference {
            name: name.to_string(),
        })
        .collect();
    (!secrets.is_empty()).then_some(secrets)
}

fn unless_empty(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.to_vec())
}

fn resources(resources: &fields::Resources) -> Option<ResourceRequirements> {
    let amounts = |amounts: &Amounts| {
        let quantities: BTreeMap<String, Quantity> =
            [("cpu", &amounts.cpu), ("memory", &amounts.memory)]
                .into_iter()
                .filter_map(|(name, amount)| {
                    Some((
                        name.to_owned(),
                        Quantity(amount.as_ref()?.as_str().to_owned()),
                    ))
                })
                .collect();
        (!quantities.is_empty()).then_some(quantities)
    };
    Some(ResourceRequirements {
        limits: amounts(&resources.limits),
        requests: amounts(&resources.requests),
        ..ResourceRequirements::default()
    })
    .filter(|resources| resources.limits.is_some() || resources.requests.is_some())
}

/// The operator's defaults with the task's own fields laid over them.
fn security_context(task: &RunTask, settings: &JobSettings) -> SecurityContext {
    let own = &task.security_context;
    let default = settings.container_defaults.0.clone();
    let privileged = own.privileged.or(default.privileged);
    let seccomp_profile = own.seccomp_profile.as_ref().and_then(|profile| {
        Some(SeccompProfile {
            type_: profile.kind.clone()?,
            localhost_profile: profile.localhost_profile.clone(),
        })
    });
    let capabilities = own.capabilities.as_ref().map(|capabilities| Capabilities {
        add: unless_empty(&capabilities.add),
        drop: unless_empty(&capabilities.drop),
    });
    let escalation = match privileged {
        // Kubernetes refuses a privileged container that may not escalate.
        Some(true) => Some(true),
        _ => default.allow_privilege_escalation,
    };
    SecurityContext {
        allow_privilege_escalation: own.allow_privilege_escalation.or(escalation),
        capabilities: capabilities.or(default.capabilities),
        privileged,
        proc_mount: own.proc_mount.clone().or(default.proc_mount),
        read_only_root_filesystem: own
            .read_only_root_filesystem
            .or(default.read_only_root_filesystem),
        run_as_user: own.run_as_user.or(default.run_as_user),
        run_as_group: own.run_as_group.or(default.run_as_group),
        run_as_non_root: own.run_as_non_root.or(default.run_as_non_root),
        seccomp_profile: seccomp_profile.or(default.seccomp_profile),
        ..default
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::Event;
    use crate::job_config::reader;
    use crate::policy::Policy;
    use crate::resolve::{Resolver, TaskDefaults};
    use crate::run::tests::envelope;
    use crate::run::{Run, RunId};

    fn settings(secret: Vec<(&'static str, SecretKey)>) -> JobSettings {
        JobSettings {
            managed_by: "job-executor-service".into(),
            home: "keptn".into(),
            labels: JobLabels::default(),
            container_defaults: ContainerDefaults::default(),
            pod_defaults: PodDefaults::default(),
            init_container: InitContainer {
                image: "jes:1".into(),
                configuration_service: "http://configuration-service:8080".into(),
                access: AccessVariables {
                    plain: Vec::new(),
                    secret,
                },
                resources: fields::Resources::default(),
            },
        }
    }

    fn manifest(config: &[u8], settings: &JobSettings) -> String {
        let mut event = envelope("5fe6f78d-5547-45cd-b508-c8c6919371c1");
        event.git_commit_id = Some("9bf2157".into());
        let config = reader::read(config).unwrap().config;
        let policy = Policy {
            namespace: "keptn".into(),
            ..Policy::default()
        };
        let document = serde_json::json!({"data": {"project": "$(HOME)", "test": {"teststrategy": "functional"}}});
        let event = Event {
            envelope: event,
            document,
        };
        let defaults = TaskDefaults::default();
        let id = RunId::of(&event.envelope, "");
        let action = Resolver::new(&event, &id, &policy, &defaults).action(0, &config.actions[0]);
        let run = Run {
            id,
            arrived: Timestamp::UNIX_EPOCH,
            config_hash: "abc".into(),
            actions: vec![action],
            event: event.envelope,
        };
        let place = run.first_place().expect("a task that is not refused");
        let job = job(place, "RECORD", Start::Queued, settings);
        serde_yaml::to_string(&job).unwrap()
    }

    #[test]
    fn every_field_of_a_task_is_in_its_job() {
        let config = include_bytes!("../tests/configs/valid/every-field.yaml");
        let token = SecretKey {
            secret: "job-service-keptn-secrets".into(),
            key: "token".into(),
        };
        let settings = settings(vec![("KEPTN_API_TOKEN", token)]);
        insta::assert_snapshot!(manifest(config, &settings));
    }

    #[test]
    fn a_task_without_files_has_no_init_container() {
        let config = b"actions: [{name: a, event: t, tasks: [{name: t, image: i}]}]";
        let manifest = manifest(config, &settings(Vec::new()));
        assert!(!manifest.contains("initContainers"));
        assert!(!manifest.contains("KEPTN_API_TOKEN"));
    }
}
