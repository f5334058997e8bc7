//! `volumes` and `volumeMounts`: what a task has beside /keptn, and where.

use std::collections::HashSet;

use super::sources;
use crate::job_config::files::VOLUME;
use crate::job_config::labels;
use crate::job_config::pod_parts::{Volume, VolumeMount};
use crate::job_config::problem::{Problem, Problems, cited, quoted};
use crate::job_config::reader::typed;
use crate::job_config::reader::value::{Fields, Value, meant};
use crate::job_config::yaml::Scalar;

/// As the segments of a path.
const OWN_DIRECTORY: &str = "keptn";

/// Some sources that a message can name; there are thirty.
const USUAL_SOURCES: [&str; 4] = ["configMap", "emptyDir", "persistentVolumeClaim", "secret"];

const PROPAGATIONS: [(&str, ()); 3] =
    [("None", ()), ("HostToContainer", ()), ("Bidirectional", ())];
const RECURSIVE_READ_ONLY: [(&str, ()); 3] =
    [("Disabled", ()), ("IfPossible", ()), ("Enabled", ())];

pub(super) fn volumes(values: &[Value<'_>], problems: &mut Problems) -> Vec<Volume> {
    let mut names = HashSet::new();
    let mut volumes = Vec::new();
    for value in values {
        let Some(volume) = typed::read::<Volume>(value, problems) else {
            continue;
        };
        if let Some(name) = value.get("name")
            && name.parsed(labels::check_dns_label, problems).is_some()
        {
            if volume.name == VOLUME {
                let message = format!("`{VOLUME}` is the volume of /keptn, expected another name");
                problems.add(name.error(message));
            } else if !names.insert(volume.name.clone()) {
                let shown = cited(&volume.name);
                let message = format!("duplicate name `{shown}`, expected each volume's once");
                problems.add(name.error(message));
            }
        }
        source(value, problems);
        volumes.push(volume);
    }
    volumes
}

/// Just one.
fn source(volume: &Value<'_>, problems: &mut Problems) {
    let entries = volume.node.as_mapping().map_or(&[][..], |of| &of.entries);
    let sources = entries.iter().filter(|entry| entry.name() != Some("name"));
    let (empty, found): (Vec<_>, Vec<_>) = sources.partition(|entry| entry.value.is_null());
    let named: Vec<&str> = found.iter().filter_map(|entry| entry.name()).collect();
    match found.as_slice() {
        [] => {
            let empty = empty.first().and_then(|entry| entry.name());
            let help = empty.map(|name| format!("one without fields is written `{name}: {{}}`"));
            let message = format!("no source, expected one such as {}", quoted(&USUAL_SOURCES));
            problems.add(volume.error(message).help(help));
        }
        [one] => {
            if let Some(name) = one.name() {
                sources::check(name, &volume.below(name, &one.value), problems);
            }
        }
        [_, second, ..] => {
            let message = format!("{} are several sources, expected one", quoted(&named));
            problems.add(Problem::error(
                Some(second.key.extent()),
                &volume.path,
                message,
            ));
        }
    }
}

pub(super) fn mounts(
    task: &Fields<'_>,
    values: &[Value<'_>],
    volumes: &[Value<'_>],
    problems: &mut Problems,
) -> Vec<VolumeMount> {
    let names: Vec<String> = volumes
        .iter()
        .filter_map(|volume| Some(volume.get("name")?.node.as_scalar()?.text.clone()))
        .collect();
    let result_file = task.get("resultFile");
    let result_file = result_file.and_then(|path| mount_path(&path.node.as_scalar()?.text).ok());
    let result_file = result_file.unwrap_or_default();
    let security = task.get("securityContext");
    let is_privileged = security.is_some_and(|context| is_true(&context, "privileged"));
    let mut paths = HashSet::new();
    let mut mounts = Vec::new();
    for value in values {
        let Some(mount) = typed::read::<VolumeMount>(value, problems) else {
            continue;
        };
        if let Some(name) = value.get("name")
            && !names.contains(&mount.name)
        {
            problems.add(unknown(&name, &mount.name, &names));
        }
        if let Some(path) = value.get("mountPath")
            && let Some(segments) = path.parsed(mount_path, problems)
        {
            let shown = cited(&mount.mount_path);
            if result_file.starts_with(&segments) {
                problems.add(path.error(format!(
                    "`{shown}` is in the way of the task's `resultFile`, expected another path"
                )));
            }
            if !paths.insert(segments) {
                problems.add(path.error(format!("duplicate path `{shown}`, expected each once")));
            }
        }
        propagation(value, is_privileged, problems);
        recursive_read_only(value, problems);
        for name in ["subPath", "subPathExpr"] {
            if let Some(path) = value.get(name) {
                path.parsed(sub_path, problems);
            }
        }
        if let (Some(_), Some(path)) = (value.get("subPath"), value.get("subPathExpr")) {
            problems.add(path.error("expected either `subPath` or `subPathExpr`, not both"));
        }
        mounts.push(mount);
    }
    mounts
}

fn is_true(value: &Value<'_>, name: &str) -> bool {
    let boolean = value.get(name);
    boolean.and_then(|value| value.node.as_scalar().and_then(Scalar::boolean)) == Some(true)
}

fn propagation(mount: &Value<'_>, is_privileged: bool, problems: &mut Problems) {
    let Some(propagation) = mount.get("mountPropagation") else {
        return;
    };
    if propagation.one_of(&PROPAGATIONS, problems).is_some()
        && has_text(&propagation, "Bidirectional")
        && !is_privileged
    {
        problems.add(
            propagation
                .error("`Bidirectional` needs `privileged: true` in the task's `securityContext`"),
        );
    }
}

fn recursive_read_only(mount: &Value<'_>, problems: &mut Problems) {
    let Some(recursive) = mount.get("recursiveReadOnly") else {
        return;
    };
    if recursive.one_of(&RECURSIVE_READ_ONLY, problems).is_none()
        || has_text(&recursive, "Disabled")
    {
        return;
    }
    if !is_true(mount, "readOnly") {
        problems.add(recursive.error("allowed only with `readOnly: true`"));
    }
    let propagation = mount.get("mountPropagation");
    if propagation.is_some_and(|value| !has_text(&value, "None")) {
        problems.add(recursive.error("allowed only without `mountPropagation`"));
    }
}

fn has_text(value: &Value<'_>, text: &str) -> bool {
    let scalar = value.node.as_scalar();
    scalar.is_some_and(|scalar| scalar.text == text)
}

fn unknown(at: &Value<'_>, name: &str, names: &[String]) -> Problem {
    if name == VOLUME {
        return at.error(format!(
            "`{VOLUME}` is at /keptn already, expected the name of one of the task's `volumes`"
        ));
    }
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = format!("the task has no volume `{}`", cited(name));
    let help = "add it to the task's `volumes`";
    at.error(message)
        .help(meant(name, &known).or(Some(help.to_owned())))
}

/// The segments of the path, which is not in the way of /keptn.
fn mount_path(path: &str) -> Result<Vec<String>, String> {
    let expected = "expected an absolute path such as `/data`";
    let Some(relative) = path.strip_prefix('/') else {
        return Err(format!("`{path}` is not absolute, {expected}"));
    };
    let segments: Vec<&str> = relative.split('/').filter(|one| !one.is_empty()).collect();
    if segments.iter().any(|one| matches!(*one, "." | "..")) || path.contains(':') {
        return Err(format!(
            "`{path}` is not allowed, {expected} without `.`, `..` and `:`"
        ));
    }
    if path.chars().any(char::is_control) {
        return Err(format!("{path:?} holds control characters, {expected}"));
    }
    match segments.as_slice() {
        [] => Err(format!(
            "`{path}` would be in the place of the whole image, {expected}"
        )),
        [OWN_DIRECTORY] => Err(format!(
            "`{path}` is where the task's files are, expected a path elsewhere or below it"
        )),
        _ => Ok(segments.into_iter().map(str::to_owned).collect()),
    }
}

fn sub_path(path: &str) -> Result<(), String> {
    if path.starts_with('/') || path.split('/').any(|segment| segment == "..") {
        return Err(format!(
            "`{path}` leaves the volume, expected a relative path without `..`"
        ));
    }
    Ok(())
}
