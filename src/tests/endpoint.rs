//! The HTTP endpoint, as clients good and bad see it.

use std::net::SocketAddr;

use futures::future::join_all;
use insta::assert_snapshot;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::keptn::Habit;
use super::{Tester, config, task, triggered};

/// Sends bytes as they are, but for the wish to close, and reads until the server does; status line and body.
async fn raw(address: SocketAddr, request: &str) -> String {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.lines().next().unwrap_or("(closed)").to_owned();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    format!("{status} | {body}")
}

fn with_body(head: &str, body: &str) -> String {
    format!(
        "{head}\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const STRUCTURED: &str = "POST / HTTP/1.1\r\nContent-Type: application/cloudevents+json";

#[tokio::test]
async fn each_request_gets_the_answer_that_fits_it() {
    let service = Tester::with(&config(&task("t")), &["--max-body-bytes=2048"]).await;
    let to = service.listens().await;
    let event = triggered("event-1").to_string();
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(3000));
    let chunked = format!(
        "{STRUCTURED}\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
        large.len()
    );
    let answers = [
        raw(to, &with_body(STRUCTURED, &event)).await,
        raw(to, &with_body(STRUCTURED, "{")).await,
        raw(to, &with_body(STRUCTURED, "")).await,
        raw(to, &with_body(STRUCTURED, &large)).await,
        raw(to, &chunked).await,
        raw(
            to,
            &with_body("POST / HTTP/1.1\r\nContent-Type: text/plain", &event),
        )
        .await,
        raw(to, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await,
        raw(to, "PUT /any HTTP/1.1\r\nHost: x\r\n\r\n").await,
        raw(to, "POST /livez HTTP/1.1\r\nHost: x\r\n\r\n").await,
        raw(to, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await,
        raw(to, "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n").await,
        raw(to, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await,
        raw(to, "nonsense\r\n\r\n").await,
    ];
    assert_snapshot!(answers.join("\n"), @r#"
    HTTP/1.1 202 Accepted | the run is started
    HTTP/1.1 400 Bad Request | the body is not a JSON object: EOF while parsing an object at line 1 column 1
    HTTP/1.1 400 Bad Request | the body is not a JSON object: EOF while parsing a value at line 1 column 0
    HTTP/1.1 413 Payload Too Large | the body has more than the allowed 2048 bytes (MAX_BODY_BYTES)
    HTTP/1.1 413 Payload Too Large | the body has more than the allowed 2048 bytes (MAX_BODY_BYTES)
    HTTP/1.1 415 Unsupported Media Type | content type `text/plain` is no CloudEvent, expected `application/cloudevents+json`, `application/cloudevents-batch+json`, or `ce-` headers with any content type
    HTTP/1.1 405 Method Not Allowed | events are posted here, and there is nothing else
    HTTP/1.1 405 Method Not Allowed | events are posted here, and there is nothing else
    HTTP/1.1 405 Method Not Allowed | 
    HTTP/1.1 200 OK | ok
    HTTP/1.1 200 OK | ok
    HTTP/1.1 200 OK | {"status":"OK"}
    HTTP/1.1 400 Bad Request |
    "#);
    service.answers(2).await;
    service.finish().await;
}

#[tokio::test]
async fn a_path_other_than_the_configured_one_is_not_found() {
    let service = Tester::with(&config(&task("t")), &["--rcv-path=/events"]).await;
    let address = service.listens().await;
    let other = raw(address, &with_body(STRUCTURED, "{}")).await;
    assert_snapshot!(other, @"HTTP/1.1 404 Not Found | events are posted to /events (RCV_PATH), there is nothing here");
    let head = STRUCTURED.replace("POST /", "POST /events");
    let right = raw(address, &with_body(&head, &triggered("1").to_string())).await;
    assert!(right.starts_with("HTTP/1.1 202"), "{right}");
    service.answers(2).await;
    service.finish().await;
}

#[tokio::test]
async fn the_valid_events_of_a_batch_run_beside_invalid_ones() {
    let service = Tester::start(&config(&task("t"))).await;
    let batch = json!([triggered("a"), {"specversion": "1.0"}, triggered("b")]).to_string();
    let head = "POST / HTTP/1.1\r\nContent-Type: application/cloudevents-batch+json";
    let address = service.listens().await;
    assert_snapshot!(raw(address, &with_body(head, &batch)).await, @"HTTP/1.1 400 Bad Request | event 1 of the batch: attribute `id` is missing, a CloudEvent has `specversion`, `id`, `source` and `type`");
    service.answers(4).await;
    let none = raw(address, &with_body(head, "[]")).await;
    assert!(none.starts_with("HTTP/1.1 200"), "{none}");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_cannot_wait_for_the_config_is_told_so_and_the_work_goes_on() {
    let service = Tester::start(&config(&task("t"))).await;
    // Longer than any sender waits: the pauses between the attempts add up to it.
    service.keptn.answers_resources_with(&[503; 6]);
    let (status, reason) = service.receives_triggered().await;
    assert_eq!(status, 503, "{reason}");
    service.answers(2).await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn the_events_of_a_burst_read_their_config_together() {
    let service = Tester::start(&config(&task("t"))).await;
    service.keptn.resources(Habit::Hangs);
    let events: Vec<_> = (0..100).map(|id| triggered(&id.to_string())).collect();
    let burst = join_all(events.iter().map(|event| service.receives(event)));
    let keptn_recovers = async {
        while !service.keptn.hangs() {
            tokio::task::yield_now().await;
        }
        service.keptn.resources(Habit::Works);
    };
    tokio::join!(burst, keptn_recovers);
    service.answers(200).await;
    let asked = service.keptn.requests().len();
    assert!(asked < 10, "{asked} requests for 100 events");
    service.finish().await;
}

#[tokio::test]
async fn an_event_in_binary_mode_runs() {
    let service = Tester::start(&config(&task("t"))).await;
    let head = "POST / HTTP/1.1\r\nContent-Type: application/json\r\nce-specversion: 1.0\r\nce-id: 1\r\n\
                ce-source: s\r\nce-type: sh.keptn.event.test.triggered\r\nce-shkeptncontext: c";
    let body = json!({"project": "real", "stage": "dev", "service": "svc"}).to_string();
    let answer = raw(service.listens().await, &with_body(head, &body)).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    service.answers(2).await;
    service.finish().await;
}
