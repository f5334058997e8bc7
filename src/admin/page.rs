//! The status page as HTML: complete without a script, which only fetches it again. Pure.

mod bars;
mod event_list;
mod one_run;
mod run_list;
mod words;

pub(super) use maud::Markup as Html;
use maud::{DOCTYPE, Markup, html};

use super::Asked;
use super::window::{About, Duty};
use crate::journal::entry::{RunEntry, RunState, Subject, TaskEntry, TaskState};
use words::time;

pub(super) use event_list::events;
pub(super) use one_run::run;
pub(super) use run_list::runs;

pub(super) const STYLE: &str = include_str!("page/style.css");
pub(super) const REFRESH: &str = include_str!("page/refresh.js");

/// Milliseconds to the next look while something goes on, and otherwise.
const SOON: u32 = 1_500;
const LATER: u32 = 5_000;

#[derive(PartialEq, Eq)]
enum Place {
    Runs,
    Events,
    Elsewhere,
}

/// `next` is when the page is worth another look.
fn layout(title: &str, about: &About, here: &Place, next: Option<u32>, content: &Markup) -> Markup {
    let link = |to: &str, text: &str, is_here: bool| {
        html! { a href=(to) aria-current=[is_here.then_some("page")] { (text) } }
    };
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · job-executor-service" }
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/style.css";
                @if let Some(next) = next {
                    noscript { meta http-equiv="refresh" content=(next.div_ceil(1000).max(3)); }
                    script src="/refresh.js" defer data-next=(next) {}
                }
            }
            body {
                a.skip href="#main" { "Skip to content" }
                header {
                    p.name { a href="/" { "job-executor-service" } " " (about.version) }
                    nav aria-label="Pages" {
                        (link("/", "Runs", *here == Place::Runs))
                        (link("/events", "Events", *here == Place::Events))
                        (link("/metrics", "Metrics", false))
                    }
                    p.duty {
                        @match about.duty {
                            Duty::Executes => { "executes runs" }
                            Duty::Standby => { "stands by: another replica executes the runs" }
                            Duty::Starting => { "starting: the Lease has not been read yet" }
                        }
                        " in namespace " code { (about.namespace) }
                        @if let Some(pod) = &about.pod { ", Pod " code { (pod) } }
                    }
                }
                main id="main" { (content) }
                footer { p { "As of " (time(about.now)) " UTC. " span id="refresh" {} } }
            }
        }
    }
}

pub(super) fn problem(about: &About, error: &str) -> Markup {
    let content = html! {
        h1 { "Not found" }
        p { (error) }
        p { a href="/" { "All runs" } }
    };
    layout("Not found", about, &Place::Elsewhere, None, &content)
}

fn search(asked: &Asked, with_state: bool) -> Markup {
    html! {
        form.search role="search" {
            label for="q" { "Search" }
            input id="q" name="q" type="search" value=(asked.q())
                placeholder="project, stage, task, id …" autocomplete="off";
            @if with_state {
                label for="state" { "State" }
                select id="state" name="state" {
                    @for (value, text) in RunState::ASKED {
                        option value=(value) selected[asked.state() == value] { (text) }
                    }
                }
            }
            button { "Show" }
        }
    }
}

/// Of `Reason: A, Message: B`, as answers have it.
fn of_reason(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("Reason: ")?.split_once(", Message: ")
}

/// What a run waits for that is no task.
fn wait(run: &RunEntry) -> Option<String> {
    if run.state == RunState::Waiting {
        return Some(
            "waits for its turn: as many runs as MAX_CONCURRENT_RUNS allows are at work".into(),
        );
    }
    let is_at_work = run.tasks().any(|task| task.state == TaskState::Running);
    if run.is_over() || is_at_work {
        return None;
    }
    let error = run
        .answers
        .iter()
        .find_map(|answer| answer.last_error.as_ref())?;
    Some(format!("Keptn has not taken its answer yet: {error}"))
}

/// Why a task failed, without the name of its Job, which is long and stands beside it.
fn reason(task: &TaskEntry) -> String {
    const USUAL: &str =
        "Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit";
    let reason = task.reason.as_deref().unwrap_or("failed");
    let of_job = format!("job {} failed. ", task.job.as_deref().unwrap_or_default());
    let reason = reason.strip_prefix(&of_job).unwrap_or(reason);
    let container = format!("container `{}`", task.job.as_deref().unwrap_or_default());
    let code = task.exit_code.filter(|code| *code != 0);
    match (reason.strip_prefix(USUAL), code) {
        (Some(""), Some(code)) => format!("exit code {code}"),
        (Some(attempts), Some(code)) if attempts.starts_with(" (") => {
            format!("exit code {code}{attempts}")
        }
        (Some(why), _) if why.starts_with("; ") => why[2..].to_owned(),
        (Some(""), None) => "failed".to_owned(),
        _ => match of_reason(reason) {
            Some((reason, message)) => format!("{reason}: {message}"),
            None => reason.to_owned(),
        }
        .replace(&container, "its container"),
    }
}

/// What an event is of, without what all have in common.
fn subject(event: &Subject) -> Markup {
    let short = event.event_type.strip_prefix("sh.keptn.event.");
    html! { bdi title=(event.event_type) { (short.unwrap_or(&event.event_type)) } }
}

/// Each name by itself: one that is written from right to left turns nothing else round.
fn scope(event: &Subject) -> Markup {
    let parts = [&event.project, &event.stage, &event.service];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    html! {
        @for (index, part) in parts.iter().enumerate() { @if index > 0 { " / " } bdi { (part) } }
    }
}

fn state(state: RunState) -> Markup {
    let class = match state {
        RunState::Waiting => "badge pending",
        RunState::Running => "badge running",
        RunState::Succeeded => "badge succeeded",
        RunState::Warning => "badge warning",
        RunState::Errored => "badge failed",
    };
    html! { span class=(class) { (state.name()) } }
}

fn task_state(state: TaskState) -> Markup {
    html! { span class=(format!("badge {}", state.name())) { (state.name()) } }
}
