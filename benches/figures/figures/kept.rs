//! A service that starts where thousands of finished Jobs are kept.

use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{SETTLED, keptn, requests, runs};
use crate::cluster::{AT_ONCE, Stage, copy_of, is_of_controller};
use crate::keptn::Keptn;
use crate::service::Service;
use crate::table::{Limit, Row, Samples, Unit};

pub(super) const NAME: &str = "kept";

const JOBS: usize = 10_000;
const STARTS: usize = 5;

/// No Job controller looks after a Job that names another one, so that none makes Pods.
const NO_CONTROLLER: &str = "bench.example.com/none";

pub(super) async fn measure() -> anyhow::Result<Vec<Row>> {
    let (stage, keptn) = (Stage::new(NAME).await?, keptn().await?);
    let kubeconfig = stage.kubeconfig().await?;
    let finished = finished(&stage, &keptn, &kubeconfig).await?;
    let kept = (0..JOBS).map(|number| keep(&stage, &finished, format!("kept-{number}")));
    stream::iter(kept)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    tokio::time::sleep(SETTLED).await;
    let (mut ready, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let service = Service::start(&stage, &keptn, &kubeconfig, &[]).await?;
        ready.push(service.ready_after);
        tokio::time::sleep(SETTLED).await;
        memory.push(service.megabytes()?);
    }
    stage.leave_nothing().await?;
    Ok(vec![
        Row::new(
            NAME,
            format!("start → ready, {JOBS} finished Jobs kept"),
            Samples::times(ready),
        )
        .must(Limit::AtMost(2000.0)),
        Row::new(
            NAME,
            format!("memory, {JOBS} finished Jobs kept"),
            Samples::new(Unit::Megabytes, memory),
        )
        .must(Limit::AtMost(60.0)),
    ])
}

/// A Job as the service leaves it, with all marks.
async fn finished(stage: &Stage, keptn: &Keptn, kubeconfig: &str) -> anyhow::Result<Job> {
    let service = Service::start(stage, keptn, kubeconfig, &[]).await?;
    service.takes(runs::ONE.name, "event").await?;
    keptn.finished("event").await?;
    tokio::time::sleep(SETTLED).await;
    requests::is_marked(stage, "event").await?;
    drop(service);
    Ok(stage.jobs_of("event").await?.remove(0))
}

async fn keep(stage: &Stage, finished: &Job, name: String) -> anyhow::Result<()> {
    let mut job = copy_of(finished, &name);
    let labels = finished.labels().clone().into_iter();
    let ours = labels.filter(|(key, _)| !is_of_controller(key));
    job.metadata.labels = Some(ours.collect());
    job.metadata.annotations = Some(finished.annotations().clone());
    if let (Some(spec), Some(of_finished)) = (&mut job.spec, &finished.spec) {
        spec.managed_by = Some(NO_CONTROLLER.to_owned());
        spec.ttl_seconds_after_finished = of_finished.ttl_seconds_after_finished;
    }
    stage.create_job(&job).await?;
    let status = json!({"status": finished.status});
    stage
        .api::<Job>()
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}
