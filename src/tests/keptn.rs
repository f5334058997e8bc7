//! A Keptn control plane: its configuration service with all its habits, the event endpoint of a
//! distributor, and the event store.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::Transcript;
use super::wire::{Lost, Wire};
use crate::keptn::{Http, SendError};

/// How long after its arrival an event is missing from the store.
const STORE_LAG: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Keptn {
    state: Arc<Mutex<Model>>,
    sent: watch::Sender<usize>,
    /// Whether answers to events are held back.
    held: watch::Sender<bool>,
    transcript: Transcript,
}

#[derive(Default)]
struct Model {
    /// `stage/service`, `stage` or nothing for the project → name → content.
    levels: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// Answers to the next requests for resources, before the true ones.
    resource_troubles: Vec<StatusCode>,
    /// Answers to the next events, before the true ones.
    event_troubles: Vec<StatusCode>,
    /// As distributors from 0.17 on: larger events are refused with 500.
    max_event_bytes: Option<usize>,
    token: Option<String>,
    /// What was taken, and when.
    events: Vec<(Value, Instant)>,
    distributor: Habit,
    store: Habit,
    resources: Habit,
    questions: usize,
    /// Requests that get no answer.
    hanging: usize,
    /// The id of an event whose answers are not taken.
    unanswerable: Option<String>,
    /// Method, path and query of the requests for resources.
    requests: Vec<String>,
}

/// How a part of Keptn does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Habit {
    #[default]
    Works,
    /// Nothing listens.
    Refuses,
    Answers(u16),
    Hangs,
}

impl Keptn {
    pub(super) fn new(transcript: Transcript) -> Self {
        Self {
            state: Arc::default(),
            sent: watch::Sender::new(0),
            held: watch::Sender::new(false),
            transcript,
        }
    }

    /// For clients elsewhere.
    pub(super) async fn listens(&self, address: &str) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// A way to it for one process.
    pub(super) fn http(&self, wire: &Wire, timeout: Duration) -> Http {
        let (keptn, wire) = (self.clone(), wire.clone());
        let transport = service_fn(move |request: reqwest::Request| {
            let (keptn, wire) = (keptn.clone(), wire.clone());
            async move {
                let request = http::Request::<reqwest::Body>::try_from(request).unwrap();
                let (head, body) = request.into_parts();
                let body = Bytes::copy_from_slice(body.as_bytes().unwrap_or_default());
                let name = name_of(&head.method, &head.uri, &body);
                if keptn.habit_of(&head.uri) == Habit::Refuses {
                    return Err(SendError::NotSent("connection refused".into()));
                }
                let effect = answer(State(keptn), head.method, head.uri, head.headers, body);
                let answer = |code| StatusCode::from_u16(code).unwrap().into_response();
                match wire.carry(&name, effect, answer).await {
                    Ok(response) => {
                        let (head, body) = response.into_parts();
                        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
                        Ok(http::Response::from_parts(head, body).into())
                    }
                    Err(Lost::Refused) => Err(SendError::NotSent("connection refused".into())),
                    Err(Lost::Broken) => Err(SendError::Broken("connection reset".into())),
                }
            }
        });
        Http::over(BoxCloneSyncService::new(transport), timeout)
    }

    fn habit_of(&self, uri: &Uri) -> Habit {
        let model = self.state.lock().unwrap();
        match uri.path() {
            "/event" => model.distributor,
            path if path.starts_with("/mongodb-datastore") => model.store,
            _ => model.resources,
        }
    }

    /// How the distributor takes events from now on.
    pub(super) fn distributor(&self, habit: Habit) {
        self.state.lock().unwrap().distributor = habit;
    }

    /// How the configuration service does from now on.
    pub(super) fn resources(&self, habit: Habit) {
        self.state.lock().unwrap().resources = habit;
    }

    /// How the event store does from now on.
    pub(super) fn store(&self, habit: Habit) {
        self.state.lock().unwrap().store = habit;
    }

    /// Whether somebody waits in vain.
    pub(super) fn hangs(&self) -> bool {
        self.state.lock().unwrap().hanging > 0
    }

    /// How often the event store was asked.
    pub(super) fn questions(&self) -> usize {
        self.state.lock().unwrap().questions
    }

