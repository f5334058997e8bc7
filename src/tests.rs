//! Scenarios: the real service in process, one event in, everything that left it as one text.
//!
//! Only the outside is not real, and it is a stateful model: the Keptn and the Kubernetes of `local`, with
//! the habits and troubles of [`keptn`] and [`kubernetes`] before them, where tasks end as the scenario says.
//! Between them and the service there is a [`wire`] instead of sockets, so that the clock can be paused:
//! hours of an outage take milliseconds. [`desk`] runs real processes as tasks, [`podman`] containers,
//! [`browser`] looks at the status page, and [`real_cluster`] has the service on a real cluster.

mod addresses;
mod beyond;
mod browser;
mod certificates;
mod collector;
mod configs;
mod deploy;
mod desk;
mod discretion;
mod endpoint;
mod error_log;
mod failures;
mod faults;
mod fuzz;
mod init_container;
mod keptn;
mod kubernetes;
mod logs;
mod metrics;
mod oauth;
mod page;
mod podman;
mod project;
mod real_cluster;
mod reasons;
mod recovery;
mod replicas;
mod schedules;
mod sequence;
mod traces;
mod wire;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::admin::{self, Audience, Page};
use crate::cli;
use crate::cluster::Identity;
use crate::endpoint::{Afterwards, accept};
use crate::keptn::event_store::LAG;
use crate::metrics::Metrics;
use crate::serve::{Outside, Service};
use keptn::Keptn;
use kubernetes::Kubernetes;
use wire::Wire;

/// What left the service, in order: Jobs and answers.
#[derive(Clone, Default)]
struct Transcript(Arc<Mutex<Vec<String>>>);

impl Transcript {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn text(&self) -> String {
        shortened(&self.0.lock().unwrap().join("\n"))
    }
}

/// With the names of Jobs and Pods shortened to their numbers.
fn shortened(text: &str) -> String {
    let job = "job-executor-service-job-[0-9a-f]{24}(-[0-9]{3}-[0-9]{3})";
    let name = regex::Regex::new(&format!("{job}(-[a-z0-9]{{5}})?")).unwrap();
    let short = |name: &regex::Captures<'_>| {
        let pod = name.get(2).map_or("", |_| "-pod");
        format!("JOB{}{pod}", &name[1])
    };
    name.replace_all(text, short).into_owned()
}

/// The service with its surroundings. Nothing may fail to end: each wait has a limit.
struct Tester {
    keptn: Keptn,
    cluster: Kubernetes,
    transcript: Transcript,
    settings: Vec<String>,
    process: Process,
}

/// One life of the service. It dies as suddenly as a process does: what it still tries has no effect.
struct Process {
    router: Router,
    stop: CancellationToken,
    service: JoinHandle<anyhow::Result<()>>,
    wire: Wire,
    admin: Router,
}

/// For everything that a scenario waits for; far more than it takes, most of it on a paused clock.
const PATIENCE: Duration = Duration::from_secs(120);

/// Of the process, where a test has only one at a time.
const POD: &str = "jes-1";

impl Tester {
    /// The service with this job/config.yaml on the service level.
    async fn start(config: &str) -> Self {
        Self::with(config, &[]).await
    }

    async fn with(config: &str, settings: &[&str]) -> Self {
        let transcript = Transcript::default();
        let keptn = Keptn::new(transcript.clone());
        keptn.has("dev/svc", "job/config.yaml", config);
        let cluster = Kubernetes::new(transcript.clone());
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let process = Process::start(&keptn, &cluster, &settings, POD, Wire::sound()).await;
        process.is_ready().await;
        Self {
            keptn,
            cluster,
            transcript,
            settings,
            process,
        }
    }

    /// Status and text of the answer to an event.
    async fn receives(&self, event: &Value) -> (u16, String) {
        self.process.receives(event).await
    }

    async fn receives_triggered(&self) -> (u16, String) {
        self.receives(&triggered("event-1")).await
    }

    /// Waits until the service has sent this many answers.
    async fn answers(&self, count: usize) {
        let sent = self.keptn.wait_for(count);
        assert!(
            tokio::time::timeout(PATIENCE, sent).await.is_ok(),
            "still not {count} answers:\n{}",
            self.transcript.text()
        );
    }

    /// Takes real connections; for tests on a real clock.
    async fn listens(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (router, stop) = (self.process.router.clone(), self.process.stop.clone());
        tokio::spawn(accept(
            listener,
            router,
            Afterwards::Kept,
            TaskTracker::new(),
            stop,
        ));
        address
    }

