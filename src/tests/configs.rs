//! One corpus of configs, valid and invalid, that the reader, lint, the schema and the upgrade all meet.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1 as pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Value, json};

use crate::cli::{self, Exit};
use crate::job_config::problem::Severity;
use crate::job_config::reader::{self, Format};
use crate::job_config::yaml::{self, Kind, Node, Scalar, Style};
use crate::job_config::{self, schema_names};
use crate::lint;
use crate::lint::output::{Colours, Form, Output};

fn directory(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/tests/configs")
        .join(kind)
}

/// Names and texts, in order.
fn configs(kind: &str) -> Vec<(String, Vec<u8>)> {
    let mut configs: Vec<(String, Vec<u8>)> = fs::read_dir(directory(kind))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    configs.sort();
    if kind == "valid" {
        configs.extend(readme());
    }
    configs
}

fn readme() -> impl Iterator<Item = (String, Vec<u8>)> {
    let blocks = include_str!("../../README.md").split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| rest.split("```").next());
    blocks
        .filter(|block| block.contains("actions:"))
        .enumerate()
        .map(|(index, block)| (format!("README {index}"), block.into()))
}

fn lint_of(bytes: &[u8]) -> Vec<String> {
    let errors = lint::problems(bytes)
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| problem.to_string()).collect()
}

#[test]
fn lint_finds_an_error_exactly_where_serve_refuses_the_config() {
    for (name, bytes) in configs("valid") {
        assert!(reader::read(&bytes).is_ok(), "{name}");
        assert_eq!(lint_of(&bytes), [""; 0], "{name}");
    }
    for (name, bytes) in configs("invalid") {
        let refused = reader::read(&bytes).unwrap_err().problems;
        let refused: Vec<String> = refused.iter().map(ToString::to_string).collect();
        assert_eq!(lint_of(&bytes), refused, "{name}");
    }
}

#[test]
fn lint_has_nothing_to_say_of_the_readme() {
    for (name, bytes) in readme().filter(|(_, bytes)| bytes.starts_with(b"apiVersion: v2")) {
        let problems = lint::problems(&bytes);
        assert!(problems.is_empty(), "{name}: {problems:#?}");
    }
}

#[test]
fn every_mistake_of_the_corpus_is_told() {
    let report: String = configs("invalid")
        .iter()
        .map(|(name, bytes)| {
            let errors = reader::read(bytes).unwrap_err().to_string();
            format!("{name}\n{}\n", errors.replace("job/config.yaml", " "))
        })
        .collect();
    insta::assert_snapshot!(report);
}

#[test]
fn a_valid_config_of_an_older_format_can_be_upgraded() {
    for (name, bytes) in configs("valid") {
        let examined = reader::examine(&bytes);
        let text = std::str::from_utf8(&bytes).unwrap();
        let upgraded =
            lint::upgrade::upgrade(text, &examined).unwrap_or_else(|e| panic!("{name}: {e}"));
        let is_old = examined.tree.is_some() && examined.format != Some(Format::V2);
        assert_eq!(upgraded.is_some(), is_old, "{name}");
        if let Some(upgraded) = upgraded {
            assert_eq!(
                reader::examine(upgraded.text.as_bytes()).format,
                Some(Format::V2),
                "{name}"
            );
        }
    }
}

