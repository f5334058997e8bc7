//! Access tokens by OAuth's client credentials grant: fetched when one is needed, kept until shortly before
//! it expires, and fetched again when it is refused.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::debug;

use super::{Answered, Http, SendError};

/// For one request to the OAuth server.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// A token is replaced this long before it expires, or after nine tenths of a short life.
const MARGIN: Duration = Duration::from_secs(30);

/// Of an OAuth server's answer; the discovery document of a large one has 10 KB.
const MAX_BYTES: usize = 256 << 10;

/// This service as its OAuth server knows it.
#[derive(Debug, Clone)]
pub(crate) struct OAuthClient {
    pub(crate) id: String,
    pub(crate) secret: SecretString,
    pub(crate) scopes: Scopes,
    pub(crate) server: TokenServer,
}

/// Where tokens are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenServer {
    TokenUrl(Url),
    /// A document that says where.
    Discovery(Url),
}

/// At least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    /// Reads a comma-separated list, as Keptn's distributor does.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim);
        let scopes: Vec<String> = names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let valid = |scope: &String| scope.bytes().all(|byte| byte.is_ascii_graphic());
        if scopes.is_empty() || !scopes.iter().all(valid) {
            return Err("expected scopes such as `openid,keptn`, separated by commas".into());
        }
        Ok(Self(scopes))
    }

    /// With commas, as settings have them.
    pub(crate) fn listed(&self) -> String {
        self.0.join(",")
    }
}

pub(crate) struct OAuth {
    client: OAuthClient,
    http: Http,
    /// Locked while a token is fetched: whoever needs it too waits for that one.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Kept>,
    /// How many tokens there have been.
    fetched: u64,
    discovered: Option<Url>,
    shown: Option<ClientShown>,
    failure: Option<(Instant, TokenError)>,
}

struct Kept {
    token: AccessToken,
    /// None if the server does not say.
    until: Option<Instant>,
}

/// Where a request for a token has the client's id and secret. RFC 6749 asks every server for the first, and
/// there are servers that know only the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientShown {
    InHeader,
    InBody,
}

/// A value of the header `Authorization`.
#[derive(Clone)]
pub(crate) struct AccessToken {
    value: SecretString,
    number: u64,
}

/// Why there is no access token. No variant holds what the server said, which may repeat secrets.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("no answer from the OAuth server {url}")]
    Unreachable {
        url: String,
        #[source]
        source: SendError,
    },
    #[error("the OAuth server {url} answered {status}{}", .code.map_or(String::new(), |code| format!(": {code}")))]
    Status {
        url: String,
        status: StatusCode,
        code: Option<&'static str>,
    },
    #[error("the OAuth server {url} sent {what}")]
    Malformed { url: String, what: &'static str },
}

#[derive(Deserialize)]
struct Discovered {
    token_endpoint: String,
}

#[derive(Deserialize)]
struct TokenBody {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// Some servers send this number as text.
struct Seconds(u64);

#[derive(Deserialize)]
struct ErrorBody {
    error: String,
}

/// Of RFC 6749, section 5.2.
const ERRORS: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

impl TokenError {
    /// Whether it may pass by itself.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !matches!(source, SendError::Untrusted(_)),
            Self::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Malformed { .. } => false,
        }
    }
}

impl AccessToken {
    pub(super) fn as_secret(&self) -> &SecretString {
        &self.value
    }
}

impl OAuth {
    pub(crate) fn new(client: OAuthClient, http: Http) -> Self {
        Self {
            client,
            http,
            state: Mutex::default(),
        }
    }

