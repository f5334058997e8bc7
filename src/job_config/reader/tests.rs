use insta::assert_snapshot;

use super::*;
use crate::job_config::fields::EnvVar;

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

const FIRST_README: &str = include_str!("../../tests/configs/first-readme.yaml");

#[test]
fn the_config_of_the_first_readme_is_read() {
    let read = read(FIRST_README.as_bytes()).unwrap();
    assert!(read.warnings.is_empty());
    let task = &read.config.actions[0].tasks[0];
    assert_eq!(task.cmd, ["locust", "-f", "/keptn/locust/basic.py"]);
    assert_eq!(task.files[1].as_str(), "locust/import.py");
}

#[test]
fn every_field_of_v2_is_read() {
    let read = read(include_bytes!("../../tests/configs/every-field.yaml")).unwrap();
    assert!(read.warnings.is_empty());
    assert!(read.config.actions[0].silent);
    // What becomes of each field is the Job manifest's test.
    assert_eq!(read.config.actions[0].tasks[0].env.len(), 4);
}

#[test]
fn all_four_formats_give_the_same_task() {
    let formats = [
        "actions: [{name: a, event: t, tasks: [{name: t, image: i, cmd: 'ls -l'}]}]",
        "actions: [{name: a, events: [{name: t}], tasks: [{name: t, image: i, cmd: 'ls -l'}]}]",
        "apiVersion: v1\nactions: [{name: a, events: [{name: t}], tasks: [{name: t, image: i, cmd: 'ls -l'}]}]",
        "apiVersion: v2\nactions: [{name: a, events: [{name: t}], tasks: [{name: t, image: i, cmd: [ls, -l]}]}]",
    ];
    let tasks: Vec<String> = formats
        .iter()
        .map(|text| {
            let read = read(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(read.config.actions[0].matchers.len(), 1);
            format!("{:?}", read.config.actions[0].tasks)
        })
        .collect();
    assert!(tasks.iter().all(|task| *task == tasks[0]), "{tasks:#?}");
}

#[test]
fn variables_of_the_unversioned_format_are_paths() {
    let read = read(
        b"actions: [{events: [{name: t}], tasks: [{image: i, env: [{name: A, value: $.data.x}]}]}]",
    )
    .unwrap();
    let (_, variable) = &read.config.actions[0].tasks[0].env[0];
    assert!(matches!(variable, EnvVar::Event { .. }));
}

#[test]
fn an_unknown_key_is_a_warning_without_api_version() {
    let read = read(b"actions:\n- name: a\n  nmae: b\n  events: []\nother: 1\n").unwrap();
    assert_snapshot!(read.warnings.join("\n"), @"
    job/config.yaml: actions[0].nmae: unknown key, ignored
    job/config.yaml: other: unknown key, ignored
    job/config.yaml: actions[0]: action `a` has no `events`, so it never runs
    ");
}

#[test]
fn any_scalar_is_a_text_and_an_empty_value_an_absent_one() {
    let config = "
apiVersion: v2
actions:
  - name: 5
    silent: no
    events: [{name: t, jsonpath: {property: $.data.x, match: true}}]
    tasks:
      - {name: 1.0, image: i, cmd:, args: [8080, yes], env:, files:,
         resources: {limits: {cpu: 1}}, annotations: {a: false}}
";
    let read = read(config.as_bytes()).unwrap();
    let action = &read.config.actions[0];
    let task = &action.tasks[0];
    assert_eq!((action.name.as_str(), action.silent), ("5", false));
    assert_eq!(task.name, "1.0");
    assert_eq!(task.args, ["8080", "yes"]);
    assert_eq!(task.annotations["a"], "false");
    assert_eq!(action.matchers[0].filter.as_ref().unwrap().expected, "true");
}

#[test]
fn anchors_and_merge_keys_work() {
    let config = "
apiVersion: v2
actions:
  - events: [{name: t}]
    tasks:
      - &base {name: a, image: i, cmd: [x]}
      - {<<: *base, name: b}
";
    let tasks = &read(config.as_bytes()).unwrap().config.actions[0].tasks;
    assert_eq!(
        (tasks[1].name.as_str(), tasks[1].image.as_str()),
        ("b", "i")
    );
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_is_allowed() {
    let task = |fields: &str| {
        error(&format!(
            "apiVersion: v2\nactions:\n  - name: a\n    events: [{{name: t}}]\n    tasks:\n      - name: t\n        {fields}\n"
        ))
    };
    let report = [
        error(""),
        error("apiVersion: v3\nactions: []\n"),
        error("apiVersion: v2\nactions: {}\n"),
        error("apiVersion: v2\nactons: []\n"),
        error("apiVersion: v2\napiVersion: v2\n"),
        error("- a\n"),
        error("actions: [\n"),
        error("apiVersion: v2\nactions: []\n---\nx: 1\n"),
        error("apiVersion: v2\nactions:\n  - evnts: []\n"),
        error("apiVersion: v2\nactions:\n  - events: [{name: '('}]\n"),
        error("apiVersion: v2\nactions:\n  - events: [{name: '(?:a{1,1000}){1,1000}'}]\n"),
        error("apiVersion: v2\nactions:\n  - events: [{jsonpath: {property: $.a-b}}]\n"),
        error("apiVersion: v2\nactions:\n  - silent: maybe\n"),
        error("actions: [{event: a, events: []}]"),
        error("apiVersion: v1\nactions: [{tasks: [{image: i, cmd: [a]}]}]"),
        error("apiVersion: v1\nactions: [{tasks: [{image: i, args: [a]}]}]"),
        error("apiVersion: v1\nactions: [{tasks: [{image: i, env: [{name: a, value: b, valueFrom: string}]}]}]"),
        task("imagee: i"),
        task("image: i\n        image: i"),
        task("cmd: [a]"),
        task("image: ''"),
        task("image: i\n        cmd: ls -l"),
        task("image: i\n        imagePullPolicy: Sometimes"),
        task("image: i\n        files: [../x]"),
        task("image: i\n        env: [{name: A}]"),
        task("image: i\n        env: [{name: 'A B', valueFrom: string}]"),
        task("image: i\n        env: [{name: A, value: '$.', valueFrom: event}]"),
        task("image: i\n        env: [{name: A, value: $.x, valueFrom: event, as: xml}]"),
        task("image: i\n        env: [{name: MY_SECRET, valueFrom: secret}]"),
        task("image: i\n        resources: {limits: {cpu: lots}}"),
        task("image: i\n        resources: {limits: {gpu: 1}}"),
        task("image: i\n        maxPollDuration: 0"),
        task("image: i\n        maxPollDuration: 5m"),
        task("image: i\n        ttlSecondsAfterFinished: -1"),
        task("image: i\n        namespace: My_Space"),
        task("image: i\n        annotations: {'a b': c}"),
        task("image: i\n        securityContext: {runAsUsr: 1}"),
    ]
    .join("\n");
    assert_snapshot!(report);
}

#[test]
fn a_hostile_config_costs_an_error() {
    let lists = "{name: A, value: $..a, valueFrom: event},".repeat(33);
    let lists = format!("apiVersion: v2\nactions: [{{tasks: [{{image: i, env: [{lists}]}}]}}]");
    let laughs: String = (1..=9)
        .map(|n| format!("a{n}: &a{n} [{}]\n", format!("*a{},", n - 1).repeat(9)))
        .collect();
    let nesting = format!("apiVersion: v2\nactions: {}", "[".repeat(20_000));
    let keys: String = (0..15_000).map(|n| format!("k{n}: 1\n")).collect();
    let quadratic = format!(
        "apiVersion: v2\na: &a {}\nb: [{}]",
        "x".repeat(50_000),
        "*a,".repeat(150)
    );
    for (name, text) in [
        ("billion laughs", format!("a0: &a0 lol\n{laughs}")),
        ("paths", lists),
        ("nesting", nesting),
        ("keys", keys),
        ("aliases", quadratic),
        ("size", "# ".repeat(200_000)),
    ] {
        assert!(read(text.as_bytes()).is_err(), "{name}");
    }
}
