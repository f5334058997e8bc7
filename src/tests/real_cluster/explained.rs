//! The Jobs that `explain` prints, before a real API server.

use anstream::adapter::strip_str;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PostParams};
use serde::Deserialize;
use serde_json::Value;

use super::RealCluster;
use crate::cli;
use crate::local::explain;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster"]
async fn explained_jobs_are_accepted_and_nothing_is_created() {
    let cluster = RealCluster::new("explained").await;
    let root = env!("CARGO_MANIFEST_DIR");
    let every_field = format!("{root}/src/tests/configs/valid/every-field.yaml");
    let events = format!("{root}/test-events/events.http");
    let event = format!("{root}/src/tests/events/keptn-0.19.3.json");
    let namespace = format!("--job-namespace={}", cluster.namespace);
    let mut accepted = 0;
    for flags in [
        vec![events.as_str()],
        vec![events.as_str(), "--request=3"],
        vec![
            event.as_str(),
            "--config",
            &every_field,
            "--job-namespace=keptn",
        ],
    ] {
        let mut flags = flags;
        if flags.len() < 4 {
            flags.push(&namespace);
        }
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let settings = cli::explain_settings(&flags).settled();
        explain::told(&settings, &mut out, &mut err).unwrap();
        let out = strip_str(std::str::from_utf8(&out).unwrap()).to_string();
        for document in serde_yaml::Deserializer::from_str(&out) {
            let mut job = Value::deserialize(document).unwrap();
            job["metadata"]["namespace"] = cluster.namespace.clone().into();
            let job: Job = serde_json::from_value(job).unwrap();
            let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
            let dry_run = PostParams {
                dry_run: true,
                ..PostParams::default()
            };
            jobs.create(&dry_run, &job).await.unwrap();
            accepted += 1;
        }
    }
    assert_eq!(accepted, 4);
    assert!(cluster.jobs().await.is_empty());
    cluster.finish().await;
}
