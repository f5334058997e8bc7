//! One watch on the Jobs and one on the Pods of this service in a namespace, for all runs together, and beside
//! them those of [`warnings`].
//!
//! What the watches bring is reduced to [`Seen`] at once; whoever waits for a task is woken by the
//! events of its own Job only.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::TryStreamExt;
use futures::stream::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::hindrance::Warning;
use super::interruption::{Interruption, PAGE_SIZE, Pauses, WATCH_SECONDS};
use super::names;
use super::news::{News, Teller};
use super::outcome::{Limits, Now, Seen, TaskEnd};
use super::seen::{JobSeen, PodSeen};
use super::warnings;
use super::watched::Part;
use crate::metrics::{Metrics, Watched};

/// The label that the Job controller puts on each Pod.
pub(super) const JOB_NAME: &str = "job-name";

/// A live view of the tasks that run.
#[derive(Clone)]
pub(crate) struct Watch {
    tasks: Arc<Mutex<Tasks>>,
    /// That of the cluster's objects.
    clock: fn() -> Timestamp,
}

#[derive(Default)]
struct Tasks {
    by_job: HashMap<String, Task>,
    /// How often the Jobs were listed, or began to be.
    lists: u64,
}

#[derive(Default)]
struct Task {
    seen: watch::Sender<Seen>,
    /// The number of the list that was under way, or last, when the Job was known to exist.
    known_at: u64,
}

impl Watch {
    pub(crate) fn new(clock: fn() -> Timestamp) -> Self {
        Self {
            tasks: Arc::default(),
            clock,
        }
    }

    /// From now on the Job of this name is followed, seen or not; tells whether it was not before.
    pub(crate) fn follow(&self, job: &str) -> bool {
        let mut tasks = self.tasks();
        let before = tasks.by_job.len();
        tasks.by_job.entry(job.to_owned()).or_default();
        tasks.by_job.len() > before
    }

    pub(crate) fn forget(&self, job: &str) {
        self.tasks().by_job.remove(job);
    }

    fn subscribe(&self, job: &str) -> watch::Receiver<Seen> {
        let mut tasks = self.tasks();
        tasks
            .by_job
            .entry(job.to_owned())
            .or_default()
            .seen
            .subscribe()
    }

    /// Waits for the end of a task. Ends only with it: the caller sets the limit.
    pub(crate) async fn end(&self, job: &str, limits: Limits) -> TaskEnd {
        let mut seen = self.subscribe(job);
        loop {
            let patience_ends = {
                let seen = seen.borrow_and_update();
                if let Some(end) = seen.end(job, limits, Instant::now()) {
                    return end;
                }
                seen.patience_ends(limits.graces)
            };
            tokio::select! {
                changed = seen.changed() => if changed.is_err() {
                    seen = self.subscribe(job);
                },
                () = reached(patience_ends) => {}
            }
        }
    }

    /// How the task of a Job ended, as far as is known now.
    pub(crate) fn end_by_now(&self, job: &str, limits: Limits) -> Option<TaskEnd> {
        self.subscribe(job)
            .borrow()
            .end(job, limits, Instant::now())
    }

    /// Whether nothing is known of a Job that is said to exist.
    pub(crate) fn is_unknown(&self, job: &str) -> bool {
        let tasks = self.tasks();
        let task = tasks.by_job.get(job);
        task.is_none_or(|task| task.seen.borrow().job == JobSeen::NotYet)
    }

    /// What a call found out, where the watch was away or does not look.
    pub(crate) fn learned(&self, job: &str, state: JobSeen) {
        self.follow(job);
        self.change_job(job, |seen| seen.job = state);
    }

    /// The Job exists, and the watch will tell how it does.
    pub(crate) fn created(&self, job: &str) {
        self.change_job(job, |seen| {
            if seen.job == JobSeen::NotYet {
                seen.job = JobSeen::Running;
            }
        });
    }

    /// What is known of a Job that is followed.
    pub(crate) fn seen(&self, job: &str) -> Option<Seen> {
        let tasks = self.tasks();
        let task = tasks.by_job.get(job)?;
        Some(task.seen.borrow().clone())
    }

    /// As [`Self::learned`], of the Pods of a Job.
    pub(crate) fn learned_pods(&self, pods: &[Pod]) {
        for pod in pods {
            self.saw_pod(pod);
        }
    }

