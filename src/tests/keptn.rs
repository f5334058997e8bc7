//! The embedded Keptn as a scenario has it: with files, with habits and troubles, and with a transcript of
//! what it was told.

mod oauth;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use super::Transcript;
use super::collector::Collector;
use super::wire::{Lost, Wire};
use crate::keptn::{SendError, Transport};
use crate::local::keptn as embedded;
use embedded::Repository;
pub(super) use oauth::{OAuthServer, Takes};

/// How long after its arrival an event is missing from the store.
const STORE_LAG: Duration = Duration::from_secs(1);

/// Pages of a list are shorter than in life, so that there are several.
const PAGE: &str = "3";

/// The project of all events.
const PROJECT: &str = "real";

#[derive(Clone)]
pub(super) struct Keptn {
    embedded: embedded::Keptn,
    files: Arc<TempDir>,
    /// Of spans, beside it.
    pub(super) collector: Collector,
    state: Arc<Mutex<Model>>,
    sent: watch::Sender<usize>,
    logged: watch::Sender<usize>,
    /// Whether answers to events are held back.
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct Model {
    /// Answers to the next requests for resources, before the true ones.
    resource_troubles: Vec<StatusCode>,
    /// Answers to the next events, before the true ones.
    event_troubles: Vec<StatusCode>,
    /// As distributors from 0.17 on: larger events are refused with 500.
    max_event_bytes: Option<usize>,
    token: Option<String>,
    /// Protects the resources, if there is one.
    oauth: Option<OAuthServer>,
    oauth_habit: Habit,
    names: Names,
    /// Of the uniform; none before Keptn 0.8.4.
    registrations: Option<Value>,
    /// How often they were asked for.
    lookups: usize,
    control_plane: Habit,
    /// What became entries of the error log.
    log: Vec<Value>,
    distributor: Habit,
    store: Habit,
    resources: Habit,
    questions: usize,
    /// Requests that get no answer.
    hanging: usize,
    /// The id of an event whose answers are not taken.
    unanswerable: Option<String>,
    /// Path and query of the requests for resources.
    requests: Vec<String>,
    /// What the last of them had to be let in.
    shown: Vec<String>,
}

/// How a part of Keptn does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Habit {
    #[default]
    Works,
    /// Nothing listens.
    Refuses,
    Answers(u16),
    /// Refuses, with what it was shown.
    Repeats,
    Hangs,
}

/// What Keptn calls its configuration service, and what is at the address of the other name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// Up to 0.17.
    #[default]
    Configuration,
    /// 0.18.
    Both,
    /// From 0.19 on.
    Resource(Nothing),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nothing {
    /// In the cluster.
    UnknownHost,
    /// A web server.
    PlainNotFound,
    /// Keptn's API service behind the gateway.
    PathNotFound,
    /// A Service of Kubernetes whose Pods are gone.
    Refuses,
}

impl Keptn {
    pub(super) fn new(transcript: Transcript) -> Self {
        let files = tempfile::tempdir().unwrap();
        // A directory of projects, even while it has none.
        fs::create_dir(files.path().join(PROJECT)).unwrap();
        let sent = watch::Sender::new(0);
        let taken = sent.clone();
        let recipient = move |event: &Value| {
            transcript.add(line(event));
            taken.send_modify(|sent| *sent += 1);
        };
        let repository = Repository::new(files.path().to_owned(), None);
        Self {
            embedded: embedded::Keptn::new(repository, STORE_LAG, recipient),
            files: Arc::new(files),
            collector: Collector::default(),
            state: Arc::default(),
            sent,
            logged: watch::Sender::new(0),
            held: watch::Sender::new(false),
        }
    }

