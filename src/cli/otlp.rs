//! Where spans are sent, by the variables that OpenTelemetry has for it.

use clap::{ArgMatches, Args, Command, FromArgMatches};
use http::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use reqwest::Url;
use secrecy::SecretString;

use super::value::{Discreet, http_url};
use crate::traces::Collector;

/// What the settings come to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Otlp(pub(crate) Option<Collector>);

#[derive(Debug, Clone, Args)]
#[command(next_line_help = true)]
#[expect(clippy::struct_field_names, reason = "OpenTelemetry names them")]
struct OtlpSettings {
    /// Collector of OpenTelemetry, to which runs are sent as spans (OTLP by HTTP, as protobuf), below
    /// `/v1/traces` [default: none].
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "OTEL_EXPORTER_OTLP_ENDPOINT",
          value_parser = Discreet(http_url))]
    otel_exporter_otlp_endpoint: Option<Url>,

    /// The same with its whole path; wins over the former.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", value_name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
          value_parser = Discreet(http_url))]
    otel_exporter_otlp_traces_endpoint: Option<Url>,

    /// Headers for it, such as credentials: `name=value`, separated by commas, values percent-encoded.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_HEADERS", value_name = "OTEL_EXPORTER_OTLP_HEADERS",
          hide_env_values = true, value_parser = Discreet(headers))]
    otel_exporter_otlp_headers: Option<Headers>,

    /// What the collector knows this service as.
    #[arg(
        long,
        env = "OTEL_SERVICE_NAME",
        value_name = "OTEL_SERVICE_NAME",
        default_value = "job-executor-service"
    )]
    otel_service_name: String,

    /// Whether nothing is sent, whatever the others say.
    #[arg(long, env = "OTEL_SDK_DISABLED", value_name = "OTEL_SDK_DISABLED", default_value = "false",
          ignore_case = true, action = clap::ArgAction::Set)]
    otel_sdk_disabled: Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Disabled {
    True,
    False,
}

/// Their values are secrets.
#[derive(Debug, Clone)]
struct Headers(Vec<(String, SecretString)>);

fn headers(list: &str) -> Result<Headers, String> {
    let pairs = list.split(',').map(str::trim);
    let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let name = HeaderName::try_from(name.trim()).ok()?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        HeaderValue::try_from(value.as_ref()).ok()?;
        Some((name.to_string(), SecretString::from(value.into_owned())))
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    pairs.map(Headers).ok_or_else(|| {
        "expected headers such as `name=value,other=value`, values percent-encoded".into()
    })
}

impl From<OtlpSettings> for Otlp {
    fn from(settings: OtlpSettings) -> Self {
        let base = settings.otel_exporter_otlp_endpoint;
        let url = settings
            .otel_exporter_otlp_traces_endpoint
            .or_else(|| base.map(below));
        let url = url.filter(|_| settings.otel_sdk_disabled == Disabled::False);
        Self(url.map(|url| {
            Collector {
                url,
                headers: settings
                    .otel_exporter_otlp_headers
                    .map_or_else(Vec::new, |headers| headers.0),
                service: settings.otel_service_name,
            }
        }))
    }
}

fn below(mut base: Url) -> Url {
    let path = format!("{}/v1/traces", base.path().trim_end_matches('/'));
    base.set_path(&path);
    base
}

impl Args for Otlp {
    fn augment_args(command: Command) -> Command {
        OtlpSettings::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        OtlpSettings::augment_args_for_update(command)
    }
}

impl FromArgMatches for Otlp {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        OtlpSettings::from_arg_matches(matches).map(Into::into)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
