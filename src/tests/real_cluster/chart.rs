//! The chart, installed by Helm.

use std::collections::BTreeMap;
use std::process::Command;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{RealCluster, image, message, setting, with_images};
use crate::tests::deploy::{documents, values_of_0_2_5};
use crate::tests::{config, triggered};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/chart");

const REMOTE: &str = "--set=remoteControlPlane.api.token=a+b/c=";

/// What Helm prints, or why it failed.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(setting("E2E_HELM", "helm"))
        .args(arguments)
        .output()
        .expect("E2E_HELM or PATH has helm");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() {
        Ok(text(output.stdout))
    } else {
        Err(text(output.stderr))
    }
}

/// The objects of the chart for a release `job-executor-service`, by kind and name.
fn rendered(flags: &[&str]) -> Result<BTreeMap<String, Value>, String> {
    let arguments = [
        "template",
        "job-executor-service",
        CHART,
        "--namespace=keptn",
    ];
    let manifest = helm(&[&arguments, flags].concat())?;
    let named = |object: Value| {
        let metadata = &object["metadata"];
        let name = format!("{} {}", object["kind"], metadata["name"]).replace('"', "");
        let at_home = metadata["namespace"] == "keptn";
        let place = if at_home {
            ""
        } else {
            metadata["namespace"].as_str().unwrap()
        };
        (format!("{name} {place}").trim_end().to_owned(), object)
    };
    Ok(documents(&manifest).into_iter().map(named).collect())
}

/// The variables of a container that have a plain value.
fn variables(deployment: &Value, container: usize) -> BTreeMap<&str, &str> {
    let containers = &deployment["spec"]["template"]["spec"]["containers"];
    let variables = containers[container]["env"].as_array().unwrap().iter();
    variables
        .filter_map(|variable| Some((variable["name"].as_str()?, variable["value"].as_str()?)))
        .collect()
}

#[test]
#[ignore = "needs Helm"]
fn the_linter_of_helm_finds_nothing_in_the_chart() {
    for flags in [
        &[][..],
        &[REMOTE],
        &["--set=replicaCount=2,service.enabled=false"],
    ] {
        helm(&[&["lint", "--strict", CHART], flags].concat()).unwrap();
    }
}

#[test]
#[ignore = "needs Helm"]
fn wrong_values_fail_with_what_is_wrong() {
    let wrong = [
        ("replicas=2", "additional properties 'replicas' not allowed"),
        (
            "remoteControlPlane.api.hostname=keptn.example.com",
            "authMode token needs token or existingSecret",
        ),
        (
            "remoteControlPlane.api.authMode=oauth",
            "authMode oauth needs oauth.clientId, oauth.scopes",
        ),
        (
            "remoteControlPlane.api.authMode=basic",
            "value must be one of 'token', 'oauth'",
        ),
        (
            "remoteControlPlane.api.token=a,remoteControlPlane.topicSubscription=sh.keptn.>",
            "a remote control plane has no wildcards",
        ),
        (
            "remoteControlPlane.autoDetect.enabled=true,remoteControlPlane.api.token=a",
            "autoDetect finds gateway and token itself",
        ),
        (
            "jobConfig.podSecurityContext.runAsUsr=1",
            "jobConfig.podSecurityContext: unknown field runAsUsr, expected one of",
        ),
        (
            "jobConfig.jobSecurityContext.privileged=true",
            "privileged needs jobConfig.allowPrivilegedJobs",
        ),
        (
            "jobConfig.serviceAccount.create=false,jobConfig.serviceAccount.name=job-executor-service",
            "tasks cannot have the account of the service",
        ),
        // As `--reuse-values` after an older chart does.
        ("settings=null", "--reset-then-reuse-values"),
        ("settings.POD_NAME=x", "POD_NAME is set by the chart"),
        (
            "jobConfig.networkPolicy.blockCIDRs={10.0.0.0}",
            "jobConfig/networkPolicy/blockCIDRs",
        ),
    ];
    for (values, message) in wrong {
        let error = rendered(&["--set", values]).expect_err(values);
        assert!(error.contains(message), "{values}: {error}");
    }
}

