//! Trace context on its way through the service, and the spans that a collector gets.

use std::time::Duration;

use insta::assert_snapshot;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};

use super::collector::hex;
use super::{Tester, config, task, triggered};
use crate::cli;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENDER: &str = "00f067aa0ba902b7";

const OTLP: &str = "--otel-exporter-otlp-endpoint=http://collector:4318/";

fn traced(id: &str) -> Value {
    let mut event = triggered(id);
    event["traceparent"] = json!(format!("00-{TRACE}-{SENDER}-01"));
    event["tracestate"] = json!("vendor=a$(B)");
    event
}

/// What each Job is given, and what each answer has.
fn contexts(service: &Tester) -> String {
    let mut lines = Vec::new();
    for job in service.cluster.jobs() {
        let container = &job["spec"]["template"]["spec"]["containers"][0];
        let variables = container["env"].as_array().unwrap().iter();
        let name = &job["metadata"]["labels"]["keptn.sh/jes-task"];
        for variable in variables.filter(|of| of["name"].as_str().unwrap().starts_with("TRACE")) {
            lines.push(format!("{name} {}={}", variable["name"], variable["value"]));
        }
    }
    for event in service.keptn.events() {
        lines.push(format!(
            "{} {} {}",
            event["type"], event["traceparent"], event["tracestate"]
        ));
    }
    lines.join("\n").replace('"', "")
}

/// Of the run or a task.
fn is_of_work(span: &Span) -> bool {
    span.name.starts_with("task ") || span.kind == SpanKind::Consumer as i32
}

