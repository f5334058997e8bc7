//! A config of an older format as `apiVersion: v2`, by small changes to its text, so that comments, order
//! and layout stay. The result is read again and must mean the same.

mod edits;

use std::collections::HashSet;

use super::event_paths::from_data;
use crate::job_config::fields::words;
use crate::job_config::json_path::JsonPath;
use crate::job_config::problem::cited;
use crate::job_config::reader::{self, Examined, Format};
use crate::job_config::yaml::{Entry, Layout, Node, Scalar, Style};
use crate::job_config::{
    Action, EventMatcher, EventPattern, JobConfig, JsonPathFilter, Root, Task, first_formats,
    variables, versioned,
};
use edits::Edits;

/// The text in today's format.
#[derive(Debug)]
pub(crate) struct Upgraded {
    pub(crate) text: String,
    /// Keys that were ignored and are gone, such as "`nmae` in line 3".
    pub(crate) removed: Vec<String>,
    /// What may match otherwise than before.
    pub(crate) notes: Vec<String>,
}

/// None for what is in that format; an error says why it cannot be done.
pub(crate) fn upgrade(text: &str, examined: &Examined) -> Result<Option<Upgraded>, String> {
    let (Some(config), Some(format)) = (&examined.config, examined.format) else {
        return Err("the config is not valid".into());
    };
    let Some(tree) = &examined.tree else {
        return Ok(None);
    };
    if format == Format::V2 {
        return Ok(None);
    }
    let mut upgrade = Upgrade {
        edits: Edits::new(text),
        format,
        removed: Vec::new(),
    };
    upgrade.config(tree);
    let text = upgrade.edits.apply()?;
    let again = reader::examine(text.as_bytes());
    match (&again.config, &again.errors, again.format) {
        (Some(upgraded), None, Some(Format::V2)) if same(config, upgraded) => {}
        (_, Some(errors), _) => {
            let first = errors.problems.first().map(|problem| &problem.message);
            return Err(format!(
                "its layout is too unusual to be changed by a program ({})",
                first.map_or("", |message| message)
            ));
        }
        _ => return Err("its layout is too unusual to be changed by a program".into()),
    }
    let mut removed = upgrade.removed;
    removed.sort();
    removed.dedup();
    let told = |(line, key)| format!("`{key}` in line {line}");
    Ok(Some(Upgraded {
        text,
        removed: removed.into_iter().map(told).collect(),
        notes: notes(config),
    }))
}

/// The first format looks for a filter's path in `data`, and in the event where it is not there; today's paths
/// are found in one place only.
fn notes(config: &JobConfig) -> Vec<String> {
    let matchers = config.actions.iter().flat_map(|action| &action.matchers);
    let filters = matchers.filter_map(|matcher| matcher.filter.as_ref());
    filters
        .filter(|filter| filter.root == Root::DataThenEvent)
        .filter_map(|filter| {
            let path = from_data(&filter.property);
            let of_event = path == filter.property.to_string();
            let else_where = match (of_event, filter.property.is_only(1)) {
                (true, _) => "`data`",
                (false, true) => "the event itself",
                (false, false) => return None,
            };
            let (line, old) = (filter.line, &filter.property);
            Some(format!(
                "line {line}: `{old}` is `{path}` now, and was looked for in {else_where}, too"
            ))
        })
        .collect()
}

struct Upgrade<'t> {
    edits: Edits<'t>,
    format: Format,
    /// With their lines.
    removed: Vec<(u32, String)>,
}

