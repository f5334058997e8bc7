//! What operators look at, on a port of its own: `/metrics`.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use crate::metrics::{self, Metrics};

pub(crate) fn router(metrics: &Metrics) -> Router {
    let metrics = metrics.clone();
    Router::new()
        .route(
            "/metrics",
            get(|| async move { ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics.text()) }),
        )
        .route("/livez", get(|| async { "ok" }))
}
