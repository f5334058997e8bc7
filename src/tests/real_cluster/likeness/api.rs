//! The API as the service uses it: verdicts, watches and logs, on both clusters the same.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use http::Request;
use kube::Client;
use regex::Regex;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::{RealCluster, with_images};
use super::PATIENCE;
use crate::cli;
use crate::local::Desk;
use crate::local::story::{Format, Story};

/// The API of one of the two.
struct Api<'a> {
    client: &'a Client,
    namespace: &'a str,
    transcript: Vec<String>,
}

const LABELS: &str = "labelSelector=mine%2C!over";

impl Api<'_> {
    fn jobs(&self, rest: &str) -> String {
        format!("/apis/batch/v1/namespaces/{}/jobs{rest}", self.namespace)
    }

    fn pods(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/pods{rest}", self.namespace)
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> kube::Result<String> {
        let content_type = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .body(serde_json::to_vec(body).unwrap())
            .unwrap();
        self.client.request_text(request).await
    }

    async fn done(&self, method: &str, path: &str, body: &Value) -> Value {
        let text = self.call(method, path, body).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// A call whose verdict is noted.
    async fn tries(&mut self, what: &str, method: &str, path: &str, body: &Value) {
        let verdict = match self.call(method, path, body).await {
            Ok(_) => "done".to_owned(),
            Err(kube::Error::Api(status)) => {
                let message = status.message.replace(self.namespace, "NAMESPACE");
                // With a group in one place and without in another: nobody reads it.
                let message = message.replace(".batch", "");
                let message = Regex::new("pod a-[a-z0-9]{5}")
                    .unwrap()
                    .replace(&message, "pod POD");
                format!("{} {}: {message}", status.code, status.reason)
            }
            Err(error) => format!("{error}"),
        };
        self.transcript.push(format!("{what}: {verdict}"));
    }

    /// Asks for an object until something holds for it.
    async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let poll = async {
            loop {
                let object = self.done("GET", path, &Value::Null).await;
                if holds(&object) {
                    return object;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(PATIENCE, poll).await.expect("the cluster is slow")
    }

    /// The name of the Job's Pod, when that has ended.
    async fn pod_of(&self, job: &str) -> String {
        let path = self.pods(&format!("?labelSelector=job-name%3D{job}"));
        let ended = |pods: &Value| pods["items"][0]["status"]["phase"] == "Succeeded";
        let pods = self.until(&path, ended).await;
        let name = pods["items"][0]["metadata"]["name"].as_str();
        name.unwrap().to_owned()
    }

    /// What a watch brings from a version on, until an event of this type.
    async fn watched(&self, selector: &str, from: &str, until: &str) -> Vec<Value> {
        let path = self.jobs(&format!("?watch=true&resourceVersion={from}&{selector}"));
        let request = Request::get(path).body(Vec::new()).unwrap();
        let mut lines = Box::pin(self.client.request_events::<Value>(request).await.unwrap());
        let mut seen = Vec::new();
        let watch = async {
            while let Some(event) = lines.try_next().await.unwrap() {
                let event = serde_json::to_value(event).unwrap();
                let is_last = event["type"] == until;
                seen.push(event);
                if is_last {
                    break;
                }
            }
        };
        timeout(PATIENCE, watch).await.expect("the watch's end");
        seen
    }
}

/// Suspended, as a Job is whose turn has not come.
fn job(name: &str, command: &str) -> Value {
    let manifest = json!({
        "metadata": {"name": name, "labels": {"mine": "yes"}},
        "spec": {"backoffLimit": 0, "suspend": true, "template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "main", "image": "BUSYBOX", "command": ["sh", "-c", command]}]}}},
    });
    serde_json::from_str(&with_images(&manifest.to_string())).unwrap()
}

fn has_condition(job: &Value, kind: &str) -> bool {
    conditions(job).contains(&format!(" {kind}"))
}

fn conditions(job: &Value) -> String {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|condition| condition["status"] == "True")
        .map(|condition| format!(" {}", condition["type"].as_str().unwrap()))
        .collect()
}

fn version(event: &Value) -> u64 {
    let version = event["object"]["metadata"]["resourceVersion"].as_str();
    version.unwrap().parse().unwrap()
}

/// In short: an event for each change of what the service reads.
fn life(events: &[Value]) -> Vec<String> {
    let mut lines: Vec<String> = events
        .iter()
        .map(|event| {
            let job = &event["object"];
            let labels = &job["metadata"]["labels"];
            format!(
                "{} over={} suspend={}{}",
                event["type"].as_str().unwrap(),
                labels["over"],
                job["spec"]["suspend"],
                conditions(job)
            )
        })
        .collect();
    lines.dedup();
    lines
}

/// All that is asked of both.
async fn asked(client: &Client, namespace: &str) -> Vec<String> {
    let mut api = Api {
        client,
        namespace,
        transcript: Vec::new(),
    };
    let list = api.done("GET", &api.jobs("?limit=500"), &Value::Null).await;
    let begin = list["metadata"]["resourceVersion"].as_str().unwrap();

    let (manifest, all, own) = (job("a", "echo hello"), api.jobs(""), api.jobs("/a"));
    api.done("POST", &all, &manifest).await;
    api.tries("create again", "POST", &all, &manifest).await;
    let created = api.until(&own, |job| has_condition(job, "Suspended")).await;
    let stale = created["metadata"]["resourceVersion"].clone();
    let change =
        json!({"spec": {"suspend": false}, "metadata": {"annotations": {"x": "1", "y": null}}});
    api.done("PATCH", &own, &change).await;
    let change = json!({"metadata": {"resourceVersion": stale, "annotations": {"x": "2"}}});
    api.tries("patch what has changed", "PATCH", &own, &change)
        .await;
    let none = api.jobs("/none");
    api.tries("patch what is not there", "PATCH", &none, &json!({}))
        .await;
    api.tries("get what is not there", "GET", &none, &Value::Null)
        .await;

    let pod = api.pod_of("a").await;
    let log = api.pods(&format!("/{pod}/log?container=main"));
    let text = api.call("GET", &log, &Value::Null).await.unwrap();
    api.transcript.push(format!("log: {text}"));
    let log = api.pods(&format!("/{pod}/log?container=other"));
    api.tries("log of no container", "GET", &log, &Value::Null)
        .await;
    let log = api.pods("/none/log?container=main");
    api.tries("log of no Pod", "GET", &log, &Value::Null).await;

    // The Job leaves one watch by a label, and then the other, as it is deleted.
    api.until(&own, |job| has_condition(job, "Complete")).await;
    let change = json!({"metadata": {"labels": {"over": "yes"}}});
    api.done("PATCH", &own, &change).await;
    let deletion = json!({"propagationPolicy": "Background"});
    api.done("DELETE", &own, &deletion).await;
    for selector in [LABELS, ""] {
        let events = api.watched(selector, begin, "DELETED").await;
        let versions: Vec<u64> = events.iter().map(version).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
        api.transcript.extend(life(&events));
    }

    let too_old = api.watched("", "1", "ERROR").await;
    let expired: Vec<String> = too_old
        .iter()
        .map(|event| {
            let status = &event["object"];
            format!("{} {} {}", event["type"], status["code"], status["reason"])
        })
        .collect();
    api.transcript.push(format!("an old watch: {expired:?}"));
    api.transcript
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_embedded_api_answers_as_a_real_one() {
    let cluster = RealCluster::new("likeness-api").await;
    let story = Arc::new(Story::new(Format::Json, Box::new(std::io::sink())));
    let desk = Desk::new(&cli::desk_settings(&[]), &story).await.unwrap();
    let client = desk.kubernetes.client(&cluster.namespace);
    // More changes than are kept, so that a watch can be too old.
    let other = Api {
        client: &client,
        namespace: "other",
        transcript: Vec::new(),
    };
    other.done("POST", &other.jobs(""), &job("b", "")).await;
    for n in 0..5000 {
        let patch = json!({"metadata": {"annotations": {"n": n.to_string()}}});
        other.done("PATCH", &other.jobs("/b"), &patch).await;
    }
    let (embedded, real) = tokio::join!(
        asked(&client, &cluster.namespace),
        asked(&cluster.client, &cluster.namespace),
    );
    let [embedded, real] = [embedded, real].map(|lines| lines.join("\n"));
    assert_eq!(embedded, real, "\n{embedded}\n\n{real}");
    desk.shut_down().await.unwrap();
    cluster.finish().await;
}
