//! A Keptn that answers at once, but for a stated delay, and notes when answers arrive.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::figures::PATIENCE;

/// What Keptn's configuration service takes for an answer; all else is there at once.
pub(crate) const DELAY: Duration = Duration::from_millis(20);

/// In every directory of Keptn's.
pub(crate) const FILE: &str = "greeting";

#[derive(Clone)]
pub(crate) struct Keptn {
    /// What is told of each service's config.
    configs: Arc<HashMap<String, Bytes>>,
    file: Bytes,
    finished: watch::Sender<HashMap<String, Finished>>,
    port: u16,
}

/// A `.finished` that arrived.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    pub(crate) at: Instant,
    pub(crate) status: String,
}

impl Keptn {
    /// Has a job/config.yaml for each of these services.
    pub(crate) async fn start(
        configs: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("0.0.0.0:0").await?;
        let configs = configs
            .into_iter()
            .map(|(service, config)| (service, resource("job/config.yaml", &config)));
        let keptn = Self {
            configs: Arc::new(configs.collect()),
            file: resource(FILE, "Hello\n"),
            finished: watch::Sender::default(),
            port: listener.local_addr()?.port(),
        };
        let router = Router::new().fallback(answer).with_state(keptn.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(keptn)
    }

    /// As this machine is known to whoever asks.
    pub(crate) fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port)
    }

    /// When the answer to the event of this id arrived.
    pub(crate) async fn finished(&self, id: &str) -> anyhow::Result<Instant> {
        let mut finished = self.finished.subscribe();
        let arrived = finished.wait_for(|finished| finished.contains_key(id));
        let arrived = tokio::time::timeout(PATIENCE, arrived).await;
        let finished = arrived.with_context(|| format!("no answer to event `{id}`"))??;
        let answer = &finished[id];
        anyhow::ensure!(
            answer.status == "succeeded",
            "the run of event `{id}` {}",
            answer.status
        );
        Ok(answer.at)
    }
}

fn resource(uri: &str, content: &str) -> Bytes {
    let resource = json!({"resourceURI": uri, "resourceContent": STANDARD.encode(content)});
    resource.to_string().into()
}

async fn answer(State(keptn): State<Keptn>, uri: Uri, body: Bytes) -> (StatusCode, Bytes) {
    let at = Instant::now();
    let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    match path.as_slice() {
        ["event"] => {
            keptn.hears(at, &body);
            (StatusCode::OK, Bytes::from_static(b"{}"))
        }
        ["mongodb-datastore", ..] => (StatusCode::OK, Bytes::from_static(b"{\"events\":[]}")),
        [.., "service", service, "resource", uri] => {
            tokio::time::sleep(DELAY).await;
            match keptn.configs.get(*service) {
                Some(config) if uri.ends_with("config.yaml") => (StatusCode::OK, config.clone()),
                _ if *uri == FILE => (StatusCode::OK, keptn.file),
                _ => absent(),
            }
        }
        _ => absent(),
    }
}

fn absent() -> (StatusCode, Bytes) {
    let body = b"{\"code\":404,\"message\":\"Resource not found\"}";
    (StatusCode::NOT_FOUND, Bytes::from_static(body))
}

impl Keptn {
    fn hears(&self, at: Instant, body: &[u8]) {
        let event: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if !text(&event["type"]).ends_with(".finished") {
            return;
        }
        let status = text(&event["data"]["status"]);
        let finished = Finished { at, status };
        self.finished.send_modify(|all| {
            all.insert(text(&event["triggeredid"]), finished);
        });
    }
}
