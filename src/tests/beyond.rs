//! What a task can have beyond the original: retries, other namespaces, results, warnings, clean-up.

use insta::assert_snapshot;
use serde_json::Value;

use super::{Tester, config, triggered};

/// A task with these fields.
fn task(name: &str, fields: &str) -> String {
    format!("      - {{name: {name}, image: i, {fields}}}\n")
}

#[tokio::test(start_paused = true)]
async fn a_task_is_started_again_until_it_succeeds() {
    let service = Tester::start(&config(&task("flaky", "retries: 2"))).await;
    service.cluster.task("flaky").fails_at_first(2);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: flaky JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'flaky' finished successfully!⏎⏎Logs:⏎Container JOB-000-001 of pod JOB-000-001-pod:⏎attempt 3⏎⏎⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_at_every_attempt_tells_the_last_one() {
    let service = Tester::start(&config(&task("broken", "retries: 2"))).await;
    service.cluster.task("broken").fails_at_first(9);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: broken JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'broken' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit (3 attempts)⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 1):⏎attempt 3⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn all_attempts_share_the_time_limit() {
    let tasks = task("slow", "retries: 3, maxPollDuration: 15");
    let service = Tester::start(&config(&tasks)).await;
    service.cluster.task("slow").fails_at_first(9);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: slow JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'slow' failed: job JOB-000-001 failed: job deadline exceeded (15 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it)⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 1):⏎attempt 1⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_two_attempts_changes_nothing() {
    let mut service = Tester::start(&config(&task("flaky", "retries: 1"))).await;
    service.cluster.task("flaky").fails_at_first(1);
    service.receives_triggered().await;
    service.answers(1).await;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    service.crashes().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: flaky JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'flaky' finished successfully!⏎⏎Logs:⏎Container JOB-000-001 of pod JOB-000-001-pod:⏎attempt 2⏎⏎⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_a_warning_goes_on() {
    let tasks = [task("check", "onFailure: warn"), task("deploy", "cmd: [x]")];
    let service = Tester::start(&config(&tasks.concat())).await;
    service.cluster.task("check").fails(3, "old\n");
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: check JOB-000-001
    event sh.keptn.event.test.started
    job created: deploy JOB-000-002
    event sh.keptn.event.test.finished succeeded warning: Task 'check' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 3):⏎old⏎⏎⏎⏎⏎Task 'deploy' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_always_runs_cleans_up_after_a_failure() {
    let tasks = [
        task("break", "cmd: [x]"),
        task("never", "cmd: [x]"),
        task("clean", "always: true"),
        task("nor this", "cmd: [x]"),
        task("last", "always: true"),
    ];
    let service = Tester::start(&config(&tasks.concat())).await;
    service.cluster.task("break").fails(1, "boom\n");
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: break JOB-000-001
    event sh.keptn.event.test.started
    job created: clean JOB-000-003
    job created: last JOB-000-005
    event sh.keptn.event.test.finished errored fail: Task 'break' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 1):⏎boom⏎⏎⏎⏎⏎Task 'clean' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'last' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_crash_during_the_clean_up_does_not_turn_a_failure_into_a_success() {
    let tasks = [
        task("break", "cmd: [x]"),
        task("never", "cmd: [x]"),
        task("clean", "always: true"),
    ];
    let mut service = Tester::start(&config(&tasks.concat())).await;
    service.cluster.task("break").fails(1, "boom\n");
    service.cluster.task("clean").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(2).await;
    service.crashes().await;
    service.cluster.task("clean").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: break JOB-000-001
    event sh.keptn.event.test.started
    job created: clean JOB-000-003
    event sh.keptn.event.test.finished errored fail: Task 'break' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 1):⏎boom⏎⏎⏎⏎⏎Task 'clean' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

const OTHER: [&str; 1] = ["--allowed-namespaces=other"];

#[tokio::test(start_paused = true)]
async fn tasks_of_one_run_may_be_in_several_namespaces() {
    let tasks = [
        task("first", "namespace: other"),
        task("second", "cmd: [x]"),
        task("third", "namespace: other"),
    ];
    let mut service = Tester::with(&config(&tasks.concat()), &OTHER).await;
    service.cluster.task("third").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(3).await;
    service.crashes().await;
    service.cluster.task("third").ends();
    service.answers(2).await;
    let namespace = |job: &Value| job["metadata"]["namespace"].as_str().unwrap().to_owned();
    let mut namespaces: Vec<String> = service.cluster.jobs().iter().map(namespace).collect();
    namespaces.sort();
    assert_eq!(namespaces, ["keptn", "other", "other"]);
    assert_eq!(service.receives_triggered().await.0, 202);
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    job created: third JOB-000-003
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'third' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_permissions_disturbs_no_other() {
    let tasks = [task("here", "cmd: [x]"), task("there", "namespace: other")];
    let mut service = Tester::with(&config(&tasks.concat()), &OTHER).await;
    service.cluster.forbids_the_other_namespace();
    service.crashes().await;
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @r#"
    job created: here JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'there' failed: its Job was not created. Reason: Forbidden, Message: jobs.batch is forbidden: User "jes" cannot do this; give the service's account its Role in the task's namespace⏎⏎Task 'here' finished successfully!⏎⏎Logs:⏎⏎⏎
    "#);
}

#[tokio::test(start_paused = true)]
async fn what_a_task_must_not_have_is_refused_before_any_job() {
    let mut refusals = String::new();
    for fields in [
        "namespace: other",
        "serviceAccount: root",
        "env: [{name: job-service-keptn-secrets, valueFrom: secret}]",
        "env: [{name: T, valueFrom: {secretKeyRef: {name: job-service-keptn-secrets, key: token}}}]",
        "envFrom: [{secretRef: {name: job-service-keptn-secrets}}]",
        "imagePullSecrets: [{name: job-service-keptn-secrets}]",
        "volumes: [{name: v, secret: {secretName: job-service-keptn-secrets}}]",
        "volumes: [{name: v, projected: {sources: [{secret: {name: job-service-keptn-secrets}}]}}]",
        "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
        "volumes: [{name: v, hostPath: {path: /}}]",
        "securityContext: {privileged: true}",
        "env: [{name: private, valueFrom: secret}]",
    ] {
        let settings = [
            "--allowed-service-accounts=job-*",
            "--allowed-secrets=app-*,job-service-*",
        ];
        let service = Tester::with(&config(&task("t", fields)), &settings).await;
        service.receives(&triggered("event-1")).await;
        service.answers(2).await;
        assert!(service.cluster.jobs().is_empty(), "{fields}");
        let message = service.keptn.events()[1]["data"]["message"].clone();
        refusals += &format!("{fields}\n  {}\n", message.as_str().unwrap().trim_end());
        service.finish().await;
    }
    assert_snapshot!(refusals, @r#"
    namespace: other
      Task 't' failed: namespace `other` is not allowed, Jobs run in `keptn` (ALLOWED_NAMESPACES of the service)
    serviceAccount: root
      Task 't' failed: service account `root` is not allowed (ALLOWED_SERVICE_ACCOUNTS of the service)
    env: [{name: job-service-keptn-secrets, valueFrom: secret}]
      Task 't' failed: could not prepare env for job job-executor-service-job-63901ce9feac643e6063c82e-000-001: could not add env with name job-service-keptn-secrets, valueFrom secret: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
    env: [{name: T, valueFrom: {secretKeyRef: {name: job-service-keptn-secrets, key: token}}}]
      Task 't' failed: could not prepare env for job job-executor-service-job-63901ce9feac643e6063c82e-000-001: could not add env with name T, valueFrom secretKeyRef: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
    envFrom: [{secretRef: {name: job-service-keptn-secrets}}]
      Task 't' failed: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
    imagePullSecrets: [{name: job-service-keptn-secrets}]
      Task 't' failed: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
    volumes: [{name: v, secret: {secretName: job-service-keptn-secrets}}]
      Task 't' failed: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
    volumes: [{name: v, projected: {sources: [{secret: {name: job-service-keptn-secrets}}]}}]
      Task 't' failed: secret "job-service-keptn-secrets" is not allowed, it holds the credentials of this service
    volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]
      Task 't' failed: volume `v` is the token of a service account, but the task names no `serviceAccount`
    volumes: [{name: v, hostPath: {path: /}}]
      Task 't' failed: volume `v` is a `hostPath`, which is not allowed (ALLOWED_VOLUMES of the service)
    securityContext: {privileged: true}
      Task 't' failed: privileged containers are not allowed (ALLOW_PRIVILEGED_JOBS of the service)
    env: [{name: private, valueFrom: secret}]
      Task 't' failed: could not prepare env for job job-executor-service-job-63901ce9feac643e6063c82e-000-001: could not add env with name private, valueFrom secret: secret "private" is not allowed (ALLOWED_SECRETS of the service)
    "#);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_task_was_moved_to_another_namespace_meanwhile_runs_once() {
    let config =
        |fields: &str| config(&task("t", fields)).replace("events:", "silent: true\n    events:");
    let service = Tester::with(&config("cmd: [x]"), &OTHER).await;
    service.receives_triggered().await;
    service.cluster.all_reported().await;
    let moved = config("namespace: other");
    service.keptn.has("dev/svc", "job/config.yaml", moved);
    service.receives_triggered().await;
    assert_snapshot!(service.finish().await, @"job created: t JOB-000-001");
}

#[tokio::test(start_paused = true)]
async fn permissions_that_are_taken_away_end_the_task_with_the_reason() {
    let tasks = [task("here", "cmd: [x]"), task("there", "namespace: other")];
    let mut service = Tester::with(&config(&tasks.concat()), &OTHER).await;
    service.cluster.task("there").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(2).await;
    service.cluster.forbids_the_other_namespace();
    service.crashes().await;
    service.answers(2).await;
    assert_snapshot!(service.transcript.text(), @r#"
    job created: here JOB-000-001
    event sh.keptn.event.test.started
    job created: there JOB-000-002
    event sh.keptn.event.test.finished errored fail: Task 'there' failed: its Job was not created. Reason: Forbidden, Message: jobs.batch is forbidden: User "jes" cannot do this; give the service's account its Role in the task's namespace⏎⏎Task 'here' finished successfully!⏎⏎Logs:⏎⏎⏎
    "#);
    assert_eq!(service.keptn.events().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_a_record_brings_is_held_to_the_settings_of_now() {
    let tasks = [
        task("first", "cmd: [x]"),
        task("second", "env: [{name: creds, valueFrom: secret}]"),
    ];
    let mut service = Tester::start(&config(&tasks.concat())).await;
    service.cluster.task("first").never_ends();
    service.receives_triggered().await;
    service.cluster.has_jobs(1).await;
    service.settings = vec!["--allowed-secrets=others-*".into()];
    service.crashes().await;
    service.cluster.task("first").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @r#"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: Task 'second' failed: secret "creds" is not allowed (ALLOWED_SECRETS of the service)⏎⏎Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎
    "#);
}
