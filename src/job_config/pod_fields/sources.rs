//! What a volume's files come from: the values of sources that the cluster refuses, or that no Pod can
//! start with.

use crate::job_config::fields::ObjectName;
use crate::job_config::labels;
use crate::job_config::problem::{Problem, Problems, quoted};
use crate::job_config::quantity::Quantity;
use crate::job_config::reader::value::Value;
use crate::job_config::versioned::PULL_POLICIES;

const MAX_MODE: i128 = 0o777;

/// Tokens of less than ten minutes are refused, and those of more than 2^32 seconds.
const TOKEN_SECONDS: std::ops::RangeInclusive<i128> = 600..=1 << 32;

const FIELD_REFS: [&str; 2] = ["fieldRef", "resourceFieldRef"];

/// An empty one checks nothing.
const HOST_PATH_TYPES: [(&str, ()); 7] = [
    ("Directory", ()),
    ("DirectoryOrCreate", ()),
    ("File", ()),
    ("FileOrCreate", ()),
    ("Socket", ()),
    ("CharDevice", ()),
    ("BlockDevice", ()),
];

/// `kind` is the key that `source` stands under.
pub(super) fn check(kind: &str, source: &Value<'_>, problems: &mut Problems) {
    match kind {
        "secret" => {
            object(source, "secretName", problems);
            files(source, problems);
        }
        "configMap" => {
            object(source, "name", problems);
            files(source, problems);
        }
        "persistentVolumeClaim" => object(source, "claimName", problems),
        "azureFile" => object(source, "secretName", problems),
        "downwardAPI" => downward(source, problems),
        "projected" => projected(source, problems),
        "csi" => {
            checked(source, "driver", driver, problems);
        }
        "emptyDir" => {
            checked(source, "medium", medium, problems);
        }
        "hostPath" => {
            checked(source, "path", no_way_up, problems);
            let is_empty =
                |kind: &Value<'_>| kind.node.as_scalar().is_some_and(|of| of.text.is_empty());
            if let Some(kind) = source.get("type").filter(|kind| !is_empty(kind)) {
                kind.one_of(&HOST_PATH_TYPES, problems);
            }
        }
        "image" => {
            if source.get("reference").is_none() {
                problems.add(source.error("missing field `reference`"));
            }
            if let Some(policy) = source.get("pullPolicy") {
                policy.one_of(&PULL_POLICIES, problems);
            }
        }
        _ => {}
    }
    for name in ["secretRef", "nodePublishSecretRef"] {
        if let Some(secret) = source.get(name) {
            object(&secret, "name", problems);
        }
    }
}

/// A field with the name of an object, optional in Kubernetes' types and not in its API.
fn object(value: &Value<'_>, name: &str, problems: &mut Problems) {
    match value.get(name) {
        Some(name) => {
            name.parsed(ObjectName::parse, problems);
        }
        None => problems.add(value.error(format!("missing field `{name}`"))),
    }
}

fn checked<T>(
    value: &Value<'_>,
    name: &str,
    check: impl FnOnce(&str) -> Result<T, String>,
    problems: &mut Problems,
) -> Option<T> {
    value.get(name)?.parsed(check, problems)
}

/// Keys of an object as files.
fn files(source: &Value<'_>, problems: &mut Problems) {
    mode(source, "defaultMode", problems);
    for item in items(source, "items") {
        checked(&item, "key", labels::check_data_key, problems);
        checked(&item, "path", file_path, problems);
        mode(&item, "mode", problems);
    }
}

/// Fields of the Pod as files.
fn downward(source: &Value<'_>, problems: &mut Problems) {
    mode(source, "defaultMode", problems);
    for item in items(source, "items") {
        checked(&item, "path", file_path, problems);
        mode(&item, "mode", problems);
        match FIELD_REFS.map(|name| item.get(name)) {
            [Some(field), None] => {
                checked(&field, "fieldPath", field_path, problems);
                if let Some(version) = field.get("apiVersion") {
                    version.parsed(field_version, problems);
                }
            }
            [None, Some(resource)] => {
                checked(&resource, "resource", resource_of_container, problems);
            }
            _ => one_of(&item, &FIELD_REFS, problems),
        }
    }
}

fn projected(source: &Value<'_>, problems: &mut Problems) {
    mode(source, "defaultMode", problems);
    for entry in items(source, "sources") {
        let of = entry.node.as_mapping().map_or(&[][..], |of| &of.entries);
        let found: Vec<_> = of.iter().filter(|of| !of.value.is_null()).collect();
        let [one] = found.as_slice() else {
            let kinds = ["secret", "configMap", "downwardAPI", "serviceAccountToken"];
            one_of(&entry, &kinds, problems);
            continue;
        };
        let name = one.name().unwrap_or_default();
        let value = entry.below(name, &one.value);
        match name {
            "secret" | "configMap" => {
                object(&value, "name", problems);
                files(&value, problems);
            }
            "downwardAPI" => downward(&value, problems),
            "serviceAccountToken" => {
                checked(&value, "path", file_path, problems);
                token_seconds(&value, problems);
            }
            _ => {
                checked(&value, "path", file_path, problems);
            }
        }
    }
}

