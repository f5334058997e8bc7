//! Sends spans to a collector by OTLP, as protobuf over HTTP: in batches, again where that may help, and
//! without a word but one now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Request};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::spans::attributes;
use super::{Collector, Here};
use crate::keptn::Http;

/// Spans of one request.
const BATCH: usize = 512;

/// How long the first span of a batch waits for others.
const BETWEEN_BATCHES: Duration = Duration::from_secs(2);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest that a collector can ask for.
const LONGEST_WISH: Duration = Duration::from_secs(600);

/// A collector that is away for days is not worth more.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(600);

/// What a collector answers is short.
const MAX_REPLY: usize = 64 << 10;

pub(super) struct Export {
    collector: Collector,
    resource: Resource,
    http: Http,
    dropped: Arc<AtomicU64>,
    trouble: Option<Trouble>,
}

/// Since when spans are not taken.
struct Trouble {
    warned: Instant,
}

/// Why a batch was not taken.
struct NotTaken {
    reason: String,
    what_now: WhatNow,
}

enum WhatNow {
    /// It may be taken later, and not before this time has passed.
    Again(Duration),
    /// As many spans are lost.
    Lost(usize),
}

impl Export {
    pub(super) fn new(
        collector: Collector,
        here: &Here,
        http: Http,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let resource = Resource {
            attributes: attributes([
                ("service.name", Some(collector.service.as_str().into())),
                ("service.version", Some(env!("CARGO_PKG_VERSION").into())),
                ("service.instance.id", here.pod.as_deref().map(Into::into)),
                ("k8s.namespace.name", Some(here.namespace.as_str().into())),
                ("k8s.pod.name", here.pod.as_deref().map(Into::into)),
            ]),
            ..Resource::default()
        };
        Self {
            collector,
            resource,
            http,
            dropped,
            trouble: None,
        }
    }

    /// Ends when it is stopped and what was there by then was tried once.
    pub(super) async fn run(mut self, mut spans: mpsc::Receiver<Span>, stop: CancellationToken) {
        loop {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                count = spans.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = stop.cancelled() => return,
            }
            let full = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if spans.recv_many(&mut batch, room).await == 0 {
                        return;
                    }
                }
            };
            tokio::select! {
                () = full => {}
                () = tokio::time::sleep(BETWEEN_BATCHES) => {}
                () = stop.cancelled() => {}
            }
            self.deliver(batch, &stop).await;
        }
    }

    async fn deliver(&mut self, batch: Vec<Span>, stop: &CancellationToken) {
        let count = batch.len();
        let body = self.request(batch).encode_to_vec();
        let mut pause = FIRST_PAUSE;
        loop {
            let last = stop.is_cancelled();
            let failed = match self.attempt(&body, count).await {
                Ok(()) => return self.works(),
                Err(failed) => failed,
            };
            let wish = match failed.what_now {
                WhatNow::Again(wish) if !last => wish.min(LONGEST_WISH),
                WhatNow::Again(_) => return self.fails(&failed.reason, count),
                WhatNow::Lost(count) => return self.fails(&failed.reason, count),
            };
            self.fails(&failed.reason, 0);
            tokio::select! {
                () = tokio::time::sleep(pause.max(wish)) => {}
                () = stop.cancelled() => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn request(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            ..InstrumentationScope::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans,
                    ..ScopeSpans::default()
                }],
                ..ResourceSpans::default()
            }],
        }
    }

    async fn attempt(&self, body: &[u8], count: usize) -> Result<(), NotTaken> {
        let mut request = Request::new(Method::POST, self.collector.url.clone());
        let headers = request.headers_mut();
        for (name, value) in &self.collector.headers {
            // Both were checked when the settings were read.
            let name = HeaderName::try_from(name.as_str()).ok();
            let value = HeaderValue::try_from(value.expose_secret()).ok();
            if let Some((name, mut value)) = name.zip(value) {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
        }
        let protobuf = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, protobuf);
        *request.body_mut() = Some(body.to_vec().into());
        let answered = self.http.send(request, MAX_REPLY).await;
        let answered = answered.map_err(|error| NotTaken {
            reason: format!("{}: {error}", self.collector.url),
            what_now: WhatNow::Again(Duration::ZERO),
        })?;
        let status = answered.status;
        if !status.is_success() {
            return Err(NotTaken {
                reason: format!("{} answered {status}", self.collector.url),
                what_now: match status.as_u16() {
                    429 | 502..=504 => WhatNow::Again(answered.retry_after.unwrap_or_default()),
                    _ => WhatNow::Lost(count),
                },
            });
        }
        let body = answered.body.unwrap_or_default();
        let response = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default();
        match response.partial_success {
            Some(part) if part.rejected_spans > 0 => {
                // Its words may be those of an event.
                debug!(why = part.error_message, "the collector refused spans");
                let refused = part.rejected_spans;
                Err(NotTaken {
                    reason: format!("{} refused {refused} of {count} spans", self.collector.url),
                    what_now: WhatNow::Lost(
                        usize::try_from(refused).map_or(count, |of| of.min(count)),
                    ),
                })
            }
            _ => Ok(()),
        }
    }

    fn works(&mut self) {
        if self.trouble.take().is_some() {
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            info!(dropped, "spans can be sent again");
        }
    }

    fn fails(&mut self, reason: &str, dropped: usize) {
        self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
        let now = Instant::now();
        let trouble = self.trouble.as_ref();
        if trouble.is_some_and(|trouble| now < trouble.warned + BETWEEN_WARNINGS) {
            return;
        }
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        warn!(reason, dropped, "spans could not be sent");
        self.trouble = Some(Trouble { warned: now });
    }
}