#[test]
#[ignore = "needs Helm"]
fn the_chart_deploys_what_the_manifest_deploys() {
    let objects = rendered(&["--set=distributor.image.tag=0.8.3"]).unwrap();
    let manifest = documents(include_str!("../../../deploy/service.yaml"));
    let names: Vec<&str> = objects.keys().map(String::as_str).collect();
    let expected = [
        "ConfigMap job-executor-service-config",
        "Deployment job-executor-service",
        "Role job-executor-service",
        "RoleBinding job-executor-service",
        "Service job-executor-service",
        "ServiceAccount job-executor-service",
        "ServiceAccount job-executor-service-default-job-account",
    ];
    assert_eq!(names, expected);
    for object in manifest {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', "");
        let of_chart = &objects[&name];
        let mut same = vec![
            "/rules",
            "/roleRef",
            "/subjects",
            "/automountServiceAccountToken",
        ];
        same.extend(["/spec/ports", "/spec/replicas", "/spec/strategy"]);
        let pod = [
            "serviceAccountName",
            "automountServiceAccountToken",
            "terminationGracePeriodSeconds",
            "securityContext",
            "containers/0/args",
            "containers/0/ports",
            "containers/0/livenessProbe",
            "containers/0/readinessProbe",
            "containers/0/resources",
            "containers/0/securityContext",
            "containers/1/ports",
            "containers/1/resources",
        ]
        .map(|field| format!("/spec/template/spec/{field}"));
        same.extend(pod.iter().map(String::as_str));
        for field in same {
            assert_eq!(
                of_chart.pointer(field),
                object.pointer(field),
                "{name} {field}"
            );
        }
        if object["kind"] == "Deployment" {
            for container in [0, 1] {
                let of_chart = variables(of_chart, container);
                for (variable, value) in variables(&object, container) {
                    // The chart's is for Jobs in other namespaces, too.
                    let value = value.replace("service:8080", "service.keptn:8080");
                    let found = of_chart.get(variable).copied().unwrap_or_default();
                    assert_eq!(found, value, "{variable}");
                }
            }
        }
    }
}

