//! Which runs the Jobs in the cluster belong to, and how far each has come. Pure.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use tracing::error;

use super::names;
use crate::run::{Run, RunId, job_name};

/// A Job of some run, as the watch or a call shows it.
#[derive(Debug, Clone)]
pub(crate) struct Sighting {
    pub(crate) run: RunId,
    job: String,
    record: String,
    progress: Progress,
    /// The run is over; nothing is left to do for it.
    pub(crate) reported: bool,
}

/// How far a run has come, as its Jobs tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Its first Job waits for its turn.
    pub(crate) queued: bool,
    pub(crate) told: Told,
    /// The names of its Jobs that were seen.
    pub(crate) jobs: BTreeSet<String>,
}

/// What Keptn was told of a run for certain. The mark follows the event, so it may have been told more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    Started,
    /// All, or there was nothing to tell: only marks are missing.
    Finished,
}

/// A run whose end is not marked.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) run: Run,
    pub(crate) progress: Progress,
    /// Its first Job, which tells the progress, was seen.
    pub(crate) is_whole: bool,
}

impl Progress {
    /// What the first Job says now; it does not know of the others.
    pub(crate) fn confirmed(&mut self, first: Sighting) {
        let jobs = std::mem::take(&mut self.jobs);
        *self = first.progress;
        self.jobs.extend(jobs);
    }
}

impl Sighting {
    /// None for a Job that this service did not make.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let run = RunId::from_label(job.labels().get(names::RUN)?);
        let record = job.annotations().get(names::RECORD)?;
        let status = job.status.as_ref();
        // One that ran and is suspended does not wait for its turn: somebody did that.
        let has_run = status.is_some_and(|status| status.start_time.is_some());
        let marked = |mark: &str| job.annotations().contains_key(mark);
        Some(Self {
            run,
            job: job.name_any(),
            record: record.clone(),
            progress: Progress {
                queued: job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true) && !has_run,
                told: if marked(names::ANSWERED) {
                    Told::Finished
                } else if marked(names::STARTED) {
                    Told::Started
                } else {
                    Told::Nothing
                },
                jobs: BTreeSet::from([job.name_any()]),
            },
            reported: job.labels().contains_key(names::REPORTED),
        })
    }

    /// Whether this Job made its run durable, and tells of it.
    pub(crate) fn is_first(&self) -> bool {
        self.job == job_name(&self.run, 0, 0)
    }

    /// None for a record that this version cannot read.
    pub(crate) fn found(self) -> Option<Found> {
        let is_whole = self.is_first();
        match Run::decode(&self.record) {
            Ok(run) => Some(Found {
                run,
                progress: self.progress,
                is_whole,
            }),
            Err(error) => {
                error!(job = self.job, run = %self.run, %error, "the Job's run cannot be continued");
                None
            }
        }
    }
}

/// The Jobs of a list, on their way to being runs.
#[derive(Default)]
pub(crate) struct Listing {
    runs: HashMap<RunId, Sighting>,
}

impl Listing {
    pub(crate) fn add(&mut self, sighting: Sighting) {
        let Some(known) = self.runs.get_mut(&sighting.run) else {
            self.runs.insert(sighting.run.clone(), sighting);
            return;
        };
        let other = if sighting.is_first() {
            std::mem::replace(known, sighting)
        } else {
            sighting
        };
        known.progress.jobs.extend(other.progress.jobs);
    }

    /// The runs in the order of their events' arrival.
    pub(crate) fn into_runs(self) -> Vec<Found> {
        let mut found: Vec<Found> = self
            .runs
            .into_values()
            .filter_map(|mut sighting| {
                // Only a hand can have taken the first Job away; what is left cannot wait for its turn.
                sighting.progress.queued &= sighting.is_first();
                sighting.found()
            })
            .collect();
        found.sort_by(|a, b| (a.run.arrived, &a.run.id).cmp(&(b.run.arrived, &b.run.id)));
        found
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::run::tests::run;

    fn job(task: usize, queued: bool) -> Sighting {
        let run = run(vec![]);
        let job = json!({
            "metadata": {
                "name": job_name(&run.id, 0, task),
                "labels": {names::RUN: run.id},
                "annotations": {names::RECORD: run.encode().unwrap(), names::STARTED: "now"},
            },
            "spec": {"suspend": queued, "template": {}},
        });
        Sighting::of(&serde_json::from_value(job).unwrap()).unwrap()
    }

    fn listed(jobs: impl IntoIterator<Item = Sighting>) -> Found {
        let mut listing = Listing::default();
        jobs.into_iter().for_each(|job| listing.add(job));
        let mut runs = listing.into_runs();
        assert_eq!(runs.len(), 1);
        runs.remove(0)
    }

    #[test]
    fn the_first_job_tells_of_its_run_in_whatever_order_the_jobs_come() {
        for jobs in [[job(0, true), job(1, false)], [job(1, false), job(0, true)]] {
            let found = listed(jobs);
            assert!(found.is_whole && found.progress.queued);
            assert_eq!(found.progress.told, Told::Started);
            assert_eq!(found.progress.jobs.len(), 2);
        }
    }

    #[test]
    fn a_run_whose_first_job_was_deleted_does_not_wait_for_its_turn() {
        let found = listed([job(1, true)]);
        assert!(!found.is_whole && !found.progress.queued);
    }
}
