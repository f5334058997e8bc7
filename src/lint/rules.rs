//! What is legal in a config and surely wrong.

mod files;
mod privileges;
mod shell;
mod times;

use std::collections::HashMap;

use super::event_paths::finds_nothing;
use crate::job_config::fields::{EnvVar, words};
use crate::job_config::files::ResultFile;
use crate::job_config::json_path::JsonPath;
use crate::job_config::problem::{Problem, cited};
use crate::job_config::reader::Format;
use crate::job_config::yaml::Node;
use crate::job_config::{Action, EnvEntry, EventPattern, JobConfig, Root, Task};

/// What each task has, and cannot replace. So it is with `LABELS_…`, where the event has such a label.
const KEPTNS: [&str; 3] = ["KEPTN_PROJECT", "KEPTN_STAGE", "KEPTN_SERVICE"];

pub(super) fn warnings(config: &JobConfig, tree: &Node, format: Format) -> Vec<Problem> {
    let mut warnings = Warnings {
        tree,
        format,
        found: Vec::new(),
    };
    let actions = config.actions.iter().map(|action| action.name.as_str());
    warnings.names("action", "actions", actions);
    for (index, action) in config.actions.iter().enumerate() {
        warnings.action(&format!("actions[{index}]"), action);
    }
    warnings.found
}

struct Warnings<'a> {
    tree: &'a Node,
    format: Format,
    found: Vec<Problem>,
}