/// Words, lines and signs of a text, changed at random.
fn mutated(text: &str, random: &mut fastrand::Rng) -> String {
    const WORDS: [&str; 22] = [
        "~",
        "",
        "{}",
        "[]",
        "[~]",
        "x: y",
        "yes",
        "010",
        "!!null x",
        "&a b",
        "*a",
        "|\n  x\n",
        "<<",
        "name",
        "event",
        "events",
        "jsonpath",
        "env",
        "value",
        "v1",
        "a'b \"c\"",
        "漢\u{1}",
    ];
    const SIGNS: [&str; 14] = [
        "\n", " ", ":", "- ", "[", "]", "{", "}", ",", "#", "'", "\t", "\r\n", "\u{feff}",
    ];

    let mut text = text.to_owned();
    for _ in 0..random.usize(1..4) {
        let ends: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
        let Some(&start) = random.choice(&ends) else {
            return text;
        };
        let rest = &text[start..];
        let word = rest
            .find(|end: char| !end.is_alphanumeric())
            .unwrap_or(rest.len());
        match random.u8(..4) {
            0 | 1 => text.replace_range(start..start + word, random.choice(WORDS).unwrap_or("")),
            2 => text.insert_str(start, random.choice(SIGNS).unwrap_or("")),
            _ => {
                let mut lines: Vec<&str> = text.lines().collect();
                let line = random.usize(..lines.len());
                let repeated = lines[line];
                if random.bool() {
                    lines.insert(line, repeated);
                } else {
                    lines.remove(line);
                }
                text = lines.join("\n") + "\n";
            }
        }
    }
    text
}

#[test]
fn no_text_is_too_odd_for_lint() {
    let rounds = std::env::var("LINT_ROUNDS").ok();
    let rounds = rounds.and_then(|rounds| rounds.parse().ok()).unwrap_or(300);
    let mut random = fastrand::Rng::with_seed(rounds);
    let corpus = [configs("valid"), configs("invalid")].concat();
    let (mut upgraded, mut refused) = (0, Vec::new());
    for _ in 0..rounds {
        let (_, bytes) = random.choice(&corpus).unwrap();
        let text = mutated(std::str::from_utf8(bytes).unwrap(), &mut random);
        let valid = reader::read(text.as_bytes()).is_ok();
        assert_eq!(lint_of(text.as_bytes()).is_empty(), valid, "{text}");
        for form in [Form::Text, Form::Json, Form::Github] {
            let problems = lint::problems(text.as_bytes());
            let mut output = Output::new(form, Colours::Ansi);
            output
                .problems("x", text.as_bytes(), &problems, &mut Vec::new())
                .unwrap();
        }
        if !valid {
            continue;
        }
        match lint::upgrade::upgrade(&text, &reader::examine(text.as_bytes())) {
            Ok(None) => {}
            Ok(Some(_)) => upgraded += 1,
            Err(reason) => refused.push(format!("{reason}\n{text}")),
        }
    }
    // Far most layouts are no problem.
    assert!(upgraded >= 10 * refused.len(), "{}", refused.join("\n\n"));
}

/// What a JSON Schema sees of YAML: the types of YAML 1.2, which is what editors read.
fn as_json(node: &Node) -> Value {
    match &node.kind {
        Kind::Scalar(scalar) => scalar_as_json(scalar),
        Kind::Sequence(items) => items.iter().map(as_json).collect(),
        Kind::Mapping(mapping) => mapping
            .entries
            .iter()
            .map(|entry| (entry.name().unwrap().to_owned(), as_json(&entry.value)))
            .collect(),
    }
}

