//! What nobody reads in a log: configs, events, and least of all secrets.

use std::io;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;

use super::keptn::Habit;
use super::{Tester, config, task, triggered};
use crate::cli;
use crate::event::content_mode::decode;
use crate::explain::explain;
use crate::local::explain::rules;
use crate::telemetry::{self, Lines};

/// Each is in a place of its own, and begins so that it is found.
const MARK: &str = "m4rk";

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged at this level while the scenario runs, on all threads that are its own.
pub(super) fn logged(level: &str, scenario: impl Future<Output = ()>) -> String {
    logged_as(Lines::Text, level, scenario)
}

pub(super) fn logged_as(lines: Lines, level: &str, scenario: impl Future<Output = ()>) -> String {
    let log = Log::default();
    let writer = log.clone();
    let writer = move || writer.clone();
    let subscriber = telemetry::subscriber(EnvFilter::new(level), lines, false, writer);
    let dispatch = Dispatch::new(subscriber);
    let of_threads = dispatch.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        // Such a thread is the scenario's to its end.
        .on_thread_start(move || {
            std::mem::forget(tracing::dispatcher::set_default(&of_threads));
        })
        .build()
        .unwrap();
    let _guard = tracing::dispatcher::set_default(&dispatch);
    runtime.block_on(scenario);
    let text = log.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

/// The lines that have a mark, without what varies.
fn marked(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(MARK)).collect()
}

fn event(id: &str, strategy: &str) -> Value {
    let mut event = triggered(id);
    event["data"]["test"]["teststrategy"] = json!(strategy);
    event["data"]["labels"]["k"] = json!("m4rk-label");
    event["data"]["password"] = json!("m4rk-password");
    event
}

const CREDENTIALS: [&str; 5] = [
    "--keptn-api-token=m4rk-api-token",
    "--oauth-client-id=jes",
    "--oauth-client-secret=m4rk-client-secret",
    "--oauth-scopes=openid,keptn",
    "--oauth-token-url=http://keptn/oauth/token",
];

/// Everything that can be said of a config and an event, good or bad.
async fn everything_happens() {
    let good = config(
        "      - name: t\n        image: alpine\n        files: [a]\n        env:\n\
         \x20         - {name: A, value: m4rk-literal, valueFrom: string}\n\
         \x20         - {name: B, value: $.data.password, valueFrom: event}\n",
    );
    let service = Tester::with(
        &good,
        &[&CREDENTIALS[..], &["--allowed-image-list=alpine"]].concat(),
    )
    .await;
    service.keptn.is_protected(|server| {
        server.secret = "m4rk-client-secret".into();
        server.prefix = "m4rk-access-token".into();
        server.troubles = vec![
            (500, "m4rk-client-secret".into()),
            (401, "{\"error\": \"m4rk-client-secret\"}".into()),
            (401, "{\"error\": \"m4rk-client-secret\"}".into()),
        ];
    });
    service.keptn.answers_resources_with(&[500, 401, 401, 503]);
    service.keptn.answers_events_with(&[503, 500]);
    service.cluster.task("t").prints("m4rk-output\n");
    service.receives(&event("event-1", "m4rk-strategy")).await;
    service.answers(2).await;

    let with = |content: &str| service.keptn.has("dev/svc", "job/config.yaml", content);
    let tasks = |tasks: &str| {
        format!(
            "apiVersion: v2\nactions:\n  - name: a\n    events: [{{name: test, jsonpath: {{property: $.data.test.teststrategy, match: m4rk-match}}}}]\n    tasks:\n{tasks}"
        )
    };
    // Nothing matches, both values differ.
    with(&tasks("      - {name: t, image: alpine}\n"));
    assert_eq!(
        service.receives(&event("event-2", "m4rk-strategy")).await.0,
        200
    );
    // What is refused names what is refused.
    for (id, task) in [
        ("event-3", "{name: t, image: m4rk-image}"),
        (
            "event-4",
            "{name: t, image: alpine, env: [{name: A, value: $.data.m4rk-path, valueFrom: event}]}",
        ),
        (
            "event-5",
            "{name: t, image: alpine, serviceAccount: m4rk-account, securityContext: {privileged: true}}",
        ),
    ] {
        with(&config(&format!("      - {task}\n")));
        assert_eq!(service.receives(&event(id, "x")).await.0, 202);
    }
    // Invalid in many ways, of which some repeat the value.
    for (id, broken) in [
        (
            "event-6",
            "apiVersion: v2\nactions:\n  - m4rk-key: m4rk-value\n",
        ),
        ("event-7", "apiVersion: m4rk-version\n"),
        ("event-8", "m4rk-scalar"),
        (
            "event-9",
            "apiVersion: v2\nactions: [{name: a, events: [{name: '(m4rk-pattern'}], tasks: [{name: t, image: 'm4rk image', resources: {limits: {cpu: m4rk-cpu}}, env: [{name: 'm4rk name', value: m4rk, valueFrom: m4rk-from}]}]}]\n",
        ),
        ("event-10", "apiVersion: v2\n\tm4rk-tab: {"),
    ] {
        with(broken);
        assert_eq!(service.receives(&event(id, "x")).await.0, 202);
    }
    // Ignored, with a warning.
    with(
        "actions: [{name: a, event: test, m4rk-unknown: m4rk-value, tasks: [{name: t, image: alpine}]}]\n",
    );
    service.receives(&event("event-11", "x")).await;
    // No event at all.
    let mut none = event("event-12", "x");
    none["data"]["project"] = json!(["m4rk-project"]);
    assert_eq!(service.receives(&none).await.0, 400);
    none["id"] = json!({"m4rk-id": 1});
    assert_eq!(service.receives(&none).await.0, 400);
    // A Keptn that repeats what it was shown.
    service.keptn.resources(Habit::Repeats);
    with(&good);
    let last = event("event-13", "x");
    let (_, ()) = tokio::join!(service.receives(&last), async {
        tokio::time::sleep(super::PATIENCE).await;
        service.keptn.resources(Habit::Works);
    });
    let events = service.keptn.events();
    let told = format!("{events:?}");
    for secret in ["m4rk-api-token", "m4rk-client-secret", "m4rk-access-token"] {
        assert!(!told.contains(secret), "{secret}");
    }
    service.cluster.all_reported().await;
    service.finish().await;
}

