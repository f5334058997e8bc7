//! The fake's side of the wire: requests, lists and watches.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, Request, Uri};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};
use tower::{BoxError, Layer, service_fn};

use super::{Change, Kubernetes, WatchHabit, status};
use crate::cluster::time_limit;
use crate::tests::wire::{Lost, Wire};

/// How late a watch may be.
const LATE: Duration = Duration::from_secs(10);

impl Kubernetes {
    /// A client for one process.
    pub(in crate::tests) fn client(&self, wire: &Wire) -> Client {
        let (cluster, wire) = (self.clone(), wire.clone());
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let (cluster, wire) = (cluster.clone(), wire.clone());
            async move {
                if cluster.state.lock().unwrap().away {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
                }
                let call = Call::of(request).await?;
                let name = call.name();
                let answer = |code| status(code, reason(code), "trouble of the API server");
                let answered = wire.carry(&name, async { cluster.answers(&call) }, answer);
                answered.await.map_err(|lost| -> BoxError {
                    let kind = match lost {
                        Lost::Refused => std::io::ErrorKind::ConnectionRefused,
                        Lost::Broken => std::io::ErrorKind::ConnectionReset,
                    };
                    std::io::Error::from(kind).into()
                })
            }
        });
        Client::new(time_limit().layer(service), "keptn")
    }

    fn answers(&self, call: &Call) -> Response {
        let mut model = self.state.lock().unwrap();
        model.calls.push(call.verb_and_resource());
        let trouble = model
            .troubles
            .iter()
            .position(|(of, _)| *of == call.method)
            .filter(|_| !call.watched);
        if let Some(trouble) = trouble {
            let (_, code) = model.troubles.remove(trouble);
            return status(code.as_u16(), "Trouble", "trouble of the API server");
        }
        drop(model);
        let rest: Vec<&str> = call.rest.iter().map(String::as_str).collect();
        match (&call.method, rest.as_slice()) {
            (&Method::POST, [kind]) => self.creates(kind, call.body.clone()),
            (&Method::PATCH, [kind, name]) => self.patches(kind, name, &call.body),
            (&Method::GET, [kind]) if call.watched => {
                let from = call.query.get("resourceVersion");
                let from = from.and_then(|version| version.parse().ok());
                self.watch(kind, call.selector(), from.unwrap_or(0))
            }
            (&Method::GET, [kind]) => self.list(kind, call.selector()),
            (&Method::GET, ["pods", pod, "log"]) => self.log(pod),
            (&Method::GET, [kind, name]) => match self.object(kind, name) {
                Some(object) => object.to_string().into_response(),
                None => status(404, "NotFound", &format!("{kind} \"{name}\" not found")),
            },
            (method, rest) => panic!("no such call: {method} {rest:?}"),
        }
    }

    fn list(&self, kind: &str, selector: &str) -> Response {
        let model = self.state.lock().unwrap();
        let items: Vec<&Value> = model
            .objects
            .iter()
            .filter(|((of, _), object)| of == kind && selected(object, selector))
            .map(|(_, object)| object)
            .collect();
        let version = model.changes.len().to_string();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items})
            .to_string()
            .into_response()
    }

    fn watch(&self, kind: &str, selector: &str, from: usize) -> Response {
        let cursor = Cursor {
            cluster: self.clone(),
            kind: kind.to_owned(),
            selector: selector.to_owned(),
            next: from,
            version: self.version.subscribe(),
            generation: self.state.lock().unwrap().generation.subscribe(),
            pending: Vec::new(),
            over: false,
        };
        let lines = stream::unfold(cursor, |mut cursor| async move {
            let line = cursor.line().await?;
            Some((Ok::<_, std::convert::Infallible>(line), cursor))
        });
        Body::from_stream(lines).into_response()
    }
}

/// How far one watch has come.
struct Cursor {
    cluster: Kubernetes,
    kind: String,
    selector: String,
    /// The number of the next change.
    next: usize,
    version: tokio::sync::watch::Receiver<usize>,
    generation: tokio::sync::watch::Receiver<usize>,
    /// Lines that come before the next change.
    pending: Vec<String>,
    over: bool,
}

