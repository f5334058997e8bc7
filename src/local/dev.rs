//! The command `dev`: the service at a desk until it is stopped, with the test events to send.

mod test_events;

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::header::ORIGIN;
use axum::http::{Method, Request, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::Desk;
use super::event_file::EventRequest;
use super::preview::{Preview, preview};
use super::signals::Signals;
use super::story::{Story, Told};
use crate::cli::{DeskSettings, DevSettings, ServeSettings};
use crate::endpoint::{self, Afterwards, BODY_TIMEOUT, BodyError, refused_body};
use test_events::TestEvents;

/// As the service takes it.
const MAX_BODY_BYTES: usize = ServeSettings::MAX_BODY_BYTES as usize;

/// What stands before the service: tells of each event, and knows the test events.
struct Front {
    settings: DeskSettings,
    story: Arc<Story>,
    service: Router,
    test_events: TestEvents,
}

pub(crate) fn main(settings: &DevSettings) -> anyhow::Result<()> {
    settings.desk.start_logging();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let story = Story::on_stdout(settings.desk.output);
    let stop = CancellationToken::new();
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let stopped = async {
            signals.next().await;
            stop.cancel();
            // Whoever asks twice does not want to wait.
            signals.next().await;
        };
        tokio::select! {
            ended = told(settings.clone(), story, stop.clone()) => ended,
            () = stopped => Ok(()),
        }
    });
    runtime.shutdown_background();
    ended
}

/// Until it is stopped, told to somebody.
pub(crate) async fn told(
    settings: DevSettings,
    story: Story,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let test_events = TestEvents::read(settings.test_events())?;
    let address = (Ipv4Addr::LOCALHOST, settings.rcv_port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on port {}", settings.rcv_port))?;
    let port = listener.local_addr()?.port();
    let story = Arc::new(story.masking(settings.desk.masks()));
    let mut desk = Desk::new(&settings.desk, &story).await?;
    story.tell(&Told::Listening {
        address: &format!("http://localhost:{port}/"),
        test_events: test_events.names(),
    });
    let admin = desk.admin.clone();
    let front = Arc::new(Front {
        settings: settings.desk.clone(),
        story,
        service: desk.router.clone(),
        test_events,
    });
    tokio::select! {
        () = endpoint::accept(listener, router(front, admin), Afterwards::Closed, TaskTracker::new(), stop) => {}
        error = desk.failed() => return Err(error),
    }
    desk.shut_down().await
}

fn router(front: Arc<Front>, admin: Router) -> Router {
    let service = Arc::clone(&front);
    let pass = move |request| pass(Arc::clone(&service), request);
    Router::new()
        .route("/test-events", get(list))
        .route("/test-events/{number}", get(show).post(send))
        .with_state(front)
        // One port is enough at a desk: what is posted is an event, on any path.
        .merge(admin)
        .method_not_allowed_fallback(pass.clone())
        .fallback(pass)
        .layer(from_fn(refuse_pages))
}

/// Processes are started here: no page of a browser may do that. What only reads starts nothing, and a browser
/// lets pages from elsewhere not see it.
async fn refuse_pages(request: Request<Body>, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && request.headers().contains_key(ORIGIN) {
        let text = "requests of web pages are not taken\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    next.run(request).await
}

async fn list(State(front): State<Arc<Front>>) -> String {
    let names = front.test_events.names();
    let lines = names.iter().enumerate();
    lines
        .map(|(index, name)| format!("{} {name}\n", index + 1))
        .collect()
}

async fn show(State(front): State<Arc<Front>>, Path(number): Path<String>) -> Response {
    let request = number.parse().ok().and_then(|at| front.test_events.get(at));
    match request {
        Some(request) => (request.headers.clone(), request.body.clone()).into_response(),
        None => unknown(&front, &number),
    }
}

/// Sends a test event under an id that was not seen before.
async fn send(State(front): State<Arc<Front>>, Path(number): Path<String>) -> Response {
    let request = number
        .parse()
        .ok()
        .and_then(|at| front.test_events.fresh(at));
    match request {
        Some(request) => receive(&front, request).await,
        None => unknown(&front, &number),
    }
}

fn unknown(front: &Front, number: &str) -> Response {
    let count = front.test_events.names().len();
    let text = match count {
        0 => "there are no test events, --test-events names their directory\n".into(),
        _ => format!("there is no test event {number}, expected a number from 1 to {count}\n"),
    };
    (StatusCode::NOT_FOUND, text).into_response()
}

/// Everything else is the service's.
async fn pass(front: Arc<Front>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    // The service reads on what is too large, so that its sender comes to reading the answer.
    let is_too_large = body.size_hint().lower() > MAX_BODY_BYTES as u64;
    if head.method != Method::POST || is_too_large {
        let path = head.uri.path().to_owned();
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        let request = Request::from_parts(head, body);
        let response = answer(&front.service, request).await;
        if reads && response.status() == StatusCode::METHOD_NOT_ALLOWED {
            return what_there_is(&path);
        }
        return response;
    }
    let refused = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => {
            let request = EventRequest {
                name: None,
                headers: head.headers,
                body: body.to_vec(),
            };
            return receive(&front, request).await;
        }
        Ok(Err(error)) => broken(&error),
        Err(_) => BodyError::TooSlow,
    };
    refused_body(&refused, MAX_BODY_BYTES).into_response()
}

fn what_there_is(path: &str) -> Response {
    let text = format!(
        "there is nothing to read at {path}, but at / (runs), /events, /metrics and /test-events; what is posted, \
         to any path, is an event\n"
    );
    (StatusCode::NOT_FOUND, text).into_response()
}

fn broken(error: &axum::Error) -> BodyError {
    match error.source() {
        Some(cause) if cause.is::<LengthLimitError>() => BodyError::TooLarge,
        _ => BodyError::Broken(error.to_string()),
    }
}

async fn receive(front: &Front, request: EventRequest) -> Response {
    let events = request.events();
    for event in &events {
        front.story.tell(&Told::event(event));
        match preview(&front.settings, event, &front.story) {
            Ok(Preview::Run { .. } | Preview::Invalid | Preview::NoAction) => {}
            Ok(Preview::NoConfig(reason) | Preview::BadInput(reason)) => {
                front.story.tell(&Told::Note { text: &reason });
            }
            Err(error) => front.story.tell(&Told::Note {
                text: &format!("{error:#}"),
            }),
        }
    }
    let response = answer(&front.service, request.into_http()).await;
    let (head, body) = response.into_parts();
    let body = to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    let ids: Vec<String> = events.into_iter().map(|event| event.envelope.id).collect();
    front.story.tell(&Told::Answered {
        events: &ids,
        status: head.status.as_u16(),
        text: String::from_utf8_lossy(&body).trim(),
    });
    Response::from_parts(head, Body::from(body))
}

async fn answer(service: &Router, request: Request<Body>) -> Response {
    match service.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
