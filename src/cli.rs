//! Commands and settings. Each setting is a flag and an environment variable, the original's where it
//! had one; an empty variable is one that is not set.

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use reqwest::Url;
use secrecy::SecretString;

use crate::job_config::fields::{Image, ObjectName, Quantity, ResourceUri};
use crate::lint::output;
use crate::policy::ImageAllowList;
use crate::{init_container, job_config, lint, serve, telemetry};

/// Runs container images as Kubernetes Jobs in answer to Keptn events.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive events, run Jobs, answer Keptn.
    Serve(Box<ServeSettings>),
    /// Say what is wrong with job/config.yaml, before an event comes.
    Lint(LintSettings),
    /// Print the JSON Schema of job/config.yaml, for editors.
    Schema,
    /// Put the files of one task into /keptn (what a Job's init container does).
    Init(Box<InitSettings>),
}

#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct ServeSettings {
    /// Port on which events are received.
    #[arg(long, env = "RCV_PORT", value_name = "RCV_PORT", default_value_t = 8080, value_parser = port)]
    pub(crate) rcv_port: u16,

    /// Path to which events are posted; `/` takes them on any path.
    #[arg(long, env = "RCV_PATH", value_name = "RCV_PATH", default_value = "/", value_parser = http_path)]
    pub(crate) rcv_path: String,

    /// Most bytes that a request's body may have.
    #[arg(long, env = "MAX_BODY_BYTES", value_name = "MAX_BODY_BYTES", default_value_t = 1 << 20, value_parser = |text: &str| within(text, 1024..=4 << 20))]
    pub(crate) max_body_bytes: u32,

    /// Keptn's configuration service (resource-service from Keptn 0.18 on).
    #[arg(long, env = "CONFIGURATION_SERVICE", value_name = "CONFIGURATION_SERVICE",
          default_value = "http://configuration-service:8080", value_parser = http_url)]
    pub(crate) configuration_service: Url,

    /// The same as init containers reach it [default: `CONFIGURATION_SERVICE`].
    #[arg(long, env = "INIT_CONTAINER_CONFIGURATION_SERVICE_API_ENDPOINT",
          value_name = "INIT_CONTAINER_CONFIGURATION_SERVICE_API_ENDPOINT", value_parser = http_url)]
    pub(crate) init_container_configuration_service_api_endpoint: Option<Url>,

    /// Token for the configuration service, if it is reached through Keptn's gateway.
    #[arg(long,
        env = "KEPTN_API_TOKEN",
        value_name = "KEPTN_API_TOKEN",
        hide_env_values = true, value_parser = token)]
    pub(crate) keptn_api_token: Option<SecretString>,

    /// Secret that holds this token under the key `token`, for init containers.
    #[arg(long,
        env = "KEPTN_API_TOKEN_SECRET",
        value_name = "KEPTN_API_TOKEN_SECRET",
        default_value = "job-service-keptn-secrets", value_parser = ObjectName::parse)]
    pub(crate) keptn_api_token_secret: ObjectName,

    /// Where answers are sent: Keptn's distributor.
    #[arg(long, env = "KEPTN_EVENT_ENDPOINT", value_name = "KEPTN_EVENT_ENDPOINT",
          default_value = "http://localhost:8081/event", value_parser = http_url)]
    pub(crate) keptn_event_endpoint: Url,

    /// Most bytes of an answer; logs are cut to fit. Distributors from 0.17 on take 64 KiB.
    #[arg(long, env = "MAX_ANSWER_BYTES", value_name = "MAX_ANSWER_BYTES", default_value_t = 60_000, value_parser = |text: &str| within(text, 4096..=1_000_000))]
    pub(crate) max_answer_bytes: u32,

    /// Namespace in which Jobs run [default: the service's own, or the kubeconfig's].
    #[arg(long, env = "JOB_NAMESPACE", value_name = "JOB_NAMESPACE", value_parser = ObjectName::parse)]
    pub(crate) job_namespace: Option<ObjectName>,

    /// Most runs that work at once; more wait in the cluster, in order of arrival.
    #[arg(long, env = "MAX_CONCURRENT_RUNS", value_name = "MAX_CONCURRENT_RUNS", default_value_t = 100, value_parser = |text: &str| within(text, 1..=100_000))]
    pub(crate) max_concurrent_runs: u32,

    /// Image of this service, for init containers [default: the image of the service's own Pod].
    #[arg(long,
        env = "INIT_CONTAINER_IMAGE",
        value_name = "INIT_CONTAINER_IMAGE", value_parser = Image::parse)]
    pub(crate) init_container_image: Option<Image>,

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
          value_parser = ImageAllowList::parse, hide_default_value = true)]
    pub(crate) allowed_image_list: ImageAllowList,

    /// Whether tasks may ask for privileged containers.
    #[arg(long, env = "ALLOW_PRIVILEGED_JOBS", value_name = "ALLOW_PRIVILEGED_JOBS",
          default_value_t = false, action = clap::ArgAction::Set)]
    pub(crate) allow_privileged_jobs: bool,

    /// Upper bound in seconds for every task's time limit; 0 sets none.
    #[arg(long, env = "TASK_DEADLINE_SECONDS", value_name = "TASK_DEADLINE_SECONDS", default_value_t = 0,
          value_parser = seconds)]
    pub(crate) task_deadline_seconds: u32,

    /// Value of the managed-by label; it tells the Jobs of several installations apart.
    #[arg(long, env = "FULL_DEPLOYMENT_NAME", value_name = "FULL_DEPLOYMENT_NAME",
          default_value = "job-executor-service", value_parser = label_value)]
    pub(crate) full_deployment_name: String,

    /// Name of the service's own Pod, from the downward API.
    #[arg(long, env = "POD_NAME", value_name = "POD_NAME")]
    pub(crate) pod_name: Option<String>,

    /// What is logged: a level or filter directives such as `job_executor_service=debug`.
    #[arg(long, env = "LOG_LEVEL", value_name = "LOG_LEVEL", default_value = "info,kube_client=off",
          value_parser = telemetry::filter)]
    pub(crate) log_level: String,

    /// How it is logged [default: text on a terminal, else json].
    #[arg(long, env = "LOG_FORMAT", value_name = "LOG_FORMAT", value_enum)]
    pub(crate) log_format: Option<telemetry::Format>,
}

