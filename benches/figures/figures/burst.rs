//! Thousands of events at once: how many Jobs a second the service makes of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use futures::future::try_join_all;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};

use super::{PARKED, SETTLED, keptn};
use crate::cluster::{AT_ONCE, NoKubelet, Stage, copy_of};
use crate::service::{Sender, Service};
use crate::table::{Limit, Row, Samples, Unit};

pub(super) const NAME: &str = "burst";

const EVENTS: usize = 2000;
/// What a virtual machine does in a minute may be a third less than in the one before.
const ROUNDS: usize = 5;

/// Without a way to stop the kubelet there is nothing to compare.
pub(super) async fn measure() -> anyhow::Result<Vec<Row>> {
    let Some(no_kubelet) = NoKubelet::begin()? else {
        println!("  left out: E2E_CLUSTER does not say how to stop the kubelet");
        return Ok(Vec::new());
    };
    let keptn = keptn().await?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        // Each begins with nothing there: the Jobs before it would get their Pods meanwhile.
        let stage = Stage::new(&format!("{NAME}-{round}")).await?;
        let kubeconfig = stage.kubeconfig().await?;
        let service = Service::start(&stage, &keptn, &kubeconfig, &[]).await?;
        service.rests().await?;
        let senders = (0..AT_ONCE).map(|_| service.sender());
        let id = |number| format!("round-{round}-{number}");
        let send = async |sender: &mut Sender, number| sender.sends(PARKED, &id(number)).await;
        ours.push(rate(EVENTS, senders, send).await?);
        drop(service);
        let jobs = made(&stage).await?;
        anyhow::ensure!(
            jobs.len() == EVENTS,
            "{} Jobs of {EVENTS} events",
            jobs.len()
        );
        let copies: Vec<Job> = (0..EVENTS)
            .map(|number| copy_of(&jobs[number], &format!("floor-{number}")))
            .collect();
        stage.leave_nothing().await?;
        tokio::time::sleep(SETTLED).await;

        let stage = Stage::new(&format!("{NAME}-floor-{round}")).await?;
        // What the API server does for a request depends on who asks.
        let jobs = stage.jobs_by(&stage.kubeconfig().await?).await?;
        let tasks = (0..AT_ONCE).map(|_| &jobs);
        let create = async |jobs: &mut &Api<Job>, number: usize| {
            jobs.create(&PostParams::default(), &copies[number]).await?;
            Ok(())
        };
        floor.push(rate(EVENTS, tasks, create).await?);
        stage.leave_nothing().await?;
        tokio::time::sleep(SETTLED).await;
    }
    drop(no_kubelet);
    let what = format!("{EVENTS} events from {AT_ONCE} senders → Jobs");
    let row = Row::new(NAME, what, Samples::new(Unit::PerSecond, ours))
        .beside(
            "the same Jobs by 64 tasks",
            Samples::new(Unit::PerSecond, floor),
        )
        .must(Limit::LeastFloorTimes(0.8));
    Ok(vec![row])
}

/// How often a second something can be done, by several that each do one after the other.
async fn rate<Doer>(
    count: usize,
    doers: impl Iterator<Item = Doer>,
    one: impl AsyncFn(&mut Doer, usize) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    let works = async |mut doer| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return anyhow::Ok(());
            }
            one(&mut doer, number).await?;
        }
    };
    let begun = Instant::now();
    try_join_all(doers.map(works)).await?;
    Ok(f64::from(u32::try_from(count)?) / begun.elapsed().as_secs_f64())
}

/// In the order of the events: the first ones get Pods, which is work for the cluster, and the others wait.
async fn made(stage: &Stage) -> anyhow::Result<Vec<Job>> {
    let ours = ListParams::default().labels("app.kubernetes.io/managed-by=job-executor-service");
    let mut jobs = stage.api::<Job>().list(&ours).await?.items;
    let number = |job: &Job| -> Option<usize> {
        let event = job.labels().get("keptn.sh/event-id")?;
        event.rsplit_once('-')?.1.parse().ok()
    };
    jobs.sort_by_key(number);
    Ok(jobs)
}
