//! The settings of the commands that need no cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use reqwest::Url;

use super::access::Access;
use super::input;
use super::otlp::Otlp;
use super::settings::{ServeSettings, TaskSettings, port};
use super::value::{Discreet, addresses};
use crate::admin::Audience;
use crate::event::Event;
use crate::job_config::fields::{EnvName, Image, ObjectName};
use crate::keptn::addresses::Addresses;
use crate::local::event_file::{self, EventRequest};
use crate::local::keptn::Repository;
use crate::local::runtime::Kind;
use crate::local::story::Format;
use crate::report::Masks;
use crate::telemetry;

#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct RunSettings {
    #[command(flatten)]
    pub(crate) event: EventSource,

    #[command(flatten)]
    pub(crate) desk: DeskSettings,
}

/// Where an event comes from.
#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct EventSource {
    /// File with a `CloudEvent` as JSON, or with HTTP requests such as those in test-events/; `-` is
    /// standard input.
    #[arg(value_name = "EVENT")]
    file: PathBuf,

    /// Which request of the file, by its number or name [default: the first].
    #[arg(long, value_name = "NUMBER|NAME")]
    request: Option<String>,
}

#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub(crate) struct DevSettings {
    /// Port on which events are received.
    #[arg(long, env = "RCV_PORT", value_name = "RCV_PORT", default_value_t = 8080, value_parser = port)]
    pub(crate) rcv_port: u16,

    /// Directory of events that `POST /test-events/NUMBER` sends [default: test-events, if it is there].
    #[arg(long, value_name = "DIR", value_parser = directory)]
    test_events: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) desk: DeskSettings,
}

#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct ExplainSettings {
    #[command(flatten)]
    pub(crate) event: EventSource,

    #[command(flatten)]
    pub(crate) resources: ResourceSettings,

    /// YAML with comments for people, or one object as JSON.
    #[arg(long, value_enum, default_value_t = Format::Text, hide_possible_values = true, value_name = "text|json")]
    pub(crate) output: Format,

    /// Keptn's configuration service, as init containers reach it.
    #[arg(long, env = "CONFIGURATION_SERVICE", value_name = "CONFIGURATION_SERVICE",
          default_value_t = Addresses::in_the_cluster(), value_parser = Discreet(addresses))]
    configuration_service: Addresses,

    /// Image of this service, for init containers.
    #[arg(long, env = "INIT_CONTAINER_IMAGE", value_name = "INIT_CONTAINER_IMAGE",
          default_value = concat!("keptncontrib/job-executor-service:", env!("CARGO_PKG_VERSION")),
          value_parser = Image::parse)]
    init_container_image: Image,

    #[command(flatten, next_help_heading = OPERATOR)]
    tasks: TaskSettings,
}

impl ExplainSettings {
    pub(super) fn tasks(&self) -> &TaskSettings {
        &self.tasks
    }

    pub(crate) fn serve(&self) -> ServeSettings {
        ServeSettings::at_a_desk(
            self.tasks.clone(),
            self.configuration_service.clone(),
            // Nothing is sent.
            self.configuration_service.first().clone(),
            self.init_container_image.clone(),
        )
    }
}

/// Where job/config.yaml and the files of tasks are.
#[derive(Debug, Clone, Args)]
pub(crate) struct ResourceSettings {
    /// Directory laid out as Keptn's repository (`<project>/<stage>/<service>/job/config.yaml`), or one
    /// service's files [default: `resources` beside the event or in the directory of test events, or else
    /// the current directory].
    #[arg(long, value_name = "DIR", value_parser = directory)]
    resources: Option<PathBuf>,

    /// File that is the service's job/config.yaml, whatever the directory has.
    #[arg(long, value_name = "FILE", value_parser = file)]
    config: Option<PathBuf>,
}

impl ResourceSettings {
    /// `events` is where the events are.
    pub(crate) fn beside(self, events: Option<&Path>) -> Self {
        let beside = events.map(|events| events.join("resources"));
        let found = self.resources.or(beside.filter(|path| path.is_dir()));
        Self {
            resources: Some(found.unwrap_or_else(|| PathBuf::from("."))),
            ..self
        }
    }

    pub(crate) fn repository(&self) -> Repository {
        let directory = self.resources.clone().unwrap_or_else(|| PathBuf::from("."));
        Repository::new(directory, self.config.clone())
    }
}

/// The surroundings of the service at a desk.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeskSettings {
    #[command(flatten)]
    pub(crate) resources: ResourceSettings,

    /// What runs the tasks.
    #[arg(long, value_enum, default_value_t = Kind::Process)]
    pub(crate) runtime: Kind,

    /// A Secret for tasks that name it: a file with lines `KEY=value`.
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = secret)]
    secrets: Vec<Secret>,

    /// How it is told.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) output: Format,

    /// What the service logs to standard error: a level or filter directives.
    #[arg(long, value_name = "LOG_LEVEL", default_value = "off", value_parser = telemetry::filter)]
    log_level: String,

    #[command(flatten, next_help_heading = OPERATOR)]
    pub(crate) tasks: TaskSettings,
}

