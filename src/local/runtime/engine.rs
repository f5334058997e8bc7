//! A container by the command line of Podman or Docker.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command as StdCommand, Stdio};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::process;
use crate::local::kubernetes::{Container, Exit, Output};

/// The engine itself failed: no such image, no permission.
const ENGINE_FAILED: i32 = 125;

pub(super) async fn run(
    engine: &'static str,
    container: &Container,
    output: &Output,
    stop: &CancellationToken,
) -> Exit {
    for mount in &container.mounts {
        // The container's user is another one than this process's, as on a cluster.
        let open = fs::Permissions::from_mode(0o777);
        if let Err(error) = fs::set_permissions(&mount.directory, open) {
            return Exit::NotStarted(format!(
                "cannot share {}: {error}",
                mount.directory.display()
            ));
        }
    }
    let name = format!("{}-{}", container.name, std::process::id());
    let mut command = Command::new(engine);
    command.args(arguments(&name, container));
    let (child, group, printed) = match process::spawn(command) {
        Ok(spawned) => spawned,
        Err(error) => {
            return Exit::NotStarted(format!(
                "`{engine}` cannot be started: {error}; --runtime process needs no container engine"
            ));
        }
    };
    let mut left = Left {
        engine,
        name,
        there: true,
    };
    let exit = process::wait(child, &group, printed, output, stop).await;
    // A container that had to be made to end is still there: only its client was.
    left.there = stop.is_cancelled();
    drop(left);
    match exit {
        Exit::Code(ENGINE_FAILED) => Exit::NotStarted(format!(
            "{engine} could not start the image {}: its output has the reason",
            container.image
        )),
        other => other,
    }
}

/// A container that may outlive its client.
struct Left {
    engine: &'static str,
    name: String,
    there: bool,
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.there {
            let mut remove = StdCommand::new(self.engine);
            remove.args(["rm", "--force", &self.name]);
            remove
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            // It may be gone already.
            remove.status().ok();
        }
    }
}

fn arguments(name: &str, container: &Container) -> Vec<String> {
    let mut arguments = vec![
        "run".to_owned(),
        "--rm".into(),
        "--name".into(),
        name.into(),
    ];
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    option(
        "--pull",
        pull(container.image_pull_policy.as_deref()).into(),
    );
    for mount in &container.mounts {
        // Z: for machines with SELinux, without a meaning elsewhere.
        option(
            "--volume",
            format!("{}:{}:Z", mount.directory.display(), mount.path),
        );
    }
    for (key, value) in &container.env {
        option("--env", format!("{key}={value}"));
    }
    if let Some(user) = container.user {
        let group = container
            .group
            .map_or_else(String::new, |group| format!(":{group}"));
        option("--user", format!("{user}{group}"));
    }
    if let Some(directory) = &container.working_dir {
        option("--workdir", directory.clone());
    }
    // Both engines take one word here; an image's own arguments do not count any more then.
    let rest = match container.command.split_first() {
        Some((entrypoint, rest)) => {
            option("--entrypoint", entrypoint.clone());
            rest
        }
        None => &[],
    };
    arguments.push(container.image.clone());
    arguments.extend(rest.iter().chain(&container.args).cloned());
    arguments
}

/// Kubernetes pulls `latest` each time; at a desk an image that was just built is the one that is meant.
fn pull(policy: Option<&str>) -> &'static str {
    match policy {
        Some("Always") => "always",
        Some("Never") => "never",
        _ => "missing",
    }
}
