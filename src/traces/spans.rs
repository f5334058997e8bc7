//! What is told of a run, as spans: one for the run, below it two for what it took until its first Job was
//! there, one for each task and for each answer. Pure.

use jiff::Timestamp;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use crate::event::Envelope;
use crate::event::answer::Verdict;
use crate::event::trace::{self, SpanId, TraceContext};
use crate::report::shortened;
use crate::run::{Place, RunId};

/// Bytes of the reason of a failure; the answer has it all.
const MAX_REASON: usize = 512;

/// A run that is over.
pub(crate) struct RunTold<'a> {
    pub(crate) id: &'a RunId,
    pub(crate) event: &'a Envelope,
    pub(crate) arrived: Timestamp,
    pub(crate) over: Timestamp,
    pub(crate) verdict: Verdict,
    pub(crate) beginning: Beginning,
    pub(crate) tasks: &'a [TaskTold<'a>],
    pub(crate) answers: &'a [AnswerTold],
}

/// How far a run had come by when, before its first task: as far as this process saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Beginning {
    /// Its config was there, or given up.
    pub(crate) config: Option<(Timestamp, Config)>,
    /// Its first Job was there.
    pub(crate) job: Option<Timestamp>,
}

/// Whether Keptn gave a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Config {
    Read,
    Unreadable,
}

/// A task that had a Job.
pub(crate) struct TaskTold<'a> {
    pub(crate) place: Place<'a>,
    /// In which its Job was.
    pub(crate) namespace: String,
    pub(crate) pod: Option<String>,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    pub(crate) result: Result,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Result {
    Succeeded,
    /// It failed, and the action goes on.
    Warned(String),
    Failed(String),
}

/// An answer that Keptn took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnswerTold {
    pub(crate) event_type: String,
    pub(crate) attempts: u32,
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
}

/// None where the run is in no trace, or in one that is not recorded.
pub(super) fn of(run: &RunTold<'_>) -> Vec<Span> {
    let Some(context) = run.event.trace.as_ref().filter(|trace| trace.is_sampled()) else {
        return Vec::new();
    };
    let trace::Span::Run { id, parent } = context.span else {
        return Vec::new();
    };
    // Clocks differ, and the cluster's has seconds only: what is below a span is within it.
    let end = run.over.max(run.arrived);
    let within = |time: Timestamp| time.clamp(run.arrived, end);
    let mut spans = vec![Span {
        kind: SpanKind::Consumer.into(),
        attributes: of_run(run),
        status: Some(match run.verdict {
            Verdict::Succeeded | Verdict::Warned => status(StatusCode::Ok, ""),
            Verdict::Errored => status(StatusCode::Error, "the run errored"),
        }),
        ..span(context, id, run.event.event_type.as_str(), run.arrived, end)
    }];
    if let Some(parent) = parent {
        spans[0].parent_span_id = parent.to_bytes().into();
    }
    let mut begins = run.arrived;
    let mut until_then = |kind: SpanKind, name: &str, then: Timestamp, how: Status| {
        let (began, ended) = (begins, within(then).max(begins));
        begins = ended;
        Span {
            parent_span_id: id.to_bytes().into(),
            kind: kind.into(),
            status: Some(how),
            ..span(context, run.id.span_id(name), name, began, ended)
        }
    };
    if let Some((then, config)) = run.beginning.config {
        let how = match config {
            Config::Read => status(StatusCode::Ok, ""),
            Config::Unreadable => status(StatusCode::Error, "the config cannot be read"),
        };
        spans.push(until_then(
            SpanKind::Client,
            "read job/config.yaml",
            then,
            how,
        ));
    }
    if let Some(then) = run.beginning.job {
        let how = status(StatusCode::Ok, "");
        spans.push(until_then(
            SpanKind::Internal,
            "create the first Job",
            then,
            how,
        ));
    }
    for task in run.tasks {
        let (began, ended) = (within(task.began), within(task.ended));
        let name = format!("task {}", task.place.task.name);
        let of_task = task.place.span_id();
        spans.push(Span {
            parent_span_id: id.to_bytes().into(),
            kind: SpanKind::Internal.into(),
            attributes: of_task_attributes(task),
            status: Some(match &task.result {
                Result::Succeeded => status(StatusCode::Ok, ""),
                Result::Warned(reason) | Result::Failed(reason) => {
                    status(StatusCode::Error, &shortened(reason, MAX_REASON))
                }
            }),
            ..span(context, of_task, &name, began, ended.max(began))
        });
    }
    for answer in run.answers {
        let (began, ended) = (within(answer.began), within(answer.ended));
        let name = format!("send {}", answer.event_type);
        spans.push(Span {
            parent_span_id: id.to_bytes().into(),
            kind: SpanKind::Producer.into(),
            attributes: attributes([
                (
                    "cloudevents.event_type",
                    Some(answer.event_type.as_str().into()),
                ),
                ("keptn.attempts", Some(i64::from(answer.attempts).into())),
            ]),
            status: Some(status(StatusCode::Ok, "")),
            ..span(
                context,
                run.id.span_id(&name),
                &name,
                began,
                ended.max(began),
            )
        });
    }
    spans
}

