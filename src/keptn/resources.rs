//! Files of Keptn's configuration-service (up to 0.17) and resource-service (from 0.16).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Method, Request, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{Http, SendError};
use crate::event::EventScope;
pub(crate) use crate::job_config::fields::Level;

/// Connections at once; more events wait here, not in the configuration service.
const MAX_REQUESTS: usize = 64;

/// The most that configuration-service 0.8.2 accepts.
const PAGE_SIZE: &str = "50";

/// A directory with more entries is nobody's; it bounds what a server can make us keep.
const MAX_LISTED: usize = 100_000;

pub(crate) struct Resources {
    http: Http,
    base: Url,
    token: Option<SecretString>,
    permits: Semaphore,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("no answer from {url}")]
    Unreachable {
        url: String,
        #[source]
        source: SendError,
    },
    #[error("{url} answered {status}: {body}")]
    Status {
        url: String,
        status: StatusCode,
        body: String,
    },
    #[error("{url} sent more than the allowed {limit} bytes")]
    TooLarge { url: String, limit: usize },
    #[error("{url} sent no resource: {reason}")]
    Malformed { url: String, reason: String },
}

#[derive(Deserialize)]
struct ResourceBody {
    /// Absent for an empty file.
    #[serde(default, rename = "resourceContent")]
    content: Option<String>,
}

#[derive(Deserialize)]
struct ListBody {
    #[serde(default)]
    resources: Vec<ListEntry>,
    #[serde(default, rename = "nextPageKey")]
    next_page_key: Option<String>,
}

#[derive(Deserialize)]
struct ListEntry {
    #[serde(rename = "resourceURI")]
    uri: String,
}

impl Resources {
    pub(crate) fn new(http: Http, base: Url, token: Option<SecretString>) -> Self {
        Self {
            http,
            base,
            token,
            permits: Semaphore::new(MAX_REQUESTS),
        }
    }

    /// The content of a file of at most `limit` bytes; none if Keptn says that it does not exist.
    pub(crate) async fn get(
        &self,
        scope: &EventScope,
        level: Level,
        uri: &str,
        commit: Option<&str>,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let Some(path) = path(scope, level) else {
            return Ok(None);
        };
        let url = self.url(&format!("{path}/{}", encoded_twice(uri)));
        let commit = commit.map(|commit| ("gitCommitID", commit));
        // Base64 takes four bytes for three; the rest is for the names around it.
        let room = limit / 3 * 4 + 8192;
        let Some(body) = self.fetch(&url, commit.as_slice(), room).await? else {
            return Ok(None);
        };
        let malformed = |reason: String| FetchError::Malformed {
            url: url.clone(),
            reason,
        };
        let body: ResourceBody =
            serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
        let content = STANDARD
            .decode(body.content.unwrap_or_default())
            .map_err(|error| malformed(format!("resourceContent is not base64: {error}")))?;
        if content.len() > limit {
            return Err(FetchError::TooLarge { url, limit });
        }
        Ok(Some(content))
    }

    /// The names of all files of a level, without a leading slash. Empty if Keptn has no such level.
    pub(crate) async fn list(
        &self,
        scope: &EventScope,
        level: Level,
    ) -> Result<Vec<String>, FetchError> {
        let Some(path) = path(scope, level) else {
            return Ok(Vec::new());
        };
        let url = self.url(&path);
        let mut names = Vec::new();
        let mut page = None::<String>;
        loop {
            let mut query = vec![("pageSize", PAGE_SIZE)];
            query.extend(page.as_deref().map(|key| ("nextPageKey", key)));
            let Some(body) = self.fetch(&url, &query, 1 << 20).await? else {
                return Ok(names);
            };
            let body: ListBody =
                serde_json::from_slice(&body).map_err(|error| FetchError::Malformed {
                    url: url.clone(),
                    reason: error.to_string(),
                })?;
            let entries = body.resources.into_iter();
            names.extend(entries.map(|entry| entry.uri.trim_start_matches('/').to_owned()));
            let next = body
                .next_page_key
                .filter(|key| !key.is_empty() && key != "0");
            if next.is_none() || next == page {
                return Ok(names);
            }
            if names.len() > MAX_LISTED {
                return Err(FetchError::Malformed {
                    url,
                    reason: format!("a list of more than {MAX_LISTED} files"),
                });
            }
            page = next;
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.as_str().trim_end_matches('/'))
    }

