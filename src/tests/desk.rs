//! The commands that need no cluster: tasks are real processes here, what a person sees is compared.

mod command_line;
mod results;

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use anstream::adapter::strip_str;
use insta::assert_snapshot;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{config, shortened, triggered};
use crate::cli::{self, Exit};
use crate::local::explain::told as explain_told;
use crate::local::story::{Format, RunResult, Story};
use crate::local::{dev_told, run_told};

/// A directory with the files of one service, and an event.
pub(super) struct Desk(TempDir);

/// Keeps what is written.
#[derive(Clone, Default)]
pub(super) struct Told(Arc<Mutex<Vec<u8>>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Told {
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        strip_str(&text).to_string()
    }

    /// Waits for it.
    pub(super) async fn has(&self, text: &str) {
        let seen = async {
            while !self.text().contains(text) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let seen = tokio::time::timeout(super::PATIENCE, seen).await;
        assert!(seen.is_ok(), "no `{text}`:\n{}", self.text());
    }
}

impl Desk {
    pub(super) fn with(config: &str) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.has("job/config.yaml", config);
        desk.has("event.json", &triggered("event-1").to_string());
        desk
    }

    pub(super) fn has(&self, name: &str, content: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// How the event fares, and what is told of it.
    fn runs(&self, flags: &[&str]) -> (RunResult, String) {
        self.tells(Format::Text, flags)
    }

    fn tells(&self, format: Format, flags: &[&str]) -> (RunResult, String) {
        let (event, resources) = (self.path("event.json"), self.path("."));
        let all = [&[&event as &str, "--resources", &resources], flags].concat();
        let page = Told::default();
        let settings = cli::run_settings(&all).unwrap();
        let result = run_told(&settings, Story::new(format, Box::new(page.clone()))).unwrap();
        (result, self.masked(&page.text()))
    }

    /// The result, and what is on standard output and standard error.
    fn explains(&self, flags: &[&str]) -> (Exit, String, String) {
        let (event, resources) = (self.path("event.json"), self.path("."));
        let all = [&[&event as &str, "--resources", &resources], flags].concat();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let exit = explain_told(&cli::explain_settings(&all), &mut out, &mut err).unwrap();
        let text = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).unwrap();
            self.masked(&strip_str(text).to_string())
        };
        (exit, text(&out), text(&err))
    }

    /// Without what is different each time.
    fn masked(&self, text: &str) -> String {
        let text = shortened(&text.replace(&self.path("."), "RESOURCES"));
        let text = text.replace(self.0.path().to_str().unwrap(), "DESK");
        // It leaves while the first task works, sooner or later.
        let text = text.replacen("\nevent sent sh.keptn.event.test.started\n", "", 1);
        let temporary = std::env::temp_dir().join("keptn-");
        let temporary = format!("{}[A-Za-z0-9]{{6}}", temporary.display());
        let text = regex::Regex::new(&temporary)
            .unwrap()
            .replace_all(&text, "KEPTN");
        let time = regex::Regex::new(r"\d+\.\d s").unwrap();
        time.replace_all(&text, "N s").into_owned()
    }
}

/// A task of a shell's words.
pub(super) fn shell(name: &str, script: &str, fields: &str) -> String {
    format!(
        "      - {{name: {name}, image: alpine, cmd: [sh, -c], args: [{}]{fields}}}\n",
        json!(script)
    )
}

