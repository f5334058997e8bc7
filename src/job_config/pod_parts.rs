//! What a task adds to its Pod in Kubernetes' own terms: these types are its API's, as data.

use std::collections::BTreeMap;

pub(crate) use k8s_openapi::api::core::v1::{Affinity, Toleration, Volume, VolumeMount};
use serde::{Deserialize, Serialize};

use super::fields::ObjectName;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodParts {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) image_pull_secrets: Vec<ObjectName>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) node_selector: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tolerations: Vec<Toleration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<Affinity>,
    /// Beside the one of /keptn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volumes: Vec<Volume>,
    /// Of the task's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) volume_mounts: Vec<VolumeMount>,
}

impl PodParts {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
