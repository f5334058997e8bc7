//! The events that go back to Keptn: `.started` and `.finished`.
//!
//! An answer is a function of what it answers: the same run gives the same ids, times and text, so
//! that sending it again after a crash sends the same event.

use cloudevents::{EventBuilder, EventBuilderV10};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Envelope;

/// The `source` of all answers; Keptn shows it and, at 0.8, matches finished to started with it.
pub(crate) const SOURCE: &str = "job-executor-service";

/// Makes answer ids of this project differ from everybody else's UUIDs of the same text.
pub(super) const ID_NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_3a52_8d0e_4b8f_9a43_53c1_0e7d_b2a4);

/// An answer with more would not fit through Keptn's distributor, whatever its message is; Keptn has the
/// labels from the event itself.
const MAX_LABELS_BYTES: usize = 16 << 10;

/// What answers tell of: the work begins.
pub(crate) const STARTED: &str = "started";

/// The work is over.
pub(crate) const FINISHED: &str = "finished";

/// How the work for a triggered event ended: `status` and `result` of its `.finished`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Succeeded,
    /// Something failed that is no reason to stop.
    Warned,
    Errored,
}

impl Verdict {
    fn status(self) -> &'static str {
        match self {
            Self::Succeeded | Self::Warned => "succeeded",
            Self::Errored => "errored",
        }
    }

    pub(crate) fn result(self) -> &'static str {
        match self {
            Self::Succeeded => "pass",
            Self::Warned => "warning",
            Self::Errored => "fail",
        }
    }
}

/// The part of an answer's data under the name of Keptn's task, such as `data.test`.
pub(crate) type Section = Map<String, Value>;

/// When the tasks of a test ran; Keptn's evaluation takes its time frame from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeFrame {
    pub(crate) start: Timestamp,
    pub(crate) end: Timestamp,
}

/// One event on its way to Keptn.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    id: Uuid,
    event_type: String,
    time: Timestamp,
    envelope: Envelope,
    /// Of `.finished`.
    verdict: Verdict,
    data: Map<String, Value>,
}

/// `.started`: data as of the original's 0.2.x, i.e. project, stage, service and labels.
pub(crate) fn started(envelope: &Envelope, time: Timestamp) -> Answer {
    Answer::new(envelope, STARTED, time)
}

/// `.finished`; `frame` becomes `test.start` and `test.end` where Keptn's task is `test`.
pub(crate) fn finished(
    envelope: &Envelope,
    time: Timestamp,
    verdict: Verdict,
    message: &str,
    frame: Option<TimeFrame>,
) -> Answer {
    let mut answer = Answer::new(envelope, FINISHED, time);
    answer.verdict = verdict;
    answer.data.insert("status".into(), verdict.status().into());
    answer.data.insert("result".into(), verdict.result().into());
    answer.data.insert("message".into(), message.into());
    if let Some(TimeFrame { start, end }) = frame
        && envelope.event_type.task() == Some("test")
    {
        let seconds = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        answer.data.insert(
            "test".into(),
            json!({"start": seconds(start), "end": seconds(end)}),
        );
    }
    answer
}

/// Whether an answer to this event has a section for its task: a sequence's event is of none, and some
/// names are those of other parts of the data.
pub(crate) fn has_section(envelope: &Envelope) -> bool {
    const OTHERS: [&str; 8] = [
        "project",
        "stage",
        "service",
        "labels",
        "status",
        "result",
        "message",
        "temporaryData",
    ];
    let task = envelope.event_type.task();
    task.is_some_and(|task| !OTHERS.contains(&task))
}

/// The id of the answer of this phase to an event, whenever and by whom it is sent.
pub(crate) fn id(envelope: &Envelope, phase: &str) -> Uuid {
    let name = format!("{}\n{}\n{phase}", envelope.source, envelope.id);
    Uuid::new_v5(&ID_NAMESPACE, name.as_bytes())
}

pub(crate) fn event_type(envelope: &Envelope, phase: &str) -> String {
    envelope.event_type.answered(phase)
}