impl Upgrade<'_> {
    fn config(&mut self, tree: &Node) {
        let Some(mapping) = tree.as_mapping() else {
            return;
        };
        match tree.entry("apiVersion") {
            Some(version) => {
                let (start, end) = (version.key.extent().start, self.edits.end_of(version));
                self.edits.replace(start, end, "apiVersion: v2");
            }
            None => self
                .edits
                .insert_first(mapping, tree.span, "apiVersion: v2"),
        }
        self.drop_ignored(tree, &versioned::CONFIG, &[]);
        for action in tree.get("actions").map_or(&[][..], Node::items) {
            self.action(action);
        }
    }

    fn action(&mut self, action: &Node) {
        for event in action.get("events").map_or(&[][..], Node::items) {
            self.drop_ignored(event, &versioned::EVENT, &[]);
            if let Some(filter) = event.get("jsonpath") {
                self.drop_ignored(filter, &versioned::FILTER, &[]);
            }
        }
        for task in action.get("tasks").map_or(&[][..], Node::items) {
            self.task(task);
        }
        let mut moved = Vec::new();
        if self.format == Format::Unversioned {
            let filter = action.get("jsonpath");
            if let Some(filter) = filter {
                self.drop_ignored(filter, &versioned::FILTER, &[]);
                self.property(filter);
            }
            if action.get("event").is_some() {
                self.event(action);
                // `events` can only be there without a value.
                moved = vec!["jsonpath", "events"];
            } else if filter.is_none() {
                moved = vec!["jsonpath", "event"];
            } else {
                moved = vec!["event"];
            }
        }
        let known = match (self.format, action.get("event")) {
            (Format::Unversioned, Some(_)) => &first_formats::ACTION[..],
            _ => &versioned::ACTION[..],
        };
        self.drop_ignored(action, known, &moved);
    }

    fn task(&mut self, task: &Node) {
        if let Some(cmd) = task.get("cmd")
            && let Some(scalar) = cmd.as_scalar()
        {
            let list: Vec<String> = words(&scalar.text)
                .iter()
                .map(|word| self::scalar(word))
                .collect();
            let newline = match scalar.style {
                Style::Block => self.edits.newline(),
                Style::Plain | Style::Quoted => "",
            };
            let list = format!("[{}]{newline}", list.join(", "));
            self.edits.replace(cmd.span.start, cmd.span.end, &list);
        }
        if self.format != Format::Unversioned {
            return;
        }
        self.drop_ignored(task, &first_formats::TASK, &[]);
        for variable in task.get("env").map_or(&[][..], Node::items) {
            if let (Some(mapping), Some(value)) = (variable.as_mapping(), variable.entry("value")) {
                self.edits
                    .insert_behind(mapping.layout, value, "valueFrom: event");
            }
            self.drop_ignored(variable, &variables::ENTRY_UNVERSIONED, &[]);
        }
    }

    /// `event: T` and `jsonpath: …` become an entry of `events`.
    fn event(&mut self, action: &Node) {
        let (Some(mapping), Some(event)) = (action.as_mapping(), action.entry("event")) else {
            return;
        };
        let Some(scalar) = event.value.as_scalar() else {
            return;
        };
        // `.` alone is as good as escaped: nobody has types that differ in it.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let name = if scalar.text.bytes().all(plain) && !scalar.text.is_empty() {
            self.edits.source_of(event).to_owned()
        } else {
            self::scalar(&format!("^{}$", regex::escape(&scalar.text)))
        };
        let filter = action
            .entry("jsonpath")
            .filter(|entry| !entry.value.is_null());
        let filter = filter.map(|filter| self.edits.cut(mapping.layout, filter));
        let (start, end) = (event.key.extent().start, self.edits.end_of(event));
        match mapping.layout {
            Layout::Flow => {
                let filter = filter.map_or_else(String::new, |filter| format!(", {filter}"));
                let events = format!("events: [{{name: {name}{filter}}}]");
                self.edits.replace(start, end, &events);
            }
            Layout::Block => {
                let newline = self.edits.newline();
                let indent = self.edits.indent(event);
                let events = format!("events:{newline}{indent}  - name: {name}");
                self.edits.replace(start, end, &events);
                if let Some(filter) = filter {
                    let lines = filter.trim_end().replace('\n', "\n    ");
                    let lines = format!("{newline}{indent}    {lines}");
                    self.edits.insert_at_line_end(end, &lines);
                }
            }
        }
    }

    /// The paths of the first format started in `data`.
    fn property(&mut self, filter: &Node) {
        let Some(property) = filter.get("property") else {
            return;
        };
        let Some(written) = property.as_scalar() else {
            return;
        };
        let Ok(path) = JsonPath::parse(&written.text) else {
            return;
        };
        let moved = from_data(&path);
        if moved != written.text {
            let text = self.like(property, written, &moved);
            let span = property.span;
            self.edits.replace(span.start, span.end, &text);
        }
    }

    /// A text in the quotes of the one that it replaces.
    fn like(&self, node: &Node, scalar: &Scalar, text: &str) -> String {
        let quote = self.edits.text[node.span.start..].chars().next();
        match (scalar.style, quote) {
            (Style::Quoted, Some(quote)) if !text.contains([quote, '\\']) => {
                format!("{quote}{text}{quote}")
            }
            (Style::Plain, _) if !text.contains(['[', ']', '{', '}', ',', '#', ':']) => {
                text.to_owned()
            }
            _ => self::scalar(text),
        }
    }

    /// Removes keys that are unknown, repeated or `moved` elsewhere.
    fn drop_ignored(&mut self, node: &Node, known: &[&str], moved: &[&str]) {
        let Some(mapping) = node.as_mapping() else {
            return;
        };
        let own: Vec<&Entry> = mapping
            .entries
            .iter()
            .filter(|entry| !entry.merged)
            .collect();
        let mut later = HashSet::new();
        let mut goes = vec![false; own.len()];
        for (index, entry) in own.iter().enumerate().rev() {
            let name = entry.name().unwrap_or_default();
            let is_known = known.contains(&name);
            let repeated = !later.insert(name);
            let is_moved = moved.contains(&name);
            goes[index] = !is_known || repeated || is_moved;
            if !is_moved && goes[index] {
                self.removed.push((entry.key.extent().line, cited(name)));
            }
        }
        self.edits.remove(mapping, &own, &goes);
    }
}