#[test]
#[ignore = "needs Helm"]
fn the_policies_of_the_chart_are_those_of_the_manifest() {
    let enabled = "--set=networkPolicy.ingress.enabled=true,networkPolicy.egress.enabled=true,\
        jobConfig.networkPolicy.enabled=true";
    let let_in = r#"--set-json=networkPolicy.ingress.adminFrom=[{"namespaceSelector":
        {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]"#;
    let spec = |objects: &BTreeMap<String, Value>, name: &str| {
        let object = &objects[&format!("NetworkPolicy job-executor-service{name}")];
        object["spec"].clone()
    };
    let manifest = documents(include_str!("../../../deploy/network-policies.yaml"));
    let [service, jobs] = [0, 1].map(|index| manifest[index]["spec"].clone());
    let objects = rendered(&[enabled, let_in]).unwrap();
    assert_eq!(spec(&objects, "-jobs"), jobs);
    assert_eq!(spec(&objects, "-egress")["egress"], service["egress"]);
    assert_eq!(spec(&objects, "-ingress")["ingress"], service["ingress"]);

    let closed = rendered(&[enabled]).unwrap();
    assert!(spec(&closed, "-ingress")["ingress"].is_null());

    // All of them, each in the network that it is in.
    let blocked = "--set=jobConfig.networkPolicy.blockCIDRs={10.0.0.0/8,172.16.0.0/12,fc00::/7},\
        jobConfig.networkPolicy.blockCloudMetadata=false";
    let objects = rendered(&[enabled, blocked]).unwrap();
    let world = &spec(&objects, "-jobs")["egress"][2]["to"];
    let expected = json!([
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12"]}},
        {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7"]}},
    ]);
    assert_eq!(*world, expected);
}

#[test]
#[ignore = "needs Helm"]
fn the_chart_brings_what_observes_the_service() {
    let flags = [
        "--set=podMonitor.enabled=true,podMonitor.labels.team=a,prometheusRule.enabled=true,adminPort=9999",
        "--set=otlp.endpoint=http://collector.monitoring:4318,otlp.existingSecret=otlp",
        "--set=networkPolicy.egress.enabled=true",
        r#"--set-json=logMasks=["(?i)password=(?<secret>\\S+)","x"]"#,
    ];
    let objects = rendered(&flags).unwrap();
    let monitor = &objects["PodMonitor job-executor-service"];
    assert_eq!(monitor["metadata"]["labels"]["team"], "a");
    let endpoint = json!({"port": "admin", "path": "/metrics", "interval": "30s"});
    assert_eq!(monitor["spec"]["podMetricsEndpoints"], json!([endpoint]));
    let alerts = &documents(include_str!("../../../deploy/alerts.yaml"))[0];
    assert_eq!(
        objects["PrometheusRule job-executor-service"]["spec"],
        *alerts
    );
    let deployment = &objects["Deployment job-executor-service"];
    let template = &deployment["spec"]["template"];
    assert!(template["metadata"]["annotations"]["prometheus.io/scrape"].is_null());
    assert_eq!(
        template["spec"]["containers"][0]["ports"][1]["containerPort"],
        9999
    );
    let service = variables(deployment, 0);
    assert_eq!(service["ADMIN_PORT"], "9999");
    assert_eq!(
        service["OTEL_EXPORTER_OTLP_ENDPOINT"],
        "http://collector.monitoring:4318"
    );
    assert_eq!(service["OTEL_SERVICE_NAME"], "job-executor-service");
    let headers = template["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap()
        .iter();
    let mut headers = headers.filter(|of| of["name"] == "OTEL_EXPORTER_OTLP_HEADERS");
    let reference = json!({"name": "otlp", "key": "headers"});
    assert_eq!(
        headers.next().unwrap()["valueFrom"]["secretKeyRef"],
        reference
    );
    let egress = &objects["NetworkPolicy job-executor-service-egress"]["spec"]["egress"];
    assert!(egress.to_string().contains("4318"));
    let files = &objects["ConfigMap job-executor-service-config"]["data"];
    assert_eq!(files["log-masks.txt"], "(?i)password=(?<secret>\\S+)\nx");

    let objects = rendered(&["--set=adminPort=0"]).unwrap();
    let deployment = &objects["Deployment job-executor-service"];
    assert!(!variables(deployment, 0).contains_key("ADMIN_PORT"));
    let annotations = &deployment["spec"]["template"]["metadata"]["annotations"];
    assert!(annotations["prometheus.io/scrape"].is_null());
}

#[test]
#[ignore = "needs Helm"]
fn the_values_of_the_original_mean_what_they_meant() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), values_of_0_2_5().to_string()).unwrap();
    let values = format!("--values={}", file.path().display());
    let flags = [
        &values,
        "--set=jobConfig.podSecurityContext.RunAsUser=3000,jobConfig.labels.team=a",
        "--set=remoteControlPlane.api.apiValidateTls=false,distributor.config.queueGroup.enabled=false",
    ];
    let objects = rendered(&flags).unwrap();
    let secret = &objects["Secret job-executor-service-keptn-secrets"]["data"];
    assert_eq!(secret["token"], "YStiL2M9");
    let files = &objects["ConfigMap job-executor-service-config"]["data"];
    let file =
        |name: &str| -> Value { serde_yaml::from_str(files[name].as_str().unwrap()).unwrap() };
    assert_eq!(file("job-labels.yaml"), json!({"team": "a"}));
    let pod = file("job-podSecurityContext.json");
    assert_eq!(
        (&pod["runAsUser"], &pod["fsGroup"]),
        (&json!(3000), &json!(2000))
    );
    let container = file("job-defaultSecurityContext.json");
    assert_eq!(container["readOnlyRootFilesystem"], true);
    let deployment = &objects["Deployment job-executor-service"];
    let service = variables(deployment, 0);
    let gateway = "http://api-gateway-nginx.keptn/api";
    let address = format!("{gateway}/configuration-service");
    assert_eq!(service["CONFIGURATION_SERVICE"], address);
    let account = "job-executor-service-default-job-account";
    assert_eq!(service["DEFAULT_JOB_SERVICE_ACCOUNT"], account);
    let distributor = variables(deployment, 1);
    assert_eq!(distributor["KEPTN_API_ENDPOINT"], gateway);
    assert_eq!(distributor["HTTP_SSL_VERIFY"], "false");
    assert!(!distributor.contains_key("PUBSUB_GROUP"));
    assert!(!distributor.contains_key("PUBSUB_URL"));
    let topics: Vec<&str> = distributor["PUBSUB_TOPIC"].split(',').collect();
    assert_eq!(topics.len(), 5, "{topics:?}");
}

