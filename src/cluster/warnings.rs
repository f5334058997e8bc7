//! What only Events tell: that the Job controller cannot create a Pod, that a Pod waits for a volume, or for what
//! its containers are to share.
//!
//! The service goes on without them, where its account may not read Events: such a task then ends at its
//! time limit.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Event as Told;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Client, ResourceExt};
use tokio::time::{Instant, sleep};
use tracing::warn;

use super::hindrance::{About, Warning};
use super::interruption::{Interruption, PAGE_SIZE, Pauses, WATCH_SECONDS, is_forbidden};
use super::watch::Watch;

/// Until a permission that is missing is asked for again.
const WITHOUT_PERMISSION: Duration = Duration::from_secs(300);

/// Follows the Events of a namespace; never returns.
pub(super) async fn follow(watch: &Watch, client: &Client, namespace: &str) {
    tokio::join!(
        follow_those(watch, client, namespace, About::Pods),
        follow_those(watch, client, namespace, About::Volumes),
        follow_those(watch, client, namespace, About::Sandboxes),
    );
}

async fn follow_those(watch: &Watch, client: &Client, namespace: &str, about: About) {
    loop {
        follow_while_permitted(watch, client, namespace, about).await;
        sleep(WITHOUT_PERMISSION).await;
    }
}

async fn follow_while_permitted(watch: &Watch, client: &Client, namespace: &str, about: About) {
    let (kind, reason) = (kind(about), about.reason());
    let config = watcher::Config::default()
        .fields(&format!("involvedObject.kind={kind},reason={reason}"))
        .timeout(WATCH_SECONDS)
        .page_size(PAGE_SIZE);
    let events = Api::<Told>::namespaced(client.clone(), namespace);
    let mut events = watcher(events, config).backoff(Pauses::default()).boxed();
    let mut interruption = Interruption::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(told) | Event::Apply(told)) => tell(watch, about, &told),
            Ok(_) => interruption.works("Events"),
            Err(error) if is_forbidden(&error) => {
                // Once is enough for all.
                if about == About::Pods {
                    warn!(
                        namespace,
                        "the service's account may not list and watch Events here: tasks whose Pods are \
                         refused (quota, admission, service account), or wait for a volume, end at their time \
                         limit only (deploy/service.yaml has the Role)"
                    );
                }
                return;
            }
            Err(error) => interruption.failed("Events", &error),
        }
    }
}

fn kind(about: About) -> &'static str {
    match about {
        About::Pods => "Job",
        About::Volumes | About::Sandboxes => "Pod",
    }
}

fn tell(watch: &Watch, about: About, told: &Told) {
    let last = told.last_timestamp.as_ref().map(|time| time.0);
    let last = last.or(told.event_time.as_ref().map(|time| time.0));
    let warning = Warning {
        about,
        message: told.message.clone().unwrap_or_default(),
        last: last.or(told.creation_timestamp().map(|time| time.0)),
        seen: Instant::now(),
    };
    let name = told.involved_object.name.as_deref().unwrap_or_default();
    match about {
        About::Pods => watch.saw_no_pod(name, warning),
        About::Volumes | About::Sandboxes => watch.saw_not_ready(name, warning),
    }
}