/// Given for tasks that name it.
#[derive(Clone)]
struct Secret {
    name: ObjectName,
    values: BTreeMap<String, String>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Secret").field(&self.name).finish()
    }
}

/// Settings that an operator makes for all tasks.
const OPERATOR: &str = "What the operator of the service decides";

impl RunSettings {
    /// With nothing left to look for.
    pub(crate) fn settled(mut self) -> Self {
        self.desk.resources = self.desk.resources.beside(self.event.directory());
        self
    }
}

impl DevSettings {
    /// With nothing left to look for.
    pub(crate) fn settled(mut self) -> Self {
        let events = self.test_events().to_owned();
        self.desk.resources = self.desk.resources.beside(Some(&events));
        self
    }

    pub(crate) fn test_events(&self) -> &Path {
        let default = Path::new("test-events");
        self.test_events.as_deref().unwrap_or(default)
    }
}

impl ExplainSettings {
    /// With nothing left to look for.
    pub(crate) fn settled(mut self) -> Self {
        self.resources = self.resources.beside(self.event.directory());
        self
    }
}

impl EventSource {
    fn directory(&self) -> Option<&Path> {
        self.file.parent().filter(|_| !input::is_stdin(&self.file))
    }

    /// The request that is meant with its event, or what is wrong with the file.
    pub(crate) fn read(&self) -> Result<(EventRequest, Event), String> {
        let bytes = input::read(&self.file).map_err(|reason| self.in_file(&reason))?;
        let requests = event_file::read(&bytes).map_err(|reason| self.in_file(&reason))?;
        let request = event_file::choose(requests, self.request.as_deref())
            .map_err(|reason| self.in_file(&reason))?;
        let event = request.event().map_err(|reason| self.in_file(&reason))?;
        Ok((request, event))
    }

    /// A reason with the file that it is about.
    fn in_file(&self, reason: &str) -> String {
        format!("{}: {reason}", self.file.display())
    }
}

impl DeskSettings {
    pub(crate) fn start_logging(&self) {
        telemetry::start(&self.log_level, Some(telemetry::Format::Text));
    }

    /// The Secrets' values by their names.
    pub(crate) fn secrets(&self) -> BTreeMap<String, BTreeMap<String, String>> {
        let secrets = self.secrets.iter();
        secrets
            .map(|secret| (secret.name.to_string(), secret.values.clone()))
            .collect()
    }

    pub(crate) fn secret_values(&self) -> impl Iterator<Item = &str> {
        let secrets = self.secrets.iter();
        secrets.flat_map(|secret| secret.values.values().map(String::as_str))
    }

    /// What must not be told.
    pub(crate) fn masks(&self) -> Masks {
        Masks::new(self.secret_values(), &self.tasks.log_mask_file)
    }
}

/// Lines `KEY=value`, as `kubectl create secret --from-env-file` takes them; quotes are part of a value.
fn values(text: &str) -> Result<BTreeMap<String, String>, String> {
    let lines = text.lines().map(str::trim).enumerate();
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(index, line)| {
            let pair = line.split_once('=');
            let pair = pair.map(|(key, value)| (key.trim(), value.trim()));
            let valid = |(key, _): &(&str, &str)| EnvName::parse(key).is_ok();
            let (key, value) = pair.filter(valid).ok_or_else(|| {
                // The line may hold a secret.
                format!("line {} is not `KEY=value`", index + 1)
            })?;
            Ok((key.to_owned(), value.to_owned()))
        })
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

fn secret(text: &str) -> Result<Secret, String> {
    let (name, path) = text.split_once('=').ok_or("expected NAME=FILE")?;
    let text = fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
    Ok(Secret {
        name: ObjectName::parse(name)?,
        values: values(&text).map_err(|error| format!("{path}: {error}"))?,
    })
}

impl ServeSettings {
    /// Of a service whose surroundings are in this process.
    pub(crate) fn at_a_desk(
        tasks: TaskSettings,
        configuration_service: Addresses,
        keptn_event_endpoint: Url,
        init_container_image: Image,
    ) -> Self {
        Self {
            rcv_port: 0,
            rcv_path: "/".into(),
            max_body_bytes: Self::MAX_BODY_BYTES,
            configuration_service: Some(configuration_service),
            init_container_configuration_service_api_endpoint: None,
            keptn_api_endpoint: None,
            access: Access::open(),
            otlp: Otlp::default(),
            keptn_event_endpoint,
            max_answer_bytes: Self::MAX_ANSWER_BYTES,
            max_concurrent_runs: Self::MAX_CONCURRENT_RUNS,
            init_container_image: Some(init_container_image),
            tasks,
            admin_port: None,
            admin_page: Audience::Local,
            pod_name: None,
            log_level: String::new(),
            log_format: None,
        }
    }
}
