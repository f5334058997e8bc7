//! The strict formats: `apiVersion: v1` (0.1.2) and `apiVersion: v2` (0.1.3 on). They differ in a
//! task's fields only.

use std::num::NonZeroU32;

use super::fields::{
    ImagePullPolicy, OnFailure, Property, ServiceAccount, TtlSeconds, TypePattern,
};
use super::files::ResultFile;
use super::problem::Problems;
use super::reader::value::{Keys, Value};
use super::reader::{Format, Paths, actions, tasks};
use super::variables::{self, EnvFormat};
use super::{
    Action, EventMatcher, EventPattern, JobConfig, JsonPathFilter, Root, Task, key_refs, labels,
    pod_fields, security, task_fields,
};

pub(crate) const CONFIG: [&str; 2] = ["apiVersion", "actions"];
pub(crate) const ACTION: [&str; 4] = ["name", "silent", "events", "tasks"];
pub(crate) const EVENT: [&str; 2] = ["name", "jsonpath"];
pub(crate) const FILTER: [&str; 2] = ["property", "match"];
const TASK_V1: [&str; 6] = ["name", "image", "cmd", "files", "env", "resources"];
pub(crate) const TASK_V2: [&str; 27] = [
    "name",
    "image",
    "imagePullPolicy",
    "cmd",
    "args",
    "workingDir",
    "files",
    "env",
    "envFrom",
    "resources",
    "maxPollDuration",
    "retries",
    "onFailure",
    "always",
    "resultFile",
    "emptyDirSizeLimit",
    "namespace",
    "ttlSecondsAfterFinished",
    "securityContext",
    "serviceAccount",
    "annotations",
    "imagePullSecrets",
    "nodeSelector",
    "tolerations",
    "affinity",
    "volumes",
    "volumeMounts",
];

/// The names of the values that are one of a few.
pub(super) const PULL_POLICIES: [(&str, ImagePullPolicy); 3] = [
    ("Always", ImagePullPolicy::Always),
    ("IfNotPresent", ImagePullPolicy::IfNotPresent),
    ("Never", ImagePullPolicy::Never),
];