#[test]
fn neither_configs_nor_events_nor_secrets_are_in_the_log() {
    let log = logged("info", everything_happens());
    // Of each kind of trouble there is a line all the same.
    for line in [
        "could not be read",
        "could not be sent to Keptn",
        "No match found for event event-2",
        "the task was refused",
        "is invalid",
        "what is no event was refused",
        "has what is ignored",
        "Successfully finished processing of event: event-1",
    ] {
        assert!(log.contains(line), "{line}\n{log}");
    }
    assert_eq!(marked(&log), Vec::<&str>::new());
}

#[test]
fn debug_tells_of_configs_and_of_no_secret() {
    let log = logged("debug", everything_happens());
    assert!(log.contains("m4rk-key"), "{log}");
    for secret in ["m4rk-api-token", "m4rk-client-secret", "m4rk-access-token"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[test]
fn a_job_and_its_explanation_name_where_secrets_are() {
    let flags = CREDENTIALS.iter().chain(&[
        "--configuration-service=http://keptn",
        "--init-container-image=jes:1",
    ]);
    let settings = cli::serve_settings(&flags.map(ToString::to_string).collect::<Vec<_>>());
    let files = config("      - {name: t, image: alpine, files: [a]}\n");
    let headers = http::HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/cloudevents+json"),
    )]);
    let body = triggered("event-1").to_string();
    let event = decode(&headers, body.as_bytes())
        .unwrap()
        .remove(0)
        .unwrap();
    let explanation = explain(&event, files.as_bytes(), &rules(&settings), "jes").unwrap();
    let shown = serde_json::to_string(&explanation).unwrap();
    assert!(
        shown.contains("oauth_client_secret") && !shown.contains(MARK),
        "{shown}"
    );
}

#[test]
fn certificates_that_are_not_verified_are_warned_of_once() {
    let warnings = |flags: &'static [&str]| {
        let log = logged("info", async {
            let service = Tester::with(&config(&task("t")), flags).await;
            service.receives_triggered().await;
            service.answers(2).await;
            service.finish().await;
        });
        log.matches("HTTP_SSL_VERIFY").count()
    };
    assert_eq!(warnings(&["--http-ssl-verify=false"]), 1);
    assert_eq!(warnings(&["--http-ssl-verify=TRUE"]), 0);
}

#[test]
fn settings_are_shown_without_their_secrets() {
    let flags: Vec<String> = CREDENTIALS.iter().map(ToString::to_string).collect();
    let serve = format!("{:?}", cli::serve_settings(&flags));
    let needed = ["--file=a", "--configuration-service=http://keptn"].map(str::to_owned);
    let init = format!("{:?}", cli::init_settings(&[&flags[..], &needed].concat()));
    for shown in [serve, init] {
        assert!(
            shown.contains("oauth/token") && !shown.contains(MARK),
            "{shown}"
        );
    }
}