fn of_run(run: &RunTold<'_>) -> Vec<KeyValue> {
    let event = run.event;
    attributes([
        ("job_executor.run", Some(run.id.to_string().into())),
        ("cloudevents.event_id", Some(event.id.as_str().into())),
        (
            "cloudevents.event_source",
            Some(event.source.as_str().into()),
        ),
        (
            "cloudevents.event_type",
            Some(event.event_type.as_str().into()),
        ),
        (
            "keptn.context",
            event.keptn_context.as_deref().map(Into::into),
        ),
        (
            "keptn.project",
            event.scope.project.as_deref().map(Into::into),
        ),
        ("keptn.stage", event.scope.stage.as_deref().map(Into::into)),
        (
            "keptn.service",
            event.scope.service.as_deref().map(Into::into),
        ),
        ("keptn.result", Some(run.verdict.result().into())),
    ])
}

fn of_task_attributes(task: &TaskTold<'_>) -> Vec<KeyValue> {
    let place = task.place;
    let result = match task.result {
        Result::Succeeded => "succeeded",
        Result::Warned(_) => "warned",
        Result::Failed(_) => "failed",
    };
    attributes([
        (
            "job_executor.action",
            Some(place.action.name.as_str().into()),
        ),
        ("job_executor.task", Some(place.task.name.as_str().into())),
        ("job_executor.result", Some(result.into())),
        ("k8s.namespace.name", Some(task.namespace.as_str().into())),
        ("k8s.job.name", Some(place.job_name().into())),
        ("k8s.pod.name", task.pod.as_deref().map(Into::into)),
        (
            "container.image.name",
            Some(place.task.image.as_str().into()),
        ),
    ])
}

fn span(
    context: &TraceContext,
    id: SpanId,
    name: &str,
    began: Timestamp,
    ended: Timestamp,
) -> Span {
    Span {
        trace_id: context.trace.to_bytes().into(),
        span_id: id.to_bytes().into(),
        trace_state: context.tracestate().unwrap_or_default().to_owned(),
        flags: context.flags().into(),
        name: name.to_owned(),
        start_time_unix_nano: nanoseconds(began),
        end_time_unix_nano: nanoseconds(ended),
        ..Span::default()
    }
}

/// Since 1970, until 2554.
fn nanoseconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond()).unwrap_or_default()
}

fn status(code: StatusCode, message: &str) -> Status {
    Status {
        message: message.to_owned(),
        code: code.into(),
    }
}

pub(super) enum Value {
    Text(String),
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Those that have a value.
pub(super) fn attributes<const N: usize>(
    pairs: [(&'static str, Option<Value>); N],
) -> Vec<KeyValue> {
    let pairs = pairs.into_iter();
    pairs
        .filter_map(|(key, value)| {
            let value = match value? {
                Value::Text(text) => any_value::Value::StringValue(text),
                Value::Number(number) => any_value::Value::IntValue(number),
            };
            Some(KeyValue {
                key: key.to_owned(),
                value: Some(AnyValue { value: Some(value) }),
                ..KeyValue::default()
            })
        })
        .collect()
}