    /// For clients elsewhere.
    pub(super) async fn listens(&self, address: &str) -> SocketAddr {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    pub(super) fn router(&self) -> Router {
        Router::new().fallback(answer).with_state(self.clone())
    }

    /// A way to it for one process.
    pub(super) fn transport(&self, wire: &Wire) -> Transport {
        let (keptn, wire) = (self.clone(), wire.clone());
        BoxCloneSyncService::new(service_fn(move |request: reqwest::Request| {
            let (keptn, wire) = (keptn.clone(), wire.clone());
            async move {
                let request = http::Request::<reqwest::Body>::try_from(request).unwrap();
                let (mut head, body) = request.into_parts();
                head.uri = by_path(&head.uri);
                let body = Bytes::copy_from_slice(body.as_bytes().unwrap_or_default());
                let name = name_of(&head.method, &head.uri, &body);
                if keptn.habit_of(&head.uri) == Habit::Refuses {
                    return Err(SendError::NotSent("connection refused".into()));
                }
                match keptn.nothing_at(&head.uri) {
                    Some(Nothing::UnknownHost) => {
                        return Err(SendError::NoSuchHost("dns error".into()));
                    }
                    Some(Nothing::Refuses) => {
                        return Err(SendError::NotSent("connection refused".into()));
                    }
                    _ => {}
                }
                let effect = answer(State(keptn), head.method, head.uri, head.headers, body);
                let answer = |code| status(StatusCode::from_u16(code).unwrap());
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
        }))
    }

    /// What is in the place of a configuration service of another name.
    fn nothing_at(&self, uri: &Uri) -> Option<Nothing> {
        let names = self.state.lock().unwrap().names;
        let of = |name: &str| uri.path().starts_with(&format!("/{name}/"));
        match names {
            Names::Configuration if of("resource-service") => Some(Nothing::UnknownHost),
            Names::Resource(nothing) if of("configuration-service") => Some(nothing),
            _ => None,
        }
    }

    fn habit_of(&self, uri: &Uri) -> Habit {
        let model = self.state.lock().unwrap();
        match uri.path() {
            "/event" => model.distributor,
            path if path.starts_with("/mongodb-datastore") => model.store,
            path if path.starts_with("/oauth") => model.oauth_habit,
            path if path.starts_with("/controlPlane") => model.control_plane,
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

    /// How the OAuth server does from now on.
    pub(super) fn oauth_server(&self, habit: Habit) {
        self.state.lock().unwrap().oauth_habit = habit;
    }

    /// How the uniform does from now on.
    pub(super) fn control_plane(&self, habit: Habit) {
        self.state.lock().unwrap().control_plane = habit;
    }

    /// From now on it lets nobody in without a token of this server, or the server does otherwise.
    pub(super) fn is_protected<R>(&self, server: impl FnOnce(&mut OAuthServer) -> R) -> R {
        server(self.state.lock().unwrap().oauth.get_or_insert_default())
    }

    pub(super) fn calls_it(&self, names: Names) {
        self.state.lock().unwrap().names = names;
    }

    /// Registered services: id, name, namespace and Pod of each.
    pub(super) fn has_registrations(&self, registrations: &[[&str; 4]]) {
        let registrations = registrations.iter().map(|[id, name, namespace, pod]| {
            json!({"id": id, "name": name, "subscriptions": [], "metadata": {
                "hostname": "node", "lastseen": "2026-11-23T20:41:00Z",
                "kubernetesmetadata": {"namespace": namespace, "podname": pod, "deploymentname": name},
            }})
        });
        self.state.lock().unwrap().registrations = Some(registrations.collect());
    }

    /// How often the uniform was asked for registrations.
    pub(super) fn lookups(&self) -> usize {
        self.state.lock().unwrap().lookups
    }

    /// The events that became entries of the error log.
    pub(super) fn log(&self) -> Vec<Value> {
        self.state.lock().unwrap().log.clone()
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
        let path = self.files.path().join(PROJECT).join(level).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content.into()).unwrap();
    }

    /// Where the files are, laid out as in Keptn.
    pub(super) fn directory(&self) -> &Path {
        self.files.path()
    }

    pub(super) fn has_not(&self, level: &str, name: &str) {
        fs::remove_file(self.files.path().join(PROJECT).join(level).join(name)).unwrap();
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
        self.embedded.events()
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(super) fn shown(&self) -> Vec<String> {
        self.state.lock().unwrap().shown.clone()
    }

    pub(super) async fn wait_for(&self, events: usize) {
        self.sent
            .subscribe()
            .wait_for(|sent| *sent >= events)
            .await
            .unwrap();
    }

    pub(super) async fn wait_for_log(&self, entries: usize) {
        self.logged
            .subscribe()
            .wait_for(|logged| *logged >= entries)
            .await
            .unwrap();
    }

    fn gives_registrations(&self) -> Response<Body> {
        let mut model = self.state.lock().unwrap();
        model.lookups += 1;
        if let Habit::Answers(code) = model.control_plane {
            return status(StatusCode::from_u16(code).unwrap());
        }
        match &model.registrations {
            Some(registrations) => json_of(StatusCode::OK, registrations),
            None => error(StatusCode::NOT_FOUND, "path was not found"),
        }
    }

    fn gives_token(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        let mut model = self.state.lock().unwrap();
        if let Habit::Answers(code) = model.oauth_habit {
            return status(StatusCode::from_u16(code).unwrap());
        }
        let server = model.oauth.get_or_insert_default();
        match path {
            "/oauth/token" => server.token(headers, body),
            "/oauth/discovery" => server.discovery(),
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    fn takes_event(&self, url: &Url, body: &[u8]) -> Response<Body> {
        {
            let mut model = self.state.lock().unwrap();
            if let Habit::Answers(code) = model.distributor {
                return status(StatusCode::from_u16(code).unwrap());
            }
            if !model.event_troubles.is_empty() {
                return status(model.event_troubles.remove(0));
            }
            if Some(body.len()) > model.max_event_bytes.or(Some(usize::MAX)) {
                return status(StatusCode::INTERNAL_SERVER_ERROR);
            }
            let event: Value = serde_json::from_slice(body).unwrap();
            // As distributors from 0.8.4 on: nobody else gets to know of it.
            if event["type"] == "sh.keptn.log.error" {
                model.log.push(event);
                self.logged.send_modify(|logged| *logged += 1);
                return status(StatusCode::OK);
            }
            if model.unanswerable == Some(text(&event["triggeredid"])) {
                return status(StatusCode::BAD_GATEWAY);
            }
        }
        self.embedded
            .respond(&Method::POST, url, body)
            .map(Body::from)
    }

    fn gives_events(&self, url: &Url) -> Response<Body> {
        let mut model = self.state.lock().unwrap();
        model.questions += 1;
        if let Habit::Answers(code) = model.store {
            return status(StatusCode::from_u16(code).unwrap());
        }
        self.embedded
            .respond(&Method::GET, url, &[])
            .map(Body::from)
    }

    fn gives_resource(&self, url: &Url, headers: &HeaderMap) -> Response<Body> {
        let mut model = self.state.lock().unwrap();
        let query = url
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        model.requests.push(format!("{}{query}", url.path()));
        let shown = ["x-token", "authorization"].into_iter().filter_map(|name| {
            let value = headers.get(name)?.to_str().unwrap();
            Some(format!("{name}: {value}"))
        });
        model.shown = shown.collect();
        if model.resources == Habit::Repeats {
            return error(StatusCode::FORBIDDEN, &model.shown.join(", "));
        }
        if let Habit::Answers(code) = model.resources {
            return error(StatusCode::from_u16(code).unwrap(), "trouble");
        }
        if !model.resource_troubles.is_empty() {
            return error(model.resource_troubles.remove(0), "trouble");
        }
        let protected = model.oauth.as_ref();
        if protected.is_some_and(|server| !server.is_valid(headers)) {
            return error(StatusCode::UNAUTHORIZED, "no valid access token");
        }
        let token = headers
            .get("x-token")
            .map(|token| token.to_str().unwrap().to_owned());
        if model.token.is_some() && model.token != token {
            return error(StatusCode::UNAUTHORIZED, "incorrect api key auth");
        }
        let short = url
            .as_str()
            .replace("/resource-service/", "/configuration-service/")
            .replace("pageSize=50", &format!("pageSize={PAGE}"));
        let short = Url::parse(&short).unwrap();
        self.embedded
            .respond(&Method::GET, &short, &[])
            .map(Body::from)
    }
}

/// In the cluster each service of Keptn has a host of its own.
fn by_path(uri: &Uri) -> Uri {
    match uri.host() {
        Some(host @ ("configuration-service" | "resource-service")) => {
            format!("http://keptn/{host}{}", uri.path_and_query().unwrap())
                .parse()
                .unwrap()
        }
        _ => uri.clone(),
    }
}

/// An event in a transcript.
fn line(event: &Value) -> String {
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
    line
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// What a call is about.
fn name_of(method: &Method, uri: &Uri, body: &[u8]) -> String {
    let path = uri.path();
    let last = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
    if path.starts_with("/oauth") {
        return "get token".to_owned();
    }
    if path.starts_with("/controlPlane") {
        return "look up registration".to_owned();
    }
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
) -> Response<Body> {
    if keptn.habit_of(&uri) == Habit::Hangs {
        keptn.state.lock().unwrap().hanging += 1;
        std::future::pending::<()>().await;
    }
    let url = format!("http://keptn{}", uri.path_and_query().unwrap());
    let url = Url::parse(&url).unwrap();
    match keptn.nothing_at(&uri) {
        Some(Nothing::PathNotFound) => {
            let message = format!("path {} was not found", url.path());
            return error(StatusCode::NOT_FOUND, &message);
        }
        Some(_) => {
            let mut response = Response::new(Body::from("404 page not found"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        }
        None => {}
    }
    match (method, url.path()) {
        (_, path) if path.starts_with("/oauth") => keptn.gives_token(path, &headers, &body),
        (Method::POST, "/event") => {
            let response = keptn.takes_event(&url, &body);
            let mut held = keptn.held.subscribe();
            held.wait_for(|held| !held).await.unwrap();
            response
        }
        (Method::GET, path) if path.starts_with("/mongodb-datastore") => keptn.gives_events(&url),
        (Method::GET, "/controlPlane/v1/uniform/registration") => keptn.gives_registrations(),
        (Method::GET, _) => keptn.gives_resource(&url, &headers),
        _ => status(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn error(code: StatusCode, message: &str) -> Response<Body> {
    json_of(code, &json!({"code": code.as_u16(), "message": message}))
}

fn json_of(code: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response
}
