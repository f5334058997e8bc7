//! Wires the service together: settings → clients → executor → endpoint; signals and the way out.

mod to_keptn;
mod words;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use kube::Client;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::{info, warn};

use crate::admin::{self, Memory, Page, Sight, Window};
use crate::admission::{Admission, UnderWay};
use crate::cli::ServeSettings;
use crate::cluster::{self, Cluster, Identity, Leadership, OwnAccount, OwnPod};
use crate::endpoint::{self, Afterwards, Endpoint, Router};
use crate::executor::{Executor, Permitted, Runs};
use crate::journal::Journal;
use crate::keptn::credentials::Credentials;
use crate::keptn::event_store::LAG;
use crate::keptn::resources::Resources;
use crate::keptn::{self, Certificates, Http, Transport};
use crate::metrics::Metrics;
use crate::rules::{Known, Rules};
use crate::slots::Slots;
use crate::telemetry;
use crate::traces::{self, Traces};
use to_keptn::ToKeptn;

/// For one request to the configuration service.
const RESOURCE_TIMEOUT: Duration = Duration::from_secs(10);

/// What must not be cut ends within this time, or is cut: it may be repeated.
const DRAIN: Duration = Duration::from_secs(8);

/// For giving the Lease back. With [`DRAIN`] the way out takes at most 9 of the 10 seconds that it may.
const RELEASE: Duration = Duration::from_secs(1);

/// What the service is connected to.
pub(crate) struct Outside {
    pub(crate) client: Client,
    /// That of the cluster's objects.
    pub(crate) clock: fn() -> Timestamp,
    /// Where Jobs run.
    pub(crate) namespace: String,
    pub(crate) identity: Identity,
    /// Who this service is to the API server, where it is one of its accounts.
    pub(crate) account: Option<OwnAccount>,
    pub(crate) keptn: Transport,
    /// How long after it was sent an event may be missing from Keptn's store.
    pub(crate) store_lag: Duration,
    /// To a collector of spans, where there is one.
    pub(crate) collector: Option<Transport>,
    pub(crate) metrics: Metrics,
    /// Values of Secrets that are known here and are not the service's own.
    pub(crate) secrets: Vec<SecretString>,
}

/// What is on its way to the collector of spans.
#[derive(Default)]
struct Exports {
    tasks: TaskTracker,
    /// Nothing more comes.
    end: CancellationToken,
}

/// The service, ready to run.
pub(crate) struct Service {
    runs: Arc<Runs>,
    leadership: Leadership,
    router: Router,
    window: Window,
    connections: TaskTracker,
    admissions: TaskTracker,
    attempts: TaskTracker,
    /// Of spans.
    exports: Exports,
    stop: CancellationToken,
    halt: CancellationToken,
}

/// The command `serve`.
pub(crate) fn main(settings: ServeSettings) -> anyhow::Result<()> {
    telemetry::start(&settings.log_level, settings.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    // Among the workers' tasks, which wake each other without a system call. This thread only waits.
    let served = runtime.block_on(async { tokio::spawn(serve(settings)).await? });
    // A look-up of a name, which cannot be cut, would keep the process otherwise.
    runtime.shutdown_background();
    served
}

async fn serve(settings: ServeSettings) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    stop_at_signal(stop.clone())?;
    let listener = listener("RCV_PORT", settings.rcv_port).await?;
    let (metrics, page) = (Metrics::default(), Page::new(settings.admin_page));
    if let Some(port) = settings.admin_port {
        let listener = self::listener("ADMIN_PORT", port).await?;
        let router = admin::router(&metrics, &page);
        tokio::spawn(endpoint::accept(
            listener,
            router,
            Afterwards::Closed,
            TaskTracker::new(),
            stop.clone(),
        ));
    }
    let started = async {
        let outside = Outside::connecting(&settings, metrics).await?;
        Ok(Some(Service::new(&settings, outside, stop.clone()).await))
    };
    // The API server may be away for long.
    let service: anyhow::Result<Option<Service>> = tokio::select! {
        service = started => service,
        () = stop.cancelled() => Ok(None),
    };
    match service? {
        Some(service) => {
            page.shows(service.window());
            service.run(Some(listener)).await
        }
        None => Ok(()),
    }
}

async fn listener(setting: &str, port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        // Where the machine has no IPv6.
        Err(_) => TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("cannot listen on {setting} {port}")),
    }
}

