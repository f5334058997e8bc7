//! Commands and settings. Each setting is a flag and an environment variable, the original's where it
//! had one; an empty variable is one that is not set.

mod access;
mod desk;
pub(crate) mod input;
mod otlp;
mod settings;
mod value;

use std::ffi::OsStr;
use std::io::Write;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::local::story::RunResult;
use crate::{init_container, job_config, lint, local, serve, telemetry};
pub(crate) use access::Access;
pub(crate) use desk::{DeskSettings, DevSettings, ExplainSettings, RunSettings};
pub(crate) use settings::{InitSettings, LintSettings, ServeSettings, TaskSettings};

/// Runs container images as Kubernetes Jobs in answer to Keptn events.
#[derive(Debug, Parser)]
#[command(version, disable_help_subcommand = true, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Receive events, run Jobs, answer Keptn.
    Serve(Box<ServeSettings>),
    /// Run one event from start to end, without a cluster.
    ///
    /// The service itself runs in this process, on an embedded cluster and an embedded Keptn. Tasks are
    /// processes of this machine, or containers of Podman or Docker.
    #[command(after_help = RUN_HELP)]
    Run(Box<RunSettings>),
    /// Be the service for any number of events, without a cluster.
    ///
    /// As `run`, but it listens, and goes on until it is stopped. The files of --resources and --config are
    /// read anew for each event.
    #[command(after_help = DEV_HELP)]
    Dev(Box<DevSettings>),
    /// Say why an event runs what it runs, and print the Jobs.
    ///
    /// Prints YAML: the explanation as comments, then the Jobs as the service would create them.
    #[command(after_help = EXPLAIN_HELP)]
    Explain(Box<ExplainSettings>),
    /// Say what is wrong with job/config.yaml, before an event comes.
    Lint(LintSettings),
    /// Print the JSON Schema of job/config.yaml, for editors.
    #[command(after_help = SCHEMA_HELP)]
    Schema,
    /// Print the completion script of a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Put the files of one task into /keptn (what a Job's init container does).
    Init(Box<InitSettings>),
}

impl Command {
    fn tasks(&self) -> Option<&TaskSettings> {
        match self {
            Self::Serve(settings) => Some(&settings.tasks),
            Self::Run(settings) => Some(&settings.desk.tasks),
            Self::Dev(settings) => Some(&settings.desk.tasks),
            Self::Explain(settings) => Some(settings.tasks()),
            Self::Lint(_) | Self::Schema | Self::Completions { .. } | Self::Init(_) => None,
        }
    }
}

const RUN_HELP: &str = "\
Examples:
  job-executor-service run event.json
  job-executor-service run test-events/events.http --request 3
  job-executor-service run event.json --runtime podman
  job-executor-service run event.json --secret registry=registry.env

Ends with 0 if the run succeeded, 1 if it errored, 2 if a file or flag is wrong,
3 if no action is for the event, 130 if it was interrupted.";

const DEV_HELP: &str = "\
Examples:
  job-executor-service dev --resources .
  curl -X POST localhost:8080/test-events/1
      sends a test event, each time under a new id
  curl -H 'Content-Type: application/cloudevents+json' \\
      -d @event.json localhost:8080";

const EXPLAIN_HELP: &str = "\
Examples:
  job-executor-service explain event.json
  job-executor-service explain event.json | kubectl apply --dry-run=server -f -

Ends with 0 if an action matches, 1 if a task of it is refused, 2 if a file or
flag is wrong, 3 if no action is for the event.";

const SCHEMA_HELP: &str = "\
Examples:
  job-executor-service schema > job-config.schema.json

and as the first line of job/config.yaml
  # yaml-language-server: $schema=./job-config.schema.json";

const COMPLETIONS_HELP: &str = "\
Examples:
  source <(job-executor-service completions bash)
  job-executor-service completions zsh > ~/.zfunc/_job-executor-service
  job-executor-service completions fish | source

The first and the last in the file that the shell reads at its start; the other
in a directory of zsh's fpath.";

