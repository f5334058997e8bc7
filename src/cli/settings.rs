//! The settings of the commands, each with the check of its values.

use std::collections::BTreeSet;
use std::io::ErrorKind;

use clap::Args;
use reqwest::Url;

use super::access::Access;
use super::otlp::Otlp;
use super::value::{Discreet, addresses, http_url};
use crate::admin::Audience;
use crate::cluster::pod_defaults::{ContainerDefaults, JobLabels, PodDefaults};
use crate::job_config::fields::{Image, ObjectName};
use crate::job_config::files::FileEntry;
use crate::job_config::labels;
use crate::job_config::quantity::Quantity;
use crate::keptn::addresses::Addresses;
use crate::lint::output;
use crate::policy::{AllowList, VolumeTypes};
use crate::report::Patterns;
use crate::telemetry;

#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub(crate) struct ServeSettings {
    /// Port on which events are received.
    #[arg(long, env = "RCV_PORT", value_name = "RCV_PORT", default_value_t = 8080, value_parser = port)]
    pub(crate) rcv_port: u16,

    /// Path to which events are posted; `/` takes them on any path.
    #[arg(long, env = "RCV_PATH", value_name = "RCV_PATH", default_value = "/", value_parser = http_path)]
    pub(crate) rcv_path: String,

    /// Most bytes that a request's body may have.
    #[arg(long, env = "MAX_BODY_BYTES", value_name = "MAX_BODY_BYTES", default_value_t = Self::MAX_BODY_BYTES, value_parser = |text: &str| within(text, 1024..=4 << 20))]
    pub(crate) max_body_bytes: u32,

    /// Keptn's configuration service (resource-service from Keptn 0.18 on): one address, or several separated
    /// by commas, of which the one that answers is used [default: both below `KEPTN_API_ENDPOINT`, or else
    /// in this namespace].
    #[arg(long, env = "CONFIGURATION_SERVICE", value_name = "CONFIGURATION_SERVICE",
          value_parser = Discreet(addresses))]
    pub(crate) configuration_service: Option<Addresses>,

    /// The same as init containers reach it [default: `CONFIGURATION_SERVICE`, or what `KEPTN_API_ENDPOINT`
    /// gives where that is inside of the Pod].
    #[arg(long, env = "INIT_CONTAINER_CONFIGURATION_SERVICE_API_ENDPOINT",
          value_name = "INIT_CONTAINER_CONFIGURATION_SERVICE_API_ENDPOINT", value_parser = Discreet(addresses))]
    pub(crate) init_container_configuration_service_api_endpoint: Option<Addresses>,

    /// Keptn's gateway, such as `https://keptn.example.com/api`.
    #[arg(long, env = "KEPTN_API_ENDPOINT", value_name = "KEPTN_API_ENDPOINT", value_parser = Discreet(http_url))]
    pub(crate) keptn_api_endpoint: Option<Url>,

    #[command(flatten)]
    pub(crate) access: Access,

    /// Where answers are sent: Keptn's distributor.
    #[arg(long, env = "KEPTN_EVENT_ENDPOINT", value_name = "KEPTN_EVENT_ENDPOINT",
          default_value = "http://localhost:8081/event", value_parser = Discreet(http_url))]
    pub(crate) keptn_event_endpoint: Url,

    /// Most bytes of an answer; logs are cut to fit. Distributors from 0.17 on take 64 KiB.
    #[arg(long, env = "MAX_ANSWER_BYTES", value_name = "MAX_ANSWER_BYTES", default_value_t = Self::MAX_ANSWER_BYTES, value_parser = |text: &str| within(text, 4096..=1_000_000))]
    pub(crate) max_answer_bytes: u32,

    /// Most runs that work at once; more wait in the cluster, in order of arrival.
    #[arg(long, env = "MAX_CONCURRENT_RUNS", value_name = "MAX_CONCURRENT_RUNS", default_value_t = Self::MAX_CONCURRENT_RUNS, value_parser = |text: &str| within(text, 1..=100_000))]
    pub(crate) max_concurrent_runs: u32,

    /// Image of this service, for init containers [default: the image of the service's own Pod].
    #[arg(long,
        env = "INIT_CONTAINER_IMAGE",
        value_name = "INIT_CONTAINER_IMAGE", value_parser = Image::parse)]
    pub(crate) init_container_image: Option<Image>,

    #[command(flatten)]
    pub(crate) tasks: TaskSettings,

    /// Port of the status page and of /metrics; empty for none.
    #[arg(long, env = "ADMIN_PORT", value_name = "ADMIN_PORT", value_parser = port)]
    pub(crate) admin_port: Option<u16>,

    /// Who sees the status page, with the logs of tasks: only who connects from the Pod itself, as
    /// `kubectl port-forward` does, or anyone who reaches the port. /metrics is for anyone.
    #[arg(
        long,
        env = "ADMIN_PAGE",
        value_name = "ADMIN_PAGE",
        default_value = "local"
    )]
    pub(crate) admin_page: Audience,
    #[command(flatten)]
    pub(crate) otlp: Otlp,

    /// Name of the service's own Pod, from the downward API.
    #[arg(long, env = "POD_NAME", value_name = "POD_NAME", value_parser = pod_name)]
    pub(crate) pod_name: Option<String>,

    /// What is logged: a level or filter directives such as `job_executor_service=debug`.
    #[arg(long, env = "LOG_LEVEL", value_name = "LOG_LEVEL", default_value = "info,kube_client=off",
          value_parser = telemetry::filter)]
    pub(crate) log_level: String,

    /// How it is logged [default: text on a terminal, else json].
    #[arg(long, env = "LOG_FORMAT", value_name = "LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<telemetry::Format>,
}

