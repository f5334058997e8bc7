//! How Keptn is reached where that takes more than an address: its token, OAuth, certificates.

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use reqwest::Url;
use secrecy::SecretString;

use super::value::{Discreet, oauth_url, secret, verification};
use crate::keptn::Certificates;
use crate::keptn::oauth::{OAuthClient, Scopes, TokenServer};

/// What the settings come to; they are whole or refused.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) token: Option<SecretString>,
    pub(crate) oauth: Option<OAuthClient>,
    pub(crate) certificates: Certificates,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuthMode {
    Token,
    Oauth,
}

#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
struct AccessSettings {
    /// Token for the configuration service, if it is reached through Keptn's gateway.
    #[arg(long, env = "KEPTN_API_TOKEN", value_name = "KEPTN_API_TOKEN", hide_env_values = true,
          value_parser = Discreet(secret))]
    keptn_api_token: Option<SecretString>,

    /// `oauth` insists on the OAUTH_ settings, `token` ignores them [default: oauth if there are any].
    #[arg(
        long,
        env = "AUTH_MODE",
        value_name = "AUTH_MODE",
        value_enum,
        ignore_case = true
    )]
    auth_mode: Option<AuthMode>,

    /// Id of this service at the OAuth server that protects Keptn.
    #[arg(long, env = "OAUTH_CLIENT_ID", value_name = "OAUTH_CLIENT_ID")]
    oauth_client_id: Option<String>,

    /// Secret of this service at the OAuth server.
    #[arg(long, env = "OAUTH_CLIENT_SECRET", value_name = "OAUTH_CLIENT_SECRET", hide_env_values = true,
          value_parser = Discreet(secret))]
    oauth_client_secret: Option<SecretString>,

    /// Comma-separated scopes to ask for.
    #[arg(long, env = "OAUTH_SCOPES", value_name = "OAUTH_SCOPES", value_parser = Scopes::parse)]
    oauth_scopes: Option<Scopes>,

    /// Address of the document that names the OAuth server's `token_endpoint`.
    #[arg(long, env = "OAUTH_DISCOVERY", value_name = "OAUTH_DISCOVERY", value_parser = Discreet(oauth_url))]
    oauth_discovery: Option<Url>,

    /// Where the OAuth server gives tokens, without a look at that document.
    #[arg(long, env = "OAUTH_TOKEN_URL", value_name = "OAUTH_TOKEN_URL", value_parser = Discreet(oauth_url))]
    oauth_token_url: Option<Url>,

    /// Whether Keptn's certificates are verified.
    #[arg(long, env = "HTTP_SSL_VERIFY", value_name = "HTTP_SSL_VERIFY", default_value = "true",
          value_parser = verification)]
    http_ssl_verify: Certificates,
}

impl Access {
    /// To a Keptn that asks for nothing.
    pub(crate) fn open() -> Self {
        Self {
            token: None,
            oauth: None,
            certificates: Certificates::Verified,
        }
    }
}

impl AccessSettings {
    fn access(self) -> Result<Access, String> {
        Ok(Access {
            oauth: self.oauth()?,
            token: self.keptn_api_token,
            certificates: self.http_ssl_verify,
        })
    }

    fn oauth(&self) -> Result<Option<OAuthClient>, String> {
        let settings = [
            ("OAUTH_CLIENT_ID", self.oauth_client_id.is_some()),
            ("OAUTH_CLIENT_SECRET", self.oauth_client_secret.is_some()),
            ("OAUTH_SCOPES", self.oauth_scopes.is_some()),
            (
                "OAUTH_TOKEN_URL or OAUTH_DISCOVERY",
                self.oauth_token_url.is_some() || self.oauth_discovery.is_some(),
            ),
        ];
        let wanted = match self.auth_mode {
            Some(AuthMode::Token) => false,
            Some(AuthMode::Oauth) => true,
            None => settings.iter().any(|(_, is_set)| *is_set),
        };
        if !wanted {
            return Ok(None);
        }
        let server = match (&self.oauth_token_url, &self.oauth_discovery) {
            (Some(url), _) => Some(TokenServer::TokenUrl(url.clone())),
            (None, Some(url)) => Some(TokenServer::Discovery(url.clone())),
            (None, None) => None,
        };
        let (Some(id), Some(secret), Some(scopes), Some(server)) = (
            self.oauth_client_id.clone(),
            self.oauth_client_secret.clone(),
            self.oauth_scopes.clone(),
            server,
        ) else {
            let missing = settings.iter().filter(|(_, is_set)| !is_set);
            let missing: Vec<&str> = missing.map(|(name, _)| *name).collect();
            return Err(format!(
                "OAuth is not set up, missing: {} (AUTH_MODE=token goes without OAuth)",
                missing.join(", ")
            ));
        };
        Ok(Some(OAuthClient {
            id,
            secret,
            scopes,
            server,
        }))
    }
}

impl Args for Access {
    fn augment_args(command: Command) -> Command {
        AccessSettings::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        AccessSettings::augment_args_for_update(command)
    }
}

impl FromArgMatches for Access {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let settings = AccessSettings::from_arg_matches(matches)?;
        settings
            .access()
            .map_err(|reason| clap::Error::raw(ErrorKind::MissingRequiredArgument, reason))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
