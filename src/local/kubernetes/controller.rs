//! The Job controller: Jobs → Pods, deadlines, conditions, time to live.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::log::Log;
use super::{Change, Key, Kubernetes, Obstacle, Resource, kubelet, text};
use crate::cluster::names::REPORTED;
use crate::run::hash;

/// Of all logs together, before those that the service has read are forgotten.
const MAX_LOG_BYTES: usize = 32 << 20;

/// From the end of a Pod's containers until the Pod is gone: for so long its logs can be read.
const PARTING: Duration = Duration::from_secs(1);

/// Before a Pod takes the place of one that failed; doubled for each that follows, up to the longest.
const BACK_OFF: Duration = Duration::from_secs(10);
const LONGEST_BACK_OFF: Duration = Duration::from_secs(360);

/// Before a Pod that was refused is tried again; doubled for each time that follows.
const FIRST_RECREATION: Duration = Duration::from_secs(1);

/// A Job whose Pod is there.
pub(super) struct Running {
    uid: String,
    stop: CancellationToken,
    /// `activeDeadlineSeconds`, which may change.
    limit: watch::Sender<Option<u64>>,
}

/// Why a Job's Pod is not waited for any more.
enum End {
    Pod {
        succeeded: bool,
    },
    Deadline,
    /// Somebody deletes the Pod.
    PodDeleted,
    /// The Job is deleted or suspended.
    Stopped,
}

impl Kubernetes {
    pub(super) fn control(&self, change: &Change) {
        let key = &change.key;
        let Some(job) = &change.after else {
            if let Some(running) = self.state().running.get(key) {
                running.stop.cancel();
            }
            return self.collect_garbage(change);
        };
        let uid = text(&job["metadata"]["uid"]);
        let mut state = self.state();
        match state.running.get(key).filter(|running| running.uid == uid) {
            Some(running) if job["spec"]["suspend"] == true => running.stop.cancel(),
            Some(running) => {
                running.limit.send_replace(limit(job));
            }
            // As it is by now: on another thread it may have ended since, and its work with it.
            None if state
                .objects
                .get(key)
                .is_some_and(|now| wants_pod(now, uid))
                && !self.stop.is_cancelled() =>
            {
                let running = Running {
                    uid: uid.to_owned(),
                    stop: self.stop.child_token(),
                    limit: watch::Sender::new(limit(job)),
                };
                let (stop, limit) = (running.stop.clone(), running.limit.subscribe());
                state.running.insert(key.clone(), running);
                let (cluster, key, job) = (self.clone(), key.clone(), Arc::clone(job));
                self.tasks.spawn(async move {
                    cluster.work(&key, &job, &stop, limit).await;
                    let uid = text(&job["metadata"]["uid"]).to_owned();
                    let mut state = cluster.state();
                    if state
                        .running
                        .get(&key)
                        .is_some_and(|running| running.uid == uid)
                    {
                        state.running.remove(&key);
                    }
                });
            }
            None => {}
        }
        drop(state);
        self.show_suspension(key, uid);
        self.expire(change);
    }

    /// Whether the Job is suspended, as its conditions say it: one that never was has none.
    fn show_suspension(&self, key: &Key, uid: &str) {
        let Some(job) = self.get(key).filter(|job| job["metadata"]["uid"] == uid) else {
            return;
        };
        let mut conditions = conditions(&job).to_vec();
        let place = conditions
            .iter()
            .position(|condition| condition["type"] == "Suspended");
        let shown = place.is_some_and(|place| conditions[place]["status"] == "True");
        let suspended = job["spec"]["suspend"] == true;
        if suspended == shown || has_ended(&job) {
            return;
        }
        let (status, reason, message) = if suspended {
            ("True", "JobSuspended", "Job suspended")
        } else {
            ("False", "JobResumed", "Job resumed")
        };
        let condition = json!({"type": "Suspended", "status": status, "reason": reason,
            "message": message, "lastTransitionTime": self.now()});
        match place {
            Some(place) => conditions[place] = condition,
            None => conditions.push(condition),
        }
        self.patch(key, &json!({"status": {"conditions": conditions}}))
            .ok();
    }

