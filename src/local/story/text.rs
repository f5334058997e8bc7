//! The story for people, at 80 columns.

use anstyle::Style;
use serde_json::Value;

use super::{RunResult, TaskResult, Told};
use crate::job_config::problem::one_line;
use crate::terminal::{BAD, FAINT, GOOD, TITLE, wrapped};

/// Before each line below a title.
const INDENTATION: usize = 2;

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
            let scope = [project, stage, service].map(|part| part.unwrap_or("-"));
            let scope = scope.join(" / ");
            let (event_type, scope) = (one_line(event_type), one_line(&scope));
            format!(
                "{}\n  {scope}, id {}\n",
                styled(TITLE, &event_type),
                one_line(id)
            )
        }
        Told::Config { file, .. } => format!("  config {file}\n\n"),
        Told::Problem { problem, .. } => problem.text.clone(),
        Told::Action {
            name,
            line,
            silent,
            matches,
            reasons,
            ..
        } => {
            let silent = if *silent { ", silent" } else { "" };
            let verdict = verdict(*matches, reasons);
            let name = styled(TITLE, &one_line(name));
            let title = format!("{name} (line {line}{silent}) {verdict}\n");
            let reasons = reasons.iter().map(|reason| indented(reason, FAINT));
            title + &reasons.collect::<String>()
        }
        Told::TaskStarted {
            action,
            task,
            number,
            of,
            image,
            ..
        } => {
            let task = styled(TITLE, &one_line(task));
            let image = styled(FAINT, &format!("({})", one_line(image)));
            let action = one_line(action);
            format!("\n{action}, task {number} of {of}: {task} {image}\n")
        }
        Told::Output {
            line,
            task,
            beside_others,
            ..
        } => {
            let whose = if *beside_others { *task } else { "" };
            // A task that leaves a colour on does not colour what follows.
            let reset = if line.contains('\u{1b}') {
                "\u{1b}[0m"
            } else {
                ""
            };
            format!("{} {line}{reset}\n", styled(FAINT, &format!("  {whose}|")))
        }
        Told::TaskEnded {
            task,
            result,
            exit_code,
            reason,
            seconds,
            ..
        } => task_ended(task, *result, *exit_code, *reason, *seconds),
        Told::TaskRetried {
            task,
            exit_code,
            attempt,
            of,
            ..
        } => indented(
            &format!(
                "{task} failed with exit code {exit_code} at attempt {attempt} of {of}, and is started again"
            ),
            Style::new(),
        ),
        Told::Answered { status, text, .. } => {
            indented(&format!("answered {status}: {text}"), FAINT)
        }
        Told::Listening {
            address,
            test_events,
        } => listening(address, test_events),
        Told::Note { text } => indented(text, Style::new()),
        Told::EventSent { event, of_several } => sent(event, *of_several),
        Told::Ended {
            result,
            reason,
            tasks,
            failed,
            seconds,
        } => ended(*result, reason, (*tasks, *failed), *seconds),
    }
}

fn verdict(matches: bool, reasons: &[String]) -> String {
    match (matches, reasons.is_empty()) {
        (true, true) => styled(GOOD, "matches"),
        (true, false) => styled(BAD, "matches, but is refused"),
        (false, _) => styled(FAINT, "does not match"),
    }
}

fn task_ended(
    task: &str,
    result: TaskResult,
    exit_code: Option<i64>,
    reason: Option<&str>,
    seconds: f64,
) -> String {
    let how = match result {
        TaskResult::Succeeded => styled(GOOD, "succeeded"),
        TaskResult::Failed => styled(BAD, "failed"),
    };
    let code = match (result, exit_code) {
        (TaskResult::Failed, Some(code)) => format!(" with exit code {code}"),
        _ => String::new(),
    };
    let reason = reason.map_or_else(String::new, |reason| indented(reason, Style::new()));
    format!(
        "  {} {how}{code} after {seconds:.1} s\n{reason}",
        one_line(task)
    )
}

fn ended(result: RunResult, reason: &str, tasks: (usize, usize), seconds: f64) -> String {
    let (style, word) = match result {
        RunResult::Succeeded => (GOOD, "succeeded"),
        RunResult::Errored => (BAD, "errored"),
        RunResult::BadInput => (BAD, "bad input"),
        RunResult::NothingMatched => (TITLE, "nothing matched"),
        RunResult::Interrupted => (BAD, "interrupted"),
    };
    let counted = match tasks {
        (0, _) => String::new(),
        (tasks, 0) => format!(": {} in {seconds:.1} s", count(tasks)),
        (tasks, failed) => format!(": {failed} of {} failed, in {seconds:.1} s", count(tasks)),
    };
    let reason = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    format!("\n{}{counted}{reason}\n", styled(style, word))
}

fn listening(address: &str, test_events: &[String]) -> String {
    let mut told = format!(
        "listening on {}, which shows the runs to a browser\n",
        styled(TITLE, address)
    );
    if !test_events.is_empty() {
        told += &format!("  curl -X POST {address}test-events/NUMBER sends one of\n");
    }
    for (index, name) in test_events.iter().enumerate() {
        let number = format!("  {} ", index + 1);
        let name = wrapped(name, number.len()).join(&format!("\n{:1$}", "", number.len()));
        told += &format!("{number}{name}\n");
    }
    told.push('\n');
    told
}

fn sent(event: &Value, of_several: bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let data = &event["data"];
    let mut told = format!(
        "\n{} {}\n",
        styled(FAINT, "event sent"),
        styled(TITLE, &text(&event["type"]))
    );
    if of_several {
        told += &format!(
            "  for the event {}\n",
            one_line(&text(&event["triggeredid"]))
        );
    }
    if data["status"].is_string() {
        let (status, result) = (text(&data["status"]), text(&data["result"]));
        told += &format!("  status {status}, result {result}\n");
    }
    let message = text(&data["message"]);
    // The logs in it were told when they were printed.
    let with_logs = message.contains("\nLogs:");
    let lines: Vec<&str> = message
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !with_logs || line.starts_with("Task '"))
        .collect();
    for line in lines.iter().take(MAX_MESSAGE_LINES) {
        told += &indented(line, FAINT);
    }
    if lines.len() > MAX_MESSAGE_LINES {
        let more = format!("… {} more lines", lines.len() - MAX_MESSAGE_LINES);
        told += &format!("  {}\n", styled(FAINT, &more));
    }
    told
}

fn indented(text: &str, style: Style) -> String {
    let lines = wrapped(text, INDENTATION);
    lines
        .iter()
        .map(|line| format!("  {}\n", styled(style, line)))
        .collect()
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
