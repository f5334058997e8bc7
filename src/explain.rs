//! Why an event runs what it runs: each action with each condition, each variable with its value, what is
//! refused, and the Jobs. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::manifest::{self, Start};
use crate::event::Event;
use crate::job_config::fields::{EnvFrom, EnvVar, KeyHolder, KeyRef, OnFailure};
use crate::job_config::matching::{Condition, Judged};
use crate::job_config::problem::ConfigErrors;
use crate::job_config::reader;
use crate::job_config::{Action, Task};
use crate::resolve::expansion::expanded;
use crate::resolve::{Resolved, Resolver};
use crate::rules::Rules;
use crate::run::{Run, RunId, hash};

/// What a config makes of an event.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    /// What every task gets of the event.
    pub(crate) env: Vec<VariableExplained>,
    pub(crate) actions: Vec<ActionExplained>,
    /// As they would be created; those of later tasks only if the tasks before succeed.
    pub(crate) jobs: Vec<Value>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ActionExplained {
    pub(crate) name: String,
    /// Of the file, from 1.
    pub(crate) line: u32,
    pub(crate) silent: bool,
    pub(crate) matches: bool,
    /// Each entry of `events`; one of which all conditions hold is enough.
    pub(crate) events: Vec<Vec<Condition>>,
    /// Why the action is not for the event.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) reasons: Vec<String>,
    /// Empty where the action does not match.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tasks: Vec<TaskExplained>,
}

#[derive(Debug, Serialize)]
pub(crate) struct TaskExplained {
    pub(crate) name: String,
    pub(crate) line: u32,
    pub(crate) image: String,
    /// Why it cannot or must not run; then no task of its action does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
    /// What its Job does not show.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) remarks: Vec<String>,
    pub(crate) env: Vec<VariableExplained>,
}

#[derive(Debug, Serialize)]
pub(crate) struct VariableExplained {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u32>,
    /// Where the value comes from: a path, `Keptn`, `a Secret`.
    pub(crate) source: String,
    #[serde(flatten)]
    pub(crate) value: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    Value(String),
    Error(String),
    /// It has no effect, with the reason.
    Ignored(String),
    /// All keys of this Secret.
    Secret(String),
    /// All keys of a Secret or `ConfigMap`.
    Keys(EnvFrom),
    /// One key of a Secret or `ConfigMap`.
    Key(KeyRef),
}

/// Examines a config for an event, as `serve` with these rules does.
pub(crate) fn explain(
    event: &Event,
    config: &[u8],
    rules: &Rules,
    installation: &str,
) -> Result<Explanation, ConfigErrors> {
    let config_hash = hash(config);
    let config = reader::read(config)?.config;
    let id = RunId::of(&event.envelope, installation);
    let resolver = || Resolver::new(event, &id, &rules.policy, &rules.defaults);
    let mut actions: Vec<ActionExplained> = config
        .judge(event)
        .into_iter()
        .map(|judged| action(&judged, &mut resolver()))
        .collect();
    // The service takes when the event came; here the same files give the same text.
    let time = event.document["time"].as_str();
    let time = time.and_then(|time| time.parse().ok());
    let arrived = time.unwrap_or(Timestamp::UNIX_EPOCH);
    let mut run = resolver().run(config.matching(event), config_hash, arrived);
    let record = loop {
        match run.encode() {
            // As the service does where a first Job cannot be made.
            Err(too_large) if run.first_place().is_some() => {
                run.goes_on_without_first_task(too_large.to_string());
            }
            record => break record.unwrap_or_default(),
        }
    };
    for of in &run.actions {
        for refusal in of.refusals() {
            actions[of.index].is_refused(&refusal.task, &refusal.reason);
        }
    }
    let env = resolver().keptns().into_iter();
    Ok(Explanation {
        env: env
            .map(|variable| VariableExplained {
                name: variable.name,
                line: None,
                source: "Keptn".into(),
                value: Outcome::Value(expanded(&variable.value, &BTreeMap::new())),
            })
            .collect(),
        actions,
        jobs: jobs(&run, &record, rules),
    })
}

fn jobs(run: &Run, record: &str, rules: &Rules) -> Vec<Value> {
    let places = run.steps().flat_map(|(_, places)| places);
    places
        .map(|place| {
            let job = manifest::job(place, record, Start::Now, &rules.jobs);
            let mut job = serde_json::to_value(job).unwrap_or_default();
            job["metadata"]["namespace"] = place.namespace_or(&rules.policy.namespace).into();
            job
        })
        .collect()
}

