//! The API server's side of the wire, as a service under a real client: paths, lists, watches, statuses.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{BoxError, Layer, service_fn};

use super::{Change, Failure, Key, Kubernetes, Resource};
use crate::cluster::time_limit;

/// A watch's body goes on for as long as the watch does.
pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// One request to the API.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) body: Value,
    uri: Uri,
    query: BTreeMap<String, String>,
}

/// Which objects of a collection are asked for.
struct Selector {
    labels: String,
    fields: String,
}

/// What a path names.
enum Target {
    Collection(Resource, String),
    Object(Key),
    Log(Key),
}

impl Call {
    pub(crate) async fn of(request: Request<kube::client::Body>) -> Result<Self, BoxError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let query = head.uri.query().unwrap_or_default();
        let query = reqwest::Url::parse(&format!("http://api/?{query}"))?
            .query_pairs()
            .into_owned()
            .collect();
        Ok(Self {
            method: head.method,
            body: serde_json::from_slice(&body).unwrap_or_default(),
            uri: head.uri,
            query,
        })
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.query.get("watch").is_some_and(|watch| watch == "true")
    }

    #[cfg(test)]
    pub(crate) fn asks_for_a_whole_log(&self) -> bool {
        matches!(self.target(), Some(Target::Log(_))) && !self.query.contains_key("tailLines")
    }

    /// In the words of a Role.
    #[cfg(test)]
    pub(crate) fn verb_and_resource(&self) -> String {
        let target = self.target();
        let verb = match (&self.method, &target) {
            (&Method::GET, Some(Target::Collection(..))) if self.is_watch() => "watch",
            (&Method::GET, Some(Target::Collection(..))) => "list",
            (&Method::GET, _) => "get",
            (&Method::POST, _) => "create",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, _) => "delete",
            (other, _) => other.as_str(),
        };
        match target {
            Some(Target::Collection(resource, _)) => format!("{verb} {}", resource.plural()),
            Some(Target::Object(key)) => format!("{verb} {}", key.resource.plural()),
            Some(Target::Log(key)) => format!("{verb} {}/log", key.resource.plural()),
            None => format!("{verb} {}", self.uri.path()),
        }
    }

    #[cfg(test)]
    pub(crate) fn namespace(&self) -> Option<&str> {
        let mut segments = self.uri.path().split('/');
        segments.find(|segment| *segment == "namespaces")?;
        segments.next()
    }

    fn selector(&self) -> Selector {
        let of = |name: &str| self.query.get(name).cloned().unwrap_or_default();
        Selector {
            labels: of("labelSelector"),
            fields: of("fieldSelector"),
        }
    }

    /// `/apis/<group>/<version>/namespaces/<namespace>/<resource>[/<name>[/log]]`, and `/api/v1/…`.
    fn target(&self) -> Option<Target> {
        let mut segments = self
            .uri
            .path()
            .split('/')
            .skip_while(|segment| *segment != "namespaces");
        segments.next()?;
        let namespace = segments.next()?;
        let resource = Resource::parse(segments.next()?)?;
        let Some(name) = segments.next() else {
            return Some(Target::Collection(resource, namespace.to_owned()));
        };
        let key = Key::new(resource, namespace, name);
        match (resource, segments.next()) {
            (_, None) => Some(Target::Object(key)),
            (Resource::Pods, Some("log")) => Some(Target::Log(key)),
            _ => None,
        }
    }
}