    async fn fetch(
        &self,
        url: &str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        let request = self.request(url, query)?;
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.ok();
        let answered = self.http.send(request, limit).await;
        let answered = answered.map_err(|source| FetchError::Unreachable {
            url: url.to_owned(),
            source,
        })?;
        if answered.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if !answered.status.is_success() {
            return Err(FetchError::Status {
                url: url.to_owned(),
                status: answered.status,
                body: beginning(answered.body.unwrap_or_default()),
            });
        }
        match answered.body {
            Some(body) => Ok(Some(body)),
            None => Err(FetchError::TooLarge {
                url: url.to_owned(),
                limit,
            }),
        }
    }

    fn request(&self, url: &str, query: &[(&str, &str)]) -> Result<Request, FetchError> {
        let malformed = |reason: String| FetchError::Malformed {
            url: url.to_owned(),
            reason,
        };
        let mut parsed = Url::parse(url).map_err(|error| malformed(error.to_string()))?;
        if !query.is_empty() {
            parsed.query_pairs_mut().extend_pairs(query);
        }
        let mut request = Request::new(Method::GET, parsed);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(token.expose_secret())
                .map_err(|_| malformed("the token is no value of a header".into()))?;
            value.set_sensitive(true);
            request.headers_mut().insert("x-token", value);
        }
        Ok(request)
    }
}

/// Enough of an error's body to understand it.
fn beginning(mut body: Vec<u8>) -> String {
    body.truncate(300);
    String::from_utf8_lossy(&body).trim().to_owned()
}

/// None if the event does not say enough for that level.
fn path(scope: &EventScope, level: Level) -> Option<String> {
    let project = format!("/v1/project/{}", encoded(scope.project.as_deref()?));
    let stage = || {
        Some(format!(
            "{project}/stage/{}",
            encoded(scope.stage.as_deref()?)
        ))
    };
    let place = match level {
        Level::Project => project.clone(),
        Level::Stage => stage()?,
        Level::Service => {
            format!(
                "{}/service/{}",
                stage()?,
                encoded(scope.service.as_deref()?)
            )
        }
    };
    Some(format!("{place}/resource"))
}

/// configuration-service decodes twice, resource-service once and takes either, the gateway and the
/// distributor's proxies undo one layer: two layers arrive everywhere.
fn encoded_twice(uri: &str) -> String {
    encoded(&encoded(uri))
}

/// RFC 3986: all but unreserved characters.
fn encoded(text: &str) -> String {
    use std::fmt::Write;

    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    out.push(char::from(byte));
                }
                other => {
                    write!(out, "%{other:02X}").ok();
                }
            }
            out
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resource_uris_are_encoded_twice() {
        for (uri, on_the_wire) in [
            ("job/config.yaml", "job%252Fconfig.yaml"),
            ("a+b.txt", "a%252Bb.txt"),
            ("my file.txt", "my%2520file.txt"),
            ("100%.txt", "100%2525.txt"),
            ("plain-1_~.x", "plain-1_~.x"),
        ] {
            assert_eq!(encoded_twice(uri), on_the_wire);
        }
    }

    #[test]
    fn a_level_needs_what_names_it() {
        let scope = EventScope {
            project: Some("p q".into()),
            stage: Some("dev".into()),
            service: None,
        };
        assert_eq!(path(&scope, Level::Service), None);
        assert_eq!(
            path(&scope, Level::Stage).as_deref(),
            Some("/v1/project/p%20q/stage/dev/resource")
        );
        assert_eq!(
            path(&scope, Level::Project).as_deref(),
            Some("/v1/project/p%20q/resource")
        );
    }
}
