//! Nodes that come and go. They are there by name only, no kubelet answers for them: what the cluster's own parts
//! say of a Pod whose node is lost or whose room is taken is real all the same.

use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reasons::assert_parts;
use super::{RealCluster, post};
use crate::tests::{config, triggered};

const LABEL: &str = "example.com/ghost";

/// What is told of a task whose node is to lose its Pods.
const EMPTIED: [&str; 2] = [
    "its node was lost, or is being emptied (DeletionByTaintManager: ",
    "`tolerations`",
];

/// A node with room for one task of this test, and for no other Pod.
struct Ghost {
    cluster: RealCluster,
    nodes: Api<Node>,
    taint: Value,
}

impl Ghost {
    /// With a task on it.
    async fn with_a_task(name: &str) -> Self {
        let tolerates = format!("tolerations: [{{key: {LABEL}, operator: Exists}}]");
        Self::with(name, &tolerates).await
    }

    /// With a task that has these fields, too.
    async fn with(name: &str, fields: &str) -> Self {
        let mut cluster = RealCluster::new(name).await;
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let node = &cluster.namespace;
        let taint = json!({"key": LABEL, "value": node, "effect": "NoSchedule"});
        let object = json!({"metadata": {"name": node, "labels": {LABEL: node}}, "spec": {"taints": [taint]}});
        let object = serde_json::from_value(object).unwrap();
        nodes.create(&PostParams::default(), &object).await.unwrap();
        let room = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "Ghost", "message": "by name only",
            "lastHeartbeatTime": now(), "lastTransitionTime": now()});
        let status =
            json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(status));
        nodes.patch_status(node, &params, &patch).await.unwrap();
        let task = format!(
            "      - {{name: t, image: BUSYBOX, nodeSelector: {{{LABEL}: {node}}}, resources: {{requests: {{cpu: '1'}}}},
         {fields}}}\n"
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

    /// Its Pod as a kubelet would show it while its task works.
    async fn works(&self) {
        let begun = json!({"running": {"startedAt": now()}});
        self.shows(
            &begun,
            &json!({"phase": "Running"}),
            &json!({"type": "Ready", "status": "True"}),
        )
        .await;
    }

    async fn shows(&self, container: &Value, status: &Value, condition: &Value) {
        let pod = self.cluster.pods().await.remove(0);
        let name = pod.name_any();
        let spec = &pod.spec.as_ref().unwrap().containers[0];
        let container = json!({"name": spec.name, "image": spec.image, "imageID": "", "restartCount": 0,
            "ready": !container["running"].is_null(), "state": container});
        let mut condition = condition.clone();
        condition["lastTransitionTime"] = json!(now());
        let mut status = status.clone();
        status["containerStatuses"] = json!([container]);
        status["conditions"] = json!([condition]);
        // Which leaves the other conditions as they are.
        let patch = Patch::Strategic(json!({"status": status}));
        let pods = self.cluster.api::<Pod>();
        let params = PatchParams::default();
        pods.patch_status(&name, &params, &patch).await.unwrap();
    }

    /// Nobody has heard of it for longer than the cluster waits for a node.
    async fn is_missed(&self) {
        self.cluster
            .until(|| async {
                let node = self.nodes.get(&self.cluster.namespace).await.unwrap();
                let conditions = node.status.unwrap().conditions.unwrap_or_default();
                conditions
                    .iter()
                    .any(|of| of.type_ == "Ready" && of.status == "Unknown")
            })
            .await;
    }

    async fn tells(&self, since: Instant) -> String {
        let finished = self.cluster.answered(2).await[1]["data"].clone();
        self.cluster.failed(&finished, since)
    }

    /// The run ends with a message of these parts, and nothing is left.
    async fn ends(self, since: Instant, parts: &[&str]) {
        assert_parts(&self.tells(since).await, parts);
        self.goes().await;
        self.cluster.leaves_nothing().await;
    }

    async fn goes(&self) {
        let params = DeleteParams::default();
        let name = &self.cluster.namespace;
        self.nodes.delete(name, &params).await.unwrap();
    }
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
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
    ghost.ends(begin, &EMPTIED).await;
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

/// The cluster misses a node after 50 seconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_falls_silent_until_the_time_limit() {
    let fields = format!("tolerations: [{{key: {LABEL}, operator: Exists}}], maxPollDuration: 75");
    let ghost = Ghost::with("silent", &fields).await;
    ghost.works().await;
    ghost.is_missed().await;
    let parts = [
        "job deadline exceeded (75 s;",
        "its node has not answered since 20",
        "so that nobody knows what became of the task; send the event again",
    ];
    ghost.ends(Instant::now(), &parts).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_falls_silent_for_longer_than_the_task_bears() {
    let fields = format!(
        "tolerations: [{{key: {LABEL}, operator: Exists}},
           {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 1}}]"
    );
    let ghost = Ghost::with("given-up", &fields).await;
    ghost.works().await;
    ghost.is_missed().await;
    ghost.ends(Instant::now(), &EMPTIED).await;
}

/// As a kubelet leaves a Pod whose node shuts down, here one whose program ended well when it was told to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_node_that_shuts_down() {
    let ghost = Ghost::with_a_task("shut-down").await;
    ghost.works().await;
    let begin = Instant::now();
    let message = "Pod was terminated in response to imminent node shutdown.";
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}});
    let status = json!({"phase": "Failed", "reason": "Terminated", "message": message});
    let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet",
        "message": message});
    ghost.shows(&ended, &status, &condition).await;
    let told = "its Pod was ended by its node: Terminated: Pod was terminated in response to imminent node \
                shutdown; send the event again";
    ghost.ends(begin, &[told]).await;
}
