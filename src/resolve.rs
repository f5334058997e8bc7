//! A matching action with the event's values put in: what is left is the text of the Jobs.

pub(crate) mod expansion;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::event::Event;
use crate::job_config::fields::{EnvName, EnvVar, KeyRef, Render, Resources};
use crate::job_config::json_path::Found;
use crate::job_config::task_fields::check_variable;
use crate::job_config::{Action, EnvEntry, Task};
use crate::policy::Policy;
use crate::run::{KeyVariable, Run, RunAction, RunId, RunTask, Variable, Work, job_name};

/// As the original waited.
pub(crate) const DEFAULT_TIME_LIMIT: u32 = 300;

/// Six hours, as in the original.
const DEFAULT_TTL: u32 = 21_600;

/// Below a minute the original raises the value; so Jobs can be looked at for a while.
pub(crate) const MIN_TTL: u32 = 60;

/// All variables of a run together: Kubernetes takes objects of 1.5 MiB, and each task is one.
const MAX_VARIABLES_BYTES: usize = 1 << 20;

/// What the operator decides for all tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskDefaults {
    pub(crate) resources: Resources,
    /// Upper bound of every task's time limit, in seconds.
    pub(crate) deadline: Option<u32>,
    pub(crate) service_account: Option<String>,
    pub(crate) files: Files,
}

/// Whether tasks can have files: that takes an image for the init container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Files {
    #[default]
    Available,
    NoImage,
}

/// Resolves the actions of one event, one after the other.
pub(crate) struct Resolver<'a> {
    event: &'a Event,
    run: &'a RunId,
    policy: &'a Policy,
    defaults: &'a TaskDefaults,
    /// Bytes of variables that the run's tasks may still have.
    room: usize,
}

/// What an entry of `env` comes to.
pub(crate) enum Resolved {
    /// In Kubernetes' notation, see [`Variable`].
    Value(String),
    /// The name of a Secret whose keys become variables.
    Secret(String),
    Key(KeyRef),
}

/// What becomes of the variables of a task.
#[derive(Default)]
struct Environment {
    variables: Vec<Variable>,
    keys: Vec<KeyVariable>,
    secrets: Vec<String>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(
        event: &'a Event,
        run: &'a RunId,
        policy: &'a Policy,
        defaults: &'a TaskDefaults,
    ) -> Self {
        Self {
            event,
            run,
            policy,
            defaults,
            room: MAX_VARIABLES_BYTES,
        }
    }

    /// The run that these actions are, each with its place in the config.
    pub(crate) fn run(
        mut self,
        matching: Vec<(usize, &Action)>,
        config_hash: String,
        arrived: Timestamp,
    ) -> Run {
        Run {
            id: self.run.clone(),
            arrived,
            config_hash,
            event: self.event.envelope.clone(),
            actions: matching
                .into_iter()
                .map(|(index, action)| self.action(index, action))
                .collect(),
        }
    }

    /// `index` is the action's place in the config.
    pub(crate) fn action(&mut self, index: usize, action: &Action) -> RunAction {
        let tasks: Result<Vec<RunTask>, (String, String)> = action
            .tasks
            .iter()
            .enumerate()
            .map(|(task_index, task)| {
                self.task(index, task_index, task)
                    .map_err(|reason| (task.name.clone(), reason))
            })
            .collect();
        RunAction {
            index,
            name: action.name.clone(),
            silent: action.silent,
            work: match tasks {
                Ok(tasks) => Work::Tasks(tasks),
                Err((task, reason)) => Work::Refused { task, reason },
            },
        }
    }