fn scalar_as_json(scalar: &Scalar) -> Value {
    if scalar.is_null() {
        return Value::Null;
    }
    let text = scalar.text.as_str();
    match (scalar.style, text) {
        (Style::Plain, "true" | "True" | "TRUE") => json!(true),
        (Style::Plain, "false" | "False" | "FALSE") => json!(false),
        (Style::Plain, _) => {
            let number = text.parse::<i64>().map(Value::from);
            let number = number.or_else(|_| text.parse::<f64>().map(Value::from));
            number.unwrap_or_else(|_| text.into())
        }
        (Style::Quoted | Style::Block, _) => text.into(),
    }
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(job_config::SCHEMA).unwrap();
    jsonschema::draft202012::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

#[test]
fn the_schema_takes_every_valid_config_of_today() {
    let validator = validator();
    let mut count = 0;
    for (name, bytes) in configs("valid") {
        let examined = reader::examine(&bytes);
        if examined.format != Some(Format::V2) {
            continue;
        }
        let instance = as_json(&examined.tree.unwrap());
        let errors: Vec<String> = validator
            .iter_errors(&instance)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
        count += 1;
    }
    assert!(count >= 10, "only {count}");
}

#[test]
fn the_schema_refuses_every_invalid_config_of_today_that_it_can() {
    // Why a schema cannot.
    let beyond = [
        ("duplicate-key", "JSON has no repeated keys"),
        ("event-pattern", "the syntax of regular expressions"),
        ("json-path", "the syntax of JSONPaths"),
        ("list-paths", "counts over the whole file"),
        ("mount-over-the-result", "what two fields say of each other"),
        ("requests-above-limits", "quantities are not numbers"),
        ("volumes-of-one-name", "what entries say of each other"),
    ];
    let validator = validator();
    let mut taken = BTreeSet::new();
    for (name, bytes) in configs("invalid") {
        let text = std::str::from_utf8(&bytes).unwrap();
        let Ok(Some(tree)) = yaml::parse(text) else {
            continue;
        };
        let of_today = text.contains("apiVersion: v2");
        if of_today && validator.is_valid(&as_json(&tree)) {
            taken.insert(name);
        }
    }
    let beyond: BTreeSet<String> = beyond.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(taken, beyond);
}

/// Where the schema has the names of Kubernetes' types.
fn pod_names() -> [(&'static str, &'static [&'static str]); 18] {
    [
        ("/$defs/toleration", keys_of::<pod::Toleration>()),
        ("/$defs/affinity", keys_of::<pod::Affinity>()),
        ("/$defs/nodeAffinity", keys_of::<pod::NodeAffinity>()),
        ("/$defs/nodeSelector", keys_of::<pod::NodeSelector>()),
        (
            "/$defs/preferredNode",
            keys_of::<pod::PreferredSchedulingTerm>(),
        ),
        (
            "/$defs/nodeSelectorTerm",
            keys_of::<pod::NodeSelectorTerm>(),
        ),
        (
            "/$defs/nodeRequirement",
            keys_of::<pod::NodeSelectorRequirement>(),
        ),
        (
            "/$defs/nodeField",
            keys_of::<pod::NodeSelectorRequirement>(),
        ),
        ("/$defs/podAffinity", keys_of::<pod::PodAffinity>()),
        (
            "/$defs/preferredPod",
            keys_of::<pod::WeightedPodAffinityTerm>(),
        ),
        ("/$defs/podAffinityTerm", keys_of::<pod::PodAffinityTerm>()),
        ("/$defs/labelSelector", keys_of::<meta::LabelSelector>()),
        (
            "/$defs/labelRequirement",
            keys_of::<meta::LabelSelectorRequirement>(),
        ),
        ("/$defs/volume", keys_of::<pod::Volume>()),
        ("/$defs/keyFile", keys_of::<pod::KeyToPath>()),
        ("/$defs/fieldFile", keys_of::<pod::DownwardAPIVolumeFile>()),
        ("/$defs/projection", keys_of::<pod::VolumeProjection>()),
        ("/$defs/volumeMount", keys_of::<pod::VolumeMount>()),
    ]
}

/// What a type asks its deserializer for.
fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Keys<'k>(&'k mut &'static [&'static str]);

    impl<'de> Deserializer<'de> for Keys<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("not a struct"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            keys: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            *self.0 = keys;
            Err(Error::custom("asked for keys"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let mut keys: &[&str] = &[];
    T::deserialize(Keys(&mut keys)).err();
    keys
}

#[test]
fn the_schema_knows_the_names_that_the_reader_takes() {
    let schema: Value = serde_json::from_str(job_config::SCHEMA).unwrap();
    for (pointer, names) in schema_names().into_iter().chain(pod_names()) {
        let properties = schema.pointer(&format!("{pointer}/properties")).unwrap();
        let known: BTreeSet<&str> = properties
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(known, names.iter().copied().collect(), "{pointer}");
        assert_eq!(
            schema.pointer(pointer).unwrap()["additionalProperties"],
            false,
            "{pointer}"
        );
    }
}

#[test]
fn every_field_of_the_schema_is_described() {
    fn walk(value: &Value, path: &str, silent: &mut Vec<String>) {
        let Some(fields) = value.as_object() else {
            return;
        };
        for (key, field) in fields {
            let path = format!("{path}/{key}");
            if let Some(properties) = field.get("properties").and_then(Value::as_object)
                && !["if", "then", "else", "not"].contains(&key.as_str())
            {
                for (name, property) in properties {
                    if property.get("description").is_none() && property.get("$ref").is_none() {
                        silent.push(format!("{path}/{name}"));
                    }
                }
            }
            walk(field, &path, silent);
        }
    }
    let mut silent = Vec::new();
    walk(
        &serde_json::from_str(job_config::SCHEMA).unwrap(),
        "",
        &mut silent,
    );
    assert_eq!(silent, [""; 0]);
}

/// What `lint` writes with these arguments, run in the corpus' directory.
fn output(arguments: &[&str]) -> (String, Exit) {
    let arguments: Vec<String> = arguments
        .iter()
        .map(|argument| match argument.strip_prefix('@') {
            Some(file) => directory(file).display().to_string(),
            None => (*argument).to_owned(),
        })
        .collect();
    let mut written = Vec::new();
    let exit = lint::lint(&cli::lint_settings(&arguments), &mut written, Colours::None).unwrap();
    let written = String::from_utf8(written).unwrap();
    let root = directory("").display().to_string();
    (written.replace(&root, ""), exit)
}

#[test]
fn people_see_each_problem_with_its_line() {
    let (text, exit) = output(&["@invalid/unknown-key.yaml", "@valid/several-events.yaml"]);
    assert_eq!(exit, Exit::BadInput);
    insta::assert_snapshot!(text, @"
    error: actions[0].event: unknown field `event`, expected one of `name`,
           `silent`, `events`, `tasks`
     --> invalid/unknown-key.yaml:4:5
      |
    4 |     event: sh.keptn.event.hello.triggered
      |     ^^^^^
      |
      = help: did you mean `events`, a list of entries with `name`?

    error: actions[0].tasks[0].imagee: unknown field `imagee`, expected one of
           `name`, `image`, `imagePullPolicy`, `cmd`, `args`, `workingDir`,
           `files`, `env`, `envFrom`, `resources`, `maxPollDuration`, `retries`,
           `onFailure`, `always`, `resultFile`, `emptyDirSizeLimit`, `namespace`,
           `ttlSecondsAfterFinished`, `securityContext`, `serviceAccount`,
           `annotations`, `imagePullSecrets`, `nodeSelector`, `tolerations`,
           `affinity`, `volumes`, `volumeMounts`
     --> invalid/unknown-key.yaml:7:9
      |
    7 |         imagee: alpine:3.20
      |         ^^^^^^
      |
      = help: did you mean `image`?

    2 errors in 1 file
    ");
    for name in ["suspicious", "suspicious-beyond-the-original"] {
        let (text, exit) = output(&[&format!("@valid/{name}.yaml")]);
        assert_eq!(exit, Exit::Succeeded);
        insta::assert_snapshot!(name, text);
    }
    let (text, _) = output(&["@valid/beyond-the-original.yaml"]);
    insta::assert_snapshot!(text, @"ok");
    let (text, _) = output(&["@valid/first-readme.yaml"]);
    insta::assert_snapshot!(text, @r#"
    warning: no `apiVersion`, which is an old format
     --> valid/first-readme.yaml:1:1
      |
    1 | actions:
      | ^^^^^^^
      |
      = help: `lint --fix` writes it as `apiVersion: v2`:
              apiVersion: v2
              actions:
                - name: "Run locust"
                  events:
                    - name: "sh.keptn.event.test.triggered"
                      jsonpath:
                        property: "$.data.test.teststrategy"
                        match: "locust"
                  tasks:
                    - name: "Run locust smoke tests"
                      files:
                        - locust/basic.py
                        - locust/import.py
                      image: "locustio/locust"
                      cmd: [locust, -f, /keptn/locust/basic.py]

    1 warning in 1 file
    "#);
}

#[test]
fn programs_see_each_problem_on_its_line() {
    let (text, _) = output(&["--output=json", "@invalid/duplicate-key.yaml"]);
    insta::assert_snapshot!(text, @r#"{"file":"invalid/duplicate-key.yaml","line":6,"column":9,"endLine":6,"endColumn":14,"severity":"error","path":"actions[0].tasks[0]","message":"duplicate key `image`, expected each key once","help":null}"#);
    let (text, _) = output(&["--output=github", "@invalid/duplicate-key.yaml"]);
    insta::assert_snapshot!(text, @"::error file=invalid/duplicate-key.yaml,line=6,col=9,endLine=6,endColumn=14,title=actions[0].tasks[0]::duplicate key `image`, expected each key once");
}

#[test]
fn the_exit_code_says_what_was_found() {
    for (arguments, exit) in [
        (&["@valid/several-events.yaml"][..], Exit::Succeeded),
        (&["@valid/suspicious.yaml"], Exit::Succeeded),
        (
            &["--deny-warnings", "@valid/suspicious.yaml"],
            Exit::Errored,
        ),
        (
            &["--deny-warnings", "@valid/several-events.yaml"],
            Exit::Succeeded,
        ),
        (
            &["@valid/several-events.yaml", "@invalid/env.yaml"],
            Exit::BadInput,
        ),
        (&["--deny-warnings", "@invalid/env.yaml"], Exit::BadInput),
        (&["@valid"], Exit::BadInput),
        (&["@missing.yaml"], Exit::BadInput),
    ] {
        assert_eq!(output(arguments).1, exit, "{arguments:?}");
    }
    let (text, _) = output(&["@valid", "@missing.yaml", "@valid/no-actions.yaml"]);
    insta::assert_snapshot!(text, @"
    error: a directory, expected a file
    --> valid

    error: no such file
    --> missing.yaml

    warning: actions: there are none, so no event runs anything
     --> valid/no-actions.yaml:2:10
      |
    2 | actions: []
      |          ^^

    2 errors, 1 warning in 3 files
    ");
}

#[test]
fn a_file_is_fixed_in_its_place() {
    let temporary = tempfile::tempdir().unwrap();
    let copy = |kind: &str, name: &str| {
        let path = temporary.path().join(name);
        fs::copy(directory(kind).join(name), &path).unwrap();
        path
    };
    let fixed = |path: &PathBuf| {
        let arguments = ["--fix".to_owned(), path.display().to_string()];
        let mut written = Vec::new();
        lint::lint(&cli::lint_settings(&arguments), &mut written, Colours::None).unwrap();
        let written = String::from_utf8(written).unwrap();
        written.replace(&temporary.path().display().to_string(), "")
    };
    let old = copy("valid", "unversioned-unknown-keys.yaml");
    fs::set_permissions(&old, PermissionsExt::from_mode(0o640)).unwrap();
    insta::assert_snapshot!(fixed(&old), @"
    note: /unversioned-unknown-keys.yaml is `apiVersion: v2` now

    note: `description` in line 2 was ignored, and is removed

    note: `name` in line 4 was ignored, and is removed

    note: `enabled` in line 7 was ignored, and is removed

    note: `resources` in line 12 was ignored, and is removed

    ok
    ");
    insta::assert_snapshot!(fs::read_to_string(&old).unwrap(), @"
    # What was ignored once is ignored for ever, with a warning.
    apiVersion: v2
    actions:
      - name: Greet them
        events:
          - name: sh.keptn.event.hello.triggered
        tasks:
          - name: Hello
            image: alpine:3.20
            cmd: [echo, hello]
    ");
    let mode = PermissionsExt::mode(&fs::metadata(&old).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o640);
    assert_eq!(fixed(&old), "ok\n");

    for (kind, name) in [
        ("valid", "every-field.yaml"),
        ("valid", "beyond-the-original.yaml"),
        ("invalid", "first-format-env.yaml"),
    ] {
        let path = copy(kind, name);
        fixed(&path);
        assert_eq!(
            fs::read(&path).unwrap(),
            fs::read(directory(kind).join(name)).unwrap()
        );
    }
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 4);
}
