//! What Keptn tells this service, as types that cannot hold a wrong value.
//!
//! [`content_mode`] reads the bytes, [`answer`] and [`log_entry`] write the events that go back. The word "task" has
//! two meanings in this project: Keptn's (the middle of an event type) is always
//! [`EventType::task`], the one of job/config.yaml (one Job) is [`crate::job_config::Task`].

pub(crate) mod answer;
pub(crate) mod content_mode;
pub(crate) mod log_entry;
pub(crate) mod trace;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use trace::TraceContext;

const TRIGGERED: &str = ".triggered";

/// A CloudEvent that Keptn sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Event {
    pub(crate) envelope: Envelope,
    /// All attributes, extensions and `data`: the root `$` of a JSONPath.
    pub(crate) document: Value,
}

/// The part of an event that its run remembers: what identifies it, and what its answers repeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) source: String,
    #[serde(rename = "type")]
    pub(crate) event_type: EventType,
    #[serde(rename = "shkeptncontext", skip_serializing_if = "Option::is_none")]
    pub(crate) keptn_context: Option<String>,
    #[serde(rename = "shkeptnspecversion", skip_serializing_if = "Option::is_none")]
    pub(crate) keptn_spec_version: Option<String>,
    #[serde(rename = "gitcommitid", skip_serializing_if = "Option::is_none")]
    pub(crate) git_commit_id: Option<String>,
    pub(crate) scope: EventScope,
    /// `data.labels`; Keptn refuses a whole event whose label is not a string, so all are text.
    pub(crate) labels: BTreeMap<String, String>,
    /// What the event is part of, and from admission on its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) trace: Option<TraceContext>,
}

/// Where in Keptn an event belongs. Each part may be missing: not every event is about a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct EventScope {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<String>,
}

/// The `type` of an event, such as `sh.keptn.event.test.triggered`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EventType(String);

impl EventType {
    #[cfg(test)]
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Only a triggered event is answered.
    pub(crate) fn is_triggered(&self) -> bool {
        self.0.ends_with(TRIGGERED)
    }

    /// Keptn's task, where the type is `sh.keptn.event.<task>.triggered` and not that of a sequence,
    /// `sh.keptn.event.<stage>.<sequence>.triggered`.
    pub(crate) fn task(&self) -> Option<&str> {
        let stem = self.0.strip_prefix("sh.keptn.event.")?;
        let task = stem.strip_suffix(TRIGGERED)?;
        (!task.contains('.')).then_some(task)
    }

    /// What comes between `sh.keptn.event.` and the phase: a task, or a stage with a sequence.
    pub(crate) fn subject(&self) -> &str {
        let stem = self.0.strip_prefix("sh.keptn.event.").unwrap_or(&self.0);
        stem.rsplit_once('.').map_or(stem, |(subject, _)| subject)
    }

