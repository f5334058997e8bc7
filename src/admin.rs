//! What operators look at, on a port of its own: the status page, read-only, and `/metrics`.
//!
//! Each page is JSON, too, for who asks for it: `Accept: application/json`, or `?format=json`.

mod page;
mod window;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::endpoint::Peer;
use crate::journal::entry::RunState;
use crate::metrics::{self, Metrics};
use crate::run::RunId;
use page::Html;

pub(crate) use window::{Memory, Sight, Window};

/// Nothing is loaded from elsewhere, and nothing that a config or an event says is code.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                      img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Pages that are made at once: each takes a processor for some milliseconds, and events need one, too.
const MAX_LOOKS: usize = 4;

/// Who looks waits for as long behind others.
const LOOK_PATIENCE: Duration = Duration::from_secs(5);

/// Who sees the page: it tells what tasks print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Audience {
    /// Who connects from the same Pod or machine.
    Local,
    Anyone,
}

/// The page, from the start of the process on.
#[derive(Clone)]
pub(crate) struct Page(Arc<Inner>);

struct Inner {
    audience: Audience,
    /// None until the service is connected to its cluster.
    window: OnceLock<Window>,
    looks: Arc<Semaphore>,
}

/// The turns of those that look.
#[derive(Clone)]
struct Looks(Arc<Semaphore>);

impl Page {
    pub(crate) fn new(audience: Audience) -> Self {
        Self(Arc::new(Inner {
            audience,
            window: OnceLock::new(),
            looks: Arc::new(Semaphore::new(MAX_LOOKS)),
        }))
    }

    pub(crate) fn shows(&self, window: Window) {
        // A process has one service.
        self.0.window.set(window).ok();
    }
}

/// On a port of its own.
pub(crate) fn router(metrics: &Metrics, page: &Page) -> Router {
    pages(metrics, page)
        .fallback(nothing_here)
        .method_not_allowed_fallback(only_for_reading)
}

/// Beside something else.
pub(crate) fn pages(metrics: &Metrics, page: &Page) -> Router {
    let metrics = metrics.clone();
    let pages = Router::new()
        .route("/", get(runs))
        .route("/runs", get(runs))
        .route("/runs/{id}", get(run))
        .route("/runs/{id}/logs/{job}", get(log))
        .route("/events", get(events))
        .with_state(page.clone())
        .layer(from_fn_with_state(page.clone(), only_for_its_audience));
    Router::new()
        .merge(pages)
        .route(
            "/style.css",
            get(|| async { file("text/css; charset=utf-8", page::STYLE) }),
        )
        .route(
            "/refresh.js",
            get(|| async { file("text/javascript; charset=utf-8", page::REFRESH) }),
        )
        .route(
            "/metrics",
            get(|headers: HeaderMap| async move {
                let reader = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
                let is_browser = reader.is_some_and(|accept| accept.contains("text/html"));
                // A browser would store the other one as a file.
                let content_type = if is_browser {
                    "text/plain; charset=utf-8"
                } else {
                    metrics::CONTENT_TYPE
                };
                ([(CONTENT_TYPE, content_type)], metrics.text())
            }),
        )
        .route("/livez", get(|| async { "ok" }))
}

async fn nothing_here() -> (StatusCode, &'static str) {
    let reason = "there is nothing here, expected one of / (runs), /runs/ID, /runs/ID/logs/JOB, /events, /metrics \
                  and /livez\n";
    (StatusCode::NOT_FOUND, reason)
}

async fn only_for_reading() -> Response {
    let reason = "the status page is for reading, with GET\n";
    let allowed = [(ALLOW, "GET,HEAD")];
    (StatusCode::METHOD_NOT_ALLOWED, allowed, reason).into_response()
}

fn file(content_type: &'static str, text: &'static str) -> Response {
    (
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-cache")],
        text,
    )
        .into_response()
}

/// What a person asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    /// Part of an id, a type, a project, …
    q: String,
    /// One of [`RunState::ASKED`].
    state: String,
    /// From 1.
    page: usize,
    format: String,
}