#[derive(Debug, Args)]
#[command(next_line_help = true)]
pub(crate) struct InitSettings {
    /// A file or directory of the Keptn service; once for each.
    #[arg(long = "file", value_name = "PATH", required = true, value_parser = ResourceUri::parse)]
    pub(crate) files: Vec<ResourceUri>,

    /// Directory to write to.
    #[arg(long, value_name = "DIRECTORY", default_value = "/keptn")]
    pub(crate) directory: std::path::PathBuf,

    /// Keptn's configuration service.
    #[arg(long, env = "CONFIGURATION_SERVICE", value_name = "CONFIGURATION_SERVICE", value_parser = http_url)]
    pub(crate) configuration_service: Url,

    /// Token for the configuration service, if it is reached through Keptn's gateway.
    #[arg(long,
        env = "KEPTN_API_TOKEN",
        value_name = "KEPTN_API_TOKEN",
        hide_env_values = true, value_parser = token)]
    pub(crate) keptn_api_token: Option<SecretString>,

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

#[derive(Debug, Args)]
#[command(
    after_help = "Ends with 0 if all files are valid, 2 if one is not or cannot be read, 1 if there are \
                        warnings and they are denied, or if a file could not be fixed."
)]
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

/// How a command ended, as its exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Succeeded = 0,
    /// The command, or what it was asked to do, failed.
    Errored = 1,
    /// A file is invalid or cannot be read; clap uses it for a wrong command line.
    BadInput = 2,
    /// There was nothing to do.
    #[expect(dead_code, reason = "for commands that look for actions of an event")]
    NothingMatched = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs the command line.
