//! The fields of a task that are lists and mappings of their own.

use std::collections::BTreeMap;

use super::fields::{
    Amounts, Capabilities, Image, Quantity, Resources, Retries, SeccompProfile, SecurityContext,
    check_annotation,
};
use super::files::{FileEntry, Level, ResourceUri};
use super::problem::{Problem, Problems};
use super::reader::Format;
use super::reader::value::{Fields, Keys, Value};
use super::yaml::Kind;

pub(super) const FILE: [&str; 2] = ["path", "level"];
pub(super) const RESOURCES: [&str; 2] = ["limits", "requests"];
pub(super) const AMOUNTS: [&str; 2] = ["cpu", "memory"];
pub(super) const SECURITY_CONTEXT: [&str; 9] = [
    "capabilities",
    "privileged",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "readOnlyRootFilesystem",
    "allowPrivilegeEscalation",
    "procMount",
    "seccompProfile",
];
pub(super) const CAPABILITIES: [&str; 2] = ["add", "drop"];
pub(super) const SECCOMP_PROFILE: [&str; 2] = ["type", "localhostProfile"];

/// Empty where there is a problem with it.
pub(super) fn image(fields: &Fields<'_>, problems: &mut Problems) -> String {
    let image = fields.required("image", problems);
    image
        .and_then(|image| image.parsed(Image::parse, problems))
        .map_or_else(String::new, |image| image.to_string())
}

const LEVELS: [(&str, Level); 3] = [
    ("service", Level::Service),
    ("stage", Level::Stage),
    ("project", Level::Project),
];

pub(super) fn files(
    fields: &Fields<'_>,
    format: Format,
    problems: &mut Problems,
) -> Vec<FileEntry> {
    fields
        .list("files", "a list", problems)
        .iter()
        .filter_map(|value| file(value, format, problems))
        .collect()
}

/// A path, or in today's format a mapping that says on which level it is.
fn file(value: &Value<'_>, format: Format, problems: &mut Problems) -> Option<FileEntry> {
    if !matches!(value.node.kind, Kind::Mapping(_)) {
        let path = value.parsed(ResourceUri::parse, problems)?;
        let level = Level::default();
        return Some(FileEntry { path, level });
    }
    if format != Format::V2 {
        let help = "a mapping needs `apiVersion: v2`".to_owned();
        problems.add(value.error("expected a text").help(Some(help)));
        return None;
    }
    let fields = value.fields(&FILE, Keys::Strict, nowhere, problems)?;
    let path = fields
        .required("path", problems)
        .and_then(|path| path.parsed(ResourceUri::parse, problems));
    let level = fields
        .get("level")
        .and_then(|level| level.one_of(&LEVELS, problems));
    Some(FileEntry {
        path: path?,
        level: level.unwrap_or_default(),
    })
}

pub(super) fn retries(value: &Value<'_>, problems: &mut Problems) -> Option<Retries> {
    let expected = format!("a whole number from 0 to {}", Retries::MAX);
    let number = value.whole_number(&expected, problems)?;
    Retries::new(number)
        .map_err(|error| problems.add(value.error(error)))
        .ok()
}

/// `emptyDirSizeLimit`: nothing fits into nothing.
pub(super) fn size_limit(text: &str) -> Result<Quantity, String> {
    let quantity = Quantity::parse(text)?;
    let number = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let mantissa = number.split(['e', 'E']).next().unwrap_or_default();
    if mantissa.bytes().all(|byte| b"+0.".contains(&byte)) {
        return Err(format!(
            "`{text}` leaves no room for files, expected a quantity such as `20Mi`"
        ));
    }
    Ok(quantity)
}

pub(super) fn resources(fields: &Fields<'_>, problems: &mut Problems) -> Option<Resources> {
    let value = fields.get("resources")?;
    let fields = value.fields(&RESOURCES, Keys::Strict, nowhere, problems)?;
    let mut amounts = |name| {
        let value = fields.get(name)?;
        let fields = value.fields(&AMOUNTS, Keys::Strict, nowhere, problems)?;
        Some(Amounts {
            cpu: amount(&fields, "cpu", problems),
            memory: amount(&fields, "memory", problems),
        })
    };
    Some(Resources {
        limits: amounts("limits").unwrap_or_default(),
        requests: amounts("requests").unwrap_or_default(),
    })
}

/// `""` is "not set", as in the original.
fn amount(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<Quantity> {
    let set = |text: &str| {
        (!text.is_empty())
            .then(|| Quantity::parse(text))
            .transpose()
    };
    fields.get(name)?.parsed(set, problems)?
}

pub(super) fn security_context(
    value: &Value<'_>,
    problems: &mut Problems,
) -> Option<SecurityContext> {
    let fields = value.fields(&SECURITY_CONTEXT, Keys::Strict, nowhere, problems)?;
    let proc_mount = fields.get("procMount");
    Some(SecurityContext {
        capabilities: fields
            .get("capabilities")
            .and_then(|value| capabilities(&value, problems)),
        privileged: fields.boolean("privileged", problems),
        run_as_user: id(&fields, "runAsUser", problems),
        run_as_group: id(&fields, "runAsGroup", problems),
        run_as_non_root: fields.boolean("runAsNonRoot", problems),
        read_only_root_filesystem: fields.boolean("readOnlyRootFilesystem", problems),
        allow_privilege_escalation: fields.boolean("allowPrivilegeEscalation", problems),
        proc_mount: proc_mount.and_then(|value| value.text(problems)),
        seccomp_profile: fields
            .get("seccompProfile")
            .and_then(|value| seccomp_profile(&value, problems)),
    })
}

fn id(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Option<i64> {
    let value = fields.get(name)?;
    let number = value.whole_number("a whole number", problems)?;
    i64::try_from(number)
        .map_err(|_| problems.add(value.error("expected a whole number of at most 64 bits")))
        .ok()
}

fn capabilities(value: &Value<'_>, problems: &mut Problems) -> Option<Capabilities> {
    let fields = value.fields(&CAPABILITIES, Keys::Strict, nowhere, problems)?;
    Some(Capabilities {
        add: fields.texts("add", "a list", problems),
        drop: fields.texts("drop", "a list", problems),
    })
}

fn seccomp_profile(value: &Value<'_>, problems: &mut Problems) -> Option<SeccompProfile> {
    let fields = value.fields(&SECCOMP_PROFILE, Keys::Strict, nowhere, problems)?;
    let mut text = |name| fields.get(name)?.text(problems);
    Some(SeccompProfile {
        kind: text("type"),
        localhost_profile: text("localhostProfile"),
    })
}

pub(super) fn annotations(value: &Value<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    for (key, entry) in value.entries(problems) {
        if let Err(error) = check_annotation(key) {
            problems.add(Problem::error(Some(entry.key.extent()), &value.path, error));
        }
        let text = Value {
            node: &entry.value,
            path: value.path.clone(),
        };
        if let Some(text) = text.text(problems) {
            annotations.insert(key.to_owned(), text);
        }
    }
    annotations
}

fn nowhere(_key: &str) -> Option<String> {
    None
}