impl Kubernetes {
    pub(crate) fn client(&self, namespace: &str) -> Client {
        let cluster = self.clone();
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, BoxError>(cluster.answer(&Call::of(request).await?)) }
        });
        Client::new(time_limit().layer(service), namespace)
    }

    pub(crate) fn answer(&self, call: &Call) -> Answer {
        let found = match (&call.method, call.target()) {
            (&Method::GET, Some(Target::Collection(resource, namespace))) if call.is_watch() => {
                return self.watch(resource, namespace, call);
            }
            (&Method::GET, Some(Target::Collection(resource, namespace))) => {
                Ok(self.list_of(resource, &namespace, &call.selector()))
            }
            (&Method::POST, Some(Target::Collection(resource, namespace))) => {
                let name = call.body["metadata"]["name"].as_str().unwrap_or_default();
                let created = self.create(&Key::new(resource, &namespace, name), call.body.clone());
                return match created {
                    Ok(object) => respond(StatusCode::CREATED, &object),
                    Err(failure) => failed(&failure),
                };
            }
            (&Method::GET, Some(Target::Object(key))) => {
                let object = self.get(&key).ok_or_else(|| Failure::not_found(&key));
                object.map(|object| object.to_string())
            }
            (&Method::PATCH, Some(Target::Object(key))) => {
                let object = self.patch(&key, &call.body);
                object.map(|object| object.to_string())
            }
            (&Method::DELETE, Some(Target::Object(key))) => {
                let object = self.delete(&key);
                object.map(|object| object.to_string())
            }
            (&Method::GET, Some(Target::Log(key))) => return self.log_of(&key, call),
            _ => Err(Failure {
                code: 404,
                reason: "NotFound",
                message: format!("this cluster does not answer {} {}", call.method, call.uri),
            }),
        };
        match found {
            Ok(text) => Response::new(whole(text.into_bytes())),
            Err(failure) => failed(&failure),
        }
    }

    fn list_of(&self, resource: Resource, namespace: &str, selector: &Selector) -> String {
        let (version, objects) = self.list(resource, namespace);
        let items: Vec<&Value> = objects
            .iter()
            .map(Arc::as_ref)
            .filter(|object| selector.selects(object))
            .collect();
        let (api_version, kind) = resource.kind();
        json!({"kind": format!("{kind}List"), "apiVersion": api_version, "items": items,
            "metadata": {"resourceVersion": version.to_string()}})
        .to_string()
    }

    fn log_of(&self, pod: &Key, call: &Call) -> Answer {
        let container = call.query.get("container").map_or("", String::as_str);
        let Some(object) = self.get(pod) else {
            return failed(&Failure::not_found(pod));
        };
        let status_of = |list: &str| {
            let mut statuses = object["status"][list].as_array().into_iter().flatten();
            statuses.find(|status| status["name"] == container)
        };
        let status = status_of("containerStatuses").or_else(|| status_of("initContainerStatuses"));
        let waiting = status.and_then(|status| status["state"]["waiting"]["reason"].as_str());
        if status.is_none() || waiting.is_some() {
            return failed(&Failure::no_log(&pod.name, container, waiting));
        }
        let log = self.log(&pod.name, container);
        let lines = call.query.get("tailLines");
        let lines = lines.and_then(|lines| lines.parse().ok());
        let from = lines.map_or(0, |lines| last_lines(&log, lines));
        Response::new(whole(log[from..].to_vec()))
    }

    fn watch(&self, resource: Resource, namespace: String, call: &Call) -> Answer {
        let from = call.query.get("resourceVersion");
        let cursor = Cursor {
            cluster: self.clone(),
            resource,
            namespace,
            selector: call.selector(),
            seen: from.and_then(|version| version.parse().ok()).unwrap_or(0),
            changes: self.changes(),
            over: false,
        };
        let lines = stream::unfold(cursor, |mut cursor| async move {
            let line = cursor.line().await?;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from(line))), cursor))
        });
        Response::new(StreamBody::new(lines).boxed_unsync())
    }
}

/// How far one watch has come.
struct Cursor {
    cluster: Kubernetes,
    resource: Resource,
    namespace: String,
    selector: Selector,
    /// The last version that was looked at.
    seen: u64,
    changes: watch::Receiver<u64>,
    over: bool,
}

