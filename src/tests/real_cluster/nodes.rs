//! Nodes that come and go. They are there by name only, no kubelet answers for them: what the cluster's own parts
//! say of a Pod whose node is lost or whose room is taken is real all the same.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reasons::assert_parts;
use super::{RealCluster, post};
use crate::tests::{config, triggered};

const LABEL: &str = "example.com/ghost";

/// A node with room for one task of this test, and for no other Pod.
struct Ghost {
    cluster: RealCluster,
    nodes: Api<Node>,
    taint: Value,
}

impl Ghost {
    /// With a task on it.
    async fn with_a_task(name: &str) -> Self {
        let mut cluster = RealCluster::new(name).await;
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let node = &cluster.namespace;
        let taint = json!({"key": LABEL, "value": node, "effect": "NoSchedule"});
        let object = json!({"metadata": {"name": node, "labels": {LABEL: node}}, "spec": {"taints": [taint]}});
        let object = serde_json::from_value(object).unwrap();
        nodes.create(&PostParams::default(), &object).await.unwrap();
        let room = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "Ghost", "message": "by name only",
            "lastHeartbeatTime": jiff::Timestamp::now().to_string(),
            "lastTransitionTime": jiff::Timestamp::now().to_string()});
        let status =
            json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(status));
        nodes.patch_status(node, &params, &patch).await.unwrap();
        let task = format!(
            "      - {{name: t, image: BUSYBOX, nodeSelector: {{{LABEL}: {node}}}, resources: {{requests: {{cpu: '1'}}}},
         tolerations: [{{key: {LABEL}, operator: Exists}}]}}\n"
        );
        cluster.serves(&config(&task), &[]).await;
        let (address, _, _) = cluster.service.as_ref().expect("the service was started");
        assert_eq!(post(*address, &triggered("event-1")).await.0, 202);
        let is_there = |pod: &Pod| pod.spec.as_ref().unwrap().node_name.is_some();
        cluster
            .until(|| async { cluster.pods().await.iter().any(is_there) })
            .await;
        Self {
            cluster,
            nodes,
            taint,
        }
    }

    async fn tells(&self, since: Instant) -> String {
        let finished = self.cluster.answered(2).await[1]["data"].clone();
        self.cluster.failed(&finished, since)
    }

    async fn goes(&self) {
        let params = DeleteParams::default();
        let name = &self.cluster.namespace;
        self.nodes.delete(name, &params).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_is_tainted() {
    let ghost = Ghost::with_a_task("tainted").await;
    let begin = Instant::now();
    let lost = json!({"key": "example.com/lost", "effect": "NoExecute"});
    let patch = Patch::Merge(json!({"spec": {"taints": [ghost.taint, lost]}}));
    let (params, node) = (PatchParams::default(), &ghost.cluster.namespace);
    ghost.nodes.patch(node, &params, &patch).await.unwrap();
    let message = ghost.tells(begin).await;
    assert_parts(
        &message,
        &[
            "its node was lost, or is being emptied (DeletionByTaintManager: ",
            "`tolerations`",
        ],
    );
    ghost.goes().await;
    ghost.cluster.leaves_nothing().await;
}

/// The cluster gives a node a minute to come back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_goes() {
    let ghost = Ghost::with_a_task("gone").await;
    let begin = Instant::now();
    ghost.goes().await;
    let message = ghost.tells(begin).await;
    assert_parts(
        &message,
        &["its node is gone (DeletionByPodGC: PodGC: node no longer exists)"],
    );
    ghost.cluster.leaves_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_pod_of_a_higher_priority() {
    let ghost = Ghost::with_a_task("preempted").await;
    let name = ghost.cluster.namespace.clone();
    let classes: Api<PriorityClass> = Api::all(ghost.cluster.client.clone());
    let class = json!({"metadata": {"name": name}, "value": 1000});
    let class = serde_json::from_value(class).unwrap();
    classes
        .create(&PostParams::default(), &class)
        .await
        .unwrap();
    let begin = Instant::now();
    let more_important = json!({"metadata": {"name": "more-important"}, "spec": {
        "priorityClassName": name, "nodeSelector": {LABEL: name}, "tolerations": [{"key": LABEL, "operator": "Exists"}],
        "containers": [{"name": "c", "image": "localhost/busybox:1", "resources": {"requests": {"cpu": "1"}}}]}});
    ghost.cluster.create::<Pod>(more_important).await;
    let message = ghost.tells(begin).await;
    assert_parts(
        &message,
        &["its Pod had to make room for one of a higher priority (PreemptionByScheduler: "],
    );
    let at_once = DeleteParams::default().grace_period(0);
    let pods = ghost.cluster.api::<Pod>();
    pods.delete("more-important", &at_once).await.unwrap();
    classes.delete(&name, &at_once).await.unwrap();
    ghost.goes().await;
    ghost.cluster.leaves_nothing().await;
}