/// In which tasks may run beside their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Namespaces(pub(crate) BTreeSet<String>);

fn namespaces(list: &str) -> Result<Namespaces, String> {
    let names = list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let names = names.map(|name| namespace(name).map(|name| name.to_string()));
    names.collect::<Result<_, _>>().map(Namespaces)
}

fn pod_name(text: &str) -> Result<String, String> {
    ObjectName::parse(text).map(|name| name.to_string())
}

/// Unlike other objects a namespace has no dots in its name.
fn namespace(text: &str) -> Result<ObjectName, String> {
    labels::check_dns_label(text)
        .map_err(|_| format!("`{text}` is no name of a namespace, allowed are at most 63 lower-case letters, digits and `-`, a letter or digit at both ends"))?;
    ObjectName::parse(text)
}

impl TaskSettings {
    /// # Errors
    ///
    /// Where settings contradict each other.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.job_security_context_file.is_privileged() && !self.allow_privileged_jobs {
            return Err(
                "Failed to verify security context: privileged containers are not allowed \
                 (JOB_SECURITY_CONTEXT_FILE says `privileged: true`, ALLOW_PRIVILEGED_JOBS does not)"
                    .into(),
            );
        }
        for (request, of_request, limit, of_limit) in [
            (
                &self.default_resource_requests_cpu,
                "DEFAULT_RESOURCE_REQUESTS_CPU",
                &self.default_resource_limits_cpu,
                "DEFAULT_RESOURCE_LIMITS_CPU",
            ),
            (
                &self.default_resource_requests_memory,
                "DEFAULT_RESOURCE_REQUESTS_MEMORY",
                &self.default_resource_limits_memory,
                "DEFAULT_RESOURCE_LIMITS_MEMORY",
            ),
        ] {
            if let (Some(request), Some(limit)) = (request, limit)
                && request.exceeds(limit)
            {
                return Err(format!(
                    "{of_request} `{request}` is more than {of_limit} `{limit}`, expected at most that: no task \
                     without `resources` of its own could run"
                ));
            }
        }
        Ok(())
    }

    /// Where Jobs run; `own` is where this service does.
    pub(crate) fn namespace(&self, own: &str) -> String {
        let namespace = self.job_namespace.as_ref();
        namespace.map_or_else(|| own.to_owned(), ToString::to_string)
    }
}

