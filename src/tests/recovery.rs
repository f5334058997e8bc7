//! What a process leaves, and how the next one goes on with it.

use std::time::Duration;

use insta::assert_snapshot;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::keptn::Habit;
use super::{Tester, config, task, triggered};

#[tokio::test(start_paused = true)]
async fn runs_go_on_within_two_seconds_of_the_next_process_being_ready() {
    let tasks = [task("first"), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("first").never_ends();
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    service.process.wire.cut();
    service.cluster.task("first").ends();
    sleep(Duration::from_secs(60)).await;
    service.restarts().await;
    let ready = Instant::now();
    service.cluster.has_jobs(2).await;
    assert!(ready.elapsed() < Duration::from_secs(2));
    service.answers(2).await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_config_that_changed_meanwhile_does_not_change_a_run() {
    let tasks = [task("first"), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("first").never_ends();
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    service
        .keptn
        .has("dev/svc", "job/config.yaml", config(&task("other")));
    service.crashes().await;
    service.cluster.task("first").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn the_job_of_the_task_at_hand_is_created_again_where_it_was_deleted_meanwhile() {
    let tasks = [task("first"), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("second").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(2).await;
    service.process.wire.cut();
    service.cluster.deletes_job("second");
    service.cluster.task("second").prints("");
    service.restarts().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    job created: second JOB-000-002
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_succeeded_has_done_so_whatever_becomes_of_its_job() {
    let tasks = [task("first"), task("second"), task("third")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("third").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(3).await;
    service.process.wire.cut();
    service.cluster.deletes_job("first");
    service.cluster.deletes_job("second");
    service.restarts().await;
    service.cluster.task("third").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    job created: third JOB-000-003
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'third' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_succeeded_does_not_miss_its_time_limit_because_of_a_sidecar() {
    let mut service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").is_outlived_by_a_sidecar();
    service.keptn.distributor(Habit::Refuses);
    service.receives_triggered().await;
    sleep(Duration::from_secs(60)).await;
    service.process.wire.cut();
    service.cluster.task("t").runs_out_of_time();
    service.keptn.distributor(Habit::Works);
    service.restarts().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎Container sidecar of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 143):⏎⏎⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_config_that_broke_meanwhile_does_not_refuse_a_run_that_began() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    for broken in [
        "actions: 7",
        "apiVersion: v2\nactions: [{name: a, events: [{}], tasks: [{image: i, securityContext: {privileged: true}}]}]",
    ] {
        service.keptn.has("dev/svc", "job/config.yaml", broken);
        // Another process, which knows nothing of the run yet.
        let mut other = service.is_joined_by("jes-2").await;
        let seen = (202, "the event was seen before".to_owned());
        assert_eq!(other.receives(&triggered("event-1")).await, seen);
        other.stops().await;
    }
    service.cluster.task("t").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_one_run_is_answered_as_errored_and_touches_no_other() {
    let tasks = [task("first"), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("second").breaks_the_service();
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    service.cluster.task("second").prints("");
    service.receives(&triggered("event-2")).await;
    service.answers(4).await;
    service.crashes().await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: the job-executor-service failed while it executed this run, which is a bug in it: a bug of the service. Its log has more; the run's Jobs are JOB-000-001, JOB-000-002
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_late_duplicate_is_recognised_by_the_event_store() {
    let mut service = Tester::start(&config(&task("once"))).await;
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    assert_eq!(service.keptn.questions(), 1, "one question an event");
    service.cluster.expires_jobs();
    for _ in 0..2 {
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(
            service.receives_triggered().await,
            (200, "the event was answered before".into())
        );
        service.crashes().await;
    }
    let mut unmatched = triggered("event-2");
    unmatched["type"] = "sh.keptn.event.other.triggered".into();
    let before = service.keptn.questions();
    service.receives(&unmatched).await;
    assert_eq!(service.keptn.questions(), before, "no match, no question");
    assert_snapshot!(service.finish().await, @"
    job created: once JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'once' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_job_that_comes_again_to_the_next_process_is_not_answered_again() {
    let mut service = Tester::start("apiVersion: v2\nactions: [{evnts: []}]").await;
    service.receives_triggered().await;
    service.crashes().await;
    assert_eq!(service.receives_triggered().await.0, 202);
    assert_snapshot!(service.finish().await, @"
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: job/config.yaml:2:12: actions[0].evnts: unknown field `evnts`, expected one of `name`, `silent`, `events`, `tasks` (did you mean `events`?)
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_jobs_were_all_deleted_starts_again_when_its_event_comes_again() {
    let mut service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    service.process.wire.cut();
    service.cluster.deletes_job("t");
    service.cluster.task("t").prints("");
    service.restarts().await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(service.receives_triggered().await.0, 202);
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    job created: t JOB-000-001
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_waits_holds_up_no_other() {
    let service = Tester::start(&config(&task("t"))).await;
    service.keptn.refuses_answers_to(Some("event-1"));
    service.receives(&triggered("event-1")).await;
    service.receives(&triggered("event-2")).await;
    service.answers(2).await;
    sleep(Duration::from_secs(3 * 3600)).await;
    service.keptn.refuses_answers_to(None);
    service.answers(4).await;
    let order: Vec<Value> = service
        .keptn
        .events()
        .iter()
        .map(|event| event["triggeredid"].clone())
        .collect();
    assert_eq!(order, ["event-2", "event-2", "event-1", "event-1"]);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_of_a_job_starts_when_its_answer_was_delivered() {
    let service = Tester::start(&config(&task("t"))).await;
    service.receives_triggered().await;
    service.answers(1).await;
    service.keptn.distributor(Habit::Refuses);
    sleep(Duration::from_secs(12 * 3600)).await;
    let ttl =
        |service: &Tester| service.cluster.jobs()[0]["spec"]["ttlSecondsAfterFinished"].clone();
    assert_eq!(ttl(&service), Value::Null);
    service.keptn.distributor(Habit::Works);
    service.answers(2).await;
    service.cluster.all_reported().await;
    assert_eq!(ttl(&service), 21_600);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stops_answers_nothing_and_ends_within_ten_seconds() {
    let mut service = Tester::start(&config(&task("slow"))).await;
    service.cluster.task("slow").never_ends();
    service.keptn.distributor(Habit::Hangs);
    service.receives_triggered().await;
    sleep(Duration::from_secs(1)).await;
    let stopped = Instant::now();
    service.process.stops().await;
    assert!(stopped.elapsed() < Duration::from_secs(10));
    assert_eq!(service.process.readyz().await.0, 503);
    assert!(service.keptn.events().is_empty());
    assert_eq!(service.cluster.jobs().len(), 1, "the Job runs on");
    service.keptn.distributor(Habit::Works);
    service.restarts().await;
    service.cluster.task("slow").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: slow JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'slow' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_event_store_that_hangs_does_not_keep_the_sender_waiting() {
    let service = Tester::start(&config(&task("t"))).await;
    service.keptn.store(Habit::Hangs);
    let sent = Instant::now();
    assert_eq!(service.receives_triggered().await.0, 202);
    assert!(sent.elapsed() < Duration::from_secs(4));
    service.answers(2).await;
    service.finish().await;
}
