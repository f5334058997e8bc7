//! A matching action with the event's values put in: what is left is the text of the Jobs.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::cluster::names::job_name;
use crate::event::Event;
use crate::job_config::fields::{EnvName, EnvVar, Render, Resources};
use crate::job_config::json_path::Found;
use crate::job_config::{Action, Task};
use crate::policy::Policy;
use crate::run::{RunAction, RunId, RunTask, Variable, Work};

/// As the original waited.
const DEFAULT_TIME_LIMIT: u32 = 300;

/// Six hours, as in the original.
const DEFAULT_TTL: u32 = 21_600;

/// Below a minute the original raises the value; so Jobs can be looked at for a while.
const MIN_TTL: u32 = 60;

/// Linux refuses to start a program with a longer `NAME=value` (`MAX_ARG_STRLEN`, 32 pages of 4 KiB).
const MAX_VARIABLE_BYTES: usize = 32 * 4096 - 1;

/// The variables that every task gets; a task cannot set them.
const SCOPE_VARIABLES: [&str; 3] = ["KEPTN_PROJECT", "KEPTN_STAGE", "KEPTN_SERVICE"];

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

pub(crate) fn resolve(
    event: &Event,
    index: usize,
    action: &Action,
    policy: &Policy,
    defaults: &TaskDefaults,
) -> RunAction {
    let id = RunId::of(&event.envelope);
    let resolved = |(task_index, task): (usize, &Task)| {
        let refused = |reason| (task.name.clone(), reason);
        policy.check(task).map_err(refused)?;
        if defaults.files == Files::NoImage && !task.files.is_empty() {
            return Err(refused(
                "the task has `files`, but INIT_CONTAINER_IMAGE of the service is not set and its own \
                 image is not known"
                    .into(),
            ));
        }
        let (env, secrets) = environment(event, task, policy).map_err(|reason| {
            let job = job_name(&id, index, task_index);
            refused(format!("could not prepare env for job {job}: {reason}"))
        })?;
        Ok(RunTask {
            name: task.name.clone(),
            image: task.image.clone(),
            image_pull_policy: task.image_pull_policy,
            cmd: task.cmd.clone(),
            args: task.args.clone(),
            working_dir: task.working_dir.clone(),
            files: task
                .files
                .iter()
                .map(|file| file.as_str().to_owned())
                .collect(),
            env,
            secrets,
            resources: task
                .resources
                .clone()
                .unwrap_or_else(|| defaults.resources.clone()),
            time_limit: time_limit(task, defaults),
            ttl: task
                .ttl_seconds_after_finished
                .unwrap_or(DEFAULT_TTL)
                .max(MIN_TTL),
            security_context: task.security_context.clone(),
            service_account: task
                .service_account
                .clone()
                .or_else(|| defaults.service_account.clone())
                .filter(|account| !account.is_empty()),
            annotations: task.annotations.clone(),
        })
    };
    let tasks: Result<Vec<RunTask>, (String, String)> =
        action.tasks.iter().enumerate().map(resolved).collect();
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

fn time_limit(task: &Task, defaults: &TaskDefaults) -> u32 {
    let own = task
        .max_poll_duration
        .map_or(DEFAULT_TIME_LIMIT, Into::into);
    own.min(defaults.deadline.unwrap_or(u32::MAX))
}

/// The variables in the order of the container's `env`, where `$(X)` sees what stands before it; so
/// what Keptn tells comes first. A task's own entry cannot replace it, as in the original.
fn environment(
    event: &Event,
    task: &Task,
    policy: &Policy,
) -> Result<(Vec<Variable>, Vec<String>), String> {
    let mut variables: Vec<Variable> = keptn_variables(event);
    let mut secrets = Vec::new();
    let reserved: Vec<String> = variables
        .iter()
        .map(|variable| variable.name.clone())
        .collect();
    for (name, source) in &task.env {
        let value = match source {
            EnvVar::Literal(text) => text.clone(),
            EnvVar::Secret(secret) => {
                let secret = secret.as_str();
                policy.check_secret(secret).map_err(|error| {
                    format!("could not add env with name {name}, valueFrom secret: {error}")
                })?;
                secrets.push(secret.to_owned());
                continue;
            }
            EnvVar::Event { path, render } => {
                let text = path
                    .find(&event.document)
                    .map_err(|error| error.to_string())
                    .and_then(|found| rendered(&found, *render))
                    .map_err(|error| {
                        format!(
                            "could not add env with name '{name}', value '{path}', valueFrom \
                             'event': {error}"
                        )
                    })?;
                literal(&text)
            }
        };
        if value.contains('\0') {
            return Err(format!(
                "could not add env with name {name}: its value holds a NUL"
            ));
        }
        let bytes = name.as_str().len() + 1 + value.len();
        if bytes > MAX_VARIABLE_BYTES {
            return Err(format!(
                "could not add env with name {name}: name and value take {bytes} bytes, a program \
                 cannot be started with more than {MAX_VARIABLE_BYTES}"
            ));
        }
        if !reserved.iter().any(|reserved| reserved == name.as_str()) {
            variables.push(variable(name, value));
        }
    }
    Ok((variables, secrets))
}

fn variable(name: &EnvName, value: String) -> Variable {
    Variable {
        name: name.as_str().to_owned(),
        value,
    }
}

fn keptn_variables(event: &Event) -> Vec<Variable> {
    let scope = &event.envelope.scope;
    let values = [&scope.project, &scope.stage, &scope.service];
    let scope_variables = SCOPE_VARIABLES
        .into_iter()
        .zip(values)
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
    text.replace('$', "$$").replace('\0', "")
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
        let action = resolve(
            &event(data),
            0,
            &config.actions[0],
            &Policy {
                own_secret: "job-service-keptn-secrets".into(),
                ..Policy::default()
            },
            &TaskDefaults::default(),
        );
        match action.work {
            Work::Refused { task, reason } => format!("{task}: {reason}"),
            Work::Tasks(tasks) => tasks[0]
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
        let refused = |env: &str| resolved(env, &json!({"list": [1], "big": "x".repeat(140_000)}));
        let report = [
            refused("[{name: A, value: $.data.missing.x, valueFrom: event}]"),
            refused("[{name: A, value: '$.data.list[3]', valueFrom: event}]"),
            refused("[{name: A, value: $.data.big, valueFrom: event}]"),
            refused("[{name: job-service-keptn-secrets, valueFrom: secret}]"),
        ]
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        t: could not prepare env for job job-executor-service-job-99e66fd88ace94c9cab597dd-000-001: could not add env with name 'A', value '$.data.missing.x', valueFrom 'event': unknown key missing
        t: could not prepare env for job job-executor-service-job-99e66fd88ace94c9cab597dd-000-001: could not add env with name 'A', value '$.data.list[3]', valueFrom 'event': index 3 out of bounds
        t: could not prepare env for job job-executor-service-job-99e66fd88ace94c9cab597dd-000-001: could not add env with name A: name and value take 140002 bytes, a program cannot be started with more than 131071
        t: could not prepare env for job job-executor-service-job-99e66fd88ace94c9cab597dd-000-001: could not add env with name job-service-keptn-secrets, valueFrom secret: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
        "#);
    }
}
