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
    /// The configs by the service that they are for.
    configs: Arc<HashMap<String, String>>,
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
        let keptn = Self {
            configs: Arc::new(configs.into_iter().collect()),
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

async fn answer(State(keptn): State<Keptn>, uri: Uri, body: Bytes) -> (StatusCode, String) {
    let at = Instant::now();
    let path: Vec<&str> = uri.path().trim_start_matches('/').split('/').collect();
    match path.as_slice() {
        ["event"] => {
            keptn.hears(at, &body);
            (StatusCode::OK, "{}".into())
        }
        ["mongodb-datastore", ..] => (StatusCode::OK, json!({"events": []}).to_string()),
        [.., "service", service, "resource", uri] => {
            tokio::time::sleep(DELAY).await;
            let content = match keptn.configs.get(*service) {
                Some(config) if uri.ends_with("config.yaml") => config,
                _ if *uri == FILE => "Hello\n",
                _ => return absent(),
            };
            let content = STANDARD.encode(content);
            let resource = json!({"resourceURI": uri, "resourceContent": content});
            (StatusCode::OK, resource.to_string())
        }
        _ => absent(),
    }
}

fn absent() -> (StatusCode, String) {
    let body = json!({"code": 404, "message": "Resource not found"});
    (StatusCode::NOT_FOUND, body.to_string())
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