/// Waits until the collector has as many spans.
async fn collected(service: &Tester, count: usize) {
    let all = async {
        while service.keptn.collector.spans().len() < count {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    assert!(tokio::time::timeout(super::PATIENCE, all).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_a_collector_tasks_and_answers_are_part_of_what_the_sender_traces() {
    let tasks = "      - {name: one, image: i}
      - {name: two, image: i, env: [{name: TRACEPARENT, value: mine, valueFrom: string}]}\n";
    let service = Tester::start(&config(tasks)).await;
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    assert_snapshot!(contexts(&service), @"
    one TRACEPARENT=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    one TRACESTATE=vendor=a$$(B)
    two TRACEPARENT=mine
    sh.keptn.event.test.started 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 vendor=a$(B)
    sh.keptn.event.test.finished 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 vendor=a$(B)
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_trace_stays_without_one() {
    let service = Tester::start(&config(&task("one"))).await;
    let mut event = triggered("event-1");
    event["traceparent"] = json!("no-trace-at-all");
    assert_eq!(service.receives(&event).await.0, 202);
    service.answers(2).await;
    service.cluster.all_reported().await;
    assert_snapshot!(contexts(&service), @"
    sh.keptn.event.test.started null null
    sh.keptn.event.test.finished null null
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_told_as_spans() {
    let tasks = "      - {name: one, image: i, onFailure: warn}
      - {name: two, image: j}
      - {name: three, image: k}\n";
    let service = Tester::with(&config(tasks), &[OTLP]).await;
    service.cluster.task("one").fails(1, "");
    service.cluster.task("three").fails(2, "");
    service.keptn.answers_events_with(&[503, 503]);
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    collected(&service, 8).await;
    assert_snapshot!(service.keptn.collector.resource(), @"service.name=job-executor-service service.version=0.4.0 k8s.namespace.name=keptn");
    assert_snapshot!(service.keptn.collector.tree(), @"
    sh.keptn.event.test.triggered [job_executor.run=63901ce9feac643e6063c82e cloudevents.event_id=event-1 cloudevents.event_source=shipyard-controller cloudevents.event_type=sh.keptn.event.test.triggered keptn.context=ce27158f-94ae-401c-b1b9-cbf18d2752f6 keptn.project=real keptn.stage=dev keptn.service=svc keptn.result=fail] < 00f067aa0ba902b7 ERROR the run errored
      read job/config.yaml []
      create the first Job []
      task one [job_executor.action=Run tests job_executor.task=one job_executor.result=warned k8s.namespace.name=keptn k8s.job.name=JOB-000-001 k8s.pod.name=JOB-000-001-pod container.image.name=i] ERROR job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit
      task two [job_executor.action=Run tests job_executor.task=two job_executor.result=succeeded k8s.namespace.name=keptn k8s.job.name=JOB-000-002 k8s.pod.name=JOB-000-002-pod container.image.name=j]
      task three [job_executor.action=Run tests job_executor.task=three job_executor.result=failed k8s.namespace.name=keptn k8s.job.name=JOB-000-003 k8s.pod.name=JOB-000-003-pod container.image.name=k] ERROR job JOB-000-003 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit
      send sh.keptn.event.test.started [cloudevents.event_type=sh.keptn.event.test.started keptn.attempts=3]
      send sh.keptn.event.test.finished [cloudevents.event_type=sh.keptn.event.test.finished keptn.attempts=1]
    ");
    let told = contexts(&service);
    for span in service.keptn.collector.spans() {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(span.trace_state, "vendor=a$(B)");
        // Who comes below a task has its span as parent; who comes below an answer has the run's.
        let is_told = told.contains(&format!("00-{TRACE}-{}-01", hex(&span.span_id)));
        assert_eq!(is_told, is_of_work(&span), "{}\n{told}", span.name);
    }
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_trace_begins_with_the_run_if_nobody_traced_before() {
    let service = Tester::with(&config(&task("one")), &[OTLP]).await;
    service.receives(&triggered("event-1")).await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    collected(&service, 6).await;
    let spans = service.keptn.collector.spans();
    assert!(spans[0].parent_span_id.is_empty());
    assert!(contexts(&service).contains(&hex(&spans[0].trace_id)));
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_sender_does_not_record_is_not_recorded() {
    let service = Tester::with(&config(&task("one")), &[OTLP]).await;
    let mut event = traced("event-1");
    event["traceparent"] = json!(format!("00-{TRACE}-{SENDER}-00"));
    service.receives(&event).await;
    service.answers(2).await;
    let transcript = service.keptn.collector.clone();
    service.finish().await;
    assert_eq!(transcript.attempts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_takes_a_run_over_tells_the_whole_of_it() {
    let tasks = task("one") + &task("two");
    let spans = async |crash: bool| {
        let mut service = Tester::with(&config(&tasks), &[OTLP]).await;
        service.cluster.task("two").never_ends();
        service.receives(&traced("event-1")).await;
        service.cluster.has_jobs(2).await;
        if crash {
            service.crashes().await;
        }
        service.cluster.task("two").ends();
        service.answers(2).await;
        service.cluster.all_reported().await;
        collected(&service, 4).await;
        // What came before the first task and `.started` only the first process saw.
        let spans = service.keptn.collector.spans();
        let ids: Vec<String> = spans
            .iter()
            .filter(|span| is_of_work(span))
            .map(|span| hex(&span.span_id))
            .collect();
        let told = contexts(&service);
        service.finish().await;
        (ids, told)
    };
    assert_eq!(spans(true).await, spans(false).await);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_config_is_broken_is_an_errored_span() {
    let service = Tester::with("apiVersion: v3\n", &[OTLP]).await;
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    collected(&service, 4).await;
    assert_snapshot!(service.keptn.collector.tree(), @"
    sh.keptn.event.test.triggered [job_executor.run=63901ce9feac643e6063c82e cloudevents.event_id=event-1 cloudevents.event_source=shipyard-controller cloudevents.event_type=sh.keptn.event.test.triggered keptn.context=ce27158f-94ae-401c-b1b9-cbf18d2752f6 keptn.project=real keptn.stage=dev keptn.service=svc keptn.result=fail] < 00f067aa0ba902b7 ERROR the run errored
      read job/config.yaml []
      send sh.keptn.event.test.started [cloudevents.event_type=sh.keptn.event.test.started keptn.attempts=1]
      send sh.keptn.event.test.finished [cloudevents.event_type=sh.keptn.event.test.finished keptn.attempts=1]
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_was_away_gets_the_spans_later() {
    let service = Tester::with(&config(&task("one")), &[OTLP]).await;
    service.keptn.collector.is_away(true);
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    // At most one attempt a minute.
    let attempts = service.keptn.collector.attempts();
    assert!((5..70).contains(&attempts), "{attempts}");
    service.keptn.collector.is_away(false);
    service.keptn.collector.answers_with(&[503, 429]);
    tokio::time::sleep(Duration::from_secs(300)).await;
    collected(&service, 6).await;
    // What it refuses for itself is not sent again.
    service.keptn.collector.answers_with(&[400]);
    service.receives(&traced("event-2")).await;
    service.answers(4).await;
    service.cluster.all_reported().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(service.keptn.collector.spans().len(), 6);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_collector_is_asked_again_when_it_wants_to_be() {
    let service = Tester::with(&config(&task("one")), &[OTLP]).await;
    service.keptn.collector.answers_with(&[429, 503]);
    service.keptn.collector.wants_to_be_asked_after("300");
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    let mut attempts = Vec::new();
    for seconds in [290, 300, 300] {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        attempts.push(service.keptn.collector.attempts());
    }
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!(service.keptn.collector.spans().len(), 6);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn spans_that_a_collector_refuses_alone_are_not_sent_again() {
    let service = Tester::with(&config(&task("one")), &[OTLP]).await;
    service.keptn.collector.refuses_spans(2);
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(service.keptn.collector.attempts(), 1);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_yet_is_sent_at_the_end() {
    let service = Tester::with(
        &config(&task("one")),
        &[
            OTLP,
            "--otel-exporter-otlp-headers=api-key=a%20b,x=y",
            "--otel-service-name=jes",
        ],
    )
    .await;
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    let collector = service.keptn.collector.clone();
    service.finish().await;
    assert_eq!(collector.spans().len(), 6);
    assert!(collector.resource().starts_with("service.name=jes "));
    let (url, headers) = collector.shown().remove(0);
    assert_eq!(url, "http://collector:4318/v1/traces");
    assert_eq!(
        (&headers["api-key"], &headers["x"]),
        (&"a b".parse().unwrap(), &"y".parse().unwrap())
    );
    assert_eq!(headers["content-type"], "application/x-protobuf");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_is_away_does_not_keep_the_service_from_ending() {
    let service = Tester::with(&config(&task("one")), &[OTLP]).await;
    service.keptn.collector.is_away(true);
    service.receives(&traced("event-1")).await;
    service.answers(2).await;
    service.finish().await;
}

#[test]
fn the_settings_are_those_of_opentelemetry() {
    let told = |flags: &[&str]| {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let collector = cli::serve_settings(&flags).otlp.0;
        collector.map_or_else(|| "none".into(), |of| format!("{} {}", of.url, of.service))
    };
    let whole = "--otel-exporter-otlp-traces-endpoint=https://b/spans";
    assert_snapshot!([
        told(&[]),
        told(&[OTLP]),
        told(&["--otel-exporter-otlp-endpoint=http://a:4318/otlp"]),
        told(&[OTLP, whole]),
        told(&[OTLP, "--otel-sdk-disabled=TRUE"]),
    ].join("\n"), @"
    none
    http://collector:4318/v1/traces job-executor-service
    http://a:4318/otlp/v1/traces job-executor-service
    https://b/spans job-executor-service
    none
    ");
    let secret = "--otel-exporter-otlp-headers=authorization=Bearer%20m4rk".to_owned();
    let shown = format!("{:?}", cli::serve_settings(&[OTLP.to_owned(), secret]));
    assert!(
        shown.contains("authorization") && !shown.contains("m4rk"),
        "{shown}"
    );
}