    /// From the first Pod's beginning to the Job's end.
    async fn work(
        &self,
        key: &Key,
        job: &Value,
        stop: &CancellationToken,
        mut limit: watch::Receiver<Option<u64>>,
    ) {
        let started = Instant::now();
        let retries = job["spec"]["backoffLimit"].as_u64().unwrap_or_default();
        for failed in 0..=retries {
            let admitted = tokio::select! {
                biased;
                end = cut(started, stop, &mut limit) => Err(end),
                () = self.admits_pod(key, job) => Ok(()),
            };
            match admitted {
                Ok(()) => {}
                Err(End::Deadline) => return self.misses_deadline(key, job, failed),
                Err(_) => return,
            }
            let pod = self.create_pod(key, job, failed);
            let start = job["status"]["startTime"].as_str();
            let start = start.map_or_else(|| self.now(), Value::from);
            let failed_before = (failed > 0).then_some(failed);
            self.patch(
                key,
                &json!({"status": {"startTime": start, "active": 1, "failed": failed_before}}),
            )
            .ok();
            let stop_pod = CancellationToken::new();
            let mut run = std::pin::pin!(kubelet::run(self, &pod, &stop_pod));
            let end = tokio::select! {
                succeeded = &mut run => End::Pod { succeeded },
                end = cut(started, stop, &mut limit) => end,
                () = self.is_deleted(&pod) => End::PodDeleted,
            };
            match end {
                End::Pod { succeeded } => {
                    self.settles().await;
                    self.shows_phase(&pod, succeeded);
                    self.settles().await;
                    if succeeded {
                        self.concludes(key, job, "Complete", 0);
                        return;
                    }
                }
                End::Deadline => {
                    let message = "Job was active longer than specified deadline";
                    self.conclude(key, job, "FailureTarget", "DeadlineExceeded", message, 0);
                    self.mark_for_deletion(&pod);
                    stop_pod.cancel();
                    let succeeded = run.await;
                    self.parts_with(&pod, succeeded).await;
                    let failed = failed + 1;
                    self.conclude(key, job, "Failed", "DeadlineExceeded", message, failed);
                    return;
                }
                End::PodDeleted => {
                    if failed == retries {
                        self.announces_failure(key, job);
                    }
                    stop_pod.cancel();
                    let succeeded = run.await;
                    self.parts_with(&pod, succeeded).await;
                }
                End::Stopped => {
                    self.mark_for_deletion(&pod);
                    stop_pod.cancel();
                    let succeeded = run.await;
                    self.parts_with(&pod, succeeded).await;
                    return;
                }
            }
            if failed == retries {
                break;
            }
            let pause = BACK_OFF * 2_u32.saturating_pow(u32::try_from(failed).unwrap_or(u32::MAX));
            let end = tokio::select! {
                () = sleep(pause.min(LONGEST_BACK_OFF)) => continue,
                end = cut(started, stop, &mut limit) => end,
            };
            if matches!(end, End::Deadline) {
                self.misses_deadline(key, job, failed + 1);
            }
            return;
        }
        self.concludes(key, job, "Failed", retries + 1);
    }

    /// While it has no Pod.
    fn misses_deadline(&self, key: &Key, job: &Value, failed: u64) {
        let message = "Job was active longer than specified deadline";
        self.conclude(key, job, "FailureTarget", "DeadlineExceeded", message, 0);
        self.conclude(key, job, "Failed", "DeadlineExceeded", message, failed);
    }

    /// Until the API server takes a Pod of this Job.
    async fn admits_pod(&self, key: &Key, job: &Value) {
        let mut pause = FIRST_RECREATION;
        loop {
            let runtime = &self.parts.runtime;
            let change = runtime.obstacles_change();
            let Some(Obstacle::Refused(message)) = runtime.obstacle(&key.name) else {
                return;
            };
            if job["status"]["startTime"].is_null() {
                self.patch(key, &json!({"status": {"startTime": self.now()}}))
                    .ok();
            }
            self.warn(key, "FailedCreate", &format!("Error creating: {message}"));
            tokio::select! {
                () = change => {}
                () = sleep(pause) => pause *= 2,
            }
        }
    }

    async fn is_deleted(&self, pod: &Key) {
        let deleted = || {
            let pod = self.get(pod);
            pod.is_none_or(|pod| !pod["metadata"]["deletionTimestamp"].is_null())
        };
        self.until(deleted).await;
    }

    fn announces_failure(&self, key: &Key, job: &Value) {
        let message = "Job has reached the specified backoff limit";
        self.conclude(
            key,
            job,
            "FailureTarget",
            "BackoffLimitExceeded",
            message,
            0,
        );
    }

