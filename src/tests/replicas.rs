//! Several processes: any admits events, one executes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use insta::assert_snapshot;
use tokio::time::{Instant, sleep};

use super::wire::{Fault, Wire};
use super::{Process, Tester, config, task, triggered};

impl Tester {
    /// Another process beside the first.
    pub(super) async fn is_joined_by(&self, pod: &str) -> Process {
        let (keptn, cluster) = (&self.keptn, &self.cluster);
        let process = Process::start(keptn, cluster, &self.settings, pod, Wire::sound()).await;
        process.is_ready().await;
        process
    }

    async fn is_executed_by(&self, pod: &str) {
        while self.cluster.lease_holder() != format!("keptn/{pod}") {
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_replica_admits_the_other_executes() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut other = service.is_joined_by("jes-2").await;
    assert_eq!(other.receives(&triggered("event-1")).await.0, 202);
    service.answers(2).await;
    service.cluster.all_reported().await;
    other.stops().await;
    assert_snapshot!(service.finish().await, @"
    job queued: t JOB-000-001
    job released: t JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_to_both_replicas_runs_once() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut other = service.is_joined_by("jes-2").await;
    let event = triggered("event-1");
    let (one, two) = tokio::join!(service.receives(&event), other.receives(&event));
    assert_eq!((one.0, two.0), (202, 202));
    service.answers(2).await;
    service.cluster.all_reported().await;
    other.stops().await;
    assert_eq!(service.keptn.events().len(), 2);
    assert_eq!(service.cluster.creations().len(), 1);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_job_that_comes_to_both_replicas_is_answered_once() {
    let service = Tester::start("apiVersion: v2\nactions: [{evnts: []}]").await;
    let mut other = service.is_joined_by("jes-2").await;
    sleep(Duration::from_secs(30)).await;
    let (executor, standby) = (&service.process, &other);
    for (first, second) in [(executor, standby), (standby, executor)] {
        for tenths in (0..80).step_by(4) {
            let event = triggered(&format!("event-{}", service.keptn.events().len()));
            let later = async {
                sleep(Duration::from_millis(100 * tenths)).await;
                second.receives(&event).await
            };
            let before = service.keptn.events().len();
            tokio::join!(first.receives(&event), later);
            sleep(Duration::from_secs(20)).await;
            let answers = service.keptn.events().len() - before;
            assert_eq!(
                answers, 2,
                "the second one got it {tenths} tenths of a second later"
            );
        }
    }
    other.stops().await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_other_replica_takes_over_within_twenty_seconds_of_a_death() {
    let first = "      - {name: first, image: alpine, maxPollDuration: 3600}\n";
    let tasks = [first.to_owned(), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("first").never_ends();
    let other = service.is_joined_by("jes-2").await;
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    sleep(Duration::from_secs(1000)).await;
    // With its node, so that its Pod is still shown as running.
    service.process.wire.cut();
    let died = Instant::now();
    assert_eq!(other.receives(&triggered("event-2")).await.0, 202);
    service.is_executed_by("jes-2").await;
    service.cluster.task("first").ends();
    service.answers(4).await;
    assert!(
        died.elapsed() < Duration::from_secs(20),
        "{:?}",
        died.elapsed()
    );
    service.process = other;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job queued: first JOB-000-001
    job released: first JOB-000-001
    job created: second JOB-000-002
    job created: second JOB-000-002
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_pod_is_gone_is_replaced_within_seconds() {
    let mut service = Tester::start(&config(&task("t"))).await;
    let other = service.is_joined_by("jes-2").await;
    sleep(Duration::from_secs(1000)).await;
    service.process.wire.cut();
    service.cluster.has_no_pod("jes-1");
    let died = Instant::now();
    service.is_executed_by("jes-2").await;
    assert!(
        died.elapsed() < Duration::from_secs(7),
        "{:?}",
        died.elapsed()
    );
    service.process = other;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_other_replica_takes_over_at_once_from_one_that_stops() {
    let mut service = Tester::start(&config(&task("t"))).await;
    let other = service.is_joined_by("jes-2").await;
    sleep(Duration::from_secs(1000)).await;
    service.process.stops().await;
    let stopped = Instant::now();
    service.is_executed_by("jes-2").await;
    assert!(stopped.elapsed() < Duration::from_secs(1));
    service.process = other;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_the_api_server_and_the_lease_ends_and_repeats_nothing() {
    let mut service = Tester::start(&config(&task("slow"))).await;
    service.cluster.task("slow").never_ends();
    let away = Arc::new(AtomicBool::new(false));
    let cut_off = Arc::clone(&away);
    let of_kubernetes = |call: &str| !call.starts_with("send") && !call.starts_with("ask");
    let wire = Wire::with(move |_, call| {
        let lost = cut_off.load(Ordering::Relaxed) && of_kubernetes(call);
        lost.then_some(Fault::Refused)
    });
    service.process.stops().await;
    service.process = Process::start(&service.keptn, &service.cluster, &[], "jes-1", wire).await;
    service.process.is_ready().await;
    service.receives_triggered().await;
    service.cluster.is_marked_started().await;
    let other = service.is_joined_by("jes-2").await;
    sleep(Duration::from_secs(30)).await;
    away.store(true, Ordering::Relaxed);
    service.cluster.forget_clients();
    service.is_executed_by("jes-2").await;
    service.cluster.task("slow").ends();
    service.answers(2).await;
    away.store(false, Ordering::Relaxed);
    let deposed = std::mem::replace(&mut service.process, other);
    let error = deposed.service.await.unwrap().unwrap_err().to_string();
    assert_snapshot!(error, @"`keptn/jes-2` holds the Lease `job-executor-service`, so this process ends; the next one waits for its turn");
    sleep(Duration::from_secs(600)).await;
    assert_eq!(service.keptn.events().len(), 2);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_for_an_hour_deposes_nobody() {
    let service = Tester::start(&config(&task("t"))).await;
    let mut other = service.is_joined_by("jes-2").await;
    sleep(Duration::from_secs(100)).await;
    service.cluster.is_away(true);
    sleep(Duration::from_secs(3600)).await;
    service.cluster.is_away(false);
    sleep(Duration::from_secs(100)).await;
    assert_eq!(service.cluster.lease_holder(), "keptn/jes-1");
    other.stops().await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_service_asks_the_api_server_for_nothing_but_its_watches() {
    let service = Tester::start(&config(&task("t"))).await;
    sleep(Duration::from_secs(60)).await;
    let before = service.cluster.calls().len();
    sleep(Duration::from_secs(3600)).await;
    let calls = service.cluster.calls();
    let asked: Vec<&String> = calls[before..]
        .iter()
        .filter(|call| !call.starts_with("watch"))
        .collect();
    assert!(asked.is_empty(), "{asked:?}");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_lease_is_given_back_also_at_the_second_attempt() {
    let service = Tester::start(&config(&task("t"))).await;
    for method in [Method::GET, Method::PATCH] {
        service.cluster.answers_with(&method, &[500]);
    }
    service.finish().await;
}