    /// Ends the process as SIGKILL does, and starts the next one over what is left.
    async fn crashes(&mut self) {
        self.process.wire.cut();
        self.restarts().await;
    }

    async fn restarts(&mut self) {
        self.process = Process::start(
            &self.keptn,
            &self.cluster,
            &self.settings,
            POD,
            Wire::sound(),
        )
        .await;
        self.process.is_ready().await;
    }

    /// Ends the process as a rollout does, and starts the next one.
    async fn is_rolled_out(&mut self) {
        self.process.stops().await;
        self.restarts().await;
    }

    /// Waits until every Job is marked as reported, stops the service and gives the transcript.
    async fn finish(mut self) -> String {
        let idle = self.cluster.all_reported();
        assert!(
            tokio::time::timeout(PATIENCE, idle).await.is_ok(),
            "a Job is left over:\n{}",
            self.transcript.text()
        );
        self.process.stops().await;
        assert_eq!(self.cluster.lease_holder(), "", "the Lease is given back");
        self.transcript.text()
    }
}

impl Process {
    async fn start(
        keptn: &Keptn,
        cluster: &Kubernetes,
        settings: &[String],
        pod: &str,
        wire: Wire,
    ) -> Self {
        let defaults = [
            "--configuration-service=http://keptn/configuration-service",
            "--keptn-event-endpoint=http://keptn/event",
            "--init-container-image=jes:test",
        ];
        let set = |default: &str| {
            let flag = default.split_inclusive('=').next().unwrap();
            settings.iter().any(|setting| setting.starts_with(flag))
        };
        let mut arguments = settings.to_vec();
        let defaults = defaults.into_iter().filter(|default| !set(default));
        arguments.extend(defaults.map(str::to_owned));
        // As a variable that is set to nothing.
        arguments.retain(|argument| argument != "--configuration-service=");
        let settings = cli::serve_settings(&arguments);
        let metrics = Metrics::default();
        let outside = Outside {
            store_lag: LAG,
            account: None,
            metrics: metrics.clone(),
            client: cluster.client(&wire),
            clock: kubernetes::clock,
            namespace: "keptn".into(),
            identity: Identity::of_this_process("keptn", Some(pod)),
            keptn: keptn.transport(&wire),
            collector: Some(keptn.collector.transport()),
            secrets: Vec::new(),
        };
        cluster.has_pod(pod);
        let stop = CancellationToken::new();
        let service = Service::new(&settings, outside, stop.clone()).await;
        let page = Page::new(Audience::Local);
        page.shows(service.window());
        Self {
            router: service.router(),
            admin: admin::router(&metrics, &page),
            stop,
            service: tokio::spawn(service.run(None)),
            wire,
        }
    }

    async fn is_ready(&self) {
        let ready = async {
            while self.readyz().await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await;
        assert!(ready.is_ok(), "the service does not get ready");
    }

    async fn readyz(&self) -> (u16, String) {
        let request = Request::get("/readyz").body(Body::empty());
        answered(&self.router, request.unwrap()).await
    }

    async fn receives(&self, event: &Value) -> (u16, String) {
        post(&self.router, event).await
    }

    /// As SIGTERM does.
    async fn stops(&mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.service).await;
        ended
            .expect("the service stops")
            .expect("without a panic")
            .expect("without an error");
    }
}

async fn post(router: &Router, event: &Value) -> (u16, String) {
    let request = Request::post("/")
        .header("content-type", "application/cloudevents+json")
        .body(Body::from(event.to_string()));
    answered(router, request.unwrap()).await
}

async fn answered(router: &Router, request: Request<Body>) -> (u16, String) {
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A triggered event of Keptn's task `test`.
fn triggered(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "shipyard-controller",
        "type": "sh.keptn.event.test.triggered", "datacontenttype": "application/json",
        "shkeptncontext": "ce27158f-94ae-401c-b1b9-cbf18d2752f6", "shkeptnspecversion": "0.2.0",
        "data": {"project": "real", "stage": "dev", "service": "svc", "labels": {"k": "v"},
                 "test": {"teststrategy": "functional"}},
    })
}

/// A config of format v2 with one action for `sh.keptn.event.test.triggered`.
fn config(tasks: &str) -> String {
    format!(
        "apiVersion: v2\nactions:\n  - name: Run tests\n    events:\n      \
         - name: sh.keptn.event.test.triggered\n    tasks:\n{tasks}"
    )
}

fn task(name: &str) -> String {
    format!("      - {{name: {name}, image: alpine}}\n")
}
