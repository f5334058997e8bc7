//! The text of job/config.yaml → [`JobConfig`], or everything that is wrong with it.
//!
//! `serve` and `lint` read with the same function, so that one takes what the other takes. The text is
//! untrusted: bytes, nodes, depth, aliases, actions, tasks and costly paths are bounded, far above
//! any config that people write.

pub(super) mod typed;
pub(super) mod value;

use super::json_path::JsonPath;
use super::problem::{ConfigErrors, Problem, Problems, cited, did_you_mean};
use super::versioned::Version;
use super::yaml::{self, Kind, Node};
use super::{JobConfig, first_formats, versioned};
use value::{Fields, Value};

/// The name under which Keptn stores the config.
pub(crate) const CONFIG_URI: &str = "job/config.yaml";

/// A config of 1,000 tasks has about 100 KiB.
pub(crate) const MAX_CONFIG_BYTES: usize = 256 << 10;

/// Paths with wildcards, filters and `..` go through all of an event, each time.
const MAX_LIST_PATHS: usize = 32;

/// Job names have room for three digits of action and task number each.
const MAX_ACTIONS_AND_TASKS: usize = 999;

/// A config that is valid, with what its author should know all the same.
#[derive(Debug)]
pub(crate) struct ReadConfig {
    pub(crate) config: JobConfig,
    pub(crate) warnings: Vec<Problem>,
}

/// What can be said of a text, valid or not.
#[derive(Debug, Default)]
pub(crate) struct Examined {
    /// There if `errors` is not.
    pub(crate) config: Option<JobConfig>,
    pub(crate) errors: Option<ConfigErrors>,
    pub(crate) warnings: Vec<Problem>,
    /// There if the text is YAML, and more than comments.
    pub(crate) tree: Option<Node>,
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The two without `apiVersion`.
    Unversioned,
    V1,
    V2,
}

/// Reads a config of any format.
pub(crate) fn read(bytes: &[u8]) -> Result<ReadConfig, ConfigErrors> {
    let examined = examine(bytes);
    match (examined.config, examined.errors) {
        (_, Some(errors)) => Err(errors),
        (config, None) => Ok(ReadConfig {
            config: config.unwrap_or_default(),
            warnings: examined.warnings,
        }),
    }
}

/// Reads a config of any format, and keeps what was learnt on the way.
pub(crate) fn examine(bytes: &[u8]) -> Examined {
    let mut problems = Problems::default();
    let mut examined = Examined::default();
    let config = text(bytes)
        .and_then(|text| {
            yaml::parse(text).map_err(|error| Problem::error(Some(error.span), "", error.message))
        })
        .map(|tree| {
            examined.tree = tree;
            model(&mut examined, &mut problems)
        });
    let config = config.unwrap_or_else(|problem| {
        problems.add(problem);
        JobConfig::default()
    });
    (examined.warnings, examined.errors) = problems.finish();
    if examined.errors.is_none() {
        examined.config = Some(config);
    }
    examined
}

fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let whole = |message: String| Problem::error(None, "", message);
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(whole(format!(
            "{} bytes long, at most {MAX_CONFIG_BYTES} are allowed",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()]
            .split(|&byte| byte == b'\n')
            .count();
        whole(format!("line {line} is not UTF-8 text"))
    })?;
    if text.trim().is_empty() {
        return Err(whole(
            "the file is empty, expected at least `actions`".into(),
        ));
    }
    Ok(text)
}

fn model(examined: &mut Examined, problems: &mut Problems) -> JobConfig {
    let Some(tree) = &examined.tree else {
        // Comments only: nothing to do.
        examined.format = Some(Format::Unversioned);
        return JobConfig::default();
    };
    let top = Value::top(tree);
    let Some((format, config)) = formatted(&top, problems) else {
        return JobConfig::default();
    };
    examined.format = Some(format);
    if config.actions.is_empty() && !problems.has_errors() {
        let at = tree.at("actions").map(Node::head);
        let message = "there are none, so no event runs anything";
        problems.add(Problem::warning(at, "actions", message));
    }
    for (index, action) in config.actions.iter().enumerate() {
        if action.matchers.is_empty() && !problems.has_errors() {
            let path = format!("actions[{index}]");
            problems.add(Problem::warning(
                tree.at(&path).map(Node::head),
                &path,
                format!(
                    "action `{}` has no `events`, so it never runs",
                    cited(&action.name)
                ),
            ));
        }
    }
    config
}

/// Lets the format that `apiVersion` names read the rest.
fn formatted(top: &Value<'_>, problems: &mut Problems) -> Option<(Format, JobConfig)> {
    if !matches!(top.node.kind, Kind::Mapping(_)) {
        problems.add(top.error("expected a mapping of keys and values"));
        return None;
    }
    let Some(version) = top.node.get("apiVersion") else {
        return Some((Format::Unversioned, first_formats::read(top, problems)));
    };
    let version = Value {
        node: version,
        path: "apiVersion".into(),
    };
    let named = version.text(problems)?;
    let (format, version) = match named.as_str() {
        "v1" => (Format::V1, Version::V1),
        "v2" => (Format::V2, Version::V2),
        other => {
            let message = format!(
                "`{}` is not supported, expected `v2` (or `v1`)",
                cited(other)
            );
            let near = did_you_mean(&format!("v{other}"), &["v1", "v2"]);
            let help = near.filter(|near| near[1..] == *other || near.eq_ignore_ascii_case(other));
            let help = help.map(|near| format!("did you mean `{near}`?"));
            problems.add(version.error(message).help(help));
            return None;
        }
    };
    Some((format, versioned::read(top, version, problems)))
}

/// The items of `actions`, which have a most.
pub(super) fn actions<'n>(config: &Fields<'n>, problems: &mut Problems) -> Vec<Value<'n>> {
    bounded(config.list("actions", "a list", problems), problems)
}

/// The items of `tasks`, which have a most.
pub(super) fn tasks<'n>(action: &Fields<'n>, problems: &mut Problems) -> Vec<Value<'n>> {
    bounded(action.list("tasks", "a list", problems), problems)
}

fn bounded<'n>(mut items: Vec<Value<'n>>, problems: &mut Problems) -> Vec<Value<'n>> {
    if let Some(first) = items.get(MAX_ACTIONS_AND_TASKS) {
        problems.add(first.error(format!(
            "at most {MAX_ACTIONS_AND_TASKS} actions, and as many tasks in an action, are allowed"
        )));
    }
    items.truncate(MAX_ACTIONS_AND_TASKS);
    items
}

/// Counts the paths of a config that cost much.
#[derive(Debug, Default)]
pub(super) struct Paths {
    lists: usize,
}

impl Paths {
    pub(super) fn count(&mut self, path: &JsonPath, at: &Value<'_>, problems: &mut Problems) {
        self.lists += usize::from(path.finds_lists());
        if path.finds_lists() && self.lists == MAX_LIST_PATHS + 1 {
            problems.add(at.error(format!(
                "one JSONPath with `*`, `..`, a range or a filter too many, at most \
                 {MAX_LIST_PATHS} are allowed"
            )));
        }
    }
}

#[cfg(test)]
mod tests;
