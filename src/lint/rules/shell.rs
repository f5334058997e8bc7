//! Scripts of a shell into which the kubelet puts what an event says. In a value of a variable the event's
//! text is only text; in a script it is a part of the program.

use std::collections::HashSet;

use super::KEPTNS;
use crate::job_config::Task;
use crate::job_config::fields::EnvVar;

const SHELLS: [&str; 6] = ["sh", "bash", "ash", "dash", "zsh", "ksh"];

/// Where in a task's command line a script is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Cmd(usize),
    Arg(usize),
}

/// The variables with an event's text that stand as `$(NAME)` in a script, each once.
pub(super) fn expanded(task: &Task) -> Option<(Word, Vec<String>)> {
    let words: Vec<&str> = task
        .cmd
        .iter()
        .chain(&task.args)
        .map(String::as_str)
        .collect();
    let index = script(&words)?;
    let of_event = of_event(task);
    let mut seen = HashSet::new();
    let names: Vec<String> = references(words[index])
        .into_iter()
        .filter(|name| is_of_event(name, &of_event) && seen.insert(*name))
        .map(str::to_owned)
        .collect();
    let word = match index.checked_sub(task.cmd.len()) {
        None => Word::Cmd(index),
        Some(index) => Word::Arg(index),
    };
    (!names.is_empty()).then_some((word, names))
}

/// Whether a shell can say `$NAME`.
pub(super) fn is_shell_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Variables of the task that hold what an event says; a text may have it from one before.
fn of_event(task: &Task) -> HashSet<&str> {
    let mut of_event = HashSet::new();
    for entry in &task.env {
        let holds = match &entry.source {
            EnvVar::Event { .. } => true,
            EnvVar::Literal(text) => references(text)
                .into_iter()
                .any(|name| is_of_event(name, &of_event)),
            EnvVar::Secret(_) | EnvVar::Key(_) => false,
        };
        let name = entry.name.as_str();
        if holds {
            of_event.insert(name);
        } else {
            of_event.remove(name);
        }
    }
    of_event
}

fn is_of_event(name: &str, of_event: &HashSet<&str>) -> bool {
    of_event.contains(name) || name.starts_with("LABELS_") || KEPTNS.contains(&name)
}

/// The word behind a shell's option with a `c`, such as `-c`, `-ec` or `-e -o pipefail -c`.
fn script(words: &[&str]) -> Option<usize> {
    let is_shell = |word: &&str| {
        let program = word.rsplit('/').next().unwrap_or_default();
        SHELLS.contains(&program)
    };
    let mut index = words.iter().position(is_shell)? + 1;
    let mut runs_text = false;
    while let Some(word) = words.get(index) {
        let short = word
            .strip_prefix(['-', '+'])
            .filter(|rest| !rest.is_empty());
        let Some(letters) = short else {
            return runs_text.then_some(index);
        };
        let is_long = letters.starts_with('-');
        runs_text |= word.starts_with('-') && !is_long && letters.contains('c');
        // `-o` takes the name of what it sets.
        let takes_word = !is_long && letters.ends_with(['o', 'O']);
        index += 1 + usize::from(takes_word);
    }
    None
}

/// The names in `$(NAME)`; `$$` stands for `$`.
fn references(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
        } else if let Some((name, after)) =
            rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
        {
            names.push(name);
            rest = after;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job_config::reader;

    fn task(fields: &str) -> Task {
        let config = format!("apiVersion: v2\nactions: [{{tasks: [{{image: i, {fields}}}]}}]");
        let mut config = reader::read(config.as_bytes()).unwrap().config;
        config.actions.remove(0).tasks.remove(0)
    }

    #[test]
    fn a_script_is_what_stands_behind_a_shells_option_c() {
        for (words, index) in [
            ("[sh, -c, 'x', y]", Some(2)),
            ("[/bin/bash, -ec, x]", Some(2)),
            ("[bash, -e, -o, pipefail, -c, x]", Some(5)),
            ("[bash, -euo, pipefail, --norc, -c, x]", Some(5)),
            ("[bash, -ceuo, pipefail, x]", Some(3)),
            ("[timeout, 60, sh, -c, x]", Some(4)),
            ("[sh, script.sh, -c, x]", None),
            ("[bash, --rcfile, x]", None),
            ("[sh, -c]", None),
            ("[python3, -c, x]", None),
        ] {
            let task = task(&format!("cmd: {words}"));
            let words: Vec<&str> = task.cmd.iter().map(String::as_str).collect();
            assert_eq!(script(&words), index, "{words:?}");
        }
    }

    #[test]
    fn only_what_an_event_says_in_a_script_is_told() {
        let env = "env: [{name: NAME, value: $.data.x, valueFrom: event}, \
                   {name: PLAIN, value: text, valueFrom: string}, \
                   {name: GREETING, value: 'hello $(NAME)', valueFrom: string}, \
                   {name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: k}}}]";
        for (command, found) in [
            (
                "cmd: [sh, -c, 'echo $(NAME) $(NAME) $(LABELS_A)']",
                Some((Word::Cmd(2), "NAME LABELS_A")),
            ),
            (
                "cmd: [sh], args: [-c, 'echo $(GREETING)']",
                Some((Word::Arg(1), "GREETING")),
            ),
            (
                "cmd: [sh, -c, 'echo $(KEPTN_STAGE)']",
                Some((Word::Cmd(2), "KEPTN_STAGE")),
            ),
            ("cmd: [sh, -c, 'echo $$(NAME) $NAME $(date)']", None),
            ("cmd: [sh, -c, 'echo $(PLAIN) $(PASSWORD)']", None),
            ("cmd: [sh, -c, 'echo \"$1\"', sh, $(NAME)]", None),
            ("cmd: [echo, $(NAME)]", None),
            ("args: [-c, $(NAME)]", None),
        ] {
            let told = expanded(&task(&format!("{command}, {env}")));
            let told = told.map(|(word, names)| (word, names.join(" ")));
            let found = found.map(|(word, names)| (word, names.to_owned()));
            assert_eq!(told, found, "{command}");
        }
    }
}
