//! The main story, and its variations.

use axum::http::Method;
use insta::assert_snapshot;
use serde_json::{Value, json};

use super::{Tester, config, task, triggered};

#[tokio::test(start_paused = true)]
async fn a_triggered_event_runs_its_task_and_is_answered() {
    let service = Tester::start(&config(&task("hello"))).await;
    service.cluster.task("hello").prints("Hello, world\n");
    assert_eq!(
        service.receives_triggered().await,
        (202, "the run is started".into())
    );
    service.answers(2).await;
    let events = service.keptn.events();
    assert_snapshot!(service.finish().await, @"
    job created: hello JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'hello' finished successfully!⏎⏎Logs:⏎Container JOB-000-001 of pod JOB-000-001-pod:⏎Hello, world⏎⏎⏎⏎⏎
    ");
    for (event, kind) in events.iter().zip(["started", "finished"]) {
        assert_eq!(event["type"], format!("sh.keptn.event.test.{kind}"));
        assert_eq!(event["source"], "job-executor-service");
        assert_eq!(event["triggeredid"], "event-1");
        assert_eq!(
            event["shkeptncontext"],
            "ce27158f-94ae-401c-b1b9-cbf18d2752f6"
        );
        assert_eq!(event["shkeptnspecversion"], "0.2.0");
        assert_eq!(event["data"]["labels"], json!({"k": "v"}));
    }
    let frame = json!({"start": "2026-11-23T20:41:00Z", "end": "2026-11-23T20:41:00Z"});
    assert_eq!(events[1]["data"]["test"], frame);
}

#[tokio::test(start_paused = true)]
async fn an_answer_has_the_logs_as_plain_text_without_secrets() {
    let masks = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&masks, "customer (?<secret>\\w+)\n").unwrap();
    let masks = format!("--log-mask-file={}", masks.path().display());
    let settings = ["--keptn-api-token=t0k3n-of-keptn", &masks];
    let service = Tester::with(&config(&task("hello")), &settings).await;
    let printed = "\u{1b}[32mOK\u{1b}[0m  1%\r100%\r\ncurl -H 'x-token: t0k3n-of-keptn'\ncustomer Smith\n\u{7}";
    service.cluster.task("hello").fails(3, printed);
    service.receives_triggered().await;
    service.answers(2).await;
    let events = service.keptn.events();
    assert_snapshot!(super::shortened(events[1]["data"]["message"].as_str().unwrap()), @"
    Task 'hello' failed: job JOB-000-001 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit

    Logs: 
    Container JOB-000-001 of pod JOB-000-001-pod terminated with an error (Reason: Error, ExitCode: 3):
    100%
    curl -H 'x-token: ***'
    customer ***
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn one_event_of_one_task_costs_four_api_requests() {
    let service = Tester::start(&config(&task("hello"))).await;
    service.receives_triggered().await;
    service.answers(2).await;
    let cluster = service.cluster.clone();
    service.finish().await;
    let mut calls = cluster.calls();
    let of_the_process = ["list", "watch"];
    calls.retain(|call| !of_the_process.iter().any(|verb| call.starts_with(verb)));
    calls.retain(|call| !call.ends_with("leases"));
    calls.sort();
    assert_snapshot!(calls.join(", "), @"create jobs, get pods/log, patch jobs, patch jobs");
}

#[tokio::test(start_paused = true)]
async fn tasks_run_one_after_the_other_in_order() {
    let tasks = [task("first"), task("second"), task("third")].concat();
    let service = Tester::start(&config(&tasks)).await;
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    job created: third JOB-000-003
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'third' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_failed_task_stops_its_action_and_not_the_next() {
    let service = Tester::start(
        "
apiVersion: v2
actions:
  - name: one
    events: [{name: test.triggered}]
    tasks: [{name: first, image: i}, {name: second, image: i}, {name: third, image: i}]
  - name: two
    events: [{name: test.triggered}]
    tasks: [{name: fourth, image: i}]
",
    )
    .await;
    service.cluster.task("second").fails(3, "boom\n");
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    job created: fourth JOB-001-001
    event sh.keptn.event.test.finished errored fail: Task 'second' failed: job JOB-000-002 failed. Reason: BackoffLimitExceeded, Message: Job has reached the specified backoff limit⏎⏎Logs: ⏎Container JOB-000-002 of pod JOB-000-002-pod terminated with an error (Reason: Error, ExitCode: 3):⏎boom⏎⏎⏎⏎⏎Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'fourth' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_silent_action_sends_no_events() {
    let silent =
        config(&task("quiet")).replace("name: Run tests", "name: Run tests\n    silent: true");
    let service = Tester::start(&silent).await;
    service.receives_triggered().await;
    service.cluster.has_jobs(1).await;
    assert_snapshot!(service.finish().await, @"job created: quiet JOB-000-001");
}

#[tokio::test(start_paused = true)]
async fn beside_an_action_that_answers_a_silent_one_is_not_mentioned() {
    let service = Tester::start(
        "
apiVersion: v2
actions:
  - {name: one, silent: true, events: [{name: test}], tasks: [{name: quiet, image: i}]}
  - {name: two, events: [{name: test}], tasks: [{name: loud, image: i}]}
",
    )
    .await;
    service.cluster.task("quiet").fails(1, "");
    service.receives_triggered().await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: quiet JOB-000-001
    event sh.keptn.event.test.started
    job created: loud JOB-001-001
    event sh.keptn.event.test.finished succeeded pass: Task 'loud' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_not_triggered_runs_its_tasks_without_answers() {
    let service =
        Tester::start(&config(&task("after")).replace("test.triggered", "test.finished")).await;
    let mut event = triggered("event-1");
    event["type"] = "sh.keptn.event.test.finished".into();
    assert_eq!(service.receives(&event).await.0, 202);
    service.cluster.has_jobs(1).await;
    assert_snapshot!(service.finish().await, @"job created: after JOB-000-001");
}

#[tokio::test(start_paused = true)]
async fn the_example_of_the_first_readme_runs() {
    let service = Tester::start(include_str!("configs/valid/first-readme.yaml")).await;
    let event: Value = serde_json::from_str(include_str!("events/first-readme.json")).unwrap();
    service.keptn.has(
        "../sockshop/dev/carts",
        "job/config.yaml",
        include_str!("configs/valid/first-readme.yaml"),
    );
    assert_eq!(service.receives(&event).await.0, 202);
    service.answers(2).await;
    let job = service.cluster.jobs().remove(0);
    let pod = &job["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], "locustio/locust");
    assert_eq!(
        pod["containers"][0]["command"],
        json!(["locust", "-f", "/keptn/locust/basic.py"])
    );
    assert_eq!(
        pod["initContainers"][0]["args"],
        json!([
            "init",
            "--file=/locust/basic.py",
            "--file=/locust/import.py"
        ])
    );
    assert_snapshot!(service.finish().await, @"
    job created: Run_locust_smoke_tests JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'Run locust smoke tests' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn the_config_is_looked_for_on_service_stage_and_project_level() {
    for level in ["dev/svc", "dev", ""] {
        let service = Tester::start("").await;
        service.keptn.has_not("dev/svc", "job/config.yaml");
        service
            .keptn
            .has(level, "job/config.yaml", config(&task("found")));
        let mut event = triggered("event-1");
        event["gitcommitid"] = "9bf2157".into();
        assert_eq!(service.receives(&event).await.0, 202, "{level}");
        service.answers(2).await;
        let requests = service.keptn.requests();
        assert!(
            requests[0].ends_with("/service/svc/resource/job%252Fconfig.yaml?gitCommitID=9bf2157")
        );
        if level.is_empty() {
            assert!(
                requests[2].ends_with("/project/real/resource/job%252Fconfig.yaml"),
                "{requests:?}"
            );
        }
        assert_eq!(service.keptn.events()[1]["gitcommitid"], "9bf2157");
        service.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_config_or_a_match_there_is_nothing_to_do() {
    let service = Tester::start(&config(&task("hello"))).await;
    let mut other = triggered("event-1");
    other["type"] = "sh.keptn.event.deployment.triggered".into();
    assert_eq!(
        service.receives(&other).await,
        (
            200,
            "no action of job/config.yaml matches the event: `Run tests`: line 5: the type does not match \
             sh.keptn.event.test.triggered"
                .into()
        )
    );
    service.keptn.has_not("dev/svc", "job/config.yaml");
    let no_config = "no job/config.yaml on service, stage or project level";
    assert_eq!(
        service.receives(&triggered("event-2")).await,
        (200, no_config.into())
    );
    let mut no_project = triggered("event-3");
    no_project["data"] = json!({"a": 1});
    assert_eq!(service.receives(&no_project).await.0, 200);
    assert_snapshot!(service.finish().await, @"");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_starts_nothing() {
    let service = Tester::start(&config(&task("once"))).await;
    let event = triggered("event-1");
    let (first, second) = tokio::join!(service.receives(&event), service.receives(&event));
    assert_eq!((first.0, second.0), (202, 202));
    service.answers(2).await;
    service.cluster.all_reported().await;
    assert_eq!(
        service.receives(&event).await,
        (202, "the event was seen before".into())
    );
    // The same id of another source is another event.
    let mut other = event;
    other["source"] = "somebody".into();
    assert_eq!(
        service.receives(&other).await,
        (202, "the run is started".into())
    );
    service.answers(4).await;
    assert_snapshot!(service.finish().await, @"
    job created: once JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'once' finished successfully!⏎⏎Logs:⏎⏎⏎
    job created: once JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'once' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_again_after_its_config_was_changed_starts_nothing() {
    let service = Tester::start(&config(&task("once"))).await;
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    let other =
        "apiVersion: v2\nactions: [{events: []}, {events: [{}], tasks: [{name: b, image: i}]}]";
    service.keptn.has("dev/svc", "job/config.yaml", other);
    assert_eq!(
        service.receives_triggered().await,
        (202, "the event was seen before".into())
    );
    assert_snapshot!(service.finish().await, @"
    job created: once JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'once' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn above_the_limit_runs_wait_in_the_cluster_and_are_released_in_order() {
    let service = Tester::with(&config(&task("long")), &["--max-concurrent-runs=1"]).await;
    service.cluster.task("long").never_ends();
    for id in ["a", "b", "c"] {
        assert_eq!(service.receives(&triggered(id)).await.0, 202);
    }
    service.answers(3).await;
    let queued = |job: &&Value| job["spec"]["suspend"] == true;
    assert_eq!(service.cluster.jobs().iter().filter(queued).count(), 2);
    service.cluster.task("long").ends();
    service.answers(6).await;
    let order: Vec<Value> = service
        .keptn
        .events()
        .iter()
        .map(|event| event["triggeredid"].clone())
        .collect();
    assert_eq!(order, ["a", "b", "c", "a", "b", "c"]);
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_run_is_taken_over_by_the_next_process() {
    let tasks = [task("first"), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.cluster.task("first").never_ends();
    service.receives_triggered().await;
    service.answers(1).await;
    service.cluster.is_marked_started().await;
    service.crashes().await;
    service.cluster.task("first").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_not_marked_to_its_end_is_not_started_again() {
    let tasks = [task("first"), task("second")].concat();
    let mut service = Tester::start(&config(&tasks)).await;
    service.receives_triggered().await;
    service.answers(2).await;
    service.cluster.all_reported().await;
    service.cluster.loses_its_mark("first");
    service.crashes().await;
    assert_snapshot!(service.finish().await, @"
    job created: first JOB-000-001
    event sh.keptn.event.test.started
    job created: second JOB-000-002
    event sh.keptn.event.test.finished succeeded pass: Task 'first' finished successfully!⏎⏎Logs:⏎⏎⏎Task 'second' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_in_the_middle_of_an_answer_sends_it_once() {
    let mut service = Tester::start(&config(&task("slow"))).await;
    service.cluster.task("slow").never_ends();
    service.keptn.holds_its_answers(true);
    service.receives_triggered().await;
    service.answers(1).await;
    let keptn = service.keptn.clone();
    let cluster = service.cluster.clone();
    let rollout = service.is_rolled_out();
    let answer = async {
        keptn.holds_its_answers(false);
        cluster.is_marked_started().await;
    };
    tokio::join!(rollout, answer);
    service.cluster.task("slow").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: slow JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'slow' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_an_answer_and_its_mark_sends_it_once_where_keptn_can_be_asked() {
    let mut service = Tester::start(&config(&task("slow"))).await;
    service.cluster.task("slow").never_ends();
    service.cluster.answers_with(&Method::PATCH, &[503; 100]);
    service.receives_triggered().await;
    service.answers(1).await;
    service.crashes().await;
    service.cluster.answers_truly_again();
    service.cluster.is_marked_started().await;
    service.cluster.task("slow").ends();
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: slow JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'slow' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}
