//! What tasks write for the answer: JSON objects that become one. Pure.

use serde_json::Value;

use crate::cluster::TaskEnd;
use crate::event::Envelope;
use crate::event::answer::{self, Section};
use crate::job_config::files::ResultFile;
use crate::report::Ending;

/// Of a termination message, which is how the file travels.
const KUBERNETES_LIMIT: usize = 4096;

/// What a task that ended says for the answer. What cannot be read fails it, for whoever waits for the
/// result; a task that failed for itself keeps its reason.
pub(super) fn of(event: &Envelope, end: &TaskEnd, file: Option<&ResultFile>) -> (Section, Ending) {
    let text = end.result.as_deref().unwrap_or_default().trim();
    let Some(file) = file.filter(|_| !text.is_empty()) else {
        return (Section::new(), end.ending.clone());
    };
    if !answer::has_section(event) {
        let failure = format!(
            "its `resultFile` {file} has no place in the answer: `{}` is no task of Keptn's with data of its own",
            event.event_type
        );
        return (Section::new(), failed_unless_failed(end, failure));
    }
    let error = match serde_json::from_str(text) {
        Ok(Value::Object(section)) => return (section, end.ending.clone()),
        Ok(_) => "it is no object such as `{\"key\": \"value\"}`".to_owned(),
        Err(error) => error.to_string(),
    };
    let bytes = text.len();
    let cut = if bytes + 64 > KUBERNETES_LIMIT {
        format!("; Kubernetes brings {KUBERNETES_LIMIT} bytes of it at most")
    } else {
        String::new()
    };
    let failure = format!("its `resultFile` {file} holds no JSON object: {error}{cut}");
    (Section::new(), failed_unless_failed(end, failure))
}

fn failed_unless_failed(end: &TaskEnd, failure: String) -> Ending {
    match &end.ending {
        Ending::Succeeded => Ending::Failed(failure),
        failed @ Ending::Failed(_) => failed.clone(),
    }
}

/// The results of all tasks, in their order: of a key that two of them write the later value counts, and
/// objects are merged.
pub(super) struct Results {
    section: Section,
    /// Bytes of JSON.
    limit: usize,
}

impl Results {
    pub(super) fn within(limit: usize) -> Self {
        Self {
            section: Section::new(),
            limit,
        }
    }

    /// Adds what a task wrote; gives how it ended, since what does not fit fails it.
    pub(super) fn take(&mut self, result: Section, ending: Ending) -> Ending {
        if result.is_empty() {
            return ending;
        }
        let mut merged = Value::Object(self.section.clone());
        merge(&mut merged, Value::Object(result));
        let bytes = merged.to_string().len();
        match (merged, ending) {
            (Value::Object(section), ending) if bytes <= self.limit => {
                self.section = section;
                ending
            }
            (_, Ending::Succeeded) => Ending::Failed(format!(
                "its result does not fit: the results of all tasks take {bytes} bytes with it, allowed are \
                 {} (half of MAX_ANSWER_BYTES of the service)",
                self.limit
            )),
            (_, failed) => failed,
        }
    }

    pub(super) fn into_section(self) -> Section {
        self.section
    }
}

fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(fields)) => {
            for (key, value) in fields {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, value) => *into = value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;
    use crate::run::tests::envelope;

    fn end(ending: Ending, result: &str) -> TaskEnd {
        TaskEnd {
            ending,
            result: Some(result.to_owned()),
            ..TaskEnd::failed(String::new())
        }
    }

    fn told(ending: Ending, result: &str) -> String {
        let file = ResultFile::parse("/keptn/.result.json").unwrap();
        let (section, ending) = of(&envelope("1"), &end(ending, result), Some(&file));
        format!("{} {ending:?}", Value::Object(section))
    }

    #[test]
    fn only_a_json_object_is_a_result() {
        let failed = || Ending::Failed("why".into());
        let rows = [
            told(Ending::Succeeded, " {\"a\": 1}\n"),
            told(Ending::Succeeded, " \n"),
            told(Ending::Succeeded, "[1]"),
            told(Ending::Succeeded, "a: b"),
            told(
                Ending::Succeeded,
                &format!("{{\"a\": \"{}", "x".repeat(4090)),
            ),
            told(failed(), "{\"a\": 1}"),
            told(failed(), "x"),
        ];
        insta::assert_snapshot!(rows.join("\n"), @r#"
        {"a":1} Succeeded
        {} Succeeded
        {} Failed("its `resultFile` /keptn/.result.json holds no JSON object: it is no object such as `{\"key\": \"value\"}`")
        {} Failed("its `resultFile` /keptn/.result.json holds no JSON object: expected value at line 1 column 1")
        {} Failed("its `resultFile` /keptn/.result.json holds no JSON object: EOF while parsing a string at line 1 column 4097; Kubernetes brings 4096 bytes of it at most")
        {"a":1} Failed("why")
        {} Failed("why")
        "#);
    }

    #[test]
    fn a_result_needs_a_place_in_the_answer() {
        let file = ResultFile::parse("/keptn/.result.json").unwrap();
        for (event_type, has_place) in [
            ("sh.keptn.event.get-sli.triggered", true),
            ("sh.keptn.event.labels.triggered", false),
            ("sh.keptn.event.dev.delivery.triggered", false),
        ] {
            let mut envelope = envelope("1");
            envelope.event_type = EventType::new(event_type);
            let end = end(Ending::Succeeded, "{}");
            let (_, ending) = of(&envelope, &end, Some(&file));
            assert_eq!(ending == Ending::Succeeded, has_place, "{event_type}");
        }
    }

    #[test]
    fn later_results_are_laid_over_earlier_ones() {
        let mut results = Results::within(60);
        let mut take = |json: &str| {
            let section = serde_json::from_str(json).unwrap();
            results.take(section, Ending::Succeeded)
        };
        assert_eq!(
            take(r#"{"a": {"x": 1, "y": [1]}, "b": 1}"#),
            Ending::Succeeded
        );
        assert_eq!(
            take(r#"{"a": {"y": [2]}, "b": {"c": 3}}"#),
            Ending::Succeeded
        );
        let too_large = take(&format!(r#"{{"d": "{}"}}"#, "x".repeat(60)));
        assert!(matches!(too_large, Ending::Failed(_)));
        insta::assert_snapshot!(Value::Object(results.into_section()), @r#"{"a":{"x":1,"y":[2]},"b":{"c":3}}"#);
    }
}
