//! What goes wrong, and what Keptn is told.

use axum::http::Method;
use insta::assert_snapshot;
use serde_json::Value;

use super::{Tester, config, task, triggered};
use crate::run::Run;

#[tokio::test(start_paused = true)]
async fn a_broken_config_is_answered_with_its_mistake() {
    let service = Tester::start("apiVersion: v2\nactions:\n  - evnts: []\n").await;
    let (status, reason) = service.receives_triggered().await;
    assert_eq!(status, 202);
    assert_snapshot!(reason, @"answered as errored: job/config.yaml:3:5: actions[0].evnts: unknown field `evnts`, expected one of `name`, `silent`, `events`, `tasks` (did you mean `events`?)");
    assert_eq!(
        service.receives_triggered().await.1,
        "the event was seen before"
    );
    assert_snapshot!(service.finish().await, @"
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: job/config.yaml:3:5: actions[0].evnts: unknown field `evnts`, expected one of `name`, `silent`, `events`, `tasks` (did you mean `events`?)
    ");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_refused_starts_nothing_of_its_action() {
    let refused = "
apiVersion: v2
actions:
  - name: one
    events: [{name: test}]
    tasks:
      - {name: fine, image: alpine}
      - {name: forbidden, image: other/image}
  - name: two
    events: [{name: test}]
    tasks:
      - {name: no value, image: alpine, env: [{name: A, value: $.data.missing, valueFrom: event}]}
  - name: three
    events: [{name: test}]
    tasks: [{name: runs, image: alpine}]
";
    let service = Tester::with(refused, &["--allowed-image-list=alpine"]).await;
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: runs JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'forbidden' failed: Forbidden: Image other/image does not match configured image allowlist.⏎⏎⏎Task 'no value' failed: could not prepare env for job JOB-001-001: could not add env with name 'A', value '$.data.missing', valueFrom 'event': unknown key missing⏎⏎Task 'runs' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_nothing_can_run_is_answered_at_once() {
    let privileged = config("      - {name: t, image: i, securityContext: {privileged: true}}\n");
    let service = Tester::start(&privileged).await;
    assert_eq!(service.receives_triggered().await.0, 202);
    assert_snapshot!(service.finish().await, @"
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 't' failed: privileged containers are not allowed (ALLOW_PRIVILEGED_JOBS of the service)
    ");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_the_api_refuses_is_answered_with_its_words() {
    let tasks = [task("first"), task("second")].concat();
    let service = Tester::start(&config(&tasks)).await;
    service
        .cluster
        .task("second")
        .is_refused(403, "exceeded quota: pods");
    service.receives_triggered().await;
    service.answers(2).await;
    service
        .cluster
        .task("first")
        .is_refused(422, "spec is invalid");
    service.receives(&triggered("event-2")).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'second' failed: its Job was not created. Reason: Forbidden, Message: exceeded quota: pods; Jobs that have ended count, too: delete some, lower `ttlSecondsAfterFinished` of tasks, or raise the quota⏎⏎Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'first' failed: its Job was not created. Reason: Invalid, Message: spec is invalid; correct the field of the task that becomes this part of the Job
    ");
}

/// A service whose first task the API server refuses, and of which two others may run all the same.
async fn refused_at_first(on_failure: &str) -> Tester {
    let tasks = format!(
        "      - {{name: first, image: i, onFailure: {on_failure}}}
      - {{name: second, image: i}}
      - {{name: tidy, image: i, always: true}}\n"
    );
    let other =
        "  - name: other\n    events: [{name: test}]\n    tasks: [{name: other, image: i}]\n";
    let service = Tester::start(&(config(&tasks) + other)).await;
    let full = "exceeded quota: q, requested: count/jobs.batch=1";
    service.cluster.task("first").is_refused(403, full);
    service
}

#[tokio::test(start_paused = true)]
async fn what_always_runs_does_so_after_a_first_task_whose_job_is_refused() {
    let service = refused_at_first("fail").await;
    assert_eq!(service.receives_triggered().await.1, "the run is started");
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: tidy JOB-000-001
    event sh.keptn.event.test.started
    job created: other JOB-001-001
    event sh.keptn.event.test.finished errored fail: Task 'first' failed: its Job was not created. Reason: Forbidden, Message: exceeded quota: q, requested: count/jobs.batch=1; Jobs that have ended count, too: delete some, lower `ttlSecondsAfterFinished` of tasks, or raise the quota⏎⏎Task 'tidy' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'other' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_first_task_whose_job_may_be_refused_leaves_a_warning() {
    let service = refused_at_first("warn").await;
    service.receives_triggered().await;
    service.answers(2).await;
    assert_eq!(
        service.receives_triggered().await.1,
        "the event was seen before"
    );
    assert_snapshot!(service.finish().await, @"
    job created: second JOB-000-001
    event sh.keptn.event.test.started
    job created: tidy JOB-000-002
    job created: other JOB-001-001
    event sh.keptn.event.test.finished succeeded warning: Task 'first' failed: its Job was not created. Reason: Forbidden, Message: exceeded quota: q, requested: count/jobs.batch=1; Jobs that have ended count, too: delete some, lower `ttlSecondsAfterFinished` of tasks, or raise the quota⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'tidy' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'other' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_first_task_that_was_refused_stays_so_for_the_next_process() {
    let mut service = refused_at_first("warn").await;
    service.cluster.task("second").never_ends();
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    service.cluster.task("first").prints("");
    service.crashes().await;
    service.cluster.task("second").fails(1, "boom\n");
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: second JOB-000-001
    event sh.keptn.event.test.started
    job created: tidy JOB-000-002
    job created: other JOB-001-001
    event sh.keptn.event.test.finished errored fail: Task 'first' failed: its Job was not created. Reason: Forbidden, Message: exceeded quota: q, requested: count/jobs.batch=1; Jobs that have ended count, too: delete some, lower `ttlSecondsAfterFinished` of tasks, or raise the quota⏎⏎Task 'second' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 1):⏎boom⏎⏎⏎⏎⏎Task 'tidy' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'other' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_all_may_be_refused_ends_with_a_warning() {
    let tasks = "      - {name: one, image: i, onFailure: warn}\n      - {name: two, image: i, onFailure: warn}\n";
    let service = Tester::start(&config(tasks)).await;
    service.cluster.task("one").is_refused(422, "no");
    service.cluster.task("two").is_refused(422, "no");
    service.receives_triggered().await;
    assert_snapshot!(service.finish().await, @"
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded warning: Task 'one' failed: its Job was not created. Reason: Invalid, Message: no; correct the field of the task that becomes this part of the Job⏎⏎Task 'two' failed: its Job was not created. Reason: Invalid, Message: no; correct the field of the task that becomes this part of the Job
    ");
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_shows_no_secret() {
    let service = refused_at_first("warn").await;
    let text = "admission webhook denied the request: Authorization: Bearer abcdefgh12345678";
    service.cluster.task("first").is_refused(400, text);
    service.receives_triggered().await;
    service.answers(2).await;
    let record =
        service.cluster.jobs()[0]["metadata"]["annotations"]["keptn.sh/jes-record"].clone();
    let run = Run::decode(record.as_str().unwrap()).unwrap();
    assert_snapshot!(run.actions[0].refusals()[0].reason, @"its Job was not created. Reason: InternalError, Message: admission webhook denied the request: Authorization: Bearer ***; the rules of the cluster do not admit such a Job: correct the task, or the rules");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_is_told_with_its_log() {
    let service = Tester::start(&config("      - {name: t, image: i, files: [a]}\n")).await;
    service
        .cluster
        .task("t")
        .fails_in_its_init_container("could not find a\n");
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 't' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its init container `init-JOB-000-001`, which fetches the task's files, failed (Error, exit code 1); its log says why⏎⏎Logs: ⏎Container init-JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 1):⏎could not find a⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_task_over_its_time_limit_is_told_with_what_changes_it() {
    let service = Tester::start(&config(
        "      - {name: t, image: i, maxPollDuration: 30}\n",
    ))
    .await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(2).await;
    assert_eq!(
        service.cluster.jobs()[0]["spec"]["activeDeadlineSeconds"],
        30
    );
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 't' failed: job JOB-000-001 failed: job deadline exceeded (30 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it)⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 143):⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_job_deleted_by_someone_ends_as_errored() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    service.cluster.deletes_job("t");
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 't' failed: job JOB-000-001 was deleted before it ended, by somebody other than this service; send the event again⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 143):⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn trouble_of_the_configuration_service_is_not_taken_as_no_config() {
    let service = Tester::start(&config(&task("t"))).await;
    service
        .keptn
        .has("", "job/config.yaml", config(&task("wrong")));
    service.keptn.answers_resources_with(&[500, 503, 401]);
    assert_eq!(service.receives_triggered().await.0, 202);
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn trouble_of_the_api_server_is_waited_out() {
    let service = Tester::start(&config(&[task("first"), task("second")].concat())).await;
    service
        .cluster
        .answers_with(&Method::POST, &[500, 503, 429]);
    service.cluster.answers_with(&Method::PATCH, &[500]);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_starts_again() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    service.cluster.forget_clients();
    service.cluster.task("t").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn answers_are_sent_until_they_are_taken() {
    let service = Tester::start(&config(&task("t"))).await;
    service.keptn.answers_events_with(&[503, 404]);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_answer_refused_for_its_size_is_sent_shorter() {
    let service = Tester::start(&config(&task("t"))).await;
    service.keptn.refuses_events_above(10_000);
    let log: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    service.cluster.task("t").prints(&log);
    service.receives_triggered().await;
    service.answers(2).await;
    let events = service.keptn.events();
    let message = events[1]["data"]["message"].as_str().unwrap();
    assert!(message.starts_with("Task 't' finished successfully!\n\nLogs:\n"));
    assert!(
        message.contains("line 0\n") && message.contains("line 19999\n"),
        "{message}"
    );
    assert!(message.contains("bytes left out"));
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_log_fits_the_limit_at_the_first_try() {
    let service = Tester::with(&config(&task("t")), &["--max-answer-bytes=20000"]).await;
    service.keptn.refuses_events_above(20_000);
    service
        .cluster
        .task("t")
        .prints(&"\u{1b}[0m\"é\"\n".repeat(20_000));
    service.receives_triggered().await;
    service.answers(2).await;
    let finished: Value = service.keptn.events()[1].clone();
    assert!(finished.to_string().len() > 19_000, "the room is used");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_takes_too_long_is_shown_with_its_true_end() {
    let service = Tester::start(&config(&task("t"))).await;
    let log: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    service.cluster.task("t").prints(&log);
    service.cluster.shows_of_logs(1_000);
    service.receives_triggered().await;
    service.answers(2).await;
    let events = service.keptn.events();
    let message = events[1]["data"]["message"].as_str().unwrap();
    let (begin, end) = message.split_once("\n[... more than ").unwrap();
    assert!(begin.contains(":\nline 0\nline 1\n"), "{begin}");
    assert!(end.contains(" bytes left out ...]\n"), "{end}");
    assert!(end.contains("line 19000\n"), "{end}");
    assert!(end.ends_with("line 19999\n\n\n\n\n"), "{end}");
    service.finish().await;
}
