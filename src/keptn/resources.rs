//! Files of Keptn's configuration-service (up to 0.17) and resource-service (from 0.16).

use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Method, Request, StatusCode, Url};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::sync::Semaphore;

use super::addresses::{Addresses, Origin};
use super::credentials::{Credentials, Shown};
use super::oauth::TokenError;
use super::{Answered, Http, SendError};
use crate::event::EventScope;
pub(crate) use crate::job_config::files::Level;

/// Connections at once; more events wait here, not in the configuration service.
const MAX_REQUESTS: usize = 64;

/// The most that configuration-service 0.8.2 accepts.
const PAGE_SIZE: &str = "50";

/// A directory with more entries is nobody's; it bounds what a server can make us keep.
const MAX_LISTED: usize = 100_000;

pub(crate) struct Resources {
    http: Http,
    addresses: Addresses,
    /// The index of the address that has answered.
    known: Mutex<Option<usize>>,
    credentials: Credentials,
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
    /// Whatever answers there is not Keptn's configuration service.
    #[error("{url} is no address of Keptn's configuration service, it answered 404: {body}")]
    Elsewhere { url: String, body: String },
    #[error("there is no access token for Keptn's configuration service")]
    NoToken(#[from] TokenError),
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
    /// What tells a resource from other JSON. Its value is still encoded.
    #[serde(rename = "resourceURI")]
    _uri: IgnoredAny,
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

/// What Keptn's services answer instead of what was asked for.
#[derive(Deserialize)]
struct ErrorBody {
    code: i64,
    message: String,
}

impl FetchError {
    /// Whether it says that nothing of Keptn's is at this address, rather than that something is in trouble.
    fn is_absence(&self) -> bool {
        match self {
            Self::Elsewhere { .. } => true,
            Self::Unreachable { source, .. } => matches!(source, SendError::NoSuchHost(_)),
            Self::NoToken(_)
            | Self::Status { .. }
            | Self::TooLarge { .. }
            | Self::Malformed { .. } => false,
        }
    }
}

impl Resources {
    pub(crate) fn new(http: Http, addresses: Addresses, credentials: Credentials) -> Self {
        Self {
            http,
            credentials: match addresses.origin() {
                Origin::Setting => credentials,
                Origin::Default => Credentials::default(),
            },
            addresses,
            known: Mutex::default(),
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
        let path = format!("{path}/{}", encoded_twice(uri));
        let commit = commit.map(|commit| ("gitCommitID", commit));
        // Base64 takes four bytes for three; the rest is for the names around it.
        let room = limit / 3 * 4 + 8192;
        let found = self.fetch::<ResourceBody>(&path, commit.as_slice(), room);
        let Some((url, body)) = found.await? else {
            return Ok(None);
        };
        let content = STANDARD
            .decode(body.content.unwrap_or_default())
            .map_err(|error| FetchError::Malformed {
                url: url.clone(),
                reason: format!("resourceContent is not base64: {error}"),
            })?;
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
        let mut names = Vec::new();
        let mut page = None::<String>;
        loop {
            let mut query = vec![("pageSize", PAGE_SIZE)];
            query.extend(page.as_deref().map(|key| ("nextPageKey", key)));
            let found = self.fetch::<ListBody>(&path, &query, 1 << 20).await?;
            let Some((url, body)) = found else {
                // Half a list is none: it was there a moment ago.
                return if page.is_none() {
                    Ok(names)
                } else {
                    Err(FetchError::Malformed {
                        url: path,
                        reason: "the list ended before its last page".into(),
                    })
                };
            };
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

    /// Asks the address that has answered before, and the others where that one does not answer now. What
    /// is there decides at once; that nothing is there has to come from the known address, or while no
    /// other one is in trouble, which may hide a config.
    async fn fetch<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        limit: usize,
    ) -> Result<Option<(String, T)>, FetchError> {
        let bases = self.addresses.urls();
        let known = *self.known();
        let others = (0..bases.len()).filter(|index| Some(*index) != known);
        let mut shown = self.credentials.shown().await?;
        let (mut denied, mut trouble, mut absent) = (None, None, None);
        for index in known.into_iter().chain(others) {
            let url = format!("{}{path}", bases[index].as_str().trim_end_matches('/'));
            match self.ask(&url, query, &mut shown, limit).await {
                Ok(Some(body)) => {
                    *self.known() = Some(index);
                    return Ok(Some((url, body)));
                }
                Ok(None) if known == Some(index) => return Ok(None),
                Ok(None) => denied = denied.or(Some(index)),
                Err(error) if error.is_absence() => absent = absent.or(Some(error)),
                Err(error) => trouble = trouble.or(Some(error)),
            }
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        *self.known() = denied;
        match absent {
            Some(error) if denied.is_none() => Err(error),
            _ => Ok(None),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<usize>> {
        // No panic can leave it half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None if Keptn says that it does not exist. Credentials that are refused are replaced once.
    async fn ask<'a, T: DeserializeOwned>(
        &'a self,
        url: &str,
        query: &[(&str, &str)],
        shown: &mut Shown<'a>,
        limit: usize,
    ) -> Result<Option<T>, FetchError> {
        let mut answered = self.send(url, query, shown, limit).await?;
        if answered.status == StatusCode::UNAUTHORIZED
            && let Some(others) = self.credentials.after(shown).await?
        {
            *shown = others;
            answered = self.send(url, query, shown, limit).await?;
        }
        let Answered { status, body, .. } = answered;
        let url = url.to_owned();
        if status.is_success() {
            let Some(body) = body else {
                return Err(FetchError::TooLarge { url, limit });
            };
            return match serde_json::from_slice(&body) {
                Ok(body) => Ok(Some(body)),
                Err(error) => Err(FetchError::Malformed {
                    url,
                    // What else is there may be the text of a config.
                    reason: format!(
                        "unexpected JSON at line {}, column {}",
                        error.line(),
                        error.column()
                    ),
                }),
            };
        }
        let body = body.unwrap_or_default();
        if status == StatusCode::NOT_FOUND && is_keptns(&body) {
            return Ok(None);
        }
        let body = beginning(&shown.hidden_in(&String::from_utf8_lossy(&body)));
        if status == StatusCode::NOT_FOUND {
            return Err(FetchError::Elsewhere { url, body });
        }
        Err(FetchError::Status { url, status, body })
    }

    async fn send(
        &self,
        url: &str,
        query: &[(&str, &str)],
        shown: &Shown<'_>,
        limit: usize,
    ) -> Result<Answered, FetchError> {
        let mut parsed = Url::parse(url).map_err(|error| FetchError::Malformed {
            url: url.to_owned(),
            reason: error.to_string(),
        })?;
        if !query.is_empty() {
            parsed.query_pairs_mut().extend_pairs(query);
        }
        let mut request = Request::new(Method::GET, parsed);
        shown.put_into(&mut request);
        // The semaphore is never closed.
        let _permit = self.permits.acquire().await.ok();
        let answered = self.http.send(request, limit).await;
        answered.map_err(|source| FetchError::Unreachable {
            url: url.to_owned(),
            source,
        })
    }
}

const NO_UPSTREAM: &str = "Could not find credentials for upstream repository";

/// Whether a 404 is the word of Keptn's configuration service on what was asked for. A gateway, a web server
/// or the service itself at another path have none for it: `404 page not found`, `path … was not found`.
fn is_keptns(body: &[u8]) -> bool {
    const OBJECTS: [&str; 4] = ["Service", "Stage", "Project", "Resource"];
    let Ok(ErrorBody { code, message }) = serde_json::from_slice(body) else {
        return false;
    };
    let names = |object: &&str| message.starts_with(*object) && message.ends_with("not found");
    // The last is resource-service's word for a project that it does not know.
    code == 404 && (OBJECTS.iter().any(names) || message == NO_UPSTREAM)
}

/// Enough of an error's body to understand it.
fn beginning(body: &str) -> String {
    body.trim().chars().take(300).collect()
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
    fn only_keptns_own_404_says_that_a_resource_does_not_exist() {
        for (body, keptns) in [
            (
                r#"{"code":404,"message":"Service resource not found"}"#,
                true,
            ),
            (r#"{"code":404,"message":"Project not found"}"#, true),
            (
                r#"{"code":404,"message":"path /v1/x was not found"}"#,
                false,
            ),
            (
                r#"{"code":404,"message":"Could not find credentials for upstream repository"}"#,
                true,
            ),
            (r#"{"message":"no Route matched with those values"}"#, false),
            (
                r#"{"kind":"Status","code":404,"message":"services \"x\" not found"}"#,
                false,
            ),
            ("404 page not found", false),
            ("<html><h1>404 Not Found</h1></html>", false),
            ("{}", false),
            ("", false),
        ] {
            assert_eq!(is_keptns(body.as_bytes()), keptns, "{body}");
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
