//! What this service can learn of itself where it runs in a cluster: its image, which the init
//! containers use too, its account, and its Secrets, which no task may use.

use std::collections::BTreeSet;

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use tracing::warn;

use super::calls::{Failed, call, retried};
use crate::policy::secrets_of_volume;
use crate::telemetry::error_chain;

/// The container of this service in deploy/service.yaml; the other one is Keptn's distributor.
const CONTAINER: &str = "job-executor-service";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnPod {
    pub(crate) image: Option<String>,
    pub(crate) service_account: Option<String>,
    /// Those that any of its containers uses, and those that it mounts.
    pub(crate) secrets: BTreeSet<String>,
}

/// Who this service is to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnAccount {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl OwnAccount {
    /// Asks the API server, waiting for it. None outside of a cluster, and before Kubernetes 1.28, which
    /// cannot tell.
    pub(crate) async fn ask(client: Client) -> Option<Self> {
        let reviews: Api<SelfSubjectReview> = Api::all(client);
        let (params, review) = (PostParams::default(), SelfSubjectReview::default());
        let ask = || async { call(reviews.create(&params, &review)).await };
        let review = retried("create", "selfsubjectreviews", Failed::is_verdict, ask).await;
        let user = review.ok()?.status?.user_info?.username?;
        Self::parse(&user)
    }

    /// `system:serviceaccount:<namespace>:<name>`.
    fn parse(user: &str) -> Option<Self> {
        let account = user.strip_prefix("system:serviceaccount:")?;
        let (namespace, name) = account.split_once(':')?;
        Some(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl OwnPod {
    /// Waits for the API server. Without the permission to look, nothing is known; the settings can
    /// still tell.
    pub(crate) async fn read(client: Client, namespace: &str, name: &str) -> Self {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let get = || async { call(pods.get(name)).await };
        match retried("get", name, Failed::is_verdict, get).await {
            Ok(pod) => Self::of(&pod),
            Err(error) => {
                warn!(
                    pod = name,
                    error = error_chain(&error),
                    "the service's own Pod (POD_NAME) cannot be read, so INIT_CONTAINER_IMAGE has no default"
                );
                Self::default()
            }
        }
    }

    fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Self::default();
        };
        let named = spec
            .containers
            .iter()
            .find(|container| container.name == CONTAINER);
        Self {
            image: named
                .or(spec.containers.first())
                .and_then(|container| container.image.clone()),
            service_account: spec.service_account_name.clone(),
            secrets: secrets(spec),
        }
    }
}

fn secrets(spec: &PodSpec) -> BTreeSet<String> {
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    let of_containers = containers.flat_map(of_container);
    let volumes = spec.volumes.iter().flatten().flat_map(secrets_of_volume);
    let pulls = spec.image_pull_secrets.iter().flatten();
    of_containers
        .chain(volumes)
        .chain(pulls.map(|secret| secret.name.clone()))
        .collect()
}

fn of_container(container: &Container) -> Vec<String> {
    let keys = container.env.iter().flatten().filter_map(|variable| {
        let source = variable.value_from.as_ref()?;
        Some(source.secret_key_ref.as_ref()?.name.clone())
    });
    let whole = container.env_from.iter().flatten();
    let whole = whole.filter_map(|source| Some(source.secret_ref.as_ref()?.name.clone()));
    keys.chain(whole).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_that_of_the_service_and_not_of_its_sidecar() {
        let pod = serde_yaml::from_str(
            "{spec: {serviceAccountName: jes, containers: [{name: distributor, image: d:1}, \
             {name: job-executor-service, image: j:2}]}}",
        )
        .unwrap();
        let own = OwnPod::of(&pod);
        assert_eq!(own.image.as_deref(), Some("j:2"));
        assert_eq!(own.service_account.as_deref(), Some("jes"));
    }

    #[test]
    fn its_secrets_are_those_of_all_its_containers_and_volumes() {
        let pod = serde_yaml::from_str(
            "{spec: {imagePullSecrets: [{name: pull}], containers: [
                {name: job-executor-service, env: [{name: T, valueFrom: {secretKeyRef: {name: token, key: t}}}]},
                {name: distributor, envFrom: [{secretRef: {name: nats}}]}],
              volumes: [{name: a, secret: {secretName: tls}}, {name: b, configMap: {name: no}},
                {name: c, projected: {sources: [{secret: {name: part}}]}}]}}",
        )
        .unwrap();
        let secrets: Vec<String> = OwnPod::of(&pod).secrets.into_iter().collect();
        assert_eq!(secrets, ["nats", "part", "pull", "tls", "token"]);
    }

    #[test]
    fn the_account_is_read_off_the_name_of_the_user() {
        let account = OwnAccount::parse("system:serviceaccount:keptn:jes").unwrap();
        assert_eq!(
            (account.namespace.as_str(), account.name.as_str()),
            ("keptn", "jes")
        );
        assert_eq!(OwnAccount::parse("kubernetes-admin"), None);
    }
}