    /// One task, or why it cannot or must not run.
    pub(crate) fn task(
        &mut self,
        action: usize,
        index: usize,
        task: &Task,
    ) -> Result<RunTask, String> {
        let defaults = self.defaults;
        self.policy
            .check(task, defaults.service_account.as_deref())?;
        if defaults.files == Files::NoImage && !task.files.is_empty() {
            return Err(
                "the task has `files`, but INIT_CONTAINER_IMAGE of the service is not set and its own \
                 image is not known"
                    .into(),
            );
        }
        let environment = self.environment(task).map_err(|reason| {
            let job = job_name(self.run, action, index);
            format!("could not prepare env for job {job}: {reason}")
        })?;
        let ttl = task
            .ttl_seconds_after_finished
            .map_or(DEFAULT_TTL, u32::from);
        Ok(RunTask {
            name: task.name.clone(),
            image: task.image.clone(),
            image_pull_policy: task.image_pull_policy,
            cmd: task.cmd.clone(),
            args: task.args.clone(),
            working_dir: task.working_dir.clone(),
            files: task.files.clone(),
            env: environment.variables,
            keys: environment.keys,
            secrets: environment.secrets,
            env_from: task.env_from.clone(),
            resources: task
                .resources
                .clone()
                .unwrap_or_else(|| defaults.resources.clone()),
            time_limit: time_limit(task, defaults),
            ttl: ttl.max(MIN_TTL),
            security_context: task.security_context.clone(),
            service_account: match &task.service_account {
                Some(account) => account.name().map(str::to_owned),
                None => defaults.service_account.clone(),
            }
            .filter(|account| !account.is_empty()),
            annotations: task.annotations.clone(),
            namespace: self.policy.resolved_namespace(task),
            retries: task.retries,
            on_failure: task.on_failure,
            always: task.always,
            result_file: task.result_file.clone(),
            empty_dir_size_limit: task.empty_dir_size_limit.clone(),
            pod: task.pod.clone(),
        })
    }

    /// The variables in the order of the container's `env`, where `$(X)` sees what stands before it; so
    /// what Keptn tells comes first. A task's own entry cannot replace it, as in the original.
    fn environment(&mut self, task: &Task) -> Result<Environment, String> {
        let keptn = keptn_variables(self.event);
        let reserved = keptn.len();
        for Variable { name, value } in &keptn {
            self.within_bounds(name, value)
                .map_err(|error| format!("could not add env with name {name}: {error}"))?;
        }
        let mut environment = Environment {
            variables: keptn,
            ..Environment::default()
        };
        for entry in &task.env {
            let name = &entry.name;
            let value = match self.value(task, entry)? {
                Resolved::Value(value) => value,
                Resolved::Secret(secret) => {
                    environment.secrets.push(secret);
                    continue;
                }
                Resolved::Key(key) => {
                    environment.takes_key(name, key, reserved);
                    continue;
                }
            };
            environment.keys.retain(|of| of.name != name.as_str());
            self.within_bounds(name.as_str(), &value)
                .map_err(|error| format!("could not add env with name {name}: {error}"))?;
            let keptns = &environment.variables[..reserved];
            if !keptns.iter().any(|variable| variable.name == name.as_str()) {
                environment.variables.push(Variable {
                    name: name.as_str().to_owned(),
                    value,
                });
            }
        }
        Ok(environment)
    }

    /// What one entry of a task's `env` comes to.
    pub(crate) fn value(&self, task: &Task, entry: &EnvEntry) -> Result<Resolved, String> {
        let name = &entry.name;
        self.policy
            .check_variable(task, &entry.source)
            .map_err(|error| {
                let from = match &entry.source {
                    EnvVar::Key(_) => "secretKeyRef",
                    EnvVar::Secret(_) | EnvVar::Event { .. } | EnvVar::Literal(_) => "secret",
                };
                format!("could not add env with name {name}, valueFrom {from}: {error}")
            })?;
        match &entry.source {
            EnvVar::Literal(text) => Ok(Resolved::Value(text.clone())),
            EnvVar::Secret(secret) => Ok(Resolved::Secret(secret.as_str().to_owned())),
            EnvVar::Key(key) => Ok(Resolved::Key(key.clone())),
            EnvVar::Event { path, render } => path
                .find(&self.event.document)
                .map_err(|error| error.to_string())
                .and_then(|found| rendered(&found, *render))
                .map(|text| Resolved::Value(literal(&text)))
                .map_err(|error| {
                    format!(
                        "could not add env with name '{name}', value '{path}', valueFrom 'event': {error}"
                    )
                }),
        }
    }

    /// Whether a variable of this name is Keptn's, which an entry cannot replace.
    pub(crate) fn is_keptns(&self, name: &EnvName) -> bool {
        self.keptns()
            .iter()
            .any(|variable| variable.name == name.as_str())
    }

