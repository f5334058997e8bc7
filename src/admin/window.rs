//! What there is to see: the journal, completed by what the cluster says when somebody looks.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::Asked;
use crate::cluster::{Cluster, Leadership, Standing, Tail};
use crate::journal::Journal;
use crate::journal::entry::{EventEntry, RunEntry, RunState, Source, TaskEntry, TaskState};
use crate::report::Masks;
use crate::run::RunId;

/// On one page.
const PAGE: usize = 100;

/// Whoever looks waits this long for the cluster at most.
const PATIENCE: Duration = Duration::from_secs(4);

/// Between two looks at the Jobs, where another process executes the runs.
const BETWEEN_READS: Duration = Duration::from_secs(5);

/// Tasks of a run whose logs are shown with it; the others are a link away.
const MAX_LOGS: usize = 8;

/// Logs of tasks that are over, kept for the next look.
const KEPT_LOGS: usize = 32;

#[derive(Clone)]
pub(crate) struct Window(Arc<Sight>);

/// What a window looks out on.
pub(crate) struct Sight {
    pub(crate) journal: Journal,
    pub(crate) cluster: Cluster,
    pub(crate) leadership: Leadership,
    pub(crate) masks: Masks,
    /// Where Jobs run.
    pub(crate) namespace: String,
    /// This service's own.
    pub(crate) pod: Option<String>,
    pub(crate) memory: Memory,
}

/// Between two looks.
#[derive(Default)]
pub(crate) struct Memory {
    /// When the Jobs were read.
    read: tokio::sync::Mutex<Option<Read>>,
    /// By Job, the last one at the end.
    logs: Mutex<VecDeque<(String, Vec<Tail>)>>,
}

struct Read {
    at: Instant,
    /// Whether nothing happened since then without this process.
    is_lasting: bool,
    problem: Option<String>,
}

/// The service, in a line.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct About {
    pub(crate) version: &'static str,
    pub(crate) namespace: String,
    pub(crate) pod: Option<String>,
    pub(crate) duty: Duty,
    pub(crate) now: Timestamp,
}

/// What this process does with runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Duty {
    /// The Lease has not been read.
    Starting,
    Executes,
    Standby,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overview {
    pub(crate) service: About,
    /// Why older runs are missing.
    pub(crate) problem: Option<String>,
    /// That match what was asked for.
    pub(crate) count: usize,
    pub(crate) page: usize,
    pub(crate) pages: usize,
    pub(crate) runs: Vec<RunEntry>,
    /// The last ones from which no run followed.
    pub(crate) ignored: Vec<EventEntry>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Events {
    pub(crate) service: About,
    pub(crate) events: Vec<EventEntry>,
}

#[derive(Debug, Serialize)]
pub(crate) struct RunView {
    pub(crate) service: About,
    pub(crate) run: RunEntry,
    /// By Job.
    pub(crate) logs: BTreeMap<String, Log>,
}

/// What a task printed last, or why nobody knows.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Log {
    Containers(Vec<Tail>),
    Missing(String),
}

impl Log {
    /// Of the task's own container in its last Pod: known here also where another process saw its end.
    fn exit_code(&self, task: &TaskEntry) -> Option<i32> {
        let Self::Containers(tails) = self else {
            return None;
        };
        let is_own = |tail: &&Tail| Some(&tail.container) == task.job.as_ref();
        tails.iter().rev().find(is_own)?.exit_code
    }

    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Missing(reason) => format!("{reason}\n"),
            Self::Containers(tails) if tails.is_empty() => {
                "nothing: the task has no Pod, or none any more\n".into()
            }
            Self::Containers(tails) => {
                let one = |tail: &Tail| {
                    format!(
                        "== container {} of pod {}\n{}\n",
                        tail.container, tail.pod, tail.text
                    )
                };
                tails.iter().map(one).collect()
            }
        }
    }
}

impl Window {
    pub(crate) fn new(sight: Sight) -> Self {
        Self(Arc::new(sight))
    }

    pub(super) fn about(&self) -> About {
        About {
            version: env!("CARGO_PKG_VERSION"),
            namespace: self.0.namespace.clone(),
            pod: self.0.pod.clone(),
            duty: match self.0.leadership.standing() {
                Standing::Unknown => Duty::Starting,
                Standing::Leading(_) => Duty::Executes,
                Standing::Standby => Duty::Standby,
            },
            now: Timestamp::now(),
        }
    }

    /// `problem` is what went wrong at looking back.
    pub(super) fn runs(&self, asked: &Asked, problem: Option<String>) -> Overview {
        let mut runs = self.0.journal.runs();
        runs.retain(|run| asked.is_for(run));
        let (count, pages) = (runs.len(), runs.len().div_ceil(PAGE).max(1));
        let page = asked.page.clamp(1, pages);
        let mut runs: Vec<RunEntry> = runs
            .into_iter()
            .skip((page - 1) * PAGE)
            .take(PAGE)
            .collect();
        for run in &mut runs {
            self.add_now(run);
        }
        let ignored = self.0.journal.events().into_iter();
        Overview {
            service: self.about(),
            problem,
            count,
            page,
            pages,
            runs,
            ignored: ignored
                .filter(EventEntry::is_without_run)
                .take(10)
                .collect(),
        }
    }

    pub(super) fn events(&self, asked: &Asked) -> Events {
        let mut events = self.0.journal.events();
        events.retain(|event| contains(&asked.q, event.words()));
        Events {
            service: self.about(),
            events,
        }
    }

