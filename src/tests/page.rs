//! The status page: what an operator sees of runs and events, and who is one.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{Method, Request};
use insta::assert_snapshot;
use serde_json::{Value, json};

use super::{Process, Tester, answered, config, task, triggered};
use crate::admin::{self, Audience, Page};
use crate::endpoint::Peer;
use crate::metrics::Metrics;

const NEAR: &str = "127.0.0.1";

fn request(path: &str, accept: &str, peer: &str) -> Request<Body> {
    let request = Request::get(path)
        .header("accept", accept)
        .header("host", "localhost:9090");
    let mut request = request.body(Body::empty()).unwrap();
    let peer: IpAddr = peer.parse().unwrap();
    request.extensions_mut().insert(Peer(peer));
    request
}

impl Process {
    async fn json(&self, path: &str) -> Value {
        let request = request(path, "application/json", NEAR);
        let (status, text) = answered(&self.admin, request).await;
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The page without its marks, as it is read aloud.
    async fn page(&self, path: &str) -> String {
        let request = request(path, "text/html,*/*;q=0.8", NEAR);
        let (status, html) = answered(&self.admin, request).await;
        assert_eq!(status, 200, "{html}");
        html
    }

    /// When the turn of a task of the last run came.
    async fn begun(&self, task: &str) -> Value {
        let overview = self.json("/").await;
        let mut tasks = tasks_of(&overview["runs"][0]["actions"][0]);
        tasks.find(|of| of["name"] == task).unwrap()["begun"].clone()
    }

    /// Each run in some lines.
    async fn runs(&self) -> String {
        let overview = self.json("/").await;
        let runs = overview["runs"].as_array().unwrap();
        let mut lines = Vec::new();
        for run in runs {
            let (state, event) = (&run["state"], &run["event"]);
            lines.push(format!(
                "{} {}, {}",
                word(&event["id"]),
                word(state),
                word(&run["source"])
            ));
            if let Some(problem) = run["problem"].as_str() {
                lines.push(format!("  {problem}"));
            }
            for task in run["actions"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(tasks_of)
            {
                let detail = task["reason"].as_str().or(task["now"].as_str());
                let detail = detail.map(|text| format!(": {text}")).unwrap_or_default();
                lines.push(format!(
                    "  {} {}{detail}",
                    word(&task["name"]),
                    word(&task["state"])
                ));
            }
            for answer in run["answers"].as_array().into_iter().flatten() {
                let error = answer["lastError"].as_str();
                let error = error.map(|text| format!(": {text}")).unwrap_or_default();
                lines.push(format!(
                    "  {} {}, {} attempts{error}",
                    word(&answer["type"]),
                    word(&answer["state"]),
                    answer["attempts"]
                ));
            }
            let id = word(&run["id"]);
            lines = lines
                .into_iter()
                .map(|line| line.replace(&id, "RUN"))
                .collect();
        }
        lines.join("\n")
    }
}

fn tasks_of(action: &Value) -> impl Iterator<Item = &Value> {
    action["tasks"].as_array().into_iter().flatten()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("null").to_owned()
}

/// What is between the tags of `main`, a line for each.
fn text_of(html: &str) -> String {
    let main = html.split("<main").nth(1).unwrap();
    let main = main.split("</main>").next().unwrap();
    let pieces = main.split('<').filter_map(|piece| piece.split_once('>'));
    let lines = pieces
        .map(|(_, text)| text.trim())
        .filter(|text| !text.is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

const THREE: &str = "      - {name: good, image: alpine}
      - {name: bad, image: alpine}
      - {name: never, image: alpine}
      - {name: tidy, image: alpine, always: true}\n";

async fn after_a_failure() -> Tester {
    let service = Tester::start(&config(THREE)).await;
    service.cluster.task("good").prints("hello <b>\n");
    service.cluster.task("bad").fails(3, "boom\n");
    service.keptn.answers_events_with(&[503]);
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    service
}

#[tokio::test(start_paused = true)]
async fn a_run_is_shown_with_its_tasks_and_answers() {
    let service = after_a_failure().await;
    assert_snapshot!(service.process.runs().await, @"
    event-1 errored, here
      good succeeded
      bad failed: job job-executor-service-job-RUN-000-002 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit
      never skipped
      tidy succeeded
      sh.keptn.event.test.started sent, 2 attempts
      sh.keptn.event.test.finished sent, 1 attempts
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_runs_are_read_off_their_jobs() {
    let mut service = after_a_failure().await;
    let before = service.cluster.calls();
    service.crashes().await;
    assert_snapshot!(service.process.runs().await, @"
    event-1 errored, cluster
      good succeeded
      bad failed: Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit
      never skipped
      tidy succeeded
      sh.keptn.event.test.started sent, 0 attempts
      sh.keptn.event.test.finished sent, 0 attempts
    ");
    // What its Pods still tell.
    let id = word(&service.process.json("/").await["runs"][0]["id"]);
    let run = service.process.json(&format!("/runs/{id}")).await;
    let codes: Vec<&Value> = tasks_of(&run["run"]["actions"][0])
        .map(|task| &task["exitCode"])
        .collect();
    assert_eq!(codes, [&json!(0), &json!(3), &Value::Null, &json!(0)]);
    let page = service.process.page(&format!("/runs/{id}")).await;
    assert!(text_of(&page).contains("\nexit code 3\n"), "{page}");
    let lists = service.cluster.calls()[before.len()..]
        .iter()
        .filter(|call| *call == "list jobs")
        .count();
    // The watch's, and one for the page however often it is looked at.
    assert_eq!(lists, 2);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_taken_over_is_shown_to_its_end() {
    let mut service = Tester::start(&config(&[task("one"), task("two")].concat())).await;
    service.cluster.task("two").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(2).await;
    service.crashes().await;
    assert_snapshot!(service.process.runs().await, @"
    event-1 running, taken-over
      one succeeded
      two running: runs
      sh.keptn.event.test.started sent, 0 attempts
      sh.keptn.event.test.finished pending, 0 attempts
    ");
    let (_, pod) = service.cluster.pods_of("two").remove(0);
    let created = &pod["metadata"]["creationTimestamp"];
    // Not when the process came that goes on with it.
    assert_eq!(service.process.begun("two").await, *created);
    service.cluster.task("two").ends();
    service.answers(2).await;
    service.cluster.all_reported().await;
    assert_snapshot!(service.process.runs().await, @"
    event-1 succeeded, taken-over
      one succeeded
      two succeeded
      sh.keptn.event.test.started sent, 0 attempts
      sh.keptn.event.test.finished sent, 1 attempts
    ");
    assert_eq!(service.process.begun("two").await, *created);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_start_tells_what_it_waits_for() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").cannot_be_pulled();
    service.receives_triggered().await;
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    assert_snapshot!(service.process.runs().await, @r#"
    event-1 running, here
      t running: container `job-executor-service-job-RUN-000-001` cannot start: Back-off pulling image "i": ErrImagePull: no such tag; check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the service: how long pulls may fail)
      sh.keptn.event.test.started sent, 1 attempts
      sh.keptn.event.test.finished pending, 0 attempts
    "#);
    service.answers(2).await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_invalid_config_is_shown_with_its_answers() {
    let service = Tester::start("apiVersion: v3\nactions: []\n").await;
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.process.runs().await, @"
    event-1 errored, here
      job/config.yaml:1:13: apiVersion: `v3` is not supported, expected `v2` (or `v1`)
      sh.keptn.event.test.started sent, 1 attempts
      sh.keptn.event.test.finished sent, 1 attempts
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_run_says_why() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut other = triggered("event-2");
    other["type"] = "sh.keptn.event.other.triggered".into();
    service.receives(&other).await;
    service.receives(&other).await;
    service.receives(&"nothing".into()).await;
    let page = service.process.page("/events").await;
    let page = text_of(&page);
    let page: Vec<&str> = page
        .lines()
        .filter(|line| !line.contains("just now"))
        .collect();
    assert_snapshot!(page.join("\n"), @"
    Events
    The last ones that came to this process, with what it decided.
    Search
    Show
    invalid
    No event
    the body is not a JSON object: invalid type: string &quot;nothing&quot;, expected a map at line 1 column 9
    nothing to do
    other.triggered
    real
    /
    dev
    /
    svc
    , 2 times
    no action of job/config.yaml matches the event: `Run tests`: line 5: the type does not match sh.keptn.event.test.triggered
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_page_of_a_run_has_its_logs_as_text() {
    let service = after_a_failure().await;
    let id = word(&service.process.json("/").await["runs"][0]["id"]);
    let page = service.process.page(&format!("/runs/{id}")).await;
    assert!(page.contains("hello &lt;b&gt;"), "{page}");
    assert!(!page.contains("hello <b>"));
    assert!(text_of(&page).contains("boom"));
    let job = format!("job-executor-service-job-{id}-000-002");
    let log = service
        .process
        .page(&format!("/runs/{id}/logs/{job}"))
        .await;
    assert_snapshot!(log.replace(&id, "RUN"), @"
    == container job-executor-service-job-RUN-000-002 of pod job-executor-service-job-RUN-000-002-5a56e
    boom
    ");
    let logs = service.process.json(&format!("/runs/{id}")).await["logs"].clone();
    assert_eq!(logs[&job]["containers"][0]["text"], "boom\n");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn only_what_belongs_to_a_run_is_shown() {
    let service = after_a_failure().await;
    let id = word(&service.process.json("/").await["runs"][0]["id"]);
    for path in [
        "/runs/nothing".to_owned(),
        format!("/runs/{id}/logs/another-job"),
    ] {
        let request = request(&path, "text/html", NEAR);
        let (status, page) = answered(&service.process.admin, request).await;
        assert_eq!(status, 404);
        assert!(page.contains("is known"), "{page}");
    }
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn runs_can_be_searched() {
    let service = after_a_failure().await;
    for (asked, count) in [
        ("?q=event-1", 1),
        ("?q=REAL+svc", 1),
        ("?q=other", 0),
        ("?state=errored", 1),
        ("?state=live", 0),
    ] {
        let overview = service.process.json(&format!("/{asked}")).await;
        assert_eq!(overview["count"], count, "{asked}");
    }
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_what_there_is_not_is_told_what_there_is() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut told = String::new();
    for asked in [
        "page=-1",
        "page=abc",
        "page=1&page=2",
        "q=a&q=b",
        "page=%ff",
        "state=failed",
        "format=xml",
    ] {
        let request = request(&format!("/?{asked}"), "text/html", NEAR);
        let (status, text) = answered(&service.process.admin, request).await;
        assert_eq!(status, 400, "{text}");
        told.push_str(&text);
    }
    assert_snapshot!(told, @"
    `page` is `-1`, expected a number from 1
    `page` is `abc`, expected a number from 1
    `page` is there twice, expected once
    `q` is there twice, expected once
    `page` is `�`, expected a number from 1
    `state` is `failed`, expected one of `live`, `succeeded`, `warning`, `errored`
    `format` is `xml`, expected one of `html`, `json`
    ");
    assert_eq!(service.process.json("/?page=999999").await["page"], 1);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn where_there_is_nothing_it_says_what_there_is() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut told = String::new();
    for path in ["/run/1", "/runs/%ff"] {
        let request = request(path, "text/html", NEAR);
        let (status, text) = answered(&service.process.admin, request).await;
        told.push_str(&format!("{status} {text}"));
    }
    let mut request = request("/events", "text/html", NEAR);
    *request.method_mut() = Method::DELETE;
    let (status, text) = answered(&service.process.admin, request).await;
    told.push_str(&format!("{status} {text}"));
    assert_snapshot!(told, @"
    404 there is nothing here, expected one of / (runs), /runs/ID, /runs/ID/logs/JOB, /events, /metrics and /livez
    400 the address is no UTF-8 once its `%` are decoded
    405 the status page is for reading, with GET
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_that_looks_at_once_sees_the_page() {
    let service = after_a_failure().await;
    let looks = (0..200).map(|_| service.process.json("/"));
    for overview in futures::future::join_all(looks).await {
        assert_eq!(overview["count"], 1);
    }
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_standby_shows_what_the_other_replica_executes() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut other = service.is_joined_by("jes-2").await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(1).await;
    assert_snapshot!(other.runs().await, @"
    event-1 running, cluster
      t running
      sh.keptn.event.test.started sent, 0 attempts
      sh.keptn.event.test.finished pending, 0 attempts
    ");
    service.cluster.task("t").ends();
    service.answers(2).await;
    service.cluster.all_reported().await;
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    assert_snapshot!(other.runs().await, @"
    event-1 succeeded, cluster
      t succeeded
      sh.keptn.event.test.started sent, 0 attempts
      sh.keptn.event.test.finished sent, 0 attempts
    ");
    other.stops().await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn only_who_connects_from_the_pod_sees_the_page() {
    let service = Tester::start(&config(&task("t"))).await;
    let admin = &service.process.admin;
    let far = request("/", "text/html", "10.0.0.7");
    let (status, text) = answered(admin, far).await;
    assert_eq!(status, 403);
    assert_snapshot!(text, @"the status page is only for connections from the service's own Pod, such as those of `kubectl port-forward`; ADMIN_PAGE=anyone opens it");
    let metrics = request("/metrics", "*/*", "10.0.0.7");
    assert_eq!(answered(admin, metrics).await.0, 200);
    let status = async |host: &str| {
        let mut request = request("/", "text/html", NEAR);
        request.headers_mut().insert("host", host.parse().unwrap());
        answered(admin, request).await.0
    };
    for host in [
        "localhost",
        "LOCALHOST:9090",
        "localhost.:9090",
        "127.0.0.1:9090",
        "[::1]",
        "[::1]:9090",
    ] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    // A web site whose name points to this machine.
    for host in [
        "evil.example:9090",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "[localhost]",
        "localhost]",
        "",
    ] {
        assert_eq!(status(host).await, 403, "{host}");
    }
    service.finish().await;
}

#[tokio::test]
async fn before_there_is_a_cluster_the_page_says_so() {
    let page = Page::new(Audience::Anyone);
    let admin = admin::router(&Metrics::default(), &page);
    let (status, text) = answered(&admin, request("/", "text/html", "10.0.0.7")).await;
    assert_eq!(status, 503);
    assert_snapshot!(text, @"the service is not connected to its cluster yet, its log tells why");
}

#[tokio::test(start_paused = true)]
async fn a_first_task_without_a_job_is_shown_before_those_that_ran() {
    let tasks =
        "      - {name: refused, image: i, onFailure: warn}\n      - {name: good, image: i}\n";
    let mut service = Tester::start(&config(tasks)).await;
    service.cluster.task("refused").is_refused(422, "no");
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    let before = service.process.runs().await;
    assert_snapshot!(before, @"
    event-1 warning, here
      refused warning: its Job was not created. Reason: Invalid, Message: no; correct the field of the task that becomes this part of the Job
      good succeeded
      sh.keptn.event.test.started sent, 1 attempts
      sh.keptn.event.test.finished sent, 1 attempts
    ");
    service.is_rolled_out().await;
    let after = service.process.runs().await;
    assert_eq!(tasks_in(&after), tasks_in(&before));
    service.finish().await;
}

fn tasks_in(runs: &str) -> Vec<&str> {
    let is_task = |line: &&str| line.contains("refused ") || line.contains("good ");
    runs.lines().filter(is_task).collect()
}
