//! The entries of `env`: what each format makes of `name`, `value`, `valueFrom` and `as`.

use super::fields::{EnvName, EnvVar, ObjectName, Render};
use super::json_path::JsonPath;
use super::problem::{Problem, Problems, cited, did_you_mean};
use super::reader::Paths;
use super::reader::value::{Fields, Keys, Value, meant};
use super::task_fields::check_variable;
use super::yaml::Kind;
use super::{EnvEntry, key_refs};

pub(crate) const ENTRY_UNVERSIONED: [&str; 2] = ["name", "value"];
pub(super) const ENTRY_V1: [&str; 3] = ["name", "value", "valueFrom"];
pub(crate) const ENTRY_V2: [&str; 4] = ["name", "value", "valueFrom", "as"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EnvFormat {
    /// `value` is always a path of the event.
    Unversioned,
    V1,
    /// Knows texts as well, and `as`.
    V2,
}

pub(super) fn read(
    task: &Fields<'_>,
    format: EnvFormat,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Vec<EnvEntry> {
    task.list("env", "a list", problems)
        .iter()
        .filter_map(|value| entry(value, format, paths, problems))
        .collect()
}

fn entry(
    value: &Value<'_>,
    format: EnvFormat,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<EnvEntry> {
    let (known, keys) = match format {
        EnvFormat::Unversioned => (&ENTRY_UNVERSIONED[..], Keys::Lenient),
        EnvFormat::V1 => (&ENTRY_V1[..], Keys::Strict),
        EnvFormat::V2 => (&ENTRY_V2[..], Keys::Strict),
    };
    let elsewhere = |key: &str| {
        (format == EnvFormat::V1 && key == "as").then(|| "`as` needs `apiVersion: v2`".to_owned())
    };
    let fields = value.fields(known, keys, elsewhere, problems)?;
    let name_value = fields.required("name", problems);
    let name = name_value
        .as_ref()
        .and_then(|name| name.parsed(EnvName::parse, problems));
    let source = match format {
        EnvFormat::Unversioned => {
            let path = fields.required("value", problems)?;
            event(&path, Render::Plain, paths, problems)
        }
        EnvFormat::V2 if has_key_ref(&fields) => key_ref(&fields, problems),
        EnvFormat::V1 | EnvFormat::V2 => {
            let render = match format {
                EnvFormat::V2 => fields.get("as").and_then(|value| render(&value, problems)),
                EnvFormat::Unversioned | EnvFormat::V1 => None,
            };
            let named = name_value.zip(name.as_ref());
            from(value, &fields, format, named, render, paths, problems)
        }
    };
    Some(EnvEntry {
        name: name?,
        source: source?,
        line: value.line(),
    })
}

fn has_key_ref(fields: &Fields<'_>) -> bool {
    let value_from = fields.get("valueFrom");
    value_from.is_some_and(|value| matches!(value.node.kind, Kind::Mapping(_)))
}

/// `valueFrom` as in a Pod.
fn key_ref(fields: &Fields<'_>, problems: &mut Problems) -> Option<EnvVar> {
    let value_from = fields.get("valueFrom")?;
    for name in ["value", "as"] {
        if let Some(value) = fields.get(name) {
            let message = format!(
                "`{name}` has no place beside a mapping in `valueFrom`, which says what the value is"
            );
            problems.add(Problem::error(fields.key_place(name), &value.path, message));
        }
    }
    key_refs::value_from(&value_from, problems).map(EnvVar::Key)
}

/// What `valueFrom` says in one word.
fn from(
    entry: &Value<'_>,
    fields: &Fields<'_>,
    format: EnvFormat,
    named: Option<(Value<'_>, &EnvName)>,
    render: Option<Render>,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<EnvVar> {
    let value_from = fields.get("valueFrom");
    let from = match &value_from {
        None => String::new(),
        Some(value) if format == EnvFormat::V1 && has_key_ref(fields) => {
            let help = "a mapping needs `apiVersion: v2`".to_owned();
            problems.add(value.error("expected a text").help(Some(help)));
            return None;
        }
        Some(value) => value.text(problems)?,
    };
    let text = fields.get("value");
    match (from.as_str(), format) {
        ("event", _) => match text {
            Some(path) => event(&path, render.unwrap_or(Render::Plain), paths, problems),
            None => JsonPath::parse("")
                .map_err(|error| problems.add(entry.error(error.to_string())))
                .map(|path| EnvVar::Event {
                    path,
                    render: Render::Plain,
                })
                .ok(),
        },
        ("secret", _) => {
            if let Some(text) = text {
                text.text(problems);
            }
            let (value, name) = named?;
            ObjectName::parse(name.as_str())
                .map(EnvVar::Secret)
                .map_err(|error| problems.add(value.error(error)))
                .ok()
        }
        ("string", EnvFormat::V2) => {
            let name = named.as_ref().map_or("", |(_, name)| name.as_str());
            let checked = |text: &str| check_variable(name, text).map(|()| text.to_owned());
            match text {
                None => Some(EnvVar::Literal(String::new())),
                Some(text) => text.parsed(checked, problems).map(EnvVar::Literal),
            }
        }
        (other, _) => {
            if let Some(text) = text {
                text.text(problems);
            }
            let (expected, known): (&str, &[&str]) = match format {
                EnvFormat::V2 => (
                    "`event`, `secret`, `string`, `{secretKeyRef: …}` or `{configMapKeyRef: …}`",
                    &["event", "secret", "string"],
                ),
                EnvFormat::V1 | EnvFormat::Unversioned => {
                    ("`event` or `secret`", &["event", "secret"])
                }
            };
            let (_, name) = named?;
            let help = match (other, format) {
                ("string", EnvFormat::V1) => Some("`string` needs `apiVersion: v2`".into()),
                _ => meant(other, known),
            };
            let wrong = match other {
                "" => "it has no valueFrom".to_owned(),
                // The original's text.
                _ => format!("unknown valueFrom {}", cited(other)),
            };
            let message =
                format!("could not add env with name {name}, {wrong}: expected {expected}");
            let at = value_from.as_ref().unwrap_or(entry);
            problems.add(at.error(message).help(help));
            None
        }
    }
}

fn event(
    value: &Value<'_>,
    render: Render,
    paths: &mut Paths,
    problems: &mut Problems,
) -> Option<EnvVar> {
    let path = value.parsed(JsonPath::parse, problems)?;
    paths.count(&path, value, problems);
    Some(EnvVar::Event { path, render })
}

fn render(value: &Value<'_>, problems: &mut Problems) -> Option<Render> {
    let text = value.text(problems)?;
    match text.to_ascii_lowercase().as_str() {
        "" => Some(Render::Plain),
        "json" => Some(Render::Json),
        "yaml" => Some(Render::Yaml),
        other => {
            let message = format!("unknown `as: {}`, expected `json` or `yaml`", cited(&text));
            let help = did_you_mean(other, &["json", "yaml"]);
            let help = help.map(|name| format!("did you mean `{name}`?"));
            problems.add(value.error(message).help(help));
            None
        }
    }
}
