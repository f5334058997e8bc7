//! Claims about deploy/ that need neither a cluster nor Helm: the manifests, the policies, the chart's values.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::cli;

const SERVICE: &str = include_str!("../../deploy/service.yaml");
const POLICIES: &str = include_str!("../../deploy/network-policies.yaml");
const JOB_NAMESPACE: &str = include_str!("../../deploy/job-namespace.yaml");

pub(super) fn documents(manifest: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(manifest)
        .map(|document| Value::deserialize(document).unwrap())
        .collect()
}

fn only<T: DeserializeOwned>(manifest: &str, kind: &str, name: &str) -> T {
    let mut found = documents(manifest);
    found.retain(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    assert_eq!(found.len(), 1, "{kind} {name}");
    serde_json::from_value(found.remove(0)).unwrap()
}

/// Fields that Kubernetes does not know get lost in its types.
fn keeps_all_fields<T: DeserializeOwned + Serialize>(object: &Value) {
    let typed: T = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(serde_json::to_value(typed).unwrap(), *object);
}

#[test]
fn every_manifest_has_only_fields_that_kubernetes_knows() {
    for manifest in [SERVICE, POLICIES, JOB_NAMESPACE] {
        for object in documents(manifest) {
            match object["kind"].as_str().unwrap() {
                "Namespace" => keeps_all_fields::<Namespace>(&object),
                "ServiceAccount" => keeps_all_fields::<ServiceAccount>(&object),
                "Role" => keeps_all_fields::<Role>(&object),
                "RoleBinding" => keeps_all_fields::<RoleBinding>(&object),
                "Service" => keeps_all_fields::<Service>(&object),
                "Deployment" => keeps_all_fields::<Deployment>(&object),
                "NetworkPolicy" => keeps_all_fields::<NetworkPolicy>(&object),
                other => panic!("a {other}"),
            }
        }
    }
}

fn rules(manifest: &str) -> Vec<PolicyRule> {
    only::<Role>(manifest, "Role", "job-executor-service")
        .rules
        .unwrap()
}

fn is_of_leases(rule: &PolicyRule) -> bool {
    rule.resources
        .as_ref()
        .is_some_and(|names| names == &["leases"])
}

#[test]
fn the_role_of_an_additional_namespace_is_that_of_the_service_without_the_lease() {
    let mut expected = rules(SERVICE);
    expected.retain(|rule| !is_of_leases(rule));
    assert_eq!(rules(JOB_NAMESPACE), expected);
}

#[test]
fn the_role_of_the_chart_is_that_of_the_manifest() {
    let template = include_str!("../../deploy/chart/templates/_rules.tpl");
    let fullname = r#"{{ include "job-executor-service.fullname" . }}"#;
    let template = template.replace(fullname, "job-executor-service");
    let lines = template.lines().filter(|line| !line.starts_with("{{"));
    let rules_of_chart: Vec<PolicyRule> =
        serde_yaml::from_str(&lines.collect::<Vec<_>>().join("\n")).unwrap();
    assert_eq!(rules_of_chart, rules(SERVICE));
}

#[test]
fn an_additional_namespace_trusts_the_account_of_the_service() {
    let binding: RoleBinding = only(JOB_NAMESPACE, "RoleBinding", "job-executor-service");
    let of_service: RoleBinding = only(SERVICE, "RoleBinding", "job-executor-service");
    assert_eq!(binding.subjects, of_service.subjects);
    let account = "job-executor-service-default-job-account";
    let account: ServiceAccount = only(JOB_NAMESPACE, "ServiceAccount", account);
    assert_eq!(account.automount_service_account_token, Some(false));
}

fn policy(manifest: &str, name: &str) -> NetworkPolicySpec {
    only::<NetworkPolicy>(manifest, "NetworkPolicy", name)
        .spec
        .unwrap()
}

#[test]
fn the_policies_select_the_pods_that_they_are_for() {
    let service = policy(POLICIES, "job-executor-service");
    let deployment: Deployment = only(SERVICE, "Deployment", "job-executor-service");
    assert_eq!(
        service.pod_selector.unwrap(),
        deployment.spec.unwrap().selector
    );
    let jobs = policy(POLICIES, "job-executor-service-jobs");
    let selected = jobs.pod_selector.as_ref().unwrap().match_labels.as_ref();
    let label = crate::cluster::names::MANAGED_BY;
    assert_eq!(selected.unwrap()[label], "job-executor-service");
    assert_eq!(jobs, policy(JOB_NAMESPACE, "job-executor-service-jobs"));
}

/// An address as bits from the left, which tells IPv4 and IPv6 apart by its length.
fn bits(address: IpAddr) -> (u32, u128) {
    match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address)) << 96),
        IpAddr::V6(address) => (128, u128::from(address)),
    }
}

