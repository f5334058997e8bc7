//! job/config.yaml: one model of a valid config, whichever of its four formats it was written in.
//!
//! Reading order: this model, [`matching`] (which actions an event asks for), [`json_path`], then
//! [`reader`] (bytes → model, or every [`problem`] with its place) over [`yaml`] (text → tree) and the
//! formats, one file each.

pub(crate) mod fields;
pub(crate) mod files;
pub(crate) mod first_formats;
pub(crate) mod json_path;
mod key_refs;
pub(crate) mod labels;
pub(crate) mod matching;
mod pod_fields;
pub(crate) mod pod_parts;
pub(crate) mod problem;
pub(crate) mod quantity;
pub(crate) mod reader;
pub(crate) mod security;
pub(crate) mod task_fields;
pub(crate) mod variables;
pub(crate) mod versioned;
pub(crate) mod yaml;

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use fields::{
    EnvFrom, EnvName, EnvVar, ImagePullPolicy, ObjectName, OnFailure, Resources, Retries,
    SecurityContext, ServiceAccount, TtlSeconds,
};
use files::{FileEntry, ResultFile};
use json_path::JsonPath;
use pod_parts::PodParts;
use quantity::Quantity;

/// What editors check and complete a config of `apiVersion: v2` with.
pub(crate) const SCHEMA: &str = include_str!("job_config/schema.json");

/// Where the schema has the names that the reader takes.
#[cfg(test)]
pub(crate) fn schema_names() -> [(&'static str, &'static [&'static str]); 17] {
    use security::{CAPABILITIES, SECCOMP_PROFILE, SECURITY_CONTEXT};
    use task_fields::{AMOUNTS, FILE, RESOURCES};

    [
        ("", &versioned::CONFIG),
        ("/$defs/action", &versioned::ACTION),
        ("/$defs/event", &versioned::EVENT),
        ("/$defs/event/properties/jsonpath", &versioned::FILTER),
        ("/$defs/task", &versioned::TASK_V2),
        ("/$defs/file", &FILE),
        ("/$defs/variable", &variables::ENTRY_V2),
        ("/$defs/valueFromKey", &key_refs::VALUE_FROM),
        ("/$defs/keyRef", &key_refs::KEY_REF),
        ("/$defs/envFrom", &key_refs::ENV_FROM),
        ("/$defs/objectRef", &key_refs::OBJECT_REF),
        ("/$defs/pullSecret", &pod_fields::PULL_SECRET),
        ("/$defs/task/properties/resources", &RESOURCES),
        ("/$defs/amounts", &AMOUNTS),
        ("/$defs/securityContext", &SECURITY_CONTEXT),
        (
            "/$defs/securityContext/properties/capabilities",
            &CAPABILITIES,
        ),
        (
            "/$defs/securityContext/properties/seccompProfile",
            &SECCOMP_PROFILE,
        ),
    ]
}

/// A config that was read without an error. Each part knows the line of the file where it stands, from 1.
#[derive(Debug, Default)]
pub(crate) struct JobConfig {
    pub(crate) actions: Vec<Action>,
}

impl JobConfig {
    /// Whether a path of it goes through all of an event, each time.
    pub(crate) fn searches_whole_events(&self) -> bool {
        self.actions.iter().any(|action| {
            let filters = action
                .matchers
                .iter()
                .filter_map(|matcher| Some(&matcher.filter.as_ref()?.property));
            let variables = action.tasks.iter().flat_map(|task| &task.env);
            let variables = variables.filter_map(|variable| match &variable.source {
                EnvVar::Event { path, .. } => Some(path),
                _ => None,
            });
            filters.chain(variables).any(JsonPath::finds_lists)
        })
    }
}

/// What to do for an event, and for which.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) name: String,
    /// Runs and says nothing to Keptn.
    pub(crate) silent: bool,
    /// One that holds is enough; none never matches.
    pub(crate) matchers: Vec<EventMatcher>,
    /// One after the other; the first that fails ends the action.
    pub(crate) tasks: Vec<Task>,
    pub(crate) line: u32,
}

#[derive(Debug)]
pub(crate) struct EventMatcher {
    pub(crate) event_type: EventPattern,
    pub(crate) filter: Option<JsonPathFilter>,
    pub(crate) line: u32,
}

#[derive(Debug)]
pub(crate) enum EventPattern {
    /// The first format names one type.
    Exact(String),
    /// As Go's `regexp.MatchString`: unanchored, `.` is any character; without one, any type.
    Matching(Option<regex::Regex>),
}

impl EventPattern {
    /// As it was written; empty for any type.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Exact(text) => text,
            Self::Matching(pattern) => pattern.as_ref().map_or("", regex::Regex::as_str),
        }
    }
}

/// Holds if what the path finds equals the text.
#[derive(Debug)]
pub(crate) struct JsonPathFilter {
    pub(crate) property: JsonPath,
    pub(crate) root: Root,
    pub(crate) expected: String,
    pub(crate) line: u32,
}

/// What `$` stands for in a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Event,
    /// The first format: the event's `data`, and the whole event where nothing is found there.
    DataThenEvent,
}

/// One Job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Task {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) image_pull_policy: Option<ImagePullPolicy>,
    /// The container's `command`; empty: the image's own.
    pub(crate) cmd: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) files: Vec<FileEntry>,
    pub(crate) env: Vec<EnvEntry>,
    pub(crate) env_from: Vec<EnvFrom>,
    /// Present, even empty, it replaces all default resources.
    pub(crate) resources: Option<Resources>,
    /// Seconds that the Job may take.
    pub(crate) max_poll_duration: Option<NonZeroU32>,
    pub(crate) namespace: Option<ObjectName>,
    /// Seconds that the Job is kept after its answer was delivered.
    pub(crate) ttl_seconds_after_finished: Option<TtlSeconds>,
    pub(crate) security_context: SecurityContext,
    pub(crate) service_account: Option<ServiceAccount>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) retries: Retries,
    pub(crate) on_failure: OnFailure,
    /// Runs although a task of its action before it failed.
    pub(crate) always: bool,
    pub(crate) result_file: Option<ResultFile>,
    /// Of /keptn.
    pub(crate) empty_dir_size_limit: Option<Quantity>,
    pub(crate) pod: PodParts,
    pub(crate) line: u32,
}

/// A variable of a task's container, or several from a Secret.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EnvEntry {
    pub(crate) name: EnvName,
    pub(crate) source: EnvVar,
    pub(crate) line: u32,
}
