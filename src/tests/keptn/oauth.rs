//! The OAuth server that protects a scenario's Keptn.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::http::{HeaderMap, Response, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::json_of;

/// Where it takes the client's id and secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tests) enum Takes {
    Header,
    Body,
}

/// It knows one client, `jes`, with the scopes `openid` and `keptn`.
pub(in crate::tests) struct OAuthServer {
    pub(in crate::tests) secret: String,
    /// Of its tokens, before their number.
    pub(in crate::tests) prefix: String,
    pub(in crate::tests) takes: Takes,
    /// None is left out.
    pub(in crate::tests) expires_in: Option<Value>,
    /// Answers to the next requests, before the true ones.
    pub(in crate::tests) troubles: Vec<(u16, String)>,
    pub(in crate::tests) endpoint: Option<String>,
    /// Its tokens are not valid where they are shown.
    pub(in crate::tests) refuses_all: bool,
    issued: usize,
    valid: Option<String>,
}

impl Default for OAuthServer {
    fn default() -> Self {
        Self {
            secret: "client+secret".into(),
            prefix: "access-token".into(),
            takes: Takes::Header,
            expires_in: None,
            troubles: Vec::new(),
            endpoint: None,
            refuses_all: false,
            issued: 0,
            valid: None,
        }
    }
}

impl OAuthServer {
    pub(super) fn is_valid(&self, headers: &HeaderMap) -> bool {
        let shown = headers.get("authorization");
        let shown = shown.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        self.valid.is_some() && self.valid.as_deref() == shown
    }

    /// How many tokens were given.
    pub(in crate::tests) fn issued(&self) -> usize {
        self.issued
    }

    pub(in crate::tests) fn revokes(&mut self) {
        self.valid = None;
    }

    pub(super) fn discovery(&self) -> Response<Body> {
        let endpoint = self.endpoint.as_deref();
        let endpoint = endpoint.unwrap_or("http://keptn/oauth/token");
        json_of(
            StatusCode::OK,
            &json!({"issuer": "x", "token_endpoint": endpoint}),
        )
    }

    pub(super) fn token(&mut self, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        if !self.troubles.is_empty() {
            let (code, body) = self.troubles.remove(0);
            let mut response = Response::new(Body::from(body));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            return response;
        }
        let form = form(std::str::from_utf8(body).unwrap());
        let field = |name: &str| form.get(name).map(String::as_str);
        let refuse = |error| json_of(StatusCode::UNAUTHORIZED, &json!({"error": error}));
        let header = headers.get("authorization").map(|value| {
            let value = value.to_str().unwrap().strip_prefix("Basic ").unwrap();
            let pair = String::from_utf8(STANDARD.decode(value).unwrap()).unwrap();
            let (id, secret) = pair.split_once(':').unwrap();
            (decoded(id), decoded(secret))
        });
        let client = match self.takes {
            Takes::Header => header,
            Takes::Body => field("client_id")
                .zip(field("client_secret"))
                .map(|(id, secret)| (id.to_owned(), secret.to_owned())),
        };
        if client != Some(("jes".into(), self.secret.clone())) {
            return refuse("invalid_client");
        }
        if field("grant_type") != Some("client_credentials") {
            return refuse("unsupported_grant_type");
        }
        if field("scope") != Some("openid keptn") {
            return refuse("invalid_scope");
        }
        self.issued += 1;
        let token = format!("{}-{}", self.prefix, self.issued);
        let mut body = json!({"access_token": token, "token_type": "bearer"});
        if let Some(life) = &self.expires_in {
            body["expires_in"] = life.clone();
        }
        self.valid = Some(token).filter(|_| !self.refuses_all);
        json_of(StatusCode::OK, &body)
    }
}

fn form(body: &str) -> BTreeMap<String, String> {
    let pairs = body.split('&').map(|pair| pair.split_once('=').unwrap());
    pairs
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().unwrap().into_owned()
}