fn is_within(address: IpAddr, network: &str) -> bool {
    let (network, prefix) = network.split_once('/').unwrap();
    let (family, of_network) = bits(network.parse().unwrap());
    let (of_family, of_address) = bits(address);
    let prefix: u32 = prefix.parse().unwrap();
    let shift = 128 - prefix;
    family == of_family
        && (of_network ^ of_address)
            .checked_shr(shift)
            .unwrap_or_default()
            == 0
}

/// Whether an address outside of the cluster can be reached.
fn reaches(policy: &NetworkPolicySpec, address: &str, port: i32) -> bool {
    let address: IpAddr = address.parse().unwrap();
    let has_address = |block: &IPBlock| {
        let mut excepted = block.except.iter().flatten();
        is_within(address, &block.cidr) && !excepted.any(|network| is_within(address, network))
    };
    policy.egress.iter().flatten().any(|rule| {
        let mut ports = rule.ports.iter().flatten();
        let on_port = rule.ports.is_none()
            || ports.any(|allowed| allowed.port == Some(IntOrString::Int(port)));
        let mut blocks = rule
            .to
            .iter()
            .flatten()
            .filter_map(|peer| peer.ip_block.as_ref());
        on_port && blocks.any(has_address)
    })
}

#[test]
fn the_policies_allow_what_is_needed_and_no_cloud_metadata() {
    let service = policy(POLICIES, "job-executor-service");
    let jobs = policy(POLICIES, "job-executor-service-jobs");
    // The address and port, then whether the service and whether a Job reaches it.
    let expected = [
        ("10.96.0.1", 443, true, true, "the Kubernetes API"),
        ("192.168.1.10", 6443, true, true, "the Kubernetes API"),
        ("203.0.113.5", 443, true, true, "a gateway of Keptn"),
        ("203.0.113.5", 80, false, true, "somebody's server"),
        ("2001:db8::5", 8080, false, true, "somebody's server"),
        ("169.254.20.10", 53, true, true, "DNS on the node"),
        ("169.254.169.254", 80, false, false, "metadata"),
        ("169.254.169.254", 443, false, false, "metadata"),
        ("169.254.170.2", 80, false, false, "metadata of a container"),
        ("100.100.100.200", 80, false, false, "metadata"),
        ("fd00:ec2::254", 80, false, false, "metadata"),
        ("fe80::a9fe:a9fe", 80, false, false, "metadata"),
    ];
    for (address, port, of_service, of_jobs, what) in expected {
        let reached = (
            reaches(&service, address, port),
            reaches(&jobs, address, port),
        );
        assert_eq!(
            reached,
            (of_service, of_jobs),
            "{what} at {address} port {port}"
        );
    }
    // Whoever collects metrics comes in from another namespace, to them only.
    let let_in = service.ingress.as_deref().unwrap();
    assert_eq!(
        serde_json::to_value(let_in).unwrap(),
        json!([{
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
            "ports": [{"protocol": "TCP", "port": "admin"}],
        }])
    );
    assert!(jobs.ingress.is_none());
    for policy in [service, jobs] {
        assert_eq!(policy.policy_types.unwrap(), ["Ingress", "Egress"]);
        let dns = policy.egress.unwrap().remove(0).ports.unwrap();
        let protocols: BTreeSet<String> =
            dns.into_iter().filter_map(|port| port.protocol).collect();
        assert_eq!(protocols, BTreeSet::from(["TCP".into(), "UDP".into()]));
    }
}

fn chart(file: &str) -> String {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/chart");
    std::fs::read_to_string(format!("{chart}/{file}")).unwrap()
}

fn values() -> Value {
    serde_yaml::from_str(&chart("values.yaml")).unwrap()
}

