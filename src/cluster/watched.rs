//! What the watches read of a Job and of a Pod. The API server sends ten times as much, and in a burst of events
//! to make objects of it all would take the service as long as all its other work.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A kind of object of which only a part is read. All else is as if the object did not have it.
#[derive(Debug, Clone)]
pub(super) struct Part<K>(pub(super) K);

pub(super) trait Read: Resource<DynamicType = ()> + Sized {
    type Part: for<'de> Deserialize<'de> + Into<Self>;
}

impl<'de, K: Read> Deserialize<'de> for Part<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::Part::deserialize(deserializer).map(|part| Self(part.into()))
    }
}

impl<K: Resource<DynamicType = ()>> Resource for Part<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// Without `managedFields`, half of what an object takes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(of: Metadata) -> Self {
        Self {
            name: of.name,
            namespace: of.namespace,
            resource_version: of.resource_version,
            creation_timestamp: of.creation_timestamp,
            deletion_timestamp: of.deletion_timestamp,
            labels: of.labels,
            annotations: of.annotations,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
pub(super) struct JobPart {
    metadata: Metadata,
    spec: Option<JobSpecPart>,
    status: Option<JobStatus>,
}

#[derive(Deserialize)]
struct JobSpecPart {
    suspend: Option<bool>,
}

impl Read for Job {
    type Part = JobPart;
}

impl From<JobPart> for Job {
    fn from(of: JobPart) -> Self {
        let spec = |of: JobSpecPart| JobSpec {
            suspend: of.suspend,
            ..JobSpec::default()
        };
        Self {
            metadata: of.metadata.into(),
            spec: of.spec.map(spec),
            status: of.status,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct PodPart {
    metadata: Metadata,
    spec: Option<PodSpecPart>,
    status: Option<PodStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpecPart {
    #[serde(default)]
    containers: Vec<ContainerPart>,
    init_containers: Option<Vec<ContainerPart>>,
}

#[derive(Deserialize)]
struct ContainerPart {
    name: String,
    resources: Option<ResourceRequirements>,
}

impl Read for Pod {
    type Part = PodPart;
}

impl From<PodPart> for Pod {
    fn from(of: PodPart) -> Self {
        let spec = |of: PodSpecPart| PodSpec {
            containers: of.containers.into_iter().map(Container::from).collect(),
            init_containers: of
                .init_containers
                .map(|all| all.into_iter().map(Container::from).collect()),
            ..PodSpec::default()
        };
        Self {
            metadata: of.metadata.into(),
            spec: of.spec.map(spec),
            status: of.status,
        }
    }
}

impl From<ContainerPart> for Container {
    fn from(of: ContainerPart) -> Self {
        Self {
            name: of.name,
            resources: of.resources,
            ..Self::default()
        }
    }
}