    /// As its Pods ended. Since Kubernetes 1.31 each end is announced by a condition of its own.
    fn concludes(&self, key: &Key, job: &Value, kind: &str, failed: u64) {
        let (announced, reason, message) = if kind == "Complete" {
            let message = "Reached expected number of succeeded pods";
            ("SuccessCriteriaMet", "CompletionsReached", message)
        } else {
            let message = "Job has reached the specified backoff limit";
            ("FailureTarget", "BackoffLimitExceeded", message)
        };
        let is_announced = self.get(key).is_some_and(|job| {
            let mut conditions = conditions(&job).iter();
            conditions.any(|condition| condition["type"] == announced)
        });
        if !is_announced {
            self.conclude(key, job, announced, reason, message, failed);
        }
        self.conclude(key, job, kind, reason, message, failed);
    }

    fn mark_for_deletion(&self, pod: &Key) {
        let patch = json!({"metadata": {"deletionTimestamp": self.now()}});
        self.patch(pod, &patch).ok();
    }

    /// The containers have ended, and the Pod goes.
    async fn parts_with(&self, pod: &Key, succeeded: bool) {
        self.shows_phase(pod, succeeded);
        tokio::select! {
            () = sleep(PARTING) => {}
            // With the cluster go those who could read the logs.
            () = self.stop.cancelled() => {}
        }
        self.delete(pod).ok();
    }

    fn shows_phase(&self, pod: &Key, succeeded: bool) {
        let phase = if succeeded { "Succeeded" } else { "Failed" };
        self.patch(pod, &json!({"status": {"phase": phase}})).ok();
    }

    async fn settles(&self) {
        let half = self.parts.settling / 2;
        if !half.is_zero() {
            sleep(half).await;
        }
    }

    fn create_pod(&self, job_key: &Key, job: &Value, attempt: u64) -> Key {
        self.forget_logs();
        let metadata = &job["metadata"];
        let uid = text(&metadata["uid"]);
        // Where Kubernetes takes five random characters; the same attempt of the same Job gets the same ones here.
        let suffix = &hash(format!("{uid}{attempt}").as_bytes())[..5];
        let key = job_key.sibling(Resource::Pods, &format!("{}-{suffix}", job_key.name));
        let template = &job["spec"]["template"];
        let mut labels = template["metadata"]["labels"].clone();
        for label in ["job-name", "batch.kubernetes.io/job-name"] {
            labels[label] = job_key.name.clone().into();
        }
        let owner = json!({"apiVersion": "batch/v1", "kind": "Job", "name": job_key.name, "uid": uid,
            "controller": true});
        let pod = json!({
            "metadata": {"labels": labels, "annotations": template["metadata"]["annotations"],
                "ownerReferences": [owner]},
            "spec": template["spec"],
            "status": {"phase": "Pending", "startTime": self.now()},
        });
        self.create(&key, pod).ok();
        key
    }

    /// Those of runs that are over, where all together have become large.
    fn forget_logs(&self) {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.logs.values().map(Log::len).sum::<usize>() < MAX_LOG_BYTES {
            return;
        }
        let jobs = state.objects.iter();
        let over: Vec<&Key> = jobs
            .filter(|(key, _)| key.resource == Resource::Jobs)
            .filter(|(_, job)| job["metadata"]["labels"][REPORTED] == "true")
            .map(|(key, _)| key)
            .collect();
        state.logs.retain(|(pod, _), _| {
            let job = pod.rsplit_once('-').map_or(pod.as_str(), |(job, _)| job);
            !over.iter().any(|key| key.name == job)
        });
    }

    /// Adds a condition to the Job, if it is still the same one.
    fn conclude(
        &self,
        key: &Key,
        job: &Value,
        kind: &str,
        reason: &str,
        message: &str,
        failed: u64,
    ) {
        let Some(now) = self
            .get(key)
            .filter(|now| now["metadata"]["uid"] == job["metadata"]["uid"])
        else {
            return;
        };
        let mut conditions = conditions(&now).to_vec();
        conditions.push(
            json!({"type": kind, "status": "True", "reason": reason, "message": message,
            "lastTransitionTime": self.now()}),
        );
        let status = match kind {
            "Complete" => {
                json!({"conditions": conditions, "active": null, "succeeded": 1, "completionTime": self.now()})
            }
            "Failed" => json!({"conditions": conditions, "active": null, "failed": failed}),
            _ => json!({"conditions": conditions}),
        };
        self.patch(key, &json!({"status": status})).ok();
    }

