//! What a bare client needs for the same Jobs.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::AsyncReadExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::LogParams;

use crate::cluster::{Stage, copy_of};
use crate::sightings::Sightings;

/// By what the client knows that a task has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Floor P.
    ForContainer,
    /// Floor J: as `kubectl wait` does.
    ForJob,
}

/// One task after the other.
pub(crate) struct Run {
    pub(crate) whole: Duration,
    /// From each end, as the watch shows it, to the sight of the next Job.
    pub(crate) hops: Vec<Duration>,
    /// For the log of the last one.
    pub(crate) log: Duration,
}

pub(crate) async fn run(
    stage: &Stage,
    sightings: &Sightings,
    templates: &[Job],
    name: &str,
    waits: Waits,
) -> anyhow::Result<Run> {
    let begun = Instant::now();
    let (mut hops, mut last_end, mut last_job) = (Vec::new(), None::<Instant>, String::new());
    for (index, template) in templates.iter().enumerate() {
        let job = format!("{name}-{index}");
        stage.create_job(&copy_of(template, &job)).await?;
        if let Some(end) = last_end {
            let created = sightings.when(&job, |seen| seen.created).await?;
            hops.push(created.saturating_duration_since(end));
        }
        let end = sightings.when(&job, |seen| match waits {
            Waits::ForContainer => seen.container_ended,
            Waits::ForJob => seen.job_ended,
        });
        last_end = Some(end.await?);
        last_job = job;
    }
    let whole = last_end
        .context("no Jobs")?
        .saturating_duration_since(begun);
    let log = read_log(stage, sightings, &last_job, templates).await?;
    Ok(Run { whole, hops, log })
}

async fn read_log(
    stage: &Stage,
    sightings: &Sightings,
    job: &str,
    templates: &[Job],
) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let pod = sightings.when(job, |seen| seen.pod.clone()).await?;
    // The service names a container as its Job.
    let container = templates.last().map(ResourceExt::name_any);
    let params = LogParams {
        container: Some(container.context("no Jobs")?),
        ..LogParams::default()
    };
    let log = stage.api::<Pod>().log_stream(&pod, &params).await?;
    let mut text = Vec::new();
    Box::pin(log).read_to_end(&mut text).await?;
    Ok(begun.elapsed())
}
