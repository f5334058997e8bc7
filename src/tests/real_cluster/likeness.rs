//! The embedded cluster is held honest: the same events on it and on a real one, and what can be seen of
//! both is the same. Jobs as the service made them, how they and their containers ended, and every event
//! that left.

mod api;
mod recorder;
mod scenarios;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::stream::{self, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::Client;
use kube::api::{Api, DeleteParams, LogParams, PostParams};
use regex::Regex;
use serde_json::{Value, json};

use super::{PATIENCE, RealCluster, image, post, with_images};
use crate::cli;
use crate::local::Desk;
use crate::local::runtime::OWN_IMAGE;
use crate::local::story::{Format, Story};
use crate::tests;
use crate::tests::{shortened, triggered};
use recorder::Recorder;
use scenarios::{SCENARIOS, Scenario};

/// A cluster with the service on it.
struct Side<'a> {
    client: Client,
    namespace: &'a str,
    service: Service<'a>,
    recorder: Recorder,
}

enum Service<'a> {
    Embedded(&'a Router, &'a Story),
    Real(&'a RealCluster),
}

impl Side<'_> {
    async fn has_secret(&self) {
        let secret = json!({"metadata": {"name": "credentials"},
            "data": {"USER_NAME": "bWU=", "PASSWORD": "eD15Cg=="}});
        let secrets = Api::<Secret>::namespaced(self.client.clone(), self.namespace);
        let secret = serde_json::from_value(secret).unwrap();
        secrets
            .create(&PostParams::default(), &secret)
            .await
            .unwrap();
    }

    async fn receives(&self, event: &Value) -> (u16, String) {
        match self.service {
            Service::Embedded(router, _) => tests::post(router, event).await,
            Service::Real(cluster) => {
                let (address, _, _) = cluster.service.as_ref().expect("the service was started");
                post(*address, event).await
            }
        }
    }

    fn events(&self, id: &str) -> Vec<Value> {
        let events = match self.service {
            Service::Embedded(_, story) => story.events(),
            Service::Real(cluster) => cluster.keptn.events(),
        };
        let answers = |event: &Value| event["triggeredid"] == id;
        events.into_iter().filter(answers).collect()
    }

    /// From the event to the last change of its last Job; gives all that was seen.
    async fn runs(&self, scenario: &Scenario) -> Value {
        let (status, text) = self.receives(&event(scenario)).await;
        let over = async {
            if scenario.job_is_deleted {
                self.deletes_the_job(scenario.name).await;
            }
            while self.events(scenario.name).len() < scenario.events
                || !self.recorder.all_over(scenario.name, scenario.jobs)
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let over = tokio::time::timeout(PATIENCE, over).await;
        let seen = json!({"answer": format!("{status} {text}"), "jobs": self.recorder.jobs(scenario.name),
            "events": self.events(scenario.name)});
        assert!(over.is_ok(), "{} does not end: {seen:#}", scenario.name);
        alike(&seen, self.namespace)
    }

    async fn deletes_the_job(&self, id: &str) {
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let running = loop {
            if let Some((job, pod)) = self.recorder.running(id) {
                let of_task = LogParams {
                    container: Some(job.clone()),
                    ..LogParams::default()
                };
                let log = pods.logs(&pod, &of_task).await;
                if log.is_ok_and(|log| log.contains("so far")) {
                    break job;
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let jobs = Api::<Job>::namespaced(self.client.clone(), self.namespace);
        jobs.delete(&running, &DeleteParams::background())
            .await
            .unwrap();
    }
}

fn event(scenario: &Scenario) -> Value {
    let mut event = triggered(scenario.name);
    event["type"] = scenario.event_type.into();
    event["data"]["service"] = scenario.name.into();
    event["data"]["hostile"] = "$(PASSWORD) $$ `id`\n= two".into();
    event
}

/// Without what cannot be the same: times, what Kubernetes draws by lot, where the two Keptns are, and how
/// a runtime puts it that there is no such program.
fn alike(seen: &Value, namespace: &str) -> Value {
    let mut text = shortened(&seen.to_string());
    for (pattern, replacement) in [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "TIME"),
        // A process has a directory of this machine in the place of /keptn.
        (r"/tmp/keptn-[0-9A-Za-z]{6}", "/keptn"),
        (r"http://[^/]+/configuration-service", "KEPTN"),
        (r"x{1000,}", "x.."),
        (r"(Reason: StartError, Message: )[^)]*", "${1}WHY"),
        // An engine tells it among the output, too.
        (r"Error: \w+: (runc|crun) .*? not found\\n", ""),
    ] {
        let pattern = Regex::new(pattern).unwrap();
        text = pattern.replace_all(&text, replacement).into_owned();
    }
    text = text.replace(&format!("\"{OWN_IMAGE}\""), "\"OWN\"");
    text = text.replace(&format!("\"{}\"", image()), "\"OWN\"");
    text = text.replace(namespace, "NAMESPACE");
    let mut seen = serde_json::from_str(&text).unwrap();
    drop_empty(&mut seen);
    seen
}

/// The API server leaves out an empty map or list that was sent; whoever reads it cannot tell.
fn drop_empty(value: &mut Value) {
    let is_empty = |value: &Value| {
        value.is_null()
            || value.as_object().is_some_and(serde_json::Map::is_empty)
            || value.as_array().is_some_and(Vec::is_empty)
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(drop_empty);
            // An `emptyDir` is one by having no fields.
            fields.retain(|key, value| key == "emptyDir" || !is_empty(value));
        }
        Value::Array(items) => items.iter_mut().for_each(drop_empty),
        _ => {}
    }
}

/// What the service sent comes back with the server's defaults, which nobody relies on.
fn without_defaults(real: &mut Value, embedded: &Value) {
    match (real, embedded) {
        (Value::Object(real), Value::Object(embedded)) => {
            real.retain(|key, _| embedded.contains_key(key));
            for (key, value) in real {
                without_defaults(value, &embedded[key]);
            }
        }
        (Value::Array(real), Value::Array(embedded)) => {
            for (real, embedded) in real.iter_mut().zip(embedded) {
                without_defaults(real, embedded);
            }
        }
        _ => {}
    }
}

/// The lines that only one of the two has.
fn difference(embedded: &Value, real: &Value) -> String {
    let [embedded, real] = [embedded, real].map(|value| format!("{value:#}"));
    let only = |sign: &str, of: &str, other: &str| -> String {
        let other: Vec<&str> = other.lines().collect();
        let lines = of.lines().filter(|line| !other.contains(line));
        lines.map(|line| format!("{sign} {line}\n")).collect()
    };
    only("embedded:", &embedded, &real) + &only("real:    ", &real, &embedded)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_embedded_cluster_shows_what_a_real_one_shows() {
    are_alike("likeness", "process").await;
}

/// Podman has to have the image that the nodes have.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and podman"]
async fn with_podman_the_embedded_cluster_shows_what_a_real_one_shows() {
    are_alike("likeness-podman", "podman").await;
}

/// More at once are late for the sender's patience on a busy machine.
const AT_ONCE: usize = 8;

async fn all(side: &Side<'_>) -> Vec<Value> {
    let runs = SCENARIOS.iter().map(|scenario| side.runs(scenario));
    stream::iter(runs).buffered(AT_ONCE).collect().await
}

async fn are_alike(namespace: &str, runtime: &str) {
    let cluster = RealCluster::start(namespace, "").await;
    for scenario in SCENARIOS {
        let level = format!("dev/{}", scenario.name);
        if let Some(config) = scenario.config {
            let config = with_images(&scenarios::config(config));
            cluster.keptn.has(&level, "job/config.yaml", config);
        }
        cluster.keptn.has(&level, "a.txt", "a file\n");
        cluster
            .keptn
            .has(&level, "folder/b.txt", "one in a folder\n");
    }
    cluster.keptn.has("dev", "shared/c.txt", "of the stage\n");
    let real = Side {
        client: cluster.client.clone(),
        namespace: &cluster.namespace,
        service: Service::Real(&cluster),
        recorder: Recorder::of(&cluster.client, &cluster.namespace),
    };
    let story = Arc::new(Story::new(Format::Json, Box::new(std::io::sink())));
    let desk = Desk::new(
        &cli::desk_settings(&[
            format!("--resources={}", cluster.keptn.directory().display()),
            format!("--job-namespace={}", cluster.namespace),
            format!("--runtime={runtime}"),
        ]),
        &story,
    )
    .await
    .unwrap();
    let client = desk.kubernetes.client(&cluster.namespace);
    let embedded = Side {
        recorder: Recorder::of(&client, &cluster.namespace),
        client,
        namespace: &cluster.namespace,
        service: Service::Embedded(&desk.router, &story),
    };
    real.has_secret().await;
    embedded.has_secret().await;
    // One after the other: the containers of both at once are late for their time limits.
    let real = all(&real).await;
    let embedded = all(&embedded).await;
    let mut report = String::new();
    for ((scenario, mut real), embedded) in SCENARIOS.iter().zip(real).zip(embedded) {
        without_defaults(&mut real, &embedded);
        assert_eq!(
            scenarios::in_short(&real),
            scenario.ends,
            "{}: {real:#}",
            scenario.name
        );
        if embedded != real {
            let difference = difference(&embedded, &real);
            report += &format!("\n{}:\n{difference}", scenario.name);
        }
    }
    assert!(report.is_empty(), "{report}");
    desk.shut_down().await.unwrap();
    cluster.finish().await;
}
