//! All runs, those that go on first, and the last events that started none.

use jiff::Timestamp;
use maud::{Markup, html};

use super::event_list::event_row;
use super::words::{ago, seconds};
use super::{LATER, Place, SOON, bars, layout, reason, scope, search, state, subject, wait};
use crate::admin::Asked;
use crate::admin::window::Overview;
use crate::journal::entry::{RunEntry, TaskEntry, TaskState};

pub(crate) fn runs(overview: &Overview, asked: &Asked) -> Markup {
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
    if let Some(text) = wait(run) {
        return Some(html! { (text) });
    }
    let failed = |task: &&TaskEntry| matches!(task.state, TaskState::Failed | TaskState::Warning);
    if let Some(task) = run.tasks().find(failed) {
        return Some(html! { bdi { (task.name) } ": " (reason(task)) });
    }
    let running = run.tasks().find(|task| task.state == TaskState::Running)?;
    let now = running.now.as_deref().unwrap_or("runs");
    Some(html! { bdi { (running.name) } ": " (now) })
}
