//! The program itself: signals, exit codes, what a pipe gets. `E2E_BINARY` is the program (default: what
//! `cargo build` makes).

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Desk, is_gone, shell};
use crate::tests::config;

fn program() -> Command {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/debug/job-executor-service"
    );
    Command::new(std::env::var("E2E_BINARY").unwrap_or_else(|_| built.to_owned()))
}

#[test]
#[ignore = "needs the program"]
fn ctrl_c_ends_the_tasks_too() {
    // Kubernetes' notation: `$$` is one `$`.
    let script = "trap '' TERM INT; echo $$$$; sh -c 'echo $$$$; sleep 60'; sleep 60";
    let desk = Desk::with(&config(&shell("t", script, "")));
    let mut run = program()
        .args([
            "run",
            &desk.path("event.json"),
            "--resources",
            &desk.path("."),
        ])
        .env("TMPDIR", desk.path("."))
        .stdout(Stdio::piped())
        .spawn()
        .expect("`cargo build` made the program, or E2E_BINARY names it");
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let printed = lines
        .by_ref()
        .filter_map(|line| line.unwrap().strip_prefix("  | ").map(str::to_owned));
    let tasks: Vec<String> = printed.take(2).collect();
    let pid = Pid::from_raw(run.id().cast_signed()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let last = rest.last().unwrap();
    assert!(
        last.starts_with("interrupted: 1 of 1 task failed"),
        "{last}"
    );
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(tasks.iter().all(|task| is_gone(task)), "{tasks:?}");
    let left = std::fs::read_dir(desk.path(".")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(
        !left
            .iter()
            .any(|name| name.to_str().unwrap().starts_with("keptn-")),
        "{left:?}"
    );
}

#[test]
#[ignore = "needs the program"]
fn exit_codes_say_how_it_went_and_a_pipe_gets_no_colours() {
    let desk = Desk::with(&config(&shell(
        "t",
        "exit $CODE",
        ", env: [{name: CODE, value: $.data.code, valueFrom: event}]",
    )));
    let outcome = |command: &str, code: &str, event_type: &str| {
        let mut event = crate::tests::triggered("event-1");
        event["data"]["code"] = code.into();
        event["type"] = event_type.into();
        desk.has("event.json", &event.to_string());
        let output = program()
            .args([
                command,
                &desk.path("event.json"),
                "--resources",
                &desk.path("."),
            ])
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        assert!(
            !printed.contains(&0x1b),
            "{}",
            String::from_utf8_lossy(&printed)
        );
        output.status.code().unwrap()
    };
    let test = "sh.keptn.event.test.triggered";
    for command in ["run", "explain"] {
        assert_eq!(outcome(command, "0", test), 0);
        assert_eq!(outcome(command, "0", "sh.keptn.event.other.triggered"), 3);
        assert_eq!(outcome(command, "0", ""), 2);
    }
    assert_eq!(outcome("run", "1", test), 1);
    desk.has("job/config.yaml", "actions: 5");
    assert_eq!(
        (outcome("run", "0", test), outcome("explain", "0", test)),
        (2, 2)
    );
}

#[test]
#[ignore = "needs the program"]
fn standard_input_is_an_event_and_a_reader_that_leaves_is_no_error() {
    let desk = Desk::with(&config(&shell("t", "seq 100000", "")));
    let mut run = program()
        .args(["run", "-", "--resources", &desk.path(".")])
        .stdin(std::fs::File::open(desk.path("event.json")).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut beginning = [0; 1000];
    run.stdout
        .take()
        .unwrap()
        .read_exact(&mut beginning)
        .unwrap();
    let ended = run.wait_with_output().unwrap();
    assert_eq!(
        ended.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
}

#[test]
#[ignore = "needs the program"]
fn each_shell_gets_a_completion_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = program().args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("deny-warnings"), "{shell}: {script}");
    }
}