#[test]
#[ignore = "needs Helm"]
fn secrets_are_in_variables_by_reference_only() {
    let oauth = "--set=remoteControlPlane.api.authMode=oauth,remoteControlPlane.api.hostname=keptn.example.com,\
        remoteControlPlane.api.protocol=https,remoteControlPlane.api.oauth.clientId=id,\
        remoteControlPlane.api.oauth.clientSecret=hush,remoteControlPlane.api.oauth.scopes=a\\,b,\
        remoteControlPlane.api.oauth.tokenUrl=https://login.example.com/token,\
        distributor.image.tag=0.19.3,jobConfig.allowedNamespaces={jobs}";
    let objects = rendered(&[oauth, REMOTE]).unwrap();
    let deployment = &objects["Deployment job-executor-service"];
    for text in ["hush", "a+b/c="] {
        assert!(!deployment.to_string().contains(text), "{text}");
    }
    let service = variables(deployment, 0);
    for (name, value) in [
        (
            "CONFIGURATION_SERVICE",
            "https://keptn.example.com/api/resource-service",
        ),
        ("KEPTN_API_ENDPOINT", "https://keptn.example.com/api"),
        (
            "KEPTN_API_TOKEN_SECRET",
            "job-executor-service-keptn-secrets",
        ),
        ("OAUTH_CLIENT_ID", "id"),
        ("OAUTH_SCOPES", "a,b"),
        ("OAUTH_TOKEN_URL", "https://login.example.com/token"),
        ("ALLOWED_NAMESPACES", "jobs"),
    ] {
        assert_eq!(service[name], value, "{name}");
    }
    // Init containers need them where Jobs run.
    for place in ["", " jobs"] {
        let secret = &objects[&format!("Secret job-executor-service-keptn-secrets{place}")];
        assert_eq!(secret["data"]["oauth_client_secret"], "aHVzaA==");
    }
}

impl RealCluster {
    /// Installs or upgrades a release whose service talks to the fake Keptn, and waits until it is ready.
    async fn installs(&self, release: &str, deployment: &str, flags: &[&str]) {
        let image = image();
        let (repository, tag) = image.rsplit_once(':').unwrap();
        let settings = [
            format!("--namespace={}", self.namespace),
            format!("--set=image.repository={repository},image.tag={tag}"),
            format!(
                "--set=configurationService={}",
                self.keptn_url("/configuration-service")
            ),
            format!(
                "--set=settings.KEPTN_EVENT_ENDPOINT={}",
                self.keptn_url("/event")
            ),
            "--set=distributor.image.repository=localhost/none,distributor.image.pullPolicy=Never"
                .to_owned(),
        ];
        let mut arguments = vec!["upgrade", "--install", release, CHART];
        arguments.extend(settings.iter().map(String::as_str));
        arguments.extend(flags);
        helm(&arguments).unwrap();
        // The fake is in the place of the sidecar.
        let containers = json!([{"name": "distributor", "$patch": "delete"}]);
        let patch = json!({"spec": {"template": {"spec": {"containers": containers}}}});
        let deployments = self.api::<Deployment>();
        let patched = deployments
            .patch(
                deployment,
                &PatchParams::default(),
                &Patch::Strategic(patch),
            )
            .await;
        let generation = patched.unwrap().metadata.generation;
        self.until(|| async {
            let status = deployments.get(deployment).await.unwrap().status.unwrap();
            status.observed_generation == generation
                && status.updated_replicas == status.ready_replicas
                && status.ready_replicas == status.replicas
                && status.unavailable_replicas.unwrap_or(0) == 0
        })
        .await;
    }