fn refused(values: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(&chart("values.schema.json")).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors = validator.iter_errors(values);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

#[test]
fn the_service_knows_every_variable_that_it_is_given() {
    let deployment: Deployment = only(SERVICE, "Deployment", "job-executor-service");
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let mut given: BTreeSet<String> = pod.containers[0]
        .env
        .iter()
        .flatten()
        .map(|variable| variable.name.clone())
        .collect();
    let settings = chart("templates/_settings.tpl");
    let defined = |name: &str| {
        let start = settings
            .find(&format!("define \"job-executor-service.{name}\""))
            .unwrap();
        let text = &settings[start..];
        text[..text.find("\n{{- define").unwrap_or(text.len())].to_owned()
    };
    let of_chart = defined("settings") + &defined("gateway") + &defined("gatewaySecrets");
    let variable = regex::Regex::new(r"(?m)^(?:- name: )?([A-Z][A-Z0-9_]+)(?::|$)").unwrap();
    given.extend(
        variable
            .captures_iter(&of_chart)
            .map(|found| found[1].to_owned()),
    );
    assert!(given.len() > 25, "{given:?}");
    let known = cli::serve_variables();
    let unknown: Vec<&String> = given.difference(&known).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn the_metrics_are_where_the_annotations_say() {
    let deployment: Deployment = only(SERVICE, "Deployment", "job-executor-service");
    let template = deployment.spec.unwrap().template;
    let annotations = template.metadata.unwrap().annotations.unwrap();
    let container = template.spec.unwrap().containers.remove(0);
    let variables = container.env.unwrap();
    let variable = variables.iter().find(|of| of.name == "ADMIN_PORT").unwrap();
    let port = variable.value.as_ref().unwrap();
    assert_eq!(annotations["prometheus.io/scrape"], "true");
    assert_eq!(&annotations["prometheus.io/port"], port);
    assert_eq!(annotations["prometheus.io/path"], "/metrics");
    let ports = container.ports.unwrap();
    let admin = ports.iter().find(|of| of.name.as_deref() == Some("admin"));
    assert_eq!(admin.unwrap().container_port.to_string(), *port);
    assert_eq!(values()["adminPort"].to_string(), *port);
}

#[test]
fn the_alerts_of_the_chart_are_those_of_the_file() {
    assert_eq!(
        chart("files/alerts.yaml"),
        include_str!("../../deploy/alerts.yaml")
    );
}

#[test]
fn the_version_of_the_chart_is_that_of_the_service() {
    let about: Value = serde_yaml::from_str(&chart("Chart.yaml")).unwrap();
    for field in ["version", "appVersion"] {
        assert_eq!(about[field], env!("CARGO_PKG_VERSION"), "{field}");
    }
}

#[test]
fn the_values_fit_their_schema() {
    assert_eq!(refused(&values()), [""; 0]);
}

/// The values that the chart 0.2.5 has by default, and some that its users set.
pub(super) fn values_of_0_2_5() -> Value {
    serde_yaml::from_str(include_str!("values-0.2.5.yaml")).unwrap()
}

#[test]
fn the_values_of_the_original_are_accepted() {
    assert_eq!(refused(&values_of_0_2_5()), [""; 0]);
}

#[test]
fn wrong_values_are_refused() {
    let wrong = [
        (json!({"replicas": 2}), "a name that is no value"),
        (json!({"replicaCount": "2"}), "a text for a number"),
        (
            json!({"distributor": {"stageFiter": "dev"}}),
            "a name that is no value",
        ),
        (
            json!({"distributor": {"stageFilter": "dev, prod"}}),
            "names that are not trimmed",
        ),
        (json!({"image": {"pullPolicy": "Sometimes"}}), "no policy"),
        (
            json!({"remoteControlPlane": {"api": {"hostname": "https://keptn"}}}),
            "a protocol in the host",
        ),
        (
            json!({"remoteControlPlane": {"api": {"token": "a b"}}}),
            "no token",
        ),
        (
            json!({"remoteControlPlane": {"api": {"authMode": "none"}}}),
            "no mode",
        ),
        (
            json!({"remoteControlPlane": {"topicSubscription": "sh.keptn.a, sh.keptn.b"}}),
            "types that are not trimmed",
        ),
        (
            json!({"jobConfig": {"taskDeadlineSeconds": -1}}),
            "no time limit",
        ),
        (
            json!({"jobConfig": {"allowPrivilegedJobs": "yes"}}),
            "a text for a boolean",
        ),
        (
            json!({"jobConfig": {"labels": {"team": "a b"}}}),
            "no label",
        ),
        (
            json!({"jobConfig": {"networkPolicy": {"blockCIDRs": ["10.0.0.0"]}}}),
            "no network",
        ),
        (
            json!({"jobConfig": {"resources": {"limits": {"cpu": "lots"}}}}),
            "no quantity",
        ),
        (
            json!({"jobConfig": {"allowedNamespaces": ["Jobs"]}}),
            "no namespace",
        ),
        (
            json!({"networkPolicy": {"enabled": true}}),
            "a value of 0.2.1, which did more than one of today",
        ),
        (json!({"settings": {"log-level": "debug"}}), "no variable"),
    ];
    for (values, why) in wrong {
        assert_ne!(refused(&values), [""; 0], "{why}: {values}");
    }
    for token in ["a+b/c==", "Kx9~!"] {
        let values = json!({"remoteControlPlane": {"api": {"token": token}}});
        assert_eq!(refused(&values), [""; 0], "{token}");
    }
}

fn paths(prefix: &str, value: &Value, found: &mut Vec<String>) {
    match value.as_object() {
        Some(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                paths(&format!("{prefix}.{name}"), value, found);
            }
        }
        _ => found.push(prefix.trim_start_matches('.').to_owned()),
    }
}

#[test]
fn the_readme_of_the_chart_names_every_value() {
    let mut all = Vec::new();
    paths("", &values(), &mut all);
    let readme = chart("README.md");
    let is_named = |path: &str| {
        let mut path = path;
        loop {
            if readme.contains(&format!("`{path}`")) {
                return true;
            }
            // Of a whole such as a security context the name is enough.
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return false,
            }
        }
    };
    let unnamed: Vec<&String> = all.iter().filter(|path| !is_named(path)).collect();
    assert!(unnamed.is_empty(), "{unnamed:#?}");
}
