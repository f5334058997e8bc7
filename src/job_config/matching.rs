//! Which actions of a config an event asks for.

use std::borrow::Cow;

use serde_json::Value;

use super::json_path::Found;
use super::{Action, EventMatcher, EventPattern, JobConfig, JsonPathFilter, Root};
use crate::event::Event;

impl JobConfig {
    /// The matching actions with their indexes, in the order of the file.
    pub(crate) fn matching(&self, event: &Event) -> Vec<(usize, &Action)> {
        self.actions
            .iter()
            .enumerate()
            .filter(|(_, action)| action.matchers.iter().any(|matcher| matcher.holds(event)))
            .collect()
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
        let found = match self.root {
            Root::Event => self.property.find(&event.document),
            Root::DataThenEvent => match self.property.find(event.data()) {
                Ok(Found::List(values)) if values.is_empty() => self.property.find(&event.document),
                Err(_) => self.property.find(&event.document),
                found => found,
            },
        };
        // As in the original, a list equals no text.
        match found {
            Ok(Found::One(value)) => as_text(value).is_some_and(|text| text == self.expected),
            Ok(Found::List(_)) | Err(_) => false,
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
