//! Keptn: the only module that speaks HTTP to it. Resources come from its configuration service,
//! answers go to the event endpoint of its distributor.

pub(crate) mod answers;
pub(crate) mod resources;

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

/// An HTTP client for one of Keptn's addresses. A proxy of the environment is for addresses outside of
/// the cluster: not for the sidecar, not for the names of Kubernetes' services.
fn client(url: &Url, timeout: Duration) -> Result<Client, reqwest::Error> {
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
            .timeout(timeout)
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
async fn body(mut response: Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(body))
}
