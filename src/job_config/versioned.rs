//! The strict formats: `apiVersion: v1` (0.1.2) and `apiVersion: v2` (0.1.3 on). They differ in a
//! task's fields only.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Deserialize;

use super::fields::{
    EnvName, EnvVar, Image, ImagePullPolicy, ObjectName, Property, Render, ResourceUri, Resources,
    SecurityContext, TtlSeconds, TypePattern, annotations, or_default, words,
};
use super::json_path::JsonPath;
use super::{Action, EventMatcher, EventPattern, JobConfig, JsonPathFilter, Root, Task};

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    bound = "T: Deserialize<'de>"
)]
pub(super) struct Config<T> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(default = "Vec::new", deserialize_with = "or_default")]
    actions: Vec<ActionEntry<T>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound = "T: Deserialize<'de>")]
struct ActionEntry<T> {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    silent: bool,
    #[serde(default, deserialize_with = "or_default")]
    events: Vec<MatcherEntry>,
    #[serde(default = "Vec::new", deserialize_with = "or_default")]
    tasks: Vec<T>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatcherEntry {
    #[serde(default = "TypePattern::any")]
    name: TypePattern,
    #[serde(default)]
    jsonpath: Option<FilterEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterEntry {
    #[serde(default)]
    property: Property,
    #[serde(default, rename = "match", deserialize_with = "or_default")]
    expected: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TaskV1 {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    image: Image,
    #[serde(default, deserialize_with = "or_default")]
    cmd: String,
    #[serde(default, deserialize_with = "or_default")]
    files: Vec<ResourceUri>,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<EnvEntryV1>,
    #[serde(default)]
    resources: Option<Resources>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct TaskV2 {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    image: Image,
    #[serde(default)]
    image_pull_policy: Option<ImagePullPolicy>,
    #[serde(default, deserialize_with = "or_default")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    args: Vec<String>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    files: Vec<ResourceUri>,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<EnvEntryV2>,
    #[serde(default)]
    resources: Option<Resources>,
    #[serde(default)]
    max_poll_duration: Option<NonZeroU32>,
    #[serde(default)]
    namespace: Option<ObjectName>,
    #[serde(default)]
    ttl_seconds_after_finished: Option<TtlSeconds>,
    #[serde(default, deserialize_with = "or_default")]
    security_context: SecurityContext,
    #[serde(default)]
    service_account: Option<String>,
    #[serde(default, deserialize_with = "annotations")]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(try_from = "EnvFieldsV1")]
struct EnvEntryV1(EnvName, EnvVar);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvFieldsV1 {
    name: EnvName,
    #[serde(default, deserialize_with = "or_default")]
    value: String,
    value_from: Option<String>,
}

#[derive(Deserialize)]
#[serde(try_from = "EnvFieldsV2")]
struct EnvEntryV2(EnvName, EnvVar);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct EnvFieldsV2 {
    name: EnvName,
    #[serde(default, deserialize_with = "or_default")]
    value: String,
    value_from: Option<String>,
    #[serde(default, rename = "as")]
    render: Option<String>,
}

impl TryFrom<EnvFieldsV1> for EnvEntryV1 {
    type Error = String;

    fn try_from(fields: EnvFieldsV1) -> Result<Self, String> {
        let value = match fields.value_from.as_deref() {
            Some("event") => EnvVar::Event {
                path: JsonPath::parse(&fields.value).map_err(|error| error.to_string())?,
                render: Render::Plain,
            },
            Some("secret") => EnvVar::Secret(ObjectName::parse(fields.name.as_str())?),
            other => {
                return Err(unknown_value_from(
                    &fields.name,
                    other,
                    "`event` or `secret`",
                ));
            }
        };
        Ok(Self(fields.name, value))
    }
}

impl TryFrom<EnvFieldsV2> for EnvEntryV2 {
    type Error = String;

    fn try_from(fields: EnvFieldsV2) -> Result<Self, String> {
        let render = match fields
            .render
            .as_deref()
            .map(str::to_ascii_lowercase)
            .as_deref()
        {
            None | Some("") => Render::Plain,
            Some("json") => Render::Json,
            Some("yaml") => Render::Yaml,
            Some(other) => {
                return Err(format!("unknown `as: {other}`, expected `json` or `yaml`"));
            }
        };
        let value = match fields.value_from.as_deref() {
            Some("event") => EnvVar::Event {
                path: JsonPath::parse(&fields.value).map_err(|error| error.to_string())?,
                render,
            },
            Some("secret") => EnvVar::Secret(ObjectName::parse(fields.name.as_str())?),
            Some("string") => EnvVar::Literal(fields.value),
            other => {
                let allowed = "`event`, `secret` or `string`";
                return Err(unknown_value_from(&fields.name, other, allowed));
            }
        };
        Ok(Self(fields.name, value))
    }
}

/// The first half is the original's text.
fn unknown_value_from(name: &EnvName, found: Option<&str>, allowed: &str) -> String {
    let found = found.unwrap_or_default();
    format!("could not add env with name {name}, unknown valueFrom {found}: expected {allowed}")
}

impl From<MatcherEntry> for EventMatcher {
    fn from(entry: MatcherEntry) -> Self {
        Self {
            event_type: EventPattern::Matching(entry.name.0),
            filter: entry.jsonpath.and_then(|filter| {
                JsonPathFilter::new(filter.property, filter.expected, Root::Event)
            }),
        }
    }
}

impl From<TaskV1> for Task {
    fn from(task: TaskV1) -> Self {
        Self {
            name: task.name,
            image: task.image.to_string(),
            cmd: words(&task.cmd),
            files: task.files,
            env: task
                .env
                .into_iter()
                .map(|entry| (entry.0, entry.1))
                .collect(),
            resources: task.resources,
            ..Self::default()
        }
    }
}

impl From<TaskV2> for Task {
    fn from(task: TaskV2) -> Self {
        Self {
            name: task.name,
            image: task.image.to_string(),
            image_pull_policy: task.image_pull_policy,
            cmd: task.cmd,
            args: task.args,
            working_dir: task.working_dir.filter(|directory| !directory.is_empty()),
            files: task.files,
            env: task
                .env
                .into_iter()
                .map(|entry| (entry.0, entry.1))
                .collect(),
            resources: task.resources,
            max_poll_duration: task.max_poll_duration,
            namespace: task.namespace,
            ttl_seconds_after_finished: task.ttl_seconds_after_finished,
            security_context: task.security_context,
            service_account: task.service_account,
            annotations: task.annotations,
        }
    }
}

impl<T: Into<Task>> From<Config<T>> for JobConfig {
    fn from(config: Config<T>) -> Self {
        let action = |entry: ActionEntry<T>| Action {
            name: entry.name,
            silent: entry.silent,
            matchers: entry.events.into_iter().map(Into::into).collect(),
            tasks: entry.tasks.into_iter().map(Into::into).collect(),
        };
        Self {
            actions: config.actions.into_iter().map(action).collect(),
        }
    }
}
