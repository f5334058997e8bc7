//! The service as `cargo` has just built it, as a process of its own.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::{Stage, setting};
use crate::figures::PATIENCE;
use crate::keptn::Keptn;

/// Between two looks at whether it is ready.
const LOOK: Duration = Duration::from_millis(2);

/// In which it takes less than a hundredth of a processor's time if it has nothing to do.
const REST: Duration = Duration::from_secs(2);

/// In which Linux counts processor time for whoever reads /proc.
const TICK: Duration = Duration::from_millis(10);

pub(crate) struct Service {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
    /// From the start of the process until it was ready.
    pub(crate) ready_after: Duration,
}

/// Who sends one event after the other.
pub(crate) struct Sender {
    address: SocketAddr,
    connection: Option<TcpStream>,
}

/// What `cargo` built with this, unless `E2E_BINARY` names another one to compare it with.
pub(crate) fn program() -> String {
    setting("E2E_BINARY", env!("CARGO_BIN_EXE_job-executor-service"))
}

pub(crate) fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

impl Service {
    /// Ready to take events.
    pub(crate) async fn start(
        stage: &Stage,
        keptn: &Keptn,
        kubeconfig: &str,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        // Free now; whoever takes it in between makes the start fail.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let begun = Instant::now();
        let child = Command::new(program())
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .arg("serve")
            .arg(format!("--rcv-port={}", address.port()))
            .arg(format!("--job-namespace={}", stage.namespace))
            .arg(format!(
                "--init-container-image={}",
                setting("E2E_IMAGE", "localhost/job-executor-service:e2e")
            ))
            .arg(format!(
                "--configuration-service={}",
                keptn.url(&stage.host, "/configuration-service")
            ))
            .arg(format!(
                "--keptn-event-endpoint={}",
                keptn.url("127.0.0.1", "/event")
            ))
            .arg("--log-level=error,kube_client=off")
            .args(settings)
            .spawn()?;
        let mut service = Self {
            child,
            address,
            http: http()?,
            ready_after: Duration::ZERO,
        };
        tokio::time::timeout(PATIENCE, service.until_ready())
            .await
            .context("the service does not get ready")??;
        service.ready_after = begun.elapsed();
        Ok(service)
    }

    async fn until_ready(&mut self) -> anyhow::Result<()> {
        let url = format!("http://{}/readyz", self.address);
        loop {
            let answer = self.http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                anyhow::bail!("the service ended: {status}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends one triggered event for the config of `of`; returns when it was accepted.
    pub(crate) async fn takes(&self, of: &str, id: &str) -> anyhow::Result<()> {
        self.sender().sends(of, id).await
    }

    /// A sender of events, who keeps the connection.
    pub(crate) fn sender(&self) -> Sender {
        Sender {
            address: self.address,
            connection: None,
        }
    }

    /// Until it does nothing any more: marks of a burst take longer than the burst.
    pub(crate) async fn rests(&self) -> anyhow::Result<()> {
        let rests = async {
            loop {
                let before = self.processor_time()?;
                tokio::time::sleep(REST).await;
                if self.processor_time()? <= before + REST / 100 {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::time::timeout(PATIENCE, rests)
            .await
            .context("the service does not come to rest")?
    }

    /// What it has in memory, in MB of 1,000,000 bytes.
    pub(crate) fn megabytes(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .context("no VmRSS in /proc")?
            .parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    /// The processor time that it has taken.
    pub(crate) fn processor_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the name, in parentheses; utime and stime are the 14th and 15th.
        let (_, fields) = stat.rsplit_once(") ").context("no name in /proc")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let [user, system]: [u64; 2] = [fields[11].parse()?, fields[12].parse()?];
        Ok(TICK * u32::try_from(user + system)?)
    }
}

impl Sender {
    /// As [`Service::takes`].
    pub(crate) async fn sends(&mut self, of: &str, id: &str) -> anyhow::Result<()> {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "shipyard-controller",
            "type": "sh.keptn.event.bench.triggered", "datacontenttype": "application/json",
            "shkeptncontext": "ce27158f-94ae-401c-b1b9-cbf18d2752f6", "shkeptnspecversion": "0.2.0",
            "data": {"project": "bench", "stage": "dev", "service": of, "labels": {"k": "v"}},
        });
        let event = event.to_string();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nContent-Type: application/cloudevents+json\r\n\
             Content-Length: {}\r\n\r\n{event}",
            self.address,
            event.len()
        );
        // A client library would take as much of the machine as the service takes for the event.
        let mut connection = match self.connection.take() {
            Some(kept) => kept,
            None => TcpStream::connect(self.address).await?,
        };
        connection.write_all(request.as_bytes()).await?;
        let answer = answer(&mut connection).await?;
        anyhow::ensure!(
            answer.starts_with("HTTP/1.1 202 "),
            "event `{id}`: {answer}"
        );
        self.connection = Some(connection);
        Ok(())
    }
}

/// The head and the body of one answer.
async fn answer(connection: &mut TcpStream) -> anyhow::Result<String> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if let Some((head, body)) = std::str::from_utf8(&bytes)?.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.context("an answer without a length")?.parse()?;
            if body.len() == length {
                return Ok(String::from_utf8(bytes)?);
            }
        }
        let read = connection.read_buf(&mut bytes).await?;
        anyhow::ensure!(read > 0, "the connection ended before the answer");
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It gives its Lease back.
        if let Ok(Some(pid)) = i32::try_from(self.child.id()).map(Pid::from_raw) {
            kill_process(pid, Signal::TERM).ok();
        }
        self.child.wait().ok();
    }
}
