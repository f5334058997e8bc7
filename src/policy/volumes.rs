//! Kinds of volumes, and the Secrets in them.

use std::collections::BTreeSet;

use serde_json::Value;

use super::allow_list::entries;
use crate::job_config::pod_parts::Volume;

/// As fields of a Pod's volume, in Kubernetes 1.34.
const TYPES: [&str; 30] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "gitRepo",
    "glusterfs",
    "hostPath",
    "image",
    "iscsi",
    "nfs",
    "persistentVolumeClaim",
    "photonPersistentDisk",
    "portworxVolume",
    "projected",
    "quobyte",
    "rbd",
    "scaleIO",
    "secret",
    "storageos",
    "vsphereVolume",
];

/// Types of volumes that tasks may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VolumeTypes(BTreeSet<String>);

impl VolumeTypes {
    /// Of those that the Pod Security Standard "restricted" admits the ones that are about this cluster's
    /// own objects.
    pub(crate) const DEFAULT: &str =
        "configMap,downwardAPI,emptyDir,persistentVolumeClaim,projected,secret";

    pub(crate) fn parse(list: &str) -> Result<Self, String> {
        let types = entries(list).map(|entry| {
            let known = TYPES.contains(&entry);
            known.then(|| entry.to_owned()).ok_or_else(|| {
                format!(
                    "`{entry}` is no type of volume, expected those of Kubernetes such as `{}`",
                    Self::DEFAULT
                )
            })
        });
        types.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn check(&self, volume: &Volume) -> Result<(), String> {
        let types = types(volume);
        match types.iter().find(|kind| !self.0.contains(*kind)) {
            Some(kind) => Err(format!(
                "volume `{}` is a `{kind}`, which is not allowed (ALLOWED_VOLUMES of the service)",
                volume.name
            )),
            None => Ok(()),
        }
    }
}

impl Default for VolumeTypes {
    fn default() -> Self {
        Self(entries(Self::DEFAULT).map(str::to_owned).collect())
    }
}

/// The fields of a volume beside its name.
fn types(volume: &Volume) -> Vec<String> {
    let Ok(Value::Object(fields)) = serde_json::to_value(volume) else {
        return Vec::new();
    };
    let sources = fields.into_iter().map(|(field, _)| field);
    sources.filter(|field| field != "name").collect()
}

/// Whether it shows the token of the Pod's account.
pub(super) fn has_account_token(volume: &Volume) -> bool {
    let projected = volume.projected.iter();
    let mut sources = projected.flat_map(|of| of.sources.iter().flatten());
    sources.any(|source| source.service_account_token.is_some())
}

/// The Secrets that are named anywhere in a volume. Every type that has one calls it `secretName`, or
/// `…secret…` with a `name`: `secret`, `projected`, `csi`, `azureFile`, `cephfs`, `rbd`, …
pub(crate) fn secrets(volume: &Volume) -> Vec<String> {
    let mut found = Vec::new();
    collect(
        &serde_json::to_value(volume).unwrap_or_default(),
        &mut found,
    );
    found
}

fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                // A driver's parameters are no names of Secrets.
                if field == "volumeAttributes" {
                    continue;
                }
                if field.to_ascii_lowercase().contains("secret") {
                    let name = value.as_str().or_else(|| value["name"].as_str());
                    found.extend(name.map(str::to_owned));
                }
                collect(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(yaml: &str) -> Volume {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn every_secret_of_a_volume_is_found() {
        for (yaml, expected) in [
            ("{name: v, secret: {secretName: a}}", &["a"][..]),
            (
                "{name: v, projected: {sources: [{secret: {name: a}}, {configMap: {name: c}}, {secret: {name: b}}]}}",
                &["a", "b"],
            ),
            (
                "{name: v, csi: {driver: d, nodePublishSecretRef: {name: a}}}",
                &["a"],
            ),
            (
                "{name: v, azureFile: {secretName: a, shareName: s}}",
                &["a"],
            ),
            (
                "{name: v, flexVolume: {driver: d, secretRef: {name: a}}}",
                &["a"],
            ),
            ("{name: v, emptyDir: {}}", &[]),
        ] {
            assert_eq!(secrets(&volume(yaml)), expected, "{yaml}");
        }
    }

    #[test]
    fn only_listed_types_are_allowed() {
        let types = VolumeTypes::default();
        assert!(types.check(&volume("{name: v, emptyDir: {}}")).is_ok());
        insta::assert_snapshot!(
            types.check(&volume("{name: v, hostPath: {path: /}}")).unwrap_err(),
            @"volume `v` is a `hostPath`, which is not allowed (ALLOWED_VOLUMES of the service)"
        );
        let types = VolumeTypes::parse("hostPath").unwrap();
        assert!(
            types
                .check(&volume("{name: v, hostPath: {path: /}}"))
                .is_ok()
        );
        assert!(types.check(&volume("{name: v, secret: {}}")).is_err());
        insta::assert_snapshot!(VolumeTypes::parse("secrets").unwrap_err(), @"`secrets` is no type of volume, expected those of Kubernetes such as `configMap,downwardAPI,emptyDir,persistentVolumeClaim,projected,secret`");
    }
}
