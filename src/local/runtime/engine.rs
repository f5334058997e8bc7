//! A container by the command line of Podman or Docker.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command as StdCommand, Stdio};

use rustix::process::geteuid;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::process;
use crate::local::kubernetes::{Container, Exit, Output};

/// The engine itself failed: no such image, no permission.
const ENGINE_FAILED: i32 = 125;

/// What of the output may be the engine's own last words.
const LAST_LINES: usize = 8;

pub(super) async fn run(
    engine: &'static str,
    container: &Container,
    output: &Output,
    stop: &CancellationToken,
) -> Exit {
    let name = format!("{}-{}", container.name, std::process::id());
    let mut command = Command::new(engine);
    command.args(arguments(engine, &name, container));
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
    let exit = process::wait(child, group, printed, output, stop).await;
    if stop.is_cancelled() {
        // A container that had to be made to end is still there: only its client was.
        let mut remove = Command::from(left.removal());
        remove.status().await.ok();
    }
    left.there = false;
    let reason = match &exit {
        Exit::Code(code) => not_started(engine, *code, &output.tail()),
        Exit::NotStarted(_) | Exit::OutOfMemory | Exit::ByNode { .. } => None,
    };
    match reason {
        Some(reason) => Exit::NotStarted(format!(
            "{engine} could not start the image {}: {reason}",
            container.image
        )),
        None => exit,
    }
}

/// Gives the container's user what the init container wrote, as it is on a cluster, where both are one user.
pub(super) fn share(engine: &str, container: &Container) -> Result<(), String> {
    if user_namespace(engine, container).is_some() {
        // That user is this one.
        return Ok(());
    }
    for mount in &container.mounts {
        share_tree(&mount.directory, container)
            .map_err(|error| format!("cannot share {}: {error}", mount.directory.display()))?;
    }
    Ok(())
}

fn share_tree(path: &Path, container: &Container) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            share_tree(&entry?.path(), container)?;
        }
    }
    if geteuid().is_root() {
        let id = |id: Option<i64>| id.and_then(|id| u32::try_from(id).ok());
        lchown(path, id(container.user), id(container.group))
    } else if metadata.is_symlink() {
        Ok(())
    } else {
        let mut permissions = metadata.permissions();
        let all = if metadata.is_dir() { 0o777 } else { 0o666 };
        permissions.set_mode(permissions.mode() | all);
        fs::set_permissions(path, permissions)
    }
}

/// Without root, Podman would have the container's files belong to a user that this one is not, who could
/// not delete them.
fn user_namespace(engine: &str, container: &Container) -> Option<String> {
    let user = container.user.filter(|&user| user != 0)?;
    let group = container.group.unwrap_or(user);
    (engine == "podman" && !geteuid().is_root()).then(|| format!("keep-id:uid={user},gid={group}"))
}

/// Why the engine started nothing, if that is what a code tells: one of 125 to 127, which a task may end
/// with, too, after a line of the engine.
fn not_started(engine: &str, code: i32, output: &str) -> Option<String> {
    if !(ENGINE_FAILED..=127).contains(&code) {
        return None;
    }
    let prefix = match engine {
        "podman" => "Error: ",
        _ => "docker: ",
    };
    let last = output.lines().rev().take(LAST_LINES);
    let mut said = last.filter_map(|line| line.strip_prefix(prefix));
    let of_the_start = |line: &&str| {
        let signs = ["OCI ", "workdir ", "Error response from daemon"];
        code == ENGINE_FAILED || signs.iter().any(|sign| line.contains(sign))
    };
    said.next().filter(of_the_start).map(str::to_owned)
}

/// A container that may outlive its client.
struct Left {
    engine: &'static str,
    name: String,
    there: bool,
}

impl Left {
    /// It may be gone already, which is no news.
    fn removal(&self) -> StdCommand {
        let mut remove = StdCommand::new(self.engine);
        remove
            .args(["rm", "--force", &self.name])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A second Ctrl-C does not reach it.
            .process_group(0);
        remove
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if self.there {
            self.removal().status().ok();
        }
    }
}

fn arguments(engine: &str, name: &str, container: &Container) -> Vec<String> {
    let mut arguments = vec![
        "run".to_owned(),
        "--rm".into(),
        "--name".into(),
        name.into(),
    ];
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    // Whoever removes the container has given it its time.
    option("--stop-timeout", "0".into());
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
    if let Some(namespace) = user_namespace(engine, container) {
        option("--userns", namespace);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_did_not_start_is_told_apart_from_a_task_with_the_same_code() {
        let podman = "Error: runc: exec: \"x\": executable file not found in $PATH: OCI runtime attempted to \
            invoke a command that was not found\n";
        let docker = "docker: Error response from daemon: exec: \"x\": executable file not found in $PATH\n\n\
            Run 'docker run --help' for more information\n";
        for (engine, code, output, told) in [
            ("podman", 127, podman, true),
            (
                "podman",
                126,
                "Error: workdir \"/x\" does not exist\n",
                true,
            ),
            ("podman", 125, "Error: no such image\n", true),
            ("podman", 125, "", false),
            ("podman", 127, "sh: x: not found\n", false),
            ("podman", 127, "Error: nothing to do\n", false),
            ("podman", 1, podman, false),
            ("docker", 127, docker, true),
            ("docker", 127, "sh: x: not found\n", false),
        ] {
            let reason = not_started(engine, code, output);
            assert_eq!(reason.is_some(), told, "{engine} {code} {output}");
        }
    }
}
