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
pub(super) struct ObjectPart<Spec, Status> {
    metadata: Metadata,
    spec: Option<Spec>,
    status: Option<Status>,
}

#[derive(Deserialize)]
pub(super) struct JobSpecPart {
    suspend: Option<bool>,
}

impl Read for Job {
    type Part = ObjectPart<JobSpecPart, JobStatus>;
}

impl From<ObjectPart<JobSpecPart, JobStatus>> for Job {
    fn from(of: ObjectPart<JobSpecPart, JobStatus>) -> Self {
        Self {
            metadata: of.metadata.into(),
            spec: of.spec.map(JobSpec::from),
            status: of.status,
        }
    }
}

impl From<JobSpecPart> for JobSpec {
    fn from(of: JobSpecPart) -> Self {
        Self {
            suspend: of.suspend,
            ..Self::default()
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpecPart {
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
    type Part = ObjectPart<PodSpecPart, PodStatus>;
}

impl From<ObjectPart<PodSpecPart, PodStatus>> for Pod {
    fn from(of: ObjectPart<PodSpecPart, PodStatus>) -> Self {
        Self {
            metadata: of.metadata.into(),
            spec: of.spec.map(PodSpec::from),
            status: of.status,
        }
    }
}

impl From<PodSpecPart> for PodSpec {
    fn from(of: PodSpecPart) -> Self {
        let all = |parts: Vec<ContainerPart>| parts.into_iter().map(Container::from).collect();
        Self {
            containers: all(of.containers),
            init_containers: of.init_containers.map(all),
            ..Self::default()
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