impl Cursor {
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(line) = self.pending.pop() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            let (change, habit) = {
                let model = self.cluster.state.lock().unwrap();
                (model.changes.get(self.next).cloned(), model.watches)
            };
            let Some(change) = change else {
                tokio::select! {
                    changed = self.version.changed() => changed.ok()?,
                    _ = self.generation.changed() => return None,
                }
                continue;
            };
            self.next += 1;
            if change.kind != self.kind {
                continue;
            }
            let Some(line) = change.line(&self.selector) else {
                continue;
            };
            match habit {
                WatchHabit::Sound => {}
                WatchHabit::Ends => self.over = true,
                WatchHabit::Compacted => {
                    self.over = true;
                    let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "reason": "Expired", "message": "too old resource version", "code": 410});
                    let error = json!({"type": "ERROR", "object": expired});
                    self.pending.push(format!("{error}\n"));
                }
                WatchHabit::Late => tokio::time::sleep(LATE).await,
                WatchHabit::Repeats => self.pending.push(line.clone()),
            }
            return Some(line);
        }
    }
}

impl Change {
    /// A watch event, as a watch with this selector sees the change.
    fn line(&self, selector: &str) -> Option<String> {
        let seen = |object: &&Value| selected(object, selector);
        let (before, after) = (self.before.as_ref(), self.after.as_ref());
        let (kind, object) = match (before.filter(seen), after.filter(seen)) {
            (None, None) => return None,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => ("DELETED", after.unwrap_or(before)),
        };
        Some(format!("{}\n", json!({"type": kind, "object": object})))
    }
}

fn selected(object: &Value, selector: &str) -> bool {
    let labels = &object["metadata"]["labels"];
    selector
        .split(',')
        .filter(|term| !term.is_empty())
        .all(|term| {
            if let Some(absent) = term.strip_prefix('!') {
                return labels[absent].is_null();
            }
            match term.split_once('=') {
                Some((label, value)) => labels[label] == value,
                None => !labels[term].is_null(),
            }
        })
}

/// One request.
struct Call {
    method: Method,
    /// What comes behind the namespace.
    rest: Vec<String>,
    query: BTreeMap<String, String>,
    watched: bool,
    body: Value,
}

impl Call {
    async fn of(request: Request<kube::client::Body>) -> Result<Self, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self::new(head.method, &head.uri, &body))
    }

    fn new(method: Method, uri: &Uri, body: &Bytes) -> Self {
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| {
                let value = value
                    .replace("%2F", "/")
                    .replace("%3D", "=")
                    .replace("%2C", ",")
                    .replace("%21", "!");
                (key.to_owned(), value)
            })
            .collect();
        let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
        let of_namespace = path.iter().position(|part| *part == "namespaces").unwrap() + 2;
        Self {
            method,
            rest: path[of_namespace..]
                .iter()
                .map(ToString::to_string)
                .collect(),
            watched: query.contains_key("watch"),
            query,
            body: serde_json::from_slice(body).unwrap_or_default(),
        }
    }

    fn selector(&self) -> &str {
        self.query
            .get("labelSelector")
            .map(String::as_str)
            .unwrap_or_default()
    }

    fn verb_and_resource(&self) -> String {
        let verb = match (&self.method, self.rest.len()) {
            (_, 1) if self.watched => "watch".to_owned(),
            (&Method::GET, 1) => "list".to_owned(),
            (&Method::POST, _) => "create".to_owned(),
            (other, _) => other.as_str().to_lowercase(),
        };
        let resource: Vec<&str> = self.rest.iter().step_by(2).map(String::as_str).collect();
        format!("{verb} {}", resource.join("/"))
    }

    /// With what is patched, as that tells the steps of a run apart.
    fn name(&self) -> String {
        let name = self.verb_and_resource();
        let metadata = &self.body["metadata"];
        for mark in ["jes-started", "jes-answered"] {
            if !metadata["annotations"][format!("keptn.sh/{mark}")].is_null() {
                return format!("{name} {mark}");
            }
        }
        if name == "patch jobs" && !metadata["labels"].is_null() {
            return format!("{name} jes-reported");
        }
        name
    }
}

fn reason(code: u16) -> &'static str {
    match code {
        403 => "Forbidden",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    }
}