    fn uninstalls(&self, release: &str) {
        let namespace = format!("--namespace={}", self.namespace);
        helm(&["uninstall", release, &namespace]).unwrap();
    }

    async fn names<K>(&self) -> Vec<String>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let objects = self.api::<K>().list(&ListParams::default()).await.unwrap();
        objects.iter().map(ResourceExt::name_any).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and Helm"]
async fn two_releases_of_the_chart_in_one_namespace_run_their_own_events() {
    let tasks =
        "      - {name: hello, image: BUSYBOX, files: [greeting], cmd: [cat, /keptn/greeting]}\n";
    let cluster = RealCluster::new("releases").await;
    cluster
        .keptn
        .has("dev/svc", "job/config.yaml", with_images(&config(tasks)));
    cluster.keptn.has("dev/svc", "greeting", "Hello, chart\n");
    let everything = "--set=networkPolicy.ingress.enabled=true,networkPolicy.egress.enabled=true,\
        jobConfig.networkPolicy.enabled=true,jobConfig.networkPolicy.blockCIDRs={10.0.0.0/8,fc00::/7}";
    let deployments = ["job-executor-service", "second-job-executor-service"];
    for (release, deployment) in ["job-executor-service", "second"].iter().zip(deployments) {
        cluster.installs(release, deployment, &[everything]).await;
    }
    for (n, deployment) in deployments.iter().enumerate() {
        let event = triggered(&format!("event-{n}"));
        cluster.sends_to(deployment, &event).await;
        let finished = cluster.answered(2 * n + 2).await[2 * n + 1]["data"].clone();
        assert_eq!(finished["status"], "succeeded", "{finished:#}");
        assert!(
            message(&finished).contains(":\nHello, chart\n"),
            "{finished:#}"
        );
        let holder = cluster.lease_holder_of(deployment).await;
        assert!(holder.contains(deployment), "{holder}");
    }
    let mut managers: Vec<String> = cluster
        .jobs()
        .await
        .iter()
        .map(|job| job.labels()["app.kubernetes.io/managed-by"].clone())
        .collect();
    managers.sort();
    assert_eq!(managers, deployments);
    let policies = cluster.names::<NetworkPolicy>().await;
    assert_eq!(policies.len(), 6, "{policies:?}");
    cluster.uninstalls("second");
    cluster.uninstalls("job-executor-service");
    assert_eq!(cluster.names::<Role>().await, [""; 0]);
    assert_eq!(cluster.names::<RoleBinding>().await, [""; 0]);
    assert_eq!(cluster.names::<NetworkPolicy>().await, [""; 0]);
    assert_eq!(cluster.names::<Service>().await, [""; 0]);
    assert_eq!(cluster.names::<Secret>().await, [""; 0]);
    assert_eq!(cluster.names::<ServiceAccount>().await, ["default"]);
    assert_eq!(cluster.names::<ConfigMap>().await, ["kube-root-ca.crt"]);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and Helm"]
async fn an_upgrade_of_the_chart_restarts_the_service_only_if_something_changed() {
    let cluster = RealCluster::new("upgrade").await;
    let name = "job-executor-service";
    let template = || async {
        let deployment = cluster.api::<Deployment>().get(name).await.unwrap();
        deployment.spec.unwrap().template.metadata.unwrap()
    };
    cluster.installs(name, name, &[]).await;
    let first = template().await;
    cluster.installs(name, name, &[]).await;
    assert_eq!(template().await, first);
    cluster
        .installs(name, name, &["--set=jobConfig.labels.team=a"])
        .await;
    assert_ne!(template().await, first);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and Helm"]
async fn namespaces_of_the_chart_have_what_jobs_need() {
    let home = RealCluster::new("chart-home").await;
    let other = RealCluster::new("chart-jobs").await;
    let namespaces = format!(
        "--set=jobConfig.allowedNamespaces={{{},{}}},jobConfig.networkPolicy.enabled=true",
        other.namespace, home.namespace
    );
    home.installs("jes", "jes-job-executor-service", &[&namespaces, REMOTE])
        .await;
    let service = "jes-job-executor-service";
    for action in ["create jobs.batch", "list pods", "get pods/log"] {
        assert!(
            home.allows(service, action, &other.namespace).await,
            "{action}"
        );
        assert!(
            home.allows(service, action, &home.namespace).await,
            "{action}"
        );
        assert!(!home.allows(service, action, "default").await, "{action}");
    }
    for action in ["create leases.coordination.k8s.io", "get secrets any"] {
        assert!(
            !home.allows(service, action, &other.namespace).await,
            "{action}"
        );
    }
    let account = "jes-job-executor-service-default-job-account";
    assert!(
        other
            .names::<ServiceAccount>()
            .await
            .contains(&account.to_owned())
    );
    let policies = other.names::<NetworkPolicy>().await;
    assert_eq!(policies, ["jes-job-executor-service-jobs"]);
    let secrets = other.names::<Secret>().await;
    assert_eq!(secrets, ["jes-job-executor-service-keptn-secrets"]);
    home.uninstalls("jes");
    assert_eq!(other.names::<Role>().await, [""; 0]);
    assert_eq!(other.names::<Secret>().await, [""; 0]);
    other.finish().await;
    home.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and Helm"]
async fn the_chart_finds_a_keptn_of_the_cluster() {
    let cluster = RealCluster::new("detected").await;
    let namespace = &cluster.namespace;
    let gateway = json!({
        "metadata": {"name": "api-gateway-nginx", "labels": {"app.kubernetes.io/part-of": "keptn-keptn"}},
        "spec": {"ports": [{"port": 80}]},
    });
    cluster.create::<Service>(gateway).await;
    let token = json!({"metadata": {"name": "keptn-api-token"}, "stringData": {"keptn-api-token": "t0k+en"}});
    cluster.create::<Secret>(token).await;
    let detect = format!(
        "--set=remoteControlPlane.autoDetect.enabled=true,remoteControlPlane.autoDetect.namespace={namespace}"
    );
    let name = "job-executor-service";
    cluster.installs(name, name, &[&detect]).await;
    let secret: Api<Secret> = cluster.api();
    let secret = secret.get("job-executor-service-keptn-secrets").await;
    let secret = secret.unwrap().data.unwrap();
    assert_eq!(secret["token"].0, b"t0k+en");
    let deployment = json!(cluster.api::<Deployment>().get(name).await.unwrap());
    let endpoint = format!("http://api-gateway-nginx.{namespace}/api");
    assert_eq!(variables(&deployment, 0)["KEPTN_API_ENDPOINT"], endpoint);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and Helm"]
async fn tasks_run_in_the_namespaces_and_with_the_defaults_of_the_chart() {
    let home = RealCluster::new("chart-from").await;
    let other = RealCluster::new("chart-to").await;
    let tasks = format!(
        "      - {{name: away, namespace: {}, image: BUSYBOX, files: [greeting], cmd: [cat, /keptn/greeting]}}
      - {{name: here, image: BUSYBOX, cmd: [echo, done]}}\n",
        other.namespace
    );
    home.keptn
        .has("dev/svc", "job/config.yaml", with_images(&config(&tasks)));
    home.keptn.has("dev/svc", "greeting", "Hello, namespace\n");
    let namespaces = format!("--set=jobConfig.allowedNamespaces={{{}}}", other.namespace);
    let defaults = "--set=jobConfig.labels.team=a,jobConfig.podSecurityContext.RunAsUser=3000,\
        jobConfig.jobSecurityContext.readOnlyRootFilesystem=true";
    let name = "job-executor-service";
    home.installs(name, name, &[&namespaces, defaults]).await;
    home.sends(&triggered("event-1")).await;
    let finished = home.answered(2).await[1]["data"].clone();
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    assert!(
        message(&finished).contains(":\nHello, namespace\n"),
        "{finished:#}"
    );
    for jobs in [home.jobs().await, other.jobs().await] {
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].labels()["team"], "a");
        let pod = json!(jobs[0].spec.as_ref().unwrap().template.spec);
        assert_eq!(pod["securityContext"]["runAsUser"], 3000);
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["readOnlyRootFilesystem"], true);
    }
    home.uninstalls(name);
    other.finish().await;
    home.finish().await;
}