    /// What every task gets of the event.
    pub(crate) fn keptns(&self) -> Vec<Variable> {
        keptn_variables(self.event)
    }

    fn within_bounds(&mut self, name: &str, value: &str) -> Result<(), String> {
        check_variable(name, value)?;
        let bytes = name.len() + 1 + value.len();
        self.room = self.room.checked_sub(bytes).ok_or_else(|| {
            format!("the variables of all tasks take more than {MAX_VARIABLES_BYTES} bytes")
        })?;
        Ok(())
    }
}

impl Environment {
    /// In a Pod the last of a name counts; what the kubelet fills in stands before all texts, so that they
    /// see it. The first `reserved` texts stay.
    fn takes_key(&mut self, name: &EnvName, key: KeyRef, reserved: usize) {
        let name = name.as_str();
        let is_keptns = |variable: &Variable| variable.name == name;
        if self.variables[..reserved].iter().any(is_keptns) {
            return;
        }
        self.variables.retain(|variable| variable.name != name);
        self.keys.retain(|of| of.name != name);
        self.keys.push(KeyVariable {
            name: name.to_owned(),
            key,
        });
    }
}

fn time_limit(task: &Task, defaults: &TaskDefaults) -> u32 {
    let own = task
        .max_poll_duration
        .map_or(DEFAULT_TIME_LIMIT, Into::into);
    own.min(defaults.deadline.unwrap_or(u32::MAX))
}

fn keptn_variables(event: &Event) -> Vec<Variable> {
    let scope = &event.envelope.scope;
    let scope_variables = [
        ("KEPTN_PROJECT", &scope.project),
        ("KEPTN_STAGE", &scope.stage),
        ("KEPTN_SERVICE", &scope.service),
    ]
    .map(|(name, value)| {
        let value = literal(value.as_deref().unwrap_or_default());
        (name.to_owned(), value)
    });
    let labels: BTreeMap<String, String> = event
        .envelope
        .labels
        .iter()
        .map(|(key, value)| (label_variable(key), literal(value)))
        .collect();
    scope_variables
        .into_iter()
        .chain(labels)
        .map(|(name, value)| Variable { name, value })
        .collect()
}

/// `app-version` → `LABELS_APP_VERSION`; whatever a shell's variable cannot have becomes `_`.
fn label_variable(key: &str) -> String {
    let upper = key.to_uppercase();
    let clean = upper.chars().map(|character| match character {
        'A'..='Z' | '0'..='9' => character,
        _ => '_',
    });
    format!("LABELS_{}", clean.collect::<String>())
}

/// The kubelet expands `$(X)` in values. What an event says is no place for that: whoever sends the
/// event would read the task's other variables.
fn literal(text: &str) -> String {
    expansion::escaped(text).replace('\0', "")
}