pub fn main() -> ExitCode {
    // Two TLS providers in one process are one too many: every client takes this one.
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
    let command = match command().map(|cli| cli.command) {
        Ok(command) => command,
        Err(error) => error.exit(),
    };
    let result = match command {
        Command::Serve(settings) => serve::main(&settings).map(|()| Exit::Succeeded),
        Command::Lint(settings) => lint::main(&settings),
        Command::Schema => schema().map(|()| Exit::Succeeded),
        Command::Init(settings) => init_container::main(*settings).map(|()| Exit::Succeeded),
    };
    let exit = result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        Exit::Errored
    });
    exit.into()
}

fn schema() -> anyhow::Result<()> {
    std::io::stdout().write_all(job_config::SCHEMA.as_bytes())?;
    Ok(())
}

fn command() -> Result<Cli, clap::Error> {
    let matches = unset_where_empty(Cli::command()).try_get_matches()?;
    Cli::from_arg_matches(&matches)
}

/// Manifests often set a variable to nothing; that is the default, not a wrong value.
fn unset_where_empty(command: clap::Command) -> clap::Command {
    let empty = |variable: &OsStr| std::env::var_os(variable).is_some_and(|value| value.is_empty());
    command.mut_subcommands(|command| {
        command.mut_args(|arg| {
            if arg.get_env().is_some_and(empty) {
                arg.env(None::<&'static str>)
            } else {
                arg
            }
        })
    })
}

fn http_url(text: &str) -> Result<Url, String> {
    let expected = "expected an address such as `http://localhost:8080/path`";
    let url = Url::parse(text).map_err(|error| format!("{error}, {expected}"))?;
    let plain = url.query().is_none() && url.fragment().is_none();
    if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && plain {
        return Ok(url);
    }
    Err(expected.into())
}

/// Secrets made with `echo` end with a newline.
fn token(text: &str) -> Result<SecretString, String> {
    let token = text.trim();
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(token.into());
    }
    Err("expected a token of visible ASCII characters".into())
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

fn port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| "expected a port number from 0 (any free one) to 65535".into())
}

fn seconds(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| "expected a whole number of seconds, 0 for none".into())
}

