//! What the containers of a Pod printed, read as a stream and kept in bounded memory.

use std::time::Duration;

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use tokio::time::timeout;

use super::outcome::{ContainerSeen, PodSeen};
use crate::report::{ContainerLog, LogText};

/// For one container. A log that takes longer is as good as none: the answer waits for it.
const LOG_TIMEOUT: Duration = Duration::from_secs(20);

/// A kubelet that is just restarting answers again soon.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// Reads the logs of all containers that ended. Init containers matter only if something went wrong,
/// as in the original.
pub(super) async fn read(pods: &Api<Pod>, name: &str, seen: &PodSeen) -> Vec<ContainerLog> {
    let bad = |container: &&ContainerSeen| {
        container
            .end
            .as_ref()
            .is_some_and(|end| end.error().is_some())
    };
    let went_wrong = seen
        .init_containers
        .iter()
        .chain(&seen.containers)
        .any(|container| bad(&container));
    let init_containers = seen.init_containers.iter().filter(|_| went_wrong);
    let mut logs = Vec::new();
    for container in init_containers.chain(&seen.containers) {
        let Some(end) = &container.end else {
            continue;
        };
        logs.push(ContainerLog {
            container: container.name.clone(),
            pod: name.to_owned(),
            error: end.error(),
            text: read_container(pods, name, &container.name).await,
        });
    }
    logs
}

async fn read_container(pods: &Api<Pod>, pod: &str, container: &str) -> Result<LogText, String> {
    let mut attempt = 1;
    loop {
        let failure = match timeout(LOG_TIMEOUT, stream(pods, pod, container)).await {
            Ok(Ok(text)) => return Ok(text),
            Ok(Err(error)) if is_final(&error) || attempt == ATTEMPTS => {
                return Err(error.to_string());
            }
            Err(_) => return Err(format!("not read within {} s", LOG_TIMEOUT.as_secs())),
            Ok(Err(error)) => error,
        };
        tracing::debug!(error = %failure, pod, container, "the log could not be read, trying again");
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429)
}

async fn stream(pods: &Api<Pod>, pod: &str, container: &str) -> Result<LogText, kube::Error> {
    let params = LogParams {
        container: Some(container.to_owned()),
        ..LogParams::default()
    };
    let mut stream = Box::pin(pods.log_stream(pod, &params).await?);
    let mut text = LogText::default();
    let mut chunk = vec![0; 16 << 10];
    loop {
        match stream
            .read(&mut chunk)
            .await
            .map_err(kube::Error::ReadEvents)?
        {
            0 => return Ok(text),
            read => text.push(&chunk[..read]),
        }
    }
}
