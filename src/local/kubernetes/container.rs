//! A container as whoever runs it gets it, and how it ends.

use std::path::PathBuf;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::Kubernetes;

/// Of [`Output::tail`].
const TAIL_BYTES: usize = 4096;

/// Runs containers.
pub(crate) trait Runtime: Send + Sync + 'static {
    /// Until the container has ended. When `stop` is cancelled it is told to end, and then made to.
    fn run<'a>(
        &'a self,
        container: &'a Container,
        output: &'a Output,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Exit>;

    /// What keeps a Job's Pod from running now; of the machine at hand, nothing.
    fn obstacle(&self, _job: &str) -> Option<Obstacle> {
        None
    }

    /// Until obstacles may be others than now.
    fn obstacles_change(&self) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }
}

/// What a node, or what comes before it, does not manage.
#[derive(Debug, Clone)]
#[cfg_attr(not(test), expect(dead_code, reason = "a desk has none, scenarios do"))]
pub(crate) enum Obstacle {
    /// The API server refuses the Pod.
    Refused(String),
    /// No node takes the Pod.
    Unschedulable(String),
    /// A volume cannot be mounted.
    Unmountable(String),
    /// What the containers of a Pod share cannot be made.
    NoSandbox(String),
    /// A container waits for something.
    Waits {
        reason: &'static str,
        message: String,
    },
}

/// A container with nothing left to look up, Secrets neither.
#[derive(Clone)]
pub(crate) struct Container {
    pub(crate) part: Part,
    pub(crate) job: String,
    pub(crate) pod: String,
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) image_pull_policy: Option<String>,
    pub(crate) command: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) working_dir: Option<String>,
    pub(crate) mounts: Vec<Mount>,
    /// As whom it runs, where its Pod says so.
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
}

/// A directory of this machine in a container.
#[derive(Debug, Clone)]
pub(crate) struct Mount {
    pub(crate) path: String,
    pub(crate) directory: PathBuf,
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "a desk kills no task for its memory or its disk, scenarios do"
    )
)]
pub(crate) enum Exit {
    Code(i32),
    /// With the reason.
    NotStarted(String),
    /// Killed for its memory.
    OutOfMemory,
    /// Killed with its Pod, because of what the node says.
    ByNode {
        reason: &'static str,
        message: String,
    },
}

/// Where a container's output goes.
pub(crate) struct Output {
    pub(super) cluster: Kubernetes,
    pub(super) container: Container,
}

/// Which of a Pod's two lists of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Init,
    Main,
}

impl Output {
    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut state = self.cluster.state();
        state.logs.entry(self.place()).or_default().push(bytes);
        drop(state);
        self.cluster.parts.observer.printed(&self.container, bytes);
    }

    /// The end of what was written so far.
    pub(crate) fn tail(&self) -> String {
        let state = self.cluster.state();
        let log = state.logs.get(&self.place());
        let bytes = log.map(|log| log.tail(TAIL_BYTES)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn place(&self) -> (String, String) {
        (self.container.pod.clone(), self.container.name.clone())
    }
}

impl Exit {
    pub(super) fn code(&self) -> i32 {
        match self {
            Self::Code(code) => *code,
            // As container runtimes tell it.
            Self::NotStarted(_) => 128,
            // 128 + SIGKILL.
            Self::OutOfMemory | Self::ByNode { .. } => 137,
        }
    }
}
