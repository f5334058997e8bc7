//! The story for people, at 80 columns.

use anstyle::{AnsiColor, Style};
use serde_json::Value;

use super::{RunResult, TaskResult, Told};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const TITLE: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// Of the message of an answer; `--output json` has all.
const MAX_MESSAGE_LINES: usize = 12;

pub(super) fn of(told: &Told<'_>) -> String {
    match told {
        Told::Event {
            id,
            event_type,
            project,
            stage,
            service,
        } => {
            let scope = [project, stage, service]
                .map(|part| part.unwrap_or("-"))
                .join(" / ");
            format!("{}\n  {scope}, id {id}\n", styled(TITLE, event_type))
        }
        Told::TaskStarted {
            action,
            task,
            number,
            of,
            image,
            ..
        } => {
            let place = format!("{action}, task {number} of {of}: ");
            format!(
                "\n{place}{} {}\n",
                styled(TITLE, task),
                styled(FAINT, &format!("({image})"))
            )
        }
        Told::Output { line, .. } => format!("{} {line}\n", styled(FAINT, "  |")),
        Told::TaskEnded {
            result,
            exit_code,
            reason,
            seconds,
            ..
        } => {
            let how = match result {
                TaskResult::Succeeded => styled(GOOD, "succeeded"),
                TaskResult::Failed => styled(BAD, "failed"),
            };
            let code = match (result, exit_code) {
                (TaskResult::Failed, Some(code)) => format!(" with exit code {code}"),
                _ => String::new(),
            };
            let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
            format!("  {how}{code} after {seconds:.1} s{reason}\n")
        }
        Told::EventSent { event } => sent(event),
        Told::Ended {
            result,
            reason,
            tasks,
            failed,
            seconds,
        } => {
            let (style, word) = match result {
                RunResult::Succeeded => (GOOD, "succeeded"),
                RunResult::Errored => (BAD, "errored"),
                RunResult::BadInput => (BAD, "bad input"),
                RunResult::NothingMatched => (TITLE, "nothing matched"),
                RunResult::Interrupted => (BAD, "interrupted"),
            };
            let counted = match (tasks, failed) {
                (0, _) => String::new(),
                (tasks, 0) => format!(": {} in {seconds:.1} s", count(*tasks)),
                (tasks, failed) => {
                    format!(": {failed} of {} failed, in {seconds:.1} s", count(*tasks))
                }
            };
            let reason = if reason.is_empty() {
                String::new()
            } else {
                format!(": {reason}")
            };
            format!("\n{}{counted}{reason}\n", styled(style, word))
        }
    }
}

fn sent(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let data = &event["data"];
    let mut told = format!(
        "\n{} {}",
        styled(FAINT, "event sent"),
        styled(TITLE, &text(&event["type"]))
    );
    if data["status"].is_string() {
        told += &format!(
            "\n  status {}, result {}",
            text(&data["status"]),
            text(&data["result"])
        );
    }
    told.push('\n');
    let message = text(&data["message"]);
    let lines: Vec<&str> = message
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    for line in lines.iter().take(MAX_MESSAGE_LINES) {
        told += &format!("  {}\n", styled(FAINT, line));
    }
    if lines.len() > MAX_MESSAGE_LINES {
        let more = format!("… {} more lines", lines.len() - MAX_MESSAGE_LINES);
        told += &format!("  {}\n", styled(FAINT, &more));
    }
    told
}

fn count(tasks: usize) -> String {
    if tasks == 1 {
        "1 task".to_owned()
    } else {
        format!("{tasks} tasks")
    }
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
