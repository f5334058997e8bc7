//! The command `init`: fetches the files of one task from Keptn's configuration service and writes
//! them below /keptn, before the task's container starts.

mod chosen;
mod files;

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use backon::{ExponentialBuilder, Retryable};
use reqwest::StatusCode;

use crate::cli::InitSettings;
use crate::event::EventScope;
use crate::job_config::files::{FileEntry, Level, ResourceUri};
use crate::keptn::credentials::Credentials;
use crate::keptn::resources::{FetchError, Resources};
use crate::keptn::{self, Http, SendError, Transport};
use crate::telemetry::error_chain;
use chosen::{Chosen, is_below};
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
    /// All files of a level, asked for once, when the first directory or pattern of it is met.
    listed: HashMap<Level, Vec<String>>,
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
        listed: HashMap::new(),
        say,
    };
    for file in &settings.files {
        fetcher.copy(file).await?;
    }
    Ok(())
}

impl Fetcher<'_> {
    /// Copies the file of this name, or else all files that it stands for.
    async fn copy(&mut self, entry: &FileEntry) -> anyhow::Result<()> {
        let chosen = Chosen::by(&entry.path);
        // A list leaves some names out, which can be asked for all the same.
        let may_be_a_file = !chosen.is_pattern() && !entry.path.as_str().is_empty();
        if may_be_a_file && self.copy_file(entry.level, &entry.path).await? {
            return Ok(());
        }
        let names = chosen.of(self.listed(entry.level).await?);
        let mut copied = false;
        for name in names {
            let file = ResourceUri::parse(&name).map_err(anyhow::Error::msg)?;
            // One that the commit does not have was added later.
            copied |= self.copy_file(entry.level, &file).await?;
        }
        if !copied {
            bail!(
                "could not find file or directory `{}` of {}",
                entry.path,
                self.place(entry.level)
            );
        }
        Ok(())
    }

    /// A level in words.
    fn place(&self, level: Level) -> String {
        let EventScope {
            project,
            stage,
            service,
        } = &self.scope;
        let [project, stage, service] =
            [project, stage, service].map(|name| name.as_deref().unwrap_or_default());
        match level {
            Level::Service => {
                format!("service `{service}` in project `{project}`, stage `{stage}`")
            }
            Level::Stage => format!("stage `{stage}` in project `{project}`"),
            Level::Project => format!("project `{project}`"),
        }
    }

    async fn copy_file(&mut self, level: Level, file: &ResourceUri) -> anyhow::Result<bool> {
        let Some(content) = self.content(level, file).await? else {
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

    async fn content(
        &mut self,
        level: Level,
        file: &ResourceUri,
    ) -> Result<Option<Vec<u8>>, FetchError> {
        match self.get(level, file).await {
            // Both of Keptn's services answer 500 where the name is a directory; a list tells it from a
            // service in trouble.
            Err(FetchError::Status {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                ..
            }) if self.is_directory(level, file).await? => Ok(None),
            Err(error) if is_transient(&error) => {
                (self.say)(&format!("trying again: {}", error_chain(&error)));
                let get = || self.get(level, file);
                get.retry(patient()).when(is_transient).await
            }
            other => other,
        }
    }

    async fn get(&self, level: Level, file: &ResourceUri) -> Result<Option<Vec<u8>>, FetchError> {
        // The commit is one of the stage's branch.
        let commit = self.commit.as_deref().filter(|_| level != Level::Project);
        self.resources
            .get(&self.scope, level, file.as_str(), commit, MAX_FILE_BYTES)
            .await
    }

    async fn is_directory(&mut self, level: Level, file: &ResourceUri) -> Result<bool, FetchError> {
        let listed = self.listed(level).await?;
        let exact = listed.iter().any(|name| name == file.as_str());
        Ok(!exact && listed.iter().any(|name| is_below(name, file.as_str())))
    }

    async fn listed(&mut self, level: Level) -> Result<&[String], FetchError> {
        if !self.listed.contains_key(&level) {
            let list = || self.resources.list(&self.scope, level);
            let names = list.retry(patient()).when(is_transient).await?;
            self.listed.insert(level, names);
        }
        Ok(self.listed.get(&level).map_or(&[], Vec::as_slice))
    }
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
        // A gateway that is just being changed; what is wrong for good is told after the same patience.
        FetchError::Elsewhere { .. } => true,
        FetchError::TooLarge { .. } | FetchError::Malformed { .. } => false,
    }
}
