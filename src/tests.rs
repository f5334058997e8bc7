//! Scenarios: the real service in process, one event in, everything that left it as one text.
//!
//! Only the outside is fake, and it is a stateful model: [`keptn`] (HTTP, configuration service and
//! event endpoint) and [`kubernetes`] (the API server under the real client, with a kubelet that ends
//! tasks as the scenario says). [`real_cluster`] runs the service against a real cluster.

mod endpoint;
mod failures;
mod init_container;
mod keptn;
mod kubernetes;
mod project;
mod real_cluster;
mod sequence;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli;
use crate::serve;
use keptn::Keptn;
use kubernetes::Kubernetes;

/// What left the service, in order: Jobs and answers.
#[derive(Clone, Default)]
struct Transcript(Arc<Mutex<Vec<String>>>);

impl Transcript {
    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// Job names shortened to their numbers.
    fn text(&self) -> String {
        let name = regex::Regex::new("job-executor-service-job-[0-9a-f]{24}").unwrap();
        name.replace_all(&self.0.lock().unwrap().join("\n"), "JOB")
            .into_owned()
    }
}

/// The service with its surroundings. Nothing may fail to end: each wait has a limit.
struct Tester {
    keptn: Keptn,
    cluster: Kubernetes,
    address: SocketAddr,
    transcript: Transcript,
    settings: Vec<String>,
    process: Process,
}

/// The service on threads of its own, so that its death is as sudden as a process's.
struct Process {
    address: SocketAddr,
    stop: CancellationToken,
    service: JoinHandle<anyhow::Result<()>>,
    runtime: Runtime,
}

/// For everything that a scenario waits for; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(20);

impl Tester {
    /// The service with this job/config.yaml on the service level.
    async fn start(config: &str) -> Self {
        Self::with(config, &[]).await
    }

    async fn with(config: &str, settings: &[&str]) -> Self {
        let transcript = Transcript::default();
        let keptn = Keptn::start("127.0.0.1:0", transcript.clone()).await;
        keptn.has("dev/svc", "job/config.yaml", config);
        let cluster = Kubernetes::new(transcript.clone());
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let process = Process::start(&keptn, &cluster, &settings);
        Self {
            keptn,
            cluster,
            address: process.address,
            transcript,
            settings,
            process,
        }
    }

    /// Status and text of the answer to an event.
    async fn receives(&self, event: &Value) -> (u16, String) {
        post(self.address, event).await
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

    /// Ends the process as SIGKILL does, and starts the next one over what is left.
    fn crashes(&mut self) {
        let next = Process::start(&self.keptn, &self.cluster, &self.settings);
        let last = std::mem::replace(&mut self.process, next);
        last.runtime.shutdown_background();
        self.address = self.process.address;
    }

    /// Ends the process as a rollout does, and starts the next one.
    async fn is_rolled_out(&mut self) {
        self.process.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, &mut self.process.service).await;
        ended
            .expect("the service stops")
            .expect("without a panic")
            .expect("without an error");
        self.crashes();
    }

    /// Waits until every Job is marked as reported, stops the service and gives the transcript.
    async fn finish(self) -> String {
        let idle = self.cluster.all_reported();
        assert!(
            tokio::time::timeout(PATIENCE, idle).await.is_ok(),
            "a Job is left over:\n{}",
            self.transcript.text()
        );
        self.process.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.process.service).await;
        ended
            .expect("the service stops")
            .expect("without a panic")
            .expect("without an error");
        self.process.runtime.shutdown_background();
        self.transcript.text()
    }
}

impl Process {
    fn start(keptn: &Keptn, cluster: &Kubernetes, settings: &[String]) -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let mut arguments = vec![
            format!(
                "--configuration-service=http://{}/configuration-service",
                keptn.address
            ),
            format!("--keptn-event-endpoint=http://{}/event", keptn.address),
            "--init-container-image=jes:test".to_owned(),
        ];
        arguments.extend_from_slice(settings);
        let settings = cli::serve_settings(&arguments);
        let stop = CancellationToken::new();
        let (cluster, stopped) = (cluster.clone(), stop.clone());
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = runtime.spawn(async move {
            let listener = TcpListener::from_std(listener)?;
            serve::run(
                settings,
                cluster.client(),
                "keptn".into(),
                listener,
                stopped,
            )
            .await
        });
        Self {
            address,
            stop,
            service,
            runtime,
        }
    }
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

async fn post(address: SocketAddr, event: &Value) -> (u16, String) {
    let response = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .post(format!("http://{address}/"))
        .header("content-type", "application/cloudevents+json")
        .body(event.to_string())
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
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
