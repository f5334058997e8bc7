//! `run --runtime podman` with containers. `E2E_PODMAN_IMAGE` is an image that Podman has, with busybox and
//! the entrypoint /bin/echo, `E2E_BINARY` the program (default: what `cargo build` makes). Whatever Podman
//! needs to run on this machine, such as a network mode, is up to `CONTAINERS_CONF`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{config, triggered};

/// One run of the program, in a directory of its own.
struct Run {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What was told so far.
    told: Vec<Value>,
    directory: TempDir,
}

/// What is there after the end.
struct Ended {
    code: i32,
    told: Vec<Value>,
}

impl Run {
    /// `name` tells this run's containers from those of others.
    fn begins(name: &str, tasks: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let config = config(&tasks.replace("IMAGE", &image()));
        fs::create_dir_all(at("files/job")).unwrap();
        fs::create_dir_all(at("tmp")).unwrap();
        fs::write(at("files/job/config.yaml"), config).unwrap();
        fs::write(at("files/a.txt"), "a file\n").unwrap();
        fs::write(at("event.json"), triggered(name).to_string()).unwrap();
        let built = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/target/debug/job-executor-service"
        );
        let binary = std::env::var("E2E_BINARY").unwrap_or_else(|_| built.to_owned());
        let mut child = Command::new(binary)
            .args(["run", "--runtime=podman", "--output=json", "--resources"])
            .args([at("files"), at("event.json")])
            .env("TMPDIR", at("tmp"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("`cargo build` made the binary, or E2E_BINARY names it");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdout,
            told: Vec::new(),
            directory,
        }
    }

    fn prints(&mut self, line: &str) {
        let mut text = String::new();
        while self.stdout.read_line(&mut text).unwrap() > 0 {
            let told: Value = serde_json::from_str(&text).unwrap();
            self.told.push(told);
            if self.told.last().unwrap()["line"] == line {
                return;
            }
            text.clear();
        }
        panic!("`{line}` was not printed: {:#?}", self.told);
    }

    fn gets(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Neither containers nor files are left.
    fn ends(mut self) -> Ended {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        let lines = rest.lines().map(|line| serde_json::from_str(line).unwrap());
        self.told.extend(lines);
        let code = self.child.wait().unwrap().code().unwrap();
        let jobs = self.told.iter().filter_map(|told| told["job"].as_str());
        for job in jobs {
            assert_eq!(containers(job), "");
        }
        let left = fs::read_dir(self.directory.path().join("tmp")).unwrap();
        assert_eq!(left.count(), 0, "a volume is left");
        Ended {
            code,
            told: self.told,
        }
    }
}

impl Ended {
    fn output(&self) -> String {
        let lines = self.told.iter().filter(|told| told["what"] == "output");
        lines
            .map(|told| format!("{}\n", told["line"].as_str().unwrap()))
            .collect()
    }

    /// Exit code and reason of the task that ended last.
    fn last_task(&self) -> (i64, &str) {
        let mut ended = self.told.iter().rev();
        let ended = ended.find(|told| told["what"] == "taskEnded").unwrap();
        (
            ended["exitCode"].as_i64().unwrap_or_default(),
            ended["reason"].as_str().unwrap_or_default(),
        )
    }

    fn seconds(&self) -> f64 {
        self.told.last().unwrap()["seconds"].as_f64().unwrap()
    }
}

fn image() -> String {
    std::env::var("E2E_PODMAN_IMAGE").unwrap_or_else(|_| "localhost/echo:e2e".into())
}

/// The names of the containers that there are of a Job, whatever their state.
fn containers(job: &str) -> String {
    let mut podman = Command::new("podman");
    podman.args(["ps", "--all", "--format={{.Names}}", "--filter"]);
    let listed = podman.arg(format!("name={job}")).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    String::from_utf8(listed.stdout).unwrap()
}

fn runs(name: &str, tasks: &str) -> Ended {
    Run::begins(name, tasks).ends()
}

#[test]
#[ignore = "needs podman"]
fn a_task_runs_as_its_user_with_its_files_in_its_directory() {
    let ended = runs(
        "podman-files",
        "      - {name: one, image: IMAGE, files: [a.txt], workingDir: /keptn/made/here, cmd: [sh, -c],
         args: ['id -u; id -g; pwd; echo more >>/keptn/a.txt; cat /keptn/a.txt; mkdir -p -m 700 /keptn/deep/er; echo x >/keptn/deep/er/x']}
      - {name: two, image: IMAGE, cmd: [ls, /keptn]}\n",
    );
    assert_eq!(ended.code, 0, "{:#?}", ended.told);
    let output = ended.output();
    // The first line is the init container's.
    let output = output.split_once('\n').unwrap().1;
    assert_eq!(output, "1000\n2000\n/keptn/made/here\na file\nmore\n");
}

