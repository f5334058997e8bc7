//! Finds the config of an event: on the level of the service, then of the stage, then of the project.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::timeout;
use tracing::warn;

use crate::event::Event;
use crate::job_config::reader::{CONFIG_URI, MAX_CONFIG_BYTES};
use crate::keptn::resources::{FetchError, Level, Resources};
use crate::telemetry::error_chain;

/// For all levels together. Keptn from 0.9 on gives up on a task that nobody started within 10
/// minutes; 2 of them are left for telling it why.
const PATIENCE: Duration = Duration::from_secs((10 - 2) * 60);

/// A config, and the level that it was found on.
pub(super) struct Config {
    pub(super) bytes: Vec<u8>,
    pub(super) level: Level,
}

/// Only 404 moves on to the next level: any other error may hide a config. The error is for the reader of
/// the answer.
pub(super) async fn find(resources: &Resources, event: &Event) -> Result<Option<Config>, String> {
    let last_error = Mutex::new(String::from("no answer"));
    let lookup = async {
        for level in [Level::Service, Level::Stage, Level::Project] {
            if let Some(bytes) = on(resources, event, level, &last_error).await? {
                return Ok(Some(Config { bytes, level }));
            }
        }
        Ok::<_, FetchError>(None)
    };
    match timeout(PATIENCE, lookup).await {
        Ok(Ok(config)) => Ok(config),
        Ok(Err(error)) => Err(error_chain(&error)),
        Err(_) => Err(format!(
            "{} (tried for {} minutes)",
            last_error.lock().unwrap_or_else(PoisonError::into_inner),
            PATIENCE.as_secs() / 60
        )),
    }
}

async fn on(
    resources: &Resources,
    event: &Event,
    level: Level,
    last_error: &Mutex<String>,
) -> Result<Option<Vec<u8>>, FetchError> {
    let scope = &event.envelope.scope;
    // The commit is one of the stage's branch, the project's files are on another.
    let commit = event.envelope.git_commit_id.as_deref();
    let commit = commit.filter(|_| level != Level::Project);
    let get = || resources.get(scope, level, CONFIG_URI, commit, MAX_CONFIG_BYTES);
    get.retry(
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(100))
            .with_max_delay(Duration::from_secs(5))
            .without_max_times()
            .with_jitter(),
    )
    .when(|error| !matches!(error, FetchError::TooLarge { .. }))
    .notify(|error, pause| {
        let error = error_chain(error);
        warn!(
            error,
            retry_in_seconds = pause.as_secs_f64(),
            "{CONFIG_URI} could not be read"
        );
        *last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    })
    .await
}
