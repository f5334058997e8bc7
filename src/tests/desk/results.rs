//! What tasks say for the answer, and what they are given by key.

use insta::assert_snapshot;
use serde_json::Value;

use super::{Desk, shell};
use crate::local::story::{Format, RunResult};
use crate::tests::config;

const RESULT: &str = ", resultFile: /keptn/.result.json";

/// The data of `.finished`.
fn finished(told: &str) -> Value {
    let mut events = told.lines().filter_map(|line| {
        let told: Value = serde_json::from_str(line).unwrap();
        (told["what"] == "eventSent").then(|| told["event"].clone())
    });
    events.next_back().unwrap()["data"].clone()
}

#[test]
fn results_of_tasks_become_part_of_the_answer() {
    let tasks = [
        shell(
            "one",
            r#"echo '{"a": {"x": 1}, "b": 1}' > /keptn/.result.json"#,
            RESULT,
        ),
        shell(
            "two",
            r#"echo '{"a": {"y": [2]}, "start": "mine"}' > /keptn/.result.json"#,
            RESULT,
        ),
        shell("three", "true", RESULT),
    ]
    .concat();
    let (result, told) = Desk::with(&config(&tasks)).tells(Format::Json, &[]);
    assert_eq!(result, RunResult::Succeeded);
    let mut test = finished(&told)["test"].clone();
    test["end"] = "TIME".into();
    assert_snapshot!(test, @r#"{"a":{"x":1,"y":[2]},"b":1,"end":"TIME","start":"mine"}"#);
}

#[test]
fn a_result_that_is_no_object_fails_its_task() {
    let tasks = [
        shell("list", "echo '[1]' > /keptn/.result.json", RESULT),
        shell("never", "true", ""),
    ]
    .concat();
    let (result, told) = Desk::with(&config(&tasks)).tells(Format::Json, &[]);
    assert_eq!(result, RunResult::Errored);
    assert_snapshot!(finished(&told)["message"].as_str().unwrap(), @r#"Task 'list' failed: its `resultFile` /keptn/.result.json holds no JSON object: it is no object such as `{"key": "value"}`"#);
}

#[test]
fn a_failed_tasks_result_counts_and_is_not_taken_for_its_reason() {
    let script = r#"echo '{"a": 1}' > /keptn/.result.json; echo boom; exit 3"#;
    let tasks = shell("fails", script, RESULT);
    let (result, told) = Desk::with(&config(&tasks)).tells(Format::Json, &[]);
    assert_eq!(result, RunResult::Errored);
    let data = finished(&told);
    assert_eq!(data["test"]["a"], 1);
    assert_snapshot!(data["message"].as_str().unwrap(), @"
    Task 'fails' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit

    Logs: 
    Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 3):
    boom
    ");
}

#[test]
fn single_keys_of_secrets_have_names_of_their_own() {
    let fields = ", env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: creds, key: pw}}},
        {name: LINE, value: 'is $(PASSWORD)', valueFrom: string},
        {name: NONE, valueFrom: {secretKeyRef: {name: other, key: x, optional: true}}}],
        envFrom: [{prefix: C_, secretRef: {name: creds}}]";
    let script = "echo $PASSWORD, $LINE, $C_pw, ${NONE-unset}";
    let desk = Desk::with(&config(&shell("t", script, fields)));
    desk.has("creds.env", "pw=x\nuser=me\n");
    let secret = format!("creds={}", desk.path("creds.env"));
    let (result, told) = desk.runs(&["--secret", &secret]);
    assert_eq!(result, RunResult::Succeeded);
    let printed = told.lines().find(|line| line.contains("  | "));
    assert_snapshot!(printed.unwrap(), @"  | x, is x, x, unset");
    let (result, told) = desk.runs(&[]);
    assert_eq!(result, RunResult::BadInput);
    assert_snapshot!(told.lines().last().unwrap(), @"bad input: task `t` takes variables from the Secret creds, give it with `--secret creds=FILE`, a file with lines `KEY=value`");
}

#[test]
fn secrets_are_told_neither_in_the_output_nor_in_the_answer() {
    let fields = ", env: [{name: creds, valueFrom: secret}]";
    let script = "echo in as $PASSWORD; echo -----BEGIN PRIVATE KEY-----; echo MIIE; \
                  echo -----END PRIVATE KEY-----; printf last:$PASSWORD";
    let desk = Desk::with(&config(&shell("t", script, fields)));
    desk.has("creds.env", "PASSWORD=pa55word\n");
    let secret = format!("creds={}", desk.path("creds.env"));
    let (_, told) = desk.runs(&["--secret", &secret]);
    let printed: Vec<&str> = told.lines().filter(|line| line.contains(" | ")).collect();
    assert_snapshot!(printed.join("\n"), @"
      | in as ***
      | ***
      | ***
      | ***
      | last:***
    ");
    let (_, told) = desk.tells(Format::Json, &["--secret", &secret]);
    let data = finished(&told);
    assert_snapshot!(data["message"].as_str().unwrap(), @"
    Task 't' finished successfully!

    Logs:
    Container JOB-000-001 of pod JOB-000-001-pod:
    in as ***
    ***
    ***
    ***
    last:***
    ");
    assert!(!told.contains("pa55word"));
}

#[test]
fn what_the_job_does_not_show_is_explained() {
    let fields = ", retries: 2, onFailure: warn, always: true, resultFile: /keptn/.result.json,
        envFrom: [{prefix: C_, configMapRef: {name: settings}}],
        env: [{name: PASSWORD, valueFrom: {secretKeyRef: {name: creds, key: pw}}}]";
    let desk = Desk::with(&config(&shell("t", "true", fields)));
    let (_, out, _) = desk.explains(&[]);
    let of_task = out.lines().skip_while(|line| !line.contains("task t"));
    let lines: Vec<&str> = of_task.take_while(|line| line.starts_with('#')).collect();
    assert_snapshot!(lines.join("\n"), @"
    #   task t (line 7), image alpine
    #     is started again up to 2 times if it fails
    #     its failure is a warning, the action goes on
    #     runs although a task before it failed
    #     what it writes to /keptn/.result.json becomes part of the answer
    #     PASSWORD = `pw` of the Secret creds  (a key, line 9)
    #     C_* = all keys of the ConfigMap settings
    ");
}

#[test]
fn volumes_show_secrets_and_what_is_not_there_is_told() {
    let of = |source: &str| {
        let fields = format!(
            ", volumes: [{{name: v, {source}}}], volumeMounts: [{{name: v, mountPath: /creds}}]"
        );
        let desk = Desk::with(&config(&shell("t", "cut -c2- /creds/pw", &fields)));
        desk.has("creds.env", "pw=pa55word\n");
        let secret = format!("creds={}", desk.path("creds.env"));
        let (_, told) = desk.tells(Format::Json, &["--secret", &secret]);
        finished(&told)["message"]
            .as_str()
            .unwrap()
            .replace('\n', "⏎")
    };
    let rows = [
        of("secret: {secretName: creds, items: [{key: pw, path: pw}]}"),
        of("configMap: {name: none}"),
        of("persistentVolumeClaim: {claimName: c}"),
    ];
    assert_snapshot!(rows.join("\n"), @r#"
    Task 't' finished successfully!⏎⏎Logs:⏎Container JOB-000-001 of pod JOB-000-001-pod:⏎a55word⏎⏎⏎⏎⏎
    Task 't' failed: job JOB-000-001 failed. Reason: FailedMount, Message: container `JOB-000-001` cannot start: MountVolume.SetUp failed for volume "v" : configmap "none" not found; create what is missing in the task's namespace, or correct `volumes` of the task
    Task 't' failed: job JOB-000-001 failed. Reason: FailedMount, Message: container `JOB-000-001` cannot start: MountVolume.SetUp failed for volume "v" : its kind is not found at a desk, which has `emptyDir`, `secret` and `configMap`; create what is missing in the task's namespace, or correct `volumes` of the task
    "#);
}
