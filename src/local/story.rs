//! What a person at a desk is told: the tasks of a run with their output, and the events sent, read off
//! what the cluster and Keptn see.

mod text;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Write};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use told::{ProblemTold, RunResult, TaskResult, Told};

use super::kubernetes::{Change, Container, Observer, Resource, text};
use crate::cluster::names;
use crate::report::{Masking, Masks};
use crate::run::Run;

/// Events that are kept.
const MAX_SENT: usize = 100;

/// A longer line is told in parts.
const MAX_LINE: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

pub(crate) struct Story {
    format: Format,
    masks: Masks,
    out: Mutex<Box<dyn Write + Send>>,
    /// Events that were told.
    told: AtomicUsize,
    tasks: Mutex<BTreeMap<String, Task>>,
    /// Whether a run is over.
    over: watch::Sender<bool>,
    sent: Mutex<VecDeque<Value>>,
}

/// A task whose Job is there.
struct Task {
    job: String,
    event: String,
    action: String,
    name: String,
    first: bool,
    started: Option<Instant>,
    number: usize,
    of: usize,
    image: String,
    result: Option<TaskResult>,
    attempts: usize,
    /// The Pods of attempts that failed.
    failed: BTreeSet<String>,
    /// Whether its container's message is for the answer and not for people.
    has_result_file: bool,
    /// By container.
    unfinished: BTreeMap<String, Unfinished>,
}

/// The output of a container that was not told yet.
struct Unfinished {
    /// Since the last end of a line.
    rest: Vec<u8>,
    masking: Masking,
}

impl Story {
    pub(crate) fn new(format: Format, out: Box<dyn Write + Send>) -> Self {
        Self {
            format,
            masks: Masks::default(),
            out: Mutex::new(out),
            told: AtomicUsize::new(0),
            tasks: Mutex::default(),
            over: watch::Sender::new(false),
            sent: Mutex::default(),
        }
    }

    /// On standard output; colours only on a terminal, and not where `NO_COLOR` is set.
    pub(crate) fn on_stdout(format: Format) -> Self {
        Self::new(format, Box::new(anstream::stdout()))
    }

    /// What must not be read in the output of tasks is masked.
    pub(crate) fn masking(self, masks: Masks) -> Self {
        Self { masks, ..self }
    }

    pub(crate) fn tell(&self, told: &Told<'_>) {
        self.write(&self.rendered(told));
    }

    fn rendered(&self, told: &Told<'_>) -> String {
        match self.format {
            // Events stand apart.
            Format::Text
                if matches!(told, Told::Event { .. }) && self.told.fetch_add(1, Relaxed) > 0 =>
            {
                format!("\n{}", text::of(told))
            }
            // There is no story that it ends.
            Format::Text if matches!(told, Told::Ended { .. }) && self.told.load(Relaxed) == 0 => {
                text::of(told).trim_start().to_owned()
            }
            Format::Text => text::of(told),
            Format::Json => serde_json::to_string(told)
                .map(|line| line + "\n")
                .unwrap_or_default(),
        }
    }

