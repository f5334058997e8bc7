//! The settings of the commands that need no cluster.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use reqwest::Url;

use super::settings::{ServeSettings, TaskSettings};
use crate::job_config::fields::{Image, ObjectName};
use crate::local::event_file::{self, EventRequest};
use crate::local::runtime::Kind;
use crate::local::story::Format;

/// Larger than any request that the service takes.
const MAX_EVENT_FILE_BYTES: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(crate) struct RunSettings {
    #[command(flatten)]
    pub(crate) event: EventSource,

    #[command(flatten)]
    pub(crate) desk: DeskSettings,
}

/// Where an event comes from.
#[derive(Debug, Args)]
pub(crate) struct EventSource {
    /// File with a `CloudEvent` as JSON, or with HTTP requests such as those in test-events/; `-` is
    /// standard input.
    #[arg(value_name = "EVENT")]
    file: PathBuf,

    /// Which request of the file, by its number or name [default: the first].
    #[arg(long, value_name = "NUMBER|NAME")]
    request: Option<String>,
}

/// The surroundings of the service at a desk.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeskSettings {
    /// Directory laid out as Keptn's repository (`<project>/<stage>/<service>/job/config.yaml`), or one
    /// service's files.
    #[arg(long, value_name = "DIR", default_value = ".", value_parser = directory)]
    resources: PathBuf,

    /// File that is the service's job/config.yaml, whatever the directory has.
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub(crate) config: Option<PathBuf>,

    /// What runs the tasks.
    #[arg(long, value_enum, default_value_t = Kind::Process)]
    pub(crate) runtime: Kind,

    /// A Secret for tasks that name it: a file with lines `KEY=value`.
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = secret)]
    secrets: Vec<(ObjectName, PathBuf)>,

    /// How it is told.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    #[command(flatten)]
    pub(crate) tasks: TaskSettings,
}

impl EventSource {
    /// The request that is meant, or what is wrong with the file.
    pub(crate) fn read(&self) -> Result<EventRequest, String> {
        let in_file = |reason: String| format!("{}: {reason}", self.file.display());
        let bytes = self.bytes().map_err(|error| in_file(error.to_string()))?;
        let requests = event_file::read(&bytes).map_err(in_file)?;
        event_file::choose(requests, self.request.as_deref()).map_err(in_file)
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let source: Box<dyn Read> = if self.file == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(fs::File::open(&self.file)?)
        };
        source.take(MAX_EVENT_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl DeskSettings {
    pub(crate) fn resources(&self) -> PathBuf {
        self.resources.clone()
    }

    /// The Secrets' values by their names.
    pub(crate) fn secrets(&self) -> anyhow::Result<BTreeMap<String, BTreeMap<String, String>>> {
        let read = |(name, file): &(ObjectName, PathBuf)| {
            let text = fs::read_to_string(file)
                .with_context(|| format!("cannot read {} for the Secret {name}", file.display()))?;
            Ok((name.to_string(), values(&text)))
        };
        self.secrets.iter().map(read).collect()
    }
}

fn values(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_dir() {
        return Ok(path);
    }
    Err("there is no such directory".into())
}

fn file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_file() {
        return Ok(path);
    }
    Err("there is no such file".into())
}

fn secret(text: &str) -> Result<(ObjectName, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE")?;
    Ok((ObjectName::parse(name)?, file(path)?))
}

impl ServeSettings {
    /// Of a service whose surroundings are in this process.
    pub(crate) fn at_a_desk(
        tasks: TaskSettings,
        configuration_service: Url,
        keptn_event_endpoint: Url,
        init_container_image: Image,
    ) -> Self {
        Self {
            rcv_port: 0,
            rcv_path: "/".into(),
            max_body_bytes: Self::MAX_BODY_BYTES,
            configuration_service,
            init_container_configuration_service_api_endpoint: None,
            keptn_api_token: None,
            keptn_event_endpoint,
            max_answer_bytes: Self::MAX_ANSWER_BYTES,
            max_concurrent_runs: Self::MAX_CONCURRENT_RUNS,
            init_container_image: Some(init_container_image),
            tasks,
            pod_name: None,
            log_level: String::new(),
            log_format: None,
        }
    }
}