    /// Follows the cluster until the end of the process; errors are retried with back-off.
    pub(crate) async fn run(
        self,
        client: Client,
        namespace: &str,
        managed_by: &str,
        home: Option<&str>,
        teller: Teller,
        metrics: Metrics,
    ) {
        // A Job whose answer is out leaves this watch, so that memory follows the work at hand and
        // not the Jobs that are kept.
        let config = || {
            watcher::Config::default()
                .timeout(WATCH_SECONDS)
                .page_size(PAGE_SIZE)
        };
        let jobs = config().labels(&names::unreported(managed_by, home));
        let pods = config().labels(&names::ours(managed_by, home));
        let jobs = watcher(
            Api::<Part<Job>>::namespaced(client.clone(), namespace),
            jobs,
        )
        .backoff(Pauses::of(teller.needed))
        .boxed();
        let pods = watcher(
            Api::<Part<Pod>>::namespaced(client.clone(), namespace),
            pods,
        )
        .backoff(Pauses::of(teller.needed))
        .boxed();
        let jobs_synced = watch::Sender::new(false);
        let pods_may_start = jobs_synced.subscribe();
        tokio::join!(
            self.follow_jobs(jobs, jobs_synced, teller, namespace, &metrics),
            self.follow_pods(pods, pods_may_start, &metrics),
            warnings::follow(&self, &client, namespace)
        );
    }

