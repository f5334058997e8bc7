//! The explanation for people, as comments of the YAML that the Jobs are: `explain … | kubectl apply
//! --dry-run=server -f -` takes it.

use std::path::Path;

use serde_json::{Value, json};

use super::yaml;
use crate::event::{Envelope, Event};
use crate::explain::{ActionExplained, Explanation, Outcome, TaskExplained, VariableExplained};
use crate::job_config::problem::one_line;
use crate::local::story::Format;
use crate::terminal::{BAD, GOOD, TITLE};

/// Of one value of a variable.
const MAX_VALUE_CHARS: usize = 200;

pub(super) fn of(
    format: Format,
    event: &Event,
    config: &Path,
    explanation: &Explanation,
) -> String {
    match format {
        Format::Json => {
            let Envelope {
                id,
                event_type,
                scope,
                ..
            } = &event.envelope;
            let event = json!({"id": id, "type": event_type, "scope": scope});
            let whole = json!({"event": event, "config": config, "env": explanation.env,
                "actions": explanation.actions, "jobs": explanation.jobs});
            format!("{whole}\n")
        }
        Format::Text => text(event, config, explanation),
    }
}

fn text(event: &Event, config: &Path, explanation: &Explanation) -> String {
    let envelope = &event.envelope;
    let scope = &envelope.scope;
    let scope = [&scope.project, &scope.stage, &scope.service];
    let scope = scope.map(|part| part.as_deref().unwrap_or("-")).join(" / ");
    let mut lines = vec![
        format!(
            "event   {TITLE}{}{TITLE:#}",
            one_line(envelope.event_type.as_str())
        ),
        format!(
            "        {}, id {}",
            one_line(&scope),
            one_line(&envelope.id)
        ),
        format!("config  {}", one_line(&config.display().to_string())),
    ];
    if explanation.matches() {
        lines.push("every task has".into());
        variables(&explanation.env, &mut lines);
    }
    for explained in &explanation.actions {
        lines.push(String::new());
        action(explained, &mut lines);
    }
    let mut out = String::new();
    for line in lines {
        out.push_str(format!("# {line}").trim_end());
        out.push('\n');
    }
    for job in explanation.jobs.iter().filter_map(Value::as_object) {
        out.push_str("---\n");
        out.push_str(&yaml::document(job));
    }
    out
}

fn action(action: &ActionExplained, lines: &mut Vec<String>) {
    let (style, verdict) = if action.matches {
        (GOOD, "matches")
    } else {
        (BAD, "does not match")
    };
    let silent = if action.silent { ", silent" } else { "" };
    lines.push(format!(
        "{TITLE}{}{TITLE:#} (line {}{silent}): {style}{verdict}{style:#}",
        one_line(&action.name),
        action.line
    ));
    if action.events.is_empty() {
        lines.extend(action.reasons.iter().map(|reason| format!("  {reason}")));
    }
    for conditions in &action.events {
        for condition in conditions {
            let (style, mark) = if condition.holds {
                (GOOD, "yes")
            } else {
                (BAD, "no ")
            };
            lines.push(format!("  {style}{mark}{style:#} {condition}"));
            if !condition.holds {
                lines.push(format!("      the event has {}", condition.found));
            }
        }
    }
    for explained in &action.tasks {
        task(explained, lines);
    }
}

fn task(task: &TaskExplained, lines: &mut Vec<String>) {
    lines.push(format!(
        "  task {TITLE}{}{TITLE:#} (line {}), image {}",
        one_line(&task.name),
        task.line,
        one_line(&task.image)
    ));
    if let Some(reason) = &task.refused {
        lines.push(format!("    {BAD}refused{BAD:#}: {}", one_line(reason)));
    }
    for remark in &task.remarks {
        lines.push(format!("    {remark}"));
    }
    variables(&task.env, lines);
}

fn variables(variables: &[VariableExplained], lines: &mut Vec<String>) {
    for variable in variables {
        let value = match &variable.value {
            Outcome::Value(value) => quoted(value),
            Outcome::Error(error) => format!("{BAD}{}{BAD:#}", one_line(error)),
            Outcome::Ignored(reason) => format!("ignored, {reason}"),
            Outcome::Secret(secret) => format!("all keys of the Secret {secret}"),
            Outcome::Keys(keys) => format!("all keys of the {}", keys.of),
            Outcome::Key(key) => format!("`{}` of the {}", one_line(&key.key), key.of),
        };
        let source = match variable.line {
            Some(line) => format!("  ({}, line {line})", one_line(&variable.source)),
            None => String::new(),
        };
        lines.push(format!("    {} = {value}{source}", variable.name));
    }
}

/// On one line, whatever it holds.
fn quoted(value: &str) -> String {
    let mut short: String = value.chars().take(MAX_VALUE_CHARS).collect();
    if short.len() < value.len() {
        short.push('…');
    }
    one_line(&json!(short).to_string())
}
