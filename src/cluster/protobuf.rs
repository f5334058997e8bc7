//! The watch on Jobs in protobuf. The API server writes an object in protobuf once for all who watch, its own
//! controllers among them, and in JSON once more for this service alone: in a burst of events that is a tenth of
//! its work. The library reads JSON, and JSON becomes here of an object what is read of it. The form of a watch in
//! protobuf is described in "Protobuf encoding" of Kubernetes' "API Concepts".

use std::io;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use prost::Message;
use serde::Serialize;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::io::StreamReader;
use tower::BoxError;

use super::watched::JobPart;

/// JSON from whoever does not know the other, such as a fake.
const ACCEPTED: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf, application/json");

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Before each object, but not before the event of a watch that holds it.
const MAGIC: &[u8] = b"k8s\0";

/// As etcd takes no larger requests than 1.5 MiB.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// Asks for protobuf where a request begins a watch on Jobs.
pub(super) fn ask<B>(mut request: Request<B>) -> Request<B> {
    let of_jobs = request.uri().path().ends_with("/jobs");
    let query = request.uri().query().unwrap_or_default();
    if of_jobs && query.split('&').any(|pair| pair == "watch=true") {
        request.headers_mut().insert(ACCEPT, ACCEPTED);
    }
    request
}

/// Makes JSON of an answer in protobuf.
pub(super) fn read<B>(response: Response<B>) -> Response<UnsyncBoxBody<Bytes, BoxError>>
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let Some(form) = Form::of(response.headers()) else {
        return response.map(BodyExt::boxed_unsync);
    };
    let (mut head, body) = response.into_parts();
    head.headers.insert(CONTENT_TYPE, JSON);
    let json = match form {
        Form::Events => events(body).boxed(),
        Form::Object => stream::once(async { object(&body.collect().await?.to_bytes()) }).boxed(),
    };
    let body = StreamBody::new(json.map_ok(|json| Frame::data(Bytes::from(json))));
    Response::from_parts(head, body.boxed_unsync())
}

enum Form {
    /// Of a watch.
    Events,
    /// A watch that was refused: its answer is a status.
    Object,
}

impl Form {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
        let parameters = value.strip_prefix(PROTOBUF)?;
        Some(if parameters.contains("stream=watch") {
            Self::Events
        } else {
            Self::Object
        })
    }
}

/// A line each.
fn events<B>(body: B) -> impl futures::Stream<Item = Result<Vec<u8>, BoxError>> + Send
where
    B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let bytes = StreamReader::new(body.into_data_stream().map_err(io::Error::other));
    // Each after its length in four bytes.
    let codec = LengthDelimitedCodec::builder()
        .max_frame_length(MAX_EVENT_BYTES)
        .new_codec();
    FramedRead::new(bytes, codec).map(|frame| line(frame?.freeze()))
}

#[derive(Message)]
struct WatchEvent {
    #[prost(string, tag = "1")]
    event: String,
    #[prost(message, required, tag = "2")]
    object: RawExtension,
}

#[derive(Message)]
struct RawExtension {
    #[prost(bytes = "bytes", tag = "1")]
    raw: Bytes,
}

/// `k8s.io.apimachinery.pkg.runtime.Unknown`.
#[derive(Message)]
struct Enveloped {
    #[prost(message, required, tag = "1")]
    type_meta: TypeMeta,
    #[prost(bytes = "bytes", tag = "2")]
    raw: Bytes,
}

#[derive(Message, Serialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Message, Serialize)]
struct Status {
    #[prost(string, tag = "3")]
    message: String,
    #[prost(string, tag = "4")]
    reason: String,
    #[prost(uint32, tag = "6")]
    code: u32,
}

#[derive(Serialize)]
struct Line {
    r#type: String,
    object: Object,
}

