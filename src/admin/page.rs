//! The status page as HTML: complete without a script, which only fetches it again. Pure.

mod bars;
mod words;

use jiff::Timestamp;
pub(super) use maud::Markup as Html;
use maud::{DOCTYPE, Markup, html};

use super::Asked;
use super::window::{About, Duty, Events, Log, Overview, RunView};
use crate::journal::entry::{
    ActionEntry, AnswerEntry, AnswerState, EventEntry, EventOutcome, RunEntry, RunState, Source,
    Subject, TaskEntry, TaskState,
};
use words::{ago, seconds, time};

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

pub(super) fn runs(overview: &Overview, asked: &Asked) -> Markup {
    let now = overview.service.now;
    let is_live = overview.runs.iter().any(|run| !run.is_over());
    let content = html! {
        h1 { "Runs" }
        (search(asked, true))
        div id="live" {
            @if let Some(problem) = &overview.problem {
                p.problem role="alert" { "Older runs may be missing: " (problem) }
            }
            @if overview.runs.is_empty() { (no_runs(asked)) }
            ol.runs {
                @for run in &overview.runs { li { (row(run, now)) } }
            }
            @if overview.pages > 1 { (pages(overview, asked)) }
            @if !overview.ignored.is_empty() && overview.page == 1 {
                h2 { "Events without a run" }
                ol.events { @for event in &overview.ignored { li { (event_row(event, now)) } } }
                p { a href="/events" { "All events" } }
            }
        }
    };
    let next = if is_live { SOON } else { LATER };
    layout(
        "Runs",
        &overview.service,
        &Place::Runs,
        Some(next),
        &content,
    )
}

