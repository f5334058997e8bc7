//! The service dies, and the next one goes on.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::process::{Process, waits_for};
use super::{RealCluster, message};
use crate::tests::keptn::Habit;
use crate::tests::triggered;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_service_killed_while_a_job_runs_is_followed_by_one_that_answers() {
    let one = format!(
        "      - {{name: one, image: BUSYBOX, cmd: {}}}\n",
        waits_for("go")
    );
    let two = "      - {name: two, image: BUSYBOX, cmd: [echo, second]}\n";
    let cluster = RealCluster::with_config("killed", &(one + two)).await;
    let mut service = Process::start(&cluster).await;
    service.receives(&triggered("event-1")).await;
    cluster.has_jobs(1).await;
    cluster.until(|| cluster.runs_a_container(0)).await;
    service.is_killed();
    let _next = Process::start(&cluster).await;
    cluster.keptn.has("dev/svc", "go", "x");
    let finished = cluster.answered_once().await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    for part in [":\ngo\n", ":\nsecond\n"] {
        assert!(message(&finished).contains(part), "{finished:#}");
    }
    assert_eq!(cluster.jobs().await.len(), 2);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_service_killed_between_two_tasks_is_followed_by_one_that_answers() {
    let one = format!(
        "      - {{name: one, image: BUSYBOX, cmd: {}}}\n",
        waits_for("go")
    );
    let two = "      - {name: two, image: BUSYBOX, cmd: [echo, second]}\n";
    let cluster = RealCluster::with_config("between", &(one + two)).await;
    let mut service = Process::start(&cluster).await;
    service.receives(&triggered("event-1")).await;
    cluster.has_jobs(1).await;
    cluster.until(|| cluster.runs_a_container(0)).await;
    service.is_killed();
    cluster.keptn.has("dev/svc", "go", "x");
    // The first task ends while nobody watches.
    cluster
        .until(|| async {
            let job = cluster.jobs().await.remove(0);
            job.status.and_then(|status| status.succeeded) == Some(1)
        })
        .await;
    let _next = Process::start(&cluster).await;
    let finished = cluster.answered_once().await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    assert_eq!(cluster.jobs().await.len(), 2);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_service_killed_while_the_event_endpoint_is_down_is_followed_by_one_that_answers() {
    let tasks = "      - {name: one, image: BUSYBOX, cmd: [echo, hello]}\n";
    let cluster = RealCluster::with_config("endpoint", tasks).await;
    let mut service = Process::start(&cluster).await;
    cluster.keptn.distributor(Habit::Answers(503));
    service.receives(&triggered("event-1")).await;
    cluster
        .until(|| async {
            let job = cluster.jobs().await.pop();
            let status = job.and_then(|job| job.status);
            status.and_then(|status| status.succeeded) == Some(1)
        })
        .await;
    service.is_killed();
    let mut next = Process::start(&cluster).await;
    next.is_killed();
    cluster.keptn.distributor(Habit::Works);
    let _last = Process::start(&cluster).await;
    let finished = cluster.answered_once().await;
    assert!(message(&finished).contains(":\nhello\n"), "{finished:#}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn fifty_events_with_a_kill_in_the_middle_are_all_answered_once() {
    let tasks = "      - {name: one, image: BUSYBOX, cmd: [echo, done]}\n";
    let cluster = RealCluster::with_config("fifty", tasks).await;
    let mut service = Process::start(&cluster).await;
    let events: Vec<Value> = (0..50).map(|n| triggered(&format!("event-{n}"))).collect();
    futures::future::join_all(events.iter().map(|event| service.receives(event))).await;
    cluster.answered(55).await;
    service.is_killed();
    let _next = Process::start(&cluster).await;
    cluster.answered(100).await;
    cluster.all_reported().await;
    let answers = cluster.keptn.events();
    let of = |kind: &str| -> Vec<String> {
        let answers = answers.iter().filter(|event| {
            event["type"].as_str().unwrap() == format!("sh.keptn.event.test.{kind}")
        });
        answers
            .map(|event| event["triggeredid"].to_string())
            .collect()
    };
    for kind in ["started", "finished"] {
        let ids = of(kind);
        let distinct: BTreeSet<&String> = ids.iter().collect();
        assert_eq!((ids.len(), distinct.len()), (50, 50), "{kind}");
    }
    assert!(
        answers
            .iter()
            .all(|event| event["data"]["status"] != "errored")
    );
    assert_eq!(cluster.jobs().await.len(), 50);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_stopped_service_ends_with_0_and_a_second_signal_ends_it_at_once() {
    let one = format!(
        "      - {{name: one, image: BUSYBOX, cmd: {}}}\n",
        waits_for("go")
    );
    let cluster = RealCluster::with_config("stopped", &one).await;
    let mut service = Process::start(&cluster).await;
    service.receives(&triggered("event-1")).await;
    cluster.answered(1).await;
    service.gets("TERM");
    assert_eq!(service.ends().await.code(), Some(0));
    let mut next = Process::start(&cluster).await;
    cluster.keptn.has("dev/svc", "go", "x");
    cluster.answered_once().await;
    // What must not be cut takes a while.
    cluster.keptn.distributor(Habit::Hangs);
    next.receives(&triggered("event-2")).await;
    cluster.until(|| async { cluster.keptn.hangs() }).await;
    next.gets("TERM");
    cluster.until(|| async { !next.is_ready().await }).await;
    next.gets("TERM");
    assert_eq!(next.ends().await.code(), Some(1));
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn of_two_replicas_in_the_cluster_the_other_takes_over() {
    let one = format!(
        "      - {{name: one, image: BUSYBOX, cmd: {}}}\n",
        waits_for("go")
    );
    let cluster = RealCluster::with_config("replicas", &one).await;
    cluster.deploys(2).await;
    cluster.sends(&triggered("event-1")).await;
    cluster.answered(1).await;
    let holder = cluster.lease_holder().await;
    let pod = holder.split_once('/').unwrap().1;
    let at_once = DeleteParams::default().grace_period(0);
    cluster.api::<Pod>().delete(pod, &at_once).await.unwrap();
    cluster
        .until(|| async { cluster.lease_holder().await != holder })
        .await;
    cluster.keptn.has("dev/svc", "go", "x");
    let finished = cluster.answered_once().await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_rollout_in_a_run_changes_nothing() {
    let one = format!(
        "      - {{name: one, image: BUSYBOX, cmd: {}}}\n",
        waits_for("go")
    );
    let cluster = RealCluster::with_config("rollout", &one).await;
    cluster.deploys(1).await;
    cluster.sends(&triggered("event-1")).await;
    cluster.answered(1).await;
    let holder = cluster.lease_holder().await;
    let template = json!({"metadata": {"annotations": {"restarted": "now"}}});
    let patch = json!({"spec": {"template": template}});
    let deployments = cluster.api::<Deployment>();
    deployments
        .patch(
            "job-executor-service",
            &PatchParams::default(),
            &Patch::Merge(&patch),
        )
        .await
        .unwrap();
    cluster
        .until(|| async {
            let next = cluster.lease_holder().await;
            next != holder && !next.is_empty()
        })
        .await;
    cluster.keptn.has("dev/svc", "go", "x");
    let finished = cluster.answered_once().await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    cluster.finish().await;
}
