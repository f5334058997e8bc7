//! What the operator mounts for all Jobs, in the original's file formats: security contexts and labels.
//! Without the files the Pod Security Standard "restricted" admits what is made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;

use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::names;
use crate::job_config::{labels, security};

/// As the original's charts: no image needs root to run here unless its task says so.
const USER: i64 = 1000;
const GROUP: i64 = 2000;

/// Of all names below, since the original's charts capitalise some: `RunAsUser` is `runAsUser`.
const FIELDS: [&str; 30] = [
    "add",
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "drop",
    "fsGroup",
    "fsGroupChangePolicy",
    "level",
    "localhostProfile",
    "name",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "role",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "sysctls",
    "type",
    "user",
    "value",
    "windowsOptions",
    "gmsaCredentialSpec",
    "gmsaCredentialSpecName",
    "runAsUserName",
];

/// Of the containers of every Job; a task's own fields are laid over it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ContainerDefaults(pub(super) SecurityContext);

/// Of the Pods of every Job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodDefaults(pub(super) PodSecurityContext);

/// On every Job and its Pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct JobLabels(pub(super) BTreeMap<String, String>);

impl Default for ContainerDefaults {
    fn default() -> Self {
        Self(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".into()]),
            }),
            privileged: Some(false),
            run_as_user: Some(USER),
            run_as_group: Some(GROUP),
            run_as_non_root: Some(true),
            seccomp_profile: Some(runtime_default()),
            ..SecurityContext::default()
        })
    }
}

impl Default for PodDefaults {
    fn default() -> Self {
        Self(PodSecurityContext {
            run_as_user: Some(USER),
            run_as_group: Some(GROUP),
            fs_group: Some(GROUP),
            run_as_non_root: Some(true),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        })
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".into(),
        ..SeccompProfile::default()
    }
}

impl ContainerDefaults {
    /// Reads a file; the default where there is none.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let context: Option<SecurityContext> = security_context(path)?;
        if let Some(context) = &context {
            let ids = [
                ("runAsUser", context.run_as_user),
                ("runAsGroup", context.run_as_group),
            ];
            check_ids(ids, path)?;
            if let Some(mount) = &context.proc_mount {
                security::check_proc_mount(mount).map_err(in_field(path, "procMount"))?;
            }
            check_seccomp(context.seccomp_profile.as_ref(), path)?;
        }
        Ok(context.map_or_else(Self::default, |mut context| {
            // The original's chart drops `all`; Kubernetes' standards know only `ALL`.
            let capabilities = context.capabilities.iter_mut();
            for name in capabilities.flat_map(|of| of.drop.iter_mut().flatten()) {
                if name.eq_ignore_ascii_case("all") {
                    *name = "ALL".into();
                }
            }
            Self(context)
        }))
    }

    pub(crate) fn is_privileged(&self) -> bool {
        self.0.privileged == Some(true)
    }
}

impl PodDefaults {
    /// Reads a file; the default where there is none.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let context: Option<PodSecurityContext> = security_context(path)?;
        if let Some(context) = &context {
            let ids = [
                ("runAsUser", context.run_as_user),
                ("runAsGroup", context.run_as_group),
                ("fsGroup", context.fs_group),
            ];
            let groups = context.supplemental_groups.iter().flatten();
            let groups = groups.map(|group| ("supplementalGroups", Some(*group)));
            check_ids(ids.into_iter().chain(groups), path)?;
            check_seccomp(context.seccomp_profile.as_ref(), path)?;
        }
        Ok(context.map_or_else(Self::default, Self))
    }
}

/// What the cluster would refuse in every Job.
fn check_ids(
    ids: impl IntoIterator<Item = (&'static str, Option<i64>)>,
    path: &str,
) -> Result<(), String> {
    for (name, id) in ids {
        if let Some(id) = id {
            security::check_id(id).map_err(in_field(path, name))?;
        }
    }
    Ok(())
}

fn check_seccomp(profile: Option<&SeccompProfile>, path: &str) -> Result<(), String> {
    let Some(profile) = profile else {
        return Ok(());
    };
    let (kind, file) = (&profile.type_, profile.localhost_profile.as_deref());
    security::check_seccomp_type(kind).map_err(in_field(path, "seccompProfile.type"))?;
    let name = match file {
        Some(_) => "seccompProfile.localhostProfile",
        None => "seccompProfile",
    };
    security::check_localhost(Some(kind), file).map_err(in_field(path, name))
}

fn in_field(path: &str, name: &str) -> impl Fn(String) -> String {
    move |error| format!("{path}: {name}: {error}")
}

impl JobLabels {
    /// Reads a file; no labels where there is none.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        let Some(text) = text_of(path)? else {
            return Ok(Self::default());
        };
        let labels: Option<BTreeMap<String, serde_yaml::Value>> = serde_yaml::from_str(&text)
            .map_err(|error| {
                format!("{path} is no mapping of labels to texts, such as `team: blue`: {error}")
            })?;
        let label = |(key, value): (String, serde_yaml::Value)| {
            let value = match value {
                serde_yaml::Value::String(text) => text,
                serde_yaml::Value::Bool(value) => value.to_string(),
                serde_yaml::Value::Number(value) => value.to_string(),
                serde_yaml::Value::Null => String::new(),
                _ => return Err(format!("{path}: the label `{key}` is no text")),
            };
            labels::check_key(&key)
                .and_then(|()| check_reserved(&key))
                .and_then(|()| labels::check_value(&value))
                .map_err(|error| format!("{path}: {error}"))?;
            Ok((key, value))
        };
        let labels = labels.unwrap_or_default().into_iter();
        labels.map(label).collect::<Result<_, _>>().map(Self)
    }
}

