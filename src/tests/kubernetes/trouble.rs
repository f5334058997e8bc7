//! What goes wrong between the service and its cluster, or is put in between by somebody else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, Request, StatusCode};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use serde_json::json;
use tokio::sync::watch;
use tower::{BoxError, Layer, service_fn};

use super::{Behaviour, Kubernetes, NAMESPACE, task_of};
use crate::cluster::time_limit;
use crate::local::kubernetes::Failure;
use crate::local::kubernetes::api::{Answer, Call, failed};
use crate::tests::wire::{Lost, Wire};

/// How late a watch may be.
const LATE: Duration = Duration::from_secs(10);

/// A container that somebody's webhook adds to Pods.
pub(super) const SIDECAR: &str = "sidecar";

/// How watches behave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::tests) enum WatchHabit {
    #[default]
    Sound,
    /// Each ends after every change that it shows.
    Ends,
    /// Each is told after every change that its resource version is too old.
    Compacted,
    /// Changes are shown ten seconds late.
    Late,
    /// Each change is shown twice.
    Repeats,
}

#[derive(Clone, Default)]
pub(super) struct Trouble(Arc<Mutex<State>>);

struct State {
    /// Statuses for the next calls, by method, before the true answers.
    statuses: Vec<(Method, StatusCode)>,
    /// Watches that began before this number end: their client is gone, or the server restarted.
    generation: watch::Sender<usize>,
    watches: WatchHabit,
    /// Nothing listens.
    away: bool,
    /// Where the caller has no permissions.
    forbidden: Option<&'static str>,
    events_are_forbidden: bool,
    /// Of a whole log so many bytes come, and then nothing.
    log_bytes: Option<usize>,
    calls: Vec<String>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            statuses: Vec::new(),
            generation: watch::Sender::new(0),
            watches: WatchHabit::Sound,
            away: false,
            forbidden: None,
            events_are_forbidden: false,
            log_bytes: None,
            calls: Vec::new(),
        }
    }
}

impl Trouble {
    pub(super) fn then(&self, method: &Method, status: StatusCode) {
        let mut state = self.0.lock().unwrap();
        state.statuses.push((method.clone(), status));
    }

    pub(super) fn is_over(&self) {
        self.0.lock().unwrap().statuses.clear();
    }

    pub(super) fn ends_watches(&self) {
        let state = self.0.lock().unwrap();
        state.generation.send_modify(|generation| *generation += 1);
    }

    pub(super) fn has_watches_that(&self, habit: WatchHabit) {
        self.0.lock().unwrap().watches = habit;
    }

