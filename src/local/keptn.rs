//! A Keptn in this process: its configuration service over a directory of resources, the event endpoint of
//! its distributor, and its event store.

mod repository;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::keptn::{SendError, Transport};
use repository::{Entry, Level};
pub(crate) use repository::{FoundConfig, Repository};

/// Pages of a list, as configuration-service 0.8.2 bounds them.
const MAX_PAGE: usize = 50;

/// That are kept; a desk sees fewer in a day.
const MAX_EVENTS: usize = 1_000;

#[derive(Clone)]
pub(crate) struct Keptn {
    repository: Arc<Repository>,
    /// What was taken, and when.
    events: Arc<Mutex<Vec<(Value, Instant)>>>,
    /// How long after its arrival an event is missing from the store.
    store_lag: Duration,
    recipient: Arc<dyn Fn(&Value) + Send + Sync>,
}

impl Keptn {
    /// Where the service finds it. No connection is made.
    pub(crate) const CONFIGURATION_SERVICE: &str = "http://keptn/configuration-service";
    pub(crate) const EVENT_ENDPOINT: &str = "http://keptn/event";

    /// `recipient` is told each event that the service sends.
    pub(crate) fn new(
        repository: Repository,
        store_lag: Duration,
        recipient: impl Fn(&Value) + Send + Sync + 'static,
    ) -> Self {
        Self {
            repository: Arc::new(repository),
            events: Arc::default(),
            store_lag,
            recipient: Arc::new(recipient),
        }
    }

    /// A way to it.
    pub(crate) fn transport(&self) -> Transport {
        let keptn = self.clone();
        BoxCloneSyncService::new(service_fn(move |request: reqwest::Request| {
            let answered = keptn.answer(request);
            std::future::ready(answered.map(Into::into))
        }))
    }

    fn answer(&self, request: reqwest::Request) -> Result<Response<Vec<u8>>, SendError> {
        let request = Request::<reqwest::Body>::try_from(request)?;
        let body = request.body().as_bytes().unwrap_or_default();
        let url = Url::parse(&request.uri().to_string());
        Ok(match url {
            Ok(url) => self.respond(request.method(), &url, body),
            Err(_) => error(StatusCode::BAD_REQUEST, "no address"),
        })
    }

    pub(crate) fn respond(&self, method: &Method, url: &Url, body: &[u8]) -> Response<Vec<u8>> {
        match (method, url.path()) {
            (&Method::POST, "/event") => self.take_event(body),
            (&Method::GET, path) => {
                if let Some(event_type) = path.strip_prefix("/mongodb-datastore/event/type/") {
                    return self.give_events(event_type, url);
                }
                if let Some(path) = path.strip_prefix("/configuration-service/v1/project/") {
                    return self.give_resource(path, url);
                }
                error(StatusCode::NOT_FOUND, "path was not found")
            }
            _ => error(StatusCode::NOT_FOUND, "path was not found"),
        }
    }

    /// The events that were taken.
    #[cfg(test)]
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().map(|(event, _)| event.clone()).collect()
    }

    fn take_event(&self, body: &[u8]) -> Response<Vec<u8>> {
        let Ok(event) = serde_json::from_slice::<Value>(body) else {
            return error(StatusCode::BAD_REQUEST, "the event is not JSON");
        };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push((event.clone(), Instant::now()));
        if events.len() > MAX_EVENTS {
            events.remove(0);
        }
        drop(events);
        // Whoever waits for the event finds it.
        (self.recipient)(&event);
        Response::new(Vec::new())
    }

    /// The event store, as it answers the one exact question: `filter` is split at ` AND ` and at `:`.
    fn give_events(&self, event_type: &str, url: &Url) -> Response<Vec<u8>> {
        let filter = query(url, "filter").unwrap_or_default();
        let clauses: Vec<(&str, &str)> = filter
            .split(" AND ")
            .filter_map(|clause| clause.split_once(':'))
            .collect();
        if !clauses.iter().any(|(field, _)| *field == "shkeptncontext") {
            return error(StatusCode::INTERNAL_SERVER_ERROR, "must provide a filter");
        }
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let stored: Vec<&Value> = events
            .iter()
            .filter(|(_, at)| at.elapsed() >= self.store_lag)
            .map(|(event, _)| event)
            .filter(|event| event["type"] == event_type)
            .filter(|event| clauses.iter().all(|(field, value)| event[field] == *value))
            .collect();
        respond(
            StatusCode::OK,
            &json!({"events": stored, "pageSize": 20, "totalCount": stored.len()}),
        )
    }

    /// `<project>[/stage/<stage>[/service/<service>]]/resource[/<name>]`, the name encoded once or twice.
    fn give_resource(&self, path: &str, url: &Url) -> Response<Vec<u8>> {
        let segments: Vec<String> = path.split('/').map(decoded).collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (level, rest) = match segments.as_slice() {
            [project, "resource", rest @ ..] => (Level::Project(project), rest),
            [project, "stage", stage, "resource", rest @ ..] => {
                (Level::Stage(project, stage), rest)
            }
            [
                project,
                "stage",
                stage,
                "service",
                service,
                "resource",
                rest @ ..,
            ] => (Level::Service(project, stage, service), rest),
            _ => return error(StatusCode::NOT_FOUND, "path was not found"),
        };
        match rest {
            [] => list(&self.repository.list(level), url),
            [name] => one(&decoded(name), self.repository.read(level, &decoded(name))),
            _ => error(StatusCode::NOT_FOUND, "path was not found"),
        }
    }
}

fn one(name: &str, entry: Entry) -> Response<Vec<u8>> {
    match entry {
        Entry::File(content) => {
            let uri = name.replace('/', "%2F");
            let mut body = json!({"resourceURI": uri, "metadata": {"version": "local"}});
            // As Keptn does, an empty file has no content.
            if !content.is_empty() {
                body["resourceContent"] = STANDARD.encode(content).into();
            }
            respond(StatusCode::OK, &body)
        }
        Entry::Directory => error(StatusCode::INTERNAL_SERVER_ERROR, "Could not read file"),
        Entry::Absent => error(StatusCode::NOT_FOUND, "Resource not found"),
        // Not one that is asked again: it stays so.
        Entry::Unreadable(reason) => error(StatusCode::FORBIDDEN, &reason),
    }
}

fn list(names: &[String], url: &Url) -> Response<Vec<u8>> {
    let number = |name| query(url, name).and_then(|value| value.parse::<usize>().ok());
    let size = number("pageSize").unwrap_or(20);
    if !(1..=MAX_PAGE).contains(&size) {
        let message = "pageSize should be at most 50";
        return error(StatusCode::UNPROCESSABLE_ENTITY, message);
    }
    let from = number("nextPageKey").unwrap_or(0);
    // With the leading slash of production.
    let page: Vec<Value> = names
        .iter()
        .skip(from)
        .take(size)
        .map(|name| json!({"resourceURI": format!("/{name}")}))
        .collect();
    let next = if from + size < names.len() {
        from + size
    } else {
        0
    };
    let total = names.len();
    let body = json!({"nextPageKey": next.to_string(), "resources": page, "totalCount": total});
    respond(StatusCode::OK, &body)
}

fn query(url: &Url, name: &str) -> Option<String> {
    let mut pairs = url.query_pairs();
    pairs
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn error(status: StatusCode, message: &str) -> Response<Vec<u8>> {
    respond(
        status,
        &json!({"code": status.as_u16(), "message": message}),
    )
}

fn respond(status: StatusCode, body: &Value) -> Response<Vec<u8>> {
    let mut response = Response::new(body.to_string().into_bytes());
    *response.status_mut() = status;
    response
}