/// A process that nobody has waited for has no command line any more.
fn is_gone(pid: &str) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
        || !fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn an_event_is_told_from_its_arrival_to_its_answer() {
    let tasks = [
        shell("greet", "echo hello; echo careful >&2", ""),
        shell(
            "count",
            "cat /keptn/data/a.txt; ls /keptn",
            ", files: [data]",
        ),
    ]
    .concat();
    let desk = Desk::with(&config(&tasks));
    desk.has("data/a.txt", "from a file\n");
    let (result, told) = desk.runs(&[]);
    assert_eq!(result, RunResult::Succeeded);
    assert_snapshot!(told, @"
    sh.keptn.event.test.triggered
      real / dev / svc, id event-1
      config RESOURCES/job/config.yaml

    Run tests (line 3) matches

    Run tests, task 1 of 2: greet (alpine)
      | hello
      | careful
      greet succeeded after N s

    Run tests, task 2 of 2: count (alpine)
      | successfully copied file data/a.txt to KEPTN/data/a.txt (12 bytes)
      | from a file
      | data
      count succeeded after N s

    event sent sh.keptn.event.test.finished
      status succeeded, result pass
      Task 'greet' finished successfully!
      Task 'count' finished successfully!

    succeeded: 2 tasks in N s
    ");
}

#[test]
fn each_test_event_runs_as_the_readme_says() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/test-events/events.http");
    let run = |request: &str| {
        let settings = cli::run_settings(&[file, "--request", request]).unwrap();
        let story = Story::new(Format::Text, Box::new(io::sink()));
        run_told(&settings.settled(), story).unwrap()
    };
    let results: Vec<RunResult> = ["1", "2", "A deployment", "4", "5"].map(run).into();
    let (succeeded, bad_input) = (RunResult::Succeeded, RunResult::BadInput);
    // The deployment's task fails, and the last request is a batch.
    assert_eq!(
        results,
        [
            succeeded,
            succeeded,
            RunResult::Errored,
            succeeded,
            bad_input
        ]
    );
}

