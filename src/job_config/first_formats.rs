//! The two formats without `apiVersion`: the very first one (action-level `event`) and the one of
//! 0.1.0 and 0.1.1 (`events`). Whether an action says `event` or `events` tells which it is.
//!
//! Unknown and repeated keys never were errors here, so they stay warnings.

use serde::Deserialize;

use super::fields::{
    EnvName, EnvVar, Image, Property, Render, ResourceUri, TypePattern, or_default, words,
};
use super::json_path::JsonPath;
use super::{Action, EventMatcher, EventPattern, JobConfig, JsonPathFilter, Root, Task};

#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default, deserialize_with = "or_default")]
    actions: Vec<ActionEntry>,
}

#[derive(Deserialize)]
#[serde(try_from = "ActionFields")]
struct ActionEntry(Action);

#[derive(Deserialize)]
struct ActionFields {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    jsonpath: Option<FilterEntry>,
    #[serde(default)]
    events: Option<Vec<MatcherEntry>>,
    #[serde(default, deserialize_with = "or_default")]
    silent: bool,
    #[serde(default, deserialize_with = "or_default")]
    tasks: Vec<TaskEntry>,
}

#[derive(Deserialize)]
struct MatcherEntry {
    #[serde(default = "TypePattern::any")]
    name: TypePattern,
    #[serde(default)]
    jsonpath: Option<FilterEntry>,
}

#[derive(Deserialize)]
struct FilterEntry {
    #[serde(default)]
    property: Property,
    #[serde(default, rename = "match", deserialize_with = "or_default")]
    expected: String,
}

#[derive(Deserialize)]
struct TaskEntry {
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    image: Image,
    #[serde(default, deserialize_with = "or_default")]
    cmd: String,
    #[serde(default, deserialize_with = "or_default")]
    files: Vec<ResourceUri>,
    #[serde(default, deserialize_with = "or_default")]
    env: Vec<EnvEntry>,
}

#[derive(Deserialize)]
struct EnvEntry {
    name: EnvName,
    value: JsonPath,
}

impl FilterEntry {
    fn rooted(self, root: Root) -> Option<JsonPathFilter> {
        JsonPathFilter::new(self.property, self.expected, root)
    }
}

impl MatcherEntry {
    fn matcher(self) -> EventMatcher {
        EventMatcher {
            event_type: EventPattern::Matching(self.name.0),
            filter: self.jsonpath.and_then(|filter| filter.rooted(Root::Event)),
        }
    }
}

impl TryFrom<ActionFields> for ActionEntry {
    type Error = String;

    fn try_from(fields: ActionFields) -> Result<Self, String> {
        let matchers = match (fields.event, fields.events) {
            (Some(_), Some(_)) => {
                return Err("an action has either `event` or `events`, not both".into());
            }
            (Some(event), None) => vec![EventMatcher {
                event_type: EventPattern::Exact(event),
                filter: fields
                    .jsonpath
                    .and_then(|filter| filter.rooted(Root::DataThenEvent)),
            }],
            (None, events) => events
                .unwrap_or_default()
                .into_iter()
                .map(MatcherEntry::matcher)
                .collect(),
        };
        Ok(Self(Action {
            name: fields.name,
            silent: fields.silent,
            matchers,
            tasks: fields.tasks.into_iter().map(TaskEntry::task).collect(),
        }))
    }
}

impl TaskEntry {
    fn task(self) -> Task {
        let variable = |entry: EnvEntry| {
            let value = EnvVar::Event {
                path: entry.value,
                render: Render::Plain,
            };
            (entry.name, value)
        };
        Task {
            name: self.name,
            image: self.image.to_string(),
            cmd: words(&self.cmd),
            files: self.files,
            env: self.env.into_iter().map(variable).collect(),
            ..Task::default()
        }
    }
}

impl From<Config> for JobConfig {
    fn from(config: Config) -> Self {
        Self {
            actions: config.actions.into_iter().map(|entry| entry.0).collect(),
        }
    }
}
