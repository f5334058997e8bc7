//! Components of the cluster stop; for a cluster that nobody else uses. `E2E_CLUSTER` is a program that
//! takes `stop` or `start` and the name of a component.

use std::process::Command;
use std::time::Duration;

use tokio::time::sleep;

use super::process::Process;
use super::{RealCluster, message};
use crate::tests::triggered;

/// The component is started again in any case: other tests need it.
struct Outage(&'static str);

impl Outage {
    fn of(component: &'static str) -> Self {
        component_is("stop", component);
        Self(component)
    }

    fn ends(self) {
        drop(self);
    }
}

impl Drop for Outage {
    fn drop(&mut self) {
        component_is("start", self.0);
    }
}

fn component_is(verb: &str, component: &str) {
    let cluster = std::env::var("E2E_CLUSTER").expect("E2E_CLUSTER stops and starts components");
    let done = Command::new(cluster).args([verb, component]).status();
    assert!(done.unwrap().success(), "{verb} {component}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn an_api_server_that_is_away_for_30_seconds_in_a_run_is_waited_for() {
    let tasks = "      - {name: one, image: BUSYBOX, cmd: [sh, -c, 'echo first; sleep 10']}
      - {name: two, image: BUSYBOX, cmd: [echo, second]}\n";
    let cluster = RealCluster::with_config("api", tasks).await;
    let service = Process::start(&cluster).await;
    service.receives(&triggered("event-1")).await;
    cluster.has_jobs(1).await;
    cluster.until(|| cluster.runs_a_container(0)).await;
    let outage = Outage::of("kube-apiserver");
    sleep(Duration::from_secs(30)).await;
    outage.ends();
    let finished = cluster.answered_once().await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    for part in [":\nfirst\n", ":\nsecond\n"] {
        assert!(message(&finished).contains(part), "{finished:#}");
    }
    assert_eq!(cluster.jobs().await.len(), 2);
    cluster.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn a_kubelet_that_is_away_in_a_run_is_waited_for() {
    let tasks = "      - {name: one, image: BUSYBOX, cmd: [sh, -c, 'echo first; sleep 3']}
      - {name: two, image: BUSYBOX, cmd: [echo, second]}\n";
    let cluster = RealCluster::with_config("kubelet", tasks).await;
    let service = Process::start(&cluster).await;
    service.receives(&triggered("event-1")).await;
    cluster.has_jobs(1).await;
    cluster.until(|| cluster.runs_a_container(0)).await;
    let outage = Outage::of("kubelet");
    sleep(Duration::from_secs(10)).await;
    outage.ends();
    let finished = cluster.answered_once().await;
    assert_eq!(finished["status"], "succeeded", "{finished:#}");
    assert_eq!(cluster.jobs().await.len(), 2);
    cluster.finish().await;
}
