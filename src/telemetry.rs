//! Log output: JSON for machines, text on a terminal.

mod lines;

use std::io::IsTerminal;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use lines::Lines;
use lines::{now, object};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

/// Checks filter directives without keeping them: the type cannot be cloned.
pub(crate) fn filter(directives: &str) -> Result<String, String> {
    // A bare word is a target to the library, and `loud` would silence everything.
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let bare = |part: &&str| !part.contains('=') && !levels.contains(part);
    if let Some(part) = directives.split(',').map(str::trim).find(bare) {
        return Err(format!(
            "`{part}` is no level, expected one of {}, or `target=level`",
            levels.join(", ")
        ));
    }
    EnvFilter::try_new(directives)
        .map(|_| directives.to_owned())
        .map_err(|error| format!("{error}, expected a level such as `info` or `debug`"))
}

/// An error with its causes, in one line.
pub(crate) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let told = cause.to_string();
        // Some say what their cause is themselves.
        if !text.ends_with(&told) {
            text.push_str(&format!(": {told}"));
        }
        source = cause.source();
    }
    text
}

impl Format {
    /// What was asked for, or what suits whoever reads standard error.
    fn or_by_terminal(format: Option<Self>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        format.unwrap_or(if terminal { Self::Text } else { Self::Json })
    }
}

/// Starts logging to standard error.
pub(crate) fn start(directives: &str, format: Option<Format>) {
    let terminal = std::io::stderr().is_terminal();
    let lines = match Format::or_by_terminal(format) {
        Format::Json => Lines::Json,
        Format::Text if terminal => Lines::Terminal,
        Format::Text => Lines::Text,
    };
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = terminal && std::env::var_os("NO_COLOR").is_none();
    // A second start, as in tests, changes nothing.
    subscriber(filter, lines, colours, std::io::stderr)
        .try_init()
        .ok();
}

pub(crate) fn subscriber<W>(
    filter: EnvFilter,
    lines: Lines,
    colours: bool,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colours)
        .fmt_fields(JsonFields::new())
        .event_format(lines)
        .finish()
}

/// Tells why the process ends, in the form that whoever reads its log expects.
pub(crate) fn fatal(format: Option<Format>, reason: &str) {
    match Format::or_by_terminal(format) {
        Format::Text => eprintln!("error: {reason}"),
        Format::Json => {
            let fields = [
                ("timestamp", now()),
                ("level", "ERROR".into()),
                ("message", reason.into()),
            ];
            eprintln!(
                "{}",
                object(fields.iter().map(|(name, value)| (*name, value)))
            );
        }
    }
}
