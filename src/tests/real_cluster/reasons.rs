//! What a node and an API server say of tasks that cannot start, or do not end by themselves.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{RealCluster, message, post};
use crate::tests::{config, shortened, triggered};

impl RealCluster {
    /// Runs a task that fails; gives its message on one line.
    async fn tells(&self) -> String {
        let begin = Instant::now();
        let finished = self.runs(&triggered("event-1")).await;
        self.failed(&finished, begin)
    }

    fn failed(&self, finished: &Value, since: Instant) -> String {
        assert_eq!(finished["status"], "errored", "{finished:#}");
        eprintln!(
            "{}: told {:.1} s after its event or cause",
            self.namespace,
            since.elapsed().as_secs_f32()
        );
        shortened(message(finished))
            .replace(&self.namespace, "NAMESPACE")
            .replace('\n', "⏎")
    }

    /// Begins a run whose task works.
    async fn works(&self) {
        let (address, _, _) = self.service.as_ref().expect("the service was started");
        assert_eq!(post(*address, &triggered("event-1")).await.0, 202);
        self.until(|| async {
            let running = |pod: &Pod| phase(pod) == "Running";
            self.pods().await.iter().any(running)
        })
        .await;
    }

    async fn pods(&self) -> Vec<Pod> {
        let params = ListParams::default();
        self.api::<Pod>().list(&params).await.unwrap().items
    }

    /// No Pod of a task runs or waits, and none will.
    async fn leaves_nothing(self) {
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

fn assert_parts(message: &str, parts: &[&str]) {
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