impl Outside {
    async fn connecting(settings: &ServeSettings, metrics: Metrics) -> anyhow::Result<Self> {
        let config = kube::Config::infer().await.context(
            "no Kubernetes cluster: neither a kubeconfig nor a service account was found",
        )?;
        let own_namespace = config.default_namespace.clone();
        let client = cluster::connect(config, &metrics)
            .context("cannot use the Kubernetes configuration")?;
        let account = OwnAccount::ask(client.clone()).await;
        Ok(Self {
            account,
            metrics,
            ..Self::of(settings, client, &own_namespace)?
        })
    }

    /// Over this client of Kubernetes, and connections to Keptn.
    pub(crate) fn of(
        settings: &ServeSettings,
        client: Client,
        own_namespace: &str,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            client,
            clock: Timestamp::now,
            namespace: settings.tasks.namespace(own_namespace),
            identity: Identity::of_this_process(own_namespace, settings.pod_name.as_deref()),
            account: None,
            keptn: keptn::connecting(settings.access.certificates)
                .context("cannot make the HTTP client for Keptn")?,
            store_lag: LAG,
            collector: match settings.otlp.0 {
                // Whether Keptn has to prove who it is says nothing of others.
                Some(_) => Some(
                    keptn::connecting(Certificates::Verified)
                        .context("cannot make the HTTP client for spans")?,
                ),
                None => None,
            },
            metrics: Metrics::default(),
            secrets: Vec::new(),
        })
    }

    fn traces(&self, settings: &ServeSettings, exports: &Exports) -> Traces {
        let collector = settings.otlp.0.clone();
        let Some((collector, transport)) = collector.zip(self.collector.clone()) else {
            return Traces::default();
        };
        let here = traces::Here {
            namespace: self.client.default_namespace().to_owned(),
            pod: settings.pod_name.clone(),
        };
        let http = Http::over(transport, Traces::TIMEOUT);
        let (traces, export) = Traces::to(collector, &here, http, exports.end.clone());
        exports.tasks.spawn(export);
        traces
    }
}

impl Service {
    /// Waits for the API server, where it has to be asked about this service's own Pod.
    pub(crate) async fn new(
        settings: &ServeSettings,
        outside: Outside,
        stop: CancellationToken,
    ) -> Self {
        let exports = Exports::default();
        let traces = outside.traces(settings, &exports);
        let (client, namespace, keptn) = (outside.client, outside.namespace, outside.keptn);
        let rules = rules(
            settings,
            &client,
            &namespace,
            outside.account,
            outside.secrets,
        )
        .await;
        let leadership = Leadership::new(
            client.clone(),
            &namespace,
            &settings.tasks.full_deployment_name,
            outside.identity,
        );
        let (attempts, journal) = (TaskTracker::new(), Journal::default());
        let to_keptn = ToKeptn {
            transport: &keptn,
            endpoint: &settings.keptn_event_endpoint,
            attempts: &attempts,
            stop: &stop,
            store_lag: outside.store_lag,
        };
        let answers = to_keptn.answers(settings, leadership.doubt());
        let answers = answers.told_to(outside.metrics.clone(), journal.clone());
        let error_log = to_keptn.error_log(settings, client.default_namespace());
        let metrics = outside.metrics;
        let permitted = Permitted {
            policy: rules.policy.clone(),
            account: rules.defaults.service_account.clone(),
        };
        let cluster = cluster(client, &namespace, &rules, &metrics, outside.clock);
        let halt = CancellationToken::new();
        let window = Window::new(Sight {
            journal: journal.clone(),
            cluster: cluster.clone(),
            leadership: leadership.clone(),
            masks: rules.masks.clone(),
            namespace: namespace.clone(),
            pod: settings.pod_name.clone(),
            memory: Memory::default(),
        });
        let (masks, counts) = (rules.masks, metrics.clone());
        let runs = Arc::new(Runs::new(
            Executor::new(
                cluster.clone(),
                answers,
                permitted,
                masks,
                counts,
                journal.clone(),
                traces,
            ),
            cluster.clone(),
            leadership.clone(),
            Slots::new(settings.max_concurrent_runs as usize),
            halt.clone(),
        ));
        let under_way = UnderWay::default();
        let admissions = under_way.tasks.clone();
        let access = &settings.access;
        let credentials = Credentials::new(access.token.clone(), access.oauth.clone(), &keptn);
        let http = Http::over(keptn, RESOURCE_TIMEOUT);
        let admission = Arc::new(Admission {
            resources: Resources::new(http, settings.resources(), credentials),
            error_log: Arc::new(error_log),
            cluster,
            runs: Arc::clone(&runs),
            policy: rules.policy,
            defaults: rules.defaults,
            installation: settings.tasks.full_deployment_name.clone(),
            metrics: metrics.clone(),
            journal: journal.clone(),
            under_way,
        });
        let ready = readiness(Arc::clone(&runs), stop.clone(), metrics.clone());
        let max_body_bytes = settings.max_body_bytes as usize;
        let events = Endpoint::new(admission, max_body_bytes, metrics, journal, ready);
        words::tell_of_start(settings, &namespace);
        Self {
            runs,
            leadership,
            router: events.router(&settings.rcv_path),
            window,
            connections: TaskTracker::new(),
            admissions,
            attempts,
            exports,
            stop,
            halt,
        }
    }