/// Whether both configs do the same, wherever that is written.
fn same(old: &JobConfig, new: &JobConfig) -> bool {
    let task = |task: &Task| {
        let mut task = task.clone();
        task.line = 0;
        task.env.iter_mut().for_each(|entry| entry.line = 0);
        task
    };
    let filter = |old: &JsonPathFilter, new: &JsonPathFilter| {
        let path = match old.root {
            Root::Event => old.property.to_string(),
            Root::DataThenEvent => from_data(&old.property),
        };
        JsonPath::parse(&path).is_ok_and(|path| path == new.property)
            && new.root == Root::Event
            && old.expected == new.expected
    };
    let matcher = |old: &EventMatcher, new: &EventMatcher| {
        let same_type = match (&old.event_type, &new.event_type) {
            (EventPattern::Exact(exact), EventPattern::Matching(Some(pattern))) => {
                pattern.as_str() == exact
                    || pattern.as_str() == format!("^{}$", regex::escape(exact))
            }
            (old, new) => old.text() == new.text(),
        };
        let same_filter = match (&old.filter, &new.filter) {
            (None, None) => true,
            (Some(old), Some(new)) => filter(old, new),
            _ => false,
        };
        same_type && same_filter
    };
    let action = |old: &Action, new: &Action| {
        old.name == new.name
            && old.silent == new.silent
            && pairwise(&old.matchers, &new.matchers, matcher)
            && pairwise(&old.tasks, &new.tasks, |old, new| task(old) == task(new))
    };
    pairwise(&old.actions, &new.actions, action)
}

fn pairwise<T>(old: &[T], new: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
}

/// A text as an item of a list in brackets.
pub(super) fn scalar(text: &str) -> String {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-+=@%:~".contains(&byte);
    let starts = |byte: u8| byte.is_ascii_alphanumeric() || b"_./-".contains(&byte);
    let null = matches!(text, "null" | "Null" | "NULL");
    let plain = text.bytes().all(inner)
        && text.bytes().next().is_some_and(starts)
        && !text.ends_with(':')
        && text.bytes().any(|byte| byte != b'-');
    if plain && !null {
        return text.to_owned();
    }
    if text.contains(char::is_control) {
        return serde_json::Value::from(text).to_string();
    }
    if text.contains('\'') && !text.contains(['"', '\\']) {
        return format!("\"{text}\"");
    }
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests;