    /// A token that is valid as far as is known, and another one than `refused`.
    pub(crate) async fn token(
        &self,
        refused: Option<&AccessToken>,
    ) -> Result<AccessToken, TokenError> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if let Some(Kept { token, until }) = &state.token
            && refused.is_none_or(|refused| refused.number != token.number)
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Ok(token.clone());
        }
        // Those that waited for an attempt share its failure: a server in trouble is not asked by each.
        if let Some((at, error)) = &state.failure
            && *at >= asked
        {
            return Err(error.clone());
        }
        state.token = None;
        let fetched = self.fetch(&mut state).await;
        match fetched {
            Ok(kept) => {
                let token = kept.token.clone();
                state.failure = None;
                state.token = Some(kept);
                Ok(token)
            }
            Err(error) => {
                // It may be somewhere else by now.
                state.discovered = None;
                state.failure = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    async fn fetch(&self, state: &mut State) -> Result<Kept, TokenError> {
        let url = match (&self.client.server, &state.discovered) {
            (TokenServer::TokenUrl(url), _) | (_, Some(url)) => url.clone(),
            (TokenServer::Discovery(document), None) => {
                let url = self.discover(document).await?;
                state.discovered = Some(url.clone());
                url
            }
        };
        let asked = Instant::now();
        let tried = state.shown.unwrap_or(ClientShown::InHeader);
        let mut answered = self.ask(&url, tried).await?;
        let mut shown_so = tried;
        if state.shown.is_none() && may_miss_the_client(&answered) {
            shown_so = ClientShown::InBody;
            answered = self.ask(&url, shown_so).await?;
        }
        if !answered.status.is_success() {
            return Err(TokenError::Status {
                url: shown(&url),
                status: answered.status,
                code: code(&answered),
            });
        }
        state.shown = Some(shown_so);
        let body: TokenBody = parsed(&url, answered, "no token")?;
        if !body
            .token_type
            .is_none_or(|name| name.eq_ignore_ascii_case("bearer"))
        {
            return Err(malformed(&url, "a token that is no bearer token"));
        }
        let value = body.access_token;
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed(&url, "a token that no header can carry"));
        }
        debug!(url = shown(&url), "an access token was fetched");
        state.fetched += 1;
        Ok(Kept {
            token: AccessToken {
                value: format!("Bearer {value}").into(),
                number: state.fetched,
            },
            until: body.expires_in.map(|life| asked + kept_for(life)),
        })
    }

    async fn discover(&self, document: &Url) -> Result<Url, TokenError> {
        let mut request = Request::new(Method::GET, document.clone());
        request.headers_mut().insert(ACCEPT, json());
        let answered = self.send(document, request).await?;
        if answered.status != StatusCode::OK {
            return Err(TokenError::Status {
                url: shown(document),
                status: answered.status,
                code: None,
            });
        }
        let found: Discovered = parsed(document, answered, "no `token_endpoint`")?;
        let found = Url::parse(&found.token_endpoint).ok();
        // The secret goes there: not less protected than what told of it.
        let sound = |url: &Url| {
            let protected = url.scheme() == "https" || url.scheme() == document.scheme();
            protected && matches!(url.scheme(), "http" | "https") && url.has_host()
        };
        found
            .filter(sound)
            .ok_or_else(|| malformed(document, "a `token_endpoint` that cannot be used"))
    }

    async fn ask(&self, url: &Url, shown: ClientShown) -> Result<Answered, TokenError> {
        let OAuthClient { id, secret, .. } = &self.client;
        let secret = secret.expose_secret();
        let scopes = self.client.scopes.0.join(" ");
        let mut form = format!("grant_type=client_credentials&scope={}", encoded(&scopes));
        let mut request = Request::new(Method::POST, url.clone());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, json());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        match shown {
            ClientShown::InHeader => {
                let pair = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
                // Base64 is a value of a header.
                if let Ok(mut value) = HeaderValue::from_str(&format!("Basic {pair}")) {
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
            }
            ClientShown::InBody => form.push_str(&format!(
                "&client_id={}&client_secret={}",
                encoded(id),
                encoded(secret)
            )),
        }
        *request.body_mut() = Some(form.into());
        self.send(url, request).await
    }

    async fn send(&self, url: &Url, request: Request) -> Result<Answered, TokenError> {
        let answered = self.http.send(request, MAX_BYTES).await;
        answered.map_err(|source| TokenError::Unreachable {
            url: shown(url),
            source,
        })
    }
}

/// Whether it is what a server says that looks for the client elsewhere.
fn may_miss_the_client(answered: &Answered) -> bool {
    matches!(answered.status.as_u16(), 400 | 401)
        && matches!(
            code(answered),
            None | Some("invalid_client" | "invalid_request")
        )
}

/// What an error is called, where it has a name.
fn code(answered: &Answered) -> Option<&'static str> {
    let body: ErrorBody = serde_json::from_slice(answered.body.as_deref()?).ok()?;
    ERRORS.into_iter().find(|code| *code == body.error)
}

fn kept_for(Seconds(life): Seconds) -> Duration {
    // Longer than any process lives, and no overflow.
    let life = Duration::from_secs(life.min(u32::MAX.into()));
    life.saturating_sub(MARGIN.min(life / 10))
}

fn parsed<T: serde::de::DeserializeOwned>(
    url: &Url,
    answered: Answered,
    what: &'static str,
) -> Result<T, TokenError> {
    let body = answered.body.unwrap_or_default();
    serde_json::from_slice(&body).map_err(|_| malformed(url, what))
}

fn malformed(url: &Url, what: &'static str) -> TokenError {
    let url = shown(url);
    TokenError::Malformed { url, what }
}

/// What may be told of an address: a document may name one with a password or a key in it.
fn shown(url: &Url) -> String {
    let path = url.path();
    format!("{}{path}", url.origin().ascii_serialization())
}

fn json() -> HeaderValue {
    HeaderValue::from_static("application/json")
}

/// As a form has it; the space as `%20`, which every server reads.
fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let number = match &value {
            serde_json::Value::String(text) => text.trim().parse().ok(),
            other => other.as_f64(),
        };
        // What is no number is no time that the token could be kept for.
        let seconds = number.filter(|seconds: &f64| *seconds > 0.0);
        Ok(Self(seconds.map_or(0, |seconds| {
            Duration::try_from_secs_f64(seconds).map_or(u64::MAX, |life| life.as_secs())
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_a_comma_separated_list() {
        let scopes = Scopes::parse("openid, keptn:read,").unwrap();
        assert_eq!(scopes.0, ["openid", "keptn:read"]);
        assert_eq!(scopes.listed(), "openid,keptn:read");
        for nothing in ["", " , ", "two words"] {
            assert!(Scopes::parse(nothing).is_err(), "{nothing}");
        }
    }

    #[test]
    fn a_token_is_replaced_before_it_expires() {
        for (expires_in, seconds) in [
            ("3600", 3570.0),
            ("\"3600\"", 3570.0),
            ("3599.9", 3569.0),
            ("60", 54.0),
            ("0", 0.0),
            ("-1", 0.0),
            ("\"soon\"", 0.0),
        ] {
            let life: Seconds = serde_json::from_str(expires_in).unwrap();
            assert!(
                (kept_for(life).as_secs_f64() - seconds).abs() < 0.01,
                "{expires_in}"
            );
        }
    }
}