#[test]
#[ignore = "needs podman"]
fn cmd_and_args_are_laid_over_the_image_as_on_a_cluster() {
    let ended = runs(
        "podman-words",
        "      - {name: one, image: IMAGE}
      - {name: two, image: IMAGE, args: [entrypoint, -n, --rm]}
      - {name: three, image: IMAGE, cmd: [printf, '%s,', a b, --help], args: ['', c]}
      - {name: four, image: IMAGE, cmd: [uname]}
      - {name: five, image: IMAGE, cmd: ['[', -n, x, ']']}\n",
    );
    assert_eq!(ended.code, 0, "{:#?}", ended.told);
    assert_eq!(
        ended.output(),
        "\nentrypoint -n --rm\na b,--help,,c,\nLinux\n"
    );
}

#[test]
#[ignore = "needs podman"]
fn variables_reach_the_container_as_they_are() {
    let ended = runs(
        "podman-variables",
        r#"      - name: one
        image: IMAGE
        cmd: [sh, -c, 'printf "<%s>\n" "$LINES_" "$EQUAL" "$QUOTED" "${EMPTY-unset}"']
        env:
          - {name: LINES_, value: "one\ntwo\n", valueFrom: string}
          - {name: EQUAL, value: "a=b=c", valueFrom: string}
          - {name: QUOTED, value: "\"'`$$ # \\", valueFrom: string}
          - {name: EMPTY, value: "", valueFrom: string}
"#,
    );
    assert_eq!(ended.code, 0, "{:#?}", ended.told);
    assert_eq!(ended.output(), "<one\ntwo\n>\n<a=b=c>\n<\"'`$ # \\>\n<>\n");
}

#[test]
#[ignore = "needs podman"]
fn a_tasks_exit_code_is_its_own() {
    for (script, code) in [
        ("exit 3", 3),
        ("no-such-program", 127),
        ("exit 125", 125),
        ("ulimit -t 1; while :; do :; done", 137),
    ] {
        let task = format!("      - {{name: one, image: IMAGE, cmd: [sh, -c, '{script}']}}\n");
        let ended = runs(&format!("podman-exit-{code}"), &task);
        assert_eq!((ended.code, ended.last_task().0), (1, code), "{script}");
    }
}

#[test]
#[ignore = "needs podman"]
fn what_cannot_start_says_why() {
    for (name, task, reason) in [
        (
            "program",
            "image: IMAGE, cmd: [no-such-program]",
            "executable file not found",
        ),
        (
            "directory",
            "image: IMAGE, workingDir: /no/such",
            "workdir \"/no/such\" does not exist",
        ),
        (
            "image",
            "image: 'localhost:1/missing:1'",
            "could not start the image localhost:1/missing:1: initializing source",
        ),
    ] {
        let task = format!("      - {{name: one, {task}}}\n");
        let ended = runs(&format!("podman-no-{name}"), &task);
        let (code, said) = ended.last_task();
        assert_eq!((ended.code, code), (1, 128), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

/// A task that is deaf to the signal to end, and keeps its files to itself.
const DEAF: &str = "cmd: [sh, -c, 'trap \"\" TERM INT; mkdir -m 700 /keptn/own; echo x >/keptn/own/x; echo up; \
    while :; do sleep 1; done']";

#[test]
#[ignore = "needs podman"]
fn a_missed_time_limit_leaves_no_container() {
    let task = format!("      - {{name: one, image: IMAGE, maxPollDuration: 2, {DEAF}}}\n");
    let ended = runs("podman-limit", &task);
    assert_eq!(ended.code, 1, "{:#?}", ended.told);
    assert_eq!(ended.last_task().1, "over its time limit");
    assert!(ended.seconds() < 15.0, "{}", ended.seconds());
}

#[test]
#[ignore = "needs podman"]
fn an_interrupt_leaves_no_container() {
    let task = format!("      - {{name: one, image: IMAGE, {DEAF}}}\n");
    let mut run = Run::begins("podman-interrupt", &task);
    run.prints("up");
    let job = run.told.iter().find_map(|told| told["job"].as_str());
    assert_ne!(containers(job.unwrap()), "");
    run.gets("INT");
    assert_eq!(run.ends().code, 130);
}

#[test]
#[ignore = "needs podman"]
fn a_second_interrupt_does_not_wait_and_leaves_no_container_either() {
    let task = format!("      - {{name: one, image: IMAGE, {DEAF}}}\n");
    let mut run = Run::begins("podman-impatient", &task);
    run.prints("up");
    run.gets("INT");
    std::thread::sleep(std::time::Duration::from_millis(500));
    run.gets("INT");
    let ended = run.ends();
    assert_eq!(ended.code, 130);
    assert!(ended.seconds() < 5.0, "{}", ended.seconds());
}
