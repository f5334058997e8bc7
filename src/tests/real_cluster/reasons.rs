//! What a node and an API server say of tasks that cannot start, or do not end by themselves.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{LimitRange, Pod, ResourceQuota, Secret};
use kube::ResourceExt;
use kube::api::{DeleteParams, EvictParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{RealCluster, message, post};
use crate::tests::{config, shortened, triggered};

impl RealCluster {
    /// Runs a task that fails; gives its message on one line.
    pub(super) async fn tells(&self) -> String {
        let begin = Instant::now();
        let finished = self.runs(&triggered("event-1")).await;
        self.failed(&finished, begin)
    }

    pub(super) fn failed(&self, finished: &Value, since: Instant) -> String {
        assert_eq!(finished["status"], "errored", "{finished:#}");
        let message = shortened(message(finished))
            .replace(&self.namespace, "NAMESPACE")
            .replace('\n', "⏎");
        eprintln!(
            "{}: told {:.1} s after its event or cause: {message}",
            self.namespace,
            since.elapsed().as_secs_f32()
        );
        message
    }

    /// Begins a run whose task works.
    pub(super) async fn works(&self) {
        let (address, _, _) = self.service.as_ref().expect("the service was started");
        assert_eq!(post(*address, &triggered("event-1")).await.0, 202);
        self.until(|| async {
            let running = |pod: &Pod| phase(pod) == "Running";
            self.pods().await.iter().any(running)
        })
        .await;
    }

    pub(super) async fn pods(&self) -> Vec<Pod> {
        let params = ListParams::default();
        self.api::<Pod>().list(&params).await.unwrap().items
    }

    /// No Pod of a task runs or waits, and none will.
    pub(super) async fn leaves_nothing(self) {
        self.until(|| async {
            let failed = |job: &Job| json!(job.status).to_string().contains("\"Failed\"");
            let over = |pod: &Pod| matches!(phase(pod), "Failed" | "Succeeded");
            self.jobs().await.iter().all(failed) && self.pods().await.iter().all(over)
        })
        .await;
        self.finish().await;
    }
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// A task with these fields.
fn task(fields: &str) -> String {
    config(&format!(
        "      - {{name: t, image: BUSYBOX, cmd: [sleep, '600'], {fields}}}\n"
    ))
}

/// Of an image that is not on the node.
fn of_image(image: &str, fields: &str) -> String {
    config(&format!(
        "      - {{name: t, image: '{image}', {fields}}}\n"
    ))
}

pub(super) fn assert_parts(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part}\n{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_image_that_must_not_be_pulled() {
    let config = of_image("localhost/missing:1", "imagePullPolicy: Never");
    let cluster = RealCluster::start("never-pulled", &config).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: ErrImageNeverPull",
            "choose another `imagePullPolicy`",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_image_whose_registry_is_not_there() {
    let mut cluster = RealCluster::new("not-pulled").await;
    let config = of_image("localhost:1/missing:1", "imagePullPolicy: IfNotPresent");
    let grace = "--image-pull-grace-seconds=5".to_owned();
    cluster.serves(&config, &[grace]).await;
    let message = cluster.tells().await;
    assert_parts(&message, &["connection refused", "`imagePullSecrets`"]);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_image_with_a_name_that_is_none() {
    let cluster = RealCluster::start("bad-name", &of_image("localhost/UPPER/case:1", "")).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &["invalid reference format", "correct the name of the image"],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_secret_that_is_not_there() {
    let env = "env: [{name: none, valueFrom: secret}]";
    let cluster = RealCluster::start("no-secret", &task(env)).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: CreateContainerConfigError",
            "secret \"none\" not found",
            "`env`",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_volume_that_is_not_there() {
    let volume =
        "volumes: [{name: v, configMap: {name: none}}], volumeMounts: [{name: v, mountPath: /v}]";
    let cluster = RealCluster::start("no-volume", &task(volume)).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: FailedMount",
            "configmap \"none\" not found",
            "correct `volumes`",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_account_that_is_not_there() {
    let cluster = RealCluster::start("no-account", &task("serviceAccount: none")).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: FailedCreate",
            "serviceaccount \"none\" not found",
            "`serviceAccount`",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_quota_without_room() {
    let cluster = RealCluster::start("quota", &task("")).await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    cluster.create::<ResourceQuota>(quota).await;
    cluster
        .until(|| async {
            let quota = cluster.api::<ResourceQuota>().get("none").await.unwrap();
            quota.status.is_some_and(|status| status.hard.is_some())
        })
        .await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: FailedCreate",
            "exceeded quota: none",
            "raise the quota",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_first_job_without_room_in_its_quota() {
    let full = RealCluster::new("no-jobs").await;
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}});
    full.create::<ResourceQuota>(quota).await;
    full.until(|| async {
        let quota = full.api::<ResourceQuota>().get("none").await.unwrap();
        quota.status.is_some_and(|status| status.hard.is_some())
    })
    .await;
    let mut cluster = RealCluster::new("jobs").await;
    let tasks = format!(
        "      - {{name: first, image: BUSYBOX, namespace: {}, onFailure: warn}}
      - {{name: second, image: BUSYBOX, cmd: ['true']}}\n",
        full.namespace
    );
    let allowed = format!("--allowed-namespaces={}", full.namespace);
    cluster.serves(&config(&tasks), &[allowed]).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["result"], "warning");
    let parts = [
        "Task 'first' failed: its Job was not created. Reason: Forbidden, ",
        "exceeded quota: none",
        "raise the quota",
        "Task 'second' finished successfully!",
    ];
    assert_parts(message(&finished), &parts);
    cluster.finish().await;
    full.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_pod_that_the_namespace_does_not_admit() {
    let root = "securityContext: {runAsUser: 0, runAsNonRoot: false}";
    let cluster = RealCluster::start("not-admitted", &task(root)).await;
    cluster
        .patches_namespace(json!({"pod-security.kubernetes.io/enforce": "restricted"}))
        .await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: FailedCreate",
            "violates PodSecurity",
            "`securityContext`",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_is_not_there() {
    let mut cluster = RealCluster::new("no-node").await;
    let config = task("nodeSelector: {example.com/none: none}");
    let grace = "--unschedulable-grace-seconds=2".to_owned();
    cluster.serves(&config, &[grace]).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "Reason: Unschedulable",
            "nodes are available",
            "`nodeSelector`",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_init_container_that_fails() {
    let cluster = RealCluster::start("bad-init", &task("files: [not/there]")).await;
    let message = cluster.tells().await;
    let parts = [
        "its init container `init-JOB-000-001`",
        "exit code 1)",
        "`not/there`",
    ];
    assert_parts(&message, &parts);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_program_that_is_not_there() {
    let cluster = RealCluster::start(
        "no-program",
        &config("      - {name: t, image: BUSYBOX, cmd: [nope]}\n"),
    )
    .await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "could not be started (StartError, exit code 128)",
            "executable file not found",
        ],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn more_memory_than_the_limit() {
    let greedy = "      - {name: t, image: BUSYBOX, cmd: [tail, /dev/zero], resources: {limits: {memory: 16Mi}}}\n";
    let cluster = RealCluster::start("memory", &config(greedy)).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &[
            "its limit of 16Mi (OOMKilled, exit code 137)",
            "`resources.limits.memory`",
        ],
    );
    cluster.leaves_nothing().await;
}

/// The kubelet looks at the use of disks about once a minute.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn more_files_than_fit() {
    let large = "      - {name: t, image: BUSYBOX, emptyDirSizeLimit: 1Mi,
         cmd: [sh, -c, 'dd if=/dev/zero of=/keptn/x bs=1M count=8; sleep 600']}\n";
    let cluster = RealCluster::start("files", &config(large)).await;
    let message = cluster.tells().await;
    assert_parts(
        &message,
        &["(Evicted: Usage of EmptyDir volume", "`emptyDirSizeLimit`"],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_pod_that_somebody_deletes() {
    let config =
        config("      - {name: t, image: BUSYBOX, cmd: [sh, -c, 'echo so far; sleep 600']}\n");
    let cluster = RealCluster::start("deleted", &config).await;
    cluster.works().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let pod = cluster.pods().await.remove(0).name_any();
    let begin = Instant::now();
    let params = DeleteParams::default();
    cluster.api::<Pod>().delete(&pod, &params).await.unwrap();
    let finished = cluster.answered(2).await[1]["data"].clone();
    let message = cluster.failed(&finished, begin);
    assert_parts(
        &message,
        &["its Pod was deleted before the task ended", ":⏎so far⏎"],
    );
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_job_that_somebody_suspends() {
    let cluster = RealCluster::start("suspended", &task("")).await;
    cluster.works().await;
    let job = cluster.jobs().await.remove(0).name_any();
    let begin = Instant::now();
    let patch = Patch::Merge(json!({"spec": {"suspend": true}}));
    let params = PatchParams::default();
    cluster
        .api::<Job>()
        .patch(&job, &params, &patch)
        .await
        .unwrap();
    let finished = cluster.answered(2).await[1]["data"].clone();
    let message = cluster.failed(&finished, begin);
    assert_parts(&message, &["the Job was suspended while its task ran"]);
    cluster.leaves_nothing().await;
}

/// Several tasks, each of which fails; the message has them all.
fn tasks(fields: &[&str]) -> String {
    let task = |(number, fields): (usize, &&str)| {
        format!(
            "      - {{name: t{number}, image: BUSYBOX, cmd: [sleep, '600'], always: true, {fields}}}\n"
        )
    };
    config(&fields.iter().enumerate().map(task).collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn whatever_else_a_container_misses() {
    let mut cluster = RealCluster::new("missing").await;
    let secret = json!({"metadata": {"name": "there"}, "stringData": {"k": "v"}});
    cluster.create::<Secret>(secret).await;
    let config = tasks(&[
        "env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: k}}}]",
        "env: [{name: A, valueFrom: {secretKeyRef: {name: there, key: other}}}]",
        "envFrom: [{secretRef: {name: none}}]",
        "envFrom: [{configMapRef: {name: none}}]",
        "securityContext: {runAsUser: 0}",
        "volumes: [{name: v, secret: {secretName: none}}], volumeMounts: [{name: v, mountPath: /v}]",
        "volumes: [{name: v, secret: {secretName: there, items: [{key: other, path: p}]}}],
         volumeMounts: [{name: v, mountPath: /v}]",
    ]);
    cluster.serves(&config, &[]).await;
    let message = cluster.tells().await;
    let parts = [
        "cannot start: configmap \"none\" not found; create what is missing",
        "cannot start: couldn't find key other in Secret",
        "cannot start: secret \"none\" not found; create what is missing",
        "cannot start: container's runAsUser breaks non-root policy",
        "volume \"v\" : secret \"none\" not found; create what is missing",
        "references non-existent secret key: other",
    ];
    assert_parts(&message, &parts);
    assert_eq!(message.matches("configmap \"none\" not found").count(), 2);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_claim_that_is_not_there() {
    let volume = "volumes: [{name: v, persistentVolumeClaim: {claimName: none}}],
         volumeMounts: [{name: v, mountPath: /v}]";
    let cluster = RealCluster::start("no-claim", &task(volume)).await;
    let message = cluster.tells().await;
    let parts = [
        "Reason: Unschedulable",
        "persistentvolumeclaim \"none\" not found",
        "correct `volumes`",
    ];
    assert_parts(&message, &parts);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn more_than_the_namespace_allows() {
    let mut cluster = RealCluster::new("limits").await;
    let limit = json!({"metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "10Mi"}}]}});
    cluster.create::<LimitRange>(limit).await;
    let large = task("resources: {limits: {memory: 20Mi}}");
    cluster.serves(&large, &[]).await;
    let message = cluster.tells().await;
    let parts = [
        "Reason: FailedCreate",
        "maximum memory usage per Container is 10Mi",
        "correct `resources`",
    ];
    assert_parts(&message, &parts);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn programs_that_cannot_start() {
    let config = tasks(&[
        "",
        "workingDir: /etc/passwd",
        "resources: {limits: {memory: 300Ki}}",
    ])
    .replacen("[sleep, '600']", "[/nope]", 1);
    let cluster = RealCluster::start("programs", &config).await;
    let message = cluster.tells().await;
    let parts = [
        "could not be started (StartError, exit code 128); check `image`, `cmd`",
        "exec: \"/nope\": stat /nope: no such file",
        "mkdir /etc/passwd: not a directory",
        "memory limit too low",
        "raise `resources.limits.memory`",
    ];
    assert_parts(&message, &parts);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_pod_that_somebody_evicts() {
    let cluster = RealCluster::start("evicted", &task("")).await;
    cluster.works().await;
    let pod = cluster.pods().await.remove(0).name_any();
    let begin = Instant::now();
    let params = EvictParams::default();
    cluster.api::<Pod>().evict(&pod, &params).await.unwrap();
    let finished = cluster.answered(2).await[1]["data"].clone();
    let message = cluster.failed(&finished, begin);
    let evicted = "its Pod was evicted by somebody, as before maintenance of its node \
        (EvictionByEvictionAPI: Eviction API: evicting)";
    assert_parts(&message, &[evicted]);
    cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_job_that_somebody_deletes_while_it_works_or_waits() {
    let waits = task("nodeSelector: {example.com/none: none}");
    for (name, config) in [("job-deleted", task("")), ("job-deleted-before", waits)] {
        let cluster = RealCluster::start(name, &config).await;
        let (address, _, _) = cluster.service.as_ref().expect("the service was started");
        assert_eq!(post(*address, &triggered("event-1")).await.0, 202);
        cluster
            .until(|| async { !cluster.pods().await.is_empty() })
            .await;
        if name == "job-deleted" {
            cluster.until(|| cluster.runs_a_container(0)).await;
        }
        let job = cluster.jobs().await.remove(0).name_any();
        let begin = Instant::now();
        let params = DeleteParams::background();
        cluster.api::<Job>().delete(&job, &params).await.unwrap();
        let finished = cluster.answered(2).await[1]["data"].clone();
        let message = cluster.failed(&finished, begin);
        assert_parts(
            &message,
            &["was deleted before it ended, by somebody other than this service"],
        );
        cluster.leaves_nothing().await;
    }
}