    /// Level `dev/svc` is a service, `dev` a stage, the empty one the project.
    pub(super) fn has(&self, level: &str, name: &str, content: impl Into<Vec<u8>>) {
        let mut model = self.state.lock().unwrap();
        model
            .levels
            .entry(level.into())
            .or_default()
            .insert(name.into(), content.into());
    }

    pub(super) fn has_not(&self, level: &str, name: &str) {
        let mut model = self.state.lock().unwrap();
        model.levels.entry(level.into()).or_default().remove(name);
    }

    pub(super) fn answers_resources_with(&self, statuses: &[u16]) {
        let codes = statuses
            .iter()
            .map(|status| StatusCode::from_u16(*status).unwrap());
        self.state.lock().unwrap().resource_troubles = codes.collect();
    }

    pub(super) fn answers_events_with(&self, statuses: &[u16]) {
        let codes = statuses
            .iter()
            .map(|status| StatusCode::from_u16(*status).unwrap());
        self.state.lock().unwrap().event_troubles = codes.collect();
    }

    pub(super) fn refuses_events_above(&self, bytes: usize) {
        self.state.lock().unwrap().max_event_bytes = Some(bytes);
    }

    pub(super) fn refuses_answers_to(&self, id: Option<&str>) {
        self.state.lock().unwrap().unanswerable = id.map(str::to_owned);
    }

    /// Events are taken, and whoever sent one waits for the answer.
    pub(super) fn holds_its_answers(&self, held: bool) {
        self.held.send_replace(held);
    }

    pub(super) fn wants_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.into());
    }

    /// The events that were taken.
    pub(super) fn events(&self) -> Vec<Value> {
        let model = self.state.lock().unwrap();
        model
            .events
            .iter()
            .map(|(event, _)| event.clone())
            .collect()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(super) async fn wait_for(&self, events: usize) {
        self.sent
            .subscribe()
            .wait_for(|sent| *sent >= events)
            .await
            .unwrap();
    }

    fn takes_event(&self, body: &[u8]) -> Response {
        let mut model = self.state.lock().unwrap();
        if let Habit::Answers(code) = model.distributor {
            return StatusCode::from_u16(code).unwrap().into_response();
        }
        if !model.event_troubles.is_empty() {
            return model.event_troubles.remove(0).into_response();
        }
        if Some(body.len()) > model.max_event_bytes.or(Some(usize::MAX)) {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let event: Value = serde_json::from_slice(body).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if model.unanswerable == Some(text(&event["triggeredid"])) {
            return StatusCode::BAD_GATEWAY.into_response();
        }
        let data = &event["data"];
        let mut line = format!("event {}", text(&event["type"]));
        if !data["status"].is_null() {
            let message = text(&data["message"]).replace('\n', "⏎");
            line += &format!(
                " {} {}: {message}",
                text(&data["status"]),
                text(&data["result"])
            );
        }
        self.transcript.add(line);
        model.events.push((event, Instant::now()));
        self.sent.send_modify(|sent| *sent += 1);
        StatusCode::OK.into_response()
    }

    /// The event store, as it answers the one exact question: `filter` is split at ` AND ` and at `:`.
    fn gives_events(&self, event_type: &str, query: &str) -> Response {
        let mut model = self.state.lock().unwrap();
        model.questions += 1;
        if let Habit::Answers(code) = model.store {
            return StatusCode::from_u16(code).unwrap().into_response();
        }
        let filter = query.strip_prefix("filter=").unwrap().replace('+', " ");
        let filter = decoded(&filter);
        let clauses: Vec<(&str, &str)> = filter
            .split(" AND ")
            .filter_map(|clause| clause.split_once(':'))
            .collect();
        if !clauses.iter().any(|(field, _)| *field == "shkeptncontext") {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "must provide a filter");
        }
        let events: Vec<&Value> = model
            .events
            .iter()
            .filter(|(_, at)| at.elapsed() >= STORE_LAG)
            .map(|(event, _)| event)
            .filter(|event| event["type"] == event_type)
            .filter(|event| clauses.iter().all(|(field, value)| event[field] == *value))
            .collect();
        json!({"events": events, "pageSize": 20, "totalCount": events.len()})
            .to_string()
            .into_response()
    }

    fn gives_resource(&self, uri: &Uri, headers: &HeaderMap) -> Response {
        let mut model = self.state.lock().unwrap();
        model.requests.push(uri.to_string());
        if let Habit::Answers(code) = model.resources {
            return error(StatusCode::from_u16(code).unwrap(), "trouble");
        }
        if !model.resource_troubles.is_empty() {
            return error(model.resource_troubles.remove(0), "trouble");
        }
        let token = headers
            .get("x-token")
            .map(|token| token.to_str().unwrap().to_owned());
        if model.token.is_some() && model.token != token {
            return error(StatusCode::UNAUTHORIZED, "incorrect api key auth");
        }
        let path = uri.path().trim_start_matches("/configuration-service");
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let (level, rest) = match segments.as_slice() {
            ["v1", "project", _, "resource", rest @ ..] => (String::new(), rest),
            ["v1", "project", _, "stage", stage, "resource", rest @ ..] => (decoded(stage), rest),
            [
                "v1",
                "project",
                _,
                "stage",
                stage,
                "service",
                service,
                "resource",
                rest @ ..,
            ] => (format!("{}/{}", decoded(stage), decoded(service)), rest),
            _ => return error(StatusCode::NOT_FOUND, "path was not found"),
        };
        let files = model.levels.get(&level).cloned().unwrap_or_default();
        match rest {
            [] => list(&files, uri.query().unwrap_or_default()),
            [name] => one(&files, &decoded(&decoded(name))),
            _ => error(StatusCode::NOT_FOUND, "path was not found"),
        }
    }
}

