//! What /metrics says of what happened.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use insta::assert_snapshot;
use tower::ServiceExt;

use super::{Tester, config, triggered};

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
                !line.starts_with('#') && !line.contains("_bucket") && !line.contains("_sum")
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
    job_executor_runs_in_flight 0
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
        service
            .metrics()
            .await
            .contains("job_executor_runs_in_flight 0")
    );
    service.finish().await;
}
