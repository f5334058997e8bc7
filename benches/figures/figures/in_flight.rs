//! The memory of many runs that work at once.

use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;

use super::{PARKED, SETTLED, keptn};
use crate::cluster::{AT_ONCE, Stage};
use crate::service::Service;
use crate::table::{Limit, Row, Samples, Unit};

pub(super) const NAME: &str = "in-flight";

const RUNS: usize = 1000;

/// The Job controller makes some 20 Pods a second.
const PODS_WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn measure() -> anyhow::Result<Vec<Row>> {
    let (stage, keptn) = (Stage::new(NAME).await?, keptn().await?);
    let kubeconfig = stage.kubeconfig().await?;
    let runs = format!("--max-concurrent-runs={RUNS}");
    let settings = [runs.as_str(), "--unschedulable-grace-seconds=3600"];
    let service = Service::start(&stage, &keptn, &kubeconfig, &settings).await?;
    let service = &service;
    let events = (0..RUNS).map(|number| async move {
        let id = format!("event-{number}");
        service.takes(PARKED, &id).await
    });
    stream::iter(events)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let pods = async {
        while stage
            .api::<Pod>()
            .list_metadata(&ListParams::default())
            .await?
            .items
            .len()
            < RUNS
        {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PODS_WITHIN, pods).await??;
    tokio::time::sleep(SETTLED).await;
    let memory = service.megabytes()?;
    stage.leave_nothing().await?;
    let what = format!("memory, {RUNS} runs in flight, each with a Pod that waits");
    let row =
        Row::new(NAME, what, Samples::new(Unit::Megabytes, [memory])).must(Limit::AtMost(40.0));
    Ok(vec![row])
}