impl Asked {
    /// Whoever asks for what there is not is told so, and not that there is nothing.
    fn of(parameters: Vec<(String, String)>) -> Result<Self, String> {
        let [mut q, mut state, mut page, mut format] = [None, None, None, None];
        for (name, value) in parameters {
            let place = match name.as_str() {
                "q" => &mut q,
                "state" => &mut state,
                "page" => &mut page,
                "format" => &mut format,
                // Whoever passes links on may add something.
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(format!("`{name}` is there twice, expected once\n"));
            }
        }
        let [q, state, page, format] = [q, state, page, format].map(Option::unwrap_or_default);
        let states = RunState::ASKED.map(|(state, _)| state);
        one_of("state", &state, &states)?;
        one_of("format", &format, &["", "html", "json"])?;
        let page = match page.as_str() {
            "" => 1,
            number => number
                .parse()
                .map_err(|_| format!("`page` is `{number}`, expected a number from 1\n"))?,
        };
        Ok(Self {
            q,
            state,
            page,
            format,
        })
    }
}

fn one_of(name: &str, value: &str, allowed: &[&str]) -> Result<(), String> {
    if allowed.contains(&value) {
        return Ok(());
    }
    let allowed = allowed.iter().filter(|allowed| !allowed.is_empty());
    let allowed: Vec<String> = allowed.map(|allowed| format!("`{allowed}`")).collect();
    let allowed = allowed.join(", ");
    Err(format!(
        "`{name}` is `{value}`, expected one of {allowed}\n"
    ))
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = (StatusCode, String);

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let asked = match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Self::of(parameters),
            Err(error) => Err(format!("{}\n", error.body_text())),
        };
        asked.map_err(|problem| (StatusCode::BAD_REQUEST, problem))
    }
}

/// How the answer is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
}

impl Form {
    /// What is named first in `Accept` wins; a browser names HTML.
    fn of(asked: &Asked, headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let accept = accept.unwrap_or_default();
        let place = |media_type: &str| accept.find(media_type).unwrap_or(usize::MAX);
        let prefers_json = place("application/json") < place("text/html");
        if asked.format == "json" || (asked.format.is_empty() && prefers_json) {
            Self::Json
        } else {
            Self::Html
        }
    }