/// What a call is about.
fn name_of(method: &Method, uri: &Uri, body: &[u8]) -> String {
    let path = uri.path();
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    if *method == Method::POST {
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        return format!("send {}", last(event["type"].as_str().unwrap_or_default()));
    }
    if path.starts_with("/mongodb-datastore") {
        return format!("ask store {}", last(path));
    }
    "get config".to_owned()
}

async fn answer(
    State(keptn): State<Keptn>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if keptn.habit_of(&uri) == Habit::Hangs {
        keptn.state.lock().unwrap().hanging += 1;
        std::future::pending::<()>().await;
    }
    match (method, uri.path()) {
        (Method::POST, "/event") => {
            let response = keptn.takes_event(&body);
            let mut held = keptn.held.subscribe();
            held.wait_for(|held| !held).await.unwrap();
            response
        }
        (Method::GET, path) if path.starts_with("/mongodb-datastore/event/type/") => {
            let event_type = path.rsplit('/').next().unwrap_or_default();
            keptn.gives_events(event_type, uri.query().unwrap_or_default())
        }
        (Method::GET, _) => keptn.gives_resource(&uri, &headers),
        _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn one(files: &BTreeMap<String, Vec<u8>>, name: &str) -> Response {
    if let Some(content) = files.get(name) {
        let mut body =
            json!({"resourceURI": name.replace('/', "%2F"), "metadata": {"version": "a68e3f"}});
        if !content.is_empty() {
            body["resourceContent"] = STANDARD.encode(content).into();
        }
        return body.to_string().into_response();
    }
    if files
        .keys()
        .any(|file| file.starts_with(&format!("{name}/")))
    {
        return error(StatusCode::INTERNAL_SERVER_ERROR, "Could not read file");
    }
    error(StatusCode::NOT_FOUND, "Service resource not found")
}

/// Three a page, with the leading slash of production; paths with `.git` in them are hidden.
fn list(files: &BTreeMap<String, Vec<u8>>, query: &str) -> Response {
    let value = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.parse::<usize>().unwrap())
    };
    if value("pageSize").is_some_and(|size| !(1..=50).contains(&size)) {
        return error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "pageSize should be at most 50",
        );
    }
    let from = value("nextPageKey").unwrap_or(0);
    let shown: Vec<&String> = files.keys().filter(|name| !name.contains(".git")).collect();
    let page: Vec<Value> = shown
        .iter()
        .skip(from)
        .take(3)
        .map(|name| json!({"resourceURI": format!("/{name}")}))
        .collect();
    let next = if from + 3 < shown.len() { from + 3 } else { 0 };
    let body =
        json!({"nextPageKey": next.to_string(), "resources": page, "totalCount": shown.len()});
    body.to_string().into_response()
}

fn error(status: StatusCode, message: &str) -> Response {
    let body = json!({"code": status.as_u16(), "message": message});
    (status, body.to_string()).into_response()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(&after[..2]).unwrap();
            bytes.push(u8::from_str_radix(digits, 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).unwrap()
}
