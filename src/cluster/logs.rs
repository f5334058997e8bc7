//! What the containers of a Pod printed, read as a stream and kept in bounded memory.

use std::time::Duration;

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::seen::{ContainerSeen, ContainerState, PodSeen};
use crate::report::{ContainerLog, Ending, Extract, LogText, Masks};
use crate::telemetry::error_chain;

/// For one container: the answer waits for it.
const LOG_TIMEOUT: Duration = Duration::from_secs(15);

/// For the end alone of a log that is longer than what can be read in that time.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Of that end: more than an answer has room for, as a rule. The kubelet looks for it from the back, and of a
/// line it takes each 16 KiB for one.
const END_LINES: i64 = 2_000;

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
            match timeout_at(until, stream(pods, pod, container, None, &mut text)).await {
                Ok(Ok(())) => return Ok(text.finish()),
                Err(_) => {
                    let reason = format!("not read within {} s", LOG_TIMEOUT.as_secs());
                    if !text.is_empty()
                        && let Some(end) = end(pods, pod, container, room, masks).await
                    {
                        return Ok(text.up_to(end, &reason));
                    }
                    (reason, true)
                }
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

/// The last lines.
async fn end(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    room: usize,
    masks: &Masks,
) -> Option<LogText> {
    let mut text = LogText::of_end(room, masks);
    let lines = stream(pods, pod, container, Some(END_LINES), &mut text);
    match timeout(END_TIMEOUT, lines).await {
        Ok(Ok(())) => Some(text),
        Ok(Err(_)) | Err(_) => None,
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

/// Reads a log to its end, or its last lines.
pub(super) async fn stream(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    last_lines: Option<i64>,
    text: &mut LogText,
) -> Result<(), kube::Error> {
    let params = LogParams {
        container: Some(container.to_owned()),
        tail_lines: last_lines,
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::*;

    /// Answers one request with so many bytes, as an API server does.
    fn prints(mut connection: &TcpStream, megabytes: usize) {
        let head =
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut request = [0; 4096];
        assert!(connection.read(&mut request).unwrap() > 0);
        connection.write_all(head.as_bytes()).unwrap();
        let lines = "2026-11-24T13:00:00Z INFO  request of customer handled in 12 ms\n".repeat(512);
        for _ in 0..(megabytes << 20) / lines.len() {
            write!(connection, "{:x}\r\n{lines}\r\n", lines.len()).unwrap();
        }
        connection.write_all(b"0\r\n\r\n").unwrap();
    }

    fn peak() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mut lines = status.lines();
        let peak = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// With the library's own buffers; alone in its process.
    #[tokio::test]
    #[ignore = "measures"]
    async fn how_fast_and_small_a_gigabyte_from_the_api_server_is() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for connection in listener.incoming() {
                let megabytes = std::env::var("LOG_MEGABYTES").unwrap_or_default();
                prints(&connection.unwrap(), megabytes.parse().unwrap_or(1024));
            }
        });
        let config = kube::Config::new(address.parse().unwrap());
        let client = kube::Client::try_from(config).unwrap();
        let pods = Api::<Pod>::namespaced(client, "default");
        for _ in 0..2 {
            std::fs::write("/proc/self/clear_refs", "5").unwrap();
            let (before, began) = (peak(), Instant::now());
            let log = read_container(&pods, "p", "c", 60_000, &Masks::default()).await;
            let shown = log.unwrap().render(60_000).len();
            let more = peak() - before;
            eprintln!(
                "{:?}: {shown} bytes, {more} KB more than before",
                began.elapsed()
            );
        }
    }
}
