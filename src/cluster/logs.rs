//! What the containers of a Pod printed, read as a stream and kept in bounded memory.

use std::time::Duration;

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::outcome::{ContainerSeen, ContainerState, PodSeen};
use crate::report::{ContainerLog, Ending, Extract, LogText, Masks};
use crate::telemetry::error_chain;

/// For one container: the answer waits for it.
const LOG_TIMEOUT: Duration = Duration::from_secs(20);

/// A kubelet that is just restarting answers again soon.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Reads the logs of all containers that ended. Init containers matter only if something went wrong, as
/// in the original; then those that still run matter too, such as one that is being ended for its time.
pub(super) async fn read(
    pods: &Api<Pod>,
    name: &str,
    seen: &PodSeen,
    ending: &Ending,
    room: usize,
    masks: &Masks,
) -> Vec<ContainerLog> {
    let failed = matches!(ending, Ending::Failed(_));
    let init_containers = seen.init_containers.iter().filter(|_| failed);
    let mut logs = Vec::new();
    for ContainerSeen {
        name: container,
        state,
        ..
    } in init_containers.chain(&seen.containers)
    {
        let error = match state {
            ContainerState::Ended(end) => end.error().map(|error| masks.text(&error)),
            ContainerState::Running if failed => None,
            ContainerState::Running | ContainerState::Waiting(_) => continue,
        };
        logs.push(ContainerLog {
            container: container.clone(),
            pod: name.to_owned(),
            error,
            text: read_container(pods, name, container, room, masks).await,
        });
    }
    logs
}

async fn read_container(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    room: usize,
    masks: &Masks,
) -> Result<Extract, String> {
    let until = Instant::now() + LOG_TIMEOUT;
    let mut attempt = 1;
    loop {
        let mut text = LogText::new(room, masks);
        let (reason, is_final) =
            match timeout_at(until, stream(pods, pod, container, &mut text)).await {
                Ok(Ok(())) => return Ok(text.finish()),
                Err(_) => (format!("not read within {} s", LOG_TIMEOUT.as_secs()), true),
                Ok(Err(error)) => {
                    debug!(
                        error = error_chain(&error),
                        pod, container, "the log could not be read"
                    );
                    let is_final = is_final(&error) || attempt == ATTEMPTS;
                    (told(error), is_final)
                }
            };
        // Part of a log is better than none.
        if !text.is_empty() {
            return Ok(text.interrupted(&reason));
        }
        if is_final {
            return Err(reason);
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

fn told(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message,
        other => other.to_string(),
    }
}

fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429)
}

async fn stream(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    text: &mut LogText,
) -> Result<(), kube::Error> {
    let params = LogParams {
        container: Some(container.to_owned()),
        ..LogParams::default()
    };
    let mut stream = Box::pin(pods.log_stream(pod, &params).await?);
    let mut chunk = vec![0; 16 << 10];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => return Ok(()),
            Ok(read) => text.push(&chunk[..read]),
            Err(error) => return Err(kube::Error::ReadEvents(error)),
        }
    }
}