#[test]
fn a_task_that_fails_ends_its_action_with_its_exit_code() {
    let tasks = [
        shell("break", "echo no >&2; exit 3", ""),
        shell("never", "echo x", ""),
    ]
    .concat();
    let (result, told) = Desk::with(&config(&tasks)).runs(&[]);
    assert_eq!(result, RunResult::Errored);
    assert_snapshot!(told, @"
    sh.keptn.event.test.triggered
      real / dev / svc, id event-1
      config RESOURCES/job/config.yaml

    Run tests (line 3) matches

    Run tests, task 1 of 2: break (alpine)
      | no
      break failed with exit code 3 after N s

    event sent sh.keptn.event.test.finished
      status errored, result fail
      Task 'break' failed: job
      JOB-000-001 failed. Reason:
      BackoffLimitExceeded, Message: Job has reached the specified backoff limit

    errored: 1 of 1 task failed, in N s
    ");
}

#[test]
fn an_event_that_nothing_is_for_is_told_why() {
    let desk = Desk::with(&config(&shell("t", "true", "")).replace("test.", "deployment."));
    let (result, told) = desk.runs(&[]);
    assert_eq!(result, RunResult::NothingMatched);
    assert_snapshot!(told, @"
    sh.keptn.event.test.triggered
      real / dev / svc, id event-1
      config RESOURCES/job/config.yaml

    Run tests (line 3) does not match
      line 5: the type does not match sh.keptn.event.deployment.triggered

    nothing matched: no action is for this event
    ");
    fs::remove_file(desk.path("job/config.yaml")).unwrap();
    let (result, told) = desk.runs(&[]);
    assert_eq!(result, RunResult::NothingMatched);
    assert_snapshot!(told.lines().last().unwrap(), @"nothing matched: no job/config.yaml on service, stage or project level; looked for RESOURCES/job/config.yaml, RESOURCES/real/dev/svc/job/config.yaml");
}

#[test]
fn a_broken_config_is_shown_with_its_line_and_answered() {
    let (result, told) = Desk::with("apiVersion: v2\nactions:\n  - evnts: []\n").runs(&[]);
    assert_eq!(result, RunResult::BadInput);
    assert_snapshot!(told, @"
    sh.keptn.event.test.triggered
      real / dev / svc, id event-1
      config RESOURCES/job/config.yaml

    error: actions[0].evnts: unknown field `evnts`, expected one of `name`,
           `silent`, `events`, `tasks`
     --> RESOURCES/job/config.yaml:3:5
      |
    3 |   - evnts: []
      |     ^^^^^
      |
      = help: did you mean `events`?


    event sent sh.keptn.event.test.finished
      status errored, result fail
      job/config.yaml:3:5: actions[0].evnts: unknown field `evnts`, expected one of
      `name`, `silent`, `events`, `tasks` (did you mean `events`?)

    bad input: the config is invalid
    ");
}

#[test]
fn bad_input_is_told_with_the_way_out() {
    let desk = Desk::with(&config(&shell(
        "t",
        "true",
        ", env: [{name: registry, valueFrom: secret}]",
    )));
    let (result, told) = desk.runs(&[]);
    let last = |told: &str| told.lines().last().unwrap().to_owned();
    assert_eq!(result, RunResult::BadInput);
    let mut report = vec![last(&told)];
    for event in ["", "{}", "nonsense", "[]"] {
        desk.has("event.json", event);
        let (result, told) = desk.runs(&[]);
        assert_eq!(result, RunResult::BadInput);
        report.push(last(&told));
    }
    fs::remove_file(desk.path("event.json")).unwrap();
    let (_, told) = desk.runs(&[]);
    // There is no story before it.
    assert_eq!(told.lines().count(), 1);
    report.push(last(&told));
    for flags in [
        &["event.json", "--resources", "no/such"][..],
        &["event.json", "--config", "no/such"],
        &["event.json", "--runtime", "vm"],
        &["event.json", "--secret", "x"],
        &[],
    ] {
        let error = cli::run_settings(flags).unwrap_err();
        report.push(error.lines().next().unwrap().to_owned());
    }
    assert_snapshot!(report.join("\n"), @"
    bad input: task `t` takes variables from the Secret registry, give it with `--secret registry=FILE`, a file with lines `KEY=value`
    bad input: DESK/event.json: the file is empty, expected a CloudEvent as JSON, or HTTP requests
    bad input: DESK/event.json: attribute `specversion` is missing, this is no CloudEvent
    bad input: DESK/event.json: line 1: `nonsense` is no request that posts an event, expected one such as `POST http://localhost:8080/ HTTP/1.1`, or a CloudEvent as JSON
    bad input: DESK/event.json: it holds no event
    bad input: DESK/event.json: no such file
    error: invalid value 'no/such' for '--resources <DIR>': there is no such directory
    error: invalid value 'no/such' for '--config <FILE>': there is no such file
    error: invalid value 'vm' for '--runtime <RUNTIME>'
    error: invalid value 'x' for '--secret <NAME=FILE>': expected NAME=FILE
    error: the following required arguments were not provided:
    ");
}

#[test]
fn a_refused_task_is_told_before_and_answered() {
    let (result, told) =
        Desk::with(&config(&shell("t", "true", ""))).runs(&["--allowed-image-list=x/*"]);
    assert_eq!(result, RunResult::Errored);
    assert_snapshot!(told, @"
    sh.keptn.event.test.triggered
      real / dev / svc, id event-1
      config RESOURCES/job/config.yaml

    Run tests (line 3) matches, but is refused
      line 7: task `t`: Forbidden: Image alpine does not match configured image
      allowlist.

    event sent sh.keptn.event.test.finished
      status errored, result fail
      Task 't' failed: Forbidden: Image alpine does not match configured image
      allowlist.

    errored
    ");
}

#[test]
fn programs_are_told_one_object_a_line() {
    let desk = Desk::with(&config(&shell("t", "echo hello; exit 7", "")));
    let (result, told) = desk.tells(Format::Json, &[]);
    assert_eq!(result, RunResult::Errored);
    let objects: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut kinds: Vec<&str> = objects
        .iter()
        .map(|object| object["what"].as_str().unwrap())
        .collect();
    // It leaves while the task works.
    let started = kinds.iter().position(|kind| *kind == "eventSent").unwrap();
    kinds.remove(started);
    assert_snapshot!(kinds.join(", "), @"event, config, action, taskStarted, output, taskEnded, eventSent, ended");
    let ended = objects
        .iter()
        .find(|object| object["what"] == "taskEnded")
        .unwrap();
    assert_eq!(
        (&ended["exitCode"], &ended["result"]),
        (&json!(7), &json!("failed"))
    );
}

#[test]
fn a_task_has_its_own_variables_and_nothing_of_the_callers_but_path_and_home() {
    let env = ", env: [{name: A, value: $.data.test.teststrategy, valueFrom: event}, \
               {name: B, value: '$(A) in /keptn/x', valueFrom: string}, {name: mine, valueFrom: secret}]";
    let desk = Desk::with(&config(&shell(
        "t",
        "env | cut -d= -f1 | sort; echo $B $TOKEN",
        env,
    )));
    desk.has("mine.env", "# a comment\nTOKEN = from=file\n");
    let secret = format!("mine={}", desk.path("mine.env"));
    let (_, told) = desk.runs(&["--secret", &secret]);
    let lines: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("  | "))
        // A shell's own.
        .filter(|line| !["PWD", "OLDPWD", "SHLVL", "_"].contains(line))
        .collect();
    assert_snapshot!(lines.join("\n"), @"
    A
    B
    HOME
    KEPTN_PROJECT
    KEPTN_SERVICE
    KEPTN_STAGE
    LABELS_K
    PATH
    TOKEN
    functional in KEPTN/x ***
    ");
}

#[test]
fn nothing_outlives_a_task_or_its_time_limit() {
    let desk = Desk::with(&config(&shell(
        "t",
        "trap '' TERM; sh -c 'sleep 30; touch /keptn/late' & echo $!; wait",
        ", maxPollDuration: 1",
    )));
    let (result, told) = desk.runs(&[]);
    assert_eq!(result, RunResult::Errored);
    let printed = told
        .lines()
        .find_map(|line| line.strip_prefix("  | "))
        .unwrap();
    assert!(is_gone(printed), "process {printed} is still there");
    assert!(told.contains("over its time limit"), "{told}");
}

#[test]
fn an_explanation_has_every_condition_variable_and_job() {
    let tasks = "      - {name: one, image: 'alpine:3.20', cmd: [sh], files: [a], env: [\n          \
                 {name: A, value: $.data.test.teststrategy, valueFrom: event},\n          \
                 {name: B, value: '$(A)!', valueFrom: string},\n          \
                 {name: registry, valueFrom: secret}]}\n";
    let other = "  - name: Other\n    silent: true\n    events:\n      - name: sh.keptn.event.test.triggered\n        \
                 jsonpath: {property: $.data.test.teststrategy, match: performance}\n      \
                 - name: finished\n    tasks:\n      - {name: x, image: i, env: [{name: M, value: $.data.none, \
                 valueFrom: event}]}\n";
    let refused = other.replace("performance", "functional");
    let desk = Desk::with(&[&config(tasks), other, &refused].concat());
    let (exit, told, errors) = desk.explains(&["--output=text"]);
    assert_eq!((exit, errors.as_str()), (Exit::Errored, ""));
    let comments: Vec<&str> = told.lines().filter(|line| line.starts_with('#')).collect();
    assert_snapshot!(comments.join("\n"), @r#"
    # event   sh.keptn.event.test.triggered
    #         real / dev / svc, id event-1
    # config  RESOURCES/job/config.yaml
    # every task has
    #     KEPTN_PROJECT = "real"
    #     KEPTN_STAGE = "dev"
    #     KEPTN_SERVICE = "svc"
    #     LABELS_K = "v"
    #
    # Run tests (line 3): matches
    #   yes line 5: the type matches sh.keptn.event.test.triggered
    #   task one (line 7), image alpine:3.20
    #     A = "functional"  ($.data.test.teststrategy, line 8)
    #     B = "functional!"  (a text, line 9)
    #     registry = all keys of the Secret registry  (a Secret, line 10)
    #
    # Other (line 11, silent): does not match
    #   yes line 14: the type matches sh.keptn.event.test.triggered
    #   no  line 15: $.data.test.teststrategy is not "performance"
    #       the event has "functional"
    #   no  line 16: the type does not match finished
    #       the event has sh.keptn.event.test.triggered
    #
    # Other (line 19, silent): matches
    #   yes line 22: the type matches sh.keptn.event.test.triggered
    #   yes line 23: $.data.test.teststrategy is "functional"
    #   no  line 24: the type does not match finished
    #       the event has sh.keptn.event.test.triggered
    #   task x (line 26), image i
    #     refused: could not prepare env for job JOB-002-001: could not add env with name 'M', value '$.data.none', valueFrom 'event': unknown key none
    #     M = could not add env with name 'M', value '$.data.none', valueFrom 'event': unknown key none  ($.data.none, line 26)
    "#);
    let jobs: Vec<Value> = serde_yaml::Deserializer::from_str(&told)
        .map(|document| Value::deserialize(document).unwrap())
        .collect();
    assert_eq!(jobs.len(), 1);
    assert_eq!(jobs[0]["metadata"]["namespace"], "keptn");
    assert_eq!(
        jobs[0]["spec"]["template"]["spec"]["containers"][0]["image"],
        "alpine:3.20"
    );
    let (_, told, _) = desk.explains(&["--output=json"]);
    let object: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(object["jobs"][0], jobs[0]);
    assert_eq!(object["actions"][1]["events"][0][1]["holds"], false);
}

#[test]
fn explained_jobs_are_in_the_namespaces_of_their_tasks() {
    let task = |name: &str, more: &str| format!("      - {{name: {name}, image: i{more}}}\n");
    let tasks = task("own", "") + &task("other", ", namespace: other");
    let desk = Desk::with(&config(&tasks));
    desk.has("event.json", &triggered("1").to_string());
    let (_, told, _) = desk.explains(&["--output=json", "--allowed-namespaces=other"]);
    let object: Value = serde_json::from_str(&told).unwrap();
    let namespaces = [0, 1].map(|job: usize| &object["jobs"][job]["metadata"]["namespace"]);
    assert_eq!(namespaces, ["keptn", "other"]);
}

#[test]
fn no_text_of_an_event_or_a_config_leaves_its_line() {
    let task = "      - {name: \"t\\n---\\nx\", image: i, env: [{name: KEPTN_STAGE, value: mine, valueFrom: string}]}\n";
    let desk = Desk::with(&config(task));
    let mut event = triggered("1\n---\napiVersion: v1\nkind: ConfigMap\u{1b}[31m");
    event["data"]["service"] = "a\u{2028}b".into();
    desk.has("event.json", &event.to_string());
    let (_, told, _) = desk.explains(&[]);
    let comments: Vec<&str> = told.lines().filter(|line| line.starts_with('#')).collect();
    assert_snapshot!(comments.join("\n"), @r#"
    # event   sh.keptn.event.test.triggered
    #         real / dev / a\u{2028}b, id 1\n---\napiVersion: v1\nkind: ConfigMap\u{1b}[31m
    # config  RESOURCES/job/config.yaml
    # every task has
    #     KEPTN_PROJECT = "real"
    #     KEPTN_STAGE = "dev"
    #     KEPTN_SERVICE = "a\u{2028}b"
    #     LABELS_K = "v"
    #
    # Run tests (line 3): matches
    #   yes line 5: the type matches sh.keptn.event.test.triggered
    #   task t\n---\nx (line 7), image i
    #     KEPTN_STAGE = ignored, Keptn's value stays  (a text, line 7)
    "#);
    assert_eq!(told.matches("\n---\n").count(), 1);
    let (_, told) = desk.runs(&[]);
    assert_snapshot!(told.lines().take(8).collect::<Vec<_>>().join("\n"), @r"
    sh.keptn.event.test.triggered
      real / dev / a\u{2028}b, id 1\n---\napiVersion: v1\nkind: ConfigMap\u{1b}[31m
      config RESOURCES/job/config.yaml

    Run tests (line 3) matches

    Run tests, task 1 of 1: t\n---\nx (i)
      t\n---\nx failed with exit code 128 after N s
    ");
}

#[test]
fn what_all_tasks_take_together_is_refused_as_by_the_service() {
    let variables = "{name: A, value: $.data.big, valueFrom: event}, ".repeat(6);
    let task = format!("      - {{name: t, image: i, cmd: [\"true\"], env: [{variables}]}}\n");
    let other = config(&task).split_once("actions:\n").unwrap().1.to_owned();
    let desk = Desk::with(&[config(&task), other].concat());
    let mut event = triggered("event-1");
    event["data"]["big"] = "x".repeat(100_000).into();
    desk.has("event.json", &event.to_string());
    let (exit, told, _) = desk.explains(&[]);
    assert_eq!(exit, Exit::Errored);
    assert!(told.contains("refused: could not prepare env"), "{told}");
    assert_eq!(desk.runs(&[]).0, RunResult::Errored);
}

#[test]
fn programs_are_told_why_there_is_no_explanation() {
    let desk = Desk::with("apiVersion: v2\nactions: 5\n");
    let mut report = Vec::new();
    let mut explained = || {
        let (exit, out, errors) = desk.explains(&["--output", "json"]);
        assert_eq!(errors, "");
        report.push(format!("{exit:?} {out}"));
    };
    explained();
    fs::remove_file(desk.path("job/config.yaml")).unwrap();
    explained();
    desk.has("event.json", "{}");
    explained();
    assert_snapshot!(report.concat(), @r#"
    BadInput {"problems":[{"column":10,"line":2,"message":"expected a list","path":"actions"}],"reason":"RESOURCES/job/config.yaml is invalid","result":"badInput"}
    NothingMatched {"reason":"no job/config.yaml on service, stage or project level; looked for RESOURCES/job/config.yaml, RESOURCES/real/dev/svc/job/config.yaml","result":"nothingMatched"}
    BadInput {"reason":"DESK/event.json: attribute `specversion` is missing, this is no CloudEvent","result":"badInput"}
    "#);
}

#[test]
fn what_cannot_be_explained_is_told_on_the_side() {
    let desk = Desk::with("apiVersion: v2\nactions: 5\n");
    let (exit, out, errors) = desk.explains(&[]);
    assert_eq!((exit, out.as_str()), (Exit::BadInput, ""));
    assert_snapshot!(errors, @"
    error: actions: expected a list
     --> RESOURCES/job/config.yaml:2:10
      |
    2 | actions: 5
      |          ^
    ");
    fs::remove_file(desk.path("job/config.yaml")).unwrap();
    let (exit, out, errors) = desk.explains(&[]);
    assert_eq!((exit, out.as_str()), (Exit::NothingMatched, ""));
    assert_snapshot!(errors, @"no job/config.yaml on service, stage or project level; looked for RESOURCES/job/config.yaml, RESOURCES/real/dev/svc/job/config.yaml");
}

#[tokio::test]
async fn a_service_at_a_desk_takes_edits_and_sends_test_events_again() {
    let desk = Desk::with(&config(&shell("t", "echo one", "")));
    desk.has("events/a.json", &triggered("event-1").to_string());
    let (events, resources) = (desk.path("events"), desk.path("."));
    let flags = [
        "--test-events",
        &events,
        "--resources",
        &resources,
        "--rcv-port=0",
    ];
    let settings = cli::dev_settings(&flags);
    let page = Told::default();
    let stop = CancellationToken::new();
    let story = Story::new(Format::Text, Box::new(page.clone()));
    let service = tokio::spawn(dev_told(settings, story, stop.clone()));
    page.has("listening on").await;
    let text = page.text();
    let address = text.split("http://localhost:").nth(1).unwrap();
    let port = address.split('/').next().unwrap();
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let client = reqwest::Client::new();
    let send = async |path: &str| {
        let request = client.post(format!("http://127.0.0.1:{port}/{path}"));
        request.send().await.unwrap().text().await.unwrap()
    };
    assert_eq!(send("test-events/1").await, "the run is started");
    page.has("  | one").await;
    desk.has("job/config.yaml", &config(&shell("t", "echo two", "")));
    assert_eq!(send("test-events/1").await, "the run is started");
    page.has("  | two").await;
    assert_eq!(
        send("test-events/2").await,
        "there is no test event 2, expected a number from 1 to 1\n"
    );
    assert_eq!(
        send("test-events/one").await,
        "there is no test event one, expected a number from 1 to 1\n"
    );
    // Where the page is read, events are posted.
    let event = client
        .post(format!("http://127.0.0.1:{port}/"))
        .header("content-type", "application/cloudevents+json")
        .body(triggered("event-2").to_string());
    assert_eq!(event.send().await.unwrap().status(), 202);
    let read = client.get(format!("http://127.0.0.1:{port}/run/1"));
    let read = read.send().await.unwrap();
    assert_eq!(read.status(), 404);
    assert_snapshot!(read.text().await.unwrap(), @"there is nothing to read at /run/1, but at / (runs), /events, /metrics and /test-events; what is posted, to any path, is an event");
    let put = client.put(format!("http://127.0.0.1:{port}/")).send().await;
    let put = put.unwrap();
    assert_eq!(put.status(), 405);
    assert_snapshot!(put.text().await.unwrap(), @"events are posted here, and there is nothing else");
    stop.cancel();
    service.await.unwrap().unwrap();
}