    fn write(
        self,
        status: StatusCode,
        json: &impl Serialize,
        html: impl FnOnce() -> Html,
    ) -> Response {
        match self {
            Self::Html => {
                let content_type = (CONTENT_TYPE, "text/html; charset=utf-8");
                (status, [content_type], html().into_string()).into_response()
            }
            Self::Json => self::json(status, json),
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // These types have text for keys, and nothing else that JSON could refuse.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    (status, [(CONTENT_TYPE, "application/json")], text + "\n").into_response()
}

impl Looks {
    /// Makes a page where nothing else waits for it. Whoever goes away meanwhile has had the turn all the same.
    async fn aside(self, make: impl FnOnce() -> Response + Send + 'static) -> Response {
        let Ok(turn) = timeout(LOOK_PATIENCE, self.0.acquire_owned()).await else {
            let reason = "too many look at the page at once, look again in some seconds\n";
            let again = [(RETRY_AFTER, "5")];
            return (StatusCode::SERVICE_UNAVAILABLE, again, reason).into_response();
        };
        let make = move || {
            let _turn = turn;
            make()
        };
        tokio::task::spawn_blocking(make)
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

async fn runs(
    Extension(window): Extension<Window>,
    Extension(looks): Extension<Looks>,
    asked: Asked,
    headers: HeaderMap,
) -> Response {
    let problem = window.look_back().await;
    let form = Form::of(&asked, &headers);
    looks
        .aside(move || {
            let overview = window.runs(&asked, problem);
            form.write(StatusCode::OK, &overview, || page::runs(&overview, &asked))
        })
        .await
}

async fn events(
    Extension(window): Extension<Window>,
    Extension(looks): Extension<Looks>,
    asked: Asked,
    headers: HeaderMap,
) -> Response {
    let form = Form::of(&asked, &headers);
    looks
        .aside(move || {
            let events = window.events(&asked);
            form.write(StatusCode::OK, &events, || page::events(&events, &asked))
        })
        .await
}

async fn run(
    Extension(window): Extension<Window>,
    Extension(looks): Extension<Looks>,
    Path(id): Path<String>,
    asked: Asked,
    headers: HeaderMap,
) -> Response {
    let form = Form::of(&asked, &headers);
    match window.run(&RunId::from_label(&id)).await {
        Some(run) => {
            looks
                .aside(move || form.write(StatusCode::OK, &run, || page::run(&run)))
                .await
        }
        None => not_found(form, &window, &format!("run {id}")),
    }
}

async fn log(
    Extension(window): Extension<Window>,
    Extension(looks): Extension<Looks>,
    Path((id, job)): Path<(String, String)>,
    asked: Asked,
    headers: HeaderMap,
) -> Response {
    let form = Form::of(&asked, &headers);
    match window.log(&RunId::from_label(&id), &job).await {
        None => not_found(
            form,
            &window,
            &format!("task with the Job {job} in run {id}"),
        ),
        Some(log) => {
            let make = move || match form {
                Form::Json => json(StatusCode::OK, &log),
                Form::Html => {
                    let content_type = (CONTENT_TYPE, "text/plain; charset=utf-8");
                    ([content_type], log.to_text()).into_response()
                }
            };
            looks.aside(make).await
        }
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
}

fn not_found(form: Form, window: &Window, what: &str) -> Response {
    let error =
        format!("no {what} is known: its Jobs are gone from the cluster, or there never was one");
    let about = window.about();
    form.write(StatusCode::NOT_FOUND, &Problem { error: &error }, || {
        page::problem(&about, &error)
    })
}

/// Lets those see the page who may, once there is something to see.
async fn only_for_its_audience(
    State(page): State<Page>,
    mut request: Request,
    next: Next,
) -> Response {
    if page.0.audience == Audience::Local && !is_local(&request) {
        let reason = "the status page is only for connections from the service's own Pod, such as those of \
                      `kubectl port-forward`; ADMIN_PAGE=anyone opens it\n";
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    let Some(window) = page.0.window.get() else {
        let reason = "the service is not connected to its cluster yet, its log tells why\n";
        return (StatusCode::SERVICE_UNAVAILABLE, reason).into_response();
    };
    if percent_decode_str(request.uri().path())
        .decode_utf8()
        .is_err()
    {
        let reason = "the address is no UTF-8 once its `%` are decoded\n";
        return (StatusCode::BAD_REQUEST, reason).into_response();
    }
    request.extensions_mut().insert(window.clone());
    request
        .extensions_mut()
        .insert(Looks(Arc::clone(&page.0.looks)));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "Accept"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a person at this machine asks, and no web site that had its name point to it.
fn is_local(request: &Request) -> bool {
    let peer = request.extensions().get::<Peer>();
    let is_near = peer.is_some_and(|Peer(address)| address.to_canonical().is_loopback());
    let host = request.headers().get(HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    is_near && is_own_name(host)
}

fn is_own_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    if let Some(name) = in_brackets {
        return name.parse::<Ipv6Addr>().is_ok();
    }
    // With the dot of a name that is not searched for.
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_others_look_is_told_to_come_again() {
        let looks = Looks(Arc::new(Semaphore::new(MAX_LOOKS)));
        let page = || (StatusCode::OK, "a page").into_response();
        let others = looks.0.acquire_many(4).await;
        let begun = Instant::now();
        let refused = looks.clone().aside(page).await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[RETRY_AFTER], "5");
        assert_eq!(begun.elapsed(), LOOK_PATIENCE);
        drop(others);
        let shown = looks.clone().aside(page).await;
        assert_eq!(shown.status(), StatusCode::OK);
        assert_eq!(looks.0.available_permits(), MAX_LOOKS);
    }
}
