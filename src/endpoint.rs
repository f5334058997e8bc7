//! The HTTP endpoint: limits, then bytes → events → [`crate::admission`], and what the sender is told.

mod arriving;
mod body;
mod connections;

use std::sync::Arc;
use std::time::Duration;

pub(crate) use axum::Router;
pub(crate) use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};

use crate::admission::{Admission, Admitted};
use crate::event::content_mode::{DecodeError, decode};
use crate::journal::Journal;
use crate::metrics::{Metrics, Outcome};
pub(crate) use arriving::Afterwards;
use arriving::Arrival;
use body::Limits;
pub(crate) use body::{BODY_TIMEOUT, BodyError};
pub(crate) use connections::{Peer, accept};

/// Keptn's distributors wait 5 s, all attempts together; the answer must be there before.
const SENDER_PATIENCE: Duration = Duration::from_secs(4);

pub(crate) struct Endpoint {
    admission: Arc<Admission>,
    limits: Limits,
    metrics: Metrics,
    journal: Journal,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
}

impl Endpoint {
    /// `ready` tells whether this process takes events.
    pub(crate) fn new(
        admission: Arc<Admission>,
        max_body_bytes: usize,
        metrics: Metrics,
        journal: Journal,
        ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            admission,
            limits: Limits::new(max_body_bytes),
            metrics,
            journal,
            ready: Box::new(ready),
        }
    }

    fn is_no_event(&self, reason: &str) {
        self.metrics.event(Outcome::Invalid);
        self.journal.no_event(reason, Timestamp::now());
    }

    /// `path` is where events are posted; `/` stands for any path, as in the original.
    pub(crate) fn router(self, path: &str) -> Router {
        let state = Arc::new(self);
        let health = || async { ([(CONTENT_TYPE, "application/json")], "{\"status\":\"OK\"}") };
        let events = post(receive).fallback(async || {
            let reason = "events are posted here, and there is nothing else";
            (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "POST")], reason)
        });
        let router = Router::new()
            .route("/livez", get(|| async { "ok" }))
            .route("/readyz", get(readyz))
            // As the original's 0.1.8 had it.
            .route("/ready", get(readyz))
            .route("/health", get(health));
        let router = if path == "/" {
            router.fallback_service(events.with_state(Arc::clone(&state)))
        } else {
            let reason = format!("events are posted to {path} (RCV_PATH), there is nothing here");
            router
                .route(path, events)
                .fallback(async move || (StatusCode::NOT_FOUND, reason))
        };
        router.with_state(state)
    }
}

async fn readyz(State(endpoint): State<Arc<Endpoint>>) -> Response {
    if (endpoint.ready)() {
        return "ok".into_response();
    }
    let reason = "not ready: the Lease or the Jobs in the cluster have not been read yet (the log \
                  tells why), or the service stops";
    (StatusCode::SERVICE_UNAVAILABLE, reason).into_response()
}

async fn receive(State(endpoint): State<Arc<Endpoint>>, request: Request<Body>) -> Response {
    let received = Instant::now();
    let (head, body) = request.into_parts();
    let (body, memory) = match endpoint.limits.read(&head.headers, body).await {
        Ok(read) => read,
        Err(error) => {
            let (status, reason) = refused_body(&error, endpoint.limits.max_body_bytes);
            endpoint.is_no_event(&reason);
            let retry = (status == StatusCode::TOO_MANY_REQUESTS).then_some([(RETRY_AFTER, "1")]);
            return (status, retry, reason).into_response();
        }
    };
    if let Some(arrival) = head.extensions.get::<Arrival>() {
        arrival.is_complete();
    }
    let events = match decode(&head.headers, &body) {
        Ok(events) => events,
        Err(DecodeError::UnsupportedMediaType(reason)) => {
            endpoint.is_no_event(&reason);
            return text(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason);
        }
        Err(DecodeError::Invalid(invalid)) => {
            let reason = invalid.to_string();
            endpoint.is_no_event(&reason);
            return text(StatusCode::BAD_REQUEST, reason);
        }
    };
    drop(body);
    let mut invalid = Vec::new();
    let mut admissions = Vec::new();
    for event in events {
        match event {
            Ok(event) => {
                admissions.push(endpoint.admission.admit(event, Arc::clone(&memory)));
            }
            Err(error) => {
                let reason = error.to_string();
                endpoint.is_no_event(&reason);
                invalid.push(reason);
            }
        }
    }
    drop(memory);
    let answer = told(&endpoint.metrics, admissions, received + SENDER_PATIENCE).await;
    if invalid.is_empty() {
        return answer;
    }
    // The valid events of a batch are admitted all the same: a sender need not send them again.
    info!(count = invalid.len(), "what is no event was refused");
    debug!(reasons = ?invalid, "why it was refused");
    text(StatusCode::BAD_REQUEST, invalid.join("\n"))
}

/// The answer for all events of a request: the one that asks most of the sender.
async fn told(
    metrics: &Metrics,
    admissions: Vec<watch::Receiver<Option<Admitted>>>,
    until: Instant,
) -> Response {
    let mut status = StatusCode::OK;
    let mut reasons = Vec::new();
    for mut admission in admissions {
        let admitted = match timeout_at(until, admission.wait_for(Option::is_some)).await {
            Ok(Ok(admitted)) => admitted.clone().unwrap_or(Admitted::Panicked),
            Ok(Err(_)) => Admitted::Panicked,
            Err(_) => {
                metrics.event(Outcome::Late);
                let reason = "the event could not be made durable in time; this goes on";
                let retry = [(RETRY_AFTER, "5")];
                return (StatusCode::SERVICE_UNAVAILABLE, retry, reason).into_response();
            }
        };
        let (of_event, outcome, reason) = match admitted {
            Admitted::Nothing(_, reason) => (StatusCode::OK, Outcome::Nothing, reason),
            Admitted::Accepted(_, reason) => (StatusCode::ACCEPTED, Outcome::Accepted, reason),
            Admitted::Panicked => {
                let code = StatusCode::INTERNAL_SERVER_ERROR;
                (code, Outcome::Panicked, "internal error".into())
            }
        };
        metrics.event(outcome);
        status = status.max(of_event);
        reasons.push(reason);
    }
    debug!(%status, ?reasons, "answered");
    text(status, reasons.join("\n"))
}

/// What is told of a body that is not taken, of which `limit` bytes would have been.
pub(crate) fn refused_body(error: &BodyError, limit: usize) -> (StatusCode, String) {
    match error {
        BodyError::TooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than the allowed {limit} bytes (MAX_BODY_BYTES)"),
        ),
        BodyError::TooManyValues => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body holds too many lists and objects to be read in bounded memory".into(),
        ),
        BodyError::TooSlow => (
            StatusCode::REQUEST_TIMEOUT,
            format!("the body was not there within {} s", BODY_TIMEOUT.as_secs()),
        ),
        BodyError::Broken(reason) => (
            StatusCode::BAD_REQUEST,
            format!("the body could not be read: {reason}"),
        ),
        BodyError::NoMemory => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many events are being admitted, send this one again".into(),
        ),
    }
}

fn text(status: StatusCode, reason: String) -> Response {
    (status, reason).into_response()
}
