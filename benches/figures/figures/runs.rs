//! Whole runs of `true`, and what passes between their tasks.

use std::time::{Duration, Instant};

use kube::ResourceExt;

use super::{Scale, keptn};
use crate::cluster::Stage;
use crate::floors::{self, Waits};
use crate::keptn::Keptn;
use crate::service::Service;
use crate::sightings::Sightings;
use crate::table::{Limit, Row, Samples};

/// One kind of run; the name is that of its config as well.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) tasks: usize,
    pub(crate) files: Files,
    rounds: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    None,
    /// An init container copies it.
    One,
}

pub(crate) const ONE: Kind = Kind {
    name: "run-one",
    tasks: 1,
    files: Files::None,
    rounds: 9,
};
pub(crate) const THREE: Kind = Kind {
    name: "run-three",
    tasks: 3,
    files: Files::None,
    rounds: 5,
};
pub(crate) const ONE_WITH_FILES: Kind = Kind {
    name: "run-one-files",
    tasks: 1,
    files: Files::One,
    rounds: 5,
};
pub(crate) const THREE_WITH_FILES: Kind = Kind {
    name: "run-three-files",
    tasks: 3,
    files: Files::One,
    rounds: 3,
};

#[derive(Default)]
struct Measured {
    ours: Vec<Duration>,
    /// Container ended → next Job.
    hops: Vec<Duration>,
    /// Last container ended → answer.
    answers: Vec<Duration>,
    by_container: Vec<Duration>,
    hops_of_floor: Vec<Duration>,
    logs: Vec<Duration>,
    by_job: Vec<Duration>,
}

pub(crate) async fn measure(kind: &Kind, scale: Scale) -> anyhow::Result<Vec<Row>> {
    let (stage, keptn) = (Stage::new(kind.name).await?, keptn().await?);
    let sightings = Sightings::begin(&stage.client, &stage.namespace);
    let kubeconfig = stage.kubeconfig().await?;
    let service = Service::start(&stage, &keptn, &kubeconfig, &[]).await?;
    let rounds = scale.rounds(kind.rounds, 3);
    // The first round makes the Jobs that the floors make again, and every connection.
    let mut measured = Measured::default();
    run(
        kind,
        &stage,
        &keptn,
        &sightings,
        &service,
        "warm-up",
        &mut Measured::default(),
    )
    .await?;
    let templates = stage.jobs_of("warm-up").await?;
    for round in 0..rounds {
        let event = format!("event-{round}");
        run(
            kind,
            &stage,
            &keptn,
            &sightings,
            &service,
            &event,
            &mut measured,
        )
        .await?;
        let floor = async |waits: Waits, name: &str| {
            let run = floors::run(&stage, &sightings, &templates, name, waits).await?;
            ends(&sightings, &format!("{name}-{}", templates.len() - 1)).await?;
            anyhow::Ok(run)
        };
        let of_container = floor(Waits::ForContainer, &format!("floor-p-{round}")).await?;
        measured.by_container.push(of_container.whole);
        measured.hops_of_floor.extend(of_container.hops);
        measured.logs.push(of_container.log);
        if scale == Scale::Full {
            let of_job = floor(Waits::ForJob, &format!("floor-j-{round}")).await?;
            measured.by_job.push(of_job.whole);
        }
    }
    drop(service);
    stage.leave().await?;
    Ok(measured.rows(kind, scale))
}

/// One event, until nothing of it goes on.
async fn run(
    kind: &Kind,
    stage: &Stage,
    keptn: &Keptn,
    sightings: &Sightings,
    service: &Service,
    event: &str,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    service.takes(kind.name, event).await?;
    let answered = keptn.finished(event).await?;
    measured.ours.push(answered - begun);
    let mut last_end = None;
    for job in stage.jobs_of(event).await? {
        let name = job.name_any();
        let created = sightings.when(&name, |seen| seen.created).await?;
        let end = sightings.when(&name, |seen| seen.container_ended).await?;
        if let Some(last_end) = last_end.replace(end) {
            measured
                .hops
                .push(created.saturating_duration_since(last_end));
        }
        ends(sightings, &name).await?;
    }
    if let Some(end) = last_end {
        measured
            .answers
            .push(answered.saturating_duration_since(end));
    }
    Ok(())
}

/// The kubelet and the Job controller have work with a Job after its task has ended.
async fn ends(sightings: &Sightings, job: &str) -> anyhow::Result<()> {
    sightings.when(job, |seen| seen.job_ended).await?;
    Ok(())
}

impl Measured {
    fn rows(self, kind: &Kind, scale: Scale) -> Vec<Row> {
        let tasks = match kind.tasks {
            1 => "one task".to_owned(),
            tasks => format!("{tasks} tasks"),
        };
        let files = match kind.files {
            Files::None => "",
            Files::One => " with a file each",
        };
        let what = format!("POST → `.finished`, {tasks} of `true`{files}");
        let ours = Samples::times(self.ours);
        let mut rows = vec![
            Row::new(kind.name, &what, ours.clone())
                .beside("P", Samples::times(self.by_container))
                .must(Limit::FloorTimes(1.1))
                .guard(Limit::FloorTimes(1.6)),
        ];
        if scale == Scale::Full {
            rows.push(
                Row::new(kind.name, &what, ours)
                    .beside("J", Samples::times(self.by_job))
                    .must(Limit::FloorTimes(0.45)),
            );
        }
        if kind.tasks > 1 {
            rows.push(
                Row::new(
                    kind.name,
                    "container ended → next task's Job created, as a watch shows both",
                    Samples::times(self.hops),
                )
                .beside("P", Samples::times(self.hops_of_floor))
                .must(Limit::AtMost(20.0))
                .guard(Limit::FloorTimes(8.0)),
            );
        }
        rows.push(
            Row::new(
                kind.name,
                "last container ended → `.finished` at the endpoint",
                Samples::times(self.answers),
            )
            .beside("reading the log", Samples::times(self.logs))
            .must(Limit::FloorPlus(50.0))
            .guard(Limit::FloorTimes(12.0)),
        );
        rows
    }
}
