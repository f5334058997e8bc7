use insta::assert_snapshot;

use super::*;
use crate::job_config::Task;
use crate::job_config::fields::EnvVar;

fn error(text: &str) -> String {
    read(text.as_bytes()).unwrap_err().to_string()
}

const FIRST_README: &str = include_str!("../../tests/configs/valid/first-readme.yaml");

#[test]
fn the_config_of_the_first_readme_is_read() {
    let read = read(FIRST_README.as_bytes()).unwrap();
    assert!(read.warnings.is_empty());
    let task = &read.config.actions[0].tasks[0];
    assert_eq!(task.cmd, ["locust", "-f", "/keptn/locust/basic.py"]);
    assert_eq!(task.files[1].path.as_str(), "locust/import.py");
}

#[test]
fn every_field_of_v2_is_read() {
    let read = read(include_bytes!("../../tests/configs/valid/every-field.yaml")).unwrap();
    assert!(read.warnings.is_empty());
    assert!(read.config.actions[0].silent);
    // What becomes of each field is the Job manifest's test.
    assert_eq!(read.config.actions[0].tasks[0].env.len(), 4);
}

#[test]
fn every_field_beyond_the_original_is_read() {
    let read = read(include_bytes!(
        "../../tests/configs/valid/beyond-the-original.yaml"
    ))
    .unwrap();
    assert!(read.warnings.is_empty());
    let [task, last, plain] = read.config.actions[0].tasks.as_slice() else {
        panic!("{:?}", read.config);
    };
    let shown = |task: &Task| {
        let files: Vec<String> = task.files.iter().map(ToString::to_string).collect();
        let keys = task.env.iter().map(|entry| match &entry.source {
            EnvVar::Key(key) => format!("{} {} {}", key.of, key.key, key.optional),
            other => format!("{other:?}"),
        });
        let env_from = task.env_from.iter();
        let env_from =
            env_from.map(|from| format!("{}* {} {}", from.prefix, from.of, from.optional));
        format!(
            "{files:?}\n{:?}\n{:?}\n{:?} {:?} {} {:?} {:?}\n{}",
            keys.collect::<Vec<_>>(),
            env_from.collect::<Vec<_>>(),
            u8::from(task.retries),
            task.on_failure,
            task.always,
            task.result_file.as_ref().map(ToString::to_string),
            task.empty_dir_size_limit.as_ref().map(ToString::to_string),
            serde_json::to_string_pretty(&task.pod).unwrap(),
        )
    };
    assert_snapshot!(shown(task));
    assert_snapshot!(shown(last), @"
    []
    []
    []
    0 Fail true None None
    {}
    ");
    let default = Task {
        name: plain.name.clone(),
        image: plain.image.clone(),
        line: plain.line,
        ..Task::default()
    };
    assert_eq!(*plain, default);
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
            let task = read.config.actions[0].tasks[0].clone();
            format!("{:?}", Task { line: 0, ..task })
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
    let variable = &read.config.actions[0].tasks[0].env[0];
    assert!(matches!(variable.source, EnvVar::Event { .. }));
}

#[test]
fn a_config_without_actions_is_valid_and_worth_a_warning() {
    let warnings = ["actions: []", "apiVersion: v2\nactions: []"].map(|text| {
        let warnings = read(text.as_bytes()).unwrap().warnings;
        let warnings: Vec<String> = warnings.iter().map(Problem::to_string).collect();
        warnings.join("\n")
    });
    assert_snapshot!(warnings.join("\n"), @"
    job/config.yaml:1:10: actions: there are none, so no event runs anything
    job/config.yaml:2:10: actions: there are none, so no event runs anything
    ");
}

#[test]
fn an_unknown_key_is_a_warning_without_api_version() {
    let read = read(b"actions:\n- name: a\n  nmae: b\n  events: []\nother: 1\n").unwrap();
    let warnings: Vec<String> = read.warnings.iter().map(Problem::to_string).collect();
    assert_snapshot!(warnings.join("\n"), @"
    job/config.yaml:2:3: actions[0]: action `a` has no `events`, so it never runs
    job/config.yaml:3:3: actions[0].nmae: unknown key, ignored
    job/config.yaml:5:1: other: unknown key, ignored
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

#[test]
fn all_problems_are_told_in_the_order_of_the_file() {
    let config = "\
apiVersion: v2
actions:
  - name: a
    event: t
    tasks:
      - name: t
        imag: i
        maxPollDuration: 0
      - image: i
        env:
          - {name: A, value: $.data.a-b, valueFrom: evnt}
          - {name: 'B C', valueFrom: string, valu: x}
        files: [/, ../x, ]
";
    assert_snapshot!(error(config), @"
    job/config.yaml:4:5: actions[0].event: unknown field `event`, expected one of `name`, `silent`, `events`, `tasks` (did you mean `events`, a list of entries with `name`?)
    job/config.yaml:7:9: actions[0].tasks[0].imag: unknown field `imag`, expected one of `name`, `image`, `imagePullPolicy`, `cmd`, `args`, `workingDir`, `files`, `env`, `envFrom`, `resources`, `maxPollDuration`, `retries`, `onFailure`, `always`, `resultFile`, `emptyDirSizeLimit`, `namespace`, `ttlSecondsAfterFinished`, `securityContext`, `serviceAccount`, `annotations`, `imagePullSecrets`, `nodeSelector`, `tolerations`, `affinity`, `volumes`, `volumeMounts` (did you mean `image`?)
    job/config.yaml:8:26: actions[0].tasks[0].maxPollDuration: expected a whole number of seconds, at least 1
    job/config.yaml:11:53: actions[0].tasks[1].env[0].valueFrom: could not add env with name A, unknown valueFrom evnt: expected `event`, `secret`, `string`, `{secretKeyRef: …}` or `{configMapKeyRef: …}` (did you mean `event`?)
    job/config.yaml:12:20: actions[0].tasks[1].env[1].name: `B C` is no name for an environment variable, allowed are letters, digits, `_`, `-` and `.`, no digit first
    job/config.yaml:12:46: actions[0].tasks[1].env[1].valu: unknown field `valu`, expected one of `name`, `value`, `valueFrom`, `as` (did you mean `value`?)
    job/config.yaml:13:20: actions[0].tasks[1].files[1]: path `../x` is not allowed, expected one without `.`, `..` and empty segments
    ");
}

#[test]
fn a_place_is_that_of_the_value_however_it_came_there() {
    let config = "\
apiVersion: v2
actions:
  - tasks:
      - &base
        image: 'a b'
      - <<: *base
        env: &env [{name: 1}]
      - {image: i, env: *env}
";
    assert_snapshot!(error(config), @"
    job/config.yaml:5:16: actions[0].tasks[0].image: `a b` is no container image, expected one such as `alpine:3.20`
    job/config.yaml:5:16: actions[0].tasks[1].image: `a b` is no container image, expected one such as `alpine:3.20`
    job/config.yaml:7:27: actions[0].tasks[1].env[0].name: `1` is no name for an environment variable, allowed are letters, digits, `_`, `-` and `.`, no digit first
    job/config.yaml:7:27: actions[0].tasks[2].env[0].name: `1` is no name for an environment variable, allowed are letters, digits, `_`, `-` and `.`, no digit first
    ");
}

#[test]
fn each_part_of_the_model_knows_its_line() {
    let config = "\
actions:
  - name: a
    event: t

    jsonpath:
      property: $.x
    tasks:

      - name: t
        image: i
        env:
          - name: A
            value: $.x
";
    let config = read(config.as_bytes()).unwrap().config;
    let action = &config.actions[0];
    let matcher = &action.matchers[0];
    let filter = matcher.filter.as_ref().unwrap();
    let task = &action.tasks[0];
    assert_eq!(matcher.event_type.text(), "t");
    assert_eq!(
        [
            action.line,
            matcher.line,
            filter.line,
            task.line,
            task.env[0].line
        ],
        [2, 3, 6, 9, 12]
    );
}

#[test]
fn a_bound_is_told_where_it_is_passed() {
    let paths = "          - {name: A, value: $..a, valueFrom: event}\n".repeat(34);
    let paths =
        format!("apiVersion: v2\nactions:\n  - tasks:\n      - image: i\n        env:\n{paths}");
    let tasks = format!(
        "actions:\n  - tasks:\n{}",
        "      - image: i\n".repeat(1001)
    );
    let actions = format!("actions:\n{}", "  - events: [{}]\n".repeat(1001));
    let long = format!(
        "apiVersion: v2\nactions: [{{tasks: [{{image: i, namespace: {}}}]}}]",
        "A".repeat(9000)
    );
    let task =
        |fields: &str| format!("apiVersion: v2\nactions: [{{tasks: [{{image: i, {fields}}}]}}]");
    let files = task(&format!("files: [{}]", "a, ".repeat(1001)));
    let name = task(&format!("name: {}", "n".repeat(1025)));
    let argument = task(&format!("args: [x, {}]", "a".repeat(131_072)));
    let value = "v".repeat(131_070);
    let variable = task(&format!(
        "env: [{{name: A, valueFrom: string, value: {value}}}]"
    ));
    let file = task(&format!("resultFile: /keptn/{}", "r".repeat(256)));
    let report = [
        paths, tasks, actions, long, files, name, argument, variable, file,
    ]
    .map(|config| error(&config))
    .join("\n");
    assert_snapshot!(report, @"
    job/config.yaml:38:30: actions[0].tasks[0].env[32].value: one JSONPath with `*`, `..`, a range or a filter too many, at most 32 are allowed
    job/config.yaml:1002:9: actions[0].tasks[999]: at most 999 actions, and as many tasks in an action, are allowed
    job/config.yaml:1001:5: actions[999]: at most 999 actions, and as many tasks in an action, are allowed
    job/config.yaml:2:42: actions[0].tasks[0].namespace: `AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA…` is no name of a namespace, allowed are at most 63 lower-case letters, digits and `-`, a letter or digit at both ends
    job/config.yaml:2:3039: actions[0].tasks[0].files[1000]: at most 1000 entries are allowed, a directory or a pattern can take the place of many
    job/config.yaml:2:37: actions[0].tasks[0].name: 1025 bytes long, at most 1024 are allowed
    job/config.yaml:2:41: actions[0].tasks[0].args[1]: 131072 bytes long, a program cannot be started with more than 131071
    job/config.yaml:2:73: actions[0].tasks[0].env[0].value: name and value take 131072 bytes, a program cannot be started with more than 131071
    job/config.yaml:2:43: actions[0].tasks[0].resultFile: the file's name has 256 bytes, at most 255 are possible
    ");
}
