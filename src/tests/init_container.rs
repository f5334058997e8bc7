//! The files of a task, as its container finds them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use insta::assert_snapshot;

use super::Transcript;
use super::keptn::Keptn;
use crate::cli;
use crate::init_container;

/// With the address where it listens.
async fn keptn() -> (Keptn, SocketAddr) {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let keptn = Keptn::new(Transcript::default());
    for name in [
        "job/config.yaml",
        "locust/basic.py",
        "locust/import.py",
        "locust/deep/er/x.txt",
        "helm/values.yaml",
        "helm-abc/no.yaml",
        "helmDEFG",
        "a+b.txt",
        "my file.txt",
        "100%.txt",
        ".gitlab-ci.yml",
        "ünï/ö.txt",
    ] {
        keptn.has("dev/svc", name, format!("content of {name}"));
    }
    keptn.has("dev/svc", "empty", "");
    keptn.has("dev/svc", "binary", (0..=255).collect::<Vec<u8>>());
    let address = keptn.listens("127.0.0.1:0").await;
    (keptn, address)
}

/// For the service of the tests, without files.
pub(super) fn flags(address: SocketAddr, directory: &Path) -> Vec<String> {
    vec![
        format!("--configuration-service=http://{address}/configuration-service"),
        format!("--directory={}", directory.display()),
        "--project=real".into(),
        "--stage=dev".into(),
        "--service=svc".into(),
    ]
}

async fn fetched(address: SocketAddr, files: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = flags(address, directory.path());
    arguments.push("--git-commit-id=9bf2157".into());
    arguments.extend(files.iter().map(|file| format!("--file={file}")));
    let settings = cli::init_settings(&arguments);
    init_container::run(settings)
        .await
        .map_err(|error| format!("{error:#}"))?;
    let mut found = BTreeMap::new();
    collect(directory.path(), "", &mut found);
    Ok(found)
}

fn collect(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            collect(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
}

async fn names(address: SocketAddr, files: &[&str]) -> String {
    match fetched(address, files).await {
        Ok(found) => found.keys().cloned().collect::<Vec<_>>().join(" "),
        Err(error) => error,
    }
}

#[tokio::test]
async fn files_and_directories_are_found_under_their_names() {
    let (_, address) = keptn().await;
    let report = [
        names(address, &["locust/basic.py", "locust/import.py"]).await,
        names(address, &["/locust/basic.py"]).await,
        names(address, &["locust"]).await,
        names(address, &["helm"]).await,
        names(address, &["helm/", "helmDEFG"]).await,
        names(
            address,
            &["a+b.txt", "my file.txt", "100%.txt", "ünï/ö.txt"],
        )
        .await,
        names(address, &[".gitlab-ci.yml", "empty"]).await,
        names(address, &["/"]).await,
    ]
    .join("\n");
    assert_snapshot!(report, @"
    locust/basic.py locust/import.py
    locust/basic.py
    locust/basic.py locust/deep/er/x.txt locust/import.py
    helm/values.yaml
    helm/values.yaml helmDEFG
    100%.txt a+b.txt my file.txt ünï/ö.txt
    .gitlab-ci.yml empty
    100%.txt a+b.txt binary empty helm-abc/no.yaml helm/values.yaml helmDEFG job/config.yaml locust/basic.py locust/deep/er/x.txt locust/import.py my file.txt ünï/ö.txt
    ");
}

#[tokio::test]
async fn files_come_from_other_levels_and_by_patterns() {
    let (keptn, address) = keptn().await;
    keptn.has("dev", "shared/of-stage.jmx", "");
    keptn.has("", "shared/of-project.jmx", "");
    let report = [
        names(address, &["stage:/shared", "project:/shared"]).await,
        names(address, &["stage:/shared/*.jmx", "/locust/*.py"]).await,
        names(address, &["**/*.txt"]).await,
        names(address, &["helm*"]).await,
        names(address, &["stage:/none"]).await,
        names(address, &["project:/*.none"]).await,
    ]
    .join("\n");
    assert_snapshot!(report, @"
    shared/of-project.jmx shared/of-stage.jmx
    locust/basic.py locust/import.py shared/of-stage.jmx
    100%.txt a+b.txt locust/deep/er/x.txt my file.txt ünï/ö.txt
    helm-abc/no.yaml helm/values.yaml helmDEFG
    could not find file or directory `none` of stage `dev` in project `real`
    could not find file or directory `*.none` of project `real`
    ");
    let asked = keptn.requests().join("\n");
    let of_project: Vec<&str> = asked
        .lines()
        .filter(|path| !path.contains("/stage/"))
        .collect();
    assert!(!of_project.is_empty() && !of_project.iter().any(|path| path.contains("gitCommitID")));
}

#[tokio::test]
async fn content_arrives_byte_by_byte() {
    let found = fetched(keptn().await.1, &["binary", "empty", "locust"])
        .await
        .unwrap();
    assert_eq!(found["binary"], (0..=255).collect::<Vec<u8>>());
    assert_eq!(found["empty"], b"");
    assert_eq!(
        found["locust/deep/er/x.txt"],
        b"content of locust/deep/er/x.txt"
    );
}

#[tokio::test]
async fn a_single_file_costs_one_request_and_carries_the_commit() {
    let (keptn, address) = keptn().await;
    fetched(address, &["locust/basic.py"]).await.unwrap();
    assert_eq!(
        keptn.requests(),
        [
            "/configuration-service/v1/project/real/stage/dev/service/svc/resource/locust%252Fbasic.py?gitCommitID=9bf2157"
        ]
    );
}

#[tokio::test]
async fn trouble_is_waited_out() {
    let (keptn, address) = keptn().await;
    keptn.answers_resources_with(&[503, 500, 502]);
    assert_eq!(
        names(address, &["locust/basic.py"]).await,
        "locust/basic.py"
    );
}

#[tokio::test]
async fn what_is_missing_or_refused_is_named() {
    let (keptn, address) = keptn().await;
    let missing = names(address, &["locust/basic.py", "nothing/here"]).await;
    keptn.wants_token("secret");
    let refused = names(address, &["locust/basic.py"]).await;
    let refused = refused.replace(&address.to_string(), "KEPTN");
    assert_snapshot!(format!("{missing}\n{refused}"), @r#"
    could not find file or directory `nothing/here` of service `svc` in project `real`, stage `dev`
    http://KEPTN/configuration-service/v1/project/real/stage/dev/service/svc/resource/locust%252Fbasic.py answered 401 Unauthorized: {"code":401,"message":"incorrect api key auth"}
    "#);
}
