//! Keptn: the only module that speaks HTTP to it. Resources come from its configuration service,
//! answers go to the event endpoint of its distributor, and past ones are in its event store.

pub(crate) mod addresses;
pub(crate) mod answers;
pub(crate) mod credentials;
pub(crate) mod error_log;
pub(crate) mod event_store;
pub(crate) mod oauth;
pub(crate) mod resources;

use std::error::Error;
use std::io;
use std::time::Duration;

use futures::TryFutureExt;
use reqwest::header::RETRY_AFTER;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Request, Response, StatusCode, Url};
use tokio::time::timeout;
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt, service_fn};

use crate::telemetry::error_chain;

/// What carries requests: a connection, or whatever else answers them in this process.
pub(crate) type Transport = BoxCloneSyncService<Request, Response, SendError>;

/// Whether a server has to prove with a certificate who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certificates {
    Verified,
    /// The operator said so.
    Unverified,
}

/// A way to Keptn, with the time that a request may take.
#[derive(Clone)]
pub(crate) struct Http {
    transport: Transport,
    timeout: Duration,
}

/// Why there is no answer to a request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SendError {
    /// There is no host of this name, which is more certain than a look-up that failed.
    #[error("cannot connect: {0}")]
    NoSuchHost(String),
    /// Its certificate does not prove that it is the server that was asked.
    #[error(
        "the certificate is not trusted: {0} (SSL_CERT_FILE names a file with the certificates of other CAs)"
    )]
    Untrusted(String),
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
    /// After what time the server wants to be asked again; a date it may give instead is not read.
    pub(crate) retry_after: Option<Duration>,
    /// None if there is more than the limit allows.
    pub(crate) body: Option<Vec<u8>>,
}

impl Http {
    /// `timeout` is for one request with its answer.
    pub(crate) fn over(transport: Transport, timeout: Duration) -> Self {
        Self { transport, timeout }
    }

    pub(crate) async fn send(&self, request: Request, limit: usize) -> Result<Answered, SendError> {
        let exchange = async {
            let response = self.transport.clone().oneshot(request).await?;
            Ok(Answered {
                status: response.status(),
                retry_after: retry_after(&response),
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
            Self::NoSuchHost(_) | Self::Untrusted(_) | Self::NotSent(_) => false,
            Self::Broken(_) | Self::TimedOut(_) => true,
        }
    }
}

impl From<reqwest::Error> for SendError {
    fn from(error: reqwest::Error) -> Self {
        let connect = error.is_connect();
        if let Some(reason) = distrust(&error) {
            return Self::Untrusted(reason);
        }
        // The address is in every message around this one.
        let text = error_chain(&error.without_url());
        if connect && is_unknown_host(&text) {
            Self::NoSuchHost(text)
        } else if connect {
            Self::NotSent(text)
        } else {
            Self::Broken(text)
        }
    }
}

/// What is wrong with the server's certificate, if that is the cause.
fn distrust(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(rustls::Error::InvalidCertificate(reason)) = error.downcast_ref() {
        return Some(reason.to_string());
    }
    // One of these does not tell of what is in it as its cause.
    match error.downcast_ref().and_then(io::Error::get_ref) {
        Some(inner) => distrust(inner),
        None => distrust(error.source()?),
    }
}

/// The standard library has only the words of the C library for it: here those of glibc, musl and macOS. A
/// name server in trouble has others.
fn is_unknown_host(error: &str) -> bool {
    [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "Name has no usable address",
        "nodename nor servname provided",
    ]
    .iter()
    .any(|words| error.contains(words))
}

/// A burst leaves as many connections as it had requests at once, of 20 KB each. What follows an event comes within
/// seconds or after minutes.
const CONNECTION_REST: Duration = Duration::from_secs(10);

/// Connections to Keptn, and to whatever it trusts.
pub(crate) fn connecting(certificates: Certificates) -> Result<Transport, reqwest::Error> {
    let near = client(certificates, ClientBuilder::no_proxy)?;
    let far = client(certificates, |builder| builder)?;
    Ok(BoxCloneSyncService::new(service_fn(
        move |request: Request| {
            let client = if is_near(request.url()) { &near } else { &far };
            client.execute(request).map_err(SendError::from)
        },
    )))
}

/// A proxy of the environment is for addresses outside of the cluster: not for the sidecar, not for the
/// names of Kubernetes' services.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    host == "localhost"
        || host.starts_with("127.")
        || !host.contains('.')
        || [".svc", ".cluster.local"]
            .iter()
            .any(|inside| host.ends_with(inside))
}

fn client(
    certificates: Certificates,
    proxies: fn(ClientBuilder) -> ClientBuilder,
) -> Result<Client, reqwest::Error> {
    let builder = || {
        // A redirect would carry the credentials to another host; Keptn's services send none that matter.
        let builder = Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .pool_idle_timeout(CONNECTION_REST)
            .redirect(Policy::none());
        proxies(match certificates {
            Certificates::Verified => builder,
            Certificates::Unverified => builder.tls_danger_accept_invalid_certs(true),
        })
    };
    // Without CA certificates in the image no client can be made, not even one for plain HTTP.
    builder().build().or_else(|error| {
        tracing::warn!(%error, "no CA certificates were found, HTTPS will not work");
        builder().tls_certs_only(std::iter::empty()).build()
    })
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    Some(Duration::from_secs(seconds.trim().parse().ok()?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_unknown_is_no_name_server_in_trouble() {
        let lookup = "client error (Connect): dns error: failed to lookup address information";
        for (words, unknown) in [
            ("Name or service not known", true),
            ("Name does not resolve", true),
            ("Temporary failure in name resolution", false),
            ("Try again", false),
        ] {
            assert_eq!(
                is_unknown_host(&format!("{lookup}: {words}")),
                unknown,
                "{words}"
            );
        }
    }

    #[test]
    fn a_proxy_of_the_environment_is_not_for_addresses_of_the_cluster() {
        for (url, near) in [
            ("http://localhost:8081/event", true),
            ("http://127.0.0.1:8081", true),
            ("http://resource-service:8080", true),
            ("http://shipyard.keptn.svc.cluster.local", true),
            ("https://keptn.example.com/api", false),
            ("https://10.0.0.7/api", false),
        ] {
            assert_eq!(is_near(&Url::parse(url).unwrap()), near, "{url}");
        }
    }
}
