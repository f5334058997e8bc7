//! When tasks ran, as bars over the time of their run.

use jiff::Timestamp;
use maud::{Markup, html};

use super::words::{passed, seconds};
use crate::journal::entry::{RunEntry, TaskEntry, TaskState};

/// Parts of a hundred that a bar has at least, to be seen.
const NARROWEST: f64 = 0.6;

/// A bar's place, in parts of a hundred of the run's time.
struct Bar {
    from: f64,
    width: f64,
    state: TaskState,
}

impl Bar {
    /// None of a task that did not run.
    fn of(run: &RunEntry, task: &TaskEntry, now: Timestamp) -> Option<Self> {
        let begun = task.begun.or(task.started)?;
        let end = match task.state {
            TaskState::Running => now,
            _ => task.finished?,
        };
        let whole = passed(run.arrived, run.ended.unwrap_or(now)).max(0.001);
        let place = |at: Timestamp| (passed(run.arrived, at) / whole * 100.0).min(100.0);
        let from = place(begun).min(100.0 - NARROWEST);
        Some(Self {
            from,
            width: (place(end) - from).max(NARROWEST),
            state: task.state,
        })
    }

    fn draw(&self) -> Markup {
        let part = |number: f64| format!("{number:.2}%");
        html! {
            rect class=(self.state.name()) x=(part(self.from)) width=(part(self.width)) y="0" height="100%" rx="2" {}
        }
    }
}

/// All tasks in one line.
pub(super) fn of_run(run: &RunEntry, now: Timestamp) -> Markup {
    let bars: Vec<Bar> = run
        .tasks()
        .filter_map(|task| Bar::of(run, task, now))
        .collect();
    let (count, done) = (
        run.tasks().count(),
        run.tasks().filter(|task| is_done(task)).count(),
    );
    html! {
        svg.bars role="img" aria-label=(format!("{done} of {count} tasks are done")) {
            @for bar in &bars { (bar.draw()) }
        }
    }
}

fn is_done(task: &TaskEntry) -> bool {
    !matches!(task.state, TaskState::Pending | TaskState::Running)
}

/// One task, where it was in the time of its run.
pub(super) fn of_task(run: &RunEntry, task: &TaskEntry, now: Timestamp) -> Markup {
    let Some(bar) = Bar::of(run, task, now) else {
        return html! { svg.bars aria-hidden="true" {} };
    };
    let begun = task.begun.or(task.started).unwrap_or(run.arrived);
    let label = format!("began {} after the event", seconds(run.arrived, begun));
    html! { svg.bars role="img" aria-label=(label) { (bar.draw()) } }
}