fn action(judged: &Judged<'_>, resolver: &mut Resolver<'_>) -> ActionExplained {
    let Action {
        name,
        silent,
        tasks,
        line,
        ..
    } = judged.action;
    let matches = judged.matches();
    let explained = |(index, of): (usize, &Task)| task(judged.index, index, of, resolver);
    ActionExplained {
        name: name.clone(),
        line: *line,
        silent: *silent,
        matches,
        events: judged.matchers.clone(),
        reasons: if matches {
            Vec::new()
        } else {
            judged.reasons()
        },
        tasks: if matches {
            tasks.iter().enumerate().map(explained).collect()
        } else {
            Vec::new()
        },
    }
}

fn task(action: usize, index: usize, task: &Task, resolver: &mut Resolver<'_>) -> TaskExplained {
    TaskExplained {
        name: task.name.clone(),
        line: task.line,
        image: task.image.clone(),
        refused: resolver
            .task(action, index, task)
            .err()
            .map(|reason| reason.trim_end().to_owned()),
        remarks: remarks(task),
        env: variables(task, resolver),
    }
}

fn remarks(task: &Task) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(namespace) = &task.namespace {
        remarks.push(format!("runs in namespace {namespace}"));
    }
    match u8::from(task.retries) {
        0 => {}
        1 => remarks.push("is started again once if it fails".into()),
        retries => remarks.push(format!(
            "is started again up to {retries} times if it fails"
        )),
    }
    if task.on_failure == OnFailure::Warn {
        remarks.push("its failure is a warning, the action goes on".into());
    }
    if task.always {
        remarks.push("runs although a task before it failed".into());
    }
    if let Some(file) = &task.result_file {
        remarks.push(format!(
            "what it writes to {file} becomes part of the answer"
        ));
    }
    remarks
}

/// In their order, where `$(X)` sees what stands before it.
fn variables(task: &Task, resolver: &Resolver<'_>) -> Vec<VariableExplained> {
    let mut known: BTreeMap<String, String> = resolver
        .keptns()
        .into_iter()
        .map(|variable| (variable.name, expanded(&variable.value, &BTreeMap::new())))
        .collect();
    let mut explained = Vec::new();
    for (place, entry) in task.env.iter().enumerate() {
        let name = entry.name.as_str();
        let replaced = task.env[place + 1..]
            .iter()
            .any(|later| later.name == entry.name && !matches!(later.source, EnvVar::Secret(_)));
        let value = match resolver.value(task, entry) {
            Err(error) => Outcome::Error(error),
            Ok(Resolved::Secret(secret)) => Outcome::Secret(secret),
            Ok(_) if resolver.is_keptns(&entry.name) => {
                Outcome::Ignored("Keptn's value stays".into())
            }
            Ok(_) if replaced => Outcome::Ignored("a later entry replaces it".into()),
            Ok(Resolved::Key(key)) => Outcome::Key(key),
            Ok(Resolved::Value(value)) => {
                let value = expanded(&value, &known);
                known.insert(name.to_owned(), value.clone());
                Outcome::Value(value)
            }
        };
        explained.push(VariableExplained {
            name: name.to_owned(),
            line: Some(entry.line),
            source: match &entry.source {
                EnvVar::Event { path, .. } => path.to_string(),
                EnvVar::Literal(_) => "a text".into(),
                EnvVar::Secret(_) => "a Secret".into(),
                EnvVar::Key(_) => "a key".into(),
            },
            value,
        });
    }
    for entry in &task.env_from {
        explained.push(VariableExplained {
            name: format!("{}*", entry.prefix),
            line: None,
            source: "envFrom".into(),
            value: Outcome::Keys(entry.clone()),
        });
    }
    explained
}

impl ActionExplained {
    /// By what the tasks and actions before it leave, where it is not refused for itself.
    fn is_refused(&mut self, task: &str, reason: &str) {
        if self.tasks.iter().any(|task| task.refused.is_some()) {
            return;
        }
        if let Some(of) = self.tasks.iter_mut().find(|of| of.name == task) {
            of.refused = Some(reason.to_owned());
        }
    }
}

impl Explanation {
    pub(crate) fn matches(&self) -> bool {
        self.actions.iter().any(|action| action.matches)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.tasks().any(|task| task.refused.is_some())
    }

    /// The Secrets without which tasks do not start.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&TaskExplained, &str)> {
        self.tasks().flat_map(|task| {
            task.env
                .iter()
                .filter_map(move |variable| match &variable.value {
                    Outcome::Secret(secret) => Some((task, secret.as_str())),
                    Outcome::Key(KeyRef { of, optional, .. })
                    | Outcome::Keys(EnvFrom { of, optional, .. }) => match of {
                        KeyHolder::Secret(secret) if !optional => Some((task, secret.as_str())),
                        KeyHolder::Secret(_) | KeyHolder::ConfigMap(_) => None,
                    },
                    Outcome::Value(_) | Outcome::Error(_) | Outcome::Ignored(_) => None,
                })
        })
    }

    fn tasks(&self) -> impl Iterator<Item = &TaskExplained> {
        self.actions.iter().flat_map(|action| &action.tasks)
    }
}