    fn write(&self, text: &str) {
        let mut out = lock(&self.out);
        // Nobody listens any more, as in `run … | head`; the work goes on.
        let _: io::Result<()> = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Keptn took an event.
    pub(crate) fn sent(&self, event: &Value) {
        let of_several = self.told.load(Relaxed) > 1;
        self.tell(&Told::EventSent { of_several, event });
        let mut sent = lock(&self.sent);
        sent.push_back(event.clone());
        if sent.len() > MAX_SENT {
            sent.pop_front();
        }
    }

    /// The last events that were sent.
    pub(crate) fn events(&self) -> Vec<Value> {
        lock(&self.sent).iter().cloned().collect()
    }

    /// How many tasks had a Job, and how many of them failed.
    pub(crate) fn tasks(&self) -> (usize, usize) {
        let tasks = lock(&self.tasks);
        let failed = tasks
            .values()
            .filter(|task| task.result == Some(TaskResult::Failed));
        (tasks.len(), failed.count())
    }

    /// Waits until a run is over.
    pub(crate) async fn run_is_over(&self) {
        // The sender lives as long as this does.
        self.over.subscribe().wait_for(|over| *over).await.ok();
    }

    fn job(&self, name: &str, before: Option<&Value>, job: &Value) {
        let mut tasks = lock(&self.tasks);
        if before.is_none()
            && let Some(task) = Task::of(name, job)
        {
            tasks.insert(name.to_owned(), task);
        }
        let Some(task) = tasks.get_mut(name) else {
            return;
        };
        let runs = |job: &Value| job["spec"]["suspend"] != true;
        if task.started.is_none() && runs(job) {
            task.started = Some(Instant::now());
            self.tell(&Told::TaskStarted {
                event: &task.event,
                action: &task.action,
                task: &task.name,
                number: task.number,
                of: task.of,
                image: &task.image,
                job: name,
            });
        }
        let conditions = job["status"]["conditions"].as_array();
        for condition in conditions.into_iter().flatten() {
            match text(&condition["type"]) {
                "Complete" => self.ended(name, task, TaskResult::Succeeded, None, None),
                "Failed" | "FailureTarget" => {
                    let reason = text(&condition["reason"]);
                    let message = match reason {
                        "DeadlineExceeded" => "over its time limit",
                        _ => text(&condition["message"]),
                    };
                    self.ended(name, task, TaskResult::Failed, None, Some(message));
                }
                _ => {}
            }
        }
        let reported = |job: &Value| job["metadata"]["labels"][names::REPORTED] == "true";
        if task.first && reported(job) && !before.is_some_and(reported) {
            self.over.send_replace(true);
        }
    }

    fn pod(&self, pod: &Value) {
        let job = text(&pod["metadata"]["labels"]["job-name"]);
        let mut tasks = lock(&self.tasks);
        let Some(task) = tasks.get_mut(job) else {
            return;
        };
        let statuses = |list: &str| pod["status"][list].as_array().cloned().unwrap_or_default();
        let init = statuses("initContainerStatuses");
        let main = statuses("containerStatuses");
        for status in init.iter().chain(&main) {
            let terminated = &status["state"]["terminated"];
            let is_main = status["name"] == job;
            let Some(code) = terminated["exitCode"].as_i64() else {
                continue;
            };
            let result = if code == 0 {
                TaskResult::Succeeded
            } else {
                TaskResult::Failed
            };
            if code != 0 {
                let is_new = task
                    .failed
                    .insert(text(&pod["metadata"]["name"]).to_owned());
                let attempt = task.failed.len();
                if attempt < task.attempts {
                    if is_new {
                        self.retried(job, task, code);
                    }
                    return;
                }
            }
            if is_main || code != 0 {
                let message = terminated["message"].as_str();
                let reason = message.filter(|_| !task.has_result_file);
                let reason = reason.or((!is_main).then_some("its files could not be fetched"));
                self.ended(job, task, result, Some(code), reason);
            }
        }
    }

    fn retried(&self, job: &str, task: &mut Task, exit_code: i64) {
        self.finish_lines(task);
        self.tell(&Told::TaskRetried {
            event: &task.event,
            action: &task.action,
            task: &task.name,
            job,
            exit_code,
            attempt: task.failed.len(),
            of: task.attempts,
        });
    }

    fn ended(
        &self,
        job: &str,
        task: &mut Task,
        result: TaskResult,
        exit_code: Option<i64>,
        reason: Option<&str>,
    ) {
        self.finish_lines(task);
        if task.result.is_some() {
            return;
        }
        task.result = Some(result);
        let reason = reason.map(|reason| self.masks.text(reason));
        self.tell(&Told::TaskEnded {
            event: &task.event,
            action: &task.action,
            task: &task.name,
            job,
            result,
            exit_code,
            reason: reason.as_deref(),
            seconds: task
                .started
                .map_or(0.0, |started| started.elapsed().as_secs_f64()),
        });
    }

    /// Tells the last lines, which have no end.
    fn finish_lines(&self, task: &mut Task) {
        for (container, mut unfinished) in std::mem::take(&mut task.unfinished) {
            let rest = std::mem::take(&mut unfinished.rest);
            if !rest.is_empty() {
                let line = unfinished.masked(&rest);
                self.write(&self.output(task, &container, &line, false));
            }
        }
    }

    fn output(&self, task: &Task, container: &str, line: &str, beside_others: bool) -> String {
        self.rendered(&Told::Output {
            event: &task.event,
            job: &task.job,
            beside_others,
            action: &task.action,
            task: &task.name,
            container,
            line: line.trim_end_matches('\r'),
        })
    }
}

impl Observer for Story {
    fn changed(&self, change: &Change) {
        let Some(after) = change.after.as_deref() else {
            lock(&self.tasks).remove(&change.key.name);
            return;
        };
        match change.key.resource {
            Resource::Jobs => self.job(&change.key.name, change.before.as_deref(), after),
            Resource::Pods => self.pod(after),
            Resource::ConfigMaps | Resource::Events | Resource::Leases | Resource::Secrets => {}
        }
    }

