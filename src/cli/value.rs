//! The values of settings that a secret may be part of, and what is told of them when they are wrong.

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
use reqwest::Url;
use secrecy::SecretString;

use crate::keptn::Certificates;
use crate::keptn::addresses::Addresses;

/// Reads a value. Where it is wrong, it is repeated only if it is no secret and holds no password: what
/// stops a start ends in a log.
#[derive(Clone)]
pub(super) struct Discreet<T>(pub(super) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Discreet<T> {
    type Value = T;

    fn parse_ref(
        &self,
        _: &Command,
        arg: Option<&Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_str();
        let read = text
            .ok_or_else(|| "expected UTF-8".to_owned())
            .and_then(self.0);
        read.map_err(|reason| {
            let name = arg.map_or_else(String::new, ToString::to_string);
            let secret = arg.is_none_or(Arg::is_hide_env_values_set);
            let value = match text.filter(|text| !secret && !text.contains(['@', '?', '#'])) {
                Some(text) => format!("value '{text}'"),
                None => "value".to_owned(),
            };
            clap::Error::raw(
                ErrorKind::ValueValidation,
                format!("invalid {value} for '{name}': {reason}\n"),
            )
        })
    }
}

/// Secrets made with `echo` end with a newline.
pub(super) fn secret(text: &str) -> Result<SecretString, String> {
    let secret = text.trim();
    if secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(secret.into());
    }
    Err("expected visible ASCII characters without spaces".into())
}

pub(super) fn http_url(text: &str) -> Result<Url, String> {
    let url = oauth_url(text)?;
    if url.query().is_none() {
        return Ok(url);
    }
    Err(EXPECTED_URL.into())
}

/// Some OAuth servers have a query in it.
pub(super) fn oauth_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{error}, {EXPECTED_URL}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("expected an address without a user and a password".into());
    }
    if matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none() {
        return Ok(url);
    }
    Err(EXPECTED_URL.into())
}

const EXPECTED_URL: &str = "expected an address such as `http://localhost:8080/path`";

/// One address or several, separated by commas.
pub(super) fn addresses(text: &str) -> Result<Addresses, String> {
    Addresses::parse(text, http_url)
}

/// The words that Keptn's distributor knows.
pub(super) fn verification(text: &str) -> Result<Certificates, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "1" => Ok(Certificates::Verified),
        "false" | "f" | "0" => Ok(Certificates::Unverified),
        _ => Err("expected `true` or `false`".into()),
    }
}
