//! A namespace with what deploy/service.yaml gives the service there, and Jobs as the service makes them.

use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::figures::PATIENCE;
use crate::proxy::Proxy;

const ACCOUNT: &str = "job-executor-service";
/// Label of namespaces: the process that made them.
const PROCESS: &str = "bench.example.com/process";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Requests under way at once, where there are thousands.
pub(crate) const AT_ONCE: usize = 64;

/// The objects of a namespace leave some time after it was deleted.
const GONE_WITHIN: Duration = Duration::from_secs(240);

pub(crate) struct Stage {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// By which Pods reach this machine.
    pub(crate) host: String,
    files: TempDir,
}

pub(crate) fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Without retries, as the service has it.
pub(crate) async fn client() -> anyhow::Result<Client> {
    let config = kube::Config::infer().await;
    client_of(config.context("KUBECONFIG names no cluster")?)
}

fn client_of(mut config: kube::Config) -> anyhow::Result<Client> {
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

impl Stage {
    /// A namespace of its own, in which the service's account has its Role.
    pub(crate) async fn new(name: &str) -> anyhow::Result<Self> {
        let client = client().await?;
        let namespace = format!("bench-{name}-{}", std::process::id());
        let labels = json!({PROCESS: std::process::id().to_string()});
        let object = json!({"metadata": {"name": namespace, "labels": labels}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let object = serde_json::from_value(object)?;
        namespaces.create(&PostParams::default(), &object).await?;
        let host = match std::env::var("E2E_HOST") {
            Ok(host) => host,
            Err(_) => first_node(&client).await?,
        };
        let files = tempfile::tempdir()?;
        let stage = Self {
            client,
            namespace,
            host,
            files,
        };
        stage.has_accounts().await?;
        Ok(stage)
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn has_accounts(&self) -> anyhow::Result<()> {
        let manifest = include_str!("../../deploy/service.yaml");
        let manifest = manifest.replace(
            "namespace: keptn",
            &format!("namespace: {}", self.namespace),
        );
        for document in serde_yaml::Deserializer::from_str(&manifest) {
            let object = Value::deserialize(document)?;
            match object["kind"].as_str() {
                Some("ServiceAccount") => self.create::<ServiceAccount>(object).await?,
                Some("Role") => self.create::<Role>(object).await?,
                Some("RoleBinding") => self.create::<RoleBinding>(object).await?,
                _ => {}
            }
        }
        // Pods of Jobs need the namespace's own account.
        let accounts = self.api::<ServiceAccount>();
        let default = async {
            while accounts.get_opt("default").await?.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, default).await?
    }

    async fn create<K>(&self, object: Value) -> anyhow::Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        let object: K = serde_json::from_value(object)?;
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    /// A kubeconfig of the service's own account.
    pub(crate) async fn kubeconfig(&self) -> anyhow::Result<String> {
        let config = Kubeconfig::read()?;
        let current = config.current_context.as_deref().unwrap_or_default();
        let context = config
            .contexts
            .iter()
            .find(|context| context.name == current);
        let context = context.and_then(|context| context.context.as_ref());
        let name = &context
            .context("the kubeconfig has no current context")?
            .cluster;
        let cluster = config.clusters.iter().find(|cluster| cluster.name == *name);
        let cluster = cluster.and_then(|cluster| cluster.cluster.as_ref());
        let cluster = json!(cluster.context("the kubeconfig's context has no cluster")?);
        let request = serde_json::from_value::<TokenRequest>(
            json!({"spec": {"audiences": [], "expirationSeconds": 7200}}),
        )?;
        let token = self
            .api::<ServiceAccount>()
            .create_token_request(ACCOUNT, &PostParams::default(), &request)
            .await?;
        let token = token.status.context("no token")?.token;
        self.write_kubeconfig("kubeconfig", &cluster, &json!({"token": token}))
    }

    /// Jobs as whoever has this kubeconfig makes them.
    pub(crate) async fn jobs_by(&self, kubeconfig: &str) -> anyhow::Result<Api<Job>> {
        let options = KubeConfigOptions::default();
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        Ok(Api::namespaced(client_of(config)?, &self.namespace))
    }

    /// A kubeconfig by which the service takes the way of a proxy.
    pub(crate) fn kubeconfig_over(&self, proxy: &Proxy) -> anyhow::Result<String> {
        let cluster = json!({"server": format!("http://{}", proxy.address)});
        self.write_kubeconfig("kubeconfig-proxy", &cluster, &json!({}))
    }

    fn write_kubeconfig(
        &self,
        name: &str,
        cluster: &Value,
        user: &Value,
    ) -> anyhow::Result<String> {
        let context =
            json!({"cluster": "of-bench", "user": "of-bench", "namespace": self.namespace});
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "of-bench", "cluster": cluster}],
            "users": [{"name": "of-bench", "user": user}],
            "contexts": [{"name": "of-bench", "context": context}],
            "current-context": "of-bench",
        });
        let path = self.files.path().join(name);
        std::fs::write(&path, config.to_string())?;
        Ok(path.display().to_string())
    }

    /// The Jobs of an event, in the order of its tasks.
    pub(crate) async fn jobs_of(&self, event: &str) -> anyhow::Result<Vec<Job>> {
        let of_event = ListParams::default().labels(&format!("keptn.sh/event-id={event}"));
        let mut jobs = self.api::<Job>().list(&of_event).await?.items;
        jobs.sort_by_key(ResourceExt::name_any);
        anyhow::ensure!(!jobs.is_empty(), "event `{event}` has no Jobs");
        Ok(jobs)
    }

    pub(crate) async fn create_job(&self, job: &Job) -> anyhow::Result<()> {
        self.api::<Job>()
            .create(&PostParams::default(), job)
            .await?;
        Ok(())
    }

    /// Leaves the namespace to the cluster, which takes its time.
    pub(crate) async fn leave(self) -> anyhow::Result<()> {
        // Without a kubelet nobody else would end them.
        let at_once = DeleteParams::default().grace_period(0);
        self.leave_jobs().await?;
        self.api::<Pod>()
            .delete_collection(&at_once, &ListParams::default())
            .await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Tens of thousands take longer than the API server gives a request, which has deleted many all the same.
    async fn leave_jobs(&self) -> anyhow::Result<()> {
        let jobs = self.api::<Job>();
        let deleted = async {
            while !jobs
                .list(&ListParams::default().limit(1))
                .await?
                .items
                .is_empty()
            {
                let all = ListParams::default();
                if let Err(error) = jobs
                    .delete_collection(&DeleteParams::background(), &all)
                    .await
                {
                    println!("  deleting the Jobs takes longer: {error}");
                }
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(GONE_WITHIN, deleted)
            .await
            .context("the Jobs cannot be deleted")?
    }

    /// As [`Self::leave`], until nothing is left that would be in the way of what is measured next.
    pub(crate) async fn leave_nothing(self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let name = self.namespace.clone();
        self.leave().await?;
        let gone = async {
            while namespaces.get_opt(&name).await?.is_some() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(GONE_WITHIN, gone)
            .await
            .with_context(|| format!("namespace `{name}` does not go"))?
    }
}

/// Leaves every namespace that a measurement which was broken off has left behind.
pub(crate) async fn clear() -> anyhow::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client().await?);
    let mine = ListParams::default().labels(&format!("{PROCESS}={}", std::process::id()));
    for namespace in namespaces.list_metadata(&mine).await?.items {
        let name = namespace.name_any();
        namespaces.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
}

async fn first_node(client: &Client) -> anyhow::Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let addresses = nodes
        .items
        .into_iter()
        .filter_map(|node| node.status?.addresses);
    let mut internal = addresses
        .flatten()
        .filter(|address| address.type_ == "InternalIP");
    Ok(internal.next().context("no node has an address")?.address)
}

/// A label that the Job controller sets itself.
pub(crate) fn is_of_controller(label: &str) -> bool {
    label.ends_with("job-name") || label.ends_with("controller-uid")
}

/// The same Job under another name, for a bare client: nothing of it is the service's to look after.
pub(crate) fn copy_of(job: &Job, name: &str) -> Job {
    let mut copy = Job::default();
    copy.metadata.name = Some(name.to_owned());
    copy.metadata.labels.clone_from(&job.metadata.labels);
    copy.metadata
        .annotations
        .clone_from(&job.metadata.annotations);
    copy.spec.clone_from(&job.spec);
    let labels = copy.metadata.labels.get_or_insert_default();
    labels.remove("keptn.sh/jes-reported");
    labels.retain(|key, _| !is_of_controller(key));
    labels.insert(MANAGED_BY.to_owned(), "bench".to_owned());
    let annotations = copy.metadata.annotations.get_or_insert_default();
    annotations.retain(|key, _| key == "keptn.sh/jes-record");
    if let Some(spec) = &mut copy.spec {
        spec.selector = None;
        spec.ttl_seconds_after_finished = None;
        let labels = spec
            .template
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default();
        labels.retain(|key, _| !is_of_controller(key));
        labels.insert(MANAGED_BY.to_owned(), "bench".to_owned());
    }
    copy
}

/// The kubelet is away, until this is dropped: thousands of Jobs get no Pods that run.
pub(crate) struct NoKubelet {
    program: String,
}

impl NoKubelet {
    /// None where nobody told how to stop it.
    pub(crate) fn begin() -> anyhow::Result<Option<Self>> {
        let Ok(program) = std::env::var("E2E_CLUSTER") else {
            return Ok(None);
        };
        let stopped = Command::new(&program).args(["stop", "kubelet"]).status()?;
        anyhow::ensure!(stopped.success(), "`{program} stop kubelet` failed");
        Ok(Some(Self { program }))
    }
}

impl Drop for NoKubelet {
    fn drop(&mut self) {
        let started = Command::new(&self.program)
            .args(["start", "kubelet"])
            .status();
        if !started.is_ok_and(|status| status.success()) {
            eprintln!("`{} start kubelet` failed: start it by hand", self.program);
        }
    }
}
