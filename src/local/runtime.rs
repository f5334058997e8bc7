//! What containers are at a desk: processes of this machine ([`process`]), or containers of Podman or Docker
//! ([`engine`]). The init container that fetches files is this program itself, so it runs in place.

mod engine;
mod lines;
mod process;

use std::fs;
use std::path::{Component, Path};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::keptn::Keptn;
use super::kubernetes::{Container, Exit, Output, Part, Runtime};
use crate::cli::{Access, InitSettings};
use crate::init_container;
use crate::job_config::files::FileEntry;
use crate::keptn::addresses::Addresses;

/// The image of the init container; nobody pulls it.
pub(crate) const OWN_IMAGE: &str = "job-executor-service";

/// From the signal to end to the one that ends. Kubernetes waits 30 s, at a desk nobody does.
const GRACE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// `cmd` and `args` as a process of this machine; the image is not used.
    Process,
    /// The image, by Podman.
    Podman,
    /// The image, by Docker.
    Docker,
}

impl Kind {
    /// The program that runs containers.
    fn engine(self) -> Option<&'static str> {
        match self {
            Self::Process => None,
            Self::Podman => Some("podman"),
            Self::Docker => Some("docker"),
        }
    }
}

/// 128 + SIGTERM.
const TERMINATED: i32 = 143;

/// Runs the tasks of a desk.
pub(crate) struct TaskRuntime {
    pub(crate) kind: Kind,
    pub(crate) keptn: Keptn,
}

impl Runtime for TaskRuntime {
    fn run<'a>(
        &'a self,
        container: &'a Container,
        output: &'a Output,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Exit> {
        async move {
            if container.part == Part::Init {
                return tokio::select! {
                    exit = self.fetch_files(container, output) => exit,
                    () = stop.cancelled() => Exit::Code(TERMINATED),
                };
            }
            if let Err(reason) = self.prepare(container) {
                return Exit::NotStarted(reason);
            }
            match self.kind.engine() {
                None => process::run(container, output, stop).await,
                Some(engine) => engine::run(engine, container, output, stop).await,
            }
        }
        .boxed()
    }
}

impl TaskRuntime {
    fn prepare(&self, container: &Container) -> Result<(), String> {
        if let Some(engine) = self.kind.engine() {
            engine::share(engine, container)?;
        }
        // After that: on a node, too, it is not the container's user who makes it.
        make_working_dir(container)
    }

    async fn fetch_files(&self, container: &Container, output: &Output) -> Exit {
        let settings = match init_settings(container) {
            Ok(settings) => settings,
            Err(reason) => return Exit::NotStarted(reason),
        };
        let keptn = self.keptn.transport();
        let say = |line: &str| output.write(format!("{line}\n").as_bytes());
        match init_container::fetch(settings, &keptn, &say).await {
            Ok(()) => Exit::Code(0),
            Err(error) => {
                say(&format!("error: cannot copy the task's files: {error:#}"));
                Exit::Code(1)
            }
        }
    }
}

/// As container runtimes do on a node; what is not on a volume is the image's or the machine's.
fn make_working_dir(container: &Container) -> Result<(), String> {
    let directory = Path::new(container.working_dir.as_deref().unwrap_or_default());
    for mount in &container.mounts {
        let Ok(below) = directory.strip_prefix(&mount.path) else {
            continue;
        };
        let stays = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if below.components().all(stays) {
            let made = fs::create_dir_all(mount.directory.join(below));
            return made.map_err(|error| {
                format!(
                    "cannot make the working directory {}: {error}",
                    directory.display()
                )
            });
        }
    }
    Ok(())
}

/// The settings of the command `init`, as the manifest gives them.
fn init_settings(container: &Container) -> Result<InitSettings, String> {
    let value = |name: &str| {
        let found = container.env.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone())
    };
    let files = container
        .args
        .iter()
        .filter_map(|arg| arg.strip_prefix("--file="))
        .map(FileEntry::parse_argument)
        .collect::<Result<_, _>>()?;
    let mount = container.mounts.first().ok_or("the Pod has no volume")?;
    let configuration_service = value("CONFIGURATION_SERVICE").unwrap_or_default();
    Ok(InitSettings {
        files,
        directory: mount.directory.clone(),
        configuration_service: Addresses::parse(&configuration_service, |url| {
            Url::parse(url).map_err(|error| error.to_string())
        })?,
        access: Access::open(),
        project: value("KEPTN_PROJECT"),
        stage: value("KEPTN_STAGE"),
        service: value("KEPTN_SERVICE"),
        git_commit_id: value("GIT_COMMIT_ID"),
    })
}
