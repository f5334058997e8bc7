//! Where the configuration service is, as Keptn's releases and an operator's settings have it.

use insta::assert_snapshot;

use super::keptn::{Habit, Names, Nothing};
use super::{Tester, config, task, triggered};
use crate::cli;

const BOTH: &str =
    "--configuration-service=http://keptn/configuration-service,http://keptn/resource-service";

/// What a request asked for, short.
fn asked(service: &Tester) -> String {
    let requests = service.keptn.requests();
    let short = requests.iter().map(|request| {
        let request = request.replace("/v1/project/real", "");
        request.replace("/resource/job%252Fconfig.yaml", "")
    });
    short.collect::<Vec<_>>().join("\n")
}

#[tokio::test(start_paused = true)]
async fn the_configuration_service_is_found_under_either_name_and_remembered() {
    let mut reports = Vec::new();
    for names in [
        Names::Configuration,
        Names::Both,
        Names::Resource(Nothing::PlainNotFound),
    ] {
        let service = Tester::with(&config(&task("t")), &[BOTH]).await;
        service.keptn.calls_it(names);
        for event in ["event-1", "event-2"] {
            assert_eq!(service.receives(&triggered(event)).await.0, 202);
        }
        service.answers(4).await;
        reports.push(asked(&service));
        service.finish().await;
    }
    assert_snapshot!(reports.join("\n\n"), @"
    /configuration-service/stage/dev/service/svc
    /configuration-service/stage/dev/service/svc

    /configuration-service/stage/dev/service/svc
    /configuration-service/stage/dev/service/svc

    /resource-service/stage/dev/service/svc
    /resource-service/stage/dev/service/svc
    ");
}

#[tokio::test(start_paused = true)]
async fn without_settings_it_is_looked_for_in_the_cluster_and_gets_no_credentials() {
    let settings = ["--configuration-service=", "--keptn-api-token=x-1"];
    for names in [Names::Configuration, Names::Resource(Nothing::UnknownHost)] {
        let files = config("      - {name: t, image: i, files: [a]}\n");
        let service = Tester::with(&files, &settings).await;
        service.keptn.calls_it(names);
        assert_eq!(service.receives_triggered().await.0, 202);
        assert!(service.keptn.shown().is_empty());
        service.answers(2).await;
        let jobs = service.cluster.jobs();
        let container = &jobs[0]["spec"]["template"]["spec"]["initContainers"][0];
        assert_eq!(
            container["env"][0]["value"],
            "http://configuration-service:8080/,http://resource-service:8080/"
        );
        assert!(!container.to_string().contains("KEPTN_API_TOKEN"));
        service.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_under_one_name_is_not_taken_as_no_config_under_the_other() {
    for nothing in [
        Nothing::UnknownHost,
        Nothing::PlainNotFound,
        Nothing::PathNotFound,
    ] {
        let service = Tester::with("", &[BOTH]).await;
        service.keptn.calls_it(Names::Resource(nothing));
        service.keptn.has_not("dev/svc", "job/config.yaml");
        service
            .keptn
            .has("", "job/config.yaml", config(&task("of the project")));
        assert_eq!(service.receives_triggered().await.0, 202, "{nothing:?}");
        service.answers(2).await;
        service.keptn.has_not("", "job/config.yaml");
        let (status, reason) = service.receives(&triggered("event-2")).await;
        assert_eq!(status, 200, "{reason}");
        service.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_address_does_not_have_is_not_believed_while_another_is_in_trouble() {
    let service = Tester::with("", &[BOTH]).await;
    service.keptn.calls_it(Names::Resource(Nothing::Refuses));
    service.keptn.has_not("dev/svc", "job/config.yaml");
    assert_eq!(service.receives_triggered().await.0, 503);
    service
        .keptn
        .has("dev", "job/config.yaml", config(&task("of the stage")));
    service.keptn.calls_it(Names::Configuration);
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @"
    job created: of_the_stage JOB-000-001
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished succeeded pass: Task 'of the stage' finished successfully!⏎⏎Logs:⏎⏎⏎
    ");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_of_keptn_that_changes_the_name_needs_no_restart() {
    let service = Tester::with(&config(&task("t")), &[BOTH]).await;
    assert_eq!(service.receives(&triggered("event-1")).await.0, 202);
    service
        .keptn
        .calls_it(Names::Resource(Nothing::UnknownHost));
    assert_eq!(service.receives(&triggered("event-2")).await.0, 202);
    // Trouble does not change the name.
    service.keptn.answers_resources_with(&[503]);
    assert_eq!(service.receives(&triggered("event-3")).await.0, 202);
    service.answers(6).await;
    assert_snapshot!(asked(&service), @"
    /configuration-service/stage/dev/service/svc
    /resource-service/stage/dev/service/svc
    /resource-service/stage/dev/service/svc
    /resource-service/stage/dev/service/svc
    ");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_address_is_told_and_never_taken_as_no_config() {
    let service = Tester::with(
        &config(&task("t")),
        &["--configuration-service=http://keptn/wrong"],
    )
    .await;
    assert_eq!(service.receives_triggered().await.0, 503);
    tokio::time::advance(std::time::Duration::from_secs(8 * 60)).await;
    service.answers(2).await;
    assert_snapshot!(service.finish().await, @r#"
    event sh.keptn.event.test.started
    event sh.keptn.event.test.finished errored fail: cannot read job/config.yaml: http://keptn/wrong/v1/project/real/stage/dev/service/svc/resource/job%252Fconfig.yaml is no address of Keptn's configuration service, it answered 404: {"code":404,"message":"path was not found"} (tried for 8 minutes)
    "#);
}

#[tokio::test(start_paused = true)]
async fn through_the_gateway_both_names_are_tried_with_the_credentials() {
    let settings = [
        "--configuration-service=",
        "--keptn-api-endpoint=http://keptn/",
        "--keptn-api-token=x-1",
    ];
    let service = Tester::with(&config(&task("t")), &settings).await;
    service
        .keptn
        .calls_it(Names::Resource(Nothing::PathNotFound));
    assert_eq!(service.receives_triggered().await.0, 202);
    assert_eq!(service.keptn.shown(), ["x-token: x-1"]);
    service.answers(2).await;
    assert_snapshot!(asked(&service), @"/resource-service/stage/dev/service/svc");
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn both_names_away_are_waited_for() {
    let service = Tester::with(&config(&task("t")), &[BOTH]).await;
    service.keptn.resources(Habit::Refuses);
    assert_eq!(service.receives_triggered().await.0, 503);
    service.keptn.resources(Habit::Works);
    service.answers(2).await;
    service.finish().await;
}

#[test]
fn init_containers_are_told_an_address_that_they_reach() {
    let own = "--init-container-configuration-service-api-endpoint=http://own";
    let sidecar = "--configuration-service=http://localhost:8081/configuration-service";
    let later = "--configuration-service=http://localhost:8081/resource-service";
    let api = "--keptn-api-endpoint=https://keptn.example.com/api";
    let report: Vec<String> = [
        &[] as &[&str],
        &[api],
        &[sidecar],
        &[sidecar, api],
        &[later, api],
        &[later, api, own],
        &[
            "--configuration-service=http://resource-service.keptn:8080",
            api,
        ],
    ]
    .iter()
    .map(|flags| {
        let flags: Vec<String> = flags.iter().map(ToString::to_string).collect();
        let settings = cli::serve_settings(&flags);
        settings.resources_for_init_containers().to_string()
    })
    .collect();
    assert_snapshot!(report.join("\n"), @"
    http://configuration-service:8080/,http://resource-service:8080/
    https://keptn.example.com/api/configuration-service,https://keptn.example.com/api/resource-service
    http://localhost:8081/configuration-service
    https://keptn.example.com/api/configuration-service
    https://keptn.example.com/api/resource-service
    http://own/
    http://resource-service.keptn:8080/
    ");
}
