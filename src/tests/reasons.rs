//! Why a task cannot start, or ended for something else than its own exit code: told soon, with what helps,
//! and the Job is ended.

use std::time::Duration;

use insta::assert_snapshot;
use tokio::time::{Instant, sleep};

use super::keptn::Habit;
use super::kubernetes::{Obstacle, WatchHabit};
use super::{Tester, config, task, triggered};

impl Tester {
    /// Runs a task that does not end by itself; gives the message of its answer, and the seconds until then.
    async fn ends(&self) -> String {
        let begin = Instant::now();
        self.receives_triggered().await;
        self.answers(2).await;
        format!("{} s: {}", begin.elapsed().as_secs(), self.message())
    }

    fn message(&self) -> String {
        let finished = self.keptn.events().pop().unwrap_or_default();
        assert_eq!(finished["type"], "sh.keptn.event.test.finished");
        let message = finished["data"]["message"].as_str().unwrap_or_default();
        super::shortened(message).replace('\n', "⏎")
    }

    /// The task ends well, after whatever came in between.
    async fn succeeds(self, after: &str) {
        self.cluster.task("t").ends();
        self.answers(2).await;
        let message = self.message();
        assert!(message.contains("successfully"), "{after}: {message}");
        self.finish().await;
    }

    /// Nothing of the task runs, waits, or would later.
    async fn leaves_nothing(self) {
        sleep(Duration::from_secs(10)).await;
        let jobs = self.cluster.jobs();
        for job in &jobs {
            let conditions = job["status"]["conditions"].to_string();
            assert!(conditions.contains("\"Failed\""), "{job:#}");
            assert_ne!(job["spec"]["suspend"], true);
        }
        assert!(self.cluster.pods_of("t").is_empty());
        self.finish().await;
    }
}

async fn kept_by(obstacle: Obstacle) -> (Tester, String) {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").is_kept_by(obstacle);
    let message = service.ends().await;
    (service, message)
}

