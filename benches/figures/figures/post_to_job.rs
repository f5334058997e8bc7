//! From an event to its Job.

use std::time::Instant;

use super::{PARKED, Scale, keptn};
use crate::cluster::{Stage, copy_of};
use crate::service::{self, Service};
use crate::table::{Limit, Row, Samples};

pub(super) const NAME: &str = "post-to-job";

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (stage, keptn) = (Stage::new(NAME).await?, keptn().await?);
    let kubeconfig = stage.kubeconfig().await?;
    let service = Service::start(&stage, &keptn, &kubeconfig, &[]).await?;
    service.takes(PARKED, "warm-up").await?;
    let template = stage.jobs_of("warm-up").await?.remove(0);
    let http = service::http()?;
    let config = format!(
        "/configuration-service/v1/project/bench/stage/dev/service/{PARKED}/resource/job%252Fconfig.yaml"
    );
    let config = keptn.url(&stage.host, &config);
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    // The first round makes connections.
    for round in 0..=scale.rounds(60, 20) {
        let begun = Instant::now();
        http.get(&config).send().await?.bytes().await?;
        stage
            .create_job(&copy_of(&template, &format!("floor-{round}")))
            .await?;
        let of_floor = begun.elapsed();
        let begun = Instant::now();
        service.takes(PARKED, &format!("event-{round}")).await?;
        if round > 0 {
            ours.push(begun.elapsed());
            floor.push(of_floor);
        }
    }
    drop(service);
    stage.leave().await?;
    let row = Row::new(
        NAME,
        "POST → Job created, answered with 202",
        Samples::times(ours),
    )
    .beside("config fetch + create", Samples::times(floor))
    .must(Limit::FloorPlus(5.0))
    .guard(Limit::FloorTimes(3.0));
    Ok(vec![row])
}