/// Neither none of the keys nor several.
fn one_of(value: &Value<'_>, names: &[&str], problems: &mut Problems) {
    let entries = value.node.as_mapping().map_or(&[][..], |of| &of.entries);
    let found = entries.iter().filter(|entry| {
        let is_source = |name: &str| name != "path" && name != "mode";
        !entry.value.is_null() && entry.name().is_some_and(is_source)
    });
    let names = quoted(names);
    problems.add(match found.skip(1).last() {
        Some(last) => {
            let message = format!("expected just one of {names}, not several");
            Problem::error(Some(last.key.extent()), &value.path, message)
        }
        None => value.error(format!("expected one of {names}")),
    });
}

fn items<'n>(value: &Value<'n>, name: &str) -> Vec<Value<'n>> {
    value.get(name).map(|list| list.items()).unwrap_or_default()
}

fn mode(value: &Value<'_>, name: &str, problems: &mut Problems) {
    let Some(value) = value.get(name) else {
        return;
    };
    let expected = "a mode from 0 to 0o777, such as `0o640`";
    let number = value.whole_number(expected, problems);
    if number.is_some_and(|mode| !(0..=MAX_MODE).contains(&mode)) {
        // `644` is one of 0o1204.
        let text = value.node.as_scalar().map_or("", |scalar| &scalar.text);
        let octal = text.len() == 3 && text.bytes().all(|digit| (b'0'..b'8').contains(&digit));
        let help = octal.then(|| format!("did you mean `0o{text}`?"));
        problems.add(value.error(format!("expected {expected}")).help(help));
    }
}

fn token_seconds(token: &Value<'_>, problems: &mut Problems) {
    let Some(value) = token.get("expirationSeconds") else {
        return;
    };
    let (least, most) = (TOKEN_SECONDS.start(), TOKEN_SECONDS.end());
    let expected = format!("a whole number of seconds from {least} to {most}");
    let seconds = value.whole_number(&expected, problems);
    if seconds.is_some_and(|seconds| !TOKEN_SECONDS.contains(&seconds)) {
        problems.add(value.error(format!("expected {expected}")));
    }
}

/// Where in its volume a file is; the kubelet's own begin with `..`.
fn file_path(path: &str) -> Result<(), String> {
    let leaves = path.starts_with('/') || path.split('/').any(|segment| segment == "..");
    if path.is_empty() || leaves || path.starts_with("..") {
        return Err(format!(
            "`{path}` is no path of a file in the volume, expected a relative one without `..` such as \
             `config/ca.crt`"
        ));
    }
    Ok(())
}

fn no_way_up(path: &str) -> Result<(), String> {
    if path.split('/').any(|segment| segment == "..") {
        return Err(format!(
            "`{path}` is not allowed, expected a path without `..`"
        ));
    }
    Ok(())
}

fn medium(text: &str) -> Result<(), String> {
    let is_size = |size: &str| Quantity::parse(size).is_ok();
    let huge = text.strip_prefix("HugePages");
    let of_size = huge.and_then(|rest| rest.strip_prefix('-'));
    if matches!(text, "" | "Memory" | "HugePages") || of_size.is_some_and(is_size) {
        return Ok(());
    }
    Err(format!(
        "unknown value `{text}`, expected one of `Memory`, `HugePages`, `HugePages-<size>` such as \
         `HugePages-2Mi`"
    ))
}

fn driver(text: &str) -> Result<(), String> {
    if text.len() <= 63 && ObjectName::parse(&text.to_ascii_lowercase()).is_ok() {
        return Ok(());
    }
    Err(format!(
        "`{text}` is no name of a CSI driver, expected one such as `secrets-store.csi.k8s.io`"
    ))
}

fn field_path(path: &str) -> Result<(), String> {
    let is_known = match path.strip_suffix("']").and_then(|of| of.split_once("['")) {
        // Kubernetes takes the keys of annotations in any case.
        Some(("metadata.annotations", key)) => labels::is_key(&key.to_ascii_lowercase()),
        Some(("metadata.labels", key)) => labels::is_key(key),
        Some(_) => false,
        None => matches!(
            path,
            "metadata.name"
                | "metadata.namespace"
                | "metadata.uid"
                | "metadata.labels"
                | "metadata.annotations"
        ),
    };
    if is_known {
        return Ok(());
    }
    Err(format!(
        "`{path}` is no field that a volume can have, expected one of `metadata.name`, \
         `metadata.namespace`, `metadata.uid`, `metadata.labels`, `metadata.annotations`, \
         `metadata.labels['<key>']`, `metadata.annotations['<key>']`"
    ))
}

/// Of `fieldPath`.
fn field_version(version: &str) -> Result<(), String> {
    match version {
        "" | "v1" => Ok(()),
        other => Err(format!("unknown value `{other}`, expected `v1`")),
    }
}

fn resource_of_container(name: &str) -> Result<(), String> {
    let amount = name
        .strip_prefix("limits.")
        .or_else(|| name.strip_prefix("requests."));
    let is_known = amount.is_some_and(|name| {
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
    });
    if is_known {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no resource of a container, expected one such as `limits.cpu` or `requests.memory`"
    ))
}
