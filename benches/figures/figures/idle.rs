//! What the service costs while nothing happens.

use std::time::{Duration, Instant};

use super::{SETTLED, keptn};
use crate::cluster::Stage;
use crate::proxy::{Kind, Proxy};
use crate::service::Service;
use crate::table::{Limit, Row, Samples, Unit};

pub(super) const NAME: &str = "idle";

const WINDOW: Duration = Duration::from_secs(60);

pub(super) async fn measure() -> anyhow::Result<Vec<Row>> {
    let keptn = keptn().await?;
    // The one is as in life; the other takes a way on which requests are counted.
    let (stage, counted) = (Stage::new(NAME).await?, Stage::new("idle-counted").await?);
    let proxy = Proxy::start(counted.client.clone()).await?;
    let kubeconfig = stage.kubeconfig().await?;
    let service = Service::start(&stage, &keptn, &kubeconfig, &[]).await?;
    let kubeconfig = counted.kubeconfig_over(&proxy)?;
    let over_proxy = Service::start(&counted, &keptn, &kubeconfig, &[]).await?;
    tokio::time::sleep(SETTLED).await;
    let memory = service.megabytes()?;
    proxy.take();
    let (begun, before) = (Instant::now(), service.processor_time()?);
    tokio::time::sleep(WINDOW).await;
    let worked = service.processor_time()?.saturating_sub(before);
    let percent = 100.0 * worked.as_secs_f64() / begun.elapsed().as_secs_f64();
    let requests = proxy.take();
    let watches = requests.iter().filter(|kind| **kind == Kind::Watch).count();
    let others: Vec<String> = requests.into_iter().filter_map(Kind::other).collect();
    drop((service, over_proxy));
    stage.leave().await?;
    counted.leave().await?;
    let count = |requests: usize| -> anyhow::Result<Samples> {
        Ok(Samples::new(
            Unit::Requests,
            [f64::from(u32::try_from(requests)?)],
        ))
    };
    let list = others.join(", ");
    Ok(vec![
        Row::new(NAME, "memory", Samples::new(Unit::Megabytes, [memory])).must(Limit::AtMost(15.0)),
        Row::new(
            NAME,
            "processor, of one core",
            Samples::new(Unit::Percent, [percent]),
        )
        .must(Limit::AtMost(0.1)),
        Row::new(
            NAME,
            format!("requests a minute but watches{list}"),
            count(others.len())?,
        )
        .must(Limit::AtMost(0.0)),
        Row::new(NAME, "watches begun anew in a minute", count(watches)?),
    ])
}
