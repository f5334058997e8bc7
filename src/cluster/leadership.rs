//! Which of several processes executes: the one that holds the Lease.
//!
//! A holder that is alone sends nothing. A process that waits writes a *challenge* on the Lease; the
//! holder, who watches it, strikes it out; where it stays for [`TAKE_OVER_AFTER`], the Lease changes
//! hands. So an idle service costs no requests, and an API server that is away deposes nobody. Every
//! change carries the resource version that it is based on: of two that are made at once, one is made.

mod step;

use std::time::Duration;

use futures::TryStreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::calls::{Failed, call};
use super::interruption::{Interruption, Pauses};
use crate::run::RunId;
use crate::telemetry::error_chain;
use step::{CHALLENGE, Known, Step, TAKE_OVER_AFTER, View};

/// The watch is asked for anew after this many seconds: a connection that died without a word is noticed
/// soon after.
const WATCH_SECONDS: u32 = 20;

/// After a call that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// For giving the Lease back; if none succeeds, others wait until it is clear that nobody holds it.
const RELEASE_ATTEMPTS: usize = 3;

/// Annotation: who answers the last events that left no Job.
const ANSWERING: &str = "keptn.sh/jes-answering";

/// As many of them as come within the seconds in which two processes may get the same one.
const MAX_ANSWERING: usize = 64;

/// Of two processes that write this at once, one has to read it again.
const ANSWERING_ATTEMPTS: usize = 10;

/// This process, as others see it on the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Pod { namespace: String, name: String },
    Process { host: String, id: u32 },
}

/// What this process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The Lease has not been read.
    Unknown,
    /// Another process executes.
    Standby,
    /// This process executes, since this moment.
    Leading(Instant),
}

#[derive(Clone)]
pub(crate) struct Leadership {
    leases: Api<Lease>,
    pods: Api<Pod>,
    /// Of the Lease.
    name: String,
    me: Identity,
    standing: watch::Sender<Standing>,
    doubt: watch::Sender<Option<Instant>>,
}

impl Identity {
    /// A Pod keeps its name when its containers start again; a process at a desk is known by its
    /// number.
    pub(crate) fn of_this_process(namespace: &str, pod: Option<&str>) -> Self {
        match pod {
            Some(pod) => Self::Pod {
                namespace: namespace.to_owned(),
                name: pod.to_owned(),
            },
            None => Self::Process {
                host: host(),
                id: std::process::id(),
            },
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some((host, id)) = text.split_once('#') {
            let (host, id) = (host.to_owned(), id.parse().ok()?);
            return Some(Self::Process { host, id });
        }
        let (namespace, name) = text.split_once('/')?;
        Some(Self::Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Self::Process { host, id } => write!(f, "{host}#{id}"),
        }
    }
}

fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").ok())
        .map_or_else(|| "localhost".to_owned(), |host| host.trim().to_owned())
}