fn waits(reason: &'static str, message: &str) -> Obstacle {
    Obstacle::Waits {
        reason,
        message: message.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_gets_some_seconds() {
    let (service, message) = kept_by(waits("ErrImagePull", "no such tag")).await;
    assert_snapshot!(message, @"30 s: Task 't' failed: job JOB-000-001 failed. Reason: ErrImagePull, Message: container `JOB-000-001` cannot start: no such tag; check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the service: how long pulls may fail)");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_whose_name_is_wrong_gets_no_time() {
    let (service, message) = kept_by(waits("InvalidImageName", "no such name")).await;
    assert_snapshot!(message, @"0 s: Task 't' failed: job JOB-000-001 failed. Reason: InvalidImageName, Message: container `JOB-000-001` cannot start: no such name; correct the name of the image");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_nothing_may_pull_gets_no_time() {
    let (service, message) = kept_by(waits("ErrImageNeverPull", "image `i` is not present")).await;
    assert_snapshot!(message, @"0 s: Task 't' failed: job JOB-000-001 failed. Reason: ErrImageNeverPull, Message: container `JOB-000-001` cannot start: image `i` is not present; bring the image to the nodes, or choose another `imagePullPolicy`");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_secret_is_told() {
    let secret = "      - {name: t, image: i, env: [{name: credentials, valueFrom: secret}]}\n";
    let service = Tester::start(&config(secret)).await;
    assert_snapshot!(service.ends().await, @r#"3 s: Task 't' failed: job JOB-000-001 failed. Reason: CreateContainerConfigError, Message: container `JOB-000-001` cannot start: secret "credentials" not found; create what is missing in the task's namespace, or correct `env`, `envFrom` or `securityContext` of the task"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_cannot_be_made_is_told() {
    let (service, message) = kept_by(waits("CreateContainerError", "no such device")).await;
    assert_snapshot!(message, @"3 s: Task 't' failed: job JOB-000-001 failed. Reason: CreateContainerError, Message: container `JOB-000-001` cannot start: no such device; check `cmd`, `workingDir`, `volumeMounts` and `securityContext` of the task");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_volume_is_told() {
    let missing = "MountVolume.SetUp failed for volume \"v\" : configmap \"none\" not found";
    let (service, message) = kept_by(Obstacle::Unmountable(missing.into())).await;
    assert_snapshot!(message, @r#"3 s: Task 't' failed: job JOB-000-001 failed. Reason: FailedMount, Message: container `JOB-000-001` cannot start: MountVolume.SetUp failed for volume "v" : configmap "none" not found; create what is missing in the task's namespace, or correct `volumes` of the task"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn too_little_memory_to_begin_with_is_told() {
    let oom = "failed to create shim task: OCI runtime create failed: container init was OOM-killed (memory limit \
        too low?)";
    let (service, message) = kept_by(Obstacle::NoSandbox(oom.into())).await;
    assert_snapshot!(message, @"3 s: Task 't' failed: job JOB-000-001 failed. Reason: FailedCreatePodSandBox, Message: container `JOB-000-001` cannot start: failed to create shim task: OCI runtime create failed: container init was OOM-killed (memory limit too low?); raise `resources.limits.memory` of the task");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_does_not_come_up_is_told_at_the_time_limit() {
    let service = Tester::start(&config(
        "      - {name: t, image: i, maxPollDuration: 20}\n",
    ))
    .await;
    let network = "failed to setup network for sandbox: no addresses left";
    let no_sandbox = Obstacle::NoSandbox(network.into());
    service.cluster.task("t").is_kept_by(no_sandbox);
    assert_snapshot!(service.ends().await, @"20 s: Task 't' failed: job JOB-000-001 failed: job deadline exceeded (20 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it); container `JOB-000-001` cannot start: failed to setup network for sandbox: no addresses left; this passes as a rule: send the event again");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_account_is_told() {
    let missing = "pods \"t-\" is forbidden: error looking up service account keptn/none: serviceaccount \
        \"none\" not found";
    let (service, message) = kept_by(Obstacle::Refused(missing.into())).await;
    assert_snapshot!(message, @r#"3 s: Task 't' failed: job JOB-000-001 failed. Reason: FailedCreate, Message: Error creating: pods "t-" is forbidden: error looking up service account keptn/none: serviceaccount "none" not found; create the account in the task's namespace, or correct `serviceAccount` of the task (DEFAULT_JOB_SERVICE_ACCOUNT of the service)"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_exhausted_quota_is_told() {
    let full = "pods \"t-\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1";
    let (service, message) = kept_by(Obstacle::Refused(full.into())).await;
    assert_snapshot!(message, @r#"4 s: Task 't' failed: job JOB-000-001 failed. Reason: FailedCreate, Message: Error creating: pods "t-" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1; let other Pods of the namespace end, lower `resources` of the task, or raise the quota"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_admitted_is_told() {
    let refused = "pods \"t-\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true";
    let (service, message) = kept_by(Obstacle::Refused(refused.into())).await;
    assert_snapshot!(message, @r#"3 s: Task 't' failed: job JOB-000-001 failed. Reason: FailedCreate, Message: Error creating: pods "t-" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true; the namespace does not admit such a Pod: correct the task, for instance its `securityContext`, or the rules of the namespace"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_gets_minutes() {
    let service = Tester::with(
        &config("      - {name: t, image: i, maxPollDuration: 3600}\n"),
        &["--unschedulable-grace-seconds=90"],
    )
    .await;
    let nodes = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.";
    service
        .cluster
        .task("t")
        .is_kept_by(Obstacle::Unschedulable(nodes.into()));
    assert_snapshot!(service.ends().await, @"90 s: Task 't' failed: job JOB-000-001 failed. Reason: Unschedulable, Message: 0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector; check `nodeSelector`, `affinity`, `tolerations`, `volumes` and `resources.requests` of the task (UNSCHEDULABLE_GRACE_SECONDS of the service: how long a Pod may wait for a node)");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_that_is_over_before_says_what_the_pod_waited_for() {
    let service = Tester::start(&config(
        "      - {name: t, image: i, maxPollDuration: 20}\n",
    ))
    .await;
    service.cluster.task("t").cannot_be_pulled();
    assert_snapshot!(service.ends().await, @r#"20 s: Task 't' failed: job JOB-000-001 failed: job deadline exceeded (20 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it); container `JOB-000-001` cannot start: Back-off pulling image "i": ErrImagePull: no such tag; check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the service: how long pulls may fail)"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn what_heals_in_time_changes_nothing() {
    let volume = Obstacle::Unmountable("secret \"s\" not found".into());
    let quota = Obstacle::Refused("exceeded quota".into());
    let node = Obstacle::Unschedulable("0/1 nodes".into());
    let cases = [
        (waits("ImagePullBackOff", "Back-off"), 25),
        (
            waits("CreateContainerConfigError", "secret \"s\" not found"),
            2,
        ),
        (volume, 1),
        (quota, 3),
        (node, 200),
    ];
    for (obstacle, seconds) in cases {
        let service = Tester::start(&config(&task("t"))).await;
        service.cluster.task("t").is_kept_by(obstacle.clone());
        service.receives_triggered().await;
        sleep(Duration::from_secs(seconds)).await;
        service.cluster.task("t").never_ends();
        // Longer than each of these may last.
        sleep(Duration::from_secs(60)).await;
        service.succeeds(&format!("{obstacle:?}")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_hindrance_ends_all_attempts() {
    let service = Tester::start(&config("      - {name: t, image: i, retries: 3}\n")).await;
    service.cluster.task("t").cannot_be_pulled();
    assert_snapshot!(service.ends().await, @r#"30 s: Task 't' failed: job JOB-000-001 failed. Reason: ImagePullBackOff, Message: container `JOB-000-001` cannot start: Back-off pulling image "i": ErrImagePull: no such tag; check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the service: how long pulls may fail)"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_while_patience_lasts_changes_nothing() {
    let mut service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").cannot_be_pulled();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(15)).await;
    service.crashes().await;
    service.answers(2).await;
    assert_snapshot!(service.message(), @r#"Task 't' failed: job JOB-000-001 failed. Reason: ImagePullBackOff, Message: container `JOB-000-001` cannot start: Back-off pulling image "i": ErrImagePull: no such tag; check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the service: how long pulls may fail)"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_a_job_was_ended_does_not_change_the_reason() {
    let mut service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").cannot_be_pulled();
    service.receives_triggered().await;
    service.answers(1).await;
    service.keptn.distributor(Habit::Refuses);
    sleep(Duration::from_secs(40)).await;
    service.crashes().await;
    service.keptn.distributor(Habit::Works);
    service.answers(2).await;
    assert_snapshot!(service.message(), @r#"Task 't' failed: job JOB-000-001 failed. Reason: ImagePullBackOff, Message: container `JOB-000-001` cannot start: Back-off pulling image "i": ErrImagePull: no such tag; check the name of the image and `imagePullSecrets` (IMAGE_PULL_GRACE_SECONDS of the service: how long pulls may fail)"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_late_ends_no_task_that_works() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.has_watches_that(WatchHabit::Late);
    service.cluster.task("t").is_kept_by(waits(
        "CreateContainerConfigError",
        "secret \"s\" not found",
    ));
    service.receives_triggered().await;
    sleep(Duration::from_secs(8)).await;
    service.cluster.task("t").never_ends();
    sleep(Duration::from_secs(10)).await;
    service.succeeds("in the end").await;
}

#[tokio::test(start_paused = true)]
async fn without_the_permission_for_events_the_time_limit_is_what_remains() {
    let service = Tester::start(&config(
        "      - {name: t, image: i, maxPollDuration: 20}\n",
    ))
    .await;
    service.cluster.forbids_events();
    sleep(Duration::from_secs(5)).await;
    service
        .cluster
        .task("t")
        .is_kept_by(Obstacle::Refused("exceeded quota".into()));
    assert_snapshot!(service.ends().await, @"20 s: Task 't' failed: job JOB-000-001 failed: job deadline exceeded (20 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it)");
    service.cluster.task("t").prints("");
    service.receives(&triggered("event-2")).await;
    service.answers(4).await;
    assert!(service.message().contains("successfully"));
    let calls = service.cluster.calls();
    let asked = calls
        .iter()
        .filter(|call| call.ends_with(" events"))
        .count();
    assert!(asked < 10, "it asks {asked} times");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_killed_for_its_memory_is_told_with_its_limit() {
    let memory = "      - {name: t, image: i, resources: {limits: {memory: 16Mi}}}\n";
    let service = Tester::start(&config(memory)).await;
    service.cluster.task("t").runs_out_of_memory();
    assert_snapshot!(service.ends().await, @"0 s: Task 't' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; container `JOB-000-001` was killed because it used more memory than its limit of 16Mi (OOMKilled, exit code 137); raise `resources.limits.memory` of the task⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: OOMKilled, ExitCode: 137):⏎⏎⏎");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn an_eviction_is_told() {
    let service = Tester::start(&config(&task("t"))).await;
    let usage = "Usage of EmptyDir volume \"job-volume\" exceeds the limit \"1Mi\". ";
    service.cluster.task("t").is_evicted(usage);
    assert_snapshot!(service.ends().await, @r#"0 s: Task 't' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its Pod was evicted by its node (Evicted: Usage of EmptyDir volume "job-volume" exceeds the limit "1Mi"); raise `emptyDirSizeLimit` of the task, or `sizeLimit` of its volume⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 137):⏎⏎⏎"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_deleted_by_someone_is_told() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    service.cluster.task("t").loses_its_pod();
    service.answers(2).await;
    assert_snapshot!(service.message(), @"Task 't' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its Pod was deleted before the task ended, by somebody other than this service; send the event again⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 143):⏎⏎⏎");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_suspended_by_someone_is_told_and_ended() {
    let mut service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    service.cluster.task("t").is_suspended(true);
    sleep(Duration::from_secs(1)).await;
    service.crashes().await;
    service.answers(2).await;
    assert_snapshot!(service.message(), @"Task 't' failed: job JOB-000-001 failed. Reason: JobSuspended, Message: the Job was suspended while its task ran, by somebody other than this service; the service has ended it; send the event again");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_resumed_soon_goes_on() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    service.cluster.task("t").is_suspended(true);
    sleep(Duration::from_secs(2)).await;
    service.cluster.task("t").is_suspended(false);
    sleep(Duration::from_secs(10)).await;
    service.succeeds("in the end").await;
}

#[tokio::test(start_paused = true)]
async fn whatever_a_container_misses_is_told_by_its_name() {
    let sources = [
        "env: [{name: A, valueFrom: {secretKeyRef: {name: gone, key: k}}}]",
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: gone, key: k}}}]",
        "envFrom: [{secretRef: {name: gone}}]",
        "envFrom: [{configMapRef: {name: gone}}]",
    ];
    let mut told = String::new();
    for fields in sources {
        let service = Tester::start(&config(&format!(
            "      - {{name: t, image: i, {fields}}}\n"
        )))
        .await;
        let message = service.ends().await;
        let (_, message) = message.split_once("cannot start: ").unwrap();
        told += &format!("{fields}\n  {}\n", message.split_once(';').unwrap().0);
        service.leaves_nothing().await;
    }
    assert_snapshot!(told, @r#"
    env: [{name: A, valueFrom: {secretKeyRef: {name: gone, key: k}}}]
      secret "gone" not found
    env: [{name: A, valueFrom: {configMapKeyRef: {name: gone, key: k}}}]
      configmap "gone" not found
    envFrom: [{secretRef: {name: gone}}]
      secret "gone" not found
    envFrom: [{configMapRef: {name: gone}}]
      configmap "gone" not found
    "#);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_the_namespace_is_told() {
    let limit =
        "pods \"t-\" is forbidden: maximum memory usage per Container is 10Mi, but limit is 20Mi";
    let (service, message) = kept_by(Obstacle::Refused(limit.into())).await;
    assert_snapshot!(message, @r#"3 s: Task 't' failed: job JOB-000-001 failed. Reason: FailedCreate, Message: Error creating: pods "t-" is forbidden: maximum memory usage per Container is 10Mi, but limit is 20Mi; correct `resources` of the task, or the limits of its namespace"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_not_there_gets_no_minutes() {
    let claim = "0/1 nodes are available: persistentvolumeclaim \"none\" not found.";
    let (service, message) = kept_by(Obstacle::Unschedulable(claim.into())).await;
    assert_snapshot!(message, @r#"2 s: Task 't' failed: job JOB-000-001 failed. Reason: Unschedulable, Message: 0/1 nodes are available: persistentvolumeclaim "none" not found; create what is missing in the task's namespace, or correct `volumes` of the task"#);
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_shuts_down_is_told() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").is_ended_by_its_node(
        "Terminated",
        "Pod was terminated in response to imminent node shutdown.",
    );
    assert_snapshot!(service.ends().await, @"0 s: Task 't' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its Pod was ended by its node: Terminated: Pod was terminated in response to imminent node shutdown; send the event again⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 137):⏎⏎⏎");
    service.leaves_nothing().await;
}

/// Begins a task and lets something happen to it while it works; gives the message of its answer.
async fn while_it_works(tasks: &str, happens: impl Fn(&Tester)) -> (Tester, String) {
    let service = Tester::start(&config(tasks)).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    let since = Instant::now();
    happens(&service);
    service.answers(2).await;
    let message = format!("{} s: {}", since.elapsed().as_secs(), service.message());
    (service, message)
}

#[tokio::test(start_paused = true)]
async fn whoever_of_the_cluster_ends_a_pod_is_told() {
    let disruptions = [
        (
            "PreemptionByScheduler",
            "default-scheduler: preempting to accommodate a higher priority pod",
        ),
        (
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
        ),
        ("EvictionByEvictionAPI", "Eviction API: evicting"),
        ("DeletionBySomethingNew", "nobody knows it yet"),
    ];
    let mut told = String::new();
    for (reason, message) in disruptions {
        let disrupted = |of: &Tester| of.cluster.task("t").is_disrupted(reason, message);
        let (service, message) = while_it_works(&task("t"), disrupted).await;
        let (seconds, reason) = message.split_once(" Task").unwrap();
        let (_, reason) = reason.split_once("limit; ").unwrap();
        told += &format!("{seconds} {}\n", reason.split_once('⏎').unwrap().0);
        service.leaves_nothing().await;
    }
    assert_snapshot!(told, @"
    0 s: its Pod had to make room for one of a higher priority (PreemptionByScheduler: default-scheduler: preempting to accommodate a higher priority pod); send the event again when the cluster has room
    0 s: its node was lost, or is being emptied (DeletionByTaintManager: Taint manager: deleting due to NoExecute taint); send the event again, or let `tolerations` of the task bear the node's taint
    0 s: its Pod was evicted by somebody, as before maintenance of its node (EvictionByEvictionAPI: Eviction API: evicting); send the event again
    0 s: its Pod was ended by the cluster (DeletionBySomethingNew: nobody knows it yet); send the event again
    ");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_gone_is_told() {
    let gone = |of: &Tester| of.cluster.task("t").loses_its_node();
    let (service, message) = while_it_works(&task("t"), gone).await;
    assert_snapshot!(message, @"0 s: Task 't' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit; its node is gone (DeletionByPodGC: PodGC: node no longer exists); send the event again⏎⏎Logs: ⏎Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 143):⏎⏎⏎");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_over_its_time_limit_on_a_silent_node_says_so_also_after_a_crash() {
    let tasks = "      - {name: t, image: i, maxPollDuration: 20}\n";
    let mut service = Tester::start(&config(tasks)).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    service.cluster.task("t").is_not_heard_of();
    service.keptn.distributor(Habit::Refuses);
    sleep(Duration::from_secs(30)).await;
    service.crashes().await;
    service.keptn.distributor(Habit::Works);
    service.answers(2).await;
    assert_snapshot!(service.message(), @"Task 't' failed: job JOB-000-001 failed: job deadline exceeded (20 s; `maxPollDuration` of the task or TASK_DEADLINE_SECONDS of the service changes it); its node has not answered since 2026-11-23T20:41:00Z, so that nobody knows what became of the task; send the event again");
    service.leaves_nothing().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_answers_again_changes_nothing() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    service.cluster.task("t").is_not_heard_of();
    sleep(Duration::from_secs(120)).await;
    service.succeeds("in the end").await;
}

#[tokio::test(start_paused = true)]
async fn a_job_deleted_while_its_pod_waits_is_told() {
    let service = Tester::start(&config(&task("t"))).await;
    service.cluster.task("t").cannot_be_pulled();
    service.receives_triggered().await;
    service.answers(1).await;
    sleep(Duration::from_secs(1)).await;
    service.cluster.deletes_job("t");
    service.answers(2).await;
    assert_snapshot!(service.message(), @"Task 't' failed: job JOB-000-001 was deleted before it ended, by somebody other than this service; send the event again");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_crashes_does_not_decide_how_the_task_ends() {
    for (code, told) in [(0, "finished successfully"), (3, "ExitCode: 3)")] {
        let service = Tester::start(&config(&task("t"))).await;
        service
            .cluster
            .task("t")
            .ends_after_its_sidecar_crashed(code);
        let message = service.ends().await;
        assert!(message.contains(told), "{message}");
        assert!(!message.contains("its container"), "{message}");
        service.finish().await;
    }
}
