//! A collector of spans, as a scenario has it.

use std::fmt::Write;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::keptn::{SendError, Transport};

#[derive(Clone, Default)]
pub(super) struct Collector(Arc<Mutex<Model>>);

#[derive(Default)]
struct Model {
    /// Nothing listens.
    away: bool,
    /// Answers to the next requests, before it takes what comes.
    troubles: Vec<StatusCode>,
    /// What these say of when to come again.
    retry_after: Option<&'static str>,
    /// Of each request, from now on.
    refuses: i64,
    attempts: usize,
    taken: Vec<ResourceSpans>,
    shown: Vec<(String, HeaderMap)>,
}

impl Collector {
    pub(super) fn transport(&self) -> Transport {
        let model = Arc::clone(&self.0);
        BoxCloneSyncService::new(service_fn(move |request: reqwest::Request| {
            let answer = model.lock().unwrap().answer(&request);
            std::future::ready(answer)
        }))
    }

    pub(super) fn is_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }

    pub(super) fn answers_with(&self, statuses: &[u16]) {
        let statuses = statuses
            .iter()
            .map(|code| StatusCode::from_u16(*code).unwrap());
        self.0.lock().unwrap().troubles = statuses.collect();
    }

    pub(super) fn wants_to_be_asked_after(&self, seconds: &'static str) {
        self.0.lock().unwrap().retry_after = Some(seconds);
    }

    pub(super) fn refuses_spans(&self, count: i64) {
        self.0.lock().unwrap().refuses = count;
    }

    pub(super) fn attempts(&self) -> usize {
        self.0.lock().unwrap().attempts
    }

    /// Address and headers of the requests.
    pub(super) fn shown(&self) -> Vec<(String, HeaderMap)> {
        self.0.lock().unwrap().shown.clone()
    }

    pub(super) fn spans(&self) -> Vec<Span> {
        let model = self.0.lock().unwrap();
        let scopes = model.taken.iter().flat_map(|of| &of.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// Whose spans they are.
    pub(super) fn resource(&self) -> String {
        let model = self.0.lock().unwrap();
        attributes(&model.taken[0].resource.as_ref().unwrap().attributes)
    }

    /// The spans as a tree, without times.
    pub(super) fn tree(&self) -> String {
        let spans = self.spans();
        let mut text = String::new();
        let is_root = |span: &&Span| !spans.iter().any(|of| of.span_id == span.parent_span_id);
        for root in spans.iter().filter(is_root) {
            write(root, &spans, 0, &mut text);
        }
        super::shortened(&text)
    }
}

impl Model {
    fn answer(&mut self, request: &reqwest::Request) -> Result<reqwest::Response, SendError> {
        self.attempts += 1;
        if self.away {
            return Err(SendError::NotSent("connection refused".into()));
        }
        let status = if self.troubles.is_empty() {
            self.shown
                .push((request.url().to_string(), request.headers().clone()));
            let body = request.body().unwrap().as_bytes().unwrap();
            let taken = ExportTraceServiceRequest::decode(body).unwrap();
            self.taken.extend(taken.resource_spans);
            StatusCode::OK
        } else {
            self.troubles.remove(0)
        };
        let mut response = http::Response::builder().status(status);
        if let Some(seconds) = self.retry_after.filter(|_| status != StatusCode::OK) {
            response = response.header("retry-after", seconds);
        }
        let partial_success = ExportTracePartialSuccess {
            rejected_spans: self.refuses,
            error_message: "too many attributes".into(),
        };
        let said = ExportTraceServiceResponse {
            partial_success: Some(partial_success).filter(|part| part.rejected_spans > 0),
        };
        Ok(response.body(said.encode_to_vec()).unwrap().into())
    }
}

fn write(span: &Span, all: &[Span], depth: usize, text: &mut String) {
    let status = span.status.clone().unwrap_or_default();
    let parent = hex(&span.parent_span_id);
    let of = if depth == 0 {
        format!(" < {parent}")
    } else {
        String::new()
    };
    let failure = if status.code == 2 {
        format!(" ERROR {}", status.message)
    } else {
        String::new()
    };
    writeln!(
        text,
        "{:indent$}{} [{}]{of}{failure}",
        "",
        span.name,
        attributes(&span.attributes),
        indent = 2 * depth
    )
    .unwrap();
    for child in all.iter().filter(|of| of.parent_span_id == span.span_id) {
        assert!(span.start_time_unix_nano <= child.start_time_unix_nano);
        assert!(child.start_time_unix_nano <= child.end_time_unix_nano);
        assert!(child.end_time_unix_nano <= span.end_time_unix_nano);
        assert_eq!(child.trace_id, span.trace_id);
        write(child, all, depth + 1, text);
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: &[KeyValue]) -> String {
    let shown = pairs.iter().map(|pair| {
        let value = match pair
            .value
            .as_ref()
            .and_then(|of| of.value.as_ref())
            .unwrap()
        {
            any_value::Value::StringValue(text) => text.clone(),
            any_value::Value::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        format!("{}={value}", pair.key)
    });
    shown.collect::<Vec<_>>().join(" ")
}