    /// Deletes the Job when its time to live is over; it counts from when the Job has ended and has one.
    fn expire(&self, change: &Change) {
        let ttl = |job: &Value| {
            let ttl = job["spec"]["ttlSecondsAfterFinished"].as_u64();
            ttl.filter(|_| has_ended(job))
        };
        let before = change.before.as_ref().and_then(|job| ttl(job));
        let Some((job, seconds)) = change.after.as_ref().and_then(|job| Some((job, ttl(job)?)))
        else {
            return;
        };
        if before == Some(seconds) {
            return;
        }
        let uid = job["metadata"]["uid"].clone();
        let (cluster, key) = (self.clone(), change.key.clone());
        // Nobody waits for it: it may take days.
        tokio::spawn(async move {
            sleep(Duration::from_secs(seconds)).await;
            let job = cluster
                .get(&key)
                .filter(|job| job["metadata"]["uid"] == uid);
            if job.is_some_and(|job| ttl(&job) == Some(seconds)) {
                cluster.delete(&key).ok();
            }
        });
    }

    /// The Pods of a deleted Job that have ended go with it.
    fn collect_garbage(&self, change: &Change) {
        let uid = change
            .before
            .as_ref()
            .map(|job| job["metadata"]["uid"].clone());
        let (_, pods) = self.list(Resource::Pods, &change.key.namespace);
        for pod in pods {
            let owner = &pod["metadata"]["ownerReferences"][0]["uid"];
            let ended = matches!(text(&pod["status"]["phase"]), "Succeeded" | "Failed");
            if Some(owner) == uid.as_ref() && ended {
                let name = text(&pod["metadata"]["name"]);
                self.delete(&change.key.sibling(Resource::Pods, name)).ok();
            }
        }
    }
}

/// Until the Job must not go on.
async fn cut(
    started: Instant,
    stop: &CancellationToken,
    limit: &mut watch::Receiver<Option<u64>>,
) -> End {
    loop {
        let seconds = *limit.borrow_and_update();
        tokio::select! {
            () = overdue(started, seconds) => return End::Deadline,
            () = stop.cancelled() => return End::Stopped,
            changed = limit.changed() => if changed.is_err() { return End::Stopped },
        }
    }
}

async fn overdue(started: Instant, limit: Option<u64>) {
    match limit {
        Some(0) => {}
        Some(seconds) => sleep_until(started + Duration::from_secs(seconds)).await,
        None => std::future::pending().await,
    }
}

fn limit(job: &Value) -> Option<u64> {
    job["spec"]["activeDeadlineSeconds"].as_u64()
}

fn wants_pod(job: &Value, uid: &str) -> bool {
    job["metadata"]["uid"] == uid && job["spec"]["suspend"] != true && !has_ended(job)
}

fn conditions(job: &Value) -> &[Value] {
    job["status"]["conditions"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

fn has_ended(job: &Value) -> bool {
    conditions(job)
        .iter()
        .any(|condition| matches!(text(&condition["type"]), "Complete" | "Failed"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use futures::future::BoxFuture;
    use jiff::Timestamp;

    use super::super::{Container, Exit, Observer, Output, Parts, Runtime};
    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl Runtime for Counts {
        fn run<'a>(
            &'a self,
            _container: &'a Container,
            _output: &'a Output,
            _stop: &'a CancellationToken,
        ) -> BoxFuture<'a, Exit> {
            self.0.fetch_add(1, Ordering::Relaxed);
            async { Exit::Code(0) }.boxed()
        }
    }

    struct Blind;

    impl Observer for Blind {
        fn changed(&self, _change: &Change) {}
        fn printed(&self, _container: &Container, _bytes: &[u8]) {}
    }

    #[tokio::test]
    async fn what_is_told_late_of_a_job_runs_it_no_second_time() {
        let runtime = Arc::new(Counts::default());
        let cluster = Kubernetes::new(Parts {
            runtime: runtime.clone(),
            observer: Arc::new(Blind),
            clock: Timestamp::now,
            settling: Duration::ZERO,
            volumes: None,
        });
        let key = Key::new(Resource::Jobs, "default", "once");
        let container = json!({"name": "one", "image": "none"});
        let job = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let created = cluster.create(&key, job).ok();
        let created = created.expect("there is no other");
        cluster
            .until(|| cluster.get(&key).is_some_and(|job| has_ended(&job)))
            .await;
        tokio::task::yield_now().await;
        cluster.control(&Change {
            version: 1,
            key,
            before: None,
            after: Some(created),
        });
        cluster.tasks.close();
        cluster.tasks.wait().await;
        assert_eq!(runtime.0.load(Ordering::Relaxed), 1);
    }
}
