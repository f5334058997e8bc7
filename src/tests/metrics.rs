//! What /metrics says of what happened.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::{Body, to_bytes};
use axum::http::Request;
use insta::assert_snapshot;
use regex::Regex;
use serde_json::Value;
use tower::ServiceExt;

use super::{Tester, config, triggered};
use crate::metrics::Metrics;

impl Tester {
    /// The numbers that are not 0, without times and buckets.
    async fn metrics(&self) -> String {
        let request = Request::get("/metrics").body(Body::empty()).unwrap();
        let response = self.process.admin.clone().oneshot(request).await.unwrap();
        let content_type = response.headers()["content-type"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(content_type.starts_with("application/openmetrics-text"));
        let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        let text = String::from_utf8(text.to_vec()).unwrap();
        assert!(text.ends_with("# EOF\n"));
        let mut lines: Vec<&str> = text
            .lines()
            .filter(|line| {
                let told = !line.starts_with('#') && !line.ends_with(" 0");
                told && !line.contains("_bucket") && !line.contains("_sum")
            })
            .collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_counted() {
    let tasks = "      - {name: one, image: i, onFailure: warn}
      - {name: two, image: i}
      - {name: three, image: i}
      - {name: four, image: i}\n";
    let service = Tester::start(&config(tasks)).await;
    service.cluster.task("one").fails(1, "");
    service.cluster.task("three").fails(1, "");
    service.keptn.answers_events_with(&[503]);
    service.receives_triggered().await;
    service.answers(2).await;
    service.receives_triggered().await;
    let mut other = triggered("event-2");
    other["type"] = "sh.keptn.event.other.triggered".into();
    service.receives(&other).await;
    service.receives(&"nothing".into()).await;
    service.cluster.all_reported().await;
    assert_snapshot!(service.metrics().await, @r#"
    job_executor_answer_attempts_total{outcome="refused"} 1
    job_executor_answer_attempts_total{outcome="taken"} 2
    job_executor_config_fetches_total{outcome="found"} 3
    job_executor_end_to_answer_seconds_count 1
    job_executor_event_to_job_seconds_count 1
    job_executor_events_total{outcome="accepted"} 2
    job_executor_events_total{outcome="invalid"} 1
    job_executor_events_total{outcome="nothing"} 1
    job_executor_ready 1
    job_executor_tasks_total{outcome="failed"} 1
    job_executor_tasks_total{outcome="succeeded"} 1
    job_executor_tasks_total{outcome="warned"} 1
    "#);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn runs_in_flight_are_counted_until_they_are_over() {
    let service = Tester::start(&config("      - {name: slow, image: i}\n")).await;
    service.cluster.task("slow").never_ends();
    service.receives_triggered().await;
    assert!(
        service
            .metrics()
            .await
            .contains("job_executor_runs_in_flight 1")
    );
    service.cluster.task("slow").ends();
    service.answers(2).await;
    service.cluster.all_reported().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(
        !service
            .metrics()
            .await
            .contains("job_executor_runs_in_flight")
    );
    service.finish().await;
}

const ALERTS: &str = include_str!("../../deploy/alerts.yaml");
const DASHBOARD: &str = include_str!("../../deploy/grafana-dashboard.json");

/// The names of all samples with the names of their labels.
fn samples(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let label = Regex::new(r#"([a-z_]+)=""#).unwrap();
    let mut samples = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = label.captures_iter(line).map(|found| found[1].to_owned());
        samples.entry(name.to_owned()).or_default().extend(labels);
    }
    samples
}

/// What asks for metrics: the alerts' expressions, then the dashboard's.
fn expressions() -> (Vec<String>, Vec<String>) {
    let alerts: Value = serde_yaml::from_str(ALERTS).unwrap();
    let rules = alerts["groups"].as_array().unwrap().iter();
    let rules = rules.flat_map(|group| group["rules"].as_array().unwrap());
    let of_alerts = rules.map(|rule| {
        for text in ["alert", "expr"] {
            assert!(rule[text].is_string(), "{text}: {rule}");
        }
        assert!(rule["labels"]["severity"].is_string(), "{rule}");
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
        rule["expr"].as_str().unwrap().to_owned()
    });
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let panels = panels.filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| {
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{panel}"
        );
        panel["targets"].as_array().unwrap()
    });
    let of_dashboard = targets.map(|target| {
        assert_eq!(target["datasource"]["uid"], "${datasource}", "{target}");
        assert!(
            !target["legendFormat"].as_str().unwrap().is_empty(),
            "{target}"
        );
        target["expr"].as_str().unwrap().to_owned()
    });
    (of_alerts.collect(), of_dashboard.collect())
}

#[test]
fn alerts_and_dashboard_ask_for_what_there_is() {
    let metrics = Metrics::default();
    metrics.request(Some(200));
    let samples = samples(&metrics.text());
    let name = Regex::new(r"job_executor_[a-z_]+(\{[^}]*\})?").unwrap();
    let label = Regex::new(r#"([a-z_]+)(?:=~?|!=)""#).unwrap();
    let grouping = Regex::new(r"by \(([a-z_]+)\) \([a-z]+\((job_executor_[a-z_]+)").unwrap();
    let (of_alerts, of_dashboard) = expressions();
    for expression in of_alerts.iter().chain(&of_dashboard) {
        assert!(name.is_match(expression), "{expression}");
        for found in name.captures_iter(expression) {
            let of = found[0].split('{').next().unwrap();
            let known = samples.get(of);
            let known = known.unwrap_or_else(|| panic!("{of} of {expression}"));
            let matchers = found.get(1).map_or("", |of| of.as_str());
            for label in label.captures_iter(matchers) {
                assert!(known.contains(&label[1]), "{} of {expression}", &label[1]);
            }
        }
        for found in grouping.captures_iter(expression) {
            assert!(
                samples[&found[2]].contains(&found[1]),
                "{} of {expression}",
                &found[1]
            );
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard_and_in_the_readme() {
    let text = Metrics::default().text();
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let (_, of_dashboard) = expressions();
    let readme = include_str!("../../README.md");
    for family in families.map(|line| line.split(' ').next().unwrap()) {
        let shown = of_dashboard
            .iter()
            .any(|expression| expression.contains(family));
        assert!(shown, "{family} is not on the dashboard");
        assert!(
            readme.contains(&format!("`{family}")),
            "{family} is not in the README"
        );
    }
}

/// `outcome=~"late|panicked"` finds nothing of what is spelt otherwise.
#[test]
fn the_outcomes_that_are_asked_for_exist() {
    let text = Metrics::default().text();
    let outcome = Regex::new(r#"outcome=~?"([a-z|]+)""#).unwrap();
    let (of_alerts, of_dashboard) = expressions();
    for expression in of_alerts.iter().chain(&of_dashboard) {
        for found in outcome.captures_iter(expression) {
            for name in found[1].split('|') {
                assert!(text.contains(&format!("outcome=\"{name}\"")), "{name}");
            }
        }
    }
}