impl Answer {
    fn new(envelope: &Envelope, phase: &str, time: Timestamp) -> Self {
        let scope = &envelope.scope;
        let mut data = Map::new();
        for (field, value) in [
            ("project", &scope.project),
            ("stage", &scope.stage),
            ("service", &scope.service),
        ] {
            if let Some(value) = value {
                data.insert(field.into(), value.as_str().into());
            }
        }
        let labels = json!(envelope.labels);
        if !envelope.labels.is_empty() && labels.to_string().len() <= MAX_LABELS_BYTES {
            data.insert("labels".into(), labels);
        }
        Self {
            id: id(envelope, phase),
            event_type: event_type(envelope, phase),
            time,
            envelope: envelope.clone(),
            verdict: Verdict::Succeeded,
            data,
        }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn event_type(&self) -> &str {
        &self.event_type
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    pub(crate) fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The event in structured mode, the only one that Keptn's distributor reads.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, AnswerError> {
        let mut builder = EventBuilderV10::new()
            .id(self.id.to_string())
            .source(SOURCE)
            .ty(self.event_type.as_str())
            .time(self.time.to_string())
            .extension("triggeredid", self.envelope.id.as_str());
        for (name, value) in [
            ("shkeptncontext", &self.envelope.keptn_context),
            ("shkeptnspecversion", &self.envelope.keptn_spec_version),
            ("gitcommitid", &self.envelope.git_commit_id),
        ] {
            if let Some(value) = value {
                builder = builder.extension(name, value.as_str());
            }
        }
        if let Some(trace) = &self.envelope.trace {
            builder = builder.extension("traceparent", trace.traceparent());
            if let Some(state) = trace.tracestate() {
                builder = builder.extension("tracestate", state);
            }
        }
        let event = builder
            .data("application/json", Value::Object(self.data.clone()))
            .build()?;
        Ok(serde_json::to_vec(&event)?)
    }

    /// The same answer with these fields in its task's section, over those that are there; without one
    /// where [`has_section`] says so.
    pub(crate) fn with_section(mut self, section: Section) -> Self {
        if section.is_empty() || !has_section(&self.envelope) {
            return self;
        }
        if let Some(task) = self.envelope.event_type.task() {
            let of_task = self.data.entry(task).or_insert_with(|| json!({}));
            if let Value::Object(of_task) = of_task {
                of_task.extend(section);
            }
        }
        self
    }

    /// The same answer with another message.
    pub(crate) fn with_message(&self, message: String) -> Self {
        let mut answer = self.clone();
        answer.data.insert("message".into(), message.into());
        answer
    }

    pub(crate) fn message(&self) -> &str {
        self.data
            .get("message")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// A bug rather than a state of the world: every part of an answer was checked before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("cannot build the event")]
    Build(#[from] cloudevents::event::EventBuilderError),
    #[error("cannot write the event as JSON")]
    Json(#[from] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::content_mode::decode;

    fn envelope(text: &str) -> Envelope {
        let mut headers = http::HeaderMap::new();
        headers.insert(
            "content-type",
            "application/cloudevents+json".parse().unwrap(),
        );
        let mut events = decode(&headers, text.as_bytes()).unwrap();
        events.remove(0).unwrap().envelope
    }

    #[test]
    fn a_finished_event_carries_what_keptn_needs() {
        let envelope = envelope(include_str!("../tests/events/keptn-0.19.3.json"));
        let time: Timestamp = "2026-11-23T20:50:00Z".parse().unwrap();
        let frame = TimeFrame {
            start: time,
            end: "2026-11-23T20:50:07.5Z".parse().unwrap(),
        };
        let answer = finished(&envelope, time, Verdict::Errored, "a <b>", Some(frame));
        let mut written: Value = serde_json::from_slice(&answer.to_json().unwrap()).unwrap();
        written.sort_all_objects();
        insta::assert_snapshot!(serde_json::to_string_pretty(&written).unwrap(), @r#"
        {
          "data": {
            "labels": {
              "k": "v"
            },
            "message": "a <b>",
            "project": "real",
            "result": "fail",
            "service": "svc",
            "stage": "dev",
            "status": "errored",
            "test": {
              "end": "2026-11-23T20:50:07Z",
              "start": "2026-11-23T20:50:00Z"
            }
          },
          "datacontenttype": "application/json",
          "gitcommitid": "9bf215751c1d4a9d2f9c735cafc3b13929dd86d8",
          "id": "c8e2a932-08ac-5136-8cad-56d63ec0116f",
          "shkeptncontext": "300fdd56-1f7b-4b5c-9a0e-7d1f4a6e2b33",
          "shkeptnspecversion": "latest",
          "source": "job-executor-service",
          "specversion": "1.0",
          "time": "2026-11-23T20:50:00Z",
          "triggeredid": "e2f48087-5a1e-4a55-8d58-0f6f7a3b9c10",
          "type": "sh.keptn.event.test.finished"
        }
        "#);
    }

    #[test]
    fn the_same_event_gives_the_same_ids_and_each_phase_its_own() {
        let envelope = envelope(include_str!("../tests/events/keptn-0.8.2.json"));
        let now = Timestamp::UNIX_EPOCH;
        let id = |answer: &Answer| answer.id;
        assert_eq!(
            id(&started(&envelope, now)),
            id(&started(
                &envelope,
                now + jiff::SignedDuration::from_secs(1)
            ))
        );
        assert_ne!(
            id(&started(&envelope, now)),
            id(&finished(&envelope, now, Verdict::Succeeded, "", None))
        );
    }
}
