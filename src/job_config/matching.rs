//! Which actions of a config an event asks for, and why the others are not.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use super::json_path::Found;
use super::problem::one_line;
use super::{Action, EventMatcher, EventPattern, JobConfig, JsonPathFilter, Root};
use crate::event::Event;

/// A log line is for people.
const MAX_SHOWN_ACTIONS: usize = 10;

/// Of a value of the event.
const MAX_SHOWN_CHARS: usize = 80;

/// An action with what each of its matchers asked of an event.
#[derive(Debug)]
pub(crate) struct Judged<'a> {
    /// The action's place in the file, from 0.
    pub(crate) index: usize,
    pub(crate) action: &'a Action,
    /// One of which all conditions hold is enough.
    pub(crate) matchers: Vec<Vec<Condition>>,
}

/// Why no action is for an event, in one line; values of the event are not in it.
pub(crate) fn why_none(actions: &[Judged<'_>]) -> String {
    if actions.is_empty() {
        return "the config has no actions".into();
    }
    let mut reasons: Vec<String> = actions
        .iter()
        .take(MAX_SHOWN_ACTIONS)
        .map(|judged| {
            format!(
                "`{}`: {}",
                one_line(&judged.action.name),
                judged.reasons().join(", ")
            )
        })
        .collect();
    if actions.len() > MAX_SHOWN_ACTIONS {
        reasons.push(format!("and {} more", actions.len() - MAX_SHOWN_ACTIONS));
    }
    reasons.join("; ")
}

/// One condition of a matcher and what the event has to say to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Condition {
    /// Of the file, from 1.
    pub(crate) line: u32,
    /// What it is about, such as `the type` or a path.
    pub(crate) subject: String,
    /// What the event has there, such as `"functional"` or `a list`.
    pub(crate) found: String,
    pub(crate) asked: String,
    #[serde(skip)]
    relation: Relation,
    pub(crate) holds: bool,
}

/// Between what the event has and what is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Is,
    Matches,
}

impl JobConfig {
    /// The matching actions with their indexes, in the order of the file.
    pub(crate) fn matching(&self, event: &Event) -> Vec<(usize, &Action)> {
        self.actions
            .iter()
            .enumerate()
            .filter(|(_, action)| action.matchers.iter().any(|matcher| matcher.holds(event)))
            .collect()
    }

    /// All actions, in the order of the file.
    pub(crate) fn judge(&self, event: &Event) -> Vec<Judged<'_>> {
        self.actions
            .iter()
            .enumerate()
            .map(|(index, action)| Judged {
                index,
                action,
                matchers: action
                    .matchers
                    .iter()
                    .map(|matcher| matcher.judge(event))
                    .collect(),
            })
            .collect()
    }
}

impl Judged<'_> {
    pub(crate) fn matches(&self) -> bool {
        self.matchers
            .iter()
            .any(|conditions| conditions.iter().all(|condition| condition.holds))
    }

    /// Why the action is not for the event: of each matcher what does not hold.
    pub(crate) fn reasons(&self) -> Vec<String> {
        if self.matchers.is_empty() {
            let line = self.action.line;
            return vec![format!("line {line}: it has no `events`, so it never runs")];
        }
        self.matchers
            .iter()
            .filter_map(|conditions| conditions.iter().find(|condition| !condition.holds))
            .map(Condition::to_string)
            .collect()
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match (self.relation, self.holds) {
            (Relation::Is, true) => "is",
            (Relation::Is, false) => "is not",
            (Relation::Matches, true) => "matches",
            (Relation::Matches, false) => "does not match",
        };
        write!(
            f,
            "line {}: {} {verb} {}",
            self.line, self.subject, self.asked
        )
    }
}

impl EventMatcher {
    fn holds(&self, event: &Event) -> bool {
        self.event_type.matches(event.envelope.event_type.as_str())
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.holds(event))
    }

    fn judge(&self, event: &Event) -> Vec<Condition> {
        let event_type = event.envelope.event_type.as_str();
        let mut conditions = vec![Condition {
            line: self.line,
            subject: "the type".into(),
            found: shortened(event_type),
            asked: match self.event_type.text() {
                "" => "asked for".into(),
                pattern => shortened(pattern),
            },
            relation: match &self.event_type {
                EventPattern::Matching(Some(_)) => Relation::Matches,
                EventPattern::Exact(_) | EventPattern::Matching(None) => Relation::Is,
            },
            holds: self.event_type.matches(event_type),
        }];
        conditions.extend(self.filter.as_ref().map(|filter| filter.judge(event)));
        conditions
    }
}

impl EventPattern {
    fn matches(&self, event_type: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == event_type,
            Self::Matching(pattern) => pattern
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(event_type)),
        }
    }
}

impl JsonPathFilter {
    fn holds(&self, event: &Event) -> bool {
        match self.finds(event) {
            Ok(Found::One(value)) => as_text(value).is_some_and(|text| text == self.expected),
            // As in the original, a list equals no text.
            Ok(Found::List(_)) | Err(_) => false,
        }
    }

