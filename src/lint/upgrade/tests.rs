use super::*;

/// What the first upgrade gives, and that a second changes nothing.
fn upgraded(text: &str) -> String {
    let upgrade = |text: &str| super::upgrade(text, &reader::examine(text.as_bytes()));
    match upgrade(text) {
        Err(reason) => format!("refused: {reason}"),
        Ok(None) => "as it is".into(),
        Ok(Some(Upgraded {
            text,
            removed,
            notes,
        })) => {
            assert!(upgrade(&text).unwrap().is_none(), "{text}");
            let removed: Vec<String> = removed
                .iter()
                .map(|key| format!("removed {key}\n"))
                .collect();
            let notes = notes.iter().map(|note| format!("note: {note}\n"));
            text + &removed.concat() + &notes.collect::<String>()
        }
    }
}

#[test]
fn the_first_format_keeps_its_comments_and_order() {
    let text = "\
# Tests of the shop.
actions:
  - name: \"Run locust\"  # smoke
    event: \"sh.keptn.event.test.triggered\"  # from the shipyard
    # Only for load tests.
    jsonpath:
      property: \"$.test.teststrategy\"  # in data
      match: \"locust\"

    nmae: x
    tasks:
      - name: \"Run locust smoke tests\"
        files:
          - locust/basic.py
        image: \"locustio/locust\"
        cmd: \"locust -f '/keptn/a b.py'\"  # quick
        env:
          - name: HOST
            value: \"$.data.host\"  # comes from deployment
          - {name: X, value: $.data.x, as: json}
          # the end
";
    insta::assert_snapshot!(upgraded(text), @r#"
    # Tests of the shop.
    apiVersion: v2
    actions:
      - name: "Run locust"  # smoke
        events:
          - name: "sh.keptn.event.test.triggered"  # from the shipyard
            jsonpath:
              property: "$.data.test.teststrategy"  # in data
              match: "locust"
        # Only for load tests.

        tasks:
          - name: "Run locust smoke tests"
            files:
              - locust/basic.py
            image: "locustio/locust"
            cmd: [locust, -f, '/keptn/a b.py']  # quick
            env:
              - name: HOST
                value: "$.data.host"  # comes from deployment
                valueFrom: event
              - {name: X, value: $.data.x, valueFrom: event}
              # the end
    removed `nmae` in line 10
    removed `as` in line 20
    "#);
}

const OTHERS: [&str; 14] = [
    // The second format, its keys behind dashes and repeated.
    "\
---
other: 1
actions:
- foo: 1
  bar: 2
  name: a
  name: b
  jsonpath: {property: $.x}
  events:
  - foo: 1
  tasks:
  - image: i
    cmd: |
      echo
      hello
    env:
    - value: |-
        $.data.x
      name: A
",
    // One line.
    "{actions: [{event: t, jsonpath: {match: a, property: '$.test.x', foo: 1}, tasks: [{image: i, env: [{name: A, value: $.type}]}]}]}\n",
    "actions: [{foo: 1, event: a*b}, {events: [], event: , tasks: [{image: i, foo: 1}]}]",
    // Windows.
    "actions:\r\n- jsonpath:\r\n    property: $.x\r\n  event: t\r\n  tasks: []\r\n",
    // v1
    "# v1\napiVersion: \"v1\" # old\nactions:\n  - tasks:\n      - {image: i, cmd: 'sh -c \"exit 1\"', env: [{name: A, value: $.x, valueFrom: event}]}\n",
    // Aliases.
    "actions:\n  - event: t\n    tasks:\n      - &base\n        image: i\n        cmd: a b\n        env: &env\n          - name: A\n            value: $.data.x\n      - <<: *base\n        name: b\n      - {image: i, env: *env}\n",
    "x: &e {name: A, value: $.data.x}\nactions: [{tasks: [{image: i, env: [*e]}]}]\n",
    "apiVersion:\nactions: [{tasks: [], event: }, {event: }]\n",
    "\u{feff}actions: []",
    "{}\n",
    "\u{feff}other: 1\nactions: [x: y]\n",
    "actions:\n- event: t\n  jsonpath:\n    property: x\n    mtch: y\n",
    "apiVersion: v2\nactions: []\n",
    "# nothing\n",
];

#[test]
fn other_layouts_are_upgraded_as_well() {
    let report = OTHERS.map(upgraded).join("=====\n");
    insta::assert_snapshot!(report, @r"
    ---
    apiVersion: v2
    actions:
    - name: b
      events:
      - {}
      tasks:
      - image: i
        cmd: [echo, hello]
        env:
        - value: |-
            $.data.x
          valueFrom: event
          name: A
    removed `other` in line 2
    removed `foo` in line 4
    removed `bar` in line 5
    removed `name` in line 6
    removed `jsonpath` in line 8
    removed `foo` in line 10
    =====
    {apiVersion: v2, actions: [{events: [{name: t, jsonpath: {match: a, property: '$.data.test.x'}}], tasks: [{image: i, env: [{name: A, value: $.type, valueFrom: event}]}]}]}
    removed `foo` in line 1
    =====
    apiVersion: v2
    actions: [{events: [{name: '^a\*b$'}]}, {events: [], tasks: [{image: i}]}]removed `foo` in line 1
    =====
    apiVersion: v2
    actions:
    - events:
        - name: t
          jsonpath:
            property: $.data.x
      tasks: []
    note: line 3: `$.x` is `$.data.x` now, and was looked for in the event itself, too
    =====
    # v1
    apiVersion: v2 # old
    actions:
      - tasks:
          - {image: i, cmd: [sh, -c, 'exit 1'], env: [{name: A, value: $.x, valueFrom: event}]}
    =====
    apiVersion: v2
    actions:
      - events:
          - name: t
        tasks:
          - &base
            image: i
            cmd: [a, b]
            env: &env
              - name: A
                value: $.data.x
                valueFrom: event
          - <<: *base
            name: b
          - {image: i, env: *env}
    =====
    refused: its layout is too unusual to be changed by a program (while parsing node, found unknown anchor)=====
    apiVersion: v2
    actions: [{tasks: [] }, { }]
    =====
    ﻿apiVersion: v2
    actions: []=====
    {apiVersion: v2}
    =====
    ﻿apiVersion: v2
    actions: [{}]
    removed `other` in line 1
    removed `x` in line 2
    =====
    apiVersion: v2
    actions:
    - events:
        - name: t
          jsonpath:
            property: $.data.x
    removed `mtch` in line 5
    note: line 4: `x` is `$.data.x` now, and was looked for in the event itself, too
    =====
    as it is=====
    as it is
    ");
}

#[test]
fn words_are_quoted_where_they_must_be() {
    for word in [
        "ls",
        "-l",
        "-",
        "--",
        "",
        "a b",
        "it's",
        "\"",
        "it's \"",
        "a: b",
        "a:",
        "#",
        "a #b",
        "$(X)",
        "[a]",
        "{a}",
        "a,b",
        "*x",
        "&x",
        "!x",
        "~",
        "null",
        "%x",
        "@x",
        "`x`",
        "a\nb",
        "\t",
        "ä",
        "\\",
        "\u{1}",
        "?",
        "? x",
        ":",
        "::",
        "http://x/y?z=1",
        "|",
        ">",
        "<<",
        "yes",
        "1.0",
    ] {
        let text = format!("[{}, x]", scalar(word));
        let tree = crate::job_config::yaml::parse(&text)
            .unwrap_or_else(|error| panic!("{text}: {error:?}"))
            .unwrap();
        let item = tree.items()[0].as_scalar().unwrap();
        assert_eq!(
            (item.text.as_str(), item.is_null()),
            (word, false),
            "{text}"
        );
    }
}
