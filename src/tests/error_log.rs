//! What comes into Keptn's error log, and what does not.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::keptn::Habit;
use super::{POD, Tester, config, task, triggered};

const BROKEN: &str = "apiVersion: v2\nactions:\n  - evnts: []\n";

/// The event of a sequence, to which nobody asks for an answer.
fn of_a_sequence(id: &str) -> Value {
    let mut event = triggered(id);
    event["type"] = json!("sh.keptn.event.dev.delivery.triggered");
    event["gitcommitid"] = json!("9bf2157");
    event
}

async fn registered(config: &str) -> Tester {
    let service = Tester::start(config).await;
    service.keptn.has_registrations(&[
        ["other", "job-executor-service", "elsewhere", POD],
        ["webhook", "webhook-service", "keptn", POD],
        ["mine", "job-executor-service", "keptn", "a-pod-before"],
    ]);
    service
}

async fn logs(service: &Tester, entries: usize) {
    let logged = service.keptn.wait_for_log(entries);
    let logged = tokio::time::timeout(super::PATIENCE, logged).await;
    assert!(logged.is_ok(), "still not {entries} entries");
}

/// Waits for longer than anything is tried.
async fn nothing_more() {
    tokio::time::sleep(super::PATIENCE).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_config_that_no_answer_tells_is_in_the_error_log_of_this_installation() {
    let service = registered(BROKEN).await;
    assert_eq!(service.receives(&of_a_sequence("event-1")).await.0, 200);
    logs(&service, 1).await;
    let mut entry = service.keptn.log().remove(0);
    entry["time"] = json!("TIME");
    assert_snapshot!(serde_json::to_string_pretty(&entry).unwrap(), @r#"
    {
      "data": {
        "integrationid": "mine",
        "message": "job/config.yaml:3:5: actions[0].evnts: unknown field `evnts`, expected one of `name`, `silent`, `events`, `tasks` (did you mean `events`?)",
        "task": "dev.delivery"
      },
      "datacontenttype": "application/json",
      "gitcommitid": "9bf2157",
      "id": "a023a359-fed4-55f6-bea7-328ebb87bbdd",
      "shkeptncontext": "ce27158f-94ae-401c-b1b9-cbf18d2752f6",
      "source": "job-executor-service",
      "specversion": "1.0",
      "time": "TIME",
      "triggeredid": "event-1",
      "type": "sh.keptn.log.error"
    }
    "#);
    assert_eq!(service.finish().await, "");
}

#[tokio::test(start_paused = true)]
async fn an_event_has_one_entry_and_keptn_is_asked_once_for_many() {
    let service = registered(BROKEN).await;
    for event in ["event-1", "event-1", "event-2", "event-3"] {
        service.receives(&of_a_sequence(event)).await;
    }
    let mut finished = triggered("event-4");
    finished["type"] = json!("sh.keptn.event.test.finished");
    service.receives(&finished).await;
    logs(&service, 4).await;
    nothing_more().await;
    assert_eq!(service.keptn.log().len(), 4);
    assert_eq!(service.keptn.lookups(), 1);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_answered_or_is_no_error_has_no_entry() {
    let service = registered(BROKEN).await;
    // Distributors make an entry of the errored answer.
    service.receives(&triggered("event-1")).await;
    let mut own = of_a_sequence("event-2");
    own["source"] = json!("job-executor-service");
    service.receives(&own).await;
    service
        .keptn
        .has("dev/svc", "job/config.yaml", config(&task("t")));
    service.receives(&of_a_sequence("event-3")).await;
    service.keptn.has_not("dev/svc", "job/config.yaml");
    service.receives(&of_a_sequence("event-4")).await;
    nothing_more().await;
    assert_eq!(service.keptn.log(), Vec::<Value>::new());
    assert_eq!(service.keptn.lookups(), 0);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_config_that_cannot_be_read_is_in_the_error_log_too() {
    let service = registered("").await;
    service.keptn.resources(Habit::Answers(500));
    assert_eq!(service.receives(&of_a_sequence("event-1")).await.0, 503);
    tokio::time::advance(std::time::Duration::from_secs(8 * 60)).await;
    logs(&service, 1).await;
    let message = service.keptn.log()[0]["data"]["message"].clone();
    assert_snapshot!(message.as_str().unwrap(), @r#"cannot read job/config.yaml: http://keptn/configuration-service/v1/project/real/stage/dev/service/svc/resource/job%252Fconfig.yaml answered 500 Internal Server Error: {"code":500,"message":"trouble"} (tried for 8 minutes)"#);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_keptn_without_an_error_log_is_left_alone() {
    for habit in [Habit::Works, Habit::Answers(404), Habit::Answers(500)] {
        let service = Tester::start(BROKEN).await;
        service.keptn.control_plane(habit);
        for event in ["event-1", "event-2"] {
            assert_eq!(service.receives(&of_a_sequence(event)).await.0, 200);
        }
        nothing_more().await;
        assert_eq!(service.keptn.log(), Vec::<Value>::new());
        assert_eq!(service.keptn.lookups(), 1, "{habit:?}");
        assert_eq!(service.finish().await, "");
    }
}

#[tokio::test(start_paused = true)]
async fn trouble_with_the_entry_is_tried_a_few_times_and_holds_up_nothing() {
    for (control_plane, distributor, entries) in [
        (Habit::Hangs, Habit::Works, 0),
        (Habit::Refuses, Habit::Works, 0),
        (Habit::Works, Habit::Answers(503), 0),
        (Habit::Works, Habit::Hangs, 0),
    ] {
        let service = registered(BROKEN).await;
        service.keptn.control_plane(control_plane);
        service.keptn.distributor(distributor);
        let asked = tokio::time::Instant::now();
        assert_eq!(service.receives(&of_a_sequence("event-1")).await.0, 200);
        assert_eq!(asked.elapsed().as_secs(), 0);
        nothing_more().await;
        service.keptn.control_plane(Habit::Works);
        service.keptn.distributor(Habit::Works);
        nothing_more().await;
        assert_eq!(service.keptn.log().len(), entries);
        service.receives(&of_a_sequence("event-2")).await;
        logs(&service, entries + 1).await;
        service.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_an_entry() {
    let service = registered(BROKEN).await;
    service.keptn.control_plane(Habit::Hangs);
    service.receives(&of_a_sequence("event-1")).await;
    let asked = tokio::time::Instant::now();
    service.finish().await;
    assert!(asked.elapsed().as_secs() < 2);
}
