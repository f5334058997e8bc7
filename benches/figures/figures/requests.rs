//! What an event costs the Kubernetes API.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use super::{PATIENCE, Scale, keptn, runs};
use crate::cluster::Stage;
use crate::proxy::{Kind, Proxy};
use crate::service::Service;
use crate::table::{Limit, Row, Samples, Unit};

pub(super) const NAME: &str = "requests";

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (stage, keptn) = (Stage::new(NAME).await?, keptn().await?);
    let proxy = Proxy::start(stage.client.clone()).await?;
    let kubeconfig = stage.kubeconfig_over(&proxy)?;
    let service = Service::start(&stage, &keptn, &kubeconfig, &[]).await?;
    let mut counts = Vec::new();
    let mut kinds = Vec::new();
    for round in 0..scale.rounds(5, 3) {
        let event = format!("event-{round}");
        proxy.take();
        service.takes(runs::ONE.name, &event).await?;
        keptn.finished(&event).await?;
        tokio::time::timeout(PATIENCE, is_marked(&stage, &event)).await??;
        let requests = proxy.take().into_iter();
        kinds = requests.filter_map(Kind::other).collect();
        counts.push(f64::from(u32::try_from(kinds.len())?));
    }
    drop(service);
    stage.leave().await?;
    let what = format!(
        "Kubernetes API requests of a one-task event ({})",
        kinds.join(", ")
    );
    let row = Row::new(NAME, what, Samples::new(Unit::Requests, counts))
        .must(Limit::AtMost(4.0))
        .guard(Limit::AtMost(4.0));
    Ok(vec![row])
}

/// Nothing is done for a run after its Job was marked.
pub(super) async fn is_marked(stage: &Stage, event: &str) -> anyhow::Result<()> {
    let is_marked = |job: &Job| job.labels().contains_key("keptn.sh/jes-reported");
    while !stage.jobs_of(event).await?.iter().all(is_marked) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