fn no_runs(asked: &Asked) -> Markup {
    html! {
        @if asked.q().is_empty() && asked.state().is_empty() {
            p.empty {
                "No run yet. An event starts one when an action of its job/config.yaml is for it; \
                 what came so far is under " a href="/events" { "Events" } "."
            }
        } @else {
            p.empty { "No run is like this. " a href="/" { "Show all" } }
        }
    }
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

fn pages(overview: &Overview, asked: &Asked) -> Markup {
    let link = |page: usize, text: &str| {
        let q =
            percent_encoding::utf8_percent_encode(asked.q(), percent_encoding::NON_ALPHANUMERIC);
        let href = format!("/?q={q}&state={}&page={page}", asked.state());
        html! { a href=(href) { (text) } }
    };
    html! {
        nav.pages aria-label="Pages of runs" {
            @if overview.page > 1 { (link(overview.page - 1, "Newer")) }
            span { "Page " (overview.page) " of " (overview.pages) ", " (overview.count) " runs" }
            @if overview.page < overview.pages { (link(overview.page + 1, "Older")) }
        }
    }
}

fn row(run: &RunEntry, now: Timestamp) -> Markup {
    html! {
        article.run {
            (state(run.state))
            h2 { a href=(format!("/runs/{}", run.id)) { (subject(&run.event)) } }
            p.scope { (scope(&run.event)) }
            p.when { (ago(run.arrived, now)) }
            p.took { (seconds(run.arrived, run.ended.unwrap_or(now))) }
            (bars::of_run(run, now))
            @if let Some(why) = why(run) { p.why { (why) } }
        }
    }
}

/// What to look at first.
fn why(run: &RunEntry) -> Option<Markup> {
    if let Some(problem) = &run.problem {
        return Some(html! { (problem.lines().next().unwrap_or_default()) });
    }
    let failed = |task: &&TaskEntry| matches!(task.state, TaskState::Failed | TaskState::Warning);
    if let Some(task) = run.tasks().find(failed) {
        return Some(html! { bdi { (task.name) } ": " (reason(task)) });
    }
    let running = run.tasks().find(|task| task.state == TaskState::Running)?;
    let now = running.now.as_deref().unwrap_or("runs");
    Some(html! { bdi { (running.name) } ": " (now) })
}

/// Why a task failed, without the name of its Job, which is long and stands beside it.
fn reason(task: &TaskEntry) -> String {
    const USUAL: &str =
        "Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit";
    let reason = task.reason.as_deref().unwrap_or("failed");
    let of_job = format!("job {} failed. ", task.job.as_deref().unwrap_or_default());
    let reason = reason.strip_prefix(&of_job).unwrap_or(reason);
    let code = task.exit_code.filter(|code| *code != 0);
    match (reason.strip_prefix(USUAL), code) {
        (Some(""), Some(code)) => format!("exit code {code}"),
        (Some(attempts), Some(code)) if attempts.starts_with(" (") => {
            format!("exit code {code}{attempts}")
        }
        (Some(why), _) if why.starts_with("; ") => why[2..].to_owned(),
        _ => reason.to_owned(),
    }
}

pub(super) fn run(view: &RunView) -> Markup {
    let RunView { service, run, logs } = view;
    let now = service.now;
    let event = &run.event;
    let content = html! {
        h1 { (subject(event)) }
        div id="live" {
            p.summary {
                (state(run.state)) " " (scope(event)) " · arrived " (ago(run.arrived, now)) " · "
                @match run.ended {
                    Some(ended) => { "took " (seconds(run.arrived, ended)) }
                    None if run.is_over() => { "nothing tells when it ended" }
                    None => { (seconds(run.arrived, now)) " so far" }
                }
            }
            @match run.source {
                Source::Here => {}
                Source::TakenOver => {
                    p.note { "This process took the run over; attempts of the one before it are not counted." }
                }
                Source::Cluster => {
                    p.note { "Read off the run's Jobs: another process executed it." }
                }
            }
            @if let Some(problem) = &run.problem { pre.problem tabindex="0" { (problem) } }
            @for action in &run.actions { (action_part(view, action)) }
            @if run.tasks_left_out > 0 { p.note { (run.tasks_left_out) " more tasks are not shown." } }
            (answers(run, now))
            @if !logs.is_empty() { (logs_part(run, logs)) }
            h2 { "Event" }
            dl {
                (fact("Type", &event.event_type))
                (fact("Id", &event.id))
                (fact("Source", &event.source))
                @if let Some(context) = &event.keptn_context { (fact("Keptn context", context)) }
                dt { "Arrived" } dd { (time(run.arrived)) " UTC" }
                (fact("Run", &run.id.to_string()))
            }
        }
    };
    let next = (!run.is_over()).then_some(SOON).or(Some(LATER));
    layout(
        &event.event_type,
        service,
        &Place::Elsewhere,
        next,
        &content,
    )
}

fn fact(name: &str, value: &str) -> Markup {
    html! { dt { (name) } dd { code { (value) } } }
}

fn action_part(view: &RunView, action: &ActionEntry) -> Markup {
    html! {
        section {
            h2 {
                "Action " bdi { (action.name) }
                @if action.silent { " " span.note { "(silent: Keptn hears nothing of it)" } }
            }
            @if action.tasks.is_empty() { p.empty { "It has no tasks." } }
            ol.tasks {
                @for task in &action.tasks { li { (task_part(view, task)) } }
            }
        }
    }
}

fn task_part(view: &RunView, task: &TaskEntry) -> Markup {
    let (run, now) = (&view.run, view.service.now);
    let elsewhere = task
        .namespace
        .as_ref()
        .filter(|name| **name != view.service.namespace);
    html! {
        article.task {
            (task_state(task.state))
            h3 { bdi { (task.name) } }
            p.took {
                @match (task.begun.or(task.started), task.finished) {
                    (Some(start), Some(end)) => (seconds(start, end)),
                    (Some(start), None) if task.state == TaskState::Running => (seconds(start, now)),
                    _ => {}
                }
            }
            (bars::of_task(run, task, now))
            @if let Some(text) = &task.now { p.now { (text) } }
            @if task.reason.is_some() { p.reason { (reason(task)) } }
            p.facts {
                @if !task.image.is_empty() { "Image " code { (task.image) } }
                @if let (Some(job), true) = (&task.job, task.has_printed()) {
                    " · Job " code { (job) }
                    @if let Some(namespace) = elsewhere { " in " code { (namespace) } }
                    " · " a href=(format!("/runs/{}/logs/{job}", run.id)) { "Log of " bdi { (task.name) } }
                }
            }
        }
    }
}

fn answers(run: &RunEntry, now: Timestamp) -> Markup {
    let attempts = |answer: &AnswerEntry| match (answer.attempts, run.source) {
        (0, Source::Cluster | Source::TakenOver) => "unknown attempts".to_owned(),
        (0, Source::Here) => "no attempt".to_owned(),
        (1, _) => "1 attempt".to_owned(),
        (count, _) => format!("{count} attempts"),
    };
    html! {
        h2 { "Answers" }
        @if run.answers.is_empty() {
            p.empty { "None: all its actions are silent, or its event is not a triggered one." }
        } @else {
            table {
                thead { tr { th scope="col" { "Event" } th scope="col" { "State" }
                    th scope="col" { "Attempts" } th scope="col" { "Taken by Keptn" } } }
                tbody {
                    @for answer in &run.answers {
                        tr {
                            th scope="row" { code { (answer.event_type) } }
                            td {
                                @match (answer.state, &answer.last_error) {
                                    (AnswerState::Sent, _) => "sent",
                                    (AnswerState::Pending, None) => "not yet",
                                    (AnswerState::Pending, Some(error)) => {
                                        strong { "tried again" } ": " (error)
                                    }
                                }
                            }
                            td { (attempts(answer)) }
                            td { @if let Some(taken) = answer.taken { (ago(taken, now)) } }
                        }
                    }
                }
            }
        }
    }
}

fn logs_part(run: &RunEntry, logs: &std::collections::BTreeMap<String, Log>) -> Markup {
    html! {
        h2 { "Logs" }
        @for task in run.tasks() {
            @if let Some((job, log)) = task.job.as_ref().and_then(|job| logs.get_key_value(job)) {
                details id=(format!("log-{job}")) open {
                    summary { (task.name) }
                    @match log {
                        Log::Missing(reason) => p.note { (reason) },
                        Log::Containers(tails) => {
                            @if tails.is_empty() {
                                p.note { "Nothing: the task has no Pod, or none any more." }
                            }
                            @for tail in tails {
                                p.facts { "Container " code { (tail.container) } " of Pod " code { (tail.pod) } }
                                @if tail.text.is_empty() {
                                    p.note { "It printed nothing." }
                                } @else {
                                    pre tabindex="0" id=(format!("{}-{}", tail.pod, tail.container))
                                        aria-label=(format!("Log of {}", tail.container)) { (tail.text) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn events(events: &Events, asked: &Asked) -> Markup {
    let now = events.service.now;
    let content = html! {
        h1 { "Events" }
        p.note { "The last ones that came to this process, with what it decided." }
        (search(asked, false))
        div id="live" {
            @if events.events.is_empty() {
                p.empty { "None. Keptn's distributor sends what PUBSUB_TOPIC names to this service." }
            }
            ol.events { @for event in &events.events { li { (event_row(event, now)) } } }
        }
    };
    layout(
        "Events",
        &events.service,
        &Place::Events,
        Some(LATER),
        &content,
    )
}

fn event_row(entry: &EventEntry, now: Timestamp) -> Markup {
    let class = match entry.outcome {
        EventOutcome::Accepted => "badge succeeded",
        EventOutcome::Nothing => "badge skipped",
        EventOutcome::Invalid | EventOutcome::Panicked => "badge failed",
    };
    html! {
        article.event {
            span class=(class) { (entry.outcome.name()) }
            h3 {
                @match (&entry.event, &entry.run, entry.outcome) {
                    (Some(event), Some(run), EventOutcome::Accepted) => {
                        a href=(format!("/runs/{run}")) { (subject(event)) }
                    }
                    (Some(event), ..) => (subject(event)),
                    (None, ..) => "No event",
                }
            }
            @if let Some(event) = &entry.event { p.scope { (scope(event)) } }
            p.when {
                (ago(entry.arrived, now))
                @if entry.times > 1 { ", " (entry.times) " times" }
            }
            p.reason { (entry.reason) }
        }
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