const ON_FAILURE: [(&str, OnFailure); 2] = [("fail", OnFailure::Fail), ("warn", OnFailure::Warn)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

pub(super) fn read(top: &Value<'_>, version: Version, problems: &mut Problems) -> JobConfig {
    let mut paths = Paths::default();
    let nowhere = |_: &str| None;
    let Some(config) = top.fields(&CONFIG, Keys::Strict, nowhere, problems) else {
        return JobConfig::default();
    };
    let actions = actions(&config, problems);
    JobConfig {
        actions: actions
            .iter()
            .filter_map(|value| action(value, version, &mut paths, problems))
            .collect(),
    }
}

fn action(
    value: &Value<'_>,
    version: Version,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<Action> {
    let elsewhere = |key: &str| match key {
        "event" => Some("did you mean `events`, a list of entries with `name`?".to_owned()),
        "jsonpath" => Some("it belongs to an entry of `events`".to_owned()),
        _ => None,
    };
    let fields = value.fields(&ACTION, Keys::Strict, elsewhere, problems)?;
    let events = fields.list("events", "a list", problems);
    let tasks = tasks(&fields, problems);
    Some(Action {
        name: task_fields::name(&fields, problems),
        silent: fields.boolean("silent", problems).unwrap_or_default(),
        matchers: events
            .iter()
            .filter_map(|event| matcher(event, Keys::Strict, paths, problems))
            .collect(),
        tasks: tasks
            .iter()
            .filter_map(|value| match version {
                Version::V1 => task_v1(value, paths, problems),
                Version::V2 => task_v2(value, paths, problems),
            })
            .collect(),
        line: value.line(),
    })
}

/// An entry of `events`, in every format that has it.
pub(super) fn matcher(
    value: &Value<'_>,
    keys: Keys,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<EventMatcher> {
    let fields = value.fields(&EVENT, keys, |_| None, problems)?;
    let pattern = fields
        .get("name")
        .and_then(|name| name.parsed(TypePattern::parse, problems));
    let filter = fields.get("jsonpath");
    Some(EventMatcher {
        event_type: EventPattern::Matching(pattern.and_then(|pattern| pattern.0)),
        filter: filter.and_then(|filter| self::filter(&filter, Root::Event, keys, paths, problems)),
        line: value.line(),
    })
}

/// `jsonpath` with `property` and `match`.
pub(super) fn filter(
    value: &Value<'_>,
    root: Root,
    keys: Keys,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<JsonPathFilter> {
    let fields = value.fields(&FILTER, keys, |_| None, problems)?;
    let expected = fields.text("match", problems);
    let value_of_property = fields.get("property")?;
    let property = value_of_property.parsed(Property::parse, problems)?.0?;
    paths.count(&property, &value_of_property, problems);
    Some(JsonPathFilter {
        property,
        root,
        expected,
        line: value.line(),
    })
}

/// The help for a field of tasks that an older format does not have.
pub(super) fn needs_v2(key: &str) -> Option<String> {
    TASK_V2
        .contains(&key)
        .then(|| format!("`{key}` needs `apiVersion: v2`"))
}

fn task_v1(value: &Value<'_>, paths: &mut Paths, problems: &mut Problems) -> Option<Task> {
    let fields = value.fields(&TASK_V1, Keys::Strict, needs_v2, problems)?;
    Some(Task {
        name: task_fields::name(&fields, problems),
        image: task_fields::image(&fields, problems),
        cmd: task_fields::command_line(&fields, problems),
        files: task_fields::files(&fields, Format::V1, problems),
        env: variables::read(&fields, EnvFormat::V1, paths, problems),
        resources: task_fields::resources(&fields, problems),
        line: value.line(),
        ..Task::default()
    })
}

fn task_v2(value: &Value<'_>, paths: &mut Paths, problems: &mut Problems) -> Option<Task> {
    let fields = value.fields(&TASK_V2, Keys::Strict, |_| None, problems)?;
    Some(Task {
        name: task_fields::name(&fields, problems),
        image: task_fields::image(&fields, problems),
        image_pull_policy: fields
            .get("imagePullPolicy")
            .and_then(|policy| policy.one_of(&PULL_POLICIES, problems)),
        cmd: task_fields::arguments(&fields, "cmd", problems),
        args: task_fields::arguments(&fields, "args", problems),
        working_dir: task_fields::working_dir(&fields, problems),
        files: task_fields::files(&fields, Format::V2, problems),
        env: variables::read(&fields, EnvFormat::V2, paths, problems),
        env_from: key_refs::env_from(&fields, problems),
        resources: task_fields::resources(&fields, problems),
        max_poll_duration: fields
            .get("maxPollDuration")
            .and_then(|seconds| poll_duration(&seconds, problems)),
        retries: fields
            .get("retries")
            .and_then(|retries| task_fields::retries(&retries, problems))
            .unwrap_or_default(),
        on_failure: fields
            .get("onFailure")
            .and_then(|on_failure| on_failure.one_of(&ON_FAILURE, problems))
            .unwrap_or_default(),
        always: fields.boolean("always", problems).unwrap_or_default(),
        result_file: fields
            .get("resultFile")
            .and_then(|path| path.parsed(ResultFile::parse, problems)),
        empty_dir_size_limit: fields
            .get("emptyDirSizeLimit")
            .and_then(|size| size.parsed(task_fields::size_limit, problems)),
        namespace: fields
            .get("namespace")
            .and_then(|name| name.parsed(labels::namespace, problems)),
        ttl_seconds_after_finished: fields
            .get("ttlSecondsAfterFinished")
            .and_then(|seconds| ttl(&seconds, problems)),
        security_context: fields
            .get("securityContext")
            .and_then(|context| security::read(&context, problems))
            .unwrap_or_default(),
        service_account: fields
            .get("serviceAccount")
            .and_then(|name| name.parsed(ServiceAccount::parse, problems)),
        annotations: fields
            .get("annotations")
            .map(|annotations| task_fields::annotations(&annotations, problems))
            .unwrap_or_default(),
        pod: pod_fields::read(&fields, problems),
        line: value.line(),
    })
}

fn poll_duration(value: &Value<'_>, problems: &mut Problems) -> Option<NonZeroU32> {
    let seconds = value.whole_number("a whole number of seconds", problems)?;
    let checked = u32::try_from(seconds).ok().and_then(NonZeroU32::new);
    if checked.is_none() {
        let most = u32::MAX;
        let allowed = if seconds < 1 {
            "at least 1".to_owned()
        } else {
            format!("at most {most}")
        };
        problems.add(value.error(format!("expected a whole number of seconds, {allowed}")));
    }
    checked
}

fn ttl(value: &Value<'_>, problems: &mut Problems) -> Option<TtlSeconds> {
    let seconds = value.whole_number("a whole number of seconds", problems)?;
    TtlSeconds::new(seconds)
        .map_err(|error| problems.add(value.error(error)))
        .ok()
}