impl Cursor {
    async fn line(&mut self) -> Option<String> {
        loop {
            if self.over {
                return None;
            }
            match self.cluster.change_after(self.seen) {
                Ok(Some(change)) => {
                    self.seen = change.version;
                    let key = &change.key;
                    if key.resource == self.resource
                        && key.namespace == self.namespace
                        && let Some(line) = line(&change, &self.selector)
                    {
                        return Some(line);
                    }
                }
                Ok(None) => self.changes.changed().await.ok()?,
                Err(gone) => {
                    self.over = true;
                    return Some(format!(
                        "{}\n",
                        json!({"type": "ERROR", "object": gone.status()})
                    ));
                }
            }
        }
    }
}

/// Where the last so many lines begin.
fn last_lines(log: &[u8], lines: usize) -> usize {
    let end = log.strip_suffix(b"\n").unwrap_or(log).len();
    let ends = log[..end].iter().enumerate().rev();
    let mut ends = ends.filter(|(_, byte)| **byte == b'\n');
    match lines.checked_sub(1) {
        Some(before) => ends.nth(before).map_or(0, |(end, _)| end + 1),
        None => log.len(),
    }
}

/// A watch event, as a watch with this selector sees the change.
fn line(change: &Change, selector: &Selector) -> Option<String> {
    let seen = |object: &&Arc<Value>| selector.selects(object);
    let (before, after) = (change.before.as_ref(), change.after.as_ref());
    let (kind, object) = match (before.filter(seen), after.filter(seen)) {
        (None, None) => return None,
        (None, Some(after)) => ("ADDED", after),
        (Some(_), Some(after)) => ("MODIFIED", after),
        (Some(before), None) => ("DELETED", before),
    };
    let mut object = Value::clone(object);
    // That of the deletion, too: a watch that goes on from there must not see it again.
    object["metadata"]["resourceVersion"] = change.version.to_string().into();
    Some(format!("{}\n", json!({"type": kind, "object": object})))
}

impl Selector {
    fn selects(&self, object: &Value) -> bool {
        has_labels(object, &self.labels) && has_fields(object, &self.fields)
    }
}

fn terms(selector: &str) -> impl Iterator<Item = &str> {
    selector.split(',').filter(|term| !term.is_empty())
}

/// By a label selector of the forms `a`, `!a` and `a=b`, separated by commas.
fn has_labels(object: &Value, selector: &str) -> bool {
    let labels = &object["metadata"]["labels"];
    terms(selector).all(
        |term| match (term.strip_prefix('!'), term.split_once('=')) {
            (Some(absent), _) => labels[absent].is_null(),
            (None, Some((label, value))) => labels[label] == value,
            (None, None) => !labels[term].is_null(),
        },
    )
}

/// By a field selector of the form `a.b=c`, separated by commas.
fn has_fields(object: &Value, selector: &str) -> bool {
    terms(selector).all(|term| {
        let (path, value) = term.split_once('=').unwrap_or((term, ""));
        let mut names = path.split('.');
        names
            .try_fold(object, |of, name| of.get(name))
            .is_some_and(|found| found == value)
    })
}

impl Failure {
    /// Of a container that is not the Pod's, or that waits.
    fn no_log(pod: &str, container: &str, waiting: Option<&str>) -> Self {
        Self {
            code: 400,
            reason: "BadRequest",
            message: match waiting {
                None => format!("container {container} is not valid for pod {pod}"),
                Some(reason) => format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: {reason}"
                ),
            },
        }
    }

    fn status(&self) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "reason": self.reason, "message": self.message, "code": self.code})
    }
}

pub(crate) fn failed(failure: &Failure) -> Answer {
    let code = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    respond(code, &failure.status())
}

fn respond(code: StatusCode, object: &Value) -> Answer {
    let mut response = Response::new(whole(object.to_string().into_bytes()));
    *response.status_mut() = code;
    response
}

fn whole(bytes: Vec<u8>) -> UnsyncBoxBody<Bytes, BoxError> {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}