    fn judge(&self, event: &Event) -> Condition {
        Condition {
            line: self.line,
            subject: one_line(&self.property.to_string()),
            found: match self.finds(event) {
                Ok(Found::One(value)) => shown(value),
                Ok(Found::List(values)) => {
                    format!("a list of {}, which equals no text", values.len())
                }
                Err(missing) => format!("nothing there ({missing})"),
            },
            asked: quoted(&self.expected),
            relation: Relation::Is,
            holds: self.holds(event),
        }
    }

    fn finds<'a>(&self, event: &'a Event) -> Result<Found<'a>, super::json_path::NotFound> {
        match self.root {
            Root::Event => self.property.find(&event.document),
            Root::DataThenEvent => match self.property.find(event.data()) {
                Ok(Found::List(values)) if values.is_empty() => self.property.find(&event.document),
                Err(_) => self.property.find(&event.document),
                found => found,
            },
        }
    }
}

/// Strings, numbers and booleans can be compared with a text; 5 equals "5".
fn as_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(boolean) => Some(boolean.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null, which equals no text".into(),
        Value::Array(items) => format!("a list of {}, which equals no text", items.len()),
        Value::Object(_) => "a map, which equals no text".into(),
        scalar => quoted(&as_text(scalar).unwrap_or_default()),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

fn shortened(text: &str) -> String {
    let mut short: String = one_line(text).chars().take(MAX_SHOWN_CHARS).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job_config::reader;

    fn event(event_type: &str, data: &Value) -> Event {
        let mut headers = http::HeaderMap::new();
        headers.insert(
            "content-type",
            "application/cloudevents+json".parse().unwrap(),
        );
        let body = json!({"specversion": "1.0", "id": "1", "source": "s", "type": event_type,
            "shkeptncontext": "c", "triggeredid": "t", "data": data});
        let events =
            crate::event::content_mode::decode(&headers, body.to_string().as_bytes()).unwrap();
        events.into_iter().next().unwrap().unwrap()
    }

    fn names(config: &str, event: &Event) -> Vec<String> {
        let config = reader::read(config.as_bytes()).unwrap().config;
        config
            .matching(event)
            .into_iter()
            .map(|(_, action)| action.name.clone())
            .collect()
    }

    #[test]
    fn a_type_is_matched_as_a_regular_expression_anywhere_in_it() {
        let config = "
apiVersion: v2
actions:
  - {name: pattern, events: [{name: sh.keptn.event.*.triggered}]}
  - {name: part, events: [{name: action}]}
  - {name: any, events: [{}]}
  - {name: never, events: []}
  - {name: other, events: [{name: ^action}]}
";
        let event = event("sh.keptn.event.action.triggered", &json!({}));
        assert_eq!(names(config, &event), ["pattern", "part", "any"]);
    }

    #[test]
    fn the_first_format_wants_the_exact_type_and_looks_into_data_first() {
        let config = |path: &str, expected: &str| {
            format!(
                "actions: [{{name: a, event: sh.keptn.event.test.triggered, \
                 jsonpath: {{property: '{path}', match: {expected}}}, \
                 tasks: [{{name: t, image: i}}]}}]"
            )
        };
        let data = json!({"test": {"teststrategy": "locust"}, "type": "inner"});
        let test = event("sh.keptn.event.test.triggered", &data);
        for (path, expected, matches) in [
            ("$.test.teststrategy", "locust", true),
            ("$.data.test.teststrategy", "locust", true),
            ("$.type", "inner", true),
            ("$.source", "s", true),
            ("$.test.teststrategy", "health", false),
            ("$.test", "locust", false),
        ] {
            let found = names(&config(path, expected), &test);
            assert_eq!(!found.is_empty(), matches, "{path} {expected}");
        }
        let other = event("sh.keptn.event.test.triggered.x", &data);
        assert!(names(&config("$.test.teststrategy", "locust"), &other).is_empty());
    }

    #[test]
    fn values_are_compared_as_text() {
        let data = json!({"n": 5, "big": 1_234_567, "t": true, "s": "x", "null": null, "l": ["x"]});
        let event = event("t", &data);
        for (path, expected, matches) in [
            ("$.data.n", "5", true),
            ("$.data.n", "'5'", true),
            ("$.data.big", "1234567", true),
            ("$.data.t", "true", true),
            ("$.data.s", "x", true),
            ("$.data.l[0]", "x", true),
            ("$.triggeredid", "t", true),
            ("$.shkeptncontext", "c", true),
            ("$.data.l", "x", false),
            ("$.data.l[*]", "x", false),
            ("$.data.null", "'null'", false),
            ("$.data.missing", "''", false),
        ] {
            let config = format!(
                "apiVersion: v2\nactions: [{{name: a, events: [{{name: t, jsonpath: \
                 {{property: '{path}', match: {expected}}}}}]}}]"
            );
            assert_eq!(
                !names(&config, &event).is_empty(),
                matches,
                "{path} {expected}"
            );
        }
    }
}
