//! Whoever can reach the endpoint sends too much, too large, or too slowly.

use std::net::SocketAddr;

use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Process, waits_for};
use super::{RealCluster, message};
use crate::tests::triggered;

/// In kB, as the kernel counts: 64 MiB less 14 of a release build's file.
const MOST_MEMORY: usize = (64 - 14) << 10;

/// The status line and the headers of the answer; nothing if there is none.
async fn answer_to(address: SocketAddr, event: &Value, padding: usize) -> String {
    let body = event.to_string().replace("PADDING", &"x".repeat(padding));
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/cloudevents+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // Whoever is refused may be so before the end of the body.
    stream.write_all(body.as_bytes()).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8_lossy(&answer).to_lowercase()
}

/// Sends many events, some of them at once; tells how often each status came.
async fn flood(address: SocketAddr, count: usize, at_once: usize, padding: usize) -> Statuses {
    let answers = stream::iter(0..count).map(|n| async move {
        let mut event = triggered(&format!("flood-{padding}-{n}"));
        event["type"] = "sh.keptn.event.other.triggered".into();
        event["data"]["padding"] = json!("PADDING");
        answer_to(address, &event, padding).await
    });
    let mut statuses = Statuses::default();
    let mut answers = answers.buffer_unordered(at_once);
    while let Some(answer) = answers.next().await {
        match answer.split(' ').nth(1) {
            Some("200") => statuses.ok += 1,
            Some("413") => statuses.too_large += 1,
            Some("429" | "503") => {
                assert!(answer.contains("\r\nretry-after: "), "{answer}");
                statuses.later += 1;
            }
            _ => panic!("unexpected: {answer}"),
        }
    }
    statuses
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Statuses {
    ok: usize,
    too_large: usize,
    later: usize,
}

/// Connections that send the beginning of a request and no more.
async fn slow_clients(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for n in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/cloudevents+json\r\n";
        let begin = if n % 2 == 0 {
            ""
        } else {
            "Content-Length: 1000000\r\n\r\n{"
        };
        stream
            .write_all(format!("{head}{begin}").as_bytes())
            .await
            .ok();
        clients.push(stream);
    }
    clients
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn under_attack_memory_is_bounded_and_runs_are_not_disturbed() {
    let one = format!(
        "      - {{name: one, image: BUSYBOX, cmd: {}}}\n",
        waits_for("go")
    );
    let two = "      - {name: two, image: BUSYBOX, cmd: [echo, second]}\n";
    let cluster = RealCluster::with_config("attack", &(one + two)).await;
    let service = Process::start(&cluster).await;
    let to = service.address;
    service.receives(&triggered("event-1")).await;
    cluster.answered(1).await;

    let slow = slow_clients(to, 700).await;
    assert!(service.is_ready().await);
    // The probe was answered beside them, and not when their time was over.
    let waits = slow.last().unwrap().try_read(&mut [0; 64]);
    assert_eq!(waits.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let (small, large, too_large) = tokio::join!(
        flood(to, 3000, 64, 0),
        flood(to, 200, 100, 900 << 10),
        flood(to, 40, 20, 10 << 20),
    );
    assert_eq!(small.ok + small.later, 3000, "{small:?}");
    assert_eq!(large.ok + large.later, 200, "{large:?}");
    assert_eq!(too_large.too_large, 40, "{too_large:?}");
    drop(slow);
    cluster.keptn.has("dev/svc", "go", "x");
    let finished = cluster.answered_once().await;
    assert!(message(&finished).contains(":\nsecond\n"), "{finished:#}");
    let most = service.most_memory();
    assert!(most < MOST_MEMORY, "{most} kB");
    cluster.finish().await;
}