/// By these the service and Kubernetes find Jobs and Pods.
fn check_reserved(key: &str) -> Result<(), String> {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_reserved = matches!(domain, "keptn.sh" | "batch.kubernetes.io")
        || matches!(key, names::MANAGED_BY | "job-name" | "controller-uid");
    if is_reserved {
        return Err(format!(
            "`{key}` is a label of this service or of Kubernetes' own"
        ));
    }
    Ok(())
}

/// The text of a file that may be absent.
fn text_of(path: &str) -> Result<Option<String>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{path} cannot be read: {error}")),
    }
}

/// A file as JSON or YAML; its keys are read without regard to case.
fn security_context<T: DeserializeOwned + Serialize>(path: &str) -> Result<Option<T>, String> {
    let Some(text) = text_of(path)? else {
        return Ok(None);
    };
    let value: Value =
        serde_yaml::from_str(&text).map_err(|error| format!("{path} is no JSON: {error}"))?;
    let value = match value {
        // An empty file says nothing.
        Value::Null => Value::Object(Map::new()),
        value => with_known_case(value).map_err(|error| format!("{path}: {error}"))?,
    };
    let context: T = serde_json::from_value(value.clone())
        .map_err(|error| format!("{path} is no security context of Kubernetes: {error}"))?;
    // Kubernetes' types pass over what they do not know.
    let kept = serde_json::to_value(&context).unwrap_or_default();
    match lost(&value, &kept, "") {
        Some(field) => Err(format!(
            "{path}: Kubernetes knows no field `{field}` in this security context"
        )),
        None => Ok(Some(context)),
    }
}

