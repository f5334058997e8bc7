//! The text of job/config.yaml → [`JobConfig`], or the first error with its place.
//!
//! The text is untrusted: bytes, nodes, depth and aliases are bounded, so that a hostile config costs
//! an error. The bounds are far above any config that people write.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Options, Spanned, alias_limits, budget, options};

use super::fields::EnvVar;
use super::json_path::JsonPath;
use super::versioned::{TaskV1, TaskV2};
use super::{JobConfig, first_formats, versioned};

/// The name under which Keptn stores the config.
pub(crate) const CONFIG_URI: &str = "job/config.yaml";

/// A config of 1,000 tasks has about 100 KiB.
pub(crate) const MAX_CONFIG_BYTES: usize = 256 << 10;

/// Paths with wildcards, filters and `..` go through all of an event, each time.
const MAX_LIST_PATHS: usize = 32;

const MAX_NODES: usize = 20_000;
const MAX_DEPTH: usize = 32;
const MAX_ALIASES: usize = 200;

/// Job names have room for three digits of action and task number each.
const MAX_ACTIONS_AND_TASKS: usize = 999;

/// A config that is valid, with what its author should know all the same.
#[derive(Debug)]
pub(crate) struct ReadConfig {
    pub(crate) config: JobConfig,
    pub(crate) warnings: Vec<String>,
}

/// What is wrong, and where: `job/config.yaml:7:9: actions[0].tasks[0]: …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// Line and column, both from 1; none where the error is about the whole file.
    pub(crate) place: Option<(u64, u64)>,
    /// Such as `actions[0].tasks[2]`; empty at the top.
    pub(crate) path: String,
    pub(crate) message: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CONFIG_URI)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

#[derive(Deserialize)]
struct Version {
    #[serde(default, rename = "apiVersion")]
    api_version: Option<Spanned<String>>,
}

/// Reads a config of any format.
pub(crate) fn read(bytes: &[u8]) -> Result<ReadConfig, ConfigError> {
    let whole = |message: String| ConfigError {
        place: None,
        path: String::new(),
        message,
    };
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
    let (version, _): (Version, _) = parse(text, DuplicateKeyPolicy::LastWins)?;
    let api_version = version.api_version.as_ref();
    let (config, unknown): (JobConfig, Vec<String>) = match api_version.map(|v| v.value.as_str()) {
        None => {
            let (config, unknown) =
                parse::<first_formats::Config>(text, DuplicateKeyPolicy::LastWins)?;
            (config.into(), unknown)
        }
        Some("v1") => {
            let (config, unknown) =
                parse::<versioned::Config<TaskV1>>(text, DuplicateKeyPolicy::Error)?;
            (config.into(), unknown)
        }
        Some("v2") => {
            let (config, unknown) =
                parse::<versioned::Config<TaskV2>>(text, DuplicateKeyPolicy::Error)?;
            (config.into(), unknown)
        }
        Some(other) => {
            let at = api_version.map(|version| version.referenced);
            return Err(ConfigError {
                place: at.map(|at| (at.line(), at.column())),
                path: "apiVersion".into(),
                message: format!("`{other}` is not supported, expected `v2` (or `v1`)"),
            });
        }
    };
    let most = config
        .actions
        .iter()
        .map(|action| action.tasks.len())
        .chain([config.actions.len()])
        .max();
    if most > Some(MAX_ACTIONS_AND_TASKS) {
        return Err(whole(format!(
            "at most {MAX_ACTIONS_AND_TASKS} actions, and as many tasks in an action, are allowed"
        )));
    }
    let list_paths = config.paths().filter(|path| path.finds_lists()).count();
    if list_paths > MAX_LIST_PATHS {
        return Err(whole(format!(
            "{list_paths} JSONPaths with `*`, `..`, a range or a filter, at most {MAX_LIST_PATHS} are \
             allowed"
        )));
    }
    let mut warnings: Vec<String> = unknown
        .iter()
        .map(|path| format!("{CONFIG_URI}: {path}: unknown key, ignored"))
        .collect();
    warnings.extend(config.never_matching());
    Ok(ReadConfig { config, warnings })
}

impl JobConfig {
    fn paths(&self) -> impl Iterator<Item = &JsonPath> {
        let filters = self
            .actions
            .iter()
            .flat_map(|action| &action.matchers)
            .filter_map(|matcher| matcher.filter.as_ref())
            .map(|filter| &filter.property);
        let variables = self
            .actions
            .iter()
            .flat_map(|action| &action.tasks)
            .flat_map(|task| &task.env)
            .filter_map(|(_, source)| match source {
                EnvVar::Event { path, .. } => Some(path),
                EnvVar::Literal(_) | EnvVar::Secret(_) => None,
            });
        filters.chain(variables)
    }

