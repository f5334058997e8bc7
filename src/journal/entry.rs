//! One line of the journal: an event, or a run with its tasks and answers. As it is shown, and as JSON.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::event::Envelope;
use crate::event::answer;
use crate::job_config::fields::OnFailure;
use crate::report::{boundary, shortened};
use crate::run::{Place, Refusal, Run, RunId};

/// Bytes of a name that are kept: the config's author chooses it.
const MAX_NAME: usize = 300;

/// Bytes of a reason that are kept; the answer has all of it.
pub(super) const MAX_REASON: usize = 4 << 10;

/// Tasks of a run that are kept.
const MAX_TASKS: usize = 500;

/// What identifies an event.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Subject {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) source: String,
    pub(crate) keptn_context: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) stage: Option<String>,
    pub(crate) service: Option<String>,
}

/// A delivery of an event, and what was decided.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EventEntry {
    pub(crate) arrived: Timestamp,
    /// None of what is no event.
    pub(crate) event: Option<Subject>,
    pub(crate) outcome: EventOutcome,
    /// What the sender was told.
    pub(crate) reason: String,
    pub(crate) run: Option<RunId>,
    /// How often it came with this outcome, one after the other.
    pub(crate) times: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EventOutcome {
    /// A run follows, or an answer is out.
    Accepted,
    /// No work follows.
    Nothing,
    /// It was no event.
    Invalid,
    /// A bug of the service.
    Panicked,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunEntry {
    pub(crate) id: RunId,
    pub(crate) state: RunState,
    pub(crate) event: Subject,
    pub(crate) arrived: Timestamp,
    /// None while it goes on, and where nothing tells any more.
    pub(crate) ended: Option<Timestamp>,
    /// Why there is no task, such as an invalid config.
    pub(crate) problem: Option<String>,
    pub(crate) actions: Vec<ActionEntry>,
    /// Tasks beyond those in `actions`.
    pub(crate) tasks_left_out: usize,
    /// None for a run of which Keptn is told nothing.
    pub(crate) answers: Vec<AnswerEntry>,
    pub(crate) source: Source,
}

/// Who saw what is told of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// This process, all of it.
    Here,
    /// This process, but for its beginning.
    TakenOver,
    /// Read off its Jobs: another process executes it, or did.
    Cluster,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunState {
    /// For its turn (`MAX_CONCURRENT_RUNS`).
    Waiting,
    Running,
    Succeeded,
    /// Something failed that is no reason to stop.
    Warning,
    Errored,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct ActionEntry {
    pub(crate) name: String,
    pub(crate) silent: bool,
    pub(crate) tasks: Vec<TaskEntry>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskEntry {
    pub(crate) name: String,
    pub(crate) image: String,
    /// None for a task that was refused before it had a Job.
    pub(crate) job: Option<String>,
    /// Where it is not the one in which Jobs run.
    pub(crate) namespace: Option<String>,
    pub(crate) on_failure: OnFailure,
    pub(crate) state: TaskState,
    /// When its turn came.
    pub(crate) begun: Option<Timestamp>,
    /// Of its container.
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
    pub(crate) pod: Option<String>,
    /// Of its container, where this process saw its end; or else its Pod, when somebody looks at the run.
    pub(crate) exit_code: Option<i32>,
    /// Why it failed.
    pub(crate) reason: Option<String>,
    /// What it is at, for one that runs, when somebody looks.
    pub(crate) now: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TaskState {
    /// Its turn has not come.
    Pending,
    Running,
    Succeeded,
    /// It failed, and the action goes on.
    Warning,
    Failed,
    /// An earlier one of its action failed.
    Skipped,
    /// Its Job is gone, and nobody here saw its end.
    Unknown,
}

/// One event on its way to Keptn.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AnswerEntry {
    #[serde(skip)]
    pub(super) id: Uuid,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) state: AnswerState,
    /// Of this process.
    pub(crate) attempts: u32,
    /// When Keptn took it, where that is known.
    pub(crate) taken: Option<Timestamp>,
    /// Why the last attempt failed.
    pub(crate) last_error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AnswerState {
    /// It is not time yet, or it is tried again.
    Pending,
    Sent,
}

impl Subject {
    pub(crate) fn of(envelope: &Envelope) -> Self {
        let scope = &envelope.scope;
        let part = |text: &Option<String>| text.as_deref().map(name);
        Self {
            id: name(&envelope.id),
            event_type: name(envelope.event_type.as_str()),
            source: name(&envelope.source),
            keptn_context: part(&envelope.keptn_context),
            project: part(&scope.project),
            stage: part(&scope.stage),
            service: part(&scope.service),
        }
    }
}

impl Subject {
    fn words(&self) -> impl Iterator<Item = &str> {
        let parts = [
            &self.keptn_context,
            &self.project,
            &self.stage,
            &self.service,
        ];
        let parts = parts.into_iter().filter_map(|part| part.as_deref());
        [&self.id, &self.event_type, &self.source]
            .map(String::as_str)
            .into_iter()
            .chain(parts)
    }
}

impl EventEntry {
    pub(crate) fn is_without_run(&self) -> bool {
        self.outcome != EventOutcome::Accepted
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let event = self.event.iter().flat_map(Subject::words);
        event.chain([self.outcome.name(), self.reason.as_str()])
    }
}

impl RunEntry {
    pub(super) fn of(run: &Run) -> Self {
        let mut room = MAX_TASKS;
        let mut left_out = 0;
        let mut actions = Vec::new();
        for (action, places) in run.steps() {
            let refusals = action.refusals();
            let count = refusals.len() + places.len();
            let refused = refusals.iter().map(TaskEntry::refused);
            let tasks = refused.chain(places.into_iter().map(TaskEntry::of));
            let tasks: Vec<TaskEntry> = tasks.take(room).collect();
            room -= tasks.len();
            left_out += count - tasks.len();
            actions.push(ActionEntry {
                name: name(&action.name),
                silent: action.silent,
                tasks,
            });
        }
        let answers = if run.is_answered() {
            AnswerEntry::both(&run.event)
        } else {
            Vec::new()
        };
        Self {
            id: run.id.clone(),
            state: RunState::Running,
            event: Subject::of(&run.event),
            arrived: run.arrived,
            ended: None,
            problem: None,
            actions,
            tasks_left_out: left_out,
            answers,
            source: Source::Here,
        }
    }

    /// Of an event whose config is of no use.
    pub(super) fn without_config(
        id: &RunId,
        event: &Envelope,
        arrived: Timestamp,
        problem: &str,
    ) -> Self {
        Self {
            id: id.clone(),
            state: RunState::Running,
            event: Subject::of(event),
            arrived,
            ended: None,
            problem: Some(shortened(problem, MAX_REASON)),
            actions: Vec::new(),
            tasks_left_out: 0,
            answers: AnswerEntry::both(event),
            source: Source::Here,
        }
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &TaskEntry> {
        self.actions.iter().flat_map(|action| &action.tasks)
    }

    pub(crate) fn tasks_mut(&mut self) -> impl Iterator<Item = &mut TaskEntry> {
        let actions = self.actions.iter_mut();
        actions.flat_map(|action| &mut action.tasks)
    }

    /// What one may search for.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let actions = self.actions.iter().map(|action| action.name.as_str());
        let tasks = self.tasks().map(|task| task.name.as_str());
        self.event.words().chain(actions).chain(tasks)
    }

    pub(super) fn task_mut(&mut self, job: &str) -> Option<&mut TaskEntry> {
        let mut tasks = self.tasks_mut();
        tasks.find(|task| task.job.as_deref() == Some(job))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.state.is_over()
    }

    /// As its tasks make it: what its answer says, too.
    pub(super) fn verdict(&self) -> RunState {
        let states = || self.tasks().map(|task| task.state);
        if self.problem.is_some() || states().any(|state| state == TaskState::Failed) {
            RunState::Errored
        } else if states().any(|state| state == TaskState::Warning) {
            RunState::Warning
        } else {
            RunState::Succeeded
        }
    }

    /// Nothing more happens; tasks that did not run are skipped.
    pub(super) fn close(&mut self, ended: Option<Timestamp>, state: RunState) {
        self.state = state;
        self.ended = ended;
        for task in self.tasks_mut() {
            match task.state {
                TaskState::Pending => task.state = TaskState::Skipped,
                TaskState::Running => task.state = TaskState::Unknown,
                _ => {}
            }
        }
    }
}

impl RunState {
    pub(crate) fn is_over(self) -> bool {
        match self {
            Self::Waiting | Self::Running => false,
            Self::Succeeded | Self::Warning | Self::Errored => true,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Warning => "warning",
            Self::Errored => "errored",
        }
    }
}

impl TaskEntry {
    fn of(place: Place<'_>) -> Self {
        let task = place.task;
        Self {
            name: name(&task.name),
            image: name(&task.image),
            job: Some(place.job_name()),
            namespace: task.namespace.as_ref().map(|name| name.as_str().to_owned()),
            on_failure: task.on_failure,
            state: TaskState::Pending,
            begun: None,
            started: None,
            finished: None,
            pod: None,
            exit_code: None,
            reason: None,
            now: None,
        }
    }

    fn refused(refusal: &Refusal) -> Self {
        let mut entry = Self {
            name: name(&refusal.task),
            image: String::new(),
            job: None,
            namespace: None,
            on_failure: refusal.on_failure,
            state: TaskState::Pending,
            begun: None,
            started: None,
            finished: None,
            pod: None,
            exit_code: None,
            reason: None,
            now: None,
        };
        entry.fails(&refusal.reason);
        entry
    }

    /// Whether it may have a log.
    pub(crate) fn has_printed(&self) -> bool {
        match self.state {
            TaskState::Pending | TaskState::Skipped => false,
            _ => self.job.is_some(),
        }
    }

    pub(super) fn succeeds(&mut self) {
        self.state = TaskState::Succeeded;
        self.reason = None;
    }

    pub(super) fn fails(&mut self, reason: &str) {
        self.state = match self.on_failure {
            OnFailure::Fail => TaskState::Failed,
            OnFailure::Warn => TaskState::Warning,
        };
        self.reason = Some(shortened(reason, MAX_REASON));
    }
}

impl TaskState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Unknown => "unknown",
        }
    }
}

impl AnswerEntry {
    fn both(event: &Envelope) -> Vec<Self> {
        let of = |phase| Self {
            id: answer::id(event, phase),
            event_type: name(&answer::event_type(event, phase)),
            state: AnswerState::Pending,
            attempts: 0,
            taken: None,
            last_error: None,
        };
        vec![of(answer::STARTED), of(answer::FINISHED)]
    }
}

impl EventOutcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Nothing => "nothing to do",
            Self::Invalid => "invalid",
            Self::Panicked => "panicked",
        }
    }
}

/// At most [`MAX_NAME`] bytes and the mark of the cut: a name is known by its beginning.
fn name(text: &str) -> String {
    if text.len() <= MAX_NAME {
        return text.to_owned();
    }
    format!("{}…", &text[..boundary(text, MAX_NAME)])
}
