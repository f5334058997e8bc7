//! End-to-end on the cluster of `KUBECONFIG`, each test in a namespace of its own. The service runs in
//! this process, or in the cluster from deploy/service.yaml; Keptn is the stateful fake, on an address
//! that Pods can reach.
//!
//! `E2E_IMAGE` is an image of this service that the nodes have, `E2E_BUSYBOX` one with busybox,
//! `E2E_HOST` the address by which Pods reach this machine (default: the first node's), `E2E_BINARY` the
//! service for the tests that kill it (default: what `cargo build` makes), `E2E_HELM` Helm 3 for those of the
//! chart (default: that of `PATH`).

mod attack;
mod beyond;
mod chart;
mod explained;
mod kills;
mod likeness;
mod nodes;
mod outages;
mod permissions;
mod process;
mod reasons;

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::deploy::documents;
use super::keptn::Keptn;
use super::{Transcript, config, triggered};
use crate::cli;
use crate::run::hash;
use crate::serve::{self, Outside};

/// A node takes some seconds for a Pod, and these tests share it.
const PATIENCE: Duration = Duration::from_secs(120);

struct RealCluster {
    client: Client,
    namespace: String,
    keptn: Keptn,
    keptn_address: SocketAddr,
    host: String,
    service: Option<(
        SocketAddr,
        CancellationToken,
        JoinHandle<anyhow::Result<()>>,
    )>,
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Of namespaces: two tests may think of one name.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl RealCluster {
    /// A namespace and a Keptn.
    async fn new(name: &str) -> Self {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let client = Client::try_default().await.expect("a cluster");
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("{name}-{}-{number}", std::process::id());
        let object = serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let host = match std::env::var("E2E_HOST") {
            Ok(host) => host,
            Err(_) => first_node(client.clone()).await,
        };
        let keptn = Keptn::new(Transcript::default());
        let keptn_address = keptn.listens("0.0.0.0:0").await;
        let cluster = Self {
            client,
            namespace,
            keptn,
            keptn_address,
            host,
            service: None,
        };
        cluster
            .until(|| async {
                cluster
                    .api::<ServiceAccount>()
                    .get_opt("default")
                    .await
                    .unwrap()
                    .is_some()
            })
            .await;
        cluster
    }

    /// The service in this process, with this config.
    async fn start(name: &str, config: &str) -> Self {
        let mut cluster = Self::new(name).await;
        cluster.serves(config, &[]).await;
        cluster
    }

    /// Starts the service in this process, with this config and these settings.
    async fn serves(&mut self, config: &str, settings: &[String]) {
        self.keptn
            .has("dev/svc", "job/config.yaml", with_images(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let of_cluster = [
            format!(
                "--configuration-service={}",
                self.keptn_url("/configuration-service")
            ),
            format!("--keptn-event-endpoint={}", self.keptn_url("/event")),
            format!("--init-container-image={}", image()),
        ];
        let settings = cli::serve_settings(&[&of_cluster, settings].concat());
        let stop = CancellationToken::new();
        let outside = Outside::of(&settings, self.client.clone(), &self.namespace).unwrap();
        let service = serve::Service::new(&settings, outside, stop.clone()).await;
        self.service = Some((address, stop, tokio::spawn(service.run(Some(listener)))));
    }

    fn keptn_url(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.host, self.keptn_address.port())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn create<K>(&self, object: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    async fn until<F: Future<Output = bool>>(&self, holds: impl Fn() -> F) {
        let poll = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        assert!(
            tokio::time::timeout(PATIENCE, poll).await.is_ok(),
            "{}",
            self.state().await
        );
    }

    /// What somebody wants to see of a test that failed.
    async fn state(&self) -> String {
        let pods = self
            .api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let status = |pod: &Pod| format!("{}: {:#}", pod.name_any(), json!(pod.status));
        let pods: Vec<String> = pods.iter().map(status).collect();
        format!("{:#?}\n{}", self.keptn.events(), pods.join("\n"))
    }

    async fn answered(&self, count: usize) -> Vec<Value> {
        let answers = tokio::time::timeout(PATIENCE, self.keptn.wait_for(count)).await;
        assert!(answers.is_ok(), "{}", self.state().await);
        self.keptn.events()
    }

    /// Sends an event and waits for both answers; gives `data` of `.finished`.
    async fn runs(&self, event: &Value) -> Value {
        let (address, _, _) = self.service.as_ref().expect("the service was started");
        assert_eq!(post(*address, event).await.0, 202);
        let events = self.answered(2).await;
        assert_eq!(events[0]["type"], "sh.keptn.event.test.started");
        assert_eq!(events[1]["type"], "sh.keptn.event.test.finished");
        events[1]["data"].clone()
    }

    async fn jobs(&self) -> Vec<Job> {
        let mut jobs = self
            .api::<Job>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        jobs.sort_by_key(ResourceExt::name_any);
        jobs
    }

    async fn finish(self) {
        if let Some((_, stop, service)) = self.service {
            stop.cancel();
            service.await.unwrap().unwrap();
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
    }
}

fn with_images(config: &str) -> String {
    config.replace("BUSYBOX", &setting("E2E_BUSYBOX", "localhost/busybox:1"))
}

fn image() -> String {
    setting("E2E_IMAGE", "localhost/job-executor-service:e2e")
}

async fn first_node(client: Client) -> String {
    let nodes: Api<Node> = Api::all(client);
    let nodes = nodes.list(&ListParams::default()).await.unwrap();
    let statuses = nodes.items.into_iter().filter_map(|node| node.status);
    let mut addresses = statuses.flat_map(|status| status.addresses.unwrap_or_default());
    let internal = addresses.find(|address| address.type_ == "InternalIP");
    internal.unwrap().address
}

/// Made once: it reads all root certificates, and fifty of them, made beside other tests, keep the sockets of
/// the first waiting for longer than the service waits for a header.
fn http() -> reqwest::Client {
    static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
        // No connection outlives the test's own runtime.
        let client = reqwest::Client::builder().pool_max_idle_per_host(0);
        client.no_proxy().build().unwrap()
    });
    CLIENT.clone()
}

async fn post(address: SocketAddr, event: &Value) -> (u16, String) {
    let response = http()
        .post(format!("http://{address}/"))
        .header("content-type", "application/cloudevents+json")
        .body(event.to_string())
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

fn message(finished: &Value) -> &str {
    finished["message"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn hello_world() {
    let tasks = "      - {name: hello, image: BUSYBOX, cmd: [echo], args: ['Hello, world']}\n";
    let cluster = RealCluster::start("hello", &config(tasks)).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    let job = cluster.jobs().await.remove(0).name_any();
    assert_eq!(finished["status"], "succeeded");
    assert_eq!(finished["result"], "pass");
    let expected =
        format!("Task 'hello' finished successfully!\n\nLogs:\nContainer {job} of pod {job}-");
    assert!(message(&finished).starts_with(&expected), "{finished}");
    assert!(
        message(&finished).ends_with(":\nHello, world\n\n\n\n\n"),
        "{finished}"
    );
    cluster
        .until(|| async {
            let job = cluster.jobs().await.remove(0);
            job.spec.unwrap().ttl_seconds_after_finished == Some(21_600)
        })
        .await;
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn files_and_folders_are_under_keptn() {
    let tasks = "      - {name: files, image: BUSYBOX, files: [a.bin, helm, /deep/er/],
         cmd: [sh, -c, 'cd /keptn && find . -type f -print0 | sort -z | xargs -0 sha3sum; id -u; touch /keptn/new']}\n";
    let cluster = RealCluster::start("files", &config(tasks)).await;
    let noise: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(n) / 7).to_le_bytes()[1])
        .collect();
    let files: [(&str, &[u8]); 4] = [
        ("a.bin", &noise),
        ("deep/er/est/x y+z%.txt", "ünï".as_bytes()),
        ("helm/empty", b""),
        ("helm/values.yaml", b"a: 1\n"),
    ];
    for (name, content) in files {
        cluster.keptn.has("dev/svc", name, content);
    }
    cluster.keptn.has("dev/svc", "helm-abc/no.yaml", "no");
    cluster.keptn.has("dev/svc", "helmDEFG", "no");
    let finished = cluster.runs(&triggered("event-1")).await;
    let expected: String = files
        .iter()
        .map(|(name, content)| format!("{}  ./{name}\n", hash(content)))
        .collect();
    assert!(
        message(&finished).contains(&format!(":\n{expected}1000\n")),
        "{expected}\n{finished:#}"
    );
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn variables_come_from_keptn_the_event_the_config_and_secrets() {
    let tasks = "      - name: env
        image: BUSYBOX
        cmd: [sh, -c, 'env | grep -E \"^(KEPTN|LABELS|FROM|USER_|PASS)\" | sort']
        env:
          - {name: FROM_EVENT, value: $.data.test.teststrategy, valueFrom: event}
          - {name: FROM_HOSTILE, value: $.data.hostile, valueFrom: event}
          - {name: FROM_CONFIG, value: in $(KEPTN_STAGE), valueFrom: string}
          - {name: credentials, valueFrom: secret}\n";
    let cluster = RealCluster::start("env", &config(tasks)).await;
    let secret = json!({"metadata": {"name": "credentials"}, "stringData": {"USER_NAME": "me", "PASSWORD": "x"}});
    cluster.create::<Secret>(secret).await;
    let mut event = triggered("event-1");
    event["data"]["hostile"] = "$(PASSWORD) $$ `id`".into();
    let finished = cluster.runs(&event).await;
    let expected = "FROM_CONFIG=in dev\nFROM_EVENT=functional\nFROM_HOSTILE=$(PASSWORD) $$ `id`\n\
        KEPTN_PROJECT=real\nKEPTN_SERVICE=svc\nKEPTN_STAGE=dev\nLABELS_K=v\nPASSWORD=x\nUSER_NAME=me\n";
    assert!(message(&finished).contains(expected), "{finished:#}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn tasks_run_in_order_until_one_fails() {
    let tasks = "      - {name: one, image: BUSYBOX, cmd: [sh, -c, 'sleep 1; echo first']}
      - {name: two, image: BUSYBOX, cmd: [sh, -c, 'echo boom; exit 3']}
      - {name: three, image: BUSYBOX, cmd: [echo, never]}\n";
    let cluster = RealCluster::start("order", &config(tasks)).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(
        (&finished["status"], &finished["result"]),
        (&json!("errored"), &json!("fail"))
    );
    let jobs = cluster.jobs().await;
    let names: Vec<&str> = jobs
        .iter()
        .map(|job| job.labels()["keptn.sh/jes-task"].as_str())
        .collect();
    assert_eq!(names, ["one", "two"]);
    let second = jobs[1].name_any();
    let failed = format!("Task 'two' failed: job {second} failed. Reason: BackoffLimitExceeded, ");
    assert!(message(&finished).starts_with(&failed), "{finished:#}");
    for part in ["(Reason: Error, ExitCode: 3):\nboom\n", ":\nfirst\n"] {
        assert!(message(&finished).contains(part), "{part}\n{finished:#}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_missing_file_fails_the_task_with_the_reason() {
    let tasks = "      - {name: files, image: BUSYBOX, files: [not/there], cmd: [echo, never]}\n";
    let cluster = RealCluster::start("missing", &config(tasks)).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["status"], "errored");
    let reason = "could not find file or directory `not/there` of service `svc` in project `real`, stage `dev`";
    assert!(message(&finished).contains(reason), "{finished:#}");
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_task_over_its_time_limit_is_ended_by_the_cluster() {
    let tasks = "      - {name: slow, image: BUSYBOX, maxPollDuration: 8, cmd: [sh, -c, 'echo so far; sleep 1000']}\n";
    let cluster = RealCluster::start("deadline", &config(tasks)).await;
    let finished = cluster.runs(&triggered("event-1")).await;
    assert_eq!(finished["status"], "errored");
    for part in ["job deadline exceeded (8 s", ":\nso far\n"] {
        assert!(message(&finished).contains(part), "{part}\n{finished:#}");
    }
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_example_of_the_first_readme_runs() {
    // A stand-in for the image, which no test may pull, and for the program in it.
    let example = include_str!("configs/valid/first-readme.yaml")
        .replace("locustio/locust", "BUSYBOX")
        .replace("locust -f /keptn", "tail -n 1 /keptn");
    let cluster = RealCluster::start("first", &example).await;
    cluster.keptn.has(
        "../sockshop/dev/carts",
        "job/config.yaml",
        with_images(&example),
    );
    cluster.keptn.has(
        "../sockshop/dev/carts",
        "locust/basic.py",
        "print(1)\nprint('smoke')\n",
    );
    cluster
        .keptn
        .has("../sockshop/dev/carts", "locust/import.py", "");
    let event: Value = serde_json::from_str(include_str!("events/first-readme.json")).unwrap();
    let finished = cluster.runs(&event).await;
    assert_eq!(finished["status"], "succeeded");
    assert!(
        message(&finished).contains(":\nprint('smoke')\n"),
        "{finished:#}"
    );
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn many_events_above_the_limit_all_end() {
    let tasks = "      - {name: one, image: BUSYBOX, cmd: [echo, done]}\n";
    let cluster = RealCluster::start("many", &config(tasks)).await;
    let (address, _, _) = cluster.service.as_ref().expect("the service was started");
    for n in 0..10 {
        assert_eq!(
            post(*address, &triggered(&format!("event-{n}"))).await.0,
            202
        );
    }
    let events = cluster.answered(20).await;
    let finished = events
        .iter()
        .filter(|event| event["data"]["status"] == "succeeded");
    assert_eq!(finished.count(), 10);
    cluster.finish().await;
}

impl RealCluster {
    /// Applies deploy/service.yaml with another namespace and image, and with the fake Keptn for the
    /// sidecar; returns when all replicas are ready.
    async fn deploys(&self, replicas: i32) {
        let manifest = include_str!("../../deploy/service.yaml")
            .replace(
                "namespace: keptn",
                &format!("namespace: {}", self.namespace),
            )
            .replace("keptncontrib/job-executor-service:0.4.0", &image())
            .replace(
                "http://configuration-service:8080",
                &self.keptn_url("/configuration-service"),
            )
            .replace("http://localhost:8081/event", &self.keptn_url("/event"))
            .replace("replicas: 1", &format!("replicas: {replicas}"));
        for mut object in documents(&manifest) {
            if object["kind"] == "Deployment" {
                let containers = object["spec"]["template"]["spec"]["containers"]
                    .as_array_mut()
                    .unwrap();
                containers.retain(|container| container["name"] != "distributor");
            }
            self.applies(object).await;
        }
        self.until(|| async {
            let deployment = self
                .api::<Deployment>()
                .get("job-executor-service")
                .await
                .unwrap();
            let ready = deployment.status.and_then(|status| status.ready_replicas);
            ready.unwrap_or_default() == replicas
        })
        .await;
    }

    /// Creates an object of deploy/.
    async fn applies(&self, object: Value) {
        match object["kind"].as_str().unwrap() {
            "ServiceAccount" => self.create::<ServiceAccount>(object).await,
            "Role" => self.create::<Role>(object).await,
            "RoleBinding" => self.create::<RoleBinding>(object).await,
            "Service" => self.create::<Service>(object).await,
            "Deployment" => self.create::<Deployment>(object).await,
            "NetworkPolicy" => self.create::<NetworkPolicy>(object).await,
            other => panic!("a {other} in deploy/"),
        }
    }

    /// Sends an event to whichever replica the Service chooses.
    async fn sends(&self, event: &Value) {
        self.sends_to("job-executor-service", event).await;
    }

    async fn sends_to(&self, service: &str, event: &Value) {
        let path = format!(
            "/api/v1/namespaces/{}/services/{service}:8080/proxy/",
            self.namespace
        );
        let request = http::Request::post(path)
            .header("content-type", "application/cloudevents+json")
            .body(event.to_string().into_bytes())
            .unwrap();
        self.client.request_text(request).await.unwrap();
    }

    async fn lease_holder(&self) -> String {
        self.lease_holder_of("job-executor-service").await
    }

    async fn lease_holder_of(&self, deployment: &str) -> String {
        let lease = self.api::<Lease>().get(deployment).await;
        let spec = lease.unwrap().spec.unwrap();
        spec.holder_identity.unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn the_service_runs_in_the_cluster_with_its_own_role() {
    let cluster = RealCluster::new("deploy").await;
    let tasks =
        "      - {name: hello, image: BUSYBOX, files: [greeting], cmd: [cat, /keptn/greeting]}
      - {name: account, image: BUSYBOX, cmd: [sh, -c, 'ls /var/run/secrets || echo no token']}\n";
    cluster
        .keptn
        .has("dev/svc", "job/config.yaml", with_images(&config(tasks)));
    cluster
        .keptn
        .has("dev/svc", "greeting", "Hello from the cluster\n");
    cluster.deploys(1).await;
    cluster.sends(&triggered("event-1")).await;
    let finished = cluster.answered(2).await[1]["data"].clone();
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    for part in [":\nHello from the cluster\n", "no token\n"] {
        assert!(message(&finished).contains(part), "{part}\n{finished:#}");
    }
    cluster.finish().await;
}
