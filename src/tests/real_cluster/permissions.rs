//! What the service's account may do, and what not, as the API server tells; and that it takes the policies,
//! which only some networks enforce.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use super::{RealCluster, message};
use crate::tests::deploy::documents;
use crate::tests::{config, triggered};

impl RealCluster {
    /// Whether a service account of this namespace may do `verb resource`, such as `get pods/log` or `get
    /// leases.coordination.k8s.io NAME`, in a namespace; `*` is any, an empty namespace all of them.
    pub(super) async fn allows(&self, account: &str, action: &str, namespace: &str) -> bool {
        let mut words = action.split(' ');
        let (verb, resource) = (words.next().unwrap(), words.next().unwrap());
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let review = json!({
            "metadata": {},
            "spec": {
                "user": format!("system:serviceaccount:{}:{account}", self.namespace),
                "groups": [
                    "system:authenticated", "system:serviceaccounts",
                    format!("system:serviceaccounts:{}", self.namespace),
                ],
                "resourceAttributes": {
                    "verb": verb, "group": group, "resource": resource, "subresource": subresource,
                    "name": words.next().unwrap_or_default(), "namespace": namespace,
                },
            },
        });
        let review = serde_json::from_value(review).unwrap();
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = reviews.create(&PostParams::default(), &review).await;
        review.unwrap().status.unwrap().allowed
    }
}

const ALLOWED: [&str; 16] = [
    "create jobs.batch",
    "get jobs.batch any",
    "list jobs.batch",
    "watch jobs.batch",
    "patch jobs.batch any",
    "get pods any",
    "list pods",
    "watch pods",
    "get pods/log any",
    "list events",
    "watch events",
    "create leases.coordination.k8s.io",
    "get leases.coordination.k8s.io job-executor-service",
    "list leases.coordination.k8s.io job-executor-service",
    "watch leases.coordination.k8s.io job-executor-service",
    "patch leases.coordination.k8s.io job-executor-service",
];

const DENIED: [&str; 41] = [
    // The kubelet gives Secrets to containers; nobody else has to read them.
    "get secrets job-service-keptn-secrets",
    "list secrets",
    "watch secrets",
    "create secrets",
    "get configmaps any",
    "list configmaps",
    // Whoever creates a Pod decides more than a Job's template is checked for.
    "create pods",
    "patch pods any",
    "update pods any",
    "create pods/exec any",
    "get pods/exec any",
    "create pods/attach any",
    "create pods/portforward any",
    "patch pods/ephemeralcontainers any",
    "create pods/eviction any",
    "update jobs.batch any",
    "patch jobs.batch/status any",
    "create events",
    "patch events any",
    "create cronjobs.batch",
    "create deployments.apps",
    "patch deployments.apps job-executor-service",
    "create serviceaccounts",
    "create serviceaccounts/token any",
    "impersonate serviceaccounts any",
    // Nor can it give itself what it has not.
    "get roles.rbac.authorization.k8s.io job-executor-service",
    "create roles.rbac.authorization.k8s.io",
    "patch roles.rbac.authorization.k8s.io job-executor-service",
    "create rolebindings.rbac.authorization.k8s.io",
    "escalate roles.rbac.authorization.k8s.io any",
    "bind roles.rbac.authorization.k8s.io any",
    "patch networkpolicies.networking.k8s.io any",
    "list leases.coordination.k8s.io",
    "get leases.coordination.k8s.io another",
    "patch leases.coordination.k8s.io another",
    "update leases.coordination.k8s.io job-executor-service",
    // Nothing that there is, and nothing that there may be.
    "delete jobs.batch any",
    "delete pods any",
    "delete leases.coordination.k8s.io job-executor-service",
    "delete *.*",
    "deletecollection *.*",
];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_account_of_the_service_may_do_what_it_does_and_nothing_else() {
    let cluster = RealCluster::new("permissions").await;
    cluster.deploys(0).await;
    let (service, jobs) = (
        "job-executor-service",
        "job-executor-service-default-job-account",
    );
    for action in ALLOWED {
        let own = &cluster.namespace;
        assert!(cluster.allows(service, action, own).await, "{action}");
        assert!(!cluster.allows(jobs, action, own).await, "a Job: {action}");
        for other in ["default", "kube-system", ""] {
            let allowed = cluster.allows(service, action, other).await;
            assert!(!allowed, "{action} in namespace `{other}`");
        }
    }
    for action in DENIED {
        for namespace in [&cluster.namespace, "kube-system", ""] {
            for account in [service, jobs] {
                let allowed = cluster.allows(account, action, namespace).await;
                assert!(!allowed, "{account}: {action} in namespace `{namespace}`");
            }
        }
    }
    for action in ["get nodes", "list namespaces", "create namespaces"] {
        assert!(!cluster.allows(service, action, "").await, "{action}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_policies_are_accepted() {
    let cluster = RealCluster::new("policies").await;
    let manifest = include_str!("../../../deploy/network-policies.yaml");
    let namespace = format!("namespace: {}", cluster.namespace);
    for object in documents(&manifest.replace("namespace: keptn", &namespace)) {
        cluster.applies(object).await;
    }
    let policies = cluster.api::<NetworkPolicy>();
    let policies = policies.list(&ListParams::default()).await.unwrap();
    let names: Vec<String> = policies.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["job-executor-service", "job-executor-service-jobs"]);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_additional_namespace_admits_jobs_and_the_service_to_them() {
    let tasks = "      - {name: hello, image: BUSYBOX, serviceAccount: job-executor-service-default-job-account,
         files: [greeting], cmd: [cat, /keptn/greeting]}\n";
    let home = RealCluster::new("home").await;
    home.deploys(0).await;
    let cluster = RealCluster::start("jobs", &config(tasks)).await;
    cluster.keptn.has("dev/svc", "greeting", "Hello\n");
    let manifest = include_str!("../../../deploy/job-namespace.yaml")
        .replace("keptn-jobs", &cluster.namespace)
        .replace(
            "namespace: keptn}",
            &format!("namespace: {}}}", home.namespace),
        );
    for object in documents(&manifest) {
        if object["kind"] == "Namespace" {
            let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
            let labels =
                Patch::Merge(json!({"metadata": {"labels": object["metadata"]["labels"]}}));
            let patched = namespaces
                .patch(&cluster.namespace, &PatchParams::default(), &labels)
                .await;
            patched.unwrap();
        } else {
            cluster.applies(object).await;
        }
    }
    let service = "job-executor-service";
    for action in ALLOWED {
        let allowed = home.allows(service, action, &cluster.namespace).await;
        assert_eq!(allowed, !action.contains("leases"), "{action}");
    }
    for action in DENIED {
        let allowed = home.allows(service, action, &cluster.namespace).await;
        assert!(!allowed, "{action}");
    }
    // That the namespace is a restricted one does not stop Jobs.
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    assert!(message(&finished).contains(":\nHello\n"), "{finished:#}");
    cluster.finish().await;
    home.finish().await;
}
