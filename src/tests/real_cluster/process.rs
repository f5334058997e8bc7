//! The service as a process of its own, which signals reach.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::Value;

use super::{PATIENCE, RealCluster, http, image, post, setting, with_images};
use crate::tests::config;

/// Below the ports that the kernel gives to whoever asks for any, so that nobody takes it meanwhile.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

pub(super) struct Process {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Process {
    /// Ready to take events, for this cluster's namespace and Keptn.
    pub(super) async fn start(cluster: &RealCluster) -> Self {
        let built = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/target/debug/job-executor-service"
        );
        let address = free_address();
        let child = Command::new(setting("E2E_BINARY", built))
            .arg("serve")
            .arg(format!("--rcv-port={}", address.port()))
            .arg(format!("--job-namespace={}", cluster.namespace))
            .arg(format!("--init-container-image={}", image()))
            .arg(format!(
                "--configuration-service={}",
                cluster.keptn_url("/configuration-service")
            ))
            .arg(format!(
                "--keptn-event-endpoint={}",
                cluster.keptn_url("/event")
            ))
            .arg("--log-level=warn,kube_client=off")
            .spawn()
            .expect("`cargo build` made the binary, or E2E_BINARY names it");
        let process = Self { child, address };
        cluster.until(|| process.is_ready()).await;
        process
    }

    pub(super) async fn is_ready(&self) -> bool {
        let readyz = format!("http://{}/readyz", self.address);
        let answer = http().get(readyz).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    pub(super) async fn receives(&self, event: &Value) {
        let until = Instant::now() + PATIENCE;
        loop {
            let (status, text) = post(self.address, event).await;
            // The machine was too busy for an admission in time; the answer asks for the event again.
            if status == 503 && Instant::now() < until {
                continue;
            }
            return assert_eq!(status, 202, "{text}");
        }
    }

    /// The most memory of its own that it had at any time, in kB: without what the program's file takes,
    /// which is large in a debug build.
    pub(super) fn most_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap();
        let kilobytes = |name: &str| -> usize {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap()
                .trim()
                .trim_end_matches(" kB")
                .parse()
                .unwrap()
        };
        kilobytes("VmHWM:") - kilobytes("RssFile:")
    }

    /// SIGKILL.
    pub(super) fn is_killed(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(super) fn gets(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    pub(super) async fn ends(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the process does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits for a file that the test puts there, so that the test decides when the task ends.
pub(super) fn waits_for(file: &str) -> String {
    format!(
        "[sh, -c, 'until wget -q -O - URL/{file} >/dev/null 2>&1; do sleep 0.2; done; echo {file}']"
    )
}

impl RealCluster {
    /// A namespace with this config; `URL` in it is the configuration service's list of resources.
    pub(super) async fn with_config(name: &str, tasks: &str) -> Self {
        let cluster = Self::new(name).await;
        let resources = "/configuration-service/v1/project/real/stage/dev/service/svc/resource";
        let tasks = tasks.replace("URL", &cluster.keptn_url(resources));
        cluster
            .keptn
            .has("dev/svc", "job/config.yaml", with_images(&config(&tasks)));
        cluster
    }

    pub(super) async fn has_jobs(&self, count: usize) {
        self.until(|| async { self.jobs().await.len() >= count })
            .await;
    }

    /// Whether the Pod of this Job has a container that runs.
    pub(super) async fn runs_a_container(&self, job: usize) -> bool {
        let name = self.jobs().await[job].name_any();
        let pods = ListParams::default().labels(&format!("job-name={name}"));
        let pods = self.api::<Pod>().list(&pods).await.unwrap();
        let runs = |status: &ContainerStatus| {
            let state = status.state.as_ref();
            state.is_some_and(|state| state.running.is_some())
        };
        pods.iter().any(|pod| {
            let status = pod.status.as_ref();
            let containers = status.and_then(|status| status.container_statuses.as_ref());
            containers.is_some_and(|containers| containers.iter().any(runs))
        })
    }

    pub(super) async fn all_reported(&self) {
        let reported = |job: &Job| job.labels().contains_key("keptn.sh/jes-reported");
        self.until(|| async { self.jobs().await.iter().all(reported) })
            .await;
    }

    /// `.finished`, after checking that there is one of it and one `.started`.
    pub(super) async fn answered_once(&self) -> Value {
        self.answered(2).await;
        self.all_reported().await;
        let events = self.keptn.events();
        let kinds: Vec<&str> = events
            .iter()
            .map(|event| event["type"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            [
                "sh.keptn.event.test.started",
                "sh.keptn.event.test.finished"
            ]
        );
        events[1]["data"].clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of a test that failed, or of a process that has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
