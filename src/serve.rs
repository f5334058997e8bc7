//! Wires the service together: settings → clients → executor → endpoint; signals and the way out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admission::{Admission, UnderWay};
use crate::cli::ServeSettings;
use crate::cluster::{Cluster, InitContainer, JobSettings, OwnPod, SecretKey};
use crate::endpoint::{self, Endpoint};
use crate::executor::Executor;
use crate::job_config::fields::{Amounts, Resources as ResourceAmounts};
use crate::keptn::answers::Answers;
use crate::keptn::resources::Resources;
use crate::policy::{Policy, Privileged};
use crate::resolve::{Files, TaskDefaults};
use crate::slots::Slots;
use crate::telemetry;

/// For one request to the configuration service.
const RESOURCE_TIMEOUT: Duration = Duration::from_secs(10);

/// What must not be cut ends within this time, or is cut: it may be repeated. The whole way out takes
/// less than the grace period of deploy/service.yaml.
const DRAIN: Duration = Duration::from_secs(8);

/// The command `serve`.
pub(crate) fn main(settings: ServeSettings) -> anyhow::Result<()> {
    telemetry::start(&settings.log_level, settings.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let namespace = settings.job_namespace.as_ref().map(ToString::to_string);
        let (client, namespace) = client(namespace).await?;
        let address = (std::net::Ipv6Addr::UNSPECIFIED, settings.rcv_port);
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            // Where the machine has no IPv6.
            Err(_) => TcpListener::bind((std::net::Ipv4Addr::UNSPECIFIED, settings.rcv_port))
                .await
                .with_context(|| format!("cannot listen on RCV_PORT {}", settings.rcv_port))?,
        };
        let stop = CancellationToken::new();
        stop_at_signal(stop.clone())?;
        run(settings, client, namespace, listener, stop).await
    })
}

/// The Kubernetes client, with the namespace for Jobs.
async fn client(namespace: Option<String>) -> anyhow::Result<(Client, String)> {
    let mut config = kube::Config::infer()
        .await
        .context("no Kubernetes cluster: neither a kubeconfig nor a service account was found")?;
    // Retries are decided call by call in `cluster`.
    config.default_retry = false;
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("cannot use the Kubernetes configuration")?;
    Ok((client, namespace))
}

/// Runs the service until `stop`; the caller brings the sockets, so that tests can.
pub(crate) async fn run(
    settings: ServeSettings,
    client: Client,
    namespace: String,
    listener: TcpListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let own_pod = match &settings.pod_name {
        Some(name) => OwnPod::read(client.clone(), client.default_namespace(), name).await,
        None => OwnPod::default(),
    };
    let attempts = TaskTracker::new();
    let answers = Answers::new(
        settings.keptn_event_endpoint.clone(),
        settings.max_answer_bytes as usize,
        attempts.clone(),
        stop.clone(),
    )
    .context("cannot make the HTTP client for KEPTN_EVENT_ENDPOINT")?;
    let resources = Resources::new(
        settings.configuration_service.clone(),
        settings.keptn_api_token.clone(),
        RESOURCE_TIMEOUT,
    )
    .context("cannot make the HTTP client for CONFIGURATION_SERVICE")?;
    let defaults = defaults(&settings, &own_pod);
    let policy = Policy {
        images: settings.allowed_image_list.clone(),
        privileged: if settings.allow_privileged_jobs {
            Privileged::Allowed
        } else {
            Privileged::Refused
        },
        namespace: namespace.clone(),
        own_service_account: own_pod.service_account.clone(),
        own_secret: settings.keptn_api_token_secret.to_string(),
    };
    let cluster = Cluster::new(
        client,
        namespace.clone(),
        job_settings(&settings, &own_pod, &defaults),
    );
    let slots = Slots::new(settings.max_concurrent_runs as usize);
    let executor = Arc::new(Executor::new(cluster.clone(), answers, slots));
    let under_way = UnderWay::default();
    let admissions = under_way.tasks.clone();
    let admission = Arc::new(Admission {
        resources,
        cluster: cluster.clone(),
        executor: Arc::clone(&executor),
        policy,
        defaults,
        installation: settings.full_deployment_name.clone(),
        under_way,
    });
    let (of_ready, stopping) = (Arc::clone(&executor), stop.clone());
    let ready = move || of_ready.is_recovered() && !stopping.is_cancelled();
    let router = Endpoint::new(admission, settings.max_body_bytes as usize, ready)
        .router(&settings.rcv_path);

    let connections = TaskTracker::new();
    let accepting = endpoint::accept(listener, router, connections.clone(), stop.clone());
    info!(
        port = settings.rcv_port,
        path = settings.rcv_path,
        namespace,
        version = env!("CARGO_PKG_VERSION"),
        "Starting job-executor-service..."
    );
    let recovery = async {
        cluster.synced().await;
        executor.recover().await;
        info!("ready");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = accepting => {}
        () = cluster.watch() => anyhow::bail!("the watch on the cluster ended"),
        () = recovery => {}
    }
    info!("stopping: Jobs go on, the next process takes the runs over");
    let drained = async {
        for tracker in [&connections, &admissions, &attempts] {
            tracker.close();
            tracker.wait().await;
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_err() {
        warn!(
            seconds = DRAIN.as_secs(),
            "not everything ended in time, stopping all the same"
        );
    }
    Ok(())
}

fn defaults(settings: &ServeSettings, own_pod: &OwnPod) -> TaskDefaults {
    let image_known = settings.init_container_image.is_some() || own_pod.image.is_some();
    TaskDefaults {
        resources: ResourceAmounts {
            limits: Amounts {
                cpu: settings.default_resource_limits_cpu.clone(),
                memory: settings.default_resource_limits_memory.clone(),
            },
            requests: Amounts {
                cpu: settings.default_resource_requests_cpu.clone(),
                memory: settings.default_resource_requests_memory.clone(),
            },
        },
        deadline: (settings.task_deadline_seconds > 0).then_some(settings.task_deadline_seconds),
        service_account: settings
            .default_job_service_account
            .as_ref()
            .map(ToString::to_string),
        files: if image_known {
            Files::Available
        } else {
            Files::NoImage
        },
    }
}

fn job_settings(
    settings: &ServeSettings,
    own_pod: &OwnPod,
    defaults: &TaskDefaults,
) -> JobSettings {
    let configuration_service = settings
        .init_container_configuration_service_api_endpoint
        .as_ref()
        .unwrap_or(&settings.configuration_service);
    if is_this_pod(configuration_service) {
        warn!(
            url = %configuration_service,
            "init containers cannot reach this address, tasks with `files` will fail: set \
             INIT_CONTAINER_CONFIGURATION_SERVICE_API_ENDPOINT"
        );
    }
    JobSettings {
        managed_by: settings.full_deployment_name.clone(),
        init_container: InitContainer {
            image: settings
                .init_container_image
                .as_ref()
                .map(ToString::to_string)
                .or_else(|| own_pod.image.clone())
                .unwrap_or_default(),
            configuration_service: configuration_service.to_string(),
            token: settings.keptn_api_token.as_ref().map(|_| SecretKey {
                secret: settings.keptn_api_token_secret.to_string(),
                key: "token".into(),
            }),
            resources: defaults.resources.clone(),
        },
    }
}

fn is_this_pod(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
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