fn http_path(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let taken = ["/livez", "/readyz", "/health"];
    if text.starts_with('/') && text.bytes().all(plain) && !taken.contains(&text) {
        return Ok(text.to_owned());
    }
    Err("expected a path such as `/` or `/events`, other than /livez, /readyz and /health".into())
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

/// The settings of `serve` with these flags.
#[cfg(test)]
pub(crate) fn serve_settings(flags: &[String]) -> ServeSettings {
    match parsed("serve", flags) {
        Command::Serve(settings) => *settings,
        _ => unreachable!(),
    }
}

/// The settings of `lint` with these flags.
#[cfg(test)]
pub(crate) fn lint_settings(flags: &[String]) -> LintSettings {
    match parsed("lint", flags) {
        Command::Lint(settings) => settings,
        _ => unreachable!(),
    }
}

/// The settings of `init` with these flags.
#[cfg(test)]
pub(crate) fn init_settings(flags: &[String]) -> InitSettings {
    match parsed("init", flags) {
        Command::Init(settings) => *settings,
        _ => unreachable!(),
    }
}

#[cfg(test)]
fn parsed(command: &str, flags: &[String]) -> Command {
    let arguments = ["jes", command]
        .into_iter()
        .chain(flags.iter().map(String::as_str));
    Cli::try_parse_from(arguments).expect("valid flags").command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_setting_of_the_service_is_in_the_readme() {
        let readme = include_str!("../README.md");
        let serve = Cli::command();
        let serve = serve.find_subcommand("serve").unwrap();
        for arg in serve.get_arguments().filter(|arg| arg.get_env().is_some()) {
            let variable = arg.get_env().unwrap().to_str().unwrap();
            let flag = format!("--{}", variable.to_lowercase().replace('_', "-"));
            assert_eq!(arg.get_long().map(|long| format!("--{long}")), Some(flag));
            assert!(readme.contains(&format!("| `{variable}` |")), "{variable}");
        }
    }

    #[test]
    fn a_wrong_value_is_told_with_the_variables_name_and_what_is_allowed() {
        let error = |flag: &str| {
            let parsed = Cli::try_parse_from(["jes", "serve", flag]);
            let text = parsed.unwrap_err().to_string();
            text.lines().next().unwrap_or_default().to_owned()
        };
        let report = [
            error("--rcv-port=x"),
            error("--rcv-path=x"),
            error("--max-body-bytes=1"),
            error("--configuration-service=localhost:8080"),
            error("--keptn-event-endpoint=x"),
            error("--default-resource-limits-cpu=lots"),
            error("--allowed-image-list=a["),
            error("--allow-privileged-jobs=maybe"),
            error("--task-deadline-seconds=5m"),
            error("--full-deployment-name=-x"),
            error("--max-concurrent-runs=0"),
            error("--log-level=x=y=z"),
            error("--log-level=loud"),
            error("--max-answer-bytes=64KB"),
            error("--configuration-service=http://host/?x=1"),
            error("--keptn-api-token=a b"),
            error("--job-namespace=A B"),
            error("--init-container-image=a b"),
        ]
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        error: invalid value 'x' for '--rcv-port <RCV_PORT>': expected a port number from 0 (any free one) to 65535
        error: invalid value 'x' for '--rcv-path <RCV_PATH>': expected a path such as `/` or `/events`, other than /livez, /readyz and /health
        error: invalid value '1' for '--max-body-bytes <MAX_BODY_BYTES>': expected a number from 1024 to 4194304
        error: invalid value 'localhost:8080' for '--configuration-service <CONFIGURATION_SERVICE>': expected an address such as `http://localhost:8080/path`
        error: invalid value 'x' for '--keptn-event-endpoint <KEPTN_EVENT_ENDPOINT>': relative URL without a base, expected an address such as `http://localhost:8080/path`
        error: invalid value 'lots' for '--default-resource-limits-cpu <DEFAULT_RESOURCE_LIMITS_CPU>': `lots` is no quantity, expected one such as `1`, `50m`, `128Mi` or `1.5Gi`
        error: invalid value 'a[' for '--allowed-image-list <ALLOWED_IMAGE_LIST>': `a[` is no pattern for images (unclosed character class; missing ']'), expected one such as `registry.example.com/*`
        error: invalid value 'maybe' for '--allow-privileged-jobs <ALLOW_PRIVILEGED_JOBS>'
        error: invalid value '5m' for '--task-deadline-seconds <TASK_DEADLINE_SECONDS>': expected a whole number of seconds, 0 for none
        error: invalid value '-x' for '--full-deployment-name <FULL_DEPLOYMENT_NAME>': expected at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends
        error: invalid value '0' for '--max-concurrent-runs <MAX_CONCURRENT_RUNS>': expected a number from 1 to 100000
        error: invalid value 'x=y=z' for '--log-level <LOG_LEVEL>': error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5, expected a level such as `info` or `debug`
        error: invalid value 'loud' for '--log-level <LOG_LEVEL>': `loud` is no level, expected one of off, error, warn, info, debug, trace, or `target=level`
        error: invalid value '64KB' for '--max-answer-bytes <MAX_ANSWER_BYTES>': expected a number from 4096 to 1000000
        error: invalid value 'http://host/?x=1' for '--configuration-service <CONFIGURATION_SERVICE>': expected an address such as `http://localhost:8080/path`
        error: invalid value 'a b' for '--keptn-api-token <KEPTN_API_TOKEN>': expected a token of visible ASCII characters
        error: invalid value 'A B' for '--job-namespace <JOB_NAMESPACE>': `A B` is no name of a Kubernetes object, allowed are lower-case letters, digits, `-` and `.`, a letter or digit at both ends
        error: invalid value 'a b' for '--init-container-image <INIT_CONTAINER_IMAGE>': `a b` is no container image, expected one such as `alpine:3.20`
        "#);
    }
}
