//! One run: its actions with their tasks, its answers, its logs, its event.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{ago, seconds, time};
use super::{LATER, Place, SOON, bars, layout, reason, scope, state, subject, task_state, wait};
use crate::admin::window::{Log, RunView};
use crate::journal::entry::{
    ActionEntry, AnswerEntry, AnswerState, RunEntry, Source, TaskEntry, TaskState,
};

pub(crate) fn run(view: &RunView) -> Markup {
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
            @if let Some(text) = wait(run) { p { (text) } }
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

fn logs_part(run: &RunEntry, logs: &BTreeMap<String, Log>) -> Markup {
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
                                p.facts { "Container " code { (tail.container) } " of Pod " code { (tail.pod) }
                                    @if let Some(code) = tail.exit_code.filter(|code| *code != 0) { ", exit code " (code) } }
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