    pub(super) async fn run(&self, id: &RunId) -> Option<RunView> {
        let mut run = self.find(id).await?;
        self.add_now(&mut run);
        let mut shown: Vec<&TaskEntry> = run.tasks().filter(|task| task.has_printed()).collect();
        if shown.len() > MAX_LOGS {
            // What one looks for.
            shown.sort_by_key(|task| match task.state {
                TaskState::Failed | TaskState::Warning => 0,
                TaskState::Running => 1,
                _ => 2,
            });
            shown.truncate(MAX_LOGS);
        }
        let logs = shown.into_iter().map(async |task| {
            let job = task.job.clone().unwrap_or_default();
            let log = self.tails(task).await;
            (job, log)
        });
        let logs: BTreeMap<String, Log> = join_all(logs).await.into_iter().collect();
        for task in run.tasks_mut().filter(|task| task.exit_code.is_none()) {
            let log = task.job.as_ref().and_then(|job| logs.get(job));
            task.exit_code = log.and_then(|log| log.exit_code(task));
        }
        Some(RunView {
            service: self.about(),
            logs,
            run,
        })
    }

    /// None if this is no Job of the run: the page shows no other Pods.
    pub(super) async fn log(&self, id: &RunId, job: &str) -> Option<Log> {
        let run = self.find(id).await?;
        let task = run.tasks().find(|task| task.job.as_deref() == Some(job))?;
        Some(self.tails(task).await)
    }

    async fn find(&self, id: &RunId) -> Option<RunEntry> {
        let known = self.0.journal.run(id);
        // Another process may have gone on with it.
        if known.as_ref().is_none_or(|run| !run.is_over()) {
            self.look_back().await;
            return self.0.journal.run(id);
        }
        known
    }

    fn add_now(&self, run: &mut RunEntry) {
        let taken_over = run.source == Source::TakenOver;
        let running = |task: &&mut TaskEntry| task.state == TaskState::Running;
        for task in run.tasks_mut().filter(running) {
            let Some(job) = &task.job else { continue };
            let Some(now) = self.0.cluster.now(task.namespace.as_deref(), job) else {
                continue;
            };
            // Its turn may have come before this process did.
            if taken_over && now.begun.is_some() {
                task.begun = now.begun;
            }
            task.now = Some(now.words);
        }
    }

    async fn tails(&self, task: &TaskEntry) -> Log {
        let Some(job) = &task.job else {
            return Log::Missing("the task was refused before it had a Job".into());
        };
        if let Some((_, kept)) = self.kept().iter().find(|(of, _)| of == job) {
            return Log::Containers(kept.clone());
        }
        let tails = self
            .0
            .cluster
            .tails(task.namespace.as_deref(), job, &self.0.masks);
        match timeout(PATIENCE, tails).await {
            Ok(Ok(tails)) => {
                if task.finished.is_some() && !tails.is_empty() {
                    let mut kept = self.kept();
                    if kept.len() >= KEPT_LOGS {
                        kept.pop_front();
                    }
                    kept.push_back((job.clone(), tails.clone()));
                }
                Log::Containers(tails)
            }
            Ok(Err(reason)) => Log::Missing(format!("the log cannot be read: {reason}")),
            Err(_) => Log::Missing(format!(
                "the Kubernetes API did not give the log within {} s",
                PATIENCE.as_secs()
            )),
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(String, Vec<Tail>)>> {
        let logs = &self.0.memory.logs;
        logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the Jobs of runs that this process did not execute: once, or again and again while another one
    /// executes. Tells what went wrong.
    pub(super) async fn look_back(&self) -> Option<String> {
        let mut read = self.0.memory.read.lock().await;
        let leads = || matches!(self.0.leadership.standing(), Standing::Leading(_));
        if let Some(last) = read.as_ref() {
            let is_lasting = last.is_lasting && leads();
            if is_lasting || last.at.elapsed() < BETWEEN_READS {
                return last.problem.clone();
            }
        }
        let led = leads();
        let problem = match timeout(PATIENCE, self.0.cluster.past()).await {
            Ok(Ok(past)) => {
                self.0.journal.add_past(past);
                None
            }
            Ok(Err(reason)) => Some(format!("the Jobs in the cluster cannot be read: {reason}")),
            Err(_) => Some(format!(
                "the Kubernetes API did not list the Jobs within {} s",
                PATIENCE.as_secs()
            )),
        };
        *read = Some(Read {
            at: Instant::now(),
            is_lasting: led && problem.is_none(),
            problem: problem.clone(),
        });
        problem
    }
}

impl Asked {
    fn is_for(&self, run: &RunEntry) -> bool {
        let state = match self.state.as_str() {
            "" => true,
            "live" => !run.is_over(),
            name => run.state.name() == name,
        };
        state && contains(&self.q, run.words())
    }

    pub(super) fn q(&self) -> &str {
        &self.q
    }

    pub(super) fn state(&self) -> &str {
        &self.state
    }
}

/// Whether each word of the question is part of one of these.
fn contains<'a>(question: &str, words: impl Iterator<Item = &'a str>) -> bool {
    let words: Vec<String> = words.map(str::to_lowercase).collect();
    let asked = question.to_lowercase();
    let mut asked = asked.split_whitespace();
    asked.all(|asked| words.iter().any(|word| word.contains(asked)))
}

impl RunState {
    /// What one can ask for.
    pub(super) const ASKED: [(&'static str, &'static str); 5] = [
        ("", "all"),
        ("live", "live"),
        ("succeeded", "succeeded"),
        ("warning", "warning"),
        ("errored", "errored"),
    ];
}
