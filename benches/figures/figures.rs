//! What is measured. A figure gives rows, and makes and leaves all that it needs.

mod burst;
mod idle;
mod image;
mod in_flight;
mod kept;
mod post_to_job;
mod requests;
mod runs;

use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;

use crate::cluster::setting;
use crate::keptn::{FILE, Keptn};
use crate::table::Row;

/// For what takes seconds at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// After thousands of requests, until the machine is quiet again.
const SETTLED: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Full,
    /// A few rounds of what a ratio guards.
    Quick,
}

pub(crate) struct Figure {
    pub(crate) name: &'static str,
    least: Scale,
    measure: fn(Scale) -> LocalBoxFuture<'static, anyhow::Result<Vec<Row>>>,
}

/// Those that leave the cluster busy come last.
pub(crate) const FIGURES: &[Figure] = &[
    Figure {
        name: image::NAME,
        least: Scale::Full,
        measure: |_| async { image::measure() }.boxed_local(),
    },
    Figure {
        name: post_to_job::NAME,
        least: Scale::Quick,
        measure: |scale| post_to_job::measure(scale).boxed_local(),
    },
    Figure {
        name: runs::ONE.name,
        least: Scale::Quick,
        measure: |scale| runs::measure(&runs::ONE, scale).boxed_local(),
    },
    Figure {
        name: runs::THREE.name,
        least: Scale::Quick,
        measure: |scale| runs::measure(&runs::THREE, scale).boxed_local(),
    },
    Figure {
        name: runs::ONE_WITH_FILES.name,
        least: Scale::Quick,
        measure: |scale| runs::measure(&runs::ONE_WITH_FILES, scale).boxed_local(),
    },
    Figure {
        name: runs::THREE_WITH_FILES.name,
        least: Scale::Full,
        measure: |scale| runs::measure(&runs::THREE_WITH_FILES, scale).boxed_local(),
    },
    Figure {
        name: requests::NAME,
        least: Scale::Quick,
        measure: |scale| requests::measure(scale).boxed_local(),
    },
    Figure {
        name: idle::NAME,
        least: Scale::Full,
        measure: |_| idle::measure().boxed_local(),
    },
    Figure {
        name: burst::NAME,
        least: Scale::Full,
        measure: |_| burst::measure().boxed_local(),
    },
    Figure {
        name: in_flight::NAME,
        least: Scale::Full,
        measure: |_| in_flight::measure().boxed_local(),
    },
    Figure {
        name: kept::NAME,
        least: Scale::Full,
        measure: |_| kept::measure().boxed_local(),
    },
];

impl Figure {
    pub(crate) fn is_part_of(&self, scale: Scale) -> bool {
        scale == Scale::Full || self.least == scale
    }

    pub(crate) async fn measure(&self, scale: Scale) -> anyhow::Result<Vec<Row>> {
        (self.measure)(scale).await
    }
}

impl Scale {
    fn rounds(self, full: usize, quick: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// A config of so many tasks that end at once, each with these lines more.
fn config(tasks: usize, more: &str) -> String {
    let image = setting("E2E_BUSYBOX", "localhost/busybox:1");
    let task = |number| {
        format!("      - {{name: task-{number}, image: '{image}', cmd: ['true']{more}}}\n")
    };
    let tasks: String = (1..=tasks).map(task).collect();
    format!(
        "apiVersion: v2\nactions:\n  - name: Benchmark\n    events:\n      \
         - name: sh.keptn.event.bench.triggered\n    tasks:\n{tasks}"
    )
}

/// Of tasks whose Pods wait for a node for ever, so that nothing runs meanwhile.
const PARKED: &str = "parked";

async fn keptn() -> anyhow::Result<Keptn> {
    let kinds = [
        &runs::ONE,
        &runs::THREE,
        &runs::ONE_WITH_FILES,
        &runs::THREE_WITH_FILES,
    ];
    let files = format!(", files: [{FILE}]");
    let of_kinds = kinds.map(|kind| {
        let more = match kind.files {
            runs::Files::None => "",
            runs::Files::One => &files,
        };
        (kind.name.to_owned(), config(kind.tasks, more))
    });
    let parked = config(1, ", nodeSelector: {bench.example.com/node: none}");
    Keptn::start(of_kinds.into_iter().chain([(PARKED.to_owned(), parked)])).await
}