    /// Where requests are answered, for whoever brings them without a connection.
    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    /// What there is to see.
    pub(crate) fn window(&self) -> Window {
        self.window.clone()
    }

    /// Runs until it is stopped, and then finishes what must not be cut.
    ///
    /// # Errors
    ///
    /// Where another process has taken the Lease: what this one has in memory is not valid any more.
    pub(crate) async fn run(self, listener: Option<TcpListener>) -> anyhow::Result<()> {
        let (connections, stop) = (self.connections.clone(), self.stop.clone());
        let (router, runs) = (self.router.clone(), Arc::clone(&self.runs));
        // Tasks of their own: what wakes one of them is nothing to the others.
        let accepting = AbortOnDropHandle::new(tokio::spawn(async move {
            match listener {
                Some(listener) => {
                    let kept = Afterwards::Kept;
                    endpoint::accept(listener, router, kept, connections, stop).await;
                }
                None => stop.cancelled().await,
            }
        }));
        let following = AbortOnDropHandle::new(tokio::spawn(async move { runs.follow().await }));
        tokio::select! {
            accepted = accepting => accepted?,
            reason = self.leadership.keep() => {
                self.halt.cancel();
                anyhow::bail!("{reason}, so this process ends; the next one waits for its turn");
            }
            followed = following => {
                followed?;
                anyhow::bail!("the watch on the cluster ended");
            }
        }
        info!("stopping: Jobs go on, the next process takes the runs over");
        let until = Instant::now() + DRAIN;
        // Answers on their way come first: when they are there, the next process can begin.
        let attempts = end_of(&self.attempts, until).await;
        self.halt.cancel();
        if timeout(RELEASE, self.leadership.release()).await.is_err() {
            warn!("the Lease could not be given back in time, the next process waits for it");
        }
        let connections = end_of(&self.connections, until).await;
        let admissions = end_of(&self.admissions, until).await;
        self.exports.end.cancel();
        let exports = end_of(&self.exports.tasks, until).await;
        if !(attempts && connections && admissions && exports) {
            warn!("not everything ended in time, stopping all the same");
        }
        Ok(())
    }
}

fn cluster(
    client: Client,
    namespace: &str,
    rules: &Rules,
    metrics: &Metrics,
    clock: fn() -> Timestamp,
) -> Cluster {
    Cluster::new(
        client,
        namespace.to_owned(),
        rules.policy.namespaces.iter().cloned(),
        rules.jobs.clone(),
        metrics.clone(),
        rules.graces,
        clock,
    )
}

/// What holds for the tasks of every event, with what the log has to say of it.
async fn rules(
    settings: &ServeSettings,
    client: &Client,
    namespace: &str,
    account: Option<OwnAccount>,
    secrets: Vec<SecretString>,
) -> Rules {
    let own_namespace = client.default_namespace();
    let known = Known {
        namespace: own_namespace.to_owned(),
        pod: match &settings.pod_name {
            Some(name) => OwnPod::read(client.clone(), own_namespace, name).await,
            None => OwnPod::default(),
        },
        account,
        secrets,
    };
    words::warn(settings, &known);
    Rules::of(settings, namespace, &known)
}

/// What readiness probes are told.
fn readiness(runs: Arc<Runs>, stop: CancellationToken, metrics: Metrics) -> impl Fn() -> bool {
    move || {
        let ready = runs.is_ready() && !stop.is_cancelled();
        metrics.ready(ready);
        ready
    }
}

/// Whether all ended in time.
async fn end_of(tracker: &TaskTracker, until: Instant) -> bool {
    tracker.close();
    timeout_at(until, tracker.wait()).await.is_ok()
}

/// The first signal starts the way out, the second one ends the process at once.
fn stop_at_signal(stop: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_cancelled() {
                warn!("second signal, ending at once");
                std::process::exit(1);
            }
            stop.cancel();
        }
    });
    Ok(())
}
