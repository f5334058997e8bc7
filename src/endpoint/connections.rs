//! Accepts connections, each with limits for what it takes to send a request and to read its answer, and ends the
//! slowest where there are too many.
//!
//! `axum::serve` has no such limits, so that half a header, or an answer that nobody reads, would stay for ever.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::arriving::{Afterwards, Arrival, Arriving};

/// Of a connection; a header must fit. The library's own limit is 400 KiB, which hundreds of senders of
/// large bodies would all fill, before anybody counts what they send.
pub(super) const BUFFER: usize = 16 << 10;

/// Where the process runs out of file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who connected before the end is answered; a flood does not put it off.
const MAX_BACKLOG: usize = 1024;

/// Who connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

struct Acceptor {
    listener: TcpListener,
    arriving: Arc<Arriving>,
    router: Router,
    afterwards: Afterwards,
    connections: TaskTracker,
}

/// Serves until `stop`; `connections` tracks those that are open.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    afterwards: Afterwards,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let acceptor = Acceptor {
        listener,
        arriving: Arc::default(),
        router,
        afterwards,
        connections,
    };
    while stop.run_until_cancelled(acceptor.next()).await.is_some() {}
    acceptor.arriving.close();
    for _ in 0..MAX_BACKLOG {
        if acceptor.next().now_or_never().is_none() {
            return;
        }
    }
}

impl Acceptor {
    async fn next(&self) {
        let (stream, peer) = match self.listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                return tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        };
        let arrival = self.arriving.accepted();
        let afterwards = self.afterwards;
        let (of_request, of_answer) = (arrival.clone(), arrival.clone());
        let service = self
            .router
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                of_request.has_header();
                request.extensions_mut().insert(of_request.clone());
                request.extensions_mut().insert(Peer(peer.ip()));
                request
            })
            .map_response(move |mut answer: Response| {
                if afterwards == Afterwards::Kept && of_answer.is_answered() == Afterwards::Closed {
                    let close = HeaderValue::from_static("close");
                    answer.headers_mut().insert(CONNECTION, close);
                }
                answer
            });
        let connection = http1::Builder::new()
            .max_buf_size(BUFFER)
            .keep_alive(afterwards == Afterwards::Kept)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        self.connections.spawn(async move {
            let in_time = in_time(connection, &arrival);
            match arrival.end().run_until_cancelled(in_time).await {
                Some(Some(Ok(()))) => {}
                Some(Some(Err(error))) => debug!(%error, "a connection ended early"),
                Some(None) => debug!("a connection took too long"),
                None => debug!("a connection gave way"),
            }
            arrival.is_complete();
        });
    }
}

/// The end of a connection; none if it does not come in time.
async fn in_time<T>(connection: impl Future<Output = T>, arrival: &Arrival) -> Option<T> {
    let mut connection = pin!(connection);
    let mut out_of_time = pin!(sleep_until(arrival.until()));
    poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        // What it is at has changed in its own poll, or not at all.
        let until = arrival.until();
        if out_of_time.deadline() != until {
            out_of_time.as_mut().reset(until);
        }
        out_of_time.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests {
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::endpoint::arriving::EXCHANGE_TIMEOUT;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

    struct Server {
        address: std::net::SocketAddr,
        connections: TaskTracker,
        stop: CancellationToken,
        accepting: JoinHandle<()>,
    }

    impl Server {
        async fn start(afterwards: Afterwards, router: Router) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
            let accepting = accept(
                listener,
                router,
                afterwards,
                connections.clone(),
                stop.clone(),
            );
            Self {
                address,
                connections,
                stop,
                accepting: tokio::spawn(accepting),
            }
        }

        async fn client(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        async fn stops(&mut self) {
            self.stop.cancel();
            (&mut self.accepting).await.unwrap();
        }
    }

    fn says(text: &'static str) -> Router {
        Router::new().route("/", get(async move || text))
    }

    /// Header and body, up to where the body ends as expected.
    async fn answer(client: &mut TcpStream, end: &str) -> String {
        let mut answer = String::new();
        while !answer.ends_with(end) {
            let mut bytes = [0; 1024];
            let count = client.read(&mut bytes).await.unwrap();
            assert_ne!(count, 0, "closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        answer
    }

    /// How long a connection stays when nothing more is sent on it.
    async fn stays(client: &mut TcpStream) -> Duration {
        let begun = Instant::now();
        assert_eq!(client.read(&mut [0; 1024]).await.unwrap_or(0), 0);
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_connection_takes_one_request_after_the_other() {
        let server = Server::start(Afterwards::Kept, says("hello")).await;
        let mut client = server.client().await;
        for _ in 0..3 {
            client.write_all(REQUEST).await.unwrap();
            let answer = answer(&mut client, "\r\n\r\nhello").await;
            assert!(!answer.contains("connection:"), "{answer}");
        }
    }

    #[tokio::test]
    async fn where_connections_are_not_kept_the_answer_says_so() {
        let server = Server::start(Afterwards::Closed, says("hello")).await;
        let mut client = server.client().await;
        client.write_all(REQUEST).await.unwrap();
        let answer = answer(&mut client, "\r\n\r\nhello").await;
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        stays(&mut client).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_stays_longer_than_clients_keep_it() {
        let server = Server::start(Afterwards::Kept, says("hello")).await;
        let mut client = server.client().await;
        client.write_all(REQUEST).await.unwrap();
        answer(&mut client, "\r\n\r\nhello").await;
        let stayed = stays(&mut client).await;
        assert_eq!(stayed.as_secs(), 127);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_header_is_let_go_after_10_seconds() {
        let server = Server::start(Afterwards::Kept, says("hello")).await;
        let mut client = server.client().await;
        client.write_all(&REQUEST[..20]).await.unwrap();
        let stayed = stays(&mut client).await;
        assert_eq!(stayed.as_secs(), 10);
    }

    #[tokio::test]
    async fn at_the_end_who_is_idle_is_closed_and_all_others_are_answered() {
        let begun = Arc::new(Notify::new());
        let begins = Arc::clone(&begun);
        let echo = post(async move |body: Request| {
            begins.notify_one();
            axum::body::to_bytes(body.into_body(), 9).await.unwrap()
        });
        let mut server = Server::start(Afterwards::Kept, says("hello").route("/echo", echo)).await;
        let (mut idle, mut sending) = (server.client().await, server.client().await);
        for client in [&mut idle, &mut sending] {
            client.write_all(REQUEST).await.unwrap();
            answer(client, "\r\n\r\nhello").await;
        }
        let half = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nla";
        sending.write_all(half).await.unwrap();
        begun.notified().await;
        let mut new = server.client().await;

        server.stops().await;
        stays(&mut idle).await;
        sending.write_all(b"te").await.unwrap();
        new.write_all(REQUEST).await.unwrap();
        for (client, end) in [(&mut sending, "late"), (&mut new, "hello")] {
            let answer = answer(client, end).await;
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
            stays(client).await;
        }
        server.connections.close();
        server.connections.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_the_answer_is_let_go() {
        // More than sockets hold.
        let router = Router::new().route("/", get(|| async { "x".repeat(64 << 20) }));
        let mut server = Server::start(Afterwards::Closed, router).await;
        let mut client = server.client().await;
        client.write_all(REQUEST).await.unwrap();
        while server.connections.is_empty() {
            tokio::task::yield_now().await;
        }
        server.stops().await;
        server.connections.close();
        let gone = timeout(2 * EXCHANGE_TIMEOUT, server.connections.wait()).await;
        assert!(gone.is_ok(), "the connection is still there");
        drop(client);
    }
}