/// How a command ended, as its exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Succeeded = 0,
    /// The command, or what it was asked to do, failed.
    Errored = 1,
    /// A file is invalid or cannot be read; clap uses it for a wrong command line.
    BadInput = 2,
    /// No action matches the event.
    NothingMatched = 3,
    /// 128 + SIGINT.
    Interrupted = 130,
}

impl From<RunResult> for Exit {
    fn from(result: RunResult) -> Self {
        match result {
            RunResult::Succeeded => Self::Succeeded,
            RunResult::Errored => Self::Errored,
            RunResult::BadInput => Self::BadInput,
            RunResult::NothingMatched => Self::NothingMatched,
            RunResult::Interrupted => Self::Interrupted,
        }
    }
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
        Err(error) => {
            if error.use_stderr() && is_serve() {
                let told = error.to_string();
                let reason = told.split("\n\n").next().unwrap_or(&told);
                telemetry::fatal(log_format(), reason.trim_start_matches("error: ").trim());
                return ExitCode::from(Exit::BadInput);
            }
            error.exit()
        }
    };
    let format = match &command {
        Command::Serve(settings) => Some(settings.log_format),
        _ => None,
    };
    let result = match command {
        Command::Serve(settings) => serve::main(*settings).map(|()| Exit::Succeeded),
        Command::Run(settings) => local::run(&settings.settled()).map(Exit::from),
        Command::Dev(settings) => local::dev(&settings.settled()).map(|()| Exit::Succeeded),
        Command::Explain(settings) => local::explain::main(&settings.settled()),
        Command::Lint(settings) => lint::main(&settings),
        Command::Completions { shell } => completions(shell).map(|()| Exit::Succeeded),
        Command::Schema => schema().map(|()| Exit::Succeeded),
        Command::Init(settings) => init_container::main(*settings).map(|()| Exit::Succeeded),
    };
    let exit = result.unwrap_or_else(|error| {
        if is_left_alone(&error) {
            return Exit::Succeeded;
        }
        match format {
            Some(format) => telemetry::fatal(format, &format!("{error:#}")),
            None => eprintln!("error: {error:#}"),
        }
        Exit::Errored
    });
    exit.into()
}

/// Whether the command is the one that has a log, where the command line is wrong.
fn is_serve() -> bool {
    std::env::args()
        .nth(1)
        .is_some_and(|command| command == "serve")
}

fn log_format() -> Option<telemetry::Format> {
    let format = std::env::var("LOG_FORMAT").ok()?;
    clap::ValueEnum::from_str(&format, true).ok()
}

/// Whether nobody reads on, as in `explain … | head`.
fn is_left_alone(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut Cli::command(),
        env!("CARGO_PKG_NAME"),
        &mut script,
    );
    std::io::stdout().write_all(&script)?;
    Ok(())
}

fn schema() -> anyhow::Result<()> {
    std::io::stdout().write_all(job_config::SCHEMA.as_bytes())?;
    Ok(())
}

