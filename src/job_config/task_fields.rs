//! The fields of a task that are lists and mappings of their own.

use std::collections::BTreeMap;

use super::fields::{Amounts, Image, Resources, Retries, check_annotation, words};
use super::files::{FileEntry, Level, ResourceUri};
use super::problem::{Problem, Problems, cited};
use super::quantity::Quantity;
use super::reader::Format;
use super::reader::value::{Fields, Keys, Value};
use super::yaml::Kind;

pub(super) const FILE: [&str; 2] = ["path", "level"];
pub(super) const RESOURCES: [&str; 2] = ["limits", "requests"];
pub(super) const AMOUNTS: [&str; 2] = ["cpu", "memory"];

/// They are in labels and messages.
const MAX_NAME_BYTES: usize = 1024;

/// Each is an argument of the init container.
const MAX_FILES: usize = 1000;

/// Linux refuses to start a program with a longer argument or `NAME=value` (`MAX_ARG_STRLEN`, 32 pages of
/// 4 KiB).
const MAX_ARGUMENT_BYTES: usize = 32 * 4096 - 1;

/// Of an action or a task.
pub(super) fn name(fields: &Fields<'_>, problems: &mut Problems) -> String {
    let bounded = |text: &str| match text.len() {
        0..=MAX_NAME_BYTES => Ok(text.to_owned()),
        bytes => Err(format!(
            "{bytes} bytes long, at most {MAX_NAME_BYTES} are allowed"
        )),
    };
    let name = fields.get("name");
    name.and_then(|name| name.parsed(bounded, problems))
        .unwrap_or_default()
}

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
    let mut entries = fields.list("files", "a list", problems);
    if let Some(first) = entries.get(MAX_FILES) {
        problems.add(first.error(format!(
            "at most {MAX_FILES} entries are allowed, a directory or a pattern can take the place of many"
        )));
    }
    entries.truncate(MAX_FILES);
    entries
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

/// What a program is started with, as a list.
pub(super) fn arguments(fields: &Fields<'_>, name: &str, problems: &mut Problems) -> Vec<String> {
    let expected = "a list such as `[sh, -c, echo hello]`";
    fields
        .list(name, expected, problems)
        .iter()
        .filter_map(|value| value.parsed(argument, problems))
        .collect()
}

/// `cmd` of the older formats, one text.
pub(super) fn command_line(fields: &Fields<'_>, problems: &mut Problems) -> Vec<String> {
    let cmd = fields.get("cmd");
    let cmd = cmd.and_then(|cmd| cmd.parsed(without_nul, problems));
    words(&cmd.unwrap_or_default())
}

pub(super) fn working_dir(fields: &Fields<'_>, problems: &mut Problems) -> Option<String> {
    let path = fields.get("workingDir")?.parsed(without_nul, problems)?;
    (!path.is_empty()).then_some(path)
}

fn argument(text: &str) -> Result<String, String> {
    if text.len() > MAX_ARGUMENT_BYTES {
        return Err(format!(
            "{} bytes long, a program cannot be started with more than {MAX_ARGUMENT_BYTES}",
            text.len()
        ));
    }
    without_nul(text)
}

fn without_nul(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("holds a NUL, with which no program can be started".into());
    }
    Ok(text.to_owned())
}

/// The text of a variable, which is there as `NAME=value`.
pub(crate) fn check_variable(name: &str, text: &str) -> Result<(), String> {
    let bytes = name.len() + 1 + text.len();
    if bytes > MAX_ARGUMENT_BYTES {
        return Err(format!(
            "name and value take {bytes} bytes, a program cannot be started with more than \
             {MAX_ARGUMENT_BYTES}"
        ));
    }
    if text.contains('\0') {
        return Err("its value holds a NUL".into());
    }
    Ok(())
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
    let resources = Resources {
        limits: amounts("limits").unwrap_or_default(),
        requests: amounts("requests").unwrap_or_default(),
    };
    requests_within_limits(&value, &resources, problems);
    Some(resources)
}

fn requests_within_limits(value: &Value<'_>, resources: &Resources, problems: &mut Problems) {
    let Resources { limits, requests } = resources;
    for (name, request, limit) in [
        ("cpu", &requests.cpu, &limits.cpu),
        ("memory", &requests.memory, &limits.memory),
    ] {
        if let (Some(request), Some(limit)) = (request, limit)
            && request.exceeds(limit)
            && let Some(at) = value.get("requests").and_then(|of| of.get(name))
        {
            let [request, limit] = [request, limit].map(|amount| cited(amount.as_str()));
            problems.add(at.error(format!(
                "`{request}` is more than the limit of `{limit}`, expected at most that"
            )));
        }
    }
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