    fn printed(&self, container: &Container, bytes: &[u8]) {
        let mut tasks = lock(&self.tasks);
        let at_work = |task: &&Task| task.started.is_some() && task.result.is_none();
        let beside_others = tasks.values().filter(at_work).nth(1).is_some();
        let Some(task) = tasks.get_mut(&container.job) else {
            return;
        };
        let unfinished = task.unfinished.remove(&container.name);
        let mut unfinished = unfinished.unwrap_or_else(|| Unfinished {
            rest: Vec::new(),
            masking: Masking::new(&self.masks),
        });
        let mut all = std::mem::take(&mut unfinished.rest);
        all.extend_from_slice(bytes);
        let mut lines: Vec<&[u8]> = all.split(|&byte| byte == b'\n').collect();
        match lines.pop() {
            Some(last) if last.len() < MAX_LINE => unfinished.rest = last.to_vec(),
            Some(last) => lines.push(last),
            None => {}
        }
        let told = lines.into_iter().map(|line| {
            let line = unfinished.masked(line);
            self.output(task, &container.name, &line, beside_others)
        });
        self.write(&told.collect::<String>());
        // A private key is more than one line.
        task.unfinished.insert(container.name.clone(), unfinished);
    }
}

impl Unfinished {
    fn masked(&mut self, line: &[u8]) -> String {
        let mut masked = String::new();
        let mut out = |text: &str| masked.push_str(text);
        self.masking.push(&String::from_utf8_lossy(line), &mut out);
        self.masking.finish(&mut out);
        masked
    }
}

impl Task {
    /// None for a Job that is not of this service.
    fn of(name: &str, job: &Value) -> Option<Self> {
        let run = Run::decode(text(&job["metadata"]["annotations"][names::RECORD])).ok()?;
        let steps: Vec<_> = run.steps().collect();
        let places = steps.iter().flat_map(|(_, places)| places);
        let place = places.into_iter().find(|place| place.job_name() == name)?;
        let of = steps
            .iter()
            .find(|(action, _)| action.index == place.action.index)
            .map_or(0, |(_, places)| places.len());
        Some(Self {
            job: name.to_owned(),
            event: run.event.id.clone(),
            action: place.action.name.clone(),
            name: place.task.name.clone(),
            first: place.is_first(),
            started: None,
            number: place.task_index + 1,
            of,
            image: place.task.image.clone(),
            result: None,
            attempts: 1 + usize::from(u8::from(place.task.retries)),
            failed: BTreeSet::new(),
            has_result_file: place.task.result_file.is_some(),
            unfinished: BTreeMap::new(),
        })
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic leaves here is at worst a line of text too few.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
