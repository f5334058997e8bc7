//! What the watches read of a Job and of a Pod. The API server sends ten times as much, and in a burst of events
//! to make objects of it all would take the service as long as all its other work. A Job is read from protobuf as
//! well as from JSON; the tags are those of `generated.proto` in Kubernetes' `api/batch/v1` and `meta/v1`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use prost::Message;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
#[derive(Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(string, optional, tag = "3")]
    namespace: Option<String>,
    #[prost(string, optional, tag = "6")]
    resource_version: Option<String>,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Moment>,
    #[prost(message, optional, tag = "9")]
    deletion_timestamp: Option<Moment>,
    #[prost(btree_map = "string, string", tag = "11")]
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl From<Metadata> for ObjectMeta {
    fn from(of: Metadata) -> Self {
        Self {
            name: of.name,
            namespace: of.namespace,
            resource_version: of.resource_version,
            creation_timestamp: of.creation_timestamp.and_then(Moment::time),
            deletion_timestamp: of.deletion_timestamp.and_then(Moment::time),
            labels: Some(of.labels),
            annotations: Some(of.annotations),
            ..Self::default()
        }
    }
}

/// A `Time` of Kubernetes. In protobuf it is there and empty where an object has none.
#[derive(Clone, Copy, Message)]
struct Moment {
    #[prost(int64, optional, tag = "1")]
    seconds: Option<i64>,
}

impl Moment {
    fn time(self) -> Option<Time> {
        let time = self.seconds.map(Timestamp::from_second)?;
        time.ok().map(Time)
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.time().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Time(time) = Time::deserialize(deserializer)?;
        Ok(Self {
            seconds: Some(time.as_second()),
        })
    }
}

#[derive(Message, Serialize, Deserialize)]
pub(super) struct JobPart {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(message, optional, tag = "2")]
    spec: Option<JobSpecPart>,
    #[prost(message, optional, tag = "3")]
    status: Option<JobStatusPart>,
}

#[derive(Message, Serialize, Deserialize)]
struct JobSpecPart {
    #[prost(bool, optional, tag = "10")]
    suspend: Option<bool>,
}

#[derive(Message, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct JobStatusPart {
    #[prost(message, repeated, tag = "1")]
    #[serde(default)]
    conditions: Vec<JobConditionPart>,
    #[prost(message, optional, tag = "2")]
    start_time: Option<Moment>,
}

#[derive(Message, Serialize, Deserialize)]
struct JobConditionPart {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(string, tag = "2")]
    status: String,
    #[prost(string, optional, tag = "5")]
    reason: Option<String>,
    #[prost(string, optional, tag = "6")]
    message: Option<String>,
}

impl Read for Job {
    type Part = JobPart;
}

impl From<JobPart> for Job {
    fn from(of: JobPart) -> Self {
        Self {
            metadata: of.metadata.map(ObjectMeta::from).unwrap_or_default(),
            spec: of.spec.map(JobSpec::from),
            status: of.status.map(JobStatus::from),
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

impl From<JobStatusPart> for JobStatus {
    fn from(of: JobStatusPart) -> Self {
        let conditions = of.conditions.into_iter().map(JobCondition::from);
        Self {
            conditions: Some(conditions.collect()),
            start_time: of.start_time.and_then(Moment::time),
            ..Self::default()
        }
    }
}

impl From<JobConditionPart> for JobCondition {
    fn from(of: JobConditionPart) -> Self {
        Self {
            type_: of.r#type,
            status: of.status,
            reason: of.reason,
            message: of.message,
            ..Self::default()
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