    fn never_matching(&self) -> impl Iterator<Item = String> {
        self.actions
            .iter()
            .enumerate()
            .filter(|(_, action)| action.matchers.is_empty())
            .map(|(index, action)| {
                format!(
                    "{CONFIG_URI}: actions[{index}]: action `{}` has no `events`, so it never runs",
                    action.name
                )
            })
    }
}

fn limits(duplicate_keys: DuplicateKeyPolicy) -> Options {
    options! {
        with_snippet: false,
        // `010` is 8 in YAML 1.1, which the original read.
        legacy_octal_numbers: true,
        duplicate_keys: duplicate_keys,
        budget: budget! {
            max_nodes: MAX_NODES,
            // A mapping or list is two events, a scalar one.
            max_events: 3 * MAX_NODES,
            max_depth: MAX_DEPTH,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_total_scalar_bytes: 1 << 20,
            max_documents: 1,
            max_merge_keys: 200,
        },
        alias_limits: alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 200,
        },
    }
}

/// Reads one document, together with the paths of the keys that nothing took.
fn parse<T: DeserializeOwned>(
    text: &str,
    duplicate_keys: DuplicateKeyPolicy,
) -> Result<(T, Vec<String>), ConfigError> {
    let mut unknown = Vec::new();
    let mut path = String::new();
    let options = limits(duplicate_keys);
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
        let mut track = serde_path_to_error::Track::new();
        let tracked = serde_path_to_error::Deserializer::new(yaml, &mut track);
        let parsed = serde_ignored::deserialize(tracked, |ignored| {
            unknown.push(bracketed(&ignored.to_string()));
        });
        if parsed.is_err() {
            path = track.path().to_string();
        }
        parsed
    })
    .map(|parsed| (parsed, unknown))
    .map_err(|error| ConfigError {
        place: error.location().map(|at| (at.line(), at.column())),
        path: readable(&path),
        message: reworded(&error, &path),
    })
}

/// `actions.?.0.nmae` → `actions[0].nmae`
fn bracketed(path: &str) -> String {
    let mut written = String::new();
    for part in path.split('.').filter(|part| *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            written.push_str(&format!("[{part}]"));
        } else {
            let dot = if written.is_empty() { "" } else { "." };
            written.push_str(&format!("{dot}{part}"));
        }
    }
    written
}

/// The tracker writes `.` for the top and `?` for a key it could not read.
fn readable(path: &str) -> String {
    let path = path.strip_suffix(".?").unwrap_or(path);
    let path = path.strip_prefix("?").unwrap_or(path);
    if path == "." {
        String::new()
    } else {
        path.to_owned()
    }
}

/// The reader's texts, without its own advice to programmers.
fn reworded(error: &serde_saphyr::Error, path: &str) -> String {
    use serde_saphyr::Error;

    let text = error.to_string();
    let text = text
        .rfind(" at line ")
        .map_or(text.as_str(), |end| &text[..end]);
    if let Some(rest) = text.strip_prefix("duplicate mapping key: ") {
        let key = rest.split(',').next().unwrap_or(rest);
        return format!("duplicate key `{key}`, expected each key once");
    }
    if let Some((found, allowed)) = text.split_once(", expected one of ") {
        let allowed: Vec<String> = allowed
            .split(", ")
            .map(|name| format!("`{}`", name.trim_matches('`')))
            .collect();
        return format!("{found}, expected one of {}", allowed.join(", "));
    }
    if matches!(error, Error::MultipleDocuments { .. }) || text.contains("breached: Documents") {
        return "a second document starts here, expected only one".into();
    }
    if matches!(error, Error::NullIntoString { .. }) {
        return "no value, expected a text".into();
    }
    if text.starts_with("budget breached") || text.contains("alias") && text.contains("limit") {
        return format!(
            "too much for a config ({text}), allowed are {MAX_NODES} values, {MAX_DEPTH} levels and \
             {MAX_ALIASES} aliases"
        );
    }
    if text == "expected string scalar" {
        return "expected a text".into();
    }
    if text == "expected sequence start" {
        let example = if path.ends_with("cmd") || path.ends_with("args") {
            " such as `[sh, -c, echo hello]`"
        } else {
            ""
        };
        return format!("expected a list{example}");
    }
    if text == "expected mapping start" {
        return "expected a mapping of keys and values".into();
    }
    if text.starts_with("invalid u32") {
        return "expected a whole number of seconds".into();
    }
    if text.ends_with("expected a nonzero u32") {
        return "expected a whole number of seconds, at least 1".into();
    }
    if text == "invalid boolean" {
        return "expected `true` or `false`".into();
    }
    text.to_owned()
}

#[cfg(test)]
mod tests;
