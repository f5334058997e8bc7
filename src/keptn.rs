//! Keptn: the only module that speaks HTTP to it. Resources come from its configuration service,
//! answers go to the event endpoint of its distributor, and past ones are in its event store.

pub(crate) mod answers;
pub(crate) mod event_store;
pub(crate) mod resources;

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Request, Response, StatusCode, Url};
use tokio::time::timeout;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::telemetry::error_chain;

/// What carries requests: a connection, or whatever else answers them in this process.
pub(crate) type Transport = BoxCloneSyncService<Request, Response, SendError>;

/// One of Keptn's addresses, with the time that a request to it may take.
#[derive(Clone)]
pub(crate) struct Http {
    transport: Transport,
    timeout: Duration,
}

/// Why there is no answer to a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// Nothing has arrived there.
    #[error("cannot connect: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("the connection failed: {0}")]
    Broken(String),
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// An answer that was read to its end, or to its limit.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    /// None if there is more than the limit allows.
    pub(crate) body: Option<Vec<u8>>,
}

impl Http {
    /// A client for one of Keptn's addresses; `timeout` is for one request with its answer.
    pub(crate) fn connecting(url: &Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        let transport = client(url)?.map_err(SendError::from);
        Ok(Self::over(BoxCloneSyncService::new(transport), timeout))
    }

    pub(crate) fn over(transport: Transport, timeout: Duration) -> Self {
        Self { transport, timeout }
    }

    pub(crate) async fn send(&self, request: Request, limit: usize) -> Result<Answered, SendError> {
        let exchange = async {
            let response = self.transport.clone().oneshot(request).await?;
            Ok(Answered {
                status: response.status(),
                body: body(response, limit).await?,
            })
        };
        match timeout(self.timeout, Box::pin(exchange)).await {
            Ok(answered) => answered,
            Err(_) => Err(SendError::TimedOut(self.timeout)),
        }
    }
}

impl SendError {
    /// Whether whoever was asked may have acted on it all the same.
    pub(crate) fn may_have_arrived(&self) -> bool {
        match self {
            Self::NotSent(_) => false,
            Self::Broken(_) | Self::TimedOut(_) => true,
        }
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let connect = error.is_connect();
        // The address is in every message around this one.
        let text = error_chain(&error.without_url());
        if connect {
            Self::NotSent(text)
        } else {
            Self::Broken(text)
        }
    }
}

/// A proxy of the environment is for addresses outside of the cluster: not for the sidecar, not for the
/// names of Kubernetes' services.
fn client(url: &Url) -> Result<Client, reqwest::Error> {
    let host = url.host_str().unwrap_or_default();
    let inside = host == "localhost"
        || host.starts_with("127.")
        || !host.contains('.')
        || [".svc", ".cluster.local"]
            .iter()
            .any(|inside| host.ends_with(inside));
    let builder = || -> ClientBuilder {
        // A redirect would carry the token to another host; Keptn's services send none that matter.
        let builder = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .redirect(Policy::none());
        if inside { builder.no_proxy() } else { builder }
    };
    // Without CA certificates in the image no client can be made, not even one for plain HTTP.
    builder().build().or_else(|error| {
        tracing::warn!(%error, "no CA certificates were found, HTTPS will not work");
        builder().tls_certs_only(std::iter::empty()).build()
    })
}

/// A body of at most `limit` bytes; none if it has more.
async fn body(mut response: Response, limit: usize) -> Result<Option<Vec<u8>>, SendError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(body))
}
