//! Accepts connections, each with a limit for its header and one for all of it, and ends the slowest where
//! there are too many.
//!
//! `axum::serve` has no such limits, so that half a header, or an answer that nobody reads, would stay for ever.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// From its first byte to the last one of the answer: header and body have 10 s each, no answer takes as long to
/// make, and what is left is for reading it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Of a connection; a header must fit. The library's own limit is 400 KiB, which hundreds of senders of
/// large bodies would all fill, before anybody counts what they send.
const BUFFER: usize = 16 << 10;

/// Whose request has not come in full; each takes up to [`BUFFER`] and some 10 KiB, 13 MiB together. It is
/// half of the file descriptors that a process often has. Of the status page, whose answers are large, it is all
/// connections: there nothing says that a request is complete.
const MAX_ARRIVING: usize = 512;

/// Where the process runs out of file descriptors, accepting at once again would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who connected before the end is answered; a flood does not put it off.
const MAX_BACKLOG: usize = 1024;

/// The connections whose request has not come in full, by age. When there are too many, the oldest give way:
/// whoever is slow among hundreds does not keep out those that come after.
#[derive(Default)]
struct Arriving {
    next: AtomicU64,
    by_age: Mutex<BTreeMap<u64, CancellationToken>>,
}

/// One of them.
#[derive(Clone)]
pub(super) struct Arrival {
    all: Arc<Arriving>,
    number: u64,
}

impl Arriving {
    /// With what ends the connection.
    fn register(self: &Arc<Self>) -> (Arrival, CancellationToken) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let end = CancellationToken::new();
        let mut by_age = self.by_age();
        by_age.insert(number, end.clone());
        if by_age.len() > MAX_ARRIVING
            && let Some((_, oldest)) = by_age.pop_first()
        {
            oldest.cancel();
        }
        let all = Arc::clone(self);
        (Arrival { all, number }, end)
    }

    fn by_age(&self) -> MutexGuard<'_, BTreeMap<u64, CancellationToken>> {
        // No panic can leave the map half changed.
        self.by_age.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrival {
    /// The request is here; from now on nobody ends it for its age.
    pub(super) fn is_complete(&self) {
        self.all.by_age().remove(&self.number);
    }
}

/// Who connected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

struct Acceptor {
    listener: TcpListener,
    arriving: Arc<Arriving>,
    router: Router,
    connections: TaskTracker,
}

/// Serves until `stop`; `connections` tracks those that are open.
pub(crate) async fn accept(
    listener: TcpListener,
    router: Router,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let acceptor = Acceptor {
        listener,
        arriving: Arc::default(),
        router,
        connections,
    };
    while stop.run_until_cancelled(acceptor.next()).await.is_some() {}
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
        let (arrival, end) = self.arriving.register();
        let of_request = arrival.clone();
        let service = self
            .router
            .clone()
            .map_request(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(of_request.clone());
                request.extensions_mut().insert(Peer(peer.ip()));
                request
            });
        // One request a connection: the sender of an event that meets a connection which is just being
        // closed for its age does not send it again.
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(BUFFER)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        self.connections.spawn(async move {
            let connection = timeout(CONNECTION_TIMEOUT, connection);
            match end.run_until_cancelled(connection).await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => debug!(%error, "a connection ended early"),
                Some(Err(_)) => debug!("a connection took too long"),
                None => debug!("a slow connection gave way to others"),
            }
            arrival.is_complete();
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_the_answer_is_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        client.write_all(request).await.unwrap();
        // More than sockets hold.
        let router = Router::new().route("/", get(|| async { "x".repeat(64 << 20) }));
        let (connections, stop) = (TaskTracker::new(), CancellationToken::new());
        let accepting = accept(listener, router, connections.clone(), stop.clone());
        let accepting = tokio::spawn(accepting);
        while connections.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        accepting.await.unwrap();
        connections.close();
        let gone = timeout(2 * CONNECTION_TIMEOUT, connections.wait()).await;
        assert!(gone.is_ok(), "the connection is still there");
        drop(client);
    }
}
