//! A way to the API server that notes the requests which take it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use tokio::net::TcpListener;

#[derive(Clone)]
pub(crate) struct Proxy {
    client: Client,
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<Kind>>>,
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Long, and asked for anew each minute or so; lists are how it begins.
    Watch,
    /// Verb and resource.
    Other(String),
}

impl Proxy {
    /// Requests go on as those of this client.
    pub(crate) async fn start(client: Client) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Self {
            client,
            address: listener.local_addr()?,
            requests: Arc::default(),
        };
        let router = Router::new().fallback(forward).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(proxy)
    }

    /// The requests since the last time.
    pub(crate) fn take(&self) -> Vec<Kind> {
        std::mem::take(&mut *self.requests())
    }

    fn requests(&self) -> MutexGuard<'_, Vec<Kind>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kind(request: &Request<Body>) -> Kind {
    let query = request.uri().query().unwrap_or_default();
    if query.split('&').any(|part| part == "watch=true") {
        return Kind::Watch;
    }
    // /api/v1/namespaces/NAMESPACE/pods/NAME/log, /apis/batch/v1/namespaces/NAMESPACE/jobs
    let path: Vec<&str> = request.uri().path().split('/').collect();
    let after = path.iter().position(|part| *part == "namespaces");
    let resource = match after.map(|at| &path[at + 2..]) {
        Some([resource, _, sub, ..]) => format!("{resource}/{sub}"),
        Some([resource, ..]) => (*resource).to_owned(),
        _ => request.uri().path().to_owned(),
    };
    Kind::Other(format!("{} {resource}", request.method()))
}

async fn forward(State(proxy): State<Proxy>, request: Request<Body>) -> Response<Body> {
    proxy.requests().push(kind(&request));
    let (mut head, body) = request.into_parts();
    // The client has its own address, and its own right to be let in.
    head.headers.remove("host");
    let Ok(body) = body.collect().await else {
        return status(StatusCode::BAD_REQUEST);
    };
    let body = kube::client::Body::from(body.to_bytes());
    match proxy.client.send(Request::from_parts(head, body)).await {
        Ok(response) => response.map(Body::new),
        Err(_) => status(StatusCode::BAD_GATEWAY),
    }
}

fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = code;
    response
}

impl Kind {
    pub(crate) fn other(self) -> Option<String> {
        match self {
            Self::Watch => None,
            Self::Other(what) => Some(what),
        }
    }
}
