//! The service at a desk: on a cluster and a Keptn in this process.

mod dev;
pub(crate) mod event_file;
pub(crate) mod explain;
pub(crate) mod keptn;
pub(crate) mod kubernetes;
mod preview;
mod run;
pub(crate) mod runtime;
mod signals;
pub(crate) mod story;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use reqwest::Url;
use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::admin::{self, Audience, Page};
use crate::cli::{DeskSettings, ServeSettings};
use crate::cluster::Identity;
use crate::endpoint::{Body, Router};
use crate::job_config::fields::Image;
use crate::keptn::addresses::Addresses;
use crate::metrics::Metrics;
use crate::serve::{Outside, Service};
use keptn::Keptn;
use kubernetes::{Kubernetes, Observer, Parts};
use runtime::OWN_IMAGE;
use story::Story;

pub(crate) use dev::main as dev;
#[cfg(test)]
pub(crate) use dev::told as dev_told;
pub(crate) use run::main as run;
#[cfg(test)]
pub(crate) use run::told as run_told;

/// The service is ready within some of them.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// The store in this process has an event at once, so that nobody waits for an answer about it.
const STORE_LAG: Duration = Duration::ZERO;

/// Where Jobs run if nothing says otherwise: a name that config authors know.
pub(crate) const NAMESPACE: &str = "keptn";

async fn is_ready(router: &Router) -> bool {
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("/readyz");
    let answer = router.clone().oneshot(request).await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

/// Of the service at a desk.
fn serve_settings(settings: &DeskSettings) -> anyhow::Result<ServeSettings> {
    let address = "an address of this program";
    Ok(ServeSettings::at_a_desk(
        settings.tasks.clone(),
        Addresses::of(Url::parse(Keptn::CONFIGURATION_SERVICE).context(address)?),
        Url::parse(Keptn::EVENT_ENDPOINT).context(address)?,
        Image::parse(OWN_IMAGE).map_err(anyhow::Error::msg)?,
    ))
}

/// The service with all that it talks to.
pub(crate) struct Desk {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) router: Router,
    /// The status page and the metrics.
    pub(crate) admin: Router,
    service: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Desk {
    pub(crate) async fn new(settings: &DeskSettings, story: &Arc<Story>) -> anyhow::Result<Self> {
        let repository = settings.resources.repository();
        let teller = Arc::clone(story);
        let keptn = Keptn::new(repository, STORE_LAG, move |event| teller.sent(event));
        let kubernetes = Kubernetes::new(Parts {
            runtime: Arc::new(runtime::TaskRuntime {
                kind: settings.runtime,
                keptn: keptn.clone(),
            }),
            observer: Arc::clone(story) as Arc<dyn Observer>,
            clock: Timestamp::now,
            settling: Duration::ZERO,
            volumes: Some(std::env::temp_dir()),
        });
        let serve = serve_settings(settings)?;
        let namespace = serve.tasks.namespace(NAMESPACE);
        let namespaces = &serve.tasks.allowed_namespaces.0;
        for of in namespaces.iter().chain([&namespace]) {
            for (name, values) in &settings.secrets() {
                kubernetes.create_secret(of, name, values);
            }
        }
        let metrics = Metrics::default();
        let outside = Outside {
            client: kubernetes.client(&namespace),
            clock: Timestamp::now,
            identity: Identity::of_this_process(&namespace, None),
            account: None,
            metrics: metrics.clone(),
            namespace,
            keptn: keptn.transport(),
            store_lag: STORE_LAG,
            collector: None,
            secrets: settings.secret_values().map(SecretString::from).collect(),
        };
        let stop = CancellationToken::new();
        let service = Service::new(&serve, outside, stop.clone()).await;
        let router = service.router();
        let page = Page::new(Audience::Local);
        page.shows(service.window());
        let admin = admin::pages(&metrics, &page);
        let service = tokio::spawn(service.run(None));
        // It has the Lease and the Jobs of nobody else: a first event is executed at once.
        while !is_ready(&router).await {
            sleep(BETWEEN_LOOKS).await;
        }
        Ok(Self {
            kubernetes,
            router,
            admin,
            service,
            stop,
        })
    }

    /// Returns when the service ends by itself, which it does not do.
    async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.service).await {
            Ok(Ok(())) => anyhow::anyhow!("the service ended"),
            Ok(Err(error)) => error.context("the service ended"),
            Err(panic) => anyhow::Error::new(panic).context("the service panicked"),
        }
    }

    /// Ends the containers, and the service after them.
    pub(crate) async fn shut_down(self) -> anyhow::Result<()> {
        self.kubernetes.shut_down().await;
        self.stop.cancel();
        self.service.await.context("the service panicked")?
    }
}
