//! A container as a process of this machine: the command line and the variables of the task, in a directory
//! that takes the place of /keptn. No image, no isolation.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{GRACE, lines};
use crate::local::kubernetes::{Container, Exit, Mount, Output};

/// For what is still in the pipes when the process has ended. Whoever holds them longer has left its group.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a task gets of the caller's environment.
const INHERITED: [&str; 2] = ["PATH", "HOME"];

pub(super) async fn run(container: &Container, output: &Output, stop: &CancellationToken) -> Exit {
    let words: Vec<String> = container
        .command
        .iter()
        .chain(&container.args)
        .map(|word| placed(word, &container.mounts))
        .collect();
    let Some((program, arguments)) = words
        .split_first()
        .filter(|_| !container.command.is_empty())
    else {
        return Exit::NotStarted(format!(
            "the task has no `cmd`, and what the image {} starts is not known to a process: add `cmd`, or \
             use --runtime podman",
            container.image
        ));
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    for (name, value) in &container.env {
        command.env(name, placed(value, &container.mounts));
    }
    match (&container.working_dir, container.mounts.first()) {
        (Some(directory), _) => command.current_dir(placed(directory, &container.mounts)),
        (None, Some(mount)) => command.current_dir(&mount.directory),
        (None, None) => &mut command,
    };
    match spawn(command) {
        Ok((child, group, printed)) => wait(child, group, printed, output, stop).await,
        Err(error) => Exit::NotStarted(not_started(program, container, &error)),
    }
}

fn not_started(program: &str, container: &Container, error: &io::Error) -> String {
    let directory = container.working_dir.as_deref();
    if error.kind() != io::ErrorKind::NotFound {
        return format!("`{program}` cannot be started: {error}");
    }
    let missing = directory.map(|directory| placed(directory, &container.mounts));
    match missing.filter(|directory| !Path::new(directory).is_dir()) {
        Some(directory) => format!("the working directory {directory} does not exist"),
        None => format!(
            "there is no program `{program}` on this machine's PATH; the image {} may have it: --runtime \
             podman uses images",
            container.image
        ),
    }
}

/// A process with all that it starts, which ends with this value.
pub(super) struct Group(Option<Pid>);

impl Group {
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            // It may have ended by itself.
            kill_process_group(leader, signal).ok();
        }
    }
}

impl Group {
    /// Its number may be another one's afterwards.
    fn ends(&mut self) {
        self.signal(Signal::KILL);
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.ends();
    }
}

/// In a process group of its own, so that Ctrl-C reaches only this program, which passes it on. Its output
/// and its errors come through one pipe, in their order.
pub(super) fn spawn(mut command: Command) -> io::Result<(Child, Group, Receiver)> {
    let (reader, writer) = io::pipe()?;
    let child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0)
        .spawn()?;
    let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let output = Receiver::from_owned_fd(reader.into())?;
    // With the command goes this process's end of the pipe.
    drop(command);
    Ok((child, Group(leader), output))
}

pub(super) async fn wait(
    mut child: Child,
    mut group: Group,
    printed: Receiver,
    output: &Output,
    stop: &CancellationToken,
) -> Exit {
    let mut rest = Vec::new();
    let mut copying = Box::pin(lines::copy(printed, &mut rest, output));
    let ending = async {
        let status = tokio::select! {
            status = child.wait() => status,
            () = stop.cancelled() => {
                group.signal(Signal::TERM);
                if let Ok(status) = timeout(GRACE, child.wait()).await {
                    status
                } else {
                    group.signal(Signal::KILL);
                    child.wait().await
                }
            }
        };
        // As in a container, nothing outlives its first process.
        group.ends();
        status
    };
    let mut ending = std::pin::pin!(ending);
    let status = tokio::select! {
        status = &mut ending => {
            timeout(LAST_WORDS, &mut copying).await.ok();
            status
        }
        () = &mut copying => ending.await,
    };
    drop(copying);
    if !rest.is_empty() {
        output.write(&rest);
    }
    match status {
        Ok(status) => Exit::Code(code(status)),
        Err(error) => Exit::NotStarted(format!("the process cannot be waited for: {error}")),
    }
}

/// As shells and container runtimes tell the end by a signal.
fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// With the directories of this machine where a text names those of the container: `/keptn` and
/// `--file=/keptn/x`, but neither `http://host/keptn` nor `/keptn-x`.
fn placed(text: &str, mounts: &[Mount]) -> String {
    let mut out = text.to_owned();
    for mount in mounts {
        out = replaced(&out, &mount.path, &mount.directory.to_string_lossy());
    }
    out
}

fn replaced(text: &str, path: &str, directory: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(path) {
        let (before, after) = (&rest[..at], &rest[at + path.len()..]);
        out.push_str(before);
        let is_it = begins(&out) && ends(after);
        out.push_str(if is_it { directory } else { path });
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether a path may begin after this: not behind `$HOME`, `${HOME}` or `"$HOME"`, nor inside of a word.
fn begins(before: &str) -> bool {
    if before.ends_with("file://") {
        return true;
    }
    match before.strip_suffix(['"', '\'']) {
        Some(opened) => begins_a_word(opened),
        None => begins_a_word(before),
    }
}

fn begins_a_word(before: &str) -> bool {
    let last = before.chars().next_back();
    last.is_none_or(|last| last.is_whitespace() || "=:,;([{<>|&!@`".contains(last))
}

/// Whether a path's first part may end before this.
fn ends(after: &str) -> bool {
    let mut next = after.chars();
    match next.next() {
        None | Some('/') => true,
        // At the end of a sentence.
        Some('.') => !next.next().is_some_and(char::is_alphanumeric),
        Some(other) => !other.is_alphanumeric() && !"_-~".contains(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_takes_the_place_of_the_mount() {
        for (text, expected) in [
            ("/keptn", "/tmp/x"),
            ("/keptn/a/b", "/tmp/x/a/b"),
            ("--file=/keptn/a", "--file=/tmp/x/a"),
            (
                "cat /keptn/a '/keptn/b';cd /keptn;",
                "cat /tmp/x/a '/tmp/x/b';cd /tmp/x;",
            ),
            ("/bin:/keptn/bin", "/bin:/tmp/x/bin"),
            ("file:///keptn/a", "file:///tmp/x/a"),
            ("http://host/keptn/a", "http://host/keptn/a"),
            ("http://keptn/a", "http://keptn/a"),
            (
                "/keptn-old/a /keptn_b /my/keptn",
                "/keptn-old/a /keptn_b /my/keptn",
            ),
            ("sh.keptn.event", "sh.keptn.event"),
            (
                "${HOME}/keptn/a \"$D\"/keptn",
                "${HOME}/keptn/a \"$D\"/keptn",
            ),
            ("$(pwd)/keptn", "$(pwd)/keptn"),
            ("cp /keptn/a /keptn.bak", "cp /tmp/x/a /keptn.bak"),
            ("\"/keptn/a\" (cd /keptn)", "\"/tmp/x/a\" (cd /tmp/x)"),
            ("ls /keptn.", "ls /tmp/x."),
        ] {
            assert_eq!(replaced(text, "/keptn", "/tmp/x"), expected, "{text}");
        }
    }
}
