//! What a task can have beyond the original, and the restrictions of a namespace, where they are real.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{RealCluster, message, with_images};
use crate::tests::{config, triggered};

impl RealCluster {
    pub(super) async fn patches_namespace(&self, labels: Value) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        let params = PatchParams::default();
        namespaces
            .patch(&self.namespace, &params, &patch)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_defaults_run_where_the_restricted_standard_is_enforced() {
    let mut cluster = RealCluster::new("restricted").await;
    cluster
        .patches_namespace(json!({"pod-security.kubernetes.io/enforce": "restricted"}))
        .await;
    let tasks = "      - {name: plain, image: BUSYBOX, cmd: [id, -u]}
      - {name: files, image: BUSYBOX, files: [a.txt], cmd: [cat, /keptn/a.txt]}
      - {name: volumes, image: BUSYBOX, cmd: [sh, -c, 'touch /scratch/x && ls /scratch'],
         volumes: [{name: scratch, emptyDir: {sizeLimit: 1Mi}}], volumeMounts: [{name: scratch, mountPath: /scratch}]}\n";
    cluster.keptn.has("dev/svc", "a.txt", "from a file\n");
    cluster.serves(&config(tasks), &[]).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    for printed in [":\n1000\n", ":\nfrom a file\n", ":\nx\n"] {
        assert!(
            message(&finished).contains(printed),
            "{printed}\n{finished:#}"
        );
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_task_is_started_again_and_its_failure_is_a_warning() {
    let tasks = "      - {name: flaky, image: BUSYBOX, retries: 1, onFailure: warn, cmd: [sh, -c, 'echo again; exit 3']}
      - {name: next, image: BUSYBOX, cmd: [echo, went on]}\n";
    let cluster = RealCluster::start("retries", &config(tasks)).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(
        (&finished["status"], &finished["result"]),
        (&json!("succeeded"), &json!("warning"))
    );
    for part in ["(2 attempts)", "ExitCode: 3):\nagain\n", ":\nwent on\n"] {
        assert!(message(&finished).contains(part), "{part}\n{finished:#}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_result_arrives_and_clean_up_runs_after_a_failure() {
    let tasks = r#"      - {name: measure, image: BUSYBOX, files: [a.txt], resultFile: /keptn/.result.json,
         cmd: [sh, -c, 'echo "{\"score\": 7}" > /keptn/.result.json']}
      - {name: break, image: BUSYBOX, cmd: [sh, -c, 'exit 1']}
      - {name: never, image: BUSYBOX, cmd: [echo, never]}
      - {name: clean, image: BUSYBOX, always: true, cmd: [echo, cleaned]}
"#;
    let mut cluster = RealCluster::new("results").await;
    cluster.keptn.has("dev/svc", "a.txt", "x");
    cluster.serves(&config(tasks), &[]).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["result"], "fail");
    assert_eq!(finished["test"]["score"], 7, "{finished:#}");
    assert!(finished["test"]["start"].is_string());
    assert!(message(&finished).contains(":\ncleaned\n"), "{finished:#}");
    let jobs = cluster.jobs().await;
    let names: Vec<&str> = jobs
        .iter()
        .map(|job| job.labels()["keptn.sh/jes-task"].as_str())
        .collect();
    assert_eq!(names, ["measure", "break", "clean"]);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn parts_of_a_pod_are_as_the_task_says() {
    let tasks = "      - name: parts
        image: BUSYBOX
        cmd: [sh, -c, 'echo $PASSWORD,$S_pw,$COLOUR,$NONE.; cat /settings/colour /secret/pw /projected/pw; ls /keptn']
        files: [{path: shared, level: stage}, 'scripts/*.sh', {path: '*.json', level: project}]
        emptyDirSizeLimit: 5Mi
        env:
          - {name: PASSWORD, valueFrom: {secretKeyRef: {name: creds, key: pw}}}
          - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
          - {name: NONE, valueFrom: {secretKeyRef: {name: missing, key: x, optional: true}}}
        envFrom: [{prefix: S_, secretRef: {name: creds}}, {configMapRef: {name: gone, optional: true}}]
        imagePullSecrets: [{name: registry}]
        nodeSelector: {kubernetes.io/os: linux}
        tolerations: [{key: example.com/taint, operator: Exists, effect: NoSchedule}]
        affinity:
          nodeAffinity:
            requiredDuringSchedulingIgnoredDuringExecution:
              nodeSelectorTerms:
                - matchExpressions: [{key: kubernetes.io/os, operator: In, values: [linux]}]
        volumes:
          - {name: settings, configMap: {name: settings}}
          - {name: secret, secret: {secretName: creds}}
          - {name: both, projected: {sources: [{secret: {name: creds}}]}}
        volumeMounts:
          - {name: settings, mountPath: /settings, readOnly: true}
          - {name: secret, mountPath: /secret}
          - {name: both, mountPath: /projected}\n";
    let mut cluster = RealCluster::new("parts").await;
    let secret = json!({"metadata": {"name": "creds"}, "stringData": {"pw": "x"}});
    cluster.create::<Secret>(secret).await;
    let map = json!({"metadata": {"name": "settings"}, "data": {"colour": "blue"}});
    cluster.create::<ConfigMap>(map).await;
    cluster.keptn.has("dev", "shared/of-stage.txt", "");
    cluster.keptn.has("dev/svc", "scripts/a.sh", "");
    cluster.keptn.has("", "of-project.json", "");
    cluster.serves(&config(tasks), &[]).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    let printed = ":\nx,x,blue,.\nbluexxof-project.json\nscripts\nshared\n";
    assert!(message(&finished).contains(printed), "{finished:#}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_run_goes_on_in_another_namespace() {
    let mut cluster = RealCluster::new("home").await;
    let other = format!("{}-away", cluster.namespace);
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": other}})).unwrap();
    let params = PostParams::default();
    namespaces.create(&params, &object).await.unwrap();
    let tasks = format!(
        "      - {{name: here, image: BUSYBOX, cmd: [echo, at home]}}
      - {{name: there, image: BUSYBOX, namespace: {other}, cmd: [echo, away]}}\n"
    );
    let allowed = format!("--allowed-namespaces={other}");
    cluster.serves(&config(&tasks), &[allowed]).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    for printed in [":\nat home\n", ":\naway\n"] {
        assert!(message(&finished).contains(printed), "{finished:#}");
    }
    let away: Api<Job> = Api::namespaced(cluster.client.clone(), &other);
    let reported = async {
        let is_reported = |job: &Job| job.labels().contains_key("keptn.sh/jes-reported");
        while !away
            .list(&ListParams::default())
            .await
            .unwrap()
            .iter()
            .all(is_reported)
        {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, reported)
        .await
        .unwrap();
    namespaces
        .delete(&other, &DeleteParams::default())
        .await
        .unwrap();
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_services_own_account_and_secrets_are_refused_in_the_cluster() {
    let cluster = RealCluster::new("own").await;
    let config = "apiVersion: v2
actions:
  - name: account
    events: [{name: sh.keptn.event.test.triggered}]
    tasks: [{name: account, image: BUSYBOX, serviceAccount: job-executor-service}]
  - name: secret
    events: [{name: sh.keptn.event.test.triggered}]
    tasks:
      - {name: token, image: BUSYBOX, envFrom: [{secretRef: {name: job-service-keptn-secrets}}]}\n";
    cluster
        .keptn
        .has("dev/svc", "job/config.yaml", with_images(config));
    cluster.deploys(1).await;
    cluster.sends(&triggered("event-1")).await;
    let finished = cluster.answered(2).await[1]["data"].clone();
    for refused in [
        "service account `job-executor-service` is not allowed, it is the one of this service",
        "secret \"job-service-keptn-secrets\" is not allowed",
    ] {
        assert!(message(&finished).contains(refused), "{finished:#}");
    }
    assert!(cluster.jobs().await.is_empty());
    cluster.finish().await;
}