impl Warnings<'_> {
    fn add(&mut self, path: &str, message: impl Into<String>, help: Option<String>) {
        let place = self.tree.at(path).map(Node::head);
        let warning = Problem::warning(place, path, message);
        self.found.push(warning.help(help));
    }

    fn action(&mut self, path: &str, action: &Action) {
        for (index, matcher) in action.matchers.iter().enumerate() {
            let Some(filter) = &matcher.filter else {
                continue;
            };
            let at = match matcher.event_type {
                EventPattern::Exact(_) => format!("{path}.jsonpath.property"),
                EventPattern::Matching(_) => format!("{path}.events[{index}].jsonpath.property"),
            };
            match filter.root {
                Root::Event => self.path(&at, &filter.property),
                Root::DataThenEvent => {}
            }
        }
        if action.tasks.is_empty() {
            let message = format!(
                "action `{}` has no `tasks`, so it does nothing",
                cited(&action.name)
            );
            self.add(path, message, None);
        }
        let tasks = action.tasks.iter().map(|task| task.name.as_str());
        self.names("task", &format!("{path}.tasks"), tasks);
        for (index, task) in action.tasks.iter().enumerate() {
            let path = format!("{path}.tasks[{index}]");
            self.task(&path, task);
            if index == 0 && task.always {
                let message = "no effect, the first task of an action runs in any case";
                self.add(&format!("{path}.always"), message, None);
            }
        }
    }

    /// Entries of `env` that have no effect.
    fn variables(&mut self, path: &str, task: &Task) {
        let is_variable = |entry: &EnvEntry| !matches!(entry.source, EnvVar::Secret(_));
        for (index, entry) in task
            .env
            .iter()
            .enumerate()
            .filter(|(_, entry)| is_variable(entry))
        {
            let (at, name) = (format!("{path}.env[{index}].name"), entry.name.as_str());
            let mut later = task.env[index + 1..].iter();
            if KEPTNS.contains(&name) {
                let message = format!("`{name}` is what Keptn says, this entry is ignored");
                self.add(&at, message, None);
            } else if later.any(|later| later.name == entry.name && is_variable(later)) {
                let message = format!("a later entry for `{name}` replaces this one");
                self.add(&at, message, None);
            }
        }
    }

    /// Messages and labels tell actions and tasks apart by their names.
    fn names<'n>(&mut self, what: &str, list: &str, names: impl Iterator<Item = &'n str>) {
        let mut first = HashMap::new();
        for (index, name) in names.enumerate() {
            let path = format!("{list}[{index}]");
            if name.is_empty() {
                let message = format!("the {what} has no `name` to know it by in messages");
                self.add(&path, message, None);
            } else if let Some(first) = first.get(name) {
                let message = format!(
                    "{what} `{}` has the name of {list}[{first}], messages do not tell them apart",
                    cited(name)
                );
                self.add(&format!("{path}.name"), message, None);
            } else {
                first.insert(name, index);
            }
        }
    }

    fn task(&mut self, path: &str, task: &Task) {
        if self.format == Format::V2 {
            self.command(path, task);
        }
        let present = files::Present::of(task);
        let missing = |text: &str| present.missing(text);
        let words = |field: &str, words: &[String]| -> Vec<(String, String)> {
            let found = words.iter().enumerate().flat_map(|(index, word)| {
                let at = self.word(path, field, index);
                missing(word)
                    .into_iter()
                    .map(move |file| (at.clone(), file))
            });
            found.collect()
        };
        let mut lost = words("cmd", &task.cmd);
        lost.extend(words("args", &task.args));
        if let Some(directory) = &task.working_dir {
            let at = format!("{path}.workingDir");
            lost.extend(
                missing(directory)
                    .into_iter()
                    .map(|file| (at.clone(), file)),
            );
        }
        self.variables(path, task);
        for (index, entry) in task.env.iter().enumerate() {
            let at = format!("{path}.env[{index}].value");
            match &entry.source {
                EnvVar::Event { path, .. } => self.path(&at, path),
                EnvVar::Secret(_) | EnvVar::Key(_) => {}
                EnvVar::Literal(text) => {
                    lost.extend(missing(text).into_iter().map(|file| (at.clone(), file)));
                    if looks_like_a_path(text) {
                        let message = format!(
                            "the variable will be the text `{}` itself, not what it finds",
                            cited(text)
                        );
                        let help = "did you mean `valueFrom: event`?".to_owned();
                        self.add(&at, message, Some(help));
                    }
                }
            }
        }
        for (at, file) in lost {
            self.lost_file(&at, &file);
        }
        self.files(path, task);
        self.script(path, task);
        for (field, what) in privileges::refused(&task.security_context) {
            let message =
                format!("{what} is refused where the Pod Security Standard \"restricted\" holds");
            self.add(&format!("{path}.securityContext.{field}"), message, None);
        }
        for (field, message, help) in times::too_short(task) {
            self.add(&format!("{path}.{field}"), message, help);
        }
        for (index, volume) in task.pod.volumes.iter().enumerate() {
            let mut mounts = task.pod.volume_mounts.iter();
            if !mounts.any(|mount| mount.name == volume.name) {
                let message = format!("no entry of `volumeMounts` uses `{}`", cited(&volume.name));
                self.add(&format!("{path}.volumes[{index}].name"), message, None);
            }
        }
    }

    /// Where a word of the command line is: older formats have it in one text.
    fn word(&self, path: &str, field: &str, index: usize) -> String {
        match self.format {
            Format::V2 => format!("{path}.{field}[{index}]"),
            Format::V1 | Format::Unversioned => format!("{path}.{field}"),
        }
    }

    fn files(&mut self, path: &str, task: &Task) {
        let result = task.result_file.as_ref().map(ResultFile::as_str);
        for (index, file) in task.files.iter().enumerate() {
            let (at, shown) = (format!("{path}.files[{index}]"), cited(file.path.as_str()));
            if files::is_broken_pattern(file) {
                let message = format!("`{shown}` is no valid pattern, so it is only a name");
                self.add(&at, message, None);
            }
            if result.and_then(|result| result.strip_prefix("/keptn/")) == Some(file.path.as_str())
            {
                let message = format!(
                    "`{shown}` is the `resultFile` as well, so Keptn's copy is the result of a task that \
                     writes none"
                );
                self.add(&at, message, None);
            }
        }
    }

    fn script(&mut self, path: &str, task: &Task) {
        let Some((word, names)) = shell::expanded(task) else {
            return;
        };
        let at = match word {
            shell::Word::Cmd(index) => self.word(path, "cmd", index),
            shell::Word::Arg(index) => self.word(path, "args", index),
        };
        for name in names {
            let shown = cited(&name);
            let message = format!(
                "`$({shown})` puts what the event says into the script, where the shell executes it"
            );
            let help = if shell::is_shell_name(&name) {
                format!("write `\"${shown}\"`, of which the shell takes the value as a text")
            } else {
                format!(
                    "put `$({shown})` behind the script as an argument, where the script has it as `\"$1\"`"
                )
            };
            self.add(&at, message, Some(help));
        }
    }

    fn path(&mut self, at: &str, path: &JsonPath) {
        if let Some((message, help)) = finds_nothing(path) {
            self.add(at, message, help);
        }
    }

    fn command(&mut self, path: &str, task: &Task) {
        let Some(program) = task.cmd.first().filter(|first| first.contains(' ')) else {
            return;
        };
        let mut list = words(program);
        list.extend(task.cmd.iter().skip(1).cloned());
        let list: Vec<String> = list
            .iter()
            .map(|word| super::upgrade::scalar(word))
            .collect();
        self.add(
            &format!("{path}.cmd[0]"),
            format!(
                "`{}` is the name of one program here, blanks and all",
                cited(program)
            ),
            Some(format!("did you mean `cmd: [{}]`?", list.join(", "))),
        );
    }

    fn lost_file(&mut self, at: &str, file: &str) {
        let file = cited(file);
        let (message, help) = if file.is_empty() {
            (
                "the task has no `files`, so nothing is in `/keptn`".to_owned(),
                "name what it needs in `files`".to_owned(),
            )
        } else {
            (
                format!("no entry of `files` brings `/keptn/{file}`"),
                format!("add `{file}` to `files`, unless the task writes it itself"),
            )
        };
        self.add(at, message, Some(help));
    }
}

fn looks_like_a_path(text: &str) -> bool {
    let named = |rest: &str| rest.starts_with(|first: char| first.is_ascii_lowercase());
    text.strip_prefix("$.").is_some_and(named) && JsonPath::parse(text).is_ok()
}