    pub(super) fn is_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
        self.ends_watches();
    }

    pub(super) fn forbids(&self, namespace: &'static str) {
        self.0.lock().unwrap().forbidden = Some(namespace);
    }

    pub(super) fn forbids_events(&self) {
        self.0.lock().unwrap().events_are_forbidden = true;
        self.ends_watches();
    }

    pub(super) fn shows_of_logs(&self, bytes: usize) {
        self.0.lock().unwrap().log_bytes = Some(bytes);
    }

    /// A log that takes longer than anybody waits.
    fn of_log(&self, call: &Call, answer: Answer) -> Answer {
        let bytes = self.0.lock().unwrap().log_bytes;
        let Some(bytes) = bytes.filter(|_| call.asks_for_a_whole_log()) else {
            return answer;
        };
        let (head, body) = answer.into_parts();
        let begin = BodyStream::new(body).map(move |frame| {
            let mut data = frame.unwrap().into_data().unwrap();
            data.truncate(bytes);
            Ok::<_, BoxError>(Frame::data(data))
        });
        let body = StreamBody::new(begin.chain(stream::pending()));
        http::Response::from_parts(head, body.boxed_unsync())
    }

    fn is_forbidden(&self, call: &Call) -> bool {
        let (forbidden, events) = {
            let state = self.0.lock().unwrap();
            (state.forbidden, state.events_are_forbidden)
        };
        if events && call.verb_and_resource().ends_with(" events") {
            return true;
        }
        forbidden.is_some_and(|namespace| call.namespace() == Some(namespace))
    }

    pub(super) fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    fn next(&self, call: &Call) -> Option<StatusCode> {
        let mut state = self.0.lock().unwrap();
        state.calls.push(call.verb_and_resource());
        let mut statuses = state.statuses.iter();
        let place = statuses.position(|(of, _)| *of == call.method && !call.is_watch())?;
        Some(state.statuses.remove(place).1)
    }

    /// A watch as it arrives.
    fn of_watch(&self, answer: Answer) -> Answer {
        let (mut generation, trouble) = {
            let state = self.0.lock().unwrap();
            (state.generation.subscribe(), self.clone())
        };
        let (head, body) = answer.into_parts();
        // One frame is one line, and the habit is asked for at each.
        let lines = BodyStream::new(body).then(move |line| {
            let habit = trouble.0.lock().unwrap().watches;
            async move {
                if habit == WatchHabit::Late {
                    tokio::time::sleep(LATE).await;
                }
                (line.unwrap().into_data().unwrap(), habit)
            }
        });
        let lines = lines.flat_map(|(line, habit)| {
            let expired = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": "Expired", "message": "too old resource version", "code": 410});
            let error = format!("{}\n", json!({"type": "ERROR", "object": expired}));
            stream::iter(match habit {
                WatchHabit::Sound | WatchHabit::Late => vec![Some(line)],
                WatchHabit::Ends => vec![Some(line), None],
                WatchHabit::Compacted => vec![Some(line), Some(error.into()), None],
                WatchHabit::Repeats => vec![Some(line.clone()), Some(line)],
            })
        });
        let lines = lines
            .take_while(|line| std::future::ready(line.is_some()))
            .filter_map(std::future::ready)
            .take_until(async move { generation.changed().await })
            .map(|line: Bytes| Ok::<_, BoxError>(Frame::data(line)));
        http::Response::from_parts(head, StreamBody::new(lines).boxed_unsync())
    }
}

impl Kubernetes {
    /// A client for one process.
    pub(in crate::tests) fn client(&self, wire: &Wire) -> Client {
        let (cluster, wire) = (self.clone(), wire.clone());
        let service = service_fn(move |request: Request<kube::client::Body>| {
            let (cluster, wire) = (cluster.clone(), wire.clone());
            async move {
                if cluster.trouble.0.lock().unwrap().away {
                    return Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into());
                }
                let call = Call::of(request).await?;
                let name = call.name();
                let answer = |code| status(code, "trouble of the API server");
                let answered = wire.carry(&name, async { cluster.answers(call) }, answer);
                answered.await.map_err(|lost| -> BoxError {
                    let kind = match lost {
                        Lost::Refused => std::io::ErrorKind::ConnectionRefused,
                        Lost::Broken => std::io::ErrorKind::ConnectionReset,
                    };
                    std::io::Error::from(kind).into()
                })
            }
        });
        Client::new(time_limit().layer(service), NAMESPACE)
    }

    fn answers(&self, mut call: Call) -> Answer {
        if let Some(code) = self.trouble.next(&call) {
            return status(code.as_u16(), "trouble of the API server");
        }
        if self.trouble.is_forbidden(&call) {
            return status(403, "jobs.batch is forbidden: User \"jes\" cannot do this");
        }
        if call.verb_and_resource() == "create jobs" {
            match self.script.behaviour(&task_of(&call.body)) {
                Behaviour::Refused { code, message } => return status(code, &message),
                Behaviour::BreaksTheService => panic!("a bug of the service"),
                Behaviour::IsOutlived | Behaviour::FailsLater(_) => {
                    let containers = &mut call.body["spec"]["template"]["spec"]["containers"];
                    let sidecar = json!({"name": SIDECAR, "image": "sidecar"});
                    containers.as_array_mut().unwrap().push(sidecar);
                }
                _ => {}
            }
        }
        let answer = self.cluster.answer(&call);
        if call.is_watch() {
            return self.trouble.of_watch(answer);
        }
        self.trouble.of_log(&call, answer)
    }
}

impl Call {
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

fn status(code: u16, message: &str) -> Answer {
    failed(&Failure {
        code,
        reason: reason(code),
        message: message.to_owned(),
    })
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
