//! The fields of a task that go into its Pod as they are. Keys and kinds are those of Kubernetes' types;
//! what is checked beyond them here is what makes the cluster refuse a Job, or a Pod wait for ever.

mod scheduling;
mod sources;
mod volumes;

use std::collections::BTreeMap;

use super::fields::ObjectName;
use super::labels;
use super::pod_parts::PodParts;
use super::problem::{Problem, Problems};
use super::reader::value::{Fields, Keys, Value};
use super::yaml::Kind;

pub(super) const PULL_SECRET: [&str; 1] = ["name"];

pub(super) fn read(task: &Fields<'_>, problems: &mut Problems) -> PodParts {
    let volumes = task.list("volumes", "a list", problems);
    PodParts {
        image_pull_secrets: task
            .list("imagePullSecrets", "a list", problems)
            .iter()
            .filter_map(|value| pull_secret(value, problems))
            .collect(),
        node_selector: task
            .get("nodeSelector")
            .map(|value| labels_of(&value, problems))
            .unwrap_or_default(),
        tolerations: task
            .list("tolerations", "a list", problems)
            .iter()
            .filter_map(|value| scheduling::toleration(value, problems))
            .collect(),
        affinity: task
            .get("affinity")
            .and_then(|value| scheduling::affinity(&value, problems)),
        volume_mounts: volumes::mounts(
            task,
            &task.list("volumeMounts", "a list", problems),
            &volumes,
            problems,
        ),
        volumes: volumes::volumes(&volumes, problems),
    }
}

/// `{name: x}` as in a Pod, or just the name.
fn pull_secret(value: &Value<'_>, problems: &mut Problems) -> Option<ObjectName> {
    if !matches!(value.node.kind, Kind::Mapping(_)) {
        return value.parsed(ObjectName::parse, problems);
    }
    let fields = value.fields(&PULL_SECRET, Keys::Strict, |_| None, problems)?;
    let name = fields.required("name", problems)?;
    name.parsed(ObjectName::parse, problems)
}

/// Keys and values of labels.
fn labels_of(value: &Value<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for (key, entry) in value.entries(problems) {
        if let Err(error) = labels::check_key(key) {
            problems.add(Problem::error(Some(entry.key.extent()), &value.path, error));
        }
        let wanted = value.below(key, &entry.value);
        let checked = |text: &str| labels::check_value(text).map(|()| text.to_owned());
        if let Some(text) = wanted.parsed(checked, problems) {
            labels.insert(key.to_owned(), text);
        }
    }
    labels
}
