//! The log of one event, for machines and on a terminal.

use insta::assert_snapshot;
use serde_json::Value;

use super::discretion::{logged, logged_as};
use super::{Tester, config, triggered};
use crate::telemetry::Lines;

async fn one_run_and_one_event_that_matches_nothing() {
    let tasks = "      - {name: one, image: i, onFailure: warn}
      - {name: two, image: i}\n";
    let service = Tester::start(&config(tasks)).await;
    service.cluster.task("one").fails(1, "");
    service.keptn.answers_events_with(&[503]);
    service.receives_triggered().await;
    service.answers(2).await;
    let mut other = triggered("event-2");
    other["type"] = "sh.keptn.event.other.triggered".into();
    service.receives(&other).await;
    service.finish().await;
}

#[test]
fn each_event_and_each_run_has_one_line_with_its_ids_and_numbers() {
    let log = logged_as(
        Lines::Json,
        "info",
        one_run_and_one_event_that_matches_nothing(),
    );
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of = |words: &str| -> Vec<String> {
        let found = lines
            .iter()
            .filter(|line| line["message"].as_str().unwrap().contains(words));
        let found = found.map(|line| {
            let mut line = line.clone();
            let fields = line.as_object_mut().unwrap();
            assert!(fields["timestamp"].as_str().unwrap().ends_with('Z'));
            fields.remove("timestamp");
            if let Some(seconds) = fields.get_mut("seconds") {
                assert!(seconds.is_number(), "{seconds}");
                *seconds = "a number".into();
            }
            line.to_string()
        });
        found.collect()
    };
    assert_snapshot!(of("is decided").join("\n"), @r#"
    {"actions":1,"event.id":"event-1","event.type":"sh.keptn.event.test.triggered","keptn.context":"ce27158f-94ae-401c-b1b9-cbf18d2752f6","level":"INFO","message":"the event is decided","outcome":"started","project":"real","run":"63901ce9feac643e6063c82e","seconds":"a number","service":"svc","stage":"dev","target":"job_executor_service::admission","tasks":2}
    {"event.id":"event-2","event.type":"sh.keptn.event.other.triggered","keptn.context":"ce27158f-94ae-401c-b1b9-cbf18d2752f6","level":"INFO","message":"the event is decided","outcome":"no match","project":"real","run":"4b8d479c0750c159c4f4a913","seconds":"a number","service":"svc","stage":"dev","target":"job_executor_service::admission"}
    "#);
    assert_snapshot!(of("finished processing").join("\n"), @r#"{"attempts":3,"event.id":"event-1","event.type":"sh.keptn.event.test.triggered","failed":1,"keptn.context":"ce27158f-94ae-401c-b1b9-cbf18d2752f6","level":"INFO","message":"Successfully finished processing of event: event-1","project":"real","result":"warning","run":"63901ce9feac643e6063c82e","seconds":"a number","service":"svc","stage":"dev","target":"job_executor_service::executor::telling","tasks":2}"#);
    assert_snapshot!(of("could not be sent").join("\n"), @r#"{"event.id":"event-1","event.type":"sh.keptn.event.test.started","keptn.context":"ce27158f-94ae-401c-b1b9-cbf18d2752f6","level":"WARN","message":"the event could not be sent to Keptn","project":"real","reason":"http://keptn/event answered 503 Service Unavailable","retry_in_seconds":0.5,"run":"63901ce9feac643e6063c82e","service":"svc","stage":"dev","target":"job_executor_service::keptn::answers"}"#);
}

#[test]
fn every_line_of_a_run_names_it() {
    let log = logged_as(
        Lines::Json,
        "info",
        one_run_and_one_event_that_matches_nothing(),
    );
    for line in log.lines().filter(|line| line.contains("task")) {
        let line: Value = serde_json::from_str(line).unwrap();
        for id in [
            "run",
            "event.id",
            "event.type",
            "keptn.context",
            "project",
            "stage",
            "service",
        ] {
            assert!(line[id].is_string(), "{id}: {line}");
        }
    }
}

#[test]
fn a_terminal_of_80_columns_is_wide_enough() {
    let log = logged_as(
        Lines::Terminal,
        "info",
        one_run_and_one_event_that_matches_nothing(),
    );
    for line in log.lines() {
        // The name of a Job is not cut.
        let fits = line.chars().count() <= 80;
        assert!(fits || line.contains("job-executor-service-job-"), "{line}");
    }
    assert!(!log.contains("ce27158f"), "{log}");
    assert!(logged("info", async {}).is_empty());
}