impl Leadership {
    /// `namespace` is where the Jobs are, `installation` tells several services there apart.
    pub(crate) fn new(client: Client, namespace: &str, installation: &str, me: Identity) -> Self {
        // An object's name allows less than a label's value, which the installation is.
        let name = installation.to_lowercase().replace('_', "-");
        Self {
            pods: Api::default_namespaced(client.clone()),
            leases: Api::namespaced(client, namespace),
            name,
            me,
            standing: watch::Sender::new(Standing::Unknown),
            doubt: watch::Sender::new(None),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// From when on this process may have been deposed without knowing it.
    pub(crate) fn doubt(&self) -> watch::Receiver<Option<Instant>> {
        self.doubt.subscribe()
    }

    /// Returns when this process executes.
    pub(crate) async fn leading(&self) {
        let leads = |standing: &Standing| matches!(standing, Standing::Leading(_));
        // The sender lives as long as `self`.
        self.standing.subscribe().wait_for(leads).await.ok();
    }

    /// Holds the Lease or waits for it; returns when another process took it away.
    pub(crate) async fn keep(&self) -> String {
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={}", self.name))
            .timeout(WATCH_SECONDS);
        let mut events = Box::pin(watcher(self.leases.clone(), config).backoff(Pauses::default()));
        let mut known = Known::new(Instant::now());
        let mut listed = None;
        let mut interruption = Interruption::default();
        loop {
            let wake = known.wake(Instant::now());
            tokio::select! {
                event = events.try_next() => match event {
                    Ok(Some(event)) => {
                        interruption.works("the Lease");
                        hear(event, &mut listed, &mut known);
                    }
                    Ok(None) => return "the watch on the Lease ended".into(),
                    Err(error) => {
                        interruption.failed("the Lease", &error);
                        known.is_blind(Instant::now());
                    }
                },
                () = sleep_until(wake) => {}
            }
            loop {
                self.tell(&known);
                let step = known.step(&self.me, Instant::now());
                if step == Step::Wait {
                    break;
                }
                match self.take(step, &mut known).await {
                    Ok(()) => interruption.works("the Lease"),
                    Err(error) => {
                        interruption.failed("the Lease", &error);
                        known.is_blind(Instant::now());
                        known.is_paused_until(Instant::now() + PAUSE);
                    }
                }
                if let Some(holder) = known.lost() {
                    return format!("`{holder}` holds the Lease `{}`", self.name);
                }
            }
        }
    }

    fn tell(&self, known: &Known) {
        let standing = known.standing();
        if self
            .standing
            .send_if_modified(|current| std::mem::replace(current, standing) != standing)
        {
            match standing {
                Standing::Leading(_) => {
                    info!(lease = self.name, me = %self.me, "this process executes");
                }
                Standing::Standby => {
                    let holder = known.view().and_then(|view| view.holder.clone());
                    info!(lease = self.name, holder, "another process executes");
                }
                Standing::Unknown => {}
            }
        }
        let doubt = known.doubt();
        self.doubt
            .send_if_modified(|current| std::mem::replace(current, doubt) != doubt);
    }

    async fn take(&self, step: Step, known: &mut Known) -> Result<(), Failed> {
        let fresh = match step {
            Step::Wait => return Ok(()),
            Step::Look => {
                let holder = known.view().and_then(|view| view.holder.as_deref());
                let gone = match holder.and_then(Identity::parse) {
                    Some(holder) => self.is_gone(&holder).await,
                    None => false,
                };
                known.looked(gone, Instant::now());
                return Ok(());
            }
            Step::Confirm => call(self.leases.get_opt(&self.name)).await?,
            Step::Create => {
                let lease = serde_json::from_value(json!({
                    "metadata": {"name": self.name},
                    "spec": self.held(0),
                }))
                .unwrap_or_default();
                match call(self.leases.create(&PostParams::default(), &lease)).await {
                    Err(error) if error.is_already_exists() => {
                        call(self.leases.get_opt(&self.name)).await?
                    }
                    created => Some(created?),
                }
            }
            Step::Take => {
                let transitions = known.view().map_or(0, |view| view.transitions);
                self.write(known, &self.held(transitions + 1), None).await?
            }
            Step::Answer => {
                let renewed = json!({"renewTime": MicroTime(jiff::Timestamp::now())});
                self.write(known, &renewed, None).await?
            }
            Step::Challenge => {
                let challenge = format!("{} {}", self.me, jiff::Timestamp::now());
                self.write(known, &json!({}), Some(challenge)).await?
            }
        };
        known.learned(fresh.as_ref().map(View::of), &self.me, Instant::now());
        Ok(())
    }

    fn held(&self, transitions: i32) -> Value {
        let now = MicroTime(jiff::Timestamp::now());
        json!({
            "holderIdentity": self.me.to_string(),
            "leaseDurationSeconds": TAKE_OVER_AFTER.as_secs(),
            "leaseTransitions": transitions,
            "acquireTime": now,
            "renewTime": now,
        })
    }

    /// Changes what was last seen; where it has changed since, reads it.
    async fn write(
        &self,
        known: &Known,
        spec: &Value,
        challenge: Option<String>,
    ) -> Result<Option<Lease>, Failed> {
        let version = known.view().map(|view| view.version.clone());
        let annotations = json!({CHALLENGE: challenge});
        match self.patch(version, &annotations, spec).await {
            Err(Failed::Api(status)) if status.code == 409 || status.code == 404 => {
                call(self.leases.get_opt(&self.name)).await
            }
            patched => patched.map(Some),
        }
    }

    async fn patch(
        &self,
        version: Option<String>,
        annotations: &Value,
        spec: &Value,
    ) -> Result<Lease, Failed> {
        let patch = json!({
            "metadata": {"resourceVersion": version, "annotations": annotations},
            "spec": spec,
        });
        let params = PatchParams::default();
        call(
            self.leases
                .patch(&self.name, &params, &Patch::Merge(&patch)),
        )
        .await
    }

    /// Whether the holder has ended for certain, so that nobody need wait for it.
    async fn is_gone(&self, holder: &Identity) -> bool {
        match (holder, &self.me) {
            (
                Identity::Pod { namespace, name },
                Identity::Pod {
                    namespace: mine, ..
                },
            ) if namespace == mine => match call(self.pods.get_opt(name)).await {
                Ok(None) => true,
                Ok(Some(pod)) => {
                    let phase = pod.status.and_then(|status| status.phase);
                    matches!(phase.as_deref(), Some("Failed" | "Succeeded"))
                }
                Err(error) => {
                    warn!(
                        pod = name,
                        error = error_chain(&error),
                        "the Lease's holder cannot be looked for"
                    );
                    false
                }
            },
            (Identity::Process { host, id }, Identity::Process { host: mine, .. })
                if host == mine =>
            {
                let process = |id: &str| std::path::Path::new("/proc").join(id).exists();
                // Where there is no /proc nothing is known.
                process("self") && !process(&id.to_string())
            }
            _ => false,
        }
    }

    /// Whether there is another process, or was one seconds ago.
    pub(crate) fn has_company(&self) -> bool {
        let leads = matches!(self.standing(), Standing::Leading(_));
        !leads || self.doubt.borrow().is_some()
    }

    /// Whether this process is the first to answer an event that leaves no Job, which would tell. Where the
    /// Lease cannot be read or written, everybody is.
    pub(crate) async fn is_first_to_answer(&self, run: &RunId) -> bool {
        let me = self.me.to_string();
        for _ in 0..ANSWERING_ATTEMPTS {
            let Ok(Some(lease)) = call(self.leases.get_opt(&self.name)).await else {
                return true;
            };
            let noted = lease.annotations().get(ANSWERING).cloned();
            let mut noted: Vec<String> = noted
                .unwrap_or_default()
                .split_whitespace()
                .map(ToOwned::to_owned)
                .collect();
            let of_run = format!("{run}=");
            if let Some(who) = noted.iter().find_map(|note| note.strip_prefix(&of_run)) {
                return who == me;
            }
            noted.push(of_run + &me);
            let kept = noted.split_off(noted.len().saturating_sub(MAX_ANSWERING));
            let annotations = json!({ANSWERING: kept.join(" ")});
            let version = lease.resource_version();
            match self.patch(version, &annotations, &json!({})).await {
                Err(Failed::Api(status)) if status.code == 409 => {}
                _ => return true,
            }
        }
        true
    }

    /// Gives the Lease back, so that the next process need not wait.
    pub(crate) async fn release(&self) {
        for _ in 0..RELEASE_ATTEMPTS {
            match self.try_release().await {
                Ok(()) => return,
                Err(error) => warn!(
                    lease = self.name,
                    error = error_chain(&error),
                    "the Lease could not be given back"
                ),
            }
        }
    }

    async fn try_release(&self) -> Result<(), Failed> {
        let lease = call(self.leases.get_opt(&self.name)).await?;
        let mine = |lease: &Lease| View::of(lease).holder == Some(self.me.to_string());
        let Some(lease) = lease.filter(mine) else {
            return Ok(());
        };
        let (answered, released) = (json!({CHALLENGE: null}), json!({"holderIdentity": ""}));
        self.patch(lease.resource_version(), &answered, &released)
            .await?;
        Ok(())
    }
}

fn hear(event: Event<Lease>, listed: &mut Option<Lease>, known: &mut Known) {
    let now = Instant::now();
    match event {
        Event::Init => *listed = None,
        Event::InitApply(lease) => *listed = Some(lease),
        Event::InitDone => known.saw(listed.take().as_ref().map(View::of), now),
        Event::Apply(lease) => known.saw(Some(View::of(&lease)), now),
        Event::Delete(_) => known.saw(None, now),
    }
}