    async fn follow_jobs<S>(
        &self,
        mut events: S,
        synced: watch::Sender<bool>,
        mut teller: Teller,
        namespace: &str,
        metrics: &Metrics,
    ) where
        S: futures::Stream<Item = watcher::Result<Event<Part<Job>>>> + Unpin,
    {
        let mut listed = HashSet::new();
        let mut interruption = Interruption::default();
        loop {
            let event = events.try_next().await;
            match &event {
                Ok(_) => interruption.works("Jobs"),
                Err(error) => {
                    teller.failed(error, namespace);
                    metrics.watch_restarts(Watched::Jobs);
                    interruption.failed("Jobs", error);
                }
            }
            match event {
                Ok(Some(Event::Init)) => {
                    listed.clear();
                    self.tasks().lists += 1;
                }
                Ok(Some(Event::InitApply(Part(job)))) => {
                    listed.insert(job.name_any());
                    self.saw_job(&job);
                    teller.tell(News::Listed, &job);
                }
                Ok(Some(Event::InitDone)) => {
                    self.gone_unless(&std::mem::take(&mut listed));
                    teller.list_end();
                    synced.send_replace(true);
                }
                Ok(Some(Event::Apply(Part(job)))) => {
                    self.saw_job(&job);
                    teller.tell(News::Seen, &job);
                }
                Ok(Some(Event::Delete(Part(job)))) => self.lost_job(&job),
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    async fn follow_pods<S>(
        &self,
        mut events: S,
        mut may_start: watch::Receiver<bool>,
        metrics: &Metrics,
    ) where
        S: futures::Stream<Item = watcher::Result<Event<Part<Pod>>>> + Unpin,
    {
        // The Pod of a Job that is not followed is of no interest, so the Jobs come first.
        may_start.wait_for(|synced| *synced).await.ok();
        let mut interruption = Interruption::default();
        loop {
            let event = events.try_next().await;
            match &event {
                Ok(_) => interruption.works("Pods"),
                Err(error) => {
                    metrics.watch_restarts(Watched::Pods);
                    interruption.failed("Pods", error);
                }
            }
            match event {
                Ok(Some(Event::InitApply(Part(pod)) | Event::Apply(Part(pod)))) => {
                    self.saw_pod(&pod);
                }
                Ok(Some(Event::Delete(Part(mut pod)))) => {
                    let now = pod.metadata.creation_timestamp.clone();
                    pod.metadata.deletion_timestamp = pod.metadata.deletion_timestamp.or(now);
                    self.saw_pod(&pod);
                }
                Ok(Some(Event::Init | Event::InitDone)) | Err(_) => {}
                Ok(None) => return,
            }
        }
    }

    fn saw_job(&self, job: &Job) {
        let state = JobSeen::of(job);
        self.follow(&job.name_any());
        self.change_job(&job.name_any(), |seen| seen.job = state);
    }

    /// A Job leaves the watch when it is marked as reported, or when it is deleted. One that ended
    /// before it was deleted keeps its end.
    fn lost_job(&self, job: &Job) {
        if job.labels().contains_key(names::REPORTED) {
            return self.forget(&job.name_any());
        }
        let last = JobSeen::of(job);
        self.change(&job.name_any(), |seen| {
            seen.job = if last.goes_on() { JobSeen::Gone } else { last };
        });
    }

    /// A Job that was there before a list and is not in it is gone. One that was created while the list
    /// was under way may be missing from it.
    fn gone_unless(&self, listed: &HashSet<String>) {
        let tasks = self.tasks();
        for (name, task) in &tasks.by_job {
            let was_there = task.known_at < tasks.lists;
            if was_there && !listed.contains(name) && task.seen.borrow().job.goes_on() {
                self.modify(name, task, |seen| seen.job = JobSeen::Gone);
            }
        }
    }

    fn saw_pod(&self, pod: &Pod) {
        if let Some(job) = pod.labels().get(JOB_NAME) {
            let state = Box::new(PodSeen::of(pod));
            self.change(job, |seen| {
                seen.pods.insert(pod.name_any(), state);
            });
        }
    }

    fn change(&self, job: &str, change: impl FnOnce(&mut Seen)) {
        if let Some(task) = self.tasks().by_job.get(job) {
            self.modify(job, task, change);
        }
    }

    fn modify(&self, job: &str, task: &Task, change: impl FnOnce(&mut Seen)) {
        let now = Now {
            instant: Instant::now(),
            time: (self.clock)(),
        };
        task.seen.send_modify(|seen| {
            change(seen);
            seen.review(job, now);
        });
    }

    /// The Job controller cannot create a Pod for a Job.
    pub(super) fn saw_no_pod(&self, job: &str, warning: Warning) {
        self.change(job, |seen| seen.no_pod = Some(warning));
    }

    /// A Pod waits for what comes before its containers.
    pub(super) fn saw_not_ready(&self, pod: &str, warning: Warning) {
        // The Job controller adds five characters to the Job's name.
        if let Some((job, _)) = pod.rsplit_once('-') {
            self.change(job, |seen| {
                seen.not_ready.insert(pod.to_owned(), warning);
            });
        }
    }

    /// As [`Self::change`], for news that say that the Job exists.
    fn change_job(&self, job: &str, change: impl FnOnce(&mut Seen)) {
        let mut tasks = self.tasks();
        let lists = tasks.lists;
        if let Some(task) = tasks.by_job.get_mut(job) {
            task.known_at = lists;
            self.modify(job, task, change);
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        // No panic can leave the map half changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn reached(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::sync::mpsc;

    use super::super::namespace::Needed;
    use super::super::news::Lists;
    use super::*;

    fn job(name: &str) -> Job {
        serde_json::from_value(serde_json::json!({"metadata": {"name": name}})).unwrap()
    }

    fn state(watch: &Watch, job: &str) -> JobSeen {
        watch.tasks().by_job[job].seen.borrow().job.clone()
    }

    #[tokio::test]
    async fn a_job_created_during_a_list_is_not_taken_for_deleted() {
        let watch = Watch::new(Timestamp::now);
        for name in ["deleted", "kept"] {
            watch.saw_job(&job(name));
        }
        let during = watch.clone();
        let events = stream::iter([
            Event::Init,
            Event::InitApply(Part(job("kept"))),
            Event::InitDone,
        ])
        .map(move |event| {
            if matches!(event, Event::InitDone) {
                during.follow("new");
                during.created("new");
            }
            Ok(event)
        });
        let (news, _) = mpsc::unbounded_channel();
        let teller = Teller::new(news, Lists::new(1), Needed::Always);
        watch
            .follow_jobs(
                events,
                watch::Sender::new(false),
                teller,
                "keptn",
                &Metrics::default(),
            )
            .await;
        assert_eq!(state(&watch, "deleted"), JobSeen::Gone);
        assert_eq!(state(&watch, "kept"), JobSeen::Running);
        assert_eq!(state(&watch, "new"), JobSeen::Running);
    }
}
