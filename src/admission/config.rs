//! Finds the config of an event: on the level of the service, then of the stage, then of the project.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::timeout;
use tracing::warn;

use crate::event::{Event, EventScope};
use crate::job_config::reader::{CONFIG_URI, MAX_CONFIG_BYTES};
use crate::keptn::resources::{FetchError, Level, Resources};
use crate::telemetry::error_chain;

use super::lock;
use super::shared_reads::SharedReads;

/// For all levels together. Keptn from 0.9 on gives up on a task that nobody started within 10
/// minutes; 2 of them are left for telling it why.
const PATIENCE: Duration = Duration::from_secs((10 - 2) * 60);

/// What Keptn said of a config; none if there is none.
type Read = Result<Option<Arc<Vec<u8>>>, Arc<FetchError>>;

/// A level of what an event belongs to, and of which commit.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    scope: EventScope,
    level: Level,
    commit: Option<String>,
}

/// The configs that events are being told of.
#[derive(Default)]
pub(super) struct Reads(SharedReads<Place, Read>);

/// A config, and the level that it was found on.
pub(super) struct Config {
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) level: Level,
}

/// Only 404 moves on to the next level: any other error may hide a config. The error is for the reader of
/// the answer.
pub(super) async fn find(
    resources: &Resources,
    reads: &Reads,
    event: &Event,
) -> Result<Option<Config>, String> {
    let last_error = Mutex::new(String::from("no answer"));
    let lookup = async {
        for level in [Level::Service, Level::Stage, Level::Project] {
            if let Some(bytes) = on(resources, reads, event, level, &last_error).await? {
                return Ok(Some(Config { bytes, level }));
            }
        }
        Ok::<_, Arc<FetchError>>(None)
    };
    match timeout(PATIENCE, lookup).await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(error)) => Err(error_chain(&error)),
        Err(_) => Err(format!(
            "{} (tried for {} minutes)",
            lock(&last_error),
            PATIENCE.as_secs() / 60
        )),
    }
}

async fn on(
    resources: &Resources,
    reads: &Reads,
    event: &Event,
    level: Level,
    last_error: &Mutex<String>,
) -> Read {
    // The commit is one of the stage's branch, the project's files are on another.
    let commit = event.envelope.git_commit_id.as_deref();
    let commit = commit.filter(|_| level != Level::Project);
    let place = Place {
        scope: event.envelope.scope.clone(),
        level,
        commit: commit.map(str::to_owned),
    };
    let ask = async || {
        let (scope, commit) = (&place.scope, place.commit.as_deref());
        let got = resources.get(scope, level, CONFIG_URI, commit, MAX_CONFIG_BYTES);
        Ok(got.await?.map(Arc::new))
    };
    let get = || reads.0.read(&place, ask);
    get.retry(
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter(),
    )
    .when(|error| !matches!(**error, FetchError::TooLarge { .. }))
    .notify(|error, pause| {
        let error = error_chain(error);
        warn!(
            error,
            retry_in_seconds = pause.as_secs_f64(),
            "{CONFIG_URI} could not be read"
        );
        *lock(last_error) = error;
    })
    .await
}
