//! The service at a desk: on a cluster and a Keptn in this process.

pub(crate) mod event_file;
pub(crate) mod keptn;
pub(crate) mod kubernetes;
mod run;
pub(crate) mod runtime;
pub(crate) mod story;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use reqwest::Url;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cli::{DeskSettings, ServeSettings};
use crate::cluster::Identity;
use crate::endpoint::Router;
use crate::job_config::fields::Image;
use crate::keptn::answers::Answers;
use crate::keptn::event_store::EventStore;
use crate::serve::{Outside, RESOURCE_TIMEOUT, Service};
use keptn::{Keptn, Repository};
use kubernetes::{Kubernetes, Observer, Parts};
use runtime::OWN_IMAGE;
use story::Story;

pub(crate) use run::main as run;

/// Where Jobs run if nothing says otherwise: a name that config authors know.
const NAMESPACE: &str = "keptn";

/// The service with all that it talks to.
pub(crate) struct Desk {
    pub(crate) kubernetes: Kubernetes,
    pub(crate) router: Router,
    service: JoinHandle<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Desk {
    pub(crate) async fn new(settings: &DeskSettings, story: &Arc<Story>) -> anyhow::Result<Self> {
        let repository = Repository::new(settings.resources(), settings.config.clone());
        let teller = Arc::clone(story);
        let keptn = Keptn::new(repository, Duration::ZERO, move |event| teller.sent(event));
        let kubernetes = Kubernetes::new(Parts {
            runtime: Arc::new(runtime::Desk {
                kind: settings.runtime,
                keptn: keptn.clone(),
            }),
            observer: Arc::clone(story) as Arc<dyn Observer>,
            clock: Timestamp::now,
            settling: Duration::ZERO,
            volumes: Some(std::env::temp_dir()),
        });
        let serve = ServeSettings::at_a_desk(
            settings.tasks.clone(),
            Url::parse(Keptn::CONFIGURATION_SERVICE).context("an address of this program")?,
            Url::parse(Keptn::EVENT_ENDPOINT).context("an address of this program")?,
            Image::parse(OWN_IMAGE).map_err(anyhow::Error::msg)?,
        );
        let namespace = serve.tasks.job_namespace.as_ref();
        let namespace = namespace.map_or_else(|| NAMESPACE.to_owned(), ToString::to_string);
        for (name, values) in &settings.secrets()? {
            kubernetes.create_secret(&namespace, name, values);
        }
        let outside = Outside {
            client: kubernetes.client(&namespace),
            identity: Identity::of_this_process(&namespace, None),
            namespace,
            configuration_service: keptn.http(RESOURCE_TIMEOUT),
            events: keptn.http(Answers::TIMEOUT),
            event_store: keptn.http(EventStore::TIMEOUT),
        };
        let stop = CancellationToken::new();
        let service = Service::new(&serve, outside, stop.clone()).await;
        Ok(Self {
            kubernetes,
            router: service.router(),
            service: tokio::spawn(service.run(None)),
            stop,
        })
    }

    /// Ends the containers, and the service after them.
    pub(crate) async fn shut_down(self) -> anyhow::Result<()> {
        self.kubernetes.shut_down().await;
        self.stop.cancel();
        self.service.await.context("the service panicked")?
    }
}