/// The text of what a path found: strings as they are, null as nothing, numbers with all their
/// digits, lists and maps as compact JSON with sorted keys.
fn rendered(found: &Found<'_>, render: Render) -> Result<String, String> {
    let list;
    let value = match found {
        Found::One(value) => *value,
        Found::List(values) => {
            list = Value::Array(values.iter().map(|value| (*value).clone()).collect());
            &list
        }
    };
    match render {
        Render::Plain => Ok(match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }),
        Render::Json => Ok(value.to_string()),
        Render::Yaml => serde_yaml::to_string(value).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job_config::reader;
    use crate::policy::Own;
    use crate::run::tests::envelope;

    fn event(data: &Value) -> Event {
        let mut envelope = envelope("1");
        envelope.labels = BTreeMap::from([
            ("app-version".into(), "1".into()),
            ("build datetime".into(), "$(PATH)".into()),
            ("a.b/c".into(), "x".into()),
        ]);
        Event {
            envelope,
            document: json!({"id": "1", "data": data}),
        }
    }

    fn resolved(env: &str, data: &Value) -> String {
        let config = format!(
            "apiVersion: v2\nactions: [{{name: a, events: [{{}}], tasks: [{{name: t, image: i, env: {env}}}]}}]"
        );
        let config = reader::read(config.as_bytes()).unwrap().config;
        let event = event(data);
        let run = RunId::of(&event.envelope, "");
        let policy = Policy {
            own: Own {
                token_secret: "job-service-keptn-secrets".into(),
                ..Own::default()
            },
            ..Policy::default()
        };
        let defaults = TaskDefaults::default();
        let action = Resolver::new(&event, &run, &policy, &defaults).action(0, &config.actions[0]);
        match action.work {
            Work::Refused { task, reason } => format!("{task}: {reason}"),
            Work::Tasks(tasks) | Work::Rest { tasks, .. } => tasks[0]
                .env
                .iter()
                .map(|variable| format!("{}={}", variable.name, variable.value))
                .chain(
                    tasks[0]
                        .secrets
                        .iter()
                        .map(|secret| format!("secret {secret}")),
                )
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    #[test]
    fn variables_come_from_keptn_the_event_and_the_config() {
        let data = json!({"n": 1_234_567, "f": 1.5, "s": "a $(B) $", "null": null, "b": true,
            "list": ["a", "b"], "map": {"z": 1, "a": "<&>"}});
        let env = "[{name: N, value: $.data.n, valueFrom: event},
            {name: F, value: $.data.f, valueFrom: event},
            {name: S, value: $.data.s, valueFrom: event},
            {name: NOTHING, value: $.data.null, valueFrom: event},
            {name: B, value: $.data.b, valueFrom: event},
            {name: LIST, value: $.data.list, valueFrom: event},
            {name: ALL, value: '$.data.list[*]', valueFrom: event},
            {name: MAP, value: $.data.map, valueFrom: event},
            {name: JSON, value: $.data.s, valueFrom: event, as: JSON},
            {name: YAML, value: $.data.list, valueFrom: event, as: yaml},
            {name: LITERAL, value: 'in $(KEPTN_STAGE)', valueFrom: string},
            {name: KEPTN_STAGE, value: mine, valueFrom: string},
            {name: my-secret, valueFrom: secret}]";
        insta::assert_snapshot!(resolved(env, &data), @r#"
        KEPTN_PROJECT=p
        KEPTN_STAGE=dev
        KEPTN_SERVICE=svc
        LABELS_APP_VERSION=1
        LABELS_A_B_C=x
        LABELS_BUILD_DATETIME=$$(PATH)
        N=1234567
        F=1.5
        S=a $$(B) $$
        NOTHING=
        B=true
        LIST=["a","b"]
        ALL=["a","b"]
        MAP={"a":"<&>","z":1}
        JSON="a $$(B) $$"
        YAML=- a
        - b

        LITERAL=in $(KEPTN_STAGE)
        secret my-secret
        "#);
    }

    #[test]
    fn a_value_that_cannot_be_had_is_refused_in_the_words_of_the_original() {
        let refused = |env: &str| {
            resolved(
                env,
                &json!({"list": [1], "big": "x".repeat(140_000), "half": "x".repeat(70_000)}),
            )
        };
        let report = [
            refused("[{name: A, value: $.data.missing.x, valueFrom: event}]"),
            refused("[{name: A, value: '$.data.list[3]', valueFrom: event}]"),
            refused("[{name: A, value: $.data.big, valueFrom: event}]"),
            refused("[{name: job-service-keptn-secrets, valueFrom: secret}]"),
            refused(&format!(
                "[{}]",
                "{name: A, value: $.data.half, valueFrom: event},".repeat(20)
            )),
        ]
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        t: could not prepare env for job job-executor-service-job-1ce6d2b7904b586f122b1899-000-001: could not add env with name 'A', value '$.data.missing.x', valueFrom 'event': unknown key missing
        t: could not prepare env for job job-executor-service-job-1ce6d2b7904b586f122b1899-000-001: could not add env with name 'A', value '$.data.list[3]', valueFrom 'event': index 3 out of bounds
        t: could not prepare env for job job-executor-service-job-1ce6d2b7904b586f122b1899-000-001: could not add env with name A: name and value take 140002 bytes, a program cannot be started with more than 131071
        t: could not prepare env for job job-executor-service-job-1ce6d2b7904b586f122b1899-000-001: could not add env with name job-service-keptn-secrets, valueFrom secret: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
        t: could not prepare env for job job-executor-service-job-1ce6d2b7904b586f122b1899-000-001: could not add env with name A: the variables of all tasks take more than 1048576 bytes
        "#);
    }
}
