//! Claims about the tree as a whole: what lib.rs, README.md, deploy/ and test-events/ promise.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::rbac::v1::Role;
use serde::Deserialize;
use serde_json::Value;

use super::{Tester, config, task};
use crate::event::content_mode::decode;
use crate::job_config::reader;
use crate::local::event_file;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The module of each source file with its code, without its tests.
fn sources(directory: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = path.strip_prefix(root().join("src")).unwrap();
            let module = module.to_str().unwrap().trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            let code = code
                .split("#[cfg(test)]\npub(crate) mod tests")
                .next()
                .unwrap();
            let lines = code
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            found.push((module, lines.collect::<Vec<_>>().join("\n")));
        }
    }
}

fn is_in(module: &str, names: &[&str]) -> bool {
    let top = module.split('/').next().unwrap_or(module);
    names.contains(&top)
}

#[test]
fn the_invariants_of_the_modules_hold() {
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    files.retain(|(module, _)| {
        !is_in(module, &["tests", "fuzz", "lib", "main"]) && !module.contains("tests")
    });
    let pure = [
        "event",
        "job_config",
        "policy",
        "resolve",
        "run",
        "report",
        "journal",
        "explain",
    ];
    let mut broken = Vec::new();
    for (module, code) in &files {
        // A moment of a clock that tests can pause is data.
        let code = &code.replace("use tokio::time::Instant;", "");
        let mut refuse = |allowed: &[&str], names: &[&str]| {
            for name in names.iter().filter(|name| code.contains(**name)) {
                if !is_in(module, allowed) {
                    broken.push(format!("{module} names {name}"));
                }
            }
        };
        refuse(&["cluster", "local", "serve"], &["kube::"]);
        // Parts of a Pod as data: what a task may hand through as it is.
        if module != "job_config/pod_parts" {
            refuse(&["cluster", "local", "serve"], &["k8s_openapi"]);
        }
        refuse(
            &["keptn", "traces", "cli", "serve", "init_container", "local"],
            &["reqwest"],
        );
        refuse(&["admin", "endpoint", "local"], &["axum::"]);
        refuse(&["cli", "local"], &["crate::local"]);
        let pages = [
            "admin/page",
            "admin/page/bars",
            "admin/page/words",
            "cluster/found",
            "cluster/manifest",
            "cluster/names",
            "cluster/outcome",
            "executor/task_result",
            "init_container/chosen",
            "traces/spans",
        ];
        if is_in(module, &pure) || pages.contains(&module.as_str()) {
            refuse(
                &[],
                &[
                    "async ",
                    "tokio",
                    "std::fs",
                    "std::net",
                    "crate::keptn",
                    "crate::executor",
                ],
            );
        }
        if module.starts_with("lint/") {
            refuse(&[], &["async ", "tokio", "std::fs", "stdin", "stdout"]);
        }
        if is_in(module, &["cluster", "keptn", "traces"]) {
            refuse(
                &[],
                &["crate::executor", "crate::admission", "crate::endpoint"],
            );
        }
        if is_in(module, &["executor"]) {
            refuse(&[], &["crate::admission", "crate::endpoint"]);
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn every_request_of_the_test_events_is_an_event() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("test-events")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        for request in event_file::read(&fs::read(&path).unwrap()).unwrap() {
            let events = decode(&request.headers, &request.body);
            let events = events.unwrap_or_else(|error| panic!("{:?}: {error}", request.name));
            assert!(events.iter().all(Result::is_ok), "{events:?}");
            count += events.len();
        }
    }
    assert!(count >= 5, "only {count} events");
}

#[test]
fn every_config_of_the_readme_is_valid() {
    let readme = include_str!("../../README.md");
    let blocks: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    let configs: Vec<&&str> = blocks
        .iter()
        .filter(|block| block.contains("actions:"))
        .collect();
    assert!(configs.len() >= 2);
    for config in configs {
        let read =
            reader::read(config.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{config}"));
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    }
}

#[tokio::test(start_paused = true)]
async fn the_role_grants_what_the_service_calls_and_nothing_else() {
    let service = Tester::with(
        &config(&[task("a"), task("b")].concat()),
        &["--max-concurrent-runs=1", "--pod-name=me"],
    )
    .await;
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    service.receives_triggered().await;
    let cluster = service.cluster.clone();
    service.finish().await;
    let called: BTreeSet<String> = cluster.calls().into_iter().collect();

    let manifest = include_str!("../../deploy/service.yaml");
    let documents = serde_yaml::Deserializer::from_str(manifest);
    let objects = documents.map(|document| Value::deserialize(document).unwrap());
    let role = objects
        .into_iter()
        .find(|object| object["kind"] == "Role")
        .unwrap();
    let role: Role = serde_json::from_value(role).unwrap();
    let mut granted = BTreeSet::new();
    for rule in role.rules.unwrap() {
        for resource in rule.resources.unwrap() {
            granted.extend(rule.verbs.iter().map(|verb| format!("{verb} {resource}")));
        }
    }
    assert_eq!(called, granted);
}
