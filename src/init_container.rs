//! The command `init`: fetches the files of one task from Keptn's configuration service and writes
//! them below /keptn, before the task's container starts.

mod files;

use std::time::Duration;

use anyhow::{Context, bail};
use backon::{ExponentialBuilder, Retryable};
use reqwest::StatusCode;

use crate::cli::InitSettings;
use crate::event::EventScope;
use crate::job_config::fields::ResourceUri;
use crate::keptn::credentials::Credentials;
use crate::keptn::resources::{FetchError, Level, Resources};
use crate::keptn::{self, Http, SendError, Transport};
use crate::telemetry::error_chain;
use files::Directory;

/// For one request; a file may be large.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One file. It is in memory three times: as JSON, as base64 and as bytes.
const MAX_FILE_BYTES: usize = 64 << 20;

/// How long a configuration service that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);

struct Fetcher<'a> {
    resources: Resources,
    scope: EventScope,
    commit: Option<String>,
    directory: Directory,
    /// All files of the service, asked for once, when the first directory is met.
    listed: Option<Vec<String>>,
    /// Gets a line about each file.
    say: &'a (dyn Fn(&str) + Sync),
}

pub(crate) fn main(settings: InitSettings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime
        .block_on(run(settings))
        .context("cannot copy the task's files")
}

pub(crate) async fn run(settings: InitSettings) -> anyhow::Result<()> {
    let transport = keptn::connecting(settings.access.certificates)
        .context("cannot make the HTTP client for Keptn")?;
    fetch(settings, &transport, &|line| eprintln!("{line}")).await
}

/// Over this way to Keptn; `say` gets a line about each file.
pub(crate) async fn fetch(
    settings: InitSettings,
    transport: &Transport,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<()> {
    let mut fetcher = Fetcher {
        resources: Resources::new(
            Http::over(transport.clone(), TIMEOUT),
            settings.configuration_service,
            Credentials::new(settings.access.token, settings.access.oauth, transport),
        ),
        scope: EventScope {
            project: settings.project,
            stage: settings.stage,
            service: settings.service,
        },
        commit: settings.git_commit_id,
        directory: Directory::open(&settings.directory)?,
        listed: None,
        say,
    };
    for file in &settings.files {
        fetcher.copy(file).await?;
    }
    Ok(())
}

impl Fetcher<'_> {
    /// Copies the file of this name, or else all files of the directory of this name.
    async fn copy(&mut self, entry: &ResourceUri) -> anyhow::Result<()> {
        if !entry.as_str().is_empty() && self.copy_file(entry).await? {
            return Ok(());
        }
        let below: Vec<String> = self
            .listed()
            .await?
            .iter()
            .filter(|name| is_below(name, entry.as_str()))
            .cloned()
            .collect();
        let mut copied = false;
        for name in below {
            let file = ResourceUri::parse(&name).map_err(anyhow::Error::msg)?;
            // One that the commit does not have was added later.
            copied |= self.copy_file(&file).await?;
        }
        if !copied {
            let EventScope {
                project,
                stage,
                service,
            } = &self.scope;
            bail!(
                "could not find file or directory `{entry}` of service `{}` in project `{}`, stage `{}`",
                service.as_deref().unwrap_or_default(),
                project.as_deref().unwrap_or_default(),
                stage.as_deref().unwrap_or_default()
            );
        }
        Ok(())
    }

    async fn copy_file(&mut self, file: &ResourceUri) -> anyhow::Result<bool> {
        let Some(content) = self.content(file).await? else {
            return Ok(false);
        };
        let written = self.directory.write(file, &content)?;
        (self.say)(&format!(
            "successfully copied file {file} to {} ({} bytes)",
            written.display(),
            content.len()
        ));
        Ok(true)
    }

    async fn content(&mut self, file: &ResourceUri) -> Result<Option<Vec<u8>>, FetchError> {
        match self.get(file).await {
            // Both of Keptn's services answer 500 where the name is a directory; a list tells it from a
            // service in trouble.
            Err(FetchError::Status {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                ..
            }) if self.is_directory(file).await? => Ok(None),
            Err(error) if is_transient(&error) => {
                (self.say)(&format!("trying again: {}", error_chain(&error)));
                let get = || self.get(file);
                get.retry(patient()).when(is_transient).await
            }
            other => other,
        }
    }

    async fn get(&self, file: &ResourceUri) -> Result<Option<Vec<u8>>, FetchError> {
        let commit = self.commit.as_deref();
        self.resources
            .get(
                &self.scope,
                Level::Service,
                file.as_str(),
                commit,
                MAX_FILE_BYTES,
            )
            .await
    }

    async fn is_directory(&mut self, file: &ResourceUri) -> Result<bool, FetchError> {
        let listed = self.listed().await?;
        let exact = listed.iter().any(|name| name == file.as_str());
        Ok(!exact && listed.iter().any(|name| is_below(name, file.as_str())))
    }

    async fn listed(&mut self) -> Result<&[String], FetchError> {
        if self.listed.is_none() {
            let list = || self.resources.list(&self.scope, Level::Service);
            let names = list.retry(patient()).when(is_transient).await?;
            self.listed = Some(names);
        }
        Ok(self.listed.as_deref().unwrap_or_default())
    }
}

/// By path segments: `helm` has `helm/x`, and neither `helm-abc` nor `helmDEFG`.
fn is_below(name: &str, directory: &str) -> bool {
    directory.is_empty()
        || name
            .strip_prefix(directory)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn patient() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times()
        .with_total_delay(Some(PATIENCE))
        .with_jitter()
}

fn is_transient(error: &FetchError) -> bool {
    match error {
        FetchError::Unreachable { source, .. } => !matches!(source, SendError::Untrusted(_)),
        FetchError::Status { status, .. } => {
            status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
        }
        FetchError::NoToken(error) => error.is_transient(),
        FetchError::Elsewhere { .. }
        | FetchError::TooLarge { .. }
        | FetchError::Malformed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_below;

    #[test]
    fn a_directory_is_matched_by_path_segments() {
        assert!(is_below("helm/values.yaml", "helm"));
        assert!(is_below("helm/a/b", "helm"));
        assert!(is_below("x", ""));
        for name in ["helm", "helm-abc/x", "helmDEFG", "a/helm/x"] {
            assert!(!is_below(name, "helm"), "{name}");
        }
    }
}
