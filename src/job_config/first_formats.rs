//! The two formats without `apiVersion`: the very first one (action-level `event`) and the one of
//! 0.1.0 and 0.1.1 (`events`). Whether an action says `event` or `events` tells which it is.
//!
//! Unknown and repeated keys never were errors here, so they stay warnings.

use super::problem::{Problem, Problems};
use super::reader::value::{Fields, Keys, Value};
use super::reader::{Format, Paths, actions, tasks};
use super::variables::{self, EnvFormat};
use super::versioned::{filter, matcher, needs_v2};
use super::{Action, EventMatcher, EventPattern, JobConfig, Root, Task, task_fields};

pub(crate) const CONFIG: [&str; 1] = ["actions"];
pub(crate) const ACTION: [&str; 6] = ["name", "event", "jsonpath", "events", "silent", "tasks"];
pub(crate) const TASK: [&str; 5] = ["name", "image", "cmd", "files", "env"];

pub(super) fn read(top: &Value<'_>, problems: &mut Problems) -> JobConfig {
    let mut paths = Paths::default();
    let nowhere = |_: &str| None;
    let Some(config) = top.fields(&CONFIG, Keys::Lenient, nowhere, problems) else {
        return JobConfig::default();
    };
    let actions = actions(&config, problems);
    JobConfig {
        actions: actions
            .iter()
            .filter_map(|value| action(value, &mut paths, problems))
            .collect(),
    }
}

fn action(value: &Value<'_>, paths: &mut Paths, problems: &mut Problems) -> Option<Action> {
    let fields = value.fields(&ACTION, Keys::Lenient, |_| None, problems)?;
    let tasks = tasks(&fields, problems);
    Some(Action {
        name: task_fields::name(&fields, problems),
        silent: fields.boolean("silent", problems).unwrap_or_default(),
        matchers: matchers(value, &fields, paths, problems),
        tasks: tasks
            .iter()
            .filter_map(|value| task(value, paths, problems))
            .collect(),
        line: value.line(),
    })
}

fn matchers(
    action: &Value<'_>,
    fields: &Fields<'_>,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Vec<EventMatcher> {
    let keys = Keys::Lenient;
    let jsonpath = fields.get("jsonpath");
    let own_filter = jsonpath
        .as_ref()
        .and_then(|value| filter(value, Root::DataThenEvent, keys, paths, problems));
    let events = fields.list("events", "a list", problems);
    let matchers: Vec<EventMatcher> = events
        .iter()
        .filter_map(|event| matcher(event, keys, paths, problems))
        .collect();
    let Some(event) = fields.get("event") else {
        if let Some(jsonpath) = jsonpath {
            problems.add(Problem::warning(
                fields.key_place("jsonpath"),
                &jsonpath.path,
                "ignored, it belongs to an action's `event` or to an entry of `events`",
            ));
        }
        return matchers;
    };
    let event_type = event.text(problems);
    if fields.get("events").is_some() {
        let places = [fields.key_place("event"), fields.key_place("events")];
        problems.add(Problem::error(
            places.into_iter().flatten().max(),
            &action.path,
            "an action has either `event` or `events`, not both",
        ));
    }
    let matcher = |event_type| EventMatcher {
        event_type: EventPattern::Exact(event_type),
        filter: own_filter,
        line: event.line(),
    };
    event_type.map(matcher).into_iter().collect()
}

fn task(value: &Value<'_>, paths: &mut Paths, problems: &mut Problems) -> Option<Task> {
    let fields = value.fields(&TASK, Keys::Lenient, needs_v2, problems)?;
    Some(Task {
        name: task_fields::name(&fields, problems),
        image: task_fields::image(&fields, problems),
        cmd: task_fields::command_line(&fields, problems),
        files: task_fields::files(&fields, Format::Unversioned, problems),
        env: variables::read(&fields, EnvFormat::Unversioned, paths, problems),
        line: value.line(),
        ..Task::default()
    })
}