#[derive(Serialize)]
struct Object {
    #[serde(flatten)]
    type_meta: TypeMeta,
    #[serde(flatten)]
    read: Read,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Read {
    Job(JobPart),
    Status(Status),
}

fn line(event: Bytes) -> Result<Vec<u8>, BoxError> {
    let event = WatchEvent::decode(event)?;
    let mut json = serde_json::to_vec(&Line {
        r#type: event.event,
        object: Object::decode(&event.object.raw)?,
    })?;
    json.push(b'\n');
    Ok(json)
}

fn object(bytes: &Bytes) -> Result<Vec<u8>, BoxError> {
    Ok(serde_json::to_vec(&Object::decode(bytes)?)?)
}

impl Object {
    fn decode(bytes: &Bytes) -> Result<Self, BoxError> {
        if !bytes.starts_with(MAGIC) {
            return Err("an object in protobuf does not begin as Kubernetes' do".into());
        }
        let Enveloped { type_meta, raw } = Enveloped::decode(bytes.slice(MAGIC.len()..))?;
        let read = match type_meta.kind.as_str() {
            "Job" => Read::Job(JobPart::decode(raw)?),
            "Status" => Read::Status(Status::decode(raw)?),
            other => return Err(format!("a watch on Jobs brought a {other}").into()),
        };
        Ok(Self { type_meta, read })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use k8s_openapi::api::batch::v1::Job;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::api::{Api, WatchParams};
    use kube::client::{Body, ClientBuilder};
    use kube::core::WatchEvent;
    use kube::{Client, Error, ResourceExt};
    use tower::util::{MapRequestLayer, MapResponseLayer};

    use super::super::seen::JobSeen;
    use super::super::watched::Part;
    use super::*;
    use crate::telemetry::error_chain;

    /// Of Kubernetes 1.33: a new Job, the same when it has failed, a bookmark, and what a watch from too long ago
    /// gets.
    const EVENTS: &[u8] = include_bytes!("protobuf/events");
    /// What an account without permissions gets.
    const FORBIDDEN: &[u8] = include_bytes!("protobuf/forbidden");

    const OF_WATCH: &str = "application/vnd.kubernetes.protobuf;stream=watch";

    /// Of an API server that answers each request so, in small pieces.
    fn client(code: u16, content_type: &'static str, body: &'static [u8]) -> Client {
        let answers = tower::service_fn(move |request: Request<Body>| async move {
            let types = request.headers()[ACCEPT].to_str().unwrap();
            assert!(types.starts_with(PROTOBUF), "{types}");
            let pieces = body
                .chunks(7)
                .map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from_static(piece))));
            let answer = Response::builder().status(code);
            let answer = answer.header(CONTENT_TYPE, content_type);
            let body = StreamBody::new(stream::iter(pieces));
            Ok::<_, Infallible>(answer.body(body).unwrap())
        });
        ClientBuilder::new(answers, "keptn")
            .with_layer(&MapRequestLayer::new(ask))
            .with_layer(&MapResponseLayer::new(read))
            .build()
    }

    async fn watched(client: Client) -> String {
        let jobs: Api<Part<Job>> = Api::namespaced(client, "keptn");
        let events = match jobs.watch(&WatchParams::default(), "0").await {
            Ok(events) => events,
            Err(error) => return described(&error),
        };
        let told: Vec<String> = events
            .map(|event| match event {
                Ok(WatchEvent::Added(Part(job))) => format!("new: {}", of(&job)),
                Ok(WatchEvent::Modified(Part(job))) => format!("changed: {}", of(&job)),
                Ok(WatchEvent::Bookmark(seen)) => {
                    format!("all to {}", seen.metadata.resource_version)
                }
                Ok(other) => format!("{other:?}"),
                Err(error) => described(&error),
            })
            .collect()
            .await;
        told.join("\n")
    }

    fn of(job: &Job) -> String {
        let created = job.metadata.creation_timestamp.as_ref();
        let created = created.map_or_else(|| "?".to_owned(), |Time(time)| time.to_string());
        format!(
            "{} in {} at {}, of {created}, {:?} {:?}, suspended: {:?}, {:?}",
            job.name_any(),
            job.namespace().unwrap_or_default(),
            job.resource_version().unwrap_or_default(),
            job.labels(),
            job.annotations(),
            job.spec.as_ref().and_then(|spec| spec.suspend),
            JobSeen::of(job),
        )
    }

    fn described(error: &Error) -> String {
        match error {
            Error::Api(status) => format!("{}: {}", status.code, status.message),
            other => error_chain(other),
        }
    }

    #[tokio::test]
    async fn the_library_reads_a_watch_in_protobuf() {
        let events = watched(client(200, OF_WATCH, EVENTS)).await;
        insta::assert_snapshot!(events, @r#"
        new: jes-1 in cap at 351, of 2026-12-01T12:17:20Z, {"keptn.sh/run": "r1"} {"keptn.sh/record": "récord"}, suspended: Some(true), Running
        changed: jes-1 in cap at 387, of 2026-12-01T12:17:20Z, {"keptn.sh/run": "r1"} {"keptn.sh/record": "récord"}, suspended: Some(false), Failed { reason: "DeadlineExceeded", message: "Job was active longer than specified deadline" }
        all to 387
        Error event: Status { status: None, code: 410, message: "too old resource version: 1 (2)", metadata: None, reason: "Expired", details: None }
        "#);
    }

    #[tokio::test]
    async fn a_watch_that_is_refused_tells_why() {
        let events = watched(client(403, PROTOBUF, FORBIDDEN)).await;
        insta::assert_snapshot!(events, @r#"403: jobs.batch is forbidden: User "system:serviceaccount:cap:reader" cannot watch resource "jobs" in API group "batch" in the namespace "cap""#);
    }

    #[tokio::test]
    async fn a_watch_in_json_stays_as_it_is() {
        let json = br#"{"type": "ADDED", "object": {"metadata": {"name": "jes-1"}}}"#;
        let events = watched(client(200, "application/json", json)).await;
        insta::assert_snapshot!(events, @"new: jes-1 in  at , of ?, {} {}, suspended: None, Running");
    }

    #[tokio::test]
    async fn a_watch_that_breaks_off_within_an_event_is_an_error() {
        let events = watched(client(200, OF_WATCH, &EVENTS[..2000])).await;
        insta::assert_snapshot!(events, @r#"
        new: jes-1 in cap at 351, of 2026-12-01T12:17:20Z, {"keptn.sh/run": "r1"} {"keptn.sh/record": "récord"}, suspended: Some(true), Running
        Error reading events stream: ServiceError: bytes remaining on stream
        "#);
    }

    #[tokio::test]
    async fn a_watch_that_brings_something_else_is_an_error() {
        let events = watched(client(200, OF_WATCH, b"\0\0\0\x04Jobs")).await;
        insta::assert_snapshot!(events, @"Error reading events stream: ServiceError: failed to decode Protobuf message: buffer underflow");
    }

    #[test]
    fn only_a_watch_on_jobs_is_asked_for_in_protobuf() {
        let asks = |uri: &str| {
            ask(Request::get(uri).body(()).unwrap())
                .headers()
                .contains_key(ACCEPT)
        };
        assert!(asks(
            "/apis/batch/v1/namespaces/keptn/jobs?&watch=true&timeoutSeconds=60"
        ));
        for other in [
            "/apis/batch/v1/namespaces/keptn/jobs?&limit=200",
            "/apis/batch/v1/namespaces/keptn/jobs",
            "/api/v1/namespaces/keptn/pods?&watch=true",
        ] {
            assert!(!asks(other), "{other}");
        }
    }
}