impl ServeSettings {
    /// Where this service finds Keptn's configuration service.
    pub(crate) fn resources(&self) -> Addresses {
        match (&self.configuration_service, &self.keptn_api_endpoint) {
            (Some(addresses), _) => addresses.clone(),
            (None, Some(api)) => Addresses::at_the_gateway(api),
            (None, None) => Addresses::in_the_cluster(),
        }
    }

    /// Where init containers find it.
    pub(crate) fn resources_for_init_containers(&self) -> Addresses {
        if let Some(addresses) = &self.init_container_configuration_service_api_endpoint {
            return addresses.clone();
        }
        let addresses = self.resources();
        match &self.keptn_api_endpoint {
            Some(api) => addresses.outside_of_the_pod(api),
            None => addresses,
        }
    }

    pub(crate) const MAX_BODY_BYTES: u32 = 1 << 20;
    pub(super) const MAX_ANSWER_BYTES: u32 = 60_000;
    pub(super) const MAX_CONCURRENT_RUNS: u32 = 100;
}

/// What an operator decides about tasks.
#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
pub(crate) struct TaskSettings {
    /// Secret that holds `KEPTN_API_TOKEN` under the key `token` and `OAUTH_CLIENT_SECRET` under
    /// `oauth_client_secret`, for init containers.
    #[arg(long,
        env = "KEPTN_API_TOKEN_SECRET",
        value_name = "KEPTN_API_TOKEN_SECRET",
        default_value = "job-service-keptn-secrets", value_parser = ObjectName::parse)]
    pub(crate) keptn_api_token_secret: ObjectName,

    /// Namespace in which Jobs run [default: the service's own, or the kubeconfig's].
    #[arg(long, env = "JOB_NAMESPACE", value_name = "JOB_NAMESPACE", value_parser = namespace)]
    pub(crate) job_namespace: Option<ObjectName>,

    /// CPU limit of tasks without `resources`, such as `1` or `500m`.
    #[arg(long, env = "DEFAULT_RESOURCE_LIMITS_CPU", value_name = "DEFAULT_RESOURCE_LIMITS_CPU",
          value_parser = Quantity::parse)]
    pub(crate) default_resource_limits_cpu: Option<Quantity>,

    /// Memory limit of tasks without `resources`, such as `512Mi`.
    #[arg(long, env = "DEFAULT_RESOURCE_LIMITS_MEMORY", value_name = "DEFAULT_RESOURCE_LIMITS_MEMORY",
          value_parser = Quantity::parse)]
    pub(crate) default_resource_limits_memory: Option<Quantity>,

    /// CPU request of tasks without `resources`.
    #[arg(long, env = "DEFAULT_RESOURCE_REQUESTS_CPU", value_name = "DEFAULT_RESOURCE_REQUESTS_CPU",
          value_parser = Quantity::parse)]
    pub(crate) default_resource_requests_cpu: Option<Quantity>,

    /// Memory request of tasks without `resources`.
    #[arg(long, env = "DEFAULT_RESOURCE_REQUESTS_MEMORY", value_name = "DEFAULT_RESOURCE_REQUESTS_MEMORY",
          value_parser = Quantity::parse)]
    pub(crate) default_resource_requests_memory: Option<Quantity>,

    /// Service account of tasks that name none [default: the namespace's, without a token].
    #[arg(long,
        env = "DEFAULT_JOB_SERVICE_ACCOUNT",
        value_name = "DEFAULT_JOB_SERVICE_ACCOUNT", value_parser = ObjectName::parse)]
    pub(crate) default_job_service_account: Option<ObjectName>,

    /// Comma-separated globs of the images that tasks may use [default: all].
    #[arg(long, env = "ALLOWED_IMAGE_LIST", value_name = "ALLOWED_IMAGE_LIST", default_value = "",
          value_parser = AllowList::parse, hide_default_value = true)]
    pub(crate) allowed_image_list: AllowList,

    /// Comma-separated names of other namespaces in which tasks may run [default: none].
    #[arg(long, env = "ALLOWED_NAMESPACES", value_name = "ALLOWED_NAMESPACES", default_value = "",
          value_parser = namespaces, hide_default_value = true)]
    pub(crate) allowed_namespaces: Namespaces,

    /// Comma-separated globs of the service accounts that tasks may name [default: all but the service's
    /// own].
    #[arg(long, env = "ALLOWED_SERVICE_ACCOUNTS", value_name = "ALLOWED_SERVICE_ACCOUNTS",
          default_value = "", value_parser = AllowList::parse, hide_default_value = true)]
    pub(crate) allowed_service_accounts: AllowList,

    /// Comma-separated globs of the Secrets that tasks may use [default: all but the service's own].
    #[arg(long, env = "ALLOWED_SECRETS", value_name = "ALLOWED_SECRETS", default_value = "",
          value_parser = AllowList::parse, hide_default_value = true)]
    pub(crate) allowed_secrets: AllowList,

    /// Comma-separated types of volumes that tasks may have, as a Pod names them.
    #[arg(long, env = "ALLOWED_VOLUMES", value_name = "ALLOWED_VOLUMES",
          default_value = VolumeTypes::DEFAULT, value_parser = VolumeTypes::parse)]
    pub(crate) allowed_volumes: VolumeTypes,

    /// File with the security context of all containers of Jobs, as JSON; absent: what the Pod Security
    /// Standard "restricted" admits.
    #[arg(long, env = "JOB_SECURITY_CONTEXT_FILE", value_name = "JOB_SECURITY_CONTEXT_FILE",
          default_value = "/config/job-defaultSecurityContext.json",
          value_parser = ContainerDefaults::read)]
    pub(crate) job_security_context_file: ContainerDefaults,

    /// The same of their Pods.
    #[arg(long, env = "POD_SECURITY_CONTEXT_FILE", value_name = "POD_SECURITY_CONTEXT_FILE",
          default_value = "/config/job-podSecurityContext.json", value_parser = PodDefaults::read)]
    pub(crate) pod_security_context_file: PodDefaults,

    /// File with labels of all Jobs and their Pods, as YAML; may be absent.
    #[arg(long, env = "JOB_LABELS_FILE", value_name = "JOB_LABELS_FILE",
          default_value = "/config/job-labels.yaml", value_parser = JobLabels::read)]
    pub(crate) job_labels_file: JobLabels,

    /// File with what is masked in the logs of tasks: regular expressions, one a line; may be absent.
    #[arg(long, env = "LOG_MASK_FILE", value_name = "LOG_MASK_FILE",
          default_value = "/config/log-masks.txt", value_parser = log_masks)]
    pub(crate) log_mask_file: Patterns,

    /// Whether tasks may ask for privileged containers.
    #[arg(long, env = "ALLOW_PRIVILEGED_JOBS", value_name = "ALLOW_PRIVILEGED_JOBS",
          default_value_t = false, action = clap::ArgAction::Set)]
    pub(crate) allow_privileged_jobs: bool,

    /// Upper bound in seconds for every task's time limit; 0 sets none.
    #[arg(long, env = "TASK_DEADLINE_SECONDS", value_name = "TASK_DEADLINE_SECONDS", default_value_t = 0,
          value_parser = seconds)]
    pub(crate) task_deadline_seconds: u32,

    /// Seconds for which images may fail to be pulled before the task fails; 0 is at once.
    #[arg(long, env = "IMAGE_PULL_GRACE_SECONDS", value_name = "IMAGE_PULL_GRACE_SECONDS",
          default_value_t = 30, value_parser = |text: &str| within(text, 0..=86_400))]
    pub(crate) image_pull_grace_seconds: u32,

    /// Seconds for which a Pod may wait for a node before its task fails; 0 is at once.
    #[arg(long, env = "UNSCHEDULABLE_GRACE_SECONDS", value_name = "UNSCHEDULABLE_GRACE_SECONDS",
          default_value_t = 300, value_parser = |text: &str| within(text, 0..=86_400))]
    pub(crate) unschedulable_grace_seconds: u32,

    /// Value of the managed-by label; it tells the Jobs of several installations apart.
    #[arg(long, env = "FULL_DEPLOYMENT_NAME", value_name = "FULL_DEPLOYMENT_NAME",
          default_value = "job-executor-service", value_parser = label_value)]
    pub(crate) full_deployment_name: String,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  job-executor-service lint job/config.yaml
  job-executor-service lint --fix job/config.yaml
  job-executor-service lint --output github --deny-warnings job/*.yaml

Ends with 0 if all files are valid, 2 if one is not or cannot be read, 1 if
there are warnings and they are denied, or if a file could not be fixed.")]
pub(crate) struct LintSettings {
    /// Files to read; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<std::path::PathBuf>,

    /// Write files of an older format as `apiVersion: v2`, with their comments and layout.
    #[arg(long, visible_alias = "upgrade")]
    pub(crate) fix: bool,

    /// End with 1 where there are warnings.
    #[arg(long)]
    pub(crate) deny_warnings: bool,

    /// How problems are written.
    #[arg(long, value_name = "FORM", value_enum, default_value = "text")]
    pub(crate) output: output::Form,
}

#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct InitSettings {
    /// A file or directory of the Keptn service, or of its stage (`stage:/PATH`) or project
    /// (`project:/PATH`); once for each.
    #[arg(long = "file", value_name = "PATH", required = true, value_parser = FileEntry::parse_argument)]
    pub(crate) files: Vec<FileEntry>,

    /// Directory to write to.
    #[arg(long, value_name = "DIRECTORY", default_value = "/keptn")]
    pub(crate) directory: std::path::PathBuf,

    /// Keptn's configuration service: one address, or several separated by commas.
    #[arg(long, env = "CONFIGURATION_SERVICE", value_name = "CONFIGURATION_SERVICE",
          value_parser = Discreet(addresses))]
    pub(crate) configuration_service: Addresses,

    #[command(flatten)]
    pub(crate) access: Access,

    /// Project of the event.
    #[arg(long, env = "KEPTN_PROJECT", value_name = "KEPTN_PROJECT")]
    pub(crate) project: Option<String>,

    /// Stage of the event.
    #[arg(long, env = "KEPTN_STAGE", value_name = "KEPTN_STAGE")]
    pub(crate) stage: Option<String>,

    /// Service of the event.
    #[arg(long, env = "KEPTN_SERVICE", value_name = "KEPTN_SERVICE")]
    pub(crate) service: Option<String>,

    /// Commit of the files, where the configuration service knows commits.
    #[arg(long, env = "GIT_COMMIT_ID", value_name = "GIT_COMMIT_ID")]
    pub(crate) git_commit_id: Option<String>,
}

fn within(text: &str, range: std::ops::RangeInclusive<u32>) -> Result<u32, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| {
        format!(
            "expected a number from {} to {}",
            range.start(),
            range.end()
        )
    })
}

pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "expected a port number from 0 (any free one) to 65535".into())
}

fn seconds(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "expected a whole number of seconds, 0 for none".into())
}

fn log_masks(path: &str) -> Result<Patterns, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Patterns::parse(&text).map_err(|error| format!("{path}: {error}")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Patterns::default()),
        Err(error) => Err(format!("{path} cannot be read: {error}")),
    }
}

fn http_path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let taken = ["/livez", "/ready", "/readyz", "/health"];
    if text.starts_with('/') && text.bytes().all(plain) && !taken.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(
        "expected a path such as `/` or `/events`, other than /livez, /ready, /readyz and /health"
            .into(),
    )
}

fn label_value(text: &str) -> Result<String, String> {
    if !text.is_empty() && crate::cluster::names::label_value(text) == text {
        return Ok(text.to_owned());
    }
    Err(
        "expected at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends"
            .into(),
    )
}