fn command() -> Result<Cli, clap::Error> {
    let matches = unset_where_empty(Cli::command()).try_get_matches()?;
    let cli = Cli::from_arg_matches(&matches);
    let cli = cli.map_err(|error| error.format(&mut Cli::command()))?;
    match cli.command.tasks().map(TaskSettings::check) {
        Some(Err(error)) => Err(Cli::command().error(ErrorKind::ArgumentConflict, error)),
        Some(Ok(())) | None => Ok(cli),
    }
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

/// The variables that `serve` knows.
#[cfg(test)]
pub(crate) fn serve_variables() -> std::collections::BTreeSet<String> {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").into_iter();
    let variables = serve
        .flat_map(clap::Command::get_arguments)
        .filter_map(|arg| arg.get_env());
    variables
        .filter_map(|name| name.to_str().map(str::to_owned))
        .collect()
}

/// The settings of `serve` with these flags.
#[cfg(test)]
pub(crate) fn serve_settings(flags: &[String]) -> ServeSettings {
    match parsed("serve", flags) {
        Command::Serve(settings) => *settings,
        _ => unreachable!(),
    }
}

/// The settings of `run` with these flags, or what is wrong with them.
#[cfg(test)]
pub(crate) fn run_settings(flags: &[&str]) -> Result<RunSettings, String> {
    match try_parsed("run", flags)? {
        Command::Run(settings) => Ok(*settings),
        _ => unreachable!(),
    }
}

/// The settings of `run` with these flags, without an event.
#[cfg(test)]
pub(crate) fn desk_settings(flags: &[String]) -> DeskSettings {
    match parsed("run", &[&["-".to_owned()], flags].concat()) {
        Command::Run(settings) => settings.desk,
        _ => unreachable!(),
    }
}

/// The settings of `dev` with these flags.
#[cfg(test)]
pub(crate) fn dev_settings(flags: &[&str]) -> DevSettings {
    match try_parsed("dev", flags) {
        Ok(Command::Dev(settings)) => *settings,
        _ => unreachable!(),
    }
}

/// The settings of `explain` with these flags.
#[cfg(test)]
pub(crate) fn explain_settings(flags: &[&str]) -> ExplainSettings {
    match try_parsed("explain", flags) {
        Ok(Command::Explain(settings)) => *settings,
        _ => unreachable!(),
    }
}

#[cfg(test)]
fn try_parsed(command: &str, flags: &[&str]) -> Result<Command, String> {
    let arguments = [&["jes", command], flags].concat();
    let parsed = Cli::try_parse_from(arguments);
    parsed
        .map(|cli| cli.command)
        .map_err(|error| error.to_string())
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
    fn default_requests_above_default_limits_stop_the_start() {
        let serve = ["jes", "serve", "--default-resource-limits-cpu=1"];
        let check = |requests: &str| {
            let cli = Cli::try_parse_from(serve.into_iter().chain([requests])).unwrap();
            cli.command.tasks().unwrap().check()
        };
        assert_eq!(check("--default-resource-requests-cpu=1000m"), Ok(()));
        insta::assert_snapshot!(check("--default-resource-requests-cpu=2").unwrap_err(), @"DEFAULT_RESOURCE_REQUESTS_CPU `2` is more than DEFAULT_RESOURCE_LIMITS_CPU `1`, expected at most that: no task without `resources` of its own could run");
    }

    /// clap breaks longer lines, commands among them.
    #[test]
    fn no_line_of_the_help_is_broken() {
        for command in Cli::command().get_subcommands() {
            let more = command.get_after_help().map(ToString::to_string);
            for line in more.unwrap_or_default().lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
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
    fn oauth_that_is_set_up_in_part_stops_the_start() {
        let id = "--oauth-client-id=a";
        let secret = "--oauth-client-secret=b";
        let scopes = "--oauth-scopes=c";
        let server = "--oauth-discovery=https://host/doc";
        let outcome = |flags: &[&str]| {
            let init = ["--file=x", "--configuration-service=http://host"];
            let told = |command: &str, more: &[&str]| {
                let flags = [&["jes", command], more, flags].concat();
                match Cli::try_parse_from(flags) {
                    Ok(_) => "fine".to_owned(),
                    Err(error) => error.to_string().lines().next().unwrap().to_owned(),
                }
            };
            assert_eq!(told("init", &init), told("serve", &[]));
            told("serve", &[])
        };
        let report = [
            outcome(&[]),
            outcome(&[id, secret, scopes, server]),
            outcome(&[id]),
            outcome(&[secret, server]),
            outcome(&[id, secret, server]),
            outcome(&["--auth-mode=oauth"]),
            outcome(&["--auth-mode=Token", id, secret]),
        ];
        insta::assert_snapshot!(report.join("\n"), @"
        fine
        fine
        error: OAuth is not set up, missing: OAUTH_CLIENT_SECRET, OAUTH_SCOPES, OAUTH_TOKEN_URL or OAUTH_DISCOVERY (AUTH_MODE=token goes without OAuth)
        error: OAuth is not set up, missing: OAUTH_CLIENT_ID, OAUTH_SCOPES (AUTH_MODE=token goes without OAuth)
        error: OAuth is not set up, missing: OAUTH_SCOPES (AUTH_MODE=token goes without OAuth)
        error: OAuth is not set up, missing: OAUTH_CLIENT_ID, OAUTH_CLIENT_SECRET, OAUTH_SCOPES, OAUTH_TOKEN_URL or OAUTH_DISCOVERY (AUTH_MODE=token goes without OAuth)
        fine
        ");
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
            error("--oauth-client-secret=a b"),
            error("--oauth-scopes=,"),
            error("--oauth-token-url=http://me:secret@host"),
            error("--keptn-api-endpoint=http://me:secret@host name"),
            error("--http-ssl-verify=maybe"),
            error("--auth-mode=basic"),
            error("--job-namespace=A B"),
            error("--init-container-image=a b"),
        ]
        .join("\n");
        insta::assert_snapshot!(report, @r#"
        error: invalid value 'x' for '--rcv-port <RCV_PORT>': expected a port number from 0 (any free one) to 65535
        error: invalid value 'x' for '--rcv-path <RCV_PATH>': expected a path such as `/` or `/events`, other than /livez, /ready, /readyz and /health
        error: invalid value '1' for '--max-body-bytes <MAX_BODY_BYTES>': expected a number from 1024 to 4194304
        error: invalid value 'localhost:8080' for '--configuration-service <CONFIGURATION_SERVICE>': expected an address such as `http://localhost:8080/path`
        error: invalid value 'x' for '--keptn-event-endpoint <KEPTN_EVENT_ENDPOINT>': relative URL without a base, expected an address such as `http://localhost:8080/path`
        error: invalid value 'lots' for '--default-resource-limits-cpu <DEFAULT_RESOURCE_LIMITS_CPU>': `lots` is no quantity, expected one such as `1`, `50m`, `128Mi` or `1.5Gi`
        error: invalid value 'a[' for '--allowed-image-list <ALLOWED_IMAGE_LIST>': `a[` is no pattern (unclosed character class; missing ']'), expected names with `*`, `?`, `[ab]` or `[!a]`, such as `registry.example.com/*`
        error: invalid value 'maybe' for '--allow-privileged-jobs <ALLOW_PRIVILEGED_JOBS>'
        error: invalid value '5m' for '--task-deadline-seconds <TASK_DEADLINE_SECONDS>': expected a whole number of seconds, 0 for none
        error: invalid value '-x' for '--full-deployment-name <FULL_DEPLOYMENT_NAME>': expected at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends
        error: invalid value '0' for '--max-concurrent-runs <MAX_CONCURRENT_RUNS>': expected a number from 1 to 100000
        error: invalid value 'x=y=z' for '--log-level <LOG_LEVEL>': error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5, expected a level such as `info` or `debug`
        error: invalid value 'loud' for '--log-level <LOG_LEVEL>': `loud` is no level, expected one of off, error, warn, info, debug, trace, or `target=level`
        error: invalid value '64KB' for '--max-answer-bytes <MAX_ANSWER_BYTES>': expected a number from 4096 to 1000000
        error: invalid value for '--configuration-service <CONFIGURATION_SERVICE>': expected an address such as `http://localhost:8080/path`
        error: invalid value for '--keptn-api-token <KEPTN_API_TOKEN>': expected visible ASCII characters without spaces
        error: invalid value for '--oauth-client-secret <OAUTH_CLIENT_SECRET>': expected visible ASCII characters without spaces
        error: invalid value ',' for '--oauth-scopes <OAUTH_SCOPES>': expected scopes such as `openid,keptn`, separated by commas
        error: invalid value for '--oauth-token-url <OAUTH_TOKEN_URL>': expected an address without a user and a password
        error: invalid value for '--keptn-api-endpoint <KEPTN_API_ENDPOINT>': invalid international domain name, expected an address such as `http://localhost:8080/path`
        error: invalid value 'maybe' for '--http-ssl-verify <HTTP_SSL_VERIFY>': expected `true` or `false`
        error: invalid value 'basic' for '--auth-mode <AUTH_MODE>'
        error: invalid value 'A B' for '--job-namespace <JOB_NAMESPACE>': `A B` is no name of a namespace, allowed are at most 63 lower-case letters, digits and `-`, a letter or digit at both ends
        error: invalid value 'a b' for '--init-container-image <INIT_CONTAINER_IMAGE>': `a b` is no container image, expected one such as `alpine:3.20`
        "#);
    }
}
