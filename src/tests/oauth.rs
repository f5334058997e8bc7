//! A Keptn that is protected by an OAuth server.

use std::time::Duration;

use futures::future::join_all;
use insta::assert_snapshot;
use serde_json::json;

use super::keptn::{Habit, Keptn, OAuthServer, Takes};
use super::{Tester, Transcript, config, task, triggered};
use crate::{cli, init_container};

const CLIENT: [&str; 4] = [
    "--oauth-client-id=jes",
    "--oauth-client-secret=client+secret",
    "--oauth-scopes=openid,keptn",
    "--oauth-token-url=http://keptn/oauth/token",
];

async fn protected(server: impl FnOnce(&mut OAuthServer)) -> Tester {
    with(&config(&task("t")), &CLIENT, server).await
}

async fn with(config: &str, settings: &[&str], server: impl FnOnce(&mut OAuthServer)) -> Tester {
    let service = Tester::with(config, settings).await;
    service.keptn.is_protected(server);
    service
}

fn issued(service: &Tester) -> usize {
    service.keptn.is_protected(|server| server.issued())
}

#[tokio::test(start_paused = true)]
async fn a_token_is_fetched_when_it_is_needed_and_kept_until_it_expires() {
    let service = protected(|server| server.expires_in = Some(json!(100))).await;
    assert_eq!(issued(&service), 0);
    for (event, issued_then) in [("event-1", 1), ("event-2", 1)] {
        assert_eq!(service.receives(&triggered(event)).await.0, 202);
        assert_eq!(issued(&service), issued_then);
    }
    // Ten seconds before it expires.
    tokio::time::advance(Duration::from_secs(91)).await;
    assert_eq!(service.receives(&triggered("event-3")).await.0, 202);
    assert_eq!(issued(&service), 2);
    assert_eq!(
        service.keptn.shown(),
        ["authorization: Bearer access-token-2"]
    );
    service.answers(6).await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_without_an_end_is_kept_until_it_is_refused() {
    let service = protected(|_| ()).await;
    service.receives(&triggered("event-1")).await;
    tokio::time::advance(Duration::from_secs(24 * 3600)).await;
    service.receives(&triggered("event-2")).await;
    assert_eq!(issued(&service), 1);
    service.keptn.is_protected(OAuthServer::revokes);
    assert_eq!(service.receives(&triggered("event-3")).await.0, 202);
    assert_eq!(issued(&service), 2);
    service.answers(6).await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn events_that_come_at_once_share_a_token_and_keptns_own_goes_with_it() {
    let settings = [&CLIENT[..], &["--keptn-api-token=x-1"]].concat();
    let service = with(&config(&task("t")), &settings, |_| ()).await;
    let events: Vec<_> = (0..20).map(|n| triggered(&format!("event-{n}"))).collect();
    let answers = join_all(events.iter().map(|event| service.receives(event))).await;
    assert!(answers.iter().all(|(status, _)| *status == 202));
    assert_eq!(issued(&service), 1);
    assert_eq!(
        service.keptn.shown(),
        ["x-token: x-1", "authorization: Bearer access-token-1"]
    );
    service.answers(40).await;
    service.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_oauth_server_in_trouble_is_waited_out() {
    for habit in [Habit::Answers(503), Habit::Refuses, Habit::Hangs] {
        let service = protected(|_| ()).await;
        service.keptn.oauth_server(habit);
        let ends = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            service.keptn.oauth_server(Habit::Works);
        };
        tokio::join!(service.receives_triggered(), ends);
        service.answers(2).await;
        let told = service.finish().await;
        insta::allow_duplicates!(assert_snapshot!(told, @"
        job created: t JOB-000-001
        event sh.keptn.event.test.started
        event sh.keptn.event.test.finished succeeded pass: Task 't' finished successfully!⏎⏎Logs:⏎⏎⏎
        "));
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_endpoint_is_discovered_and_never_less_protected_than_the_document() {
    let discovery = |address| [CLIENT[0], CLIENT[1], CLIENT[2], address];
    let settings = discovery("--oauth-discovery=http://keptn/oauth/discovery");
    let service = with(&config(&task("t")), &settings, |_| ()).await;
    assert_eq!(service.receives_triggered().await.0, 202);
    service.answers(2).await;
    service.finish().await;

    let settings = discovery("--oauth-discovery=https://keptn/oauth/discovery");
    for endpoint in ["http://keptn/oauth/token", "file:///token", "token"] {
        let service = with(&config(&task("t")), &settings, |server| {
            server.endpoint = Some(endpoint.into());
        })
        .await;
        service.receives_triggered().await;
        let told = async {
            while service.keptn.events().len() < 2 {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
        };
        told.await;
        assert_eq!(issued(&service), 0);
        let told = service.finish().await;
        insta::allow_duplicates!(assert_snapshot!(told, @"
        event sh.keptn.event.test.started
        event sh.keptn.event.test.finished errored fail: cannot read job/config.yaml: there is no access token for Keptn's configuration service: the OAuth server https://keptn/oauth/discovery sent a `token_endpoint` that cannot be used (tried for 8 minutes)
        "));
    }
}

#[tokio::test(start_paused = true)]
async fn init_containers_get_a_reference_to_the_secret_and_no_secret() {
    let files = config("      - {name: t, image: i, files: [a]}\n      - {name: u, image: i}\n");
    let settings = [
        &CLIENT[..],
        &["--keptn-api-token=x-1", "--http-ssl-verify=false"],
    ]
    .concat();
    let service = with(&files, &settings, |_| ()).await;
    service.receives_triggered().await;
    service.answers(2).await;
    let jobs = service.cluster.jobs();
    let pod = &jobs[0]["spec"]["template"]["spec"];
    let env = pod["initContainers"][0]["env"].as_array().unwrap();
    let env: Vec<String> = env.iter().map(ToString::to_string).collect();
    assert_snapshot!(env.join("\n"), @r#"
    {"name":"CONFIGURATION_SERVICE","value":"http://keptn/configuration-service"}
    {"name":"KEPTN_PROJECT","value":"real"}
    {"name":"KEPTN_STAGE","value":"dev"}
    {"name":"KEPTN_SERVICE","value":"svc"}
    {"name":"HTTP_SSL_VERIFY","value":"false"}
    {"name":"OAUTH_CLIENT_ID","value":"jes"}
    {"name":"OAUTH_SCOPES","value":"openid,keptn"}
    {"name":"OAUTH_TOKEN_URL","value":"http://keptn/oauth/token"}
    {"name":"KEPTN_API_TOKEN","valueFrom":{"secretKeyRef":{"key":"token","name":"job-service-keptn-secrets","optional":true}}}
    {"name":"OAUTH_CLIENT_SECRET","valueFrom":{"secretKeyRef":{"key":"oauth_client_secret","name":"job-service-keptn-secrets","optional":true}}}
    "#);
    assert!(!jobs[1].to_string().contains("OAUTH"));
    let all = format!("{jobs:?}{:?}", service.keptn.events());
    for secret in ["client+secret", "access-token", "x-1"] {
        assert!(!all.contains(secret), "{secret}");
    }
    service.finish().await;
}

/// What the command `init` says to a Keptn that is like this, with the tokens that were given.
async fn fetched(server: impl FnOnce(&mut OAuthServer), flags: &[&str]) -> (String, usize) {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let keptn = Keptn::new(Transcript::default());
    keptn.has("dev/svc", "a", "content");
    keptn.is_protected(server);
    let address = keptn.listens("127.0.0.1:0").await;
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = super::init_container::flags(address, directory.path());
    arguments.push("--file=a".into());
    let local = |flag: &&str| flag.replace("//keptn", &format!("//{address}"));
    arguments.extend(flags.iter().map(local));
    let result = init_container::run(cli::init_settings(&arguments)).await;
    let told = match result {
        Ok(()) => "copied".to_owned(),
        Err(error) => format!("{error:#}").replace(&address.to_string(), "KEPTN"),
    };
    (told, keptn.is_protected(|server| server.issued()))
}

#[tokio::test]
async fn servers_that_take_the_client_in_the_body_get_it_there() {
    for takes in [Takes::Header, Takes::Body] {
        let told = fetched(|server| server.takes = takes, &CLIENT).await;
        assert_eq!(told, ("copied".into(), 1));
    }
}

#[tokio::test]
async fn a_token_that_is_refused_again_is_told_and_not_fetched_for_ever() {
    let short_lived = |server: &mut OAuthServer| server.refuses_all = true;
    let (told, issued) = fetched(short_lived, &CLIENT).await;
    assert_eq!(issued, 2);
    assert_snapshot!(told, @r#"http://KEPTN/configuration-service/v1/project/real/stage/dev/service/svc/resource/a answered 401 Unauthorized: {"code":401,"message":"no valid access token"}"#);
}

#[tokio::test]
async fn errors_name_the_oauth_server_and_repeat_nothing_of_what_it_says() {
    let wrong = [
        CLIENT[0],
        "--oauth-client-secret=wrong",
        CLIENT[2],
        CLIENT[3],
    ];
    let scope = [CLIENT[0], CLIENT[1], "--oauth-scopes=admin", CLIENT[3]];
    let says = |code: u16, body: &'static str| {
        move |server: &mut OAuthServer| server.troubles = vec![(code, body.to_owned()); 2]
    };
    let echo = r#"{"error": "client+secret", "error_description": "client+secret"}"#;
    let report = [
        fetched(|_| (), &wrong).await.0,
        fetched(|_| (), &scope).await.0,
        fetched(says(400, echo), &CLIENT).await.0,
        fetched(says(200, "\"client+secret\""), &CLIENT).await.0,
        fetched(says(200, r#"{"access_token": "two words"}"#), &CLIENT)
            .await
            .0,
        fetched(
            says(200, r#"{"access_token": "x", "token_type": "mac"}"#),
            &CLIENT,
        )
        .await
        .0,
        fetched(says(302, ""), &CLIENT).await.0,
    ]
    .join("\n");
    assert_snapshot!(report, @"
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token answered 401 Unauthorized: invalid_client
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token answered 401 Unauthorized: invalid_scope
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token answered 400 Bad Request
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token sent no token
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token sent a token that no header can carry
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token sent a token that is no bearer token
    there is no access token for Keptn's configuration service: the OAuth server http://KEPTN/oauth/token answered 302 Found
    ");
}
