//! What a request to Keptn shows to be let in: Keptn's own token, an access token, both or nothing.

use reqwest::Request;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::oauth::{AccessToken, OAuth, OAuthClient, TIMEOUT, TokenError};
use super::{Http, Transport};

const X_TOKEN: HeaderName = HeaderName::from_static("x-token");

/// In the place of a secret that a server repeats.
const HIDDEN: &str = "***";

/// Each is a value of a header: the settings have no others.
#[derive(Default)]
pub(crate) struct Credentials {
    token: Option<SecretString>,
    oauth: Option<OAuth>,
}

/// The credentials of one request.
pub(crate) struct Shown<'a> {
    token: Option<&'a SecretString>,
    access_token: Option<AccessToken>,
}

impl Credentials {
    /// `transport` leads to the OAuth server.
    pub(crate) fn new(
        token: Option<SecretString>,
        oauth: Option<OAuthClient>,
        transport: &Transport,
    ) -> Self {
        let oauth = oauth.map(|client| OAuth::new(client, Http::over(transport.clone(), TIMEOUT)));
        Self { token, oauth }
    }

    pub(super) async fn shown(&self) -> Result<Shown<'_>, TokenError> {
        self.with(None).await
    }

    /// Others than these, where there can be others.
    pub(super) async fn after(&self, refused: &Shown<'_>) -> Result<Option<Shown<'_>>, TokenError> {
        match &refused.access_token {
            Some(token) => Ok(Some(self.with(Some(token)).await?)),
            None => Ok(None),
        }
    }

    async fn with(&self, refused: Option<&AccessToken>) -> Result<Shown<'_>, TokenError> {
        Ok(Shown {
            token: self.token.as_ref(),
            access_token: match &self.oauth {
                Some(oauth) => Some(oauth.token(refused).await?),
                None => None,
            },
        })
    }
}

impl Shown<'_> {
    pub(super) fn put_into(&self, request: &mut Request) {
        for (name, secret) in self.headers() {
            if let Ok(mut value) = HeaderValue::from_str(secret.expose_secret()) {
                value.set_sensitive(true);
                request.headers_mut().insert(name, value);
            }
        }
    }

    /// What a server answered, without what it may have repeated of these.
    pub(super) fn hidden_in(&self, text: &str) -> String {
        let secrets = self.headers().map(|(_, secret)| {
            let secret = secret.expose_secret();
            secret.strip_prefix("Bearer ").unwrap_or(secret)
        });
        secrets
            .filter(|secret| !secret.is_empty())
            .fold(text.to_owned(), |text, secret| text.replace(secret, HIDDEN))
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, &SecretString)> {
        let access_token = self.access_token.as_ref().map(AccessToken::as_secret);
        let token = self.token.map(|token| (X_TOKEN, token));
        token
            .into_iter()
            .chain(access_token.map(|token| (AUTHORIZATION, token)))
    }
}
