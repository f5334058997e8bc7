//! What this service can learn of itself where it runs in a cluster: its image, which the init
//! containers use too, and its account, which no task may use.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::Api;
use tracing::warn;

use super::calls::{Failed, call, retried};

/// The container of this service in deploy/service.yaml; the other one is Keptn's distributor.
const CONTAINER: &str = "job-executor-service";

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OwnPod {
    pub(crate) image: Option<String>,
    pub(crate) service_account: Option<String>,
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
                    pod = name, %error,
                    "the service's own Pod cannot be read, so INIT_CONTAINER_IMAGE has no default"
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
        }
    }
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
}