fn with_known_case(value: Value) -> Result<Value, String> {
    Ok(match value {
        Value::Object(fields) => {
            let mut seen = BTreeSet::new();
            let field = |(name, value): (String, Value)| {
                if !seen.insert(name.to_ascii_lowercase()) {
                    return Err(format!("`{name}` is there twice, in two spellings"));
                }
                let known = FIELDS
                    .iter()
                    .find(|known| known.eq_ignore_ascii_case(&name));
                let known =
                    known.ok_or_else(|| format!("`{name}` is no field of a security context"))?;
                Ok(((*known).to_owned(), with_known_case(value)?))
            };
            Value::Object(
                fields
                    .into_iter()
                    .map(field)
                    .collect::<Result<_, String>>()?,
            )
        }
        Value::Array(items) => {
            let items = items.into_iter().map(with_known_case);
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        other => other,
    })
}

/// The first field that is not in what was kept.
fn lost(written: &Value, kept: &Value, path: &str) -> Option<String> {
    match written {
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            let path = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            match kept.get(name) {
                Some(kept) => lost(value, kept, &path),
                None if value.is_null() => None,
                None => Some(path),
            }
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| lost(item, kept.get(index)?, &format!("{path}[{index}]"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    fn container(text: &str) -> String {
        let (_directory, path) = file(text);
        match ContainerDefaults::read(&path) {
            Ok(defaults) => serde_json::to_string(&defaults.0).unwrap(),
            Err(error) => error.replace(&path, "FILE"),
        }
    }

    #[test]
    fn the_files_of_the_originals_chart_are_read() {
        let chart = r#"{"AllowPrivilegeEscalation": false, "Capabilities": {"Drop": ["all"]}, "Privileged": false,
            "ReadOnlyRootFilesystem": true, "RunAsGroup": 2000, "RunAsNonRoot": true, "RunAsUser": 1000,
            "SeccompProfile": {"Type": "RuntimeDefault"}}"#;
        insta::assert_snapshot!(container(chart), @r#"{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"privileged":false,"readOnlyRootFilesystem":true,"runAsGroup":2000,"runAsNonRoot":true,"runAsUser":1000,"seccompProfile":{"type":"RuntimeDefault"}}"#);
        let (_directory, path) =
            file(r#"{"FsGroup": 2000, "runAsUser": 7, "SupplementalGroups": [1]}"#);
        let pod = PodDefaults::read(&path).unwrap();
        insta::assert_snapshot!(serde_json::to_string(&pod.0).unwrap(), @r#"{"fsGroup":2000,"runAsUser":7,"supplementalGroups":[1]}"#);
    }

    #[test]
    fn without_a_file_the_defaults_are_those_of_the_restricted_standard() {
        assert_eq!(
            ContainerDefaults::read("/does/not/exist"),
            Ok(ContainerDefaults::default())
        );
        assert_eq!(
            PodDefaults::read("/does/not/exist"),
            Ok(PodDefaults::default())
        );
        assert_eq!(JobLabels::read("/does/not/exist"), Ok(JobLabels::default()));
    }

    #[test]
    fn a_file_with_a_mistake_is_refused() {
        let rows = [
            r#"{"runAsUsr": 1}"#,
            r#"{"fsGroup": 1}"#,
            r#"{"runAsUser": "root"}"#,
            r#"{"capabilities": {"user": "x"}}"#,
            r#"{"Privileged": true, "privileged": false}"#,
            "[",
            "[1]",
        ]
        .map(container);
        insta::assert_snapshot!(rows.join("\n"), @r#"
        FILE: `runAsUsr` is no field of a security context
        FILE: Kubernetes knows no field `fsGroup` in this security context
        FILE is no security context of Kubernetes: invalid type: string "root", expected i64
        FILE: Kubernetes knows no field `capabilities.user` in this security context
        FILE: `privileged` is there twice, in two spellings
        FILE is no JSON: did not find expected node content at line 2 column 1, while parsing a flow node
        FILE is no security context of Kubernetes: invalid type: sequence, expected SecurityContext
        "#);
    }

    #[test]
    fn what_the_cluster_would_refuse_in_every_job_is_refused_at_the_start() {
        let pod = |text: &str| {
            let (_directory, path) = file(text);
            PodDefaults::read(&path).unwrap_err().replace(&path, "FILE")
        };
        let containers = [
            r#"{"runAsUser": -1}"#,
            r#"{"RunAsGroup": 2147483648}"#,
            r#"{"procMount": "unmasked"}"#,
            r#"{"seccompProfile": {"type": "runtime/default"}}"#,
            r#"{"seccompProfile": {}}"#,
            r#"{"seccompProfile": {"type": "Localhost"}}"#,
            r#"{"seccompProfile": {"type": "Localhost", "localhostProfile": "../a.json"}}"#,
        ]
        .map(container);
        let pods = [
            r#"{"fsGroup": -1}"#,
            r#"{"supplementalGroups": [1, 2147483648]}"#,
            r#"{"seccompProfile": {"type": "Unconfined", "localhostProfile": "a.json"}}"#,
        ]
        .map(pod);
        insta::assert_snapshot!([&containers[..], &pods[..]].concat().join("\n"), @"
        FILE: runAsUser: expected a whole number from 0 to 2147483647
        FILE: runAsGroup: expected a whole number from 0 to 2147483647
        FILE: procMount: unknown value `unmasked`, expected one of `Default`, `Unmasked`
        FILE: seccompProfile.type: unknown value `runtime/default`, expected one of `RuntimeDefault`, `Localhost`, `Unconfined`
        FILE: seccompProfile.type: unknown value ``, expected one of `RuntimeDefault`, `Localhost`, `Unconfined`
        FILE: seccompProfile: `type: Localhost` needs `localhostProfile`, a file on the node
        FILE: seccompProfile.localhostProfile: `../a.json` is no profile of the node, expected a relative path without `..` such as `profiles/audit.json`
        FILE: fsGroup: expected a whole number from 0 to 2147483647
        FILE: supplementalGroups: expected a whole number from 0 to 2147483647
        FILE: seccompProfile.localhostProfile: allowed only with `type: Localhost`
        ");
    }

    #[test]
    fn labels_are_checked_by_kubernetes_rules() {
        let labels = |text: &str| {
            let (_directory, path) = file(text);
            match JobLabels::read(&path) {
                Ok(labels) => format!("{:?}", labels.0),
                Err(error) => error.replace(&path, "FILE"),
            }
        };
        let rows = [
            "TestLabel1: SomeKey_0\nsome.dns.name/identifier: value\nnumber: 1",
            "",
            "a: b c",
            "a b: c",
            "a: [b]",
            "keptn.sh/jes-reported: x",
            "job-name: x",
            "- a",
        ]
        .map(labels);
        insta::assert_snapshot!(rows.join("\n"), @r#"
        {"TestLabel1": "SomeKey_0", "number": "1", "some.dns.name/identifier": "value"}
        {}
        FILE: `b c` is no value of a Kubernetes label, allowed are at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends
        FILE: `a b` is no key of a Kubernetes label, expected one such as `kubernetes.io/arch`
        FILE: the label `a` is no text
        FILE: `keptn.sh/jes-reported` is a label of this service or of Kubernetes' own
        FILE: `job-name` is a label of this service or of Kubernetes' own
        FILE is no mapping of labels to texts, such as `team: blue`: invalid type: sequence, expected a map
        "#);
    }
}
