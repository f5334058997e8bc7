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
    assert_snapshot!(service.finish().await, @"");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_at_every_attempt_tells_the_last_one() {
    let service = Tester::start(&config(&task("broken", "retries: 2"))).await;
    service.cluster.task("broken").fails_at_first(9);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"");
}

#[tokio::test(start_paused = true)]
async fn all_attempts_share_the_time_limit() {
    let tasks = task("slow", "retries: 3, maxPollDuration: 15");
    let service = Tester::start(&config(&tasks)).await;
    service.cluster.task("slow").fails_at_first(9);
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"");
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
    assert_snapshot!(service.finish().await, @"");
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_a_warning_goes_on() {
    let tasks = [task("check", "onFailure: warn"), task("deploy", "cmd: [x]")];
    let service = Tester::start(&config(&tasks.concat())).await;
    service.cluster.task("check").fails(3, "old\n");
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"");
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
    assert_snapshot!(service.finish().await, @"");
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
    assert_snapshot!(service.finish().await, @"");
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
    assert_snapshot!(service.finish().await, @"");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_without_permissions_disturbs_no_other() {
    let tasks = [task("here", "cmd: [x]"), task("there", "namespace: other")];
    let mut service = Tester::with(&config(&tasks.concat()), &OTHER).await;
    service.cluster.forbids_the_other_namespace();
    service.crashes().await;
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"");
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
    assert_snapshot!(refusals, @"");
}