    /// The type of the answer, as Keptn's go-utils makes it: `.triggered` is cut off, `phase` is put
    /// in its place.
    fn answered(&self, phase: &str) -> String {
        let stem = self.0.strip_suffix(TRIGGERED).unwrap_or(&self.0);
        format!("{stem}.{phase}")
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why bytes are no event, for the sender to read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidEvent(String);

impl InvalidEvent {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// Of texts, and one for each value: some ten times what an event of Keptn's has.
const SMALL: usize = 16 << 10;

impl Event {
    /// Whether what is made of its values is small as well.
    pub(crate) fn is_small(&self) -> bool {
        room_after(SMALL, &self.document).is_some()
    }

    /// Takes the attributes of a CloudEvent with its `data`, already known to be well-formed.
    fn from_attributes(mut attributes: Map<String, Value>) -> Result<Self, InvalidEvent> {
        let data = attributes.get("data").unwrap_or(&Value::Null);
        let envelope = Envelope {
            id: required(&attributes, "id")?,
            source: required(&attributes, "source")?,
            event_type: EventType(required(&attributes, "type")?),
            keptn_context: extension(&attributes, "shkeptncontext"),
            keptn_spec_version: extension(&attributes, "shkeptnspecversion"),
            git_commit_id: extension(&attributes, "gitcommitid"),
            scope: EventScope {
                project: scope_name(data, "project")?,
                stage: scope_name(data, "stage")?,
                service: scope_name(data, "service")?,
            },
            labels: labels(data),
            trace: trace(&attributes),
        };
        // As in the original: a path to it finds null, not "unknown key".
        attributes
            .entry("gitcommitid")
            .or_insert(serde_json::Value::Null);
        Ok(Self {
            envelope,
            document: Value::Object(attributes),
        })
    }

    pub(crate) fn data(&self) -> &Value {
        self.document.get("data").unwrap_or(&Value::Null)
    }
}

fn required(attributes: &Map<String, Value>, name: &str) -> Result<String, InvalidEvent> {
    match attributes.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        Some(Value::String(_)) => Err(InvalidEvent::new(format!(
            "attribute `{name}` is empty, a CloudEvent needs a value there"
        ))),
        Some(other) => Err(InvalidEvent::new(format!(
            "attribute `{name}` is {other}, expected a string"
        ))),
        None => Err(InvalidEvent::new(format!(
            "attribute `{name}` is missing, a CloudEvent has `specversion`, `id`, `source` and `type`"
        ))),
    }
}

/// Keptn's distributor from 0.10 on sends absent extensions as empty strings.
fn extension(attributes: &Map<String, Value>, name: &str) -> Option<String> {
    match attributes.get(name)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => Some(other.to_string()),
    }
}

/// `CloudEvents`' extension for distributed tracing.
fn trace(attributes: &Map<String, Value>) -> Option<TraceContext> {
    let parent = extension(attributes, "traceparent")?;
    let state = extension(attributes, "tracestate");
    TraceContext::parse(&parent, state.as_deref())
}

/// Project, stage and service become segments of a URL, so they must be one segment each, also where it is decoded
/// twice.
fn scope_name(data: &Value, field: &str) -> Result<Option<String>, InvalidEvent> {
    let name = match data.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(name)) if name.is_empty() => return Ok(None),
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(InvalidEvent::new(format!(
                "`data.{field}` is {other}, expected a string"
            )));
        }
    };
    let is_segment = name != "." && name != ".." && !name.contains(['/', '\\', '%']);
    if !is_segment || name.chars().any(char::is_control) {
        return Err(InvalidEvent::new(format!(
            "`data.{field}` is {name:?}, expected a name without slashes, `%` and control characters"
        )));
    }
    Ok(Some(name.clone()))
}

fn labels(data: &Value) -> BTreeMap<String, String> {
    let Some(Value::Object(labels)) = data.get("labels") else {
        return BTreeMap::new();
    };
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    labels
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

fn room_after(room: usize, value: &Value) -> Option<usize> {
    let room = room.checked_sub(1)?;
    match value {
        Value::String(text) => room.checked_sub(text.len()),
        Value::Array(values) => values.iter().try_fold(room, room_after),
        Value::Object(values) => values.iter().try_fold(room, |room, (key, value)| {
            room_after(room.checked_sub(key.len())?, value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_an_answer_replaces_triggered() {
        for (triggered, task, started) in [
            (
                "sh.keptn.event.test.triggered",
                Some("test"),
                "sh.keptn.event.test.started",
            ),
            (
                "sh.keptn.event.dev.delivery.triggered",
                None,
                "sh.keptn.event.dev.delivery.started",
            ),
        ] {
            let event_type = EventType::new(triggered);
            assert!(event_type.is_triggered());
            assert_eq!(event_type.task(), task);
            assert_eq!(event_type.answered("started"), started);
        }
        assert!(!EventType::new("sh.keptn.event.test.finished").is_triggered());
        assert!(!EventType::new("sh.keptn.event.triggered.x").is_triggered());
    }
}
