//! What the Jobs in the cluster tell of runs, those that are over among them. For the page only: nothing that
//! is executed depends on it.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, ListParams};

use super::calls::{Failed, call};
use super::names;
use super::seen::JobSeen;
use crate::journal::{Past, PastEnd, PastJob};
use crate::run::{Run, RunId, job_name};

/// Of a list: a page is in memory as a whole, 10 KB a Job as a rule.
const PAGE_SIZE: u32 = 200;

/// Jobs that are kept, the last ones.
const MAX_JOBS: usize = 2_000;

/// Of their run records together; each may take 224 KiB.
const MAX_RECORD_BYTES: usize = 8 << 20;

/// The last Jobs of a list of any length.
#[derive(Default)]
pub(super) struct History(Vec<Seen>);

struct Seen {
    created: Timestamp,
    run: RunId,
    name: String,
    record: String,
    job: PastJob,
    waits: bool,
    started: Option<Timestamp>,
    answered: Option<Timestamp>,
    reported: bool,
}

impl History {
    pub(super) async fn read(&mut self, jobs: &Api<Job>, labels: &str) -> Result<(), Failed> {
        let mut params = ListParams::default().labels(labels).limit(PAGE_SIZE);
        loop {
            let page = call(jobs.list(&params)).await?;
            self.0.extend(page.items.iter().filter_map(Seen::of));
            self.keep_the_last();
            match page.metadata.continue_ {
                Some(next) if !next.is_empty() => params = params.continue_token(&next),
                _ => return Ok(()),
            }
        }
    }

    fn keep_the_last(&mut self) {
        self.0.sort_by_key(|seen| std::cmp::Reverse(seen.created));
        let mut bytes = 0;
        let fits = |seen: &Seen| {
            bytes += seen.record.len();
            bytes <= MAX_RECORD_BYTES
        };
        let count = self
            .0
            .iter()
            .take(MAX_JOBS)
            .map(fits)
            .take_while(|fits| *fits)
            .count();
        self.0.truncate(count);
    }

    /// The last run first.
    pub(super) fn into_runs(self) -> Vec<Past> {
        let mut runs: HashMap<RunId, Vec<Seen>> = HashMap::new();
        for seen in self.0 {
            runs.entry(seen.run.clone()).or_default().push(seen);
        }
        let mut past: Vec<Past> = runs.into_values().filter_map(past).collect();
        past.sort_by_key(|past| std::cmp::Reverse(past.run.arrived));
        past
    }
}

/// None if the record cannot be read.
fn past(mut jobs: Vec<Seen>) -> Option<Past> {
    // Names sort as the tasks run.
    jobs.sort_by(|a, b| a.name.cmp(&b.name));
    let first = jobs.first()?;
    let run = Run::decode(&first.record).ok()?;
    let is_whole = first.name == job_name(&first.run, 0, 0);
    Some(Past {
        waits: first.waits && is_whole,
        started: first.started,
        finished: first.answered,
        over: first.reported,
        run,
        jobs: jobs
            .into_iter()
            .map(|seen| (seen.name, seen.job))
            .collect::<BTreeMap<_, _>>(),
    })
}

impl Seen {
    fn of(job: &Job) -> Option<Self> {
        let run = RunId::from_label(job.labels().get(names::RUN)?);
        let status = job.status.as_ref();
        let started = status.and_then(|status| status.start_time.as_ref());
        let noted = |name: &str| job.annotations().get(name)?.parse().ok();
        let suspended = job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true);
        Some(Self {
            created: job.creation_timestamp()?.0,
            run,
            name: job.name_any(),
            record: job.annotations().get(names::RECORD)?.clone(),
            job: PastJob {
                end: end(job),
                created: job.creation_timestamp().map(|time| time.0),
                started: started.map(|time| time.0),
                finished: finished(job),
            },
            waits: suspended && started.is_none(),
            started: noted(names::STARTED),
            answered: noted(names::ANSWERED),
            reported: job.labels().contains_key(names::REPORTED),
        })
    }
}

fn end(job: &Job) -> PastEnd {
    match JobSeen::of(job) {
        JobSeen::Complete => PastEnd::Succeeded,
        JobSeen::Noted(reason) => PastEnd::Failed(reason),
        JobSeen::Failed { reason, message } => {
            PastEnd::Failed(format!("Reason: {reason}, Message: {message}"))
        }
        _ => PastEnd::None,
    }
}

/// A Job that failed has no `completionTime`.
fn finished(job: &Job) -> Option<Timestamp> {
    let status = job.status.as_ref()?;
    let complete = status.completion_time.as_ref();
    let conditions = status.conditions.iter().flatten();
    let mut failed = conditions
        .filter(|condition| condition.type_ == "Failed" && condition.status == "True")
        .filter_map(|condition| condition.last_transition_time.as_ref());
    Some(complete.or_else(|| failed.next())?.0)
}
